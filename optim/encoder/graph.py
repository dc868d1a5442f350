"""Architecture -> Functional Keras classifier: one named Dense per weight matrix, for methods to aim at.

Keras 2 (`tf_keras`), because TFMOT wraps only its Sequential and Functional models.
"""

from __future__ import annotations

import tensorflow as tf
import tf_keras as keras

from optim.encoder.architecture import Architecture
from optim.encoder.layers import (
    Attention,
    Dropouts,
    Gelu,
    NoNorm,
    Norm,
    Pack,
    PackShared,
    Pool,
    Positions,
    RelativeBias,
    Trigram,
    dense,
    initializer,
)


def classifier(
    shape: Architecture, *, single: bool = False, whole: bool = False, bfloat16: bool = False
) -> keras.Model:
    """Logits [batch, classes] of `input_ids` and `attention_mask`, both int32 [batch, length].

    Dense kernels are named `layer{i}_{query|key|value|attention_output|ffn_in|ffn_out}`, then `pooler` (the
    pre-classifier of DistilBERT; MobileBERT has none) and `classifier`. MobileBERT also has `embedding_transformation`,
    `layer{i}_bottleneck_{in|attention|out}` and, for the feed-forward networks before the last, `layer{i}_ffn{j}_in`
    and `_out`. `single` gives the graph of one sentence of any length, whose shapes are constant enough for LiteRT;
    weights and logits are the same. Where only the first token is pooled, the last layer computes nothing else than
    that token's answer, a seventh less work for six layers; `whole` keeps all of its tokens, for losses that look at
    its states. bfloat16: products are computed in it, from float32 weights; logits are float32. The model's attribute
    `draws` says where its dropout stands.
    """
    keras.mixed_precision.set_global_policy("mixed_bfloat16" if bfloat16 else "float32")
    try:
        return _built(shape, single, whole)
    finally:
        keras.mixed_precision.set_global_policy("float32")


def _built(shape: Architecture, single: bool, whole: bool) -> keras.Model:
    drop = Dropouts()
    batch = 1 if single else None
    ids = keras.Input((None,), batch_size=batch, dtype=tf.int32, name="input_ids")
    mask = keras.Input((None,), batch_size=batch, dtype=tf.int32, name="attention_mask")
    embed, layer = (_embeddings, _layer) if shape.bottleneck is None else (_mobile_embeddings, _mobile_layer)
    masks = [mask, *_relative_bias(shape, ids)]
    x = embed(shape, ids, mask, single)
    x = drop(shape.hidden_dropout, name="embeddings_dropout")(x)
    pool, last = Pool(shape.pooling, single, name="pool"), len(shape.heads) - 1
    pooled_early = shape.pooling == "first" and last >= 0 and not whole
    for index in range(len(shape.heads)):
        own = pool([x, mask]) if pooled_early and index == last else x
        x = layer(shape, index, own, x, masks, single, drop)
    x = x if pooled_early else pool([x, mask])
    if shape.family != "mobilebert":  # Hugging Face's head of MPNet has a dropout here too; it is left out
        x = dense(shape.width, "pooler", activation="relu" if shape.family == "distilbert" else "tanh")(x)
    x = drop(shape.head_dropout, name="head_dropout")(x)
    logits = keras.layers.Activation("linear", dtype="float32", name="logits")(dense(shape.classes, "classifier")(x))
    model = keras.Model({"input_ids": ids, "attention_mask": mask}, logits, name=shape.family)
    model.draws = drop.draws
    return model


def _words(shape: Architecture, width: int, ids):
    """The word embedding [batch, length, width]."""
    return keras.layers.Embedding(
        shape.vocabulary_size,
        width,
        embeddings_initializer=initializer(),  # type: ignore[arg-type]
        name="word_embeddings",
    )(ids)


def _embeddings(shape: Architecture, ids, mask, single: bool):
    """Word and position, normalized: [tokens, width]."""
    words = _words(shape, shape.width, ids)
    places = Positions(shape.position_count, shape.width, name="position_embeddings")(ids)
    x = Pack(single, name="pack")([keras.layers.Add(name="embeddings_sum")([words, places]), mask])
    return Norm(shape.norm_epsilon, name="embeddings_norm")(x)


def _relative_bias(shape: Architecture, ids) -> list:
    """What all attentions add to their scores; nothing in most families."""
    if not shape.relative_buckets:
        return []
    return [RelativeBias(shape.relative_width, shape.relative_buckets, shape.position_count, name="relative_bias")(ids)]


def _layer(shape: Architecture, index: int, x, seen, masks, single: bool, drop: Dropouts):
    """One post-norm transformer layer, attention, then feed-forward, of the tokens `x`, which attend to `seen`."""
    name, inner = f"layer{index}", shape.heads[index] * shape.head_width
    sources = {"query": x, "key": seen, "value": seen}
    query, key, value = (dense(inner, f"{name}_{part}")(source) for part, source in sources.items())
    attention = _attention(shape, index, single, drop, first=x is not seen)
    y = dense(shape.width, f"{name}_attention_output")(attention([query, key, value, *masks]))
    if shape.family != "distilbert":  # which has no dropout here
        y = drop(shape.hidden_dropout, name=f"{name}_attention_dropout")(y)
    x = Norm(shape.norm_epsilon, name=f"{name}_attention_norm")(keras.layers.Add(name=f"{name}_attention_sum")([x, y]))
    y = dense(shape.ffn_widths[index], f"{name}_ffn_in")(x)
    y = Gelu(name=f"{name}_gelu")(y)
    y = dense(shape.width, f"{name}_ffn_out")(y)
    y = drop(shape.hidden_dropout, name=f"{name}_ffn_dropout")(y)
    return Norm(shape.norm_epsilon, name=f"{name}_ffn_norm")(keras.layers.Add(name=f"{name}_ffn_sum")([x, y]))


def _attention(shape: Architecture, index: int, single: bool, drop: Dropouts, *, first: bool) -> Attention:
    """The attention of one layer; `first`: of one query for each sentence."""
    dropout = drop(shape.attention_dropout)
    columns = None if shape.relative_columns is None else shape.relative_columns[index]
    return Attention(shape.heads[index], shape.head_width, dropout, single, first, columns,
                     name=f"layer{index}_attention")  # fmt: skip


# MobileBERT
def _mobile_embeddings(shape: Architecture, ids, mask, single: bool):
    """Three neighbouring words projected to the model's width, and position: [tokens, width]."""
    assert shape.bottleneck
    words = Trigram(name="trigram")([_words(shape, shape.bottleneck.embedding_width, ids), mask])
    x = dense(shape.width, "embedding_transformation")(Pack(single, name="pack")([words, mask]))
    places = Positions(shape.position_count, shape.width, name="position_embeddings")(ids)
    places = PackShared(single, name="pack_positions")([places, mask])
    return NoNorm(name="embeddings_norm")(keras.layers.Add(name="embeddings_sum")([x, places]))


def _mobile_layer(shape: Architecture, index: int, x, seen, masks, single: bool, drop: Dropouts):
    """One layer of the tokens `x`: into the bottleneck, attention to `seen`, feed-forward networks, and out again.

    Queries and keys have a bottleneck of their own, which they share; values are taken from the full width.
    """
    assert shape.bottleneck
    name, narrow, inner = f"layer{index}", shape.bottleneck.width, shape.heads[index] * shape.head_width
    y = NoNorm(name=f"{name}_bottleneck_in_norm")(dense(narrow, f"{name}_bottleneck_in")(x))
    squeeze = dense(narrow, f"{name}_bottleneck_attention")
    settle = NoNorm(name=f"{name}_bottleneck_attention_norm")
    shared = settle(squeeze(seen))
    query = dense(inner, f"{name}_query")(shared if x is seen else settle(squeeze(x)))
    key, value = dense(inner, f"{name}_key")(shared), dense(inner, f"{name}_value")(seen)
    attention = _attention(shape, index, single, drop, first=x is not seen)
    z = dense(narrow, f"{name}_attention_output")(attention([query, key, value, *masks]))
    y = NoNorm(name=f"{name}_attention_norm")(keras.layers.Add(name=f"{name}_attention_sum")([y, z]))
    for part in (*(f"ffn{j}" for j in range(shape.bottleneck.ffn_count - 1)), "ffn"):
        y = _mobile_feed_forward(shape.ffn_widths[index], narrow, f"{name}_{part}", y)
    y = dense(shape.width, f"{name}_bottleneck_out")(y)
    y = drop(shape.hidden_dropout, name=f"{name}_dropout")(y)
    return NoNorm(name=f"{name}_bottleneck_out_norm")(keras.layers.Add(name=f"{name}_sum")([x, y]))


def _mobile_feed_forward(ffn_width: int, width: int, name: str, x):
    y = keras.layers.Activation("relu", name=f"{name}_relu")(dense(ffn_width, f"{name}_in")(x))
    return NoNorm(name=f"{name}_norm")(keras.layers.Add(name=f"{name}_sum")([x, dense(width, f"{name}_out")(y)]))
