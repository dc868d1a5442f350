"""Students that are cut out of a fine-tuned model: structure by `conf/slim`, words by `conf/vocab`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from safetensors.numpy import load_file, save_file

from optim.common.errors import UserError
from optim.common.screen import bar
from optim.cut.budget import LatencyModel
from optim.cut.importance import SENSITIVITY, Importance, Scales, magnitude, scales, taylor
from optim.cut.kept import Kept, Weights, cut_shape, cut_weights
from optim.cut.structure import Criterion, Slimming
from optim.cut.vocabulary import Vocabulary, Words
from optim.data.tokens import Tokens
from optim.encoder.architecture import Architecture
from optim.encoder.store import ARCHITECTURE, WEIGHTS, read_architecture

SCORES = "scores.npz"  # how much each part mattered, for who wants to know why one went
CUT = "cut.json"  # what was kept: layers, heads, columns, width, pooled, words
TOKENIZER = "tokenizer.json"
EMBEDDING, PLACES = "word_embeddings/embeddings:0", "position_embeddings/embeddings:0"
TrainIds = Callable[[], np.ndarray]  # the training sentences in the tokens of the model, end to end: int32 [tokens]


@dataclass(frozen=True, kw_only=True)
class Patient:
    """What a surgery may look at."""

    folder: Path  # architecture.json and weights.safetensors of the fine-tuned model (`encoder/store.py`)
    tokenizer: Path  # its tokenizer.json
    train: Tokens  # the training sentences in its tokens
    latency: LatencyModel | None = None  # of files of its kind on this machine, where the surgery asks for it
    tables: Mapping[str, Any] = field(default_factory=dict)  # of this model, by name: those that the surgery asks for


class Surgery(Protocol):
    """A method that removes structure or words."""

    @property
    def changes(self) -> bool:
        """False for the one that removes nothing."""
        ...

    @property
    def cuts_words(self) -> bool:
        """Whether it leaves a tokenizer.json of its own."""
        ...

    @property
    def needs_latency(self) -> bool:
        """Whether it asks what a file of some shape would take."""
        ...

    @property
    def tables(self) -> tuple[str, ...]:
        """The tables that it asks for, by name, as a quantizer does."""
        ...

    @property
    def spec(self) -> Mapping[str, Any]:
        """Its name, version and arguments, for ids and keys."""
        ...

    def check(self, shape: Architecture, tokenizer: Path, train_ids: TrainIds) -> None:
        """Raises UserError for a model from which this cannot be removed; called before anything is trained."""
        ...

    def after(self, shape: Architecture) -> Architecture:
        """What the shape becomes, as far as that is known before: with more parts where it is not."""
        ...

    def least(self, shape: Architecture) -> Architecture:
        """The least that it may become: what goes with that and with `after` goes with all between them."""
        ...

    def words_left(self, shape: Architecture, tokenizer: Path, train_ids: TrainIds) -> np.ndarray:
        """The ids that stay, rising: int [words]."""
        ...

    def check_latency(self, shape: Architecture, latency: LatencyModel) -> None:
        """Raises UserError for a budget in milliseconds that nothing keeps; called before anything is trained, too."""
        ...

    def cut(self, patient: Patient, folder: Path) -> None:
        """Leaves architecture.json, weights.safetensors and tokenizer.json of the smaller model in `folder`."""
        ...


@dataclass(frozen=True)
class NoSurgery:
    """The student is the teacher, or a checkpoint of its own."""

    changes: bool = False
    cuts_words: bool = False
    needs_latency: bool = False
    tables: tuple[str, ...] = ()
    spec: Mapping[str, Any] = field(default_factory=dict)

    def check(self, shape: Architecture, tokenizer: Path, train_ids: TrainIds) -> None:
        """Nothing can be wrong."""

    def after(self, shape: Architecture) -> Architecture:
        """The same."""
        return shape

    def least(self, shape: Architecture) -> Architecture:
        """The same."""
        return shape

    def words_left(self, shape: Architecture, tokenizer: Path, train_ids: TrainIds) -> np.ndarray:
        """All."""
        return np.arange(shape.vocabulary_size)

    def check_latency(self, shape: Architecture, latency: LatencyModel) -> None:
        """Never asked."""

    def cut(self, patient: Patient, folder: Path) -> None:
        """Never asked."""
        raise AssertionError("there is nothing to cut")


@dataclass(frozen=True, kw_only=True)
class Removal:
    """Structure and words together: parts are scored on the whole vocabulary, and counted with the one that stays."""

    slim: Slimming
    vocabulary: Vocabulary
    spec: Mapping[str, Any]
    changes: bool = True

    @property
    def cuts_words(self) -> bool:
        """As `conf/vocab` has it."""
        return self.vocabulary.changes

    @property
    def needs_latency(self) -> bool:
        """As `conf/slim` has it."""
        return self.slim.needs_latency

    @property
    def tables(self) -> tuple[str, ...]:
        """That of what each layer bears, where `conf/slim` weighs them by it."""
        weighed = self.slim.criterion is not None and self.slim.criterion.importance == SENSITIVITY
        return (SENSITIVITY,) if weighed else ()

    def check(self, shape: Architecture, tokenizer: Path, train_ids: TrainIds) -> None:
        """Of both; the words are counted only where a budget has no room for all of them."""
        if (asked := self.vocabulary.positions or 0) > (there := shape.position_count):
            raise UserError(f"vocab.positions must be at most {there}, those of the model, got {asked}.")
        shape = self._shortened(shape)
        if not self.vocabulary.changes:
            self.slim.check(shape)
            return
        words = Words.read(tokenizer)
        self.vocabulary.check(words)
        self.slim.check(replace(shape, vocabulary_size=len(words.needed())))  # the fewest that may stay
        try:
            self.slim.check(shape)
        except UserError:
            kept = self.words_left(shape, tokenizer, train_ids)
            self.slim.check(replace(shape, vocabulary_size=len(kept)))

    def after(self, shape: Architecture) -> Architecture:
        """As `conf/slim` has it; how many words stay is not known before."""
        return self._shortened(self.slim.after(shape))

    def least(self, shape: Architecture) -> Architecture:
        """As `conf/slim` has it."""
        return self._shortened(self.slim.least(shape))

    def _shortened(self, shape: Architecture) -> Architecture:
        """With the positions that stay."""
        return replace(shape, position_count=self.vocabulary.positions or shape.position_count)

    def words_left(self, shape: Architecture, tokenizer: Path, train_ids: TrainIds) -> np.ndarray:
        """As `conf/vocab` has it."""
        if not self.cuts_words:
            return np.arange(shape.vocabulary_size)
        return np.array(self.vocabulary.keep(Words.read(tokenizer), _counts(train_ids(), shape)))

    def check_latency(self, shape: Architecture, latency: LatencyModel) -> None:
        """As `conf/slim` has it."""
        self.slim.check_latency(shape, latency)

    def cut(self, patient: Patient, folder: Path) -> None:
        """Cuts both, and leaves what was kept beside them."""
        shape, weights = read_architecture(patient.folder), load_file(patient.folder / WEIGHTS)
        words = self.words_left(shape, patient.tokenizer, lambda: patient.train.ids).tolist()
        goal = self._shortened(replace(shape, vocabulary_size=len(words)))
        scores: list[Importance] = []
        weigh: Scales | None = None

        def score(now: Kept) -> Importance:
            nonlocal weigh
            own = self._score(patient, shape, weights, now)
            if self.tables:
                # What is scored first is the whole model, which is what the table is of.
                weigh = weigh or scales(shape, weights, own, patient.tables[SENSITIVITY]["rows"])
                own = weigh.of(own, now.layers)
            scores.append(own)
            return own

        kept = self.slim.choose(goal, score, patient.latency)
        # Words can be cut out of every family, structure only out of some.
        smaller = cut_weights(weights, shape, kept) if self.slim.changes else weights
        smaller[EMBEDDING] = np.ascontiguousarray(smaller[EMBEDDING][words])
        smaller[PLACES] = np.ascontiguousarray(smaller[PLACES][: goal.position_count])
        save_file(smaller, folder / WEIGHTS)
        _write(folder / ARCHITECTURE, cut_shape(goal, kept).to_json())
        _write(folder / TOKENIZER, Words.read(patient.tokenizer).cut(words) if self.cuts_words else
               json.loads(patient.tokenizer.read_text(encoding="utf-8")))  # fmt: skip
        np.savez(folder / SCORES, **_named(scores))
        _write(folder / CUT, {**kept.to_json(), "words": words if self.cuts_words else None})

    def _score(self, patient: Patient, shape: Architecture, weights: Weights, kept: Kept) -> Importance:
        """How much what is kept now matters."""
        criterion = self.slim.criterion
        assert criterion
        now, left = cut_shape(shape, kept), cut_weights(weights, shape, kept)
        if criterion.importance == "magnitude":
            return magnitude(now, left)
        sample = _sample(patient.train, criterion)
        with bar("importance", len(sample), "sentence") as shown:
            return taylor(now, left, sample, progress=shown.update)


def _named(scores: Sequence[Importance]) -> dict[str, Any]:
    """`cut0_heads_layer0`, `cut0_columns_layer0`, ..., `cut0_layers`: what each cut found, by what is scored."""
    found: dict[str, Any] = {}
    for cut, one in enumerate(scores):
        for part, values in vars(one).items():
            if isinstance(values, tuple):
                found |= {f"cut{cut}_{part}_layer{i}": own for i, own in enumerate(values)}
            else:
                found[f"cut{cut}_{part}"] = values
    return found


def _counts(ids: np.ndarray, shape: Architecture) -> np.ndarray:
    """How often each word stands among `ids`: int [vocabulary]."""
    return np.bincount(ids, minlength=shape.vocabulary_size)


def _sample(train: Tokens, criterion: Criterion) -> Tokens:
    """`samples` of the training sentences, or all of a smaller set."""
    order = np.random.default_rng(criterion.seed).permutation(len(train))
    return train.take(order[: criterion.samples])


def _write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False) + "\n", encoding="utf-8")
