"""The one loop: what it sees, keeps, and goes on from."""

# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportUnusedExpression=false
from __future__ import annotations

import dataclasses
import gc
import math
import weakref

import numpy as np
import pytest
from small_fit import FIXED, RECIPE, SCHEDULE, NoBar, fit_of, new_model, tokens_of

from optim.common.errors import UserError
from optim.data.copies import copies_of
from optim.train import saved
from optim.train.fit import TrainingDiverged
from optim.train.prune import Magnitude
from optim.train.rows import split
from optim.train.scores import forget, logits_of


def test_split_is_seeded_disjoint_and_complete():
    chosen, held = split(67_349, holdout=0.02, minimum=200, seed=0)
    assert len(held) == 1347
    assert len(np.intersect1d(chosen, held)) == 0
    assert len(np.union1d(chosen, held)) == 67_349
    assert len(split(8_543, holdout=0.02, minimum=200, seed=0)[1]) == 200
    assert len(split(100, holdout=0.02, minimum=200, seed=0)[1]) == 20
    assert (split(1000, holdout=0.1, minimum=1, seed=0)[1] != split(1000, holdout=0.1, minimum=1, seed=1)[1]).any()


def test_the_held_out_slice_has_a_seed_of_its_own(tmp_path):
    """Students of several seeds that start from one teacher are judged by the sentences that this one has not seen."""
    seeds = ((0, 7), (1, 7), (0, 8))
    one, other, third = (
        fit_of(new_model(), tokens_of(200), tmp_path, seed=seed, holdout_seed=held).held.tolist()
        for seed, held in seeds
    )
    assert one == other != third


def test_rate_rises_and_falls_in_straight_lines():
    recipe = dataclasses.replace(RECIPE, learning_rate=1.0, warmup=0.2)
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
    assert bar.n == bar.total == 2 * math.ceil(kept / 8)
    assert fitted.rows == rows
    assert rows[0]["loss"] > rows[-2]["loss"]
    assert fitted.holdout_accuracy_fraction > 0.6


@pytest.mark.parametrize(("keep", "kept"), [("best", 0), ("last", 1)])
def test_the_epoch_is_kept_that_is_asked_for(keep, kept, tmp_path):
    """The second epoch is made to ruin the model: the first one's weights come back where the best is wanted."""
    tokens, model = tokens_of(240), new_model()
    fit = fit_of(model, tokens, tmp_path, schedule=dataclasses.replace(SCHEDULE, keep=keep))
    honest = fit._epoch

    def epoch(steps: range) -> None:
        honest(steps)
        if steps.start == fit.epoch_steps:
            model.set_weights([np.zeros_like(w) for w in model.get_weights()])

    fit._epoch = epoch
    fitted = fit.run()
    assert fitted.best_epoch == kept
    held = tokens.take(fit.held)
    assert np.mean(logits_of(model, held).argmax(1) == held.labels) == fitted.holdout_accuracy_fraction


@pytest.mark.parametrize(
    ("settled", "error", "said"),
    [(False, UserError, r"prune must draw its last mask by the last step of the fit, 2, .* Lower prune\.begin"),
     (True, TrainingDiverged, r"was never a finite number: lower fit\.\*\.learning_rate \(now 0\.01\)")],
)  # fmt: skip
def test_a_fit_that_has_nothing_to_keep_says_why(settled, error, said, tmp_path, monkeypatch):
    monkeypatch.setattr("optim.train.fit.cross_entropy", lambda labels, logits: math.nan)
    recipe, best = dataclasses.replace(RECIPE, steps=2), dataclasses.replace(SCHEDULE, keep="best")
    fit = fit_of(new_model(), tokens_of(60), tmp_path, recipe=recipe, schedule=best)
    fit.stack.settled = lambda progress: settled
    with pytest.raises(error, match=said):
        fit.run()


@pytest.mark.slow
def test_a_killed_fit_goes_on_from_its_last_epoch(tmp_path):
    """Two epochs in one go, and the same with a stop between them, end at the same weights."""
    tokens = tokens_of(240)
    pruner = Magnitude(schedule="constant", sparsity=0.5, **FIXED)
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    whole = new_model()
    fit_of(whole, tokens, tmp_path / "a", wrappers=[pruner]).run()

    class Killed(Exception):
        pass

    first = fit_of(new_model(), tokens, tmp_path / "b", wrappers=[pruner])
    honest = first._epoch
    first._epoch = lambda steps: honest(steps) if steps.start == 0 else (_ for _ in ()).throw(Killed())
    with pytest.raises(Killed):
        first.run()
    resumed, bar = new_model(seed=9), NoBar()  # another start: what it ends with must come from the file
    second = fit_of(resumed, tokens, tmp_path / "b", wrappers=[pruner], bar=bar)
    ran = []
    honest_epoch = second._epoch
    second._epoch = lambda steps: ran.append(steps) or honest_epoch(steps)
    second.run()
    assert ran == [range(first.epoch_steps, first.total_steps)]
    assert bar.n == bar.total
    np.testing.assert_allclose(logits_of(resumed, tokens), logits_of(whole, tokens), atol=1e-3)


def test_killed_answers_go_on_from_what_was_saved(tmp_path, monkeypatch):
    """Of 600 sentences the first 256 are saved; only the others are answered again, and all as in one go."""
    monkeypatch.setattr("optim.train.saved.SAVE_SECONDS", -1)
    tokens, model, told = tokens_of(600), new_model(), []

    def dies(done: int) -> None:
        if done > 256:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        logits_of(model, tokens, progress=dies, scratch=tmp_path)
    resumed = logits_of(model, tokens, progress=told.append, scratch=tmp_path)
    assert told == [512, 600]
    np.testing.assert_array_equal(resumed, logits_of(model, tokens))


@pytest.mark.parametrize("damage", [lambda b: b"", lambda b: b[: len(b) // 2], lambda b: b[:99] + b"xyz" + b[102:]])
def test_what_was_saved_and_is_damaged_is_nothing_to_go_on_from(damage, tmp_path):
    """As a power failure leaves it. The same command would end with it each time."""
    saved.put(tmp_path, done=7, logits=np.ones((600, 2)))
    assert saved.read(tmp_path)["done"] == 7
    file = tmp_path / saved.SAVED
    file.write_bytes(damage(file.read_bytes()))
    assert saved.read(tmp_path) == {}
    tokens, model = tokens_of(120), new_model()
    np.testing.assert_array_equal(logits_of(model, tokens, scratch=tmp_path), logits_of(model, tokens))
    assert fit_of(model, tokens, tmp_path)._restore() == 0


def test_copies_of_a_text_are_held_out_together():
    """Of 100 rows 60 are one text and 20 are ten pairs: a tenth is held out, not that text, and no pair is parted."""
    texts = ["thank you"] * 60 + [f"pair {i // 2}" for i in range(20)] + [f"text {i}" for i in range(20)]
    copies = copies_of(["Thank you!", *texts[1:]])
    assert copies is not None
    parted = 0
    for seed in range(8):
        fitted, held = split(100, holdout=0.1, minimum=1, seed=seed, copies=copies)
        assert sorted([*fitted, *held]) == list(range(100))
        assert 9 <= len(held) <= 10
        assert not {texts[i] for i in fitted} & {texts[i] for i in held}
        _, plain = split(100, holdout=0.1, minimum=1, seed=seed)
        parted += bool({texts[i] for i in plain} & {texts[i] for i in np.setdiff1d(range(100), plain)})
    assert parted == 8, "by rows alone they would be"
    assert copies_of(["a film", "no film"]) is None
    two = np.arange(40) % 2  # of two texts neither can be held out
    np.testing.assert_array_equal(split(40, holdout=0.1, minimum=1, seed=0, copies=two)[1],
                                  split(40, holdout=0.1, minimum=1, seed=0)[1])  # fmt: skip


def test_a_saving_that_fails_leaves_no_half_of_a_file(tmp_path, monkeypatch):
    """As on a full disk, which a half would keep full. What was saved before is still there."""
    saved.put(tmp_path, done=7)

    def full(file, **arrays) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(saved.np, "savez", full)
    with pytest.raises(OSError, match="No space"):
        saved.put(tmp_path, done=8)
    assert [path.name for path in tmp_path.iterdir()] == [saved.SAVED]
    assert saved.read(tmp_path)["done"] == 7


def test_stopped_answers_are_saved_and_go_on(tmp_path, ctrl_c):
    """A Ctrl-C among the first 256 of 600: those are answered and saved, then it acts."""
    tokens, model, told, first = tokens_of(600), new_model(), [], []
    with pytest.raises(KeyboardInterrupt):
        logits_of(model, tokens, progress=lambda done: ctrl_c(), scratch=tmp_path)
    resumed = logits_of(model, tokens, begun=first.append, progress=told.append, scratch=tmp_path)
    assert (first, told) == ([256], [512, 600])
    np.testing.assert_array_equal(resumed, logits_of(model, tokens))


def test_a_loss_that_is_no_number_stops_with_the_way_out(tmp_path):
    hot = dataclasses.replace(RECIPE, epochs=1, batch_size=16, learning_rate=1e30, warmup=0.0, weight_decay=0.0)
    with pytest.raises(TrainingDiverged, match=r"learning_rate.*fit\.precision=float32"):
        fit_of(new_model(), tokens_of(240), tmp_path, recipe=hot).run()


@pytest.mark.parametrize(("keep", "when"), [("last", "after the last step not"), ("best", "never")])
def test_weights_that_the_last_step_ruins_are_not_kept(keep, when, tmp_path):
    """Its loss is that of the weights before it: only the held-out sentences see what it leaves."""
    hot = dataclasses.replace(RECIPE, steps=1, learning_rate=1e30, warmup=0.0, weight_decay=0.0)
    fit = fit_of(new_model(), tokens_of(60), tmp_path, recipe=hot, schedule=dataclasses.replace(SCHEDULE, keep=keep))
    with pytest.raises(TrainingDiverged, match=f"was {when} a finite number"):
        fit.run()


def test_untouched_embedding_rows_do_not_move():
    """The lazy update by hand: Adam's first step is learning_rate times the sign of the gradient."""
    import tensorflow as tf

    from optim.train.optimizer import LazyAdamW

    table = tf.Variable(np.ones((4, 2), np.float32), name="embeddings")
    optimizer = LazyAdamW(learning_rate=0.1, weight_decay=0.5, scales={})
    gradient = tf.IndexedSlices(tf.constant([[1.0, -2.0], [1.0, -2.0]]), tf.constant([2, 2]), tf.constant([4, 2]))
    optimizer.apply_gradients([(gradient, table)])
    np.testing.assert_allclose(table.numpy(), [[1, 1], [1, 1], [0.9, 1.1], [1, 1]], atol=1e-5)


def test_kernels_decay_and_biases_do_not():
    import tensorflow as tf

    from optim.train.optimizer import LazyAdamW

    kernel = tf.Variable(np.ones((2, 2), np.float32), name="dense/kernel")
    bias = tf.Variable(np.ones(2, np.float32), name="dense/bias")
    optimizer = LazyAdamW(learning_rate=0.1, weight_decay=0.5, scales={})
    optimizer.apply_gradients([(tf.zeros((2, 2)), kernel), (tf.zeros(2), bias)])
    np.testing.assert_allclose(kernel.numpy(), 0.95, atol=1e-6)
    np.testing.assert_allclose(bias.numpy(), 1.0, atol=1e-6)


def test_the_private_way_to_make_moments_early_is_there_and_can_be_missed(monkeypatch):
    """tf_keras has no public one: with it a step is traced once, without it the first step makes them."""
    import tensorflow as tf

    from optim.train import optimizer

    kernel = tf.Variable(np.ones((2, 2), np.float32), name="dense/kernel")
    made = optimizer.optimizer_for([kernel], rate=0.1, weight_decay=0.0, scales={})
    assert [v.shape.as_list() for v in made.variables()] == [[], [2, 2], [2, 2]]
    made.apply_gradients([(tf.ones((2, 2)), kernel)])
    np.testing.assert_allclose(kernel.numpy(), 0.9, atol=1e-5)

    class WithoutIt:
        def __init__(self, **settings):
            self.settings = settings

    monkeypatch.setattr(optimizer, "LazyAdamW", WithoutIt)
    other = optimizer.optimizer_for([kernel], rate=0.1, weight_decay=0.5, scales={})
    assert other.settings == {"learning_rate": 0.1, "weight_decay": 0.5, "scales": {}}


def test_a_training_set_that_can_hold_nothing_out_is_refused():
    assert [len(part) for part in split(5, holdout=0.02, minimum=200, seed=0)] == [4, 1]
    with pytest.raises(UserError, match="train has 4 sentences"):
        split(4, holdout=0.02, minimum=200, seed=0)


def test_rows_that_are_touched_again_move_as_adam_has_it():
    """Kingma & Ba 2015, algorithm 1, with betas 0.9 and 0.999; row 1 is never touched."""
    import tensorflow as tf

    from optim.train.optimizer import LazyAdamW

    table = tf.Variable(np.ones((3, 2), np.float32), name="embeddings")
    optimizer = LazyAdamW(learning_rate=0.1, weight_decay=0.0, scales={})
    row, m, v = np.ones((2, 2)), np.zeros((2, 2)), np.zeros((2, 2))
    for step, g in enumerate(np.random.default_rng(0).normal(size=(5, 2, 2)), start=1):
        sparse = tf.IndexedSlices(tf.constant(g, tf.float32), tf.constant([0, 2]), tf.constant([3, 2]))
        optimizer.apply_gradients([(sparse, table)])
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        row -= 0.1 * m / (1 - 0.9**step) / (np.sqrt(v / (1 - 0.999**step)) + 1e-8)
    np.testing.assert_allclose(table.numpy(), [row[0], [1, 1], row[1]], atol=5e-5)


def test_batches_are_drawn_by_the_seed_and_the_epoch(tmp_path):
    def rows(seed, epoch):
        return np.concatenate(fit_of(new_model(), tokens_of(120), tmp_path, seed=seed)._batches(epoch)).tolist()

    one, later, other = rows(0, 0), rows(0, 1), rows(1, 0)
    assert sorted(one) == sorted(later) == sorted(other)
    assert one != later
    assert one != other


def test_a_step_drops_by_the_seed_and_its_own_number(tmp_path):
    fit, seen = fit_of(new_model(), tokens_of(60), tmp_path, seed=5), []
    fit.train_step = lambda *given: seen.append(given[7].numpy().tolist()) or 0.5
    fit.change = 99
    fit._step(fit.chosen[:8], 3)
    assert seen == [[5, 3]]


def test_gradients_have_a_norm_of_1_at_most(tmp_path):
    """Adam has a tenth of the first gradient then, which a classifier a hundred times as large makes large."""
    model = new_model()
    head = model.get_layer("classifier").kernel
    head.assign(100 * head)
    fit = fit_of(model, tokens_of(60), tmp_path)
    fit._step(fit.chosen[:8], 0)
    moments = [fit.optimizer.get_slot(v, "m").numpy() for v in fit.trained if "embeddings" not in v.name]
    assert 0.5 < 10 * np.sqrt(sum((moment**2).sum() for moment in moments)) <= 1.001


def test_a_model_that_was_scored_is_let_go():
    """A teacher of 100 M parameters would stay beside its student's fit."""
    model, tokens = new_model(), tokens_of(20)
    logits_of(model, tokens)
    left = weakref.ref(model)
    del model
    gc.collect()
    assert left() is not None
    forget()
    gc.collect()
    assert left() is None
