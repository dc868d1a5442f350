"""AdamW for encoders on a CPU: updates in place, and only the embedding rows that a batch has touched."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import tensorflow as tf
import tf_keras as keras

LAYER = re.compile(r"layer(\d+)_")  # the names that `encoder/graph.py` gives to what is in a layer
EMBEDDINGS = ("word_", "position_", "embedding", "relative_bias")  # and to what is below the first one


class LazyAdamW(keras.optimizers.legacy.Adam):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019, arXiv:1711.05101), lazy for sparse gradients.

    Half of a small encoder's parameters are word embeddings, of which a batch touches one in a hundred. The stock
    optimizers decay all their moments in every step, in buffers that are allocated anew. Here the moments of
    untouched rows stay as they are, and a dense update is the fused in-place kernel of the legacy Adam.
    Kernels decay by learning_rate * weight_decay in each step; biases, norms and embeddings do not.
    scales: `ref()` of a variable -> the factor of its learning rate; 1 for those that are not in it.
    """

    def __init__(self, *, learning_rate, weight_decay: float, scales: Mapping[Any, float]):
        super().__init__(learning_rate=learning_rate, beta_1=0.9, beta_2=0.999, epsilon=1e-8, name="LazyAdamW")
        self.weight_decay, self.scales = weight_decay, scales

    def _coefficients(self, var, apply_state) -> dict[str, tf.Tensor]:
        """What the step has computed once for all variables, with this one's share of the learning rate."""
        key = (var.device, var.dtype.base_dtype)
        c = (apply_state or {}).get(key) or self._fallback_apply_state(*key)
        scale = self.scales.get(var.ref(), 1.0)
        return c if scale == 1.0 else {**c, "lr": scale * c["lr"], "lr_t": scale * c["lr_t"]}

    def _resource_apply_dense(self, grad, var, apply_state=None):
        c, updates = self._coefficients(var, apply_state), []
        if self.weight_decay and "kernel" in var.name:
            updates.append(var.assign_sub(c["lr_t"] * self.weight_decay * var, use_locking=self._use_locking))
        with tf.control_dependencies(updates):
            return super()._resource_apply_dense(grad, var, {(var.device, var.dtype.base_dtype): c})

    def _resource_apply_sparse(self, grad, var, indices, apply_state=None):
        """grad: [rows, width] for the rows `indices`, which are unique (the base class has summed repeats)."""
        c = self._coefficients(var, apply_state)
        m, v = self.get_slot(var, "m"), self.get_slot(var, "v")
        first = tf.gather(m, indices) * c["beta_1_t"] + grad * c["one_minus_beta_1_t"]
        second = tf.gather(v, indices) * c["beta_2_t"] + tf.square(grad) * c["one_minus_beta_2_t"]
        step = c["lr"] * first / (tf.sqrt(second) + c["epsilon"])
        return tf.group(
            m.scatter_update(tf.IndexedSlices(first, indices)),
            v.scatter_update(tf.IndexedSlices(second, indices)),
            var.scatter_sub(tf.IndexedSlices(step, indices)),
        )


def layer_scales(model, decay: float) -> dict[Any, float]:
    """`ref()` of a weight -> decay^(depth - l), the factor of its learning rate: the nearer to the words, the smaller.

    l is 0 for the embeddings and for MPNet's bias by distance, which all layers share, 1 for the first layer, and so
    on, and the depth for pooler and classifier: what a checkpoint knows of words should move least, what it has no
    weights for moves at the full rate (Howard & Ruder 2018, section 3.2, arXiv:1801.06146; Clark et al. 2020,
    appendix B, arXiv:2003.10555).
    """
    inner = {layer.name: found for layer in model.layers if (found := LAYER.match(layer.name))}
    levels = {name: int(found[1]) + 1 for name, found in inner.items()}
    depth = max(levels.values(), default=0) + 1
    levels |= {layer.name: 0 for layer in model.layers if layer.name.startswith(EMBEDDINGS)}
    return {
        weight.ref(): decay ** (depth - levels.get(layer.name, depth))
        for layer in model.layers
        for weight in layer.trainable_weights
    }


def optimizer_for(variables, *, rate: float, weight_decay: float, scales: Mapping[Any, float]) -> LazyAdamW:
    """The optimizer with the moments of `variables` in place; `scales` as LazyAdamW has them.

    A step that makes variables is traced twice, ten seconds for a pruned MiniLM. Keras has no public way to make them
    before: `_create_all_weights` is private to tf_keras 2.21, and where it is gone the first step makes them.
    """
    made = LazyAdamW(learning_rate=rate, weight_decay=weight_decay, scales=scales)
    if create := getattr(made, "_create_all_weights", None):
        create(variables)
    return made
