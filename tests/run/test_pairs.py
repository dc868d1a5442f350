"""Every two options of the method groups meet in some point of the tiny model: it works.

The first half of them.
"""

from __future__ import annotations

import itertools

import pairs
import pytest
from conftest import Runs


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(tmp_path_factory.mktemp("pairs"))


def test_every_two_options_meet():
    wanted = {
        p for a, b in itertools.combinations(map(pairs.options, pairs.GROUPS), 2) for p in itertools.product(a, b)
    }
    assert wanted == {pair for choice in pairs.CHOICES for pair in pairs._pairs(choice)}


@pytest.mark.slow
@pytest.mark.parametrize("choice", pairs.CHOICES[::2], ids=" ".join)
def test_options_work_together(runs, choice):
    pairs.require_together(runs, choice)
