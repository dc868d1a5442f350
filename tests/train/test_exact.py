"""A fit is a function of its settings: the same twice, and the same with a kill in the middle. Dropout is on."""

# pyright: reportAttributeAccessIssue=false
from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
from small_fit import FIXED, RECIPE, SHAPE, fit_of, tokens_of

from optim.encoder.architecture import Architecture
from optim.train.fake_quant import FakeQuant
from optim.train.prune import Across, Blocks, Magnitude, Movement, ZerosOf

# One layer: each kind of variable is in it, and a second one is only traced again.
DROPPING = dataclasses.replace(
    SHAPE, heads=(2,), ffn_widths=(32,), hidden_dropout=0.2, attention_dropout=0.2, head_dropout=0.2
)


def new_model(shape: Architecture = DROPPING, seed: int = 0):
    import tf_keras as keras

    from optim.encoder import graph

    keras.utils.set_random_seed(seed)
    return graph.classifier(shape)


def fitted(folder, *, seed_of_start: int = 0, kept: Path | None = None, **more) -> tuple[list[int], list[np.ndarray]]:
    """(epochs that were run, weights and ranges) of two epochs, or of what is left of them in the folder.

    kept: where the folder is copied to as a kill in the second epoch would leave it.
    """
    folder.mkdir(exist_ok=True)
    epochs, model = [], new_model(seed=seed_of_start)
    fit = fit_of(model, tokens_of(60), folder, **more)
    honest = fit._epoch

    def epoch(steps: range) -> None:
        if steps.start == fit.epoch_steps and kept:
            shutil.copytree(folder, kept)
        epochs.append(steps.start // fit.epoch_steps)
        honest(steps)

    fit._epoch = epoch
    fit.run()
    return epochs, [*model.get_weights(), *(fit.ranges[name] for name in sorted(fit.ranges))]


EVERYTHING = dataclasses.replace(RECIPE, average=0.9, layer_decay=0.8, label_smoothing=0.1, r_drop=0.5)


GROWING = Magnitude(schedule="polynomial", sparsity=0.5, **FIXED)
PRUNERS = {
    "blocks": Blocks(schedule="polynomial", sparsity=0.5, block=(1, 4), **FIXED),
    "n_of_m": ZerosOf(zeros=2, group=4),
    "across": Across(schedule="polynomial", sparsity=0.5, **FIXED),
    "movement": Movement(schedule="polynomial", sparsity=0.5, scope="kernel", **FIXED),
    "movement_global": Movement(schedule="polynomial", sparsity=0.5, scope="global", **FIXED),
}


AT_ONCE = ("none", "magnitude_everything", "movement", "across", "fake_quant")  # the others are left to the slow tests


@pytest.mark.parametrize(
    ("wrappers", "recipe"),
    [
        pytest.param(wrappers, recipe, id=name, marks=[] if name in AT_ONCE else [pytest.mark.slow])
        for name, wrappers, recipe in (
            ("none", (), RECIPE), ("none_everything", (), EVERYTHING), ("magnitude", (GROWING,), RECIPE),
            ("magnitude_everything", (GROWING,), EVERYTHING), ("movement_plain", (PRUNERS["movement"],), RECIPE),
            ("fake_quant", (FakeQuant(memory=0.9),), RECIPE),
            *((name, (pruner,), EVERYTHING) for name, pruner in PRUNERS.items()),
        )
    ],
)  # fmt: skip
def test_a_kill_in_the_middle_changes_no_bit(tmp_path, wrappers, recipe):
    more = {"wrappers": wrappers, "recipe": recipe}
    epochs, whole = fitted(tmp_path / "whole", kept=tmp_path / "killed", **more)
    # From another start: all that it ends with must come from the journal.
    left, resumed = fitted(tmp_path / "killed", seed_of_start=9, **more)
    assert (epochs, left) == ([0, 1], [1])
    for one, other in zip(whole, resumed, strict=True):
        np.testing.assert_array_equal(one, other)


def test_two_cold_fits_with_one_seed_are_equal_and_with_another_are_not(tmp_path):
    (_, first), (_, again) = (fitted(tmp_path / name) for name in ("first", "again"))
    _, other = fitted(tmp_path / "other", seed=1)
    for one, same in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, same)
    assert any((one != differs).any() for one, differs in zip(first, other, strict=True))


def test_dropout_is_drawn_by_seed_step_and_layer():
    """The same pair gives the same masks, whatever was drawn between; another step, seed or layer does not."""
    import tensorflow as tf

    from optim.encoder.layers import Dropouts

    make = Dropouts()
    first, second = make(0.5), make(0.5)
    values = tf.ones((1, 1000))

    def drawn(layer, seed: int, step: int) -> np.ndarray:
        make.draws.assign(tf.constant([seed, step]))
        return layer(values, training=True).numpy()

    kept = drawn(first, 0, 7)
    drawn(first, 0, 8)
    np.testing.assert_array_equal(drawn(first, 0, 7), kept)
    for other in (drawn(first, 0, 8), drawn(first, 1, 7), drawn(second, 0, 7)):
        assert 0.4 < np.mean((other == 0) == (kept == 0)) < 0.6, "as far apart as two fair draws"
    assert set(np.unique(kept)) == {0.0, 2.0}
    assert np.mean(kept == 0) == pytest.approx(0.5, abs=0.06)
    np.testing.assert_array_equal(first(values, training=False), values)
