"""A point in a process of its own, as under -m.

It gives its memory back, and when it is killed, by the kernel or by a fault in the runtime, the points after it go on.
It reads its config from stdin and exits when stdin closes, so it ends when its parent has gone.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from optim.common.build import own_methods, register_again
from optim.common.errors import UserError
from optim.common.files import environment
from optim.common.interrupts import INTERRUPTED, TERMINATED, Terminated, terminate_on_sigterm
from optim.common.screen import log_to, say, spell_out
from optim.run import config, result
from optim.run.config import POINTS, Job
from optim.run.guarded import guarded
from optim.run.keys import run_id_of
from optim.run.one_point import draft_of, run
from optim.run.places import use_config_dirs
from optim.run.point import Point, point_of

STOP_S = 60.0  # that a point's process has to save its fit in after Ctrl-C: MPNet's has 1.3 GB


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


if __name__ == "__main__":
    sys.exit(main())
