"""The whole way through the front door: train.py on a tiny model, numbers and counts asserted."""

# ruff: noqa: E501
from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import CONF, DEV_COUNT, ROOT, TRAIN_COUNT, Runs

from optim.run.result import FILE

# Every option of the groups that change a run, each in at least one run below; `test_every_option_is_run` says so.
RUNS = {
    "plain": ("prune=none", "quant=none", "distill=kd", "fit=full", "bench=quick"),
    "fixed50": ("prune=fixed50", "quant=int8", "distill=kd"),
    "fixed80": ("prune=fixed80", "quant=fp16", "distill=kd"),
    "poly50": ("prune=poly50", "quant=none", "distill=none"),
    "poly80": ("prune=poly80", "quant=int8_static", "distill=kd", "track=offline", "bench=cpu1"),
    "nm24": ("prune=nm24", "quant=int8", "distill=kd"),
    "block1x4": ("prune=block1x4", "quant=int8", "distill=none"),
    "global50": ("prune=global50", "quant=int8", "distill=kd"),
    "movement": ("prune=movement", "quant=int8", "distill=kd", "export.compress=zstd"),
    "quick": ("fit=quick", "prune=none", "quant=int8"),
    "long": ("fit=long", "fit.student.steps=60", "prune=none", "quant=none", "distill=kd", "distill.augment.copies=2"),
    "int8_full": ("prune=none", "quant=int8_full"),
    "int16x8": ("prune=none", "quant=int16x8"),
    "int4": ("prune=fixed80", "quant=int4"),
    "int4_emb4": ("prune=fixed80", "quant=int4_emb4"),
    "int8_emb4": ("prune=fixed50", "quant=int8_emb4"),
    "int8_part": ("prune=fixed50", "quant=int8_part"),
    "int8_auto": ("prune=fixed50", "quant=int8_auto"),
    "mixed": ("prune=fixed50", "quant=mixed"),
    "int8_qat": ("prune=fixed50", "quant=int8_qat"),
    "hidden": ("prune=fixed50", "quant=none", "distill=hidden"),
    "minilm": ("prune=fixed50", "quant=none", "distill=minilm"),
}
# What is like enough to one of the others to be left to the slow tests.
LATER = {"poly50", "nm24", "block1x4", "global50", "long", "int8_full", "int16x8", "int4", "int8_emb4", "int8_part",
         "int8_auto", "mixed", "int8_qat", "hidden", "minilm"}  # fmt: skip
NAMES = [pytest.param(name, marks=[pytest.mark.slow] if name in LATER else []) for name in RUNS]
SPARSITY = {"none": 0.0, "nm24": 0.5, "block1x4": 0.5, "movement": 0.5}
FLOAT_QUANTS = ("none", "fp16")


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """A cache of its own, in which stages can be counted."""
    return Runs(tmp_path_factory.mktemp("train"))


class Results(dict):
    """result.json of each of RUNS, made when it is first asked for."""

    def __init__(self, runs: Runs) -> None:
        super().__init__()
        self.runs = runs

    def __missing__(self, name: str) -> dict:
        """Runs it."""
        self[name] = {**self.runs.here(*RUNS[name]), "overrides": RUNS[name]}
        return self[name]


@pytest.fixture(scope="session")
def results(runs: Runs) -> Results:
    """Of the whole session."""
    return Results(runs)


def _sparsity(result: dict) -> float:
    prune = result["choices"]["prune"]
    return SPARSITY[prune] if prune in SPARSITY else int(prune[-2:]) / 100


@pytest.mark.parametrize("name", NAMES)
def test_a_run_scores_every_sentence_and_learns_the_task(results, name):
    result = results[name]
    assert result["status"] == "done"
    assert result["error"] is None
    assert (result["data"]["train_examples"], result["data"]["dev_examples"]) == (TRAIN_COUNT, DEV_COUNT)
    assert result["quality"]["examples"] == DEV_COUNT
    assert result["quality"]["accuracy_fraction"] >= 0.9
    assert result["quality"]["teacher_accuracy_fraction"] >= 0.95
    assert (
        result["quality"]["ci95_low"] < result["quality"]["accuracy_fraction"] <= result["quality"]["ci95_high"] + 1e-9
    )


@pytest.mark.parametrize("name", NAMES)
def test_zeros_are_those_that_the_schedule_promised(results, name):
    assert results[name]["size"]["zeroed_fraction"] == pytest.approx(_sparsity(results[name]), abs=0.001)


@pytest.mark.parametrize("name", NAMES)
def test_the_file_answers_like_its_keras_student(results, name):
    least = 0.999 if results[name]["choices"]["quant"] in FLOAT_QUANTS else 0.92
    assert results[name]["quality"]["agreement_fraction"] >= least


@pytest.mark.parametrize("name", NAMES)
def test_result_has_the_keys_that_readers_count_on(results, name):
    result = results[name]
    keys = "schema run_id status error choices cfg quality size speed memory cost machine seed command"
    assert set(keys.split()) <= set(result)
    assert set(
        [
            "accuracy_fraction",
            "examples",
            "ci95_low",
            "ci95_high",
            "mcc",
            "macro_f1",
            *("classes", "confusion", "kinds"),
            "teacher_accuracy_fraction",
            "agreement_fraction",
        ]
    ) <= set(result["quality"])
    assert set(
        [
            *("file_bytes", "gzip_bytes", "zstd_bytes", "compressed_bytes"),
            *("parameters", "effective_parameters", "zeroed_fraction"),
        ]
    ) <= set(result["size"])
    assert set(
        [
            "latency_p50_ms",
            "latency_p90_ms",
            "latency_p99_ms",
            "calls",
            "threads",
            "sequence_length",
            "float32_latency_p50_ms",
            "speedup_vs_float32",
            "median_length_latency_p50_ms",
            *("dev_mix_latency_p50_ms", "dev_mix_latency_p99_ms", "length_change_p50_ms"),
            *("zeros_accelerated", "zeros_speedup", "decompress_p50_ms"),
        ]
    ) <= set(result["speed"])
    speed, lengths = result["speed"], result["data"]["dev_lengths"]
    assert sum(lengths) == result["quality"]["examples"]
    assert speed["length_change_p50_ms"] < speed["dev_mix_latency_p50_ms"] <= speed["dev_mix_latency_p99_ms"]
    assert (result["size"]["compressed_bytes"] is None) == (name != "movement")
    assert result["memory"]["peak_rss_bytes"] > 1e6
    assert set(["teacher_s", "student_s", "export_s", "measure_s", "cached"]) <= set(result["cost"])
    assert set(["cpu", "isa", "cores", "load_average", "versions"]) <= set(result["machine"])


@pytest.mark.parametrize("name", NAMES)
def test_a_result_says_whether_its_zeros_make_it_faster(results, name):
    """As it was timed, where there are zeros; that this runtime multiplies them like any number is what others found."""
    size, speed = results[name]["size"], results[name]["speed"]
    pruned = results[name]["choices"]["prune"] != "none"
    assert (speed["zeros_accelerated"] is not None) == (speed["zeros_speedup"] is not None) == pruned
    if pruned:
        assert speed["zeros_accelerated"] in (True, False)
        assert 0.2 < speed["zeros_speedup"] < 5
    prunable = 2 * (4 * 32 * 32 + 2 * 32 * 64) + 32 * 32
    gone = size["parameters"] - size["effective_parameters"]
    # Beside the zeros of the kernels at most some biases are 0, of which this model has fewer than 1,000.
    assert 0 <= gone - size["zeroed_fraction"] * prunable < 1000


@pytest.mark.slow
def test_half_of_the_zeros_of_a_kernel_are_half_of_the_prunable_parameters(results):
    gone = {n: results[n]["size"]["parameters"] - results[n]["size"]["effective_parameters"] for n in ("nm24", "quick")}
    assert gone["nm24"] - gone["quick"] == pytest.approx((2 * (4 * 32 * 32 + 2 * 32 * 64) + 32 * 32) / 2, abs=100)


def test_a_pruned_file_is_smaller_once_it_is_compressed(results):
    """The same graph and bytes as the one that was not pruned, but for its zeros."""
    pruned, whole = results["fixed50"]["size"], results["quick"]["size"]
    assert pruned["file_bytes"] == pytest.approx(whole["file_bytes"], abs=200)
    assert pruned["zstd_bytes"] < whole["zstd_bytes"] - 2000
    assert pruned["gzip_bytes"] < whole["gzip_bytes"] - 2000


def test_a_compressed_bundle_has_the_file_once_and_predict_reads_it(results, runs):
    from optim.export.compress import decompress

    result = results["movement"]
    bundle = runs.results / result["run_id"] / "bundle"
    assert not (bundle / "model.tflite").exists()
    packed = bundle / "model.tflite.zst"
    assert packed.stat().st_size == result["size"]["compressed_bytes"] < result["size"]["file_bytes"]
    assert 0 < result["speed"]["decompress_p50_ms"] < 1000
    (file,) = (runs.cache / "stages").glob(
        f"{next(k for k in result['cost']['stages'] if k.startswith('file-'))}/*.tflite"
    )
    assert decompress(packed) == file.read_bytes()
    done = subprocess.run([sys.executable, "-m", "optim.predict", str(bundle), "a wonderful charming film"], cwd=ROOT,
                          capture_output=True, text=True, timeout=60)  # fmt: skip
    assert json.loads(done.stdout)["label"] == "positive", done.stderr
    assert "`model.tflite.zst` in this folder unpacks to" in (bundle / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", NAMES)
def test_the_table_of_a_result_fits_the_screen(results, runs, name):
    from optim.run.card import table
    from optim.run.result import read

    folder = runs.results / results[name]["run_id"]
    found = read(folder)
    assert found is not None
    shown = table(found, folder)
    words = re.compile(f"optim.predict|{FILE}|train.py")
    assert max(len(line) for line in shown.splitlines() if not words.search(line)) <= 100
    assert ("zeros faster?" in shown) == (results[name]["choices"]["prune"] != "none")
    assert ("ships as" in shown) == (name == "movement")


def test_files_shrink_with_their_precision(results):
    float32, fp16, int8, full = (results[n]["size"]["file_bytes"] for n in ("plain", "fixed80", "quick", "poly80"))
    assert float32 / fp16 > 1.3
    assert float32 / int8 > 1.8  # a tiny model's graph weighs as much as its weights
    assert float32 / full > 1.8


def test_parameters_are_those_counted_by_hand(results):
    words, positions, width, ffn, layers, classes = 0, 512, 32, 64, 2, 2
    words = results["plain"]["size"]["parameters"]
    layer = 4 * (width * width + width) + (width * ffn + ffn) + (ffn * width + width) + 4 * width
    rest = positions * width + 2 * width + layers * layer + (width * width + width) + (width * classes + classes)
    vocabulary = (words - rest) / width
    bundle = json.loads(
        Path(results["plain"]["cfg"]["results_dir"], results["plain"]["run_id"], "bundle/tokenizer.json").read_text()
    )
    assert vocabulary == len(bundle["model"]["vocab"])


@pytest.mark.parametrize(
    ("names", "students", "models"),
    [([name for name in RUNS if name not in LATER], 4, 5), pytest.param(list(RUNS), 12, 13, marks=pytest.mark.slow)],
    ids=["at_once", "all"],
)
def test_stages_are_shared_between_the_runs(names, students, models, results, runs):
    """One teacher, its answers once a set of sentences, a student for each pruning and QAT, a float32 file for each model."""
    made = [results[name] for name in names]
    counts = {kind: set() for kind in ("tokens", "teacher", "logits", "student", "float32", "file")}
    for stage in (stage for result in made for stage in result["cost"]["stages"]):
        counts.get(stage.split("-")[0], set()).add(stage)
    sets = 1 + ("long" in names)  # of sentences: `long` learns from copies too
    assert {kind: len(stages) for kind, stages in counts.items()} == {
        "tokens": sets, "teacher": 1, "logits": sets, "student": students, "float32": models,
        "file": len(made) + ("int8_auto" in names),  # a candidate that no other run has: int8_static
    }  # fmt: skip
    assert all((runs.cache / "stages" / stage).is_dir() for stages in counts.values() for stage in stages)


def test_the_teacher_is_the_student_where_nothing_is_to_be_done(results):
    assert results["plain"]["quality"]["accuracy_fraction"] == results["plain"]["quality"]["teacher_accuracy_fraction"]
    assert results["plain"]["cost"]["student_s"] == 0


def test_a_second_call_is_served_without_tensorflow(results, runs):
    """Same command, own process: the same table, no second result, and nothing heavy imported."""
    code = "import sys, train; train.main(); heavy = {'tensorflow', 'datasets', 'wandb', 'transformers'} & set(sys.modules); assert not heavy, heavy"
    done = subprocess.run(
        [sys.executable, "-c", code, *runs.overrides(*RUNS["fixed50"])], cwd=ROOT, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Done before" in done.stderr
    assert f"{results['fixed50']['quality']['accuracy_fraction']:.4f} of {DEV_COUNT}" in done.stdout
    assert (
        max(len(line) for line in done.stdout.splitlines() if not re.search(f"optim.predict|{FILE}|train.py", line))
        <= 100
    )


def test_a_bundle_that_lacks_a_part_is_written_anew(results, runs):
    """It was taken for whole, and the command that a report names for that changed nothing."""
    file = runs.results / results["fixed50"]["run_id"] / "bundle" / "tokenizer.json"
    content = file.read_bytes()
    file.unlink()
    assert "Done before" not in runs.apart(*RUNS["fixed50"]).stderr
    assert file.read_bytes() == content


def test_predict_answers_with_the_bundle(results, runs):
    bundle = runs.results / results["fixed50"]["run_id"] / "bundle"
    command = [
        sys.executable,
        "-m",
        "optim.predict",
        str(bundle),
        "a wonderful charming film",
        "a terrible boring film",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert [json.loads(line)["label"] for line in done.stdout.splitlines()] == ["positive", "negative"]
    card = (bundle / "README.md").read_text(encoding="utf-8")
    assert f"{results['fixed50']['quality']['accuracy_fraction']:.4f} of {DEV_COUNT}" in card


def test_the_offline_wandb_file_holds_the_result(results, runs):
    from wandb_reader import read

    result = results["poly80"]
    files = list(runs.results.glob(f"wandb/offline-run-*-{result['run_id']}/*.wandb"))
    assert len(files) == 1
    run = read(files[0])
    for part in ("quality", "size", "speed", "memory", "cost"):
        assert run.summary[part] == result[part]
    assert run.config["cfg"]["prune"]["sparsity"] == 0.8
    assert run.exit_code == 0
    assert {"teacher/loss", "student/loss"} <= {key for row in run.rows for key in row}
    rates = [row["learning_rate"] for row in run.curve("student") if "loss" in row]
    assert rates[-1] < max(rates) <= run.config["cfg"]["fit"]["student"]["learning_rate"]
    hidden = [row["masked_fraction"] for row in run.curve("student") if "loss" in row]
    assert hidden == sorted(hidden)  # the schedule is a growing one
    assert hidden[-1] == pytest.approx(0.8, abs=0.01)
    assert run.job_type == "student"
    assert "prune=poly80" in run.tags
    (files,) = run.artifacts.values()
    assert "model.tflite" in files


def test_another_architecture_distils_from_its_teacher(runs):
    """A DistilBERT-like student of one layer, taught by the BERT-like tiny."""
    result = runs.here("model.family=distilbert", "model.layers=1", "distill.teacher=tiny", "fit.student.epochs=6")
    assert result["quality"]["accuracy_fraction"] >= 0.9
    assert result["cost"]["student_s"] > 0
    cached = {key.split("-")[0]: found for key, found in result["cost"]["cached"].items()}
    assert cached["teacher"]
    assert not cached["student"]


def test_bfloat16_trains_and_its_file_is_float32(runs):
    result = runs.here("fit.precision=bfloat16", "prune=fixed50")
    assert result["quality"]["agreement_fraction"] >= 0.999
    assert result["quality"]["accuracy_fraction"] >= 0.9
    assert result["size"]["zeroed_fraction"] == pytest.approx(0.5, abs=0.001)


def test_a_file_that_disagrees_fails_the_run(runs, monkeypatch):
    """A converter that loses its weights must not pass: the run fails, says why, and records that."""
    from optim.measure import file

    honest = file.dev_logits
    monkeypatch.setattr(file, "dev_logits", lambda *args, **more: -honest(*args, **more))
    with pytest.raises(SystemExit) as leave:
        runs.here("bench.min_calls=6", "measure.max_disagreement=0.011")  # bench: figures of its own
    assert leave.value.code == 2
    failed = [json.loads(p.read_text()) for p in runs.results.glob(f"*/{FILE}")]
    failed = [r for r in failed if r["cfg"]["measure"]["max_disagreement"] == 0.011]
    assert len(failed) == 1
    assert failed[0]["status"] == "failed"
    assert "measure.max_disagreement" in failed[0]["error"]


def test_a_failed_point_is_run_again(runs, monkeypatch):
    """`failed` is not `done`: the same command computes."""
    from optim.run import exports

    monkeypatch.setattr(exports, "measure_file", lambda *args, **more: 1 / 0)
    with pytest.raises(SystemExit) as leave:
        runs.here("bench.min_calls=7", "measure.max_disagreement=0.012")
    assert leave.value.code == 1
    monkeypatch.undo()
    assert runs.apart("bench.min_calls=7", "measure.max_disagreement=0.012").returncode == 0


def test_a_loss_that_is_no_number_stops_the_run(runs, capfd):
    with pytest.raises(SystemExit) as leave:
        runs.here("fit.teacher.learning_rate=1e30")
    assert leave.value.code == 1
    assert "learning_rate" in capfd.readouterr().err


def test_a_process_that_trains_imports_one_keras():
    """TFMOT wants Keras 2; Keras 3, which TensorFlow would take with it, costs every point two seconds."""
    code = (
        "from optim.encoder.tensorflow import prepare_tensorflow; import sys; prepare_tensorflow();"
        "import tf_keras; print('keras' in sys.modules)"
    )
    env = {key: value for key, value in os.environ.items() if key != "TF_USE_LEGACY_KERAS"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, timeout=100)
    assert done.stdout.strip() == "False", done.stderr


def test_every_option_is_run():
    """A new YAML without a run fails here. Models, data and trackers have tests of their own."""
    run = {item for overrides in RUNS.values() for item in overrides}
    options = {
        f"{g}={p.stem}" for g in ("prune", "quant", "distill", "fit", "bench") for p in (CONF / g).glob("*.yaml")
    }
    assert options <= run


def test_dev_predictions_do_not_depend_on_the_order(results, runs):
    """Each logit belongs to its own sentence, though sentences run sorted by length."""
    from optim.data.tokens import Tokens
    from optim.measure.file import dev_logits
    from optim.measure.runtime import Classifier

    dev = Tokens.load(next((runs.cache / "stages").glob("tokens-*/dev.npz")))
    file = runs.results / results["plain"]["run_id"] / "bundle" / "model.tflite"
    logits = dev_logits(Classifier(file, 1), dev, progress=lambda *_: None)
    shuffled = np.random.default_rng(0).permutation(len(dev))
    again = dev_logits(Classifier(file, 1), dev.take(shuffled), progress=lambda *_: None)
    np.testing.assert_allclose(again, logits[shuffled], atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_errors_by_class_and_length_belong_to_the_answers(results, runs, name):
    """Counted once more from answers.npz: the confusion table, and the sentences that file and teacher differ on."""
    quality, folder = results[name]["quality"], runs.results / results[name]["run_id"]
    answers = np.load(folder / "answers.npz")
    labels, own, teacher = (answers[part] for part in ("labels", "answers", "teacher"))
    expected = [[int(np.sum((labels == i) & (own == j))) for j in range(2)] for i in range(2)]
    assert quality["confusion"] == expected
    assert sum(c["examples"] for c in quality["classes"]) == DEV_COUNT
    assert sum(k["examples"] for k in quality["kinds"] if k["kind"] == "tokens") == DEV_COUNT
    changed = [json.loads(line) for line in (folder / "changed.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [one["row"] for one in changed] == np.flatnonzero(own != teacher).tolist()
    assert all(one["answer"] != one["teacher"] for one in changed)
    card = (folder / "bundle" / "README.md").read_text(encoding="utf-8")
    assert "## By class" in card
    assert "## By length" in card
    text = (folder / "result.json").read_text(encoding="utf-8")
    assert f"[{', '.join(map(str, expected[0]))}]" in text, "a row of the table is one line"
