"""The comparison as one HTML page with its figures, its table and what they need: it opens from the disk."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

from optim.report import figures
from optim.report.attached import FEW_POINTS
from optim.report.baselines import baselines_table, notes_on
from optim.report.comparison import Comparison
from optim.report.figures import Drawing
from optim.report.libraries import plotly_js, tabulator_css, tabulator_js
from optim.report.look import chosen, look_of
from optim.report.rows import rows_of
from optim.report.sensitivity import heat_maps
from optim.report.table import Table
from optim.report.tables import notes_of, tables_of
from optim.report.template import FOLDER, rendered

PAGE = "report.html"
SCRIPT, STYLE = FOLDER / "report.js", FOLDER / "report.css"
NAMES_SHOWN = 3  # of models, or of data sets, in the heading


def to_html(shown: Comparison, folder: Path, today: date | None = None) -> str:
    """The page for `folder`, from which its links start; `today` is the date it shows."""
    tables = tables_of(shown) if shown.points else []
    drawn = [*filter(None, [figures.parallel(shown), figures.forest(shown)])] if shown.points else []
    endings = [*filter(None, [figures.stages(shown)])] if shown.points else []
    maps = figures.drawings([figure for table in shown.sensitivity for figure in heat_maps(table)])
    rows = rows_of(shown, folder) if shown.points else None
    titles = {drawing.title for drawing in drawn}
    return _html(
        heading=heading(shown), headline=shown.headline(), facts=facts(shown, today or date.today()),
        rows=rows, rows_json=_json({**rows, **look_of(rows)}) if rows else "", chosen=chosen(rows) if rows else {},
        points=_shortened(tables[0]) if tables else None,
        tables=[table for table in tables[1:] if table.title not in titles],
        figures=[_embedded(drawing, tables) for drawing in drawn], endings=[*map(_embedded, [*endings, *maps])],
        baselines=baselines_table(shown.baselines), baseline_notes=notes_on(shown.baselines), notes=notes_of(shown),
    )  # fmt: skip


def page(heading: str, headline: str, drawn: Sequence[Any], tables: Sequence[Table], notes: Sequence[str]) -> str:
    """A page of plotly's figures and of tables, without points of a comparison."""
    return _html(
        heading=heading, headline=headline, facts=[], rows=None, rows_json="", chosen={}, points=None, tables=tables,
        figures=[*map(_embedded, figures.drawings(drawn))], endings=[], baselines=None, baseline_notes=[], notes=notes,
    )  # fmt: skip


def heading(shown: Comparison) -> str:
    """Which models on which data."""
    models, sets = (_listed([p.result.choices.get(group, "") for p in shown.points]) for group in ("model", "data"))
    return f"{models} on {sets}" if models else "Comparison"


def _shortened(points: Table) -> Table:
    """The table that paper gets, and a browser without JavaScript: of many points the most accurate."""
    if len(points.rows) <= FEW_POINTS:
        return points
    said = f"The {FEW_POINTS} most accurate of {len(points.rows)}; results.csv has all"
    return replace(points, rows=points.rows[:FEW_POINTS], legend=(said, *points.legend))


def _listed(names: Sequence[str]) -> str:
    found = sorted(set(filter(None, names)))
    more = len(found) - NAMES_SHOWN
    return ", ".join(found[:NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")


def facts(shown: Comparison, today: date) -> list[str]:
    """The line under the heading: how much was compared, where, and when the page was written."""
    counts = [(len(shown.every_point), "points"), (len(shown.points), "files"), (len(shown.failed), "failed"),
              (len(shown.missing), "missing")]  # fmt: skip
    machines = shown.machines()
    where = machines if len(machines) < 2 else [f"{len(machines)} machines"]
    return [today.isoformat(), *(f"{count} {name}" for count, name in counts if count), *where]


def _html(**values: Any) -> str:
    from markupsafe import Markup

    return rendered(
        "report.html",
        style=Markup(STYLE.read_text(encoding="utf-8")), script=Markup(SCRIPT.read_text(encoding="utf-8")),
        table_style=Markup(tabulator_css()), table_script=Markup(tabulator_js()), plotly=Markup(plotly_js()), **values,
    )  # fmt: skip


def _json(value: Any) -> Any:
    """JSON in which no tag can end the script that holds it."""
    from markupsafe import Markup

    return Markup(json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c"))


def _embedded(drawing: Drawing, tables: Sequence[Table] = ()) -> dict[str, Any]:
    """What the page draws a figure from, with the table of the same title below it."""
    return {
        "title": drawing.title, "caption": drawing.caption, "name": drawing.name, "width": drawing.least_width,
        "height": drawing.figure.layout.height, "json": _json(json.loads(drawing.figure.to_json())),
        "table": next((table for table in tables if table.title == drawing.title), None),
    }  # fmt: skip
