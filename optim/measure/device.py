"""Times and weighs .tflite files on the machine that it runs on. A bundle holds this file as measure.py.

python3 measure.py                       in a bundle: its own file; writes measured.json there
python3 measure.py BUNDLE BUNDLE         several bundles, in turns; writes measured.json where you are
python3 measure.py --output board.json   elsewhere; `sweep.py sweep=import file=board.json` takes it to the points

It needs Python 3.9, NumPy and LiteRT (pip install numpy ai-edge-litert), and zstandard for a compressed file. It
imports nothing of the program, whose own timing comes from here: both measure in one way. Its sentences are random
tokens, as many as bench.json says, for what a file takes depends on lengths alone.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import io
import itertools
import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

try:
    import numpy as np
except ImportError as error:
    if __name__ != "__main__":
        raise
    reason = " ".join(str(error).split())[:160]  # of a NumPy that is broken it is a page
    sys.exit(f"Error: NumPy is missing ({reason}): python3 -m pip install numpy ai-edge-litert")

VERSION = 1  # of measured.json; raised when a figure in it means something else
SCRIPT, SETTINGS, FIGURES = "measure.py", "bench.json", "measured.json"
BENCH = {"sequence_length", "threads", "warmup_calls", "min_calls", "min_seconds"}  # of bench.json
COUNTS = ("sequence_length", "threads", "warmup_calls", "min_calls")  # of those, the whole numbers
MOST = 1_000_000  # that one of them may be
FILES = ("model.tflite", "model.tflite.zst")  # of a bundle: the first that is there
TURN_MS = 200.0  # a variant's turn on the clock: short against changes of load, long against a call
WINDOWS = 32  # different inputs that timing and memory cycle through
MEMORY_SHARE = 0.25  # of the machine's memory, for the files that are timed in turns
# Of a container as it sees itself: control groups of version 2, and of version 1.
MEMORY_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
CPU_LIMITS = (  # (time that it may use of all cores together, period)
    (Path("/sys/fs/cgroup/cpu.max"),),
    (Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"), Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us")),
)
RUNNING_TOKENS = 4096  # of the text that stands for sentences where there is none
ISA = (  # spelled as Linux lists them; NEON is called asimd on 64-bit Arm
    *("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "amx_bf16", "avx512_bf16"),
    *("neon", "asimd", "asimddp", "i8mm", "bf16", "sve"),
)
PACKAGES = (
    *("tensorflow", "tf_keras", "tensorflow-model-optimization", "numpy"),
    *("ai-edge-litert", "ai-edge-quantizer", "litert-quantizer"),
)
Score = Callable[[np.ndarray], object]  # of token ids, int32 [length]
Load = Callable[[], Score]  # a file that is held, or loaded


# The machine
def machine() -> dict[str, Any]:
    """The `machine` part of result.json: cpu, isa, id, cores (that this process may use), load_average, versions.

    load_average is that of this moment, over 1, 5 and 15 minutes: call it before the timing, which is a load itself.
    """
    return {
        "cpu": _cpu_name(_cpuinfo()),
        "isa": isa_of(_cpuinfo()),
        "id": machine_id(),
        "cores": cores(),
        "load_average": [round(x, 2) for x in os.getloadavg()],
        "versions": versions(),
    }


def cores() -> int:
    """Cores that this process may use; in a container the whole ones of its time, and at least one.

    With more threads than that all of them stand still, once its time is spent, until the next period.
    """
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([there, *(int(share) for paths in CPU_LIMITS if (share := _share_of_time(paths)))]))


def _share_of_time(paths: Iterable[Path]) -> float | None:
    """How many cores' time files of the kernel allow; None where there are none, or no limit in them (`max`, -1)."""
    with suppress(OSError, ValueError, ZeroDivisionError):
        quota, period = map(int, " ".join(path.read_text() for path in paths).split())
        return quota / period if quota > 0 else None
    return None


def machine_id() -> str:
    """8 hexadecimal digits that tell this machine from others: of its host name, processor and cores."""
    traits = [platform.node(), _cpu_name(_cpuinfo()), os.cpu_count()]
    return hashlib.sha256(json.dumps(traits).encode()).hexdigest()[:8]


def isa_of(cpuinfo: str) -> list[str]:
    """Which of `ISA` the first processor of a /proc/cpuinfo text has; [] where there is none (macOS)."""
    flags = re.search(r"^(?:flags|Features)\s*:(.*)$", cpuinfo, re.MULTILINE)
    present = set(flags[1].split()) if flags else set()
    return [name for name in ISA if name in present]


def has_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 itself."""
    return bool({"avx512_bf16", "amx_bf16", "bf16"} & set(isa_of(_cpuinfo())))


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
    """The model name, and what Arm kernels give in its place: their kinds of core, by number, and the board.

    Those of x86 have no such lines. Without them a Raspberry Pi 4 and a 5 of one host name would be one machine.
    """
    found = re.search(r"^model name\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    name = found[1].strip() if found else platform.processor() or platform.machine()
    arm = re.findall(r"^(?:CPU implementer|CPU part|Hardware|Model)\s*:\s*(\S.*?)\s*$", cpuinfo, re.MULTILINE)
    return " ".join([name, *dict.fromkeys(arm)])  # each core of a kind says the same


# What a file is given
def token_windows(ids: np.ndarray, length: int) -> np.ndarray:
    """int32 [WINDOWS, length]: the running text of `ids` cut to equal pieces, from the start again where it ends."""
    return np.resize(ids, (WINDOWS, length)).astype(np.int32)


def running_text(vocabulary_size: int) -> np.ndarray:
    """int32 [RUNNING_TOKENS]: tokens from all over the vocabulary, always the same."""
    return np.random.default_rng(0).integers(0, vocabulary_size, RUNNING_TOKENS).astype(np.int32)


def median_length(counts: Sequence[int]) -> int:
    """Tokens of the median sentence. counts: how many sentences have 0, 1, 2, ... tokens."""
    return int(np.median(np.repeat(np.arange(len(counts)), counts)))


def mixed_lengths(counts: Sequence[int], most: int) -> np.ndarray:
    """int [most]: lengths at evenly spaced ranks, which stand for all sentences, in an order that is always the same.

    counts: how many sentences have 0, 1, 2, ... tokens.
    """
    lengths = np.repeat(np.arange(len(counts)), counts)
    ranks = ((np.arange(most) + 0.5) / most * len(lengths)).astype(int)
    return np.random.default_rng(0).permutation(lengths[ranks])


def pieces(ids: np.ndarray, lengths: Sequence[int]) -> list[np.ndarray]:
    """The running text of `ids` cut to these lengths, from the start again where it ends: int32 [length] each."""
    text = np.resize(ids, sum(lengths)).astype(np.int32)
    return np.split(text, np.cumsum(lengths)[:-1])


# The clock
def percentiles(times_ms: np.ndarray) -> dict[str, Any]:
    """The 50th, 90th and 99th percentile, straight lines between neighbours, and how many calls they rest on."""
    p50, p90, p99 = (float(p) for p in np.percentile(times_ms, [50, 90, 99]))
    return {"latency_p50_ms": p50, "latency_p90_ms": p90, "latency_p99_ms": p99, "calls": len(times_ms)}


def calls_of(loads: Mapping[str, Load], rows: Iterable[np.ndarray]) -> dict[str, Callable[[], object]]:
    """Per file: a call that scores the next of the rows, round and round."""
    return {name: _caller(load, rows) for name, load in loads.items()}


def _caller(load: Load, rows: Iterable[np.ndarray]) -> Callable[[], object]:
    following = itertools.cycle(rows)
    return lambda: load()(next(following))


class InOrder:
    """A call that scores the next of some rows, round and round, and can score the one before once more."""

    def __init__(self, load: Load, rows: Sequence[np.ndarray]) -> None:
        self._load, self._following, self._row = load, itertools.cycle(rows), rows[-1]

    def __call__(self) -> object:
        self._row = next(self._following)
        return self._load()(self._row)

    def again(self) -> object:
        """The row before, so that a call that doesn't count takes no row from those that do."""
        return self._load()(self._row)


def loaders(files: Mapping[str, Path], load: Callable[[Path], Score]) -> dict[str, Load]:
    """Per file: what holds it or loads it. Files too many for the memory take turns in it."""
    held = lru_cache(maxsize=_most_loaded(files.values()))(load)
    return {name: partial(held, path) for name, path in files.items()}


def _most_loaded(paths) -> int:
    """How many of the files are held at once, two at least: with its packed weights one takes twice its size."""
    return max(2, int(MEMORY_SHARE * _memory_bytes() / (2 * max(path.stat().st_size for path in paths))))


def _memory_bytes() -> int:
    """Of this machine, or what a container may use of it, if that is less."""
    there = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in MEMORY_LIMITS:
        with suppress(OSError, ValueError):  # no such file, or `max` in it
            there.append(int(path.read_text()))
    return min(there)


def interleaved_times_ms(
    calls: Mapping[str, Callable[[], object]], *, warmup: int, min_calls: int, min_seconds: float
) -> dict[str, np.ndarray]:
    """Milliseconds of every counted call, per variant, taken in turns: see interleaved_turns_ms.

    A turn takes TURN_MS, or all the counted time that is asked for where that is less.
    """
    turns = interleaved_turns_ms(
        calls, warmup=warmup, min_calls=min_calls, min_seconds=min_seconds, min_turns=1,
        turn_ms=min(TURN_MS, 1000 * min_seconds),
    )  # fmt: skip
    return {name: np.concatenate(own) for name, own in turns.items()}


def _times_ms(calls: Mapping[str, Callable[[], object]], bench) -> dict[str, np.ndarray]:
    """Those, as bench has it: an object with warmup_calls, min_calls and min_seconds."""
    return interleaved_times_ms(
        calls, warmup=bench.warmup_calls, min_calls=bench.min_calls, min_seconds=bench.min_seconds
    )


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
    """Times of consecutive calls that fill a turn, behind a free one that finds another's data in the caches.

    Where rows have an order the free one is the row before once more: the counted calls go through all of them.
    """
    getattr(call, "again", call)()
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


# What is said of a file
def at_length(loads: Mapping[str, Load], ids: np.ndarray, length: int, bench) -> dict[str, dict[str, Any]]:
    """Per file: latency_p50_ms, latency_p90_ms, latency_p99_ms and calls, at `length` tokens and batch 1."""
    times = _times_ms(calls_of(loads, token_windows(ids, length)), bench)
    return {name: percentiles(own) for name, own in times.items()}


def over_mix(loads: Mapping[str, Load], ids: np.ndarray, counts: Sequence[int], bench) -> dict[str, dict[str, Any]]:
    """Per file, over sentences at their own lengths: dev_mix_latency_p50_ms, dev_mix_latency_p99_ms, in mixed order,
    and length_change_p50_ms, by how much their median is above that of the same sentences sorted by length.

    counts: how many sentences have 0, 1, 2, ... tokens. bench.min_calls lengths stand for them all, each as often.
    """
    lengths = mixed_lengths(counts, bench.min_calls).tolist()
    mixed, ordered = pieces(ids, lengths), pieces(ids, sorted(lengths))
    both = [InOrder(load, rows) for rows in (mixed, ordered) for load in loads.values()]
    times = _times_ms({str(place): call for place, call in enumerate(both)}, bench)
    rounds = [whole_rounds(own, len(lengths)) for own in times.values()]
    found = {}
    for name, own, in_order in zip(loads, rounds, rounds[len(loads) :]):  # noqa: B905  # strict is Python 3.10's
        p50, p99 = (float(p) for p in np.percentile(own, [50, 99]))
        found[name] = {
            "dev_mix_latency_p50_ms": p50, "dev_mix_latency_p99_ms": p99,
            "length_change_p50_ms": p50 - float(np.median(in_order)),
        }  # fmt: skip
    return found


def whole_rounds(times_ms: np.ndarray, rows: int) -> np.ndarray:
    """The times of consecutive calls over `rows` rows, without the last round if it is not whole.

    Sorted rows would count the lengths more often that the clock stopped after, and a median would be theirs.
    """
    return times_ms[: len(times_ms) // rows * rows]


def speed_part(
    name: str, reference: str | None, *, at_full: Mapping[str, Any], at_median: Mapping[str, Any],
    mix: Mapping[str, Any], median: int, bench,
) -> dict[str, Any]:  # fmt: skip
    """The `speed` part of result.json but for what zeros and unpacking are worth, of the file `name`.

    reference: the float32 file of the same student among those that were timed; None if it was not.
    """
    own_ms = at_full[name]["latency_p50_ms"]
    float32_ms = None if reference is None else at_full[reference]["latency_p50_ms"]
    return {
        **at_full[name],
        "threads": bench.threads,
        "sequence_length": bench.sequence_length,
        "float32_latency_p50_ms": float32_ms,
        "speedup_vs_float32": None if float32_ms is None else float32_ms / own_ms,
        "median_length": median,
        "median_length_latency_p50_ms": at_median[name]["latency_p50_ms"],
        "median_length_float32_latency_p50_ms": None if reference is None else at_median[reference]["latency_p50_ms"],
        **mix[name],
    }


# Memory
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


def weigh(path: Path, threads: int, windows: np.ndarray) -> dict[str, int]:
    """peak_rss_bytes of this process after the file has run over `windows`, int32 [k, length], and
    baseline_rss_bytes, before it is loaded. It must be a fresh process, which has done nothing else."""
    import ai_edge_litert.interpreter  # noqa: F401  # part of the baseline, like NumPy

    baseline = peak_rss_bytes()
    score = scorer(path, threads)
    for window in windows:
        score(window)
    return {"peak_rss_bytes": peak_rss_bytes(), "baseline_rss_bytes": baseline}


# A bundle, by itself
def scorer(path: Path, threads: int) -> Score:
    """The file, loaded: it takes int32 [length]. It has run once, as LiteRT packs the weights in its first call."""
    from ai_edge_litert.interpreter import Interpreter

    try:
        run = Interpreter(**source_of(path), num_threads=threads).get_signature_runner()
    except (RuntimeError, ValueError) as error:
        sys.exit(f"Error: {path} is not a .tflite file with one signature: {' '.join(str(error).split())[:160]}")

    def score(row: np.ndarray) -> object:
        try:
            return run(input_ids=row[None], attention_mask=np.ones_like(row[None]))
        except (RuntimeError, ValueError) as error:
            sys.exit(f"Error: {path} cannot run {len(row)} tokens: {' '.join(str(error).split())[:160]}")

    score(np.zeros(1, np.int32))
    return score


def source_of(path: Path) -> dict[str, Any]:
    """What LiteRT is given: the path, whose pages it maps; of a .zst file its content, unpacked into memory."""
    if path.suffix != ".zst":
        return {"model_path": _name_of(path)}
    try:
        import zstandard
    except ImportError:
        sys.exit(f"Error: {path} is compressed, which needs zstandard: python3 -m pip install zstandard")
    try:
        return {"model_content": zstandard.ZstdDecompressor().decompress(path.read_bytes())}
    except zstandard.ZstdError as error:
        sys.exit(f"Error: {path} is not a whole zstd file: {str(error)[:160]}")


def _name_of(path: Path) -> str:
    """The path as LiteRT takes it, which is UTF-8. Raises SystemExit, with a line, if the locale lacks its letters."""
    name = str(path)
    try:
        name.encode()
    except UnicodeEncodeError:
        sys.exit(f"Error: {path} has letters that the locale lacks: set LC_ALL=C.UTF-8, or rename the folder")
    return name


def sha256_of(path: Path) -> str:
    """Of the content of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def measured(bundles: Sequence[Path], given: Mapping[str, Any]) -> dict[str, Any]:
    """The content of measured.json: the machine, and speed and memory of each file. given: settings that win.

    Bundles that are timed alike, over sentences of the same lengths and words, take turns.
    """
    here, files = machine(), [model_in(bundle) for bundle in bundles]
    asked = [_settings(bundle / SETTINGS) for bundle in bundles]
    found: dict[Path, dict[str, Any]] = {}
    for place, settings in enumerate(asked):
        if settings in asked[:place]:
            continue
        bench = SimpleNamespace(**{**settings["bench"], **given})
        group = [file for file, own in zip(files, asked) if own == settings]  # noqa: B905  # strict is Python 3.10's
        found |= _figures(group, settings, bench)
    return {"version": VERSION, "machine": here, "files": [found[file] for file in files]}


def _settings(path: Path) -> dict[str, Any]:
    """What a bench.json holds. Raises SystemExit, with a line, where it is damaged."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        whole = set(found["bench"]) >= BENCH and found["vocabulary_size"] > 0 and sum(found["dev_lengths"]) > 0
        counts = [found["bench"][name] for name in COUNTS]
        whole = whole and all(isinstance(count, int) and 0 < count <= MOST for count in counts)
    except OSError as error:
        sys.exit(f"Error: {path} cannot be read ({error.strerror})")
    except (ValueError, KeyError, TypeError):
        whole = False
    if not whole:
        sys.exit(f"Error: {path} is damaged: copy the bundle here again")
    return found


def _figures(files: Sequence[Path], settings: Mapping[str, Any], bench) -> dict[Path, dict[str, Any]]:
    speeds = _speeds({str(file): file for file in files}, settings, bench)
    return {
        file: {
            "file_sha256": sha256_of(file),
            "speed": speeds[str(file)],
            "memory": _weighed(file, bench, settings["vocabulary_size"]),
        }
        for file in files
    }


def _speeds(files: Mapping[str, Path], settings: Mapping[str, Any], bench) -> dict[str, dict[str, Any]]:
    ids, counts = running_text(settings["vocabulary_size"]), settings["dev_lengths"]
    loads, median = loaders(files, lambda path: scorer(path, bench.threads)), median_length(counts)
    _tell(f"timing {len(files)} file{'s' * (len(files) > 1)} at {bench.sequence_length} tokens")
    at_full = at_length(loads, ids, bench.sequence_length, bench)
    _tell(f"at {median} tokens")
    at_median = at_length(loads, ids, median, bench)
    _tell("at the lengths of the sentences")
    mix = over_mix(loads, ids, counts, bench)
    return {
        name: speed_part(name, None, at_full=at_full, at_median=at_median, mix=mix, median=median, bench=bench)
        for name in files
    }


def _weighed(path: Path, bench, vocabulary_size: int) -> dict[str, int]:
    """Memory of a fresh process that runs the file."""
    _tell(f"memory of {path}")
    command = [sys.executable, __file__, "--weigh", str(path), "--threads", str(bench.threads)]
    sent = saved(token_windows(running_text(vocabulary_size), bench.sequence_length))
    child = subprocess.run(command, input=sent, stdout=subprocess.PIPE)
    if child.returncode:
        sys.exit(f"Error: the process that weighs {path} ended with code {child.returncode}; -9 is too little memory")
    return json.loads(child.stdout)


def saved(windows: np.ndarray) -> bytes:
    """An array as the child of a weighing reads it."""
    sent = io.BytesIO()
    np.save(sent, windows)
    return sent.getvalue()


def model_in(bundle: Path) -> Path:
    """The file of a bundle. Raises SystemExit, with a line, where there is none."""
    for name in FILES:
        if (bundle / name).is_file() and (bundle / SETTINGS).is_file():
            if not (bundle / name).stat().st_size:
                sys.exit(f"Error: {bundle / name} is empty: copy the bundle here again")
            return bundle / name
    sys.exit(f"Error: {bundle} is not a bundle: it must hold {SETTINGS} and {' or '.join(FILES)}.")


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", nargs="*", type=Path, metavar="BUNDLE", help="folders; without any, its own")
    parser.add_argument("--output", type=Path, help=f"where the figures go; {FIGURES}")
    parser.add_argument("--threads", type=int, help="of the interpreter; as bench.json has it")
    parser.add_argument("--length", type=int, help="tokens; as bench.json has it")
    parser.add_argument("--weigh", type=Path, help=argparse.SUPPRESS)  # the child of _weighed
    found = parser.parse_args(words)
    for name in ("threads", "length"):
        if (value := getattr(found, name)) is not None and value < 1:
            parser.error(f"--{name} must be 1 or above, got {value}")
    return found


def main(words: Sequence[str] | None = None) -> None:
    """Measures, writes the figures, and prints a line for each file."""
    asked = _arguments(words)
    try:
        import ai_edge_litert.interpreter  # noqa: F401
    except ImportError as error:
        sys.exit(f"Error: LiteRT is missing ({error}): python3 -m pip install ai-edge-litert")
    if asked.weigh:
        print(json.dumps(weigh(asked.weigh, asked.threads, np.load(io.BytesIO(sys.stdin.buffer.read())))))
        return
    bundles = asked.bundles or [Path(__file__).resolve().parent]
    given = {"threads": asked.threads, "sequence_length": asked.length}
    output = asked.output or (Path(FIGURES) if asked.bundles else bundles[0] / FIGURES)
    if output.is_dir():
        sys.exit(f"Error: {output} is a folder: --output FILE names a file")
    if not os.access(output if output.exists() else output.parent, os.W_OK):
        sys.exit(f"Error: {output} cannot be written: --output FILE puts the figures elsewhere")
    found = measured(bundles, {name: value for name, value in given.items() if value is not None})
    _write(output, json.dumps(found, indent=1))
    for bundle, one in zip(bundles, found["files"]):  # noqa: B905  # strict is Python 3.10's
        speed = one["speed"]
        print(f"{bundle}: {speed['latency_p50_ms']:.2f} ms at {speed['sequence_length']} tokens, "
              f"{speed['dev_mix_latency_p50_ms']:.2f} ms over the sentences, "
              f"{one['memory']['peak_rss_bytes'] / 1e6:.0f} MB")  # fmt: skip
    print(f"Written: {output}")


def _write(output: Path, figures: str) -> None:
    """Writes the figures; where that fails after all, as on a full disk, they are printed: they took minutes."""
    try:
        output.write_text(figures + "\n", encoding="utf-8")
    except OSError as error:
        print(figures)
        sys.exit(f"Error: {output} cannot be written ({error.strerror}): the figures are printed instead")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)  # as a shell says SIGINT
    except OSError as error:  # a folder that may not be entered, a file that may not be read
        sys.exit(f"Error: {error.filename or 'the figures'}: {error.strerror or error}")
