"""The inner states that two models have, and which layer learns from which. No TensorFlow here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from optim.common.errors import UserError
from optim.encoder.architecture import Architecture
from optim.train.wrap import innermost

EMBEDDINGS, RELATIVE_BIAS = "embeddings_norm", "relative_bias"
PARTS = ("query", "key", "value")


@dataclass(frozen=True)
class Inner:
    """What of a model has inner states: its layers, counted from 1, and how wide they are."""

    width: int
    head_width: int
    heads: tuple[int, ...]  # per layer
    bottlenecks: bool  # MobileBERT's, whose layers end under another name
    relative: bool  # whether a bias by distance is added to its scores
    columns: tuple[tuple[int, ...] | None, ...]  # per layer, those of that bias that its heads read; None: all

    @property
    def depth(self) -> int:
        """Layers."""
        return len(self.heads)

    def features(self, layer: int) -> int:
        """Of a token's query, key or value in a layer."""
        return self.heads[layer - 1] * self.head_width

    def part(self, layer: int, part: str) -> str:
        """The Keras layer of its `query`, `key` or `value`."""
        return f"layer{layer - 1}_{part}"

    def hidden(self, layer: int) -> str:
        """The Keras layer that a layer ends with."""
        return f"layer{layer - 1}_{'bottleneck_out_norm' if self.bottlenecks else 'ffn_norm'}"

    @staticmethod
    def of_shape(shape: Architecture) -> Inner:
        """That of a model which may not be built yet."""
        return Inner(shape.width, shape.head_width, shape.heads, shape.bottleneck is not None,
                     bool(shape.relative_buckets), shape.relative_columns or (None,) * len(shape.heads))  # fmt: skip

    @staticmethod
    def of_model(model: Any) -> Inner:
        """That of a classifier that `encoder/graph.py` built."""
        layers = {innermost(layer).name: innermost(layer) for layer in model.layers}
        depth = sum(name.endswith("_query") for name in layers)
        attentions = [layers[f"layer{i}_attention"] for i in range(depth)]
        return Inner(
            width=int(layers[EMBEDDINGS].get_output_at(-1).shape[-1]),
            head_width=attentions[0].head_width if attentions else 1,
            heads=tuple(layer.heads for layer in attentions),
            bottlenecks="layer0_bottleneck_out_norm" in layers,
            relative=RELATIVE_BIAS in layers,
            columns=tuple(None if layer.columns is None else tuple(layer.columns) for layer in attentions),
        )


def layer_pairs(layers: str | Sequence[int | None], student: int, teacher: int) -> list[tuple[int, int]]:
    """Pairs (student's layer, teacher's layer), counted from 1, for models of as many layers.

    last: the last of both. even: the last of both, and others as evenly spaced as they come; layer m of M learns layer
    m * N / M of N, as in TinyBERT (Jiao et al. 2019, section 3.1), rounded. A list: the teacher's layer for each of the
    student's, null for one that learns none. Raises UserError for a list that does not fit.
    """
    if not isinstance(layers, str):
        return _listed(layers, student, teacher)
    if layers not in ("even", "last"):
        raise UserError(f"distill.layers must be even, last, or a list such as [2,4,null,8], got {layers!r}.")
    count = 1 if layers == "last" else min(student, teacher)
    return [(round(i * student / count), round(i * teacher / count)) for i in range(1, count + 1)]


def _listed(layers: Sequence[int | None], student: int, teacher: int) -> list[tuple[int, int]]:
    if len(layers) != student:
        raise UserError(
            f"distill.layers must have one entry for each of the student's {student} layers, got {len(layers)}: "
            f"{spelt(layers)}."
        )
    pairs = [(own, other) for own, other in enumerate(layers, 1) if other is not None]
    if not pairs:
        raise UserError("distill.layers names no layer of the teacher; distill=kd learns no states.")
    if wrong := [other for _, other in pairs if not 1 <= other <= teacher]:
        raise UserError(f"distill.layers must be from 1 to {teacher}, the teacher's layers, or null, got {wrong[0]}.")
    return pairs


def spelt(layers: Sequence[int | None]) -> str:
    """A list as the command line has it."""
    return f"[{','.join('null' if one is None else str(one) for one in layers)}]"
