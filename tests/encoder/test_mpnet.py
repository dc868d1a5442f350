"""MPNet against Hugging Face's PyTorch model in tests/golden: its relative bias, its positions, its names, its file."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from conftest import Runs
from golden_cases import (
    TOLERANCE,
    answers,
    cases,
    changed_config,
    error,
    layer,
    loaded,
    refusal,
    shape_of,
    swap,
    weights_file,
    without,
)
from safetensors.numpy import load_file, save_file

from optim.encoder import checkpoint, graph, tiny
from optim.encoder.architecture import Architecture
from optim.encoder.layers import RelativeBias, bucket_of

NAME = "mpnet"


@pytest.fixture(scope="module")
def model() -> keras.Model:
    """The golden model; no test changes its weights."""
    return loaded(NAME)


@pytest.fixture
def scratch() -> keras.Model:
    """A model to load anything into."""
    return graph.classifier(shape_of(NAME))


def put(folder, tensors):
    file = folder / "model.safetensors"
    save_file({name: np.ascontiguousarray(value) for name, value in tensors.items()}, file)
    return file


# Parity


def test_a_graph_that_keeps_all_tokens_gives_the_golden_logits():
    assert error(loaded(NAME, whole=True), NAME) <= TOLERANCE


@pytest.mark.parametrize("padding_id", [0, 77])
def test_what_stands_in_the_padding_changes_no_logit(padding_id, model):
    """Hugging Face pads with id 1 and counts positions by it; here the mask alone says what is real."""
    case = cases(NAME)
    assert set(case["input_ids"][case["attention_mask"] == 0]) == {1}
    ids = np.where(case["attention_mask"] == 1, case["input_ids"], padding_id)
    assert np.abs(answers(model, ids, case["attention_mask"]) - case["logits"]).max() <= TOLERANCE


def test_mixed_bfloat16_keeps_float32_logits_near_the_golden_ones():
    assert 1e-5 < error(loaded(NAME, bfloat16=True), NAME) < 0.2


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("layer{i}_query", "layer{i}_key"),
        ("layer{i}_value", "layer{i}_attention_output"),
        ("layer{i}_attention_norm", "layer{i}_ffn_norm"),
    ],
)
def test_parity_sees_two_swapped_names(one, other, scratch, monkeypatch):
    monkeypatch.setitem(checkpoint.TABLES, NAME, swap(checkpoint.TABLES[NAME], one, other))
    checkpoint.load(scratch, shape_of(NAME), weights_file(NAME))
    assert error(scratch, NAME) > 100 * TOLERANCE


@pytest.mark.parametrize("change", ["no bias", "other direction", "positions from 0"])
def test_parity_sees_what_makes_it_an_mpnet(change, scratch, tmp_path):
    tensors = load_file(weights_file(NAME))
    bias, table = "mpnet.encoder.relative_attention_bias.weight", "mpnet.embeddings.position_embeddings.weight"
    altered = {
        "no bias": {bias: np.zeros_like(tensors[bias])},
        "other direction": {bias: np.roll(tensors[bias], 16, axis=0)},
        "positions from 0": {table: np.roll(tensors[table], 2, axis=0)},
    }[change]
    checkpoint.load(scratch, shape_of(NAME), put(tmp_path, {**tensors, **altered}))
    assert error(scratch, NAME) > 100 * TOLERANCE


def test_every_tensor_of_the_checkpoint_reaches_the_logits(scratch, tmp_path):
    """But for the bias of the keys, which soft-max takes out."""
    tensors = load_file(weights_file(NAME))
    unseen = set()
    for name, value in tensors.items():
        changed = value + np.random.default_rng(0).normal(0, 0.5, value.shape).astype(np.float32)
        checkpoint.load(scratch, shape_of(NAME), put(tmp_path, {**tensors, name: changed}))
        if error(scratch, NAME) <= TOLERANCE:
            unseen.add(name)
    assert unseen == {f"mpnet.encoder.layer.{i}.attention.attn.k.bias" for i in range(2)}


# The relative bias


def test_buckets_are_those_of_hugging_face():
    case = cases(NAME)
    assert case["distances"].tolist() == list(range(-300, 301))
    np.testing.assert_array_equal(bucket_of(case["distances"], 32), case["buckets"])


def test_buckets_by_hand():
    """0 to 7 before, 8 to 15 wider ones, 16 more for what follows; bucket 8 + k begins at 8 * (128 / 8)^(k / 8)."""
    distances = np.array([0, -1, -7, -8, -11, -12, -90, -91, -500, 1, 7, 8, 12, 500])
    assert bucket_of(distances, 32).tolist() == [0, 1, 7, 8, 8, 9, 14, 15, 15, 17, 23, 24, 25, 31]


def test_relative_bias_by_hand():
    """Two heads, three tokens; the number of a bucket is its own, and ten times that for the second head."""
    part = RelativeBias(2, 32, 8)
    part(tf.constant([[5]]))  # builds it
    part.table.assign(np.arange(32, dtype=np.float32)[:, None] * [1.0, 10.0])
    found = part(tf.constant([[5, 6, 7]])).numpy()
    first = [[0, 17, 18], [1, 0, 17], [2, 1, 0]]  # of the token in the row to that in the column
    np.testing.assert_array_equal(found, np.array([[first, np.array(first) * 10]], np.float32))


def test_the_bias_learns_from_every_layer(model):
    case = cases(NAME)
    with tf.GradientTape() as tape:
        logits = model({"input_ids": case["input_ids"], "attention_mask": case["attention_mask"]}, training=False)
        loss = tf.reduce_sum(logits[:, 0])
    gradient = tf.convert_to_tensor(tape.gradient(loss, layer(model, "relative_bias").table)).numpy()
    assert gradient.shape == (32, 4)
    used = np.unique(bucket_of(np.arange(-23, 24), 32))
    assert np.flatnonzero(np.abs(gradient).sum(axis=1)).tolist() == used.tolist()


# Reading


def test_config_is_read():
    assert shape_of(NAME) == Architecture(
        family=NAME, vocabulary_size=100, position_count=62, width=32, head_width=8, heads=(4, 4), ffn_widths=(64, 64),
        norm_epsilon=1e-3, hidden_dropout=0.21, attention_dropout=0.22, head_dropout=0.21, pooling="first", classes=3,
        relative_buckets=32,
    )  # fmt: skip
    shape = shape_of(NAME)
    assert Architecture.from_json(json.loads(json.dumps(shape.to_json()))) == shape


def test_head_stays_random_where_the_checkpoint_has_none(scratch, tmp_path):
    """As in the published one, which has another pooler that sentence-transformers never trained."""
    tensors = without("classifier")(load_file(weights_file(NAME)))
    pooler = {"pooler.dense.weight": np.ones((32, 32), np.float32), "pooler.dense.bias": np.ones(32, np.float32)}
    bare = {name.removeprefix("mpnet."): value for name, value in tensors.items()}
    assert checkpoint.load(scratch, shape_of(NAME), put(tmp_path, {**bare, **pooler})) == ["pooler", "classifier"]


@pytest.mark.parametrize("name", ["embeddings.position_embeddings", "encoder.relative_attention_bias"])
def test_missing_tensor_is_named(name, scratch, tmp_path):
    message = refusal(scratch, shape_of(NAME), put(tmp_path, without(name)(load_file(weights_file(NAME)))))
    assert name in message
    assert "mpnet checkpoint" in message


# Its file


@pytest.mark.slow
def test_it_learns_is_pruned_and_its_int8_file_agrees(tmp_path):
    """Through train.py, as a checkpoint folder of its own under the tiny vocabulary."""
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    words = tiny.tiny_vocabulary()
    changed_config(folder, NAME, vocab_size=len(words))
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    rng = np.random.default_rng(0)
    tensors = without("classifier")(load_file(weights_file(NAME)))
    kernels = {n: rng.normal(0, 0.1, v.shape) for n, v in tensors.items() if not n.endswith("LayerNorm.weight")}
    table = {"mpnet.embeddings.word_embeddings.weight": rng.normal(0, 0.3, (len(words), 32))}
    drawn = {name: value.astype(np.float32) for name, value in {**kernels, **table}.items()}
    put(folder, {**tensors, **drawn})
    words_of_run = ("model=bert_base", f"model.path={folder}", "prune=fixed50", "quant=int8", "data.max_length=56")
    result = Runs(tmp_path / "runs").here(*words_of_run, "fit.teacher.epochs=4")
    assert result["quality"]["accuracy_fraction"] >= 0.9
    assert result["quality"]["agreement_fraction"] >= 0.98
    assert result["size"]["zeroed_fraction"] == pytest.approx(0.5, abs=0.001)
    shape = replace(shape_of(NAME), vocabulary_size=len(words), classes=2)
    assert result["size"]["parameters"] == shape.parameters
