"""Texts of the user's data: whether they can be written, and how they stand in a line for people."""

from __future__ import annotations

import html
import re

NAME_SHOWN = 40  # characters of a label in a line


def is_unicode(text: str) -> bool:
    """Whether a string has a UTF-8 form. One with half of a surrogate pair, which JSON can spell, has none."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def in_line(text: str) -> str:
    """A label as part of a line: without line ends, and cut where it is long."""
    line = " ".join(text.split())
    return line if len(line) <= NAME_SHOWN else f"{line[: NAME_SHOWN - 4]} ..."


def markdown(text: str) -> str:
    """A text as Markdown that shows it as it is, in one line, also in a cell of a table."""
    return re.sub(r"([\\`*_\[\]~|])", r"\\\1", html.escape(" ".join(text.split()), quote=False))
