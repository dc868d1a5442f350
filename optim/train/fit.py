"""The only training loop: a task, settings and a journal in; the weights of the epoch to keep and the curve out.

Pruning, distillation and what else wraps the model are values handed to it (`train/wrap.py`, `train/objective.py`).
A fit that is killed goes on from what it last saved, after an epoch or within a long one, and one that is stopped by
Ctrl-C or SIGTERM from its last step. It ends with the weights that it would have had: batches are drawn by (seed,
epoch), dropout by (seed, step), and everything that is trained is in the journal.
"""

from __future__ import annotations

import itertools
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from optim.common.errors import UserError
from optim.common.interrupts import Interrupts, held_back
from optim.common.screen import starts_at
from optim.data.phrases import Parts
from optim.data.tokens import UNLABELLED, Tokens, bucketed_batches, pad
from optim.train import saved
from optim.train.average import average_of
from optim.train.beside import Alignments, aligned_rows, teacher_views
from optim.train.objective import Loss, Objective, watching
from optim.train.prune import masked_fraction
from optim.train.recipe import LAST, Recipe, Schedule
from optim.train.regularize import regularized
from optim.train.rows import class_weights, split, stops, unlabelled_rows, with_copies
from optim.train.scores import cross_entropy, logits_of
from optim.train.wrap import Stack, Wrapper

LOG_STEPS = 50
CurveRow = dict[str, float]  # a row of the training curve


class TrainingDiverged(RuntimeError):
    """The loss is no longer a number: nothing after this step would mean anything."""


@dataclass
class Fitted:
    """What a fit leaves: the curve, the epoch that was kept and how fast it went."""

    rows: list[CurveRow] = field(default_factory=list)
    best_epoch: int = -1  # the one that was kept
    holdout_accuracy_fraction: float = -1.0
    holdout_loss: float = math.inf
    steps_per_second: float = 0.0  # median over what was run of the last epoch

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary that `Fitted(**...)` reads back."""
        return dict(self.__dict__)


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is to be learnt: by which model, from what, under which methods."""

    model: Any  # Keras classifier; it has the weights of the epoch that is kept in the end
    tokens: Tokens  # those with a label first
    loss: Loss
    parts: Parts | None = None  # of the tokens' rows, where those are phrases of whole sentences
    copies: np.ndarray | None = None  # int [with a label]: rows of one number are one text, where some are
    wrappers: Sequence[Wrapper] = ()
    teacher_logits: np.ndarray | None = None  # float32 [n, teachers, classes], where the loss needs them
    teachers: Sequence[Any] = ()  # Keras classifiers that run beside the steps, where the loss needs those
    alignments: Alignments = ()  # of each of those; none where all know the model's words
    parents: np.ndarray | None = None  # int [without a label, 2]: the rows each was made from, -1 for none


@dataclass(frozen=True, kw_only=True)
class FitSettings:
    """How it is learnt."""

    recipe: Recipe
    schedule: Schedule
    seed: int
    holdout_seed: int  # of the slice that each epoch is judged by


@dataclass(frozen=True, kw_only=True)
class Journal:
    """Where a fit keeps what a later one goes on from, and who is told of its progress."""

    scratch: Path
    on_row: Callable[[CurveRow], None]
    bar: Any  # a tqdm


class Fit:
    """One fit in progress. `run` gives the result; the model then holds the weights of the epoch that is kept."""

    def __init__(self, task: Task, settings: FitSettings, journal: Journal) -> None:
        from optim.train.optimizer import layer_scales, optimizer_for

        recipe, schedule = settings.recipe, settings.schedule
        self.task, self.settings, self.journal = task, settings, journal
        labelled, self.held = split(
            int((task.tokens.labels != UNLABELLED).sum()), holdout=schedule.holdout, minimum=schedule.holdout_minimum,
            seed=settings.holdout_seed, parts=task.parts, copies=task.copies,
        )  # fmt: skip
        classes = task.model.output_shape[-1]
        drawn = with_copies(labelled, task.parts, recipe.whole_copies)
        self.weights = class_weights(task.tokens.labels[drawn], classes, schedule.class_weights)
        self.chosen = np.concatenate([drawn, unlabelled_rows(task.parents, labelled, len(task.tokens))])
        self.epoch_steps = math.ceil(len(self.chosen) / recipe.batch_size)
        self.total_steps = recipe.epochs * self.epoch_steps if recipe.steps is None else recipe.steps
        self.stops = stops(self.total_steps, self.epoch_steps, math.ceil(len(drawn) / recipe.batch_size))
        self.stack = Stack(task.wrappers, task.model, total_steps=self.total_steps)
        self.objective = regularized(task.loss.attach(task.model, task.teachers), classes=classes,
                                     label_smoothing=recipe.label_smoothing, r_drop=recipe.r_drop)  # fmt: skip
        self.trained = [*self.stack.model.trainable_variables, *self.objective.variables]
        self.optimizer = optimizer_for(self.trained, rate=recipe.learning_rate, weight_decay=recipe.weight_decay,
                                       scales=layer_scales(task.model, recipe.layer_decay))  # fmt: skip
        self.alignments = task.alignments or [None] * len(task.teachers)
        self.aligned = aligned_rows(self.alignments, len(task.tokens))
        self.average = average_of(task.model.trainable_variables, decay=recipe.average)
        self.change = math.ceil(self.objective.until * self.total_steps)  # the first step that learns what comes after
        self.train_step = _train_step(self, self.objective)
        self.later_step = _train_step(self, self.objective.after) if self.objective.after else self.train_step
        self.fitted, self.best, self.ranges = Fitted(), None, {}
        self.losses: list[float] = []  # of the steps since the last row of the curve
        self.stopped = Interrupts()
        self.drawn: tuple[int, list[np.ndarray]] = (-1, [])  # an epoch, and its batches

    def run(self) -> Fitted:
        """Trains what is left of the parts; keeps the last, or the best, in which all wrappers have settled."""
        first = self._restore()
        self.journal.bar.reset(total=self.total_steps)
        starts_at(self.journal.bar, first)
        for step in {self._step_at(first), self._step_at(self.total_steps - 1)}:
            step.get_concrete_function()  # traced for later calls: a stop need not wait for that
        with held_back() as self.stopped:
            for start, stop in itertools.pairwise([first, *(stop for stop in self.stops if stop > first)]):
                self._epoch(range(start, stop))
                with self.average.in_place(stop, self.stack.after_epoch):
                    self._judge(stop)
                self._save(stop)
                self.stopped.act()
        self.task.model.set_weights(self._kept())
        return self.fitted

    def _kept(self) -> list[np.ndarray]:
        """The weights to end with. Raises UserError if no epoch had settled, TrainingDiverged if they have no loss."""
        if self.best is not None and math.isfinite(self.fitted.holdout_loss):  # the last step may be what ruins them
            return self.best
        if not self.stack.settled(1.0):
            raise UserError(
                f"prune must draw its last mask by the last step of the fit, {self.total_steps}, and had not. "
                "Lower prune.begin and prune.end, or make the fit longer with fit.*.epochs or fit.*.steps."
            )
        when = "never" if self.best is None else "after the last step not"
        raise TrainingDiverged(
            f"the loss on the held-out sentences was {when} a finite number: lower fit.*.learning_rate "
            f"(now {self.settings.recipe.learning_rate:g}), or set fit.precision=float32."
        )

    def _epoch(self, steps: range) -> None:
        """Those of an epoch, or of a piece of one that is many passes over the labelled long, or what is left of it."""
        times, at = [], time.monotonic()
        for step in steps:
            start, (epoch, number) = time.perf_counter(), divmod(step, self.epoch_steps)
            self.losses.append(self._step(self._batches(epoch)[number], step))
            times.append(time.perf_counter() - start)
            self.journal.bar.update(1)
            if step % LOG_STEPS == 0 or step + 1 == steps.stop:
                self._log({"step": step, "epoch": epoch, "loss": float(np.mean(self.losses)), **self._state(step)})
                self.losses = []
            if step + 1 < steps.stop and (self.stopped.noted or time.monotonic() - at > saved.SAVE_SECONDS):
                self._save(step + 1)
                self.stopped.act()
                at = time.monotonic()
        self.stack.after_epoch()
        self.fitted.steps_per_second = 1 / float(np.median(times))

    def _state(self, step: int) -> CurveRow:
        """What the schedules have come to: the learning rate, and with masks how much those hide."""
        hidden = masked_fraction(self.stack.model)
        rate = {"learning_rate": self.settings.recipe.rate((step + 0.5) / self.total_steps)}
        return rate if hidden is None else rate | {"masked_fraction": hidden}

    def _batches(self, epoch: int) -> list[np.ndarray]:
        """The rows of each step of an epoch, drawn when it is first asked for."""
        if self.drawn[0] != epoch:
            rng = np.random.default_rng([self.settings.seed, epoch])
            batches = bucketed_batches(self.task.tokens.lengths[self.chosen], self.settings.recipe.batch_size, rng)
            self.drawn = epoch, [self.chosen[batch] for batch in batches]
        return self.drawn[1]

    def learnt_rows(self) -> np.ndarray:
        """The rows of its steps: all that are chosen, or those of the first batches of a fit shorter than an epoch."""
        return np.concatenate(self._batches(0)[: self.total_steps])

    def _step(self, index: np.ndarray, step: int) -> float:
        import tensorflow as tf

        rate = self.settings.recipe.rate((step + 0.5) / self.total_steps)
        index = np.tile(index, self.objective.passes)
        ids, mask = pad(self.task.tokens, index)
        labels = self.task.tokens.labels[index]
        draw = np.array([self.settings.seed, step], np.int32)
        args = (ids, mask, labels, self._weights(labels), self._teacher_logits(index), self.aligned[index],
                np.float32(rate), draw)  # fmt: skip
        loss = float(self._step_at(step)(*map(tf.constant, args)))
        if not math.isfinite(loss):
            raise TrainingDiverged(
                f"the loss became {loss} at step {step} of {self.total_steps}: lower fit.*.learning_rate "
                f"(now {self.settings.recipe.learning_rate:g}), or set fit.precision=float32."
            )
        self.average.after_step(step + 1)
        return loss

    def _step_at(self, step: int) -> Any:
        """The compiled step that is due."""
        return self.train_step if step < self.change else self.later_step

    def _weights(self, labels: np.ndarray) -> np.ndarray:
        """float32 [batch]: the weight of each sentence's class, 1 where it has no label."""
        return np.where(labels == UNLABELLED, np.float32(1), self.weights[labels])

    def _teacher_logits(self, index: np.ndarray) -> np.ndarray:
        """float32 [batch, teachers, classes]; no teachers where the loss asks for no answers."""
        stored = self.task.teacher_logits
        return np.zeros((len(index), 0, len(self.weights)), np.float32) if stored is None else stored[index]

    def _judge(self, stop: int) -> None:
        last = stop - 1
        epoch = last // self.epoch_steps
        held = self.task.tokens.take(self.held)
        logits = logits_of(self.task.model, held)
        accuracy = float(np.mean(logits.argmax(axis=1) == held.labels))
        loss = cross_entropy(held.labels, logits)
        self._log({"step": last, "epoch": epoch,
                   "holdout_accuracy_fraction": accuracy, "holdout_loss": loss})  # fmt: skip
        settled = self.stack.settled((last + 1) / self.total_steps)
        # Best by loss: an accuracy over a thousand sentences moves by chance more than an epoch moves it.
        if settled and (self.settings.schedule.keep == LAST or loss < self.fitted.holdout_loss):
            self.best, self.ranges = self.task.model.get_weights(), dict(self.stack.ranges())
            self.fitted.best_epoch = epoch
            self.fitted.holdout_accuracy_fraction, self.fitted.holdout_loss = accuracy, loss

    def _log(self, row: CurveRow) -> None:
        self.fitted.rows.append(row)
        self.journal.on_row(row)

    def _variables(self) -> list:
        return [*self.stack.model.variables, *self.objective.variables, *self.optimizer.variables(),
                *self.average.variables]  # fmt: skip

    def _save(self, done: int) -> None:
        """Everything that is needed to go on after `done` steps, written beside the last and then put in its place."""
        arrays: dict[str, Any] = {f"variable{i}": v.numpy() for i, v in enumerate(self._variables())}
        arrays |= {f"best{i}": v for i, v in enumerate(self.best or [])}
        arrays |= {f"range:{name}": value for name, value in self.ranges.items()}
        arrays |= {"done": done, "fitted": json.dumps(self.fitted.to_json()), "losses": self.losses}
        saved.put(self.journal.scratch, **arrays)

    def _restore(self) -> int:
        """How many steps are done."""
        before, variables = saved.read(self.journal.scratch), self._variables()
        if sum(name.startswith("variable") for name in before) != len(variables):
            return 0  # nothing, or saved by a version that trains with other variables
        for i, variable in enumerate(variables):
            variable.assign(before[f"variable{i}"])
        self.fitted = Fitted(**json.loads(str(before["fitted"])))
        self.losses = before["losses"].tolist() if "losses" in before else []  # earlier versions left none over
        if "best0" in before:
            self.best = [before[f"best{i}"] for i in range(len(self.task.model.weights))]
        self.ranges = {name[6:]: value for name, value in before.items() if name.startswith("range:")}
        for row in self.fitted.rows:
            self.journal.on_row(row)
        return int(before["done"])


def _train_step(fit: Fit, objective: Objective):
    """A compiled step that learns the objective, for batches of any shape.

    (ids, mask, labels, weights, teacher logits, aligned, rate, draw: int32 [2], seed and step) -> mean loss.
    """
    import tensorflow as tf

    optimizer, variables = fit.optimizer, fit.trained
    student = watching(fit.stack.model, objective.student_layers)
    stored = 0 if fit.task.teacher_logits is None else fit.task.teacher_logits.shape[1]
    live = (fit.task.teachers, fit.alignments) if objective is fit.objective else ((), ())
    views = teacher_views(*live, objective, stored=stored > 0)

    @tf.function(
        autograph=False,  # nothing here is Python control flow over tensors, and looking for it takes seconds
        input_signature=[
            tf.TensorSpec([None, None], tf.int32),
            tf.TensorSpec([None, None], tf.int32),
            tf.TensorSpec([None], tf.int32),
            tf.TensorSpec([None], tf.float32),
            tf.TensorSpec([None, stored, None], tf.float32),
            tf.TensorSpec([None, len(fit.task.teachers)], tf.float32),
            tf.TensorSpec([], tf.float32),
            tf.TensorSpec([2], tf.int32),
        ],
    )
    def step(ids, mask, labels, weights, answers, aligned, rate, draw):
        optimizer.learning_rate.assign(rate)
        fit.task.model.draws.assign(draw)
        teachers = views(ids, mask, answers, aligned)  # outside of the tape, which would keep all that they compute
        with tf.GradientTape() as tape:
            said = student(ids, mask, training=True)
            value = tf.reduce_mean(weights * objective.value(labels, said, teachers))
        unused = tf.UnconnectedGradients.ZERO  # of projections, in steps that follow no states
        gradients = tape.gradient(value, variables, unconnected_gradients=unused)
        gradients, _ = tf.clip_by_global_norm(gradients, 1.0)  # rows that repeat in a batch count apart in its norm
        optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return value

    return step
