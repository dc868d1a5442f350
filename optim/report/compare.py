"""Which points are on the front, for certain or only by a sentence or two, and the steps along it.

Accuracy goes up, p50 latency and file bytes go down. A point is better than another only where McNemar's test says so;
what merely looks better is marked as such. Latencies are compared within one machine alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from optim.report.finished import COSTS, Finished
from optim.report.statistics import p_value, surely_better, timing_noise


# The front
def front(points: Sequence[Finished], costs: Sequence[str] = COSTS) -> list[bool]:
    """For each point, whether no other is at least as good in accuracy and all costs, and better in one."""
    values = np.array([[-p.accuracy, *(p.cost(c) for c in costs)] for p in points]).reshape(len(points), -1)
    no_worse = (values[:, None] <= values[None]).all(axis=2)
    better = (values[:, None] < values[None]).any(axis=2)
    dominated = np.asarray((no_worse & better).any(axis=0))
    return (~dominated).tolist()


def certain(points: Sequence[Finished], costs: Sequence[str] = COSTS) -> list[bool]:
    """For each point, whether it is on the front for certain: surely more accurate than all that cost no more.

    What is on the front only by a sentence or two could as well be dominated on other sentences; and a latency that is
    above another by no more than `timing_noise` is not above it for certain.
    """
    slack, flags = {"latency_p50_ms": 1 + timing_noise(points)}, []
    for point in points:
        rivals = [
            q for q in points
            if q.file != point.file and all(q.cost(c) <= point.cost(c) * slack.get(c, 1.0) for c in costs)
        ]  # fmt: skip
        flags.append(all(surely_better(point, rival) for rival in rivals))
    return flags


@dataclass(frozen=True)
class Step:
    """From one point of a front to the next, which costs more."""

    cheaper: Finished
    dearer: Finished
    accuracy_points: float  # that the dearer one gains, percentage points
    cost_ratio: float
    p: float | None  # McNemar's; None where they were not scored on the same sentences


def steps(points: Sequence[Finished], cost: str) -> list[Step]:
    """The steps along the front of accuracy and one cost, the cheapest first."""
    best = [p for p, flag in zip(points, front(points, [cost]), strict=True) if flag]
    best.sort(key=lambda p: (p.cost(cost), p.result.run_id))
    # Equals in accuracy and cost are all on the front: one of them stands for them.
    best = [p for i, p in enumerate(best) if not i or p.cost(cost) != best[i - 1].cost(cost)]
    return [
        Step(a, b, 100 * (b.accuracy - a.accuracy), b.cost(cost) / a.cost(cost), p_value(a, b))
        for a, b in itertools.pairwise(best)
    ]


# What the sweep varied
