"""Quantization-aware training: the fit sees the rounding of an int8 file, and learns to live with it.

The kernels of the encoder's layers, and what products with fixed ranges take and give, are rounded to 8 bits in the
forward pass and left alone in the backward one (Jacob et al. 2018, arXiv:1712.05877; Bengio et al. 2013,
arXiv:1308.3432). A mask of pruning lies under the rounding, which keeps zeros zero, so both hold in one fit (PQAT).
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np

from optim.common.errors import UserError
from optim.train.wrap import Attached, innermost


@dataclass(frozen=True, kw_only=True)
class FakeQuant:
    """Rounds the layers of the encoder as `quant=int8_qat` will; pooler and classifier are left to calibration."""

    memory: float  # what a range keeps of itself in a step, [0, 1); the rest is the range of the batch
    # In the names of products whose ranges are fixed, a / behind each. The others' kernels alone are rounded: the file
    # scales what they take anew for each token, and what they give is float.
    ranged: str = ".*"
    changes: bool = True
    packages: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.memory < 1:
            raise UserError(f"quant.memory must be a fraction in [0, 1), got {self.memory:g}.")

    def attach(self, model: Any, *, total_steps: int) -> Attached:
        """`model` with its layers wrapped; the weights are shared."""
        return _Rounding(model, self.memory, self.ranged)

    def check(self, model: Any) -> None:
        """Nothing is promised of the weights: they stay float32, and are rounded when the file is written."""


class _Rounding:
    """The wrapped model, and the ranges that it has seen."""

    def __init__(self, model: Any, memory: float, ranged: str) -> None:
        import tf_keras as keras

        from optim.train.rounded import Rounded, RoundedKernel, Taken

        names = set(encoder_kernels(model))
        groups: defaultdict[int, Taken] = defaultdict(lambda: Taken(memory))  # by the tensor that they take

        def wrap(layer):
            inner = innermost(layer)
            if inner.name not in names:
                return layer
            name = f"rounded_{inner.name}"
            if not re.search(ranged, f"{inner.name}/"):
                return RoundedKernel(layer, name=name)
            return Rounded(layer, memory=memory, taken=groups[id(layer.input)], name=name)

        self.model: Any = keras.models.clone_model(model, clone_function=wrap)
        self.rounded = [layer for layer in self.model.layers if isinstance(layer, Rounded)]

    def after_epoch(self) -> None: ...

    def settled(self, progress: float) -> bool:
        return True

    def ranges(self) -> dict[str, np.ndarray]:
        return {innermost(layer).name: layer.ranges() for layer in self.rounded}


def encoder_kernels(model: Any) -> list[str]:
    """Names of the Dense layers of the encoder's layers, wrapped or not: neither pooler nor classifier."""
    names = [innermost(layer).name for layer in model.layers if type(innermost(layer)).__name__ == "Dense"]
    return [name for name in names if name.startswith("layer")]
