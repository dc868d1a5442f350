"""Which weights of a fit are judged and kept: those of its last step, or an average over its steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

EVERY_STEPS = 10  # between two readings of the weights: each costs as much as reading and writing all of them


class Average(Protocol):
    """What a fit asks of the weights that it ends with."""

    variables: Sequence[Any]  # of its own, kept with the model's when a fit is resumed

    def after_step(self, steps: int) -> None:
        """Called after each step; `steps` are done."""
        ...

    def in_place(self, steps: int, prepare: Callable[[], None]) -> Any:
        """A context in which the model has the weights to be judged; `prepare` makes them ready, masks for one."""
        ...


class LastWeights:
    """`average: 0`: the weights as the last step left them."""

    variables: Sequence[Any] = ()

    def after_step(self, steps: int) -> None:
        """Nothing is read."""

    @contextmanager
    def in_place(self, steps: int, prepare: Callable[[], None]) -> Iterator[None]:
        """They are there."""
        yield


class MovingAverage:
    """The mean of the weights over all steps, in which a step weighs `decay` times as much as the one after it.

    (1 - decay) * sum over t of decay^(T - t) * weights_t / (1 - decay^T), so the weights before the first step have no
    share (Kingma & Ba 2015, section 7.2, arXiv:1412.6980). That an average of the last steps is nearer to the minimum
    than each of them: Polyak & Juditsky 1992; Izmailov et al. 2018, arXiv:1803.05407. Of EVERY_STEPS steps the last one
    is read, and stands for all of them.
    """

    def __init__(self, weights: Sequence[Any], *, decay: float, every_steps: int = EVERY_STEPS) -> None:
        import tensorflow as tf

        self.weights, self.decay, self.every_steps = weights, decay, every_steps
        self.means = [tf.Variable(tf.zeros(weight.shape, weight.dtype), trainable=False) for weight in weights]
        self.read = tf.Variable(tf.zeros([], tf.int64), trainable=False)  # steps that are in the means
        self.variables: Sequence[Any] = [*self.means, self.read]
        self._move = tf.function(self._moved, autograph=False, input_signature=[tf.TensorSpec([], tf.float32)])

    def _moved(self, share) -> None:
        for mean, weight in zip(self.means, self.weights, strict=True):
            mean.assign_sub(share * (mean - weight))

    def after_step(self, steps: int) -> None:
        """Reads the weights if it is time to."""
        if steps % self.every_steps == 0:
            self._take(steps)

    def _take(self, steps: int) -> None:
        import tensorflow as tf

        if new := steps - int(self.read.numpy()):
            self._move(tf.constant((1 - self.decay**new) / (1 - self.decay**steps), tf.float32))
            self.read.assign(steps)

    @contextmanager
    def in_place(self, steps: int, prepare: Callable[[], None]) -> Iterator[None]:
        """Puts the average into the model, and afterwards the weights that the next step goes on from.

        Masks that were redrawn on the way leave fewer zeros in an average than in any of its parts: `prepare` lays the
        last ones on it.
        """
        self._take(steps)
        last = [weight.numpy() for weight in self.weights]
        self._put(self.means)
        prepare()
        yield
        self._put(last)

    def _put(self, values: Sequence[Any]) -> None:
        for weight, value in zip(self.weights, values, strict=True):
            weight.assign(value)


def average_of(weights: Sequence[Any], *, decay: float) -> Average:
    """What `average` in a recipe means: the decay of a MovingAverage, or 0 for the last weights."""
    return MovingAverage(weights, decay=decay) if decay else LastWeights()
