"""Which rows a fit learns from, and where it is judged, when some sentences have no label."""

from __future__ import annotations

import math

import numpy as np

from optim.data.phrases import Parts


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
