"""The comparison as Markdown, for a README, a pull request or a W&B report."""

from __future__ import annotations

from collections.abc import Sequence

from optim.report.baselines import Baseline, baselines_table, notes_on
from optim.report.comparison import Comparison
from optim.report.tables import notes_of, tables_of
from optim.report.template import rendered


def to_markdown(shown: Comparison) -> str:
    """All that the page says in words and numbers."""
    return rendered(
        "report.md", headline=shown.headline(), tables=tables_of(shown), notes=notes_of(shown),
        baselines=baselines_table(shown.baselines), baseline_notes=notes_on(shown.baselines),
    ).rstrip() + "\n"  # fmt: skip


def baselines_page(rows: Sequence[Baseline]) -> str:
    """The baselines by themselves: docs/baselines.md is such a page."""
    reasons = list(dict.fromkeys(f"{row.model}: {row.why}" for row in rows if row.why))
    page = rendered("baselines.md", baselines=baselines_table(rows), notes=notes_on(rows), reasons=reasons)
    return page.rstrip() + "\n"
