"""Two points or two ways to train against each other: McNemar's test, and the gain over the seeds that both have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from optim.measure.quality import SIGNIFICANT, mcnemar
from optim.report.difference import Mean, Spread
from optim.report.finished import Finished
from optim.report.seeds import fit_of


def p_value(first: Finished, second: Finished) -> float | None:
    """McNemar's p of two points; None where they were not scored on the same sentences."""
    same = first.result.data["digest"] == second.result.data["digest"]
    if not same or first.right is None or second.right is None:
        return None
    return mcnemar(first.right, second.right)


@dataclass(frozen=True)
class Against:
    """One way to train against another, over the seeds that both have; points are percentage points of accuracy."""

    seeds: list[int]
    mean: float  # accuracy of the first
    spread_points: float  # standard deviation over seeds of the first's accuracy; nan for one seed
    base_spread_points: float  # and of the other's
    gain_points: float  # mean difference
    low_points: float  # 95 % interval of it, over sentences and seeds
    high_points: float
    p: float

    @property
    def wins(self) -> bool:
        """Whether it is better by more than what another seed does to either; False for one seed."""
        return self.gain_points > max(self.spread_points, self.base_spread_points)

    @property
    def loses(self) -> bool:
        """Whether it is worse by more than that."""
        return -self.gain_points > max(self.spread_points, self.base_spread_points)


@dataclass(frozen=True)
class Answers:
    """What one file said of the sentences, and the fit that it was made of."""

    right: np.ndarray  # bool [n]
    fit: str

    @classmethod
    def of(cls, points: Mapping[int, Finished | None]) -> dict[int, Answers]:
        """seed -> answers, of the points that are there and have any."""
        return {seed: cls(p.right, fit_of(p)) for seed, p in points.items() if p is not None and p.right is not None}


def against(right: Mapping[int, Answers], base: Mapping[int, Answers]) -> Against:
    """`right` against `base`: seed -> answers to the same sentences in the same order.

    Two files of one fit differ in their sentences alone: another seed would have moved both.
    Raises ValueError where no seed is in both.
    """
    seeds = sorted(set(right) & set(base))
    if not seeds:
        raise ValueError(f"no seed is in both: {sorted(right)} and {sorted(base)}")
    own, other = (np.array([answers[seed].right for seed in seeds], float) for answers in (right, base))
    means = [Mean.of([(1 / len(seeds), row, answers[seed].fit) for seed, row in zip(seeds, some, strict=True)])
             for answers, some in ((right, own), (base, other))]  # fmt: skip
    found = (means[0] - means[1]).difference(Spread.of([own, other]))
    spread, base_spread = (float(x.mean(axis=1).std(ddof=1)) if len(seeds) > 1 else float("nan") for x in (own, other))
    return Against(
        seeds=seeds, mean=float(own.mean()), spread_points=100 * spread, base_spread_points=100 * base_spread,
        gain_points=found.points, low_points=found.low, high_points=found.high, p=found.p,
    )  # fmt: skip


__all__ = ["SIGNIFICANT", "Against", "Answers", "against", "p_value"]
