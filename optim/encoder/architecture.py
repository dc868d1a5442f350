"""The shape of an encoder, read from a checkpoint's `config.json`. No TensorFlow here."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from optim.common.errors import UserError
from optim.common.memory import require_memory

# Version of the graph that `encoder/graph.py` builds; raised when it changes: in the key of all that is made with it.
GRAPH = 3
POOLINGS = ("first", "mean")
SKIPPED_POSITIONS = 2  # of mpnet: a token's position counts from the row behind that of padding, which is row 1


@dataclass(frozen=True)
class Bottleneck:
    """What the layers of a MobileBERT have and the others lack (Sun et al. 2020, arXiv:2004.02984)."""

    embedding_width: int  # of the vector of a word; it and its two neighbours' make the input of a token
    width: int  # at which attention and feed-forward work, between a projection in and one out
    ffn_count: int  # feed-forward networks of a layer, one after another, all of the layer's ffn_width


@dataclass(frozen=True)
class Architecture:
    """Everything that fixes the graph and the shape of every weight.

    Head counts and feed-forward widths are one per layer, because structured removal leaves them unequal; the width
    of a head stays what the checkpoint had.
    """

    family: str  # bert | distilbert | mobilebert | mpnet
    vocabulary_size: int
    position_count: int
    width: int
    head_width: int
    heads: tuple[int, ...]  # per layer
    ffn_widths: tuple[int, ...]  # per layer
    norm_epsilon: float  # mobilebert scales without dividing by a deviation: it has no use for this
    hidden_dropout: float
    attention_dropout: float
    head_dropout: float  # before the classifier
    pooling: str  # first: the [CLS] token | mean: the mean over the real tokens
    classes: int
    bottleneck: Bottleneck | None = None  # of mobilebert alone
    relative_buckets: int | None = None  # of mpnet alone: distances that its relative attention bias tells apart
    relative_columns: tuple[tuple[int, ...], ...] | None = None  # per layer, the columns of that bias that its heads
    # read, where heads were removed; None: each head its own

    @property
    def parameters(self) -> int:
        """How many weights the model has, the classifier's among them; counted without building it."""
        narrow = self.bottleneck.width if self.bottleneck else self.width
        embedded = self.bottleneck.embedding_width if self.bottleneck else self.width
        count = self.vocabulary_size * embedded + (self.position_count + 2) * self.width
        for heads, ffn in zip(self.heads, self.ffn_widths, strict=True):
            count += self._layer_parameters(heads * self.head_width, ffn, narrow)
        if self.bottleneck:
            count += 3 * embedded * self.width + self.width
        if self.relative_buckets:
            count += self.relative_buckets * self.relative_width
        pooler = 0 if self.family == "mobilebert" else self.width**2 + self.width
        return count + pooler + self.width * self.classes + self.classes

    @property
    def relative_width(self) -> int:
        """Columns of the relative attention bias."""
        if self.relative_columns is None:
            return self.heads[0]
        return 1 + max(column for own in self.relative_columns for column in own)

    def _layer_parameters(self, inner: int, ffn: int, narrow: int) -> int:
        feed_forward = 2 * narrow * ffn + ffn + narrow + 2 * narrow
        if self.bottleneck is None:
            return 4 * narrow * inner + 3 * inner + narrow + 2 * narrow + feed_forward
        projections = 2 * (self.width * narrow + narrow + 2 * narrow) + narrow * self.width + 3 * self.width
        attention = 2 * (narrow * inner + inner) + self.width * inner + inner + inner * narrow + narrow + 2 * narrow
        return projections + attention + self.bottleneck.ffn_count * feed_forward

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary that `from_json` reads back; without what only another family has."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @staticmethod
    def from_json(fields: dict[str, Any]) -> Architecture:
        """The architecture that `to_json` wrote."""
        bottleneck = Bottleneck(**fields["bottleneck"]) if "bottleneck" in fields else None
        layers = {"heads": tuple(fields["heads"]), "ffn_widths": tuple(fields["ffn_widths"])}
        columns = fields.get("relative_columns")
        if columns is not None:
            layers["relative_columns"] = tuple(tuple(own) for own in columns)
        return Architecture(**{**fields, **layers, "bottleneck": bottleneck})


def class_names(folder: Path) -> tuple[str, ...]:
    """The classes that the config.json in `folder` names, in order; none where it names none, or LABEL_0 and so on."""
    try:
        named = json.loads((folder / "config.json").read_text(encoding="utf-8"))["id2label"]
        names = tuple(str(named[key]) for key in sorted(named, key=int))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return ()
    return () if all(re.fullmatch(r"LABEL_\d+", name) for name in names) else names


def read_config(folder: Path, *, pooling: str, classes: int) -> Architecture:
    """The architecture that the Hugging Face `config.json` in `folder` describes.

    Raises UserError for a family that is not built here, or an activation or position scheme that the graph lacks.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise UserError(
            f"model: {folder} has no config.json. A checkpoint needs config.json, model.safetensors and a tokenizer."
        )
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # not JSON, or not UTF-8
        raise UserError(f"model: {path} is not valid JSON ({error}).") from error
    family = config.get("model_type") if isinstance(config, dict) else None
    if family not in READERS:
        raise UserError(f"model: {path} has model_type {family!r}; only {', '.join(READERS)} can be built.")
    if pooling not in POOLINGS:
        raise UserError(f"model.pooling must be one of {', '.join(POOLINGS)}, got {pooling!r}.")
    try:
        shape = READERS[family](config, pooling, classes)
    except KeyError as error:
        raise UserError(f"model: {path} has no {error.args[0]!r}, which a {family} checkpoint needs.") from error
    require_memory(shape.parameters, f"model: {path}")
    return shape


def _require(config: dict[str, Any], key: str, expected: str | bool | int) -> None:
    if config.get(key, expected) != expected:
        raise UserError(f"model: config.json has {key} {config[key]!r}; only {expected!r} is built.")


# Our name of a size -> its key in config.json.
SIZES = {
    "vocabulary": "vocab_size",
    "positions": "max_position_embeddings",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "width": "hidden_size",
    "ffn": "intermediate_size",
}
DISTILBERT_SIZES = {**SIZES, "layers": "n_layers", "heads": "n_heads", "width": "dim", "ffn": "hidden_dim"}
LARGEST = 10**7  # of any size in a config.json: beyond it is a mistake, or somebody's idea of one


def _size(config: dict[str, Any], key: str) -> int:
    """A whole number of 1 to LARGEST. Raises UserError naming the key."""
    value = config[key]
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= LARGEST:
        raise UserError(f"model: config.json has {key} {value!r}; it must be a whole number from 1 to {LARGEST:,}.")
    return value


def _number(config: dict[str, Any], key: str, default: float) -> float:
    """A number of config.json that may be left out, in [0, 1)."""
    value = config.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise UserError(f"model: config.json has {key} {value!r}; it must be a number in [0, 1).")
    return float(value)


def _read(config: dict[str, Any], keys: dict[str, str], family: str, *, per_head_of: str, **rest: Any) -> Architecture:
    """What all families share; `per_head_of` is the key of the width that the heads divide."""
    size = {name: _size(config, key) for name, key in keys.items()}
    shared = _size(config, per_head_of)
    if shared % size["heads"]:
        raise UserError(
            f"model: config.json has {keys['heads']} {size['heads']}, which must divide {per_head_of} {shared}."
        )
    return Architecture(
        family=family, vocabulary_size=size["vocabulary"], position_count=size["positions"], width=size["width"],
        head_width=shared // size["heads"], heads=(size["heads"],) * size["layers"],
        ffn_widths=(size["ffn"],) * size["layers"], **rest,
    )  # fmt: skip


def _dropouts(config: dict[str, Any], usual: float) -> dict[str, float]:
    """Dropout rates under BERT's names."""
    hidden = _number(config, "hidden_dropout_prob", usual)
    head = hidden if config.get("classifier_dropout") is None else _number(config, "classifier_dropout", usual)
    attention = _number(config, "attention_probs_dropout_prob", 0.1)
    return {"hidden_dropout": hidden, "attention_dropout": attention, "head_dropout": head}


def _bert(config: dict[str, Any], pooling: str, classes: int) -> Architecture:
    _require(config, "hidden_act", "gelu")
    _require(config, "position_embedding_type", "absolute")
    epsilon = _number(config, "layer_norm_eps", 1e-12)
    return _read(config, SIZES, "bert", per_head_of="hidden_size", norm_epsilon=epsilon, pooling=pooling,
                 classes=classes, **_dropouts(config, 0.1))  # fmt: skip


def _distilbert(config: dict[str, Any], pooling: str, classes: int) -> Architecture:
    _require(config, "activation", "gelu")
    return _read(
        config, DISTILBERT_SIZES, "distilbert", per_head_of="dim", pooling=pooling, classes=classes,
        norm_epsilon=1e-12,  # fixed in Hugging Face's DistilBERT
        hidden_dropout=_number(config, "dropout", 0.1), attention_dropout=_number(config, "attention_dropout", 0.1),
        head_dropout=_number(config, "seq_classif_dropout", 0.2),
    )  # fmt: skip


def _mobilebert(config: dict[str, Any], pooling: str, classes: int) -> Architecture:
    """MobileBERT as it was published; Hugging Face's switches could turn it into something else."""
    built = {"hidden_act": "relu", "normalization_type": "no_norm", "trigram_input": True, "use_bottleneck": True,
             "use_bottleneck_attention": False, "key_query_shared_bottleneck": True}  # fmt: skip
    for key, expected in built.items():
        _require(config, key, expected)
    _require({"classifier_activation": True, **config}, "classifier_activation", False)  # True is what absence means
    bottleneck = Bottleneck(
        embedding_width=_size(config, "embedding_size"),
        width=_size(config, "intra_bottleneck_size"),
        ffn_count=_size(config, "num_feedforward_networks"),
    )
    epsilon = _number(config, "layer_norm_eps", 1e-12)
    return _read(config, SIZES, "mobilebert", per_head_of="intra_bottleneck_size", norm_epsilon=epsilon,
                 pooling=pooling, classes=classes, bottleneck=bottleneck, **_dropouts(config, 0.0))  # fmt: skip


def _mpnet(config: dict[str, Any], pooling: str, classes: int) -> Architecture:
    """MPNet (Song et al. 2020, arXiv:2004.09297). Its table of positions begins with rows that no token has."""
    _require(config, "hidden_act", "gelu")
    _require(config, "relative_attention_num_buckets", 32)  # what Hugging Face computes with, whatever this says
    shape = _read(config, SIZES, "mpnet", per_head_of="hidden_size", pooling=pooling, classes=classes,
                  norm_epsilon=_number(config, "layer_norm_eps", 1e-12), **_dropouts(config, 0.1))  # fmt: skip
    positions = shape.position_count - SKIPPED_POSITIONS
    if positions < 1:
        raise UserError(
            f"model: config.json has max_position_embeddings {shape.position_count}; mpnet needs 3 or more."
        )
    return replace(shape, position_count=positions, relative_buckets=32)


READERS = {"bert": _bert, "distilbert": _distilbert, "mobilebert": _mobilebert, "mpnet": _mpnet}
