"""About how long the fits of a point take, for those who wait: said before the first one starts.

A fit computes 6 operations for every weight and every token that it sees, forward and backward; a teacher's answers
take 2 (Kaplan et al. 2020, section 2.1, arXiv:2001.08361). Word embeddings are looked up: they cost no product.
What an operation takes is read off the cache, from stages of the same kind and model; where it has none, off a
matrix product that is timed on one core for half a second.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from optim.common.files import UNREADABLE
from optim.common.stages import SUMS
from optim.data.transfer import UnlabelledFile
from optim.encoder import store
from optim.encoder.architecture import Architecture
from optim.run.fits import PARTS, FitStep, LogitsStep, TokensStep
from optim.run.product import product_rate
from optim.run.step import Step
from optim.run.surgery import shape_before
from optim.run.transfer import AugmentedStep, TextsStep, TransferTokensStep, UnlabelledStep

FITS = ("teacher", "logits", "student")  # the kinds of stage that are forecast
FIT_OPERATIONS, ANSWER_OPERATIONS = 6, 2  # for each weight and token
PIECES = 1.15  # tokens for each word of SST-2, in BERT's vocabulary: 13.3 a sentence, as many as were counted
SPECIAL = 2  # tokens around a sentence
TEXTS = {"augmented": ", on sentences made from train", "unlabelled": ", on those of distill.unlabelled"}
START_S = 5.0  # before the first step: TensorFlow is imported and the step compiled
SOON_S = 4 * START_S  # a fit that took less says of a longer one how long the start is, and little else
# Operations of a fit in a second, over those of a float32 product of matrices. On a busy processor with AVX-512 and its
# bfloat16, encoders of 6 x 384 and 12 x 768 had 0.9 to 1.4 of them in float32, and 1.2 to 3.4 in bfloat16.
SHARE = {"float32": 1.0, "bfloat16": 1.5}


@dataclass(frozen=True)
class Work:
    """What a step computes."""

    kind: str  # teacher | logits | student
    weights: int  # of the model, without word embeddings
    precision: str  # float32 | bfloat16
    operations: float

    def like(self, other: Work) -> bool:
        """Whether an operation of both takes as long: one kind, one model, one precision."""
        return (self.kind, self.weights, self.precision) == (other.kind, other.weights, other.precision)


@dataclass(frozen=True)
class Count:
    """Of the training sentences."""

    tokens: int
    sentences: int

    def seen(self, recipe: Mapping[str, Any], *, shares: float = 1, copied: int = 0) -> float:
        """Tokens that a fit sees: those of its batches where it has a number of steps, else of its epochs.

        An epoch has `shares` tokens for each of train, and `copied` more.
        """
        passes = 2 if recipe.get("r_drop") else 1  # each sentence under two draws of dropout
        if recipe.get("steps"):
            return passes * recipe["steps"] * recipe["batch_size"] * self.tokens / self.sentences
        return passes * (shares * self.tokens + copied) * recipe["epochs"]


def _told_by(past: Work, took_s: float, work: Work) -> float | None:
    """How long `work` takes by another of its kind and model; None where that one ended too soon to tell."""
    more = work.operations / past.operations
    if past.kind == "logits":  # a fit has been before it, and has imported TensorFlow
        return took_s * more
    if took_s >= SOON_S:
        return START_S + (took_s - START_S) * more
    return took_s if more <= 1 else None


class Forecast:
    """Seconds of fits and of teachers' answers, by what the cache remembers and by what this machine multiplies."""

    def __init__(self, cache_dir: Path, rate: Callable[[], float] | None = None) -> None:
        self.cache_dir, self.measure = cache_dir, rate or product_rate
        self.counts: dict[str, Count] = {}  # by the key of a tokens stage

    def seconds(self, step: FitStep | LogitsStep) -> float:
        """About how long the step takes on a machine that does nothing else."""
        work = self.work(step)
        told = [_told_by(past, took_s, work) for past, took_s in self.past if past.like(work)]
        if known := [seconds for seconds in told if seconds is not None]:
            return median(known)
        return START_S + work.operations / (self.rate * SHARE[work.precision])

    def lines(self, steps: Sequence[Step]) -> list[str]:
        """One for each fit, and each teacher's answers, that the cache lacks; then the sum, where there are several."""
        fits = [step for step in steps if isinstance(step, FitStep | LogitsStep)]
        missing = [step for step in fits if step.wanted.at_hand(self.cache_dir) is None]
        times = [self.seconds(step) for step in missing]
        lines = [f"{named(step)}: about {spoken(each)}" for step, each in zip(missing, times, strict=True)]
        return [*lines, f"all of these: about {spoken(sum(times))}"] if len(lines) > 1 else lines

    @cached_property
    def rate(self) -> float:
        """Operations in a second of a float32 product of matrices, measured once."""
        return self.measure()

    @cached_property
    def past(self) -> list[tuple[Work, float]]:
        """(work, seconds) of the fits in the cache."""
        return list(_past(self.cache_dir))

    def work(self, step: FitStep | LogitsStep) -> Work:
        """What a step will compute."""
        if isinstance(step, LogitsStep):
            tokens = self._count(step.teacher.tokens).tokens * _shares(step)
            weights = weights_of(shape_before(step.teacher))
            precision = step.teacher.point.schedule.precision
            return Work("logits", weights, precision, ANSWER_OPERATIONS * weights * tokens)
        weights, schedule = weights_of(shape_before(step)), step.point.schedule
        live = sum(weights_of(shape_before(teacher)) for teacher in step.teachers)
        live *= getattr(step.loss, "states_until", 1.0)  # no teacher runs beside the later steps
        each = FIT_OPERATIONS * weights + ANSWER_OPERATIONS * live
        copied = _copied(self.cache_dir / "stages" / step.tokens.wanted.key, step.recipe.whole_copies)
        seen = self._count(step.tokens).seen(vars(step.recipe), shares=_shares(step), copied=copied)
        return Work(step.kind, weights, schedule.precision, each * seen)

    def _count(self, step: TokensStep) -> Count:
        """Of the training sentences, counted where the cache has them; else from their words."""
        key = step.wanted.key
        if key not in self.counts:
            texts = step.corpus.train.texts
            self.counts[key] = _counted(self.cache_dir / "stages" / key) or Count(
                sum(min(math.ceil(PIECES * len(text.split())) + SPECIAL, step.max_length) for text in texts), len(texts)
            )
        return self.counts[key]


def _shares(step: FitStep | LogitsStep) -> float:
    """What a step sees, over the training sentences, by their words."""
    if isinstance(step, LogitsStep):
        return _share(step.tokens.texts) if isinstance(step.tokens, TransferTokensStep) else 1
    return 1 + sum(_share(one.texts) for one in step.transfer)


def _share(texts: TextsStep) -> float:
    """The words of sentences that are made from train, or of a file, over those of train; what is left out counts."""
    lengths = [len(text.split()) for text in texts.corpus.train.texts]
    if isinstance(texts, AugmentedStep):
        more = texts.augment.copies * sum(length for length in lengths if length >= texts.augment.least_words)
    else:
        more = _words(texts.file) if isinstance(texts, UnlabelledStep) else 0
    return more / sum(lengths)


@lru_cache(maxsize=8)  # a sweep asks for each of its points
def _words(file: UnlabelledFile) -> int:
    return sum(len(text.split()) for text in file.texts())


def named(step: Step) -> str:
    """A fit in a few words."""
    if isinstance(step, LogitsStep):
        about = TEXTS[step.tokens.texts.kind] if isinstance(step.tokens, TransferTokensStep) else ""
        return f"answers of {named(step.teacher)}{about}"
    assert isinstance(step, FitStep)
    return f"{step.kind} {step.model_name}, seed {step.point.seed}"


def spoken(seconds: float) -> str:
    """A duration as people say it."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def weights_of(shape: Architecture) -> int:
    """Parameters without those of the word embeddings."""
    return replace(shape, vocabulary_size=0).parameters


def _counted(folder: Path) -> Count | None:
    """What a tokens stage has of train; None where there is none."""
    with suppress(*UNREADABLE), np.load(folder / "train.npz") as saved:
        return Count(int(saved["offsets"][-1]), len(saved["offsets"]) - 1)
    return None


def _copied(folder: Path, copies: int) -> int:
    """Tokens that whole sentences add which come `copies` times; 0 where they are not found yet."""
    with (
        suppress(*UNREADABLE),
        np.load(folder / "train.npz") as saved,
        np.load(folder / PARTS) as parts,
    ):
        return (copies - 1) * int(np.diff(saved["offsets"])[parts["whole"]].sum())
    return 0


def _past(cache_dir: Path) -> Iterator[tuple[Work, float]]:
    """(work, seconds) of every fit and every teacher's answers whose tokens are still there."""
    stages = cache_dir / "stages"
    tokens = {path.name: _counted(path) for path in stages.glob("tokens-*")}
    for kind in FITS:
        for path in stages.glob(f"{kind}-*/{SUMS}"):
            with suppress(OSError, ValueError, KeyError, TypeError):  # something that it was made from is gone
                record = json.loads(path.read_text(encoding="utf-8"))
                # Without a token it tells nothing: a file of which no sentence was left.
                if (count := tokens[record["key"]["tokens"]]) and count.tokens:
                    yield _work_of(kind, record["key"], count, path.parent), record["seconds"]


def _work_of(kind: str, key: Mapping[str, Any], count: Count, folder: Path) -> Work:
    """What a finished stage computed. Raises ValueError where that is not known."""
    stages = folder.parent
    if kind == "logits":
        weights = _weights_in(stages / key["teacher"])
        teacher = json.loads((stages / key["teacher"] / SUMS).read_text(encoding="utf-8"))["key"]
        return Work(kind, weights, teacher["fit"]["precision"], ANSWER_OPERATIONS * weights * count.tokens)
    weights, live = _weights_in(folder), sum(_weights_in(stages / teacher) for teacher in key["teachers"])
    live *= key["loss"].get("states_until", 1.0)
    each = FIT_OPERATIONS * weights + ANSWER_OPERATIONS * live
    recipe = key["fit"]["recipe"]
    if key.get("transfer") and not recipe.get("steps"):
        raise ValueError("How many sentences without labels its epochs had is not in the key.")
    seen = count.seen(recipe, copied=_copied(stages / key["tokens"], recipe.get("whole_copies", 1)))
    return Work(kind, weights, key["fit"]["precision"], each * seen)


def _weights_in(folder: Path) -> int:
    return weights_of(store.read_architecture(folder))
