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
    calls = classifier_calls(files, ids=ids, length=length, bench=bench)
    with machine_lock():
        times = interleaved_times_ms(
            calls, warmup=bench.warmup_calls, min_calls=bench.min_calls, min_seconds=bench.min_seconds
        )
    return {name: percentiles(times_ms) for name, times_ms in times.items()}


def classifier_calls(
    files: Mapping[str, Path], *, ids: np.ndarray, length: int, bench: Bench
) -> dict[str, Callable[[], object]]:
    """Per file: a call that scores the next `length` tokens of `ids`, round and round."""
    windows = token_windows(ids, length)
    loaded = lru_cache(maxsize=_most_loaded(files.values()))(lambda path: Classifier(path, bench.threads))
    return {name: _caller(partial(loaded, path), windows) for name, path in files.items()}


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
    """Milliseconds of every counted call, per variant, taken in turns of TURN_MS: see interleaved_turns_ms."""
    turns = interleaved_turns_ms(
        calls, warmup=warmup, min_calls=min_calls, min_seconds=min_seconds, min_turns=1, turn_ms=TURN_MS
    )
    return {name: np.concatenate(own) for name, own in turns.items()}


def interleaved_turns_ms(
    calls: Mapping[str, Callable[[], object]], *, warmup: int, min_calls: int, min_seconds: float, min_turns: int,
    turn_ms: float,
) -> dict[str, list[np.ndarray]]:  # fmt: skip
    """Milliseconds of the counted calls of each turn, per variant, so that all see the same changes of load.

    A round gives each variant one turn of `turn_ms`; the next round goes in the opposite order. Rounds end when there
    were `min_turns`, and every variant has `min_calls` calls and `min_seconds` of counted time.
    """
    turns: dict[str, list[np.ndarray]] = {name: [] for name in calls}
    order = list(calls)
    with _no_collection():
        for name in order:
            for _ in range(warmup):
                calls[name]()
        while any(_unfinished(own, min_calls, min_seconds, min_turns) for own in turns.values()):
            for name in order:
                turns[name].append(_turn_ms(calls[name], turn_ms))
            order.reverse()
    return turns


def _unfinished(turns: list[np.ndarray], min_calls: int, min_seconds: float, min_turns: int) -> bool:
    """Whether a variant must have another turn."""
    calls, counted_ms = sum(map(len, turns)), sum(float(turn.sum()) for turn in turns)
    return len(turns) < min_turns or calls < min_calls or counted_ms < 1000 * min_seconds


def _turn_ms(call: Callable[[], object], turn_ms: float) -> np.ndarray:
    """Times of consecutive calls that fill a turn, behind a free one that finds another's data in the caches."""
    call()
    times = [_time_ms(call)]
    while sum(times) < turn_ms:
        times.append(_time_ms(call))
    return np.array(times)


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
