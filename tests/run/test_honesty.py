"""Figures are those of the file that ships, made the way the settings say: whole points of the tiny model."""

# pyright: reportAttributeAccessIssue=false
from __future__ import annotations

import errno
import json
import subprocess
import sys
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import TRAIN_COUNT, Runs
from whole_points import made, point

from optim.common.errors import UserError
from optim.data.tokens import Tokens
from optim.export import quantize
from optim.export.bundle import LABELS_FILE
from optim.export.convert import convert
from optim.export.quantize import Quantizer, Student
from optim.measure import device, latency
from optim.measure.latency import Bench
from optim.run import one_point
from optim.train.prune import _Untouched


def quantized(runs: Runs, run, name: str):
    """The outcome of a point whose file `run` writes."""
    plain = point(runs)
    quantizer = Quantizer(max_disagreement=1.0, run=run)
    spec = {"method": name, "version": 1}
    return made(runs, replace(plain, quantizer=quantizer, max_disagreement=1.0, specs={**plain.specs, "quant": spec}))


def test_accuracy_is_that_of_the_file_and_not_of_its_keras_model(runs):
    """A converter that turns every answer round: the file is wrong where its model is right."""

    def turned(student: Student) -> bytes:
        model = student.load()
        layer = model.get_layer("classifier")
        layer.set_weights([-w for w in layer.get_weights()])
        return convert(model)

    _, _, outcome = quantized(runs, turned, "turned")
    assert outcome.quality["teacher_accuracy_fraction"] >= 0.95
    assert outcome.quality["accuracy_fraction"] <= 0.05
    assert outcome.quality["agreement_fraction"] <= 0.05
    assert np.mean(outcome.answers["answers"] == outcome.answers["labels"]) == outcome.quality["accuracy_fraction"]
    assert np.mean(outcome.answers["teacher"] == outcome.answers["labels"]) >= 0.95


def test_a_quantizer_sees_training_sentences_and_never_those_of_dev(runs):
    seen: list[Tokens] = []

    def spy(student: Student) -> bytes:
        seen.append(student.train)
        return student.float32_path.read_bytes()

    steps, stages, _ = quantized(runs, spy, "spy")
    assert [len(tokens) for tokens in seen] == [TRAIN_COUNT]
    np.testing.assert_array_equal(seen[0].ids, steps.student.tokens.read(stages, "train").ids)


@pytest.mark.parametrize("samples", [3, 7])
def test_a_calibration_takes_as_many_sentences_as_it_is_told(samples, monkeypatch, tmp_path):
    taken: list[Any] = []
    monkeypatch.setattr(quantize, "_quantized", lambda recipe, rows: taken.append(rows) or b"")
    recipe = type("Recipe", (), {"add_static_config": lambda *args, **more: None})()
    monkeypatch.setattr("litert_quantizer.quantizer.Quantizer", lambda path: recipe)
    train = Tokens(np.arange(20, dtype=np.int32), np.arange(0, 21, 2), np.zeros(10, np.int32))
    student = Student(load=lambda: None, float32_path=tmp_path / "x", train=train)
    for seed in (0, 0, 1):
        calibration = {"samples": samples, "seed": seed, "source": "train"}
        quantize.static_int8(max_disagreement=1.0, products="all", **calibration).run(student)
    rows = [[row["input_ids"].tolist() for row in batch] for batch in taken]
    assert [len(batch) for batch in rows] == [samples] * 3
    assert rows[0] == rows[1] != rows[2], "drawn by the seed"


@dataclass(frozen=True)
class BrokenPromise:
    """A wrapper that finds its promise broken."""

    changes: bool = True
    packages: tuple[str, ...] = ()

    def require(self, kernels: Any) -> None: ...

    def attach(self, model: Any, *, total_steps: int) -> Any:
        return _Untouched(model)

    def check(self, model: Any) -> None:
        raise RuntimeError("the mask did not hold")


def test_a_fit_is_checked_by_what_wrapped_it(runs):
    plain = point(runs)
    with pytest.raises(RuntimeError, match="did not hold"):
        made(runs, replace(plain, pruner=BrokenPromise(), specs={**plain.specs, "prune": {"method": "broken"}}))


@pytest.mark.slow
def test_two_cold_runs_of_one_seed_are_one_file(tmp_path):
    """Dropout, the head's first weights, batches: everything is drawn by the seed."""
    files = []
    for name in ("one", "two"):
        cold = Runs(tmp_path / name)
        steps, stages, _ = made(cold, point(cold, "prune=fixed50"))
        files.append((stages.folder(steps.file) / "model.tflite").read_bytes())
    assert files[0] == files[1]


@pytest.mark.parametrize("threads", [1, 2])
def test_file_and_reference_are_timed_on_the_threads_of_the_bench(threads, monkeypatch, tmp_path):
    used: list[tuple[str, int]] = []

    class Spy:
        def __init__(self, path, count):
            used.append((path.name, count))

        def logits(self, ids):
            return np.zeros(2)

    monkeypatch.setattr(latency, "Classifier", Spy)
    monkeypatch.setattr(device, "TURN_MS", 0.01)
    for name in ("file", "float32"):
        (tmp_path / name).write_bytes(name.encode())
    bench = Bench(sequence_length=4, threads=threads, warmup_calls=1, min_calls=1, min_seconds=1e-6)
    speed = latency.speed_of(tmp_path / "file", tmp_path / "float32", np.arange(9), counts=[0, 0, 0, 1], bench=bench)
    assert set(used) == {("file", threads), ("float32", threads)}
    assert speed["threads"] == threads


def test_the_bundle_has_the_labels_in_their_order_and_the_length_of_the_data(runs):
    folder = runs.folder_of("data.max_length=48", "data.label_names=[awful,lovely]")
    labels = json.loads((folder / "bundle" / LABELS_FILE).read_text())
    assert labels == {"labels": ["awful", "lovely"], "max_length": 48}
    from optim.predict import Classifier

    classify = Classifier(folder)
    assert [row["label"] for row in classify(("a wonderful film", "a terrible film"))] == ["lovely", "awful"]
    card = (folder / "bundle" / "README.md").read_text(encoding="utf-8")
    assert "No licence is known of the weights that it started from (weights drawn at random" in card
    shown = card.split("```python\n")[1].split("```")[0].replace('folder = "."', f'folder = "{folder / "bundle"}"')
    done = subprocess.run([sys.executable, "-c", shown], capture_output=True, text=True)
    assert done.stdout == "lovely\n", done.stderr


def test_no_large_tensor_of_an_int8_file_is_left_in_float(runs):
    from ai_edge_litert.interpreter import Interpreter

    file = runs.folder_of("quant=int8") / "bundle" / "model.tflite"
    details = Interpreter(model_path=str(file)).get_tensor_details()
    large = {d["name"]: np.dtype(d["dtype"]).name for d in details if np.prod(d["shape"]) >= 300 * 32}
    assert set(large.values()) == {"int8"}, large


def test_a_full_disk_of_results_names_the_setting(tmp_path, monkeypatch):
    """After the measurement, when the answers are written."""
    parts = ("quality", "size", "speed", "memory", "cost", "data", "answers")
    outcome: Any = SimpleNamespace(**{part: {} for part in parts})
    draft: Any = SimpleNamespace(choices={"model": "tiny", "data": "csv"})

    def full(folder, answers) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(one_point, "computed", lambda point, cache_dir, curve: outcome)
    monkeypatch.setattr(one_point.result, "write_answers", full)
    with pytest.raises(
        UserError, match=rf"results_dir {tmp_path}: no space left on the disk.*results_dir=DIR moves it"
    ):
        one_point._compute(draft, draft, tmp_path / "0123", tmp_path, None)
