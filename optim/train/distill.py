"""Losses of a fit: what a student is told about each training sentence, one number for each."""

from __future__ import annotations

from dataclasses import dataclass

from optim.common.errors import require_fraction, require_positive


@dataclass(frozen=True, kw_only=True)
class HardLabels:
    """Cross-entropy against the labels alone; the teacher's logits are not looked at."""

    teacher: str
    needs_teacher: bool = False

    def __call__(self, labels, student, teacher):
        """labels: int [batch]; student, teacher: logits [batch, classes] -> float [batch]."""
        import tensorflow as tf

        return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=student)


@dataclass(frozen=True, kw_only=True)
class SoftTargets:
    """(1 - teacher_weight) * cross-entropy + teacher_weight * temperature² * KL(teacher || student).

    KL is between soft-maxes of logits / temperature, summed over classes; the loop averages over the batch.
    temperature² keeps the gradient's size (Hinton et al. 2015, section 2, arXiv:1503.02531).
    """

    temperature: float
    teacher_weight: float
    teacher: str
    needs_teacher: bool = True

    def __post_init__(self) -> None:
        require_positive("distill.temperature", self.temperature)
        require_fraction("distill.teacher_weight", self.teacher_weight, one=True)

    def __call__(self, labels, student, teacher):
        """labels: int [batch]; student, teacher: logits [batch, classes] -> float [batch]."""
        import tensorflow as tf

        hard = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=student)
        log_student = tf.nn.log_softmax(student / self.temperature)
        log_teacher = tf.nn.log_softmax(teacher / self.temperature)
        divergence = tf.reduce_sum(tf.exp(log_teacher) * (log_teacher - log_student), axis=-1)
        return (1 - self.teacher_weight) * hard + self.teacher_weight * self.temperature**2 * divergence


def hard_labels(*, teacher: str) -> HardLabels:
    """The loss of `distill=none`."""
    return HardLabels(teacher=teacher)


def soft_targets(*, temperature: float, teacher_weight: float, teacher: str) -> SoftTargets:
    """The loss of `distill=kd`."""
    return SoftTargets(temperature=temperature, teacher_weight=teacher_weight, teacher=teacher)
