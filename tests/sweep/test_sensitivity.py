"""sweep=sensitivity on the tiny model, and what its report shows."""

# pyright: reportArgumentType=false
from __future__ import annotations

import json
import re
import shutil
from types import SimpleNamespace

import pytest
from conftest import CONF, Runs
from hydra import compose, initialize_config_dir
from made_results import put
from whole_points import made, point

from optim.common.build import build
from optim.export.quantize import SENSITIVITY
from optim.report import sensitivity
from optim.report.comparison import compared
from optim.report.page import to_html
from optim.run.config import GROUPS, Job
from optim.run.steps import steps_of
from optim.run.tables import TableStep
from optim.sweep.sensitivity import Sensitivity, _title


def settings(runs: Runs, *words: str) -> SimpleNamespace:
    def composed(overrides: list[str]) -> Job:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            cfg = compose("train", overrides=overrides)
        return Job.of(
            cfg,
            {**dict.fromkeys(GROUPS), "model": "tiny", "data": "sst2", "prune": "fixed50", "distill": "kd"},
            overrides,
        )

    overrides = runs.overrides("fit.precision=float32", *words)
    return SimpleNamespace(results_dir=runs.results, overrides=overrides, composed=composed, dry_run=False)


@pytest.fixture(scope="module")
def folder(runs: Runs):
    """The folder that the sweep leaves for a pruned student."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        chosen = compose("sweep", overrides=["sweep=sensitivity"]).sweep
        verb = build({key: value for key, value in chosen.items() if key != "dry_run"}, "sweep")
    assert isinstance(verb, Sensitivity)
    assert verb.run(settings(runs, "prune=fixed50")) == 0
    (found,) = (runs.results / sensitivity.FOLDER).iterdir()
    return found


def test_it_leaves_the_table_of_the_student_that_train_makes(folder, runs):
    steps, stages, outcome = made(runs, point(runs, "prune=fixed50", "quant=mixed"))
    table = TableStep(SENSITIVITY, steps.file.float32)
    assert folder.name == table.wanted.key, "quant=mixed takes the same one"
    assert stages.made[folder.name].cached
    left = json.loads((folder / sensitivity.JSON).read_text())
    assert left["rows"] == table.read(stages)["rows"]
    assert left["examples"] == 108, "a fifth of the whole sentences of train: the held-out slice"
    assert outcome.quality["agreement_fraction"] >= 0.9


@pytest.mark.parametrize("words", [("quant=mixed", "quant.block=64"), ("quant=mixed", "quant.block=null"), ()])
def test_its_blocks_are_those_of_quant(words, runs, capsys):
    """`mixed` of other blocks would be explained by a table that it does not take."""
    planned = settings(runs, "prune=fixed50", *words)
    planned.dry_run = True
    assert Sensitivity().run(planned) == 0
    asked = point(runs, "prune=fixed50", *(words or ("quant=mixed",)))
    (table,) = steps_of(asked, asked.source.load(runs.cache), runs.cache).file.tables.values()
    assert f"The table of {table.wanted.key} is" in capsys.readouterr().out


def test_its_sentence_is_wrapped_as_wide_as_other_output(folder, runs, capsys):
    assert Sensitivity().run(settings(runs, "prune=fixed50")) == 0
    told = capsys.readouterr().out.strip().split("\n\n")[0]
    assert " ".join(told.split()) == sensitivity.headline(json.loads((folder / sensitivity.JSON).read_text()))
    assert len(told.splitlines()) > 1
    assert max(map(len, told.splitlines())) <= 100


def test_its_page_and_its_text_have_every_part(folder):
    table = json.loads((folder / sensitivity.JSON).read_text())
    text, page = ((folder / name).read_text() for name in (sensitivity.TEXT, sensitivity.PAGE))
    for part in {row["part"] for row in table["rows"]}:
        assert f"| {part} |" in text
        assert part in page
    assert "<h1>Sensitivity</h1>" in page
    assert len(re.findall("class=figure", page)) == 2


def test_the_report_of_a_results_folder_has_the_heat_maps(folder, tmp_path):
    shutil.copytree(folder, tmp_path / sensitivity.FOLDER / folder.name)
    put(tmp_path, "p", wrong=range(3), ms=3.0, mb=10.0)
    shown = compared([tmp_path])
    title = "tiny on sst2, prune=fixed50, distill=kd, blocks of 32, seed 0"
    assert [table["title"] for table in shown.sensitivity] == [title]
    assert f"{title}: points of accuracy" in to_html(shown, tmp_path)


def test_a_table_of_one_scale_for_each_output_says_so():
    choices = {"model": "tiny", "data": "sst2", "slim": "none", "vocab": "full", "prune": "none", "distill": "kd"}
    assert _title(choices, None, 0).endswith("distill=kd, a scale for each output, seed 0")


def test_a_cell_says_points_and_their_interval():
    row = {"part": "layer0_key", "change": "weights int4", "accuracy_points": -0.5, "low": -1.25, "high": 0.25,
           "changed_answers": 0.01, "kl_nats": 0.002}  # fmt: skip
    table = {"title": "tiny", "command": "c", "examples": 200, "accuracy_fraction": 0.9, "rows": [row],
             "together_int4": [{"kernels": ["layer0_key"], **row}]}  # fmt: skip
    assert sensitivity.heat_table(table).rows == [["layer0_key", "-0.50 (-1.25 to +0.25)"]]
    assert sensitivity.headline(table) == (
        "tiny: no part surely hurts. The lowest is layer0_key, weights int4: -0.50 (-1.25 to +0.25) points of 90.00 % "
        "on 200 held-out sentences."
    )
    less = {**row, "part": "layer0_value", "accuracy_points": -0.4, "low": -0.7, "high": -0.1}
    assert sensitivity.headline({**table, "rows": [row, less]}) == (
        "tiny: hurt most by layer0_value, weights int4: -0.40 (-0.70 to -0.10) points of 90.00 % on 200 held-out "
        "sentences."
    ), "of those whose interval does not hold 0"
    assert "the sentences are the held-out slice of train." in sensitivity.notes(table)[0]
    points, divergence = sensitivity.heat_maps(table)
    assert points.data[0].z[0][0] == -0.5
    assert divergence.data[0].z[0][0] == pytest.approx(-2.69897)
