"""What the teachers of a student are worth: what several know together, and whether the student is better for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from optim.common.errors import UserError
from optim.data.corpus import Corpus
from optim.measure.quality import mcnemar
from optim.run.point import Point
from optim.run.step import Stages
from optim.run.steps import Steps, steps_of, untaught
from optim.train.answers import mean_soft


def teaching_of(point: Point, corpus: Corpus, steps: Steps, stages: Stages, labels: np.ndarray) -> dict[str, Any]:
    """The part of `quality` that is about the teachers. labels: int [dev_examples].

    What is compared are Keras answers on dev, before any file: those of the student against those of the same student
    without its teachers (`steps.untaught`), which for one that is neither pruned nor cut is its own fine-tuning.
    teacher_helps is true if the taught one has more of them right, false if as many or fewer; untaught_p is McNemar's
    p of the two, without which either may be chance: one seed, one dev set. It is None where nothing was taught, and
    where the cache does not hold the other student: training it would double what a run costs.
    """
    taught = steps.student is not steps.teachers[0] and _teaches(point)
    right = steps.student.dev_logits(stages).argmax(axis=1) == labels
    other = _right_without(point, corpus, stages.cache_dir, labels) if taught else None
    return {
        "ensemble_accuracy_fraction": _ensemble_accuracy(point, steps, stages, labels),
        "taught": taught,
        "student_accuracy_fraction": float(right.mean()),
        **_beside(right, other),
    }


def learnt_since(point: Point, cache_dir: Path, labels: np.ndarray) -> dict[str, Any]:
    """The part of `quality` that was not known when a point was finished, if its student and the other are there now.

    labels: int [dev_examples]. Nothing is made; empty where one of the two is not in the cache.
    """
    corpus = point.source.load(cache_dir)
    student = steps_of(point, corpus, cache_dir).student.wanted.intact(cache_dir)
    other = _right_without(point, corpus, cache_dir, labels)
    if student is None or other is None:
        return {}
    return _beside(np.load(student / "dev.npy").argmax(axis=1) == labels, other)


def _beside(right: np.ndarray, other: np.ndarray | None) -> dict[str, Any]:
    """A student beside the same without teachers, each by which answers are right; nothing known without the other."""
    return {
        "untaught_accuracy_fraction": None if other is None else float(other.mean()),
        "untaught_p": None if other is None else mcnemar(right, other),
        "teacher_helps": None if other is None else bool(right.sum() > other.sum()),
    }


def _teaches(point: Point) -> bool:
    """Whether the loss looks at teachers: not where their answers weigh nothing, and their states are not asked for."""
    weighed = point.loss.needs_logits and point.specs["distill"].get("teacher_weight") != 0
    return weighed or point.loss.needs_models


def _ensemble_accuracy(point: Point, steps: Steps, stages: Stages, labels: np.ndarray) -> float | None:
    """Of the mean of the teachers' soft answers, as the student is taught it; None for a single teacher."""
    if len(steps.teachers) == 1:
        return None
    spec = point.specs["distill"]
    temperature = spec.get("temperature", 1.0)  # a loss without one sees the answers as they are
    soft = mean_soft([teacher.dev_logits(stages) for teacher in steps.teachers], temperature)
    return float(np.mean(soft.argmax(axis=1) == labels))


def _right_without(point: Point, corpus: Corpus, cache_dir: Path, labels: np.ndarray) -> np.ndarray | None:
    """bool [dev_examples] of the student without its teachers; None if the cache does not hold it. It is not made."""
    try:
        folder = untaught(point, corpus, cache_dir).wanted.intact(cache_dir)
    except UserError:  # fit.teacher does not suit the model itself, so there is none: no reason to lose this result
        return None
    return None if folder is None else np.load(folder / "dev.npy").argmax(axis=1) == labels
