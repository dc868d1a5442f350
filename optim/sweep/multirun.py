"""Many points: the plan, then those that are missing, then one comparison of all."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from optim.common import files, hub
from optim.common.build import build
from optim.common.screen import shown
from optim.common.secrets import masked
from optim.common.stages import digest_of
from optim.run import result
from optim.run.config import Job
from optim.run.process import run_apart
from optim.run.words import unread_epochs
from optim.sweep.plan import Plan, plan
from optim.sweep.progress import Progress

SWEEP_FILE = "sweep.json"
NOT_RUN = "it was not run"
NOT_ENDED = "it has left nothing yet: the launcher gave up, and may have left its job running or waiting"
Composed = tuple[DictConfig, dict[str, Any]]
log = logging.getLogger("optim")


def sweep(
    batch: list[list[str]], composed: Callable[[list[str]], Composed], launch: Callable[[list[list[str]]], None],
    notes: Callable[[], Sequence[str]] = lambda: (),
) -> bool:  # fmt: skip
    """Whether every point is done in the end. `composed` makes config and choices of a point, `launch` runs some.

    notes: lines of the report, asked for when the points are there.
    Raises UserError for a mistake in any point before the first one starts.
    """
    jobs = [Job.of(*composed(words), words) for words in shown(batch, "composed", "point")]
    planned = plan(jobs)
    if line := hub.explain(*(job.choices[group] for job in jobs for group in ("model", "data"))):
        log.info("%s", line)
    for line in dict.fromkeys(line for job in jobs for line in unread_epochs(job.overrides, job.cfg)):
        log.info("%s", line)
    print(planned.table())
    if jobs[0].cfg.sweep.dry_run:
        return True
    folder = write_sweep(planned)
    missing, reason, since = planned.todo, NOT_RUN, time.time()
    if missing:
        try:
            with Progress(planned):
                launch([[*p.job.overrides, *group_words(p.job.cfg.track, _group(folder))] for p in missing])
        except Exception as error:  # a launcher that lost its workers: what is done is done, and will be compared
            log.error("The launcher gave up: %s: %s", type(error).__name__, files.first_line(error))
            reason = NOT_ENDED
    return _close(planned, folder, reason, since, notes)


def sweep_apart(
    batch: list[list[str]], composed: Callable[[list[str]], Job], notes: Callable[[], Sequence[str]] = lambda: ()
) -> bool:
    """`sweep` with each point in a process of its own, one after another."""

    def parts(words: list[str]) -> Composed:
        job = composed(words)
        return job.cfg, job.choices

    def launch(missing: list[list[str]]) -> None:
        for words in missing:
            run_apart(composed(words))

    return sweep(batch, parts, launch, notes)


def write_sweep(planned: Plan) -> Path:
    """The folder of a sweep, named by its points, with `sweep.json` in it: what was planned, before it is run."""
    ids = sorted({p.run_id for p in planned.points})
    folder = planned.points[0].job.results_dir / "sweeps" / digest_of(ids)
    result.require_writable(planned.points[0].job.results_dir, folder)
    points = [{"run_id": p.run_id, "overrides": p.job.overrides, "command": p.job.command} for p in planned.points]
    sweep = masked({"schema": result.SCHEMA, "points": points})
    files.write_text(folder / SWEEP_FILE, json.dumps(sweep, indent=2) + "\n")
    return folder


def _group(folder: Path) -> str:
    return f"sweep-{folder.name}"


def group_words(track: DictConfig, group: str) -> list[str]:
    """The override that joins W&B's runs of one sweep; none where the user named a group, or nothing is tracked."""
    return [f"track.group={group}"] if "group" in track and track.group is None else []


def _is_older(page: Path, folders: Sequence[Path]) -> bool:
    """Whether there is no page, or a point was run or timed again since it was written."""
    files = [folder / name for folder in folders for name in (result.FILE, result.REMEASURED)]
    newest = max((path.stat().st_mtime_ns for path in files if path.is_file()), default=0)
    return not page.is_file() or page.stat().st_mtime_ns < newest


def _close(
    planned: Plan, folder: Path, reason: str = NOT_RUN, since: float = 0.0,
    notes: Callable[[], Sequence[str]] = lambda: (),
) -> bool:  # fmt: skip
    """Compares what there is and lists what failed with the command that runs it again.

    reason: of a point that left none after `since`, a time of the clock.
    """
    from optim.report import baselines, comparison, index, page, wandb_report, write
    from optim.sweep.again import measure_noisy_again

    missing = [p for p in planned.todo if result.read(p.folder) is None]
    folders, commands = [p.folder for p in planned.points], [p.job.command for p in planned.points]
    rows = baselines.read_baselines(planned.points[0].job.results_dir)
    if planned.todo:
        measure_noisy_again(list(dict.fromkeys(folders)), build(planned.points[0].job.cfg.bench, "bench"))
    told = notes()
    if planned.todo or told or _is_older(folder / page.PAGE, folders):  # train.py -m may have written it, without them
        found = write.write(folder, folders, commands, rows, told)
        index.write_index(planned.points[0].job.results_dir)
    else:
        found = comparison.compared(folders, commands, rows)
    write.show(found, folder)
    wandb_report.save(found, folder, wandb_report.Place.of(planned.points[0].job.cfg.track, _group(folder)))
    for point in missing:
        file = point.folder / result.FILE
        left = file.is_file() and file.stat().st_mtime >= since
        error = (result.error_of(point.folder) if left else None) or reason
        print(f"Failed: {point.job.command}\n        {error.splitlines()[0]}")
    return not missing
