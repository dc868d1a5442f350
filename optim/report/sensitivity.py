"""What a report shows of a sensitivity table (`measure/sensitivity.py`): heat maps, and the same as rows of text."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from optim.report.table import Table

JSON, PAGE, TEXT = "sensitivity.json", "sensitivity.html", "sensitivity.md"
FOLDER = "sensitivity"  # under results_dir: a folder for each table
LEAST_KL = 1e-6  # nats; below it a heat map shows no difference
ROW_PX, MARGIN_PX = 17, 190


def read_all(folders: Sequence[Path]) -> list[dict[str, Any]]:
    """The tables in `folders`; a file that is none is left out."""
    found = []
    for path in sorted({path for folder in folders for path in folder.glob(f"{FOLDER}/*/{JSON}")}):
        with suppress(OSError, ValueError):
            table = json.loads(path.read_text(encoding="utf-8"))
            found += [table] if {"title", "rows", "examples"} <= set(table) else []
    return found


def headline(table: dict[str, Any]) -> str:
    """What surely hurts most, in a sentence or two; where the interval of every part holds 0, that none surely does."""
    surely = [row for row in table["rows"] if row["high"] < 0]
    worst = min(surely or table["rows"], key=lambda row: row["accuracy_points"])
    said = "hurt most by" if surely else "no part surely hurts. The lowest is"
    return (
        f"{table['title']}: {said} {worst['part']}, {worst['change']}: {_points(worst)} points of "
        f"{100 * table['accuracy_fraction']:.2f} % on {table['examples']} held-out sentences."
    )


def notes(table: dict[str, Any]) -> list[str]:
    """How to read it."""
    return [
        "Each part alone is changed, nothing is trained, and the sentences are the held-out slice of train.",
        "Points of accuracy with their 95 % interval; the divergence of the answers tells apart what changes none.",
        f"Made by {table['command']}",
    ]


def heat_table(table: dict[str, Any]) -> Table:
    """A row for each part, a column for each change."""
    changes, parts, cells = _grid(table)
    rows = [[part, *(_points(cells[part, c]) if (part, c) in cells else "" for c in changes)] for part in parts]
    return Table("Points of accuracy (95 %)", ("part", *changes), rows)


def together_table(table: dict[str, Any]) -> Table:
    """What the first kernels of the order lose in int4 together."""
    rows = [[str(len(one["kernels"])), one["kernels"][-1] if one["kernels"] else "", _points(one),
             f"{one['kl_nats']:.4f}"] for one in table["together_int4"]]  # fmt: skip
    return Table("Kernels in int4 together", ("kernels", "the last of them", "points (95 %)", "KL, nats"), rows)


def heat_maps(table: dict[str, Any]) -> list[Any]:
    """Two figures: points of accuracy, and the divergence of the answers on a logarithmic scale."""
    from plotly import graph_objects as go

    changes, parts, cells = _grid(table)
    kinds = (
        ("points of accuracy", "accuracy_points", lambda v: v, {"colorscale": "RdBu", "zmid": 0}),
        ("log10 of the divergence of the answers, nats", "kl_nats", lambda v: math.log10(max(v, LEAST_KL)),
         {"colorscale": "Viridis"}),
    )  # fmt: skip
    figures = []
    for title, key, scaled, look in kinds:
        values = [[scaled(cells[p, c][key]) if (p, c) in cells else None for c in changes] for p in parts]
        said = [[_said(cells[p, c]) if (p, c) in cells else "" for c in changes] for p in parts]
        map_ = go.Heatmap(x=list(changes), y=parts, z=values, text=said, xgap=1, ygap=1,
                          hovertemplate="%{y}, %{x}<br>%{text}<extra></extra>", **look)  # fmt: skip
        figure = go.Figure(map_).update_layout(title=f"{table['title']}: {title}", template="simple_white",
                                               height=MARGIN_PX + ROW_PX * len(parts))  # fmt: skip
        figures.append(figure.update_yaxes(autorange="reversed", automargin=True))
    return figures


def _grid(table: dict[str, Any]) -> tuple[list[str], list[str], dict[tuple[str, str], dict[str, Any]]]:
    """(changes, parts, cell of each pair), in the order of the table."""
    cells = {(row["part"], row["change"]): row for row in table["rows"]}
    changes = list(dict.fromkeys(row["change"] for row in table["rows"]))
    return changes, list(dict.fromkeys(row["part"] for row in table["rows"])), cells


def _points(row: dict[str, Any]) -> str:
    return f"{row['accuracy_points']:+.2f} ({row['low']:+.2f} to {row['high']:+.2f})"


def _said(row: dict[str, Any]) -> str:
    return (
        f"{_points(row)} points<br>{row['changed_answers']:.2%} of the answers change<br>KL {row['kl_nats']:.2g} nats"
    )
