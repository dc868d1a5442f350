"""What a benchmark's page keeps of earlier calls, and that a page of more results is not written over."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import CONF, Runs
from hydra import compose, initialize_config_dir
from made_results import put

from benchmarks import kept, recipes
from optim.common.files import environment
from optim.run.keys import run_id_of
from optim.run.point import point_of

PAGE = """# Made

| recipe | seeds | accuracy, mean |
|---|---|---|
| one | 0, 1 | 0.9 |
| other | 2 | 0.8 |

| difference | seeds | points (95 %) |
|---|---|---|
| one - other | 0 | +1.00 |

## study

| recipe | accuracy |
|---|---|
| base | 90 % |
"""
POINTS = {  # of each script two, of which MPNet teaches the second
    "methods": ["half", "whole"],
    "teachers": ["minilm, int8", "minilm taught by mpnet, int8"],
    "banking77": ["minilm, int8", "minilm taught by mpnet, int8"],
}


@pytest.fixture
def call(script, monkeypatch, tmp_path, runs: Runs):
    """Calls a script with two points, whose runs leave made results at once; the words of those that ran."""

    def main(name: str, *words: str) -> list[list[str]]:
        module, ran, results = script(name), [], tmp_path / "results"

        def run(given):
            ran.append(given)
            return {"run_id": finish(given, results)}

        chosen = {point: module.POINTS[point] for point in POINTS[name]} if len(module.POINTS) > 2 else module.POINTS
        monkeypatch.setattr(module, "POINTS", chosen)
        if name == "methods":
            monkeypatch.setattr(module, "made", lambda given, at: (run(given), module.there(given, at))[1])
            monkeypatch.setattr(module, "remeasure", lambda *points: None)
        else:
            monkeypatch.setattr(module, "run", run)
        folders = ["--data", str(banking(tmp_path) if name == "banking77" else runs.data), "--results", str(results)]
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *folders, "--page", str(tmp_path / "page.md"), *words])
        module.main()
        return ran

    return main


def banking(folder: Path) -> Path:
    """The two files of BANKING77, of two classes."""
    for name in ("train", "test"):
        rows = [f"{name} {label} {n},{label}" for label in ("good", "bad") for n in range(4)]
        (folder / f"{name}.csv").write_text("\n".join(["text,category", *rows]) + "\n")
    return folder


def finish(words: list[str], results: Path) -> str:
    """Leaves a made result of a point where it would be; its id."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", overrides=words)
    run_id = run_id_of(point_of(cfg))
    path = put(results, run_id, wrong=range(10 + cfg.seed), ms=2, mb=10, seed=cfg.seed) / "result.json"
    read = json.loads(path.read_text())
    read["data"] |= {"name": "made", "train_examples": 7, "dev_examples": 100, "dev_in_train_examples": 0, "labels": []}
    read["cfg"]["fit"] = {"teacher": {"epochs": 1}, "student": {"epochs": 2}}
    path.write_text(json.dumps(read))
    (path.parent / "bundle").mkdir()
    return run_id


@pytest.mark.parametrize("name", list(POINTS))
def test_a_page_has_what_earlier_calls_have_finished(call, tmp_path, name):
    one, other = POINTS[name]
    call(name, "--seeds", "0", "2", "--only", other)
    assert f"Not run yet: {one}." in (tmp_path / "page.md").read_text()
    ran = call(name, "--seeds", "1")
    assert ["seed=1" in words for words in ran] == [True, True]
    page = (tmp_path / "page.md").read_text()
    assert "Not run yet" not in page
    assert f"\n| {one} | 1 | 0.8900 | 0.8900" in page
    assert f"\n| {other} | 0, 1, 2 | 0.8900 | 0.9000" in page, "the seeds in their order"
    assert page.index(f"| {one} |") < page.index(f"| {other} |"), "the points in that of the script"


@pytest.mark.parametrize("name", list(POINTS))
def test_a_page_of_more_results_is_not_written_over(call, tmp_path, name):
    (tmp_path / "page.md").write_text(PAGE)
    with pytest.raises(SystemExit, match=r"page\.md has 4 results, this call 0\. Give another file with --page"):
        call(name, "--seeds", "0")
    assert (tmp_path / "page.md").read_text() == PAGE
    assert not (tmp_path / "results").exists(), "it is told before anything is run"


def test_results_of_a_page_are_counted_by_row_and_seed(script, tmp_path):
    kept = script("kept")
    assert kept.shown(PAGE) == 4, "two seeds and one, then a row without; a difference is no result"
    assert kept.shown("# Made\n\nNothing is finished yet.\n") == 0
    path = tmp_path / "page.md"
    for text in ("none yet\n", PAGE, PAGE.replace("0.9", "0.95")):
        kept.write(path, text)
        assert path.read_text() == text


def test_a_page_of_recipes_keeps_its_other_studies(tmp_path, monkeypatch, runs: Runs):
    """Of a study that is on the page, what is finished is shown though another study or recipe is asked for."""
    page, started = tmp_path / "RECIPES.md", []
    made = {name: {"shared": ["distill=none"], "recipes": {
        "base": {"words": [], "work": 1}, "3 epochs": {"words": ["fit.teacher.epochs=3"], "work": 1}}}
        for name in ("first", "second")}  # fmt: skip
    made["second"]["shared"] = ["distill=none", "quant=int8"]
    monkeypatch.setattr(recipes, "studies", lambda: made)
    monkeypatch.setattr(recipes, "run_missing", lambda points, minutes: started.extend(points) or ())
    own = [w for w in runs.overrides(f"results_dir={tmp_path / 'results'}") if not w.startswith("fit.teacher.epochs")]

    def main(*more: str) -> str:
        monkeypatch.setattr(sys, "argv", ["recipes.py", *own, "--page", str(page), "--seeds", "0", *more])
        recipes.main()
        return page.read_text()

    assert "Nothing has run yet" in main("--study", "first")
    for point in recipes.planned("first", None, [0], own):
        assert finish(point.words, tmp_path / "results") == point.folder.name
    assert main("--study", "first", "--only", "base").count("\n| 3 epochs |") == 1
    started.clear()
    text = main("--study", "second")
    assert text.index("## first") < text.index("\n| 3 epochs |") < text.index("## second")
    assert {point.study for point in started} == {"second"}
    (tmp_path / "results").rename(tmp_path / "elsewhere")
    with pytest.raises(SystemExit, match=r"RECIPES\.md has 2 results, this call 0\. Give another file with --page"):
        main("--study", "second")
    assert page.read_text() == text


def test_a_page_of_recipes_is_written_after_each_point(tmp_path, monkeypatch, runs: Runs):
    """What a call that is stopped has finished is shown."""
    page = tmp_path / "RECIPES.md"
    own = runs.overrides(f"results_dir={tmp_path / 'results'}")

    def train(words, *, captured):
        if (tmp_path / "results").is_dir():
            sys.exit(130)
        finish(words, tmp_path / "results")
        return subprocess.CompletedProcess(words, 0, "", "")

    monkeypatch.setattr(recipes, "train", train)
    monkeypatch.setattr(sys, "argv", ["recipes.py", *own, "--page", str(page), "--study", "minilm", "--seeds", "0"])
    with pytest.raises(SystemExit, match="130"):
        recipes.main()
    assert page.read_text().count("\n| base |") == 1


SAVES_LATE = """import signal, sys, time
from pathlib import Path

def save(number, frame):
    time.sleep(1)
    Path("saved").touch()
    sys.exit(128 + number)

for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, save)
Path("begun").touch()
time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_stops_a_benchmark_lets_its_run_save(tmp_path, number):
    """A second is longer than `subprocess.run` gives a child after Ctrl-C, which a shell sends to both."""
    (tmp_path / "train.py").write_text(SAVES_LATE)
    (tmp_path / "benchmark.py").write_text(
        f"from pathlib import Path\nfrom benchmarks import kept\nkept.ROOT = Path({str(tmp_path)!r})\n"
        "kept.train([], captured=True)\nPath('went on').touch()\n"
    )
    command = [sys.executable, str(tmp_path / "benchmark.py")]
    benchmark = subprocess.Popen(command, cwd=tmp_path, env=environment(), start_new_session=True)
    while not (tmp_path / "begun").exists():
        assert benchmark.poll() is None, "it ended before it was stopped"
        time.sleep(0.05)
    send = os.killpg if number == signal.SIGINT else os.kill
    send(benchmark.pid, number)
    assert benchmark.wait(20) == 128 + number
    assert {path.name for path in tmp_path.iterdir()} == {"train.py", "benchmark.py", "begun", "saved"}


def test_a_run_that_is_stopped_alone_stops_its_benchmark(tmp_path, monkeypatch):
    (tmp_path / "train.py").write_text("import sys\nsys.exit(143)\n")
    monkeypatch.setattr(kept, "ROOT", tmp_path)
    with pytest.raises(SystemExit, match="143"):
        kept.train([], captured=True)
