"""Pruning: which weights go, when, and that they stay away."""

# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportUnusedExpression=false
from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from conftest import CONF
from hydra import compose, initialize_config_dir
from hypothesis import given
from hypothesis import strategies as st
from small_fit import FIXED, RECIPE, SHAPE, fit_of, new_model, tokens_of

from optim.common.build import build
from optim.common.errors import UserError
from optim.encoder.architecture import Bottleneck
from optim.encoder.kernels import prunable_shapes
from optim.train.distill import SoftTargets
from optim.train.prune import (
    Blocks,
    Magnitude,
    Movement,
    ZerosOf,
    _Untouched,
    prunable,
    shapes_of,
    zeroed_fraction,
    zeroed_fractions,
)


def pruner_of(name: str, *more: str):
    """The method that an option of conf/prune names."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return build(compose("train", overrides=["model=tiny", "data=csv", f"prune={name}", *more]).prune, "prune")


SHARES = {"none": 0.0, "nm24": 0.5, "block1x4": 0.5, "movement": 0.5}  # of the options whose name ends in no share
OPTIONS = sorted(p.stem for p in (CONF / "prune").glob("*.yaml"))
AVERAGED = ("nm24", "block1x4", "global50", "movement", "poly80")
SLOW = pytest.mark.slow
ALIKE = ("fixed50", "poly50")  # of these fixed80 and poly80 differ in a number


@pytest.mark.parametrize(
    ("name", "average"),
    [*(pytest.param(n, 0.0, marks=[SLOW] if n in ALIKE else []) for n in OPTIONS),
     *(pytest.param(n, 0.9, marks=[] if n == "movement" else [SLOW]) for n in AVERAGED)],
)  # fmt: skip
def test_every_pruning_reaches_its_sparsity_and_holds_it(name, average, tmp_path):
    """Through the one loop with distillation: each kernel of the encoder and the pooler, not the classifier."""
    pruner, tokens, model = pruner_of(name), tokens_of(240), new_model()
    teacher = np.random.default_rng(0).normal(size=(240, 2)).astype(np.float32)
    kd = SoftTargets(temperature=2.0, teacher_weight=0.9, teachers=("same",), teacher_seeds=(0,))
    recipe = dataclasses.replace(RECIPE, average=average)
    fit_of(model, tokens, tmp_path, wrappers=[pruner], loss=kd, logits=teacher, recipe=recipe).run()
    pruner.check(model)
    zeros, expected = zeroed_fractions(model), SHARES[name] if name in SHARES else int(name[-2:]) / 100
    assert len(zeros) == 2 * 6 + 1
    assert zeroed_fraction(model) == pytest.approx(expected, abs=0.001)
    if not name.startswith("global"):
        assert all(z == pytest.approx(expected, abs=0.001) for z in zeros.values())
    assert np.mean(model.get_layer("classifier").kernel.numpy() == 0) == 0


def test_the_smallest_weights_go_and_stay_away(tmp_path):
    """fixed: after one step of no learning, what is zero is the smaller half of what there was."""
    tokens, model = tokens_of(60), new_model()
    before = {name: model.get_layer(name).kernel.numpy().copy() for name in prunable(model)}
    still = dataclasses.replace(RECIPE, epochs=1, batch_size=64, learning_rate=1e-12, warmup=0.0, weight_decay=0.0)
    pruner = Magnitude(schedule="constant", sparsity=0.5, **FIXED)
    fit_of(model, tokens, tmp_path, wrappers=[pruner], recipe=still).run()
    for name, kernel in before.items():
        expected = np.abs(kernel) >= np.median(np.abs(kernel))
        np.testing.assert_array_equal(model.get_layer(name).kernel.numpy() != 0, expected)


def test_the_polynomial_follows_its_cubic():
    """Zhu & Gupta 2017, eq. 1: s(t) = s_f + (s_i - s_f) (1 - t)^3; at half way 0.8 (1 - 1/8) = 0.7."""
    pruner = Magnitude(schedule="polynomial", sparsity=0.8, **{**FIXED, "every_steps": 1})
    schedule = pruner._steps(101)
    assert [float(schedule(step)[1]) for step in (1, 51, 101)] == pytest.approx([0.0, 0.7, 0.8], abs=1e-6)
    assert bool(schedule(101)[0])


def test_the_polynomial_draws_its_last_mask_before_the_end():
    for total in (10, 37, 250, 1032):
        schedule = Magnitude(schedule="polynomial", sparsity=0.8, **{**FIXED, "end": 0.6})._steps(total)
        assert schedule.end_step <= total
        assert bool(schedule(schedule.end_step)[0])
        assert float(schedule(schedule.end_step)[1]) == pytest.approx(0.8)


@pytest.mark.parametrize(
    ("begin", "end", "total", "steps"),
    [(0.92, 1.0, 1000, (920, 1000, 80)), (0.92, 1.0, 50, (46, 50, 4)), (0.999, 1.0, 10, (9, 10, 1)),
     (0.0, 0.6, 1, (1, -1, 1)), (0.9, 0.95, 1000, (900, 1000, 100)), (0.1, 0.7, 1000, (100, 600, 100)),
     (0.0, 1.0, 37, (1, 37, 3)), (0.0, 0.6, 2, (1, 2, 1))],
)  # fmt: skip
def test_a_late_begin_shortens_the_stride_and_no_other(begin, end, total, steps):
    """First step, last step, stride, by hand. -1: a constant schedule, for a fit with no step left to grow in."""
    pruner = Magnitude(schedule="polynomial", sparsity=0.8, **{**FIXED, "begin": begin, "end": end})
    schedule = pruner._steps(total)
    assert (schedule.begin_step, schedule.end_step, schedule.frequency) == steps
    due, sparsity = schedule(total if steps[1] < 0 else steps[1])
    assert (bool(due), float(sparsity)) == (True, pytest.approx(0.8))


@given(st.floats(0, 1, exclude_max=True), st.floats(0, 1), st.integers(1, 3000), st.integers(1, 200))
def test_every_polynomial_ends_within_its_fit(begin, share, total, every):
    end = begin + share * (1 - begin)
    pruner = Magnitude(schedule="polynomial", sparsity=0.8, **{**FIXED, "begin": begin, "end": end,
                                                               "every_steps": every})  # fmt: skip
    schedule = pruner._steps(total)
    assert 1 <= schedule.begin_step <= total
    assert schedule.end_step <= total


@pytest.mark.parametrize("name", ["fixed50", "movement"])
def test_a_small_kernel_is_pruned_to_the_nearest_weight(name):
    """230 or 231 of 256 are no 0.9, to a tenth of a point; two more or fewer are too many or too few."""
    pruner, model = pruner_of(name, "prune.sparsity=0.9"), new_model()
    for more, holds in ((0, True), (1, True), (2, False), (-1, False)):
        for kernel in (model.get_layer(layer).kernel for layer in prunable(model)):
            size = kernel.shape.num_elements()
            kernel.assign((np.arange(size) >= int(0.9 * size) + more).astype(np.float32).reshape(kernel.shape))
        if holds:
            pruner.check(model)
        else:
            with pytest.raises(RuntimeError, match="did not hold"):
                pruner.check(model)


def test_few_weights_together_are_pruned_to_the_nearest_one(monkeypatch):
    """7 of 13 are no 0.5."""
    pruner, kernel = pruner_of("global50"), np.ones(13)
    monkeypatch.setattr("optim.train.prune.kernels_of", lambda model: {"one": kernel[:4], "other": kernel[4:]})
    for zeros, holds in ((6, True), (7, True), (5, False), (8, False)):
        kernel[:] = np.arange(13) >= zeros
        if holds:
            pruner.check(None)
        else:
            with pytest.raises(RuntimeError, match="did not hold"):
                pruner.check(None)


LATE = ("prune.begin=0.97", "prune.end=1")  # of 24 steps, each mask after the second: the first is drawn in the 23rd


@pytest.mark.parametrize(
    ("name", "more", "steps"),
    [("poly50", (), 1), ("movement", LATE, 24),
     pytest.param("poly50", LATE, 24, marks=SLOW), pytest.param("movement", (), 1, marks=SLOW)],
)  # fmt: skip
def test_a_mask_that_comes_late_is_there_at_the_end(name, more, steps, tmp_path):
    model, pruner = new_model(), pruner_of(name, *more)
    recipe = dataclasses.replace(RECIPE, steps=steps)
    fit_of(model, tokens_of(60), tmp_path, wrappers=[pruner], recipe=recipe).run()
    pruner.check(model)


def test_a_lost_mask_is_noticed():
    model = new_model()
    with pytest.raises(RuntimeError, match="did not hold: 13 kernels"):
        Magnitude(schedule="constant", sparsity=0.5, **FIXED).check(model)


@pytest.mark.parametrize(
    ("name", "pooling"),
    [("fixed50", "first"), ("movement", "mean"), pytest.param("fixed50", "mean", marks=SLOW),
     *(pytest.param(n, "mean", marks=SLOW) for n in ("nm24", "block1x4", "global50")),
     pytest.param("movement", "first", marks=SLOW)],
)  # fmt: skip
def test_a_pruned_step_multiplies_bfloat16_and_rounds_no_weight(name, pooling, tmp_path):
    """TFMOT's wrapper is float32 for its masks, and so is ours; what they wrap must multiply in its own precision."""
    import tf_keras as keras

    from optim.encoder import graph

    keras.utils.set_random_seed(0)
    model, pruner = graph.classifier(dataclasses.replace(SHAPE, pooling=pooling), bfloat16=True), pruner_of(name)
    fit = fit_of(model, tokens_of(60), tmp_path, wrappers=[pruner])
    operations = fit.train_step.get_concrete_function().graph.get_operations()
    products = [o.outputs[0].dtype.name for o in operations if "MatMul" in o.type and "Grad" not in o.type]
    # 2 layers of 6 kernels, the pooler and the classifier: once forwards, twice backwards, and what sums up for the
    # bias; 6 for each attention.
    assert products == ["bfloat16"] * (4 * 14 + 2 * 6)
    fit.run()
    pruner.check(model)
    kept = model.get_layer("layer0_ffn_in").kernel.numpy()
    low_bits = kept[kept != 0].view(np.uint32) & 0xFFFF  # those that bfloat16 lacks
    assert np.mean(low_bits != 0) > 0.9, "the weights themselves stay float32"


# Patterns

# Two steps in which nothing is learnt.
STILL = dataclasses.replace(RECIPE, epochs=1, batch_size=30, learning_rate=1e-12, warmup=0.0, weight_decay=0.0)


def magnitudes(model) -> dict[str, np.ndarray]:
    return {name: np.abs(model.get_layer(name).kernel.numpy()) for name in prunable(model)}


def test_two_of_four_neighbours_along_the_inputs_are_the_smaller_ones(tmp_path):
    """In each column the larger two of inputs 0 to 3, of 4 to 7, and so on, stay."""
    model = new_model()
    before = magnitudes(model)
    fit_of(model, tokens_of(60), tmp_path, wrappers=[ZerosOf(zeros=2, group=4)], recipe=STILL).run()
    for name, kernel in before.items():
        groups = kernel.T.reshape(-1, 4)
        stay = (groups >= np.sort(groups, axis=1)[:, 2:3]).reshape(kernel.T.shape).T
        np.testing.assert_array_equal(model.get_layer(name).kernel.numpy() != 0, stay)


def test_the_blocks_of_least_mean_magnitude_go_whole(tmp_path):
    model = new_model()
    before = magnitudes(model)
    fit_of(model, tokens_of(60), tmp_path, wrappers=[pruner_of("block1x4")], recipe=STILL).run()
    for name, kernel in before.items():
        means = kernel.reshape(len(kernel), -1, 4).mean(axis=2)
        stay = np.repeat(means >= np.median(means), 4, axis=1)
        np.testing.assert_array_equal(model.get_layer(name).kernel.numpy() != 0, stay)


def test_one_threshold_for_all_kernels_takes_more_from_the_smaller(tmp_path):
    """A kernel that is a hundred times smaller than the rest goes whole."""
    model = new_model()
    small = model.get_layer("layer0_ffn_in")
    small.kernel.assign(small.kernel / 100)
    before = magnitudes(model)
    fit_of(model, tokens_of(60), tmp_path, wrappers=[pruner_of("global50")], recipe=STILL).run()
    threshold = np.median(np.concatenate([kernel.ravel() for kernel in before.values()]))
    for name, kernel in before.items():
        np.testing.assert_array_equal(model.get_layer(name).kernel.numpy() != 0, kernel > threshold)
    assert zeroed_fractions(model)["layer0_ffn_in"] == 1.0


@pytest.mark.parametrize(
    ("pruner", "said"),
    [
        (ZerosOf(zeros=2, group=5), r"prune.group must divide .* layer0_query is \[16, 16\].* got 5"),
        (
            Blocks(schedule="constant", sparsity=0.5, block=(1, 12), **FIXED),
            r"layer0_query is \[16, 16\], got \[1, 12\]",
        ),
        (
            Blocks(schedule="constant", sparsity=0.5, block=(32, 1), **FIXED),
            r"layer0_query is \[16, 16\], got \[32, 1\]",
        ),
    ],
)
def test_a_block_that_does_not_divide_a_kernel_is_refused_by_name(pruner, said, tmp_path):
    with pytest.raises(UserError, match=said) as refused:
        pruner.require(prunable_shapes(SHAPE))
    assert "\n" not in str(refused.value)
    with pytest.raises(UserError, match=said):  # and where the shapes were not known before
        fit_of(new_model(), tokens_of(60), tmp_path, wrappers=[pruner])


BOTTLENECK = Bottleneck(embedding_width=12, width=8, ffn_count=3)
FAMILIES = {
    "bert": SHAPE,
    "uneven": dataclasses.replace(SHAPE, heads=(2, 1), ffn_widths=(32, 24)),
    "distilbert": dataclasses.replace(SHAPE, family="distilbert"),
    "mpnet": dataclasses.replace(SHAPE, family="mpnet", relative_buckets=8),
    "mobilebert": dataclasses.replace(SHAPE, family="mobilebert", head_width=4, pooling="first", bottleneck=BOTTLENECK),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_shapes_told_before_the_graph_is_built_are_those_of_the_graph(family):
    from optim.encoder import graph

    shape = FAMILIES[family]
    assert prunable_shapes(shape) == shapes_of(graph.classifier(shape))


@pytest.mark.parametrize("name", ["nm24", "block1x4", "global50", "movement"])
def test_a_pattern_that_was_lost_is_noticed(name):
    """A model without zeros; and one with half of its weights zero, as it should be, but not in the pattern."""
    model, pruner = new_model(), pruner_of(name)
    with pytest.raises(RuntimeError, match="did not hold"):
        pruner.check(model)
    if name in ("nm24", "block1x4"):
        rng = np.random.default_rng(0)
        for kernel in (model.get_layer(layer).kernel for layer in prunable(model)):
            kernel.assign(kernel * rng.permutation(np.arange(kernel.shape.num_elements()) % 2).reshape(kernel.shape))
        with pytest.raises(RuntimeError, match="did not hold"):
            pruner.check(model)


# Movement


def test_a_score_moves_with_the_gradient_times_the_weight_by_hand():
    """y = x W M with x = 1, W = (3, -2), M = (1, 0), L = 2 y0 + 5 y1. dL/d(WM) = (2, 5): dS = (6, -10), dW = (2, 0)."""
    import tensorflow as tf

    from optim.encoder.layers import Dense
    from optim.train.masked import Masked

    masks = type("Masks", (), {"learnt": True, "layers": []})()
    layer: Any = Masked(Dense(2, name="one"), masks)
    layer.build((None, 1))
    layer.layer.kernel.assign([[3.0, -2.0]])
    layer.mask.assign([[1.0, 0.0]])
    layer.scores.assign([[0.7, -0.3]])
    with tf.GradientTape() as tape:
        said = layer(tf.ones((1, 1)))
        loss = tf.reduce_sum(said * [2.0, 5.0])
    gradients: Any = tape.gradient(loss, (layer.scores, layer.layer.kernel))  # type: ignore[call-overload]
    np.testing.assert_array_equal(said, [[3, 0]])
    np.testing.assert_allclose(gradients[0], [[6, -10]])
    np.testing.assert_allclose(gradients[1], [[2, 0]])


def test_masks_keep_the_highest_scores_of_a_kernel_or_of_all():
    """4 + 2 scores, half away: the two lowest of four and the lower of two; or the three lowest of all six."""
    from optim.train.masked import drawn

    scores = [np.array([[-3.0, 5.0], [4.0, 6.0]], np.float32), np.array([[2.0, 3.0]], np.float32)]
    each, together = drawn(0.5, scores, across=False), drawn(0.5, scores, across=True)
    np.testing.assert_array_equal(each[0], [[0, 1], [0, 1]])
    np.testing.assert_array_equal(each[1], [[0, 1]])
    np.testing.assert_array_equal(together[0], [[0, 1], [1, 1]])
    np.testing.assert_array_equal(together[1], [[0, 0]])
    assert [m.sum() for m in drawn(0.5, [np.zeros((3, 4), np.float32)], across=False)] == [6], "of equal ones as many"


@given(st.lists(st.integers(1, 40), min_size=1, max_size=4), st.floats(0, 0.99), st.booleans(), st.integers(0, 9))
def test_masks_take_away_their_share_to_the_nearest_weight(sizes, sparsity, across, seed):
    from optim.train.masked import drawn

    rng = np.random.default_rng(seed)
    scores = [rng.integers(0, 5, (size, 3)).astype(np.float32) for size in sizes]  # many of them equal
    masks = drawn(sparsity, scores, across=across)
    parts = [(np.concatenate([s.ravel() for s in scores]), np.concatenate([m.ravel() for m in masks]))]
    for score, mask in parts if across else zip(scores, masks, strict=True):
        assert (mask == 0).sum() == min(round(mask.size * sparsity), mask.size - 1)
        assert score[mask == 1].min() >= score[mask == 0].max(initial=-1)


def test_what_a_mask_hides_goes_on_after_an_epoch(tmp_path):
    """Scored and saved weights have zeros; in the next step the hidden values are there, for their scores to learn."""
    tokens, model = tokens_of(120), new_model()
    fit = fit_of(model, tokens, tmp_path, wrappers=[pruner_of("movement", "prune.begin=0", "prune.end=0.2")])
    seen, layer, honest = [], fit.stack.parts[0].layers[0], fit._epoch

    def epoch(steps: range) -> None:
        honest(steps)
        seen.append([value.numpy() for value in (layer.hidden, layer.layer.kernel, layer.mask, layer.scores)])

    fit._epoch = epoch
    fit.run()
    (hidden, kernel, mask, scores), (*_, later) = seen
    assert np.mean(mask == 0) == pytest.approx(0.5, abs=0.01)
    assert (kernel[mask == 0] == 0).all()
    assert np.mean(hidden[mask == 0] != 0) > 0.9
    assert np.mean(later[mask == 0] != scores[mask == 0]) > 0.9, "scores of hidden weights are learnt on"


def test_an_unknown_scope_is_refused():
    with pytest.raises(UserError, match=r"prune\.scope must be kernel or global, got 'layer'"):
        Movement(schedule="polynomial", sparsity=0.5, scope="layer", **FIXED)


@dataclasses.dataclass(frozen=True)
class Around:
    """Puts a layer around each that prunes, as training for quantization does; changes no number."""

    changes: bool = True
    packages: tuple[str, ...] = ()

    def attach(self, model: Any, *, total_steps: int) -> Any:
        import tf_keras as keras

        class Outer(keras.layers.Wrapper):
            def call(self, inputs, training=None):
                return self.layer(inputs, training=training)

        def wrap(layer):
            return Outer(layer, name=f"outer_{layer.name}") if isinstance(layer, keras.layers.Wrapper) else layer

        around = _Untouched(keras.models.clone_model(model, clone_function=wrap))
        assert sum(isinstance(layer, Outer) for layer in around.model.layers) == 13
        return around

    def check(self, model: Any) -> None: ...


@pytest.mark.parametrize("name", ["movement", "nm24"])
def test_masks_hold_under_another_wrapper(name, tmp_path):
    model, pruner = new_model(), pruner_of(name)
    fit = fit_of(model, tokens_of(120), tmp_path, wrappers=[pruner, Around()])
    fit.run()
    pruner.check(model)
    if name == "movement":
        assert int(fit.stack.parts[0].layers[0].steps.numpy()) == fit.total_steps, "a step is counted once"


def test_what_a_mask_hid_is_back_in_the_next_step():
    """Step 1 hides the smaller halves, an epoch ends; in step 2, which draws nothing, each weight is what it was.

    In between other weights stand in for a while, as an average does that is scored: masked too, and never kept.
    """
    import tensorflow as tf

    from optim.train.masked import Masks

    model = new_model()
    before = {name: model.get_layer(name).kernel.numpy() for name in prunable(model)}
    masks = Masks(model, prunable(model), lambda step: (tf.equal(step, 1), tf.constant(0.5)), 10, learnt=False,
                  across=False)  # fmt: skip
    step = tf.function(masks.before_step, autograph=False)
    step()
    masks.after_epoch()
    assert set(zeroed_fractions(model).values()) == {0.5}
    own = model.get_weights()
    model.set_weights([weight + 1 for weight in own])
    masks.after_epoch()
    assert set(zeroed_fractions(model).values()) == {0.5}
    model.set_weights(own)
    step()
    for name, kernel in before.items():
        np.testing.assert_array_equal(model.get_layer(name).kernel.numpy(), kernel)


@pytest.mark.parametrize(("name", "before", "after"), [("poly80", 0.5, 0.52), ("movement", 0.59, 0.61)])
def test_no_epoch_counts_before_the_last_mask_is_drawn(name, before, after):
    """Of 100 steps the last mask is drawn in the 51st, and in the 60th."""
    attached = pruner_of(name).attach(new_model(), total_steps=100)
    assert (attached.settled(before), attached.settled(after)) == (False, True)


def test_a_mask_that_is_drawn_once_and_late_is_settled_then():
    late = Magnitude(schedule="constant", sparsity=0.5, **{**FIXED, "begin": 0.5})
    attached = late.attach(new_model(), total_steps=100)
    assert (attached.settled(0.4), attached.settled(0.6)) == (False, True)


def test_a_polynomial_has_its_first_sparsity_and_its_power():
    """From 0.2 to 0.8 in a straight line."""
    pruner = Magnitude(schedule="polynomial", sparsity=0.8,
                       **{**FIXED, "every_steps": 1, "initial_sparsity": 0.2, "power": 1.0})  # fmt: skip
    schedule = pruner._steps(101)
    assert [float(schedule(step)[1]) for step in (1, 51, 101)] == pytest.approx([0.2, 0.5, 0.8], abs=1e-6)


def test_a_constant_sparsity_begins_where_it_is_told():
    schedule = Magnitude(schedule="constant", sparsity=0.5, **{**FIXED, "begin": 0.5})._steps(101)
    assert [bool(schedule(step)[0]) for step in (1, 50, 51)] == [False, False, True]


@pytest.mark.parametrize(("scope", "across"), [("kernel", False), ("global", True)])
def test_the_scope_of_movement_is_that_of_its_threshold(scope, across):
    pruner = Movement(schedule="polynomial", sparsity=0.5, scope=scope, **FIXED)
    masks: Any = pruner.attach(new_model(), total_steps=10)
    assert (masks.learnt, masks.across) == (True, across)
