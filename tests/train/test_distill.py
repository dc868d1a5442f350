"""The losses, on numbers small enough to work out by hand."""

# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportUnusedExpression=false
from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from small_fit import RECIPE, SCHEDULE, fit_of, new_model

from optim.common.errors import UserError
from optim.data.tokens import Tokens
from optim.train.answers import halved, mean_soft, require_tuned
from optim.train.distill import HardLabels, SoftTargets
from optim.train.rows import class_weights
from optim.train.scores import cross_entropy, logits_of


def test_soft_targets_by_hand():
    """One sentence, logits (0, 0) against a teacher of (2 ln 3, 0), T = 2, label 0.

    Teacher at T: soft-max(ln 3, 0) = (3/4, 1/4); student: (1/2, 1/2).
    KL = 3/4 ln(3/2) + 1/4 ln(1/2) = 0.1308; times T² = 0.5233. Cross-entropy = ln 2.
    """
    loss = SoftTargets(temperature=2.0, teacher_weight=0.9, teachers=("same",), teacher_seeds=(0,))
    found = loss(np.array([0]), np.zeros((1, 2), np.float32), [np.array([[2 * math.log(3), 0]], np.float32)]).numpy()
    divergence = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert found == pytest.approx([0.1 * math.log(2) + 0.9 * 4 * divergence], abs=1e-6)


def test_soft_targets_are_one_number_for_each_sentence_summed_over_classes():
    loss = SoftTargets(temperature=1.0, teacher_weight=1.0, teachers=("same",), teacher_seeds=(0,))
    teacher = np.log(np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]], np.float32))
    student = np.log(np.array([[0.5, 0.25, 0.25], [0.2, 0.2, 0.6]], np.float32))
    by_hand = [sum(p * math.log(p / q) for p, q in zip(*rows, strict=True))
               for rows in ((np.exp(teacher[i]), np.exp(student[i])) for i in range(2))]  # fmt: skip
    assert loss(np.array([0, 2]), student, [teacher]).numpy() == pytest.approx(by_hand, abs=1e-6)


def test_several_teachers_answer_with_the_mean_of_their_soft_answers_at_the_temperature():
    """T = 2. Logits (2 ln 3, 0) and (0, 0): soft answers (3/4, 1/4) and (1/2, 1/2), on average (5/8, 3/8).

    Against a student of (1/2, 1/2): KL = 5/8 ln(5/4) + 3/8 ln(3/4) = 0.0316, times T² = 0.1263. The mean of the
    logits, (ln 3, 0), would be (0.634, 0.366) at T = 2; the mean of the two KLs is 0.0654.
    """
    loss = SoftTargets(temperature=2.0, teacher_weight=1.0, teachers=("a", "b"), teacher_seeds=(0,))
    teachers = [np.array([[2 * math.log(3), 0]], np.float32), np.zeros((1, 2), np.float32)]
    divergence = 5 / 8 * math.log(5 / 4) + 3 / 8 * math.log(3 / 4)
    found = loss(np.array([0]), np.zeros((1, 2), np.float32), teachers).numpy()
    assert found == pytest.approx([4 * divergence], abs=1e-6)
    assert mean_soft(teachers, 2.0) == pytest.approx(np.array([[5 / 8, 3 / 8]]))


def test_stored_logits_are_within_half_precision_of_themselves():
    rng = np.random.default_rng(0)
    logits = (rng.normal(size=(5000, 2)) * 10.0 ** rng.uniform(-4, 4, (5000, 1))).astype(np.float32)
    stored = halved(logits)
    assert stored.dtype == np.float16
    error, normal = np.abs(stored.astype(np.float64) - logits), np.abs(logits) >= 2**-14
    assert (error[normal] <= 2**-11 * np.abs(logits[normal])).all()
    assert error[normal].max() > 0
    assert error[~normal].max() <= 2**-25


@pytest.mark.parametrize("value", [1e6, math.inf, math.nan])
def test_logits_that_half_precision_cannot_hold_are_refused(value):
    with pytest.raises(UserError, match=r"Lower fit\.teacher\.learning_rate"):
        halved(np.array([[0.0, value]], np.float32))


def test_a_student_that_copies_its_teacher_has_no_soft_loss():
    loss = SoftTargets(temperature=4.0, teacher_weight=1.0, teachers=("same",), teacher_seeds=(0,))
    logits = np.array([[1.0, -2.0], [0.3, 0.1]], np.float32)
    assert loss(np.array([0, 1]), logits, [logits]).numpy() == pytest.approx([0, 0], abs=1e-6)


def test_the_size_of_the_gradient_hardly_depends_on_the_temperature():
    """What temperature² is for (Hinton et al. 2015): small logits give the same gradient at any temperature."""
    import tensorflow as tf

    def size(temperature: float) -> float:
        student = tf.constant([[0.01, -0.01]])
        with tf.GradientTape() as tape:
            tape.watch(student)
            loss = SoftTargets(temperature=temperature, teacher_weight=1.0, teachers=("same",), teacher_seeds=(0,))
            value = loss(np.array([0]), student, [tf.constant([[0.05, -0.03]])])
        return float(tf.norm(tape.gradient(value, student)))

    assert size(8.0) == pytest.approx(size(1.0), rel=0.01)


def test_hard_labels_do_not_look_at_the_teacher():
    student = np.array([[math.log(3), 0.0]], np.float32)  # soft-max: 3/4, 1/4
    for teacher in (0, 9):
        value = HardLabels(teachers=("same",), teacher_seeds=(0,))(
            np.array([1]), student, [np.full((1, 2), teacher, np.float32)]
        )
        assert value.numpy() == pytest.approx([math.log(4)], abs=1e-6)


def test_balanced_classes_weigh_the_same_and_a_sentence_one_on_average():
    labels = np.array([0, 0, 0, 1])
    assert class_weights(labels, 2, "balanced") == pytest.approx([4 / 6, 4 / 2])
    assert class_weights(labels, 2, "balanced")[labels].mean() == pytest.approx(1)
    assert class_weights(labels, 2, "none").tolist() == [1, 1]
    assert class_weights(labels, 3, "balanced")[labels].mean() == pytest.approx(1), "a class without sentences"


def test_balanced_classes_move_the_answer_to_the_rare_one(tmp_path):
    """The same word with both labels, three to one: unweighted, a classifier says the frequent one, 3/4 sure."""
    tokens = Tokens(np.full(80, 1, np.int32), np.arange(81), (np.arange(80) % 4 == 0).astype(np.int32))
    shares = {}
    for how in ("none", "balanced"):
        schedule = dataclasses.replace(SCHEDULE, class_weights=how)
        model = new_model()
        fit_of(model, tokens, tmp_path, recipe=dataclasses.replace(RECIPE, epochs=6), schedule=schedule).run()
        (tmp_path / "half.npz").unlink()
        logits = logits_of(model, tokens)[0]
        shares[how] = 1 / (1 + math.exp(logits[0] - logits[1]))
    assert shares["none"] == pytest.approx(0.25, abs=0.1)
    assert shares["balanced"] == pytest.approx(0.5, abs=0.1)


def test_cross_entropy_by_hand():
    logits = np.array([[math.log(3), 0.0], [1000.0, 1000.0]])
    assert cross_entropy(np.array([0, 1]), logits) == pytest.approx((math.log(4 / 3) + math.log(2)) / 2)


def test_a_slice_of_one_label_refuses_no_teacher():
    """One wrong of 200: with a label more in the slice, that is less than the commonest label has."""
    labels, logits = np.zeros(200, np.int32), np.tile(np.array([1.0, 0.0], np.float32), (200, 1))
    logits[0] = 0.0, 1.0
    require_tuned("mine", labels, logits, np.ones(2, np.float32))
    labels[1] = 1
    with pytest.raises(UserError, match=r"mine has 0\.9900 .* has 0\.9950"):
        require_tuned("mine", labels, logits, np.ones(2, np.float32))
