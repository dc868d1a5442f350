"""One point: a composed config in, a Result out; in this process, or (under -m) in one of its own.

A process of its own gives its memory back, and when it is killed, by the kernel or by a fault in the runtime, the
points after it go on. It reads its config from stdin and exits when stdin closes, so it ends when its parent has gone.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from optim.common import hub
from optim.common.build import build, own_methods, register_again
from optim.common.cache_size import warn_if_above
from optim.common.errors import UnknownKey, UserError
from optim.common.files import UNREADABLE, environment, writing
from optim.common.interrupts import INTERRUPTED, TERMINATED, Terminated, terminate_on_sigterm
from optim.common.screen import log_to, say, spell_out, warnings_alone
from optim.common.secrets import Masking
from optim.data.leaks import known_sets, names_learnt, names_scored, require_unrelated, require_unseen_dev
from optim.encoder.origin import trained_on_by_its_files
from optim.run import card, config, result
from optim.run.config import POINTS, Job
from optim.run.errors_text import never_answered_line
from optim.run.keys import run_id_of
from optim.run.places import use_config_dirs
from optim.run.point import Point, point_of
from optim.run.result import Result
from optim.run.words import explained, told, unread_epochs

if TYPE_CHECKING:
    from optim.data.corpus import Corpus
    from optim.run.outcome import Outcome
    from optim.run.step import Curve

USER_MISTAKE, FAILURE, UNREAD = 2, 1, 141  # the last as a shell says SIGPIPE
STOP_S = 60.0  # that a point's process has to save its fit in after Ctrl-C: MPNet's has 1.3 GB
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


# A process for each point
def run_apart(job: Job, *, quiet: bool | None = None) -> bool:
    """The point in a process of its own; whether it is done. A failure is on the screen and in its result.json.

    quiet: as `run` has it; None: as `verbosity` says, for somebody else tells how the point ended.
    A process that dies without a word (killed, out of memory, a fault in the runtime) leaves its reason there too.
    Ctrl-C reaches the process as well, SIGTERM is passed on; it has STOP_S to save its fit and end.
    """
    point = point_of(job.cfg)
    folder = job.results_dir / run_id_of(point)
    if result.done_in(folder):
        return True
    silent = job.cfg.verbosity == POINTS if quiet is None else quiet
    if _is_light(point, job.cache_dir):
        return _run_light(job, quiet=silent)
    sent = asdict(job) | {"cfg": OmegaConf.to_container(job.cfg, resolve=True), "quiet": silent}
    sent |= {"own_methods": own_methods()}
    child = subprocess.Popen(
        [sys.executable, "-m", "optim.run.process"], stdin=subprocess.PIPE, text=True, env=environment()
    )
    assert child.stdin
    try:
        with stopping(child):
            with suppress(BrokenPipeError):
                child.stdin.write(json.dumps(sent, default=str) + "\n")
                child.stdin.flush()
            child.wait()
    finally:
        with suppress(OSError):
            child.stdin.close()
    done = result.read(folder) is not None
    if child.returncode < 0 and not done:  # a process may die on its way out, all done
        draft = draft_of(job, point, folder.name)
        draft.error = death(child.returncode)
        result.require_writable(job.results_dir, folder)
        result.write(draft, folder)
        say(f"Failed: {draft.error}", sys.stderr)
    return done


def _run_light(job: Job, *, quiet: bool) -> bool:
    """A point in this process; whether it is done. Ctrl-C and SIGTERM end all points, not this one: they are raised."""
    code = guarded(lambda: run(job, quiet=quiet))
    if code == INTERRUPTED:
        raise KeyboardInterrupt
    if code == TERMINATED:
        raise Terminated
    return code == 0


def _is_light(point: Point, cache_dir: Path) -> bool:
    """Whether the cache holds all that a point is made of: then only its result is left to be written.

    Signals are handled in the main thread alone, so in another no point is run.
    """
    from optim.run.steps import steps_of

    if threading.current_thread() is not threading.main_thread():
        return False
    try:
        wanted = steps_of(point, point.source.load(cache_dir), cache_dir).wanted()
    except UserError:
        return False  # the point's process will say what it is
    return all(stage.at_hand(cache_dir) is not None for stage in wanted)


def death(returncode: int) -> str:
    """What ended a process, by its negative return code."""
    name = signal.Signals(-returncode).name
    hints = {"SIGKILL": "out of memory, or by hand", "SIGSEGV": "a fault in the runtime or a converter"}
    hint = hints.get(name)
    return f"the point's process was ended by {name}" + (f" ({hint}?)." if hint else ".")


@contextmanager
def stopping(child: subprocess.Popen, *, within_s: float = STOP_S) -> Iterator[None]:
    """A body that waits for a child: what stops it stops the child, which has `within_s` to end, and is killed then.

    Ctrl-C reaches the child as well, SIGTERM is passed on.
    """
    with terminate_on_sigterm():
        try:
            yield
        except BaseException as error:
            if isinstance(error, SystemExit):
                child.terminate()
            _end(child, within_s)
            raise


def _end(child: subprocess.Popen, within_s: float) -> None:
    try:
        child.wait(within_s)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def _end_with_parent() -> None:
    """Ends this process at once when its stdin does: its parent has gone, and another may take the point up."""

    def watch() -> None:
        sys.stdin.read()
        os._exit(128 + signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def main() -> int:
    """The process of one point: a Job as one line of JSON on stdin."""
    config.register()
    spell_out()
    log_to(sys.stderr)
    job = json.loads(sys.stdin.readline())
    _end_with_parent()
    register_again(job["own_methods"])
    use_config_dirs(job["dirs"], job["config_name"])
    point = Job(DictConfig(job["cfg"]), job["choices"], job["overrides"])
    return guarded(lambda: run(point, quiet=job["quiet"]))


@contextmanager
def explaining() -> Iterator[None]:
    """What Hydra refuses becomes a UserError, and a key that nothing reads is told with the nearest one."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    try:
        yield
    except HydraException as error:
        raise UserError(explained(error)) from None
    except UnknownKey as error:
        raise UserError(told(error)) from None
    except OmegaConfBaseException as error:
        of_a_resolver = f"{UserError.__name__} raised while resolving interpolation: "
        raise UserError(str(error).splitlines()[0].removeprefix(of_a_resolver)) from None


def guarded(work) -> int:
    """The exit code of `work`, with what went wrong in a line or two on stderr."""
    try:
        with explaining():
            work()
    except UserError as error:
        say(f"Error: {error}", sys.stderr)
        return USER_MISTAKE
    except (KeyboardInterrupt, Terminated) as stop:
        by = " by SIGTERM" if isinstance(stop, Terminated) else ""
        print(f"\nStopped{by}. The same command goes on from what it saved last.", file=sys.stderr)
        return TERMINATED if by else INTERRUPTED
    except BrokenPipeError:  # the reader of stdout, `head` for one, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return UNREAD
    except Exception as error:  # reported in full by `run`
        say(f"Failed: {type(error).__name__}: {error}", sys.stderr)
        return FAILURE
    return 0


if __name__ == "__main__":
    sys.exit(main())
