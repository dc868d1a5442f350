"""What is said about differences: by hand on a few sentences, and by simulation how often it is wrong or blind."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from made_results import finished_point

from optim.report.comparison import Comparison, verdicts
from optim.report.difference import Difference, Mean, Spread, holm
from optim.report.finished import Finished

SWEEPS = 1_000


def gained(of: int, count: int) -> Mean:
    """One file against another that it beats on `count` of the sentences."""
    right = np.arange(of) < count
    return Mean.of([(1.0, right, "a")]) - Mean.of([(1.0, np.zeros(of, bool), "b")])


def test_two_files_by_hand():
    """5 of 100 gained; with one more gained and one lost: mean m = 5 / 102, variance (7 - 102 m^2) / 101."""
    found = gained(100, 5).difference(Spread())
    error = np.sqrt((7 - 102 * (5 / 102) ** 2) / 101 / 102)
    low, high = 100 * (5 / 102 - 1.98373 * error), 100 * (5 / 102 + 1.98373 * error)
    assert (found.points, found.low, found.high) == pytest.approx((5.0, low, high), rel=1e-4)
    assert found.p == pytest.approx(0.0583, abs=5e-4)


def test_two_files_have_the_interval_of_a_bootstrap_over_the_sentences():
    rng = np.random.default_rng(0)
    gains = rng.choice([-1.0, 0.0, 1.0], size=872, p=[0.05, 0.91, 0.04])
    found = Mean(gains).difference(Spread())
    drawn = 100 * gains[rng.integers(872, size=(4000, 872))].mean(axis=1)
    assert (found.low, found.high) == pytest.approx(np.percentile(drawn, [2.5, 97.5]).tolist(), abs=0.12)


def test_the_spread_of_fits_by_hand():
    """[1, 1] and [0, 0]: variance 1 / 2 of fits, nothing left. [1, 0] and [0, 1]: none of fits, 4/4 / 1 / 2 left."""
    apart, turned = np.array([[1, 1], [0, 0]]), np.array([[1, 0], [0, 1]])
    assert Spread.of([apart]) == Spread(0.5, 0.0, 1)
    assert Spread.of([turned]) == Spread(0.0, 0.5, 1)
    assert Spread.of([apart, turned, np.array([[1, 0]])]) == Spread(0.25, 0.25, 2), "one seed says nothing"
    assert Spread.of([np.array([[1, 0]])]) == Spread()
    assert Spread(0.25, 0.5, 2).shift == 0.0


def test_choices_of_more_seeds_count_more_by_hand():
    """Three fits are right on 1/2, 1/2 and 0 of two sentences: variance 1/12, and 1/4 that no seed explains.

    What is left of it are +-1/2 of the first two: squares 1, over (3 - 1) (2 - 1) degrees and two sentences. It counts
    twice, for two degrees, a choice of two seeds once: (2/12 + 1/2) / 3 and (2/4 + 0) / 3.
    """
    three, two = np.array([[1, 0], [0, 1], [0, 0]]), np.array([[1, 1], [0, 0]])
    alone, both = Spread.of([three]), Spread.of([three, two])
    assert (alone.fit, alone.sentences, alone.freedom) == (pytest.approx(1 / 12), pytest.approx(1 / 4), 2)
    assert (both.fit, both.sentences, both.freedom) == (pytest.approx(2 / 9), pytest.approx(1 / 6), 3)


def test_the_shift_of_both_fits_widens_a_difference_by_hand():
    """To the variance of the sentences come 2 x 0.0003; freedom (v + 0.0006)^2 / (v^2 / 101 + 0.0008^2 / 4)."""
    sentences = (7 - 102 * (5 / 102) ** 2) / 101 / 102
    found = gained(100, 5).difference(Spread(0.0004, 0.0001, 4))
    from scipy.stats import t

    variance = sentences + 0.0006
    freedom = variance**2 / (sentences**2 / 101 + 0.0008**2 / 4)
    assert (found.high - found.low) / 200 == pytest.approx(t.ppf(0.975, freedom) * np.sqrt(variance))


def test_files_of_one_fit_are_not_drawn_apart():
    """A student's two files, then two students': the first pair shares whatever came of the fit."""
    files = [np.arange(100) < 90, np.arange(100) < 88]
    spread = Spread(0.0004, 0.0001, 4)
    one, two = (Mean.of([(1.0, files[0], "a")]) - Mean.of([(1.0, files[1], name)]) for name in ("a", "b"))
    assert one.difference(spread).high == pytest.approx(one.difference(Spread()).high)
    assert two.difference(spread).high > one.difference(spread).high
    third = Mean.of([(1 / 3, files[0], name) for name in "abc"])
    assert sum(w**2 for w in third.fits.values()) == pytest.approx(1 / 3)


def test_holm_by_hand():
    """Of four: 0.01 x 4, 0.02 x 3, then 0.03 x 2 = 0.06 as before, and 0.5."""
    assert holm([0.5, 0.01, 0.03, 0.02]) == pytest.approx([0.5, 0.04, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_equal_is_a_claim_of_its_own():
    made = lambda points, low, high, p: Difference(points, low, high, p)  # noqa: E731
    some = [
        made(0.1, -0.8, 0.9, 0.9),
        made(0.1, -1.2, 1.4, 0.9),
        made(-2, -3, -1, 0.001),
        made(1, 0.1, 1.9, 0.03),
        None,
    ]
    assert verdicts(some) == ["equal", "open", "below", "open", "open"], "0.03 x 3 is not below 0.05"
    assert verdicts([made(0.5, 0.1, 0.9, 0.02)]) == ["above"], "certain goes before equal"


# Simulations


def sweep(rng: np.random.Generator, *, n: int, seeds: int, lost: float) -> list[Finished]:
    """Eight choices with each seed: two each of prune, quant and T, from as many students as prune, T and seed make.

    A sentence is right with a chance of its own. With several seeds each fit has a shift of about 0.4 points too.
    Quantization draws one answer in twenty anew. `lost`: the share of its right answers that fixed50 loses.
    """
    odds, out = rng.normal(2.5, 2.0, n), []
    answers = lambda: odds + rng.normal(0, 0.04 * (seeds > 1)) + rng.normal(0, 1.0, n) > 0  # noqa: E731
    teachers = [odds + rng.normal(0, 1.0, n) > 0 for _ in range(seeds)]
    for seed, prune, t in itertools.product(range(seeds), ("none", "fixed50"), (1.0, 4.0)):
        student = answers()
        student &= (prune == "none") | (rng.random(n) >= lost)
        for quant in ("none", "int8"):
            right = np.where((quant == "int8") & (rng.random(n) < 0.05), odds + rng.normal(0, 1.0, n) > 0, student)
            out.append(finished_point(f"{prune}{quant}{t:g}x{seed}", right, teachers[seed], prune=prune, quant=quant,
                                      student=f"{prune}{t:g}x{seed}",
                                      temperature=t, seed=seed, mb=1.0 + (quant == "none")))  # fmt: skip
    return out


def claims(points: list[Finished]) -> dict[str, bool]:
    """Whether anything is called certain: an effect, what it depends on, a choice on the front, against the teacher."""
    shown = Comparison(points, points, [], [], [])
    told = verdicts([group.against_teacher(shown.spreads[group.data]) for group in shown.groups])
    return {
        "effect": any(effect.sure for effect in shown.effects),
        "interaction": any(effect.interactions for effect in shown.effects),
        "front": any(shown.certain),
        "teacher": bool({"above", "below"} & set(told)),
    }


@pytest.mark.slow
@pytest.mark.parametrize(("n", "seeds"), [(872, 3), (872, 1)])
def test_equal_choices_are_hardly_ever_called_different(n, seeds):
    """The null: all choices have one distribution of answers. One seed: the files are equals; three: the ways are."""
    rng = np.random.default_rng(0)
    found = [claims(sweep(rng, n=n, seeds=seeds, lost=0.0)) for _ in range(SWEEPS)]
    assert np.mean([any(claim.values()) for claim in found]) <= 0.05


@pytest.mark.parametrize("seeds", [1, 3])
def test_an_effect_of_two_points_is_found(seeds):
    rng = np.random.default_rng(0)
    found = [Comparison((p := sweep(rng, n=5000, seeds=seeds, lost=0.0225)), p, [], [], []).effects for _ in range(50)]
    prune = [next(e for e in effects if e.factor == "prune") for effects in found]
    assert np.mean([e.found.points for e in prune]) == pytest.approx(-2, abs=0.2)
    assert np.mean([e.sure for e in prune]) >= 0.8
