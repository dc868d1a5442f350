"""Functions whose gradients TensorFlow makes slow in bfloat16 on a CPU: the same values, with gradients of their own.

Its kernels compute most of what is done to single bfloat16 numbers one by one; those of float32 take 16 at a time. A
training step of MiniLM takes 0.79 of its time by these.
"""

from __future__ import annotations

import math

import tensorflow as tf


@tf.custom_gradient
def gelu(x):
    """GELU (Hendrycks & Gimpel 2016, arXiv:1606.08415), x Phi(x), computed in float32: bfloat16 [...] -> the same."""
    wide = tf.cast(x, tf.float32)
    below = 0.5 * (1.0 + tf.math.erf(wide * math.sqrt(0.5)))  # Phi(x)

    def gradient(upstream):
        density = tf.exp(-0.5 * wide * wide) * (1.0 / math.sqrt(2.0 * math.pi))
        return tf.cast(tf.cast(upstream, tf.float32) * (below + wide * density), x.dtype)

    return tf.cast(wide * below, x.dtype), gradient


def dropout(x, rate: float, seed):
    """`tf.nn.experimental.stateless_dropout` by Philox, the same masks and values; its gradient is one product.

    x: bfloat16 [...]; seed: int32 [2].
    """
    drawn = tf.random.stateless_uniform(tf.shape(x), seed, dtype=x.dtype, alg="philox")
    scale = tf.cast(drawn >= tf.cast(rate, x.dtype), x.dtype) * tf.cast(1.0 / (1.0 - rate), x.dtype)

    @tf.custom_gradient
    def scaled(x):
        return x * scale, lambda upstream: upstream * scale

    return scaled(x)


def norm(x, gamma, beta, epsilon: float):
    """Layer normalization over the last axis in float32: bfloat16 [tokens, width], float32 [width] -> as x.

    The gradient in x of h = (x - mean) / deviation is (g - mean(g) - h mean(g h)) / deviation (Ba et al. 2016,
    arXiv:1607.06450): twelve operations in the place of the twenty that come of differentiating each.
    """
    scale, shift = tf.convert_to_tensor(gamma), tf.convert_to_tensor(beta)

    @tf.custom_gradient
    def normalized(x, scale, shift):
        wide = tf.cast(x, tf.float32)
        centred = wide - tf.reduce_mean(wide, axis=-1, keepdims=True)
        narrow = tf.math.rsqrt(tf.reduce_mean(tf.square(centred), axis=-1, keepdims=True) + epsilon)
        h = centred * narrow

        def gradient(upstream):
            upstream = tf.cast(upstream, tf.float32)
            g = upstream * scale
            along = tf.reduce_mean(g, axis=-1, keepdims=True) + h * tf.reduce_mean(g * h, axis=-1, keepdims=True)
            of_x = tf.cast((g - along) * narrow, x.dtype)
            return of_x, tf.reduce_sum(upstream * h, axis=0), tf.reduce_sum(upstream, axis=0)

        return tf.cast(h * scale + shift, x.dtype), gradient

    return normalized(x, scale, shift)


@tf.custom_gradient
def bias_add(x, bias):
    """x + bias; bfloat16 [tokens, units] and [units]. The gradient of the bias is a product, which sums in float32."""

    def gradient(upstream):
        ones = tf.ones([1, tf.shape(upstream)[0]], upstream.dtype)
        return upstream, tf.matmul(ones, upstream)[0]

    return tf.nn.bias_add(x, bias), gradient
