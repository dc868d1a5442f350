"""What is kept of a model: which numbers, under which names, and that what goes was all that went."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_fit import SHAPE, filled, random_weights

from optim.cut.kept import Kept, cut_shape, cut_weights
from optim.encoder.architecture import Architecture

MPNET = replace(SHAPE, family="mpnet", relative_buckets=32, pooling="first")


same = np.testing.assert_array_equal


def logits(model) -> np.ndarray:
    ids = np.arange(24, dtype=np.int32).reshape(3, 8)
    mask = np.array([[1] * 8, [1] * 5 + [0] * 3, [1] * 2 + [0] * 6], np.int32)
    return model({"input_ids": ids, "attention_mask": mask}, training=False).numpy()


def without_effect(weights, shape: Architecture, layer: int, head: int | None, column: int | None):
    """The same weights with a head's or a column's way out at zero."""
    changed = {name: value.copy() for name, value in weights.items()}
    if head is not None:
        rows = slice(head * shape.head_width, (head + 1) * shape.head_width)
        changed[f"layer{layer}_attention_output/kernel:0"][rows] = 0
    if column is not None:
        changed[f"layer{layer}_ffn_out/kernel:0"][column] = 0
    return changed


@pytest.mark.parametrize("shape", [SHAPE, MPNET, replace(SHAPE, family="distilbert")], ids=lambda s: s.family)
def test_a_head_and_a_column_without_effect_go_without_effect(shape):
    weights = without_effect(random_weights(shape), shape, 1, 0, 5)
    columns = tuple(c for c in range(32) if c != 5)
    kept = replace(Kept.all_of(shape), heads=((0, 1), (1,)), columns=(tuple(range(32)), columns))
    smaller = cut_shape(shape, kept)
    assert (smaller.heads, smaller.ffn_widths) == ((2, 1), (32, 31))
    cut = cut_weights(weights, shape, kept)
    np.testing.assert_allclose(logits(filled(smaller, cut)), logits(filled(shape, weights)), atol=1e-5)
    assert sum(value.size for value in cut.values()) == smaller.parameters


def test_heads_of_mpnet_keep_their_own_distances():
    weights = random_weights(MPNET)
    kept = replace(Kept.all_of(MPNET), heads=((1,), (1,)))
    smaller, cut = cut_shape(MPNET, kept), cut_weights(weights, MPNET, kept)
    assert smaller.relative_columns is None, "all that is left of the table is read in order"
    same(cut["relative_bias/embeddings:0"], weights["relative_bias/embeddings:0"][:, [1]])
    mixed = cut_shape(MPNET, replace(kept, heads=((1,), (0,))))
    assert mixed.relative_columns == ((1,), (0,))
    assert mixed.relative_width == 2
    assert Architecture.from_json(mixed.to_json()) == mixed


def test_heads_of_mpnet_that_read_other_columns_say_what_they_said():
    """Head 0 of layer 0 and head 1 of layer 1 have no effect: without them the logits stay."""
    weights = without_effect(random_weights(MPNET), MPNET, 0, 0, None)
    weights = without_effect(weights, MPNET, 1, 1, None)
    kept = replace(Kept.all_of(MPNET), heads=((1,), (0,)))
    smaller = filled(cut_shape(MPNET, kept), cut_weights(weights, MPNET, kept))
    np.testing.assert_allclose(logits(smaller), logits(filled(MPNET, weights)), atol=1e-5)


def test_layers_that_stay_are_counted_anew():
    shape = replace(SHAPE, heads=(2, 2, 2), ffn_widths=(32, 32, 32))
    weights = random_weights(shape)
    whole = Kept.all_of(shape)
    kept = replace(whole, layers=(0, 2), heads=whole.heads[:2], columns=whole.columns[:2])
    cut = cut_weights(weights, shape, kept)
    same(cut["layer1_query/kernel:0"], weights["layer2_query/kernel:0"])
    assert not any(name.startswith("layer2_") for name in cut)
    filled(cut_shape(shape, kept), cut)


def test_the_hidden_size_is_cut_in_every_variable_that_has_it():
    weights = random_weights(SHAPE)
    width, pooled = (0, 2, 3, 9), (1, 4, 5, 7)
    kept = replace(Kept.all_of(SHAPE), width=width, pooled=pooled)
    cut, smaller = cut_weights(weights, SHAPE, kept), cut_shape(SHAPE, kept)
    assert filled(smaller, cut).count_params() == smaller.parameters
    same(cut["word_embeddings/embeddings:0"], weights["word_embeddings/embeddings:0"][:, width])
    same(cut["layer0_key/kernel:0"], weights["layer0_key/kernel:0"][list(width)])
    same(cut["layer1_ffn_out/kernel:0"], weights["layer1_ffn_out/kernel:0"][:, width])
    same(cut["layer1_ffn_out/bias:0"], weights["layer1_ffn_out/bias:0"][list(width)])
    same(cut["layer0_ffn_in/bias:0"], weights["layer0_ffn_in/bias:0"])
    same(cut["pooler/kernel:0"], weights["pooler/kernel:0"][np.ix_(width, pooled)])
    same(cut["classifier/kernel:0"], weights["classifier/kernel:0"][list(pooled)])
    same(cut["classifier/bias:0"], weights["classifier/bias:0"])


@st.composite
def kepts(draw, shape: Architecture):
    def some(indices):
        return tuple(sorted(draw(st.sets(st.sampled_from(list(indices)), min_size=1))))

    layers = some(range(len(shape.heads)))
    count = draw(st.integers(1, shape.width))
    return Kept(
        layers=layers, heads=tuple(some(range(shape.heads[i])) for i in layers),
        columns=tuple(some(range(shape.ffn_widths[i])) for i in layers),
        width=tuple(sorted(draw(st.permutations(range(shape.width)))[:count])),
        pooled=tuple(sorted(draw(st.permutations(range(shape.width)))[:count])),
    )  # fmt: skip


@pytest.mark.parametrize("shape", [SHAPE, MPNET], ids=lambda s: s.family)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_two_cuts_are_one(shape, data):
    """Cut twice, or once by what both left: the same shape and the same numbers."""
    weights = WEIGHTS[shape.family]
    first = data.draw(kepts(shape))
    between = cut_shape(shape, first)
    second = data.draw(kepts(between))
    twice = cut_weights(cut_weights(weights, shape, first), between, second)
    once = cut_weights(weights, shape, second.within(first))
    assert cut_shape(between, second) == cut_shape(shape, second.within(first))
    assert once.keys() == twice.keys()
    for name in once:
        same(once[name], twice[name])


WEIGHTS: dict[str, dict[str, np.ndarray]] = {}


@pytest.fixture(autouse=True, scope="module")
def _weights():
    WEIGHTS.update({shape.family: random_weights(shape) for shape in (SHAPE, MPNET)})
