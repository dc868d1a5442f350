"""What a recipe may add to a fit: by hand where numbers are small, and each seen to change what is learnt."""

# pyright: reportAttributeAccessIssue=false, reportArgumentType=false
from __future__ import annotations

import dataclasses
import math
import re

import numpy as np
import pytest
from small_fit import FIXED, OPEN, RECIPE, SCHEDULE, SHAPE, USUAL, fit_of, tokens_of

from optim.common.errors import UserError
from optim.data.tokens import UNLABELLED, bucketed_batches, pad
from optim.train.average import MovingAverage
from optim.train.distill import HardLabels, SoftTargets, on_logits
from optim.train.objective import View, hard_loss
from optim.train.optimizer import LazyAdamW, layer_scales
from optim.train.prune import Magnitude
from optim.train.recipe import Recipe
from optim.train.regularize import r_dropped, regularized, symmetric_divergence
from optim.train.scores import cross_entropy, logits_of

DROPPING = dataclasses.replace(SHAPE, hidden_dropout=0.2, attention_dropout=0.2, head_dropout=0.2)
ONE = dataclasses.replace(RECIPE, epochs=1)
HARD = HardLabels(teachers=("same",), teacher_seeds=(0,))


def new_model(shape=DROPPING, *, bfloat16: bool = False):
    import tf_keras as keras

    from optim.encoder import graph

    keras.utils.set_random_seed(0)
    return graph.classifier(shape, bfloat16=bfloat16)


def fitted(folder, recipe: Recipe, **more):
    """(weights, rows of the curve) of one fit of 120 sentences."""
    folder.mkdir()
    model, rows = new_model(), []
    fit_of(model, tokens_of(120), folder, recipe=recipe, on_row=rows.append, **more).run()
    return model.get_weights(), rows


def view(*logits) -> View:
    import tensorflow as tf

    return View(tf.constant(logits, tf.float32), {}, None)


# Neutral settings


def test_a_neutral_recipe_is_the_plain_loop_to_the_last_bit(tmp_path):
    """Beside a loop written out here, with nothing but the loss, clipped gradients and AdamW: no operation more."""
    import tensorflow as tf

    tokens, model, other = tokens_of(120), new_model(), new_model()
    fit = fit_of(model, tokens, tmp_path, recipe=ONE)
    fit.run()
    optimizer, variables = LazyAdamW(learning_rate=1.0, weight_decay=0.01, scales={}), other.trainable_variables
    specs = [tf.TensorSpec(shape, kind) for shape, kind in
             (([None, None], tf.int32), ([None, None], tf.int32), ([None], tf.int32), ([None], tf.float32),
              ([None, 0, None], tf.float32), ([], tf.float32), ([2], tf.int32))]  # fmt: skip

    @tf.function(autograph=False, input_signature=specs)
    def step(ids, mask, labels, weights, answers, rate, draw):
        optimizer.learning_rate.assign(rate)
        other.draws.assign(draw)
        with tf.GradientTape() as tape:
            logits = other({"input_ids": ids, "attention_mask": mask}, training=True)
            loss = tf.reduce_mean(weights * hard_loss(labels, logits))
        gradients, _ = tf.clip_by_global_norm(tape.gradient(loss, variables), 1.0)
        optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return loss

    optimizer._create_all_weights(variables)
    batches = bucketed_batches(tokens.lengths[fit.chosen], ONE.batch_size, np.random.default_rng([0, 0]))
    for number, batch in enumerate(batches):
        index = fit.chosen[batch]
        labels, rate = tokens.labels[index], np.float32(ONE.rate((number + 0.5) / len(batches)))
        answers = np.zeros((len(index), 0, 2), np.float32)
        draw = np.array([0, number], np.int32)
        args = (*pad(tokens, index), labels, np.ones(len(index), np.float32), answers, rate, draw)
        step(*map(tf.constant, args))
    for one, plain in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(one, plain)
    counts = [len(f.get_concrete_function().graph.get_operations()) for f in (fit.train_step, step)]
    assert counts[0] == counts[1] + 1, "the column of the teachers that run, of which there are none"
    assert not fit.average.variables


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """One epoch with a neutral recipe."""
    return fitted(tmp_path_factory.mktemp("plain") / "fit", ONE)


@pytest.mark.parametrize("change", [{"average": 0.9}, {"layer_decay": 0.5}, {"label_smoothing": 0.2}, {"r_drop": 1.0}])
def test_each_setting_changes_what_is_learnt(tmp_path, change, plain):
    other, _ = fitted(tmp_path / "other", dataclasses.replace(ONE, **change))
    assert max(np.abs(a - b).max() for a, b in zip(plain[0], other, strict=True)) > 1e-4


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"epochs": 0}, "fit.*.epochs must be above 0, got 0."),
        ({"steps": 0}, "fit.*.steps must be above 0, got 0."),
        ({"learning_rate": 0.0}, "fit.*.learning_rate must be above 0, got 0."),
        ({"warmup": 1.0}, "fit.*.warmup must be a fraction in [0, 1), got 1."),
        ({"average": 1.0}, "fit.*.average must be a fraction in [0, 1), got 1."),
        ({"layer_decay": 0.0}, "fit.*.layer_decay must be above 0, got 0."),
        ({"layer_decay": 1.1}, "fit.*.layer_decay must be a fraction in [0, 1], got 1.1."),
        ({"label_smoothing": 10}, "fit.*.label_smoothing must be a fraction in [0, 1), got 10. For 10 %, write 0.1."),
        ({"r_drop": -1.0}, "fit.*.r_drop must be 0 or above, got -1."),
        ({"head_dropout": 1.0}, "fit.*.head_dropout must be a fraction in [0, 1), got 1."),
        ({"dropout": -0.1}, "fit.*.dropout must be a fraction in [0, 1), got -0.1."),
    ],
)
def test_a_setting_out_of_range_is_refused_by_its_whole_name(change, said):
    for fit, recipe in (("teacher", OPEN), ("student", RECIPE)):
        with pytest.raises(UserError, match=re.escape(said.replace("*", fit))):
            dataclasses.replace(SCHEDULE, **{fit: dataclasses.replace(recipe, **change)})


def test_what_is_usual_for_a_model_is_refused_by_the_name_of_that_model():
    wrong = dataclasses.replace(USUAL["other"], batch_size=0)
    with pytest.raises(UserError, match=re.escape("fit.usual.mpnet.batch_size must be above 0, got 0.")):
        dataclasses.replace(SCHEDULE, usual={**USUAL, "mpnet": wrong})


# average


@pytest.mark.parametrize(("every", "expected"), [(1, 3.0), (2, 5.5 / 1.75)])
def test_the_average_of_three_steps_by_hand(every, expected):
    """Weights 1, 2, 4 at a decay of 1/2: (1/4 + 2/2 + 4) / (1/4 + 1/2 + 1) = 3.

    Read at every second step, and at the end: the first step counts as the second, (2/4 + 2/2 + 4) / (7/4).
    """
    import tensorflow as tf

    weight, seen = tf.Variable([9.0, -9.0]), []
    average = MovingAverage([weight], decay=0.5, every_steps=every)
    for steps, value in enumerate((1.0, 2.0, 4.0), start=1):
        weight.assign([value, -value])
        average.after_step(steps)
    with average.in_place(3, lambda: seen.append(weight.numpy())):
        np.testing.assert_allclose(weight.numpy(), [expected, -expected], rtol=1e-6)
    np.testing.assert_allclose(seen, [[expected, -expected]], rtol=1e-6)
    np.testing.assert_array_equal(weight.numpy(), [4, -4])


def test_the_average_is_kept_and_judged_and_the_steps_are_as_without_it(tmp_path):
    """Two epochs of 13 steps, read at steps 10, 13, 20 and 26: each stands for those since the one before it."""
    tokens, model, rows = tokens_of(120), new_model(), []
    fit = fit_of(model, tokens, tmp_path, recipe=dataclasses.replace(RECIPE, average=0.9), on_row=rows.append)
    honest, raw = fit._step, []

    def step(index, number):
        loss = honest(index, number)
        raw.append(model.get_weights())
        return loss

    fit._step = step
    done = fit.run()
    assert (len(raw), done.best_epoch) == (26, 1)
    shares = np.array([0.9 ** (26 - t) for t in range(1, 27)]) / sum(0.9**t for t in range(26))
    parts = {10: shares[:10].sum(), 13: shares[10:13].sum(), 20: shares[13:20].sum(), 26: shares[20:].sum()}
    for i, kept in enumerate(model.get_weights()):
        np.testing.assert_allclose(kept, sum(share * raw[t - 1][i] for t, share in parts.items()), atol=1e-6)
    held = tokens.take(fit.held)
    assert done.holdout_loss == cross_entropy(held.labels, logits_of(model, held))
    losses = [[row["loss"] for row in curve if "loss" in row] for curve in (rows, fitted(tmp_path / "fit", RECIPE)[1])]
    assert losses[0] == losses[1], "the second epoch goes on from the weights, not from their average"


def test_the_average_of_pruned_weights_has_the_last_mask(tmp_path):
    model = new_model()
    pruner = Magnitude(schedule="polynomial", sparsity=0.5, **FIXED)
    fit = fit_of(model, tokens_of(120), tmp_path, recipe=dataclasses.replace(RECIPE, average=0.95), wrappers=[pruner])
    fit.run()
    pruner.check(model)
    means = {w.name: m.numpy() for w, m in zip(model.trainable_variables, fit.average.means, strict=True)}
    kernel = model.get_layer("layer0_ffn_in").kernel
    assert np.mean(means[kernel.name] == 0) < 0.49, "masks that moved leave fewer zeros in the mean itself"
    kept = kernel.numpy() != 0
    np.testing.assert_array_equal(kernel.numpy()[kept], means[kernel.name][kept])


# layer_decay


def test_the_factors_of_a_model_of_two_layers_by_hand():
    """1/2 for each layer below the head: 1 for pooler and classifier, 1/2, 1/4, and 1/8 for the embeddings."""
    model = new_model()
    scales = layer_scales(model, 0.5)
    found = {w.name.split("/")[0]: scales[w.ref()] for w in model.trainable_weights}
    assert len(scales) == len(model.trainable_weights)
    by_hand = {"word_embeddings": 1 / 8, "position_embeddings": 1 / 8, "embeddings_norm": 1 / 8,
               "layer0_query": 1 / 4, "layer0_ffn_norm": 1 / 4, "layer1_attention_output": 1 / 2,
               "layer1_ffn_out": 1 / 2, "pooler": 1.0, "classifier": 1.0}  # fmt: skip
    assert {name: found[name] for name in by_hand} == by_hand


def test_the_bias_that_all_layers_share_moves_as_embeddings_do():
    """MPNet's, by the distance of two words: its checkpoint knows it, and it lies below the first layer."""
    model = new_model(dataclasses.replace(SHAPE, family="mpnet", relative_buckets=8))
    (bias,) = model.get_layer("relative_bias").trainable_weights
    assert layer_scales(model, 0.5)[bias.ref()] == 1 / 8


@pytest.mark.parametrize(
    ("bfloat16", "wrappers"),
    [(False, ()),
     pytest.param(True, (Magnitude(schedule="constant", sparsity=0.5, **FIXED),), marks=pytest.mark.slow)],
)  # fmt: skip
def test_each_layer_moves_by_its_factor(tmp_path, bfloat16, wrappers):
    """In Adam's first step a weight moves by its rate, whatever its gradient, and a kernel decays by its rate."""
    recipe = dataclasses.replace(ONE, batch_size=200, warmup=0.0, weight_decay=0.1)
    moved = []
    for decay in (1.0, 0.5):
        (tmp_path / str(decay)).mkdir()
        model = new_model(bfloat16=bfloat16)
        fit = fit_of(model, tokens_of(120), tmp_path / str(decay), wrappers=wrappers,
                     recipe=dataclasses.replace(recipe, layer_decay=decay))  # fmt: skip
        before = [w.numpy() for w in fit.trained]
        fit._step(fit.chosen, 0)
        moved.append([w.numpy() - b for w, b in zip(fit.trained, before, strict=True)])
    scales = layer_scales(model, 0.5)
    for one, half, weight in zip(*moved, model.trainable_weights, strict=True):
        masked = wrappers and "kernel" in weight.name and "classifier" not in weight.name
        if not masked:  # there the mask moves more than the step
            assert np.abs(one).max() > 1e-5 or "bias" in weight.name  # attention hardly feels a bias at the start
            np.testing.assert_allclose(half, scales[weight.ref()] * one, atol=2e-7, err_msg=weight.name)


def test_rows_of_an_embedding_move_by_its_factor():
    """Adam's first step is the rate times the sign of the gradient, here half of 0.1."""
    import tensorflow as tf

    table = tf.Variable(np.ones((4, 2), np.float32), name="embeddings")
    optimizer = LazyAdamW(learning_rate=0.1, weight_decay=0.0, scales={table.ref(): 0.5})
    gradient = tf.IndexedSlices(tf.constant([[1.0, -2.0]]), tf.constant([2]), tf.constant([4, 2]))
    optimizer.apply_gradients([(gradient, table)])
    np.testing.assert_allclose(table.numpy(), [[1, 1], [1, 1], [0.95, 1.05], [1, 1]], atol=1e-5)


# r_drop


def test_the_divergence_of_two_classes_by_hand():
    """p = (3/4, 1/4), q = (1/2, 1/2): KL(p || q) = 3/4 ln 3/2 + 1/4 ln 1/2, KL(q || p) = 1/2 ln 2/3 + 1/2 ln 2."""
    first = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    second = 0.5 * math.log(2 / 3) + 0.5 * math.log(2)
    p, q = np.array([[math.log(3), 0.0]], np.float32), np.zeros((1, 2), np.float32)
    for one, other in ((p, q), (q, p)):
        assert symmetric_divergence(one, other).numpy() == pytest.approx([(first + second) / 2], abs=1e-6)
    assert symmetric_divergence(p, p).numpy() == pytest.approx([0.0], abs=1e-7)


def test_r_drop_is_the_loss_of_both_passes_and_their_divergence_by_hand():
    """Two sentences twice: the first answered (3/4, 1/4), then (1/2, 1/2); the second the same both times."""
    distance = (0.75 * math.log(1.5) + 0.25 * math.log(0.5) + 0.5 * math.log(2 / 3) + 0.5 * math.log(2)) / 2
    objective = r_dropped(on_logits(HARD), 2.0)
    answers = view([math.log(3), 0], [0, 0], [0, 0], [0, 0])
    found = objective.value(np.array([0, 1, 0, 1]), answers, []).numpy()
    expected = [math.log(4 / 3) + 2 * distance, math.log(2), math.log(2) + 2 * distance, math.log(2)]
    assert found == pytest.approx(expected, abs=1e-6)
    assert objective.passes == 2


def test_both_passes_of_a_step_have_dropout_of_their_own(tmp_path):
    """Without dropout the loss is the plain one; with it both answers to a sentence differ, and the loss is above."""
    recipe = dataclasses.replace(ONE, r_drop=5.0)
    tokens = tokens_of(120)
    for shape, distance in ((SHAPE, 0.0), (DROPPING, 1e-3)):
        fit = fit_of(new_model(shape), tokens, tmp_path, recipe=recipe)
        head = fit.task.model.get_layer("classifier").kernel
        head.assign(100 * head)  # answers of a fresh model hardly differ from each other
        index = np.tile(fit.chosen[:8], 2)
        ids, mask = pad(tokens, index)
        fit.task.model.draws.assign([0, 0])
        logits = fit.task.model({"input_ids": ids, "attention_mask": mask}, training=True)
        apart = symmetric_divergence(logits[:8], logits[8:]).numpy()
        assert (apart.mean() > distance) if distance else apart == pytest.approx(0, abs=1e-6)
        plain = cross_entropy(tokens.labels[index], logits.numpy())
        assert fit._step(fit.chosen[:8], 0) == pytest.approx(plain + 5 * apart.mean(), abs=1e-5)


# label_smoothing


def test_smoothed_labels_by_hand():
    """A fifth shared by two classes: label 0 has 9/10, the other 1/10. Soft-max (3/4, 1/4)."""
    objective = regularized(on_logits(HARD), classes=2, label_smoothing=0.2, r_drop=0.0)
    found = objective.value(np.array([0, 1]), view([math.log(3), 0], [math.log(3), 0]), []).numpy()
    first, second = math.log(4 / 3), math.log(4)
    assert found == pytest.approx([0.9 * first + 0.1 * second, 0.1 * first + 0.9 * second], abs=1e-6)


def test_what_a_teacher_says_is_not_smoothed():
    """Only the tenth that the labels have of the loss changes; the teacher's part is that of the plain loss."""
    loss = on_logits(SoftTargets(temperature=2.0, teacher_weight=0.9, teachers=("same",), teacher_seeds=(0,)))
    smooth = regularized(loss, classes=2, label_smoothing=0.2, r_drop=0.0)
    args = np.array([0]), view([math.log(3), 0]), [view([0.0, 1.0])]
    hard, other = math.log(4 / 3), 0.9 * math.log(4 / 3) + 0.1 * math.log(4)
    assert smooth.value(*args).numpy() - loss.value(*args).numpy() == pytest.approx([0.1 * (other - hard)], abs=1e-6)


def test_smoothed_labels_bound_how_sure_answers_are(tmp_path):
    """Smoothed by 0.4 the best answer is (0.8, 0.2), a margin of ln 4; of plain labels there is no largest one."""
    tokens, model = tokens_of(120), new_model()
    fit_of(model, tokens, tmp_path, recipe=dataclasses.replace(RECIPE, epochs=4, label_smoothing=0.4)).run()
    logits = logits_of(model, tokens)
    assert np.abs(logits[:, 0] - logits[:, 1]).mean() == pytest.approx(math.log(4), abs=0.3)


def test_a_sentence_without_a_label_has_nothing_to_smooth():
    objective = regularized(on_logits(HARD), classes=2, label_smoothing=0.2, r_drop=0.0)
    answers = view([math.log(3), 0], [math.log(3), 0])
    found = objective.value(np.array([UNLABELLED, 0]), answers, []).numpy()
    assert found == pytest.approx([0, 0.9 * math.log(4 / 3) + 0.1 * math.log(4)], abs=1e-6)
