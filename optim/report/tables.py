"""The tables and notes of a comparison, as rows of text: Markdown, page and screen show the same ones."""

from __future__ import annotations

import math

from optim.report import compare, statistics
from optim.report.comparison import Comparison
from optim.report.finished import Finished, accuracy_text, label
from optim.report.table import Table

AXES = {"latency_p50_ms": "latency", "file_bytes": "size"}  # of the fronts: cost -> its name
LEGEND = (
    "* on the front",
    "** for certain: surely more accurate (McNemar, p < 0.05) than all that cost no more, timing noise aside",
)


def tables_of(shown: Comparison) -> list[Table]:
    """Points, the steps along both fronts, and the effects; those that have rows."""
    return [table for table in (points_table(shown), steps_table(shown), effects_table(shown)) if table.rows]


def points_table(shown: Comparison) -> Table:
    """A row for each file, the most accurate first."""
    head = ("", "point", "accuracy (95 %)", "MB", "gzip MB", "zstd MB", "p50 ms", "machine", "p against the teacher")
    rows = [
        (_mark(*marks), label(p), accuracy_text(p),
         *(f"{p.cost(name) / 1e6:.2f}" for name in ("file_bytes", "gzip_bytes", "zstd_bytes")),
         f"{p.cost('latency_p50_ms'):.2f}", p.machine, _against_teacher(p))
        for p, *marks in zip(shown.points, shown.front, shown.certain, strict=True)
    ]  # fmt: skip
    return Table("Points", head, rows, [p.result.command for p in shown.points], LEGEND)


def steps_table(shown: Comparison) -> Table:
    """A row for each step along each front: whether the next point is really better (McNemar) for what it costs."""
    head = ("along the front of", "from", "to", "costs", "gains, points", "p")
    rows = [
        (name, label(step.cheaper), label(step.dearer), f"{step.cost_ratio:.2f}x", f"{step.accuracy_points:+.2f}",
         "" if step.p is None else f"{step.p:.3f}")
        for cost, name in AXES.items()
        for step in compare.steps(shown.points, cost)
    ]  # fmt: skip
    return Table("Along the fronts", head, rows)


def effects_table(shown: Comparison) -> Table:
    """A row for each option against the first of its factor."""
    head = ("change, all else held", "pairs", "accuracy, points (95 % over the pairs)", "latency", "bytes")
    rows = [
        (f"{e.factor}: {e.base} -> {e.option}", str(e.pairs), _effect_text(e), _ratio(e.latency_ratio),
         _ratio(e.bytes_ratio))
        for e in statistics.effects(shown.every_point)
    ]  # fmt: skip
    return Table("Effects", head, rows)


def _effect_text(effect: statistics.Effect) -> str:
    interval = f" ({effect.accuracy_low:+.2f} to {effect.accuracy_high:+.2f})" if effect.pairs > 1 else ""
    return f"{effect.accuracy_points:+.2f}{interval}"


def _ratio(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}x"


def _mark(front: bool, certain: bool) -> str:
    return "**" if certain and front else "*" if front else ""


def _against_teacher(point: Finished) -> str:
    if point.right is None or point.teacher_right is None:
        return ""
    return f"{statistics.mcnemar(point.right, point.teacher_right):.3f}"


def screen_table(shown: Comparison) -> str:
    """The points for a screen of 100 columns."""
    lines = [f"{'':2} {'point':<44}{'accuracy (95 %)':<23}{'MB':>8}{'gzip':>8}{'p50 ms':>9}"]
    for mark, name, accuracy, size, packed, _, speed, *_ in points_table(shown).rows:
        lines.append(f"{mark:2} {name[:43]:<44}{accuracy:<23}{size:>8}{packed:>8}{speed:>9}")
    return "\n".join([*lines, *(f"   {line}" for line in LEGEND)])


def notes_of(shown: Comparison) -> list[str]:
    """Seeds, stage times, what is missing, and the machines: a sentence or two each."""
    return list(
        dict.fromkeys([*shown.notes, *_about_points(shown), *_about_stages(shown), *_lost(shown), *_machines(shown)])
    )


def _about_points(shown: Comparison) -> list[str]:
    lines = []
    if len(shown.points) < len(shown.every_point):
        lines.append(f"{len(shown.every_point)} points are {len(shown.points)} files, each shown once.")
    if noise := statistics.timing_noise(shown.points):
        lines.append(f"Timings of one and the same float32 graph lay up to {100 * noise:.0f} % apart: smaller "
                     "differences of latency mean nothing. sweep=measure times all files in turns.")  # fmt: skip
    pools = [group for group in statistics.pooled(shown.every_point) if len(group.points) > 1]
    lines += [f"{label(g.points[0])}, seeds {g.seeds}: mean {g.mean:.4f}, spread {g.spread:.4f}" for g in pools]
    return lines


def _about_stages(shown: Comparison) -> list[str]:
    spent = [p.result.cost.get("stages", {}) for p in shown.every_point]
    stages = {key: seconds for each in spent for key, seconds in each.items()}
    if not stages:
        return []
    apart = sum(sum(each.values()) for each in spent)
    return [f"{len(stages)} stages took {sum(stages.values()):.0f} s; each point by itself would have taken "
            f"{apart:.0f} s together."]  # fmt: skip


def _lost(shown: Comparison) -> list[str]:
    failed = [f"Failed: {r.command}: {(r.error or '-').splitlines()[0]}" for r in shown.failed]
    return [*failed, *(f"Missing: {command}" for command in shown.missing), *shown.left_out]


def _machines(shown: Comparison) -> list[str]:
    machines = shown.machines()
    several = ["Latencies come from several machines: compare them within one alone."] if len(machines) > 1 else []
    return [*(f"Measured on {line}" for line in machines), *several]
