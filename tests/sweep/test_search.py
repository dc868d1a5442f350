"""The search by hand: what counts as a trial, what a hypervolume is, and that asking beats drawing."""

from __future__ import annotations

import itertools
from pathlib import Path
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


def in_journal(folder: Path) -> Search:
    """A search that goes on in the journal `log` of a folder."""
    study = search.study_in(folder / "log", name="one", sampler="tpe", seed=0)
    return Search(study, SPACE, identify=identify, answer=answer, seed=0)


def test_a_journal_goes_on_and_an_unknown_sampler_is_refused(tmp_path):
    first = in_journal(tmp_path)
    for _ in range(5):
        first.step()
    assert in_journal(tmp_path).known().keys() == first.known().keys()
    assert len(search.read_journal(in_journal(tmp_path).study)) == 5
    with pytest.raises(UserError, match=r"sweep\.sampler must be one of tpe, nsga2, random, got 'best'"):
        search.study_in(tmp_path / "other", name="one", sampler="best", seed=0)


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


class Command:
    """sweep=search on answers that are known, with its journal in a folder."""

    def __init__(self, folder, monkeypatch):
        from optim.sweep import again, verbs

        self.folder, self.verbs, self.asked, self.content, self.studies = folder, verbs, [], "", []
        opened, versus = search.study_in, SimpleNamespace(line=lambda: "")

        def study_in(*args, **more):
            self.studies.append(opened(*args, **more))
            return self.studies[-1]

        monkeypatch.setattr(search, "study_in", study_in)
        monkeypatch.setattr(search, "versus_random", lambda values, known: versus)
        monkeypatch.setattr(again, "measure_noisy_again", lambda folders, bench: None)
        monkeypatch.setattr(verbs, "plan", lambda jobs: None)
        for name, stand_in in (("_track", {}), ("_bench", None), ("compare_all", None)):
            monkeypatch.setattr(verbs, name, lambda *a, found=stand_in, **k: found)
        monkeypatch.setattr(verbs.pick, "finished_points", lambda *a: [])
        monkeypatch.setattr(verbs.pick, "answer", lambda *a: "")
        monkeypatch.setattr(verbs.SearchSweep, "_point", self._point)
        monkeypatch.setattr(verbs.SearchSweep, "_answer", self._answer)

    def _point(self, settings, choice, more=()):
        return None, self.folder / " ".join([self.content, *settings.overrides, identify(choice)])

    def _answer(self, settings, choice, words):
        self.asked.append(choice)
        folder = self._point(settings, choice)[1]
        folder.mkdir(exist_ok=True)
        (folder / "result.json").touch()
        values = answer(choice).values
        return Answer(values, {name: values[2] / 1e6 - limit for name, limit, _ in settings.budget.bounds()})

    def __call__(self, *words: str, trials: int, space=SPACE, file_mb: float | None = None) -> int:
        """How many points are asked for."""
        from optim.sweep.pick import Budget

        self.asked.clear()
        budget = Budget(file_mb=file_mb, latency_ms=None, drop_points=None)
        settings: Any = SimpleNamespace(budget=budget, trials=trials, overrides=list(words), results_dir=self.folder,
                                        dry_run=False, timeout_min=None)  # fmt: skip
        assert self.verbs.SearchSweep(space=space, sampler="tpe", journal="log", seed=0).run(settings) == 0
        return len(self.asked)


def test_a_stopped_search_goes_on_and_another_question_begins_its_own(tmp_path, monkeypatch):
    """Each has its own trials, in one journal: other words, other data behind the same words, one option more."""
    command = Command(tmp_path, monkeypatch)
    assert command("data=sst2", trials=3) == 3
    assert command("data=sst2", trials=5) == 2
    assert command("data=reviews", trials=3) == 3
    assert command("data=sst2", trials=3, space={**SPACE, "quant": ["none", "int8", "fp16"]}) == 3
    command.content = "an edited file"
    assert command("data=sst2", trials=3) == 3
    command.content = ""
    assert command("data=sst2", trials=6) == 1, "the first one goes on all the same"


@pytest.mark.parametrize("space", [{"prune": ["none", "bad"]}, {"quant": ["none", "int8"], "prune": ["none", "bad"]}])
def test_every_option_of_a_space_is_looked_at_before_the_first_trial(space, tmp_path, monkeypatch):
    """Each once, beside the first option of the others."""
    command, looked = Command(tmp_path, monkeypatch), []

    def point(sweep, settings, choice, more=()):
        looked.append(choice)
        if choice["prune"] == "bad":
            raise UserError("prune has no option 'bad'")
        return None, tmp_path / str(choice)

    monkeypatch.setattr(command.verbs.SearchSweep, "_point", point)
    with pytest.raises(UserError, match="no option 'bad'"):
        command(trials=9, space=space)
    assert not command.asked, "no point was run"
    assert len(looked) <= 3
    assert not list(tmp_path.iterdir()), "and no journal begun"


def test_what_stands_on_the_command_line_is_not_drawn(tmp_path, monkeypatch):
    command = Command(tmp_path, monkeypatch)
    assert command("fit.student.epochs=3", trials=3, space={**SPACE, "fit.student.epochs": [1, 2]}) == 3
    assert [set(choice) for choice in command.asked] == [set(SPACE)] * 3


def test_an_option_may_be_a_list_or_nothing(tmp_path, monkeypatch):
    """As words of train.py."""
    command = Command(tmp_path, monkeypatch)
    space = {**SPACE, "distill.teacher": [["a", "b"], "c"], "fit.student.steps": [None, 5]}
    assert command(trials=12, space=space) == 12
    assert {choice["distill.teacher"] for choice in command.asked} == {"[a,b]", "c"}
    assert {choice["fit.student.steps"] for choice in command.asked} == {"null", 5}


def test_a_damaged_journal_is_named(tmp_path):
    (tmp_path / "log").write_text("a line of something else\nand another\n")
    with pytest.raises(UserError, match=r"sweep.journal: .*log is damaged, or no journal"):
        search.study_in(tmp_path / "log", name="x", sampler="tpe", seed=0)


@pytest.mark.parametrize("left", [3, 10, 40])
def test_a_journal_that_was_cut_while_a_line_was_written_goes_on(tmp_path, left, caplog):
    first = in_journal(tmp_path)
    for _ in range(3):
        first.step()
    whole = (tmp_path / "log").read_bytes()
    (tmp_path / "log").write_bytes(whole + whole.splitlines()[-1][:left])
    again = in_journal(tmp_path)
    assert "last line of" in caplog.text
    assert again.step()
    assert len(in_journal(tmp_path).known()) == 4
    assert (tmp_path / "log").read_bytes().startswith(whole)


def test_a_file_that_is_no_journal_is_left_as_it_is(tmp_path):
    (tmp_path / "log").write_text("a line of something else\nand another")
    with pytest.raises(UserError, match="is damaged, or no journal"):
        search.study_in(tmp_path / "log", name="x", sampler="tpe", seed=0).tell(0)
    assert (tmp_path / "log").read_text() == "a line of something else\nand another"


def test_a_search_knows_no_point_by_another_budget(tmp_path, monkeypatch):
    """Optuna can't be told anew how a finished trial stands to the budget: 91 MB fit 100, and not 30."""
    command = Command(tmp_path, monkeypatch)
    assert command(trials=8, file_mb=100) == 8
    assert command(trials=14, file_mb=30) > 0
    assert command(trials=14, file_mb=30.0) == 0
    told = [t for t in command.studies[-1].trials if t.values]
    assert all(t.constraints == {"budget.file_mb": t.values[2] / 1e6 - 30} for t in told)
    assert {t.values[2] for t in command.studies[-1].best_trials} == {23e6}


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


TWO = {"quant": ["none", "int8"]}


def test_a_point_whose_result_was_deleted_is_asked_for_again():
    left, asked = {"none", "int8"}, []

    def answer(choice):
        asked.append(choice["quant"])
        return search.Answer((0.9, 5.0, 2e7), {})

    study = search.study_in_memory(sampler="random", seed=0)
    one = search.Search(
        study, TWO, identify=lambda choice: choice["quant"], answer=answer, seed=0, there=left.__contains__
    )
    assert [one.step(), one.step(), one.step()] == [True, True, None]
    left.remove("int8")
    assert one.known().keys() == {"none"}
    one.step()
    assert asked.count("int8") == 2


def test_a_trial_that_was_interrupted_does_not_run_for_ever():
    def stop(choice):
        raise KeyboardInterrupt

    one = search.Search(
        search.study_in_memory(sampler="tpe", seed=0), TWO, identify=lambda choice: choice["quant"], answer=stop, seed=0
    )
    with pytest.raises(KeyboardInterrupt):
        one.step()
    assert [trial.state.name for trial in one.study.trials] == ["FAIL"]


def test_a_point_that_another_process_took_from_the_queue_is_no_end():
    one = search.Search(
        search.study_in_memory(sampler="tpe", seed=0),
        TWO,
        identify=lambda choice: choice["quant"],
        answer=lambda choice: None,
        seed=0,
    )
    told = iter([*[None] * (search.PATIENCE + 1), True])
    one._trial = lambda: next(told)
    assert one.step() is True


def test_two_processes_of_one_search_are_at_different_points(tmp_path, monkeypatch):
    """Both draw by one seed: without a look at the other's running trial they made each point twice."""
    asked: dict[str, list[str]] = {"first": [], "second": []}

    def going(name: str, meanwhile=lambda: None) -> Search:
        def answered(choice):
            asked[name].append(identify(choice))
            meanwhile()
            return answer(choice)

        study = search.study_in(tmp_path / "log", name="one", sampler="tpe", seed=0)
        return Search(study, SPACE, identify=identify, answer=answered, seed=0)

    second = going("second")
    first = going("first", second.step)
    for _ in range(5):
        first.step()
    assert (len(asked["first"]), len(asked["second"])) == (5, 5)
    assert len({*asked["first"], *asked["second"]}) == 10


def test_a_trial_of_a_killed_process_holds_its_point_for_nobody(monkeypatch):
    one = search.Search(
        search.study_in_memory(sampler="random", seed=0), TWO, identify=lambda choice: choice["quant"],
        answer=lambda choice: search.Answer((0.9, 5.0, 2e7), {}), seed=0,
    )  # fmt: skip
    for quant, process in (
        ("none", f"{search.this_process().rsplit('-', 2)[0]}-999999999-5"),
        ("int8", "elsewhere-1-1"),
    ):
        one.study.enqueue_trial({"quant": quant})
        trial = one.study.ask()
        trial.suggest_categorical("quant", TWO["quant"])
        trial.set_user_attr("process", process)
        trial.set_user_attr("point", quant)
    assert one._elsewhere() == {"int8"}, "that of another machine may be at work"
    assert [one.step(), one.step()] == [True, None]
    monkeypatch.setattr(search, "PARTIAL_DAYS", 0)
    assert [one.step(), one.step()] == [True, None], "but not for ever"
