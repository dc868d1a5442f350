"""quant=int8_auto on the tiny model: the choice follows figures of this machine, and of held-out sentences."""

# pyright: reportAttributeAccessIssue=false, reportOptionalMemberAccess=false
from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import CONF, ROOT, Runs
from hydra import compose, initialize_config_dir
from made_results import points
from omegaconf import OmegaConf
from small_fit import new_model, tokens_of
from whole_points import made, point

from optim.common.errors import UserError
from optim.data.tokens import Tokens
from optim.export.choice import Choice
from optim.export.quantize import Student
from optim.measure import candidates
from optim.measure.latency import Bench
from optim.run import exports, places
from optim.run.card import table
from optim.run.keys import run_id_of
from optim.run.point import option_node
from optim.run.result import read
from optim.run.steps import Steps, steps_of

NAMES = ("int8", "int8_static", "int8_part", "int8_emb4")
AUTO = ("prune=fixed50", "quant=int8_auto")


@pytest.fixture
def clock(monkeypatch):
    """Milliseconds that files are said to take, by name; others take 9."""
    told: dict[str, float] = {}

    def latency(files: Mapping[str, Path], **how):
        return {name: {"latency_p50_ms": told.get(name, 9.0)} for name in files}

    monkeypatch.setattr(candidates, "latency", latency)
    return told


def steps(runs: Runs, *words: str) -> Steps:
    chosen = point(runs, *words)
    return steps_of(chosen, chosen.source.load(runs.cache), runs.cache)


def keys(runs: Runs, *words: str) -> dict[str, str]:
    """Key of each stage -> its kind."""
    return {step.wanted.key: step.kind for step in steps(runs, *words).all()}


def test_the_fastest_of_the_accurate_ones_is_the_file_and_the_result_says_so(runs, clock):
    import jsonschema

    clock["int8_emb4"] = 3.0
    result = runs.here(*AUTO, "fit.precision=float32", "quant.max_drop_points=5")
    rows = {row["name"]: row for row in result["size"]["candidates"]}
    assert tuple(rows) == NAMES
    assert [name for name in NAMES if rows[name]["taken"]] == ["int8_emb4"]
    assert [rows[name]["latency_p50_ms"] for name in NAMES] == [9, 9, 9, 3]
    assert {row["examples"] for row in rows.values()} == {108}, "the held-out slice: a fifth of train's sentences"
    assert all(row["accuracy_fraction"] > 0.9 and row["agreement_fraction"] > 0.9 for row in rows.values())
    assert rows["int8_emb4"]["file_bytes"] == result["size"]["file_bytes"] < rows["int8"]["file_bytes"]
    folder = runs.results / result["run_id"]
    file = steps(runs, *AUTO, "quant.max_drop_points=5").file
    own = runs.cache / "stages" / file.candidates.files["int8_emb4"].wanted.key / "model.tflite"
    assert (folder / "bundle" / "model.tflite").read_bytes() == own.read_bytes()
    assert points(runs.results)[result["run_id"]].file == file.wanted.key, "in a comparison it is no candidate's point"
    jsonschema.validate(result, json.loads((ROOT / "docs" / "result.schema.json").read_text(encoding="utf-8")))
    finished, log = read(folder), (folder / "train.log").read_text(encoding="utf-8")
    assert finished is not None
    shown = table(finished, folder)
    assert re.search("this file is +int8_emb4   3.00 ms, [01][.]", shown)
    assert shown.count("tried too") == 3
    assert "int8_emb4 is taken: 3.00 ms" in log
    assert all(f"try       {name}: " in log for name in NAMES)
    assert "| this file is | int8_emb4 | 3.00 ms" in (folder / "bundle" / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_what_drops_accuracy_is_not_taken_however_fast_it_is(runs, clock, monkeypatch):
    honest, count = candidates.dev_logits, itertools.count()

    def broken(*args, **more):
        """The second file, that of int8_static, answers the other way round."""
        return honest(*args, **more) * (-1 if next(count) == 1 else 1)

    monkeypatch.setattr(candidates, "dev_logits", broken)
    clock.update(int8_static=1.0, int8=8.0)
    rows = made(runs, point(runs, *AUTO, "bench.min_calls=6"))[2].size["candidates"]
    assert rows[1]["accuracy_fraction"] < 0.1
    assert rows[1]["agreement_fraction"] < 0.1
    assert [row["name"] for row in rows if row["taken"]] == ["int8"]


def test_candidates_are_scored_on_what_no_weight_has_learnt_from(runs, clock, monkeypatch):
    seen = []
    honest = candidates.dev_logits

    def spy(file, held, progress):
        seen.append(held)
        return honest(file, held, progress=progress)

    monkeypatch.setattr(candidates, "dev_logits", spy)
    whole, stages, _ = made(runs, point(runs, *AUTO, "bench.min_calls=7"))
    tokens = whole.student.tokens
    train, held = tokens.read(stages, "train"), whole.student.rows(tokens.parts(stages))["held_out"]
    expected = sorted(train.sentence(int(i)).tolist() for i in held)
    assert len(seen) == 4
    for one in seen:
        assert sorted(one.sentence(i).tolist() for i in range(len(one))) == expected


@pytest.mark.slow
def test_an_honest_clock_times_every_candidate(runs):
    _, stages, outcome = made(runs, point(runs, *AUTO, "quant.candidates=[int8,fp16]"))
    rows = outcome.size["candidates"]
    assert [row["name"] for row in rows] == ["int8", "fp16"]
    assert all(0 < row["latency_p50_ms"] < 1000 for row in rows)
    assert sum(key.startswith("candidates-") for key in stages.made) == 1
    assert outcome.cost["export_s"] >= sum(done.seconds for key, done in stages.made.items() if "candidates" in key)


def test_the_student_and_the_files_are_those_of_the_candidates(runs):
    """As a sweep over quant=int8,int8_auto has them."""
    auto = keys(runs, *AUTO)
    for name in NAMES:
        alone = keys(runs, "prune=fixed50", f"quant={name}")
        assert [alone[key] for key in alone.keys() - auto.keys()] == ["figures"]


def test_a_candidate_counts_by_what_it_is(runs, tmp_path, monkeypatch):
    """An option of one's own, whose YAML may change under its name."""
    (tmp_path / "quant").mkdir()
    monkeypatch.setattr(places, "_added", [tmp_path])
    found, more = [], "max_disagreement: 1\nproducts: all\nseed: ${seed}\nsource: train\n"
    for samples in (8, 16):
        mine = f"method: static_int8\nsamples: {samples}\n{more}"
        (tmp_path / "quant" / "mine.yaml").write_text(mine, encoding="utf-8")
        words = (*AUTO, "quant.candidates=[int8,mine]")
        found.append((run_id_of(point(runs, *words)), keys(runs, *words)))
    (one, first), (two, second) = found
    assert one != two
    assert sorted(second[key] for key in second.keys() - first.keys()) == ["candidates", "figures", "file", "file"]


def test_an_option_with_defaults_is_what_hydra_makes_of_it(tmp_path, monkeypatch):
    """Also as a candidate, or a teacher, which Hydra does not compose."""
    mine = {"quant": "defaults: [int8_static, _self_]\nsamples: 8\n", "model": "defaults: [tiny]\nseed: 7\n"}
    for group, text in mine.items():
        (tmp_path / group).mkdir()
        (tmp_path / group / "mine.yaml").write_text(text, encoding="utf-8")
    monkeypatch.setattr(places, "_added", [tmp_path])
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", overrides=[f"hydra.searchpath=[file://{tmp_path}]", "quant=mine", "model=mine"])
    for group in ("quant", "model"):
        merged = OmegaConf.create({"seed": cfg.seed, group: option_node(group, "mine")})
        assert OmegaConf.to_container(merged[group], resolve=True) == OmegaConf.to_container(cfg[group], resolve=True)
    assert option_node("quant", "mine").samples == 8
    (tmp_path / "quant" / "other.yaml").write_text("defaults: [{/fit: quick}]\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"other\.yaml: its defaults may name options of quant and _self_ here, got"):
        option_node("quant", "other")


@pytest.mark.slow
def test_cut_and_taught_students_have_candidates_too(runs, clock):
    clock["int8"] = 1.0
    words = ("slim=slim50", "vocab=seen", "distill=kd", "quant=int8_auto", "quant.candidates=[int8,int8_emb4]")
    outcome = made(runs, point(runs, *words, "quant.max_drop_points=20"))[2]
    assert [row["name"] for row in outcome.size["candidates"] if row["taken"]] == ["int8"]
    assert np.isclose(outcome.size["structure"]["heads"][0], 1)


def test_what_a_candidate_loses_is_in_points_below_the_model_by_hand(tmp_path, monkeypatch):
    """Of four the model has three right and the file two; they differ on one."""
    (tmp_path / "a.tflite").write_bytes(b"1234")
    keras, file = (np.eye(2, dtype=np.float32)[answers] for answers in ([0, 0, 1, 1], [0, 1, 1, 1]))
    monkeypatch.setattr(candidates, "Classifier", lambda path, threads: None)
    monkeypatch.setattr(candidates, "dev_logits", lambda classifier, held, progress: file)
    held = Tokens(np.arange(4), np.arange(5), np.array([0, 0, 1, 0]))
    assert candidates._scored(tmp_path / "a.tflite", held, keras) == {
        "examples": 4, "accuracy_fraction": 0.5, "drop_points": 25.0, "agreement_fraction": 0.75, "file_bytes": 4,
    }  # fmt: skip


def test_what_was_taken_is_what_the_file_is_though_the_table_was_made_anew(tmp_path):
    """By the later times it would be `b`; the file has the bytes of `a`."""
    paths = {name: tmp_path / name for name in ("a", "b")}
    for name, path in paths.items():
        path.write_text(name)
    (tmp_path / exports.MODEL).write_text("a")
    rows = [{"name": "a", "latency_p50_ms": 4.0, "drop_points": 0.0, "agreement_fraction": 1.0},
            {"name": "b", "latency_p50_ms": 2.0, "drop_points": 0.0, "agreement_fraction": 1.0}]  # fmt: skip
    choice = Choice(candidates=("a", "b"), max_drop_points=0.5, tie=0.05)
    tried: Any = SimpleNamespace(paths=lambda stages: paths, read=lambda stages: rows)
    step: Any = SimpleNamespace(point=SimpleNamespace(quantizer=SimpleNamespace(choice=choice)), candidates=tried)
    stages: Any = SimpleNamespace(folder=lambda step: tmp_path)
    assert [row["taken"] for row in exports.FileStep.tried(step, stages)] == [True, False]
    (tmp_path / exports.MODEL).write_text("of a method that makes another file")
    assert [row["taken"] for row in exports.FileStep.tried(step, stages)] == [False, True]


def test_candidates_are_timed_at_the_length_of_the_bench(tmp_path, monkeypatch):
    seen = []

    def latency(files, **how):
        seen.append(how["length"])
        return {name: {"latency_p50_ms": 1.0} for name in files}

    monkeypatch.setattr(candidates, "latency", latency)
    monkeypatch.setattr(candidates, "_scored", lambda *given: {})
    student = Student(load=new_model, load_batch=new_model, float32_path=tmp_path, train=tokens_of(20),
                      rows={"held_out": np.arange(8)})  # fmt: skip
    bench = Bench(sequence_length=16, threads=1, warmup_calls=1, min_calls=5, min_seconds=0.01)
    candidates.candidates_table(student, {"a": tmp_path}, bench=bench)
    assert seen == [16]
