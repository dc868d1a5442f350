"""Milliseconds of a call: files timed in turns, on a machine that one process at a time measures on."""

from __future__ import annotations

import filecmp
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from optim.common.build import method
from optim.common.errors import UserError, require_positive
from optim.measure import device
from optim.measure.runtime import Classifier, require_threads

SHARED = Path("/tmp")  # of the lock: TMPDIR may be another one for each job of a machine
log = logging.getLogger(__name__)


class MeasurementError(UserError):
    """The file was made, but its figures must not be believed."""


@method("bench", "interleaved")
@dataclass(frozen=True, kw_only=True)
class Bench:
    """How a file is timed (conf/bench/). Raises UserError for a value that is not above 0."""

    sequence_length: int  # tokens
    threads: int
    warmup_calls: int  # per file and length, like the two below
    min_calls: int
    min_seconds: float

    def __post_init__(self):
        for field in fields(self):
            value = getattr(self, field.name)
            whole = field.type == "int"
            if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
                raise UserError(f"bench.{field.name} must be a {'whole ' if whole else ''}number, got {value!r}.")
            require_positive(f"bench.{field.name}", value)
        require_threads("bench.threads", self.threads)


# Speed
def speed_of(path: Path, float32_path: Path, ids: np.ndarray, *, counts: Sequence[int], bench: Bench) -> dict[str, Any]:
    """The `speed` part of result.json. counts: how many sentences have 0, 1, 2, ... tokens.

    If `path` is the float32 file (the same bytes), it is timed once and speedup_vs_float32 is 1 by definition: two
    copies of one file would only measure the noise of the machine.
    """
    same, median = filecmp.cmp(path, float32_path, shallow=False), device.median_length(counts)
    files = {"file": path} if same else {"file": path, "float32": float32_path}
    return device.speed_part(
        "file",
        "file" if same else "float32",
        at_full=latency(files, ids=ids, length=bench.sequence_length, bench=bench),
        at_median=latency(files, ids=ids, length=median, bench=bench),
        mix=dev_mix({"file": path}, ids=ids, counts=counts, bench=bench),
        median=median,
        bench=bench,
    )


def latency(files: Mapping[str, Path], *, ids: np.ndarray, length: int, bench: Bench) -> dict[str, dict[str, Any]]:
    """Per file: latency_p50_ms, latency_p90_ms, latency_p99_ms and calls, at `length` tokens and batch 1.

    ids: int32, real sentences end to end, from which the inputs are cut. The clock sees binding the inputs, running
    and fetching the logits. One process at a time times on a machine (`machine_lock`). Files too many for the memory
    take turns in it too: one that comes back is loaded in the free call that opens its turn.
    """
    with machine_lock():
        return device.at_length(loads_of(files, bench), ids, length, bench)


def dev_mix(
    files: Mapping[str, Path], *, ids: np.ndarray, counts: Sequence[int], bench: Bench
) -> dict[str, dict[str, Any]]:
    """Per file: what sentences of their own lengths take, as device.over_mix has it."""
    with machine_lock():
        return device.over_mix(loads_of(files, bench), ids, counts, bench)


def loads_of(files: Mapping[str, Path], bench: Bench) -> dict[str, device.Load]:
    """Per file: what holds it, or loads it when its turn comes."""
    return device.loaders(files, lambda path: Classifier(path, bench.threads).logits)


@contextmanager
def machine_lock() -> Iterator[None]:
    """Holds the machine for one measurement; another process, of any user, waits. It ends with its process."""
    from filelock import FileLock, Timeout

    path = (SHARED if os.access(SHARED, os.W_OK) else Path(tempfile.gettempdir())) / "distilbert-optim-bench.lock"
    lock = FileLock(path, mode=0o666)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.info("Another process measures on this machine (%s): waiting for it.", path)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
