"""The Keras layers that an encoder is made of. Keras 2 (`tf_keras`), because TFMOT wraps only its models."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf
import tf_keras as keras

from optim.encoder import bfloat16

APART = 1_000_003  # between the seeds of two dropout layers: no user's seeds lie so far apart
FARTHEST = 128  # distance beyond which the relative bias tells nothing apart, in MPNet and T5
MASKED = -1e4  # added to a masked score: soft-max gives it 0 in float32, and int8 and float16 can still hold it


@keras.utils.register_keras_serializable("optim")
class Positions(keras.layers.Layer):
    """The position embedding [1, length, width] of the ids [batch, length].

    The indices are a running sum of ones, not a range of the length: every shape stays known to LiteRT when the
    length of the input is changed, so its fast kernels keep serving the graph.
    """

    def __init__(self, count: int, width: int, **kwargs):
        super().__init__(**kwargs)
        self.count, self.width = count, width

    def build(self, input_shape):
        """One row for each position."""
        self.table = self.add_weight(name="embeddings", shape=(self.count, self.width), initializer=initializer())

    def call(self, ids):
        """int [batch, length] -> float [1, length, width]."""
        index = tf.cumsum(tf.ones_like(ids[:1]), axis=1) - 1
        return tf.gather(self.table, index)

    def get_config(self):
        """Arguments that make this layer again."""
        return {**super().get_config(), "count": self.count, "width": self.width}


@keras.utils.register_keras_serializable("optim")
class RelativeBias(keras.layers.Layer):
    """What is added to the score of two tokens for the distance between them, one number for each head.

    One table [buckets, heads] for all layers of an MPNet (Song et al. 2020, arXiv:2004.09297); distances share T5's
    buckets (Raffel et al. 2020, arXiv:1910.10683, section 2.1). A distance is looked up once for each length, and
    the indices are made of running sums, as in `Positions`.
    """

    def __init__(self, heads: int, buckets: int, position_count: int, **kwargs):
        super().__init__(**kwargs)
        self.heads, self.buckets, self.position_count = heads, buckets, position_count

    def build(self, input_shape):
        """One row for each bucket."""
        shape = (self.buckets, self.heads)
        self.table = self.add_weight(name="embeddings", shape=shape, initializer=initializer())

    def call(self, ids):
        """int [batch, length] -> float [1, heads, length, length]: of the token in the row to that in the column."""
        farthest = self.position_count - 1
        of_distance = tf.gather(self.table, bucket_of(np.arange(-farthest, farthest + 1), self.buckets))
        place = tf.cumsum(tf.ones_like(ids[:1]), axis=1)
        distance = place[:, None, :] - place[:, :, None] + farthest
        return tf.transpose(tf.gather(of_distance, distance), [0, 3, 1, 2])

    def get_config(self):
        """Arguments that make this layer again."""
        own = {"heads": self.heads, "buckets": self.buckets, "position_count": self.position_count}
        return {**super().get_config(), **own}


def bucket_of(distance: np.ndarray, buckets: int) -> np.ndarray:
    """int32, the bucket of each signed distance, int [n]: half of them for what comes before, half for what follows.

    Of each half the first half holds one distance each, the rest are wider and wider, to 128 and all beyond.
    """
    half = buckets // 2
    exact = half // 2
    far = np.abs(distance)
    # In float32 as everywhere else: at a few distances a float64 would choose another bucket.
    growth = np.log(np.maximum(far, 1).astype(np.float32) / np.float32(exact)) / np.float32(np.log(FARTHEST / exact))
    wide = np.minimum(exact + (growth * np.float32(half - exact)).astype(np.int32), half - 1)
    return (np.where(distance > 0, half, 0) + np.where(far < exact, far, wide)).astype(np.int32)


class Draws:
    """Where the dropout of a model stands: the same seed and step draw the same masks, whatever was drawn before.

    So a fit that goes on after it was killed draws what it would have drawn: no hidden state of a generator to save.
    """

    def __init__(self) -> None:
        self.state = tf.Variable(tf.zeros(2, tf.int32), dtype=tf.int32, trainable=False, name="draws")  # seed, step

    def assign(self, seed_and_step) -> None:
        """int32 [2]. Inside a traced step it comes before the model is called."""
        self.state.assign(seed_and_step)


@keras.utils.register_keras_serializable("optim")
class Dropout(keras.layers.Layer):
    """Dropout (Srivastava et al. 2014) that draws from the model's `Draws` and its own number among its layers."""

    def __init__(self, rate: float, number: int = 0, draws: Draws | None = None, **kwargs):
        super().__init__(**kwargs)
        self.rate, self.number, self.draws = rate, number, draws or Draws()

    def call(self, inputs, training=None):
        """float [...] -> the same shape; in training `rate` of the values are 0, the others grow to keep the mean.

        TensorFlow draws a bfloat16 from 128 values, so there a rate is a number of 128ths, rounded up: of 0.1 it is 13,
        and with the rounded factor the mean is 0.9967 of what it was.
        """
        if not training or not self.rate:
            return inputs
        seed = self.draws.state + tf.constant([self.number * APART, 0])
        if inputs.dtype == tf.bfloat16:
            return bfloat16.dropout(inputs, self.rate, seed)
        return tf.nn.experimental.stateless_dropout(inputs, self.rate, seed, rng_alg="philox")

    def get_config(self):
        """Arguments that make this layer again; with draws of its own."""
        return {**super().get_config(), "rate": self.rate, "number": self.number}


class Dropouts:
    """Makes the dropout layers of one model, numbered and with one `Draws`."""

    def __init__(self) -> None:
        self.draws, self.count = Draws(), 0

    def __call__(self, rate: float, name: str | None = None) -> Dropout:
        """The next one."""
        self.count += 1
        return Dropout(rate, self.count, self.draws, name=name)


class Scale(keras.layers.Layer):
    """What both norms share: a scale and a shift for each feature, in float32 whatever the policy."""

    def build(self, input_shape):
        """Named as checkpoints name them."""
        for name, start in (("gamma", "ones"), ("beta", "zeros")):
            weight = self.add_weight(name=name, shape=input_shape[-1:], initializer=start, experimental_autocast=False)
            setattr(self, name, weight)

    def _scaled(self, x, dtype):
        """float32 [..., width] -> scaled and shifted, as `dtype`."""
        return tf.cast(x * self.gamma + self.beta, dtype)


@keras.utils.register_keras_serializable("optim")
class Norm(Scale):
    """Layer normalization over the last axis (Ba et al. 2016, arXiv:1607.06450), in float32 whatever the policy."""

    def __init__(self, epsilon: float, **kwargs):
        super().__init__(**kwargs)
        self.epsilon = epsilon

    def call(self, x):
        """float [..., width] -> the same shape."""
        if x.dtype == tf.bfloat16 and len(x.shape) == 2:
            return bfloat16.norm(x, self.gamma, self.beta, self.epsilon)
        wide = tf.cast(x, tf.float32)
        centred = wide - tf.reduce_mean(wide, axis=-1, keepdims=True)
        variance = tf.reduce_mean(tf.square(centred), axis=-1, keepdims=True)
        return self._scaled(centred * tf.math.rsqrt(variance + self.epsilon), x.dtype)

    def get_config(self):
        """Arguments that make this layer again."""
        return {**super().get_config(), "epsilon": self.epsilon}


@keras.utils.register_keras_serializable("optim")
class NoNorm(Scale):
    """MobileBERT's stand-in for Norm: a scale and a shift for each feature (Sun et al. 2020, arXiv:2004.02984, 3.3)."""

    def call(self, x):
        """float [..., width] -> the same shape."""
        return self._scaled(tf.cast(x, tf.float32), x.dtype)


@keras.utils.register_keras_serializable("optim")
class Trigram(keras.layers.Layer):
    """The vectors of a word's neighbours beside its own: MobileBERT's input (Sun et al. 2020, section 3.1).

    Outside the sentence are zeros, whether the row ends there or goes on with padding. Hugging Face has zeros at the
    end of the row, but reads the vector of [PAD] behind a sentence that is padded, so that its logits depend on the
    batch that the sentence came in. These here are the ones it gives to the sentence alone, as a device does.
    """

    def call(self, inputs):
        """(words [batch, length, width], mask [batch, length]) -> [batch, length, 3 * width]: next, own, previous."""
        words, mask = inputs
        words = words * tf.cast(mask, words.dtype)[:, :, None]
        around = tf.pad(words, [[0, 0], [1, 1], [0, 0]])
        return tf.concat([around[:, 2:], words, around[:, :-2]], axis=2)


@keras.utils.register_keras_serializable("optim")
class Pack(keras.layers.Layer):
    """Drops the padding: (states [batch, length, width], mask [batch, length]) -> the real tokens, [tokens, width].

    Every layer between two attentions works on single tokens, so none of them need see padding (on SST-2 a fifth of
    the arithmetic of a training step). `single` is the graph of one sentence, for export: its tokens are all kept.
    """

    def __init__(self, single: bool, **kwargs):
        super().__init__(**kwargs)
        self.single = single

    def call(self, inputs):
        """Sentences follow each other, in the order of `tf.where(mask)`."""
        states, mask = inputs
        return pack(states, mask, self.single)

    def get_config(self):
        """Arguments that make this layer again."""
        return {**super().get_config(), "single": self.single}


@keras.utils.register_keras_serializable("optim")
class PackShared(Pack):
    """The same for states [1, length, width] that all sentences share, as they share their positions."""

    def call(self, inputs):
        """In the order of `Pack`."""
        states, mask = inputs
        return pack(states, mask, True) if self.single else tf.gather(states[0], tf.where(mask)[:, 1])


def pack(states, mask, single: bool):
    """[batch, length, width] -> [tokens, width]."""
    return tf.reshape(states, [-1, states.shape[-1]]) if single else tf.gather_nd(states, tf.where(mask))


def unpack(tokens, mask, single: bool):
    """[tokens, width] -> [batch, length, width], with zeros where mask is 0: the way back from `pack`."""
    if single:  # a reshape, which the converter joins with the next one: LiteRT copies the tokens for `tokens[None]`
        return tf.reshape(tokens, [1, -1, tokens.shape[-1]])
    shape = tf.cast([*tf.unstack(tf.shape(mask)), tokens.shape[-1]], tf.int64)
    return tf.scatter_nd(tf.where(mask), tokens, shape)


@keras.utils.register_keras_serializable("optim")
class Attention(keras.layers.Layer):
    """Scaled dot-product attention of queries, keys and values that Dense layers made (Vaswani et al. 2017, eq. 1).

    first: the queries are one for each sentence, [batch, heads * head_width], and so are the answers.
    """

    def __init__(self, heads: int, head_width: int, drop: Dropout | float, single: bool, first: bool = False,
                 columns: Sequence[int] | None = None, **kwargs):  # fmt: skip
        super().__init__(**kwargs)
        self.heads, self.head_width, self.single = heads, head_width, single
        self.of_first, self.columns = first, columns
        self.first = first and not single  # the tokens of a single sentence need no unpacking, however many they are
        self.drop = drop if isinstance(drop, Dropout) else Dropout(drop)

    def call(self, inputs, training=None):
        """(query, key, value: [tokens, heads * head_width], mask: int [batch, length]) -> like query.

        A fifth input is added to the scores: float [1, heads, length, length], or of more heads, of which it takes
        `columns`.
        """
        query, key, value, mask, *relative = inputs
        query = self._split(query * self.head_width**-0.5, None if self.first else mask)
        key, value = (self._split(x, mask) for x in (key, value))
        bias = (1.0 - tf.cast(mask, query.dtype))[:, None, None, :] * MASKED
        for one in relative:
            one = one if self.columns is None else tf.gather(one, self.columns, axis=1)
            bias += tf.cast(one[:, :, :1] if self.of_first else one, query.dtype)
        weights = tf.nn.softmax(tf.matmul(query, key, transpose_b=True) + bias)
        context = tf.transpose(tf.matmul(self.drop(weights, training=training), value), [0, 2, 1, 3])
        width = self.heads * self.head_width
        if self.first:
            return tf.reshape(context, [-1, width])
        batch = 1 if self.single else tf.shape(mask)[0]
        return pack(tf.reshape(context, [batch, -1, width]), mask, self.single)

    def _split(self, tokens, mask):
        """[tokens, heads * head_width] -> [batch, heads, length, head_width]; without a mask length is 1."""
        if mask is None:
            return tf.reshape(tokens, [-1, self.heads, 1, self.head_width])
        batch = 1 if self.single else tf.shape(mask)[0]
        apart = tf.reshape(unpack(tokens, mask, self.single), [batch, -1, self.heads, self.head_width])
        return tf.transpose(apart, [0, 2, 1, 3])

    def get_config(self):
        """Arguments that make this layer again."""
        own = {"heads": self.heads, "head_width": self.head_width, "drop": self.drop.rate, "single": self.single}
        return {**super().get_config(), **own, "first": self.of_first, "columns": self.columns}


@keras.utils.register_keras_serializable("optim")
class Gelu(keras.layers.Layer):
    """GELU, exact, not the approximation by tanh (Hendrycks & Gimpel 2016, arXiv:1606.08415)."""

    def call(self, inputs, training=None):
        """float [...] -> the same shape."""
        # Without a gradient TensorFlow's own is faster: oneDNN computes it in float32 with the product before it.
        return bfloat16.gelu(inputs) if training and inputs.dtype == tf.bfloat16 else tf.nn.gelu(inputs)


@keras.utils.register_keras_serializable("optim")
class Pool(keras.layers.Layer):
    """One vector for a sentence: its first token, or the mean over its real tokens."""

    def __init__(self, how: str, single: bool, **kwargs):
        super().__init__(**kwargs)
        self.how, self.single = how, single

    def call(self, inputs):
        """(tokens: [tokens, width], mask: int [batch, length]) -> [batch, width]."""
        tokens, mask = inputs
        if self.single and self.how == "first":  # of one shape, and no axis is dropped, which XNNPACK refuses
            return tf.slice(tokens, [0, 0], [1, tokens.shape[-1]])
        states = unpack(tokens, mask, self.single)
        if self.how == "first":
            return states[:, 0]
        weights = tf.cast(mask, states.dtype)[:, :, None]
        return tf.reduce_sum(states * weights, axis=1) / tf.reduce_sum(weights, axis=1)

    def get_config(self):
        """Arguments that make this layer again."""
        return {**super().get_config(), "how": self.how, "single": self.single}


def initializer():
    """BERT's: a normal of 0.02 cut at two deviations (Devlin et al. 2018)."""
    return keras.initializers.TruncatedNormal(stddev=0.02)


@keras.utils.register_keras_serializable("optim")
class Dense(keras.layers.Dense):
    """A Dense that multiplies in its own precision, whoever calls it.

    TFMOT's wrapper keeps its masks in float32 and calls what it wraps as if that were float32 too: a Dense of Keras
    then multiplies bfloat16 by float32, which takes twice as long.
    """

    rounding = None  # kernel -> what is multiplied in its place: set by a wrapper (`train/rounded.py`) while it calls

    def get_prunable_weights(self):
        """What TFMOT asks of a layer that it does not know."""
        return [self.kernel]

    def call(self, inputs):
        """float [tokens, inputs] -> [tokens, units]."""
        return self.with_kernel(inputs, self.kernel)

    def with_kernel(self, inputs, kernel):
        """The same with another kernel, float [inputs, units], in the place of its own: a masked one."""
        kernel = kernel if self.rounding is None else self.rounding(kernel)
        inputs, kernel, bias = (tf.cast(x, self.compute_dtype) for x in (inputs, kernel, self.bias))  # type: ignore[call-overload]
        bias_add = bfloat16.bias_add if self.compute_dtype == "bfloat16" else tf.nn.bias_add
        product = bias_add(tf.matmul(inputs, kernel), bias)
        return product if self.activation is None else self.activation(product)


def dense(width: int, name: str, **kwargs):
    """A Dense with BERT's initialization."""
    return Dense(width, name=name, kernel_initializer=initializer(), **kwargs)  # type: ignore[arg-type]
