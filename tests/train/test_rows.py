"""Which rows without a label are learnt from, and when a fit is judged."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optim.train.rows import stops, unlabelled_rows


def test_what_was_made_from_a_held_out_sentence_is_left_out():
    """Rows 0 to 3 have labels, 1 and 3 are held out: rows 5, 6 and 8 were made from those."""
    parents = np.array([[0, -1], [1, -1], [0, 3], [2, 0], [3, 1], [-1, -1]])
    assert unlabelled_rows(parents, np.array([0, 2]), 10).tolist() == [4, 7, 9]
    assert unlabelled_rows(None, np.array([0, 2]), 4).tolist() == []


@pytest.mark.parametrize(
    ("total", "epoch", "labelled", "expected"),
    [
        (20, 10, 10, [10, 20]),  # nothing but labelled sentences: once an epoch
        (60, 30, 10, [10, 20, 30, 40, 50, 60]),  # three times as many rows: three times
        (28, 14, 10, [14, 28]),  # less than half again as many: once
        (50, 25, 10, [12, 25, 37, 50]),
        (25, 10, 10, [10, 20, 25]),  # a number of steps that ends within an epoch
        (4, 10, 10, [4]),
        (35, 30, 10, [10, 20, 30, 35]),
    ],
)
def test_a_fit_is_judged_about_as_often_as_without_the_other_sentences(total, epoch, labelled, expected):
    assert stops(total, epoch, labelled) == expected


@given(st.integers(1, 500), st.integers(1, 100), st.integers(1, 100))
def test_a_fit_is_judged_at_its_end_and_never_twice_at_one_step(total, epoch, labelled):
    found = stops(total, max(epoch, labelled), labelled)
    assert found[-1] == total
    assert found == sorted(set(found))
    assert found[0] > 0
