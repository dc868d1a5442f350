"""What `python sweep.py sweep=NAME` can do: each a value from conf/sweep with one method, `run`."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from optim.common.build import method
from optim.common.errors import UserError
from optim.common.files import ROOT
from optim.common.stages import digest_of
from optim.run.config import Job
from optim.run.keys import run_id_of
from optim.run.process import STOP_S, run_apart, stop
from optim.sweep import pick
from optim.sweep.multirun import group_words
from optim.sweep.settings import Settings


@method("sweep", "grid")
@dataclass(frozen=True, kw_only=True)
class Grid:
    """Every combination of some values: `train.py -m` under a name."""

    points: Mapping[str, str]  # key of train.py -> its values, with commas

    def run(self, told: Settings) -> int:
        """Starts train.py -m; what stands on the command line wins over the grid, in the grid's place and order."""
        given = {word.split("=", 1)[0]: word for word in told.overrides}
        own = [given.get(key, f"{key}={values}") for key, values in self.points.items()]
        rest = [word for word in told.overrides if word not in own]
        command = [sys.executable, str(ROOT / "train.py"), "-m", *own, *rest]
        sweep = subprocess.Popen([*command, f"results_dir={told.results_dir}"])
        try:
            return sweep.wait()
        except BaseException:
            stop(sweep, within_s=STOP_S + 1)  # it waits STOP_S for its point
            raise


@method("sweep", "report")
@dataclass(frozen=True, kw_only=True)
class Report:
    """The comparison of everything under results_dir."""

    folder: str  # under results_dir

    def run(self, told: Settings) -> int:
        """Writes the report and the index."""
        from optim.report import index

        if not pick.finished_points(told.results_dir):
            raise UserError(f"results_dir {told.results_dir} holds no finished point.")
        compare_all(told, self.folder, group=None)
        print(f"  {index.write_index(told.results_dir)}")
        return 0


def compare_all(told: Settings, name: str, *, group: str | None, notes: Sequence[str] = ()) -> None:
    """The reports of everything under results_dir, in the folder `name` there. `group`: that the runs share on W&B."""
    from optim.report import baselines, wandb_report, write

    folder = told.results_dir / name
    folder.mkdir(parents=True, exist_ok=True)
    found = write.write(folder, [told.results_dir], rows=baselines.read_baselines(told.results_dir), notes=notes)
    write.show(found, folder)
    wandb_report.save(found, folder, wandb_report.Place.of(_track(told), group))


def _track(told: Settings) -> DictConfig:
    """The option of `track` that the command line asks for; model and data are named to spare a look for a hub."""
    words = [word for word in told.overrides if word.lstrip("+").split("=")[0].split(".")[0] == "track"]
    return told.composed(["model=tiny", "data=csv", *words]).cfg.track


@method("sweep", "measure")
@dataclass(frozen=True, kw_only=True)
class Measure:
    """All finished points timed side by side on this machine: latencies that can be compared."""

    folder: str  # under results_dir

    def run(self, told: Settings) -> int:
        """Times, then compares."""
        from optim.common.build import build
        from optim.sweep.remeasure import remeasure

        points = pick.finished_points(told.results_dir)
        if not points:
            raise UserError(f"results_dir {told.results_dir} holds no finished point.")
        cfg = told.composed(["model=tiny", "data=csv", "track=none", *told.overrides]).cfg
        count = remeasure(points, build(cfg.bench, "bench"))
        print(f"{count} files of {len(points)} points timed side by side.")
        return Report(folder=self.folder).run(told)


@method("sweep", "pick")
@dataclass(frozen=True, kw_only=True)
class Pick:
    """The most accurate finished point within a budget."""

    def run(self, told: Settings) -> int:
        """Prints it."""
        print(pick.answer(pick.finished_points(told.results_dir), told.budget))
        return 0


@method("sweep", "search")
@dataclass(frozen=True, kw_only=True)
class Search:
    """Finds the best points over the options of some groups, the budget as constraints.

    The journal resumes, and several processes may share it; a point that was run before costs nothing.
    """

    space: Mapping[str, Sequence[Any]]  # key of train.py -> its options
    sampler: str  # tpe | nsga2 | random
    journal: str  # a file under results_dir
    seed: int

    def run(self, told: Settings) -> int:
        """Runs trials until there are enough, or the time is up, and writes the report."""
        from optim.sweep import search

        study = search.study_in(told.results_dir / self.journal, sampler=self.sampler, seed=self.seed)
        group = f"search-{digest_of([dict(self.space), told.overrides])}"
        words = group_words(_track(told), group)
        self._point(told, {key: options[0] for key, options in self.space.items()})  # a mistake ends it here
        going = search.Search(study, self.space, identify=lambda choice: self._point(told, choice)[1].name,
                              answer=lambda choice: self._answer(told, choice, words), seed=self.seed)  # fmt: skip
        failed = self._trials(going, told)
        known = [point_values(p) for p in pick.finished_points(told.results_dir)]
        found = search.read_journal(study)
        notes = [search.versus_random(found, known).line()] if found else []
        compare_all(told, "search", group=group, notes=notes)
        print(pick.answer(pick.finished_points(told.results_dir), told.budget))
        return 1 if failed else 0

    def _trials(self, going, told: Settings) -> int:
        """How many failed."""
        until, failed = time.monotonic() + 60 * (told.timeout_min or 1e9), 0
        while (count := len(going.known()) + failed) < told.trials and time.monotonic() < until:
            print(f"trial {count + 1} of {told.trials}", file=sys.stderr)
            worked = going.step()
            if worked is None:
                print("Every point of the space has been tried.", file=sys.stderr)
                break
            failed += not worked
        return failed

    def _point(self, told: Settings, choice: Mapping[str, Any], more: Sequence[str] = ()) -> tuple[Job, Path]:
        """The job of a choice and its run folder."""
        from optim.run.point import point_of

        words = [*told.overrides, *(f"{key}={option}" for key, option in choice.items()), *more]
        job = told.composed([*words, f"results_dir={told.results_dir}"])
        return job, job.results_dir / run_id_of(point_of(job.cfg))

    def _answer(self, told: Settings, choice: Mapping[str, Any], words: list[str]):
        from optim.report import finished
        from optim.sweep.search import Answer

        job, folder = self._point(told, choice, words)
        print(f"  {job.command}", file=sys.stderr)
        if not run_apart(job):
            return None
        point = finished.read_all([folder])[0][0]
        return Answer(point_values(point), {name: of(point) - limit for name, limit, of in told.budget.bounds()})


def point_values(point) -> tuple[float, float, float]:
    """A finished point as `search.OBJECTIVES`."""
    return point.accuracy, point.cost("latency_p50_ms"), point.cost("file_bytes")
