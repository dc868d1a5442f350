"""Which choices are on the front, which of them for certain, and the steps along it.

Points of two data sets are never compared. Accuracy goes up; latency, bytes and bytes after gzip go down, in this
order. Seeds are taken together. A cost that differs by no more than its noise is a tie. So is a latency that is noisy,
or was taken on another machine, at another length or with other threads; and memory of another machine.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from optim.report.difference import SURE, Difference, holm
from optim.report.finished import Finished
from optim.report.seeds import Pooled, spread_of, spreads_of
from optim.report.timing import SIZE_TIE, noisy, timing_noise

LATENCY, MEMORY = "latency_p50_ms", "peak_rss_bytes"
COSTS = (LATENCY, "file_bytes", "gzip_bytes")


@dataclass(frozen=True)
class Rule:
    """How costs are compared."""

    latency_tie: float = 0.0  # ratio - 1 up to which two latencies are one
    noisy: frozenset[str] = field(default_factory=frozenset)  # run ids whose latency says nothing

    @classmethod
    def of(cls, points: Sequence[Finished]) -> Rule:
        """From the timings of one and the same graph."""
        flags = noisy(points)
        return cls(timing_noise(points), frozenset(p.result.run_id for p, f in zip(points, flags, strict=True) if f))

    def cheaper(self, one: Pooled, other: Pooled, cost: str) -> bool:
        """Whether `one` costs less for certain."""
        if cost == MEMORY and len(one.machines | other.machines) > 1:
            return False
        if cost != LATENCY:
            return one.cost(cost) * (1 + SIZE_TIE) < other.cost(cost)
        return self._timed(one, other) and one.cost(cost) * (1 + self.latency_tie) < other.cost(cost)

    def _timed(self, one: Pooled, other: Pooled) -> bool:
        """Whether their latencies can be compared at all."""
        same = len(one.timed_as) == 1 and one.timed_as == other.timed_as
        return same and not self._noisy(one) and not self._noisy(other)

    def _noisy(self, group: Pooled) -> bool:
        return any(p.result.run_id in self.noisy for p in group.points)

    def no_dearer(self, one: Pooled, other: Pooled, costs: Sequence[str] = COSTS) -> bool:
        """Whether `one` costs no more in anything, ties counted for it."""
        return not any(self.cheaper(other, one, cost) for cost in costs)

    def dominates(self, one: Pooled, other: Pooled, costs: Sequence[str] = COSTS) -> bool:
        """Whether `one` is as accurate on the same data, costs no more, and is better in something.

        Where latency or memory alone is compared, one whose figure says nothing of the other's is better than none: it
        may take any time, or all memory.
        """
        if list(costs) == [LATENCY] and (one.timed_as != other.timed_as or self._noisy(one)):
            return False
        if list(costs) == [MEMORY] and len(one.machines | other.machines) > 1:
            return False
        if one.data != other.data or one.mean < other.mean or not self.no_dearer(one, other, costs):
            return False
        return one.mean > other.mean or any(self.cheaper(one, other, cost) for cost in costs)

    def order(self, group: Pooled, costs: Sequence[str] = COSTS) -> tuple[float, ...]:
        """To sort by: the most accurate first, then the cheapest by the costs in their order."""
        return (-group.mean, *(group.cost(cost) for cost in costs))


def front(groups: Sequence[Pooled], rule: Rule, costs: Sequence[str] = COSTS) -> list[bool]:
    """For each, whether no other dominates it. Never empty: the first by `Rule.order` stays.

    With ties three equals can be better than one another in a ring; then that first one stands for them.
    """
    flags = [not any(rule.dominates(other, own, costs) for other in groups) for own in groups]
    if groups and not any(flags):
        flags[min(range(len(groups)), key=lambda i: rule.order(groups[i], costs))] = True
    return flags


def certain(groups: Sequence[Pooled], rule: Rule) -> list[bool]:
    """For each, whether it is on the front for certain: surely more accurate than all that cost no more.

    Surely: p < 0.05 after Holm's correction over all pairs that are tested. One without any rival has shown nothing,
    and is not marked; nor is one of several equals.
    """
    on_front, spreads = front(groups, rule), spreads_of(groups)
    rivals = {(i, j): own.against(other, spreads[own.data]) for i, own in enumerate(groups) if on_front[i]
              for j, other in enumerate(groups)
              if i != j and own.data == other.data and rule.no_dearer(other, own)}  # fmt: skip
    tested = {pair: found for pair, found in rivals.items() if found is not None}
    p_values = dict(zip(tested, holm([found.p for found in tested.values()]), strict=True))
    flags = []
    for i, flag in enumerate(on_front):
        own = [pair for pair in rivals if pair[0] == i]
        sure = [pair in tested and tested[pair].points > 0 and p_values[pair] < SURE for pair in own]
        flags.append(flag and bool(own) and all(sure))
    return flags


def flags_of(points: Sequence[Finished], groups: Sequence[Pooled], flags: Sequence[bool]) -> list[bool]:
    """For each point, the flag of its group."""
    of = {p.file: flag for group, flag in zip(groups, flags, strict=True) for p in group.points}
    return [of[p.file] for p in points]


@dataclass(frozen=True)
class Step:
    """From one choice of a front to the next, which costs more."""

    cheaper: Pooled
    dearer: Pooled
    gain: Difference | None  # of the dearer one; None where they were not scored on the same sentences
    accuracy_points: float
    cost_ratio: float
    p: float | None  # after Holm's correction over the steps of this front


def steps(groups: Sequence[Pooled], rule: Rule, cost: str) -> list[Step]:
    """The steps along the front of accuracy and one cost, the cheapest first; one data set after the other.

    Latencies of another machine, length or number of threads are steps of their own.
    """
    apart: dict[Any, list[Pooled]] = {}
    for group in groups:
        apart.setdefault((group.data, frozenset(group.timed_as) if cost == LATENCY else None), []).append(group)
    found = [step for together in apart.values() for step in _steps(together, rule, cost)]
    p_values = iter(holm([step.gain.p for step in found if step.gain is not None]))
    return [step if step.gain is None else replace(step, p=next(p_values)) for step in found]


def _steps(groups: Sequence[Pooled], rule: Rule, cost: str) -> list[Step]:
    """Those of one data set, p without a correction."""
    best = [g for g, flag in zip(groups, front(groups, rule, [cost]), strict=True) if flag]
    best.sort(key=lambda g: (g.cost(cost), -g.mean, g.points[0].result.run_id))
    # Equals in accuracy and cost are all on the front: one of them stands for them.
    best = [g for i, g in enumerate(best) if not i or rule.cheaper(best[i - 1], g, cost)]
    spread = spread_of(groups)
    return [
        Step(a, b, gain := b.against(a, spread), 100 * (b.mean - a.mean), b.cost(cost) / a.cost(cost), gain and gain.p)
        for a, b in itertools.pairwise(best)
    ]


def geometric(ratios: Sequence[float]) -> float:
    """The geometric mean; nan of none."""
    return statistics.geometric_mean(ratios) if ratios else math.nan
