"""Sweeps of named recipes and ablations: which points they are, and what an ingredient is said to be worth."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import CONF, ROOT, Runs
from hydra import compose, initialize_config_dir
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from optim.common.build import build
from optim.common.errors import UserError
from optim.run.keys import run_id_of
from optim.run.point import point_of
from optim.sweep import points
from optim.sweep.points import merged


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(tmp_path_factory.mktemp("points"))


def swept(runs: Runs, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "sweep.py", *words, *runs.overrides()]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500)


def test_a_later_word_wins_and_an_option_takes_the_keys_of_its_group_along():
    words = ["slim=slim50", "slim.width=24", "distill=kd", "distill.temperature=4", "seed=0", "slim=none", "seed=1"]
    assert merged(words) == ["distill=kd", "distill.temperature=4", "slim=none", "seed=1"]
    assert merged(["slim=none", "slim.width=24"]) == ["slim=none", "slim.width=24"]
    assert merged(["slimmer.width=1", "slim=none"]) == ["slimmer.width=1", "slim=none"]


@given(st.lists(st.sampled_from(["a=1", "a=2", "a.b=1", "a.b=2", "ab=1", "c=1"])))
def test_of_each_key_the_last_word_is_kept(words):
    kept = merged(words)
    keys = [word.split("=")[0] for word in kept]
    assert len(set(keys)) == len(keys)
    assert not words or kept[-1] == words[-1]
    assert merged(kept) == kept


@pytest.mark.slow
def test_an_ablation_takes_out_what_the_recipe_has_and_says_what_it_is_worth(runs):
    words = ("sweep=ablation", "sweep.seeds=[0,1]", "slim=ffn50", "quant=int8", "distill=none")
    done = swept(runs, *words)
    assert done.returncode == 0, done.stderr
    table = done.stdout[done.stdout.index("without ") :]
    assert re.findall(r"^(\w+) +\d\.\d{4}", table, re.MULTILINE) == ["nothing", "slim", "quant"]
    results = [json.loads(path.read_text()) for path in runs.results.glob("*/result.json")]
    assert len(results) == 6, "two seeds of the recipe, of it without slim, and of it without int8"
    assert {(r["choices"]["slim"], r["choices"]["quant"]) for r in results} == {
        ("ffn50", "int8"), ("none", "int8"), ("ffn50", "none"),
    }  # fmt: skip
    mean = np.mean([r["quality"]["accuracy_fraction"] for r in results
                    if (r["choices"]["slim"], r["choices"]["quant"]) == ("none", "int8")])  # fmt: skip
    assert f"slim{mean:22.4f}" in table
    (report,) = runs.results.glob("sweeps/*/report.md")
    assert f"Ablation, without slim: {mean:.4f}, " in report.read_text()
    assert "Seeds 0, 1; the intervals are over sentences and fits." in report.read_text()


def test_recipes_are_one_sweep_and_the_command_line_wins(tmp_path):
    runs = Runs(tmp_path)
    words = ("sweep=frontier", "sweep.seeds=[0,1]", "sweep.dry_run=true")
    done = swept(runs, *words, "slim=none", "vocab=full", "prune=none", "distill=none")
    assert done.returncode == 0, done.stderr
    count = len(OmegaConf.load(CONF / "sweep" / "frontier.yaml").recipes)
    assert f"{2 * count} points: 0 done, 12 to run" in done.stdout, "what is left of them is six precisions"
    assert not list(runs.results.glob("*/result.json"))


def test_the_frontier_has_the_rows_of_readme_each_of_its_model(runs):
    """The command of its file names no model: each recipe does."""
    recipes = build(OmegaConf.load(CONF / "sweep" / "frontier.yaml"), "sweep")
    rows = re.findall(r"^\|.*`(model=[^`]+)`", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert len(rows) == 6
    assert {tuple(row.split()) for row in rows} <= {tuple(words) for words in recipes.recipes.values()}
    batch = recipes.batch(["distill.teacher=mpnet", *runs.overrides()[1:4]])
    with initialize_config_dir(str(CONF), version_base="1.3"):
        made = [point_of(compose("train", overrides=words)) for words in batch]
    assert len({run_id_of(point) for point in made}) == len(recipes.recipes)
    assert {(point.checkpoint.name, point.self_taught) for point in made} == {("minilm", False), ("mpnet", True)}


def test_an_ablation_takes_a_recipe_under_a_name_apart(tmp_path):
    """What an experiment sets of `distill` goes with it; what cannot go is named, and how to leave it out."""
    words = ("sweep=ablation", "sweep.seeds=[0]", "sweep.dry_run=true", "distill.teacher=tiny", "slim=ffn50")
    done = swept(Runs(tmp_path), "experiment=frontier", *words)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^[67] points: 0 done", done.stdout, re.MULTILINE), done.stdout
    refused = swept(Runs(tmp_path), "experiment=paper", *words)
    assert (refused.returncode, "'~sweep.without.distill'" in refused.stderr) == (2, True), refused.stderr
    assert swept(Runs(tmp_path), "experiment=paper", "~sweep.without.distill", *words).returncode == 0


@pytest.mark.parametrize(
    ("node", "said"),
    [
        ({"method": "recipes", "recipes": {}, "seeds": [0]}, "sweep.recipes is empty"),
        ({"method": "recipes", "recipes": {"a": ["quant=int8"]}, "seeds": [0, 0]}, "different seeds"),
        ({"method": "recipes", "recipes": {"a": ["quant=int8"]}, "seeds": []}, "one or more"),
        ({"method": "ablation", "without": {}, "seeds": [0]}, "sweep.without is empty"),
        ({"method": "ablation", "without": {"a": ["quant=none"]}, "seeds": [-1]}, "sweep.seeds must be"),
    ],
)
def test_mistakes_are_told(node, said):
    with pytest.raises(UserError, match=said):
        build(node, "sweep")


def test_a_key_may_stand_before_the_option_that_it_belongs_to():
    recipe = {"method": "recipes", "recipes": {"a": ["slim.width=24", "slim=slim50"]}, "seeds": [0]}
    batch = build(recipe, "sweep").batch(["distill.temperature=4", "distill=hidden"])
    assert batch == [["slim=slim50", "slim.width=24", "distill=hidden", "distill.temperature=4", "seed=0"]]
    whole = build({"method": "ablation", "without": {"a": ["quant=none"]}, "seeds": [0]}, "sweep")
    settings: Any = SimpleNamespace(overrides=["slim.ffn=0.3", "slim=layers6"])
    assert whole._words(settings, [], 1) == ["slim=layers6", "slim.ffn=0.3", "seed=1"]


@pytest.mark.parametrize("fitted", [True, False])
def test_what_a_student_starts_from_keeps_its_held_seed_without_teachers(fitted, monkeypatch):
    monkeypatch.setattr(points, "point_of", lambda cfg: SimpleNamespace(starts_fitted=fitted))
    one = build({"method": "ablation", "without": {"distill": ["distill=none"]}, "seeds": [1]}, "sweep")
    given = ["distill.teacher=mpnet", "distill.teacher_seed=0"]
    settings: Any = SimpleNamespace(overrides=given, composed=lambda words: SimpleNamespace(cfg=words))
    held = ["distill.teacher_seed=0"] if fitted else []
    assert one._words(settings, ["distill=none"], 1) == ["distill=none", *held, "seed=1"]
