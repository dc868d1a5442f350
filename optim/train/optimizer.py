"""AdamW for encoders on a CPU: updates in place, and only the embedding rows that a batch has touched."""

from __future__ import annotations

import tensorflow as tf
import tf_keras as keras


class LazyAdamW(keras.optimizers.legacy.Adam):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019, arXiv:1711.05101), lazy for sparse gradients.

    Half of a small encoder's parameters are word embeddings, of which a batch touches one in a hundred. The stock
    optimizers decay all their moments in every step, in buffers that are allocated anew. Here the moments of
    untouched rows stay as they are, and a dense update is the fused in-place kernel of the legacy Adam.
    Kernels decay by learning_rate * weight_decay in each step; biases, norms and embeddings do not.
    """

    def __init__(self, *, learning_rate, weight_decay: float, name: str = "LazyAdamW"):
        super().__init__(learning_rate=learning_rate, beta_1=0.9, beta_2=0.999, epsilon=1e-8, name=name)
        self.weight_decay = weight_decay

    def _resource_apply_dense(self, grad, var, apply_state=None):
        updates = []
        if self.weight_decay and "kernel" in var.name:
            rate: tf.Tensor = self._decayed_lr(var.dtype.base_dtype)  # type: ignore[assignment]
            updates.append(var.assign_sub(rate * self.weight_decay * var, use_locking=self._use_locking))
        with tf.control_dependencies(updates):
            return super()._resource_apply_dense(grad, var, apply_state)

    def _resource_apply_sparse(self, grad, var, indices, apply_state=None):
        """grad: [rows, width] for the rows `indices`, which are unique (the base class has summed repeats)."""
        c = ((apply_state or {}).get((var.device, var.dtype.base_dtype))) or self._fallback_apply_state(
            var.device, var.dtype.base_dtype
        )
        m, v = self.get_slot(var, "m"), self.get_slot(var, "v")
        first = tf.gather(m, indices) * c["beta_1_t"] + grad * c["one_minus_beta_1_t"]
        second = tf.gather(v, indices) * c["beta_2_t"] + tf.square(grad) * c["one_minus_beta_2_t"]
        step = c["lr"] * first / (tf.sqrt(second) + c["epsilon"])
        return tf.group(
            m.scatter_update(tf.IndexedSlices(first, indices)),
            v.scatter_update(tf.IndexedSlices(second, indices)),
            var.scatter_sub(tf.IndexedSlices(step, indices)),
        )


def optimizer_for(variables, *, rate: float, weight_decay: float) -> LazyAdamW:
    """The optimizer with the moments of `variables` in place.

    A step that makes variables is traced twice, ten seconds for a pruned MiniLM. Keras has no public way to make them
    before: `_create_all_weights` is private to tf_keras 2.21, and where it is gone the first step makes them.
    """
    made = LazyAdamW(learning_rate=rate, weight_decay=weight_decay)
    if create := getattr(made, "_create_all_weights", None):
        create(variables)
    return made
