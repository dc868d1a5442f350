"""Which rows a fit learns from and how much each weighs, by which it is judged, and when."""

from __future__ import annotations

import math

import numpy as np

from optim.common.errors import UserError
from optim.data.copies import drawn
from optim.data.phrases import Parts


def split(
    count: int,
    *,
    holdout: float,
    minimum: int,
    seed: int,
    parts: Parts | None = None,
    copies: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Indices (fit, held out) of a seeded slice of `count` sentences: `holdout` of them, but at least `minimum`.

    A training set too small for that gives up a fifth instead. Where rows are phrases of whole sentences, `holdout` is
    a fraction of those, and what is part of one that is held out is neither fitted nor held out. copies: int [count],
    texts of one number are the same (`data.copies`), and are held out together or not at all.
    """
    units = len(parts.whole) if parts else count
    held = min(max(round(holdout * units), minimum), units // 5)
    if not held:
        whole = "whole sentences" if parts else "sentences"
        raise UserError(f"data: train has {units} {whole} with a label, and a fit needs 5, to hold one out. Give more.")
    if parts:
        whole, touched = parts.held_out(held, seed)
        return np.setdiff1d(np.arange(count), touched), whole
    order = np.random.default_rng(seed).permutation(count)
    out = np.isin(np.arange(count), order[:held])
    if copies is not None:
        together = np.isin(copies, drawn(copies[order].tolist(), held))
        out = together if together.sum() <= held else out  # else every text has more copies than are to be held out
    return np.flatnonzero(~out), np.flatnonzero(out)


def class_weights(labels: np.ndarray, classes: int, how: str) -> np.ndarray:
    """float32 [classes]: what a sentence of each class weighs in the loss, 1 on average over `labels`, int [n].

    `balanced` makes every class weigh the same, however many sentences it has: for a training set whose shares are
    not those of the texts that the classifier will meet.
    """
    if how == "none":
        return np.ones(classes, np.float32)
    counts = np.bincount(labels, minlength=classes)
    return (len(labels) / (np.count_nonzero(counts) * np.maximum(counts, 1))).astype(np.float32)


def with_copies(rows: np.ndarray, parts: Parts | None, copies: int) -> np.ndarray:
    """`rows`, int64 [n], with those among them that are whole sentences `copies` times."""
    if parts is None or copies == 1:
        return rows
    return np.concatenate([rows, np.repeat(np.intersect1d(parts.whole, rows), copies - 1)])


def unlabelled_rows(parents: np.ndarray | None, labelled: np.ndarray, count: int) -> np.ndarray:
    """Of the sentences without a label, the last of `count` rows, those to learn from: int64 [m].

    parents: int [without a label, 2], -1 for none. A sentence that was made from a row outside `labelled`, one that is
    held out, would show the fit what it is judged by, and is left out.
    """
    if parents is None:
        return np.zeros(0, np.int64)
    seen = np.isin(parents, np.append(labelled, -1)).all(axis=1)
    return count - len(parents) + np.flatnonzero(seen)


def stops(total_steps: int, epoch_steps: int, labelled_steps: int) -> list[int]:
    """The steps after which a fit is judged and kept, the last of them `total_steps`.

    After each epoch; and inside an epoch that is many passes over the labelled sentences long (`labelled_steps` each),
    as often as it holds such passes, evenly.
    """
    pieces = max(1, round(epoch_steps / labelled_steps))
    within = [round(epoch_steps * piece / pieces) for piece in range(1, pieces + 1)]
    ends = [epoch * epoch_steps + end for epoch in range(math.ceil(total_steps / epoch_steps)) for end in within]
    return [*(end for end in ends if end < total_steps), total_steps]
