"""Logits and labels -> accuracy, its interval, and the scores that forgive no class; whether a difference is real."""

from __future__ import annotations

import math

import numpy as np

from optim.common.errors import UserError

SIGNIFICANT = 0.05  # p below which a difference counts
Z95 = 1.959963984540054  # 97.5 % point of the normal distribution: two-sided 95 %


def scores(logits: np.ndarray, labels: np.ndarray) -> dict[str, float | int]:
    """Everything about the answers: accuracy_fraction of examples, ci95_low, ci95_high, mcc, macro_f1.

    logits: float [n, classes]. labels: int [n]. The prediction is the first of the largest logits.
    Raises UserError if there is nothing to score, or labels and logits do not belong together.
    """
    table = confusion(labels, logits.argmax(axis=1), logits.shape[1])
    correct, examples = int(np.trace(table)), int(table.sum())
    low, high = wilson(correct, examples)
    return {
        "accuracy_fraction": correct / examples,
        "examples": examples,
        "ci95_low": low,
        "ci95_high": high,
        "mcc": matthews(table),
        "macro_f1": macro_f1(table),
    }


def confusion(labels: np.ndarray, predictions: np.ndarray, classes: int) -> np.ndarray:
    """int [classes, classes]: how often label (row) was answered with prediction (column)."""
    if len(labels) == 0 or len(labels) != len(predictions):
        raise UserError(f"Nothing to score: {len(labels)} labels for {len(predictions)} predictions.")
    if min(labels.min(), predictions.min()) < 0 or max(labels.max(), predictions.max()) >= classes:
        raise UserError(f"Labels run from {labels.min()} to {labels.max()}, but the model knows {classes} classes.")
    pairs = labels.astype(np.int64) * classes + predictions
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def wilson(correct: int, examples: int) -> tuple[float, float]:
    """Wilson's 95 % interval of correct / examples (Wilson 1927); it stays in [0, 1], also for 0 or all correct.

    It tells how far another sample of sentences could move the figure; another training seed moves it too.
    """
    share, z2 = correct / examples, Z95**2 / examples
    centre = (share + z2 / 2) / (1 + z2)
    half = Z95 / (1 + z2) * math.sqrt(share * (1 - share) / examples + z2 / (4 * examples))
    return max(0.0, centre - half), min(1.0, centre + half)


def matthews(table: np.ndarray) -> float:
    """Matthews correlation of a confusion table with any number of classes (Gorodkin 2004), in [-1, 1].

    0 where it is undefined: all labels or all predictions are one class.
    """
    total, answered, true = int(table.sum()), table.sum(axis=0), table.sum(axis=1)
    over = int(np.trace(table)) * total - int(answered @ true)
    under = (total**2 - int(answered @ answered)) * (total**2 - int(true @ true))
    return over / math.sqrt(under) if under else 0.0


def macro_f1(table: np.ndarray) -> float:
    """Mean F1 of the classes that have examples, 0 for one that is never hit.

    A class without examples has no recall, so it has no share in the mean (scikit-learn would count 0 for it where
    it was predicted); sentences wrongly given to it still cost their own classes.
    """
    hits, answered, true = np.diag(table), table.sum(axis=0), table.sum(axis=1)
    seen = true > 0
    return float(np.mean(2 * hits[seen] / (answered[seen] + true[seen])))


def agreement(logits: np.ndarray, other: np.ndarray) -> float:
    """Fraction of sentences that two models answer alike. Both float [n, classes], same order."""
    if logits.shape != other.shape or len(logits) == 0:
        raise UserError(f"Logits to compare must have one shape, got {logits.shape} and {other.shape}.")
    return float(np.mean(logits.argmax(axis=1) == other.argmax(axis=1)))


def mcnemar(first: np.ndarray, second: np.ndarray) -> float:
    """p of McNemar's exact two-sided test (McNemar 1947): could both be right equally often?

    first, second: bool [n], right or wrong on the same sentences. Only sentences on which they differ count: b that
    the first alone has right, c the second alone; p = P(a fair coin falls at least as unevenly in b + c throws).
    """
    from scipy.special import bdtr  # scipy.stats has this test too, and takes a second to import

    b, c = int(np.sum(first & ~second)), int(np.sum(~first & second))
    return min(1.0, 2 * float(bdtr(min(b, c), b + c, 0.5)))


def paired_change(before: np.ndarray, after: np.ndarray) -> tuple[float, float, float]:
    """(change of accuracy, low, high) in percentage points: 95 %, of two models on the same sentences.

    before, after: bool [n], right or wrong. The interval is Agresti's and Min's (2005, Statistics in Medicine 24): half
    a sentence is added to each of the four outcomes, so that no change at all has an interval too.
    """
    n, lost, won = len(before), int(np.sum(before & ~after)), int(np.sum(~before & after))
    total, b, c = n + 2, lost + 0.5, won + 0.5
    centre, half = (c - b) / total, Z95 * math.sqrt(b + c - (c - b) ** 2 / total) / total
    return 100 * (won - lost) / n, 100 * (centre - half), 100 * (centre + half)
