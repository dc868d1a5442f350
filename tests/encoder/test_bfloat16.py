"""What is done to bfloat16 numbers with gradients of its own: the values and gradients of TensorFlow's functions."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from optim.encoder import bfloat16
from optim.encoder.layers import Dropout, Gelu, Norm

BFLOAT = tf.bfloat16
ROUNDING = 2**-8  # of a bfloat16, relative


def drawn(*shape: int) -> tf.Tensor:
    return tf.cast(np.random.default_rng(len(shape)).normal(size=shape) * 2, BFLOAT)


def of(function, inputs, upstream):
    """(values, gradients) of a function, in float64."""
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        values = function(*inputs)
    found = [values, *tape.gradient(values, inputs, output_gradients=upstream)]
    return [tf.cast(one, tf.float64).numpy() for one in found]


def test_gelu_is_within_a_rounding_of_the_exact_one():
    x, upstream = drawn(40, 30), drawn(30, 40)
    upstream = tf.transpose(upstream)
    wide = [tf.cast(x, tf.float64)]
    exact = of(tf.nn.gelu, wide, tf.cast(upstream, tf.float64))
    for own, other in zip(of(bfloat16.gelu, [x], upstream), exact, strict=True):
        np.testing.assert_allclose(own, other, rtol=ROUNDING, atol=1e-5)


def test_gelu_without_a_gradient_is_tensorflow_s_own_in_bfloat16_and_close_to_the_exact_one():
    x = drawn(40, 30)
    exact = tf.nn.gelu(tf.cast(x, tf.float64)).numpy()
    said = Gelu(dtype="bfloat16")(x, training=False)
    np.testing.assert_array_equal(tf.cast(said, tf.float32), tf.cast(tf.nn.gelu(x), tf.float32))
    np.testing.assert_allclose(tf.cast(said, tf.float64).numpy(), exact, rtol=4 * ROUNDING, atol=2 * ROUNDING)
    trained = Gelu(dtype="bfloat16")(x, training=True)
    values, _ = of(bfloat16.gelu, [x], tf.ones_like(x))
    np.testing.assert_array_equal(tf.cast(trained, tf.float64).numpy(), values)


def test_gelu_of_far_values_is_0_or_the_value():
    values, slopes = of(bfloat16.gelu, [tf.constant([-60.0, 0.0, 60.0], BFLOAT)], tf.ones(3, BFLOAT))
    assert values.tolist() == [0.0, 0.0, 60.0]
    assert slopes.tolist() == [0.0, 0.5, 1.0]


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_dropout_has_the_masks_values_and_gradients_of_tensorflow(rate):
    x, upstream, seed = drawn(64, 32), tf.ones([64, 32], BFLOAT) * 3, tf.constant([7, 11], tf.int32)
    own = of(lambda x: bfloat16.dropout(x, rate, seed), [x], upstream)
    theirs = of(lambda x: tf.nn.experimental.stateless_dropout(x, rate, seed, rng_alg="philox"), [x], upstream)
    np.testing.assert_array_equal(own[0] == 0, theirs[0] == 0)
    for one, other in zip(own, theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=ROUNDING)
    assert 0 < np.mean(own[0] == 0) < 1


def test_norm_has_the_values_and_gradients_of_float32():
    """Those of scale and shift too."""
    x, upstream = drawn(50, 24), drawn(50, 24)
    rows = np.random.default_rng(1)
    scale, shift = (tf.constant(rows.normal(size=24), tf.float32) for _ in range(2))

    def plain(x, scale, shift):
        mean, variance = tf.nn.moments(x, [-1], keepdims=True)
        return tf.nn.batch_normalization(x, mean, variance, shift, scale, 1e-5)

    wide, given = tf.cast(x, tf.float32), tf.cast(upstream, tf.float32)
    exact = of(plain, [wide, scale, shift], given)
    found = of(lambda x, scale, shift: bfloat16.norm(x, scale, shift, 1e-5), [x, scale, shift], upstream)
    for own, other in zip(found, exact, strict=True):
        np.testing.assert_allclose(own, other, rtol=ROUNDING, atol=2e-3)


def test_the_gradient_of_a_bias_is_summed_in_float32():
    """Ones that a sum in bfloat16 would lose: beside 256 it knows no 1 more."""
    x, bias = tf.zeros([600, 3], BFLOAT), tf.constant([0.0, 1.0, 2.0], BFLOAT)
    values, of_x, of_bias = of(bfloat16.bias_add, [x, bias], tf.ones([600, 3], BFLOAT))
    assert values[5].tolist() == [0.0, 1.0, 2.0]
    assert of_x.min() == of_x.max() == 1
    assert of_bias.tolist() == [600.0] * 3


def test_layers_take_them_in_bfloat16_and_tensorflows_in_float32(monkeypatch):
    taken = []
    for name in ("gelu", "dropout", "norm"):
        monkeypatch.setattr(bfloat16, name, lambda x, *more, name=name: taken.append((name, x.dtype)) or x)
    for dtype in (tf.float32, BFLOAT):
        x = tf.ones([4, 4], dtype)
        for layer in (Gelu(dtype=dtype.name), Dropout(0.5, dtype=dtype.name), Norm(1e-5, dtype=dtype.name)):
            assert layer(x, training=True).dtype == dtype
    assert taken == [("gelu", BFLOAT), ("dropout", BFLOAT), ("norm", BFLOAT)]
