"""The files of many finished points, timed side by side on this machine, so that their latencies can be compared.

Every figure of `speed` comes from this one measurement, the float32 reference and the speed-up against it too. Where
the float32 file of a student is no longer in the cache, those are None: figures of two measurements are never mixed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from optim.common.files import sha256_of, write_text
from optim.export.bundle import COMPRESSED_FILE, MODEL_FILE, TOKENIZER_FILE, model_in
from optim.measure.file import decompress_p50_ms
from optim.measure.latency import Bench, latency
from optim.measure.machine import machine
from optim.measure.zeros import UNKNOWN, zeros_speed
from optim.report.finished import Finished
from optim.run.result import REMEASURED

Times = dict[str, dict[str, Any]]  # sha256 of a file -> what `latency` says of it


def remeasure(points: Sequence[Finished], bench: Bench) -> int:
    """Times every distinct file in one run, in turns; returns how many files of points those were.

    At bench.sequence_length and at the median length of each point's data. The figures go to REMEASURED beside each
    result.json, which stays as it is; a comparison prefers them. Files that came out with the same bytes are timed
    once. Points with other tokens are timed over their own.
    """
    here = machine()
    for group in _by_tokenizer(points):
        files = _files(group)
        ids = _ids(_tokenizer(group[0]))
        lengths = {bench.sequence_length, *(p.result.speed["median_length"] for p in group)}
        times = {length: latency(files, ids=ids, length=length, bench=bench) for length in sorted(lengths)}
        worth = _worth(group, ids, bench)
        for point in group:
            speed = {**_speed(point, times, bench), **worth[sha256_of(_file(point))]}
            write_text(point.folder / REMEASURED, json.dumps({"machine": here, "speed": speed}, indent=2) + "\n")
    return len({sha256_of(_file(point)) for point in points})


def _by_tokenizer(points: Sequence[Finished]) -> list[list[Finished]]:
    groups: dict[str, list[Finished]] = {}
    for point in points:
        groups.setdefault(sha256_of(_tokenizer(point)), []).append(point)
    return list(groups.values())


def _files(points: Sequence[Finished]) -> dict[str, Path]:
    """sha256 -> one of the files with it: those of the points, and their float32 files where they are still there."""
    paths = [path for point in points for path in (_file(point), _float32(point)) if path is not None]
    return {sha256_of(path): path for path in paths}


def _worth(points: Sequence[Finished], ids: np.ndarray, bench: Bench) -> dict[str, dict[str, Any]]:
    """sha256 of each point's file -> what its zeros are worth, if it has any, and unpacking, if it is packed."""
    found: dict[str, dict[str, Any]] = {}
    for point in points:
        path = _file(point)
        if (digest := sha256_of(path)) not in found:
            pruned = point.result.speed["zeros_accelerated"] is not None
            unpacking = decompress_p50_ms(path) if path.name == COMPRESSED_FILE else None
            zeros = zeros_speed(path, ids, bench=bench) if pruned else UNKNOWN
            found[digest] = {**zeros, "decompress_p50_ms": unpacking}
    return found


def _speed(point: Finished, times: Mapping[int, Times], bench: Bench) -> dict[str, Any]:
    """The `speed` part of result.json but what `_worth` knows: the same keys as a first measurement has."""
    own, reference, median = sha256_of(_file(point)), _float32(point), point.result.speed["median_length"]
    other = None if reference is None else sha256_of(reference)
    at_length, at_median = times[bench.sequence_length], times[median]
    own_ms = at_length[own]["latency_p50_ms"]
    float32_ms = at_length[other]["latency_p50_ms"] if other else None
    return {
        **at_length[own],
        "threads": bench.threads,
        "sequence_length": bench.sequence_length,
        "float32_latency_p50_ms": float32_ms,
        "speedup_vs_float32": None if float32_ms is None else float32_ms / own_ms,
        "median_length": median,
        "median_length_latency_p50_ms": at_median[own]["latency_p50_ms"],
        "median_length_float32_latency_p50_ms": at_median[other]["latency_p50_ms"] if other else None,
    }


def _file(point: Finished) -> Path:
    return model_in(point.folder / "bundle")


def _tokenizer(point: Finished) -> Path:
    return point.folder / "bundle" / TOKENIZER_FILE


def _float32(point: Finished) -> Path | None:
    """The float32 file of the point's student in the cache of stages, if it is still there."""
    keys = [key for key in point.result.cost.get("stages", {}) if key.startswith("float32-")]
    paths = [Path(point.result.cfg["cache_dir"]).expanduser() / "stages" / key / MODEL_FILE for key in keys]
    return next((path for path in paths if path.is_file()), None)


def _ids(tokenizer: Path) -> np.ndarray:
    """Token ids all over the vocabulary: what a file takes does not depend on which, as long as rows are fetched."""
    size = len(json.loads(tokenizer.read_text(encoding="utf-8"))["model"]["vocab"])
    return np.random.default_rng(0).integers(0, size, 4096).astype(np.int32)
