"""The settings that every sweep gets, and what a sweep is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from optim.common.errors import require_count, require_positive
from optim.run.config import Job
from optim.sweep.pick import Budget


@dataclass(frozen=True)
class Settings:
    """What conf/sweep.yaml and the command line say to all of them."""

    results_dir: Path
    cache_dir: Path
    clean: str | None  # unused | older:30d | all
    yes: bool  # nothing is asked
    budget: Budget
    trials: int
    timeout_min: float | None
    overrides: list[str]  # words of the command line that are train.py's
    composed: Callable[[list[str]], Job]

    def __post_init__(self) -> None:
        require_count("trials", self.trials)
        if self.timeout_min is not None:
            require_positive("timeout_min", self.timeout_min)


class Sweep(Protocol):
    """What `conf/sweep` names."""

    def run(self, settings: Settings) -> int:
        """Does it; the exit code."""
        ...
