"""Data whose rows are phrases of whole sentences, as SST-2's are: which sentences there are, and what is part of which.

A phrase of a sentence that is held out says almost all of it, so a slice of rows drawn at random measures how well a
model remembers. Sentences are found again by their words: a whole one is a row that is no proper part of another.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

MIN_WORDS = 6  # of a sentence that may be held out: shorter rows that stand alone are mostly fragments


@dataclass(frozen=True)
class Parts:
    """Whole sentences by their rows, and the rows that are part of each, its own among them."""

    whole: np.ndarray  # int64 [sentences]: the row of each
    rows: np.ndarray  # int64 [n]: those of sentence k are rows[offsets[k] : offsets[k + 1]]
    offsets: np.ndarray  # int64 [sentences + 1]

    def of(self, sentences: np.ndarray) -> np.ndarray:
        """Every row that is part of one of `sentences` (int [m], places in `whole`), once and in order."""
        found = [self.rows[self.offsets[k] : self.offsets[k + 1]] for k in sentences]
        return np.unique(np.concatenate([np.zeros(0, np.int64), *found]))

    def held_out(self, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """(rows of `count` sentences drawn by `seed`, every row that is part of one of them), both in order."""
        drawn = np.random.default_rng(seed).permutation(len(self.whole))[:count]
        return np.sort(self.whole[drawn]), self.of(drawn)


def parts_of(texts: Sequence[str]) -> Parts:
    """The sentences of `texts` with at least MIN_WORDS words, and what is part of them; words are split by spaces.

    The longest come first: whatever is part of one of them is found there, so that nothing is looked for twice.
    Texts that are equal are one sentence, whose row is the first of them.
    """
    words = [text.split() for text in texts]
    rows_of: dict[str, list[int]] = {}
    for row, own in enumerate(words):
        rows_of.setdefault(" ".join(own), []).append(row)
    is_part = np.zeros(len(texts), bool)
    whole, parts = [], []
    for row in sorted(range(len(words)), key=lambda row: -len(words[row])):
        if is_part[row] or len(words[row]) < MIN_WORDS:
            continue
        found = _spans_among(words[row], rows_of)
        is_part[found] = True
        whole.append(row)
        parts.append(found)
    offsets = np.cumsum([0, *map(len, parts)])
    return Parts(np.array(whole, np.int64), np.array([row for found in parts for row in found], np.int64), offsets)


def spans(texts: Iterable[str]) -> set[str]:
    """Whatever stands in one of the texts as some of its words in a row, joined by spaces."""
    split = [text.split() for text in texts]
    return {" ".join(own[i:j]) for own in split for i in range(len(own)) for j in range(i + 1, len(own) + 1)}


def _spans_among(words: list[str], rows_of: dict[str, list[int]]) -> list[int]:
    """The rows whose text is some of these words in a row."""
    return sorted(row for span in spans([" ".join(words)]) for row in rows_of.get(span, ()))
