"""Result -> W&B: one W&B run for each point. The run's end of it; wandb itself is imported in `track/writer` alone.

A process of its own is what makes a tracker harmless. Inside the run's process, when wandb's own helper has been
killed, the next `import tensorflow` raises ConnectionResetError (wandb hooks imports); when it stands still, `log`
never comes back (wandb 0.31.0). Beside it, wandb costs the run no import, and what was logged outlives even a SIGKILL.

    train.py ── JSON lines ──> write_to_wandb() ── wandb ──> <dir>/wandb/, and the server if there is one
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, TextIO

from optim.common.build import method
from optim.common.errors import UserError, require_positive
from optim.common.interrupts import INTERRUPTED
from optim.common.secrets import masked
from optim.track.key import has_key
from optim.track.names import aliases, model_name, run_name, tags

TEACHER, STUDENT = "teacher", "student"  # job types


class Run(Protocol):
    """One point being tracked. Neither method waits or raises, whatever becomes of W&B."""

    def curve(self, stage: str, row: Mapping[str, Any]) -> None:
        """One row of the training curve of `stage` ("teacher", "student"): its `step` and its figures, by name."""
        ...

    def record(self, result: Mapping[str, Any], *, folder: Path | None) -> None:
        """The figures of result.json under the same names; from a run's folder its bundle and its changed sentences."""
        ...


class Tracker(Protocol):
    """What `conf/track/` names."""

    def run(
        self, *, run_id: str, cfg: Mapping[str, Any], choices: Mapping[str, str], job_type: str
    ) -> AbstractContextManager[Run]:
        """Opens the W&B run `run_id`; closes it on every way out, with the exit code the process will have.

        job_type: "teacher" where nothing is done to the fine-tuned model, "student" elsewhere.
        """
        ...


@method("track", "none")
def none() -> Tracker:
    """A tracker that does nothing."""
    return _NoTracker()


@method("track", "wandb")
def wandb_run(
    *,
    mode: str,
    project: str,
    entity: str | None,
    dir: str,
    group: str | None,
    tags: Sequence[str],
    artifact: bool,
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
    where = os.path.abspath(os.path.expanduser(dir))
    return _WandbTracker(mode, project, entity, where, group, tuple(tags), artifact, init_timeout_s, finish_timeout_s)


class _NoTracker:
    """Tracker and run at once: there is nothing to open."""

    @contextmanager
    def run(self, *, run_id: str, cfg: Mapping[str, Any], choices: Mapping[str, str], job_type: str) -> Iterator[Run]:
        """Nothing to open or close."""
        yield self

    def curve(self, stage: str, row: Mapping[str, Any]) -> None:
        """Nothing."""

    def record(self, result: Mapping[str, Any], *, folder: Path | None) -> None:
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
    artifact: bool
    init_timeout_s: float
    finish_timeout_s: float

    @contextmanager
    def run(self, *, run_id: str, cfg: Mapping[str, Any], choices: Mapping[str, str], job_type: str) -> Iterator[Run]:
        """Starts the process that writes, and lets it finish with the exit code of what happened in the body."""
        run = _Sender(self, run_id)
        taught = job_type == STUDENT
        names = {"name": run_name(cfg, choices, taught=taught), "job_type": job_type, "tags": tags(choices, self.tags)}
        names |= {"aliases": aliases(run_id, cfg, choices, taught=taught), "model": model_name(choices)}
        names |= {"pid": os.getpid()}  # whose load is watched
        run.send("open", **(asdict(self) | names), run_id=run_id, config={"cfg": cfg, "choices": choices})
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
            self.process = start_apart("optim.track.writer", "write_to_wandb")
            threading.Thread(target=_pump, args=(self.lines, self.process), daemon=True).start()
        except (OSError, RuntimeError) as error:  # no memory, no process or thread to be had
            if self.process:
                self.process.kill()
                self.process = None
            warn(f"no process to write it: {error}")

    def curve(self, stage: str, row: Mapping[str, Any]) -> None:
        """See Run."""
        self.send("curve", stage=stage, row=row)

    def record(self, result: Mapping[str, Any], *, folder: Path | None) -> None:
        """See Run."""
        self.send("record", result=result, folder=folder and os.path.abspath(folder))

    def send(self, kind: str, **body: Any) -> None:
        """Queues one message as it is now: the caller may change its dicts afterwards.

        Secrets are taken out of its strings, not out of the line: there JSON writes some characters otherwise, and the
        digits of a number may be those of a secret.
        """
        if self.broken or self.process is None:  # nobody reads the queue
            return
        try:
            plain = json.loads(json.dumps(body, default=_plain))
            self.lines.put(json.dumps({"kind": kind, **masked(plain)}) + "\n")
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
        print(masked(f"Warning: W&B: {text}"), file=stream or sys.stderr, flush=True)


def _how_to_sync(folder: str, run_id: str) -> str:
    return f" What is on disk can be uploaded: wandb sync {folder}/wandb/*run-*-{run_id}"


def one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or "no details"
    return f"{type(error).__name__}: {text[:200].rstrip('.')}."
