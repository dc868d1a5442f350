"""A .tflite file and sentences -> its answers, milliseconds, memory and bytes, and the machine they hold for.

`measure_file` is the whole of it; the rest are its parts. `python -m optim.measure` is the fresh process whose memory
`peak_memory` reads.
"""

from __future__ import annotations

import filecmp
import gc
import gzip
import hashlib
import io
import itertools
import json
import logging
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from optim.errors import UserError, require_positive
from optim.runtime import Classifier

if TYPE_CHECKING:
    from optim.data import Tokens

log = logging.getLogger(__name__)

TURN_MS = 200.0  # a variant's turn on the clock: short against the machine's moods, long against a call
WINDOWS = 32  # different inputs that timing and memory cycle through
MEMORY_SHARE = 0.25  # of the machine's memory, for the files that are timed in turns
GZIP_LEVEL = 6

ISA = (  # spelled as Linux lists them; NEON is called asimd on 64-bit Arm
    *("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "amx_bf16", "avx512_bf16"),
    *("neon", "asimd", "asimddp", "i8mm", "bf16", "sve"),
)
PACKAGES = (
    *("tensorflow", "tf_keras", "tensorflow-model-optimization", "numpy"),
    *("ai-edge-litert", "ai-edge-quantizer", "litert-quantizer"),
)

Progress = Callable[[str, int, int], None]  # (what, done, total)


class MeasurementError(UserError):
    """The file was made, but its figures must not be believed."""


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


@dataclass(frozen=True)
class Measurement:
    """What one file does; the three dicts carry the names of result.json."""

    logits: np.ndarray  # float32 [n, classes], in the order of the sentences
    speed: dict[str, float | int]
    memory: dict[str, int]
    size: dict[str, int]


def measure_file(
    path: Path, float32_path: Path, dev: Tokens, *, bench: Bench, progress: Progress | None = None
) -> Measurement:
    """Runs the file over every sentence of `dev` at its own length, then times and weighs it.

    Speed is taken at `bench.sequence_length` and at the median length of `dev`, in turns with the float32 file of the
    same student. Raises UserError for a file that does not run, MeasurementError for logits that are no numbers.
    """
    report = progress or _silent
    # Answers don't depend on the number of threads; only what is timed runs on bench.threads.
    logits = dev_logits(Classifier(path, min(_cores(), 4)), dev, progress=report)
    report("timing", 0, 2)
    speed = speed_of(path, float32_path, dev.ids, median_length=int(np.median(dev.lengths)), bench=bench)
    report("timing", 1, 2)
    windows = token_windows(dev.ids, bench.sequence_length)
    memory = peak_memory(path, windows=windows, threads=bench.threads)
    report("timing", 2, 2)
    return Measurement(logits, speed, memory, sizes(path))


def dev_logits(classifier: Classifier, dev: Tokens, *, progress: Progress) -> np.ndarray:
    """float32 [n, classes], one row per sentence of `dev`, in its order.

    Sentences run sorted by length, because LiteRT plans its memory anew at every change of length.
    """
    logits = np.empty((len(dev), classifier.classes), np.float32)
    for done, index in enumerate(np.argsort(dev.lengths, kind="stable"), start=1):
        logits[index] = classifier.logits(dev.sentence(int(index)))
        progress("sentences", done, len(dev))
    bad = int(np.sum(~np.isfinite(logits).all(axis=1)))
    if bad:
        raise MeasurementError(
            f"{classifier.path} gives NaN or infinite logits for {bad} of {len(dev)} sentences: "
            "an overflow in the conversion (float16 scores beyond 65504?) or in the training."
        )
    return logits


def check_agreement(fraction: float, *, max_disagreement: float) -> None:
    """Raises MeasurementError if the file answers more than `max_disagreement` of the sentences unlike its Keras model.

    fraction: of sentences answered alike, as `quality.agreement` returns it.
    """
    found = 1 - fraction
    if found > max_disagreement + 1e-9:  # 1 - 0.98 is a hair above 0.02
        raise MeasurementError(
            f"The file answers {found:.2%} of the sentences unlike its Keras model; "
            f"measure.max_disagreement={max_disagreement:g} allows {max_disagreement:.2%}.\n"
            "Likely causes: input_ids and attention_mask swapped, the mask ignored, a layer that cannot be quantized "
            "so far (does quant=fp16 agree?), or a bug of the converter (does quant=none agree?)."
        )


def sizes(path: Path) -> dict[str, int]:
    """file_bytes as stored and gzip_bytes as sent: only compression turns pruned zeros into fewer bytes."""
    content = Path(path).read_bytes()
    # A fixed time stamp: the same file has the same size, always.
    return {"file_bytes": len(content), "gzip_bytes": len(gzip.compress(content, GZIP_LEVEL, mtime=0))}


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


def memory_bytes() -> int:
    """Of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def call_times_ms(call: Callable[[], object], *, warmup: int, repeats: int) -> np.ndarray:
    """float64 [repeats]: milliseconds of each call, after `warmup` calls that are not counted."""
    with _no_collection():
        for _ in range(warmup):
            call()
        return np.array([_time_ms(call) for _ in range(repeats)])


def interleaved_times_ms(
    calls: Mapping[str, Callable[[], object]], *, warmup: int, min_calls: int, min_seconds: float
) -> dict[str, np.ndarray]:
    """Milliseconds of every counted call, per variant, taken in turns so that all see the same moods of the machine.

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


# Memory


def peak_memory(path: Path, *, windows: np.ndarray, threads: int) -> dict[str, int]:
    """peak_rss_bytes of a fresh Python process that loads the file and runs it over `windows`; int32 [k, length].

    baseline_rss_bytes is the same process with its imports done and no file: about 35 MB of Python, NumPy and LiteRT.
    Pages of the mapped file count as far as they were read, so a row of the embedding only when its token occurs.
    """
    sent = io.BytesIO()
    np.save(sent, windows)
    package_root = Path(__file__).resolve().parent.parent
    paths = os.pathsep.join(filter(None, [str(package_root), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-m", "optim.measure", str(path), str(threads)]
    with machine_lock():
        child = subprocess.run(
            command, input=sent.getvalue(), capture_output=True, env={**os.environ, "PYTHONPATH": paths}
        )
    if child.returncode:
        last = (child.stderr.decode(errors="replace").strip().splitlines() or ["no message"])[-1]
        raise MeasurementError(f"The process that weighs {path} ended with code {child.returncode}: {last}")
    return json.loads(child.stdout.splitlines()[-1])


def peak_rss_bytes() -> int:
    """The most resident memory this process has had.

    On Linux from VmHWM, which starts anew with each program. getrusage's ru_maxrss does not: a child starts with the
    peak of the parent that forked it, and a small process started from a large one reports the large one.
    """
    status = Path("/proc/self/status")
    found = re.search(r"^VmHWM:\s*(\d+) kB", status.read_text(), re.MULTILINE) if status.exists() else None
    if found:
        return int(found[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # bytes on macOS, kilobytes elsewhere


def _weigh(path: Path, threads: int) -> None:
    """The child of `peak_memory`: windows as .npy on stdin, one line of JSON on stdout."""
    import ai_edge_litert.interpreter  # noqa: F401  # part of the baseline, like NumPy

    windows = np.load(io.BytesIO(sys.stdin.buffer.read()))
    baseline = peak_rss_bytes()
    classifier = Classifier(path, threads)
    for window in windows:
        classifier.logits(window)
    print(json.dumps({"peak_rss_bytes": peak_rss_bytes(), "baseline_rss_bytes": baseline}))


# The machine


def machine() -> dict[str, Any]:
    """The `machine` part of result.json: cpu, isa, id, cores (that this process may use), load_average, versions.

    load_average is that of this moment, over 1, 5 and 15 minutes: call it before the timing, which is a load itself.
    """
    return {
        "cpu": _cpu_name(_cpuinfo()),
        "isa": isa_of(_cpuinfo()),
        "id": machine_id(),
        "cores": _cores(),
        "load_average": [round(x, 2) for x in os.getloadavg()],
        "versions": versions(),
    }


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine_id() -> str:
    """8 hexadecimal digits that tell this machine from others: of its host name, processor and cores."""
    told = [platform.node(), _cpu_name(_cpuinfo()), os.cpu_count()]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:8]


def isa_of(cpuinfo: str) -> list[str]:
    """Which of `ISA` the first processor of a /proc/cpuinfo text has; [] where there is none (macOS)."""
    flags = re.search(r"^(?:flags|Features)\s*:(.*)$", cpuinfo, re.MULTILINE)
    present = set(flags[1].split()) if flags else set()
    return [name for name in ISA if name in present]


def has_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 itself."""
    return bool({"avx512_bf16", "amx_bf16", "bf16"} & set(isa_of(_cpuinfo())))


def has_vnni() -> bool:
    """Whether this x86 CPU has int8 dot products, which an int8 file needs to be much faster than float32."""
    return bool({"avx512_vnni", "avx_vnni"} & set(isa_of(_cpuinfo())))


def versions() -> dict[str, str]:
    """Version of Python and of those of `PACKAGES` that are installed, by their names on the package index."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _cpuinfo() -> str:
    """Linux's description of its processors, or nothing."""
    path = Path("/proc/cpuinfo")
    return path.read_text() if path.exists() else ""


def _cpu_name(cpuinfo: str) -> str:
    """The model name; Arm kernels give none, so the architecture stands in."""
    found = re.search(r"^model name\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    return found[1].strip() if found else platform.processor() or platform.machine()


def _silent(what: str, done: int, total: int) -> None:
    """Progress that nobody watches."""


if __name__ == "__main__":
    try:
        _weigh(Path(sys.argv[1]), int(sys.argv[2]))
    except UserError as error:
        sys.exit(str(error))
