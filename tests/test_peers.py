"""The comparison with other runtimes: what it writes for them, what a contender answers, what a ratio is."""

# pyright: reportAttributeAccessIssue=false
from __future__ import annotations

import json
import subprocess
import sys
from io import StringIO
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import BENCHMARKS, write_glue
from small_fit import SHAPE, filled, random_weights
from test_predict import TABLE, WORDS, write_tokenizer
from tiny_tflite import write_table_file

from optim.data.tokens import pad, tokenize
from optim.encoder import checkpoint, graph, store
from optim.export.bundle import write_labels
from optim.run.compose import composed
from optim.run.point import point_of
from optim.train.fit import Fit


@pytest.fixture
def peers(script):
    """The modules of that folder by name."""
    return script


@pytest.fixture
def bench(peers):
    return peers("bench")


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
        [sys.executable, str(BENCHMARKS / "peers" / "contender.py"), "litert", *files, "1"],
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


def test_a_fit_makes_the_steps_that_it_is_asked_for_on_the_batches_that_others_get(peers, tmp_path, monkeypatch):
    """This project's own loop on a tiny model: it stands still after 2 and 3 steps, and ends when nobody asks."""
    learner = peers("learner")
    words = ["model=tiny", "data=sst2", f"data.path={write_glue(tmp_path / 'glue')}", "track=none",
             "quant=none", "distill=kd", "prune=fixed50", "fit.precision=float32"]  # fmt: skip
    point = point_of(composed(words).cfg)
    checkpoint = point.checkpoint.fetch(tmp_path)
    train = point.source.load(tmp_path).train
    tokenize(train, tokenizer_path=checkpoint / "tokenizer.json", max_length=32).save(tmp_path / "tokens.npz")
    seen: list[np.ndarray] = []
    step = Fit._step

    def watched(self, index, number):
        seen.append(pad(self.task.tokens, index)[0])
        return step(self, index, number)

    monkeypatch.setattr(Fit, "_step", watched)
    told = StringIO()
    with pytest.raises(learner.Ended):
        learner.ours(
            learner.Turns(StringIO('{"steps": 2}\n{"steps": 3}\n'), told), words=words, checkpoint=str(checkpoint),
            tokens=str(tmp_path / "tokens.npz"), scratch=str(tmp_path), batches=str(tmp_path / "batches.npz"), count=5,
        )  # fmt: skip
    ready, two, three = map(json.loads, told.getvalue().splitlines())
    assert ready == {"ready": True, "total": 2 * 8}, "two epochs of 480 of the 600 sentences, 64 at once"
    assert min(two["seconds"], three["seconds"], two["busy"]) > 0
    assert three["loss"] > 0
    assert len(seen) == 5
    with np.load(tmp_path / "batches.npz") as saved:
        assert len(saved.files) == 3 * 5
        for i, ids in enumerate(seen):
            np.testing.assert_array_equal(saved[f"ids{i}"], ids)
            assert saved[f"mask{i}"].sum() == np.count_nonzero(ids)


def test_speeds_and_times_are_compared_the_right_way_round(peers):
    training = peers("training")
    seconds = {"ours float32": [10.0, 20.0], "Trainer float32": [15.0, 20.0], f"ours {training.FAST}": [8.0, 8.0],
               "ours, quant=int8_qat": [12.0, 10.0]}  # fmt: skip
    named = {name: SimpleNamespace(name=name, seconds=one) for name, one in seconds.items()}
    if training.FAST == "float32":
        named["ours float32"].seconds = [8.0, 8.0]
    faster, rounded = training.asked(named)
    if training.FAST == "bfloat16":
        assert faster.endswith("| >= 1.00, aim 1.30 | 1.25 (1.00 to 1.50) |"), "above 1 where ours is faster"
    assert rounded.endswith("| <= 1.30 | 1.38 (1.25 to 1.50) |"), "above 1 where rounding costs time"
    one = SimpleNamespace(
        name="ours", seconds=[10.0, 20.0, 40.0], busy=[20.0, 40.0, 60.0], loss=0.5, peak_bytes=2 * 10**9
    )
    assert training.line_of(one, steps=100) == "| ours | 5.00 (2.50 to 10.00) | 0.40 | 0.500 | 2.00 |"


def test_a_fit_that_is_weighed_has_the_longest_sentences(peers):
    training = peers("training")
    lengths = np.arange(100)
    rows = training.heavy_rows(lengths, 10)
    assert len(set(rows.tolist())) == 20
    assert set(range(90, 100)) <= set(lengths[rows].tolist())
    assert lengths[rows].min() == 0


def test_a_round_without_steps_is_refused(peers, monkeypatch, capsys):
    """A learner that is asked for no step never answers."""
    training = peers("training")
    monkeypatch.setattr("sys.argv", ["training.py", "--data", ".", "--warm", "0"])
    with pytest.raises(SystemExit):
        training.main()
    assert "must be 1 or above" in capsys.readouterr().err
