"""How far apart two ways are, over sentences and fits: difference, interval, p, and what many tests do to p.

Two things are random: which sentences were asked, and how each fit came out. An interval over sentences alone says
nothing of another seed; one over pairs of points says nothing of other sentences.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

SURE = 0.05  # p below which a difference counts, after Holm's correction
CLOSE_POINTS = 1.0  # percentage points of accuracy within which two are called equal


@dataclass(frozen=True)
class Difference:
    """Difference of two mean accuracies, in percentage points."""

    points: float
    low: float  # 95 % interval
    high: float
    p: float  # two-sided, of no difference

    @property
    def equal(self) -> bool:
        """Whether the interval lies within CLOSE_POINTS of none: a claim of its own, which no large p makes."""
        return self.low > -CLOSE_POINTS and self.high < CLOSE_POINTS


@dataclass(frozen=True)
class Spread:
    """How far the accuracies of one choice lie apart from seed to seed, taken together over many choices."""

    fit: float = 0.0  # variance of the accuracy of one fit
    sentences: float = 0.0  # the part of it that comes of the sentences being few; the rest is a shift of the fit
    freedom: int = 0  # degrees; 0: no choice has two seeds, and nothing is known

    @classmethod
    def of(cls, choices: Sequence[np.ndarray]) -> Spread:
        """choices: for each, float or bool [seeds, sentences], right or wrong; those of one seed say nothing."""
        several = [np.asarray(right, float) for right in choices if len(right) > 1]
        freedom = sum(len(right) - 1 for right in several)
        if not freedom:
            return cls()
        fit = sum((len(right) - 1) * right.mean(axis=1).var(ddof=1) for right in several) / freedom
        rest = sum((len(right) - 1) * _rest(right) for right in several) / freedom
        return cls(float(fit), float(rest), freedom)

    @property
    def shift(self) -> float:
        """Variance of a fit's accuracy over very many sentences."""
        return max(0.0, self.fit - self.sentences)


def _rest(right: np.ndarray) -> float:
    """Variance of a fit's accuracy by what neither the seed nor the sentence explains."""
    left = right - right.mean(axis=1, keepdims=True) - right.mean(axis=0) + right.mean()
    seeds, sentences = right.shape
    return float(np.sum(left**2)) / ((seeds - 1) * (sentences - 1)) / sentences


@dataclass(frozen=True)
class Mean:
    """A weighed mean of some files' answers, or a difference of such means."""

    right: np.ndarray  # float [sentences]
    fits: Mapping[str, float] = field(default_factory=dict)  # the fit of a file -> its weight; files can share one

    @classmethod
    def of(cls, files: Sequence[tuple[float, np.ndarray, str]]) -> Mean:
        """(weight, bool [sentences], fit) of each."""
        fits: dict[str, float] = {}
        for weight, _, fit in files:
            fits[fit] = fits.get(fit, 0.0) + weight
        return cls(np.sum([weight * right.astype(float) for weight, right, _ in files], axis=0), fits)

    def __sub__(self, other: Mean) -> Mean:
        names = {*self.fits, *other.fits}
        fits = {name: self.fits.get(name, 0.0) - other.fits.get(name, 0.0) for name in names}
        return Mean(self.right - other.right, fits)

    def moves(self, spread: Spread) -> bool:
        """Whether another seed would move it, and how far is known."""
        return bool(spread.freedom) and any(self.fits.values())

    def difference(self, spread: Spread) -> Difference:
        """How far it is from 0.

        Variance: that of the mean over sentences, and the shift of each fit times its squared weight, which is 0 for a
        fit that stands on both sides, as where two files were made of one student. The degrees of freedom are
        Satterthwaite's (1946, Biometrics Bulletin 2). A bootstrap over seeds and sentences would take three seeds for
        all there are, and be too sure.

        Two sentences are added, one gained and one lost (Bonett & Price 2012, British Journal of Mathematical and
        Statistical Psychology 65): few sentences that differ would look too certain. `points` is without them.
        """
        from scipy.special import stdtr, stdtrit

        gains = np.append(self.right, [1.0, -1.0])
        n, centre = len(gains), float(gains.mean())
        weights = sum(weight**2 for weight in self.fits.values())
        asked, fitted = float(gains.var(ddof=1)) / n, spread.fit * weights
        variance = asked + spread.shift * weights
        parts = asked**2 / (n - 1) + (fitted**2 / spread.freedom if spread.freedom else 0.0)
        freedom, error = variance**2 / parts, float(np.sqrt(variance))
        half = float(stdtrit(freedom, 0.975)) * error
        p = float(2 * stdtr(freedom, -abs(centre) / error))
        return Difference(100 * float(self.right.mean()), 100 * (centre - half), 100 * (centre + half), p)


def holm(p_values: Sequence[float]) -> list[float]:
    """p after Holm's correction (Holm 1979, Scandinavian Journal of Statistics 6), in the order given.

    Under SURE, all claims together are wrong in at most that share of all tables. The smallest of m is multiplied by m,
    the next by m - 1, and so on; none comes out below one before it.
    """
    values = np.asarray(p_values, float)
    order = np.argsort(values, kind="stable")
    raised = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    out = np.empty(len(values))
    out[order] = np.minimum(raised, 1.0)
    return out.tolist()
