"""Quantization-aware training: rounding by hand, and with a mask on one model."""

# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportOptionalMemberAccess=false
from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from small_fit import FIXED, RECIPE, SCHEDULE, SHAPE, fit_of, new_model, tokens_of

from optim.common.errors import UserError
from optim.export.quantize import PRODUCTS
from optim.run.fits import FitStep
from optim.train.distill import HardLabels
from optim.train.fake_quant import FakeQuant
from optim.train.fit import Fit, Task
from optim.train.prune import Magnitude, zeroed_fractions
from optim.train.wrap import Stack

KERNELS = [f"layer{i}_{part}" for i in (0, 1) for part in
           ("query", "key", "value", "attention_output", "ffn_in", "ffn_out")]  # fmt: skip


def test_a_range_begins_at_the_first_batch_and_follows_slowly():
    """memory 0.75: 2, then 0.75 * 2 + 0.25 * 6 = 3; 0 is always in it."""
    import tensorflow as tf
    import tf_keras as keras

    from optim.train.rounded import RunningRange

    quantizer, layer = RunningRange(0.75), keras.layers.Layer()
    weights = quantizer.build(None, "x", layer)
    for high, expected in ((2.0, 2.0), (6.0, 3.0)):
        quantizer(tf.constant([1.0, high]), True, weights)
        assert (weights["low"].numpy(), weights["high"].numpy()) == (0.0, pytest.approx(expected))
    quantizer(tf.constant([-100.0, 100.0]), False, weights)
    assert weights["high"].numpy() == pytest.approx(3.0), "only training moves it"


def test_a_layer_is_rounded_by_hand():
    """Kernel steps 1.27 / 127 = 0.01 and 2.54 / 127 = 0.02; inputs 0 to 2.55 in steps of 0.01."""
    import tensorflow as tf

    from optim.encoder.layers import dense
    from optim.train.rounded import Rounded

    layer = dense(2, "layer0_query")
    rounded = Rounded(layer, memory=0.0, name="rounded")
    x = tf.constant([[2.55, 1.004]])
    rounded(x)
    layer.kernel.assign([[1.27, 2.54], [0.014, 0.014]])
    layer.bias.assign([0.0, 0.0])
    assert layer.rounding is None, "nobody else sees a rounded kernel"
    before = layer.kernel.numpy()
    out = rounded(x, training=True).numpy()
    exact = np.array([[2.55 * 1.27 + 1.0 * 0.01, 2.55 * 2.54 + 1.0 * 0.02]])
    step = exact.max() / 255
    np.testing.assert_allclose(out, np.round(exact / step) * step, atol=step * 0.51)
    np.testing.assert_array_equal(layer.kernel.numpy(), before)
    assert [v is layer.kernel for v in layer.trainable_weights] == [True, False], "it kept its variable"
    assert rounded.ranges().tolist() == pytest.approx([0, 2.55, 0, exact.max()], rel=1e-3)


def test_what_a_layer_takes_is_followed_as_slowly_as_what_it_gives():
    """memory 0.75: inputs of 2, then 6, come to 0.75 * 2 + 0.25 * 6 = 3. It gives 2, then 3: 0.75 * 2 + 0.25 * 3."""
    import tensorflow as tf

    model = new_model()
    layer = model.get_layer("layer0_query")
    layer.set_weights([np.eye(16), np.zeros(16)])
    attached = FakeQuant(memory=0.75).attach(model, total_steps=2)
    rounded = next(one for one in attached.model.layers if one.name == "rounded_layer0_query")
    for high in (2.0, 6.0):
        rounded(tf.constant([[high, -1.0, *[0.0] * 14]]), training=True)
    assert attached.ranges()["layer0_query"].tolist() == pytest.approx([-1, 3, -1, 2.25], rel=0.01)


def test_a_kernel_is_rounded_as_tfmot_does_it():
    """But where a weight lies between two steps; an output without weights stays without."""
    import tensorflow as tf

    from optim.train.rounded import rounded_kernel

    kernel = np.random.default_rng(0).normal(size=(40, 30)).astype(np.float32)
    kernel[:, 3] = 0
    most = np.abs(kernel).max(axis=0)
    theirs = tf.quantization.fake_quant_with_min_max_vars_per_channel(kernel, -most, most, narrow_range=True).numpy()
    own, steps = rounded_kernel(tf.constant(kernel)).numpy(), most / 127
    np.testing.assert_array_equal(own[:, 3], 0)
    assert np.all(np.abs(own - kernel) <= steps / 2 * 1.001)
    assert np.mean(np.isclose(own, theirs, atol=1e-6)) > 0.99


def test_rounding_lets_gradients_through_as_they_are():
    """Those of values beyond the range too."""
    import tensorflow as tf
    import tf_keras as keras

    from optim.train.rounded import RunningRange, rounded_kernel

    quantizer, layer = RunningRange(0.9), keras.layers.Layer()
    weights = quantizer.build(None, "x", layer)
    quantizer(tf.constant([-1.0, 1.0]), True, weights)
    x, upstream = tf.constant([[-7.0, 0.333], [0.1, 9.0]]), tf.constant([[1.0, 2.0], [3.0, 4.0]])
    for function in (rounded_kernel, lambda x: quantizer(x, False, weights)):
        with tf.GradientTape() as tape:
            tape.watch(x)
            rounded = function(x)
        assert not np.array_equal(rounded, x)
        (gradient,) = tape.gradient(rounded, [x], output_gradients=[upstream])
        np.testing.assert_array_equal(gradient, upstream)


def test_the_fit_sees_rounding_and_leaves_float_weights_and_ranges(tmp_path):
    model = new_model()
    fit = fit_of(model, tokens_of(300), tmp_path, wrappers=[FakeQuant(memory=0.9)])
    names = [v.name for v in model.trainable_variables]
    assert [v.name for v in fit.trained] != []
    fit.run()
    assert [v.name for v in model.trainable_variables] == names
    assert sorted(fit.ranges) == sorted(KERNELS)
    for name, (low, high, out_low, out_high) in fit.ranges.items():
        assert low <= 0 < high, name
        assert out_low < 0 < out_high, name
    assert fit.fitted.holdout_accuracy_fraction >= 0.9


@pytest.mark.parametrize("bfloat16", [False, True])
def test_what_queries_keys_and_values_take_is_rounded_once(bfloat16, tmp_path):
    """2 layers that take 4 tensors and give 6; one range for all that take one tensor, by which the file is written."""
    from optim.encoder import graph

    fit = fit_of(graph.classifier(SHAPE, bfloat16=bfloat16), tokens_of(120), tmp_path, wrappers=[FakeQuant(memory=0.9)])
    operations = fit.train_step.get_concrete_function().graph.get_operations()
    assert sum(o.type == "FakeQuantWithMinMaxVars" for o in operations) == 2 * (4 + 6)
    fit.run()
    for layer in ("layer0", "layer1"):
        taken = [fit.ranges[f"{layer}_{part}"][:2].tolist() for part in ("query", "key", "value")]
        assert taken[0] == taken[1] == taken[2]
        assert fit.ranges[f"{layer}_ffn_in"][:2].tolist() != taken[0]


def test_only_the_kernel_of_a_product_without_fixed_ranges_is_rounded(tmp_path):
    """What the two feed-forward networks give is float: no range, and no rounding of what they take."""
    ranged = PRODUCTS["but_ffn_out"]
    fit = fit_of(new_model(), tokens_of(120), tmp_path, wrappers=[FakeQuant(memory=0.9, ranged=ranged)])
    operations = fit.train_step.get_concrete_function().graph.get_operations()
    assert sum(o.type == "FakeQuantWithMinMaxVars" for o in operations) == 2 * (3 + 5)
    fit.run()
    assert sorted(fit.ranges) == sorted(name for name in KERNELS if not name.endswith("ffn_out"))

    model = new_model()
    attached = FakeQuant(memory=0.0, ranged=ranged).attach(model, total_steps=1)
    layer = next(one for one in attached.model.layers if one.name == "rounded_layer0_ffn_out")
    kernel = model.get_layer("layer0_ffn_out").kernel
    weights, x = np.zeros(kernel.shape, np.float32), np.zeros((1, kernel.shape[0]), np.float32)
    weights[:2, 0], x[0, :2] = (127, 0.4), (0.1234567, 1)  # 0.4 of a step of 1 is none
    kernel.assign(weights)
    assert layer(x, training=True).numpy()[0, 0] == pytest.approx(0.1234567 * 127, rel=1e-6)


def test_a_half_fit_of_other_variables_begins_anew(tmp_path):
    tokens = tokens_of(120)
    fit_of(new_model(), tokens, tmp_path).run()
    fit = fit_of(new_model(), tokens, tmp_path, wrappers=[FakeQuant(memory=0.9)])
    assert fit._restore() == 0


def test_every_weight_is_trained_under_the_rounding(tmp_path):
    """Rounding lets gradients through: no kernel stays as it was."""
    model = new_model()
    before = {v.name: v.numpy() for v in model.trainable_variables}
    fit_of(model, tokens_of(120), tmp_path, wrappers=[FakeQuant(memory=0.9)]).run()
    for name in KERNELS:
        kernel = model.get_layer(name).kernel
        assert np.abs(kernel.numpy() - before[kernel.name]).max() > 1e-3, name


def test_mask_and_rounding_hold_on_one_model(tmp_path):
    model, recipe = new_model(), RECIPE
    pruner = Magnitude(schedule="constant", sparsity=0.5, **{**FIXED, "every_steps": 5})
    fit = fit_of(model, tokens_of(120), tmp_path, wrappers=[pruner, FakeQuant(memory=0.9)], recipe=recipe)
    fit.run()
    pruner.check(model)
    assert set(zeroed_fractions(model).values()) == {0.5}
    assert sorted(fit.ranges) == sorted(KERNELS)


def test_rounding_lies_over_the_mask():
    """A masked weight is 0 in the product, however it is rounded."""
    import tensorflow as tf

    model = new_model()
    pruner = Magnitude(schedule="constant", sparsity=0.5, **{**FIXED, "every_steps": 1})
    stack = Stack([pruner, FakeQuant(memory=0.0)], model, total_steps=100)
    kernel, seen = model.get_layer("layer0_query").kernel, []
    rounded = next(one for one in stack.model.layers if one.name == "rounded_layer0_query")
    whole = rounded.of_kernel

    def spy(value, *more):
        seen.append(value.numpy())
        return whole(value, *more)

    rounded.of_kernel = spy
    rounded.call(tf.ones((3, 16)), training=True)
    assert np.mean(seen[-1] == 0) == pytest.approx(0.5, abs=0.01)
    np.testing.assert_array_equal(seen[-1], kernel.numpy())


def test_a_fit_that_goes_on_has_its_ranges(tmp_path):
    tokens = tokens_of(120)
    first = fit_of(new_model(), tokens, tmp_path, wrappers=[FakeQuant(memory=0.9)])
    first.run()
    again = fit_of(new_model(1), tokens, tmp_path, wrappers=[FakeQuant(memory=0.9)])  # nothing is left to be done
    again.run()
    assert sorted(again.ranges) == sorted(first.ranges) == sorted(KERNELS)
    for name, value in first.ranges.items():
        np.testing.assert_array_equal(again.ranges[name], value)


def test_the_ranges_of_a_fit_are_those_of_the_epoch_that_is_kept(tmp_path, monkeypatch):
    """The second epoch is made to ruin the model: the file has the ranges that there were after the first."""
    seen, honest = [], Fit._epoch

    def epoch(fit: Fit, steps: range) -> None:
        honest(fit, steps)
        seen.append(fit.stack.ranges())
        if len(seen) == 2:
            fit.task.model.set_weights([np.zeros_like(weight) for weight in fit.task.model.get_weights()])

    monkeypatch.setattr(Fit, "_epoch", epoch)
    task = Task(model=new_model(), tokens=tokens_of(240), loss=HardLabels(teachers=("same",), teacher_seeds=(0,)),
                wrappers=[FakeQuant(memory=0.9)])  # fmt: skip
    step: Any = SimpleNamespace(kind="student", recipe=RECIPE, holdout_seed=0, transfer=(),
                                point=SimpleNamespace(schedule=replace(SCHEDULE, keep="best"), seed=0))  # fmt: skip
    stages: Any = SimpleNamespace(curve=lambda kind, row: None)
    found = FitStep._fit(step, task, tmp_path, tmp_path, stages)
    assert sorted(found) == sorted(KERNELS)
    for name, value in found.items():
        np.testing.assert_array_equal(value, seen[0][name])
        assert (value != seen[1][name]).any(), name


@pytest.mark.parametrize("memory", [-0.1, 1.0])
def test_a_memory_that_is_no_fraction_is_refused(memory):
    with pytest.raises(UserError, match=r"quant.memory must be a fraction in \[0, 1\)"):
        FakeQuant(memory=memory)
