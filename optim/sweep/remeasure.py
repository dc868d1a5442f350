"""The files of many finished points, timed side by side on this machine, so that their latencies can be compared.

Every figure of `speed` comes from this one measurement, the float32 reference and the speed-up against it too. Where
the float32 file of a student is no longer in the cache, those are None: figures of two measurements are never mixed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from optim.common.files import sha256_of, write_text
from optim.export.bundle import COMPRESSED_FILE, MODEL_FILE, TOKENIZER_FILE
from optim.measure import device
from optim.measure.file import decompress_p50_ms
from optim.measure.latency import Bench, dev_mix, latency
from optim.measure.memory import peak_memory
from optim.measure.zeros import UNKNOWN, zeros_speed
from optim.report.finished import Finished
from optim.run.result import REMEASURED, read


def remeasure(points: Sequence[Finished], bench: Bench) -> int:
    """Times every distinct file in one run, in turns; returns how many files of points those were.

    At bench.sequence_length, at the median length of each point's data and over its lengths. The figures go to
    REMEASURED beside each result.json, which stays as it is; a comparison prefers them. Files that came out with the
    same bytes are timed once. Points with other tokens are timed over their own. A file that was weighed on another
    machine is weighed here too: `machine` is told of both.
    """
    here = device.machine()
    for group in _by_tokenizer(points):
        times = Times.of(group, bench)
        ids = device.running_text(_vocabulary_size(group[0]))
        worth, weight = _worth(group, ids, bench), _weight(group, here["id"], ids, bench)
        for point in group:
            digest = sha256_of(point.model)
            found = {"machine": here, "speed": {**times.speed(point, bench), **worth[digest]}}
            found |= {"memory": weight[digest]} if _is_away(point, here["id"]) else {}
            write_text(point.folder / REMEASURED, json.dumps(found, indent=2) + "\n")
    return len({sha256_of(point.model) for point in points})


@dataclass(frozen=True)
class Times:
    """What the clock said of the files of some points, which are named by their sha256."""

    at: Mapping[int, Mapping[str, Any]]  # length -> file -> percentiles
    mix: Mapping[tuple[int, ...], Mapping[str, Any]]  # lengths of dev -> file -> figures over them

    @staticmethod
    def of(points: Sequence[Finished], bench: Bench) -> Times:
        """Times the files of points with the same tokens, their float32 files where they are still there too."""
        files, ids = _files(points), device.running_text(_vocabulary_size(points[0]))
        own = {sha256_of(p.model): p.model for p in points}
        counts = {tuple(p.result.data["dev_lengths"]) for p in points}
        lengths = {bench.sequence_length, *map(device.median_length, counts)}
        at = {length: latency(files, ids=ids, length=length, bench=bench) for length in sorted(lengths)}
        return Times(at, {one: dev_mix(own, ids=ids, counts=one, bench=bench) for one in sorted(counts)})

    def speed(self, point: Finished, bench: Bench) -> dict[str, Any]:
        """The `speed` part of result.json but what `_worth` knows: the same keys as a first measurement has."""
        counts, reference = tuple(point.result.data["dev_lengths"]), _float32(point)
        median = device.median_length(counts)
        return device.speed_part(
            sha256_of(point.model),
            None if reference is None else sha256_of(reference),
            at_full=self.at[bench.sequence_length],
            at_median=self.at[median],
            mix=self.mix[counts],
            median=median,
            bench=bench,
        )


def _by_tokenizer(points: Sequence[Finished]) -> list[list[Finished]]:
    groups: dict[str, list[Finished]] = {}
    for point in points:
        groups.setdefault(sha256_of(point.bundle / TOKENIZER_FILE), []).append(point)
    return list(groups.values())


def _files(points: Sequence[Finished]) -> dict[str, Path]:
    """sha256 -> one of the files with it: those of the points, and their float32 files where they are still there."""
    paths = [path for point in points for path in (point.model, _float32(point)) if path is not None]
    return {sha256_of(path): path for path in paths}


def _worth(points: Sequence[Finished], ids: np.ndarray, bench: Bench) -> dict[str, dict[str, Any]]:
    """sha256 of each point's file -> what its zeros are worth, if it has any, and unpacking, if it is packed."""
    found: dict[str, dict[str, Any]] = {}
    for point in points:
        path = point.model
        if (digest := sha256_of(path)) not in found:
            pruned = point.result.speed["zeros_accelerated"] is not None
            unpacking = decompress_p50_ms(path) if path.name == COMPRESSED_FILE else None
            zeros = zeros_speed(path, ids, bench=bench) if pruned else UNKNOWN
            found[digest] = {**zeros, "decompress_p50_ms": unpacking}
    return found


def _weight(points: Sequence[Finished], here: str, ids: np.ndarray, bench: Bench) -> dict[str, dict[str, int]]:
    """sha256 -> what it takes here, of each file that has a point whose own run was on another machine."""
    away = {sha256_of(p.model): p.model for p in points if _is_away(p, here)}
    windows = device.token_windows(ids, bench.sequence_length)
    return {digest: peak_memory(path, windows=windows, threads=bench.threads) for digest, path in away.items()}


def _is_away(point: Finished, here: str) -> bool:
    """Whether its own run was on another machine, whatever was measured since."""
    found = read(point.folder)
    return found is None or found.machine.get("id") != here


def _float32(point: Finished) -> Path | None:
    """The float32 file of the point's student in the cache of stages, if it is still there."""
    keys = point.stages("float32")
    paths = [Path(point.result.cfg["cache_dir"]).expanduser() / "stages" / key / MODEL_FILE for key in keys]
    return next((path for path in paths if _is_there(path)), None)


def _is_there(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # in the home of another user, where this one may not look
        return False


def _vocabulary_size(point: Finished) -> int:
    return point.result.size["structure"]["vocabulary_size"]
