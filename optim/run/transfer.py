"""The steps that make sentences which only teachers answer, from train or from the user's file, and their tokens."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from optim.common.errors import UserError
from optim.common.screen import bar
from optim.data import transfer
from optim.data.augment import Augment, Maker
from optim.data.corpus import Corpus
from optim.data.leaks import holding, require_unseen
from optim.data.phrases import parts_of, spans
from optim.data.spelling import normal_form
from optim.data.tokens import Tokens, tokenize_blocks
from optim.data.transfer import Block, Filter, UnlabelledFile
from optim.encoder.words import word_table
from optim.run.keys import augment_key, made_by
from optim.run.starts import FromCheckpoint, Start
from optim.run.step import Stages, Step

TEXTS, COUNTS = "texts.parquet", "counts.json"

log = logging.getLogger(__name__)


class TextsStep(Step):
    """Sentences without labels: texts.parquet, and in counts.json how many there are and how many were left out.

    Each is there once, in whatever case and punctuation, and none is a sentence of train or dev.
    """

    def __init__(self, corpus: Corpus) -> None:
        self.corpus = corpus

    def blocks(self) -> Iterator[Block]:
        """What the sentences are, before any is left out."""
        raise NotImplementedError

    def filter(self) -> Filter:
        """What is left out of them."""
        return Filter(self.corpus.train.texts, self.corpus.dev.texts)

    def build(self, folder: Path, scratch: Path, stages: Stages) -> None:
        """Writes them, a block at a time."""
        unseen = self.filter()
        count = transfer.save(folder / TEXTS, (unseen(block) for block in self.blocks()))
        counts = {"examples": count, "left_out": unseen.left_out}
        (folder / COUNTS).write_text(json.dumps(counts) + "\n", encoding="utf-8")
        log.info("%-9s %s sentences without labels; left out: %s said before, %s of dev", self.kind, f"{count:,}",
                 f"{unseen.left_out['repeated']:,}", f"{unseen.left_out['as_dev']:,}")  # fmt: skip

    def counts(self, stages: Stages) -> dict[str, Any]:
        """examples and left_out."""
        return stages.json(self, COUNTS)

    def parents(self, stages: Stages) -> np.ndarray:
        """int32 [n, 2]: the training rows that each was made from, -1 for none."""
        return transfer.parents_of(stages.folder(self) / TEXTS)


class AugmentedStep(TextsStep):
    """`distill.augment`: sentences made from train, by the words that a published checkpoint knows."""

    kind = "augmented"

    def __init__(self, corpus: Corpus, augment: Augment, start: FromCheckpoint) -> None:
        """Raises UserError where no sentence is long enough to be copied."""
        super().__init__(corpus)
        self.augment, self.start = augment, start
        if augment.least_words > (longest := max(len(text.split()) for text in corpus.train.texts)):
            raise UserError(
                f"distill.augment.least_words={augment.least_words} leaves nothing to copy: "
                f"the longest training sentence has {longest} words."
            )

    def key(self) -> Mapping[str, Any]:
        """Sentences, rules, and whose words."""
        made_from = {"corpus": self.corpus.digest, "words": self.start.key()}
        return {**made_from, "augment": augment_key(self.augment), "versions": made_by("numpy")["versions"]}

    def blocks(self) -> Iterator[Block]:
        """A block for each copy."""
        words, table = word_table(self.start.folder)
        log.info("%-9s %d copies of %s sentences", self.kind, self.augment.copies, f"{len(self.corpus.train.texts):,}")
        maker = Maker(self.corpus.train.texts, words, table, self.augment)
        with bar(self.kind, self.augment.copies, "copy") as shown:
            for block in maker.blocks():
                yield block
                shown.update(1)


def _unspaced(text: str) -> str:
    return normal_form(text).replace(" ", "")


class UnlabelledStep(TextsStep):
    """`distill.unlabelled`: the sentences of the user's file."""

    kind = "unlabelled"

    def __init__(self, corpus: Corpus, file: UnlabelledFile) -> None:
        super().__init__(corpus)
        self.file = file

    def key(self) -> Mapping[str, Any]:
        """The file's content, and what it may not repeat."""
        phrases = {"phrases": True} if self.corpus.phrases else {}
        return {"corpus": self.corpus.digest, "file": self.file.fingerprint(), **phrases}

    def filter(self) -> Filter:
        """By forms without spaces: the user's file may spell the sentences of the data otherwise.

        Where rows are phrases, a part of a scored sentence says what that says, and is left out too.
        """
        dev = self.corpus.dev.texts
        parts = spans(map(normal_form, dev)) if self.corpus.phrases else ()
        return Filter(self.corpus.train.texts, [*dev, *holding(dev, self.file.texts()), *parts], form=_unspaced)

    def require_unseen(self) -> list[str]:
        """The sentences. Raises UserError if they hold more of dev than chance brings."""
        texts = self.file.texts()
        require_unseen(self.corpus.dev.texts, texts, f"{transfer.SETTING}: {self.file.path}")
        return texts

    def blocks(self) -> Iterator[Block]:
        """All of it, if `require_unseen` lets it through; the few of dev are left out.

        Where rows are phrases, a part of a sentence of train counts as made from it: a fit that holds the sentence out
        does not learn from the part.
        """
        texts = self.require_unseen()
        block = transfer.from_nobody(texts)
        if self.corpus.phrases:
            train = self.corpus.train.texts
            whole = parts_of(train).whole.tolist()
            transfer.name_parents(block, dict(zip(whole, (normal_form(train[row]) for row in whole), strict=True)))
        yield block


class TransferTokensStep(Step):
    """Sentences without labels in the tokens of a start: train.npz."""

    kind = "tokens"

    def __init__(self, texts: TextsStep, start: Start, max_length: int) -> None:
        self.texts, self.start, self.max_length = texts, start, max_length

    def inputs(self) -> tuple[Step, ...]:
        """The texts, and what leaves the tokenizer."""
        return (self.texts, *self.start.words_inputs())

    def key(self) -> Mapping[str, Any]:
        """Sentences, words, and where a sentence is cut."""
        words = {"tokenizer": self.start.words_key(), "max_length": self.max_length}
        return {"texts": self.texts.wanted.key, **words, "versions": made_by("tokenizers")["versions"]}

    def build(self, folder: Path, scratch: Path, stages: Stages) -> None:
        """Tokenizes, some at a time."""
        blocks = transfer.texts_of(stages.folder(self.texts) / TEXTS)
        with bar("tokens", self.texts.counts(stages)["examples"], "sentence") as shown:
            made = tokenize_blocks(blocks, tokenizer_path=self.start.tokenizer(stages), max_length=self.max_length,
                                   progress=shown.update)  # fmt: skip
        made.save(folder / "train.npz")

    def read(self, stages: Stages, split: str) -> Tokens:
        """`train`: there is no other."""
        return Tokens.load(stages.folder(self) / f"{split}.npz")
