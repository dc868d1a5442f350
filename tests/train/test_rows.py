"""Which rows without a label are learnt from, and when a fit is judged."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_fit import RECIPE, SCHEDULE, fit_of, new_model, tokens_of

from optim.data.phrases import Parts
from optim.train.rows import stops, unlabelled_rows, with_copies


def test_what_was_made_from_a_held_out_sentence_is_left_out():
    """Rows 0 to 3 have labels, 1 and 3 are held out: rows 5, 6 and 8 were made from those."""
    parents = np.array([[0, -1], [1, -1], [0, 3], [2, 0], [3, 1], [-1, -1]])
    assert unlabelled_rows(parents, np.array([0, 2]), 10).tolist() == [4, 7, 9]
    assert unlabelled_rows(None, np.array([0, 2]), 4).tolist() == []


def test_whole_sentences_that_are_fitted_come_as_often_as_asked():
    """Rows 2, 5 and 7 are whole; 5 is held out and comes not at all."""
    parts = Parts(np.array([7, 2, 5]), np.array([7, 6, 2, 1, 5]), np.array([0, 2, 4, 5]))
    rows = np.array([0, 1, 2, 3, 6, 7])
    assert with_copies(rows, parts, 3).tolist() == [0, 1, 2, 3, 6, 7, 2, 2, 7, 7]
    assert with_copies(rows, parts, 1).tolist() == rows.tolist()
    assert with_copies(rows, None, 3).tolist() == rows.tolist()


def test_an_epoch_has_whole_sentences_as_often_as_asked_and_none_that_is_held_out(tmp_path):
    """Every sixth row is whole; of those ten a fifth is held out with what is part of it, here nothing else."""
    tokens, whole = tokens_of(60), np.arange(0, 60, 6)
    recipe = replace(RECIPE, whole_copies=3)
    fit = fit_of(new_model(), tokens, tmp_path, recipe=recipe, parts=Parts(whole, whole, np.arange(11)))
    drawn = Counter(np.concatenate(fit._batches(0)).tolist())
    assert len(fit.held) == 2
    assert drawn == {row: 3 if row in whole else 1 for row in range(60) if row not in fit.held}


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


def test_balanced_classes_weigh_the_same_with_the_copies_of_whole_sentences(tmp_path):
    """60 rows, every sixth whole and of class 1, all others of class 0. Two of the ten whole ones are held out: 50 of
    class 0, 8 of class 1; with three of each whole one 24. 74 / (2 * 50) and 74 / (2 * 24)."""
    tokens, whole = tokens_of(60), np.arange(0, 60, 6)
    tokens = replace(tokens, labels=np.isin(np.arange(60), whole).astype(np.int32))
    recipe, schedule = replace(RECIPE, whole_copies=3), replace(SCHEDULE, class_weights="balanced")
    parts = Parts(whole, whole, np.arange(11))
    fit = fit_of(new_model(), tokens, tmp_path, recipe=recipe, schedule=schedule, parts=parts)
    assert fit.weights == pytest.approx([74 / 100, 74 / 48])
