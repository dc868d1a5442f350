"""What ids and keys are made of: everything that changes an answer, and nothing else.

A run_id is the hash of what the settings mean: methods by their registered names and versions, data and weights by what
they hold, `precision: auto` by what it is here. A stage's key also names the stages that it was made from and the
versions of the packages that made it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from optim.common.build import as_json
from optim.common.stages import SCHEMA, digest_of
from optim.common.versions import versions_of
from optim.cut.importance import WEIGHING
from optim.cut.surgery import Surgery
from optim.data.augment import VERSION as AUGMENTING
from optim.data.augment import Augment
from optim.encoder.architecture import GRAPH
from optim.export.convert import OPERATIONS
from optim.measure.device import machine_id
from optim.measure.sensitivity import VERSION as TABLE
from optim.run import result
from optim.run.point import Point, Teacher
from optim.run.younger import BEFORE, RECIPE, without
from optim.train.recipe import Recipe

TRAINING = ("tensorflow", "tf_keras")
FILES = ("tensorflow", "litert-quantizer")
RUNTIME = ("ai-edge-litert",)
PACKING = ("zstandard",)
# Keys of a loss that name what has keys of its own, and those of `conf/fit` that hold recipes.
ELSEWHERE = ("teacher", "seeds", "teacher_seed", "augment", "unlabelled")
RECIPES = ("teacher", "usual", "student")
CALIBRATION = ("samples", "seed", "source")
LAYER_DECAY = 2  # MPNet's bias of positions moves as its embeddings do; before, as its classifier
COPIES = 2  # copies of whole sentences count in the weights of classes; before, each row counted once


def run_id_of(point: Point) -> str:
    """16 hexadecimal digits."""
    return digest_of({"result": result.SCHEMA, "stages": SCHEMA, **written(), "graph": GRAPH, **identity(point)})


def identity(point: Point) -> dict[str, Any]:
    """Everything in a point that changes its answer. Paths are left out, what they hold is in."""
    groups = ("prune", "bench", "measure")
    return {
        **{group: point.specs[group] for group in groups},
        "quant": quant_key(point.specs["quant"]),
        **candidates_key(point),
        "fit": recipe_key(point.specs["fit"], point.schedule.student),
        "distill": {**loss_key(point.specs["distill"]), **transfer_key(point)},
        "surgery": surgery_key(point.surgery),
        **weighing_key(point.surgery),
        "data": point.source.fingerprint(),
        "model": point.checkpoint.fingerprint(),
        "teachers": [_taught(point, teacher) for teacher in point.teachers],
        **_own_key(point),
        **_machine_key(point),
        **_copies_key(point),
        "seed": point.seed,
        **export_key(point),
    }


def _copies_key(point: Point) -> dict[str, Any]:
    """That copies of a text are held out together; empty where rows are phrases, which are told apart otherwise."""
    return {} if point.specs["data"].get("phrases") else {"copies": "together"}


def _machine_key(point: Point) -> dict[str, Any]:
    """This machine, where the student or its precision follows from what files take here; empty elsewhere."""
    timed = point.surgery.needs_latency or point.quantizer.choice is not None
    return {"machine": machine_id()} if timed else {}


def surgery_key(surgery: Surgery) -> dict[str, Any]:
    """What is removed, without keys that change nothing and are younger than results that there are."""
    return {group: without(spec, BEFORE.get(group, {})) for group, spec in surgery.spec.items()}


def weighing_key(surgery: Surgery) -> dict[str, Any]:
    """How a table of what parts bear is made and read, where a surgery asks for one: it is of what stands elsewhere."""
    return {"weighing": {"table": TABLE, "scales": WEIGHING}} if surgery.tables else {}


def export_key(point: Point) -> dict[str, Any]:
    """The form in which the file ships; empty where that is the file as it is."""
    return {"export": point.specs["export"]} if point.export.compresses else {}


def _taught(point: Point, teacher: Teacher) -> dict[str, Any]:
    """A teacher: of what, by which seed and recipe."""
    recipe = point.schedule.teacher_of(teacher.checkpoint.name)
    return {**teacher.checkpoint.fingerprint(), "fit_seed": teacher.seed, "recipe": written_recipe(recipe)}


def _own_key(point: Point) -> dict[str, Any]:
    """The student's own fine-tuning, which it is cut out of where others teach it; empty where there is none."""
    if not point.surgery.changes or point.self_taught:
        return {}
    return {"own": _taught(point, Teacher(point.checkpoint, point.teachers[0].seed))}


def loss_key(spec: Mapping[str, Any]) -> dict[str, Any]:
    """A loss without its teachers and the sentences that they answer: what they are stands elsewhere."""
    return without({key: value for key, value in spec.items() if key not in ELSEWHERE}, BEFORE["distill"])


def augment_key(augment: Augment) -> dict[str, Any]:
    """How sentences are made from those of train."""
    return {"version": AUGMENTING, **without(as_json(augment), BEFORE["distill.augment"])}


def transfer_key(point: Point) -> dict[str, Any]:
    """The sentences that only the teachers answer; empty where there are none."""
    key: dict[str, Any] = {}
    if point.augment is not None:
        key["augment"] = augment_key(point.augment)
    if point.unlabelled is not None:
        key["unlabelled"] = point.unlabelled.fingerprint()
    return key


def quant_key(spec: Mapping[str, Any]) -> dict[str, Any]:
    """A quantization, without keys that change nothing: those that are younger than stages that there are."""
    return without(spec, BEFORE["quant"])


def candidates_key(point: Point) -> dict[str, Any]:
    """What a quantization chooses from; empty where it does not choose."""
    found = {name: file_key(one.spec) for name, one in point.precisions.items()}
    return {"candidates": found} if found else {}


def file_key(spec: Mapping[str, Any]) -> dict[str, Any]:
    """A quantization without what only judges its file."""
    return {key: value for key, value in quant_key(spec).items() if key != "max_disagreement"}


def rounding_key(spec: Mapping[str, Any]) -> dict[str, Any]:
    """What a fit takes from a quantization that wraps it: not the sentences that calibrate the file afterwards."""
    return {key: value for key, value in file_key(spec).items() if key not in CALIBRATION}


def written_recipe(recipe: Recipe) -> dict[str, Any]:
    """A recipe without keys that change nothing; with the versions of a decay from layer to layer and of copies."""
    version = {"decay_version": LAYER_DECAY} if recipe.layer_decay < 1 else {}
    version |= {"copies_version": COPIES} if recipe.whole_copies > 1 else {}
    return {**without(as_json(recipe), RECIPE), **version}


def recipe_key(spec: Mapping[str, Any], recipe: Recipe, *, judged_once: bool = False) -> dict[str, Any]:
    """What a fit takes from `conf/fit`: its own recipe, and what all fits share.

    Without `keep: best`, which every fit had before it could be set, and without either where both keep the same.
    """
    own = without(written_recipe(recipe), BEFORE["fit.student"])
    shared = without({key: value for key, value in spec.items() if key not in RECIPES}, BEFORE["fit"])
    if judged_once:
        shared.pop("keep", None)
    return {**shared, "recipe": own}


def written() -> dict[str, Any]:
    """The version of the operations of files, for the key of what they are in."""
    return {"operations": OPERATIONS}


def made_by(*packages: str) -> dict[str, Any]:
    """The graph's version and those of the packages, for the key of what they make."""
    return {"graph": GRAPH, "versions": versions_of(packages)}
