"""What ids and keys are made of: everything that changes an answer, and nothing else.

A run_id is the hash of what the settings mean: methods by their registered names and versions, data and weights by what
they hold, `precision: auto` by what it is here. A stage's key also names the stages that it was made from and the
versions of the packages that made it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from optim.common.stages import SCHEMA, digest_of
from optim.common.versions import versions_of
from optim.encoder.architecture import GRAPH
from optim.run import result
from optim.run.point import Point

TRAINING = ("tensorflow", "tf_keras")
FILES = ("tensorflow", "litert-quantizer")
RUNTIME = ("ai-edge-litert",)


def run_id_of(point: Point) -> str:
    """16 hexadecimal digits."""
    return digest_of({"result": result.SCHEMA, "stages": SCHEMA, "graph": GRAPH, **identity(point)})


def identity(point: Point) -> dict[str, Any]:
    """Everything in a point that changes its answer. Paths are left out, what they hold is in."""
    groups = ("prune", "quant", "fit", "bench", "measure")
    return {
        **{group: point.specs[group] for group in groups},
        "distill": loss_key(point.specs["distill"]),
        "surgery": point.surgery.spec,
        "data": point.source.fingerprint(),
        "model": point.checkpoint.fingerprint(),
        "teachers": [{**teacher.checkpoint.fingerprint(), "fit_seed": teacher.seed} for teacher in point.teachers],
        "seed": point.seed,
    }


def loss_key(spec: Mapping[str, Any]) -> dict[str, Any]:
    """A loss without the names and seeds of its teachers: what they are stands elsewhere."""
    return {key: value for key, value in spec.items() if key not in ("teacher", "seeds", "teacher_seed")}


def file_key(spec: Mapping[str, Any]) -> dict[str, Any]:
    """A quantization without what only judges its file."""
    return {key: value for key, value in spec.items() if key != "max_disagreement"}


def recipe_key(spec: Mapping[str, Any], fit: str) -> dict[str, Any]:
    """What the fit named `fit`, teacher or student, takes from `conf/fit`."""
    shared = {key: value for key, value in spec.items() if key not in ("teacher", "student")}
    return {**shared, "recipe": spec[fit]}


def made_by(*packages: str) -> dict[str, Any]:
    """The graph's version and those of the packages, for the key of what they make."""
    return {"graph": GRAPH, "versions": versions_of(packages)}
