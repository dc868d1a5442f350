"""What each option changed, with all the others held; and where that depends on another option."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from optim.report.compare import LATENCY, Rule, geometric
from optim.report.difference import SURE, Difference, Mean, Spread, holm
from optim.report.finished import Finished, data_of, factors, ordered
from optim.report.seeds import FOLLOWS, comparable, fit_of, pooled, spreads_of
from optim.run.places import GROUPS
from optim.run.younger import plain

NO_EFFECT = ("seed", "data", *(f"{group}.{key}" for group, key in FOLLOWS))  # what no option is judged by
Pairs = list[tuple[Finished, Finished]]


@dataclass(frozen=True)
class Under:
    """An effect where another factor has one of its values."""

    factor: str
    value: str
    found: Difference


@dataclass(frozen=True)
class Effect:
    """What changing one factor from `base` to `option` did, with all the others held, seeds pooled."""

    factor: str
    base: str
    option: str
    files: int  # distinct ones with the option that have a partner without it
    seeds: int
    found: Difference  # the mean over the pairs
    p: float  # after Holm's correction over all effects and all that they were tried under
    latency_ratio: float  # geometric mean; nan where no pair has latencies that can be compared
    bytes_ratio: float
    interactions: list[Under] = field(default_factory=list)  # where it differs for certain, all values of that factor

    @property
    def sure(self) -> bool:
        """Whether there is one, for certain."""
        return self.p < SURE


def effects(points: Sequence[Finished]) -> list[Effect]:
    """Every factor's options against its first, over the pairs of points that differ in nothing else.

    Two points that are one file are no pair: nothing was changed between them. Pairs without answers are none either,
    and of several data sets the first one's are taken. What is drawn anew for the interval are sentences and seeds, not
    pairs: nine pairs of three students and one dev set are no nine experiments.
    """
    rule, spreads = Rule.of(points), spreads_of(pooled(points))
    columns = _columns(points)
    found, contrasts = [], []
    for factor in [name for name in columns if name not in NO_EFFECT]:
        for base, option, pairs in _paired(points, columns, factor):
            spread = spreads[data_of(pairs[0][0])]
            found.append(_effect(factor, base, option, pairs, rule, spread))
            contrasts.append(_contrasts(points, columns, factor, pairs, spread))
    return _corrected(found, contrasts)


def _columns(points: Sequence[Finished]) -> dict[str, list[str]]:
    """`factors` as texts. Data are told apart by what they are: where they lie is no option, and parts no pair."""
    found = {name: [str(v) for v in values] for name, values in factors(points).items()}
    kept = {name: values for name, values in found.items() if not (name.startswith("data.") and name.endswith("path"))}
    return {**kept, "data": [data_of(p) for p in points]}


def _paired(points: Sequence[Finished], columns: Mapping[str, list[str]], factor: str) -> list[tuple[str, str, Pairs]]:
    """(base, option, pairs) for each option of a factor that has any."""
    by_option: dict[str, dict[tuple, Finished]] = {}
    for i, point in enumerate(points):
        rest = tuple(values[i] for name, values in columns.items() if name != factor)
        alike = (*rest, _held(point, factor), str(point.result.seed))
        by_option.setdefault(columns[factor][i], {})[alike] = point
    base, *options = ordered(list(by_option))
    out = []
    for option in options:
        pairs = [(by_option[base][r], p) for r, p in by_option[option].items() if r in by_option[base]]
        usable = {(a.file, b.file): (a, b) for a, b in pairs if a.file != b.file and comparable([a, b])}
        out += [(base, option, _of_one_data(list(usable.values())))] if usable else []
    return out


def _held(point: Finished, factor: str) -> str:
    """What the config holds beside a factor: an experiment, or a YAML, sets keys that no command line names."""
    group, _, key = factor.partition(".")
    whole = plain(point.result.cfg)
    cfg = {name: dict(whole.get(name) or {}) for name in GROUPS if name not in ("data", "track")}
    for name, follower in FOLLOWS:
        cfg[name].pop(follower, None)
    if not key:
        cfg.pop(group, None)
    elif group in cfg:
        cfg[group] = _without(cfg[group], key.split("."))
    return json.dumps(cfg, sort_keys=True, default=str)


def _without(fields: dict[str, Any], keys: list[str]) -> dict[str, Any]:
    """A nested dictionary without the value under some keys."""
    first, *more = keys
    if not more:
        return {name: value for name, value in fields.items() if name != first}
    inner = fields.get(first)
    return {**fields, first: _without(inner, more)} if isinstance(inner, dict) else fields


def _of_one_data(pairs: Pairs) -> Pairs:
    """Those scored on the sentences of the first: answers to others can't be subtracted from theirs."""
    digest = pairs[0][0].result.data["digest"]
    return [pair for pair in pairs if pair[0].result.data["digest"] == digest]


def _effect(factor: str, base: str, option: str, pairs: Pairs, rule: Rule, spread: Spread) -> Effect:
    timed = [
        (a, b) for a, b in pairs if a.timed_as == b.timed_as and not {a.result.run_id, b.result.run_id} & rule.noisy
    ]
    return Effect(
        factor, base, option, files=len({b.file for _, b in pairs}), seeds=len({b.result.seed for _, b in pairs}),
        found=_gain(pairs).difference(spread), p=float("nan"),
        latency_ratio=geometric([b.cost(LATENCY) / a.cost(LATENCY) for a, b in timed]),
        bytes_ratio=geometric([b.cost("file_bytes") / a.cost("file_bytes") for a, b in pairs]),
    )  # fmt: skip


def _gain(pairs: Pairs) -> Mean:
    """The mean over the seeds of the means over their pairs."""
    by_seed: dict[int, Pairs] = {}
    for pair in pairs:
        by_seed.setdefault(pair[1].result.seed, []).append(pair)
    share = {seed: 1 / len(some) / len(by_seed) for seed, some in by_seed.items()}
    sides = [[(share[seed], p.right, fit_of(p)) for seed, some in by_seed.items() for pair in some
              if (p := pair[side]).right is not None] for side in (0, 1)]  # fmt: skip
    return Mean.of(sides[1]) - Mean.of(sides[0])


Contrast = tuple[str, float, list[Under]]  # the other factor, p of its two values, all of its values


def _contrasts(
    points: Sequence[Finished], columns: Mapping[str, list[str]], factor: str, pairs: Pairs, spread: Spread
) -> list[Contrast]:
    """For every two values of every other factor that the pairs have: whether the effect differs between them."""
    at = {id(point): i for i, point in enumerate(points)}
    out: list[Contrast] = []
    for other in [name for name in columns if name not in (factor, *NO_EFFECT)]:
        parts: dict[str, Pairs] = {}
        for pair in pairs:
            parts.setdefault(columns[other][at[id(pair[1])]], []).append(pair)
        gains = {value: _gain(some) for value, some in sorted(parts.items())}
        under = [Under(other, value, gain.difference(spread)) for value, gain in gains.items()]
        for one, two in itertools.combinations(gains.values(), 2):
            out.append((other, (one - two).difference(spread).p, under))
    return out


def _corrected(found: Sequence[Effect], contrasts: Sequence[list[Contrast]]) -> list[Effect]:
    """With Holm's correction over all of them together, and the interactions that are left for certain."""
    every = [effect.found.p for effect in found] + [p for some in contrasts for _, p, _ in some]
    own, rest = holm(every)[: len(found)], iter(holm(every)[len(found) :])
    out = []
    for effect, p, some in zip(found, own, contrasts, strict=True):
        sure = {other: under for other, _, under in some if next(rest) < SURE}
        out.append(replace(effect, p=p, interactions=[one for under in sure.values() for one in under]))
    return out
