"""`conf/slim`: which layers, heads, feed-forward columns and hidden units a model keeps. What goes is gone: the file
has fewer numbers and its kernels fewer rows, unlike zeros (`conf/prune`).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from optim.common.build import method
from optim.common.errors import UserError, require_count, require_fraction, require_positive, require_seed
from optim.cut.budget import Cost, smallest, within_budget
from optim.cut.importance import SENSITIVITY, Importance
from optim.cut.kept import Kept, cut_shape
from optim.encoder.architecture import Architecture

CRITERIA = ("taylor", "magnitude", SENSITIVITY)  # the last: taylor, layers scaled by its table
FAMILIES = ("bert", "distilbert", "mpnet")
Score = Callable[[Kept], Importance]  # what is kept -> how much each part of it matters

log = logging.getLogger(__name__)


class Slimming(Protocol):
    """What `conf/slim` names."""

    @property
    def changes(self) -> bool:
        """False for the one that keeps everything."""
        ...

    @property
    def needs_latency(self) -> bool:
        """Whether it asks what a file of some shape would take."""
        ...

    @property
    def criterion(self) -> Criterion | None:
        """How parts are scored; None where nothing is."""
        ...

    def check(self, shape: Architecture) -> None:
        """Raises UserError for a shape from which this cannot be removed."""
        ...

    def after(self, shape: Architecture) -> Architecture:
        """What the shape becomes, as far as that is known before: with more parts where it is not."""
        ...

    def least(self, shape: Architecture) -> Architecture:
        """The least that it may become."""
        ...

    def check_latency(self, shape: Architecture, latency: Cost) -> None:
        """Raises UserError for a budget in milliseconds that nothing keeps."""
        ...

    def choose(self, shape: Architecture, score: Score, latency: Cost | None) -> Kept:
        """What to keep; `shape` has the vocabulary that the student will have."""
        ...


@dataclass(frozen=True, kw_only=True)
class Criterion:
    """How parts are scored, on which training sentences."""

    importance: str  # of CRITERIA
    samples: int
    seed: int
    steps: int  # cuts, each followed by a new scoring

    def __post_init__(self) -> None:
        if self.importance not in CRITERIA:
            known = f"{', '.join(CRITERIA)} (the last for slim=budget)"
            raise UserError(f"slim.importance must be one of {known}; got {self.importance!r}.")
        for name in ("samples", "steps"):
            require_count(f"slim.{name}", getattr(self, name))
        require_seed("slim.seed", self.seed)


@method("slim", "none")
@dataclass(frozen=True)
class Whole:
    """`slim=none`."""

    changes = False
    needs_latency = False
    criterion = None

    def check(self, shape: Architecture) -> None:
        """Nothing can be wrong."""

    def after(self, shape: Architecture) -> Architecture:
        """The same."""
        return shape

    def least(self, shape: Architecture) -> Architecture:
        """The same."""
        return shape

    def check_latency(self, shape: Architecture, latency: Cost) -> None:
        """There is no budget."""

    def choose(self, shape: Architecture, score: Score, latency: Cost | None) -> Kept:
        """Everything."""
        return Kept.all_of(shape)


@dataclass(frozen=True, kw_only=True)
class Even:
    """The same share of heads and columns from every layer, evenly spaced layers, one hidden size."""

    heads: float
    ffn: float
    layers: int | None
    width: int | None
    criterion: Criterion
    needs_latency = False

    def __post_init__(self) -> None:
        if self.criterion.importance == SENSITIVITY:
            raise UserError(
                "slim.importance=sensitivity tells what each layer bears, and this slim= takes the same share of each: "
                "choose slim=budget, or slim.importance=taylor."
            )
        for name in ("heads", "ffn"):
            require_fraction(f"slim.{name}", getattr(self, name))
        for name in ("layers", "width"):
            if getattr(self, name) is not None:
                require_count(f"slim.{name}", getattr(self, name))

    @property
    def changes(self) -> bool:
        """Whether anything is asked for."""
        return bool(self.heads or self.ffn) or self.layers is not None or self.width is not None

    def check(self, shape: Architecture) -> None:
        """A layer keeps a head and a column; layers and hidden units can only be fewer."""
        _require_family(shape)
        for name, counts in (("heads", shape.heads), ("ffn", shape.ffn_widths)):
            share = getattr(self, name)
            if any(_left(count, share) < 1 for count in counts):
                what = "head" if name == "heads" else "feed-forward column"
                raise UserError(
                    f"slim.{name} {share:g} leaves no {what} in a layer that has {min(counts)}; "
                    f"at most {math.floor(1000 * (1 - 1 / min(counts))) / 1000:.3f} leaves one."
                )
        if self.layers is not None and self.layers > len(shape.heads):
            raise UserError(f"slim.layers must be at most {len(shape.heads)}, what the model has, got {self.layers}.")
        _require_width(shape, self.width)

    def after(self, shape: Architecture) -> Architecture:
        """Exactly that."""
        kept = _layers_of(shape, self.layers)
        return replace(
            shape, width=self.width or shape.width, relative_columns=None,
            heads=tuple(_left(len(own), self.heads) for own in kept.heads),
            ffn_widths=tuple(_left(len(own), self.ffn) for own in kept.columns),
        )  # fmt: skip

    def least(self, shape: Architecture) -> Architecture:
        """Exactly that."""
        return self.after(shape)

    def check_latency(self, shape: Architecture, latency: Cost) -> None:
        """There is no budget."""

    def choose(self, shape: Architecture, score: Score, latency: Cost | None) -> Kept:
        """Layers first, then the rest in `steps` cuts, each on what the one before it left."""
        kept = _layers_of(shape, self.layers)
        if not self.heads and not self.ffn and self.width is None:
            return kept  # layers go by their place, whatever they matter: nothing need be scored
        full = kept
        for step in range(1, self.criterion.steps + 1):
            importance = score(kept)
            share = step / self.criterion.steps
            kept = self._cut(shape, full, kept, importance, share)
        return kept

    def _cut(self, shape: Architecture, full: Kept, kept: Kept, importance: Importance, share: float) -> Kept:
        """What is left when `share` of all that is to go has gone."""
        width = len(full.width) if self.width is None else round(shape.width - share * (shape.width - self.width))

        def best(scores: tuple[np.ndarray, ...], whole: tuple[tuple[int, ...], ...], part: float) -> tuple:
            return tuple(_best(own, _left(len(all_), share * part)) for own, all_ in zip(scores, whole, strict=True))

        chosen = Kept(
            layers=tuple(range(len(kept.layers))), heads=best(importance.heads, full.heads, self.heads),
            columns=best(importance.columns, full.columns, self.ffn), width=_best(importance.width, width),
            pooled=_best(importance.pooled, width),
        )  # fmt: skip
        return chosen.within(kept)


@dataclass(frozen=True, kw_only=True)
class Budget:
    """As many parts as a budget allows, wherever they matter most."""

    parameters: int | None
    latency_ms: float | None
    width: int | None
    criterion: Criterion
    changes = True

    def __post_init__(self) -> None:
        if (self.parameters is None) == (self.latency_ms is None):
            raise UserError(
                "slim=budget wants slim.parameters=N or slim.latency_ms=MS, one of the two; "
                f"got parameters {self.parameters}, latency_ms {self.latency_ms}."
            )
        if self.parameters is not None:
            require_count("slim.parameters", self.parameters)
        if self.latency_ms is not None:
            require_positive("slim.latency_ms", self.latency_ms)
        if self.width is not None:
            require_count("slim.width", self.width)

    @property
    def needs_latency(self) -> bool:
        """Where the budget is in milliseconds."""
        return self.latency_ms is not None

    def check(self, shape: Architecture) -> None:
        """That the smallest model that could be left has no more parameters than the budget."""
        _require_family(shape)
        _require_width(shape, self.width)
        least = smallest(self.narrowed(shape)).parameters
        if self.parameters is not None and self.parameters < least:
            raise UserError(
                f"slim.parameters must be at least {least:,}: a layer of one head, the words and the hidden size stay; "
                f"got {self.parameters:,}. vocab=seen and slim.width remove those."
            )

    def narrowed(self, shape: Architecture) -> Architecture:
        """The shape with the hidden size that is asked for."""
        return shape if self.width is None else replace(shape, width=self.width)

    def after(self, shape: Architecture) -> Architecture:
        """The width is known."""
        return self.narrowed(shape)

    def least(self, shape: Architecture) -> Architecture:
        """One layer of one head."""
        return smallest(self.narrowed(shape))

    def check_latency(self, shape: Architecture, latency: Cost) -> None:
        """The same in milliseconds, once a file of it was timed."""
        least = latency(smallest(self.narrowed(shape)))
        if self.latency_ms is not None and self.latency_ms < least:
            raise UserError(
                f"slim.latency_ms must be at least {math.ceil(100 * least) / 100:.2f}, what one layer of one head "
                f"takes on this machine; got {self.latency_ms:g}."
            )

    def choose(self, shape: Architecture, score: Score, latency: Cost | None) -> Kept:
        """The width first, then in `steps` cuts of the same cost, each on what the one before it left."""
        cost: Cost = latency if latency is not None and self.needs_latency else _parameters
        bound = float(self.latency_ms or self.parameters or 0)  # one of them is set
        kept = Kept.all_of(shape)
        if self.width is not None:
            importance = score(kept)
            kept = replace(kept, width=_best(importance.width, self.width), pooled=_best(importance.pooled, self.width))
        start = cost(cut_shape(shape, kept))
        if start <= bound:
            log.info("slim      the model is within the budget as it is: nothing more is removed")
        for step in range(1, self.criterion.steps + 1):
            goal = start + (bound - start) * step / self.criterion.steps
            now = cut_shape(shape, kept)
            kept = within_budget(now, score(kept), cost=cost, budget=goal).within(kept)
        return kept


def _parameters(shape: Architecture) -> float:
    return float(shape.parameters)


def _require_family(shape: Architecture) -> None:
    if shape.family not in FAMILIES:
        raise UserError(f"slim works on {', '.join(FAMILIES)}; this model is a {shape.family}. Choose slim=none.")


def _require_width(shape: Architecture, width: int | None) -> None:
    if width is not None and width > shape.width:
        raise UserError(f"slim.width must be at most {shape.width}, what the model has, got {width}.")


def _left(count: int, removed: float) -> int:
    """How many of `count` stay when a share goes: that rounds to the nearest number, from a half to the even one."""
    return count - round(count * removed)


def _best(importance: np.ndarray, count: int) -> tuple[int, ...]:
    """The `count` most important indices, rising; of equals the lower ones."""
    return tuple(sorted(int(i) for i in np.argsort(-importance, kind="stable")[:count]))


def _layers_of(shape: Architecture, count: int | None) -> Kept:
    """Everything of `count` evenly spaced layers, the first and the last among them."""
    whole = Kept.all_of(shape)
    if count is None:
        return whole
    last = len(shape.heads) - 1
    chosen = [last] if count == 1 else [int(i) for i in np.round(np.linspace(0, last, count))]
    return replace(whole, layers=tuple(chosen), heads=tuple(whole.heads[i] for i in chosen),
                   columns=tuple(whole.columns[i] for i in chosen))  # fmt: skip


@method("slim", "even")
def even(*, heads: float, ffn: float, layers: int | None, width: int | None, importance: str, samples: int, seed: int,
         steps: int) -> Even:  # fmt: skip
    """`slim=heads50`, `slim=slim75`, `slim=layers3`, ...: see Even."""
    criterion = Criterion(importance=importance, samples=samples, seed=seed, steps=steps)
    return Even(heads=heads, ffn=ffn, layers=layers, width=width, criterion=criterion)


@method("slim", "budget")
def budget(*, parameters: int | None, latency_ms: float | None, width: int | None, importance: str, samples: int,
           seed: int, steps: int) -> Budget:  # fmt: skip
    """`slim=budget slim.parameters=N` or `slim.latency_ms=MS`: see Budget."""
    criterion = Criterion(importance=importance, samples=samples, seed=seed, steps=steps)
    return Budget(parameters=parameters, latency_ms=latency_ms, width=width, criterion=criterion)
