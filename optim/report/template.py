"""The templates of `optim/report/templates`: whatever is put into them is escaped for what they make."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "templates"
MARKDOWN = re.compile(r"([\\`*|]|\](?=\())")  # what would begin markup, a link or another cell


def rendered(name: str, **values: Any) -> str:
    """The template with the values, each escaped: for HTML in `*.html`, for Markdown in `*.md`."""
    return _environment(name.rsplit(".", 1)[1]).get_template(name).render(**values)


@cache
def _environment(kind: str) -> Any:
    import jinja2

    page = kind == "html"
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER), trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined,
        autoescape=page, finalize=None if page else markdown_text,
    )  # fmt: skip


def markdown_text(value: Any) -> Any:
    """Text as Markdown that shows that text, in a cell of a table too: nothing in it begins markup or a tag."""
    if not isinstance(value, str) or hasattr(value, "__html__"):  # a number, or markup made here
        return value
    line = " ".join(value.split())
    return MARKDOWN.sub(r"\\\1", line).replace("&", "&amp;").replace("<", "&lt;")
