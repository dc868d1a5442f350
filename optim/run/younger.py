"""Keys that are younger than results and stages that there are, and what was done before each could be set.

Where it has that value it is left out of ids, keys of stages and comparisons: older ones lack it, and mean the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

RECIPE = {"whole_copies": 1, "dropout": None}  # of a teacher's recipe in an id, which has its `steps: null`
# Where in a config -> key -> its value of before.
BEFORE: dict[str, dict[str, Any]] = {
    "vocab": {"positions": None},
    "quant": {"source": "train", "products": "all"},
    "distill": {"states_until": 1.0},
    "distill.augment": {"least_words": 0, "words": "all"},
    "fit": {"keep": "best"},
    **{f"fit.{fit}": {**RECIPE, "steps": None} for fit in ("teacher", "usual", "student")},
}


def without(spec: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    """A spec without the keys that have these values."""
    return {key: value for key, value in spec.items() if key not in before or before[key] != value}


def plain(cfg: Mapping[str, Any], at: str = "") -> dict[str, Any]:
    """The config of a result, or the part of it at a dotted place, without keys that change nothing in it."""
    left = without(cfg, BEFORE.get(at, {}))
    below = f"{at}." if at else ""
    return {key: plain(value, below + key) if isinstance(value, Mapping) else value for key, value in left.items()}
