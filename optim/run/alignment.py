"""The step between a student and a teacher of other words that runs beside it: which sentences both read alike."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from optim.common.errors import UserError
from optim.common.stages import Stage, Wanted
from optim.data.alignment import Alignment, aligned, read_vocabulary
from optim.data.tokens import Tokens, joined
from optim.run.keys import made_by
from optim.run.starts import Start
from optim.run.step import Stages, Step

ALIGNMENT = "alignment.npz"
VERSION = 1  # raised when other ids or other sentences come out
# Of the sentences. Two tokenizers that agree on fewer are of different kinds: a loss over what happens to be cut alike,
# short sentences of common words, would be called a loss over the training set.
LEAST_SAME = 0.5

log = logging.getLogger(__name__)


def require_alike(teacher: str, share: float, *, fix: str = "") -> None:
    """Raises UserError where the teacher cuts less than LEAST_SAME of the sentences into the model's pieces."""
    if share < LEAST_SAME:
        raise UserError(
            f"distill: the teacher {teacher} cuts {1 - share:.0%} of the sentences into other pieces than the "
            f"model, at most {1 - LEAST_SAME:.0%} may be: its states can't be followed. {fix}distill=kd needs none."
        )


class Tokenized(Protocol):
    """A step that leaves sentences in the tokens of a start."""

    @property
    def wanted(self) -> Wanted:
        """Its name and key."""
        ...

    def read(self, stages: Stages, split: str) -> Tokens:
        """`train`."""
        ...


class AlignmentStep(Step):
    """The student's token ids in the teacher's vocabulary, looked up in every sentence of the fit: alignment.npz.

    A sentence that both cut into other pieces keeps its soft targets and has no loss of states: so does one with a word
    that a cut vocabulary has lost. Where that is most of them, the tokenizers are refused.
    """

    kind = "alignment"

    def __init__(self, teacher: str, own: Start, other: Start, sentences: Sequence[tuple[Any, Any]]) -> None:
        """teacher: its name, for people. sentences: steps that leave them in the student's and in its tokens."""
        self.teacher, self.own, self.other = teacher, own, other
        self.sentences: Sequence[tuple[Tokenized, Tokenized]] = sentences

    def inputs(self) -> Sequence[Step]:
        """The sentences, and what leaves the tokenizers."""
        steps: list[Any] = [step for pair in self.sentences for step in pair]
        return (*self.own.words_inputs(), *self.other.words_inputs(), *steps)

    def key(self) -> Mapping[str, Any]:
        """The sentences in both tokens; their keys hold both tokenizers."""
        keys = [[one.wanted.key, other.wanted.key] for one, other in self.sentences]
        return {"alignment": VERSION, "tokens": keys, "versions": made_by("tokenizers")["versions"]}

    def build(self, folder: Path, scratch: Path, stages: Stages) -> None:
        """Compares. Raises UserError for tokenizers that agree on too few sentences."""
        own, other = (read_vocabulary(start.tokenizer(stages)) for start in (self.own, self.other))
        mine, theirs = (
            joined([step.read(stages, "train") for step in side]) for side in zip(*self.sentences, strict=True)
        )
        found = aligned(own, other, mine, theirs)
        require_alike(self.teacher, float(found.same.mean()))
        found.save(folder / ALIGNMENT)

    def at_hand(self, done: Stage, stages: Stages) -> None:
        """Says how many sentences have no loss of states: of every point that uses the stage."""
        same = Alignment.load(done.folder / ALIGNMENT).same
        if not same.all():
            log.info("alignment %s of %s sentences are cut into other pieces by the teacher %s: soft targets alone",
                     f"{np.count_nonzero(~same):,}", f"{len(same):,}", self.teacher)  # fmt: skip

    def read(self, stages: Stages) -> Alignment:
        """What was found."""
        return Alignment.load(stages.folder(self) / ALIGNMENT)
