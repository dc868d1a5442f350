"""benchmarks/sweep.py: what is searched, what counts as killed, and whose figures the page shows."""

# pyright: reportAttributeAccessIssue=false
from __future__ import annotations

import importlib.util
import random
from types import ModuleType, SimpleNamespace

import pytest
from conftest import BENCHMARKS
from made_results import put


@pytest.fixture(scope="module")
def sweeps() -> ModuleType:
    spec = importlib.util.spec_from_file_location("sweep_benchmark", BENCHMARKS / "sweep.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_search_is_answered_from_recorded_points(sweeps, tmp_path):
    """Without pruning the temperature means nothing: 2 points for `none`, 6 for `fixed50`."""
    number = 0
    for prune, temperatures in (("none", (2.0,)), ("fixed50", (1.0, 2.0, 4.0))):
        for quant in ("none", "int8"):
            for temperature in temperatures:
                put(tmp_path, f"r{number}", wrong=range(5 + number), ms=10.0 - number, mb=20.0 + number, prune=prune,
                    quant=quant, temperature=temperature)  # fmt: skip
                number += 1
    found = sweeps.search(SimpleNamespace(recorded=tmp_path), trials=8, seeds=2)
    assert found["points"] == 8
    assert found["tpe"] == found["nsga2"] == found["random"] == [found["best"]] * 2, "8 trials find all 8 points"


def test_a_sweep_that_had_ended_was_not_killed(sweeps):
    """It is a zombie then, which takes SIGKILL without an error."""
    assert sweeps.killed(["-c", "pass"], 1.0, random.Random(0)) is None
    assert sweeps.killed(["-c", "import time; time.sleep(60)"], 0.5, random.Random(0)) == "the sweep, after 0.5 s"


def test_figures_of_two_machines_stand_in_two_tables(sweeps):
    killed = {"whole": 20, "times": 20}
    again = {"second_s": 1.0, "imports_tensorflow": False, "served_s": 28.0, "points": 27}
    page = sweeps.written({"again": {**again, "on": "One"}, "kill": {**killed, "on": "Two"}})
    first, second = page.split("\nTwo.\n")
    assert "\nOne.\n" in first
    assert "| second call at most 5 s, no TensorFlow |" in first
    assert "20 of 20" not in first
    assert "20 of 20" in second
    assert "SWEEP_EARLIER.md" in page


@pytest.mark.parametrize(("words", "told"), [(["serch"], "no such part: serch"), (["search"], "need --recorded"),
                                             (["paper"], "paper needs --data")])  # fmt: skip
def test_what_a_part_needs_is_asked_for(sweeps, words, told, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["sweep.py", *words, "--work", str(tmp_path / "work")])
    with pytest.raises(SystemExit):
        sweeps.main()
    assert told in capsys.readouterr().err
    assert not (tmp_path / "work").exists()
