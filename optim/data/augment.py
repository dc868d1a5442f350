"""Sentences made from the training sentences alone, for the teachers to answer.

After the data augmentation of TinyBERT (Jiao et al. 2019, arXiv:1909.10351, Algorithm 1), by the means at hand: words
become near words of an encoder's own embedding table, words are left out, and phrases of two sentences are joined.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from optim.common.errors import UserError, require_count, require_fraction, require_seed
from optim.data.tokens import places
from optim.data.transfer import NOBODY, Block

VERSION = 1  # raised when the same settings make other sentences
MOST_COPIES = 20  # of each training sentence, as many as TinyBERT made
COMMON = 2e-3  # share of all words above which a word is replaced less often
FEW_WORDS = 3  # a sentence of fewer loses none
PHRASE_WORDS = 2  # a phrase of fewer is not joined
ALL, TRAIN = "all", "train"  # the words that a word may become
ROWS = 512  # of the table, multiplied at once
CORE = re.compile(r"(\W*)([^\W\d_]{2,})(\W*)")  # a word of letters alone, in whatever punctuation
END = re.compile(r".*[,;:.!?]|[^\w]+")  # what ends a phrase


@dataclass(frozen=True, kw_only=True)
class Augment:
    """`distill.augment`: how many sentences are made, and how far they are from those of train."""

    copies: int  # for each training sentence; 0: none
    least_words: int  # of a training sentence that is copied; 0: all are
    replace: float  # chance of a rare word to become another
    neighbours: int  # how many near words it may become
    words: str  # which those are of: all that the encoder knows, or those that stand in train
    drop: float  # chance of a word to be left out
    join: float  # fraction that joins a phrase with one of another sentence
    seed: int

    def __post_init__(self) -> None:
        if not 0 <= self.copies <= MOST_COPIES:
            raise UserError(f"distill.augment.copies must be from 0 (none) to {MOST_COPIES}, got {self.copies}.")
        if self.least_words < 0:
            raise UserError(f"distill.augment.least_words must be 0 (all are copied) or more, got {self.least_words}.")
        for name in ("replace", "drop", "join"):
            require_fraction(f"distill.augment.{name}", getattr(self, name), one=True)
        require_count("distill.augment.neighbours", self.neighbours)
        if self.words not in (ALL, TRAIN):
            raise UserError(f"distill.augment.words must be {ALL} or {TRAIN}, got {self.words!r}.")
        require_seed("distill.augment.seed", self.seed)
        if self.copies and not self.replace + self.drop + self.join:
            raise UserError("distill.augment: replace, drop and join are all 0, so every copy would be its original.")


def nearest(table: np.ndarray, wanted: np.ndarray, count: int, among: np.ndarray | None = None) -> np.ndarray:
    """The rows of `table` nearest to each of the rows `wanted` by cosine, itself left out: int32 [wanted, count].

    among: the rows that they may be, int; None: all. The nearest comes first.
    A block of rows at a time: a table of 30,000 words takes 60 MB beside itself.
    """
    unit = table / np.maximum(np.linalg.norm(table, axis=1, keepdims=True), 1e-12)
    among = np.arange(len(table)) if among is None else among
    others = unit[among]
    count = max(1, min(count, len(among) - 1))  # a word that has no other stays
    out = np.zeros((len(wanted), count), np.int32)
    for start in range(0, len(wanted), ROWS):
        rows = wanted[start : start + ROWS]
        cosine = unit[rows] @ others.T
        cosine[rows[:, None] == among] = -np.inf
        near = np.argpartition(-cosine, count - 1, axis=1)[:, :count]
        order = np.argsort(-np.take_along_axis(cosine, near, 1), axis=1, kind="stable")
        out[start : start + ROWS] = among[np.take_along_axis(near, order, 1)]
    return out


class Sentences:
    """Texts as the numbers of their words, which are what stands between blanks, and their phrases."""

    def __init__(self, texts: Sequence[str]) -> None:
        numbers: dict[str, int] = {}
        rows = [[numbers.setdefault(word, len(numbers)) for word in text.split()] for text in texts]
        self.words = list(numbers)
        self.lengths = np.array([len(row) for row in rows], np.int64)
        self.starts = np.cumsum(self.lengths) - self.lengths
        self.ids = np.array([number for row in rows for number in row], np.int32)
        self._find_phrases()

    def __len__(self) -> int:
        return len(self.lengths)

    def _find_phrases(self) -> None:
        """The stretches that punctuation ends, where they have PHRASE_WORDS."""
        ends = np.array([bool(END.fullmatch(word)) for word in self.words], bool)[self.ids]
        ends[(self.starts + self.lengths - 1)[self.lengths > 0]] = True
        stops = np.flatnonzero(ends) + 1
        starts = np.concatenate([[0], stops[:-1]]).astype(np.int64)[: len(stops)]
        long = stops - starts >= PHRASE_WORDS
        self.phrase_starts, self.phrase_lengths = starts[long], (stops - starts)[long]
        owners = np.searchsorted(self.starts + self.lengths, self.phrase_starts, side="right")
        self.phrase_counts = np.bincount(owners, minlength=len(self))
        self.first_phrases = np.cumsum(self.phrase_counts) - self.phrase_counts

    def phrases(self, rows: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """(start, length) of a phrase of each row, drawn from its own; the whole row where it has none."""
        starts, lengths = self.starts[rows].copy(), self.lengths[rows].copy()
        drawn = self.first_phrases[rows] + (rng.random(len(rows)) * self.phrase_counts[rows]).astype(np.int64)
        some = self.phrase_counts[rows] > 0
        starts[some], lengths[some] = self.phrase_starts[drawn[some]], self.phrase_lengths[drawn[some]]
        return starts, lengths


class Neighbours:
    """For every word of some sentences, what it may become and how often it is replaced.

    A word is replaced if it has letters alone and the encoder knows it as a whole. A word whose share of all words is
    above COMMON is replaced COMMON / share as often: those are mostly `the`, `of`, `and`. Numbers, `n't`, words of
    several pieces (most names) and punctuation stay.
    """

    def __init__(self, sentences: Sentences, known: Sequence[str], table: np.ndarray, rules: Augment) -> None:
        places_of = {word: i for i, word in enumerate(known)}
        self.parts = [CORE.fullmatch(word) for word in sentences.words]
        self.rows = np.array([_place(part, places_of) for part in self.parts], np.int64)
        wanted, self.row_of = np.unique(self.rows, return_inverse=True)
        own = wanted[wanted >= 0]  # there may be none, and then no word is replaced
        among = own if rules.words == TRAIN and len(own) else None
        self.known, self.near = known, nearest(table, wanted, rules.neighbours, among)  # that of -1 is never asked for
        counts = np.bincount(sentences.ids, minlength=len(sentences.words))
        shares = np.maximum(counts / max(len(sentences.ids), 1), 1e-12)
        rarity = np.minimum(1.0, COMMON / shares)
        self.chance = np.where(self.rows >= 0, rules.replace * rarity, 0.0)
        self.capital = np.array([part is not None and part[2][0].isupper() for part in self.parts], bool)

    def draw(self, ids: np.ndarray, rng: np.random.Generator) -> list[str]:
        """A near word for each of the words `ids`, in its punctuation and case; the nearer, the likelier.

        Of k neighbours the i-th is drawn with chance sqrt(i / k) - sqrt((i - 1) / k).
        """
        ranks = (rng.random(len(ids)) ** 2 * self.near.shape[1]).astype(np.int64)
        drawn = self.near[self.row_of[ids], ranks].tolist()
        return [self._dressed(word, near) for word, near in zip(ids.tolist(), drawn, strict=True)]

    def _dressed(self, word: int, near: int) -> str:
        part = self.parts[word]
        assert part is not None
        before, core, after = part.groups()
        text = self.known[near]
        return before + (text.capitalize() if core[0].isupper() and text.islower() else text) + after


def _place(part: re.Match[str] | None, places_of: dict[str, int]) -> int:
    """The number of a word's letters among the words that the encoder knows, as they are or in lower case; else -1."""
    if part is None:
        return -1
    return places_of.get(part[2], places_of.get(part[2].lower(), -1))


class Maker:
    """Makes one sentence from each training sentence that is long enough, as often as it is asked."""

    def __init__(self, texts: Sequence[str], known: Sequence[str], table: np.ndarray, rules: Augment) -> None:
        """known, table: words that an encoder knows as a whole, and their embeddings, float [words, width]."""
        self.sentences, self.rules = Sentences(texts), rules
        self.copied = np.flatnonzero(self.sentences.lengths >= rules.least_words)  # rows
        self.neighbours = Neighbours(self.sentences, known, table, rules)

    def blocks(self) -> Iterator[Block]:
        """A block for each copy: one sentence of every training sentence that is copied."""
        for number in range(self.rules.copies):
            yield self.copy(number)

    def copy(self, number: int) -> Block:
        """Copy `number` of every training sentence that is copied: drawn by (seed, number)."""
        rng = np.random.default_rng([self.rules.seed, number])
        starts, lengths, parents = self._spans(rng)
        ids = self.sentences.ids[places(starts.ravel(), lengths.ravel())]
        owners = np.repeat(np.arange(len(parents)), lengths.sum(axis=1))
        kept, changed = self._choose(ids, owners, parents, rng)
        words = list(map(self.sentences.words.__getitem__, ids.tolist()))
        at = np.flatnonzero(changed)
        for place, word in zip(at.tolist(), self.neighbours.draw(ids[at], rng), strict=True):
            words[place] = word
        words = [words[place] for place in np.flatnonzero(kept).tolist()]
        stops = np.cumsum(np.bincount(owners[kept], minlength=len(parents))).tolist()
        return Block([" ".join(words[a:b]) for a, b in zip([0, *stops[:-1]], stops, strict=True)], parents)

    def _spans(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(starts, lengths, parents), [n, 2] each: the stretches of words that each sentence begins with.

        The whole sentence and nothing; or, where it is joined, a phrase of it and one of another.
        """
        rows, count = self.copied, len(self.copied)
        others = rows[(np.arange(count) + rng.integers(1, max(count, 2), count)) % count]
        joined = (rng.random(count) < self.rules.join) & (others != rows)
        spans = [self.sentences.phrases(of, rng) for of in (rows, others)]
        starts = np.stack([np.where(joined, spans[0][0], self.sentences.starts[rows]), spans[1][0]], axis=1)
        whole = self.sentences.lengths[rows]
        lengths = np.stack([np.where(joined, spans[0][1], whole), np.where(joined, spans[1][1], 0)], axis=1)
        parents = np.stack([rows, np.where(joined, others, NOBODY)], axis=1).astype(np.int32)
        return starts, lengths, parents

    def _choose(self, ids: np.ndarray, owners: np.ndarray, parents: np.ndarray,
                rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
        """(kept, changed), bool for each word. A word is left out or replaced by chance, a capital inside a sentence
        is left alone (a name, mostly), and a sentence that would stay as it was has one word replaced.
        """
        lengths = np.bincount(owners, minlength=len(parents))
        kept = (rng.random(len(ids)) >= self.rules.drop) | (lengths[owners] < FEW_WORDS)
        kept |= (np.bincount(owners[kept], minlength=len(parents)) == 0)[owners]
        first = np.concatenate([[True], owners[1:] != owners[:-1]])[: len(owners)]
        chance = np.where(self.neighbours.capital[ids] & ~first, 0.0, self.neighbours.chance[ids])
        changed = kept & (rng.random(len(ids)) < chance)
        touched = (parents[:, 1] != NOBODY) | (np.bincount(owners, changed | ~kept, minlength=len(parents)) > 0)
        changed[_one_of_each(owners, np.where(touched[owners], 0.0, chance), rng)] = True
        return kept, changed


def _one_of_each(owners: np.ndarray, chance: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One place of each owner that has any with a chance above 0, drawn in proportion to it."""
    at = np.flatnonzero(chance)
    order = at[np.lexsort((rng.exponential(size=len(at)) / chance[at], owners[at]))]
    return order[np.unique(owners[order], return_index=True)[1]]
