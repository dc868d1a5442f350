"""The comparison as one HTML page with its figures."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

from optim.report import finished
from optim.report.baselines import baselines_table, notes_on
from optim.report.comparison import Comparison
from optim.report.finished import label
from optim.report.sensitivity import heat_maps
from optim.report.table import Table
from optim.report.tables import notes_of, tables_of
from optim.report.template import rendered

PAGE = "report.html"


def to_html(shown: Comparison) -> str:
    """A page that opens from the disk, without a network."""
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    points, *others = tables_of(shown) or [None]
    figures = [_embedded(figure) for figure in _figures(shown)]
    return rendered(
        "report.html", heading="Accuracy against size and speed", headline=shown.headline(), points=points,
        tables=others, notes=notes_of(shown), figures=figures, baselines=baselines_table(shown.baselines),
        baseline_notes=notes_on(shown.baselines), plotly=Markup(get_plotlyjs()), draw=Markup(DRAW),
    )  # fmt: skip


def page(heading: str, headline: str, figures: Sequence[Any], tables: Sequence[Table], notes: Sequence[str]) -> str:
    """A page of figures and tables that opens from the disk, without points of a comparison."""
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    return rendered(
        "report.html", heading=heading, headline=headline, points=None, tables=tables, notes=notes,
        figures=[_embedded(figure) for figure in figures], baselines=None, baseline_notes=[],
        plotly=Markup(get_plotlyjs()), draw=Markup(DRAW),
    )  # fmt: skip


# Figures are drawn when they come near the screen: the page is there in a second, however many points it has.
DRAW = """
const draw = e => Plotly.newPlot(e, {...JSON.parse(e.firstElementChild.textContent), config: {displaylogo: false}});
const near = new IntersectionObserver(seen => seen.filter(s => s.isIntersecting).forEach(s => {
  near.unobserve(s.target); draw(s.target) }), {rootMargin: "300px"});
document.querySelectorAll(".figure").forEach(
  e => e.getBoundingClientRect().top < innerHeight ? draw(e) : near.observe(e));
"""


def _embedded(figure: Any) -> dict[str, Any]:
    """What the page draws a figure from: JSON in which no tag can end the script that holds it."""
    from markupsafe import Markup

    return {"height": figure.layout.height, "json": Markup(figure.to_json().replace("<", "\\u003c"))}


def _figures(shown: Comparison) -> list[Any]:
    maps = [figure for table in shown.sensitivity for figure in heat_maps(table)]
    if not shown.points:
        return maps
    axes = (("latency_p50_ms", 1.0, "latency p50, ms"), ("file_bytes", 1e6, "file, MB"))
    return [*(_scatter(shown, *axis) for axis in axes), *_parallel(shown), *_stage_times(shown), *maps]


def _scatter(shown: Comparison, cost: str, unit: float, title: str):
    """Accuracy with its interval against one cost, and the front of these two."""
    from plotly import graph_objects as go

    figure = go.Figure()
    for quant in sorted({p.result.choices["quant"] for p in shown.points}):
        chosen = [p for p in shown.points if p.result.choices["quant"] == quant]
        q = [p.result.quality for p in chosen]
        figure.add_scatter(
            x=[p.cost(cost) / unit for p in chosen], y=[p.accuracy for p in chosen], mode="markers", name=quant,
            error_y={"type": "data", "array": [x["ci95_high"] - x["accuracy_fraction"] for x in q],
                     "arrayminus": [x["accuracy_fraction"] - x["ci95_low"] for x in q], "thickness": 0.7, "width": 2},
            text=[f"{html.escape(label(p))}<br>{html.escape(p.result.command)}" for p in chosen],
            hovertemplate="%{y:.4f} at %{x:.2f}<br>%{text}<extra></extra>",
        )  # fmt: skip
    flags = shown.front_of([cost])
    best = sorted((p.cost(cost) / unit, p.accuracy) for p, flag in zip(shown.points, flags, strict=True) if flag)
    figure.add_scatter(x=[x for x, _ in best], y=[y for _, y in best], mode="lines", name="Pareto front",
                       line={"shape": "hv", "dash": "dot", "color": "#444"}, hoverinfo="skip")  # fmt: skip
    several = len(shown.machines()) > 1 and cost == "latency_p50_ms"
    figure.update_layout(title=f"Accuracy against {title}" + (" (SEVERAL MACHINES: do not compare)" if several else ""),
                         xaxis_title=title, yaxis_title="accuracy", template="simple_white", height=460)  # fmt: skip
    return figure


def _parallel(shown: Comparison) -> list[Any]:
    from plotly import graph_objects as go

    varied = finished.factors(shown.points)
    if not varied:
        return []
    dimensions: list[dict[str, Any]] = []
    for name, values in varied.items():
        options = sorted({str(v) for v in values})
        dimensions.append({"label": name, "values": [options.index(str(v)) for v in values],
                           "tickvals": list(range(len(options))), "ticktext": options})  # fmt: skip
    for name, cost, unit in (("p50 ms", "latency_p50_ms", 1.0), ("MB", "file_bytes", 1e6)):
        dimensions.append({"label": name, "values": [p.cost(cost) / unit for p in shown.points]})
    accuracy = [p.accuracy for p in shown.points]
    dimensions.append({"label": "accuracy", "values": accuracy})
    lines = {"color": accuracy, "colorscale": "Viridis", "showscale": True}
    figure = go.Figure(go.Parcoords(line=lines, dimensions=dimensions))
    return [figure.update_layout(title="All points by what was varied", height=420)]


def _stage_times(shown: Comparison) -> list[Any]:
    """What the distinct stages cost, and what they would have cost with each point by itself."""
    from plotly import graph_objects as go

    spent: dict[str, dict[str, float]] = {}
    apart: dict[str, float] = {}
    for point in shown.every_point:
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
