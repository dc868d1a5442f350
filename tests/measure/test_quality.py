"""Scores against figures worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from optim.common.errors import UserError
from optim.measure import quality


def logits_for(predictions, classes=2):
    """float32 logits whose largest is the prediction."""
    return np.eye(classes, dtype=np.float32)[np.array(predictions)] * 3 - 1


def test_wilson_of_784_in_872():
    # p = 784/872 = 0.8990826, z = 1.9599640, z² = 3.8414588, z²/n = 0.0044053
    # centre = (0.8990826 + 0.0022027) / 1.0044053 = 0.8973322
    # half = 1.9599640 / 1.0044053 * sqrt(0.8990826 * 0.1009174 / 872 + 0.0044053 / (4 * 872))
    #      = 1.9513677 * sqrt(0.000104052 + 0.000001263) = 1.9513677 * 0.01026231 = 0.0200255
    low, high = quality.wilson(784, 872)
    assert low == pytest.approx(0.8773067, abs=2e-6)
    assert high == pytest.approx(0.9173577, abs=2e-6)


def test_wilson_at_the_edges():
    # All of 10: centre - half = (1 + z²/2n - z²/2n) / (1 + z²/n) = 1 / 1.38414588
    assert quality.wilson(10, 10) == (pytest.approx(1 / 1.38414588), pytest.approx(1.0))
    assert quality.wilson(0, 10) == (pytest.approx(0, abs=1e-12), pytest.approx(1 - 1 / 1.38414588))
    assert quality.wilson(0, 10)[0] >= 0
    assert quality.wilson(10, 10)[1] <= 1


def test_mcnemar_by_hand():
    """Six sentences that only the second has right, none the other way: p = 2 / 2^6."""
    first, second = np.ones(20, bool), np.ones(20, bool)
    first[:6] = False
    assert quality.mcnemar(first, second) == pytest.approx(2 / 64)
    assert quality.mcnemar(first, first) == 1.0
    second[6] = False  # one the other way: b = 1, c = 6; p = 2 (C(7,0) + C(7,1)) / 2^7
    assert quality.mcnemar(first, second) == pytest.approx(2 * 8 / 128)


def test_matthews_of_two_classes():
    # TP 6, TN 3, FP 1, FN 2: (6 * 3 - 1 * 2) / sqrt(7 * 8 * 4 * 5) = 16 / sqrt(1120)
    assert quality.matthews(np.array([[3, 1], [2, 6]])) == pytest.approx(16 / math.sqrt(1120))


def test_matthews_of_three_classes():
    # 10 of 15 right; labels 5, 5, 5; predictions 5, 6, 4. Gorodkin:
    # (10 * 15 - (5*5 + 6*5 + 4*5)) / sqrt((225 - (25 + 36 + 16)) * (225 - 75)) = 75 / sqrt(148 * 150)
    assert quality.matthews(np.array([[4, 1, 0], [1, 3, 1], [0, 2, 3]])) == pytest.approx(75 / math.sqrt(22200))


@pytest.mark.parametrize("table", [[[7, 0], [3, 0]], [[0, 0], [4, 6]], [[5, 0], [0, 0]]])
def test_matthews_is_zero_where_undefined(table):
    assert quality.matthews(np.array(table)) == 0


def test_matthews_extremes():
    assert quality.matthews(np.array([[4, 0], [0, 6]])) == 1
    assert quality.matthews(np.array([[0, 4], [6, 0]])) == -1


def test_macro_f1_by_hand():
    # F1 = 2 TP / (2 TP + FP + FN). Class 0: 6 / (6 + 2 + 1) = 2/3, class 1: 12 / (12 + 1 + 2) = 4/5
    assert quality.macro_f1(np.array([[3, 1], [2, 6]])) == pytest.approx((2 / 3 + 4 / 5) / 2)


def test_macro_f1_leaves_out_classes_without_examples():
    # Class 2 has no examples but takes one of class 0: class 0 is 2*3 / (3 + 4) = 6/7, class 1 is 1.
    assert quality.macro_f1(np.array([[3, 0, 1], [0, 2, 0], [0, 0, 0]])) == pytest.approx((6 / 7 + 1) / 2)


def test_macro_f1_counts_zero_for_a_class_never_hit():
    # Class 0: 2*4 / (6 + 4) = 0.8; class 1 has two examples and no hit.
    assert quality.macro_f1(np.array([[4, 0], [2, 0]])) == pytest.approx(0.4)


def test_confusion_has_labels_in_rows():
    table = quality.confusion(np.array([0, 0, 1, 2]), np.array([0, 2, 1, 0]), 3)
    assert table.tolist() == [[1, 0, 1], [0, 1, 0], [1, 0, 0]]


def test_scores_of_784_in_872():
    # 428 negative, 444 positive as in SST-2's dev; 40 negatives and 48 positives wrong.
    labels = np.array([0] * 428 + [1] * 444, np.int32)
    predictions = [0] * 388 + [1] * 40 + [1] * 396 + [0] * 48
    found = quality.scores(logits_for(predictions), labels)
    assert list(found) == ["accuracy_fraction", "examples", "ci95_low", "ci95_high", "mcc", "macro_f1"]
    assert found["accuracy_fraction"] == 784 / 872
    assert found["examples"] == 872
    assert (found["ci95_low"], found["ci95_high"]) == quality.wilson(784, 872)
    # (388 * 396 - 40 * 48) / sqrt(428 * 444 * 436 * 436)
    assert found["mcc"] == pytest.approx((388 * 396 - 40 * 48) / math.sqrt(428 * 444 * 436 * 436))
    assert found["macro_f1"] == pytest.approx((776 / (436 + 428) + 792 / (436 + 444)) / 2)


def test_scores_are_plain_numbers_for_json():
    found = quality.scores(logits_for([0, 1, 1]), np.array([0, 1, 0], np.int32))
    assert {type(value) for value in found.values()} == {float, int}


def test_agreement_counts_equal_predictions():
    assert quality.agreement(logits_for([0, 1, 1, 0]), 5 * logits_for([0, 1, 0, 0])) == 0.75


def test_unfit_input_is_refused():
    with pytest.raises(UserError, match=r"Nothing to score: 0 labels"):
        quality.scores(np.zeros((0, 2), np.float32), np.zeros(0, np.int32))
    with pytest.raises(UserError, match=r"3 labels for 2 predictions"):
        quality.scores(logits_for([0, 1]), np.array([0, 1, 1]))
    with pytest.raises(UserError, match=r"from 0 to 2, but the model knows 2 classes"):
        quality.scores(logits_for([0, 1]), np.array([0, 2]))
    with pytest.raises(UserError, match=r"one shape"):
        quality.agreement(logits_for([0, 1]), logits_for([0, 1], classes=3))
