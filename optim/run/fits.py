"""The steps that make a student: tokens, fits, the teachers' answers."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from optim.common.errors import UserError
from optim.common.screen import bar, counted, starts_at
from optim.common.stages import Stage
from optim.data.corpus import Corpus, Sentences
from optim.data.leaks import names_learnt
from optim.data.phrases import Parts, parts_of
from optim.data.tokens import UNLABELLED, Tokens, joined, tokenize
from optim.encoder.architecture import Architecture
from optim.encoder.origin import trained_on_by_its_files, write_trained_on
from optim.encoder.tensorflow import prepare_tensorflow
from optim.run.alignment import AlignmentStep
from optim.run.keys import TRAINING, made_by, recipe_key
from optim.run.point import Point
from optim.run.starts import TOKENIZER, FromCheckpoint, Start
from optim.run.step import Stages, Step
from optim.run.transfer import TextsStep, TransferTokensStep
from optim.train.answers import STORED, halved, require_tuned
from optim.train.fit import FitSettings, Journal, Task
from optim.train.objective import Loss
from optim.train.recipe import DROPOUTS, Recipe
from optim.train.rows import class_weights, split
from optim.train.wrap import Wrapper

RANGES, PARTS = "ranges.npz", "parts.npz"
LEARNT = "learnt.json"  # of a student with sentences without labels: kind -> how many it learnt from
NOT_REACHED = "not_reached"  # in it, where a fit is shorter than an epoch: kind -> how many its steps did not come to

log = logging.getLogger(__name__)


class TokensStep(Step):
    """The sentences of both splits in the tokens of a start: train.npz, dev.npz."""

    kind = "tokens"

    def __init__(self, corpus: Corpus, start: Start, max_length: int) -> None:
        self.corpus, self.start, self.max_length = corpus, start, max_length

    def inputs(self) -> Sequence[Step]:
        """What leaves the tokenizer."""
        return self.start.words_inputs()

    def key(self) -> Mapping[str, Any]:
        """Sentences, words, and where a sentence is cut."""
        words = {"tokenizer": self.start.words_key(), "max_length": self.max_length}
        phrases = {"phrases": True} if self.corpus.phrases else {}
        return {"corpus": self.corpus.digest, **words, **phrases, "versions": made_by("tokenizers")["versions"]}

    def build(self, folder: Path, scratch: Path, stages: Stages) -> None:
        """Tokenizes both splits."""
        path = self.start.tokenizer(stages)
        for name, sentences in (("train", self.corpus.train), ("dev", self.corpus.dev)):
            tokenize(sentences, tokenizer_path=path, max_length=self.max_length).save(folder / f"{name}.npz")
        if self.corpus.phrases:
            np.savez(folder / PARTS, **parts_of(self.corpus.train.texts).__dict__)

    def read(self, stages: Stages, split: str) -> Tokens:
        """`train` or `dev`."""
        return Tokens.load(stages.folder(self) / f"{split}.npz")

    def train_now(self) -> Tokens:
        """`train` without a stage: for a plan, of a start whose words need no step either."""
        assert isinstance(self.start, FromCheckpoint)
        texts, path = tuple(self.corpus.train.texts), self.start.folder / TOKENIZER
        return _tokenized(texts, path, self.start.words_key(), self.max_length)

    def parts(self, stages: Stages) -> Parts | None:
        """Which rows of train are part of which whole sentence, where they are phrases."""
        if not self.corpus.phrases:
            return None
        with np.load(stages.folder(self) / PARTS) as saved:
            return Parts(**saved)


@lru_cache(maxsize=2)  # a plan asks for each of its points
def _tokenized(texts: tuple[str, ...], path: Path, digest: str, max_length: int) -> Tokens:
    """Of the tokenizer with this digest, without the labels."""
    unlabelled = Sentences(list(texts), np.full(len(texts), UNLABELLED, np.int32))
    return tokenize(unlabelled, tokenizer_path=path, max_length=max_length)


class FitStep(Step):
    """A fitted classifier: weights and architecture, curve, its Keras answers on dev, what its wrappers measured."""

    def __init__(self, kind: str, point: Point, tokens: TokensStep, start: Start, *, recipe: Recipe, loss: Loss,
                 loss_spec: Mapping[str, Any], wrappers: Sequence[Wrapper] = (), wrapper_specs: Sequence[Any] = (),
                 answers: Sequence[LogitsStep] = (), teachers: Sequence[FitStep] = (),
                 transfer: Sequence[Transfer] = (), alignments: Sequence[AlignmentStep | None] = (),
                 holdout_seed: int | None = None) -> None:  # fmt: skip
        self.kind, self.point, self.tokens, self.start = kind, point, tokens, start  # type: ignore[misc]
        self.loss, self.loss_spec, self.wrappers, self.wrapper_specs = loss, loss_spec, wrappers, wrapper_specs
        self.answers: Sequence[LogitsStep] = answers if loss.needs_logits else ()
        self.teachers = teachers if loss.needs_models else ()  # those that run in the step
        self.alignments = alignments  # of each of them, where it knows other words
        self.transfer = transfer if loss.needs_logits else [replace(one, answers=()) for one in transfer]
        self.recipe = recipe
        # Of the slice that is held out. A student that starts from its teacher takes the teacher's: the weights
        # that it starts from have not seen that one. It follows from the start, so it is in the key already.
        self.holdout_seed = point.seed if holdout_seed is None else holdout_seed
        self.classes = len(tokens.corpus.label_names)

    @property
    def model_name(self) -> str:
        """Of the checkpoint that it was before its first fit."""
        return (self.start.checkpoint if isinstance(self.start, FromCheckpoint) else self.point.checkpoint).name

    @property
    def copies(self) -> np.ndarray | None:
        """Which rows of train are one text; phrases are told apart by their sentences instead."""
        return None if self.tokens.corpus.phrases else self.tokens.corpus.copies

    @property
    def in_bfloat16(self) -> bool:
        """Whether its products are."""
        return self.point.schedule.precision == "bfloat16"

    @property
    def judged_once(self) -> bool:
        """Whether it has one epoch, of labelled sentences alone: its last is then its best."""
        return self.recipe.epochs == 1 and self.recipe.steps is None and not self.transfer

    def inputs(self) -> Sequence[Step]:
        """Tokens, where it begins, and what the teachers say or are."""
        more = [step for one in self.transfer for step in (one.tokens, *one.answers)]
        words = [step for step in self.alignments if step]
        # What the teachers say of train first: one that knows nothing is told of before what else they are asked.
        return (*self.answers, self.tokens, *self.start.inputs(), *words, *self.teachers, *more)

    def key(self) -> Mapping[str, Any]:
        """Everything that makes the weights."""
        packages = {name for wrapper in self.wrappers for name in wrapper.packages}
        return {
            "tokens": self.tokens.wanted.key,
            "start": self.start.key(),
            "answers": [step.wanted.key for step in self.answers],
            "teachers": [step.wanted.key for step in self.teachers],
            "loss": self.loss_spec,
            "wrappers": list(self.wrapper_specs),
            "fit": recipe_key(self.point.specs["fit"], self.recipe, judged_once=self.judged_once),
            "seed": self.point.seed,
            **({"transfer": [one.key() for one in self.transfer]} if self.transfer else {}),
            **({"copies": "together"} if self.copies is not None else {}),
            **({"alignments": [one and one.wanted.key for one in self.alignments]} if any(self.alignments) else {}),
            **made_by(*TRAINING, *sorted(packages)),
        }

    def build(self, folder: Path, scratch: Path, stages: Stages) -> None:
        """Trains, checks what the wrappers promised, and saves."""
        from optim.encoder import store

        answers = [step.read(stages) for step in self.answers]
        prepare_tensorflow()
        shape = self.start.shape(stages, self.classes)
        model = self._fresh(self.trained(shape), stages)
        task = Task(
            model=model, tokens=self.tokens.read(stages, "train"), loss=self.loss, wrappers=self.wrappers,
            parts=self.tokens.parts(stages), copies=self.copies,
            teacher_logits=np.stack(answers, axis=1) if answers else None,
            teachers=[store.load(stages.folder(step), whole=True, bfloat16=self.in_bfloat16) for step in self.teachers],
            alignments=[step and step.read(stages) for step in self.alignments],
        )  # fmt: skip
        task = with_transfer(task, self.transfer, stages)
        ranges = self._fit(task, folder, scratch, stages)
        for wrapper in self.wrappers:
            wrapper.check(model)
        write_trained_on(folder, [*self.learnt_before(stages.cache_dir), *names_learnt(self.tokens.corpus)])
        self._keep(model, shape, self.tokens.read(stages, "dev"), ranges, folder)

    def learnt_before(self, cache_dir: Path) -> tuple[str, ...]:
        """What its own start says it was trained on, or, where it is taught, what that of any of its teachers says."""
        start, taught = self.start, self.answers or self.teachers
        origins = (start.checkpoint,) if isinstance(start, FromCheckpoint) and not taught else self.point.origins
        return tuple(name for one in origins for name in trained_on_by_its_files(one, cache_dir))

    def trained(self, shape: Architecture) -> Architecture:
        """The shape with the recipe's dropout. What is kept has its own: a student of this model may want another.

        Raises UserError for a recipe that needs dropout, and a model that has none; and for a mean of weights under a
        rounding whose ranges are those of the steps.
        """
        if self.recipe.average and any(wrapper in self.wrappers for wrapper in self.point.quantizer.wrappers):
            raise UserError(
                f"fit.{self.kind}.average={self.recipe.average:g} keeps a mean of the weights, and the ranges of this "
                f"quant= are those of the steps: set fit.{self.kind}.average=0, or choose quant=int8."
            )
        shape = replace(shape, **self.recipe.dropouts())
        if self.recipe.r_drop and not any(getattr(shape, rate) for rate in DROPOUTS):
            raise UserError(
                f"fit.{self.kind}.r_drop compares two draws of dropout, and this model has none, "
                f"got {self.recipe.r_drop:g}. Set fit.{self.kind}.dropout, or fit.{self.kind}.r_drop=0."
            )
        return shape

    def _fresh(self, shape: Architecture, stages: Stages) -> Any:
        """A model with the weights of the start, in the precision of the fit; what that lacks is drawn by the seed."""
        import tf_keras as keras

        from optim.encoder import graph

        keras.utils.set_random_seed(self.point.seed)
        model = graph.classifier(shape, whole=self.loss.needs_models, bfloat16=self.in_bfloat16)
        self.start.fill(model, shape, stages)
        return model

    def _fit(self, task: Task, folder: Path, scratch: Path, stages: Stages) -> dict[str, np.ndarray]:
        """Fits, writes the curve, and returns the wrappers' ranges at the epoch that was kept."""
        from optim.train.fit import Fit

        settings = FitSettings(recipe=self.recipe, schedule=self.point.schedule, seed=self.point.seed,
                               holdout_seed=self.holdout_seed)  # fmt: skip
        with bar(self.kind) as shown:
            journal = Journal(scratch=scratch, on_row=lambda row: stages.curve(self.kind, row), bar=shown)
            fit = Fit(task, settings, journal)
            epochs, steps = counted(self.recipe.epochs, "epoch"), counted(self.recipe.steps or 0, "step")
            length = epochs if self.recipe.steps is None else f"{steps}, epochs"
            log.info("%-9s %s of %d steps, %s", self.kind, length, fit.epoch_steps, self.point.schedule.precision)
            fitted = fit.run()
        if self.transfer:
            given, learnt = (self._counts(rows, stages) for rows in (fit.chosen, fit.learnt_rows()))
            content = {**learnt, NOT_REACHED: {kind: count - learnt[kind] for kind, count in given.items()}}
            (folder / LEARNT).write_text(json.dumps(content) + "\n", encoding="utf-8")
        (folder / "fit.json").write_text(json.dumps(fitted.to_json()) + "\n", encoding="utf-8")
        return fit.ranges

    def _counts(self, rows: np.ndarray, stages: Stages) -> dict[str, int]:
        """Kind of sentence without labels -> how many of it are among the rows."""
        sizes = [one.texts.counts(stages)["examples"] for one in self.transfer]
        ends = len(self.tokens.corpus.train.texts) + np.cumsum([0, *sizes])
        counts = np.diff(np.searchsorted(np.sort(rows), ends)).tolist()
        return {one.texts.kind: count for one, count in zip(self.transfer, counts, strict=True)}

    def learnt(self, stages: Stages) -> dict[str, Any]:
        """Kind of sentence without labels -> how many it learnt from; none of a kind that it was not given.

        Under NOT_REACHED how many more its steps did not come to; older fits do not say that, and count them too.
        """
        if not self.transfer:
            return {}
        return stages.json(self, LEARNT)

    def _keep(self, model: Any, shape: Architecture, dev: Tokens, ranges: dict[str, np.ndarray], folder: Path) -> None:
        """Saves the model, what its weights amount to, and the logits on dev that its files must agree with."""
        from optim.encoder import store
        from optim.train.prune import zeroed_fraction
        from optim.train.scores import forget, logits_of

        store.save(model, shape, folder)
        np.savez(folder / RANGES, **ranges)  # type: ignore[arg-type]
        weights = {"parameters": int(model.count_params()), "zeroed_fraction": zeroed_fraction(model)}
        (folder / "weights.json").write_text(json.dumps(weights) + "\n", encoding="utf-8")
        float32 = model if self.point.schedule.precision == "float32" else store.load(folder)
        np.save(folder / "dev.npy", logits_of(float32, dev))
        forget()

    def at_hand(self, done: Stage, stages: Stages) -> None:
        """Shows the curve of a fit that was found: it belongs to every point that uses the stage."""
        fitted = json.loads((done.folder / "fit.json").read_text(encoding="utf-8"))
        if done.cached:
            for row in fitted["rows"]:
                stages.curve(self.kind, row)
        log.info("%-9s %s: epoch %d kept, %.4f of the held-out slice of train right, %.2f steps/s, %.0f s", self.kind,
                 "at hand" if done.cached else "done", fitted["best_epoch"] + 1, fitted["holdout_accuracy_fraction"],
                 fitted["steps_per_second"], done.seconds)  # fmt: skip

    def dev_logits(self, stages: Stages) -> np.ndarray:
        """float32 [dev_examples, classes], of the Keras model."""
        return np.load(stages.folder(self) / "dev.npy")

    def rows(self, parts: Parts | None) -> dict[str, np.ndarray]:
        """int [n] of train, by name: whole sentences, and those held out, which no step of this fit learnt from.

        They judged each epoch. What `slim` and `vocab` keep is chosen by all of train, them included.
        """
        count, schedule = len(self.tokens.corpus.train.texts), self.point.schedule
        held = split(count, holdout=schedule.holdout, minimum=schedule.holdout_minimum, seed=self.holdout_seed,
                     parts=parts, copies=self.copies)[1]  # fmt: skip
        return {"whole": np.arange(count) if parts is None else parts.whole, "held_out": held}

    def weights(self, stages: Stages) -> dict[str, Any]:
        """parameters, effective_parameters (those that are not 0), and zeroed_fraction (of the prunable ones)."""
        from optim.encoder import store

        kept = stages.json(self, "weights.json")
        return {**kept, "effective_parameters": store.count_nonzero(stages.folder(self))}


class LogitsStep(Step):
    """What a teacher says of every training sentence, computed once: train.npy, float16 [n, classes].

    With `tokens`, what it says of those instead.
    """

    kind = "logits"

    def __init__(self, teacher: FitStep, tokens: TransferTokensStep | None = None) -> None:
        self.teacher, self.tokens = teacher, tokens or teacher.tokens

    def inputs(self) -> Sequence[Step]:
        """The teacher, and the sentences in its tokens."""
        return (self.teacher, self.tokens)

    def key(self) -> Mapping[str, Any]:
        """Who speaks, of what."""
        spoken = {"teacher": self.teacher.wanted.key, "tokens": self.tokens.wanted.key}
        return {**spoken, "stored": STORED, **made_by(*TRAINING)}

    def build(self, folder: Path, scratch: Path, stages: Stages) -> None:
        """Runs the teacher over train."""
        prepare_tensorflow()
        from optim.encoder import store
        from optim.train.scores import forget, logits_of

        # In the precision of its fit: what half precision keeps is more exact than what a student can follow.
        model = store.load(stages.folder(self.teacher), bfloat16=self.teacher.in_bfloat16)
        train = self.tokens.read(stages, "train")
        with bar("teacher's answers", len(train), "sentence") as shown:
            logits = logits_of(model, train, begun=partial(starts_at, shown),
                               progress=lambda done: shown.update(done - shown.n), scratch=scratch)  # fmt: skip
        forget()
        np.save(folder / "train.npy", halved(logits))

    def at_hand(self, done: Stage, stages: Stages) -> None:
        """Raises UserError for a teacher that knows no more than the commonest label of the slice it was not fitted on.

        Where a fit weighs classes, the slice's own sentences are weighed: by the rows of the fit, one of a rare class
        would count for all of them. Sentences without labels tell nothing about it.
        """
        teacher = self.teacher
        if self.tokens is not teacher.tokens:
            return
        labels, schedule = teacher.tokens.read(stages, "train").labels, teacher.point.schedule
        held = teacher.rows(teacher.tokens.parts(stages))["held_out"]
        weights = class_weights(labels[held], teacher.classes, schedule.class_weights)
        require_tuned(teacher.model_name, labels[held], self.read(stages)[held], weights)

    def read(self, stages: Stages) -> np.ndarray:
        """float32 [n, classes], as exact as they are stored."""
        return np.load(stages.folder(self) / "train.npy").astype(np.float32)


@dataclass(frozen=True)
class Transfer:
    """Sentences without labels, as a student takes them: in its own tokens, with what each teacher says of them."""

    texts: TextsStep
    tokens: TransferTokensStep
    answers: Sequence[LogitsStep]

    def key(self) -> dict[str, Any]:
        """What a fit on them depends on."""
        return {"tokens": self.tokens.wanted.key, "answers": [step.wanted.key for step in self.answers]}


def with_transfer(task: Task, transfer: Sequence[Transfer], stages: Stages) -> Task:
    """The task with the sentences without labels after those of train."""
    if not transfer:
        return task
    logits = task.teacher_logits
    if logits is not None:
        said = [np.stack([step.read(stages) for step in one.answers], axis=1) for one in transfer]
        logits = np.concatenate([logits, *said])
    return replace(
        task,
        tokens=joined([task.tokens, *(one.tokens.read(stages, "train") for one in transfer)]),
        teacher_logits=logits,
        parents=np.concatenate([one.texts.parents(stages) for one in transfer]),
    )


def load_single(student: FitStep, stages: Stages) -> Any:
    """The Keras model of one sentence, float32."""
    prepare_tensorflow()
    from optim.encoder import store

    return store.load(stages.folder(student), single=True)


def load_batch(student: FitStep, stages: Stages) -> Any:
    """The Keras model of any batch, float32."""
    prepare_tensorflow()
    from optim.encoder import store

    return store.load(stages.folder(student))
