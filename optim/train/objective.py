"""What a loss asks for and gives: the answers, and where it wants them the inner states, of student and teachers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from optim.data.tokens import UNLABELLED
from optim.train.inner import Inner


@dataclass(frozen=True)
class View:
    """What one model says of a batch."""

    logits: Any  # float [batch, classes]
    layers: Mapping[str, Any]  # name -> output of the layers that were asked for: float [tokens, width]
    mask: Any  # int [batch, length]: which tokens are real; tf.where(mask) is the order of `tokens`
    aligned: Any = 1.0  # float [batch], of a teacher: 0 where its tokenizer cuts the sentence into other pieces


def hard_loss(labels, logits):
    """Cross-entropy against the labels: float [batch]; 0 for a sentence that has none. logits: [batch, classes].

    labels: int [batch], UNLABELLED for none; or float [batch, classes], what each class has of a label, 0 for none.
    """
    import tensorflow as tf

    if len(labels.shape) == 2:
        return tf.nn.softmax_cross_entropy_with_logits(labels=labels, logits=logits)
    value = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=tf.maximum(labels, 0), logits=logits)
    return tf.where(tf.not_equal(labels, UNLABELLED), value, tf.zeros_like(value))


@dataclass(frozen=True, kw_only=True)
class Objective:
    """A loss at work on one student and its teachers."""

    # (labels as `hard_loss` has them, student, teachers) -> float [batch]
    value: Callable[[Any, View, Sequence[View]], Any]
    student_layers: tuple[str, ...] = ()  # whose outputs it wants of the student
    teacher_layers: tuple[tuple[str, ...], ...] = ()  # and of each teacher
    variables: tuple[Any, ...] = ()  # of its own, trained with the student's and kept with them when a fit is resumed
    passes: int = 1  # of each batch in a step, one below the other in every view, each with dropout of its own
    until: float = 1.0  # the share of a fit's steps that learn this, (0, 1]
    after: Objective | None = None  # what the others learn, where there are any; no teacher runs in those


class Loss(Protocol):
    """What `conf/distill` names."""

    @property
    def teachers(self) -> tuple[str, ...]:
        """`same`, the model itself fine-tuned, or names of conf/model; the first is the one results compare with."""
        ...

    @property
    def teacher_seeds(self) -> tuple[int, ...]:
        """The seeds of the fits of each teacher; the first is that of the one results compare with."""
        ...

    @property
    def needs_logits(self) -> bool:
        """Whether it wants the teachers' answers, which are computed once and stored."""
        ...

    @property
    def needs_models(self) -> bool:
        """Whether teachers must run beside the steps: all of them, or the first where `needs_logits` too."""
        ...

    def require_shapes(self, student: Inner, teachers: Sequence[Inner]) -> None:
        """Raises UserError for models that it can't compare; asked before any is trained, if it needs them."""
        ...

    def attach(self, student: Any, teachers: Sequence[Any]) -> Objective:
        """The loss on Keras models; `teachers` is empty unless it needs them. It may raise UserError."""
        ...


def watching(model: Any, names: Sequence[str], *, answers: bool = True) -> Callable[..., View]:
    """A function (ids, mask, training) -> View of `model` with the outputs of the layers `names`, wrapped or not.

    Without `answers` it computes no logits, and so nothing beyond the last of these layers.
    """
    import tf_keras as keras

    from optim.train.wrap import layer_named

    # A layer that wrappers left alone is shared with the model they wrapped: its last use is that in `model`.
    outputs = {name: layer_named(model, name).get_output_at(-1) for name in names}
    last = {"logits": model.output} if answers else {}
    inner = keras.Model(model.input, {**outputs, **last})

    def view(ids, mask, *, training: bool) -> View:
        said = inner({"input_ids": ids, "attention_mask": mask}, training=training)
        return View(said.pop("logits", None), said, mask)

    return view
