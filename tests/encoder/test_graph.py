"""The Keras encoders against Hugging Face's PyTorch models, whose answers lie in tests/golden."""

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from golden_cases import (
    FAMILIES,
    GOLDEN,
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
    up_to,
    weights_file,
    without,
)
from safetensors.numpy import load_file, save_file

from optim.common.errors import UserError
from optim.encoder import checkpoint, graph
from optim.encoder.architecture import Architecture, read_config
from optim.encoder.layers import Dropout

PARTS = ("query", "key", "value", "attention_output", "ffn_in", "ffn_out")


@pytest.fixture(scope="module")
def models() -> dict[str, keras.Model]:
    """The golden models; no test changes their weights."""
    return {family: loaded(family) for family in FAMILIES}


@pytest.fixture(scope="module")
def singles() -> dict[str, keras.Model]:
    """The same in the graph of one sentence, which is the one that is exported."""
    return {family: loaded(family, single=True) for family in FAMILIES}


@pytest.fixture(scope="module")
def scratch() -> dict[str, keras.Model]:
    """Models to load anything into."""
    return {folder: graph.classifier(shape_of(folder)) for folder in (*FAMILIES, "bert_encoder")}


@pytest.fixture
def copy(tmp_path):
    """A function: (folder, change(tensors)) -> the path of a changed copy of the golden weights."""

    def write(folder: str, change) -> Path:
        tensors = load_file(weights_file(folder))
        changed = change(tensors)
        path = tmp_path / "model.safetensors"
        save_file({name: np.ascontiguousarray(value) for name, value in changed.items()}, path)
        return path

    return write


# Parity


def test_golden_cases_hold_padding_and_every_length():
    for folder in (*FAMILIES, "bert_encoder"):
        case = cases(folder)
        assert case["attention_mask"].sum(axis=1).tolist() == [17, 1, 9, 24, 2, 24]
        assert case["input_ids"].shape == (6, 24)
        assert np.array_equal(case["input_ids"] == 0, case["attention_mask"] == 0)


@pytest.mark.parametrize("family", FAMILIES)
def test_last_layer_of_the_single_graph_works_on_the_first_token_alone(family, singles):
    """Unless every token is pooled: the mean needs them all."""
    last = len(shape_of(family).heads) - 1

    def tokens(model: Any, name: str) -> int | None:
        return model.get_layer(f"layer{last}_{name}").output_shape[0]

    single = singles[family]
    assert (tokens(single, "query"), tokens(single, "ffn_in"), tokens(single, "key")) == (1, 1, None)
    averaged = graph.classifier(replace(shape_of(family), pooling="mean"), single=True)
    assert tokens(averaged, "ffn_in") is None


@pytest.mark.parametrize("family", FAMILIES)
def test_last_layer_of_the_training_graph_works_on_a_token_of_each_sentence(family, models):
    """Three sentences of five tokens: three rows where the first token is pooled, fifteen where all are."""
    last = len(shape_of(family).heads) - 1
    batch = {"input_ids": np.full((3, 5), 1, np.int32), "attention_mask": np.ones((3, 5), np.int32)}

    def rows(model: Any, name: str) -> int:
        return len(keras.Model(model.inputs, model.get_layer(f"layer{last}_{name}").output)(batch))

    first = models[family]
    assert (rows(first, "query"), rows(first, "ffn_in"), rows(first, "key")) == (3, 3, 15)
    averaged = graph.classifier(replace(shape_of(family), pooling="mean"))
    assert rows(averaged, "ffn_in") == 15


@pytest.mark.parametrize("family", FAMILIES)
def test_single_graph_ignores_padding(family, singles):
    case = cases(family)
    for ids, mask, logits in zip(case["input_ids"], case["attention_mask"], case["logits"], strict=True):
        assert np.abs(answers(singles[family], ids[None], mask[None])[0] - logits).max() <= TOLERANCE


@pytest.mark.parametrize("family", FAMILIES)
def test_both_graphs_agree_on_a_mask_with_holes(family, models, singles):
    case = cases(family)
    rows = case["attention_mask"].sum(axis=1) > 8
    ids, mask = case["input_ids"][rows], case["attention_mask"][rows]
    mask[:, 2::3] = 0
    batch = answers(models[family], ids, mask)
    assert batch.shape == (4, 3)
    assert np.abs(batch - case["logits"][rows]).max() > 0.01
    for index in range(len(ids)):
        alone = answers(singles[family], ids[index : index + 1], mask[index : index + 1])
        assert np.abs(alone[0] - batch[index]).max() <= TOLERANCE


def test_gradients_of_a_batch_are_the_sum_of_those_of_its_sentences(models, singles):
    """Packing must not send the gradient of one sentence's token to another's."""
    case, labels = cases("bert"), np.array([0, 1, 2, 0, 1, 2])
    batch = gradients(models["bert"], case["input_ids"], case["attention_mask"], labels)
    assert len(batch) == 40  # 41 tensors: the token types are in the position table
    total = dict.fromkeys(batch, 0.0)
    for index, length in enumerate(case["attention_mask"].sum(axis=1)):
        row = slice(index, index + 1)
        one = gradients(
            singles["bert"], case["input_ids"][row, :length], case["attention_mask"][row, :length], labels[row]
        )
        total = {name: total[name] + one[name] for name in batch}
    for name, value in batch.items():
        assert np.abs(value - total[name]).max() <= 1e-4 * max(1.0, np.abs(value).max()), name
        assert np.abs(value).max() > 1e-3 or "key/bias" in name


def test_encoder_without_a_classifier_gives_the_golden_pooled_vector():
    model = graph.classifier(shape_of("bert_encoder"))
    assert checkpoint.load(model, shape_of("bert_encoder"), weights_file("bert_encoder")) == ["classifier"]
    case = cases("bert_encoder")
    pooled = answers(up_to(model, "pooler"), case["input_ids"], case["attention_mask"])
    assert np.abs(pooled - case["pooled"]).max() <= TOLERANCE


def test_mean_pooling_gives_the_golden_mean():
    shape = shape_of("bert_encoder", pooling="mean")
    model = graph.classifier(shape)
    checkpoint.load(model, shape, weights_file("bert_encoder"))
    case = cases("bert_encoder")
    mean = answers(up_to(model, "pool"), case["input_ids"], case["attention_mask"])
    assert np.abs(mean - case["mean"]).max() <= TOLERANCE


@pytest.mark.parametrize("single", [False, True])
@pytest.mark.parametrize(("pooling", "expected"), [("first", [6.0, -6.0]), ("mean", [7.0, -7.0])])
def test_norm_and_pooling_by_hand(pooling, expected, single):
    """An embedding (a, -a) has mean 0 and variance a²: with epsilon 1 and gamma 10, a becomes 10 a / sqrt(a² + 1).

    Id 1, a = 3/4: 10 * 3/5 = 6. Id 2, a = 4/3: 10 * 4/5 = 8. Their mean is 7. Id 3 is padding.
    """
    shape = replace(shape_of("bert"), pooling=pooling, heads=(), ffn_widths=(), width=2, norm_epsilon=1.0)
    model = graph.classifier(replace(shape, vocabulary_size=4), single=single)
    layer(model, "word_embeddings").set_weights([np.outer([0.0, 3 / 4, 4 / 3, 100.0], [1.0, -1.0])])
    layer(model, "position_embeddings").set_weights([np.zeros((64, 2))])
    layer(model, "embeddings_norm").set_weights([np.full(2, 10.0), np.zeros(2)])
    pooled = answers(up_to(model, "pool"), np.array([[1, 2, 3, 3]], np.int32), np.array([[1, 1, 0, 0]], np.int32))
    np.testing.assert_allclose(pooled, [expected], atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("padding_id", [0, 77])
def test_more_padding_changes_no_logit(family, padding_id, models):
    case = cases(family)
    ids = np.pad(case["input_ids"], ((0, 0), (0, 16)))
    mask = np.pad(case["attention_mask"], ((0, 0), (0, 16)))
    wider = answers(models[family], np.where(mask == 1, ids, padding_id).astype(np.int32), mask)
    assert np.abs(wider - case["logits"]).max() <= TOLERANCE


def test_every_position_of_the_table_can_be_used(models):
    ids = np.full((1, shape_of("bert").position_count), 5, np.int32)
    assert ids.shape == (1, 64)
    full = answers(models["bert"], ids, np.ones_like(ids))
    assert np.isfinite(full).all()
    assert np.abs(full - answers(models["bert"], ids[:, :63], np.ones_like(ids[:, :63]))).max() > 1e-4


def test_mixed_bfloat16_keeps_float32_logits_near_the_golden_ones():
    model = loaded("bert", bfloat16=True)
    case = cases("bert")
    assert answers(model, case["input_ids"], case["attention_mask"]).dtype == np.float32
    assert TOLERANCE < error(model, "bert") < 0.1  # bfloat16 keeps 8 bits


# What would go unseen


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("layer{i}_query", "layer{i}_key"),
        ("layer{i}_value", "layer{i}_attention_output"),
        ("layer{i}_attention_norm", "layer{i}_ffn_norm"),
        ("layer{i}_query", "pooler"),
    ],
)
def test_parity_sees_two_swapped_names(family, one, other, scratch, monkeypatch):
    monkeypatch.setitem(checkpoint.TABLES, family, swap(checkpoint.TABLES[family], one, other))
    # The pooler has no index: each layer reads it, and the pooler finds nothing under "layer.{i}".
    left = checkpoint.load(scratch[family], shape_of(family), weights_file(family))
    assert left == (["pooler"] if other == "pooler" else [])
    assert error(scratch[family], family) > 0.01


@pytest.mark.parametrize("family", FAMILIES)
def test_every_tensor_of_the_checkpoint_reaches_the_logits(family, scratch, copy):
    """Turns the rows of one tensor at a time upside down: one that is not read changes nothing."""
    names = [name for name in sorted(load_file(weights_file(family))) if ".layer.0." not in name]
    assert len(names) == {"bert": 25, "distilbert": 24}[family]  # 16 of layer 1, the embeddings, the head
    unseen = []
    for name in names:
        path = copy(family, lambda tensors, name=name: {**tensors, name: tensors[name][::-1]})
        checkpoint.load(scratch[family], shape_of(family), path)
        if error(scratch[family], family) < 1e-3:
            unseen.append(name)
    # The bias of the keys adds the same number to all scores of a query: soft-max does not see it.
    assert [name for name in unseen if not name.endswith(("key.bias", "k_lin.bias"))] == []
    assert len(unseen) == 1


@pytest.mark.parametrize("family", FAMILIES)
def test_key_bias_is_read(family, models):
    tensors = checkpoint.read(weights_file(family))
    name = {"bert": "encoder.layer.1.attention.self.key.bias", "distilbert": "transformer.layer.1.attention.k_lin.bias"}
    np.testing.assert_array_equal(layer(models[family], "layer1_key").bias.numpy(), tensors[name[family]])


# The graph


@pytest.mark.parametrize("family", FAMILIES)
def test_one_named_dense_per_weight_matrix(family, models):
    shapes = kernel_shapes(models[family])
    per_layer = {"ffn_in": (32, 64), "ffn_out": (64, 32)}
    expected = {f"layer{i}_{part}": per_layer.get(part, (32, 32)) for i in range(2) for part in PARTS}
    assert shapes == {**expected, "pooler": (32, 32), "classifier": (32, 3)}
    assert [sum(name.startswith(f"layer{i}_") for name in shapes) for i in range(3)] == [6, 6, 0]
    assert len(shapes) - 1 == 6 * 2 + 1  # what pruning may touch: all but the classifier


def test_heads_and_ffn_widths_are_per_layer(models):
    shape = replace(shape_of("bert"), heads=(2, 4), ffn_widths=(16, 64))
    model = graph.classifier(shape)
    small = {"query": (32, 16), "key": (32, 16), "value": (32, 16), "attention_output": (16, 32)}
    small |= {"ffn_in": (32, 16), "ffn_out": (16, 32)}
    shapes = kernel_shapes(model)
    assert {part: shapes[f"layer0_{part}"] for part in PARTS} == small
    assert {n: s for n, s in shapes.items() if not n.startswith("layer0_")} == {
        n: s for n, s in kernel_shapes(models["bert"]).items() if not n.startswith("layer0_")
    }
    case = cases("bert")
    found = answers(model, case["input_ids"], case["attention_mask"])
    assert found.shape == (6, 3)
    assert np.isfinite(found).all()


def test_removed_heads_and_neurons_equal_zeroed_ones(models, scratch):
    """Layer 0 without heads 2 and 3 and without the FFN neurons from 16 on, against the whole layer with them at 0."""
    cut = graph.classifier(replace(shape_of("bert"), heads=(2, 4), ffn_widths=(16, 64)))
    whole = scratch["bert"]
    whole.set_weights(models["bert"].get_weights())
    for name in ("layer0_attention_output", "layer0_ffn_out"):
        kernel = layer(whole, name).kernel
        kernel.assign(tf.concat([kernel[:16], tf.zeros_like(kernel[16:])], axis=0))
    for small, large in zip(cut.weights, whole.weights, strict=True):
        small.assign(large.numpy()[tuple(slice(size) for size in small.shape)])
    case = cases("bert")
    expected = answers(whole, case["input_ids"], case["attention_mask"])
    assert np.abs(expected - case["logits"]).max() > 0.01
    assert np.abs(answers(cut, case["input_ids"], case["attention_mask"]) - expected).max() <= TOLERANCE


@pytest.mark.parametrize(
    ("family", "rates"), [("bert", {0.11: 5, 0.12: 2, 0.13: 1}), ("distilbert", {0.14: 3, 0.15: 2, 0.16: 1})]
)
def test_dropout_has_the_rates_of_the_config(family, rates, models):
    dropouts = [part for part in models[family].submodules if isinstance(part, Dropout)]
    assert Counter(part.rate for part in dropouts) == rates


@pytest.mark.parametrize("rate", ["hidden_dropout", "attention_dropout", "head_dropout"])
def test_each_dropout_alone_changes_the_logits_in_training_only(rate):
    off = dict.fromkeys(("hidden_dropout", "attention_dropout", "head_dropout"), 0.0)
    model = graph.classifier(replace(shape_of("bert"), **{**off, rate: 0.5}))
    checkpoint.load(model, shape_of("bert"), weights_file("bert"))
    case = cases("bert")
    inputs = {name: tf.constant(case[name]) for name in ("input_ids", "attention_mask")}
    assert np.abs(model(inputs, training=True) - case["logits"]).max() > 0.01
    assert error(model, "bert") <= TOLERANCE


@pytest.mark.parametrize("single", [False, True])
def test_clone_with_the_same_weights_gives_the_golden_logits(single):
    model = loaded("distilbert", single=single)
    clone = keras.models.clone_model(model)  # what TFMOT wraps
    clone.set_weights(model.get_weights())
    case = cases("distilbert")
    found = answers(clone, case["input_ids"][:1], case["attention_mask"][:1])
    assert np.abs(found - case["logits"][:1]).max() <= TOLERANCE


# Checkpoints in other clothes


def old_names(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """BERT as Google's TensorFlow checkpoints were first converted: gamma and beta, and a buffer of position ids."""
    renamed = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value
        for name, value in tensors.items()
    }
    assert sum(name.endswith(("gamma", "beta")) for name in renamed) == 10
    return {**renamed, "bert.embeddings.position_ids": np.arange(64)[None]}


def test_gamma_and_beta_are_read(scratch, copy):
    assert checkpoint.load(scratch["bert"], shape_of("bert"), copy("bert", old_names)) == []
    assert error(scratch["bert"], "bert") <= TOLERANCE


@pytest.mark.parametrize("family", FAMILIES)
def test_names_without_a_prefix_are_read(family, scratch, copy):
    path = copy(family, lambda tensors: {name.removeprefix(f"{family}."): value for name, value in tensors.items()})
    assert checkpoint.load(scratch[family], shape_of(family), path) == []
    assert error(scratch[family], family) <= TOLERANCE


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision_tensors_are_widened(dtype, scratch, copy):
    path = copy("bert", lambda tensors: {name: value.astype(dtype) for name, value in tensors.items()})
    assert checkpoint.load(scratch["bert"], shape_of("bert"), path) == []
    assert {value.dtype for value in checkpoint.read(path).values()} == {np.dtype(np.float32)}
    exact = load_file(weights_file("bert"))["bert.pooler.dense.weight"]
    np.testing.assert_array_equal(layer(scratch["bert"], "pooler").kernel.numpy(), exact.T.astype(dtype).astype("f4"))


@pytest.mark.parametrize("family", FAMILIES)
def test_head_stays_random_where_the_checkpoint_has_none(family, copy):
    path = copy(family, without("pooler", "pre_classifier", "classifier"))
    model = graph.classifier(shape_of(family))
    before = {name: layer(model, name).kernel.numpy() for name in ("pooler", "classifier")}
    assert checkpoint.load(model, shape_of(family), path) == ["pooler", "classifier"]
    for name, kernel in before.items():
        np.testing.assert_array_equal(layer(model, name).kernel.numpy(), kernel)
        assert 0.01 < kernel.std() < 0.03
    assert layer(model, "layer1_ffn_out").kernel.numpy().std() > 0.2  # the encoder did come from the checkpoint


def test_classifier_of_other_classes_is_drawn_anew(models):
    shape = shape_of("bert", classes=2)
    model = graph.classifier(shape)
    before = layer(model, "classifier").kernel.numpy()
    assert checkpoint.load(model, shape, weights_file("bert")) == ["classifier"]
    assert before.shape == (32, 2)
    np.testing.assert_array_equal(layer(model, "classifier").kernel.numpy(), before)
    pooler = layer(models["bert"], "pooler").kernel.numpy()
    np.testing.assert_array_equal(layer(model, "pooler").kernel.numpy(), pooler)


# Checkpoints that do not fit


@pytest.mark.parametrize(
    ("family", "name"),
    [
        ("bert", "embeddings.word_embeddings"),
        ("bert", "encoder.layer.1.attention.self.key"),
        ("bert", "encoder.layer.0.output.LayerNorm"),
        ("distilbert", "embeddings.position_embeddings"),
        ("distilbert", "transformer.layer.1.ffn.lin2"),
    ],
)
@pytest.mark.parametrize("kind", ["", ".weight"])
def test_missing_tensor_is_named(family, name, kind, scratch, copy):
    path = copy(family, without(name + kind))
    message = refusal(scratch[family], shape_of(family), path)
    assert name in message
    assert str(path) in message


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("embeddings.word_embeddings.weight", "(100, 32)"),
        ("embeddings.position_embeddings.weight", "(64, 32)"),
        ("embeddings.LayerNorm.weight", "(32,)"),
        ("encoder.layer.1.attention.self.query.bias", "(32,)"),
        ("encoder.layer.1.intermediate.dense.weight", "(64, 32)"),
        ("encoder.layer.0.output.dense.weight", "(32, 64)"),
        ("pooler.dense.weight", "(32, 32)"),
        ("classifier.weight", "(3, 32)"),
    ],
)
def test_wrong_shape_is_named_with_both_shapes(name, expected, scratch, copy):
    found = []

    def cut(tensors):
        full = name if name.startswith("classifier") else f"bert.{name}"
        short = tensors[full][..., :-1]
        found.append(str(short.shape))
        return {**tensors, full: short}

    message = refusal(scratch["bert"], shape_of("bert"), copy("bert", cut))
    assert name.rsplit(".", 1)[0] in message
    assert found[0] in message
    assert expected in message


def test_missing_token_types_are_named(scratch, copy):
    path = copy("bert", without("token_type"))
    assert "embeddings.token_type_embeddings" in refusal(scratch["bert"], shape_of("bert"), path)


def test_token_types_without_a_row_are_named(scratch, copy):
    path = copy("bert", lambda t: {n: v[:0] if "token_type" in n else v for n, v in t.items()})
    assert "embeddings.token_type_embeddings" in refusal(scratch["bert"], shape_of("bert"), path)


def test_token_types_of_another_width_are_named(scratch, copy):
    path = copy("bert", lambda t: {n: v[:, :-1] if "token_type" in n else v for n, v in t.items()})
    message = refusal(scratch["bert"], shape_of("bert"), path)
    assert "embeddings.token_type_embeddings" in message
    assert "(2, 31)" in message


def test_checkpoint_with_fewer_rows_than_the_config_is_refused(scratch, copy):
    path = copy("bert", lambda t: {n: v[:50] if "word_embeddings" in n else v for n, v in t.items()})
    message = refusal(scratch["bert"], shape_of("bert"), path)
    assert "embeddings.word_embeddings" in message
    assert "(50, 32)" in message
    assert "(100, 32)" in message


def test_other_family_is_refused(scratch):
    message = refusal(scratch["bert"], shape_of("bert"), weights_file("distilbert"))
    assert "encoder.layer.0.attention.self.query" in message


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: b"\x80\x02}q\x00" + content[:1000],  # a pickle, as in pytorch_model.bin
        lambda content: content[: len(content) // 2],
        lambda content: content[:-1],
        lambda content: content[:100],
        lambda content: content + b"0",
    ],
    ids=["empty", "pickle", "half", "one byte short", "header cut", "one byte more"],
)
def test_damaged_file_is_refused(damage, scratch, tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(damage(weights_file("bert").read_bytes()))
    message = refusal(scratch["bert"], shape_of("bert"), path)
    assert str(path) in message
    assert "safetensors" in message


def test_absent_file_is_refused_with_the_way_out(scratch, tmp_path):
    message = refusal(scratch["bert"], shape_of("bert"), tmp_path / "model.safetensors")
    assert str(tmp_path) in message
    assert "save_pretrained" in message


# config.json


@pytest.mark.parametrize("folder", [*FAMILIES, "bert_encoder"])
def test_architecture_survives_json(folder):
    shape = shape_of(folder)
    assert Architecture.from_json(json.loads(json.dumps(shape.to_json()))) == shape


def test_config_is_read():
    assert shape_of("bert") == Architecture(
        family="bert",
        vocabulary_size=100,
        position_count=64,
        width=32,
        head_width=8,
        heads=(4, 4),
        ffn_widths=(64, 64),
        norm_epsilon=1e-3,
        hidden_dropout=0.11,
        attention_dropout=0.12,
        head_dropout=0.13,
        pooling="first",
        classes=3,
    )
    distilbert = shape_of("distilbert", pooling="mean", classes=5)
    assert (distilbert.family, distilbert.norm_epsilon, distilbert.pooling) == ("distilbert", 1e-12, "mean")
    assert (distilbert.hidden_dropout, distilbert.attention_dropout, distilbert.head_dropout) == (0.14, 0.15, 0.16)
    assert distilbert.classes == 5


BERT_KEYS = ("vocab_size", "max_position_embeddings", "hidden_size", "num_hidden_layers", "num_attention_heads")
DISTILBERT_KEYS = ("vocab_size", "max_position_embeddings", "dim", "n_layers", "n_heads", "hidden_dim")


@pytest.mark.parametrize(
    ("family", "key"),
    [("bert", key) for key in (*BERT_KEYS, "intermediate_size")] + [("distilbert", key) for key in DISTILBERT_KEYS],
)
def test_missing_config_key_is_named(family, key, tmp_path):
    message = config_refusal(changed_config(tmp_path, family, **{key: None}))
    assert repr(key) in message
    assert str(tmp_path) in message


def test_missing_optional_keys_take_the_values_of_hugging_face(tmp_path):
    optional = {"layer_norm_eps": None, "hidden_dropout_prob": None, "attention_probs_dropout_prob": None}
    folder = changed_config(tmp_path, "bert", classifier_dropout=None, **optional)
    shape = read_config(folder, pooling="first", classes=3)
    assert (shape.norm_epsilon, shape.hidden_dropout, shape.attention_dropout, shape.head_dropout) == (
        1e-12,
        0.1,
        0.1,
        0.1,
    )


@pytest.mark.parametrize(("family", "key"), [("bert", "num_attention_heads"), ("distilbert", "n_heads")])
@pytest.mark.parametrize("heads", [5, 0])
def test_heads_that_do_not_divide_the_width_are_refused(family, key, heads, tmp_path):
    message = config_refusal(changed_config(tmp_path, family, **{key: heads}))
    assert key in message
    assert str(heads) in message


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe"], ids=["empty", "cut", "list", "not UTF-8"])
def test_config_that_is_not_a_json_object_is_refused(content, tmp_path):
    (tmp_path / "config.json").write_bytes(content)
    assert "config.json" in config_refusal(tmp_path)


def test_folder_without_a_config_is_refused(tmp_path):
    shutil.copy(weights_file("bert"), tmp_path)
    assert "config.json" in config_refusal(tmp_path)


def test_unknown_pooling_is_refused():
    message = config_refusal(GOLDEN / "bert", pooling="max")
    assert "first, mean" in message
    assert "'max'" in message


# Sizes


@pytest.mark.parametrize("key", ["vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads"])
@pytest.mark.parametrize("value", [0, -1, 2.5, True, None, "12", 10**9])
def test_a_size_that_is_none_is_refused_by_its_key(tmp_path, key, value):
    config = json.loads((GOLDEN / "bert" / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, key: value}))
    with pytest.raises(UserError, match=rf"{key} .*must be a whole number from 1 to 10,000,000"):
        read_config(tmp_path, pooling="first", classes=2)


def test_a_model_that_no_memory_holds_is_refused_with_the_figures_before_it_is_made(tmp_path):
    config = json.loads((GOLDEN / "bert" / "config.json").read_text())
    huge = {"vocab_size": 10**7, "hidden_size": 10**6, "num_attention_heads": 10, "num_hidden_layers": 10**4}
    (tmp_path / "config.json").write_text(json.dumps({**config, **huge}))
    with pytest.raises(
        UserError, match=r"asks for [\d,]{18,} parameters: training them takes [\d,.]+ GB or more, there are"
    ):
        read_config(tmp_path, pooling="first", classes=2)


def test_a_config_that_is_a_folder_is_refused(tmp_path):
    (tmp_path / "config.json").mkdir()
    with pytest.raises(UserError, match=r"has no config\.json"):
        read_config(tmp_path, pooling="first", classes=2)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_no_numbers_are_named(value, scratch, copy):
    """The loss would be nan at step 0; one row of the embedding is found by no loss at all."""
    name = "embeddings.word_embeddings"

    def spoilt(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        table = tensors[f"bert.{name}.weight"].copy()
        table[3, 1] = value
        return {**tensors, f"bert.{name}.weight": table}

    path = copy("bert", spoilt)
    assert f"{name} in {path} holds values that are no numbers" in refusal(scratch["bert"], shape_of("bert"), path)


def test_a_classifier_without_a_shape_starts_at_random(scratch, copy):
    path = copy("bert", lambda t: {**t, "classifier.weight": np.float32(1.0), "classifier.bias": np.float32(1.0)})
    assert checkpoint.load(scratch["bert"], shape_of("bert"), path) == ["classifier"]


@pytest.mark.parametrize("dtype", [np.int8, np.int16])
def test_whole_numbers_are_no_weights(dtype, scratch, copy):
    """bitsandbytes keeps a kernel in int8 and its scales beside it: taken as it is, it would be in the hundreds."""
    name = "encoder.layer.1.output.dense"
    path = copy(
        "bert", lambda t: {n: (100 * v).astype(dtype) if n == f"bert.{name}.weight" else v for n, v in t.items()}
    )
    message = refusal(scratch["bert"], shape_of("bert"), path)
    assert f"{name} in {path} is {np.dtype(dtype).name}" in message
