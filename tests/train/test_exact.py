"""A fit is a function of its settings: the same twice, and the same with a kill in the middle. Dropout is on."""

# pyright: reportAttributeAccessIssue=false
from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from small_fit import FIXED, RECIPE, SHAPE, fit_of, tokens_of

from optim.encoder.architecture import Architecture
from optim.train.prune import Across, Blocks, Magnitude, Movement, ZerosOf

DROPPING = dataclasses.replace(SHAPE, hidden_dropout=0.2, attention_dropout=0.2, head_dropout=0.2)


class Killed(Exception):
    """Stands for SIGKILL."""


def new_model(shape: Architecture = DROPPING, seed: int = 0):
    import tf_keras as keras

    from optim.encoder import graph

    keras.utils.set_random_seed(seed)
    return graph.classifier(shape)


def fitted(folder, *, killed: bool, **more) -> list[np.ndarray]:
    """The weights after two epochs, in one go or with a kill after the first."""
    folder.mkdir()
    tokens, model = tokens_of(120), new_model()
    fit = fit_of(model, tokens, folder, **more)
    if killed:
        honest = fit._epoch
        fit._epoch = lambda number: honest(number) if number == 0 else _kill()
        with pytest.raises(Killed):
            fit.run()
        model = new_model(seed=9)  # another start: all that it ends with must come from the journal
        fit = fit_of(model, tokens, folder, **more)
    fit.run()
    return model.get_weights()


def _kill() -> None:
    raise Killed


EVERYTHING = dataclasses.replace(RECIPE, average=0.9, layer_decay=0.8, label_smoothing=0.1, r_drop=0.5)


GROWING = Magnitude(schedule="polynomial", sparsity=0.5, **FIXED)
PRUNERS = {
    "blocks": Blocks(schedule="polynomial", sparsity=0.5, block=(1, 4), **FIXED),
    "n_of_m": ZerosOf(zeros=2, group=4),
    "across": Across(schedule="polynomial", sparsity=0.5, **FIXED),
    "movement": Movement(schedule="polynomial", sparsity=0.5, scope="kernel", **FIXED),
    "movement_global": Movement(schedule="polynomial", sparsity=0.5, scope="global", **FIXED),
}


@pytest.mark.parametrize(
    ("wrappers", "recipe"),
    [*((w, r) for w in ((), (GROWING,)) for r in (RECIPE, EVERYTHING)),
     *(((p,), EVERYTHING) for p in PRUNERS.values()), ((PRUNERS["movement"],), RECIPE)],
    ids=["none", "none_everything", "magnitude", "magnitude_everything", *PRUNERS, "movement_plain"],
)  # fmt: skip
def test_a_kill_in_the_middle_changes_no_bit(tmp_path, wrappers, recipe):
    whole = fitted(tmp_path / "whole", killed=False, wrappers=wrappers, recipe=recipe)
    resumed = fitted(tmp_path / "resumed", killed=True, wrappers=wrappers, recipe=recipe)
    for one, other in zip(whole, resumed, strict=True):
        np.testing.assert_array_equal(one, other)


def test_two_cold_fits_with_one_seed_are_equal_and_with_another_are_not(tmp_path):
    first, again = (fitted(tmp_path / name, killed=False) for name in ("first", "again"))
    other = fitted(tmp_path / "other", killed=False, seed=1)
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
