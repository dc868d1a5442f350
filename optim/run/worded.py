"""A value as a word of a command line: Hydra reads some texts, a path with a comma for one, as something else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException

NOT_READ = object()


def worded(key: str, value: Any) -> str:
    """KEY=VALUE, from which Hydra reads `value`."""
    return f"{key}={written(value)}"


def written(value: Any) -> str:
    """A value as it stands after the = of a word: null, true, [a, b], and a text in quotes where it needs them."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return f"{{{','.join(f'{key}:{written(entry)}' for key, entry in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{','.join(map(written, value))}]"
    return str(value) if isinstance(value, int | float) else _text(str(value))


def _text(text: str) -> str:
    return text if _read(text) == text else QuotedString(text, Quote.double).with_quotes()


def is_one_value(text: str) -> bool:
    """Whether Hydra reads one value, of whatever type, from a text as it stands."""
    return _read(text) is not NOT_READ


def _read(text: str) -> Any:
    try:
        (word,) = OverridesParser.create().parse_overrides([f"key={text}"])
        return NOT_READ if word.is_sweep_override() else word.value()
    except HydraException:
        return NOT_READ
