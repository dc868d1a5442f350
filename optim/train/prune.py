"""Pruning methods: which kernels lose which of their weights, and when in the course of a fit.

Zeros make a file smaller only once it is compressed, and LiteRT no faster; the result reports both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from optim.common.build import method
from optim.common.errors import UserError, require_count, require_fraction, require_positive
from optim.train.wrap import Attached

TOLERANCE = 0.001  # of a kernel's weights: how far from its target a mask may be after the fit


@dataclass
class _Untouched:
    model: Any

    def after_epoch(self) -> None: ...

    def settled(self, progress: float) -> bool:
        return True

    def ranges(self) -> dict[str, np.ndarray]:
        return {}


@dataclass(frozen=True, kw_only=True)
class NoPruning:
    """`prune=none`: the method that does nothing."""

    changes: bool = False
    packages: tuple[str, ...] = ()

    def attach(self, model, *, total_steps: int) -> Attached:
        """The model as it is."""
        return _Untouched(model)

    def check(self, model) -> None:
        """Nothing was promised."""


@dataclass(frozen=True, kw_only=True)
class Magnitude:
    """Zeroes the smallest weights of every encoder kernel and of the pooler (Zhu & Gupta 2017, arXiv:1710.01878).

    The masks are TFMOT's `prune_low_magnitude`; they hold through fine-tuning and distillation.
    """

    schedule: str  # constant | polynomial
    sparsity: float  # at the end, a fraction of each kernel
    initial_sparsity: float  # at `begin`; the polynomial alone uses it
    power: float  # of the polynomial
    begin: float  # training progress of the first mask
    end: float  # training progress from which the sparsity is the final one
    every_steps: int  # between two drawings of the mask
    packages: tuple[str, ...] = ("tensorflow-model-optimization",)

    def __post_init__(self) -> None:
        if self.schedule not in ("constant", "polynomial"):
            raise UserError(f"prune.schedule must be constant or polynomial, got {self.schedule!r}.")
        for name in ("sparsity", "initial_sparsity", "begin", "end"):
            require_fraction(f"prune.{name}", getattr(self, name), one=name == "end")
        require_positive("prune.power", self.power)
        require_count("prune.every_steps", self.every_steps)
        if self.end < self.begin:
            raise UserError(f"prune.end must lie in [prune.begin, 1] = [{self.begin:g}, 1], got {self.end:g}.")

    @property
    def changes(self) -> bool:
        """A sparsity of 0 zeroes nothing."""
        return self.sparsity > 0

    def attach(self, model, *, total_steps: int) -> Attached:
        """`model` with its prunable layers wrapped; the weights are shared, so `model` itself is pruned."""
        return _Masks(model, self._steps(total_steps), total_steps)

    def _steps(self, total_steps: int):
        """TFMOT's schedule in steps, counted from 1. A short fit draws its mask more often, at least ten times."""
        from tensorflow_model_optimization.sparsity import keras as sparsity  # type: ignore[import]

        every = max(1, min(self.every_steps, total_steps // 10))
        begin = 1 + math.floor(self.begin * (total_steps - 1))
        if self.schedule == "constant":
            return sparsity.ConstantSparsity(self.sparsity, begin_step=begin, frequency=every)
        turns = max(1, math.floor((self.end - self.begin) * (total_steps - 1) / every))
        return sparsity.PolynomialDecay(
            self.initial_sparsity, self.sparsity, begin_step=begin, end_step=begin + turns * every, power=self.power,
            frequency=every,
        )  # fmt: skip

    def check(self, model) -> None:
        """Raises RuntimeError unless every prunable kernel has its share of zeros, within a tenth of a point."""
        wrong = {
            name: zeros for name, zeros in zeroed_fractions(model).items() if abs(zeros - self.sparsity) > TOLERANCE
        }
        if wrong:
            name, zeros = max(wrong.items(), key=lambda item: abs(item[1] - self.sparsity))
            raise RuntimeError(
                f"the mask did not hold: {len(wrong)} kernels are off prune.sparsity {self.sparsity:.3f} by more than "
                f"{TOLERANCE}, {name} most ({zeros:.4f} zeros)."
            )


class _Masks:
    """TFMOT's wrappers around the prunable layers, and the two calls that its callback would make."""

    def __init__(self, model, schedule, total_steps: int) -> None:
        import tf_keras as keras
        from tensorflow_model_optimization.sparsity import keras as sparsity  # type: ignore[import]

        names, self.schedule, self.total_steps = set(prunable(model)), schedule, total_steps

        def wrap(layer):
            return sparsity.prune_low_magnitude(layer, schedule) if layer.name in names else layer

        self.model: Any = keras.models.clone_model(model, clone_function=wrap)
        self.callback = sparsity.UpdatePruningStep()
        self.callback.set_model(self.model)
        self.callback.on_train_begin()

    def after_epoch(self) -> None:
        self.callback.on_epoch_end(0)

    def settled(self, progress: float) -> bool:
        return progress * self.total_steps >= max(self.schedule.begin_step, self.schedule.end_step)

    def ranges(self) -> dict[str, np.ndarray]:
        return {}


@method("prune", "none")
def none() -> NoPruning:
    """`prune=none`."""
    return NoPruning()


@method("prune", "magnitude")
def magnitude(*, schedule: str, sparsity: float, initial_sparsity: float, power: float, begin: float, end: float,
              every_steps: int) -> Magnitude:  # fmt: skip
    """`prune=fixed50`, `prune=poly80`, ...: see Magnitude."""
    return Magnitude(schedule=schedule, sparsity=sparsity, initial_sparsity=initial_sparsity, power=power, begin=begin,
                     end=end, every_steps=every_steps)  # fmt: skip


def prunable(model) -> list[str]:
    """Names of the Dense layers that pruning is for: all of the encoder's and the pooler, not the classifier."""
    return [layer.name for layer in model.layers if _is_dense(layer) and layer.name != "classifier"]


def _is_dense(layer) -> bool:
    return type(layer).__name__ == "Dense"


def zeroed_fractions(model) -> dict[str, float]:
    """Fraction of weights that are exactly 0, for each prunable kernel."""
    return {name: float(np.mean(model.get_layer(name).kernel.numpy() == 0)) for name in prunable(model)}


def zeroed_fraction(model) -> float:
    """The same over all prunable kernels together, each weighing as much as it has weights."""
    kernels = [model.get_layer(name).kernel.numpy() for name in prunable(model)]
    return float(sum(np.sum(k == 0) for k in kernels) / sum(k.size for k in kernels))
