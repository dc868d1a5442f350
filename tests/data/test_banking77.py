"""data=banking77: two files of a folder, many classes."""

from __future__ import annotations

import importlib.util
import json
import sys
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import yaml
from conftest import CONF, ROOT, Runs
from made_results import finished_point

from optim.common.errors import UserError
from optim.data.table import folder_source, table_source
from optim.encoder.tiny import tiny_vocabulary
from optim.report import finished
from optim.report.finished import Finished
from optim.report.write import write
from optim.run.card import LABELS_SHOWN

CLASSES, TRAIN_EACH, DEV_EACH = 77, 14, 2
NAMES = sorted([word for word in tiny_vocabulary() if word.isalpha() and len(word) > 1][-CLASSES:])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The layout of BANKING77: as many classes, quoted fields of several lines; one class has a row more."""
    path = tmp_path_factory.mktemp("banking")
    for name, each in (("train", TRAIN_EACH), ("test", DEV_EACH)):
        rows = [f'"{label}, {name} {n},\n{label} {label}",{label}' for n in range(each) for label in NAMES]
        rows += [f"one more,{NAMES[0]}"] if name == "train" else []
        (path / f"{name}.csv").write_text("text,category\n" + "\n".join(rows) + "\n")
    return path


def settings(**changes) -> dict:
    fields = yaml.safe_load((CONF / "data" / "banking77.yaml").read_text())["data"]
    assert set(changes) <= set(fields)
    return {key: value for key, value in (fields | changes).items() if key != "method"}


def test_the_folder_is_what_data_csv_makes_of_its_files(folder, tmp_path):
    source = folder_source(**settings(path=str(folder)))
    corpus = source.load(tmp_path)
    csv = yaml.safe_load((CONF / "data" / "csv.yaml").read_text())
    files = {"train_path": f"{folder}/train.csv", "dev_path": f"{folder}/test.csv", "label_column": "category"}
    twin = table_source(**{key: value for key, value in (csv | files).items() if key != "method"})
    assert (corpus.name, twin.load(tmp_path).name) == ("banking77", "csv")
    assert corpus.digest == twin.load(tmp_path).digest
    assert source.fingerprint() == twin.fingerprint()
    assert corpus.label_names == tuple(NAMES)
    assert corpus.dev.texts[0] == f"{NAMES[0]}, test 0,\n{NAMES[0]} {NAMES[0]}"


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({}, "data=banking77 needs data.path=DIR, a folder with train.csv and test.csv"),
        ({"max_length": 1}, "max_length"),
    ],
)
def test_a_folder_that_is_not_given_is_asked_for(changes, part):
    with pytest.raises(UserError, match=part):
        folder_source(**settings(**changes))


@pytest.fixture(scope="module")
def run(runs: Runs, folder: Path) -> Path:
    """The run folder of a tiny model, all the way."""
    words = ("data=banking77", f"data.path={folder}", "quant=int8", "distill=none", "model.pooling=mean")
    return runs.folder_of(*words, "fit.teacher.epochs=16", "fit.teacher.learning_rate=5e-3")


@pytest.mark.slow
def test_a_run_with_77_classes_goes_all_the_way(run):
    result = json.loads((run / "result.json").read_text())
    assert result["status"] == "done"
    assert (result["data"]["name"], result["data"]["labels"]) == ("banking77", NAMES)
    assert result["data"]["train_examples"] == CLASSES * TRAIN_EACH + 1
    assert result["quality"]["examples"] == CLASSES * DEV_EACH
    assert result["cfg"]["fit"]["class_weights"] == "balanced"
    assert result["quality"]["accuracy_fraction"] >= 0.9
    assert result["quality"]["macro_f1"] >= 0.9
    assert result["quality"]["agreement_fraction"] >= 1 - result["cfg"]["measure"]["max_disagreement"]
    with np.load(run / "answers.npz") as answers:
        assert answers["labels"].tolist() == list(range(CLASSES)) * DEV_EACH
        assert set(answers["answers"].tolist()) <= set(range(CLASSES))


@pytest.mark.slow
def test_its_bundle_answers_with_a_name_and_its_card_shows_the_first(run):
    from optim.predict import Classifier

    classify = Classifier(run)
    rows = {name: classify(f"{name}, test 0,\n{name} {name}") for name in NAMES[::7]}
    assert all(list(row["scores"]) == NAMES for row in rows.values())
    assert sum(row["label"] == name for name, row in rows.items()) >= 0.8 * len(rows)
    card = (run / "bundle" / "README.md").read_text()
    assert f"77 labels: {', '.join(NAMES[:LABELS_SHOWN])} and 67 more in `labels.json`." in card


@pytest.mark.slow
def test_its_report_has_the_point(run, tmp_path):
    result = json.loads((run / "result.json").read_text())
    write(tmp_path, [run])
    page = (tmp_path / "report.html").read_text()
    assert f"{result['quality']['accuracy_fraction']:.4f}" in page
    assert "banking77" in page


# --- the benchmark


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    """benchmarks/banking77.py."""
    folder = str(ROOT / "benchmarks")
    spec = importlib.util.spec_from_file_location("banking77", f"{folder}/banking77.py")
    assert spec
    assert spec.loader
    sys.path.insert(0, folder)
    try:
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(folder)
    return module


@pytest.mark.slow
def test_the_page_shows_what_is_finished_and_what_is_not(benchmark, run):
    (point,) = finished.read_all([run])[0]
    names, result = list(benchmark.POINTS), point.result
    lines = benchmark.page({name: {0: point} for name in names[:2]}).splitlines()
    rows = [line for line in lines if line.startswith(("| mpnet", "| minilm"))]
    assert [row.split(" | ")[0].removeprefix("| ") for row in rows] == names[:2]
    assert f" | {result.quality['accuracy_fraction']:.4f} (" in rows[0]
    minutes = sum(result.cost["stages"].values()) / 60  # those of both points are the same stages
    assert f"All stages together: {minutes:.1f} minutes." in lines
    assert f"Not run yet: {'; '.join(names[2:])}." in lines
    assert any(result.machine["cpu"] in line for line in lines)


def point(seed: int, wrong: int, machine: str = "m1") -> Finished:
    """A point of 100 questions."""
    right = np.arange(100) >= wrong
    made = finished_point(f"run{seed}", right, right, seed=seed, ms=4 + seed, machine=machine)
    made.result.data.update(dev_examples=100, dev_in_train_examples=3, labels=["bad", "good"])
    made.result.cfg["fit"] = {"teacher": {"epochs": 10}, "student": {"epochs": 5}}
    return made


def test_a_row_has_the_mean_and_each_seed(benchmark):
    page = benchmark.page({"minilm, int8": {1: point(1, 12), 0: point(0, 10)}}, teacher_seed=4)
    assert (
        "| minilm, int8 | 0, 1 | 0.8900 | 0.9000 (0.850-0.950), 0.8800 (0.830-0.930) | 0.8900 | 0.8900 | 1.0000 "
        "| 1.0 | 0.8 | 4.50 at 128 | 2.25x | 0.2 |"
    ) in page
    assert page.count("\n- tiny: a cpu, 2 cores") == 1, "both seeds were fitted and timed alike"
    assert "- taught by mpnet: by that of seed 4.\n" in page
    elsewhere = {"mpnet, float32": {0: point(0, 10)}, "minilm, int8": {0: point(0, 10, "m2")}}
    with pytest.raises(SystemExit, match="timed on several machines"):
        benchmark.page(elsewhere)


def test_students_of_every_seed_share_one_mpnet(benchmark):
    words = partial(benchmark.words_of, [], teacher_seed=0, quick=False)
    assert words("minilm taught by mpnet, int8", 2)[-2:] == ["distill.teacher_seed=0", "seed=2"]
    own = [name for name in benchmark.POINTS if "taught" not in name]
    assert not any("teacher_seed" in word for name in own for word in words(name, 2))
    tiny = benchmark.words_of([], "minilm taught by mpnet, int8", 0, teacher_seed=3, quick=True)
    assert {"model=tiny", "distill.teacher=tiny", "distill.teacher_seed=3"} <= set(tiny)


def test_points_are_students_of_both_teachers(benchmark):
    taught = [words for words in benchmark.POINTS.values() if "distill.teacher=mpnet" in words]
    assert [("model=minilm" in words, words[-1]) for words in taught] == [(True, "quant=int8")] * 3
    assert [words[-2] for words in taught] == ["prune=none", "prune=fixed50", "prune=none"]


def test_a_quick_call_may_not_write_over_the_figures(benchmark, folder, capsys):
    with pytest.raises(SystemExit):
        benchmark.main(["--data", str(folder), "--quick"])
    assert "give another file with --page" in capsys.readouterr().err


@pytest.mark.slow
def test_the_quick_way_runs_every_point_and_resumes(benchmark, folder, tmp_path, capsys):
    page = tmp_path / "page.md"
    words = ["--data", str(folder), "--quick", "--page", str(page), "--results", str(tmp_path / "results")]
    benchmark.main([*words, "--cache", str(tmp_path / "cache")])
    first = page.read_text()
    assert first.count("\n| minilm") == 5
    assert "Not run yet" not in first
    assert "The tiny model stands for every other" in first
    made = sorted((tmp_path / "cache" / "stages").iterdir())
    benchmark.main([*words, "--cache", str(tmp_path / "cache")])
    assert page.read_text() == first
    assert sorted((tmp_path / "cache" / "stages").iterdir()) == made
