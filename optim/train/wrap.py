"""What a method may do to a model while it is fitted: wrap its layers (masks, fake quantization), one after another.

A `Wrapper` is the method, a value of the config; `attach` puts it to work on one model and gives an `Attached`. Several
wrap one model: each takes the model that the one before it left. The weights are those of the innermost layers
throughout, so the model that was given first is the one that is saved, scored and exported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np


class Attached(Protocol):
    """A wrapper at work on one model; the fit tells it where it is."""

    @property
    def model(self) -> Any:
        """The Keras model to train: the one that was given, perhaps with its layers wrapped."""
        ...

    def after_epoch(self) -> None:
        """Called when the weights are about to be scored or saved."""
        ...

    def settled(self, progress: float) -> bool:
        """Whether weights of this training progress, (0, 1], are what the method promises in the end."""
        ...

    def ranges(self) -> Mapping[str, np.ndarray]:
        """What the quantizer must know of the fit, by name; kept beside the weights of the epoch that is kept."""
        ...


class Wrapper(Protocol):
    """What `conf/prune` names, and what a quantization method brings along where it is trained for."""

    @property
    def changes(self) -> bool:
        """False for the method that leaves the model as it is."""
        ...

    @property
    def packages(self) -> Sequence[str]:
        """Whose versions change what it does."""
        ...

    def attach(self, model: Any, *, total_steps: int) -> Attached:
        """`model` with its layers wrapped; the weights are shared."""
        ...

    def check(self, model: Any) -> None:
        """Raises RuntimeError if a fitted model is not what the method promised."""
        ...


class Stack:
    """Several wrappers on one model, as if they were one."""

    def __init__(self, wrappers: Sequence[Wrapper], model: Any, *, total_steps: int) -> None:
        self.model, self.parts = model, []
        for wrapper in wrappers:
            self.parts.append(wrapper.attach(self.model, total_steps=total_steps))
            self.model = self.parts[-1].model

    def after_epoch(self) -> None:
        """Tells all of them."""
        for part in self.parts:
            part.after_epoch()

    def settled(self, progress: float) -> bool:
        """Whether all of them are."""
        return all([part.settled(progress) for part in self.parts])

    def ranges(self) -> dict[str, np.ndarray]:
        """Those of all of them."""
        return {name: value for part in self.parts for name, value in part.ranges().items()}


def innermost(layer: Any) -> Any:
    """The layer itself, under however many Keras wrappers."""
    import tf_keras as keras

    while isinstance(layer, keras.layers.Wrapper):
        layer = layer.layer
    return layer


def layer_named(model: Any, name: str) -> Any:
    """The layer of `model` whose innermost layer has this name: the outermost wrapper around it."""
    return next(layer for layer in model.layers if innermost(layer).name == name)
