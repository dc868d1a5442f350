"""The maths of pruning, distillation and the loop, on numbers small enough to work out by hand."""

# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportUnusedExpression=false
from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from conftest import CONF, sentences
from hydra import compose, initialize_config_dir

from optim.common.build import build
from optim.common.errors import UserError
from optim.data.tokens import Tokens
from optim.encoder.architecture import Architecture
from optim.train.distill import HardLabels, SoftTargets
from optim.train.fit import Fit, Recipe, Schedule, TrainingDiverged, class_weights, cross_entropy, logits_of, split
from optim.train.prune import Magnitude, NoPruning, prunable, zeroed_fractions

SHAPE = Architecture(
    family="bert", vocabulary_size=40, position_count=32, width=16, head_width=8, heads=(2, 2), ffn_widths=(32, 32),
    norm_epsilon=1e-12, hidden_dropout=0.0, attention_dropout=0.0, head_dropout=0.0, pooling="mean", classes=2,
)  # fmt: skip
RECIPE = Recipe(epochs=2, batch_size=8, learning_rate=1e-2, warmup=0.1, weight_decay=0.01)
SCHEDULE = Schedule(teacher=RECIPE, student=RECIPE, holdout=0.1, holdout_minimum=20, class_weights="none",
                    precision="float32")  # fmt: skip
FIXED = {"initial_sparsity": 0.0, "power": 3.0, "begin": 0.0, "end": 1.0, "every_steps": 100}


class NoBar:
    """A progress bar that only counts."""

    def __init__(self) -> None:
        self.done = 0

    def reset(self, total: int) -> None:
        self.total = total

    def update(self, steps: int) -> None:
        self.done += steps


def tokens_of(count: int) -> Tokens:
    """The sentences of conftest under a vocabulary of whole words."""
    rows = sentences(count, seed=3)
    words = sorted({word for text, _ in rows for word in text.split()})
    ids = [np.array([1, *(2 + words.index(w) for w in text.split())], np.int32) for text, _ in rows]
    offsets = np.concatenate([[0], np.cumsum([len(i) for i in ids])]).astype(np.int64)
    return Tokens(np.concatenate(ids), offsets, np.array([label for _, label in rows], np.int32))


def new_model(seed: int = 0):
    """A classifier of SHAPE with seeded random weights."""
    import tf_keras as keras

    from optim.encoder import graph

    keras.utils.set_random_seed(seed)
    return graph.classifier(SHAPE)


def fit_of(
    model,
    tokens,
    scratch,
    *,
    pruner=None,
    loss=None,
    recipe=RECIPE,
    schedule=SCHEDULE,
    logits=None,
    on_row=lambda row: None,
    bar=None,
):
    """A fit with everything that the test does not care about filled in."""
    return Fit(
        model, tokens, np.zeros((len(tokens), 2), np.float32) if logits is None else logits,
        loss=loss or HardLabels(teacher="same"), pruner=pruner or NoPruning(), recipe=recipe, schedule=schedule, seed=0,
        scratch=scratch, on_row=on_row, bar=bar or NoBar(),
    )  # fmt: skip


# Distillation


def test_soft_targets_by_hand():
    """One sentence, logits (0, 0) against a teacher of (2 ln 3, 0), T = 2, label 0.

    Teacher at T: soft-max(ln 3, 0) = (3/4, 1/4); student: (1/2, 1/2).
    KL = 3/4 ln(3/2) + 1/4 ln(1/2) = 0.1308; times T² = 0.5233. Cross-entropy = ln 2.
    """
    loss = SoftTargets(temperature=2.0, teacher_weight=0.9, teacher="same")
    found = loss(np.array([0]), np.zeros((1, 2), np.float32), np.array([[2 * math.log(3), 0]], np.float32)).numpy()
    divergence = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert found == pytest.approx([0.1 * math.log(2) + 0.9 * 4 * divergence], abs=1e-6)


def test_soft_targets_are_one_number_for_each_sentence_summed_over_classes():
    loss = SoftTargets(temperature=1.0, teacher_weight=1.0, teacher="same")
    teacher = np.log(np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]], np.float32))
    student = np.log(np.array([[0.5, 0.25, 0.25], [0.2, 0.2, 0.6]], np.float32))
    by_hand = [sum(p * math.log(p / q) for p, q in zip(*rows, strict=True))
               for rows in ((np.exp(teacher[i]), np.exp(student[i])) for i in range(2))]  # fmt: skip
    assert loss(np.array([0, 2]), student, teacher).numpy() == pytest.approx(by_hand, abs=1e-6)


def test_a_student_that_copies_its_teacher_has_no_soft_loss():
    loss = SoftTargets(temperature=4.0, teacher_weight=1.0, teacher="same")
    logits = np.array([[1.0, -2.0], [0.3, 0.1]], np.float32)
    assert loss(np.array([0, 1]), logits, logits).numpy() == pytest.approx([0, 0], abs=1e-6)


def test_the_size_of_the_gradient_hardly_depends_on_the_temperature():
    """What temperature² is for (Hinton et al. 2015): small logits give the same gradient at any temperature."""
    import tensorflow as tf

    def size(temperature: float) -> float:
        student = tf.constant([[0.01, -0.01]])
        with tf.GradientTape() as tape:
            tape.watch(student)
            loss = SoftTargets(temperature=temperature, teacher_weight=1.0, teacher="same")
            value = loss(np.array([0]), student, tf.constant([[0.05, -0.03]]))
        return float(tf.norm(tape.gradient(value, student)))

    assert size(8.0) == pytest.approx(size(1.0), rel=0.01)


def test_hard_labels_do_not_look_at_the_teacher():
    student = np.array([[math.log(3), 0.0]], np.float32)  # soft-max: 3/4, 1/4
    for teacher in (0, 9):
        value = HardLabels(teacher="same")(np.array([1]), student, np.full((1, 2), teacher, np.float32))
        assert value.numpy() == pytest.approx([math.log(4)], abs=1e-6)


def test_balanced_classes_weigh_the_same_and_a_sentence_one_on_average():
    labels = np.array([0, 0, 0, 1])
    assert class_weights(labels, 2, "balanced") == pytest.approx([4 / 6, 4 / 2])
    assert class_weights(labels, 2, "balanced")[labels].mean() == pytest.approx(1)
    assert class_weights(labels, 2, "none").tolist() == [1, 1]
    assert class_weights(labels, 3, "balanced")[labels].mean() == pytest.approx(1), "a class without sentences"


def test_balanced_classes_move_the_answer_to_the_rare_one(tmp_path):
    """The same word with both labels, three to one: unweighted, a classifier says the frequent one, 3/4 sure."""
    tokens = Tokens(np.full(80, 1, np.int32), np.arange(81), (np.arange(80) % 4 == 0).astype(np.int32))
    shares = {}
    for how in ("none", "balanced"):
        schedule = dataclasses.replace(SCHEDULE, class_weights=how)
        model = new_model()
        fit_of(model, tokens, tmp_path, recipe=dataclasses.replace(RECIPE, epochs=6), schedule=schedule).run()
        (tmp_path / "epoch.npz").unlink()
        logits = logits_of(model, tokens)[0]
        shares[how] = 1 / (1 + math.exp(logits[0] - logits[1]))
    assert shares["none"] == pytest.approx(0.25, abs=0.1)
    assert shares["balanced"] == pytest.approx(0.5, abs=0.1)


def test_cross_entropy_by_hand():
    logits = np.array([[math.log(3), 0.0], [1000.0, 1000.0]])
    assert cross_entropy(np.array([0, 1]), logits) == pytest.approx((math.log(4 / 3) + math.log(2)) / 2)


# Pruning


@pytest.mark.parametrize("name", sorted(p.stem for p in (CONF / "prune").glob("*.yaml")))
def test_every_pruning_reaches_its_sparsity_and_holds_it(name, tmp_path):
    """Through the one loop with distillation: each kernel of the encoder and the pooler, not the classifier."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        pruner = build(compose("train", overrides=["model=tiny", "data=csv", f"prune={name}"]).prune, "prune")
    tokens, model = tokens_of(240), new_model()
    teacher = np.random.default_rng(0).normal(size=(240, 2)).astype(np.float32)
    kd = SoftTargets(temperature=2.0, teacher_weight=0.9, teacher="same")
    fit_of(model, tokens, tmp_path, pruner=pruner, loss=kd, logits=teacher).run()
    pruner.check(model)
    zeros = zeroed_fractions(model)
    expected = 0.0 if name == "none" else int(name[-2:]) / 100
    assert len(zeros) == 2 * 6 + 1
    assert all(z == pytest.approx(expected, abs=0.001) for z in zeros.values())
    assert np.mean(model.get_layer("classifier").kernel.numpy() == 0) == 0


def test_the_smallest_weights_go_and_stay_away(tmp_path):
    """fixed: after one step of no learning, what is zero is the smaller half of what there was."""
    tokens, model = tokens_of(60), new_model()
    before = {name: model.get_layer(name).kernel.numpy().copy() for name in prunable(model)}
    still = Recipe(epochs=1, batch_size=64, learning_rate=1e-12, warmup=0.0, weight_decay=0.0)
    pruner = Magnitude(schedule="constant", sparsity=0.5, **FIXED)
    fit_of(model, tokens, tmp_path, pruner=pruner, recipe=still).run()
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


def test_a_lost_mask_is_noticed():
    model = new_model()
    with pytest.raises(RuntimeError, match="did not hold: 13 kernels"):
        Magnitude(schedule="constant", sparsity=0.5, **FIXED).check(model)


@pytest.mark.parametrize("pooling", ["first", "mean"])
def test_a_pruned_step_multiplies_bfloat16_and_rounds_no_weight(pooling, tmp_path):
    """TFMOT's wrapper is float32 for its masks; what it wraps must still multiply in its own precision."""
    import tf_keras as keras

    from optim.encoder import graph

    keras.utils.set_random_seed(0)
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        model = graph.classifier(dataclasses.replace(SHAPE, pooling=pooling))
    finally:
        keras.mixed_precision.set_global_policy("float32")
    fit = fit_of(model, tokens_of(60), tmp_path, pruner=Magnitude(schedule="constant", sparsity=0.5, **FIXED))
    operations = fit.train_step.get_concrete_function().graph.get_operations()
    products = [o.outputs[0].dtype.name for o in operations if "MatMul" in o.type and "Grad" not in o.type]
    # 2 layers of 6 kernels, the pooler and the classifier: once forwards, twice backwards; 6 for each attention.
    assert products == ["bfloat16"] * (3 * 14 + 2 * 6)
    fit.run()
    kept = model.get_layer("layer0_ffn_in").kernel.numpy()
    assert np.mean(kept == 0) == pytest.approx(0.5, abs=0.001)
    low_bits = kept[kept != 0].view(np.uint32) & 0xFFFF  # those that bfloat16 lacks
    assert np.mean(low_bits != 0) > 0.9, "the weights themselves stay float32"


# The loop


def test_split_is_seeded_disjoint_and_complete():
    chosen, held = split(67_349, holdout=0.02, minimum=200, seed=0)
    assert len(held) == 1347
    assert len(np.intersect1d(chosen, held)) == 0
    assert len(np.union1d(chosen, held)) == 67_349
    assert len(split(8_543, holdout=0.02, minimum=200, seed=0)[1]) == 200
    assert len(split(100, holdout=0.02, minimum=200, seed=0)[1]) == 20
    assert (split(1000, holdout=0.1, minimum=1, seed=0)[1] != split(1000, holdout=0.1, minimum=1, seed=1)[1]).any()


def test_rate_rises_and_falls_in_straight_lines():
    recipe = Recipe(epochs=1, batch_size=1, learning_rate=1.0, warmup=0.2, weight_decay=0.0)
    assert [recipe.rate(p) for p in (0.0, 0.1, 0.2, 0.6, 1.0)] == pytest.approx([0, 0.5, 1, 0.5, 0])


def test_every_sentence_is_seen_once_an_epoch_and_the_curve_is_kept(tmp_path):
    rows, bar = [], NoBar()
    tokens = tokens_of(210)
    fit = fit_of(new_model(), tokens, tmp_path, on_row=rows.append, bar=bar)
    seen = []
    honest = fit._step
    fit._step = lambda index, step: seen.extend(index.tolist()) or honest(index, step)
    fitted = fit.run()
    kept = 210 - 21
    assert sorted(seen[:kept]) == sorted(seen[kept:]) == fit.chosen.tolist()
    assert bar.done == bar.total == 2 * math.ceil(kept / 8)
    assert fitted.rows == rows
    assert rows[0]["loss"] > rows[-2]["loss"]
    assert fitted.holdout_accuracy_fraction > 0.6


def test_the_best_epoch_is_kept_not_the_last(tmp_path):
    """The second epoch is made to ruin the model: the first one's weights come back."""
    tokens, model = tokens_of(240), new_model()
    fit = fit_of(model, tokens, tmp_path)
    honest = fit._epoch

    def epoch(number: int) -> None:
        honest(number)
        if number == 1:
            model.set_weights([np.zeros_like(w) for w in model.get_weights()])

    fit._epoch = epoch
    fitted = fit.run()
    assert fitted.best_epoch == 0
    held = tokens.take(fit.held)
    assert np.mean(logits_of(model, held).argmax(1) == held.labels) == fitted.holdout_accuracy_fraction


def test_a_killed_fit_goes_on_from_its_last_epoch(tmp_path):
    """Two epochs in one go, and the same with a stop between them, end at the same weights."""
    tokens = tokens_of(240)
    pruner = Magnitude(schedule="constant", sparsity=0.5, **FIXED)
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    whole = new_model()
    fit_of(whole, tokens, tmp_path / "a", pruner=pruner).run()

    class Killed(Exception):
        pass

    first = fit_of(new_model(), tokens, tmp_path / "b", pruner=pruner)
    honest = first._epoch
    first._epoch = lambda number: honest(number) if number == 0 else (_ for _ in ()).throw(Killed())
    with pytest.raises(Killed):
        first.run()
    resumed, bar = new_model(seed=9), NoBar()  # another start: what it ends with must come from the file
    second = fit_of(resumed, tokens, tmp_path / "b", pruner=pruner, bar=bar)
    ran = []
    honest_epoch = second._epoch
    second._epoch = lambda number: ran.append(number) or honest_epoch(number)
    second.run()
    assert ran == [1]
    assert bar.done == bar.total
    np.testing.assert_allclose(logits_of(resumed, tokens), logits_of(whole, tokens), atol=1e-3)


def test_a_loss_that_is_no_number_stops_with_the_way_out(tmp_path):
    hot = Recipe(epochs=1, batch_size=16, learning_rate=1e30, warmup=0.0, weight_decay=0.0)
    with pytest.raises(TrainingDiverged, match=r"learning_rate.*fit\.precision=float32"):
        fit_of(new_model(), tokens_of(240), tmp_path, recipe=hot).run()


def test_untouched_embedding_rows_do_not_move():
    """The lazy update by hand: Adam's first step is learning_rate times the sign of the gradient."""
    import tensorflow as tf

    from optim.train.optimizer import LazyAdamW

    table = tf.Variable(np.ones((4, 2), np.float32), name="embeddings")
    optimizer = LazyAdamW(learning_rate=0.1, weight_decay=0.5)
    gradient = tf.IndexedSlices(tf.constant([[1.0, -2.0], [1.0, -2.0]]), tf.constant([2, 2]), tf.constant([4, 2]))
    optimizer.apply_gradients([(gradient, table)])
    np.testing.assert_allclose(table.numpy(), [[1, 1], [1, 1], [0.9, 1.1], [1, 1]], atol=1e-5)


def test_kernels_decay_and_biases_do_not():
    import tensorflow as tf

    from optim.train.optimizer import LazyAdamW

    kernel = tf.Variable(np.ones((2, 2), np.float32), name="dense/kernel")
    bias = tf.Variable(np.ones(2, np.float32), name="dense/bias")
    optimizer = LazyAdamW(learning_rate=0.1, weight_decay=0.5)
    optimizer.apply_gradients([(tf.zeros((2, 2)), kernel), (tf.zeros(2), bias)])
    np.testing.assert_allclose(kernel.numpy(), 0.95, atol=1e-6)
    np.testing.assert_allclose(bias.numpy(), 1.0, atol=1e-6)


def test_build_refuses_what_is_not_ours():
    from omegaconf import OmegaConf

    for target in ("os.system", "optimx.run", "subprocess.run"):
        with pytest.raises(UserError, match="must name something in optim"):
            build(OmegaConf.create({"deep": {"_target_": target}}), "prune")
