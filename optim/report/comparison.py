"""Everything that a report shows of many results, and its headline."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from optim.report import compare, finished, sensitivity
from optim.report.baselines import Baseline
from optim.report.compare import Rule
from optim.report.difference import CLOSE_POINTS, SURE, Difference, Spread, holm
from optim.report.effects import Effect, effects
from optim.report.finished import Finished, accuracy_text, drop_points, teacher_text
from optim.report.seeds import Pooled, pooled, spreads_of
from optim.report.timing import machine_line, noisy
from optim.run.result import Result


@dataclass(frozen=True)
class Comparison:
    """Everything that a report shows. `points` are files; `groups` are those that differ in their seed alone."""

    every_point: list[Finished]  # the most accurate first
    points: list[Finished]  # one for each file
    failed: list[Result]
    missing: list[str]  # commands of planned points without any result
    left_out: list[str]  # a line for each file that is no result
    notes: list[str] = field(default_factory=list)  # lines of whoever made the comparison
    baselines: list[Baseline] = field(default_factory=list)  # beside the points: they are on no front
    sensitivity: list[dict[str, Any]] = field(default_factory=list)  # tables of sweep=sensitivity

    @cached_property
    def groups(self) -> list[Pooled]:
        """The files, seeds together, in the order of their best."""
        return pooled(self.points)

    @cached_property
    def spreads(self) -> dict[str, Spread]:
        """Of one choice from seed to seed, for each data set by its digest."""
        return spreads_of(self.groups)

    @cached_property
    def rule(self) -> Rule:
        """How costs are compared."""
        return Rule.of(self.points)

    @cached_property
    def noisy(self) -> list[bool]:
        """For each point, whether its latency is no plain fact."""
        return noisy(self.points)

    @cached_property
    def front(self) -> list[bool]:
        """For each point, whether its group is on the front of accuracy and all costs."""
        return self.front_of(compare.COSTS)

    def front_of(self, costs: Sequence[str]) -> list[bool]:
        """For each point, whether its group is on the front of accuracy and these costs."""
        return compare.flags_of(self.points, self.groups, compare.front(self.groups, self.rule, costs))

    @cached_property
    def certain(self) -> list[bool]:
        """For each point, whether its group is there for certain."""
        return compare.flags_of(self.points, self.groups, compare.certain(self.groups, self.rule))

    @cached_property
    def effects(self) -> list[Effect]:
        """What every option changed, all else held."""
        return effects(self.every_point)

    @cached_property
    def names(self) -> list[str]:
        """For each point, its choices in a few words."""
        return finished.labels(self.points)

    def name_of(self, group: Pooled) -> str:
        """The choices of a group in a few words, without a seed where there are several."""
        place = next(i for i, point in enumerate(self.points) if point.file == group.points[0].file)
        return self.names[place].rsplit(" seed=", 1)[0] if len(group.points) > 1 else self.names[place]

    def by_data(self) -> list[tuple[str, Comparison]]:
        """Each data set, and what is known of it alone."""
        return [
            (finished.data_name(some[0]), Comparison(some, finished.distinct(some), [], [], []))
            for some in finished.by_data(self.every_point)
        ]

    def headline(self) -> str:
        """The smallest file that is about as good as its teacher, and what is sure about that; of each data set."""
        if not self.groups:
            return "There is no finished point."
        if len(sets := self.by_data()) > 1:
            return " ".join(f"On {name}: {part.headline()}" for name, part in sets)
        best = self._best()
        if best is None:
            teachers = list(dict.fromkeys(teacher_text(p) for p in self.points))
            most = max(self.groups, key=lambda g: (g.mean, -g.cost("file_bytes")))
            # One that is near its own teacher may lie behind one that a better teacher taught.
            which = "file on the front" if any(_drop(g) <= CLOSE_POINTS for g in self.groups) else "file"
            return (
                f"No {which} is within {CLOSE_POINTS:g} point of its teacher: {'; '.join(teachers)}. "
                f"The most accurate one: {self._told(most)}"
            )
        return (
            f"{teacher_text(best.points[0])}. The smallest file within {CLOSE_POINTS:g} point of it: {self._told(best)}"
        )

    def _told(self, group: Pooled) -> str:
        """What a group is, what it costs, and what is sure about it."""
        shrink = max(p.cost("file_bytes") for p in self.points) / group.cost("file_bytes")
        below = f" ({shrink:.1f}x below the largest)" if shrink > 1.05 else ""
        return (
            f"{self.name_of(group)}: {group_text(group)}, {group.cost('file_bytes') / 1e6:.2f} MB{below}, "
            f"{group.cost('latency_p50_ms'):.2f} ms{self._doubt(group)}.{self._sure(group)}"
        )

    def _best(self) -> Pooled | None:
        """On the front and about as good: the smallest; of one size, one that is not below the teacher for certain."""
        on_front = compare.front(self.groups, self.rule)
        close = [g for g, flag in zip(self.groups, on_front, strict=True) if flag and _drop(g) <= CLOSE_POINTS]
        if not close:
            return None
        least = min(close, key=lambda g: g.cost("file_bytes"))
        same = [g for g in close if not self.rule.cheaper(least, g, "file_bytes")]
        below = {id(g) for g, verdict in zip(same, self._verdicts(same), strict=True) if verdict == "below"}
        return min(same, key=lambda g: (id(g) in below, self.rule.order(g)))

    def _verdicts(self, groups: Sequence[Pooled]) -> list[str]:
        every = verdicts([g.against_teacher(self.spreads[g.data]) for g in self.groups])
        of = {id(g): verdict for g, verdict in zip(self.groups, every, strict=True)}
        return [of[id(g)] for g in groups]

    def _doubt(self, group: Pooled) -> str:
        return " (noisy)" if any(p.result.run_id in self.rule.noisy for p in group.points) else ""

    def _sure(self, group: Pooled) -> str:
        """In plain words, what is sure about the difference to the teacher."""
        found = group.against_teacher(self.spreads[group.data])
        if found is None:
            return ""
        told = {
            "equal": f"equal within {CLOSE_POINTS:g} point", "below": "below it for certain",
            "above": "above it for certain", "open": "neither a difference nor equality is certain",
        }[self._verdicts([group])[0]]  # fmt: skip
        seeds = " One seed: what another would change is not known." if len(group.points) == 1 else ""
        return f" Against the teacher: {difference_text(found)} points, {told}.{seeds}"

    def several_clocks(self) -> str | None:
        """What latencies differ in that can therefore not be compared: machines, lengths, threads. None: nothing."""
        names = ("machines", "lengths", "numbers of threads")
        found = zip(names, zip(*(p.timed_as for p in self.points), strict=True), strict=False)
        several = [name for name, values in found if len(set(values)) > 1]
        return " and ".join(several) or None

    def machines(self) -> list[str]:
        """A line for each machine that latencies come from."""
        found = {p.machine: p.result.machine for p in self.points}
        return [f"{machine_line(machine)} (machine {key})" for key, machine in found.items()]


def _drop(group: Pooled) -> float:
    return statistics.fmean(drop_points(p) for p in group.points)


def verdicts(found: Sequence[Difference | None]) -> list[str]:
    """For each: above | below (p < 0.05 after Holm's correction over all), equal (the interval within 1 point) or open.

    A difference that is certain and within 1 point is told as certain. None, where nothing was tested, is open.
    """
    tested = [d for d in found if d is not None]
    p_values = iter(holm([d.p for d in tested]))
    out = []
    for each in found:
        p = 1.0 if each is None else next(p_values)
        sure = each is not None and p < SURE
        out.append("open" if each is None else ("above" if each.points > 0 else "below") if sure
                   else "equal" if each.equal else "open")  # fmt: skip
    return out


def difference_text(found: Difference) -> str:
    """Points with their interval."""
    points, low, high = (round(value, 2) + 0.0 for value in (found.points, found.low, found.high))  # no -0.00
    return f"{points:+.2f} ({low:+.2f} to {high:+.2f})"


def group_text(group: Pooled) -> str:
    """Accuracy with its interval, or the mean over seeds with their spread."""
    if len(group.points) == 1:
        return accuracy_text(group.points[0])
    seeds = ", ".join(map(str, group.seeds))
    return f"{group.mean:.4f} (mean of seeds {seeds}, spread {group.spread:.4f})"


def compared(
    folders: Sequence[Path], commands: Sequence[str] = (), rows: Sequence[Baseline] = (), notes: Sequence[str] = (),
    machine: str | None = None,
) -> Comparison:  # fmt: skip
    """Reads the results in `folders`. `commands` are those that were planned, one for each.

    `rows` are the baselines to show below. machine: whose figures count; None: those of each result.
    """
    every, failed, left_out = finished.read_all(folders, machine)
    every.sort(key=lambda p: (-p.accuracy, p.cost("file_bytes"), p.result.run_id))
    there = {p.result.run_id for p in every} | {r.run_id for r in failed}
    told: dict[str, str] = {}  # of several that are one point, the first
    for folder, command in zip(folders, commands, strict=False):
        told.setdefault(folder.name, command)
    missing = [command for name, command in told.items() if name not in there]
    return Comparison(every, finished.distinct(every), failed, missing, left_out, baselines=list(rows),
                      notes=list(notes), sensitivity=sensitivity.read_all(folders))  # fmt: skip
