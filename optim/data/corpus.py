"""Sentences with labels: what every source of `conf/data` gives, checked and with a digest.

A source (`glue`, `hf`, `reviews`, `table`) has `name`, `max_length`, `fingerprint()` (cheap: what its content is pinned
by) and `load(cache_dir)` -> Corpus. The dev split only ever scores: nothing is chosen by it.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from optim.common.errors import UserError, shown
from optim.data.copies import copies_of


@dataclass(frozen=True)
class Sentences:
    """Texts and the class of each."""

    texts: list[str]
    labels: np.ndarray  # int32 [n], index into the corpus's label_names

    def take(self, rows: np.ndarray) -> Sentences:
        """Those of `rows` (int [m]), in its order."""
        return Sentences([self.texts[row] for row in rows], self.labels[rows])


@dataclass(frozen=True)
class Corpus:
    """What a source holds. The digest is over every text, label and name of both splits."""

    name: str
    train: Sentences
    dev: Sentences
    label_names: tuple[str, ...]
    digest: str  # sha256, hexadecimal
    phrases: bool = False  # train's rows are whole sentences and phrases of them (`phrases.py`)

    @cached_property
    def copies(self) -> np.ndarray | None:
        """Which rows of train are one text; None where all differ."""
        return copies_of(self.train.texts)


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


def _check_max_length(max_length: int) -> None:
    if max_length < 3:
        raise UserError(f"data.max_length must be at least 3 (two special tokens and a word), got {max_length}.")


def _labelled(rows: list[tuple[str, str]], ids: dict[str, int], origin: str, known_by: str) -> Sentences:
    """Sentences with the ids of their labels. Raises UserError naming the labels that have none."""
    unknown = sorted({label for _, label in rows} - set(ids))
    if unknown:
        more = " ..." if len(unknown) > 5 else ""
        raise UserError(
            f"data: {origin} has labels that {known_by} has not: {', '.join(map(shown, unknown[:5]))}{more}. "
            f"Known: {', '.join(map(shown, list(ids)[:10]))}."
        )
    return Sentences([text for text, _ in rows], np.array([ids[label] for _, label in rows], np.int32))


def _hash_order(texts: list[str], seed: int) -> list[int]:
    """The indices of `texts` in the order of a seeded hash: the same on every machine, and equal texts side by side."""
    keys = [hashlib.sha256(f"{seed}\t{text}".encode()).digest() for text in texts]
    return sorted(range(len(texts)), key=lambda i: (keys[i], i))


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
