"""What `python sweep.py sweep=NAME` can do: each a value from conf/sweep with one method, `run`."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from omegaconf import DictConfig

from optim.common.build import build, method
from optim.common.errors import UserError, require_seed
from optim.common.files import environment
from optim.common.screen import counted
from optim.common.stages import digest_of
from optim.run.config import Job
from optim.run.keys import run_id_of
from optim.run.places import EXPERIMENT, dir_words
from optim.run.process import STOP_S, run_apart, stopping
from optim.run.result import FILE, require_writable
from optim.run.worded import is_one_value, worded, written
from optim.run.words import group_of, key_of
from optim.sweep import pick
from optim.sweep.multirun import group_words
from optim.sweep.plan import plan
from optim.sweep.progress import figures_line
from optim.sweep.settings import EVERY, Settings

if TYPE_CHECKING:
    from optim.measure.latency import Bench
    from optim.report.finished import Finished
    from optim.sweep.search import Answer, Search

PLANNED = 200  # points of a search that its plan shows: composing one takes a fifth of a second


@method("sweep", "grid")
@dataclass(frozen=True, kw_only=True)
class Grid:
    """Every combination of some values: `train.py -m` under a name."""

    points: Mapping[str, Any]  # key of train.py -> its values, with commas

    reads: ClassVar = EVERY
    launches: ClassVar = True

    def __post_init__(self) -> None:
        given = flat(self.points)
        for key, one in given.items():
            if isinstance(one, list | tuple):  # which would be one value, or several options of a group at once
                raise UserError(
                    f"sweep.points.{key} must be values with commas in one text, as 'a,b', got {written(one)}. "
                    "A list among them: '[a,b],[c]'."
                )
        values = {key: one if isinstance(one, str) else written(one) for key, one in given.items()}
        object.__setattr__(self, "points", values)

    def run(self, settings: Settings) -> int:
        """Starts train.py -m; what stands on the command line wins over the grid, in the grid's place and order."""
        more = [worded("results_dir", settings.results_dir), *(["sweep.dry_run=true"] if settings.dry_run else [])]
        words = [*dir_words(), *self.words(settings.overrides), *more]
        command = [sys.executable, "-m", "optim.command", "train", "-m", *words]
        sweep = subprocess.Popen(command, env=environment())
        with stopping(sweep, within_s=STOP_S + 1):  # it waits STOP_S for its point
            return sweep.wait()

    def words(self, overrides: Sequence[str]) -> list[str]:
        """The words of train.py -m: those of the grid, unless one of the command line stands for it, then the rest."""
        given = {key_of(word): word for word in overrides}
        own = [given.get(key, f"{key}={values}") for key, values in self.points.items()]
        return [*own, *(word for word in overrides if key_of(word) not in self.points)]


@method("sweep", "report")
@dataclass(frozen=True, kw_only=True)
class Report:
    """The comparison of everything under results_dir."""

    folder: str  # under results_dir

    reads: ClassVar = ("track",)
    launches: ClassVar = False

    def run(self, settings: Settings) -> int:
        """Writes the report."""
        _track(settings)  # which may be refused: before anything is made
        machine, folder = settings.machine, self.folder
        if not pick.finished_points(settings.results_dir, machine):
            by = f" that machine {machine} has measured" if machine else ""
            raise UserError(f"results_dir {settings.results_dir} holds no finished point{by}.")
        folder += f"-{machine}" if machine else ""
        if settings.dry_run:
            into = settings.results_dir / folder
            print(f"{settings.name} would compare what is under {settings.results_dir}, into {into}.")
            return 0
        compare_all(settings, folder, group=None)
        return 0


def compare_all(settings: Settings, name: str, *, group: str | None, notes: Sequence[str] = ()) -> None:
    """The reports of everything under results_dir, in the folder `name` there, and the index.

    group: that the runs share on W&B.
    By the figures of another machine nothing goes to W&B, whose runs have those of this one, and no baseline beside it.
    """
    from optim.report import baselines, index, wandb_report, write

    folder, machine = settings.results_dir / name, settings.machine
    require_writable(settings.results_dir, folder)
    rows = [] if machine else baselines.read_baselines(settings.results_dir)
    shown = write.write(folder, [settings.results_dir], rows=rows, notes=notes, machine=machine)
    write.show(shown, folder)
    if not machine:
        print(f"  {index.write_index(settings.results_dir)}")
        wandb_report.save(shown, folder, wandb_report.Place.of(_track(settings), group))


def _track(settings: Settings) -> DictConfig:
    """The tracker that the command line asks for. Raises UserError for one that finds no key."""
    track = _alone(settings, "track")
    build(track, "track")
    return track


def _bench(settings: Settings) -> Bench:
    """How files are timed."""
    return build(_alone(settings, "bench"), "bench")


def _alone(settings: Settings, group: str) -> DictConfig:
    """The option of a group that the command line asks for, by itself or by an experiment, and where that is found.

    Model and data are named to spare a look for a hub; so no key of theirs, as data.path, may stand beside them.
    """
    roots = (group, EXPERIMENT, "hydra")
    words = [word for word in settings.overrides if group_of(word) in roots]
    return settings.composed(["model=tiny", "data=csv", *words]).cfg[group]


def _files_of(settings: Settings) -> list[Finished]:
    """The finished points whose files are there to be measured; says of the others that they are left out."""
    points = pick.finished_points(settings.results_dir)
    there = pick.have_files(points)
    folders = {point.folder for point in there}
    for point in points:
        if point.folder not in folders:
            again = f"Run it again: {point.result.command}"
            print(f"{point.folder} is left out: its bundle is not there any more. {again}", file=sys.stderr)
    own = [point for point in there if os.access(point.folder, os.W_OK)]
    for point in there:
        if point not in own:  # before anything is timed: its figures could not be kept
            print(f"{point.folder} is left out: it cannot be written.", file=sys.stderr)
    return own


@method("sweep", "measure")
@dataclass(frozen=True, kw_only=True)
class Measure:
    """All finished points timed side by side, on this machine or another: latencies that can be compared."""

    folder: str  # under results_dir

    reads: ClassVar = ("bench", "track")
    launches: ClassVar = False

    def run(self, settings: Settings) -> int:
        """Times, then compares."""
        from optim.sweep import elsewhere
        from optim.sweep.remeasure import remeasure

        _track(settings)
        points = _files_of(settings)
        if not points:
            raise UserError(f"results_dir {settings.results_dir} holds no finished point.")
        host = None if settings.host is None else elsewhere.host_of(settings.host, settings.host_python)
        if settings.dry_run:
            files = f"the files of {counted(len(points), 'point')}"
            print(f"{settings.name} would time {files} on {settings.host or 'this machine'}.")
            return 0
        if host is None:
            count, found = remeasure(points, _bench(settings)), None
        else:
            found = elsewhere.taken(host.measure(points, _bench(settings)), points, str(settings.host))
            count = found.files
        files = f"{counted(count, 'file')} of {counted(len(points), 'point')}"
        print(f"{files} timed side by side.")
        return Report(folder=self.folder).run(replace(settings, machine=found.machine if found else None))


@method("sweep", "import")
@dataclass(frozen=True, kw_only=True)
class Import:
    """What measure.py of a bundle found on another machine, as figures of the points whose files it timed."""

    folder: str  # under results_dir

    reads: ClassVar = ()
    launches: ClassVar = False

    def run(self, settings: Settings) -> int:
        """Takes them, then compares."""
        from optim.sweep import elsewhere

        if settings.file is None:
            raise UserError("sweep=import needs file=FILE: what `python3 measure.py --output FILE` wrote in a bundle.")
        points = _files_of(settings)
        figures = elsewhere.read_figures(Path(settings.file).expanduser())
        if settings.dry_run:
            print(f"{settings.name} would take the figures in {settings.file} to the points of their files.")
            return 0
        found = elsewhere.taken(figures, points, settings.file)
        print(found.line())
        return Report(folder=self.folder).run(replace(settings, machine=found.machine))


@method("sweep", "pick")
@dataclass(frozen=True, kw_only=True)
class Pick:
    """The most accurate finished point within a budget."""

    reads: ClassVar = ()
    launches: ClassVar = False

    def run(self, settings: Settings) -> int:
        """Prints it."""
        machine = settings.machine
        points = pick.finished_points(settings.results_dir, machine)
        if machine and not points:
            by = f"that machine {machine} has measured"
            raise UserError(f"results_dir {settings.results_dir} holds no finished point {by}.")
        print(pick.answer(points, settings.budget))
        return 0


@method("sweep", "search")
@dataclass(frozen=True, kw_only=True)
class SearchSweep:
    """Finds the best points over the options of some groups, the budget as constraints.

    The journal resumes, and several processes may share it; a point that was run before costs nothing. Other data,
    another space and another budget are searches of their own in it.
    """

    space: Mapping[str, Any]  # key of train.py -> its options
    sampler: str  # tpe | nsga2 | random
    journal: str  # a file under results_dir
    seed: int

    reads: ClassVar = EVERY
    launches: ClassVar = False

    def __post_init__(self) -> None:
        require_seed("sweep.seed", self.seed)
        object.__setattr__(self, "space", flat(self.space))
        for key, options in self.space.items():
            if not isinstance(options, list | tuple):
                raise UserError(f"sweep.space.{key} must be a list, [a, b], got {options!r}.")
            if not options:
                raise UserError(f"sweep.space.{key} is empty. Name at least one option: sweep.space.{key}=[a,b].")

    def run(self, settings: Settings) -> int:
        """Searches the keys that the command line leaves open: one that stands there is the same in every trial."""
        given = set(map(key_of, settings.overrides))
        space = {key: list(map(_option, options)) for key, options in self.space.items() if key not in given}
        return replace(self, space=space)._run(settings)

    def _run(self, settings: Settings) -> int:
        """Runs trials until there are enough, or the time is up, and writes the report."""
        from optim.sweep import search
        from optim.sweep.again import measure_noisy_again

        if settings.dry_run:
            return self._show(settings)
        require_writable(settings.results_dir, settings.results_dir)
        group = f"search-{digest_of([dict(self.space), settings.overrides])}"
        words = group_words(_track(settings), group)
        name = f"{group}-{self._asked(settings)}"
        study = search.study_in(settings.results_dir / self.journal, name=name, sampler=self.sampler, seed=self.seed)
        engine = search.Search(study, self.space, identify=lambda choice: self._point(settings, choice)[1].name,
                              answer=lambda choice: self._answer(settings, choice, words), seed=self.seed,
                              there=lambda point: (settings.results_dir / point / FILE).is_file())  # fmt: skip
        failed = self._trials(engine, settings)
        known = [point_values(p) for p in pick.on_same_data(settings.results_dir, engine.known())]
        values = search.read_journal(study)
        folders = [p.folder for p in pick.have_files(pick.finished_points(settings.results_dir))]
        measure_noisy_again(folders, _bench(settings))
        notes = [search.versus_random(values, known).line()] if values and known else []
        compare_all(settings, "search", group=group, notes=notes)
        print(pick.answer(pick.on_same_data(settings.results_dir, engine.known()), settings.budget))
        return 1 if failed else 0

    def _show(self, settings: Settings) -> int:
        """The plan of all points of the space, or of the first ones of a large one: a search runs some of them."""
        choices = [dict(zip(self.space, options, strict=True)) for options in itertools.product(*self.space.values())]
        print(plan([self._point(settings, choice)[0] for choice in choices[:PLANNED]]).table())
        shown = "" if len(choices) <= PLANNED else f", of which the first {PLANNED} are planned above"
        print(f"The space has {len(choices)} points{shown}; at most {settings.trials} trials run.")
        return 0

    def _asked(self, settings: Settings) -> str:
        """A digest of what the words of a search leave open: the budget, and what data and weights are by content.

        The first point stands for those. A mistake in the words, or in any option of the space, ends the search here.
        """
        first = {key: options[0] for key, options in self.space.items()}
        choices = [first, *({**first, key: option} for key, options in self.space.items() for option in options[1:])]
        points = [self._point(settings, choice) for choice in choices]
        plan([job for job, _ in points])  # refuses methods that do not go together, and a tracker without a key
        name = points[0][1].name
        return digest_of([name, [(name, float(limit)) for name, limit, _ in settings.budget.bounds()]])

    def _trials(self, engine: Search, settings: Settings) -> int:
        """How many failed."""
        until, failed = time.monotonic() + 60 * (settings.timeout_min or 1e9), 0
        while (count := len(engine.known()) + failed) < settings.trials and time.monotonic() < until:
            print(f"trial {count + 1} of {settings.trials}", file=sys.stderr)
            worked = engine.step()
            if worked is None:
                print("No point of the space is left to try.", file=sys.stderr)
                break
            failed += not worked
        return failed

    def _point(self, settings: Settings, choice: Mapping[str, Any], more: Sequence[str] = ()) -> tuple[Job, Path]:
        """The job of a choice and its run folder."""
        from optim.run.point import point_of

        words = [*settings.overrides, *(f"{key}={option}" for key, option in choice.items()), *more]
        job = settings.composed([*words, worded("results_dir", settings.results_dir)])
        return job, job.results_dir / run_id_of(point_of(job.cfg))

    def _answer(self, settings: Settings, choice: Mapping[str, Any], words: list[str]) -> Answer | None:
        """Runs the point; None if it failed."""
        from optim.report import finished
        from optim.sweep.search import Answer

        job, folder = self._point(settings, choice, words)
        print(f"  {job.command}", file=sys.stderr)
        if not run_apart(job):
            return None
        point = finished.read_all([folder])[0][0]
        print(f"  {figures_line(point.result)}", file=sys.stderr)
        return Answer(point_values(point), {name: of(point) - limit for name, limit, of in settings.budget.bounds()})


def flat(node: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`distill: {temperature: ...}` as `distill.temperature`. A command line can name a key of the first form alone."""
    found: dict[str, Any] = {}
    for key, value in node.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found


def _option(value: Any) -> Any:
    """An option of a space as Optuna and a word of train.py take it: a list, or nothing, as it is written there.

    A text stays as it is where Hydra reads a value from it: `[a,b]` may stand there for a list.
    """
    stays = is_one_value(value) if isinstance(value, str) else isinstance(value, int | float)
    return value if stays else written(value)


def point_values(point) -> tuple[float, float, float]:
    """A finished point as `search.OBJECTIVES`."""
    return point.accuracy, point.cost("latency_p50_ms"), point.cost("file_bytes")
