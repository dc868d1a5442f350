"""Many results -> one table, its Pareto front, and which differences are real.

Accuracy goes up, p50 latency and file bytes go down. A point is better than another only where McNemar's test says so;
what merely looks better is marked as such. Latencies are compared within one machine alone.
"""

from __future__ import annotations

import itertools
import json
import shlex
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from optim.common.errors import UserError
from optim.run import result
from optim.run.result import Result

COSTS = ("latency_p50_ms", "file_bytes")
SIGNIFICANT = 0.05  # p below which a difference counts


@dataclass(frozen=True)
class Point:
    """One finished result and what it said of each dev sentence."""

    result: Result
    folder: Path
    right: np.ndarray | None  # bool [examples], in dev's order; None in results without answers
    teacher_right: np.ndarray | None

    @property
    def accuracy(self) -> float:
        """Of the file that ships."""
        return self.result.quality["accuracy_fraction"]

    @property
    def machine(self) -> str:
        """What the latencies of two points must share to be compared."""
        return self.result.machine.get("id") or self.result.machine["cpu"]

    @property
    def file(self) -> str:
        """What two points share that are one file, as those do that differ in what changes nothing for them."""
        return next((key for key in self.result.cost.get("stages", {}) if key.startswith("file-")), self.result.run_id)

    def cost(self, name: str) -> float:
        """latency_p50_ms or file_bytes."""
        return self.result.speed[name] if name in self.result.speed else self.result.size[name]


def drop_points(point: Point) -> float:
    """Percentage points of accuracy that the point is below its teacher, to the nearest millionth."""
    return round(100 * (point.result.quality["teacher_accuracy_fraction"] - point.accuracy), 6)


def read_all(folders: Sequence[Path]) -> tuple[list[Point], list[Result], list[str]]:
    """(finished points, failed results, one line for each file that is no result), of all folders and those in them.

    Raises UserError for two points with one id and different contents, or results of mixed schemas.
    """
    done, failed, foreign, seen = [], [], [], {}
    for path in dict.fromkeys(path for folder in folders for path in sorted(folder.glob(f"**/{result.FILE}"))):
        try:
            found = Result(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            foreign.append(f"{path} is left out: not a result of this tool ({_short(error)}).")
            continue
        _require_one_schema(path, found)
        twin = seen.setdefault(found.run_id, (path, found))
        if twin[0] != path:
            _require_same(twin, (path, found))
        elif found.status == result.DONE:
            done.append(_point(found, path.parent))
        else:
            failed.append(found)
    return done, failed, foreign


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:80]


def _require_one_schema(path: Path, found: Result) -> None:
    if found.schema != result.SCHEMA:
        raise UserError(
            f"{path} has schema {found.schema}, this version reads {result.SCHEMA}: its figures may mean something "
            f"else. Move it away, or run its command again: {found.command}"
        )


def _require_same(first: tuple[Path, Result], second: tuple[Path, Result]) -> None:
    """Two files of one run must tell the same: a copy is fine, another content is not."""
    if first[1].quality != second[1].quality or first[1].size != second[1].size:
        raise UserError(
            f"{first[0]} and {second[0]} are both run {first[1].run_id} with different figures: delete the wrong one."
        )


def _point(found: Result, folder: Path) -> Point:
    with suppress(OSError, ValueError, KeyError):
        later = json.loads((folder / result.REMEASURED).read_text(encoding="utf-8"))
        found = replace(found, machine=later["machine"], speed={**found.speed, **later["speed"]})
    try:
        with np.load(folder / result.ANSWERS) as saved:
            labels, answers, teacher = saved["labels"], saved["answers"], saved["teacher"]
    except (OSError, ValueError, KeyError):
        return Point(found, folder, None, None)
    return Point(found, folder, answers == labels, teacher == labels)


def distinct(points: Sequence[Point]) -> list[Point]:
    """The first point of each file."""
    return list({p.file: p for p in reversed(points)}.values())[::-1]


# Which differences are real
def mcnemar(first: np.ndarray, second: np.ndarray) -> float:
    """p of McNemar's exact two-sided test (McNemar 1947): could both be right equally often?

    first, second: bool [n], right or wrong on the same sentences. Only sentences on which they differ count: b that
    the first alone has right, c the second alone; p = P(a fair coin falls at least as unevenly in b + c throws).
    """
    from scipy.special import bdtr  # scipy.stats has this test too, and takes a second to import

    b, c = int(np.sum(first & ~second)), int(np.sum(~first & second))
    return min(1.0, 2 * float(bdtr(min(b, c), b + c, 0.5)))


def p_value(first: Point, second: Point) -> float | None:
    """McNemar's p of two points; None where they were not scored on the same sentences."""
    same = first.result.data["digest"] == second.result.data["digest"]
    if not same or first.right is None or second.right is None:
        return None
    return mcnemar(first.right, second.right)


def surely_better(first: Point, second: Point) -> bool:
    """Whether `first` is more accurate than `second` and the test says so."""
    p = p_value(first, second)
    return first.accuracy > second.accuracy and p is not None and p < SIGNIFICANT


# The front
def front(points: Sequence[Point], costs: Sequence[str] = COSTS) -> list[bool]:
    """For each point, whether no other is at least as good in accuracy and all costs, and better in one."""
    values = np.array([[-p.accuracy, *(p.cost(c) for c in costs)] for p in points]).reshape(len(points), -1)
    no_worse = (values[:, None] <= values[None]).all(axis=2)
    better = (values[:, None] < values[None]).any(axis=2)
    dominated = np.asarray((no_worse & better).any(axis=0))
    return (~dominated).tolist()


def certain(points: Sequence[Point], costs: Sequence[str] = COSTS) -> list[bool]:
    """For each point, whether it is on the front for certain: surely more accurate than all that cost no more.

    What is on the front only by a sentence or two could as well be dominated on other sentences; and a latency that is
    above another by no more than `timing_noise` is not above it for certain.
    """
    slack, flags = {"latency_p50_ms": 1 + timing_noise(points)}, []
    for point in points:
        rivals = [
            q for q in points
            if q.file != point.file and all(q.cost(c) <= point.cost(c) * slack.get(c, 1.0) for c in costs)
        ]  # fmt: skip
        flags.append(all(surely_better(point, rival) for rival in rivals))
    return flags


@dataclass(frozen=True)
class Step:
    """From one point of a front to the next, which costs more."""

    cheaper: Point
    dearer: Point
    accuracy_points: float  # that the dearer one gains, percentage points
    cost_ratio: float
    p: float | None  # McNemar's; None where they were not scored on the same sentences


def steps(points: Sequence[Point], cost: str) -> list[Step]:
    """The steps along the front of accuracy and one cost, the cheapest first."""
    best = [p for p, flag in zip(points, front(points, [cost]), strict=True) if flag]
    best.sort(key=lambda p: (p.cost(cost), p.result.run_id))
    # Equals in accuracy and cost are all on the front: one of them stands for them.
    best = [p for i, p in enumerate(best) if not i or p.cost(cost) != best[i - 1].cost(cost)]
    return [
        Step(a, b, 100 * (b.accuracy - a.accuracy), b.cost(cost) / a.cost(cost), p_value(a, b))
        for a, b in itertools.pairwise(best)
    ]


def timing_noise(points: Sequence[Point]) -> float:
    """How far the timings of one and the same graph lie apart: slowest / fastest - 1; 0 if none was timed twice.

    Every file is timed in turns with the float32 file of its student, and the float32 files of one shape are one
    graph, pruned or not: where their latencies differ, the machine did. The largest over machines, shapes, lengths.
    """
    groups: dict[tuple, list[float]] = {}
    for p in points:
        key = (p.machine, p.result.size["parameters"], p.result.speed["sequence_length"], p.result.speed["threads"])
        groups.setdefault(key, []).append(p.result.speed["float32_latency_p50_ms"])
    return max((max(times) / min(times) - 1 for times in groups.values()), default=0.0)


# What the sweep varied
def factors(points: Sequence[Point]) -> dict[str, list[Any]]:
    """Name -> value for each point of everything that differs: options of groups, and keys set on a command line.

    But for the tracker: to where a point was logged changes nothing in it.
    """
    groups = sorted({g for p in points for g in p.result.choices if not g.startswith("default") and g != "track"})
    keys = sorted({key for p in points for key in _keys(p.result.command) if "." in key or key == "seed"})
    keys = [key for key in keys if not key.startswith("track.")]
    columns = {group: [p.result.choices.get(group) for p in points] for group in groups}
    columns |= {key: [_lookup(p.result.cfg, key) for p in points] for key in keys if not key.endswith("_dir")}
    return {name: values for name, values in columns.items() if len({str(v) for v in values}) > 1}


def _keys(command: str) -> list[str]:
    return [word.split("=", 1)[0].lstrip("+") for word in shlex.split(command) if "=" in word]


def _lookup(cfg: Any, key: str) -> Any:
    for part in key.split("."):
        cfg = cfg.get(part) if isinstance(cfg, dict) else None
    return cfg


@dataclass(frozen=True)
class Effect:
    """What changing one factor from `base` to `option` did, with all the others held."""

    factor: str
    base: str
    option: str
    pairs: int
    accuracy_points: float  # mean difference, percentage points
    accuracy_low: float  # 95 % interval of that mean over the pairs; nan for a single pair
    accuracy_high: float
    latency_ratio: float  # geometric mean; nan where no pair was measured on one machine
    bytes_ratio: float


def effects(points: Sequence[Point]) -> list[Effect]:
    """Every factor's options against its first, over the pairs of points that differ in nothing else.

    Two points that are one file are no pair: nothing was changed between them.
    """
    columns, found = factors(points), []
    for factor, values in columns.items():
        others = [tuple(str(columns[c][i]) for c in columns if c != factor) for i in range(len(points))]
        by_option: dict[str, dict[tuple, Point]] = {}
        for point, value, rest in zip(points, values, others, strict=True):
            by_option.setdefault(str(value), {})[rest] = point
        base, *rest_options = sorted(by_option, key=lambda option: (option != "none", option))
        for option in rest_options:
            pairs = [(by_option[base][r], p) for r, p in by_option[option].items() if r in by_option[base]]
            pairs = list({(a.file, b.file): (a, b) for a, b in pairs if a.file != b.file}.values())
            if pairs:
                found.append(_effect(factor, base, option, pairs))
    return found


def _effect(factor: str, base: str, option: str, pairs: list[tuple[Point, Point]]) -> Effect:
    from scipy.special import stdtrit

    gains = np.array([100 * (b.accuracy - a.accuracy) for a, b in pairs])
    half = np.nan
    if len(gains) > 1:
        half = stdtrit(len(gains) - 1, 0.975) * gains.std(ddof=1) / np.sqrt(len(gains))
    timed = [(a, b) for a, b in pairs if a.machine == b.machine]
    latency = _geometric(b.cost(COSTS[0]) / a.cost(COSTS[0]) for a, b in timed)
    size = _geometric(b.cost(COSTS[1]) / a.cost(COSTS[1]) for a, b in pairs)
    mean = float(gains.mean())
    return Effect(factor, base, option, len(pairs), mean, mean - half, mean + half, latency, size)


def _geometric(ratios) -> float:
    values = np.array(list(ratios))
    return float(np.exp(np.log(values).mean())) if len(values) else float("nan")


# Seeds
@dataclass(frozen=True)
class Pooled:
    """The points that differ in their seed alone."""

    points: list[Point]
    mean: float  # of accuracy_fraction
    spread: float  # standard deviation over seeds; nan for one
    seeds: list[int]


def pooled(points: Sequence[Point]) -> list[Pooled]:
    """Points grouped over seeds, in the order of their first."""

    def rest(point: Point) -> str:
        cfg = {k: v for k, v in point.result.cfg.items() if k not in ("seed", "results_dir", "cache_dir", "track")}
        return json.dumps([cfg, point.result.data.get("digest")], sort_keys=True, default=str)

    order = {key: i for i, key in enumerate(dict.fromkeys(map(rest, points)))}
    groups = [list(g) for _, g in itertools.groupby(sorted(points, key=lambda p: order[rest(p)]), key=rest)]
    out = []
    for group in groups:
        values = np.array([p.accuracy for p in group])
        spread = float(values.std(ddof=1)) if len(values) > 1 else float("nan")
        out.append(Pooled(group, float(values.mean()), spread, sorted(p.result.seed for p in group)))
    return out
