"""The end of a sweep: latencies that came out noisy are measured once more, side by side."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path

from optim.measure.device import machine_id
from optim.measure.latency import Bench
from optim.report.finished import Finished, read_all
from optim.report.timing import noisy
from optim.run.result import REMEASURED
from optim.sweep.pick import have_files
from optim.sweep.remeasure import remeasure

log = logging.getLogger("optim")


def measure_noisy_again(folders: Sequence[Path], bench: Bench) -> int:
    """How many points of `folders` were measured again: those of this machine that were timed as `bench` says.

    Of some only the figures may be left, and they are compared as they are.

    Each is measured again once: what stays noisy after that is marked.

    `latency` holds the lock of this machine, so that no other measurement of this tool runs beside it.
    """
    points = [p for p in have_files(read_all(folders)[0]) if _as_here(p, bench)]
    again = [p for p, flag in zip(points, noisy(points), strict=True) if flag and not (p.folder / REMEASURED).exists()]
    again = [p for p in again if os.access(p.folder, os.W_OK)]  # others' results are theirs
    if again:
        log.info("measure   the timing of %d of %d points was noisy: once more, side by side", len(again), len(points))
        remeasure(again, bench)
    return len(again)


def _as_here(point: Finished, bench: Bench) -> bool:
    speed = point.result.speed
    timed = (speed["sequence_length"], speed["threads"])
    return point.machine == machine_id() and timed == (bench.sequence_length, bench.threads)
