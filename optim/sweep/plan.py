"""What a sweep will do before it does it: its points, the stages they share, and about how long they take."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from optim.common.errors import UserError
from optim.common.stages import SUMS, Wanted
from optim.data.corpus import Corpus
from optim.run import result
from optim.run.config import Job
from optim.run.keys import run_id_of
from optim.run.point import Point, point_of
from optim.run.steps import steps_of

STAGES = ("augmented", "unlabelled", "tokens", "teacher", "logits", "surgery", "student", "float32", "table", "file",
          "figures")  # fmt: skip


@dataclass
class Planned:
    """One point of a sweep."""

    job: Job
    run_id: str
    done: bool
    wanted: list[Wanted] = field(default_factory=list)  # of a point that is not done

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
    seconds: dict[str, float | None]  # per stage of a kind, from those of that kind in the cache; None: none yet

    @property
    def todo(self) -> list[Planned]:
        """Points still to be run; of several with one run_id only the first."""
        return list({p.run_id: p for p in reversed(self.points) if not p.done}.values())[::-1]

    @property
    def total_s(self) -> float | None:
        """Seconds of the stages to build, one after another; None where a kind was never timed."""
        if any(wanted and self.seconds[kind] is None for kind, wanted in self.build.items()):
            return None
        return sum(len(wanted) * (self.seconds[kind] or 0.0) for kind, wanted in self.build.items())

    def table(self) -> str:
        """For a screen."""
        done = len(self.points) - len([p for p in self.points if not p.done])
        lines = [f"{len(self.points)} points: {done} done, {len(self.todo)} to run", ""]
        if self.todo:
            lines += [f"  {'stage':<10}{'to build':>9}{'at hand':>9}{'each about':>12}"]
            for kind in (kind for kind in STAGES if self.build[kind] or self.at_hand[kind]):
                each = self.seconds[kind]
                shown = "not known" if each is None else _time(each)
                lines.append(f"  {kind:<10}{len(self.build[kind]):>9}{len(self.at_hand[kind]):>9}{shown:>12}")
            total = self.total_s
            lines += ["", "  About how long is not known: some of these stages were never timed here." if total is None
                      else f"  About {_time(total)} one after another."]  # fmt: skip
        return "\n".join(lines) + "\n"


def _time(seconds: float) -> str:
    return (
        f"{seconds:.0f} s"
        if seconds < 100
        else f"{seconds / 60:.0f} min"
        if seconds < 6000
        else f"{seconds / 3600:.1f} h"
    )


def plan(jobs: Sequence[Job]) -> Plan:
    """Checks every point and finds the stages. Raises UserError, naming the point, before anything is made."""
    if not jobs:
        raise UserError("The sweep is empty: it names no point. Give at least one value for each key.")
    corpora: dict[str, Corpus] = {}
    points = [_planned(job, corpora) for job in jobs]
    distinct = {w.key: w for p in points for w in p.wanted}
    cache_dir = jobs[0].cache_dir
    build: dict[str, list[Wanted]] = {kind: [] for kind in STAGES}
    at_hand: dict[str, list[Wanted]] = {kind: [] for kind in STAGES}
    for wanted in distinct.values():
        (build if wanted.at_hand(cache_dir) is None else at_hand)[wanted.name].append(wanted)
    return Plan(points, build, at_hand, {kind: _usual_seconds(cache_dir, kind) for kind in STAGES})


def _planned(job: Job, corpora: dict[str, Corpus]) -> Planned:
    try:
        point = point_of(job.cfg)
        planned = Planned(job, run_id_of(point), False)
        planned.done = result.read(planned.folder) is not None
        if not planned.done:
            planned.wanted = _wanted(point, job.cache_dir, corpora)
    except UserError as error:
        raise UserError(f"{error}\nIn the point: {job.command}") from error
    return planned


def _wanted(point: Point, cache_dir: Path, corpora: dict[str, Corpus]) -> list[Wanted]:
    """The stages of a point; a corpus is read once for all points that share it."""
    data = json.dumps(point.source.fingerprint(), sort_keys=True, default=str)
    if data not in corpora:
        corpora[data] = point.source.load(cache_dir)
    return steps_of(point, corpora[data], cache_dir).wanted()


def _usual_seconds(cache_dir: Path, kind: str) -> float | None:
    """The median of the stages of one kind in the cache."""
    times = []
    for path in (cache_dir / "stages").glob(f"{kind}-*/{SUMS}"):
        with suppress(OSError, ValueError, KeyError):
            times.append(json.loads(path.read_text(encoding="utf-8"))["seconds"])
    return median(times) if times else None
