"""The step that cuts a student out of a fine-tuned model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from optim.cut.surgery import Patient, Surgery
from optim.encoder.architecture import Architecture
from optim.encoder.tensorflow import prepare_tensorflow
from optim.run.fits import FitStep
from optim.run.keys import TRAINING, made_by, surgery_key, weighing_key
from optim.run.latency_model import LatencyStep
from optim.run.starts import FromStep
from optim.run.step import Stages, Step
from optim.run.tables import Float32Step, TableStep


class SurgeryStep(Step):
    """A smaller checkpoint cut out of a fitted one: architecture, weights, tokenizer.json, and what was kept."""

    kind = "surgery"

    def __init__(self, surgery: Surgery, whole: FitStep, latency: LatencyStep | None) -> None:
        self.surgery, self.whole, self.latency = surgery, whole, latency
        self.tables = {name: TableStep(name, Float32Step(whole)) for name in surgery.tables}

    def inputs(self) -> Sequence[Step]:
        """The fine-tuned model, its sentences, and where they count, what files take and tables of the model."""
        timed = [self.latency] if self.latency else []
        return (*timed, self.whole, self.whole.tokens, *self.tables.values())

    def key(self) -> Mapping[str, Any]:
        """Who is cut, how, and by which sentences."""
        key = {"teacher": self.whole.wanted.key, "tokens": self.whole.tokens.wanted.key}
        timed = {"latency": self.latency.wanted.key} if self.latency else {}
        cut = {**weighing_key(self.surgery), "surgery": surgery_key(self.surgery)}
        return {**key, **timed, **cut, **made_by(*TRAINING)}

    def build(self, folder: Path, scratch: Path, stages: Stages) -> None:
        """Cuts."""
        prepare_tensorflow()
        patient = Patient(
            folder=stages.folder(self.whole), tokenizer=self.whole.start.tokenizer(stages),
            train=self.whole.tokens.read(stages, "train"), latency=self.latency.read(stages) if self.latency else None,
            tables={name: step.read(stages) for name, step in self.tables.items()},
        )  # fmt: skip
        self.surgery.cut(patient, folder)


def shape_before(step: FitStep) -> Architecture:
    """The architecture of a fit that may not be there yet; of a student that is cut as far as that is known before."""
    start = step.start
    if isinstance(start, FromStep) and isinstance(start.step, SurgeryStep):
        return start.step.surgery.after(shape_before(start.step.whole))
    if isinstance(start, FromStep):
        assert isinstance(start.step, FitStep)
        return shape_before(start.step)
    return start.shape(None, step.classes)  # type: ignore[arg-type]  # a checkpoint's needs no stage
