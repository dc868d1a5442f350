"""Sentences -> token ids, batches of like lengths, padding."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from optim.common.errors import UserError
from optim.common.files import first_line
from optim.data.corpus import Sentences

if TYPE_CHECKING:
    from tokenizers import Tokenizer

UNLABELLED = -1
BLOCK = 10_000  # sentences tokenized at once: the library's answer for each takes a kilobyte
LENGTHS = 8  # what divides the length of a batch: few lengths, few graphs
WINDOW_BATCHES = 50  # sentences are sorted by length inside so many batches, shuffled beyond


@dataclass(frozen=True)
class Tokens:
    """Sentences as token ids, special tokens included, end to end."""

    ids: np.ndarray  # int32 [tokens]
    offsets: np.ndarray  # int64 [n + 1]; sentence i is ids[offsets[i] : offsets[i + 1]]
    labels: np.ndarray  # int32 [n]; UNLABELLED for a sentence that only teachers answer

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each sentence: int64 [n]."""
        return np.diff(self.offsets)

    def length_counts(self) -> list[int]:
        """How many sentences have 0, 1, 2, ... tokens."""
        return np.bincount(self.lengths).tolist()

    def sentence(self, i: int) -> np.ndarray:
        """The ids of sentence i: int32 [length]."""
        return self.ids[self.offsets[i] : self.offsets[i + 1]]

    def made_of(self, ids: np.ndarray) -> np.ndarray:
        """bool [n]: whether all tokens of a sentence are among `ids`."""
        strange = np.concatenate([[0], np.cumsum(~np.isin(self.ids, ids))])
        return strange[self.offsets[1:]] == strange[self.offsets[:-1]]

    def take(self, index: np.ndarray) -> Tokens:
        """The sentences of `index` (int [m]), in its order."""
        index = np.asarray(index, np.int64)
        starts = self.offsets[index]
        lengths = self.offsets[index + 1] - starts
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        return Tokens(self.ids[places(starts, lengths)], offsets, self.labels[index])

    def save(self, path: Path) -> None:
        """Writes an .npz."""
        np.savez(path, ids=self.ids, offsets=self.offsets, labels=self.labels)

    @staticmethod
    def load(path: Path) -> Tokens:
        """What `save` wrote."""
        with np.load(path, allow_pickle=False) as arrays:
            return Tokens(arrays["ids"], arrays["offsets"], arrays["labels"])


def places(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The places of the stretches [start, start + length), end to end: int64 [sum of lengths]."""
    before = np.cumsum(lengths) - lengths
    return np.arange(lengths.sum()) + np.repeat(starts - before, lengths)


def joined(parts: Sequence[Tokens]) -> Tokens:
    """The sentences of all parts, one part after another."""
    ends = np.cumsum([0, *(len(part.ids) for part in parts)])
    offsets = [part.offsets[1:] + end for part, end in zip(parts, ends, strict=False)]
    return Tokens(
        np.concatenate([part.ids for part in parts]),
        np.concatenate([[0], *offsets]).astype(np.int64),
        np.concatenate([part.labels for part in parts]),
    )


def read_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer of a tokenizer.json. Raises UserError for a file that is none."""
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing narrower
        raise UserError(f"model: {path} is no readable tokenizer ({first_line(error)}).") from error


def tokenize(sentences: Sentences, *, tokenizer_path: Path, max_length: int) -> Tokens:
    """Token ids with the special tokens of the model, cut to `max_length`, never padded."""
    texts = sentences.texts
    blocks = (texts[start : start + BLOCK] for start in range(0, len(texts), BLOCK))
    found = tokenize_blocks(blocks, tokenizer_path=tokenizer_path, max_length=max_length)
    return Tokens(found.ids, found.offsets, sentences.labels.astype(np.int32))


def tokenize_blocks(blocks: Iterable[list[str]], *, tokenizer_path: Path, max_length: int,
                    progress: Callable[[int], object] = lambda done: None) -> Tokens:  # fmt: skip
    """As `tokenize`, of sentences without labels that come some at a time; `progress` is told how many were done."""
    tokenizer = read_tokenizer(tokenizer_path)
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length)
    ids, lengths = [np.zeros(0, np.int32)], [np.zeros(0, np.int64)]
    for texts in blocks:
        try:
            entries = tokenizer.encode_batch_fast(texts)
        except Exception as error:  # for one, of a WordPiece without a piece for what it cannot spell
            raise UserError(f"model: {tokenizer_path} cannot read the sentences ({first_line(error)}).") from error
        encoded = [np.array(entry.ids, np.int32) for entry in entries]
        ids.append(np.concatenate([np.zeros(0, np.int32), *encoded]))
        lengths.append(np.array([len(one) for one in encoded], np.int64))
        progress(len(texts))
    offsets = np.concatenate([[0], np.cumsum(np.concatenate(lengths))]).astype(np.int64)
    return Tokens(np.concatenate(ids), offsets, np.full(len(offsets) - 1, UNLABELLED, np.int32))


def unknown_id(tokenizer_path: Path) -> int | None:
    """The id of the token that stands for what cannot be spelled; None for a tokenizer that spells everything."""
    content = json.loads(tokenizer_path.read_text(encoding="utf-8"))
    model = content["model"]
    if isinstance(model.get("vocab"), list):  # of Unigram
        return model.get("unk_id")
    return model.get("vocab", {}).get(model.get("unk_token"))


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


def pad(tokens: Tokens, index: np.ndarray, multiple: int = LENGTHS) -> tuple[np.ndarray, np.ndarray]:
    """(ids, mask) of the sentences of `index`: int32 [batch, length], 0 for padding; `multiple` divides length."""
    chosen = tokens.take(index)
    width = -(-int(chosen.lengths.max()) // multiple) * multiple
    real = np.arange(width) < chosen.lengths[:, None]
    ids = np.zeros(real.shape, np.int32)
    ids[real] = chosen.ids
    return ids, real.astype(np.int32)
