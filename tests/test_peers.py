"""The comparison with other runtimes: what it writes for them, what a contender answers, what a ratio is."""

# pyright: reportAttributeAccessIssue=false
from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from small_fit import SHAPE, filled, random_weights
from test_predict import TABLE, WORDS, write_tokenizer
from tiny_tflite import write_table_file

from optim.encoder import checkpoint, graph, store
from optim.export.bundle import write_labels

PEERS = Path(__file__).parents[1] / "benchmarks" / "peers"


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.syspath_prepend(str(PEERS))
    yield import_module("bench")
    for name in ("bench", "sst2"):
        sys.modules.pop(name, None)


def test_the_folder_for_others_holds_the_same_model(bench, tmp_path):
    """Written for transformers, and read back by the reader of any checkpoint."""
    model = filled(SHAPE, random_weights(SHAPE))
    (tmp_path / "stage").mkdir()
    store.save(model, SHAPE, tmp_path / "stage")
    bench.write_hugging_face(tmp_path / "stage", tmp_path)
    again = graph.classifier(SHAPE)
    assert checkpoint.load(again, SHAPE, tmp_path / "model.safetensors") == []
    for one, other in zip(model.weights, again.weights, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy(), err_msg=one.name)
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["hidden_size"], config["num_hidden_layers"], config["intermediate_size"]) == (16, 2, 32)


def test_a_contender_answers_every_command(tmp_path):
    write_table_file(tmp_path / "model.tflite", TABLE)
    write_tokenizer(tmp_path / "tokenizer.json", WORDS)
    write_labels(tmp_path / "labels.json", labels=["negative", "positive"], max_length=5)
    (tmp_path / "texts.json").write_text(json.dumps(["a charming film", "dull", "charming charming"]))
    files = [str(tmp_path / name) for name in ("", "tokenizer.json", "texts.json")]
    commands = [
        {"do": "labels"},
        {"do": "padded", "length": 6, "calls": 3},
        {"do": "texts"},
        {"do": "batch", "size": 2},
    ]
    done = subprocess.run(
        [sys.executable, str(PEERS / "contender.py"), "litert", *files, "1"],
        input="\n".join(map(json.dumps, commands)), capture_output=True, text=True, check=True,
    )  # fmt: skip
    ready, labels, padded, texts, batch = map(json.loads, done.stdout.splitlines())
    assert ready == {"ready": True}
    assert labels == {"labels": [1, 0, 1]}
    assert len(padded["ms"]) == 3
    assert min(padded["ms"]) > 0
    assert 0 < texts["seconds"] < 5
    assert 0 < batch["seconds"] < 5


def test_ratios_are_taken_round_by_round_against_the_fastest(bench):
    times = {"litert int8": [4.0, 6.0, 5.0], "openvino int8": [8.0, 8.0, 20.0], "openvino bfloat16": [5.0, 12.0, 5.0]}
    named = {name: SimpleNamespace(name=name, padded_ms=ms, texts_s=ms, batch_s=ms) for name, ms in times.items()}
    assert (
        bench.fastest(named, ["openvino int8", "openvino bfloat16", "torch"], "padded_ms").name == "openvino bfloat16"
    )
    assert bench.fastest(named, ["torch"], "padded_ms") is None
    own, other = named["litert int8"].padded_ms, named["openvino bfloat16"].padded_ms
    assert bench.ratio(own, other) == (0.8, 0.5, 1.0)
    assert bench.asked(named, {})[2] == (
        "| int8, 128 tokens, to the faster of OpenVINO's | <= 0.80 | 0.80 (0.50 to 1.00) | openvino bfloat16 |"
    )
