"""Figures of a comparison that are drawn the same whatever is filtered: plotly's, before they are JSON."""

from __future__ import annotations

import html
import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from optim.report import finished
from optim.report.comparison import Comparison, difference_text
from optim.report.difference import Difference
from optim.report.effects import Effect
from optim.report.rows import text_of

BLUE, ORANGE, GREY = "#2b83c6", "#d97a1f", "#8b929c"  # told apart by every kind of sight, on white and on black
SCALE = ((0.0, "rgba(139,146,156,.18)"), (0.02, "rgba(139,146,156,.18)"), (0.021, ORANGE), (1.0, BLUE))
LABEL_CHARACTERS = 20  # of a line of a label beside a forest plot
ROW_PX, MARGIN_PX = 46, 90
DIMENSION_PX = 108  # the least width of an axis of the parallel coordinates
STAGES_LEFT_OUT = 0.005  # of all seconds, what a kind of stage must have to get a bar


@dataclass(frozen=True)
class Drawing:
    """A figure with what stands above it on the page."""

    title: str
    figure: Any  # plotly's
    caption: str = ""
    name: str = ""  # by which report.js finds it
    least_width: int = 0  # px; a narrower screen scrolls it


def drawings(figures: Sequence[Any]) -> list[Drawing]:
    """Figures whose titles stand in their layout."""
    found = []
    for figure in figures:
        title = figure.layout.title.text or ""
        found.append(Drawing(title, figure.update_layout(title=None, margin={"t": 16, "r": 16})))
    return found


# All points by what was varied
def parallel(shown: Comparison) -> Drawing | None:
    """A line for each point across the axes of what was varied and what it came to; None where nothing was varied."""
    from plotly import graph_objects as go

    varied = finished.factors(shown.points)
    if not varied:
        return None
    dimensions: list[dict[str, Any]] = []
    short = finished.short_names(list(varied))
    for name, values in varied.items():
        options = finished.ordered([text_of(value) for value in values])
        dimensions.append({
            "label": html.escape(short[name]), "values": [options.index(text_of(v)) for v in values],
            "tickvals": list(range(len(options))), "ticktext": options,  # text to plotly; labels are HTML
        })  # fmt: skip
    for name, cost, unit in (("p50 ms", "latency_p50_ms", 1.0), ("MB", "file_bytes", 1e6)):
        dimensions.append({"label": name, "values": [p.cost(cost) / unit for p in shown.points]})
    accuracy = [p.accuracy for p in shown.points]
    dimensions.append({"label": "accuracy", "values": accuracy})
    low, high = min(accuracy), max(accuracy)
    least = low - 0.03 * ((high - low) or 1)  # report.js gives it to the lines that the filters leave out
    lines = {"color": accuracy, "colorscale": SCALE, "cmin": least, "cmax": high}
    hidden = {"size": 1, "color": "rgba(0,0,0,0)"}  # the ends of an axis are among its ticks
    figure = go.Figure(go.Parcoords(line=lines, dimensions=dimensions, rangefont=hidden, labelfont={"size": 12}))
    figure.update_layout(template="none", height=380, margin={"l": 56, "r": 48, "t": 48, "b": 28})
    caption = "Drag along an axis to keep the lines within; click it to keep all. Orange is least accurate, blue most."
    return Drawing("All points by what was varied", figure, caption, "parallel", DIMENSION_PX * len(dimensions))


# Effects
def forest(shown: Comparison) -> Drawing | None:
    """Each option against the first of its factor: points of accuracy with their interval; None without a pair."""
    from plotly import graph_objects as go

    found = [line for effect in shown.effects for line in _lines(effect)]
    if not found:
        return None
    figure = go.Figure()
    for sure, name, symbol in ((True, "sure", "circle"), (False, "not sure", "circle-open")):
        rows = [(i, line) for i, line in enumerate(found) if line.sure == sure]
        figure.add_scatter(
            x=[line.found.points for _, line in rows], y=[i for i, _ in rows], mode="markers", name=name,
            marker={"symbol": symbol, "size": 11, "color": BLUE if sure else GREY, "line": {"width": 2}},
            error_x={"type": "data", "thickness": 2, "width": 5,
                     "array": [line.found.high - line.found.points for _, line in rows],
                     "arrayminus": [line.found.points - line.found.low for _, line in rows]},
            text=[line.hover for _, line in rows], hovertemplate="%{text}<extra></extra>",
        )  # fmt: skip
    figure.update_layout(
        template="none", height=MARGIN_PX + ROW_PX * len(found), margin={"l": 142, "r": 16, "t": 36, "b": 48},
        xaxis={"title": {"text": "points of accuracy"}, "zeroline": True, "zerolinewidth": 2},
        yaxis={"tickvals": list(range(len(found))), "ticktext": [line.label for line in found],
               "range": [len(found) - 0.4, -0.6], "zeroline": False, "fixedrange": True},
        legend={"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom"},
    )  # fmt: skip
    caption = (
        "Changing one choice with all else held, with 95 % intervals over sentences and seeds. Left of 0 costs "
        "accuracy. Sure: p < 0.05 after Holm's correction; a line `under` where its own interval leaves out 0. Such a "
        "line is there where the effect depends on that option."
    )
    return Drawing("Effects", figure, caption)


@dataclass(frozen=True)
class Line:
    """Of a forest plot. `label` and `hover` are HTML."""

    label: str
    hover: str
    found: Difference
    sure: bool


def _lines(effect: Effect) -> list[Line]:
    """The effect, then what it is under each value of an option that it depends on."""
    ratios = {"latency": effect.latency_ratio, "bytes": effect.bytes_ratio}
    told = [f"{name} {ratio:.2f}x" for name, ratio in ratios.items() if not math.isnan(ratio)]
    own = f"{effect.factor}: {effect.base} → {effect.option}"
    under = [_line(f"… under {one.factor}={one.value}", one.found, not one.found.low <= 0 <= one.found.high)
             for one in effect.interactions]  # fmt: skip
    return [_line(own, effect.found, effect.sure, f"{effect.files} files, {effect.seeds} seeds", *told), *under]


def _line(text: str, found: Difference, sure: bool, *more: str) -> Line:
    label = "<br>".join(map(html.escape, textwrap.wrap(text, LABEL_CHARACTERS)))
    return Line(label, "<br>".join([label, f"{difference_text(found)} points", *more]), found, sure)


# Stages
def stages(shown: Comparison) -> Drawing | None:
    """Seconds of the distinct stages of each kind, and those that sharing saved; None where nothing was recorded."""
    from plotly import graph_objects as go

    spent: dict[str, dict[str, float]] = {}
    apart: dict[str, float] = {}
    for point in shown.every_point:
        for key, seconds in point.result.cost.get("stages", {}).items():
            kind = key.rsplit("-", 1)[0]
            spent.setdefault(kind, {})[key] = seconds
            apart[kind] = apart.get(kind, 0.0) + seconds
    whole = sum(apart.values())
    kinds = [kind for kind in spent if apart[kind] >= STAGES_LEFT_OUT * whole]
    if not whole:
        return None
    sums = {kind: sum(spent[kind].values()) for kind in spent}
    unit, name = (60.0, "minutes") if whole > 600 else (1.0, "seconds")
    figure = go.Figure()
    bars = (("spent", BLUE, sums), ("saved", ORANGE, {kind: apart[kind] - sums[kind] for kind in spent}))
    for title, colour, seconds in bars:
        figure.add_bar(
            y=[f"{html.escape(kind)}, {len(spent[kind])}" for kind in kinds], x=[seconds[k] / unit for k in kinds],
            name=title, orientation="h", marker={"color": colour}, 
            hovertemplate=f"%{{x:,.3~r}} {name} {title}<extra></extra>",
        )  # fmt: skip
    figure.update_layout(
        template="none", barmode="stack", height=MARGIN_PX + 34 * len(kinds), xaxis={"title": {"text": name}},
        margin={"l": 110, "r": 16, "t": 36, "b": 48}, yaxis={"autorange": "reversed"},
        legend={"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom"},
    )  # fmt: skip
    made, saved = sum(sums.values()), whole - sum(sums.values())
    more = f"{_amount(saved / unit)} more" if saved > unit / 2 else "next to nothing"
    caption = (f"{_amount(made / unit)} {name} were spent on {sum(map(len, spent.values()))} stages; "
               f"the cache saved {more}. Beside each kind: how many were made.")  # fmt: skip
    return Drawing("Stages", figure, caption)


def _amount(value: float) -> str:
    """Three digits, or all of a larger number."""
    return f"{value:.3g}" if value < 999.5 else f"{value:,.0f}"
