"""One point, from its parts to its figures: data -> teacher -> student -> .tflite file -> measurement.

Every arrow is a stage of the cache; a stage names in its key the stages that it was made from.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from optim.common.errors import UserError
from optim.common.files import sha256_of
from optim.common.screen import bar, without_chatter
from optim.common.stages import Stage, Wanted, stage
from optim.data.corpus import Corpus
from optim.data.tokens import Tokens, tokenize
from optim.encoder.architecture import Architecture, read_config
from optim.export.convert import GRAPH, convert
from optim.measure import quality
from optim.measure.file import Measurement, check_agreement, measure_file
from optim.measure.latency import Bench
from optim.measure.machine import has_bfloat16, machine_id
from optim.run.point import Point
from optim.train.fit import Recipe

log = logging.getLogger(__name__)
Curve = Callable[[str, dict[str, float]], None]  # (stage, row)


@dataclass(frozen=True)
class Outcome:
    """The parts of result.json that a run computes, and the files of its bundle."""

    quality: dict[str, Any]
    size: dict[str, Any]
    speed: dict[str, Any]
    memory: dict[str, Any]
    cost: dict[str, Any]
    data: dict[str, Any]
    answers: dict[str, np.ndarray]  # int [dev_examples] each: labels, answers, teacher
    file: Path
    tokenizer: Path
    labels: list[str]


@dataclass(frozen=True)
class Classifier:
    """A trained classifier in the cache, and the data in its own tokens."""

    stage: Stage
    train: Tokens
    dev: Tokens


class Flow:
    """The way of one point through the stages. Their keys are known before any is made: see `wanted`."""

    def __init__(self, point: Point, *, cache_dir: Path, curve: Curve, corpus: Corpus | None = None) -> None:
        self.point, self.cache_dir, self.curve = point, cache_dir, curve
        self.stages: dict[str, Stage] = {}  # part -> the stage that was made or found
        self.corpus = corpus or point.source.load(cache_dir)
        self.classes = len(self.corpus.label_names)
        self.precision = _precision(point.schedule.precision)

    def run(self) -> Outcome:
        """All of it."""
        counts = len(self.corpus.train.texts), len(self.corpus.dev.texts), self.classes
        log.info("data      %s: %s sentences to train, %s to score, %d classes", self.corpus.name,
                 *(f"{n:,}" for n in counts[:2]), self.classes)  # fmt: skip
        teacher = self.teacher()
        student = self.student(teacher)
        self.export(student)
        return self._outcome(teacher, student, self.figures(student))

    # What is wanted

    @cached_property
    def wanted(self) -> dict[str, Wanted]:
        """Part -> stage of all that this point is made of, in the order in which they are made."""
        point, specs = self.point, self.point.specs
        parts = {
            "teacher_tokens": self._tokens_wanted(self.teacher_checkpoint),
            "tokens": self._tokens_wanted(self.checkpoint),
        }
        key = self._fit_key("teacher", parts["teacher_tokens"])
        parts["teacher"] = Wanted("teacher", key | {"checkpoint": point.teacher_checkpoint.fingerprint()})
        parts |= self._student_wanted(parts)
        parts["float32"] = Wanted("float32", {"student": parts["student"].key, "graph": GRAPH})
        method = {k: v for k, v in specs["quant"].items() if k != "max_disagreement"}
        parts["file"] = Wanted("file", {"float32": parts["float32"].key, "student": parts["student"].key,
                                        "tokens": parts["tokens"].key, "quant": method})  # fmt: skip
        parts["figures"] = Wanted("figures", {"file": parts["file"].key, "float32": parts["float32"].key,
                                              "bench": specs["bench"], "machine": machine_id()})  # fmt: skip
        return parts

    def _student_wanted(self, parts: dict[str, Wanted]) -> dict[str, Wanted]:
        point, teacher = self.point, parts["teacher"].key
        if not self.trains_student:
            return {"student": parts["teacher"]}
        made: dict[str, Wanted] = {}
        if point.loss.needs_teacher:
            made["logits"] = Wanted("logits", {"teacher": teacher, "tokens": parts["teacher_tokens"].key})
        key = self._fit_key("student", parts["tokens"]) | {
            "start": teacher if point.self_taught else point.checkpoint.fingerprint(),
            "logits": made["logits"].key if made else None,
            "prune": point.specs["prune"],
            "distill": {k: v for k, v in point.specs["distill"].items() if k != "teacher"},
        }
        return {**made, "student": Wanted("student", key)}

    @property
    def trains_student(self) -> bool:
        """False where nothing is to be done to the teacher."""
        return not self.point.self_taught or bool(self.point.pruner.sparsity)

    @cached_property
    def checkpoint(self) -> Path:
        """The folder of the student's checkpoint."""
        return self.point.checkpoint.fetch(self.cache_dir)

    @cached_property
    def teacher_checkpoint(self) -> Path:
        """The folder of the teacher's."""
        return self.point.teacher_checkpoint.fetch(self.cache_dir)

    def _tokens_wanted(self, checkpoint: Path) -> Wanted:
        tokenizer, max_length = checkpoint / "tokenizer.json", self.point.source.max_length
        key = {"corpus": self.corpus.digest, "tokenizer": sha256_of(tokenizer), "max_length": max_length}
        return Wanted("tokens", key)

    # Data

    def _tokens(self, part: str, checkpoint: Path) -> tuple[Tokens, Tokens]:
        """The corpus in the tokens of a checkpoint: (train, dev)."""
        tokenizer, max_length = checkpoint / "tokenizer.json", self.point.source.max_length

        def build(folder: Path, scratch: Path) -> None:
            for name, split in (("train", self.corpus.train), ("dev", self.corpus.dev)):
                tokenize(split, tokenizer_path=tokenizer, max_length=max_length).save(folder / f"{name}.npz")

        folder = self._stage(part, build).folder
        return Tokens.load(folder / "train.npz"), Tokens.load(folder / "dev.npz")

    # Teacher

    def teacher(self) -> Classifier:
        """The checkpoint of the teacher, fine-tuned on the labels."""
        from optim.train.distill import HardLabels
        from optim.train.prune import NoPruning

        checkpoint = self.teacher_checkpoint
        shape = self._shape(checkpoint, self.point.teacher_checkpoint.pooling)
        train, dev = self._tokens("teacher_tokens", checkpoint)
        no_logits = np.zeros((len(train), self.classes), np.float32)

        def build(folder: Path, scratch: Path) -> None:
            _prepare_tensorflow()
            model = self._fresh(shape, checkpoint)
            self._fit("teacher", model, train, no_logits, HardLabels(teacher="same"), NoPruning(), folder, scratch)
            self._keep(model, shape, dev, folder)

        return Classifier(self._fit_stage("teacher", build), train, dev)

    def _keep(self, model, shape: Architecture, dev: Tokens, folder: Path) -> None:
        """Saves a fitted model, what its weights amount to, and the logits on dev that its files must agree with."""
        from optim.encoder import store
        from optim.train.fit import logits_of
        from optim.train.prune import zeroed_fraction

        store.save(model, shape, folder)
        weights = {"parameters": int(model.count_params()), "zeroed_fraction": zeroed_fraction(model)}
        (folder / "weights.json").write_text(json.dumps(weights) + "\n", encoding="utf-8")
        float32 = model if self.precision == "float32" else store.load(folder)
        np.save(folder / "dev.npy", logits_of(float32, dev))

    def teacher_logits(self, teacher: Classifier) -> np.ndarray:
        """float32 [n, classes]: what the teacher says of every training sentence; computed once."""

        def build(folder: Path, scratch: Path) -> None:
            _prepare_tensorflow()
            from optim.encoder import store
            from optim.train.fit import logits_of

            model = store.load(teacher.stage.folder)
            with bar("teacher's answers", len(teacher.train), "sentence") as shown:
                logits = logits_of(model, teacher.train, progress=lambda done: _advance(shown, done))
            np.save(folder / "train.npy", logits)

        return np.load(self._stage("logits", build).folder / "train.npy")

    # Student

    def student(self, teacher: Classifier) -> Classifier:
        """The pruned and distilled model; the teacher itself where nothing is to be done."""
        point, checkpoint = self.point, self.checkpoint
        if not self.trains_student:
            log.info("student   prune=none and the same model: the teacher is the student")
            self.stages["student"] = Stage(teacher.stage.folder, True, 0.0)
            return teacher
        shape = self._shape(checkpoint, point.checkpoint.pooling)
        train, dev = self._tokens("tokens", checkpoint)
        targets = np.zeros((len(train), self.classes), np.float32)
        if point.loss.needs_teacher:
            targets = self.teacher_logits(teacher)

        def build(folder: Path, scratch: Path) -> None:
            _prepare_tensorflow()
            model = self._fresh(shape, checkpoint)
            if point.self_taught:
                _load_into(model, teacher.stage.folder)
            self._fit("student", model, train, targets, point.loss, point.pruner, folder, scratch)
            point.pruner.check(model)
            self._keep(model, shape, dev, folder)

        return Classifier(self._fit_stage("student", build), train, dev)

    # File

    def export(self, student: Classifier) -> None:
        """The float32 file and the file that ships, each a stage with a model.tflite."""
        quantizer = self.point.quantizer

        def load():
            _prepare_tensorflow()
            from optim.encoder import store

            return store.load(student.stage.folder, single=True)

        def float32(folder: Path, scratch: Path) -> None:
            log.info("export    float32 .tflite")
            _tflite(folder).write_bytes(convert(load()))

        base = self._stage("float32", float32)

        def build(folder: Path, scratch: Path) -> None:
            log.info("export    %s", self.point.specs["quant"]["_target_"].rsplit(".", 1)[-1])
            _tflite(folder).write_bytes(quantizer.run(load, _tflite(base), student.train))

        self._stage("file", build)

    # Figures

    def figures(self, student: Classifier) -> Measurement:
        """What the file does on this machine; measured once for all points that share the file."""
        file, float32 = _tflite(self.stages["file"]), _tflite(self.stages["float32"])

        def build(folder: Path, scratch: Path) -> None:
            log.info("measure   %s bytes, all %s dev sentences", f"{file.stat().st_size:,}", f"{len(student.dev):,}")
            found = measure(file, float32, student.dev, self.point.bench)
            np.save(folder / "logits.npy", found.logits)
            figures = {"speed": found.speed, "memory": found.memory, "size": found.size}
            (folder / "figures.json").write_text(json.dumps(figures) + "\n", encoding="utf-8")

        folder = self._stage("figures", build).folder
        figures = json.loads((folder / "figures.json").read_text(encoding="utf-8"))
        return Measurement(np.load(folder / "logits.npy"), **figures)

    def _outcome(self, teacher: Classifier, student: Classifier, measured: Measurement) -> Outcome:
        keras_logits = np.load(student.stage.folder / "dev.npy")
        agreement = quality.agreement(measured.logits, keras_logits)
        check_agreement(agreement, max_disagreement=self.point.max_disagreement)
        labels = student.dev.labels
        teacher_answers = np.load(teacher.stage.folder / "dev.npy").argmax(axis=1)
        weights = json.loads((student.stage.folder / "weights.json").read_text(encoding="utf-8"))
        return Outcome(
            quality={
                **quality.scores(measured.logits, labels),
                "teacher_accuracy_fraction": float(np.mean(teacher_answers == labels)),
                "agreement_fraction": agreement,
            },
            size={**measured.size, **weights},
            speed=measured.speed,
            memory=measured.memory,
            cost=self._cost(),
            data={
                "name": self.corpus.name,
                "digest": self.corpus.digest,
                "train_examples": len(student.train),
                "dev_examples": len(student.dev),
                "labels": list(self.corpus.label_names),
            },
            answers={"labels": labels, "answers": measured.logits.argmax(axis=1), "teacher": teacher_answers},
            file=_tflite(self.stages["file"]),
            tokenizer=self.checkpoint / "tokenizer.json",
            labels=list(self.corpus.label_names),
        )

    def _cost(self) -> dict[str, Any]:
        """Seconds of the parts, whenever they were spent, and which of them this run found in the cache."""
        seconds = {part: done.seconds for part, done in self.stages.items()}
        return {
            "teacher_s": seconds["teacher"],
            "student_s": seconds["student"] + seconds.get("logits", 0.0),
            "export_s": seconds["float32"] + seconds["file"],
            "measure_s": seconds["figures"],
            "cached": {part: done.cached for part, done in self.stages.items()},
            "stages": {done.key: done.seconds for part, done in self.stages.items() if seconds[part]},
        }

    # Shared by teacher and student

    def _shape(self, checkpoint: Path, pooling: str) -> Architecture:
        shape = read_config(checkpoint, pooling=pooling, classes=self.classes)
        if self.point.source.max_length > shape.position_count:
            raise UserError(
                f"data.max_length must be at most {shape.position_count}, the positions of the model, "
                f"got {self.point.source.max_length}."
            )
        return shape

    def _fit_key(self, name: str, tokens: Wanted) -> dict[str, Any]:
        fit = self.point.specs["fit"]
        shared = {key: fit[key] for key in ("holdout", "holdout_minimum", "class_weights")}
        own = {"seed": self.point.seed, "recipe": fit[name], "precision": self.precision}
        return {"tokens": tokens.key, **own, **shared}

    def _fresh(self, shape: Architecture, checkpoint: Path):
        """A model with the weights of a checkpoint, in the precision of the fit; what that lacks is drawn by seed."""
        import tf_keras as keras

        from optim.encoder import checkpoint as reader
        from optim.encoder import graph

        keras.utils.set_random_seed(self.point.seed)
        keras.mixed_precision.set_global_policy("mixed_bfloat16" if self.precision == "bfloat16" else "float32")
        try:
            model = graph.classifier(shape)
        finally:
            keras.mixed_precision.set_global_policy("float32")
        reader.load(model, shape, checkpoint / "model.safetensors")
        return model

    def _fit(
        self, name: str, model, train: Tokens, targets: np.ndarray, loss, pruner, folder: Path, scratch: Path
    ) -> None:
        from optim.train.fit import Fit

        recipe: Recipe = getattr(self.point.schedule, name)
        with bar(name) as shown:
            fit = Fit(model, train, targets, loss=loss, pruner=pruner, recipe=recipe, schedule=self.point.schedule,
                      seed=self.point.seed, scratch=scratch, on_row=lambda row: None, bar=shown)  # fmt: skip
            log.info("%-9s %d epochs of %d steps, %s", name, recipe.epochs, fit.epoch_steps, self.precision)
            fit.on_row = lambda row: self.curve(name, row)
            fitted = fit.run()
        (folder / "fit.json").write_text(json.dumps(fitted.to_json()) + "\n", encoding="utf-8")

    def _fit_stage(self, name: str, build) -> Stage:
        done = self._stage(name, build)
        fitted = json.loads((done.folder / "fit.json").read_text(encoding="utf-8"))
        if done.cached:  # the curve belongs to every point that uses the stage
            for row in fitted["rows"]:
                self.curve(name, row)
        log.info("%-9s %s: epoch %d kept, %.4f of the held-out slice of train right, %.2f steps/s, %.0f s", name,
                 "at hand" if done.cached else "done", fitted["best_epoch"] + 1, fitted["holdout_accuracy_fraction"],
                 fitted["steps_per_second"], done.seconds)  # fmt: skip
        return done

    def _stage(self, part: str, build) -> Stage:
        self.stages[part] = stage(self.cache_dir, self.wanted[part], build)
        return self.stages[part]


def measure(file: Path, float32: Path, dev: Tokens, bench: Bench) -> Measurement:
    """The figures of `file`, with a bar for the sentences."""
    with bar("measure", len(dev), "sentence") as shown:

        def progress(what: str, done: int, total: int) -> None:
            shown.set_description_str(f"  measure: {what}", refresh=False)
            if what == "sentences":
                _advance(shown, done)

        return measure_file(file, float32, dev, bench=bench, progress=progress)


def _advance(shown, done: int) -> None:
    shown.update(done - shown.n)


def _tflite(folder: Path | Stage) -> Path:
    return (folder.folder if isinstance(folder, Stage) else folder) / "model.tflite"


def _load_into(model, folder: Path) -> None:
    from optim.encoder import store

    store.load_into(model, folder)


def _precision(wanted: str) -> str:
    """float32 or bfloat16: what `auto` means on this machine."""
    if wanted == "auto":
        return "bfloat16" if has_bfloat16() else "float32"
    return wanted


def _prepare_tensorflow() -> None:
    """Imports TensorFlow, wakes its devices, and keeps its notes on having found no GPU off the screen."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")  # else it imports Keras 3 as well: two seconds for nothing
    # TensorFlow turns oneDNN on by itself only where AVX-512 is; with AVX2 it makes a training step a tenth faster.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    with without_chatter():
        import tensorflow as tf

        tf.config.list_logical_devices()
