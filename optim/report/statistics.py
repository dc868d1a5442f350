"""Which differences are real: McNemar's test, effects over pairs, seeds pooled, the noise of timing."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from optim.measure.quality import SIGNIFICANT, mcnemar
from optim.report.finished import COSTS, Finished, distinct, factors, set_on_command_line

RESAMPLES = 10_000


# Which differences are real
def p_value(first: Finished, second: Finished) -> float | None:
    """McNemar's p of two points; None where they were not scored on the same sentences."""
    same = first.result.data["digest"] == second.result.data["digest"]
    if not same or first.right is None or second.right is None:
        return None
    return mcnemar(first.right, second.right)


def surely_better(first: Finished, second: Finished) -> bool:
    """Whether `first` is more accurate than `second` and the test says so."""
    p = p_value(first, second)
    return first.accuracy > second.accuracy and p is not None and p < SIGNIFICANT


def timing_noise(points: Sequence[Finished]) -> float:
    """How far the timings of one and the same graph lie apart: slowest / fastest - 1; 0 if none was timed twice.

    Every file is timed in turns with the float32 file of its student, and the float32 files of one shape are one
    graph, pruned or not: where their latencies differ, the machine did. The largest over machines, shapes, lengths.
    """
    groups: dict[tuple, list[float]] = {}
    for p in points:
        key = (p.machine, p.result.size["parameters"], p.result.speed["sequence_length"], p.result.speed["threads"])
        if (float32_ms := p.result.speed["float32_latency_p50_ms"]) is not None:
            groups.setdefault(key, []).append(float32_ms)
    return max((max(times) / min(times) - 1 for times in groups.values()), default=0.0)


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


def effects(points: Sequence[Finished]) -> list[Effect]:
    """Every factor's options against its first, over the pairs of points that differ in nothing else.

    Two points that are one file are no pair: nothing was changed between them.
    """
    columns, found = factors(points), []
    for factor, values in columns.items():
        others = [tuple(str(columns[c][i]) for c in columns if c != factor) for i in range(len(points))]
        by_option: dict[str, dict[tuple, Finished]] = {}
        for point, value, rest in zip(points, values, others, strict=True):
            by_option.setdefault(str(value), {})[rest] = point
        base, *rest_options = sorted(by_option, key=lambda option: (option != "none", option))
        for option in rest_options:
            pairs = [(by_option[base][r], p) for r, p in by_option[option].items() if r in by_option[base]]
            pairs = list({(a.file, b.file): (a, b) for a, b in pairs if a.file != b.file}.values())
            if pairs:
                found.append(_effect(factor, base, option, pairs))
    return found


def _effect(factor: str, base: str, option: str, pairs: list[tuple[Finished, Finished]]) -> Effect:
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
FOLLOWS = (("distill", "teacher_seed"), ("quant", "seed"))  # keys that are the run's seed unless they are set


@dataclass(frozen=True)
class Pooled:
    """The points that differ in their seed alone."""

    points: list[Finished]
    mean: float  # of accuracy_fraction
    spread: float  # standard deviation over seeds; nan for one
    seeds: list[int]


def pooled(points: Sequence[Finished]) -> list[Pooled]:
    """Points grouped over seeds, in the order of their first."""

    def rest(point: Finished) -> str:
        cfg = {k: v for k, v in point.result.cfg.items() if k not in ("seed", "results_dir", "cache_dir", "track")}
        given = set_on_command_line(point)
        for group, key in FOLLOWS:
            if f"{group}.{key}" not in given:
                cfg[group] = {k: v for k, v in cfg.get(group, {}).items() if k != key}
        return json.dumps([cfg, point.result.data.get("digest")], sort_keys=True, default=str)

    order = {key: i for i, key in enumerate(dict.fromkeys(map(rest, points)))}
    groups = [list(g) for _, g in itertools.groupby(sorted(points, key=lambda p: order[rest(p)]), key=rest)]
    out = []
    for group in map(distinct, groups):  # two seeds whose teacher is one, and the file itself, are one fit
        values = np.array([p.accuracy for p in group])
        spread = float(values.std(ddof=1)) if len(values) > 1 else float("nan")
        out.append(Pooled(group, float(values.mean()), spread, sorted(p.result.seed for p in group)))
    return out


@dataclass(frozen=True)
class Against:
    """One way to train against another, over the seeds that both have; points are percentage points of accuracy."""

    seeds: list[int]
    mean: float  # accuracy of the first
    spread_points: float  # standard deviation over seeds of the first's accuracy; nan for one seed
    base_spread_points: float  # and of the other's
    gain_points: float  # mean difference
    low_points: float  # 95 % interval of it
    high_points: float

    @property
    def wins(self) -> bool:
        """Whether it is better by more than what another seed does to either; False for one seed."""
        return self.gain_points > max(self.spread_points, self.base_spread_points)

    @property
    def loses(self) -> bool:
        """Whether it is worse by more than that."""
        return -self.gain_points > max(self.spread_points, self.base_spread_points)


def against(right: Mapping[int, np.ndarray], base: Mapping[int, np.ndarray]) -> Against:
    """`right` against `base`: seed -> bool [n], right or wrong on the same sentences in the same order.

    Raises ValueError where no seed is in both.
    """
    seeds = sorted(set(right) & set(base))
    if not seeds:
        raise ValueError(f"no seed is in both: {sorted(right)} and {sorted(base)}")
    own, other = (np.array([answers[seed] for seed in seeds], float) for answers in (right, base))
    low, high = crossed_interval(own - other)
    spread, base_spread = (float(x.mean(axis=1).std(ddof=1)) if len(seeds) > 1 else float("nan") for x in (own, other))
    gain = float((own - other).mean())
    return Against(
        seeds=seeds, mean=float(own.mean()), spread_points=100 * spread, base_spread_points=100 * base_spread,
        gain_points=100 * gain, low_points=100 * low, high_points=100 * high,
    )  # fmt: skip


def crossed_interval(gains: np.ndarray) -> tuple[float, float]:
    """95 % interval of the mean of `gains`, float [seeds, sentences], by drawing seeds and then sentences anew.

    The percentiles of RESAMPLES means of drawn seeds x drawn sentences. All seeds answer the same sentences, so a draw
    has the same sentences for each of its seeds (Owen 2007, "The pigeonhole bootstrap", Annals of Applied Statistics
    1(2)): with other sentences for each, the interval would shrink with every seed however few sentences there are.
    Three seeds are few: their part of the interval comes out too narrow by about a fifth (sqrt(2/3)).
    """
    rng, (seeds, sentences) = np.random.default_rng(0), gains.shape
    means = np.empty(RESAMPLES)
    for i in range(RESAMPLES):
        drawn = gains[rng.integers(seeds, size=seeds)].mean(axis=0)
        means[i] = drawn[rng.integers(sentences, size=sentences)].mean()
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)
