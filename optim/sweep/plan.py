"""What a sweep will do before it does it: its points, the stages they share, and about how long they take."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, median

from optim.common.build import build
from optim.common.errors import UserError
from optim.common.screen import shown
from optim.common.stages import SUMS, Wanted
from optim.data.corpus import Corpus
from optim.run import result
from optim.run.config import Job
from optim.run.fits import FitStep, LogitsStep
from optim.run.forecast import Forecast, named, spoken
from optim.run.keys import run_id_of
from optim.run.point import Point, point_of
from optim.run.step import Step
from optim.run.steps import other_classes, steps_of
from optim.run.transfer import UnlabelledStep
from optim.run.words import told

STAGES = ("augmented", "unlabelled", "tokens", "alignment", "latency", "teacher", "logits", "surgery", "student",
          "float32", "table", "candidates", "file", "figures", "compressed")  # fmt: skip
ONE_EACH = ("results_dir", "cache_dir")  # points that differ in these alone have one run_id: one of them would be run


@dataclass
class Planned:
    """One point of a sweep."""

    job: Job
    run_id: str
    done: bool
    steps: list[Step] = field(default_factory=list)  # of a point that is not done
    warnings: list[str] = field(default_factory=list)  # about what it starts from

    @property
    def folder(self) -> Path:
        """Its run folder."""
        return self.job.results_dir / self.run_id


@dataclass
class Plan:
    """All points of a sweep, and the distinct stages of those that are not done."""

    points: list[Planned]
    build: dict[str, list[Wanted]]
    at_hand: dict[str, list[Wanted]]
    seconds: dict[str, float | None]  # about, of each stage to build, by its key; None: its kind was never timed here
    fits: list[str]  # a line for each fit to build
    warnings: list[str]  # about what the points start from

    @property
    def todo(self) -> list[Planned]:
        """Points still to be run; of several with one run_id only the first."""
        return list({p.run_id: p for p in reversed(self.points) if not p.done}.values())[::-1]

    @property
    def total_s(self) -> float | None:
        """Seconds of the stages to build, one after another; None where a kind was never timed."""
        times = self._times([wanted for kind in self.build.values() for wanted in kind])
        return None if times is None else sum(times)

    def _times(self, wanted: Sequence[Wanted]) -> list[float] | None:
        """Of each; None where one is not known."""
        known = [s for s in (self.seconds[w.key] for w in wanted) if s is not None]
        return known if len(known) == len(wanted) else None

    def table(self) -> str:
        """For a screen."""
        done = sum(p.done for p in self.points)
        points = "1 point" if len(self.points) == 1 else f"{len(self.points)} points"
        lines = [f"{points}: {done} done, {len(self.todo)} to run", ""]
        if self.todo:
            lines += [f"  {'stage':<10}{'to build':>9}{'at hand':>9}{'each about':>12}"]
            for kind in (kind for kind in STAGES if self.build[kind] or self.at_hand[kind]):
                times = self._times(self.build[kind])
                shown = "not known" if times is None else _about(mean(times)).removeprefix("about ") if times else "-"
                lines.append(f"  {kind:<10}{len(self.build[kind]):>9}{len(self.at_hand[kind]):>9}{shown:>12}")
            total = self.total_s
            lines += ["", "  About how long is not known: some of these stages were never timed here." if total is None
                      else f"  {_about(total).capitalize()} one after another."]  # fmt: skip
            lines += ["", *(f"  {line}" for line in self.fits)] if self.fits else []
            lines += ["", *(f"  {line}" for line in self.warnings)] if self.warnings else []
        return "\n".join(lines) + "\n"


def plan(jobs: Sequence[Job]) -> Plan:
    """Checks every point and finds the stages. Raises UserError, naming the point, before anything is made."""
    if not jobs:
        raise UserError("The sweep is empty: it names no point. Give at least one value for each key.")
    for key in ONE_EACH:
        if len(found := list(dict.fromkeys(str(job.cfg[key]) for job in jobs))) > 1:
            raise UserError(f"{key}: a sweep has one; got {', '.join(found)}. Start a sweep for each.")
    corpora: dict[str, Corpus] = {}
    points = [_planned(job, corpora, alone=len(jobs) == 1) for job in shown(jobs, "planned", "point")]
    distinct = {step.wanted.key: step for p in points for step in p.steps}
    cache_dir = jobs[0].cache_dir
    build: dict[str, list[Wanted]] = {kind: [] for kind in STAGES}
    at_hand: dict[str, list[Wanted]] = {kind: [] for kind in STAGES}
    missing: list[Step] = []
    for step in distinct.values():
        new = step.wanted.at_hand(cache_dir) is None
        (build if new else at_hand)[step.wanted.name].append(step.wanted)
        missing += [step] if new else []
        if new and isinstance(step, UnlabelledStep):
            step.require_unseen()
    warnings = list(dict.fromkeys(line for p in points for line in p.warnings))
    return Plan(points, build, at_hand, *_forecast(missing, cache_dir), warnings)


def _forecast(missing: Sequence[Step], cache_dir: Path) -> tuple[dict[str, float | None], list[str]]:
    """(about how many seconds each stage takes, by its key; a line for each model that is fitted, and each teacher)."""
    seconds, lines = seconds_of(missing, cache_dir, Forecast(cache_dir)), {}
    for step in missing:
        if isinstance(step, FitStep | LogitsStep):
            lines.setdefault(named(step), []).append(seconds[step.wanted.key])
    return seconds, [f"{name}: {len(each)} to build, each {_about(mean(each))}" for name, each in lines.items()]


def _about(seconds: float) -> str:
    """A duration that is an estimate, as people say it."""
    return f"about {spoken(seconds)}" if seconds >= 1 else "under 1 s"


def seconds_of(steps: Sequence[Step], cache_dir: Path, forecast: Forecast) -> dict[str, float | None]:
    """About how long each takes, by its key: a fit by what it computes, others as those of their kind before.

    None where none of its kind is in the cache.
    """
    usual = {kind: _usual_seconds(cache_dir, kind) for kind in {step.kind for step in steps}}
    return {
        step.wanted.key: forecast.seconds(step) if isinstance(step, FitStep | LogitsStep) else usual[step.kind]
        for step in steps
    }


def _planned(job: Job, corpora: dict[str, Corpus], *, alone: bool) -> Planned:
    """alone: there is no other point, so a mistake needs no word on whose it is."""
    try:
        point = point_of(job.cfg)
        planned = Planned(job, run_id_of(point), False)
        planned.done = result.done_in(planned.folder) is not None
        if not planned.done:
            build(job.cfg.track, "track")  # without a key W&B takes no point
            corpus = _corpus(point, job.cache_dir, corpora)
            planned.steps = steps_of(point, corpus, job.cache_dir).all()
            planned.warnings = other_classes(planned.steps, corpus)
    except UserError as error:
        where = "" if alone else f"\nIn the point: {job.command}"
        raise UserError(f"{told(error)}{where}") from error
    return planned


def _corpus(point: Point, cache_dir: Path, corpora: dict[str, Corpus]) -> Corpus:
    """The sentences of a point, read once for all points that share them."""
    data = json.dumps(point.source.fingerprint(), sort_keys=True, default=str)
    if data not in corpora:
        corpora[data] = point.source.load(cache_dir)
    return corpora[data]


def _usual_seconds(cache_dir: Path, kind: str) -> float | None:
    """The median of the stages of one kind in the cache."""
    times = []
    for path in (cache_dir / "stages").glob(f"{kind}-*/{SUMS}"):
        with suppress(OSError, ValueError, KeyError):
            times.append(json.loads(path.read_text(encoding="utf-8"))["seconds"])
    return median(times) if times else None
