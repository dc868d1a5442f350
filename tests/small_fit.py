"""Fits small enough to run in a second, with everything that a test does not care about filled in."""

# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportUnusedExpression=false
from __future__ import annotations

import dataclasses

import numpy as np
from conftest import sentences

from optim.data.tokens import Tokens
from optim.encoder.architecture import Architecture
from optim.train.distill import HardLabels
from optim.train.fit import Fit, FitSettings, Journal, Task
from optim.train.recipe import OpenRecipe, Recipe, Schedule, Usual

SHAPE = Architecture(
    family="bert", vocabulary_size=40, position_count=32, width=16, head_width=8, heads=(2, 2), ffn_widths=(32, 32),
    norm_epsilon=1e-12, hidden_dropout=0.0, attention_dropout=0.0, head_dropout=0.0, pooling="mean", classes=2,
)  # fmt: skip


RECIPE = Recipe(
    epochs=2, steps=None, batch_size=8, learning_rate=1e-2, warmup=0.1, weight_decay=0.01, average=0.0, layer_decay=1.0,
    label_smoothing=0.0, r_drop=0.0, dropout=None, head_dropout=None, whole_copies=1,
)  # fmt: skip

# Every key is set, so nothing is left to what is usual.
OPEN = OpenRecipe(**dataclasses.asdict(RECIPE))
USUAL = {"other": Usual(epochs=1, batch_size=8, learning_rate=1e-2, warmup=0.1)}

SCHEDULE = Schedule(teacher=OPEN, usual=USUAL, student=RECIPE, keep="last", holdout=0.1, holdout_minimum=20,
                    class_weights="none", precision="float32")  # fmt: skip


FIXED = {"initial_sparsity": 0.0, "power": 3.0, "begin": 0.0, "end": 1.0, "every_steps": 100}


class NoBar:
    """A progress bar that only counts."""

    def __init__(self) -> None:
        self.n = 0

    def reset(self, total: int) -> None:
        self.total = total

    def update(self, steps: int) -> None:
        self.n += steps


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


def filled(shape: Architecture, weights, *, whole: bool = False):
    """A classifier of that shape with these weights, name -> values."""
    from optim.encoder import graph

    model = graph.classifier(shape, whole=whole)
    assert {v.name for v in model.weights} == set(weights)
    for variable in model.weights:
        variable.assign(weights[variable.name])
    return model


def random_weights(shape: Architecture, seed: int = 0) -> dict[str, np.ndarray]:
    """Seeded weights of a classifier of that shape, large enough for every part to count."""
    from optim.encoder import graph

    rng = np.random.default_rng(seed)
    return {v.name: rng.normal(0, 0.3, v.shape).astype(np.float32) for v in graph.classifier(shape).weights}


def fit_of(model, tokens, scratch, *, wrappers=(), loss=None, recipe=RECIPE, schedule=SCHEDULE, logits=None,
           teachers=(), alignments=(), parts=None, seed=0, holdout_seed=0, on_row=lambda row: None,
           bar=None) -> Fit:  # fmt: skip
    """A fit with what the test does not care about filled in; logits: float32 [n, classes] of one teacher."""
    task = Task(
        model=model, tokens=tokens, parts=parts, wrappers=wrappers, teachers=teachers, alignments=alignments,
        loss=loss or HardLabels(teachers=("same",), teacher_seeds=(0,)),
        teacher_logits=None if logits is None else logits[:, None],
    )  # fmt: skip
    settings = FitSettings(recipe=recipe, schedule=schedule, seed=seed, holdout_seed=holdout_seed)
    return Fit(task, settings, Journal(scratch=scratch, on_row=on_row, bar=bar or NoBar()))
