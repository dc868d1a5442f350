"""Writes a comparison as report.html, report.md and results.csv, and shows it on the screen."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

from optim.common.files import write_text
from optim.report.baselines import Baseline
from optim.report.comparison import Comparison, compared
from optim.report.index import to_csv
from optim.report.markdown import to_markdown
from optim.report.page import PAGE, to_html
from optim.report.tables import screen_table


def write(
    folder: Path,
    run_folders: Sequence[Path],
    commands: Sequence[str] = (),
    rows: Sequence[Baseline] = (),
    notes: Sequence[str] = (),
) -> Comparison:
    """Writes results.csv, report.md and report.html into `folder`."""
    shown = compared(list(dict.fromkeys(run_folders)), commands, rows, notes)
    write_text(folder / "results.csv", to_csv(shown))
    write_text(folder / "report.md", to_markdown(shown))
    write_text(folder / PAGE, to_html(shown))
    return shown


def show(shown: Comparison, folder: Path) -> None:
    """Prints the headline, the screen_table, and where the report is."""
    print(f"\n{textwrap.fill(shown.headline(), 100)}\n\n{screen_table(shown)}\n\n  {folder / PAGE}\n")
