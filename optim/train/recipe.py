"""`conf/fit`: how the fits of a point are done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from optim.common.build import method
from optim.common.errors import UserError, require_count, require_fraction, require_not_negative, require_positive

CLASS_WEIGHTS = ("none", "balanced")
LAST, BEST = KEEPS = ("last", "best")
DROPOUTS = ("hidden_dropout", "attention_dropout", "head_dropout")  # of an Architecture
MOST_HELD = 0.2  # of the sentences to train, held out to judge the epochs; `split` gives no more
OTHER = "other"  # of `fit.usual`: every model that is not named there


@dataclass(frozen=True, kw_only=True)
class Usual:
    """What of a fine-tuning depends on the model: a large one wants a lower rate, and learns in fewer steps."""

    epochs: int
    batch_size: int
    learning_rate: float
    warmup: float


@dataclass(frozen=True, kw_only=True)
class Common:
    """What does not."""

    steps: int | None  # the fit's length in steps instead, so that fits on more and on fewer sentences compare
    weight_decay: float  # of kernels alone, times the learning rate in each step
    average: float  # decay in each step of the average of the weights that is judged and kept; 0: the weights
    layer_decay: float  # factor of the learning rate from each layer to the one below it, (0, 1]
    label_smoothing: float  # share of each label that all classes have alike
    r_drop: float  # weight of the divergence of two answers under different dropout
    dropout: float | None  # all rates of dropout of the model; None: as the checkpoint has them
    head_dropout: float | None  # that before the classifier alone; None: as the others
    whole_copies: int  # times that an epoch has a row that is a whole sentence, where rows are phrases of such


@dataclass(frozen=True, kw_only=True)
class Recipe(Common):
    """One fit: AdamW with a linear warm-up and a linear decay to zero, and what may be added to that."""

    epochs: int  # passes over all sentences
    batch_size: int  # sentences
    learning_rate: float  # at its peak
    warmup: float  # training progress at the peak, [0, 1)

    def dropouts(self) -> dict[str, float]:
        """Of an architecture's rates of dropout, those that the recipe sets."""
        all_rates: dict[str, float] = {} if self.dropout is None else dict.fromkeys(DROPOUTS, self.dropout)
        return all_rates if self.head_dropout is None else {**all_rates, "head_dropout": self.head_dropout}

    def rate(self, progress: float) -> float:
        """The learning rate at a training progress in [0, 1]."""
        rising = progress / self.warmup if self.warmup else 1.0
        return self.learning_rate * min(rising, (1 - progress) / (1 - self.warmup))


@dataclass(frozen=True, kw_only=True)
class OpenRecipe(Common):
    """A fine-tuning of any model; None is what is usual for that model."""

    epochs: int | None
    batch_size: int | None
    learning_rate: float | None
    warmup: float | None

    def of(self, usual: Usual) -> Recipe:
        """The recipe for a model."""
        own: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        return Recipe(**{**own, **{name: value for name, value in asdict(usual).items() if own[name] is None}})


def _require_decay(setting: str, value: float) -> None:
    require_positive(setting, value)
    require_fraction(setting, value, one=True)


CHECKS = {  # key of a recipe -> what refuses a wrong value
    **dict.fromkeys(("epochs", "steps", "batch_size", "whole_copies"), require_count),
    **dict.fromkeys(("warmup", "weight_decay", "average", "label_smoothing"), require_fraction),
    **dict.fromkeys(("dropout", "head_dropout"), require_fraction),
    "learning_rate": require_positive,
    "layer_decay": _require_decay,
    "r_drop": require_not_negative,
}


def _require_all(setting: str, recipe: Usual | OpenRecipe | Recipe) -> None:
    """Raises UserError for a value out of its range; None is a value that is left open."""
    for name, value in asdict(recipe).items():
        if value is not None:
            CHECKS[name](f"{setting}.{name}", value)


@method("fit", "adamw")
@dataclass(frozen=True, kw_only=True)
class Schedule:
    """`conf/fit`: the recipes of the two fits and what they share."""

    teacher: OpenRecipe
    usual: Mapping[str, Usual]  # name of a model -> what `teacher` leaves open; `other` for those that are not named
    student: Recipe
    keep: str  # last | best: of which epoch a fit leaves the weights
    holdout: float  # fraction of train that no fit learns from
    holdout_minimum: int  # sentences
    class_weights: str  # none | balanced
    precision: str  # auto | float32 | bfloat16

    def __post_init__(self) -> None:
        if OTHER not in self.usual:
            raise UserError(
                f"fit.usual must have {OTHER}, for models that it does not name; it has {list(self.usual)}."
            )
        usual = {f"fit.usual.{name}": recipe for name, recipe in self.usual.items()}
        for setting, recipe in {**usual, "fit.teacher": self.teacher, "fit.student": self.student}.items():
            _require_all(setting, recipe)
        require_fraction("fit.holdout", self.holdout)
        if self.holdout > MOST_HELD:
            raise UserError(f"fit.holdout must be at most {MOST_HELD:g}: no fit holds out more; got {self.holdout:g}.")
        if self.keep not in KEEPS:
            raise UserError(f"fit.keep must be {' or '.join(KEEPS)}, got {self.keep!r}.")
        require_count("fit.holdout_minimum", self.holdout_minimum)
        if self.class_weights not in CLASS_WEIGHTS:
            raise UserError(f"fit.class_weights must be {' or '.join(CLASS_WEIGHTS)}, got {self.class_weights!r}.")
        if self.precision not in ("auto", "float32", "bfloat16"):
            raise UserError(f"fit.precision must be auto, float32 or bfloat16, got {self.precision!r}.")

    def teacher_of(self, model: str) -> Recipe:
        """How the model of that name is fine-tuned."""
        return self.teacher.of(self.usual.get(model, self.usual[OTHER]))
