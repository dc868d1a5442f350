"""Everything that a report shows of many results, and its one sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from optim.report import compare, finished, sensitivity
from optim.report.baselines import Baseline
from optim.report.finished import Finished, accuracy_text, drop_points, label
from optim.run.result import Result

CLOSE_POINTS = 1.0  # percentage points of accuracy that the headline allows below the teacher


@dataclass(frozen=True)
class Comparison:
    """Everything that a report shows."""

    every_point: list[Finished]  # the most accurate first
    points: list[Finished]  # one for each file
    failed: list[Result]
    missing: list[str]  # commands of planned points without any result
    left_out: list[str]  # a line for each file that is no result
    front: list[bool]
    certain: list[bool]
    notes: list[str] = field(default_factory=list)  # lines of whoever made the comparison
    baselines: list[Baseline] = field(default_factory=list)  # beside the points: they are on no front
    sensitivity: list[dict[str, Any]] = field(default_factory=list)  # tables of sweep=sensitivity

    def headline(self) -> str:
        """One sentence: the smallest file that is about as good as the teacher."""
        close = [p for p in self.points if drop_points(p) <= CLOSE_POINTS]
        if not close:
            return f"No point is within {CLOSE_POINTS:g} point of its teacher."
        best = min(close, key=lambda p: p.cost("file_bytes"))
        shrink = max(p.cost("file_bytes") for p in self.points) / best.cost("file_bytes")
        return (
            f"Smallest file within {CLOSE_POINTS:g} point of the teacher: {label(best)}: {accuracy_text(best)}, "
            f"{best.cost('file_bytes') / 1e6:.2f} MB ({shrink:.1f}x below the largest), "
            f"{best.cost('latency_p50_ms'):.2f} ms."
        )

    def machines(self) -> list[str]:
        """A line for each machine that latencies come from."""
        found = {p.machine: p.result.machine for p in self.points}
        return [f"{m['cpu']}, {m['cores']} cores, {' '.join(m['isa'])} (machine {key})" for key, m in found.items()]


def compared(
    folders: Sequence[Path], commands: Sequence[str] = (), rows: Sequence[Baseline] = (), notes: Sequence[str] = ()
) -> Comparison:
    """Reads the results in `folders` and finds the front. `commands` are those that were planned, one for each.

    `rows` are the baselines to show below.
    """
    every, failed, left_out = finished.read_all(folders)
    every.sort(key=lambda p: (-p.accuracy, p.cost("file_bytes"), p.result.run_id))
    there = {p.result.run_id for p in every} | {r.run_id for r in failed}
    missing = [c for f, c in zip(folders, commands, strict=False) if f.name not in there]
    points = finished.distinct(every)
    return Comparison(every, points, failed, missing, left_out, compare.front(points), compare.certain(points),
                      baselines=list(rows), notes=list(notes), sensitivity=sensitivity.read_all(folders))  # fmt: skip
