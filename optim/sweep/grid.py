"""Words with several values -> the points that they name."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override

from optim.common.errors import UserError
from optim.run.words import interval_refused


def parsed(words: Sequence[str], loader: Any = None) -> list[Override]:
    """The words as Hydra reads them. loader: Hydra's config loader, without which glob() knows no options."""
    return OverridesParser.create(config_loader=loader).parse_overrides(list(words))


def points_of(words: Sequence[str], loader: Any = None) -> list[list[str]]:
    """The overrides of every point, in the order of the words: the last one changes fastest."""
    return [list(point) for point in itertools.product(*map(_choices, parsed(words, loader)))]


def _choices(override: Override) -> list[str]:
    """What one word of the command line gives the points: a value each, or the same to all."""
    key = override.get_key_element()
    if not override.is_sweep_override():
        return [str(override.input_line)] if override.is_delete() else [f"{key}={override.get_value_element_as_str()}"]
    if not override.is_discrete_sweep():
        raise UserError(interval_refused([str(override.input_line)]))
    return [f"{key}={value}" for value in override.sweep_string_iterator()]
