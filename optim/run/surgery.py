"""Students that are derived from their teacher: a surgery takes the fine-tuned model and leaves a smaller one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from optim.data.tokens import Tokens


@dataclass(frozen=True, kw_only=True)
class Patient:
    """What a surgery may look at."""

    folder: Path  # architecture.json and weights.safetensors of the fine-tuned teacher (`encoder/store.py`)
    tokenizer: Path  # its tokenizer.json
    train: Tokens  # the training sentences in its tokens


class Surgery(Protocol):
    """A method that removes structure or words."""

    @property
    def changes(self) -> bool:
        """False for the one that removes nothing."""
        ...

    @property
    def spec(self) -> Mapping[str, Any]:
        """Its name, version and arguments, for ids and keys."""
        ...

    def cut(self, patient: Patient, folder: Path) -> None:
        """Leaves architecture.json, weights.safetensors and tokenizer.json of the smaller model in `folder`."""
        ...


@dataclass(frozen=True)
class NoSurgery:
    """The student is the teacher, or a checkpoint of its own."""

    changes: bool = False
    spec: Mapping[str, Any] = field(default_factory=dict)

    def cut(self, patient: Patient, folder: Path) -> None:
        """Never asked."""
        raise AssertionError("there is nothing to cut")
