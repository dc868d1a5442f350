"""Losses of a fit: what a student is told about each training sentence, one number for each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from optim.common.build import method
from optim.common.errors import UserError, require_count, require_fraction, require_positive, require_seed
from optim.data.augment import Augment
from optim.train.inner import Inner
from optim.train.objective import Objective, View, hard_loss

SAME = "same"  # the teacher that is the model itself, fine-tuned
HOTTEST = 100  # above it float32 rounds away much of what soft answers differ by
MOST_SEEDS = 100  # each is a fit


@dataclass(frozen=True, kw_only=True)
class HardLabels:
    """Cross-entropy against the labels alone; no teacher is looked at."""

    teachers: tuple[str, ...]
    teacher_seeds: tuple[int, ...]
    needs_logits: bool = False
    needs_models: bool = False

    def __call__(self, labels, student, teachers: Sequence[Any]):
        """labels: as `hard_loss` has them; student: logits [batch, classes] -> float [batch]."""
        return hard_loss(labels, student)

    def require_shapes(self, student: Inner, teachers: Sequence[Inner]) -> None:
        """Answers go together, whatever gave them."""

    def attach(self, student: Any, teachers: Sequence[Any]) -> Objective:
        """Nothing but the answers."""
        return on_logits(self)


@dataclass(frozen=True, kw_only=True)
class SoftTargets:
    """(1 - teacher_weight) * cross-entropy + teacher_weight * temperature² * KL(teachers || student).

    KL is between soft answers, soft-maxes of logits / temperature, and summed over classes; the loop averages over the
    batch. Several teachers answer with the mean of their soft answers. temperature² keeps the gradient's size (Hinton
    et al. 2015, section 2, arXiv:1503.02531).

    A sentence without a label has the second part alone, of the same weight: teacher_weight says how much the teachers
    count on every sentence, and a student learns from a labelled one what it would without the others.
    """

    temperature: float
    teacher_weight: float
    teachers: tuple[str, ...]
    teacher_seeds: tuple[int, ...]
    needs_logits: bool = True
    needs_models: bool = False

    def __post_init__(self) -> None:
        require_positive("distill.temperature", self.temperature)
        if self.temperature > HOTTEST:
            raise UserError(f"distill.temperature must be at most {HOTTEST}, got {self.temperature:g}. Usual: 1 to 10.")
        require_fraction("distill.teacher_weight", self.teacher_weight, one=True)

    def __call__(self, labels, student, teachers: Sequence[Any]):
        """labels: as `hard_loss` has them; student and each teacher: logits [batch, classes] -> float [batch]."""
        import tensorflow as tf

        hard = hard_loss(labels, student)
        log_student = tf.nn.log_softmax(student / self.temperature)
        log_teacher = self._log_mean(teachers)
        divergence = tf.reduce_sum(tf.exp(log_teacher) * (log_teacher - log_student), axis=-1)
        return (1 - self.teacher_weight) * hard + self.teacher_weight * self.temperature**2 * divergence

    def _log_mean(self, teachers: Sequence[Any]):
        """The logarithm of the teachers' mean soft answer: float [batch, classes]."""
        import tensorflow as tf

        each = [tf.nn.log_softmax(teacher / self.temperature) for teacher in teachers]
        return tf.reduce_logsumexp(tf.stack(each), axis=0) - math.log(len(each))

    def require_shapes(self, student: Inner, teachers: Sequence[Inner]) -> None:
        """Answers go together, whatever gave them."""

    def attach(self, student: Any, teachers: Sequence[Any]) -> Objective:
        """Nothing but the answers."""
        return on_logits(self)


def on_logits(loss) -> Objective:
    """The objective of a function (labels, student's logits, teachers' logits) -> float [batch]."""

    def value(labels, student: View, teachers: Sequence[View]):
        return loss(labels, student.logits, [teacher.logits for teacher in teachers])

    return Objective(value=value)


@dataclass(frozen=True, kw_only=True)
class NoAugment:
    """`distill.augment` where there is no teacher."""

    copies: int


@method("distill", "hard_labels")
def hard_labels(*, teacher: str | Sequence[str], teacher_seed: int, augment: NoAugment,
                unlabelled: str | None) -> HardLabels:  # fmt: skip
    """The loss of `distill=none`."""
    if augment.copies or unlabelled is not None:
        given = f"augment.copies={augment.copies}" if augment.copies else f"unlabelled={unlabelled}"
        raise UserError(f"distill.{given}: nobody answers these sentences under distill=none; choose distill=kd.")
    return HardLabels(teachers=listed(teacher), teacher_seeds=seeds_from(teacher_seed, 1))


@method("distill", "soft_targets", version=2)
def soft_targets(*, temperature: float, teacher_weight: float, teacher: str | Sequence[str], seeds: int,
                 teacher_seed: int, augment: Augment, unlabelled: str | None) -> SoftTargets:  # fmt: skip
    """The loss of `distill=kd`. `augment` and `unlabelled` name sentences beside those of train (data/transfer.py)."""
    require_weight(teacher_weight, augment, unlabelled)
    return SoftTargets(temperature=temperature, teacher_weight=teacher_weight, teachers=listed(teacher),
                       teacher_seeds=seeds_from(teacher_seed, seeds))  # fmt: skip


def require_weight(teacher_weight: float, augment: Augment, unlabelled: str | None) -> None:
    """Raises UserError for sentences that only teachers answer where their answers count nothing."""
    if (augment.copies or unlabelled is not None) and teacher_weight == 0:
        raise UserError("distill.teacher_weight must be above 0 with distill.augment or distill.unlabelled, got 0.")


def listed(teacher: str | Sequence[str]) -> tuple[str, ...]:
    """The names of the teachers. Raises UserError for none, or one name twice."""
    names = (teacher,) if isinstance(teacher, str) else tuple(teacher)
    if not names or len(set(names)) < len(names):
        raise UserError(f"distill.teacher must name one model, or several different ones, got {list(names)}.")
    return names


def seeds_from(first: int, count: int) -> tuple[int, ...]:
    """first, first + 1, ...: the seeds of the fits of each teacher."""
    require_count("distill.seeds", count)
    if count > MOST_SEEDS:
        raise UserError(f"distill.seeds must be at most {MOST_SEEDS} fits of each teacher, got {count}.")
    require_seed("distill.teacher_seed", first, count=count)
    return tuple(range(first, first + count))
