"""Sentences with labels -> token ids, splits, counts, batches of like lengths.

A source (`glue`, `reviews`, `table`) has `name`, `max_length`, `fingerprint()` (cheap: what its content is pinned by)
and `load(cache_dir)` -> Corpus. The dev split only ever scores: nothing is chosen by it.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import struct
import tarfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from optim import choice
from optim.errors import UserError, require_fraction
from optim.files import first_line, pinned_file
from optim.tables import SUFFIXES, file_sha256, format_of, read_rows

WINDOW_BATCHES = 50  # sentences are sorted by length inside so many batches, shuffled beyond
NO_HUB = "Use data.path=DIR with train.tsv and dev.tsv of GLUE, or data=reviews, which needs no hub."
NO_INDEX = "Use data=csv, or data=sst2 with data.path=DIR."


@dataclass(frozen=True)
class Sentences:
    """Texts and the class of each."""

    texts: list[str]
    labels: np.ndarray  # int32 [n], index into the corpus's label_names


@dataclass(frozen=True)
class Corpus:
    """What a source holds. The digest is over every text, label and name of both splits."""

    name: str
    train: Sentences
    dev: Sentences
    label_names: tuple[str, ...]
    digest: str  # sha256, hexadecimal


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


class Source(Protocol):
    """Where sentences come from."""

    @property
    def name(self) -> str:
        """The name of the data in results."""
        ...

    @property
    def max_length(self) -> int:
        """Longer sentences are cut to so many tokens, special ones included."""
        ...

    def fingerprint(self) -> dict[str, Any]:
        """What fixes the sentences, their labels and their length, without loading them."""
        ...

    def load(self, cache_dir: Path) -> Corpus:
        """The sentences."""
        ...


def glue(
    *, hub_id: str, config: str, revision: str, path: str | None, label_names: Sequence[str], max_length: int
) -> Source:
    """The GLUE task `config` (Wang et al. 2018, arXiv:1804.07461) with columns `sentence` and `label`.

    From the model hub's `hub_id` at `revision`, or from the folder `path` with GLUE's own train.tsv and dev.tsv.
    """
    _check_max_length(max_length)
    return Glue(hub_id, config, revision, None if path is None else Path(path), tuple(label_names), max_length)


def reviews(
    *,
    requirement: str,
    file: str,
    sha256: str,
    archive: str,
    member: str,
    member_sha256: str,
    rating_above: float,
    dev_count: int,
    split_seed: int,
    max_length: int,
) -> Source:
    """Movie-review snippets with the mean of 20 human ratings in [-4, 4] (Hutto & Gilbert 2014, VADER).

    `member` of `archive` of the source archive `file`, which pip downloads as `requirement`. Kept are snippets with
    |rating| > rating_above; positive if the rating is above 0. They are raw snippets of what SST was cut from: a model
    trained on them must not be scored on SST-2.
    """
    _check_max_length(max_length)
    if dev_count < 1:
        raise UserError(f"data.dev_count must be at least 1, got {dev_count}.")
    return Reviews(
        requirement=requirement,
        file=file,
        sha256=sha256,
        archive=archive,
        member=member,
        member_sha256=member_sha256,
        rating_above=rating_above,
        dev_count=dev_count,
        split_seed=split_seed,
        max_length=max_length,
    )


def table(
    *,
    train_path: str | None,
    dev_path: str | None,
    text_column: str,
    label_column: str,
    dev_fraction: float,
    split_seed: int,
    max_length: int,
) -> Source:
    """Any .csv (RFC 4180), .tsv (no quoting: a `"` is a character), .jsonl or .parquet file with any number of classes.

    Without `dev_path`, `dev_fraction` of every class of the training file is held back, the same for a given seed.
    """
    _check_max_length(max_length)
    if train_path is None:
        raise UserError(f"data=csv needs data.train_path=FILE, a {', '.join(SUFFIXES)} file.")
    require_fraction("data.dev_fraction", dev_fraction)
    if dev_path is None and dev_fraction == 0:
        raise UserError("data.dev_fraction must be above 0 without data.dev_path: nothing would be left to score.")
    dev = None if dev_path is None else Path(dev_path)
    return Table(Path(train_path), dev, text_column, label_column, dev_fraction, split_seed, max_length)


def _check_max_length(max_length: int) -> None:
    if max_length < 3:
        raise UserError(f"data.max_length must be at least 3 (two special tokens and a word), got {max_length}.")


@dataclass(frozen=True)
class Glue:
    """A single-sentence GLUE task."""

    hub_id: str
    config: str
    revision: str
    path: Path | None
    label_names: tuple[str, ...]
    max_length: int

    @property
    def name(self) -> str:
        """The task."""
        return self.config

    def fingerprint(self) -> dict[str, Any]:
        """The digests of the local files, or the hub's revision."""
        shared = {"source": "glue", "label_names": list(self.label_names), "max_length": self.max_length}
        if self.path is None:
            return {**shared, "hub_id": self.hub_id, "config": self.config, "revision": self.revision}
        return {
            **shared,
            "train_sha256": file_sha256(self._file("train")),
            "dev_sha256": file_sha256(self._file("dev")),
        }

    def load(self, cache_dir: Path) -> Corpus:
        """Both splits; the test split of GLUE has no labels and is left alone."""
        if self.path is None:
            splits = self._from_hub()
        else:
            splits = {split: read_rows(self._file(split), "sentence", "label") for split in ("train", "dev")}
        ids = {str(label): label for label in range(len(self.label_names))}
        train, dev = (
            _labelled(rows, ids, f"{self.name} {split}", "data.label_names") for split, rows in splits.items()
        )
        return _corpus(self.name, train, dev, self.label_names)

    def _file(self, split: str) -> Path:
        assert self.path is not None
        return self.path.expanduser() / f"{split}.tsv"

    def _from_hub(self) -> dict[str, list[tuple[str, str]]]:
        """Rows of the hub's dataset, out of the cache of `datasets` where the hub cannot be reached."""
        from datasets import config

        reachable, offline = choice.hub_reachable(), config.HF_HUB_OFFLINE
        try:
            # Told that it is offline, `datasets` reads its cache at once instead of retrying for half a minute.
            config.HF_HUB_OFFLINE = not reachable
            loaded = self._dataset(self.hub_id) if reachable else self._cached_dataset()
            return {
                "train": list(zip(loaded["train"]["sentence"], map(str, loaded["train"]["label"]), strict=True)),
                "dev": list(
                    zip(loaded["validation"]["sentence"], map(str, loaded["validation"]["label"]), strict=True)
                ),
            }
        except Exception as error:  # of `datasets`, of the hub's client and of its HTTP library
            raise UserError(self._why_not(error, reachable)) from error
        finally:
            config.HF_HUB_OFFLINE = offline

    def _dataset(self, hub_id: str):
        from datasets import load_dataset

        return load_dataset(hub_id, self.config, revision=self.revision)

    def _cached_dataset(self):
        present, former = choice.hub_names(self.hub_id)
        try:
            return self._dataset(present)
        except (OSError, ValueError):
            return self._dataset(former)

    def _why_not(self, error: Exception, reachable: bool) -> str:
        what = f"data={self.name}: {self.hub_id}/{self.config}"
        if not reachable:
            return f"{what}: {choice.why_no_hub()} and its cache lacks these data. {NO_HUB}"
        return f"{what} could not be loaded from {choice.hub_endpoint()} ({first_line(error)}). {NO_HUB}"


@dataclass(frozen=True)
class Reviews:
    """The movie-review snippets of the vaderSentiment source archive."""

    requirement: str
    file: str
    sha256: str
    archive: str
    member: str
    member_sha256: str
    rating_above: float
    dev_count: int
    split_seed: int
    max_length: int
    name: str = "reviews"

    def fingerprint(self) -> dict[str, Any]:
        """The pin of the snippets and what is made of them."""
        rule = {"rating_above": self.rating_above, "dev_count": self.dev_count, "split_seed": self.split_seed}
        return {"source": "reviews", "sha256": self.member_sha256, **rule, "max_length": self.max_length}

    def load(self, cache_dir: Path) -> Corpus:
        """The snippets; `dev_count` of them held back by a hash of their text."""
        rows = [line.split("\t") for line in self._text(cache_dir).split("\r\n") if line]
        rated = [(text, float(rating)) for _, rating, text in rows if abs(float(rating)) > self.rating_above]
        if self.dev_count >= len(rated):
            raise UserError(
                f"data.dev_count must be below {len(rated)}, all the snippets there are, got {self.dev_count}."
            )
        order = _hash_order([text for text, _ in rated], self.split_seed)
        dev, train = order[: self.dev_count], order[self.dev_count :]
        train, dev = (_reviews_of([rated[i] for i in sorted(part)]) for part in (train, dev))
        return _corpus(self.name, train, dev, ("negative", "positive"))

    def _text(self, cache_dir: Path) -> str:
        """The snippets' file, read out of two archives without unpacking or running anything."""
        outer = pinned_file(
            cache_dir, requirement=self.requirement, file=self.file, sha256=self.sha256, way_out=NO_INDEX
        )
        inner = _tar_member(outer.read_bytes(), self.archive, self.file)
        content = _tar_member(inner, self.member, self.archive)
        found = hashlib.sha256(content).hexdigest()
        if found != self.member_sha256:
            raise UserError(
                f"data=reviews: {self.member}: expected sha256 {self.member_sha256}, found {found}. {NO_INDEX}"
            )
        return content.decode("utf-8")


def _reviews_of(rated: list[tuple[str, float]]) -> Sentences:
    return Sentences([text for text, _ in rated], np.array([rating > 0 for _, rating in rated], np.int32))


def _tar_member(archive: bytes, name: str, origin: str) -> bytes:
    """The content of the one file in a .tar.gz whose path ends with /`name`."""
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
        for member in tar:
            if member.isfile() and f"/{member.name}".endswith(f"/{name}"):
                file = tar.extractfile(member)
                assert file is not None  # a regular file
                return file.read()
    raise UserError(f"data=reviews: {origin} holds no {name}. {NO_INDEX}")


@dataclass(frozen=True)
class Table:
    """The user's own files."""

    train_path: Path
    dev_path: Path | None
    text_column: str
    label_column: str
    dev_fraction: float
    split_seed: int
    max_length: int
    name: str = "csv"

    def fingerprint(self) -> dict[str, Any]:
        """The digests of the files and how they are read."""
        files = (
            {"train": self.train_path} if self.dev_path is None else {"train": self.train_path, "dev": self.dev_path}
        )
        split = {"dev_fraction": self.dev_fraction, "split_seed": self.split_seed} if self.dev_path is None else {}
        return {
            "source": "table",
            **{f"{key}_sha256": file_sha256(path.expanduser()) for key, path in files.items()},
            "formats": [format_of(path) for path in files.values()],
            "columns": [self.text_column, self.label_column],
            **split,
            "max_length": self.max_length,
        }

    def load(self, cache_dir: Path) -> Corpus:
        """Both files, or one file and a slice of it. Classes are sorted: by number if all labels are whole numbers."""
        rows = self._rows(self.train_path)
        names = _sorted_labels({label for _, label in rows})
        if len(names) < 2:
            only = next(iter(names))
            raise UserError(
                f"data.label_column: {self.train_path} has a single class, {only!r} in {self.label_column!r}. "
                "A classifier needs two."
            )
        ids = {name: i for i, name in enumerate(names)}
        if self.dev_path is None:
            train_rows, dev_rows = _stratified(rows, self.dev_fraction, self.split_seed)
        else:
            train_rows, dev_rows = rows, self._rows(self.dev_path)
        train = _labelled(train_rows, ids, str(self.train_path), "train")
        return _corpus(self.name, train, _labelled(dev_rows, ids, str(self.dev_path), "train"), names)

    def _rows(self, path: Path) -> list[tuple[str, str]]:
        return read_rows(path.expanduser(), self.text_column, self.label_column)


def _sorted_labels(labels: set[str]) -> tuple[str, ...]:
    """Class names in the order of their ids: by value if all are whole numbers, else by spelling."""
    if all(re.fullmatch(r"[+-]?\d+", label) for label in labels):
        return tuple(sorted(labels, key=lambda label: (int(label), label)))
    return tuple(sorted(labels))


def _labelled(rows: list[tuple[str, str]], ids: dict[str, int], origin: str, known_by: str) -> Sentences:
    """Sentences with the ids of their labels. Raises UserError naming the labels that have none."""
    unknown = sorted({label for _, label in rows} - set(ids))
    if unknown:
        more = " ..." if len(unknown) > 5 else ""
        raise UserError(
            f"data: {origin} has labels that {known_by} has not: {', '.join(map(repr, unknown[:5]))}{more}. "
            f"Known: {', '.join(map(repr, list(ids)[:10]))}."
        )
    return Sentences([text for text, _ in rows], np.array([ids[label] for _, label in rows], np.int32))


def _hash_order(texts: list[str], seed: int) -> list[int]:
    """The indices of `texts` in the order of a seeded hash: the same on every machine, and equal texts side by side."""
    keys = [hashlib.sha256(f"{seed}\t{text}".encode()).digest() for text in texts]
    return sorted(range(len(texts)), key=lambda i: (keys[i], i))


def _stratified(
    rows: list[tuple[str, str]], fraction: float, seed: int
) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """(train, dev): `fraction` of every class in dev, at least one sentence, and never the last of a class.

    Copies of a text go to the same side, so that dev holds nothing that was trained on.
    """
    order = _hash_order([text for text, _ in rows], seed)
    dev: set[int] = set()
    for label, count in Counter(label for _, label in rows).items():
        members = [i for i in order if rows[i][1] == label]
        cut = max(1, round(fraction * count))
        while cut < count and rows[members[cut]][0] == rows[members[cut - 1]][0]:
            cut += 1
        if cut < count:
            dev.update(members[:cut])
    if not dev:
        raise UserError(f"data.dev_fraction={fraction:g} of {len(rows)} rows leaves none for dev. Give data.dev_path.")
    return [row for i, row in enumerate(rows) if i not in dev], [row for i, row in enumerate(rows) if i in dev]


def _corpus(name: str, train: Sentences, dev: Sentences, label_names: tuple[str, ...]) -> Corpus:
    """The checked corpus with its digest. Raises UserError for an empty split or a single class."""
    for split, sentences in (("train", train), ("dev", dev)):
        if not sentences.texts:
            raise UserError(f"data={name}: the {split} split has no sentences.")
    if len(np.unique(train.labels)) < 2:
        only = label_names[int(train.labels[0])]
        raise UserError(f"data={name}: train has a single class, {only!r}. A classifier needs two.")
    return Corpus(name, train, dev, label_names, _digest(train, dev, label_names))


def _digest(train: Sentences, dev: Sentences, label_names: tuple[str, ...]) -> str:
    """sha256 over names, texts and labels, each list with its sizes, so that no two corpora share a byte string."""
    digest = hashlib.sha256()
    for texts in (list(label_names), train.texts, dev.texts):
        digest.update(struct.pack("<q", len(texts)))
        for text in texts:
            raw = text.encode("utf-8", "surrogatepass")
            digest.update(struct.pack("<q", len(raw)) + raw)
    for sentences in (train, dev):
        digest.update(sentences.labels.astype("<i4").tobytes())
    return digest.hexdigest()


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


def median_length(tokens: Tokens) -> int:
    """The median number of tokens of a sentence, special ones included, rounded up."""
    return int(np.ceil(np.median(tokens.lengths)))


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
