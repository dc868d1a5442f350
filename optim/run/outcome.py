"""Made steps -> the parts of result.json that a run computes, and the files of its bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from optim.data.corpus import Corpus
from optim.data.tokens import Tokens, unknown_id
from optim.encoder import store
from optim.export.bundle import COMPRESSED_FILE
from optim.measure import kinds, quality
from optim.measure.file import check_agreement
from optim.run.exports import MODEL
from optim.run.fits import NOT_REACHED, FitStep
from optim.run.point import Point
from optim.run.starts import FromStep
from optim.run.step import Stages
from optim.run.steps import Steps
from optim.run.surgery import SurgeryStep
from optim.run.teaching import teaching_of

UNCOMPRESSED: dict[str, Any] = {"compressed_bytes": None, "decompress_p50_ms": None}
# Part of `cost` -> the kinds of stage that it adds up.
COSTS = {
    "teacher_s": ("teacher",),
    "student_s": ("augmented", "unlabelled", "alignment", "latency", "logits", "surgery", "student"),
    "export_s": ("float32", "table", "candidates", "file", "compressed"),
    "measure_s": ("figures",),
}


@dataclass(frozen=True)
class Outcome:
    """What one point came to."""

    quality: dict[str, Any]
    size: dict[str, Any]
    speed: dict[str, Any]
    memory: dict[str, Any]
    cost: dict[str, Any]
    data: dict[str, Any]
    answers: dict[str, np.ndarray]  # int [dev_examples] each: labels, answers, teacher
    changed: list[dict[str, Any]]  # sentences that the file answers unlike its teacher
    file: Path  # model.tflite, or model.tflite.zst
    tokenizer: Path
    labels: list[str]


def outcome_of(point: Point, corpus: Corpus, steps: Steps, stages: Stages) -> Outcome:
    """Makes what is missing. Raises MeasurementError for a file that answers unlike its Keras model."""
    dev = steps.student.tokens.read(stages, "dev")
    teacher = steps.teachers[0].dev_logits(stages).argmax(axis=1)
    figures, logits = steps.figures.read(stages), steps.figures.logits(stages)
    agreement = quality.agreement(logits, steps.student.dev_logits(stages))
    check_agreement(agreement, max_disagreement=point.max_disagreement)
    packed = steps.compressed.read(stages) if steps.compressed else UNCOMPRESSED
    return Outcome(
        quality={
            **quality.scores(logits, dev.labels),
            **_errors(dev, teacher, logits, corpus.label_names),
            "teacher_accuracy_fraction": float(np.mean(teacher == dev.labels)),
            **teaching_of(point, corpus, steps, stages, dev.labels),
            "agreement_fraction": agreement,
        },
        size={
            **figures["size"],
            "compressed_bytes": packed["compressed_bytes"],
            **steps.student.weights(stages),
            "structure": _structure(steps.student, stages),
            **({"candidates": tried} if (tried := steps.file.tried(stages)) else {}),
        },
        speed={**figures["speed"], "decompress_p50_ms": packed["decompress_p50_ms"]},
        memory=figures["memory"],
        cost=_cost(steps.student, stages),
        data={**_data(corpus), **_words(steps.student, dev, stages), **_without_labels(steps.student, stages)},
        answers={"labels": dev.labels, "answers": logits.argmax(axis=1), "teacher": teacher},
        changed=kinds.changed(corpus.dev.texts, dev.labels, teacher, logits.argmax(axis=1), corpus.label_names),
        file=_shipped(steps, stages),
        tokenizer=steps.student.start.tokenizer(stages),
        labels=list(corpus.label_names),
    )


def _shipped(steps: Steps, stages: Stages) -> Path:
    """The file of the bundle."""
    if steps.compressed:
        return stages.folder(steps.compressed) / COMPRESSED_FILE
    return stages.folder(steps.file) / MODEL


def _errors(dev: Tokens, teacher: np.ndarray, logits: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
    """classes, confusion (rows are labels, columns answers) and kinds."""
    answers = logits.argmax(axis=1)
    table = quality.confusion(dev.labels, answers, len(names))
    right, teacher_right = answers == dev.labels, teacher == dev.labels
    return {
        "classes": kinds.by_class(table, names),
        "confusion": table.tolist(),
        "kinds": kinds.by_kind(right, teacher_right, dev.labels, dev.lengths, names),
    }


def _data(corpus: Corpus) -> dict[str, Any]:
    return {
        "name": corpus.name,
        "digest": corpus.digest,
        "train_examples": len(corpus.train.texts),
        "dev_examples": len(corpus.dev.texts),
        "labels": list(corpus.label_names),
    }


def _words(student: FitStep, dev: Tokens, stages: Stages) -> dict[str, Any]:
    """What the student's vocabulary makes of dev."""
    unknown = unknown_id(student.start.tokenizer(stages))
    share = 0.0 if unknown is None else float(np.mean(dev.ids == unknown))
    return {
        "dev_unknown_token_fraction": share,
        "dev_tokens_mean": float(dev.lengths.mean()),
        "dev_lengths": dev.length_counts(),
    }


def _structure(student: FitStep, stages: Stages) -> dict[str, Any]:
    """What the student is built of: heads and feed-forward columns of each layer, hidden units, words."""
    shape = store.read_architecture(stages.folder(student))
    return {"heads": list(shape.heads), "ffn_widths": list(shape.ffn_widths), "width": shape.width,
            "vocabulary_size": shape.vocabulary_size}  # fmt: skip


def _without_labels(student: FitStep, stages: Stages) -> dict[str, Any]:
    """How many sentences that only teachers answered the student learnt from, and why others of them were left out."""
    learnt, found = student.learnt(stages), {}
    for one in student.transfer:
        counts, kind = one.texts.counts(stages), one.texts.kind
        short = learnt.get(NOT_REACHED, {}).get(kind, 0)
        left_out = {**counts["left_out"], "of_held_out": counts["examples"] - learnt[kind] - short}
        found |= {f"{kind}_left_out": left_out | ({NOT_REACHED: short} if short else {})}
    return {f"{kind}_examples": learnt.get(kind, 0) for kind in ("augmented", "unlabelled")} | found


def _cost(student: FitStep, stages: Stages) -> dict[str, Any]:
    """Seconds of the stages, whenever they were spent, and which of them this run found in the cache."""
    seconds = {key: done.seconds for key, done in stages.made.items()}
    parts = {part: _sum(seconds, kinds) for part, kinds in COSTS.items()}
    tables = sum(seconds.get(key, 0.0) for key in _weighing(student))
    return {
        **parts,
        "student_s": parts["student_s"] + tables,
        "export_s": parts["export_s"] - tables,
        "cached": {key: done.cached for key, done in stages.made.items()},
        "stages": seconds,
    }


def _weighing(student: FitStep) -> set[str]:
    """The stages of export that the student is cut by, not written from: tables of what it is cut out of."""
    cut = student.start.step if isinstance(student.start, FromStep) else None
    tables = cut.tables.values() if isinstance(cut, SurgeryStep) else ()
    return {step.wanted.key for table in tables for step in (table, table.float32)}


def _sum(seconds: Mapping[str, float], kinds: tuple[str, ...]) -> float:
    return sum(s for key, s in seconds.items() if key.rsplit("-", 1)[0] in kinds)
