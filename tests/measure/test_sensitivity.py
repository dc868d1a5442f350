"""The sensitivity table: what its changes do to a kernel, by hand; and the table of a small model."""

# pyright: reportAttributeAccessIssue=false, reportCallIssue=false
from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from small_fit import SHAPE, filled, new_model, random_weights, tokens_of

from optim.export.quantize import Student
from optim.measure import sensitivity
from optim.measure.quality import paired_change
from optim.measure.sensitivity import Probed, pruned, rounded, sensitivity_table, without_columns, without_head


def test_rounding_has_a_scale_for_each_output():
    """Output 0 has steps of 0.7 / 7 = 0.1, output 1 of 7 / 7 = 1: 0.24 is 0.2 there and 0 here."""
    kernel = np.array([[0.7, 7.0], [0.24, 0.24]], np.float32)
    np.testing.assert_allclose(rounded(kernel, 4, None), [[0.7, 7.0], [0.2, 0.0]], atol=1e-6)


def test_rounding_in_one_scale_takes_that_of_the_largest():
    kernel = np.array([[0.7, 7.0], [0.24, 0.6]], np.float32)
    np.testing.assert_allclose(rounded(kernel, 4, None, whole=True), [[1.0, 7.0], [0.0, 1.0]], atol=1e-6)


def test_blocks_are_inputs_of_one_output():
    """Inputs 0 to 31 of the output are small, 32 to 63 large: each half keeps its own steps."""
    kernel = np.concatenate([np.full((32, 1), 0.07), np.full((32, 1), 7.0)]).astype(np.float32)
    kernel[0] = 0.024
    np.testing.assert_allclose(rounded(kernel, 4, 32)[:2, 0], [0.02, 0.07], atol=1e-6)
    np.testing.assert_allclose(rounded(kernel, 4, None)[:2, 0], [0.0, 0.0], atol=1e-6)


def test_a_block_that_does_not_divide_the_inputs_is_left_out():
    kernel = np.random.default_rng(0).normal(size=(48, 3)).astype(np.float32)
    np.testing.assert_array_equal(rounded(kernel, 4, 32), rounded(kernel, 4, None))


@given(arrays(np.float32, (64, 3), elements=st.floats(-10, 10, width=32)), st.sampled_from([4, 8]))
def test_rounding_is_never_further_off_than_half_a_step(kernel, bits):
    for block, parts in ((None, kernel), (32, kernel.reshape(2, 32, 3))):
        axis = 0 if block is None else 1
        step = np.abs(parts).max(axis=axis, keepdims=True) / (2 ** (bits - 1) - 1)
        off = np.abs(rounded(kernel, bits, block).reshape(parts.shape) - parts)
        assert (off <= step / 2 + 1e-5).all()


def test_pruning_takes_the_smallest():
    np.testing.assert_array_equal(pruned(np.array([[1.0, -4.0], [3.0, -2.0]]), 0.5), [[0.0, -4.0], [3.0, 0.0]])


def test_the_weakest_head_and_the_weakest_columns_are_removed():
    model = new_model()
    value, output = (model.get_layer(f"layer1_{part}").kernel for part in ("value", "attention_output"))
    value.assign(np.ones(value.shape) * np.repeat([1.0, 0.5], SHAPE.head_width))  # head 1 is the weaker
    output.assign(np.ones(output.shape))
    edited = without_head(model, 1, SHAPE.head_width)["layer1_attention_output"](output.numpy())
    assert edited.sum(axis=1).tolist() == [16.0] * 8 + [0.0] * 8
    into, out = (model.get_layer(f"layer0_{part}").kernel for part in ("ffn_in", "ffn_out"))
    into.assign(np.ones(into.shape) * np.arange(32))  # columns 0 to 7 are the weakest quarter
    out.assign(np.ones(out.shape))
    edited = without_columns(model, 0)["layer0_ffn_out"](out.numpy())
    assert np.flatnonzero(edited.sum(axis=1) == 0).tolist() == list(range(8))


def test_a_head_and_columns_are_weak_by_both_of_their_sides():
    """Values of 1 and 1/2, outputs of 1 and 4: head 0 is the weaker. Columns of i in and 1 / i² out: the last ones."""
    model = new_model()
    value, output = (model.get_layer(f"layer0_{part}").kernel for part in ("value", "attention_output"))
    value.assign(np.ones(value.shape) * np.repeat([1.0, 0.5], SHAPE.head_width))
    output.assign(np.ones(output.shape) * np.repeat([1.0, 4.0], SHAPE.head_width)[:, None])
    edited = without_head(model, 0, SHAPE.head_width)["layer0_attention_output"](output.numpy())
    assert edited.sum(axis=1).tolist() == [0.0] * 8 + [64.0] * 8
    into, out = (model.get_layer(f"layer0_{part}").kernel for part in ("ffn_in", "ffn_out"))
    into.assign(np.ones(into.shape) * np.arange(1, 33))
    out.assign(np.ones(out.shape) / np.arange(1, 33)[:, None] ** 2)
    edited = without_columns(model, 0)["layer0_ffn_out"](out.numpy())
    assert np.flatnonzero(edited.sum(axis=1) == 0).tolist() == list(range(24, 32))


def test_a_range_is_that_of_all_that_was_seen():
    """-1 to 5 in the first batch, -3 to 2 in the second, which has the last word in nothing."""
    import tensorflow as tf
    import tf_keras as keras

    probe = sensitivity._probe(keras.layers.Dense(1))
    probe(tf.constant([[9.0, -9.0]]))
    probe.mode.assign(sensitivity.RECORD)
    for batch, ends in (([[5.0, -1.0]], (-1, 5)), ([[2.0, -3.0]], (-3, 5)), ([[0.5, 1.0]], (-3, 5))):
        probe(tf.constant(batch))
        assert (float(probe.low.numpy()), float(probe.high.numpy())) == ends


def test_a_change_has_an_interval_by_hand():
    """3 of 10 lost, 1 won: -20 points. Agresti and Min: b 3.5, c 1.5, n 12: -1/6 +- 1.96 sqrt(5 - 4/12) / 12."""
    before = np.array([1, 1, 1, 1, 1, 1, 1, 0, 0, 0], bool)
    after = np.array([0, 0, 0, 1, 1, 1, 1, 1, 0, 0], bool)
    points, low, high = paired_change(before, after)
    assert points == -20
    assert (low, high) == pytest.approx((100 * (-1 / 6 - 0.35284), 100 * (-1 / 6 + 0.35284)), abs=1e-2)
    same = paired_change(before, before)
    assert same[0] == 0
    assert same[1] == -same[2] < 0, "no change is no certainty"


@pytest.fixture(scope="module")
def held():
    return tokens_of(60)


def lively():
    """A model whose weights are larger than at birth, so that every part of it shows in the logits."""
    model, rng = new_model(), np.random.default_rng(0)
    for variable in model.trainable_variables:
        variable.assign(variable.numpy() + rng.normal(0, 0.3, variable.shape))
    return model


@pytest.fixture(scope="module")
def probed(held):
    return Probed(lively(), held)


def test_what_is_computed_from_a_layer_on_is_what_the_whole_model_says(probed, held):
    from optim.train.scores import logits_of

    whole = logits_of(lively(), held)
    for layer in (0, 1):
        np.testing.assert_allclose(probed.logits(layer), whole, atol=1e-5)
    with probed.weights({"layer1_ffn_in": lambda kernel: 0 * kernel}):
        np.testing.assert_allclose(probed.logits(1), probed.logits(0), atol=1e-5)
        assert np.abs(probed.logits(1) - whole).max() > 1e-2
    np.testing.assert_array_equal(probed.logits(0), probed.unchanged)  # it was put back


@pytest.mark.slow
def test_every_layer_of_a_deeper_model_is_computed_from(held):
    from optim.encoder import graph

    deep = Probed(graph.classifier(replace(SHAPE, heads=(2,) * 4, ffn_widths=(32,) * 4)), held)
    for layer in range(4):
        np.testing.assert_allclose(deep.logits(layer), deep.unchanged, atol=1e-5)


def test_activations_are_rounded_where_they_are_told_to(probed, held):
    probed.record(held)
    for mode in (sensitivity.BY_TOKEN, sensitivity.BY_RANGE):
        with probed.activations(["layer0_ffn_out"], mode):
            off = np.abs(probed.logits(0) - probed.unchanged).max()
        assert 0 < off < 0.1 * np.abs(probed.unchanged).max()
    np.testing.assert_array_equal(probed.logits(0), probed.unchanged)


def test_rounding_by_token_is_by_hand():
    """-1 to 1.55 in 255 steps of 0.01."""
    x = np.array([[-1.0, 1.55, 0.014], [0.0, 2.55, 0.014]], np.float32)
    np.testing.assert_allclose(sensitivity._int8(x, axis=-1), [[-1, 1.55, 0.01], [0, 2.55, 0.01]], atol=1e-6)


def test_what_changes_is_what_the_row_names(probed):
    """A layer's head and columns are its own, and as a whole it has six kernels."""
    weights = {weight.name: weight for weight in probed.model.weights}
    before = {name: weight.numpy() for name, weight in weights.items()}
    kernels = ("query", "key", "value", "attention_output", "ffn_in", "ffn_out")
    of_layer = {sensitivity.HEAD: kernels[3:4], sensitivity.FFN: kernels[5:], sensitivity.INT8: kernels}
    seen = []
    for part, _, change, changed in sensitivity._changes(probed, 8):
        if part in ("layer0", "layer1") and change in of_layer:
            with changed():
                moved = {name.split("/")[0] for name, w in weights.items() if (w.numpy() != before[name]).any()}
            assert moved == {f"{part}_{kernel}" for kernel in of_layer[change]}
            seen.append((part, change))
    assert len(seen) == 6


def test_the_embeddings_have_one_scale_in_int8_and_blocks_of_a_row_in_int4(probed):
    table = probed.model.get_layer("word_embeddings").weights[0]
    whole = table.numpy()
    edits = {change: edit for part, _, change, edit in sensitivity._changes(probed, 8) if part == "word_embeddings"}
    with edits[sensitivity.INT8]():
        np.testing.assert_array_equal(table.numpy(), rounded(whole, 8, None, whole=True))
    with edits[sensitivity.INT4]():
        np.testing.assert_array_equal(table.numpy(), rounded(whole.T, 4, 32).T)


def test_a_model_with_a_bias_between_positions_is_computed_from_every_layer():
    shape = replace(SHAPE, family="mpnet", relative_buckets=8)
    probed = Probed(filled(shape, random_weights(shape)), tokens_of(20))
    for layer in (0, 1):
        np.testing.assert_allclose(probed.logits(layer), probed.unchanged, atol=1e-5)


@pytest.mark.parametrize("block", [8, None])
def test_int4_has_the_blocks_that_are_asked_for(probed, block):
    kernel = probed.model.get_layer("layer0_ffn_out").kernel
    expected = rounded(kernel.numpy(), 4, block)
    (changed,) = [context for part, _, change, context in sensitivity._changes(probed, block)
                  if (part, change) == ("layer0_ffn_out", sensitivity.INT4)]  # fmt: skip
    with changed():
        np.testing.assert_array_equal(kernel.numpy(), expected)
        alone = probed.against_unchanged(0)
    together = sensitivity._together(probed, ["layer0_ffn_out"], block)
    assert together[-1] == {"kernels": ["layer0_ffn_out"], **alone}
    assert alone["kl_nats"] > 0


def test_the_table_has_every_part_and_every_change(held, tmp_path, monkeypatch):
    rows = {"held_out": np.arange(0, 60, 2)}
    student = Student(load=lively, load_batch=lively, float32_path=tmp_path, train=held, rows=rows)
    recorded, honest = [], Probed.record
    monkeypatch.setattr(Probed, "record", lambda own, tokens: (recorded.append(tokens), honest(own, tokens))[1])
    table = sensitivity_table(student, block=8)  # which divides the inputs of all
    assert table["examples"] == 30
    others = [held.take(np.arange(1, 60, 2)).sentence(i).tolist() for i in range(30)]
    (shown,) = recorded
    assert sorted(shown.sentence(i).tolist() for i in range(len(shown))) == sorted(others), "none that is scored"
    found = {(row["part"], row["change"]) for row in table["rows"]}
    assert len(found) == len(table["rows"])
    kernels = [f"layer{i}_{part}" for i in (0, 1) for part in
               ("query", "key", "value", "attention_output", "ffn_in", "ffn_out")]  # fmt: skip
    alone = sensitivity.CHANGES[:6]
    assert {
        (part, change) for part in (*kernels, "pooler", "classifier", "layer0", "layer1") for change in alone
    } < found
    assert {("layer1", sensitivity.HEAD), ("layer0", sensitivity.FFN), ("word_embeddings", sensitivity.INT4)} < found
    assert sorted(table["order_int4"]) == sorted([*kernels, "pooler"]), "a file leaves the classifier in int8"
    lost = {row["part"]: row["kl_nats"] for row in table["rows"] if row["change"] == sensitivity.INT4}
    assert table["order_int4"] == sorted(table["order_int4"], key=lost.__getitem__), "what bears it best comes first"
    together = table["together_int4"]
    assert together[0] == {"kernels": [], "accuracy_points": 0, "low": pytest.approx(-together[0]["high"]),
                           "high": together[0]["high"], "changed_answers": 0, "kl_nats": 0}  # fmt: skip
    assert together[-1]["kernels"] == table["order_int4"]


def test_kernels_that_no_block_divides_are_not_counted_as_int4(held, tmp_path):
    """16 inputs and 32: blocks of 32 fit the second feed-forward kernel alone; files leave the others in int8."""
    student = Student(
        load=lively, load_batch=lively, float32_path=tmp_path, train=held, rows={"held_out": np.arange(8)}
    )
    assert sorted(sensitivity_table(student)["order_int4"]) == ["layer0_ffn_out", "layer1_ffn_out"]
    assert len(sensitivity_table(student, block=None)["order_int4"]) == 13


def test_what_is_lost_is_below_zero_by_hand():
    """Right on three of four, then on one: -50 points. KL((3/4, 1/4) || (1/5, 4/5)) = 3/4 ln 15/4 + 1/4 ln 5/16."""
    labels = np.array([0, 0, 0, 1])
    before, after = (np.tile(np.log([p, 1 - p]), (4, 1)) for p in (3 / 4, 1 / 5))
    probed: Any = SimpleNamespace(logits=lambda layer: after, unchanged=before, right=before.argmax(1) == labels,
                                  held=SimpleNamespace(labels=labels))  # fmt: skip
    found = Probed.against_unchanged(probed, 0)
    assert (found["accuracy_points"], found["changed_answers"]) == (-50, 1)
    assert found["kl_nats"] == pytest.approx(3 / 4 * math.log(15 / 4) + 1 / 4 * math.log(5 / 16))


def test_each_change_does_what_its_name_says(probed):
    kernel, probe = probed.model.get_layer("layer0_ffn_out").kernel, probed.probes["layer0_ffn_out"]
    whole = kernel.numpy()
    weights = {sensitivity.INT8: rounded(whole, 8, None), "pruned 50 %": pruned(whole, 0.5),
               "pruned 80 %": pruned(whole, 0.8)}  # fmt: skip
    modes = {sensitivity.TOKENS: sensitivity.BY_TOKEN, sensitivity.STATIC: sensitivity.BY_RANGE}
    seen = set()
    for part, _, change, changed in sensitivity._changes(probed, 8):
        if part == "layer0_ffn_out" and change in {*weights, *modes}:
            seen.add(change)
            with changed():
                np.testing.assert_array_equal(kernel.numpy(), weights.get(change, whole))
                assert int(probe.mode.numpy()) == modes.get(change, sensitivity.OFF)
    assert seen == {*weights, *modes}
