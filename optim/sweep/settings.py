"""The settings that every sweep gets, and what a sweep is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

from optim.common.errors import UserError, require_count, require_positive
from optim.run.config import Job
from optim.run.result import measured_on
from optim.run.words import BOTH, interval_refused, key_of
from optim.sweep.pick import Budget

EVERY = ("",)


@dataclass(frozen=True)
class Settings:
    """What conf/sweep.yaml and the command line say to all of them."""

    name: str  # as on the command line: sweep=paper
    results_dir: Path
    cache_dir: Path
    clean: str | None  # unused | older:30d | all
    yes: bool  # nothing is asked
    dry_run: bool  # says what it would do, and does nothing
    budget: Budget
    trials: int
    timeout_min: float | None
    run: str | None  # of sweep=publish: a run_id
    repo: str | None  # of sweep=publish: OWNER/NAME
    host: str | None  # of sweep=measure: where; None: here
    host_python: str  # there
    file: str | None  # of sweep=import: what measure.py wrote
    machine: str | None  # of sweep=report and sweep=pick: whose figures; None: those of each result
    overrides: list[str]  # words of the command line that are train.py's
    composed: Callable[[list[str]], Job]

    def __post_init__(self) -> None:
        for name, value in (("yes", self.yes), ("sweep.dry_run", self.dry_run)):
            if not isinstance(value, bool):  # "no" is a text, and true
                raise UserError(f"{name} must be true or false, got {value!r}.")
        if self.machine is not None:  # machine=$ID where ID is not set would be this one
            measured_on(self.machine)
        require_count("trials", self.trials)
        if self.timeout_min is not None:
            require_positive("timeout_min", self.timeout_min)

    def check(self, sweep: Sweep) -> None:
        """Raises UserError for words of the command line that this sweep would not read, before it starts."""
        for word in self.overrides:
            key = key_of(word)
            if key.startswith("hydra") and not sweep.launches and key != "hydra.searchpath":
                raise UserError(f"{word} changes nothing: {self.name} starts its points itself, one after another.")
            if not key.startswith((*sweep.reads, *BOTH)):
                only = " and ".join(sweep.reads)
                reads = f"of train.py's keys it reads {only} alone" if only else "it reads no key of train.py"
                raise UserError(f"{word} changes nothing under {self.name}: {reads}.")
        if not sweep.launches and any("interval(" in word for word in self.overrides):
            raise UserError(interval_refused(self.overrides, searched=self.name == "sweep=search"))


class Sweep(Protocol):
    """What `conf/sweep` names."""

    reads: ClassVar[tuple[str, ...]]  # how the keys of train.py begin that it reads; EVERY
    launches: ClassVar[bool]  # whether train.py -m runs its points, by a launcher of Hydra's

    def run(self, settings: Settings) -> int:
        """Does it; the exit code."""
        ...
