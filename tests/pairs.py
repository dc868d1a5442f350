"""Points of the tiny model in which every two options of the method groups meet, and what must be true of each.

The tests are in two files, so that two processes share them.
"""

from __future__ import annotations

import itertools
import random

from conftest import CONF, Runs
from whole_points import made, point

GROUPS = ("slim", "vocab", "prune", "distill", "quant")
# What an option needs on a model of 2 layers and 2 heads.
MORE = {
    "slim=slim75": ["slim.heads=0.5"], "slim=layers3": ["slim.layers=1"], "slim=layers6": ["slim.layers=2"],
    "slim=budget": ["slim.parameters=36000"], "vocab=top": ["vocab.size=150"],
    "distill=minilm": ["distill.relation_heads=16"],  # half of the heads leave 16 features
}  # fmt: skip
Choice = tuple[str, ...]  # an option of each group


def options(group: str) -> list[str]:
    return sorted(f"{group}={path.stem}" for path in (CONF / group).glob("*.yaml"))


def covering(groups: list[list[str]], seed: int) -> list[Choice]:
    """Choices in which every two options of different groups meet; greedy, so not the fewest."""
    rng = random.Random(seed)
    open_pairs = {pair for a, b in itertools.combinations(groups, 2) for pair in itertools.product(a, b)}
    found = []
    while open_pairs:
        start = rng.choice(sorted(open_pairs))
        best = max((_drawn(groups, start, rng) for _ in range(60)), key=lambda c: len(_pairs(c) & open_pairs))
        found.append(best)
        open_pairs -= _pairs(best)
    return found


def _drawn(groups: list[list[str]], start: tuple[str, str], rng: random.Random) -> Choice:
    return tuple(next((o for o in start if o in group), None) or rng.choice(group) for group in groups)


def _pairs(choice: Choice) -> set[tuple[str, str]]:
    return set(itertools.combinations(choice, 2))


CHOICES = covering([options(group) for group in GROUPS], seed=0)


def require_together(runs: Runs, choice: Choice) -> None:
    """That the options work together. None of these is refused on the tiny model: what is, is so by its numbers."""
    words = [word for option in choice for word in (option, *MORE.get(option, []))]
    chosen = point(runs, *words)
    steps, stages, outcome = made(runs, chosen)
    assert outcome.quality["agreement_fraction"] >= 0.9
    assert outcome.quality["accuracy_fraction"] >= 0.75
    if not {"prune=none", "distill=none"} & set(choice):
        assert outcome.size["zeroed_fraction"] > 0.3
    assert steps.student.weights(stages)["parameters"] == outcome.size["parameters"]
