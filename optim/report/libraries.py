"""The libraries that a page carries within it, from their installed packages, each under its licence."""

from __future__ import annotations

import re
from functools import cache
from importlib import metadata, resources

PLOTLY, TABULATOR = "plotly", "django-js-lib-tabulator"  # packages; the second holds Tabulator's own files as they are
SOURCE_MAP = re.compile(r"\n?(//# sourceMappingURL=\S+|/\*# sourceMappingURL=.*?\*/)\s*$")  # a file that a page has not


@cache
def plotly_js() -> str:
    """plotly.js, for figures (MIT)."""
    from plotly.offline import get_plotlyjs

    return f"{_licence(PLOTLY)}{get_plotlyjs()}"


@cache
def tabulator_js() -> str:
    """Tabulator, for the table of points (MIT)."""
    return f"{_licence(TABULATOR)}{_tabulator('js', 'tabulator.min.js')}"


@cache
def tabulator_css() -> str:
    """Its plainest style."""
    return _tabulator("css", "tabulator_simple.min.css")


def _tabulator(*path: str) -> str:
    text = resources.files("js_lib_tabulator").joinpath("static", "tabulator", *path).read_text(encoding="utf-8")
    return SOURCE_MAP.sub("", text)


def _licence(package: str) -> str:
    """The package's licence as a comment. Raises FileNotFoundError where the package has none."""
    found = [file for file in metadata.files(package) or [] if file.name.upper().startswith("LICENSE")]
    if not found:
        raise FileNotFoundError(f"{package} {metadata.version(package)} comes without its licence.")
    return f"/*!\n{found[0].read_text(encoding='utf-8').strip().replace('*/', '* /')}\n*/\n"
