"""Which layers learn from which, and what a model's inner states are."""

# pyright: reportAttributeAccessIssue=false
from __future__ import annotations

from dataclasses import replace

import pytest
from golden_cases import loaded, shape_of
from small_fit import SHAPE

from optim.common.errors import UserError
from optim.encoder import graph
from optim.train.inner import Inner, layer_pairs
from optim.train.objective import watching


@pytest.mark.parametrize(
    ("layers", "student", "teacher", "pairs"),
    [
        ("last", 3, 12, [(3, 12)]),
        ("even", 6, 12, [(1, 2), (2, 4), (3, 6), (4, 8), (5, 10), (6, 12)]),
        ("even", 3, 3, [(1, 1), (2, 2), (3, 3)]),
        ("even", 5, 12, [(1, 2), (2, 5), (3, 7), (4, 10), (5, 12)]),
        ("even", 6, 2, [(3, 1), (6, 2)]),  # a student that is deeper
        ("even", 1, 6, [(1, 6)]),
        ((2, None, 12), 3, 12, [(1, 2), (3, 12)]),
        ((3, 3), 2, 3, [(1, 3), (2, 3)]),
    ],
)
def test_pairs_of_layers(layers, student, teacher, pairs):
    assert layer_pairs(layers, student, teacher) == pairs


@pytest.mark.parametrize("student", [1, 2, 3, 5, 6, 7, 12])
def test_even_pairs_rise_on_both_sides_and_end_with_the_last(student):
    for teacher in range(1, 25):
        pairs = layer_pairs("even", student, teacher)
        assert pairs[-1] == (student, teacher)
        for side in zip(*pairs, strict=True):
            assert sorted(set(side)) == list(side)
            assert side[0] >= 1
        assert len(pairs) == min(student, teacher)


@pytest.mark.parametrize(
    ("layers", "said"),
    [
        ((1, 13), "must be from 1 to 12, the teacher's layers, or null, got 13"),
        ((0, 1), "must be from 1 to 12, the teacher's layers, or null, got 0"),
        ((1, 2, 3), "one entry for each of the student's 2 layers, got 3: [1,2,3]"),
        ((1,), "one entry for each of the student's 2 layers, got 1: [1]"),
        ((None, None), "names no layer"),
        ("middle", "must be even, last, or a list such as [2,4,null,8], got 'middle'"),
    ],
)
def test_a_map_that_does_not_fit_is_refused_in_one_line(layers, said):
    with pytest.raises(UserError) as refusal:
        layer_pairs(layers, 2, 12)
    assert said in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("family", ["bert", "distilbert", "mobilebert", "mpnet"])
def test_a_model_has_the_inner_states_of_its_shape_under_names_that_exist(family):
    shape = shape_of(family)
    inner = Inner.of_model(loaded(family, whole=True))
    assert inner == Inner.of_shape(shape)
    assert inner.features(inner.depth) == shape.heads[-1] * shape.head_width
    names = [inner.hidden(1), inner.hidden(inner.depth), inner.part(inner.depth, "value")]
    model = graph.classifier(shape, whole=True)
    assert [model.get_layer(name).output.shape[-1] for name in names] == [shape.width] * 2 + [
        inner.features(inner.depth)
    ]


def test_uneven_layers_are_counted_one_by_one():
    inner = Inner.of_model(graph.classifier(replace(SHAPE, heads=(2, 1), ffn_widths=(8, 32)), whole=True))
    assert (inner.heads, inner.features(1), inner.features(2)) == ((2, 1), 16, 8)


def test_heads_of_mpnet_that_are_left_read_the_columns_of_their_shape():
    shape = replace(SHAPE, family="mpnet", relative_buckets=8, heads=(1, 2), relative_columns=((2,), (0, 1)))
    inner = Inner.of_model(graph.classifier(shape, whole=True))
    assert inner == Inner.of_shape(shape)
    assert inner.columns == ((2,), (0, 1))
    assert Inner.of_shape(SHAPE).columns == (None, None)


def test_a_model_that_is_watched_without_its_answers_computes_nothing_beyond():
    import tensorflow as tf
    import tf_keras as keras

    model = graph.classifier(SHAPE, whole=True)
    view = watching(model, ["layer0_key"], answers=False)
    step = tf.function(lambda ids: view(ids, tf.ones_like(ids), training=False).layers["layer0_key"], autograph=False)
    products = [o for o in step.get_concrete_function(tf.TensorSpec([None, None], tf.int32)).graph.get_operations()
                if o.type == "MatMul"]  # fmt: skip
    assert len(products) == 1, "the key of the first layer: no other of the 14 kernels"
    assert isinstance(model, keras.Model)
