"""Writes a comparison as report.html, report.md and results.csv, and shows it on the screen."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from optim.common.files import write_text
from optim.common.screen import width
from optim.report import sensitivity
from optim.report.baselines import Baseline
from optim.report.comparison import Comparison, compared
from optim.report.index import to_csv
from optim.report.markdown import to_markdown
from optim.report.page import PAGE, page, to_html
from optim.report.tables import screen_table
from optim.report.template import rendered


def write(
    folder: Path,
    run_folders: Sequence[Path],
    commands: Sequence[str] = (),
    rows: Sequence[Baseline] = (),
    notes: Sequence[str] = (),
    machine: str | None = None,
) -> Comparison:
    """Writes results.csv, report.md and report.html into `folder`. machine: whose figures count."""
    shown = compared(run_folders, commands, rows, notes, machine)
    write_text(folder / "results.csv", to_csv(shown))
    write_text(folder / "report.md", to_markdown(shown))
    write_text(folder / PAGE, to_html(shown, folder))
    return shown


def write_sensitivity(folder: Path, table: dict[str, Any]) -> None:
    """Writes a sensitivity table, with `title` and `command` in it, as JSON, page and Markdown into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    tables, notes = [sensitivity.heat_table(table), sensitivity.together_table(table)], sensitivity.notes(table)
    headline, figures = sensitivity.headline(table), sensitivity.heat_maps(table)
    write_text(folder / sensitivity.JSON, json.dumps(table, indent=1) + "\n")
    write_text(folder / sensitivity.PAGE, page("Sensitivity", headline, figures, tables, notes))
    text = rendered("report.md", headline=headline, tables=tables, notes=notes, baselines=None, baseline_notes=[])
    write_text(folder / sensitivity.TEXT, text.rstrip() + "\n")


def show(shown: Comparison, folder: Path) -> None:
    """Prints the headline, the screen_table, and where the report is."""
    print(f"\n{textwrap.fill(shown.headline(), width())}\n\n{screen_table(shown)}\n\n  {folder / PAGE}\n")
