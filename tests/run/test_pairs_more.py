"""Every two options of the method groups meet in some point of the tiny model: it works.

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
def test_options_work_together(runs, choice):
    pairs.require_together(runs, choice)
