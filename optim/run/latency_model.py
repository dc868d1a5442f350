"""The step that times files of a few shapes: a budget in milliseconds is kept by what they take."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from optim.common.errors import UserError
from optim.common.stages import Stage
from optim.cut.budget import LatencyModel
from optim.cut.surgery import Surgery
from optim.data.tokens import Tokens
from optim.encoder.architecture import Architecture
from optim.encoder.tensorflow import prepare_tensorflow
from optim.export.convert import convert
from optim.export.quantize import Student
from optim.measure.device import machine_id
from optim.measure.latency import latency
from optim.run.fits import TokensStep
from optim.run.keys import FILES, RUNTIME, file_key, made_by, written
from optim.run.point import Point
from optim.run.step import Stages, Step

WORDS = 1_000  # of the files that are timed: a look-up takes the same time in a small table
MODEL = "latency.json"
VERSION = 2  # of what a LatencyModel charges for
log = logging.getLogger(__name__)


class LatencyStep(Step):
    """A LatencyModel of files of one family, width and precision on this machine: latency.json."""

    kind = "latency"

    def __init__(self, point: Point, tokens: TokensStep, shape: Architecture, surgery: Surgery) -> None:
        if point.quantizer.wrappers or point.quantizer.tables or point.quantizer.choice:
            raise UserError(
                "slim.latency_ms times files before anything is trained, which this quant= cannot write; "
                "choose quant=int8 or another that needs no training, or slim.parameters."
            )
        self.point, self.tokens, self.surgery = point, tokens, surgery
        self.shape = surgery.after(shape)  # of the hidden size that the student will have

    def inputs(self) -> Sequence[Step]:
        """Sentences, to calibrate on and to time with."""
        return (self.tokens,)

    def key(self) -> Mapping[str, Any]:
        """The shapes, the precision, how they are timed, and where."""
        made = {
            "shape": self.shape.to_json(),
            "quant": file_key(self.point.specs["quant"]),
            "model": VERSION,
            **written(),
            **made_by(*FILES, *RUNTIME),
        }
        return {**made, "tokens": self.tokens.wanted.key, "bench": self.point.specs["bench"], "machine": machine_id()}

    def build(self, folder: Path, scratch: Path, stages: Stages) -> None:
        """Writes files with random weights, times them in turns, and fits the model to what they take."""
        prepare_tensorflow()
        train = self.tokens.read(stages, "train")
        sentences = replace(train, ids=train.ids % WORDS)
        shapes = probes(self.shape)
        log.info("latency   files of %d shapes, timed in turns", len(shapes))
        with tempfile.TemporaryDirectory(dir=scratch) as place:
            files = {str(i): self._file(shape, sentences, Path(place) / str(i)) for i, shape in enumerate(shapes)}
            length = self.point.bench.sequence_length
            timed = latency(files, ids=sentences.ids, length=length, bench=self.point.bench)
        took = [float(timed[name]["latency_p50_ms"]) for name in files]
        model = LatencyModel.fitted(shapes, took)
        rows = [{"layers": len(s.heads), "heads": sum(s.heads), "columns": sum(s.ffn_widths), "measured_ms": ms,
                 "fitted_ms": model(s)} for s, ms in zip(shapes, took, strict=True)]  # fmt: skip
        content = json.dumps({"model": model.to_json(), "files": rows}, indent=2)
        (folder / MODEL).write_text(content + "\n", encoding="utf-8")

    def _file(self, shape: Architecture, sentences: Tokens, folder: Path) -> Path:
        """The file of a model of random weights."""
        from optim.encoder import graph

        folder.mkdir()
        float32, file = folder / "float32.tflite", folder / "model.tflite"

        def load():
            return graph.classifier(shape, single=True)

        float32.write_bytes(convert(load()))
        file.write_bytes(self.point.quantizer.run(Student(load=load, float32_path=float32, train=sentences)))
        return file

    def at_hand(self, done: Stage, stages: Stages) -> None:
        """Raises UserError where not even the smallest model is fast enough: before anything is trained."""
        self.surgery.check_latency(self.shape, self.read(stages))

    def read(self, stages: Stages) -> LatencyModel:
        """What was fitted."""
        content = stages.json(self, MODEL)
        return LatencyModel(**content["model"])


def probes(shape: Architecture) -> list[Architecture]:
    """Architectures that differ in layers, heads and feed-forward columns: enough to tell what each costs."""
    layers, heads, columns = len(shape.heads), max(shape.heads), max(shape.ffn_widths)

    def of(depth: float, share: float, ffn: float) -> Architecture:
        count = max(1, round(depth * layers))
        return replace(
            shape, vocabulary_size=WORDS, relative_columns=None, heads=(max(1, round(share * heads)),) * count,
            ffn_widths=(max(1, round(ffn * columns)),) * count,
        )  # fmt: skip

    wanted = [(1, 1, 1), (1, 0.5, 1), (1, 1, 0.5), (0.5, 1, 1), (1, 0.25, 0.25), (0.5, 0.5, 0.5), (0.34, 0.25, 0.25)]
    return list(dict.fromkeys(of(*one) for one in wanted))
