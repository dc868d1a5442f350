"""A trained classifier as a folder: architecture.json and weights.safetensors, under Keras' own names."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from optim.encoder.architecture import Architecture

ARCHITECTURE, WEIGHTS = "architecture.json", "weights.safetensors"


def save(model, shape: Architecture, folder: Path) -> None:
    """Writes both files."""
    (folder / ARCHITECTURE).write_text(json.dumps(shape.to_json(), indent=2) + "\n", encoding="utf-8")
    save_file({variable.name: variable.numpy() for variable in model.weights}, folder / WEIGHTS)


def load_into(model, folder: Path) -> None:
    """Fills a model of the same architecture, in place."""
    weights = load_file(folder / WEIGHTS)
    for variable in model.weights:
        variable.assign(weights[variable.name])


def load(folder: Path, *, single: bool = False, whole: bool = False, bfloat16: bool = False):
    """The classifier in `folder`; the options are those of `graph.classifier`."""
    from optim.encoder import graph

    model = graph.classifier(read_architecture(folder), single=single, whole=whole, bfloat16=bfloat16)
    load_into(model, folder)
    return model


def count_nonzero(folder: Path) -> int:
    """How many of the weights in `folder` are not exactly 0."""
    return sum(int(np.count_nonzero(weight)) for weight in load_file(folder / WEIGHTS).values())


def read_architecture(folder: Path) -> Architecture:
    """The shape of the classifier in `folder`."""
    return Architecture.from_json(json.loads((folder / ARCHITECTURE).read_text(encoding="utf-8")))
