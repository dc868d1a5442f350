"""A table of text, before it is Markdown, HTML or lines of a screen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """Cells of text under a head."""

    title: str
    head: tuple[str, ...]
    rows: Sequence[Sequence[str]]
    legend: Sequence[str] = ()
