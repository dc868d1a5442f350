"""Every two options of the method groups meet in some point of the tiny model: it works, or is refused before a fit.

The second half of them.
"""

from __future__ import annotations

import pairs
import pytest
from conftest import Runs


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(tmp_path_factory.mktemp("pairs"))


@pytest.mark.slow
@pytest.mark.parametrize("choice", pairs.CHOICES[1::2], ids=" ".join)
def test_options_work_together_or_are_refused_before_a_fit(runs, choice):
    pairs.require_together_or_refused(runs, choice)
