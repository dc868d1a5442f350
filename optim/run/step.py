"""What a step is, and what makes the steps of a point, each once."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from optim.common.stages import Stage, Wanted, stage
from optim.train.fit import CurveRow

log = logging.getLogger(__name__)
Curve = Callable[[str, CurveRow], None]  # (fit, row)


class Step:
    """One stage of a point."""

    kind: ClassVar[str]  # of its folder

    def inputs(self) -> Sequence[Step]:
        """The steps that are made before it."""
        return ()

    def key(self) -> Mapping[str, Any]:
        """Everything that its content depends on."""
        raise NotImplementedError

    def build(self, folder: Path, scratch: Path, stages: Stages) -> None:
        """Leaves its files in `folder`; `scratch` outlives a killed build."""
        raise NotImplementedError

    def at_hand(self, done: Stage, stages: Stages) -> None:
        """Called when the stage is there, made or found."""

    @cached_property
    def wanted(self) -> Wanted:
        """Its name and key."""
        return Wanted(self.kind, dict(self.key()))


class Stages:
    """Makes the steps of one point, each once, and keeps what it made."""

    def __init__(self, cache_dir: Path, curve: Curve) -> None:
        self.cache_dir, self.curve = cache_dir, curve
        self.made: dict[str, Stage] = {}  # key -> stage

    def make(self, step: Step) -> Stage:
        """The stage of a step; where it is missing, its inputs are made first."""
        key = step.wanted.key
        if key not in self.made:
            if step.wanted.at_hand(self.cache_dir) is None:
                for needed in step.inputs():
                    self.make(needed)
            done = stage(self.cache_dir, step.wanted, lambda folder, scratch: self._build(step, folder, scratch))
            self.made[key] = done
            step.at_hand(done, self)
        return self.made[key]

    def _build(self, step: Step, folder: Path, scratch: Path) -> None:
        """Temporary files, whole models among them, go beside the stage: the system's own place may be small."""
        before, tempfile.tempdir = tempfile.tempdir, str(scratch)
        try:
            step.build(folder, scratch, self)
        finally:
            tempfile.tempdir = before

    def folder(self, step: Step) -> Path:
        """Where the files of a step lie."""
        return self.make(step).folder

    def json(self, step: Step, name: str) -> Any:
        """What a file of a step says, of those that hold JSON."""
        return json.loads((self.folder(step) / name).read_text(encoding="utf-8"))
