"""The tables and notes of a comparison, as rows of text: Markdown, page and screen show the same ones."""

from __future__ import annotations

import math

from optim.common.screen import beside
from optim.report import compare
from optim.report.comparison import Comparison, difference_text, verdicts
from optim.report.difference import CLOSE_POINTS, Spread
from optim.report.effects import Effect
from optim.report.finished import accuracy_text
from optim.report.seeds import Pooled
from optim.report.table import Table
from optim.report.timing import STRAYS, UNSTEADY

AXES = {"latency_p50_ms": "latency", "file_bytes": "size"}  # of the fronts: cost -> its name
LEGEND = (
    "* on the front; a cost that differs within its noise is a tie",
    "** for certain: surely more accurate than all that cost no more (p < 0.05 after Holm's correction)",
)
NOISY = "? noisy timing, no plain fact"
AGAINST = (
    "Against its teacher: above or below, p < 0.05 after Holm's correction over the table; equal, the 95 % interval is "
    f"within {CLOSE_POINTS:g} point; open, neither"
)
DRAWN = (
    "Intervals and p are over sentences and fits. With one seed nothing is said of another",
    "Sure: p < 0.05 after Holm's correction over the table. A line `under` is there where the effect surely depends on "
    "that option",
)


def tables_of(shown: Comparison) -> list[Table]:
    """Points, seeds together, the steps along both fronts, and the effects; those that have rows."""
    every = (points_table(shown), seeds_table(shown), steps_table(shown), effects_table(shown))
    return [table for table in every if table.rows]


def points_table(shown: Comparison) -> Table:
    """A row for each file, the most accurate first."""
    head = ("", "point", "accuracy (95 %)", "MB", "gzip MB", "zstd MB", "p50 ms", "machine", "against its teacher")
    gains = [Pooled([p]).against_teacher(Spread()) for p in shown.points]
    rows = [
        (_mark(*marks), name, accuracy_text(p),
         *(f"{p.cost(name) / 1e6:.2f}" for name in ("file_bytes", "gzip_bytes", "zstd_bytes")),
         f"{p.cost('latency_p50_ms'):.2f}{' ?' if noise else ''}", p.machine,
         "" if gain is None else f"{difference_text(gain)} {verdict}")
        for p, name, *marks, noise, gain, verdict in zip(
            shown.points, shown.names, shown.front, shown.certain, shown.noisy, gains, verdicts(gains), strict=True)
    ]  # fmt: skip
    return Table("Points", head, rows, legend(shown))


def legend(shown: Comparison) -> tuple[str, ...]:
    """What the marks of the points mean, those that are there."""
    return (*LEGEND, *([NOISY] if any(shown.noisy) else []), AGAINST)


def seeds_table(shown: Comparison) -> Table:
    """A row for each choice that was made with several seeds."""
    groups = [group for group in shown.groups if len(group.points) > 1]
    gains = [group.against_teacher(shown.spreads[group.data]) for group in groups]
    head = ("choice", "seeds", "mean accuracy", "spread", "against its teacher (95 %)")
    rows = [
        (shown.name_of(g), ", ".join(map(str, g.seeds)), f"{g.mean:.4f}", f"{g.spread:.4f}",
         "" if gain is None else f"{difference_text(gain)} {verdict}")
        for g, gain, verdict in zip(groups, gains, verdicts(gains), strict=True)
    ]  # fmt: skip
    return Table("Seeds together", head, rows)


def steps_table(shown: Comparison) -> Table:
    """A row for each step along each front: whether the next point is really better for what it costs."""
    head = ("along the front of", "from", "to", "costs", "gains, points (95 %)", "p")
    rows = [
        (name, shown.name_of(step.cheaper), shown.name_of(step.dearer), f"{step.cost_ratio:.2f}x",
         f"{step.accuracy_points:+.2f}" if step.gain is None else difference_text(step.gain),
         "" if step.p is None else f"{step.p:.3f}")
        for cost, name in AXES.items()
        for step in compare.steps(shown.groups, shown.rule, cost)
    ]  # fmt: skip
    return Table("Along the fronts", head, rows)


def effects_table(shown: Comparison) -> Table:
    """A row for each option against the first of its factor, and one for each value of what it surely depends on."""
    head = ("change, all else held", "files", "seeds", "accuracy, points (95 %)", "sure", "latency", "bytes")
    rows = [row for effect in shown.effects for row in _effect_rows(effect)]
    return Table("Effects", head, rows, legend=DRAWN)


def _effect_rows(effect: Effect) -> list[tuple[str, ...]]:
    first = (
        f"{effect.factor}: {effect.base} -> {effect.option}", str(effect.files), str(effect.seeds),
        difference_text(effect.found), "yes" if effect.sure else "no", _ratio(effect.latency_ratio),
        _ratio(effect.bytes_ratio),
    )  # fmt: skip
    under = [(f"... under {one.factor}={one.value}", "", "", difference_text(one.found), "", "", "")
             for one in effect.interactions]  # fmt: skip
    return [first, *under]


def _ratio(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}x"


def _mark(front: bool, certain: bool) -> str:
    return "**" if certain and front else "*" if front else ""


def screen_table(shown: Comparison) -> str:
    """The points for a screen; a name that is longer than its column goes on below."""
    tail = "{:<23}{:>8}{:>8}{:>9}"
    head = tail.format("accuracy (95 %)", "MB", "gzip", "p50 ms")
    lines = [beside("   ", "point", head)]
    for mark, name, accuracy, size, packed, _, speed, *_ in points_table(shown).rows:
        lines.append(beside(f"{mark:2} ", name, tail.format(accuracy, size, packed, speed)))
    return "\n".join([*lines, *(beside("   ", line) for line in legend(shown)[:-1])])


def notes_of(shown: Comparison) -> list[str]:
    """Seeds, stage times, what is missing, and the machines: a sentence or two each."""
    return list(
        dict.fromkeys([*shown.notes, *_about_points(shown), *_about_stages(shown), *_lost(shown), *_machines(shown)])
    )


def _about_points(shown: Comparison) -> list[str]:
    lines = []
    if len(sets := shown.by_data()) > 1:
        names = "; ".join(name for name, _ in sets)
        lines.append(f"Points of {len(sets)} data sets ({names}): each is compared with those of its own alone.")
    if len(shown.points) < len(shown.every_point):
        lines.append(f"{len(shown.every_point)} points are {len(shown.points)} files, each shown once.")
    if several := sum(len({p.timed_as for p in shown.every_point if p.file == own.file}) > 1 for own in shown.points):
        lines.append(f"Files timed in several ways, of which one is shown: {several}. results.csv has all.")
    if noise := shown.rule.latency_tie:
        lines.append(f"Timings of one and the same float32 graph lay up to {100 * noise:.0f} % apart: smaller "
                     "differences of latency are ties. sweep=measure times all files in turns.")  # fmt: skip
    if count := sum(shown.noisy):
        lines.append(f"Latencies of {count} of {len(shown.points)} files are noisy (p90 above {UNSTEADY:g} of p50, or "
                     f"their float32 file over {STRAYS:.0%} from the others of its graph): they are compared with none."
                     )  # fmt: skip
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
    clocks = shown.several_clocks()
    several = [f"Latencies come from several {clocks}: compare them within one alone."] if clocks else []
    return [*(f"Measured on {line}" for line in shown.machines()), *several]
