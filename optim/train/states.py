"""Distances between the inner states of two models of the same tokens: one number for each sentence, in float32.

States are packed (`encoder/layers.py`, Pack): [tokens, width], real tokens only, in the order of `tf.where(mask)`. So
no distance sees padding, and a sentence's does not depend on the batch that it came in.
"""

from __future__ import annotations

import math
from typing import Any

import tensorflow as tf

from optim.encoder.layers import MASKED, unpack

TINY = 1e-6  # so that states of zeros divide nothing by zero


def mean_over_tokens(values: Any, mask: Any):
    """float [batch]: the mean over the real tokens of each sentence. values: float [tokens]; mask: [batch, length]."""
    rows = tf.where(mask)[:, 0]
    total = tf.math.unsorted_segment_sum(values, rows, tf.shape(mask, tf.int64)[0])
    return total / tf.cast(tf.reduce_sum(mask, axis=1), tf.float32)


def state_distance(own: Any, other: Any, mask: Any):
    """Mean squared difference of states, over features and real tokens: float [batch]. Both: float [tokens, width]."""
    own, other = (tf.cast(x, tf.float32) for x in (own, other))
    return mean_over_tokens(tf.reduce_mean(tf.math.squared_difference(own, other), axis=-1), mask)


def state_share(own: Any, other: Any, mask: Any):
    """`state_distance` over the mean square of `other`: float [batch], 0 where both are equal, 1 for states of zeros.

    So a weight means the same for every teacher, however large its states are.
    """
    return state_distance(own, other, mask) / (state_distance(tf.zeros_like(other), other, mask) + TINY)


def score_share(own: Any, other: Any, mask: Any):
    """`score_distance` over the mean square of `other`, in the same way."""
    return score_distance(own, other, mask) / (score_distance(tf.zeros_like(own), other, mask) + TINY)


def attention_scores(query: Any, key: Any, mask: Any, heads: int, bias: Any = None):
    """Scores before the soft-max: float32 [batch, heads, length, length], of the row's token to the column's.

    query, key: float [tokens, heads * head_width]; bias: what is added to them, float [1, heads, length, length].
    """
    query, key = (_apart(x, mask, heads) for x in (query, key))
    scores = tf.matmul(query, key, transpose_b=True) / math.sqrt(query.shape[-1])
    return scores if bias is None else scores + tf.cast(bias, tf.float32)


def score_distance(own: Any, other: Any, mask: Any):
    """Mean squared difference of attention scores, over heads and pairs of real tokens: float [batch].

    Both: [batch, heads, length, length]. The paper (Jiao et al. 2019, equation 7) has as many heads on both sides, and
    compares them one by one. Where their numbers differ nothing says which belongs to which, and what is compared is
    their mean over the heads.
    """
    if own.shape[1] != other.shape[1]:
        own, other = (tf.reduce_mean(scores, axis=1, keepdims=True) for scores in (own, other))
    real = tf.cast(mask, tf.float32)
    pairs = real[:, None, :, None] * real[:, None, None, :]
    total = tf.reduce_sum(tf.math.squared_difference(own, other) * pairs, axis=[1, 2, 3])
    return total / (own.shape[1] * tf.reduce_sum(pairs, axis=[1, 2, 3]))


def relation_distance(own: Any, other: Any, mask: Any, heads: int):
    """KL(other || own) of self-attention relations, mean over relation heads and real tokens: float [batch].

    The relation of a token to all of its sentence is soft-max(x xᵀ / √d) of queries, or keys, or values x, which are
    cut anew into `heads` relation heads of d features: so that both models have as many, whatever their own heads are
    (Wang et al. 2021, section 3.1, arXiv:2012.15828). Both: float [tokens, features]; `heads` divides the features.
    """
    student, teacher = (_log_relation(x, mask, heads) for x in (own, other))
    divergence = tf.reduce_sum(tf.exp(teacher) * (teacher - student), axis=-1)
    real = tf.cast(mask, tf.float32)[:, None]
    return tf.reduce_sum(divergence * real, axis=[1, 2]) / (heads * tf.reduce_sum(real, axis=[1, 2]))


def _log_relation(x: Any, mask: Any, heads: int):
    """float32 [batch, heads, length, length]: the logarithm of the relation of the row's token to the column's."""
    parts = _apart(x, mask, heads)
    scores = tf.matmul(parts, parts, transpose_b=True) / math.sqrt(x.shape[-1] // heads)
    return tf.nn.log_softmax(scores + (1.0 - tf.cast(mask, tf.float32))[:, None, None, :] * MASKED)


def _apart(x: Any, mask: Any, heads: int):
    """float [tokens, features] -> float32 [batch, heads, length, features / heads], zeros for padding."""
    whole = unpack(tf.cast(x, tf.float32), mask, single=False)
    shape = tf.shape(mask)
    return tf.transpose(tf.reshape(whole, [shape[0], shape[1], heads, x.shape[-1] // heads]), [0, 2, 1, 3])
