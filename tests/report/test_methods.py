"""The table of methods, of results made by hand."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from conftest import CONF, Runs
from hydra import compose, initialize_config_dir
from made_results import finished_point, points, put

from optim.run.keys import run_id_of
from optim.run.point import point_of
from optim.sweep.points import merged


@pytest.fixture
def methods(script):
    return script("methods")


def test_a_row_has_means_over_seeds_and_its_speed_against_minilm(methods, tmp_path):
    put(tmp_path, "base", wrong=range(10), ms=20, mb=90)
    put(tmp_path, "half0", wrong=range(12), ms=2, mb=10, seed=0)
    put(tmp_path, "half1", wrong=range(14), ms=3, mb=10, seed=1)
    put(tmp_path, "zeros", wrong=range(12), ms=2.5, mb=10)
    found = points(tmp_path)
    found["half1"].result.speed["dev_mix_latency_p50_ms"] = 1.5  # half0 has 0.5
    done = {"minilm, float32": {0: found["base"]}, "half": {0: found["half0"], 1: found["half1"]},
            "half, zeros": {0: found["zeros"]}, "quarter": {0: None}}  # fmt: skip
    page = methods.page(done)
    assert "| 0.9000 | 0.9000 | 90.00 | 63.00 | 20.00 | 1.0x | 5.00 | 1.0x |  | 1.0000 | 1x |" in page
    assert "| 0, 1 | 0.8700 | 0.8800, 0.8600 | 10.00 | 7.00 | 2.50 | 8.0x | 1.00 | 5.0x |  | 1.0000 | 0.902" in page
    assert "| half, zeros - half | 0 | +0.00 (-2.76 to +2.76) |" in page, "seed 0 alone is in both"
    assert "Failed: quarter, seed 0." in page
    assert "Not run yet: whole; words;" in page


def test_files_of_mpnet_are_held_against_its_own(methods, tmp_path):
    """438 MB over the mean of 50 and 60, by hand."""
    for run_id, mb in (("teacher", 438), ("six0", 50), ("six1", 60), ("minilm", 10)):
        put(tmp_path, run_id, wrong=range(10), ms=20, mb=mb)
    found = points(tmp_path)
    six = {"mpnet, six layers, words": {0: found["six0"], 1: found["six1"]}, "half": {0: found["minilm"]}}
    assert "Times smaller" not in methods.page(six)
    page = methods.page({"mpnet, float32": {0: found["teacher"]}, **six})
    assert "\nTimes smaller than mpnet, float32: mpnet, six layers, words 7.96x.\n" in page


MADE = ["distill.augment.copies=2", "fit.student.steps=7480"]  # without made sentences, `train alone` is no other point


def run_id(words: list[str]) -> str:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return run_id_of(point_of(compose("train", overrides=words)))


def test_every_recipe_is_a_point_of_its_own_that_train_takes(methods, runs: Runs):
    shared = ["model=minilm", *runs.overrides()[1:3], "track=none", *MADE]
    ids = {run_id(methods.words_of(shared, name, 0, 0)) for name in methods.POINTS}
    assert len(ids) == len(methods.POINTS)
    assert {name for pair in methods.COMPARED for name in pair} <= set(methods.POINTS)


def test_made_sentences_are_compared_with_as_many_steps_without(methods, script, runs: Runs):
    teachers, shared = script("teachers"), ["model=minilm", *runs.overrides()[1:3], "track=none", *MADE]
    with_them, alone = (methods.words_of(shared, name, 0, 0) for name in ("half", "half, train alone"))
    assert set(alone) - set(with_them) == {"distill.augment.copies=0"}
    assert "fit.student.steps=7480" in alone
    own, base = "minilm taught by mpnet, int8", "minilm taught by mpnet, train alone, int8"
    assert (own, base) in teachers.COMPARED
    assert [word for word in merged(teachers.POINTS[base]) if word not in teachers.POINTS[own]] == [teachers.ALONE]
    assert len({run_id([*runs.overrides()[1:3], *words]) for words in teachers.POINTS.values()}) == len(teachers.POINTS)


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("quarter", ["distill.augment.copies=2", "distill.temperature=4"]),
        ("quarter, hidden", ["distill.augment.copies=2", "distill.temperature=4"]),
        ("quarter, relations", ["distill.augment.copies=2", "distill.temperature=4"]),
        ("minilm, float32", ["distill.augment.copies=0"]),  # its own; a temperature is none of `distill=none`
    ],
)
def test_an_option_of_a_point_leaves_what_the_user_says_of_its_group(methods, name, kept):
    given = ["distill.augment.copies=2", "distill.temperature=4", "fit.student.steps=7480"]
    words = methods.words_of(["model=minilm", "data=sst2", *given], name, 1, 0)
    assert [word for word in words if word.startswith(("distill.a", "distill.temp"))] == kept
    assert {"fit.student.steps=7480", "seed=1"} <= set(words)
    assert ("distill.teacher_seed=0" in words) == (name != "minilm, float32")


def test_a_point_whose_float32_file_is_gone_has_a_row(script):
    point = finished_point("a", np.ones(10, bool), np.ones(10, bool))
    point.result.data["dev_examples"] = 10
    point.result.speed["speedup_vs_float32"] = None
    assert "| 1.0 |  | 0 |" in script("teachers").page({"mpnet, int8": {0: point}})


def test_zeros_are_those_of_every_seed(methods):
    seeds = {seed: finished_point("a", np.ones(10, bool), np.ones(10, bool), seed=seed) for seed in (0, 1)}
    for seed, point in seeds.items():
        point.result.speed["zeros_accelerated"] = seed == 0
    assert "| yes, no |" in methods.row("half, zeros", seeds, [])


def test_milliseconds_of_two_machines_are_no_row(script):
    seeds = {seed: finished_point("a", np.ones(10, bool), np.ones(10, bool), machine=f"m{seed}") for seed in (0, 1)}
    with pytest.raises(SystemExit, match=r"timed on several machines: m0 .*, m1 .*sweep=measure"):
        script("teachers").page({"mpnet, int8": seeds})


def test_steps_a_second_are_those_of_the_fits_of_the_table(script, tmp_path):
    """Another fit, which came later into the same cache, says nothing of them."""
    for key, rate in (("teacher-own", 4.0), ("student-own", 3.0), ("teacher-other", 1.0)):
        (tmp_path / "stages" / key).mkdir(parents=True)
        (tmp_path / "stages" / key / "fit.json").write_text(f'{{"steps_per_second": {rate}}}')
    result = vars(finished_point("a", np.ones(10, bool), np.ones(10, bool)).result) | {
        "cfg": {"cache_dir": str(tmp_path)}, "cost": {"stages": {"teacher-own": 1.0, "student-own": 1.0}}}  # fmt: skip
    told = dict(script("sst2").asked({"fixed50, int8": result, "fixed50, float32": result}, [1.0, 1.0], 1.0))
    assert told["training >= 2 steps/s of batch 64 (median of the last epoch)"] == "teacher 4.00, student 3.00"


def test_a_page_says_on_how_many_threads_its_files_ran(methods):
    point = finished_point("a", np.ones(10, bool), np.ones(10, bool))
    assert "; one thread, batch 1. Speed:" in methods.page({"half": {0: point}})
    point.result.speed["threads"] = 2
    assert "; 2 threads, batch 1. Speed:" in methods.page({"half": {0: point}})


def test_milliseconds_of_two_machines_are_not_written_into_one_column(methods, tmp_path, monkeypatch):
    """One of the two has lost its file, so that it cannot be timed here."""
    for name, machine in (("a", "m1"), ("b", "m2")):
        put(tmp_path / "results", name, wrong=range(3), ms=1, mb=1, machine=machine)
    found = points(tmp_path / "results")
    monkeypatch.setattr(methods, "made_before", lambda *given: {"half": {0: found["a"]}, "whole": {0: found["b"]}})
    monkeypatch.setattr(methods, "remeasure", lambda *given: 0)
    page = tmp_path / "page.md"
    words = ["methods.py", "--data", str(tmp_path), "--results", str(tmp_path / "results"), "--page", str(page)]
    monkeypatch.setattr(sys, "argv", [*words, "--seeds", "--only"])
    with pytest.raises(SystemExit, match=r"timed on several machines: m1 .*, m2 .*move them out of --results"):
        methods.main()
