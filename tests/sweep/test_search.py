"""The search by hand: what counts as a trial, what a hypervolume is, and that asking beats drawing."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from optim.common.errors import UserError
from optim.sweep import search
from optim.sweep.search import Answer, Search, hypervolume, losses

SPACE = {"prune": ["none", "fixed50", "fixed80"], "quant": ["none", "int8"], "distill.temperature": [1, 2, 4]}


def identify(choice: search.Choice) -> str:
    """A temperature means nothing without pruning: 2 + 12 points behind 18 combinations."""
    kept = ("prune", "quant") if choice["prune"] == "none" else tuple(SPACE)
    return " ".join(str(choice[key]) for key in kept)


def answer(choice: search.Choice) -> Answer:
    """Pruning costs accuracy, a high temperature gives some of it back, int8 is small and fast."""
    accuracy = 0.9 - 0.02 * SPACE["prune"].index(choice["prune"]) + 0.001 * choice["distill.temperature"]
    small = choice["quant"] == "int8"
    return Answer((accuracy, 5.0 if small else 20.0, 23e6 if small else 91e6), {})


def going(sampler: str = "tpe", seed: int = 0, answers=answer) -> Search:
    study = search.study_in_memory(sampler=sampler, seed=seed)
    return Search(study, SPACE, identify=identify, answer=answers, seed=seed)


@pytest.mark.parametrize("sampler", search.SAMPLERS)
def test_every_point_is_asked_for_once_and_then_there_is_none(sampler):
    asked = []
    one = going(sampler, answers=lambda choice: (asked.append(identify(choice)), answer(choice))[1])
    assert [one.step() for _ in range(14)] == [True] * 14
    assert one.step() is None
    assert len(set(asked)) == len(asked) == len(one.known()) == 14


def test_what_fails_is_told_and_not_proposed_again_in_this_call():
    one = going(answers=lambda choice: None if choice["quant"] == "int8" else answer(choice))
    told = [one.step() for _ in range(14)]
    assert (told.count(False), told.count(True)) == (7, 7)
    assert one.step() is None
    assert all(point.split()[1] == "none" for point in one.known())


def test_a_journal_goes_on_and_an_unknown_sampler_is_refused(tmp_path):
    def opened() -> Search:
        study = search.study_in(tmp_path / "log", sampler="tpe", seed=0)
        return Search(study, SPACE, identify=identify, answer=answer, seed=0)

    first = opened()
    for _ in range(5):
        first.step()
    assert opened().known().keys() == first.known().keys()
    assert len(search.read_journal(opened().study)) == 5
    with pytest.raises(UserError, match=r"sweep\.sampler must be one of tpe, nsga2, random, got 'best'"):
        search.study_in(tmp_path / "other", sampler="best", seed=0)


def test_a_budget_draws_the_search_into_it():
    """Only unpruned int8 keeps both bounds; the sampler must propose it more often than chance, 1 in 6."""

    def bounded(choice: search.Choice) -> Answer:
        found = answer(choice)
        return Answer(found.values, {"budget.file_mb": found.values[2] / 1e6 - 30, "drop": 0.9 - found.values[0]})

    one = going(answers=bounded)
    while one.step() is not None and len(one.study.trials) < 60:
        pass
    later = one.study.trials[10:]
    inside = [t for t in later if t.params.get("prune") == "none" and t.params.get("quant") == "int8"]
    assert len(inside) / len(later) > 1 / 4


def test_a_search_stays_inside_its_budget_where_the_best_point_is_outside():
    """Float is the more accurate here and too large: what Optuna holds for best must fit all the same."""

    def bounded(choice: search.Choice) -> Answer:
        accuracy, latency_ms, size = answer(choice).values
        accuracy += 0.01 * (choice["quant"] == "none")
        return Answer((accuracy, latency_ms, size), {"budget.file_mb": size / 1e6 - 30})

    one = going(answers=bounded)
    while one.step() is not None:
        pass
    everything = [t.values for t in one.study.trials if t.values]
    best = [t.values for t in one.study.best_trials]
    assert max(v[0] for v in everything) > max(v[0] for v in best), "the optimum lies outside"
    assert {v[2] for v in best} == {23e6}


def test_a_point_outside_the_budget_is_told_so_however_accurate(tmp_path, monkeypatch):
    """`excess` is above 0 outside and at most 0 inside, for each bound that is set."""
    from made_results import put

    from optim.sweep import verbs
    from optim.sweep.pick import Budget

    big = put(tmp_path, "big", wrong=range(1), ms=30, mb=90)
    small = put(tmp_path, "small", wrong=range(9), ms=5, mb=20, quant="int8")
    budget = Budget(file_mb=24.0, latency_ms=None, drop_points=3.0)
    monkeypatch.setattr(verbs, "run_apart", lambda job: True)
    excess = {}
    for folder in (big, small):
        sweep = verbs.SearchSweep(space={}, sampler="tpe", journal="log", seed=0)
        point = (SimpleNamespace(command="python train.py"), folder)
        monkeypatch.setattr(verbs.SearchSweep, "_point", lambda *args, point=point: point)
        settings: Any = SimpleNamespace(budget=budget)
        answered = sweep._answer(settings, {}, [])
        assert answered is not None
        excess[folder.name] = answered.excess
    assert excess["big"] == {"budget.file_mb": pytest.approx(66), "budget.drop_points": pytest.approx(-7)}
    assert excess["small"] == {"budget.file_mb": pytest.approx(-4), "budget.drop_points": pytest.approx(1)}


def test_hypervolume_by_hand():
    """In the unit square (1/2, 1/4) dominates 1/2 x 3/4, and (1/4, 1/2) 3/4 x 1/2; they share 1/2 x 1/2."""
    low, high = np.zeros(2), np.ones(2)
    first, second = [0.5, 0.25], [0.25, 0.5]
    assert hypervolume(np.array([first]), low, high) == pytest.approx(3 / 8)
    assert hypervolume(np.array([first, second]), low, high) == pytest.approx(3 / 8 + 3 / 8 - 1 / 4)
    assert hypervolume(np.array([first, second, [0.6, 0.6], [0.5, 0.25]]), low, high) == pytest.approx(1 / 2)
    assert hypervolume(np.array([[0.0, 0.0]]), low, high) == 1.0
    assert hypervolume(np.array([[1.0, 0.0]]), low, high) == 0.0
    assert hypervolume(np.array([[2.0, 2.0]]), np.ones(2), 3 * np.ones(2)) == pytest.approx(1 / 4), "scaled to the box"


def test_hypervolume_of_three_objectives_is_the_share_of_a_thousand_darts():
    rng = np.random.default_rng(0)
    points, darts = rng.random((6, 3)), rng.random((20_000, 3))
    dominated = np.asarray((darts[:, None] >= points[None]).all(axis=2))
    hit = dominated.any(axis=1).mean()
    assert hypervolume(points, np.zeros(3), np.ones(3)) == pytest.approx(hit, abs=0.01)


def test_half_of_a_space_asked_for_is_better_than_half_of_it_drawn():
    """7 of the 14 points: the search must find the best int8 ones in most seeds. All values are known here."""
    combinations = [dict(zip(SPACE, options, strict=True)) for options in itertools.product(*SPACE.values())]
    known = list({identify(c): answer(c).values for c in combinations}.values())
    everything = losses(known)
    low, high = everything.min(axis=0), everything.max(axis=0)
    wins = 0
    for seed in range(6):
        one = going("tpe", seed)
        for _ in range(7):
            one.step()
        found = search.versus_random(search.read_journal(one.study), known, draws=20, seed=seed)
        assert found.found == pytest.approx(hypervolume(losses(search.read_journal(one.study)), low, high))
        assert (found.trials, found.known, len(found.random)) == (7, 14, 20)
        wins += found.found >= np.mean(found.random)
    assert wins >= 4
