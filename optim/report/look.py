"""How the page of a comparison looks, as values beside its rows: palettes, the plot before its points, columns."""

from __future__ import annotations

import html
from typing import Any

# Okabe and Ito's colours, told apart by every kind of sight, lighter ones on dark. The last is for all further options.
LIGHT = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#1d2330", "#8b929c")
DARK = ("#56b4e9", "#f0803c", "#2dbe91", "#e39ac4", "#f0b93a", "#9db0ff", "#f0e442", "#8b929c")
SYMBOLS = ("circle", "square", "triangle-up", "diamond", "cross", "x", "star", "hexagon")
GLYPHS = "●■▲◆✚✖★⬢"
FACTORS = (
    "quant",
    "prune",
    "slim",
    "model",
    "vocab",
    "distill.temperature",
)  # colour, then shape: the first that vary

# Where a label may stand: side of its point, px to it, px above or below. Near ones first.
SIDES = ((1, 12), (-1, 12), (0, 0), (1, 40), (-1, 40))
NAMED = 44  # characters: a longer name runs across the plot, and stands below it anyway
HEIGHTS = (-14, 14, -30, 30, -48, 48, 0, -68, 68, -90, 90, -120, 120, -150, 150)

LABEL = {"xanchor": "center", "yanchor": "middle", "arrowhead": 0, "arrowwidth": 1, "standoff": 6}
BAND = {"type": "rect", "xref": "paper", "x0": 0, "x1": 1, "layer": "below"}
SPOTS = {"type": "scatter", "mode": "markers", "hovertemplate": "%{text}<extra></extra>",
         "unselected": {"marker": {"opacity": 0.1}}}  # fmt: skip
FRONT = {"type": "scatter", "mode": "lines", "hoverinfo": "skip", "line": {"shape": "hv", "width": 1.5}}
CURVES = {"margin": {"l": 50, "r": 58, "t": 8, "b": 30}, "yaxis": {"title": {"text": "loss"}},
          "yaxis2": {"overlaying": "y", "side": "right", "title": {"text": "accuracy"}, "showgrid": False,
                     "tickformat": ".3f", "nticks": 6},
          "legend": {"orientation": "h", "y": -0.14, "yanchor": "top"}}  # fmt: skip
TABLE = {"layout": "fitColumns", "maxHeight": 560, "placeholder": "No point passes all filters.",
         "columnHeaderSortMulti": False, "columnDefaults": {"headerWordWrap": True, "resizable": False}}  # fmt: skip


def look_of(rows: dict[str, Any]) -> dict[str, Any]:
    """What report.js lays over `rows`: `looks`, `plot`, `columns` and `table`."""
    close, teacher = rows["close"], rows["teacher"]
    name = html.escape(rows["teacher_name"])  # it may hold that of a data set, and plotly reads HTML
    said = {"text": f"{name} {teacher:.4f}", "xref": "paper", "x": 0, "y": teacher, "showarrow": False,
            "xanchor": "left", "yanchor": "bottom"}  # fmt: skip
    return {
        "looks": {"light": LIGHT, "dark": DARK, "symbols": SYMBOLS, "glyphs": list(GLYPHS)},
        "plot": {
            "spots": SPOTS, "line": FRONT, "label": LABEL,
            "tries": [(side, gap, height) for height in HEIGHTS for side, gap in SIDES], "said": said, "curves": CURVES,
            "named": NAMED,
            "layout": {"showlegend": False, "hovermode": "closest"},
            "shapes": [{**BAND, "y0": close, "y1": teacher, "line": {"width": 0}},
                       {**BAND, "type": "line", "y0": teacher, "y1": teacher, "line": {"width": 1, "dash": "dot"}}],
        },
        "columns": _columns(rows),
        "table": TABLE,
    }  # fmt: skip


def _columns(rows: dict[str, Any]) -> list[dict[str, Any]]:
    """The table's columns: `cell` names what report.js shows, widths are px, `phone` is 0 where a phone has no room."""
    machine = rows["several_machines"]
    return [
        _column("point", "name", "name", 182, 106, sorter="string", widthGrow=2, frozen=True),
        _column("accuracy (95 %)", "accuracy", "accuracy", 152, 82),
        _column("points below teacher", "drop", "two", 92),
        *(_column(cost["column"], f"costs.{i}", "two", 74, 60 if i < 2 else 0) for i, cost in enumerate(rows["costs"])),
        _column("against teacher", "verdict", "text", 84, sorter="string"),
        *(_column(factor["column"], f"options.{i}", "option", 44 + 8 * len(factor["column"]))
          for i, factor in enumerate(rows["factors"])),
        *([_column("machine", "machine", "text", 90, sorter="string")] if machine else []),
    ]  # fmt: skip


def _column(title: str, field: str, cell: str, width: int, phone: int = 0, **more: Any) -> dict[str, Any]:
    return {"title": html.escape(title), "field": field, "cell": cell, "minWidth": width, "phone": phone,
            "sorter": "number", **more}  # fmt: skip


def chosen(rows: dict[str, Any]) -> dict[str, str]:
    """Which factors colour and shape tell apart at first: those of FACTORS that were varied, then any but a seed."""
    names = [factor["name"] for factor in rows["factors"] if factor["name"] != "seed"]
    first = sorted(names, key=lambda name: FACTORS.index(name) if name in FACTORS else len(FACTORS))
    return dict(zip(("colour", "shape"), [*first, "", ""], strict=False))
