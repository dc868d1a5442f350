"""What Python code calls: optim.run, optim.sweep, and what they refuse."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys

import pytest
from conftest import CONF, ROOT, Runs
from omegaconf import OmegaConf

import optim
from optim.common import build
from optim.common.errors import UserError
from optim.report.comparison import Comparison
from optim.run import one_point
from optim.run.guarded import guarded
from optim.run.result import Result
from optim.sweep import here, multirun


@pytest.fixture
def in_process(monkeypatch):
    """Points of a sweep in this process: one of their own takes ten seconds to start."""
    ran = []

    def run_apart(job) -> bool:
        ran.append(job)
        return guarded(lambda: one_point.run(job)) == 0

    monkeypatch.setattr(multirun, "run_apart", run_apart)
    return ran


def test_run_and_sweep_are_packages_that_can_be_called():
    assert importlib.import_module("optim.run.config").register
    assert optim.run is importlib.import_module("optim.run")
    assert callable(optim.run)
    assert callable(optim.sweep)


def test_run_returns_the_result_and_sweep_a_table_of_many(runs: Runs, in_process, capsys):
    result = optim.run(*runs.overrides("quant=int8", "seed=51"))
    assert isinstance(result, Result)
    assert result.status == "done"
    assert (runs.results / result.run_id / "result.json").is_file()
    assert f"{result.quality['accuracy_fraction']:.4f} of 150" in capsys.readouterr().out
    swept = optim.sweep(*runs.overrides("quant=int8,fp16", "seed=51"))
    assert isinstance(swept, Comparison)
    assert [job.choices["quant"] for job in in_process] == ["fp16"], "the other one was done"
    table = swept.frame()
    assert set(table["run_id"]) == {p.result.run_id for p in swept.every_point}
    assert table.set_index("run_id").loc[result.run_id, "accuracy_fraction"] == result.quality["accuracy_fraction"]
    assert set(table["choice.quant"]) == {"int8", "fp16"}
    assert optim.Classifier(runs.results / result.run_id)("a wonderful film")["label"] == "positive"


def test_a_point_that_fails_is_in_the_comparison(runs: Runs, in_process, monkeypatch):
    def fail(job) -> bool:
        return guarded(lambda: one_point.run(job)) == 0 if job.choices["quant"] == "int8" else False

    monkeypatch.setattr(multirun, "run_apart", fail)
    swept = optim.sweep(*runs.overrides("quant=int8,int4_emb4", "seed=51"))
    assert (len(swept.every_point), len(swept.missing)) == (1, 1)
    assert "quant=int4_emb4" in swept.missing[0]


def test_mistakes_are_user_errors_with_the_fix(runs: Runs):
    with pytest.raises(UserError, match=r"epochs is no key here\. The nearest: fit\.teacher\.epochs, fit\.student"):
        optim.run("epochs=3")
    with pytest.raises(UserError, match=r"train has no key 'epochs'; .* The nearest: fit.teacher.epochs"):
        optim.run(*runs.overrides(), "+epochs=3")
    with pytest.raises(UserError, match="an interval has endless points"):
        optim.sweep("distill.temperature=interval(1,4)")
    with pytest.raises(UserError, match=r"sweep=pick is for sweep\.py"):
        optim.sweep("sweep=pick")
    with pytest.raises(UserError, match="sweep has no option 'papre'"):
        optim.sweep("sweep=papre")


def test_a_named_sweep_is_its_points(runs: Runs):
    batch = here._batch(["sweep=paper", "model=tiny", "quant=none,int8"])
    assert len(batch) == 5 * 3 * 2
    assert batch[0] == ["prune=none", "distill.temperature=1", "quant=none", "model=tiny"]
    recipes = OmegaConf.load(CONF / "sweep" / "frontier.yaml").recipes
    assert len(here._batch(["sweep=frontier", "model=tiny"])) == len(recipes)


def test_a_dry_run_makes_no_point(monkeypatch):
    monkeypatch.setattr(one_point, "run", lambda job, **more: pytest.fail("it was run"))
    with pytest.raises(UserError, match="dry_run=true is for"):
        optim.run("model=tiny", "data=reviews", "track=none", "sweep.dry_run=true")


@pytest.mark.parametrize(("value", "told"), [("${oc.env:NO_SUCH}", "NO_SUCH"), ("???", "train_path")])
def test_a_value_that_cannot_be_found_is_a_user_error(value, told):
    with pytest.raises(UserError, match=told):
        optim.run("model=tiny", "data=csv", "track=none", f"data.train_path={value}")


def test_a_named_sweep_takes_its_keys():
    assert len(here._batch(["sweep=frontier", "model=tiny"])) * 2 == len(
        here._batch(["sweep=frontier", "sweep.seeds=[0,1]", "model=tiny"])
    )
    with pytest.raises(UserError, match="seeds"):
        here._batch(["sweep=frontier", "sweep.seeds=[0,0]"])


def test_a_named_sweep_takes_what_sweep_py_takes():
    given = ["sweep=frontier", "model=tiny"]
    whole = len(here._batch(given))
    assert len(here._batch([*given, "~sweep.recipes.half"])) == whole - 1
    added = here._batch([*given, "+sweep.recipes.mine=['quant=int8','prune=nm24']"])
    assert ["quant=int8", "prune=nm24", "model=tiny", "seed=0"] in added
    assert here._batch([*given, "sweep.dry_run=true"])[0][-2:] == ["sweep.dry_run=true", "seed=0"]


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("sweep.seed=[0]", r"sweep\.seed is no key here\. The nearest: sweep\.seeds"),
        ("sweep.seeds=0,1", r"sweep\.seeds=0,1 gives several values.*A list: KEY=\[a,b\]"),
    ],
)
def test_a_wrong_key_of_a_named_sweep_is_told(word, told):
    with pytest.raises(UserError, match=told):
        optim.sweep("sweep=frontier", "model=tiny", word)


def test_ids_of_a_frame_are_text(monkeypatch):
    """That of a machine is 8 hexadecimal digits: these would be a number without end."""
    monkeypatch.setattr(here, "to_csv", lambda shown: "run_id,machine,seed\n0123456789012345,1234e567,0\n")
    row = here.Swept.frame(None).iloc[0]  # type: ignore[arg-type]
    assert (row["run_id"], row["machine"], row["seed"]) == ("0123456789012345", "1234e567", 0)


def test_methods_of_a_user_s_package_are_known_in_the_process_of_a_point(tmp_path, monkeypatch):
    """The process is told which modules registered them, and where they are; those of this program it knows."""
    (tmp_path / "my_methods.py").write_text(
        "from optim.common.build import method\n@method('prune', 'mine')\ndef mine(*, share: float): return share\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("my_methods")
    try:
        told = build.own_methods()
        assert told["modules"] == ["my_methods"]
        child = "import json, sys; from optim.common import build; build.register_again(json.loads(sys.argv[1])); "
        child += "print(build.build({'method': 'mine', 'share': 0.5}, 'prune'))"
        done = subprocess.run([sys.executable, "-c", child, json.dumps(told)], cwd=ROOT, capture_output=True, text=True)
        assert done.stdout == "0.5\n", done.stderr
    finally:
        del build._registered["prune"]["mine"]
    assert build.own_methods() == {"modules": [], "path": []}
