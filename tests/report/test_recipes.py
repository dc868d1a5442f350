"""The comparison of recipes: its statistics by hand, its table on made results, and that its words mean something."""

from __future__ import annotations

import json

import numpy as np
import pytest
from conftest import CONF, ROOT, Runs
from hydra import compose, initialize_config_dir
from made_results import put

from benchmarks import recipes
from optim.common.errors import UserError
from optim.report import finished
from optim.report.statistics import Answers, against
from optim.run.point import point_of
from optim.sweep.points import merged


def right(*wrong: int, of: int = 100) -> np.ndarray:
    """bool [of], wrong on the sentences `wrong`."""
    answers = np.ones(of, bool)
    answers[list(wrong)] = False
    return answers


def fitted(recipe: str, **wrong: int) -> dict[int, Answers]:
    """Answers of a fit for each seed, s0=3: the one of seed 0 is wrong on the first three."""
    return {int(seed[1:]): Answers(right(*range(count)), f"{recipe} {seed}") for seed, count in wrong.items()}


def test_a_gain_over_three_seeds_by_hand():
    """Right on 90, 91, 92 of 100 against 86, 88, 87: gains 4, 3, 5, a spread of 1 for both."""
    own = fitted("own", s0=10, s1=9, s2=8)
    base = fitted("base", s0=14, s1=12, s2=13, s7=0)
    found = against(own, base)
    assert found.seeds == [0, 1, 2], "those that both have"
    assert (found.mean, found.gain_points) == pytest.approx((0.91, 4.0))
    assert (found.spread_points, found.base_spread_points) == pytest.approx((1.0, 1.0))
    assert found.low_points < 4 < found.high_points
    assert (found.wins, found.loses) == (True, False)
    other = against(base, own)
    assert (other.gain_points, other.wins, other.loses) == (pytest.approx(-4.0), False, True)


def test_a_gain_within_either_spread_is_no_win():
    """A gain of 1 with no spread of its own, but the base moves by 2 from seed to seed."""
    own, base = fitted("own", s0=9, s1=9, s2=9), fitted("base", s0=8, s1=10, s2=12)
    found = against(own, base)
    assert (found.gain_points, found.spread_points, found.base_spread_points) == pytest.approx((1, 0, 2))
    assert not found.wins
    assert against(base, own).spread_points == pytest.approx(2)
    assert not against(fitted("own", s0=0), fitted("base", s0=1)).wins, "one seed has no spread"
    with pytest.raises(ValueError, match="no seed is in both"):
        against(fitted("own", s0=0), fitted("base", s1=0))


def test_another_seed_of_either_is_in_the_interval_by_hand():
    """All four sentences right with two seeds of three, none with the third, against none at all: 2/3 gained of each.

    With one more gained and one lost the mean is 4/9, the variance over sentences 14/27 / 6 = 7/81. A fit's is 1/3 for
    one of the two and 0 for the other, 1/6 for both, times 6 fits of (1/3)²: 9/81. So the error is 4/9 too, t is 1, and
    the degrees of freedom are 16² / (7²/5 + 9²/4) = 8.52, with a t of 2.2815 for 95 %.
    """
    wild, calm = ({seed: Answers(np.full(4, flag), f"{name} {seed}") for seed, flag in enumerate(flags)}
                  for name, flags in (("wild", (True, True, False)), ("calm", (False, False, False))))  # fmt: skip
    for found, sign in ((against(wild, calm), 1), (against(calm, wild), -1)):
        ends = sorted((sign * 400 / 9 * (1 - 2.2815), sign * 400 / 9 * (1 + 2.2815)))
        assert found.gain_points == pytest.approx(sign * 200 / 3)
        assert [found.low_points, found.high_points] == pytest.approx(ends, rel=1e-3)
        assert found.p == pytest.approx(0.345, abs=1e-3)


def test_two_files_of_one_fit_are_compared_over_sentences_alone():
    """Wrong on 5, 20, 35 of 100 and, in the other precision, on one more each: the seeds' spread is in both."""
    wrong = {"s0": 5, "s1": 20, "s2": 35}
    base, more = fitted("fit", **wrong), {seed: count + 1 for seed, count in wrong.items()}
    one, another = against(fitted("fit", **more), base), against(fitted("other", **more), base)
    assert one.gain_points == another.gain_points == pytest.approx(-1)
    assert one.high_points - one.low_points < 7 < 20 < another.high_points - another.low_points


def made(tmp_path, recipe: str, seed: int, wrong: int) -> recipes.Planned:
    """A finished point of a study; its first recipe is `base`."""
    folder = put(tmp_path, f"{recipe}-{seed}", wrong=range(wrong), ms=1, mb=1, seed=seed)
    (folder / "bundle").mkdir()
    read = json.loads((folder / "result.json").read_text())
    read["data"] |= {"name": "made", "train_examples": 7, "dev_examples": 100}
    (folder / "result.json").write_text(json.dumps(read))
    return recipes.Planned("minilm", recipe, seed, 2.0, ["model=tiny", "data.path=somewhere", f"seed={seed}"], folder)


def test_the_table_says_what_won_what_did_not_and_what_is_open(tmp_path):
    wrong = {"base": (14, 12, 13), "good": (10, 9, 8), "bad": (18, 19, 20), "same": (13, 12, 13), "new": (5,)}
    points = [made(tmp_path, name, seed, n) for name, each in wrong.items() for seed, n in enumerate(each)]
    points.append(recipes.Planned("minilm", "later", 0, 1.0, [], tmp_path / "nowhere"))
    lines = recipes.page(points).splitlines()
    rows = {line.split(" | ")[0].strip("| "): line.strip("| ").split(" | ") for line in lines if line.startswith("| ")}
    assert rows["base"][1:] == ["87.00 %", "1.00", "", "0.1", "what the others are compared with"]
    assert rows["good"][1:3] == ["91.00 %", "1.00"]
    assert rows["good"][3].startswith("+4.00 (-")
    verdicts = {name: row[-1] for name, row in rows.items() if name != "recipe"}
    assert verdicts == {"base": "what the others are compared with", "good": "**wins by more than the spread**",
                        "bad": "below by more than the spread", "same": "within it",
                        "new": "open: 1 of 3 seeds"}  # fmt: skip
    assert "No result yet: later." in lines
    assert "`model=tiny`" in lines, "folders are left out"
    assert "made: 7 sentences to train, 100 to score." in " ".join(lines)


def test_what_a_point_should_take(tmp_path):
    """16 s for every made point: its own recipe's time where a seed has run, else the first recipe's times its work."""
    points = [made(tmp_path, "base", 0, 3), made(tmp_path, "known", 0, 3)]
    assert sum(finished.read_all([tmp_path])[0][0].result.cost["stages"].values()) == 16
    known, new = (recipes.Planned("minilm", name, 1, 2.5, [], tmp_path / "nowhere") for name in ("known", "new"))
    assert recipes.expected(known, [*points, known, new]) == 16
    assert recipes.expected(new, [*points, known, new]) == 40
    assert recipes.expected(new, [new]) == 0


def test_what_would_not_end_in_time_is_not_started(tmp_path, monkeypatch, capsys):
    started: list[list[str]] = []
    monkeypatch.setattr(recipes, "train", lambda words, **more: started.append(words) or _Ended())
    done = made(tmp_path, "base", 0, 3)
    short, long = (
        recipes.Planned("minilm", f"{work}", 0, work, [f"a={work}"], tmp_path / "nowhere") for work in (1, 9)
    )
    assert list(recipes.run_missing([done, long, short], minutes=1)) == [short]  # 16 s and 144 s
    assert started == [["a=1"]]
    assert "Not started: minilm, 9, seed 0, about 2 min" in capsys.readouterr().out


def test_a_recipe_that_the_words_make_the_same_as_the_first_is_none():
    """A batch of 16 for all leaves two recipes of other batches with nothing of their own."""
    word = "fit.teacher.batch_size=16"
    planned = {p.recipe for p in recipes.planned("minilm", None, [0, 1], [word])}
    assert {p.recipe for p in recipes.planned("minilm", None, [0, 1], [])} - planned == {"batch 32", "batch 128"}
    with pytest.raises(UserError, match=r"--only: by these words batch 32 is the same as base\. Leave its own"):
        recipes.planned("minilm", ["batch 32", "1 epoch"], [0], [word])


class _Ended:
    returncode, stderr = 0, ""


@pytest.mark.parametrize("study", list(recipes.studies()))
def test_every_recipe_is_one_that_train_takes_and_differs_from_the_others(study, runs: Runs):
    """The words of the file with the data and the model of the tests; the first recipe is the plain fit."""
    found, kept, teachers = recipes.studies()[study], set(), set()
    for recipe in found["recipes"].values():
        words = merged([*found["shared"], *recipe["words"], *runs.overrides()[:3]])
        with initialize_config_dir(str(CONF), version_base="1.3"):
            cfg = compose("train", overrides=words)
        point = point_of(cfg)
        teachers.add(str(cfg.distill.get("teacher")))
        parts = [*(point.specs[group] for group in ("fit", "distill", "quant")), point.surgery.spec]
        kept.add(json.dumps(parts, sort_keys=True))
    assert len(kept) == len(found["recipes"])
    assert len(teachers) == 1, "a recipe of another group of distill must name the teacher again"
    assert next(iter(found["recipes"].values()))["words"] == []


def test_the_teachers_fit_and_its_share_of_the_loss_are_among_them():
    """What the project asks to be tried of MPNet, beside its usual fit, and of a student's loss."""
    mpnet, taught = (
        [merged([*found["shared"], *recipe["words"]]) for recipe in found["recipes"].values()]
        for found in (recipes.studies()[study] for study in ("mpnet", "taught"))
    )
    given = {word for words in mpnet for word in words}
    assert {"model=mpnet", "distill=none"} <= set.intersection(*map(set, mpnet))
    tried = {"learning_rate": ["2e-5", "5e-5"], "epochs": ["2"], "batch_size": ["64"], "average": ["0.99"]}
    assert {f"fit.teacher.{key}={value}" for key, values in tried.items() for value in values} <= given
    assert any(word.startswith("fit.teacher.layer_decay=") for word in given)
    shares = {word for words in taught for word in words if word.startswith("distill.teacher_weight")}
    assert shares == {"distill.teacher_weight=0.5", "distill.teacher_weight=1.0"}


@pytest.mark.slow
def test_recipes_are_compared_from_end_to_end(tmp_path):
    """Two recipes, one seed, on the tiny model; the second call runs nothing and says the same."""
    import subprocess
    import sys

    page = tmp_path / "RECIPES.md"
    words = [word for word in Runs(tmp_path).overrides() if not word.startswith("fit.teacher.epochs")]
    command = [sys.executable, "benchmarks/recipes.py", *words, "--study", "minilm", "--only", "average 0.95",
               "--seeds", "0", "--page", str(page)]  # fmt: skip
    first = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert first.returncode == 0, first.stderr
    written = page.read_text()
    assert "| average 0.95 | " in written
    assert "open: 1 of 3 seeds" in written
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert again.stdout.count("train.py") == 0 < first.stdout.count("train.py")
    assert page.read_text() == written
