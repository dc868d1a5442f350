"""The comparison of many results, for people and programs: report.html, report.md, results.csv, and an SQLite index."""

from __future__ import annotations

import csv
import html
import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from optim.common.files import write_text
from optim.report import baselines, compare
from optim.report.baselines import Row
from optim.report.compare import Point, drop_points
from optim.run.result import Result

PAGE = "report.html"
CLOSE_POINTS = 1.0  # percentage points of accuracy that the headline allows below the teacher
COLUMNS = {
    "quality": ("accuracy_fraction", "ci95_low", "ci95_high", "examples", "mcc", "macro_f1",
                "teacher_accuracy_fraction", "agreement_fraction"),
    "size": ("file_bytes", "gzip_bytes", "parameters", "zeroed_fraction"),
    "speed": ("latency_p50_ms", "latency_p90_ms", "latency_p99_ms", "sequence_length", "threads",
              "float32_latency_p50_ms", "speedup_vs_float32", "median_length_latency_p50_ms"),
    "memory": ("peak_rss_bytes",),
    "cost": ("teacher_s", "student_s", "export_s", "measure_s"),
}  # fmt: skip


@dataclass(frozen=True)
class Comparison:
    """Everything that a report shows."""

    every_point: list[Point]  # the most accurate first
    points: list[Point]  # one for each file
    failed: list[Result]
    missing: list[str]  # commands of planned points without any result
    left_out: list[str]  # a line for each file that is no result
    front: list[bool]
    certain: list[bool]
    notes: list[str] = field(default_factory=list)  # lines of whoever made the comparison
    baselines: list[Row] = field(default_factory=list)  # beside the points: they are on no front

    def headline(self) -> str:
        """One sentence: the smallest file that is about as good as the teacher."""
        close = [p for p in self.points if drop_points(p) <= CLOSE_POINTS]
        if not close:
            return f"No point is within {CLOSE_POINTS:g} point of its teacher."
        best = min(close, key=lambda p: p.cost("file_bytes"))
        shrink = max(p.cost("file_bytes") for p in self.points) / best.cost("file_bytes")
        return (
            f"Smallest file within {CLOSE_POINTS:g} point of the teacher: {label(best)}: {_accuracy(best)}, "
            f"{best.cost('file_bytes') / 1e6:.2f} MB ({shrink:.1f}x below the largest), "
            f"{best.cost('latency_p50_ms'):.2f} ms."
        )

    def machines(self) -> list[str]:
        """A line for each machine that latencies come from."""
        found = {p.machine: p.result.machine for p in self.points}
        return [f"{m['cpu']}, {m['cores']} cores, {' '.join(m['isa'])} (machine {key})" for key, m in found.items()]


def compared(
    folders: Sequence[Path], commands: Sequence[str] = (), rows: Sequence[Row] = (), notes: Sequence[str] = ()
) -> Comparison:
    """Reads the results in `folders` and finds the front. `commands` are those that were planned, one for each.

    `rows` are the baselines to show below.
    """
    every, failed, left_out = compare.read_all(folders)
    every.sort(key=lambda p: (-p.accuracy, p.cost("file_bytes"), p.result.run_id))
    there = {p.result.run_id for p in every} | {r.run_id for r in failed}
    missing = [c for f, c in zip(folders, commands, strict=False) if f.name not in there]
    points = compare.distinct(every)
    return Comparison(every, points, failed, missing, left_out, compare.front(points), compare.certain(points),
                      baselines=list(rows), notes=list(notes))  # fmt: skip


def write(
    folder: Path,
    run_folders: Sequence[Path],
    commands: Sequence[str] = (),
    rows: Sequence[Row] = (),
    notes: Sequence[str] = (),
) -> Comparison:
    """Writes results.csv, report.md and report.html into `folder`."""
    found = compared(list(dict.fromkeys(run_folders)), commands, rows, notes)
    write_text(folder / "results.csv", to_csv(found))
    write_text(folder / "report.md", to_markdown(found))
    write_text(folder / PAGE, to_html(found))
    return found


def show(found: Comparison, folder: Path) -> None:
    """Prints the headline, the table, and where the report is."""
    print(f"\n{textwrap.fill(found.headline(), 100)}\n\n{table(found)}\n\n  {folder / PAGE}\n")


def label(point: Point) -> str:
    """The choices of a point in a few words."""
    choice, cfg = point.result.choices, point.result.cfg
    words = [choice["model"], f"prune={choice['prune']}", f"quant={choice['quant']}"]
    if point.result.cost["student_s"] and "temperature" in cfg["distill"]:
        words.append(f"T={cfg['distill']['temperature']:g}")
    return " ".join(words) + (f" seed={point.result.seed}" if point.result.seed else "")


def _accuracy(point: Point) -> str:
    q = point.result.quality
    return f"{point.accuracy:.4f} ({q['ci95_low']:.3f}-{q['ci95_high']:.3f})"


def _mark(front: bool, certain: bool) -> str:
    return "**" if certain and front else "*" if front else ""


LEGEND = (
    "* on the front",
    "** for certain: surely more accurate (McNemar, p < 0.05) than all that cost no more, timing noise aside",
)


def table(found: Comparison) -> str:
    """For a screen of 100 columns."""
    lines = [f"{'':2} {'point':<44}{'accuracy (95 %)':<23}{'MB':>8}{'gzip':>8}{'p50 ms':>9}"]
    for point, *marks in zip(found.points, found.front, found.certain, strict=True):
        lines.append(
            f"{_mark(*marks):2} {label(point)[:43]:<44}{_accuracy(point):<23}{point.cost('file_bytes') / 1e6:>8.2f}"
            f"{point.cost('gzip_bytes') / 1e6:>8.2f}{point.cost('latency_p50_ms'):>9.2f}"
        )
    return "\n".join([*lines, *(f"   {line}" for line in LEGEND)])


def to_csv(found: Comparison) -> str:
    """One row for each point, with what was varied, every figure, and the command."""
    varied = compare.factors(found.every_point)
    marks = {p.file: m for p, *m in zip(found.points, found.front, found.certain, strict=True)}
    head = ["run_id", *(f"choice.{name}" for name in varied), *(c for part in COLUMNS.values() for c in part),
            "machine", "on_front", "on_front_for_certain", "seed", "command"]  # fmt: skip
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(head)
    for i, point in enumerate(found.every_point):
        r = point.result
        figures = [getattr(r, part)[c] for part, columns in COLUMNS.items() for c in columns]
        writer.writerow([r.run_id, *(values[i] for values in varied.values()), *figures, point.machine,
                         *marks[point.file], r.seed, r.command])  # fmt: skip
    return out.getvalue()


def to_markdown(found: Comparison) -> str:
    """A report that fits a README."""
    rows = [
        "| | point | accuracy (95 %) | MB | gzip MB | p50 ms | p against the teacher |",
        "|---|---|---|---|---|---|---|",
    ]
    for point, *marks in zip(found.points, found.front, found.certain, strict=True):
        rows.append(f"| {_mark(*marks)} | {label(point)} | {_accuracy(point)} | {point.cost('file_bytes') / 1e6:.2f} | "
                    f"{point.cost('gzip_bytes') / 1e6:.2f} | {point.cost('latency_p50_ms'):.2f} | "
                    f"{_against_teacher(point)} |")  # fmt: skip
    below = baselines.to_markdown(found.baselines)
    below = ["", "## Baselines", "", *below] if below else []
    lines = [
        f"**{found.headline()}**",
        "",
        *rows,
        "",
        ". ".join(LEGEND) + ".",
        "",
        *_steps(found),
        *_effects(found),
        *_notes(found),
        *below,
    ]
    return "\n".join(lines).rstrip() + "\n"


def _against_teacher(point: Point) -> str:
    if point.right is None or point.teacher_right is None:
        return ""
    return f"{compare.mcnemar(point.right, point.teacher_right):.3f}"


AXES = {"latency_p50_ms": "latency", "file_bytes": "size"}  # of the fronts: cost -> its name
STEPS_HEAD = ("along the front of", "from", "to", "costs", "gains, points", "p")


def _step_cells(found: Comparison) -> list[list[str]]:
    """A row for each step along each front: whether the next point is really better (McNemar) for what it costs."""
    return [
        [name, label(s.cheaper), label(s.dearer), f"{s.cost_ratio:.2f}x", f"{s.accuracy_points:+.2f}",
         "" if s.p is None else f"{s.p:.3f}"]
        for cost, name in AXES.items()
        for s in compare.steps(found.points, cost)
    ]  # fmt: skip


def _steps(found: Comparison) -> list[str]:
    rows = _step_cells(found)
    if not rows:
        return []
    lines = [f"| {' | '.join(STEPS_HEAD)} |", "|---" * len(STEPS_HEAD) + "|"]
    return [*lines, *(f"| {' | '.join(row)} |" for row in rows), ""]


def _effects(found: Comparison) -> list[str]:
    effects = compare.effects(found.every_point)
    if not effects:
        return []
    lines = [
        "| change, all else held | pairs | accuracy, points (95 % over the pairs) | latency | bytes |",
        "|---|---|---|---|---|",
    ]
    for e in effects:
        interval = f" ({e.accuracy_low:+.2f} to {e.accuracy_high:+.2f})" if e.pairs > 1 else ""
        lines.append(f"| {e.factor}: {e.base} -> {e.option} | {e.pairs} | {e.accuracy_points:+.2f}{interval} | "
                     f"{e.latency_ratio:.2f}x | {e.bytes_ratio:.2f}x |")  # fmt: skip
    return [*lines, ""]


def _notes(found: Comparison) -> list[str]:
    """Seeds, stage times, what is missing, and the machines."""
    lines = [f"- {note}" for note in found.notes]
    if len(found.points) < len(found.every_point):
        lines.append(f"- {len(found.every_point)} points are {len(found.points)} files, each shown once.")
    if noise := compare.timing_noise(found.points):
        lines.append(f"- Timings of one and the same float32 graph lay up to {100 * noise:.0f} % apart: smaller "
                     "differences of latency mean nothing. `sweep=measure` times all files in turns.")  # fmt: skip
    for group in compare.pooled(found.every_point):
        if len(group.points) > 1:
            lines.append(
                f"- {label(group.points[0])}, seeds {group.seeds}: mean {group.mean:.4f}, spread {group.spread:.4f}"
            )
    stages = {key: s for p in found.every_point for key, s in p.result.cost.get("stages", {}).items()}
    apart = sum(s for p in found.every_point for s in p.result.cost.get("stages", {}).values())
    if stages:
        lines.append(f"- {len(stages)} stages took {sum(stages.values()):.0f} s; each point by itself would have taken "
                     f"{apart:.0f} s together.")  # fmt: skip
    lines += [f"- Failed: `{r.command}`: {(r.error or '').splitlines()[0]}" for r in found.failed]
    lines += [f"- Missing: `{command}`" for command in found.missing]
    lines += [f"- {line}" for line in found.left_out]
    machines = found.machines()
    lines += [f"- Measured on {line}" for line in machines]
    if len(machines) > 1:
        lines.append("- **Latencies come from several machines: compare them within one alone.**")
    return list(dict.fromkeys(lines))


# HTML
def to_html(found: Comparison) -> str:
    """A page that opens from the disk, without a network."""
    from plotly.offline import get_plotlyjs

    parts = [_table_html(found), *(_plot(figure) for figure in _figures(found)), _lists_html(found)]
    parts.append(baselines.to_html(found.baselines))
    return f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>Comparison</title>
<meta name="viewport" content="width=device-width">
<link rel="icon" href="data:,">
<style>body{{font:16px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color:#222}}
table{{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:14px}}
td,th{{padding:.15rem .7rem;text-align:left;border-bottom:1px solid #ddd}}
.scroll{{max-height:26rem;overflow:auto}}</style>
<h1>Accuracy against size and speed</h1><p><b>{html.escape(found.headline())}</b></p>
{"".join(parts)}<script>{get_plotlyjs()}</script><script>{DRAW}</script></html>"""


# Figures are drawn when they come near the screen: the page is there in a second, however many points it has.
DRAW = """
const draw = e => Plotly.newPlot(e, {...JSON.parse(e.firstElementChild.textContent), config: {displaylogo: false}});
const near = new IntersectionObserver(seen => seen.filter(s => s.isIntersecting).forEach(s => {
  near.unobserve(s.target); draw(s.target) }), {rootMargin: "300px"});
document.querySelectorAll(".figure").forEach(
  e => e.getBoundingClientRect().top < innerHeight ? draw(e) : near.observe(e));
"""


def _plot(figure) -> str:
    told = figure.to_json().replace("</", "<\\/")
    return (
        f'<div class=figure style="min-height:{figure.layout.height}px">'
        f'<script type="application/json">{told}</script></div>'
    )


def _figures(found: Comparison) -> list[Any]:
    if not found.points:
        return []
    axes = (("latency_p50_ms", 1.0, "latency p50, ms"), ("file_bytes", 1e6, "file, MB"))
    return [*(_scatter(found, *axis) for axis in axes), *_parallel(found), *_stage_times(found)]


def _scatter(found: Comparison, cost: str, unit: float, title: str):
    """Accuracy with its interval against one cost, and the front of these two."""
    from plotly import graph_objects as go

    figure = go.Figure()
    for quant in sorted({p.result.choices["quant"] for p in found.points}):
        chosen = [p for p in found.points if p.result.choices["quant"] == quant]
        q = [p.result.quality for p in chosen]
        figure.add_scatter(
            x=[p.cost(cost) / unit for p in chosen], y=[p.accuracy for p in chosen], mode="markers", name=quant,
            error_y={"type": "data", "array": [x["ci95_high"] - x["accuracy_fraction"] for x in q],
                     "arrayminus": [x["accuracy_fraction"] - x["ci95_low"] for x in q], "thickness": 0.7, "width": 2},
            text=[f"{label(p)}<br>{html.escape(p.result.command)}" for p in chosen],
            hovertemplate="%{y:.4f} at %{x:.2f}<br>%{text}<extra></extra>",
        )  # fmt: skip
    flags = compare.front(found.points, [cost])
    best = sorted((p.cost(cost) / unit, p.accuracy) for p, flag in zip(found.points, flags, strict=True) if flag)
    figure.add_scatter(x=[x for x, _ in best], y=[y for _, y in best], mode="lines", name="Pareto front",
                       line={"shape": "hv", "dash": "dot", "color": "#444"}, hoverinfo="skip")  # fmt: skip
    several = len(found.machines()) > 1 and cost == "latency_p50_ms"
    figure.update_layout(title=f"Accuracy against {title}" + (" (SEVERAL MACHINES: do not compare)" if several else ""),
                         xaxis_title=title, yaxis_title="accuracy", template="simple_white", height=460)  # fmt: skip
    return figure


def _parallel(found: Comparison) -> list[Any]:
    from plotly import graph_objects as go

    varied = compare.factors(found.points)
    if not varied:
        return []
    dimensions: list[dict[str, Any]] = []
    for name, values in varied.items():
        options = sorted({str(v) for v in values})
        dimensions.append({"label": name, "values": [options.index(str(v)) for v in values],
                           "tickvals": list(range(len(options))), "ticktext": options})  # fmt: skip
    for name, cost, unit in (("p50 ms", "latency_p50_ms", 1.0), ("MB", "file_bytes", 1e6)):
        dimensions.append({"label": name, "values": [p.cost(cost) / unit for p in found.points]})
    accuracy = [p.accuracy for p in found.points]
    dimensions.append({"label": "accuracy", "values": accuracy})
    lines = {"color": accuracy, "colorscale": "Viridis", "showscale": True}
    figure = go.Figure(go.Parcoords(line=lines, dimensions=dimensions))
    return [figure.update_layout(title="All points by what was varied", height=420)]


def _stage_times(found: Comparison) -> list[Any]:
    """What the distinct stages cost, and what they would have cost with each point by itself."""
    from plotly import graph_objects as go

    spent: dict[str, dict[str, float]] = {}
    apart: dict[str, float] = {}
    for point in found.every_point:
        for key, seconds in point.result.cost.get("stages", {}).items():
            kind = key.rsplit("-", 1)[0]
            spent.setdefault(kind, {})[key] = seconds
            apart[kind] = apart.get(kind, 0.0) + seconds
    if not spent:
        return []
    kinds = list(spent)
    figure = go.Figure()
    figure.add_bar(x=kinds, y=[sum(spent[k].values()) for k in kinds], name="spent",
                   text=[f"{len(spent[k])} made" for k in kinds])  # fmt: skip
    figure.add_bar(x=kinds, y=[apart[k] - sum(spent[k].values()) for k in kinds], name="saved by sharing")
    return [figure.update_layout(title="Seconds of the stages", barmode="stack", template="simple_white", height=380)]


def _table_html(found: Comparison) -> str:
    head = "".join(
        f"<th>{h}" for h in ("", "point", "accuracy (95 %)", "MB", "gzip MB", "p50 ms", "machine", "p, teacher")
    )
    rows = "".join(
        f"<tr title='{html.escape(p.result.command, quote=True)}'><td>{_mark(*marks)}<td>{html.escape(label(p))}"
        f"<td>{_accuracy(p)}<td>{p.cost('file_bytes') / 1e6:.2f}<td>{p.cost('gzip_bytes') / 1e6:.2f}"
        f"<td>{p.cost('latency_p50_ms'):.2f}<td>{html.escape(p.machine)}<td>{_against_teacher(p)}"
        for p, *marks in zip(found.points, found.front, found.certain, strict=True)
    )
    legend = ". ".join([*LEGEND, "Hover shows a point's command"])
    return f"<div class=scroll><table><tr>{head}{rows}</table></div><p>{legend}.</p>"


def _lists_html(found: Comparison) -> str:
    effects = compare.effects(found.every_point)
    rows = "".join(
        f"<tr><td>{html.escape(f'{e.factor}: {e.base} -> {e.option}')}<td>{e.pairs}<td>{e.accuracy_points:+.2f}"
        + (f" ({e.accuracy_low:+.2f} to {e.accuracy_high:+.2f})" if e.pairs > 1 else "")
        + f"<td>{e.latency_ratio:.2f}x<td>{e.bytes_ratio:.2f}x"
        for e in effects
    )
    head = "<tr><th>change, all else held<th>pairs<th>accuracy, points (95 % over the pairs)<th>latency<th>bytes"
    notes = "".join(f"<li>{html.escape(line.removeprefix('- '))}" for line in _notes(found))
    steps = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}' for cell in row)}" for row in _step_cells(found))
    if steps:
        titles = "".join(f"<th>{title}" for title in STEPS_HEAD)
        steps = f"<h2>Along the fronts</h2><table><tr>{titles}{steps}</table>"
    return f"{steps}<h2>Effects</h2><table>{head}{rows}</table><h2>Notes</h2><ul>{notes}</ul>"
