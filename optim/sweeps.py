"""What `python sweep.py sweep=NAME` can do: each a value from conf/sweep with one method, `run`."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from optim import pick as picking
from optim.errors import UserError, require_count, require_positive
from optim.pick import Budget
from optim.point import Job, run_apart, run_id_of

ROOT = Path(__file__).resolve().parent.parent
OBJECTIVES = ("accuracy_fraction", "latency_p50_ms", "file_bytes")
DIRECTIONS = ("maximize", "minimize", "minimize")


@dataclass(frozen=True)
class Settings:
    """What all of them are told."""

    results_dir: Path
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

    def run(self, told: Settings) -> int:
        """Does it; the exit code."""
        ...


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Every combination of some values: `train.py -m` under a name."""

    points: Mapping[str, str]  # key of train.py -> its values, with commas

    def run(self, told: Settings) -> int:
        """Starts train.py -m; what stands on the command line wins over the grid."""
        given = {word.split("=", 1)[0] for word in told.overrides}
        own = [f"{key}={values}" for key, values in self.points.items() if key not in given]
        command = [sys.executable, str(ROOT / "train.py"), "-m", *own, *told.overrides]
        return subprocess.run([*command, f"results_dir={told.results_dir}"]).returncode


@dataclass(frozen=True, kw_only=True)
class Report:
    """The comparison of everything under results_dir."""

    folder: str  # under results_dir

    def run(self, told: Settings) -> int:
        """Writes the report and the index."""
        from optim import report

        if not picking.finished(told.results_dir):
            raise UserError(f"results_dir {told.results_dir} holds no finished point.")
        folder = told.results_dir / self.folder
        folder.mkdir(parents=True, exist_ok=True)
        report.show(report.write(folder, [told.results_dir]), folder)
        print(f"  {report.write_index(told.results_dir)}")
        return 0


@dataclass(frozen=True, kw_only=True)
class Measure:
    """All finished points timed side by side on this machine: latencies that can be compared."""

    folder: str  # under results_dir

    def run(self, told: Settings) -> int:
        """Times, then compares."""
        from optim.build import build
        from optim.remeasure import remeasure

        points = picking.finished(told.results_dir)
        if not points:
            raise UserError(f"results_dir {told.results_dir} holds no finished point.")
        cfg = told.composed(["model=tiny", "data=csv", "track=none", *told.overrides]).cfg
        count = remeasure(points, build(cfg.bench, "bench"))
        print(f"{count} files of {len(points)} points timed side by side.")
        return Report(folder=self.folder).run(told)


@dataclass(frozen=True, kw_only=True)
class Pick:
    """The most accurate finished point within a budget."""

    def run(self, told: Settings) -> int:
        """Prints it."""
        print(picking.answer(picking.finished(told.results_dir), told.budget))
        return 0


@dataclass(frozen=True, kw_only=True)
class Search:
    """Finds the best points with Optuna: NSGA-II over the options of the groups, the budget as constraints.

    The journal resumes, and several processes may share it; a point that was run before costs nothing.
    """

    space: Mapping[str, Sequence[Any]]  # key of train.py -> its options
    journal: str  # a file under results_dir
    population: int  # of NSGA-II
    seed: int

    def run(self, told: Settings) -> int:
        """Runs trials until there are enough, or the time is up, and writes the report."""
        from optim import report

        study = self.study(told.results_dir / self.journal, told.budget)
        until = time.monotonic() + 60 * (told.timeout_min or 1e9)
        failed = 0
        while len(study.trials) < told.trials and time.monotonic() < until:
            failed += not self._trial(study, told)
        folder = told.results_dir / "search"
        folder.mkdir(parents=True, exist_ok=True)
        report.show(report.write(folder, [told.results_dir]), folder)
        print(picking.answer(picking.finished(told.results_dir), told.budget))
        return 1 if failed else 0

    def study(self, journal: Path, budget: Budget):
        """The Optuna study in a journal file, new or going on."""
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        journal.parent.mkdir(parents=True, exist_ok=True)
        sampler = optuna.samplers.NSGAIISampler(
            population_size=self.population, seed=self.seed,
            constraints_func=(lambda trial: trial.user_attrs["excess"]) if budget.bounds() else None,
        )  # fmt: skip
        return optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(journal))), study_name="search", sampler=sampler,
            directions=list(DIRECTIONS), load_if_exists=True,
        )  # fmt: skip

    def _trial(self, study, told: Settings) -> bool:
        import optuna

        from optim import compare
        from optim.point import point_of

        trial = study.ask()
        chosen = [f"{key}={trial.suggest_categorical(key, list(options))}" for key, options in self.space.items()]
        job = told.composed([*told.overrides, *chosen, f"results_dir={told.results_dir}"])
        print(f"trial {trial.number + 1} of {told.trials}: {' '.join(chosen)}", file=sys.stderr)
        folder = job.results_dir / run_id_of(point_of(job.cfg))
        trial.set_user_attr("run_id", folder.name)
        if not run_apart(job):
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            return False
        point = compare.read_all([folder])[0][0]
        trial.set_user_attr("excess", [of(point) - limit for _, limit, of in told.budget.bounds()])
        study.tell(trial, [point.accuracy, point.cost("latency_p50_ms"), point.cost("file_bytes")])
        return True
