"""The shape of an encoder, read from a checkpoint's `config.json`. No TensorFlow here."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from optim.common.errors import UserError

# Version of the graph that `encoder/graph.py` builds; raised when it changes: in the key of all that is made with it.
GRAPH = 3
POOLINGS = ("first", "mean")


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

    family: str  # bert | distilbert | mobilebert
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

    def with_classes(self, classes: int) -> Architecture:
        """The same encoder under a classifier of `classes` outputs."""
        return replace(self, classes=classes)

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary that `from_json` reads back; without `bottleneck` where there is none."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @staticmethod
    def from_json(fields: dict[str, Any]) -> Architecture:
        """The architecture that `to_json` wrote."""
        bottleneck = Bottleneck(**fields["bottleneck"]) if "bottleneck" in fields else None
        layers = {"heads": tuple(fields["heads"]), "ffn_widths": tuple(fields["ffn_widths"])}
        return Architecture(**{**fields, **layers, "bottleneck": bottleneck})


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
        return READERS[family](config, pooling, classes)
    except KeyError as error:
        raise UserError(f"model: {path} has no {error.args[0]!r}, which a {family} checkpoint needs.") from error


def _require(config: dict[str, Any], key: str, expected: str | bool) -> None:
    if config.get(key, expected) != expected:
        raise UserError(f"model: config.json has {key} {config[key]!r}; only {expected!r} is built.")


def _head_width(config: dict[str, Any], width: str, heads: str) -> int:
    if config[heads] < 1 or config[width] % config[heads]:
        raise UserError(f"model: config.json has {heads} {config[heads]}, which must divide {width} {config[width]}.")
    return config[width] // config[heads]


def _bert(config: dict[str, Any], pooling: str, classes: int) -> Architecture:
    _require(config, "hidden_act", "gelu")
    _require(config, "position_embedding_type", "absolute")
    layers, heads = config["num_hidden_layers"], config["num_attention_heads"]
    dropout, head_dropout = config.get("hidden_dropout_prob", 0.1), config.get("classifier_dropout")
    return Architecture(
        family="bert",
        vocabulary_size=config["vocab_size"],
        position_count=config["max_position_embeddings"],
        width=config["hidden_size"],
        head_width=_head_width(config, "hidden_size", "num_attention_heads"),
        heads=(heads,) * layers,
        ffn_widths=(config["intermediate_size"],) * layers,
        norm_epsilon=config.get("layer_norm_eps", 1e-12),
        hidden_dropout=dropout,
        attention_dropout=config.get("attention_probs_dropout_prob", 0.1),
        head_dropout=dropout if head_dropout is None else head_dropout,
        pooling=pooling,
        classes=classes,
    )


def _distilbert(config: dict[str, Any], pooling: str, classes: int) -> Architecture:
    _require(config, "activation", "gelu")
    layers, heads = config["n_layers"], config["n_heads"]
    return Architecture(
        family="distilbert",
        vocabulary_size=config["vocab_size"],
        position_count=config["max_position_embeddings"],
        width=config["dim"],
        head_width=_head_width(config, "dim", "n_heads"),
        heads=(heads,) * layers,
        ffn_widths=(config["hidden_dim"],) * layers,
        norm_epsilon=1e-12,  # fixed in Hugging Face's DistilBERT
        hidden_dropout=config.get("dropout", 0.1),
        attention_dropout=config.get("attention_dropout", 0.1),
        head_dropout=config.get("seq_classif_dropout", 0.2),
        pooling=pooling,
        classes=classes,
    )


def _mobilebert(config: dict[str, Any], pooling: str, classes: int) -> Architecture:
    """MobileBERT as it was published; Hugging Face's switches could turn it into something else."""
    built = {"hidden_act": "relu", "normalization_type": "no_norm", "trigram_input": True, "use_bottleneck": True,
             "use_bottleneck_attention": False, "key_query_shared_bottleneck": True}  # fmt: skip
    for key, expected in built.items():
        _require(config, key, expected)
    _require({"classifier_activation": True, **config}, "classifier_activation", False)  # True is what absence means
    layers, heads = config["num_hidden_layers"], config["num_attention_heads"]
    dropout, head_dropout = config.get("hidden_dropout_prob", 0.0), config.get("classifier_dropout")
    if config["num_feedforward_networks"] < 1:
        raise UserError(
            f"model: config.json has num_feedforward_networks {config['num_feedforward_networks']}; it takes one."
        )
    return Architecture(
        family="mobilebert",
        vocabulary_size=config["vocab_size"],
        position_count=config["max_position_embeddings"],
        width=config["hidden_size"],
        head_width=_head_width(config, "intra_bottleneck_size", "num_attention_heads"),
        heads=(heads,) * layers,
        ffn_widths=(config["intermediate_size"],) * layers,
        norm_epsilon=config.get("layer_norm_eps", 1e-12),
        hidden_dropout=dropout,
        attention_dropout=config.get("attention_probs_dropout_prob", 0.1),
        head_dropout=dropout if head_dropout is None else head_dropout,
        pooling=pooling,
        classes=classes,
        bottleneck=Bottleneck(
            embedding_width=config["embedding_size"],
            width=config["intra_bottleneck_size"],
            ffn_count=config["num_feedforward_networks"],
        ),
    )


READERS = {"bert": _bert, "distilbert": _distilbert, "mobilebert": _mobilebert}
