"""Where a fit begins: an architecture, its weights and its words."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from optim.common.errors import UserError
from optim.common.files import sha256_of
from optim.data.alignment import read_vocabulary, require_special_tokens
from optim.encoder.architecture import Architecture, read_config
from optim.encoder.assets import Checkpoint
from optim.run.step import Stages, Step

TOKENIZER, WEIGHTS = "tokenizer.json", "model.safetensors"


class Start:
    """An architecture, its weights and its words."""

    def inputs(self) -> Sequence[Step]:
        """The steps that leave them."""
        return ()

    def words_inputs(self) -> Sequence[Step]:
        """The step that leaves the tokenizer, if one does."""
        return ()

    def key(self) -> Any:
        """What they depend on."""
        raise NotImplementedError

    def words_key(self) -> Any:
        """What the tokenizer depends on."""
        raise NotImplementedError

    def tokenizer(self, stages: Stages) -> Path:
        """The tokenizer.json."""
        raise NotImplementedError

    def shape(self, stages: Stages, classes: int) -> Architecture:
        """The architecture, with a classifier of `classes`."""
        raise NotImplementedError

    def fill(self, model: Any, shape: Architecture, stages: Stages) -> None:
        """Puts the weights into a Keras model of that shape."""
        raise NotImplementedError


class FromCheckpoint(Start):
    """A checkpoint as it was published; what it lacks, a classifier for one, stays as it was drawn."""

    def __init__(self, checkpoint: Checkpoint, cache_dir: Path) -> None:
        self.checkpoint, self.cache_dir = checkpoint, cache_dir

    @cached_property
    def folder(self) -> Path:
        """Fetched when it is first asked for."""
        return self.checkpoint.fetch(self.cache_dir)

    def key(self) -> Any:
        """What pins the weights."""
        return self.checkpoint.fingerprint()

    def words_key(self) -> Any:
        """The digest of the tokenizer, which several models share."""
        return sha256_of(self.folder / TOKENIZER)

    def tokenizer(self, stages: Stages) -> Path:
        """The checkpoint's own."""
        return self.folder / TOKENIZER

    def shape(self, stages: Stages, classes: int) -> Architecture:
        """From its config.json."""
        return self.architecture(classes)

    def architecture(self, classes: int) -> Architecture:
        """The same, which needs no stage.

        Raises UserError for a tokenizer that lacks a token which it makes, or whose ids the embedding does not have,
        and for weights that are missing, cut short or of more layers: before another model is fitted, which may take
        hours.
        """
        from optim.encoder.checkpoint import require_whole

        shape = read_config(self.folder, pooling=self.checkpoint.pooling, classes=classes)
        highest = _highest_id(self.folder / TOKENIZER, self.words_key(), framed=shape.pooling == "first")
        if highest >= shape.vocabulary_size:
            raise UserError(
                f"model: {self.folder / TOKENIZER} has ids up to {highest:,}, the model's embedding only "
                f"{shape.vocabulary_size:,} rows. Take the model's own tokenizer, or save the model after "
                "model.resize_token_embeddings(len(tokenizer))."
            )
        require_whole(self.folder / WEIGHTS, shape)
        return shape

    def fill(self, model: Any, shape: Architecture, stages: Stages) -> None:
        """From its model.safetensors."""
        from optim.encoder import checkpoint

        checkpoint.load(model, shape, self.folder / WEIGHTS)


class FromStep(Start):
    """What a step left: a fitted teacher, with the words it began with, or a surgery, with words of its own."""

    def __init__(self, step: Step, words: Start | None = None) -> None:
        self.step, self.words = step, words

    def inputs(self) -> Sequence[Step]:
        """The step."""
        return (self.step,)

    def words_inputs(self) -> Sequence[Step]:
        """The step, unless the words are those that it began with."""
        return self.words.words_inputs() if self.words else (self.step,)

    def key(self) -> Any:
        """The step's key."""
        return self.step.wanted.key

    def words_key(self) -> Any:
        """Theirs, or the step's."""
        return self.words.words_key() if self.words else self.step.wanted.key

    def tokenizer(self, stages: Stages) -> Path:
        """Theirs, or the one that the step left."""
        return self.words.tokenizer(stages) if self.words else stages.folder(self.step) / TOKENIZER

    def shape(self, stages: Stages, classes: int) -> Architecture:
        """As it was left."""
        from optim.encoder import store

        return store.read_architecture(stages.folder(self.step))

    def fill(self, model: Any, shape: Architecture, stages: Stages) -> None:
        """With the weights that were left."""
        from optim.encoder import store

        store.load_into(model, stages.folder(self.step))


@lru_cache(maxsize=64)
def _highest_id(path: Path, digest: str, *, framed: bool) -> int:
    """The highest id of a tokenizer.json, looked up once for each content. Raises as `require_special_tokens` does."""
    require_special_tokens(path, framed=framed)
    return max(read_vocabulary(path).pieces.values(), default=-1)
