"""Points that differ in their seed alone, taken as one: a seed is no choice that a user makes."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from optim.measure.quality import mcnemar
from optim.report.difference import Difference, Mean, Spread
from optim.report.finished import Finished, data_of, distinct, set_on_command_line
from optim.run.younger import plain

# Group and key of what is the run's seed unless it is set.
FOLLOWS = (("distill", "teacher_seed"), ("quant", "seed"), ("slim", "seed"))
# Of a config, what makes no other point.
NOWHERE = ("seed", "results_dir", "cache_dir", "cache_free_gb", "cache_max_gb", "verbosity", "sweep", "track")


@dataclass(frozen=True)
class Pooled:
    """The points that differ in their seed alone, one or more."""

    points: list[Finished]  # one for each file

    @property
    def mean(self) -> float:
        """Of the accuracies."""
        return statistics.fmean(p.accuracy for p in self.points)

    @property
    def spread(self) -> float:
        """Standard deviation of the accuracies over seeds; nan for one."""
        return statistics.stdev(p.accuracy for p in self.points) if len(self.points) > 1 else float("nan")

    @property
    def seeds(self) -> list[int]:
        """In order."""
        return sorted(p.result.seed for p in self.points)

    @property
    def data(self) -> str:
        """The digest of what all were scored on."""
        return data_of(self.points[0])

    @property
    def machines(self) -> set[str]:
        """Where the files were timed."""
        return {p.machine for p in self.points}

    @property
    def timed_as(self) -> set[tuple[str, int, int]]:
        """The ways in which they were: machine, tokens of a sentence, threads."""
        return {p.timed_as for p in self.points}

    def cost(self, name: str) -> float:
        """The median over the seeds."""
        return statistics.median(p.cost(name) for p in self.points)

    def answers(self) -> Mean:
        """The mean of its files' answers."""
        share = 1 / len(self.points)
        return Mean.of([(share, _right(p), fit_of(p)) for p in self.points])

    def against(self, other: Pooled, spread: Spread) -> Difference | None:
        """What it is better by than `other`; None where they have no sentences in common.

        Of two single files p is McNemar's, which is exact, where both are of one fit, or nothing is known of another
        seed.
        """
        if not comparable([*self.points, *other.points]):
            return None
        gain = self.answers() - other.answers()
        found = gain.difference(spread)
        if len(self.points) == len(other.points) == 1 and not gain.moves(spread):
            return replace(found, p=mcnemar(_right(self.points[0]), _right(other.points[0])))
        return found

    def against_teacher(self, spread: Spread) -> Difference | None:
        """What it is better by than the teachers it had. These are taken as they are: what another fit of them would
        be is not in the interval.
        """
        teachers = [p.teacher_right for p in self.points if p.teacher_right is not None]
        if not comparable(self.points) or len(teachers) < len(self.points):
            return None
        own = self.answers()
        fits = {} if all(_is_its_teacher(p) for p in self.points) else own.fits
        gain = Mean(own.right - np.mean(teachers, axis=0), fits)
        found = gain.difference(spread)
        if len(self.points) == 1 and not gain.moves(spread):
            return replace(found, p=mcnemar(_right(self.points[0]), teachers[0]))
        return found


def _right(point: Finished) -> np.ndarray:
    assert point.right is not None  # `comparable` has seen to it
    return point.right


def fit_of(point: Finished) -> str:
    """The key of the fit that a file was made of."""
    return (point.stages("student") or point.stages("teacher") or [point.file])[0]


def _is_its_teacher(point: Finished) -> bool:
    return fit_of(point).startswith("teacher-")


def comparable(points: Sequence[Finished]) -> bool:
    """Whether all were scored on the same sentences, and their answers are there."""
    return all(p.right is not None for p in points) and len({p.result.data["digest"] for p in points}) == 1


def spread_of(groups: Sequence[Pooled]) -> Spread:
    """Over every choice that was fitted with several seeds; files of the same students count once.

    Those with the most seeds come first: a choice that shares a student with one before it tells little more.
    """
    choices, seen = [], set()
    for group in sorted(groups, key=lambda group: -len(group.points)):
        files = {fit_of(p): p for p in group.points}
        if len(files) > 1 and comparable(group.points) and not seen & set(files):
            seen |= set(files)
            choices.append(np.stack([_right(p) for p in files.values()]))
    return Spread.of(choices)


def spreads_of(groups: Sequence[Pooled]) -> dict[str, Spread]:
    """`spread_of` of each data set, by its digest: a fit on few sentences moves further than one on many."""
    return {data: spread_of([g for g in groups if g.data == data]) for data in {g.data for g in groups}}


def pooled(points: Sequence[Finished]) -> list[Pooled]:
    """Points grouped over seeds, in the order of their first."""
    groups: dict[str, list[Finished]] = {}
    for point in points:
        groups.setdefault(_without_seed(point), []).append(point)
    # Two seeds whose teacher is one, and the file itself, are one fit.
    return [Pooled(part) for group in groups.values() for part in _of_seeds(distinct(group))]


def _of_seeds(group: list[Finished]) -> list[list[Finished]]:
    """The group, or each for itself where two have one seed: what lay at a path, or the program, has changed since."""
    seeds = {p.result.seed for p in group}
    return [group] if len(seeds) == len(group) else [[p] for p in group]


def _without_seed(point: Finished) -> str:
    cfg = {key: value for key, value in plain(point.result.cfg).items() if key not in NOWHERE}
    # Where the sentences lie changes none of them: what they are is in the digest.
    cfg["data"] = {k: v for k, v in cfg.get("data", {}).items() if not k.endswith("path")}
    given = set_on_command_line(point)
    for group, key in FOLLOWS:
        if f"{group}.{key}" not in given:
            cfg[group] = {k: v for k, v in cfg.get(group, {}).items() if k != key}
    return json.dumps([cfg, point.result.data.get("digest")], sort_keys=True, default=str)
