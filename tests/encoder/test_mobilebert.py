"""MobileBERT against Hugging Face's PyTorch model in tests/golden, and on its way through train.py."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from conftest import CONF, Runs
from golden_cases import (
    TOLERANCE,
    answers,
    cases,
    changed_config,
    config_refusal,
    error,
    gradients,
    kernel_shapes,
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
from optim.encoder.architecture import Architecture, Bottleneck, read_config
from optim.encoder.layers import Dropout
from optim.measure.runtime import Classifier
from optim.sweep.baselines import read_catalogue
from optim.train.prune import prunable

NAME = "mobilebert"
CONFIG_KEYS = (
    *("vocab_size", "max_position_embeddings", "hidden_size", "num_hidden_layers", "num_attention_heads"),
    *("intermediate_size", "embedding_size", "intra_bottleneck_size", "num_feedforward_networks"),
)


@pytest.fixture(scope="module")
def model() -> keras.Model:
    """The golden model; no test changes its weights."""
    return loaded(NAME)


@pytest.fixture(scope="module")
def single(model) -> keras.Model:
    """The same in the graph of one sentence, which is the one that is exported."""
    one = graph.classifier(shape_of(NAME), single=True)
    one.set_weights(model.get_weights())
    return one


@pytest.fixture
def scratch() -> keras.Model:
    """A model to load anything into."""
    return graph.classifier(shape_of(NAME))


def put(path: Path, tensors: dict[str, np.ndarray]) -> Path:
    """The tensors as a checkpoint file in the folder `path`."""
    file = path / "model.safetensors"
    save_file({name: np.ascontiguousarray(value) for name, value in tensors.items()}, file)
    return file


# Layers that do something else


def without_neighbours(self, inputs):
    return tf.concat([tf.zeros_like(inputs[0]), inputs[0], tf.zeros_like(inputs[0])], axis=2)


def backwards(self, inputs, right=graph.Trigram.call):
    after, own, before = tf.split(right(self, inputs), 3, axis=2)
    return tf.concat([before, own, after], axis=2)


def reading_padding(self, inputs, right=graph.Trigram.call):
    return right(self, [inputs[0], tf.ones_like(inputs[1])])


# Parity


def test_hugging_face_differs_behind_padding_alone():
    """Why `logits` are of each sentence alone: what it says of a shorter one depends on the longest of its batch."""
    case = cases(NAME)
    apart = np.abs(case["padded"] - case["logits"]).max(axis=1)
    padded = case["attention_mask"].sum(axis=1) < case["attention_mask"].shape[1]
    assert padded.tolist() == [True, True, True, False, True, False]
    assert apart[padded].min() > 1e-3
    assert apart[~padded].max() <= TOLERANCE


def test_padding_is_all_that_hugging_face_differs_in(monkeypatch):
    """With a trigram that reads the padding, the batch gets Hugging Face's answers for the batch."""
    monkeypatch.setattr(graph.Trigram, "call", reading_padding)
    case = cases(NAME)
    found = answers(loaded(NAME), case["input_ids"], case["attention_mask"])
    assert np.abs(found - case["padded"]).max() <= TOLERANCE


def test_single_graph_gives_the_golden_logits_with_padding_and_without(single):
    case = cases(NAME)
    for ids, mask, logits in zip(case["input_ids"], case["attention_mask"], case["logits"], strict=True):
        for length in (mask.sum(), len(mask)):
            found = answers(single, ids[None, :length], mask[None, :length])
            assert np.abs(found[0] - logits).max() <= TOLERANCE


@pytest.mark.parametrize("padding_id", [0, 77])
def test_more_padding_changes_no_logit(padding_id, model):
    case = cases(NAME)
    ids, mask = (np.pad(case[name], ((0, 0), (0, 16))) for name in ("input_ids", "attention_mask"))
    wider = answers(model, np.where(mask == 1, ids, padding_id).astype(np.int32), mask)
    assert np.abs(wider - case["logits"]).max() <= TOLERANCE


def test_gradients_of_a_batch_are_the_sum_of_those_of_its_sentences(model, single):
    """Neighbours and positions must not reach from one sentence into another."""
    case, labels = cases(NAME), np.array([0, 1, 2, 0, 1, 2])
    batch = gradients(model, case["input_ids"], case["attention_mask"], labels)
    assert len(batch) == len(load_file(weights_file(NAME))) - 1  # the token types are in the position table
    total = dict.fromkeys(batch, 0.0)
    for i, length in enumerate(case["attention_mask"].sum(axis=1)):
        row = slice(i, i + 1)
        one = gradients(single, case["input_ids"][row, :length], case["attention_mask"][row, :length], labels[row])
        total = {name: total[name] + one[name] for name in batch}
    for name, value in batch.items():
        assert np.abs(value - total[name]).max() <= 1e-4 * max(1.0, np.abs(value).max()), name


def test_trigram_by_hand():
    """Next, own, previous; zeros before the first word and behind the last real one."""
    words = np.array([[[1.0], [2.0], [3.0]], [[4.0], [5.0], [6.0]]], np.float32)
    mask = np.array([[1, 1, 1], [1, 1, 0]], np.int32)
    found = graph.Trigram()([tf.constant(words), tf.constant(mask)]).numpy()
    assert found.tolist() == [[[2, 1, 0], [3, 2, 1], [0, 3, 2]], [[5, 4, 0], [0, 5, 4], [0, 0, 5]]]


def test_clone_with_the_same_weights_gives_the_golden_logits(model):
    clone = keras.models.clone_model(model)  # what TFMOT wraps
    clone.set_weights(model.get_weights())
    assert error(clone, NAME) <= TOLERANCE


# What would go unseen


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("layer{i}_query", "layer{i}_key"),
        ("layer{i}_bottleneck_in", "layer{i}_bottleneck_attention"),
        ("layer{i}_bottleneck_in_norm", "layer{i}_bottleneck_attention_norm"),
        ("layer{i}_ffn{j}_norm", "layer{i}_attention_norm"),
        ("layer{i}_bottleneck_out_norm", "embeddings_norm"),
    ],
)
def test_parity_sees_two_swapped_names(one, other, scratch, monkeypatch):
    table = swap(checkpoint.TABLES[NAME], one, other)
    if "{i}" not in other:  # has no index: layer 0 stands for all
        table = {name: prefix.replace("{i}", "0") if name == other else prefix for name, prefix in table.items()}
    monkeypatch.setitem(checkpoint.TABLES, NAME, table)
    assert checkpoint.load(scratch, shape_of(NAME), weights_file(NAME)) == []
    assert error(scratch, NAME) > 0.01


def test_parity_sees_the_order_of_the_feed_forward_networks(scratch, tmp_path):
    tensors = load_file(weights_file(NAME))
    swapped = {n.replace(".ffn.0.", ".ffn.x.").replace(".ffn.1.", ".ffn.0.").replace(".ffn.x.", ".ffn.1."): v
               for n, v in tensors.items()}  # fmt: skip
    assert swapped.keys() == tensors.keys()
    checkpoint.load(scratch, shape_of(NAME), put(tmp_path, swapped))
    assert error(scratch, NAME) > 0.01


@pytest.mark.parametrize(
    ("part", "call"),
    [
        (graph.Trigram, without_neighbours),
        (graph.Trigram, backwards),
        (graph.Trigram, reading_padding),
        (graph.NoNorm, lambda self, x: x),
        (graph.NoNorm, lambda self, x: x * self.gamma),
        (graph.NoNorm, lambda self, x: graph.Norm.call(self, x)),
    ],
    ids=["no trigram", "trigram reversed", "padding read", "no scale", "no shift", "a true norm"],
)
def test_parity_sees_a_layer_that_does_something_else(part, call, monkeypatch):
    monkeypatch.setattr(part, "call", call)
    monkeypatch.setattr(graph.NoNorm, "epsilon", 1e-12, raising=False)
    assert error(loaded(NAME), NAME) > 1e-3


def test_every_tensor_of_the_checkpoint_reaches_the_logits(scratch, tmp_path):
    """Turns the rows of one tensor at a time upside down: one that is not read changes nothing."""
    tensors = load_file(weights_file(NAME))
    names = [name for name in sorted(tensors) if ".layer.0." not in name]
    assert len(names) == 7 + 2 + 40  # embeddings, classifier, 20 pairs of layer 1
    unseen = []
    for name in names:
        checkpoint.load(scratch, shape_of(NAME), put(tmp_path, {**tensors, name: tensors[name][::-1]}))
        if error(scratch, NAME) < 1e-3:
            unseen.append(name)
    # The bias of the keys adds the same number to all scores of a query: soft-max does not see it.
    assert unseen == ["mobilebert.encoder.layer.1.attention.self.key.bias"]


# The graph


def test_one_named_dense_per_weight_matrix(model):
    per_layer = {
        "bottleneck_in": (32, 16), "bottleneck_attention": (32, 16), "query": (16, 16), "key": (16, 16),
        "value": (32, 16), "attention_output": (16, 16), "ffn0_in": (16, 24), "ffn0_out": (24, 16),
        "ffn1_in": (16, 24), "ffn1_out": (24, 16), "ffn_in": (16, 24), "ffn_out": (24, 16), "bottleneck_out": (16, 32),
    }  # fmt: skip
    expected = {f"layer{i}_{part}": shape for i in range(2) for part, shape in per_layer.items()}
    expected |= {"embedding_transformation": (36, 32), "classifier": (32, 3)}
    assert kernel_shapes(model) == expected
    assert set(prunable(model)) == set(expected) - {"classifier"}


def test_heads_and_ffn_widths_are_per_layer():
    shapes = kernel_shapes(graph.classifier(replace(shape_of(NAME), heads=(2, 4), ffn_widths=(10, 24))))
    assert (shapes["layer0_value"], shapes["layer0_attention_output"]) == ((32, 8), (8, 16))
    assert (shapes["layer0_ffn1_in"], shapes["layer0_ffn_out"]) == ((16, 10), (10, 16))
    assert (shapes["layer1_value"], shapes["layer1_ffn0_in"]) == ((32, 16), (16, 24))


def test_dropout_has_the_rates_of_the_config(model):
    dropouts = [part for part in model.submodules if isinstance(part, Dropout)]
    assert Counter(part.rate for part in dropouts) == {0.17: 3, 0.18: 2, 0.19: 1}


# config.json and the checkpoint


def test_config_is_read():
    assert shape_of(NAME) == Architecture(
        family=NAME, vocabulary_size=100, position_count=64, width=32, head_width=4, heads=(4, 4), ffn_widths=(24, 24),
        norm_epsilon=1e-12, hidden_dropout=0.17, attention_dropout=0.18, head_dropout=0.19, pooling="first", classes=3,
        bottleneck=Bottleneck(embedding_width=12, width=16, ffn_count=3),
    )  # fmt: skip


def test_architecture_survives_json_and_the_others_have_no_new_key():
    shape = shape_of(NAME)
    assert Architecture.from_json(json.loads(json.dumps(shape.to_json()))) == shape
    fields = ("family vocabulary_size position_count width head_width heads ffn_widths norm_epsilon hidden_dropout "
              "attention_dropout head_dropout pooling classes")  # fmt: skip
    assert list(shape_of("bert").to_json()) == list(shape_of("distilbert").to_json()) == fields.split()


@pytest.mark.parametrize("key", CONFIG_KEYS)
def test_missing_config_key_is_named(key, tmp_path):
    assert repr(key) in config_refusal(changed_config(tmp_path, NAME, **{key: None}))


def test_absent_classifier_activation_is_what_hugging_face_takes_it_for(tmp_path):
    assert "classifier_activation" in config_refusal(changed_config(tmp_path, NAME, classifier_activation=None))


def test_head_stays_random_where_the_checkpoint_has_none(scratch, tmp_path):
    """As in the published one, which has the heads of its pre-training instead."""
    tensors = {**without("classifier")(load_file(weights_file(NAME))), "cls.seq_relationship.weight": np.ones((2, 32))}
    assert checkpoint.load(scratch, shape_of(NAME), put(tmp_path, tensors)) == ["classifier"]
    assert layer(scratch, "layer1_ffn1_out").kernel.numpy().std() > 0.05


def test_names_without_a_prefix_are_read(scratch, tmp_path):
    bare = {name.removeprefix("mobilebert."): value for name, value in load_file(weights_file(NAME)).items()}
    assert checkpoint.load(scratch, shape_of(NAME), put(tmp_path, bare)) == []
    assert error(scratch, NAME) <= TOLERANCE


@pytest.mark.parametrize(
    "name",
    [
        "embeddings.embedding_transformation",
        "embeddings.token_type_embeddings",
        "encoder.layer.1.bottleneck.attention.LayerNorm",
        "encoder.layer.0.ffn.1.intermediate.dense",
        "encoder.layer.1.output.bottleneck.dense",
    ],
)
def test_missing_tensor_is_named(name, scratch, tmp_path):
    message = refusal(scratch, shape_of(NAME), put(tmp_path, without(name)(load_file(weights_file(NAME)))))
    assert name in message
    assert "mobilebert checkpoint" in message


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("embeddings.word_embeddings.weight", "(100, 12)"),
        ("embeddings.embedding_transformation.weight", "(32, 36)"),
        ("encoder.layer.1.attention.self.value.weight", "(16, 32)"),
        ("encoder.layer.0.ffn.0.output.LayerNorm.bias", "(16,)"),
    ],
)
def test_wrong_shape_is_named_with_both_shapes(name, expected, scratch, tmp_path):
    tensors, full = load_file(weights_file(NAME)), f"mobilebert.{name}"
    short = tensors[full][..., :-1]
    message = refusal(scratch, shape_of(NAME), put(tmp_path, {**tensors, full: short}))
    assert name.rsplit(".", 1)[0] in message
    assert str(short.shape) in message
    assert expected in message


# Through train.py


def tiny_mobilebert(folder: Path) -> Path:
    """A checkpoint folder: the golden sizes under the tiny vocabulary, with its pre-trained weights drawn anew."""
    folder.mkdir()
    words = tiny.tiny_vocabulary()
    changed_config(folder, NAME, vocab_size=len(words))
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    rng = np.random.default_rng(0)
    tensors = without("classifier")(load_file(weights_file(NAME)))
    tensors = {n: rng.normal(0, 0.1, v.shape).astype(np.float32) for n, v in tensors.items()}
    table = rng.normal(0, 0.3, (len(words), 12)).astype(np.float32)
    ones = {n: np.ones_like(v) for n, v in tensors.items() if n.endswith("LayerNorm.weight")}
    put(folder, {**tensors, **ones, "mobilebert.embeddings.word_embeddings.weight": table})
    return folder


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    """A pruned and quantized MobileBERT: (the content of result.json, its bundle)."""
    folder = tmp_path_factory.mktemp("mobilebert")
    runs = Runs(folder)
    words = (f"model.path={tiny_mobilebert(folder / 'checkpoint')}", "model=mobilebert", "prune=fixed50", "quant=int8")
    run = runs.folder_of(*words, "data.max_length=60", "fit.teacher.epochs=12")
    return json.loads((run / "result.json").read_text(encoding="utf-8")), run / "bundle"


@pytest.mark.slow
def test_it_learns_is_pruned_and_its_file_agrees(result):
    found, _ = result
    assert found["choices"]["model"] == NAME
    assert found["quality"]["accuracy_fraction"] >= 0.9
    assert found["quality"]["agreement_fraction"] >= 0.96
    assert found["size"]["zeroed_fraction"] == pytest.approx(0.5, abs=0.001)


@pytest.mark.slow
def test_its_file_takes_sentences_of_every_length(result):
    """The shapes of the trigram must follow the length: a file that kept that of its first call would fail or lie."""
    _, bundle = result
    classifier = Classifier(bundle / "model.tflite", 1)
    ids = np.arange(5, 45, dtype=np.int32)
    first = [classifier.logits(ids[:length]) for length in (1, 2, 3, 40)]
    again = [classifier.logits(ids[:length]) for length in (40, 3, 2, 1)]
    for one, other in zip(first, reversed(again), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    assert len({tuple(logits) for logits in first}) == 4


@pytest.mark.slow
def test_the_published_sizes_have_the_parameters_counted_by_hand(tmp_path):
    """google/mobilebert-uncased: 24,581,888, and a classifier of 1,026, less the token types."""
    config = read_catalogue(CONF / "baselines.yaml")[NAME].config
    (tmp_path / "config.json").write_text(json.dumps(config))
    dense, norm = lambda i, o: i * o + o, lambda width: 2 * width
    ffns = 4 * (dense(128, 512) + dense(512, 128) + norm(128))
    attention = 2 * dense(128, 128) + dense(512, 128) + dense(128, 128) + norm(128)
    layer_count = 2 * (dense(512, 128) + norm(128)) + attention + ffns + dense(128, 512) + norm(512)
    by_hand = 30522 * 128 + dense(384, 512) + 512 * 512 + norm(512) + 24 * layer_count + dense(512, 2)
    assert by_hand == 24_581_888 - 2 * 512 + 1026
    assert graph.classifier(read_config(tmp_path, pooling="first", classes=2)).count_params() == by_hand
