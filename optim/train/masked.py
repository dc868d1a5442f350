"""Masks that are drawn from scores of the weights, across all kernels or in each: what TFMOT's wrapper does not offer.

A kernel is multiplied by its mask in every forward pass, and what the mask hides is kept, so that it can come back
(Zhu & Gupta 2017, section 3: hidden weights get no gradient). The weights of the model hold zeros whenever they are
scored or saved, and what was hidden goes on from where it was.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras as keras


class Masked(keras.layers.Wrapper):
    """A Dense under a mask; with scores of its own where those are learnt.

    The kernel used is W * M(S). Its gradient reaches W through the mask, and S as if M were the identity: dL/dS is
    dL/d(W M) * W, also where M is 0 (Sanh et al. 2020, section 3, arXiv:2005.07683; a straight-through estimator,
    Bengio et al. 2013, arXiv:1308.3432).
    """

    def __init__(self, layer, masks: Masks) -> None:
        # In float32 whatever the policy, so that scores and weights are compared as they are; what it wraps multiplies
        # in its own precision, and the inputs are left as they come.
        super().__init__(layer, name=f"masked_{layer.name}", dtype="float32", autocast=False)
        self.masks = masks

    def build(self, input_shape) -> None:
        """The first one that is built keeps the time for all of them."""
        super().build(input_shape)
        fixed = partial(self.add_weight, trainable=False)
        shape = self.layer.kernel.shape
        self.mask = fixed(name="mask", shape=shape, initializer="ones")
        self.hidden = fixed(name="hidden", shape=shape, initializer="zeros")
        # Adam's steps have one size for all scores, so their rate changes no order, and the masks see the order alone.
        self.scores = self.add_weight(name="scores", shape=shape, initializer="zeros") if self.masks.learnt else None
        if not self.masks.layers:
            self.steps = fixed(name="steps", shape=(), dtype=tf.int64, initializer="zeros")
            self.covered = fixed(name="covered", shape=(), dtype=tf.bool, initializer="zeros")
        self.masks.layers.append(self)

    def call(self, inputs, training=None):
        """As the Dense has it, under the mask of this step."""
        if training and self is self.masks.layers[0]:
            self.masks.before_step()
        mask = self.mask
        if self.scores is not None:  # the difference is 0: it is there for its gradient
            mask = mask + (self.scores - tf.stop_gradient(self.scores))
        return self.layer.with_kernel(inputs, self.layer.kernel * mask)


class Masks:
    """The masks of one model at work.

    schedule: TFMOT's, of steps counted from 1. learnt: whether the scores are, or the weights' magnitudes are the
    scores. across: whether one threshold holds for all kernels together.
    """

    def __init__(
        self, model, names: Collection[str], schedule, total_steps: int, *, learnt: bool, across: bool
    ) -> None:
        self.schedule, self.total_steps, self.learnt, self.across = schedule, total_steps, learnt, across
        self.layers: list[Masked] = []

        def wrap(layer):
            return Masked(layer, self) if layer.name in names else layer

        self.model: Any = keras.models.clone_model(model, clone_function=wrap)

    def before_step(self) -> None:
        """Inside a traced step, before any kernel is read: brings back what was covered, and redraws if it is time."""
        clock = self.layers[0]
        steps = clock.steps.assign_add(1)
        tf.cond(clock.covered, self._uncover, lambda: False)
        due, sparsity = self.schedule(steps)
        tf.cond(due, lambda: self._draw(sparsity), lambda: False)

    def _draw(self, sparsity) -> bool:
        scores = [layer.scores if self.learnt else tf.abs(layer.layer.kernel) for layer in self.layers]
        masks = tf.numpy_function(
            lambda share, *given: drawn(share, given, across=self.across),
            [sparsity, *scores],
            [tf.float32] * len(scores),
        )
        for layer, mask in zip(self.layers, masks, strict=True):
            layer.mask.assign(tf.ensure_shape(mask, layer.mask.shape))
        return True

    def _uncover(self) -> bool:
        for layer in self.layers:
            layer.layer.kernel.assign_add(layer.hidden)
        self.layers[0].covered.assign(False)
        return True

    def after_epoch(self) -> None:
        """Lays the masks on the weights; what they hide is put aside, once, until the next step."""
        covered = self.layers[0].covered
        if not covered.numpy():
            for layer in self.layers:
                layer.hidden.assign(layer.layer.kernel * (1 - layer.mask))
            covered.assign(True)
        for layer in self.layers:  # also over an average of the weights, put in place of them for a while
            layer.layer.kernel.assign(layer.layer.kernel * layer.mask)

    def settled(self, progress: float) -> bool:
        """Whether the last mask is drawn."""
        return progress * self.total_steps >= max(self.schedule.begin_step, self.schedule.end_step)

    def ranges(self) -> dict[str, np.ndarray]:
        """A mask measures nothing."""
        return {}


def drawn(sparsity: float, scores: Collection[np.ndarray], *, across: bool) -> list[np.ndarray]:
    """float32 masks of the shapes of `scores`: 1 for the highest, 0 for `sparsity` of them, to the nearest weight.

    Of each kernel, or `across` all of them together. Which of equal scores stay is the same every time.
    """
    if not across:
        return [_highest(one.ravel(), sparsity).reshape(one.shape) for one in scores]
    flat = _highest(np.concatenate([one.ravel() for one in scores]), sparsity)
    ends = np.cumsum([one.size for one in scores])[:-1]
    return [mask.reshape(one.shape) for mask, one in zip(np.split(flat, ends), scores, strict=True)]


def _highest(scores: np.ndarray, sparsity: float) -> np.ndarray:
    """float32 [n]; partitioned: 0.2 s for the 10.8 M weights of MiniLM, a quarter of what sorting takes."""
    mask = np.ones(scores.size, np.float32)
    if away := min(round(scores.size * float(sparsity)), scores.size - 1):
        mask[np.argpartition(scores, away - 1)[:away]] = 0
    return mask
