"""Finished points and a budget -> the most accurate point within it, and how sure that is."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from optim.common.errors import UserError, require_positive
from optim.export.bundle import TOKENIZER_FILE
from optim.report import statistics
from optim.report.finished import Finished, by_data, data_name, data_of, distinct, drop_points, label, labels, read_all


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What a device allows. None: no bound."""

    file_mb: float | None
    latency_ms: float | None  # p50 at bench.sequence_length
    drop_points: float | None  # percentage points of accuracy below the teacher

    def __post_init__(self) -> None:
        for name in ("file_mb", "latency_ms"):
            if getattr(self, name) is not None:
                require_positive(f"budget.{name}", getattr(self, name))

    def bounds(self) -> list[tuple[str, float, Callable[[Finished], float]]]:
        """(name, limit, what a point has of it) for each bound that is set."""
        named = [
            ("file_mb", self.file_mb, lambda p: p.cost("file_bytes") / 1e6),
            ("latency_ms", self.latency_ms, lambda p: p.cost("latency_p50_ms")),
            ("drop_points", self.drop_points, drop_points),
        ]
        return [(f"budget.{name}", limit, of) for name, limit, of in named if limit is not None]

    def excess(self, point: Finished) -> float:
        """How far the point is outside, as the sum of its relative overshoots; 0 inside."""
        return sum(max(0.0, of(point) - limit) / max(abs(limit), 0.1) for _, limit, of in self.bounds())


def pick(points: Sequence[Finished], budget: Budget) -> tuple[Finished, Finished | None]:
    """(the most accurate point within the budget, its runner-up). Of equals the smaller, then the faster file.

    Raises UserError for a budget that no point fits: which bound excludes how many, and the nearest point.
    """
    if not points:
        raise UserError(
            "There is no finished point to pick from. Run some first, or name their folder: results_dir=DIR."
        )
    inside = distinct([p for p in points if not budget.excess(p)])
    if not inside:
        raise UserError(_impossible(points, budget))
    inside.sort(key=lambda p: (-p.accuracy, p.cost("file_bytes"), p.cost("latency_p50_ms")))
    return inside[0], inside[1] if len(inside) > 1 else None


def _impossible(points: Sequence[Finished], budget: Budget) -> str:
    excluded = [
        f"{name}={limit:g} excludes {sum(of(p) > limit for p in points)} of {len(points)} (the least is "
        f"{min(map(of, points)):.2f})"
        for name, limit, of in budget.bounds()
    ]
    nearest = min(points, key=budget.excess)
    return f"No finished point fits the budget: {'; '.join(excluded)}.\nNearest: {describe(nearest)}."


def describe(point: Finished, name: str | None = None) -> str:
    """A point and its figures in one line; `name` stands for its label."""
    q = point.result.quality
    interval = f"95 %: {q['ci95_low']:.3f} to {q['ci95_high']:.3f}"
    return (
        f"{name or label(point)}: {point.accuracy:.4f} of {q['examples']:,} ({interval}), "
        f"{point.cost('file_bytes') / 1e6:.2f} MB, {point.cost('latency_p50_ms'):.2f} ms"
    )


def answer(points: Sequence[Finished], budget: Budget) -> str:
    """The pick, its command and bundle, its runner-up, and whether the difference between them is real.

    Of points of several data sets one for each: their accuracies cannot be compared. Raises UserError where no point
    fits the budget.
    """
    sets = by_data(points)
    if len(sets) < 2:
        return _answer(points, budget)
    inside = [some for some in sets if any(not budget.excess(p) for p in some)] or sets
    return "\n".join(line for some in inside for line in (f"On {data_name(some[0])}:", _answer(some, budget)))


def _answer(points: Sequence[Finished], budget: Budget) -> str:
    """Of points of one data set."""
    best, second = pick(points, budget)
    names = labels([best, *([second] if second else [])])
    lines = [f"Best: {describe(best, names[0])}", f"      {best.result.command}", f"      {best.bundle}"]
    if second is None:
        return "\n".join([*lines, "No other finished point fits the budget."])
    p = statistics.p_value(best, second)
    verdict = (
        "not tested: they were not scored on the same sentences" if p is None
        else f"real (McNemar, p = {p:.3f})" if p < statistics.SIGNIFICANT
        else f"not proven (McNemar, p = {p:.3f}): either will do"
    )  # fmt: skip
    lines += [f"Next: {describe(second, names[1])}", f"      {second.result.command}"]
    lines += [f"      The difference is {verdict}."]
    if best.timed_as != second.timed_as:
        what = "machines" if best.machine != second.machine else "lengths or threads"
        lines.append(f"      Their latencies come from different {what}: python sweep.py sweep=measure first.")
    return "\n".join(lines)


def on_same_data(results_dir: Path, run_ids: Collection[str]) -> list[Finished]:
    """All finished points under a folder that were scored on the sentences of these runs."""
    points = finished_points(results_dir)
    sets = {data_of(point) for point in points if point.result.run_id in run_ids}
    return [point for point in points if data_of(point) in sets]


def have_files(points: Sequence[Finished]) -> list[Finished]:
    """Those that can be measured again: of some only the figures may have been kept, which can be compared."""
    return [point for point in points if point.model.is_file() and (point.bundle / TOKENIZER_FILE).is_file()]


def finished_points(results_dir: Path, machine: str | None = None) -> list[Finished]:
    """All finished points under a folder; with a machine's id those that it has measured, by its figures."""
    if not results_dir.is_dir():
        raise UserError(f"results_dir {results_dir} does not exist. Name the folder of the runs: results_dir=DIR.")
    return read_all([results_dir], machine)[0]
