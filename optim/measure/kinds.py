"""Which sentences a file gets wrong: by class, by length, and where it differs from its teacher."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from optim.measure.quality import mcnemar, paired_change, wilson

PARTS = 4  # by length: as many sentences in each as equal lengths allow


def by_class(table: np.ndarray, names: Sequence[str]) -> list[dict[str, Any]]:
    """Of each class: label, examples, answered (how often it was the answer), precision, recall and f1.

    table: int [classes, classes], as `quality.confusion` has it. A share without anything to divide by is None.
    """
    answered, examples, hits = table.sum(axis=0), table.sum(axis=1), np.diag(table)
    return [
        {"label": name, "examples": int(n), "answered": int(a), "precision": _share(h, a), "recall": _share(h, n),
         "f1": _share(2 * h, a + n)}
        for name, n, a, h in zip(names, examples, answered, hits, strict=True)
    ]  # fmt: skip


def _share(part: int, whole: int) -> float | None:
    return float(part / whole) if whole else None


def by_kind(
    right: np.ndarray, teacher_right: np.ndarray, labels: np.ndarray, lengths: np.ndarray, names: Sequence[str]
) -> list[dict[str, Any]]:
    """Accuracy of every class and of PARTS of the lengths beside the teacher's: whether some kind loses more.

    right, teacher_right: bool [n]. labels: int [n]. lengths: int [n], in tokens. Each has kind, value, examples,
    accuracy_fraction with ci95_low and ci95_high, teacher_accuracy_fraction, change_points with its 95 % interval
    change_low_points to change_high_points (`quality.paired_change`) and McNemar's p.
    """
    found = []
    for kind, value, chosen in _kinds(labels, lengths, names):
        own, other, count = right[chosen], teacher_right[chosen], int(chosen.sum())
        low, high = wilson(int(own.sum()), count)
        change, change_low, change_high = paired_change(other, own)
        found.append({
            "kind": kind, "value": value, "examples": count, "accuracy_fraction": float(own.mean()), "ci95_low": low,
            "ci95_high": high, "teacher_accuracy_fraction": float(other.mean()), "change_points": change,
            "change_low_points": change_low, "change_high_points": change_high, "p": mcnemar(own, other),
        })  # fmt: skip
    return found


def _kinds(labels: np.ndarray, lengths: np.ndarray, names: Sequence[str]) -> Iterator[tuple[str, str, np.ndarray]]:
    edges = np.unique(np.quantile(lengths, np.linspace(0, 1, PARTS + 1)[1:], method="inverted_cdf"))
    for low, high in zip([lengths.min(), *(edges[:-1] + 1)], edges, strict=True):
        yield "tokens", f"{low} to {high}" if low < high else f"{low}", (lengths >= low) & (lengths <= high)
    for number, name in enumerate(names):
        if (chosen := labels == number).any():
            yield "class", name, chosen


def changed(
    texts: Sequence[str], labels: np.ndarray, teacher: np.ndarray, answers: np.ndarray, names: Sequence[str]
) -> list[dict[str, Any]]:
    """The sentences that a file answers unlike its teacher, in order: row of dev, text, label, teacher, answer."""
    rows = np.flatnonzero(teacher != answers).tolist()
    named = [[names[int(of[row])] for of in (labels, teacher, answers)] for row in rows]
    return [{"row": row, "text": texts[row], "label": label, "teacher": other, "answer": own}
            for row, (label, other, own) in zip(rows, named, strict=True)]  # fmt: skip
