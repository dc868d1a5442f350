"""Sentences -> token ids, batches of like lengths, padding."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from optim.common.errors import UserError
from optim.common.files import first_line
from optim.data.corpus import Sentences

WINDOW_BATCHES = 50  # sentences are sorted by length inside so many batches, shuffled beyond


@dataclass(frozen=True)
class Tokens:
    """Sentences as token ids, special tokens included, end to end."""

    ids: np.ndarray  # int32 [tokens]
    offsets: np.ndarray  # int64 [n + 1]; sentence i is ids[offsets[i] : offsets[i + 1]]
    labels: np.ndarray  # int32 [n]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each sentence: int64 [n]."""
        return np.diff(self.offsets)

    def sentence(self, i: int) -> np.ndarray:
        """The ids of sentence i: int32 [length]."""
        return self.ids[self.offsets[i] : self.offsets[i + 1]]

    def take(self, index: np.ndarray) -> Tokens:
        """The sentences of `index` (int [m]), in its order."""
        index = np.asarray(index, np.int64)
        lengths = self.lengths[index]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        places = np.arange(offsets[-1]) + np.repeat(self.offsets[index] - offsets[:-1], lengths)
        return Tokens(self.ids[places], offsets, self.labels[index])

    def save(self, path: Path) -> None:
        """Writes an .npz, at once or not at all."""
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        with partial.open("wb") as file:  # a file object, as numpy would add a suffix to a name
            np.savez(file, ids=self.ids, offsets=self.offsets, labels=self.labels)
        os.replace(partial, path)

    @staticmethod
    def load(path: Path) -> Tokens:
        """What `save` wrote."""
        with np.load(path, allow_pickle=False) as arrays:
            return Tokens(arrays["ids"], arrays["offsets"], arrays["labels"])


def tokenize(sentences: Sentences, *, tokenizer_path: Path, max_length: int) -> Tokens:
    """Token ids with the special tokens of the model, cut to `max_length`, never padded."""
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(tokenizer_path))
    except Exception as error:  # the library raises nothing narrower
        raise UserError(f"model: {tokenizer_path} is no readable tokenizer ({first_line(error)}).") from error
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length)
    encoded = [np.array(entry.ids, np.int32) for entry in tokenizer.encode_batch_fast(sentences.texts)]
    offsets = np.concatenate([[0], np.cumsum([len(ids) for ids in encoded])]).astype(np.int64)
    return Tokens(np.concatenate([np.zeros(0, np.int32), *encoded]), offsets, sentences.labels.astype(np.int32))


def bucketed_batches(lengths: np.ndarray, batch_size: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Index arrays that hold every sentence once, those of a batch near in length, in an order drawn from `rng`.

    Sentences are shuffled, sorted by length inside windows of WINDOW_BATCHES batches, cut, and the batches shuffled:
    the padding goes, most of the randomness stays. The one batch that is not full is kept.
    """
    order = rng.permutation(len(lengths))
    window = WINDOW_BATCHES * batch_size
    batches = []
    for start in range(0, len(order), window):
        part = order[start : start + window]
        part = part[np.argsort(lengths[part], kind="stable")]
        batches += [part[i : i + batch_size] for i in range(0, len(part), batch_size)]
    return [batches[i] for i in rng.permutation(len(batches))]


def pad(tokens: Tokens, index: np.ndarray, multiple: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """(ids, mask) of the sentences of `index`: int32 [batch, length], 0 for padding; `multiple` divides length."""
    chosen = tokens.take(index)
    width = -(-int(chosen.lengths.max()) // multiple) * multiple
    real = np.arange(width) < chosen.lengths[:, None]
    ids = np.zeros(real.shape, np.int32)
    ids[real] = chosen.ids
    return ids, real.astype(np.int32)
