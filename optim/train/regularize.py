"""What a recipe adds to any loss: smoothed labels, and one answer whatever dropout leaves out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from optim.train.objective import Objective, View


def regularized(objective: Objective, *, classes: int, label_smoothing: float, r_drop: float) -> Objective:
    """The objective with what is not 0; with two zeros the objective itself."""
    if objective.after:
        later = regularized(objective.after, classes=classes, label_smoothing=label_smoothing, r_drop=r_drop)
        objective = replace(objective, after=later)
    if label_smoothing:
        objective = smoothed(objective, label_smoothing, classes)
    return r_dropped(objective, r_drop) if r_drop else objective


def smoothed(objective: Objective, share: float, classes: int) -> Objective:
    """Each label has 1 - share of a sentence, all classes together have `share`: what teachers say stays as it is.

    Szegedy et al. 2016, section 7, arXiv:1512.00567.
    """
    import tensorflow as tf

    def value(labels, student: View, teachers: Sequence[View]):
        whole = labels if len(labels.shape) == 2 else tf.one_hot(labels, classes)  # zeros for a sentence without one
        spread = tf.reduce_sum(whole, axis=1, keepdims=True) * share / classes
        return objective.value((1 - share) * whole + spread, student, teachers)

    return replace(objective, value=value)


def r_dropped(objective: Objective, weight: float) -> Objective:
    """The mean loss of two passes with different dropout, and `weight` times their symmetric divergence.

    (KL(p || q) + KL(q || p)) / 2, p and q being the soft-maxes of both passes (Liang et al. 2021, arXiv:2106.14448;
    with the mean of both losses, as in the authors' code: their equation 4 has the sum). Its batch is put below itself,
    so that one pass has both, since dropout draws for each row anew. Teachers that run in every step answer twice.
    """
    import tensorflow as tf

    def value(labels, student: View, teachers: Sequence[View]):
        distance = symmetric_divergence(*tf.split(student.logits, 2))
        return objective.value(labels, student, teachers) + weight * tf.tile(distance, [2])

    return replace(objective, value=value, passes=2 * objective.passes)


def symmetric_divergence(one: Any, other: Any):
    """(KL(p || q) + KL(q || p)) / 2 of the soft-maxes of two logits [batch, classes]: float [batch]."""
    import tensorflow as tf

    log_p, log_q = tf.nn.log_softmax(one), tf.nn.log_softmax(other)
    return tf.reduce_sum((tf.exp(log_p) - tf.exp(log_q)) * (log_p - log_q), axis=-1) / 2
