"""The steps that make and measure a student's files."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from optim.common.files import sha256_of
from optim.common.screen import bar
from optim.common.stages import Stage
from optim.data.corpus import Corpus
from optim.data.phrases import Parts, parts_of
from optim.export.bundle import COMPRESSED_FILE
from optim.export.choice import row_text
from optim.export.compress import compress
from optim.export.quantize import CANDIDATES, Quantizer
from optim.measure.candidates import VERSION as TRYING
from optim.measure.candidates import candidates_table
from optim.measure.device import machine_id
from optim.measure.file import decompress_p50_ms, measure_file
from optim.run.fits import FitStep
from optim.run.keys import FILES, PACKING, RUNTIME, file_key, made_by
from optim.run.point import Point
from optim.run.step import Stages, Step
from optim.run.surgery import shape_before
from optim.run.tables import MODEL, Float32Step, TableStep, quantizer_input

PRUNED_FROM = 0.001  # zeroed fraction: a weight that is 0 by chance makes no file one with zeros
MEASURING = 3  # version of how figures are taken; raised when they mean something else

log = logging.getLogger(__name__)


def require_writable_by(quantizer: Quantizer, student: FitStep) -> None:
    """Raises UserError for a model that it cannot write, or fewer sentences than it calibrates on. Nothing is made."""
    quantizer.refuse(shape_before(student))
    if quantizer.calibration is None:
        return
    source, corpus = quantizer.calibration.source, student.tokens.corpus
    if source == "train":
        quantizer.calibration.require(len(corpus.train.texts))
    else:
        quantizer.calibration.require(len(student.rows(_parts(corpus))[source]))


_found: dict[str, Parts] = {}  # digest of a corpus -> its whole sentences, which take seconds to find


def _parts(corpus: Corpus) -> Parts | None:
    if not corpus.phrases:
        return None
    if corpus.digest not in _found:
        _found[corpus.digest] = parts_of(corpus.train.texts)
    return _found[corpus.digest]


class FileStep(Step):
    """The .tflite file that ships, or that of a candidate."""

    kind = "file"

    def __init__(self, point: Point, float32: Float32Step, candidates: CandidatesStep | None = None) -> None:
        self.point, self.float32, self.candidates = point, float32, candidates
        require_writable_by(point.quantizer, float32.student)
        self.tables: dict[str, TableStep | CandidatesStep] = {
            **{name: TableStep(name, float32) for name in point.quantizer.tables},
            **({CANDIDATES: candidates} if candidates else {}),
        }

    def inputs(self) -> Sequence[Step]:
        """The float32 file, its model and sentences, and the tables that the method asks for."""
        return (self.float32, self.float32.student, self.float32.student.tokens, *self.tables.values())

    def key(self) -> Mapping[str, Any]:
        """The model, the method, the sentences it may calibrate on, and the packages that write it."""
        tables = {name: step.wanted.key for name, step in self.tables.items()}
        made_from = {"float32": self.float32.wanted.key, "tokens": self.float32.student.tokens.wanted.key}
        return {**made_from, "tables": tables, "quant": file_key(self.point.specs["quant"]), **made_by(*FILES)}

    def build(self, folder: Path, scratch: Path, stages: Stages) -> None:
        """Writes it."""
        log.info("export    %s", self.point.specs["quant"]["method"])
        tables = {name: step.read(stages) for name, step in self.tables.items()}
        files = self.candidates.paths(stages) if self.candidates else {}
        student = replace(quantizer_input(self.float32, stages, tables), files=files)
        (folder / MODEL).write_bytes(self.point.quantizer.run(student))

    def at_hand(self, done: Stage, stages: Stages) -> None:
        """Says which candidate it is."""
        for row in self.tried(stages):
            if row["taken"]:
                log.info("export    %s is taken: %s", row["name"], row_text(row))

    def tried(self, stages: Stages) -> list[dict[str, Any]]:
        """What each candidate does, and whether it was taken; nothing where there were none."""
        choice = self.point.quantizer.choice
        if self.candidates is None or choice is None:
            return []
        rows, own = self.candidates.read(stages), sha256_of(stages.folder(self) / MODEL)
        taken = choice.taken(rows)
        # The table may have been made anew since: the file tells what it was, unless two are the same.
        same = [name for name, path in self.candidates.paths(stages).items() if sha256_of(path) == own]
        taken = taken if not same or taken in same else same[0]
        return [{**row, "taken": row["name"] == taken} for row in rows]


class CandidatesStep(Step):
    """What the files of several precisions of one student do on this machine: candidates.json."""

    kind = "candidates"

    def __init__(self, point: Point, float32: Float32Step, files: Mapping[str, FileStep]) -> None:
        self.point, self.float32, self.files = point, float32, files

    def inputs(self) -> Sequence[Step]:
        """The files, and the student that they are of with its sentences."""
        return (*self.files.values(), self.float32, self.float32.student, self.float32.student.tokens)

    def key(self) -> Mapping[str, Any]:
        """The files, how they are timed, and where."""
        files = {name: step.wanted.key for name, step in self.files.items()}
        place = {"machine": machine_id(), "versions": made_by(*RUNTIME)["versions"]}
        return {"files": files, "bench": self.point.specs["bench"], "trying": TRYING, **place}

    def build(self, folder: Path, scratch: Path, stages: Stages) -> None:
        """Times them in turns, and scores them on held-out sentences of train."""
        log.info("try       %s", ", ".join(self.files))
        student = quantizer_input(self.float32, stages)
        rows = candidates_table(student, self.paths(stages), bench=self.point.bench)
        (folder / "candidates.json").write_text(json.dumps(rows) + "\n", encoding="utf-8")

    def at_hand(self, done: Stage, stages: Stages) -> None:
        """Says what each does."""
        for row in self.read(stages):
            log.info("try       %s: %s", row["name"], row_text(row))

    def paths(self, stages: Stages) -> dict[str, Path]:
        """Name -> file."""
        return {name: stages.folder(step) / MODEL for name, step in self.files.items()}

    def read(self, stages: Stages) -> list[dict[str, Any]]:
        """A row for each candidate, as `candidates_table` has them."""
        return stages.json(self, "candidates.json")


class CompressedStep(Step):
    """The file as it ships where it is compressed: model.tflite.zst, and what unpacking it takes on this machine."""

    kind = "compressed"

    def __init__(self, point: Point, file: FileStep) -> None:
        self.point, self.file = point, file

    def inputs(self) -> Sequence[Step]:
        """The file."""
        return (self.file,)

    def key(self) -> Mapping[str, Any]:
        """The file, how it is compressed, by what, and where it was timed."""
        timed = {"versions": made_by(*PACKING)["versions"], "machine": machine_id()}
        return {"file": self.file.wanted.key, "export": self.point.specs["export"], **timed}

    def build(self, folder: Path, scratch: Path, stages: Stages) -> None:
        """Compresses, and times the way back."""
        log.info("export    zstd, level %d", self.point.export.zstd_level)
        packed = folder / COMPRESSED_FILE
        content = (stages.folder(self.file) / MODEL).read_bytes()
        packed.write_bytes(compress(content, level=self.point.export.zstd_level))
        taken = {"compressed_bytes": packed.stat().st_size, "decompress_p50_ms": decompress_p50_ms(packed)}
        (folder / "compressed.json").write_text(json.dumps(taken) + "\n", encoding="utf-8")

    def read(self, stages: Stages) -> dict[str, Any]:
        """compressed_bytes and decompress_p50_ms."""
        return stages.json(self, "compressed.json")


class FigureStep(Step):
    """What the file does on this machine: figures.json and logits.npy; measured once for all points that share it."""

    kind = "figures"

    def __init__(self, point: Point, file: FileStep) -> None:
        self.point, self.file = point, file

    def inputs(self) -> Sequence[Step]:
        """The file, the float32 file beside which it is timed, and dev."""
        return (self.file, self.file.float32, self.file.float32.student.tokens)

    def key(self) -> Mapping[str, Any]:
        """Both files, how they are timed, and where."""
        files = {"file": self.file.wanted.key, "float32": self.file.float32.wanted.key}
        place = {"machine": machine_id(), "versions": made_by(*RUNTIME)["versions"]}
        return {**files, "bench": self.point.specs["bench"], "measuring": MEASURING, **place}

    def build(self, folder: Path, scratch: Path, stages: Stages) -> None:
        """Scores every sentence of dev, times and weighs."""
        file, float32 = stages.folder(self.file) / MODEL, stages.folder(self.file.float32) / MODEL
        dev = self.file.float32.student.tokens.read(stages, "dev")
        log.info("measure   %s bytes, all %s dev sentences", f"{file.stat().st_size:,}", f"{len(dev):,}")
        with bar("measure", len(dev), "sentence") as shown:
            measured = measure_file(
                file, float32, dev, bench=self.point.bench, zeros=self._has_zeros(stages), progress=_progress(shown)
            )
        np.save(folder / "logits.npy", measured.logits)
        figures = {"speed": measured.speed, "memory": measured.memory, "size": measured.size}
        (folder / "figures.json").write_text(json.dumps(figures) + "\n", encoding="utf-8")

    def _has_zeros(self, stages: Stages) -> bool:
        return self.file.float32.student.weights(stages)["zeroed_fraction"] > PRUNED_FROM

    def read(self, stages: Stages) -> dict[str, Any]:
        """speed, memory and size."""
        return stages.json(self, "figures.json")

    def logits(self, stages: Stages) -> np.ndarray:
        """float32 [dev_examples, classes], of the file."""
        return np.load(stages.folder(self) / "logits.npy")


def _progress(shown: Any) -> Callable[[str, int, int], None]:
    def progress(what: str, done: int, total: int) -> None:
        shown.set_description_str(f"  measure: {what}", refresh=False)
        if what == "sentences":
            shown.update(done - shown.n)

    return progress
