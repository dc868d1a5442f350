"""Result -> W&B: one W&B run for each point. Imports wandb only in a process of its own, as `wandb_report` does.

That process is what makes a tracker harmless. Inside the run's process, when wandb's own helper has been killed, the
next `import tensorflow` raises ConnectionResetError (wandb hooks imports); when it stands still, `log` never comes back
(wandb 0.31.0). Beside it, wandb costs the run no import, and what was logged outlives even a SIGKILL of the run.

    train.py ── JSON lines ──> write_to_wandb() ── wandb ──> <dir>/wandb/, and the server if there is one
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, TextIO

from optim.errors import UserError, require_positive
from optim.wandb_key import has_key

INTERRUPTED = 128 + signal.SIGINT
KILLED = 128 + 9  # SIGKILL by its number: Windows has no name for it
TERMINATED = 128 + signal.SIGTERM
UPLOAD_SHARE = 0.8  # of finish_timeout_s: wandb gives up first and closes its file, only then is its process killed


class Run(Protocol):
    """One point being tracked. Neither method waits or raises, whatever becomes of W&B."""

    def curve(self, stage: str, row: Mapping[str, Any]) -> None:
        """One row of the training curve of `stage` ("teacher", "student"): its `step` and its figures, by name."""
        ...

    def record(self, result: Mapping[str, Any], *, card_path: Path | None) -> None:
        """The figures of result.json under the same names, and the model card as an artifact."""
        ...


class Tracker(Protocol):
    """What `conf/track/` names."""

    def run(self, *, run_id: str, cfg: Mapping[str, Any], choices: Mapping[str, str]) -> AbstractContextManager[Run]:
        """Opens the W&B run `run_id`; closes it on every way out, with the exit code the process will have."""
        ...


def none() -> Tracker:
    """A tracker that does nothing."""
    return _NoTracker()


def wandb_run(
    *,
    mode: str,
    project: str,
    entity: str | None,
    dir: str,
    group: str | None,
    tags: Sequence[str],
    init_timeout_s: float,
    finish_timeout_s: float,
) -> Tracker:
    """A tracker that writes W&B runs into `<dir>/wandb`, and with mode `online` uploads them too.

    Raises UserError for `online` without a key: that is known before the work, and would be missed after it.
    """
    if mode not in ("offline", "online"):
        raise UserError(f"track.mode must be offline or online, got {mode}.")
    require_positive("track.init_timeout_s", init_timeout_s)
    require_positive("track.finish_timeout_s", finish_timeout_s)
    if mode == "online" and not has_key():
        raise UserError(
            "track=wandb uploads, and no W&B key was found in WANDB_API_KEY, ~/.netrc or W&B's settings.\n"
            "Set WANDB_API_KEY, or run `wandb login`, or choose track=offline (files only) or track=none."
        )
    where = os.path.abspath(dir)
    return _WandbTracker(mode, project, entity, where, group, tuple(tags), init_timeout_s, finish_timeout_s)


@contextmanager
def terminate_on_sigterm() -> Iterator[None]:
    """Turns SIGTERM into SystemExit(143) inside the body, so that everything open is closed on the way out.

    Only the first one: schedulers repeat it, and the second must not cut short the closing. Does nothing outside the
    main thread, where Python allows no handler.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, frame: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise SystemExit(TERMINATED)

    previous = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous or signal.SIG_DFL)


class _NoTracker:
    """Tracker and run at once: there is nothing to open."""

    @contextmanager
    def run(self, *, run_id: str, cfg: Mapping[str, Any], choices: Mapping[str, str]) -> Iterator[Run]:
        """Nothing to open or close."""
        yield self

    def curve(self, stage: str, row: Mapping[str, Any]) -> None:
        """Nothing."""

    def record(self, result: Mapping[str, Any], *, card_path: Path | None) -> None:
        """Nothing."""


@dataclass(frozen=True)
class _WandbTracker:
    """The arguments of `wandb_run`, checked."""

    mode: str
    project: str
    entity: str | None
    dir: str
    group: str | None
    tags: tuple[str, ...]
    init_timeout_s: float
    finish_timeout_s: float

    @contextmanager
    def run(self, *, run_id: str, cfg: Mapping[str, Any], choices: Mapping[str, str]) -> Iterator[Run]:
        """Starts the process that writes, and lets it finish with the exit code of what happened in the body."""
        run = _Sender(self, run_id)
        run.send("open", **asdict(self), run_id=run_id, config={"cfg": cfg, "choices": choices})
        exit_code = 0
        try:
            yield run
        except BaseException as error:
            exit_code = exit_code_of(error)
            raise
        finally:
            run.close(exit_code)


def exit_code_of(error: BaseException) -> int:
    """The exit code of a process that ends by `error`."""
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    return 1


class _Sender:
    """The run's end of the pipe: a queue, so that even a writer that stands still never holds up the run."""

    def __init__(self, tracker: _WandbTracker, run_id: str):
        self.run_id, self.folder, self.timeout_s = run_id, tracker.dir, tracker.finish_timeout_s
        self.lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self.process: subprocess.Popen[str] | None = None
        self.broken = False
        try:
            self.process = start_apart("optim.track", "write_to_wandb")
            threading.Thread(target=_pump, args=(self.lines, self.process), daemon=True).start()
        except (OSError, RuntimeError) as error:  # no memory, no process or thread to be had
            if self.process:
                self.process.kill()
                self.process = None
            warn(f"no process to write it: {error}")

    def curve(self, stage: str, row: Mapping[str, Any]) -> None:
        """See Run."""
        self.send("curve", stage=stage, row=row)

    def record(self, result: Mapping[str, Any], *, card_path: Path | None) -> None:
        """See Run."""
        self.send("record", result=result, card_path=card_path and os.path.abspath(card_path))

    def send(self, kind: str, **body: Any) -> None:
        """Queues one message as it is now: the caller may change its dicts afterwards."""
        if self.broken:
            return
        try:
            self.lines.put(json.dumps({"kind": kind, **body}, default=_plain) + "\n")
        except (TypeError, ValueError) as error:  # a key that is no string, a cycle
            self.broken = True
            warn(f"tracking stops at a {kind}: {one_line(error)}")

    def close(self, exit_code: int) -> None:
        """Waits at most finish_timeout_s for the rest to be written."""
        if self.process is None:
            return
        self.lines.put(json.dumps({"kind": "close", "exit_code": exit_code}) + "\n")
        self.lines.put(None)
        try:
            if self.process.wait(self.timeout_s):
                warn(f"its process died ({self.process.returncode}).{_how_to_sync(self.folder, self.run_id)}")
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            warn(f"not finished after {self.timeout_s:g} s, given up.{_how_to_sync(self.folder, self.run_id)}")


def _plain(value: Any) -> Any:
    """A JSON value for what JSON lacks: NumPy's numbers and arrays as numbers and lists, a path as text."""
    return value.tolist() if hasattr(value, "tolist") else str(value)


def _pump(lines: queue.SimpleQueue[str | None], process: subprocess.Popen[str]) -> None:
    """Queue -> pipe, until None. A writer that is gone shows at the close, by its exit code."""
    assert process.stdin
    with suppress(OSError), process.stdin as pipe:
        for line in iter(lines.get, None):
            pipe.write(line)
            pipe.flush()


def start_apart(module: str, function: str) -> subprocess.Popen[str]:
    """A process that calls a function of this package with this one's import path, and is told by its stdin.

    A session of its own keeps it out of Ctrl-C and of a signal to the group: it ends when its input does.
    """
    code = f"import sys; sys.path[:] = {sys.path!r}; import {module}; {module}.{function}()"
    return subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
        encoding="utf-8",
    )


def warn(text: str, stream: TextIO | None = None) -> None:
    """One line about the tracker, on stderr or `stream`. It is never an error."""
    with suppress(OSError, ValueError):  # a closed terminal
        print(f"Warning: W&B: {text}", file=stream or sys.stderr, flush=True)


def _how_to_sync(folder: str, run_id: str) -> str:
    return f" What is on disk can be uploaded: wandb sync {folder}/wandb/*run-*-{run_id}"


# ---- below: the writer's process ----


def write_to_wandb() -> None:
    """Reads messages from stdin until "close", or until the run's process is gone, and does what they say.

    The first failure is one line on stderr and the end of tracking. Nothing else is printed, by wandb neither.
    """
    for number in (signal.SIGINT, signal.SIGTERM):  # a scheduler sends them to every process: the run answers for all
        signal.signal(number, signal.SIG_IGN)
    messages, stderr = private_streams()
    try:
        _write(messages, lambda text: warn(text, stderr))
    except Exception as error:
        warn(f"tracking stops: {one_line(error)}", stderr)
    os._exit(0)  # not through wandb's exit hooks, which wait for a helper that may hang


def private_streams() -> tuple[TextIO, TextIO]:
    """(stdin, stderr) for us alone: wandb and its helper get the null device for all three."""
    ours = (os.fdopen(os.dup(0), encoding="utf-8"), os.fdopen(os.dup(2), "w", encoding="utf-8"))
    null = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(null, stream)
    return ours


def _write(lines: Iterable[str], say: Callable[[str], None]) -> None:
    """The whole life of one W&B run. That the run's process is gone without "close" is an exit code too."""
    messages = (json.loads(line) for line in lines if line.endswith("\n"))  # a killed run may leave half a line
    opening = next(messages, None)
    if opening is None:
        return
    wandb = load_wandb(opening["mode"])
    run = _open(wandb, opening, say)
    exit_code, stopped = _log_until_close(wandb, run, messages, say)
    try:
        if exit_code == TERMINATED:
            run.mark_preempting()
        run.finish(exit_code=exit_code)
        wandb.teardown()
    except TimeoutError:
        say(f"upload not finished in time. Upload later: wandb sync {Path(run.dir).parent}")
    except Exception:
        if not stopped:
            raise


def _log_until_close(
    wandb: ModuleType, run: Any, messages: Iterator[dict[str, Any]], say: Callable[[str], None]
) -> tuple[int, bool]:
    """(exit code of the run, whether W&B failed). After a failure nothing more is logged, only waited for the code."""
    stopped, stages = False, set()
    for message in messages:
        if message["kind"] == "close":
            return message["exit_code"], stopped
        if stopped:
            continue
        try:
            _ACTIONS[message["kind"]](wandb, run, stages, message)
        except Exception as error:
            stopped = True
            say(f"tracking stops: {one_line(error)}")
    return KILLED, stopped


def load_wandb(mode: str) -> ModuleType:
    """The package. Offline it reports no crashes to its makers either."""
    if mode == "offline":
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    import wandb

    return wandb


def _open(wandb: ModuleType, opening: dict[str, Any], say: Callable[[str], None]) -> Any:
    """An open W&B run: the one asked for, or an offline one where the server can't be had in time."""
    folder = Path(opening["dir"])
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK):  # wandb would quietly write to the temporary folder
        raise PermissionError(f"track.dir={folder} can't be written to.")
    try:
        return _init(wandb, opening, opening["mode"])
    except Exception as error:
        if opening["mode"] == "offline":
            raise
        wandb.teardown()  # its helper still holds the id
        run = _init(wandb, opening, "offline")
        say(f"offline, since online failed: {one_line(error)} Upload later: wandb sync {Path(run.dir).parent}")
        return run


def _init(wandb: ModuleType, opening: dict[str, Any], mode: str) -> Any:
    """wandb.init: silent, no console, no git, no machine statistics, the content hash as the id."""
    settings = wandb.Settings(
        silent=True,
        console="off",
        disable_git=True,
        x_disable_stats=True,
        init_timeout=opening["init_timeout_s"],
        finish_timeout=UPLOAD_SHARE * opening["finish_timeout_s"],
        finish_timeout_raises=True,
    )
    return wandb.init(
        mode=mode,
        project=opening["project"],
        entity=opening["entity"],
        dir=opening["dir"],
        group=opening["group"],
        tags=opening["tags"],
        id=opening["run_id"],
        name=opening["run_id"],
        resume="allow",
        config=opening["config"],
        allow_val_change=True,  # the same point once more: its id is the same, paths in its config may not be
        settings=settings,
    )


def _curve(wandb: ModuleType, run: Any, stages: set[str], message: dict[str, Any]) -> None:
    """Logs one row under `stage/`, over that stage's own steps: W&B's global step can't go back for a second stage."""
    stage = message["stage"]
    if stage not in stages:
        stages.add(stage)
        run.define_metric(f"{stage}/step", summary="none")
        run.define_metric(f"{stage}/*", step_metric=f"{stage}/step", summary="none")
    run.log({f"{stage}/{name}": value for name, value in message["row"].items()})


def _record(wandb: ModuleType, run: Any, stages: set[str], message: dict[str, Any]) -> None:
    """Sets the summary to the result, nested as it is; what it was asked for stands in the config already."""
    run.summary.update({key: value for key, value in message["result"].items() if key not in ("cfg", "choices")})
    if message["card_path"]:
        card = wandb.Artifact(f"model-card-{run.id}", type="model-card")
        card.add_file(message["card_path"], name="README.md", policy="immutable")  # no copy in the home folder
        run.log_artifact(card)


_ACTIONS = {"curve": _curve, "record": _record}


def one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or "no details"
    return f"{type(error).__name__}: {text[:200].rstrip('.')}."
