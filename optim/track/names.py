"""What a W&B run is called and found by: a name to read, tags to filter by, and the name of its model."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

NOTHING = ("none", "full")  # options that do nothing to the model
METHODS = ("model", "data", "slim", "vocab", "prune", "distill", "quant")  # groups that a tag is made of
TAG_CHARS = 64  # that W&B takes in a tag


def run_name(cfg: Mapping[str, Any], choices: Mapping[str, Any], *, taught: bool) -> str:
    """`minilm-slim50-int8-mpnet-T2-s0`: model, what is done to it, its precision, who taught it, seed.

    taught: whether a student was fitted, and the settings of `distill` were of any use. Two points may have one name:
    what tells them apart for certain is the run's id.
    """
    return "-".join([_clean(choices.get("model", "model")), *_how(cfg, choices, taught)])


def model_name(choices: Mapping[str, Any]) -> str:
    """The collection that the files of a model on a set are versions of."""
    return "-".join(_clean(choices.get(group, group)) for group in ("model", "data"))


def aliases(run_id: str, cfg: Mapping[str, Any], choices: Mapping[str, Any], *, taught: bool) -> list[str]:
    """What one version of `model_name` is asked for by: the run, and how the file was made."""
    return [run_id, "-".join(_how(cfg, choices, taught))]


def tags(choices: Mapping[str, Any], more: Sequence[str] = ()) -> list[str]:
    """`prune=fixed50` for each group of methods, after the user's own."""
    own = [f"{group}={choices[group]}"[:TAG_CHARS] for group in METHODS if choices.get(group)]
    return [*more, *(tag for tag in own if tag not in more)]


def _how(cfg: Mapping[str, Any], choices: Mapping[str, Any], taught: bool) -> list[str]:
    done = [_clean(choices[group]) for group in ("slim", "vocab", "prune") if choices.get(group, "none") not in NOTHING]
    quant = choices.get("quant", "none")
    precision = "float32" if quant in NOTHING else _clean(quant)
    by = _taught(cfg.get("distill") or {}, choices) if taught else []
    return [*done, precision, *by, f"s{cfg.get('seed', 0)}"]


def _taught(distill: Mapping[str, Any], choices: Mapping[str, Any]) -> list[str]:
    """Method (`kd` goes without saying), teachers but for the model itself, temperature."""
    if choices.get("distill", "none") in NOTHING:
        return []
    teacher = distill.get("teacher", "same")
    teachers = [teacher] if isinstance(teacher, str) else list(teacher)
    method = [] if choices["distill"] == "kd" else [_clean(choices["distill"])]
    others = [_clean(one) for one in teachers if one != "same"]
    heat = [f"T{distill['temperature']:g}"] if "temperature" in distill else []
    return [*method, *others, *heat]


def _clean(option: Any) -> str:
    """As W&B allows in the name of an artifact."""
    return re.sub(r"[^A-Za-z0-9_.]+", "_", str(option))
