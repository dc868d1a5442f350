"""Recipes on the whole way of a point."""

# pyright: reportAttributeAccessIssue=false
from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from whole_points import made, point

from optim.common.errors import UserError
from optim.encoder import graph, store
from optim.run.step import Stages
from optim.run.steps import steps_of


@pytest.mark.slow
def test_head_dropout_is_that_of_each_fit_and_the_checkpoint_s_own_is_kept(runs, monkeypatch):
    """A teacher with half of the head's inputs dropped, then a student with the tenth that its checkpoint asks for."""
    honest, trained = graph.classifier, []
    monkeypatch.setattr(
        graph, "classifier", lambda shape, **more: trained.append(shape.head_dropout) or honest(shape, **more)
    )
    weights = {}
    for share in ("null", 0.5):
        chosen = point(runs, "prune=fixed50", f"fit.teacher.head_dropout={share}")
        steps = steps_of(chosen, chosen.source.load(runs.cache), runs.cache)
        stages = Stages(runs.cache, lambda fit, row: None)
        trained.clear()
        folder = stages.folder(steps.teachers[0])
        taught = trained[:1]
        assert store.read_architecture(folder).head_dropout == 0.1
        weights[share] = store.load(folder).get_layer("classifier").get_weights()[0]
    assert taught == [0.5]
    trained.clear()
    stages.folder(steps.student)
    assert set(trained) == {0.1}
    assert np.abs(weights["null"] - weights[0.5]).max() > 1e-4


@pytest.mark.slow
def test_all_of_a_recipe_goes_with_pruning_distillation_class_weights_bfloat16_and_int8(runs):
    """Every setting at once, for a pruned student of 80 % zeros on SST-2, whose classes are balanced."""
    keys = {"average": 0.9, "layer_decay": 0.9, "label_smoothing": 0.1, "r_drop": 0.5, "head_dropout": 0.2}
    words = [f"fit.student.{key}={value}" for key, value in keys.items()]
    chosen = point(runs, "prune=poly80", "quant=int8", "fit.precision=bfloat16", *words)
    assert chosen.schedule.class_weights == "balanced"
    _, _, outcome = made(runs, chosen)
    assert outcome.size["zeroed_fraction"] == pytest.approx(0.8, abs=0.001)
    assert outcome.quality["accuracy_fraction"] >= 0.9


def test_a_mean_of_weights_under_ranges_of_the_steps_is_refused(runs):
    corpus = point(runs).source.load(runs.cache)
    with pytest.raises(
        UserError, match=re.escape("fit.student.average=0.9 keeps a mean of the weights, and the ranges")
    ):
        steps_of(point(runs, "quant=int8_qat", "fit.student.average=0.9"), corpus, runs.cache)
    steps_of(point(runs, "quant=int8_qat", "fit.teacher.average=0.9"), corpus, runs.cache)
    steps_of(point(runs, "quant=int8", "prune=fixed50", "fit.student.average=0.9"), corpus, runs.cache)


def test_r_drop_without_any_dropout_is_refused(runs):
    chosen = point(runs, "fit.teacher.r_drop=0.5")
    corpus = chosen.source.load(runs.cache)
    step = steps_of(chosen, corpus, runs.cache).teachers[0]
    shape = step.start.shape(None, 2)  # type: ignore[arg-type]
    still = replace(shape, hidden_dropout=0.0, attention_dropout=0.0, head_dropout=0.0)
    assert step.trained(shape) == shape
    with pytest.raises(UserError, match=re.escape("fit.teacher.r_drop compares two draws of dropout")):
        step.trained(still)
    for kind in ("hidden_dropout", "attention_dropout", "head_dropout"):  # one of them is enough
        assert getattr(step.trained(replace(still, **{kind: 0.1})), kind) == 0.1
    step.recipe = replace(step.recipe, head_dropout=0.2)
    assert step.trained(still).head_dropout == 0.2
    long = point(runs, "prune=fixed50", "fit=long", "fit.student.r_drop=0.5")
    with pytest.raises(UserError, match=re.escape("fit.student.r_drop compares two draws of dropout")):
        steps_of(long, corpus, runs.cache)  # before the teacher is fitted


@pytest.mark.parametrize(
    ("words", "rates"),
    [
        ({}, (0.1, 0.1, 0.1)),
        ({"dropout": 0.0}, (0.0, 0.0, 0.0)),
        ({"dropout": 0.3, "head_dropout": 0.2}, (0.3, 0.3, 0.2)),
        ({"head_dropout": 0.0}, (0.1, 0.1, 0.0)),
    ],
)
def test_a_recipe_sets_the_dropout_of_its_fit(runs, words, rates):
    chosen = point(runs, "prune=fixed50", *(f"fit.student.{key}={value}" for key, value in words.items()))
    step = steps_of(chosen, chosen.source.load(runs.cache), runs.cache).student
    shape = step.trained(step.start.shape(Stages(runs.cache, lambda fit, row: None), 2))
    assert (shape.hidden_dropout, shape.attention_dropout, shape.head_dropout) == rates
