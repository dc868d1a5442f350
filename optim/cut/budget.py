"""Heads, feed-forward columns and layers ranked together: what goes first is what matters least for what it costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from optim.common.errors import UserError
from optim.cut.importance import Importance, together
from optim.cut.kept import Kept, cut_shape
from optim.encoder.architecture import Architecture

TOGETHER = 32  # feed-forward columns that go at once: a kernel of LiteRT takes them by so many
Cost = Callable[[Architecture], float]  # parameters, or milliseconds


@dataclass(frozen=True, kw_only=True)
class LatencyModel:
    """Milliseconds of a file as a sum over what its layers have; fitted to files that were timed on this machine."""

    base_ms: float
    layer_ms: float
    head_ms: float
    column_ms: float

    @classmethod
    def fitted(cls, shapes: Sequence[Architecture], latencies_ms: Sequence[float]) -> LatencyModel:
        """By least squares, no part below 0; shapes: at least four that differ in layers, heads and columns."""
        from scipy.optimize import nnls

        rows = [_charged(shape) for shape in shapes]
        scale = np.maximum(np.abs(rows).max(axis=0), 1.0)  # so that columns, by the thousand, weigh as much as layers
        parts = nnls(np.array(rows) / scale, np.array(latencies_ms))[0] / scale
        return cls(base_ms=parts[0], layer_ms=parts[1], head_ms=parts[2], column_ms=parts[3])

    def __call__(self, shape: Architecture) -> float:
        """Milliseconds."""
        return float(np.dot([self.base_ms, self.layer_ms, self.head_ms, self.column_ms], _charged(shape)))

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary that `LatencyModel(**...)` reads back."""
        return {name: float(value) for name, value in asdict(self).items()}


def _charged(shape: Architecture) -> list[float]:
    """1, layers, heads and columns, as far as a file computes them for every token.

    Where the first token is pooled, the last layer answers for that one alone: of it only keys and values are of all
    tokens, half of the products of a head.
    """
    heads, columns = float(sum(shape.heads)), float(sum(shape.ffn_widths))
    if shape.pooling == "first":
        heads, columns = heads - shape.heads[-1] / 2, columns - shape.ffn_widths[-1]
    return [1.0, float(len(shape.heads)), heads, columns]


def smallest(shape: Architecture) -> Architecture:
    """What no budget goes below: one layer of one head and TOGETHER columns."""
    return replace(shape, heads=(1,), ffn_widths=(min(TOGETHER, *shape.ffn_widths),), relative_columns=None)


def within_budget(shape: Architecture, importance: Importance, *, cost: Cost, budget: float) -> Kept:
    """What is kept when parts have gone until `cost` is at most `budget`; uneven across layers.

    Greedy: of all heads, groups of columns and whole layers the one with the least importance for each unit of cost.
    A group of columns matters as one gate for all of them would, if what they do to the loss were independent: by the
    root of the sum of their squares. A layer matters by its own gate, or by what its parts come to, if that is more.
    A layer keeps a head and a group of columns, or goes as a whole; one layer stays.
    Raises UserError for a budget below that.
    """
    state = _State.of(shape, importance)
    while cost(state.shape()) > budget:
        options = state.options(cost)
        if not options:
            least = cost(state.shape())
            raise UserError(
                f"slim.parameters or slim.latency_ms must be at least {least:,.10g}: nothing is left to remove but "
                f"words and the hidden size; got {budget:,.10g}. Cut vocab or slim.width too."
            )
        state = min(options, key=lambda option: option[0])[1]
    return state.kept()


@dataclass(frozen=True)
class _State:
    """What is still there while parts go, by layer: those of each that go first stand first."""

    whole: Architecture
    importance: Importance
    heads: dict[int, list[int]]
    groups: dict[int, list[list[int]]]  # of feed-forward columns

    @classmethod
    def of(cls, shape: Architecture, importance: Importance) -> _State:
        """That of the whole model."""
        heads = {i: _rising(own) for i, own in enumerate(importance.heads)}
        return cls(shape, importance, heads, {i: _groups(own) for i, own in enumerate(importance.columns)})

    def kept(self) -> Kept:
        """As indices."""
        layers = tuple(sorted(self.heads))
        return replace(
            Kept.all_of(self.whole), layers=layers,
            heads=tuple(tuple(sorted(self.heads[i])) for i in layers),
            columns=tuple(tuple(sorted(c for group in self.groups[i] for c in group)) for i in layers),
        )  # fmt: skip

    def shape(self) -> Architecture:
        """Its architecture."""
        return cut_shape(self.whole, self.kept())

    def options(self, cost: Cost) -> list[tuple[float, _State]]:
        """(importance lost for each unit of cost, what is left) of every part that may go next."""
        now = cost(self.shape())
        found = []
        for lost, left in self._next():
            saved = now - cost(left.shape())
            if saved > 0:
                found.append((lost / saved, left))
        return found

    def _next(self) -> list[tuple[float, _State]]:
        found = []
        for i in self.heads:
            if len(self.heads[i]) > 1:
                found.append((float(self.importance.heads[i][self.heads[i][0]]), self._without_head(i)))
            if len(self.groups[i]) > 1:
                found.append((together(self.importance.columns[i][self.groups[i][0]]), self._without_group(i)))
            if len(self.heads) > 1:
                found.append((self._of_layer(i), self._without_layer(i)))
        return found

    def _of_layer(self, i: int) -> float:
        """Its own gate, or what its parts come to, if that is more: in some sentences they work against each other."""
        heads = float(self.importance.heads[i][self.heads[i]].sum())
        columns = sum(together(self.importance.columns[i][group]) for group in self.groups[i])
        return max(float(self.importance.layers[i]), heads + columns)

    def _without_head(self, i: int) -> _State:
        return replace(self, heads={**self.heads, i: self.heads[i][1:]})

    def _without_group(self, i: int) -> _State:
        return replace(self, groups={**self.groups, i: self.groups[i][1:]})

    def _without_layer(self, i: int) -> _State:
        return replace(self, heads=_without(self.heads, i), groups=_without(self.groups, i))


def _without(parts: dict[int, list], i: int) -> dict[int, list]:
    return {layer: own for layer, own in parts.items() if layer != i}


def _rising(importance: np.ndarray) -> list[int]:
    """Indices, the least important first."""
    return [int(i) for i in np.argsort(importance, kind="stable")]


def _groups(importance: np.ndarray) -> list[list[int]]:
    """Indices in groups of TOGETHER, the least important group first; the last one may be smaller."""
    order = _rising(importance)
    return [order[start : start + TOGETHER] for start in range(0, len(order), TOGETHER)]
