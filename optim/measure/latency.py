"""Milliseconds of a call: files timed in turns, on a machine that one process at a time measures on."""

from __future__ import annotations

import filecmp
import gc
import itertools
import logging
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from optim.common.build import method
from optim.common.errors import UserError, require_positive
from optim.common.memory import memory_bytes
from optim.measure.runtime import Classifier

if TYPE_CHECKING:
    pass


log = logging.getLogger(__name__)
TURN_MS = 200.0  # a variant's turn on the clock: short against changes of load, long against a call
WINDOWS = 32  # different inputs that timing and memory cycle through
MEMORY_SHARE = 0.25  # of the machine's memory, for the files that are timed in turns


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


# Speed
def speed_of(
    path: Path, float32_path: Path, ids: np.ndarray, *, median_length: int, bench: Bench
) -> dict[str, float | int]:
    """The `speed` part of result.json, and median_length, median_length_float32_latency_p50_ms beside it.

    If `path` is the float32 file (the same bytes), it is timed once and speedup_vs_float32 is 1 by definition: two
    copies of one file would only measure the noise of the machine.
    """
    same = filecmp.cmp(path, float32_path, shallow=False)
    files = {"file": path} if same else {"file": path, "float32": float32_path}
    reference = "file" if same else "float32"
    at_length = latency(files, ids=ids, length=bench.sequence_length, bench=bench)
    at_median = latency(files, ids=ids, length=median_length, bench=bench)
    own_ms, float32_ms = (at_length["file"]["latency_p50_ms"], at_length[reference]["latency_p50_ms"])
    return {
        **at_length["file"],
        "threads": bench.threads,
        "sequence_length": bench.sequence_length,
        "float32_latency_p50_ms": float32_ms,
        "speedup_vs_float32": float32_ms / own_ms,
        "median_length": median_length,
        "median_length_latency_p50_ms": at_median["file"]["latency_p50_ms"],
        "median_length_float32_latency_p50_ms": at_median[reference]["latency_p50_ms"],
    }


def latency(files: Mapping[str, Path], *, ids: np.ndarray, length: int, bench: Bench) -> dict[str, dict[str, Any]]:
    """Per file: latency_p50_ms, latency_p90_ms, latency_p99_ms and calls, at `length` tokens and batch 1.

    ids: int32, real sentences end to end, from which the inputs are cut. The clock sees binding the inputs, running
    and fetching the logits. One process at a time times on a machine (`machine_lock`). Files too many for the memory
    take turns in it too: one that comes back is loaded in the free call that opens its turn.
    """
    windows = token_windows(ids, length)
    loaded = lru_cache(maxsize=_most_loaded(files.values()))(lambda path: Classifier(path, bench.threads))
    calls = {name: _caller(partial(loaded, path), windows) for name, path in files.items()}
    with machine_lock():
        times = interleaved_times_ms(
            calls, warmup=bench.warmup_calls, min_calls=bench.min_calls, min_seconds=bench.min_seconds
        )
    return {name: percentiles(times_ms) for name, times_ms in times.items()}


def percentiles(times_ms: np.ndarray) -> dict[str, float | int]:
    """The 50th, 90th and 99th percentile, straight lines between neighbours, and how many calls they rest on."""
    p50, p90, p99 = (float(p) for p in np.percentile(times_ms, [50, 90, 99]))
    return {"latency_p50_ms": p50, "latency_p90_ms": p90, "latency_p99_ms": p99, "calls": len(times_ms)}


def token_windows(ids: np.ndarray, length: int) -> np.ndarray:
    """int32 [WINDOWS, length]: the running text of `ids` cut to equal pieces, from the start again where it ends."""
    return np.resize(ids, (WINDOWS, length)).astype(np.int32)


def _caller(classifier: Callable[[], Classifier], windows: np.ndarray) -> Callable[[], object]:
    """A call that scores the next window, round and round."""
    following = itertools.cycle(windows)
    return lambda: classifier().logits(next(following))


def _most_loaded(paths: Iterable[Path]) -> int:
    """How many of the files are held at once, two at least: with its packed weights one takes twice its size."""
    return max(2, int(MEMORY_SHARE * memory_bytes() / (2 * max(path.stat().st_size for path in paths))))


def interleaved_times_ms(
    calls: Mapping[str, Callable[[], object]], *, warmup: int, min_calls: int, min_seconds: float
) -> dict[str, np.ndarray]:
    """Milliseconds of every counted call, per variant, taken in turns so that all see the same changes of load.

    A round gives each variant one turn of TURN_MS; the next round goes in the opposite order. Rounds end when every
    variant has `min_calls` calls and `min_seconds` of counted time.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    order = list(calls)
    with _no_collection():
        for name in order:
            for _ in range(warmup):
                calls[name]()
        while any(len(t) < min_calls or sum(t) < 1000 * min_seconds for t in times.values()):
            for name in order:
                times[name] += _turn_ms(calls[name])
            order.reverse()
    return {name: np.array(t) for name, t in times.items()}


def _turn_ms(call: Callable[[], object]) -> list[float]:
    """Times of consecutive calls that fill a turn, behind a free one that finds another's data in the caches."""
    call()
    times = [_time_ms(call)]
    while sum(times) < TURN_MS:
        times.append(_time_ms(call))
    return times


def _time_ms(call: Callable[[], object]) -> float:
    """Milliseconds of one call."""
    start = time.perf_counter_ns()
    call()
    return (time.perf_counter_ns() - start) / 1e6


@contextmanager
def _no_collection() -> Iterator[None]:
    """Python's collector waits: with TensorFlow loaded one sweep takes longer than a call and would be the p99."""
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@contextmanager
def machine_lock() -> Iterator[None]:
    """Holds the machine for one measurement; another process, of any user, waits. It ends with its process."""
    from filelock import FileLock, Timeout

    path = Path(tempfile.gettempdir()) / "distilbert-optim-bench.lock"
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
