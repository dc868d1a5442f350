"""One point: a composed config in, a Result out."""

from __future__ import annotations

import logging
import os
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from optim.common import hub
from optim.common.build import build
from optim.common.cache_size import warn_if_above
from optim.common.errors import UserError
from optim.common.files import UNREADABLE, writing
from optim.common.interrupts import terminate_on_sigterm
from optim.common.screen import say, warnings_alone
from optim.common.secrets import Masking
from optim.data.leaks import known_sets, names_learnt, names_scored, require_unrelated, require_unseen_dev
from optim.encoder.origin import trained_on_by_its_files
from optim.run import card, result
from optim.run.config import Job
from optim.run.errors_text import never_answered_line
from optim.run.keys import run_id_of
from optim.run.point import Point, point_of
from optim.run.result import Result
from optim.run.words import unread_epochs

if TYPE_CHECKING:
    from optim.data.corpus import Corpus
    from optim.run.outcome import Outcome
    from optim.run.step import Curve

log = logging.getLogger("optim")


def run(job: Job, *, quiet: bool = False) -> Result:
    """One point: the result that is there already, or a new one. Raises what went wrong, after recording it.

    quiet: its table is not printed, and of its log warnings alone; train.log has all.
    """
    if quiet:
        with warnings_alone():
            return _run(job)[0]
    finished, text = _run(job)
    say(text)
    return finished


def _run(job: Job) -> tuple[Result, str]:
    """The result, and what the screen says of it."""
    point = point_of(job.cfg)
    run_id = run_id_of(point)
    folder = job.results_dir / run_id
    if done := result.done_in(folder):
        log.info("Done before; delete %s to run it again.", folder)
        _tell_of_teacher(done, point, folder, job.cache_dir)
        if os.environ.get("WANDB_SWEEP_ID"):
            _tell_agent(job, done, point)
        return done, card.table(done, folder)
    tracker = build(job.cfg.track, "track")
    result.require_writable(job.results_dir, folder)
    draft = draft_of(job, point, run_id)
    try:
        result.require_space(job.cache_dir, free_gb=job.cfg.cache_free_gb)
    except UserError as error:  # a sweep reads the reason from there
        draft.status, draft.error = result.FAILED, f"{type(error).__name__}: {error}"
        with suppress(OSError):  # where nothing can be written any more
            result.write(draft, folder)
        raise
    warn_if_above(job.cache_dir, job.cfg.cache_max_gb, job.results_dir)
    for line in unread_epochs(job.overrides, job.cfg):
        log.info("%s", line)
    with _logged_to(folder / "train.log"):
        finished = _tracked(point, draft, folder, job.cache_dir, tracker)
    return finished, card.table(finished, folder) + never_answered_line(finished.quality)


def _tracked(point: Point, draft: Result, folder: Path, cache_dir: Path, tracker) -> Result:
    """The run itself, under the tracker; every way out leaves a result.json first and then a closed tracker."""
    with terminate_on_sigterm(), _opened(tracker, draft, point) as tracked:
        try:
            _compute(point, draft, folder, cache_dir, tracked.curve)
        except BaseException as error:
            draft.status, draft.error = result.FAILED, f"{type(error).__name__}: {error}"
            if isinstance(error, Exception) and not isinstance(error, UserError):
                log.debug("%s", traceback.format_exc())
            if result.read(folder) is None:  # else another process of the same run has finished it meanwhile
                with suppress(OSError):  # of a full disk, whose own error is raised below
                    result.write(draft, folder)
            tracked.record(draft.to_json(), folder=None)
            raise
        tracked.record(draft.to_json(), folder=folder)
    return draft


def _opened(tracker, result: Result, point: Point):
    """The tracker's run of a point."""
    from optim.run.steps import is_its_teacher
    from optim.track.sender import STUDENT, TEACHER

    job_type = TEACHER if is_its_teacher(point) else STUDENT
    return tracker.run(run_id=result.run_id, cfg=result.cfg, choices=result.choices, job_type=job_type)


def _tell_of_teacher(done: Result, point: Point, folder: Path, cache_dir: Path) -> None:
    """Adds to a finished result whether the teacher helped, if the student without it has been made since."""
    from optim.run.teaching import learnt_since

    if card.untaught_command(done) is None or not _has_fits_since(cache_dir, folder / result.FILE):
        return
    try:
        labels = result.read_labels(folder)
    except UNREADABLE:  # damaged answers, which nothing can be compared with
        return
    with suppress(UserError, OSError):  # data that are out of reach now are no reason to lose what is there
        if since := learnt_since(point, cache_dir, labels):
            done.quality.update(since)
            card.write_card(done, folder)
            result.write(done, folder)


def _has_fits_since(cache_dir: Path, file: Path) -> bool:
    """Whether a fit has come into the cache since a file was written: to look for one takes the whole of the data."""
    fits = [path for kind in ("teacher", "student") for path in (cache_dir / "stages").glob(f"{kind}-*")]
    with suppress(OSError):
        return any(path.stat().st_mtime > file.stat().st_mtime for path in fits)
    return False


def _tell_agent(job: Job, done: Result, point: Point) -> None:
    """A W&B sweep waits for a run of its own for every point that it hands to an agent, finished before or not."""
    with _opened(build(job.cfg.track, "track"), done, point) as tracked:
        tracked.record(done.to_json(), folder=None)


def _compute(point: Point, draft: Result, folder: Path, cache_dir: Path, curve) -> None:
    """Fills the draft, writes the bundle and then result.json."""
    from optim.measure.device import machine

    if line := hub.explain(draft.choices["model"], draft.choices["data"]):
        log.info("%s", line)
    draft.machine = machine()  # first: its load is that before this run's own
    outcome = computed(point, cache_dir, curve)
    for part in ("quality", "size", "speed", "memory", "cost", "data"):
        setattr(draft, part, getattr(outcome, part))
    draft.status = result.DONE
    with writing(folder.parent, setting="results_dir", folder=folder):
        _write_all(point, draft, outcome, folder)


def _write_all(point: Point, draft: Result, outcome: Outcome, folder: Path) -> None:
    result.write_answers(folder, outcome.answers)
    result.write_changed(folder, outcome.changed)
    result.forget_measurements(folder, outcome.file)
    card.write_bundle(
        folder, file=outcome.file, tokenizer=outcome.tokenizer, labels=outcome.labels,
        max_length=point.source.max_length, result=draft,
    )  # fmt: skip
    result.write(draft, folder)


def computed(point: Point, cache_dir: Path, curve: Curve) -> Outcome:
    """Makes every step that is missing, in order, and what they come to."""
    from optim.run.forecast import Forecast
    from optim.run.outcome import outcome_of
    from optim.run.step import Stages
    from optim.run.steps import other_classes, require_room, steps_of

    corpus = point.source.load(cache_dir)
    log.info("data      %s: %s sentences to train, %s to score, %d classes", corpus.name,
             f"{len(corpus.train.texts):,}", f"{len(corpus.dev.texts):,}", len(corpus.label_names))  # fmt: skip
    before = {one.name: trained_on_by_its_files(one, cache_dir) for one in point.origins}
    more = known_sets(point.unlabelled.texts()) if point.unlabelled else ()
    seen = _require_unseen(corpus, before, more)
    steps, stages = steps_of(point, corpus, cache_dir), Stages(cache_dir, curve)
    if steps.student is steps.teachers[0]:
        log.info("student   nothing is done to the model: the teacher is the student")
    require_room(steps.all(), cache_dir)
    for line in other_classes(steps.all(), corpus):
        log.warning("%s", line)
    for line in Forecast(cache_dir).lines(steps.all()):
        log.info("plan      %s", line)
    for step in steps.all():
        stages.make(step)
    outcome = outcome_of(point, corpus, steps, stages)
    learnt = list(dict.fromkeys((*(name for said in before.values() for name in said), *names_learnt(corpus), *more)))
    return replace(outcome, data={**outcome.data, "dev_in_train_examples": seen, "trained_on": learnt})


def _require_unseen(corpus: Corpus, before: Mapping[str, Sequence[str]], more: Sequence[str]) -> int:
    """How many sentences of dev stand in train. Raises UserError for too many, or a model that learnt from them before.

    before: name of a model -> what it says it was trained on. more: sets that sentences of distill.unlabelled are from.
    `point_of` looks at the names of the data alone; here it is what the texts are.
    """
    for name in names_scored(corpus):
        for model, said in before.items():
            require_unrelated(name, said, f"model={model}")
        require_unrelated(name, names_learnt(corpus), f"data={corpus.name}: its train", verb="holds sentences of")
        require_unrelated(name, more, "distill.unlabelled: its file", verb="holds sentences of")
    return require_unseen_dev(corpus)


def draft_of(job: Job, point: Point, run_id: str) -> Result:
    """A result with all that is known before the run, marked failed until it is done.

    Its config is what the settings mean: values of the types that the methods ask for, `precision: auto` by what it is.
    """
    plain: dict[str, Any] = OmegaConf.to_container(job.cfg, resolve=True)  # type: ignore[assignment]
    meant = {group: {k: v for k, v in spec.items() if k != "version"} for group, spec in point.specs.items()}
    return Result(
        schema=result.SCHEMA, run_id=run_id, status=result.FAILED, error=None, choices=job.choices,
        cfg={**plain, **meant}, seed=point.seed, command=job.command, machine={},
    )  # fmt: skip


class _logged_to:
    """Everything logged in the body also goes to a file, tracebacks included."""

    def __init__(self, path: Path) -> None:
        self.handler = logging.FileHandler(path, encoding="utf-8")
        self.handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        self.handler.addFilter(Masking())

    def __enter__(self) -> None:
        logging.getLogger().addHandler(self.handler)

    def __exit__(self, *exception) -> None:
        logging.getLogger().removeHandler(self.handler)
        self.handler.close()
