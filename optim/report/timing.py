"""How far the latencies of a comparison can be trusted, and which of them cannot."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from optim.report.finished import Finished

UNSTEADY = 1.3  # p90 / p50 above which something else ran beside a measurement
STRAYS = 0.15  # of a float32 reference from the median of its graph: the machine was slower or faster then
SIZE_TIE = 0.01  # sizes nearer than that are one size: gzip's moves by as much with the seed


def machine_line(machine: Mapping[str, Any]) -> str:
    """What the `machine` of a result is, in words."""
    return f"{machine['cpu']}, {machine['cores']} cores, {' '.join(machine['isa'])}"


def noisy(points: Sequence[Finished]) -> list[bool]:
    """For each point, whether its latency is no plain fact: unsteady, or taken while the machine ran unlike itself.

    Every file is timed in turns with the float32 file of its student. The float32 files of one shape are one graph,
    pruned or not: where their latencies differ, the machine did.
    """
    usual = {graph: statistics.median(times) for graph, times in _by_graph(points).items()}
    return [_unsteady(p) or _strays(p, usual) for p in points]


def _unsteady(point: Finished) -> bool:
    return point.result.speed["latency_p90_ms"] > UNSTEADY * point.result.speed["latency_p50_ms"]


def _strays(point: Finished, usual: dict[tuple, float]) -> bool:
    own = point.result.speed["float32_latency_p50_ms"]
    return own is not None and abs(own / usual[_graph(point)] - 1) > STRAYS


def timing_noise(points: Sequence[Finished]) -> float:
    """How far the timings of one and the same graph lie apart: slowest / fastest - 1; 0 if none was timed twice.

    The largest over machines, shapes and lengths. Noisy points are left out: they are marked, and compared with none.
    """
    steady = [p for p, flag in zip(points, noisy(points), strict=True) if not flag]
    return max((max(times) / min(times) - 1 for times in _by_graph(steady).values()), default=0.0)


def _by_graph(points: Sequence[Finished]) -> dict[tuple, list[float]]:
    """What was measured as one thing -> the latencies of its float32 files."""
    groups: dict[tuple, list[float]] = {}
    for point in points:
        if (float32_ms := point.result.speed["float32_latency_p50_ms"]) is not None:
            groups.setdefault(_graph(point), []).append(float32_ms)
    return groups


def _graph(point: Finished) -> tuple:
    return *point.timed_as, point.result.size["parameters"]
