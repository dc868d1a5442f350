"""The float32 file of a fitted model, and tables that are made of the model: a quantizer or a surgery asks for them."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from optim.common.errors import UserError
from optim.export.bundle import MODEL_FILE
from optim.export.convert import convert
from optim.export.quantize import BLOCKS, Student, sensitivity_of
from optim.measure.sensitivity import VERSION, sensitivity_table
from optim.run.fits import RANGES, FitStep, load_batch, load_single
from optim.run.keys import FILES, made_by, written
from optim.run.step import Stages, Step

MODEL = MODEL_FILE
TableMaker = Callable[[Student], Any]
# Name -> (version, what makes it): tables that can be asked for.
TABLES: dict[str, tuple[int, TableMaker]] = {
    sensitivity_of(block): (VERSION, partial(sensitivity_table, block=block)) for block in (*BLOCKS, None)
}

log = logging.getLogger(__name__)


class Float32Step(Step):
    """The float32 .tflite file of a fitted model."""

    kind = "float32"

    def __init__(self, student: FitStep) -> None:
        self.student = student

    def inputs(self) -> Sequence[Step]:
        """The model."""
        return (self.student,)

    def key(self) -> Mapping[str, Any]:
        """The model, the graph and the converter."""
        return {"student": self.student.wanted.key, **written(), **made_by(*FILES)}

    def build(self, folder: Path, scratch: Path, stages: Stages) -> None:
        """Converts."""
        log.info("export    float32 .tflite")
        (folder / MODEL).write_bytes(convert(load_single(self.student, stages)))


class TableStep(Step):
    """A table that a quantizer or a surgery asks for, the sensitivity of layers for one: table.json."""

    kind = "table"

    def __init__(self, name: str, float32: Float32Step) -> None:
        if name not in TABLES:
            raise UserError(f"a table {name!r} is asked for; known: {', '.join(TABLES) or 'none'}.")
        self.name, self.float32, (self.version, self.make) = name, float32, TABLES[name]

    def inputs(self) -> Sequence[Step]:
        """The float32 file, its model and training sentences."""
        return (self.float32, self.float32.student, self.float32.student.tokens)

    def key(self) -> Mapping[str, Any]:
        """Which table, of what."""
        named = {"name": self.name, "version": self.version, "tokens": self.float32.student.tokens.wanted.key}
        return {**named, "float32": self.float32.wanted.key, **made_by(*FILES)}

    def build(self, folder: Path, scratch: Path, stages: Stages) -> None:
        """Makes it."""
        table = self.make(quantizer_input(self.float32, stages))
        (folder / "table.json").write_text(json.dumps(table) + "\n", encoding="utf-8")

    def read(self, stages: Stages) -> Any:
        """What was made."""
        return stages.json(self, "table.json")


def quantizer_input(float32: Float32Step, stages: Stages, tables: Mapping[str, Any] | None = None) -> Student:
    """What a quantizer, or the maker of a table, may use."""
    student = float32.student
    with np.load(stages.folder(student) / RANGES) as saved:
        ranges = dict(saved)
    return Student(
        load=lambda: load_single(student, stages), float32_path=stages.folder(float32) / MODEL,
        train=student.tokens.read(stages, "train"), ranges=ranges, tables=tables or {},
        load_batch=lambda: load_batch(student, stages), rows=student.rows(student.tokens.parts(stages)),
    )  # fmt: skip
