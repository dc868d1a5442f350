"""A fit on sentences of which some have no label: what each adds to the loss, which are learnt from, and resuming."""

# pyright: reportAttributeAccessIssue=false, reportArgumentType=false
# pyright: reportOptionalSubscript=false, reportCallIssue=false
from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from small_fit import RECIPE, SCHEDULE, NoBar, new_model, tokens_of

from optim.data.tokens import UNLABELLED, Tokens, joined
from optim.train.distill import SoftTargets
from optim.train.fit import Fit, FitSettings, Journal, Task
from optim.train.objective import hard_loss
from optim.train.rows import class_weights, split
from optim.train.scores import logits_of

LOSS = SoftTargets(temperature=2.0, teacher_weight=0.9, teachers=("same",), teacher_seeds=(0,))
LABELLED, MORE = 60, 300


def unlabelled(tokens: Tokens) -> Tokens:
    return dataclasses.replace(tokens, labels=np.full(len(tokens), UNLABELLED, np.int32))


def fit_on(folder, *, loss=LOSS, recipe=RECIPE, schedule=SCHEDULE, model=None, parents=None) -> Fit:
    """60 labelled sentences and 300 without, whose parents are drawn unless given; a teacher that is sure and right."""
    every = tokens_of(LABELLED + MORE)
    index = np.arange(len(every))
    tokens = joined([every.take(index[:LABELLED]), unlabelled(every.take(index[LABELLED:]))])
    if parents is None:
        parents = np.random.default_rng(0).integers(-1, LABELLED, (MORE, 2))
    logits = (np.eye(2, dtype=np.float32)[every.labels] * 6)[:, None]
    task = Task(model=model or new_model(), tokens=tokens, loss=loss, teacher_logits=logits, parents=parents)
    settings = FitSettings(recipe=recipe, schedule=schedule, seed=0, holdout_seed=0)
    return Fit(task, settings, Journal(scratch=folder, on_row=lambda row: None, bar=NoBar()))


def test_a_sentence_without_a_label_has_the_soft_part_alone_by_hand():
    """Logits (0, 0) against a teacher of (2 ln 3, 0) at T = 2: soft part 0.9 * 4 * (3/4 ln 3/2 + 1/4 ln 1/2)."""
    student, teacher = np.zeros((3, 2), np.float32), np.array([[2 * math.log(3), 0]] * 3, np.float32)
    soft = 0.9 * 4 * (0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    hard = 0.1 * math.log(2)
    found = LOSS(np.array([0, UNLABELLED, 1]), student, [teacher]).numpy()
    assert found == pytest.approx([soft + hard, soft, soft + hard], abs=1e-6)


def test_no_gradient_comes_from_a_label_that_is_not_there():
    import tensorflow as tf

    logits = tf.constant([[5.0, -5.0], [0.0, 0.0]])
    with tf.GradientTape() as tape:
        tape.watch(logits)
        value = hard_loss(tf.constant([UNLABELLED, 1]), logits)
    assert value.numpy() == pytest.approx([0, math.log(2)])
    np.testing.assert_allclose(np.asarray(tape.gradient(value, logits)), [[0, 0], [0.5, -0.5]], atol=1e-6)


def test_joined_tokens_are_the_sentences_one_after_another():
    one, other = Tokens(np.array([1, 2, 3]), np.array([0, 1, 3]), np.array([0, 1])), tokens_of(5)
    both = joined([one, other, one])
    assert len(both) == 9
    for i, (part, row) in enumerate([(one, 0), (one, 1), *((other, j) for j in range(5)), (one, 0), (one, 1)]):
        assert both.sentence(i).tolist() == part.sentence(row).tolist()
        assert both.labels[i] == part.labels[row]


def test_the_holdout_is_that_of_the_labelled_alone_and_nothing_made_from_it_is_learnt(tmp_path):
    fit = fit_on(tmp_path)
    chosen, held = split(LABELLED, holdout=0.1, minimum=20, seed=0)
    np.testing.assert_array_equal(fit.held, held)
    np.testing.assert_array_equal(fit.chosen[fit.chosen < LABELLED], chosen)
    more = fit.chosen[fit.chosen >= LABELLED]
    parents = fit.task.parents
    assert parents is not None
    assert not np.isin(parents[more - LABELLED], held).any()
    left = np.setdiff1d(np.arange(MORE), more - LABELLED)
    assert np.isin(parents[left], held).any(axis=1).all()
    assert 0 < len(left) < MORE


def test_class_weights_are_those_of_the_labelled_and_others_weigh_one(tmp_path):
    fit = fit_on(tmp_path, schedule=dataclasses.replace(SCHEDULE, class_weights="balanced"))
    labels = fit.task.tokens.labels
    own = class_weights(labels[fit.chosen[fit.chosen < LABELLED]], 2, "balanced")
    assert own[0] != own[1]
    assert fit._weights(np.array([0, 1, UNLABELLED])) == pytest.approx([*own, 1.0])


def test_an_epoch_is_every_row_once_and_is_judged_in_pieces(tmp_path):
    """48 labelled rows are 6 steps; with the others an epoch is several times as long."""
    fit = fit_on(tmp_path)
    seen: list[int] = []
    honest = fit._step
    fit._step = lambda index, step: seen.extend(index.tolist()) or honest(index, step)
    fitted = fit.run()
    size = len(fit.chosen)
    assert sorted(seen[:size]) == sorted(seen[size:]) == fit.chosen.tolist()
    judged = [row["step"] + 1 for row in fitted.rows if "holdout_loss" in row]
    assert judged == fit.stops
    assert len(judged) == 2 * round(fit.epoch_steps / 6) > 4
    assert judged[-1] == 2 * fit.epoch_steps


def test_a_fit_of_so_many_steps_has_them_whatever_its_rows(tmp_path):
    fit = fit_on(tmp_path, recipe=dataclasses.replace(RECIPE, steps=31))
    steps: list[int] = []
    honest = fit._step
    fit._step = lambda index, step: steps.append(step) or honest(index, step)
    fit.run()
    assert steps == list(range(31))
    assert fit.journal.bar.total == fit.total_steps == 31


@pytest.mark.parametrize("steps", [5, None])
def test_what_is_learnt_from_are_the_rows_of_the_steps(steps, tmp_path):
    """Of a fit shorter than an epoch those of its batches; of a longer one all."""
    fit = fit_on(tmp_path, recipe=dataclasses.replace(RECIPE, steps=steps, epochs=1))
    seen: list[int] = []
    fit._step = lambda index, step: seen.extend(index.tolist()) or 0.5
    fit.run()
    assert sorted(fit.learnt_rows()) == sorted(seen)
    assert len(seen) == (5 * 8 if steps else len(fit.chosen))


def test_a_student_learns_the_task_from_sentences_without_labels(tmp_path):
    """The labels that it learns from are all of one class: what it knows of the other it has from the teacher."""
    model = new_model()
    fit = fit_on(tmp_path, loss=dataclasses.replace(LOSS, teacher_weight=1.0), model=model)
    fit.task.tokens.labels[fit.chosen[fit.chosen < LABELLED]] = 0
    fitted = fit.run()
    fresh = tokens_of(500).take(np.arange(400, 500))
    assert np.mean(logits_of(model, fresh).argmax(1) == fresh.labels) > 0.9
    assert np.isfinite([row["loss"] for row in fitted.rows if "loss" in row]).all()


class Killed(Exception):
    """Stands for SIGKILL."""


@pytest.mark.slow
def test_a_kill_inside_an_epoch_changes_no_bit(tmp_path):
    """The first epoch has several pieces; the kill comes in its third."""
    weights = []
    for name, killed in (("whole", False), ("resumed", True)):
        (tmp_path / name).mkdir()
        model = new_model()
        fit = fit_on(tmp_path / name, model=model)
        if killed:
            honest = fit._step
            at = fit.stops[1] + 1

            def step(index, number, honest=honest, at=at):
                if number == at:
                    raise Killed
                return honest(index, number)

            fit._step = step
            assert at < fit.epoch_steps
            with pytest.raises(Killed):
                fit.run()
            model = new_model(seed=9)
            fit = fit_on(tmp_path / name, model=model)
        fit.run()
        weights.append(model.get_weights())
    for one, other in zip(*weights, strict=True):
        np.testing.assert_array_equal(one, other)
