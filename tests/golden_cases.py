"""The golden models, their answers, and ways to damage a checkpoint."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from optim.common.errors import UserError
from optim.encoder import checkpoint, graph
from optim.encoder.architecture import Architecture, read_config

GOLDEN = Path(__file__).parent / "golden"


TOLERANCE = 1e-5  # absolute, on logits of size 1 to 4; PyTorch's own float32 error is 1e-6 (golden/versions.json)


FAMILIES = ("bert", "distilbert")
EVERY_FAMILY = (*FAMILIES, "mobilebert", "mpnet")


def shape_of(folder: str, *, pooling: str = "first", classes: int = 3) -> Architecture:
    return read_config(GOLDEN / folder, pooling=pooling, classes=classes)


def cases(folder: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / folder / "cases.npz") as arrays:
        return dict(arrays)


def weights_file(folder: str) -> Path:
    return GOLDEN / folder / "model.safetensors"


def loaded(folder: str, **options) -> keras.Model:
    model = graph.classifier(shape_of(folder), **options)
    assert checkpoint.load(model, shape_of(folder), weights_file(folder)) == []
    return model


def answers(model: keras.Model, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
    return model({"input_ids": tf.constant(ids), "attention_mask": tf.constant(mask)}, training=False).numpy()


def layer(model: keras.Model, name: str) -> Any:
    return model.get_layer(name)


def up_to(model: keras.Model, name: str) -> keras.Model:
    return keras.Model(model.input, layer(model, name).output)


def error(model: keras.Model, folder: str) -> float:
    """The largest distance from the golden logits."""
    case = cases(folder)
    return float(np.abs(answers(model, case["input_ids"], case["attention_mask"]) - case["logits"]).max())


def kernel_shapes(model: keras.Model) -> dict[str, tuple[int, ...]]:
    return {part.name: tuple(part.kernel.shape) for part in model.layers if isinstance(part, keras.layers.Dense)}


def gradients(model: keras.Model, ids: np.ndarray, mask: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """Of the cross-entropy, summed over the sentences."""
    with tf.GradientTape() as tape:
        logits = model({"input_ids": tf.constant(ids), "attention_mask": tf.constant(mask)}, training=False)
        loss = tf.reduce_sum(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
    names = [variable.name for variable in model.trainable_variables]
    found = tape.gradient(loss, model.trainable_variables)
    return {name: tf.convert_to_tensor(value).numpy() for name, value in zip(names, found, strict=True)}


def swap(table: dict[str, str], one: str, other: str) -> dict[str, str]:
    return {**table, one: table[other], other: table[one]}


def without(*words: str):
    """A change that drops the tensors whose name holds one of `words`."""
    return lambda tensors: {name: v for name, v in tensors.items() if not any(word in name for word in words)}


def refusal(model: keras.Model, shape: Architecture, path: Path) -> str:
    with pytest.raises(UserError) as caught:
        checkpoint.load(model, shape, path)
    assert str(caught.value).count("\n") <= 1
    return str(caught.value)


def changed_config(tmp_path: Path, folder: str, **changes) -> Path:
    """A folder with the golden config.json, changed; a value of None drops the key."""
    config = {**json.loads((GOLDEN / folder / "config.json").read_text()), **changes}
    kept = {key: value for key, value in config.items() if not (key in changes and value is None)}
    (tmp_path / "config.json").write_text(json.dumps(kept))
    return tmp_path


def config_refusal(folder: Path, pooling: str = "first") -> str:
    with pytest.raises(UserError) as caught:
        read_config(folder, pooling=pooling, classes=2)
    assert str(caught.value).count("\n") <= 1
    return str(caught.value)
