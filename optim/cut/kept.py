"""What is kept of a model, and the smaller model that it makes: arrays in, arrays out. No TensorFlow here."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from optim.encoder.architecture import Architecture

Weights = dict[str, np.ndarray]  # Keras' name of a variable -> its values
# Part of a layer -> where its residual stream lies: rows of the kernel, or its columns and bias.
FROM_STREAM, INTO_STREAM = ("query", "key", "value", "ffn_in"), ("attention_output", "ffn_out")


@dataclass(frozen=True, kw_only=True)
class Kept:
    """Indices, rising, into what a model has: of each kept layer its heads and feed-forward columns."""

    layers: tuple[int, ...]
    heads: tuple[tuple[int, ...], ...]
    columns: tuple[tuple[int, ...], ...]
    width: tuple[int, ...]  # of the hidden size
    pooled: tuple[int, ...]  # of the pooler's outputs; as many as `width`

    @classmethod
    def all_of(cls, shape: Architecture) -> Kept:
        """Everything."""
        return cls(
            layers=tuple(range(len(shape.heads))),
            heads=tuple(tuple(range(count)) for count in shape.heads),
            columns=tuple(tuple(range(count)) for count in shape.ffn_widths),
            width=tuple(range(shape.width)),
            pooled=tuple(range(shape.width)),
        )

    def within(self, before: Kept) -> Kept:
        """These indices, which count what `before` left, as indices into what it was cut from."""

        def of(outer: Sequence[int], inner: Sequence[int]) -> tuple[int, ...]:
            return tuple(outer[i] for i in inner)

        return Kept(
            layers=of(before.layers, self.layers),
            heads=tuple(of(before.heads[i], own) for i, own in zip(self.layers, self.heads, strict=True)),
            columns=tuple(of(before.columns[i], own) for i, own in zip(self.layers, self.columns, strict=True)),
            width=of(before.width, self.width),
            pooled=of(before.pooled, self.pooled),
        )

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        return asdict(self)


def cut_shape(shape: Architecture, kept: Kept) -> Architecture:
    """The architecture of what is kept."""
    smaller = replace(
        shape,
        width=len(kept.width),
        heads=tuple(len(own) for own in kept.heads),
        ffn_widths=tuple(len(own) for own in kept.columns),
    )
    if not shape.relative_buckets:
        return smaller
    places = {column: place for place, column in enumerate(_table_columns(shape, kept))}
    own = tuple(tuple(places[c] for c in columns) for columns in _bias_columns(shape, kept))
    whole = tuple(range(len(places)))
    return replace(smaller, relative_columns=None if all(columns == whole for columns in own) else own)


def cut_weights(weights: Mapping[str, np.ndarray], shape: Architecture, kept: Kept) -> Weights:
    """The weights of what is kept, under the names of the smaller model, whose layers count from 0 without a gap."""
    place = {layer: index for index, layer in enumerate(kept.layers)}
    smaller: Weights = {}
    for name, values in weights.items():
        found = re.match(r"layer(\d+)_", name)
        if found is None:
            smaller[name] = _outside(name, values, shape, kept)
        elif (index := place.get(int(found[1]))) is not None:
            rest = name[found.end() :]
            smaller[f"layer{index}_{rest}"] = _inside(rest, values, shape, kept, index)
    return {name: np.ascontiguousarray(values) for name, values in smaller.items()}


def _outside(name: str, values: np.ndarray, shape: Architecture, kept: Kept) -> np.ndarray:
    """A variable that belongs to no layer: embeddings, their norm, pooler, classifier."""
    layer, kind = _split(name)
    if layer == "relative_bias":
        return values[:, _table_columns(shape, kept)]
    if layer == "pooler":
        return values[np.ix_(kept.width, kept.pooled)] if kind == "kernel" else values[list(kept.pooled)]
    if layer == "classifier":
        return values[list(kept.pooled)] if kind == "kernel" else values
    return values[..., list(kept.width)]


def _inside(name: str, values: np.ndarray, shape: Architecture, kept: Kept, index: int) -> np.ndarray:
    """A variable of a kept layer, the `index`-th of them."""
    part, kind = _split(name)
    columns = list(kept.columns[index])
    own = columns if part.startswith("ffn") else _of_heads(kept.heads[index], shape.head_width)
    if part in FROM_STREAM:
        return values[np.ix_(kept.width, own)] if kind == "kernel" else values[own]
    if part in INTO_STREAM and kind == "kernel":
        return values[np.ix_(own, kept.width)]
    return values[list(kept.width)]


def _split(name: str) -> tuple[str, str]:
    """`layer0_query/kernel:0` -> (layer0_query, kernel)."""
    layer, variable = name.split("/", 1)
    return layer, variable.rsplit("/", 1)[-1].split(":")[0]


def _of_heads(heads: Sequence[int], head_width: int) -> list[int]:
    """The columns of queries, keys and values that belong to these heads."""
    return [head * head_width + i for head in heads for i in range(head_width)]


def _bias_columns(shape: Architecture, kept: Kept) -> list[tuple[int, ...]]:
    """The columns of the relative bias that the kept heads of each kept layer read."""
    if shape.relative_columns is None:
        return list(kept.heads)
    layers = zip(kept.layers, kept.heads, strict=True)
    return [tuple(shape.relative_columns[layer][head] for head in heads) for layer, heads in layers]


def _table_columns(shape: Architecture, kept: Kept) -> list[int]:
    """Those that any of them reads."""
    return sorted({column for columns in _bias_columns(shape, kept) for column in columns})
