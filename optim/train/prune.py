"""Pruning methods: which kernels lose which of their weights, and when in the course of a fit.

    magnitude  the smallest weights of each kernel, one by one            fixed50, fixed80, poly50, poly80
    blocks     the smallest blocks of each kernel                         block1x4
    n_of_m     some of every few neighbours, by magnitude                 nm24
    across     the smallest weights of all kernels together               global50
    movement   those that move towards 0, by scores that are learnt       movement

Zeros make a file smaller only once it is compressed. Whether they make it faster is measured: speed.zeros_accelerated.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from optim.common.build import method
from optim.common.errors import UserError, require_count, require_fraction, require_positive
from optim.train.wrap import Attached, Wrapper

TOLERANCE = 0.001  # of a kernel's weights: how far from its target a mask may be after the fit
SCOPES = ("kernel", "global")
Shapes = Mapping[str, tuple[int, int]]  # name of a Dense -> (inputs, outputs) of its kernel


class Pruner(Wrapper, Protocol):
    """What `conf/prune` names: a wrapper that may ask something of the kernels it will have."""

    def require(self, kernels: Shapes) -> None:
        """Raises UserError for kernels that it cannot prune as it is told; called before anything is trained."""
        ...


@dataclass
class _Untouched:
    model: Any

    def after_epoch(self) -> None: ...

    def settled(self, progress: float) -> bool:
        return True

    def ranges(self) -> dict[str, np.ndarray]:
        return {}


@method("prune", "none")
@dataclass(frozen=True, kw_only=True)
class NoPruning:
    """`prune=none`: the method that does nothing."""

    changes = False
    packages = ()

    def attach(self, model, *, total_steps: int) -> Attached:
        """The model as it is."""
        return _Untouched(model)

    def require(self, kernels: Shapes) -> None:
        """Nothing is asked."""

    def check(self, model) -> None:
        """Nothing was promised."""


@method("prune", "magnitude")
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
    packages = ("tensorflow-model-optimization",)

    def __post_init__(self) -> None:
        if self.schedule not in ("constant", "polynomial"):
            raise UserError(f"prune.schedule must be constant or polynomial, got {self.schedule!r}.")
        for name in ("sparsity", "initial_sparsity", "begin", "end"):
            require_fraction(f"prune.{name}", getattr(self, name), one=name == "end")
        require_positive("prune.power", self.power)
        require_count("prune.every_steps", self.every_steps)
        if self.schedule == "polynomial" and self.initial_sparsity > self.sparsity:
            raise UserError(
                f"prune.initial_sparsity must be at most prune.sparsity={self.sparsity:g}, got "
                f"{self.initial_sparsity:g}: zeros only become more."
            )
        if self.end < self.begin:
            raise UserError(f"prune.end must lie in [prune.begin, 1] = [{self.begin:g}, 1], got {self.end:g}.")

    @property
    def changes(self) -> bool:
        """A sparsity of 0 zeroes nothing."""
        return self.sparsity > 0

    def require(self, kernels: Shapes) -> None:
        """Single weights go: any kernel will do."""

    def attach(self, model, *, total_steps: int) -> Attached:
        """`model` with its prunable layers wrapped; the weights are shared, so `model` itself is pruned."""
        return _Masks(model, self._steps(total_steps), total_steps)

    def _steps(self, total_steps: int):
        """TFMOT's schedule in steps, counted from 1. A short fit draws its mask more often, at least ten times.

        The last mask is drawn within the fit: a late `begin` shortens the stride, and one in the last step jumps.
        """
        from tensorflow_model_optimization.sparsity import keras as sparsity  # type: ignore[import]

        every = max(1, min(self.every_steps, total_steps // 10))
        begin = 1 + math.floor(self.begin * (total_steps - 1))
        left = total_steps - begin
        if self.schedule == "constant" or left < 1:
            return sparsity.ConstantSparsity(self.sparsity, begin_step=begin, frequency=every)
        every = min(every, left)
        turns = max(1, math.floor((self.end - self.begin) * (total_steps - 1) / every))
        return sparsity.PolynomialDecay(
            self.initial_sparsity, self.sparsity, begin_step=begin, end_step=begin + turns * every, power=self.power,
            frequency=every,
        )  # fmt: skip

    def check(self, model) -> None:
        """Raises RuntimeError unless every prunable kernel has its share of zeros, within a tenth of a point.

        Of a small one no number of weights may be so near: there it is to the nearest weight.
        """
        one_weight = {name: 1 / kernel.size for name, kernel in kernels_of(model).items()}
        self._require_shares(zeroed_fractions(model), one_weight)

    def _require_shares(self, found: Mapping[str, float], slack: Mapping[str, float] | None = None) -> None:
        """Raises RuntimeError for a share of zeros that is off by more than TOLERANCE, or than its own `slack`."""
        allowed = {name: max(TOLERANCE, (slack or {}).get(name, 0.0)) for name in found}
        wrong = {name: zeros for name, zeros in found.items() if abs(zeros - self.sparsity) > allowed[name]}
        if wrong:
            name, zeros = max(wrong.items(), key=lambda item: abs(item[1] - self.sparsity))
            raise RuntimeError(
                f"the mask did not hold: {len(wrong)} kernels are off prune.sparsity {self.sparsity:.3f} by more than "
                f"{allowed[name]:.3g}, {name} most ({zeros:.4f} zeros)."
            )


@method("prune", "blocks")
@dataclass(frozen=True, kw_only=True)
class Blocks(Magnitude):
    """Zeroes the blocks of least mean magnitude of every encoder kernel and of the pooler: TFMOT's `block_size`.

    A kernel is [inputs, outputs], as Keras has it; a .tflite file has it turned round.
    """

    block: tuple[int, ...]  # [inputs, outputs]

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.block) != 2 or min(self.block) < 1 or max(self.block) < 2:
            raise UserError(f"prune.block must be [inputs, outputs], above 0 and not both 1, got {list(self.block)}.")

    def require(self, kernels: Shapes) -> None:
        """Raises UserError for a kernel that is not so many whole blocks."""
        for name, (inputs, outputs) in kernels.items():
            if inputs % self.block[0] or outputs % self.block[1]:
                raise UserError(
                    f"prune.block must divide every kernel, [inputs, outputs]; {name} is [{inputs}, {outputs}], "
                    f"got {list(self.block)}. A block of divisors of both will do."
                )

    def attach(self, model, *, total_steps: int) -> Attached:
        """As Magnitude has it, in blocks."""
        self.require(shapes_of(model))
        return _Masks(model, self._steps(total_steps), total_steps, block_size=self.block)

    def check(self, model) -> None:
        """Raises RuntimeError unless every kernel has its share of zeros in whole blocks, to the nearest block."""
        shares, slack = {}, {}
        for name, kernel in kernels_of(model).items():
            zeros = (kernel == 0).reshape(kernel.shape[0] // self.block[0], self.block[0], -1, self.block[1])
            shares[name] = float(np.mean(zeros.all(axis=(1, 3))))
            slack[name] = math.prod(self.block) / kernel.size
        self._require_shares(shares, slack)


@method("prune", "across")
@dataclass(frozen=True, kw_only=True)
class Across(Magnitude):
    """Zeroes the smallest weights of all encoder kernels and the pooler together, wherever they are (one threshold).

    Kernels end with shares of their own: those that have many small weights lose more of them (Han et al. 2015 give
    each layer a threshold; one for all is the global magnitude pruning of Blalock et al. 2020, arXiv:2003.03033).
    """

    packages = ("tensorflow-model-optimization", "numpy")

    def attach(self, model, *, total_steps: int) -> Attached:
        """`model` under masks that are drawn together."""
        return _drawn_masks(model, self._steps(total_steps), total_steps, learnt=False, across=True)

    def check(self, model) -> None:
        """Raises RuntimeError unless all kernels together have their share of zeros, as near as a single one must."""
        one_weight = 1 / sum(kernel.size for kernel in kernels_of(model).values())
        self._require_shares({"all kernels": zeroed_fraction(model)}, {"all kernels": one_weight})


@dataclass(frozen=True, kw_only=True)
class Movement(Magnitude):
    """Zeroes the weights whose scores are lowest: those that shrink while the task is learnt (Sanh et al. 2020).

    A score falls with dL/dW * W, step by step, and is learnt beside the weights (section 3, arXiv:2005.07683). The
    sparsity grows along a cubic, as theirs does. Their masks are drawn in every step, these in every few.
    """

    scope: str  # kernel: a threshold for each, as in the paper's figures | global: one for all
    packages = ("tensorflow-model-optimization", "numpy")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scope not in SCOPES:
            raise UserError(f"prune.scope must be {' or '.join(SCOPES)}, got {self.scope!r}.")

    def attach(self, model, *, total_steps: int) -> Attached:
        """`model` under masks, with scores that are trained with it."""
        across = self.scope == "global"
        return _drawn_masks(model, self._steps(total_steps), total_steps, learnt=True, across=across)

    def check(self, model) -> None:
        """Raises RuntimeError unless every kernel, or all of them together, has its share of zeros."""
        if self.scope == "kernel":
            super().check(model)
        else:
            self._require_shares({"all kernels": zeroed_fraction(model)})


@method("prune", "n_of_m")
@dataclass(frozen=True, kw_only=True)
class ZerosOf:
    """Zeroes the smallest `zeros` of every `group` neighbours along the inputs: TFMOT's `sparsity_m_by_n`.

    2 of 4 is the pattern that NVIDIA's sparse tensor cores take (Mishra et al. 2021, arXiv:2104.08378). TFMOT draws
    the masks once, in the first step.
    """

    zeros: int
    group: int
    packages = ("tensorflow-model-optimization",)
    changes = True

    def __post_init__(self) -> None:
        require_count("prune.zeros", self.zeros)
        require_count("prune.group", self.group)
        if self.zeros >= self.group:
            raise UserError(f"prune.zeros must be below prune.group, {self.group}, got {self.zeros}.")

    def require(self, kernels: Shapes) -> None:
        """Raises UserError for a kernel whose inputs are not so many whole groups."""
        for name, (inputs, outputs) in kernels.items():
            if inputs % self.group:
                raise UserError(
                    f"prune.group must divide the inputs of every kernel; {name} is [{inputs}, {outputs}], inputs and "
                    f"outputs, got {self.group}. A divisor of {inputs} will do."
                )

    def attach(self, model, *, total_steps: int) -> Attached:
        """`model` with its prunable layers wrapped."""
        from tensorflow_model_optimization.sparsity import keras as sparsity  # type: ignore[import]

        self.require(shapes_of(model))
        once = sparsity.ConstantSparsity(self.zeros / self.group, begin_step=1)  # of which TFMOT reads nothing here
        return _Masks(model, once, total_steps, sparsity_m_by_n=(self.zeros, self.group))

    def check(self, model) -> None:
        """Raises RuntimeError unless every group has as many zeros as was asked, and all of them no more."""
        for name, kernel in kernels_of(model).items():
            zeros = (kernel == 0).T.reshape(-1, self.group).sum(axis=1)
            if zeros.min() < self.zeros or zeros.mean() > self.zeros + TOLERANCE * self.group:
                raise RuntimeError(
                    f"the mask did not hold: of {self.group} neighbours in {name} {zeros.min()} to {zeros.max()} are "
                    f"zero, {zeros.mean():.3f} on average; prune.zeros is {self.zeros}."
                )


class _Masks:
    """TFMOT's wrappers around the prunable layers, and the two calls that its callback would make."""

    def __init__(self, model, schedule, total_steps: int, **pattern: Any) -> None:
        import tf_keras as keras
        from tensorflow_model_optimization.sparsity import keras as sparsity  # type: ignore[import]

        names, self.schedule, self.total_steps = set(prunable(model)), schedule, total_steps

        def wrap(layer):
            return sparsity.prune_low_magnitude(layer, schedule, **pattern) if layer.name in names else layer

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


def _drawn_masks(model, schedule, total_steps: int, *, learnt: bool, across: bool) -> Attached:
    from optim.train.masked import Masks

    return Masks(model, prunable(model), schedule, total_steps, learnt=learnt, across=across)


@method("prune", "movement")
def movement(*, sparsity: float, initial_sparsity: float, power: float, begin: float, end: float, every_steps: int,
             scope: str) -> Movement:  # fmt: skip
    """`prune=movement`: see Movement."""
    return Movement(schedule="polynomial", sparsity=sparsity, initial_sparsity=initial_sparsity, power=power,
                    begin=begin, end=end, every_steps=every_steps, scope=scope)  # fmt: skip


def prunable(model) -> list[str]:
    """Names of the Dense layers that pruning is for: all of the encoder's and the pooler, not the classifier."""
    return [layer.name for layer in model.layers if _is_dense(layer) and layer.name != "classifier"]


def _is_dense(layer) -> bool:
    return type(layer).__name__ == "Dense"


def kernels_of(model) -> dict[str, np.ndarray]:
    """Name -> float32 [inputs, outputs] of every prunable kernel."""
    return {name: model.get_layer(name).kernel.numpy() for name in prunable(model)}


def shapes_of(model) -> dict[str, tuple[int, int]]:
    """Name -> (inputs, outputs) of every prunable kernel."""
    return {name: tuple(model.get_layer(name).kernel.shape) for name in prunable(model)}


def zeroed_fractions(model) -> dict[str, float]:
    """Fraction of weights that are exactly 0, for each prunable kernel."""
    return {name: float(np.mean(kernel == 0)) for name, kernel in kernels_of(model).items()}


def zeroed_fraction(model) -> float:
    """The same over all prunable kernels together, each weighing as much as it has weights."""
    kernels = kernels_of(model).values()
    return float(sum(np.sum(k == 0) for k in kernels) / sum(k.size for k in kernels))


def masked_fraction(model) -> float | None:
    """How much of the weights under a mask is hidden at this step of a fit; None for a model without masks.

    Not yet zeros: a mask multiplies its kernel in the forward pass, and the kernel takes it over after the epoch.
    """
    masks = [v for v in model.non_trainable_weights if v.name.split("/")[-1].split(":")[0] == "mask"]
    hidden = [np.sum(mask.numpy() == 0) for mask in masks]
    return float(sum(hidden) / sum(mask.shape.num_elements() for mask in masks)) if masks else None
