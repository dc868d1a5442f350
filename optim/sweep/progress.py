"""How far a sweep is: a line when a point ends, with the time left by what stages have taken on this machine.

It looks at the results that points leave, so it serves every launcher, and it is a thread beside the launcher's work.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from optim.common.interrupts import Terminated
from optim.common.screen import say_beside_bar
from optim.run import result
from optim.run.forecast import Forecast, spoken
from optim.run.result import Result
from optim.run.words import key_of
from optim.sweep.plan import Plan, Planned, seconds_of
from optim.track.names import run_name

POLL_S = 1.0
# How the reason begins that a run leaves which Ctrl-C or SIGTERM ended.
STOPPED = tuple(f"{stop.__name__}:" for stop in (KeyboardInterrupt, Terminated))


class Progress:
    """A context in which the points of a plan are run by somebody else."""

    def __init__(self, planned: Plan, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stderr
        self.started, self.clock = time.time(), time.perf_counter()
        self.open = {p.run_id: p for p in planned.todo}
        self.shared = set.intersection(*(set(p.job.overrides) for p in planned.points))  # words that all points have
        self.total = len({p.run_id for p in planned.points})
        self.failed = 0
        self.steps = {step.wanted.key: step for p in planned.todo for step in p.steps}
        self.cache_dir = planned.points[0].job.cache_dir
        self.built = {key for key, step in self.steps.items() if step.wanted.at_hand(self.cache_dir) is not None}
        self.forecast = Forecast(self.cache_dir)
        self.closing = threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Progress:
        self.thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.closing.set()
        self.thread.join()
        self.look()

    def _watch(self) -> None:
        while not self.closing.wait(POLL_S):
            self.look()

    def look(self) -> None:
        """Says of each point that has ended since the last look how it ended, and what is left."""
        for run_id, planned in list(self.open.items()):
            if (end := self._end_of(planned)) is None:
                continue
            del self.open[run_id]
            self.failed += isinstance(end, str) and not end.startswith(STOPPED)
            say_beside_bar(f"{self.state()}: {told(planned, end, self.shared)}", self.stream)

    def state(self) -> str:
        """`point 7 of 27, about 14 min left, 1 failed`."""
        left = self.left_s() if self.open else None
        words = [f"point {self.total - len(self.open)} of {self.total}"]
        words += [f"about {spoken(left)} left"] if left is not None else []
        words += [f"{self.failed} failed"] if self.failed else []
        return ", ".join(words)

    def left_s(self) -> float | None:
        """Seconds of the stages that open points still lack, at the pace of this sweep; None where one is unknown."""
        wanted = {step.wanted.key: step for planned in self.open.values() for step in planned.steps}
        missing = [step for step in wanted.values() if step.wanted.at_hand(self.cache_dir) is None]
        times = seconds_of(missing, self.cache_dir, Forecast(self.cache_dir, lambda: self.forecast.rate))
        known = [seconds for seconds in times.values() if seconds is not None]
        return sum(known) * self._pace() if len(known) == len(missing) else None

    def _pace(self) -> float:
        """Time that has passed over that of the stages built meanwhile: below 1 where points run side by side."""
        new = [step.wanted.at_hand(self.cache_dir) for key, step in self.steps.items() if key not in self.built]
        passed = time.perf_counter() - self.clock
        # The record of a stage that a killed run had begun has seconds of before this sweep too.
        took = sum(min(seconds, passed) for seconds in new if seconds is not None)
        return passed / took if took else 1.0

    def _end_of(self, planned: Planned) -> Result | str | None:
        """Its result, or the reason why it failed in this sweep; None while neither is there."""
        if done := result.read(planned.folder):
            return done
        with suppress(OSError):
            path: Path = planned.folder / result.FILE
            if path.stat().st_mtime >= self.started and (found := _failed(path)):
                return found
        return None


def told(planned: Planned, end: Result | str, shared: Collection[str] = ()) -> str:
    """A finished point, or one that failed, in a few words: its name, and the keys that other points set otherwise."""
    taught = any(step.kind == "student" for step in planned.steps)
    own = [w for w in planned.job.overrides if w not in shared and "." in key_of(w) and "temperature" not in w]
    name = " ".join([run_name(planned.job.cfg, planned.job.choices, taught=taught), *own])
    if isinstance(end, str):
        # Why it failed is said by its own process, and once more in the end.
        return f"{name} {'stopped' if end.startswith(STOPPED) else 'failed'}"
    return f"{name} {figures_line(end)}"


def figures_line(done: Result) -> str:
    """`0.9002, 23.12 MB, 3.83 ms`."""
    accuracy, size, latency = done.quality["accuracy_fraction"], done.size["file_bytes"], done.speed["latency_p50_ms"]
    return f"{accuracy:.4f}, {size / 1e6:.2f} MB, {latency:.2f} ms"


def _failed(path: Path) -> str | None:
    """Why a run failed; None for a file that is not there whole."""
    with suppress(ValueError, KeyError):
        found = json.loads(path.read_text(encoding="utf-8"))
        return (found["error"] or "no reason was left") if found["status"] == result.FAILED else None
    return None
