"""The Keras layer of `fake_quant.py`. TensorFlow is imported here, so it is imported only where a fit needs it."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras as keras

from optim.train.wrap import innermost


@tf.custom_gradient
def rounded_kernel(kernel: Any) -> Any:
    """A kernel as LiteRT stores it, -127 to 127 steps with one scale for each output; its gradient is left alone.

    float32 [inputs, units] -> the same shape. TFMOT's quantizer of this kind gives the same values, but for ties; its
    kernel takes eight times as long on a CPU.
    """
    step = tf.reduce_max(tf.abs(kernel), axis=0, keepdims=True) / 127
    return tf.round(tf.math.divide_no_nan(kernel, step)) * step, lambda upstream: upstream


class RunningRange:
    """Rounds a tensor to 8 bits between the running means of its least and largest value; its gradient is left alone.

    TFMOT's own of this kind begins at -6 to 6 and moves by a thousandth a step, which a fit of some hundred steps does
    not outlive. This one begins at the first batch.
    """

    def __init__(self, memory: float) -> None:
        self.memory = memory

    def build(self, tensor_shape: Any, name: str, layer: Any) -> dict[str, Any]:
        """Variables of `layer`, saved and restored with it: low, high, and whether a batch was seen."""
        kinds = ("low", "high", "seen")
        return {kind: layer.add_weight(name=f"{name}_{kind}", shape=(), initializer="zeros", trainable=False,
                                       experimental_autocast=False) for kind in kinds}  # fmt: skip

    def __call__(self, inputs: Any, training: Any, weights: dict[str, Any]) -> Any:
        """float32 [...] -> the same shape, rounded; in training the range follows."""
        low, high = weights["low"], weights["high"]
        if training:
            kept = self.memory * weights["seen"]  # nothing of the range that there was before the first batch
            # A range has 0 in it: padding and dropped values are 0, and the file can only round to it exactly.
            low = low.assign(kept * low + (1 - kept) * tf.minimum(tf.reduce_min(inputs), 0.0))
            high = high.assign(kept * high + (1 - kept) * tf.maximum(tf.reduce_max(inputs), 0.0))
            weights["seen"].assign(1.0)
        between = tf.stack([low, high])  # tensors: a function with a gradient of its own may not read variables

        @tf.custom_gradient
        def straight_through(x: Any) -> Any:
            return tf.quantization.fake_quant_with_min_max_vars(x, between[0], between[1]), lambda upstream: upstream

        return straight_through(inputs)


class Taken:
    """What the layers of one group take: one tensor, rounded once for all of them, with one range.

    Queries, keys and values are products of one tensor. A range and a rounding for each would be three times the same.
    """

    def __init__(self, memory: float) -> None:
        self.of_ends = RunningRange(memory)
        self.weights: Any = None
        self.inputs: Any = None
        self.rounded: Any = None
        self.served: set[str] = set()

    def build(self, layer: Any) -> None:
        """The range lies in the layer of the group that is built first."""
        self.weights = self.weights or self.of_ends.build(None, "taken", layer)

    def __call__(self, inputs: Any, training: Any, name: str) -> Any:
        """float [...] -> float32 of the same shape; name: of the layer that takes it, once in each pass."""
        if inputs is not self.inputs or name in self.served:
            self.inputs, self.served = inputs, set()
            self.rounded = self.of_ends(tf.cast(inputs, tf.float32), training, self.weights)
        self.served.add(name)
        return self.rounded


class RoundedKernel(keras.layers.Wrapper):
    """A Dense, or the pruning wrapper around one, whose kernel is rounded to 8 bits.

    TFMOT's QuantizeWrapper puts a tensor in the place of the layer's kernel, and the model that is saved would lose its
    variable. Here the Dense is asked to multiply by the rounded kernel for the time of the call.
    """

    def __init__(self, layer: Any, **kwargs: Any) -> None:
        super().__init__(layer, autocast=False, **kwargs)  # a cast for each layer would be another tensor for each
        self.of_kernel = rounded_kernel

    def call(self, inputs: Any, training: Any = None) -> Any:
        """float [tokens, inputs] -> [tokens, units], in the layer's own precision."""
        dense = innermost(self)
        dense.rounding = lambda kernel: self.of_kernel(tf.cast(kernel, tf.float32))
        try:
            return self._of_layer(inputs, training)
        finally:
            dense.rounding = None

    def _of_layer(self, inputs: Any, training: Any) -> Any:
        """Of the mask under this wrapper, or of the Dense itself, which knows no training."""
        wrapped = isinstance(self.layer, keras.layers.Wrapper)
        return self.layer.call(inputs, training=training) if wrapped else self.layer.call(inputs)


class Rounded(RoundedKernel):
    """The same, and its input and output are rounded to 8 bits too, each between ends that the fit has found."""

    def __init__(self, layer: Any, *, memory: float, taken: Taken | None = None, **kwargs: Any) -> None:
        super().__init__(layer, **kwargs)
        self.memory = memory
        self.of_ends = RunningRange(memory)
        self.of_input = taken or Taken(memory)

    def build(self, input_shape: Any) -> None:
        """Ranges beside the layer's own weights."""
        super().build(input_shape)
        self.of_input.build(self)
        self.given = self.of_ends.build(None, "given", self)

    def call(self, inputs: Any, training: Any = None) -> Any:
        """float [tokens, inputs] -> [tokens, units], in the layer's own precision."""
        outputs = super().call(self.of_input(inputs, training, self.name), training)
        return tf.cast(self.of_ends(tf.cast(outputs, tf.float32), training, self.given), outputs.dtype)

    def ranges(self) -> np.ndarray:
        """float32 [4]: least and largest value that it takes, then that it gives."""
        ranges: Any = (self.of_input.weights, self.given)
        return np.array([one[end].numpy() for one in ranges for end in ("low", "high")], np.float32)

    def get_config(self) -> dict[str, Any]:
        """Arguments that make this layer again."""
        return {**super().get_config(), "memory": self.memory}
