"""A checkpoint's `model.safetensors` -> the weights of the Keras classifier, through a table of names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file

from optim.common.errors import UserError
from optim.encoder.architecture import SKIPPED_POSITIONS, Architecture

HEAD = ("pooler", "classifier")  # a checkpoint without these was not fine-tuned: they start at random


# Keras layer -> checkpoint prefix, where {i} is the index of the layer and {j} that of a feed-forward network before
# its last.
TABLES = {
    "bert": {
        "word_embeddings": "embeddings.word_embeddings",
        "position_embeddings": "embeddings.position_embeddings",
        "embeddings_norm": "embeddings.LayerNorm",
        "layer{i}_query": "encoder.layer.{i}.attention.self.query",
        "layer{i}_key": "encoder.layer.{i}.attention.self.key",
        "layer{i}_value": "encoder.layer.{i}.attention.self.value",
        "layer{i}_attention_output": "encoder.layer.{i}.attention.output.dense",
        "layer{i}_attention_norm": "encoder.layer.{i}.attention.output.LayerNorm",
        "layer{i}_ffn_in": "encoder.layer.{i}.intermediate.dense",
        "layer{i}_ffn_out": "encoder.layer.{i}.output.dense",
        "layer{i}_ffn_norm": "encoder.layer.{i}.output.LayerNorm",
        "pooler": "pooler.dense",
        "classifier": "classifier",
    },
    "distilbert": {
        "word_embeddings": "embeddings.word_embeddings",
        "position_embeddings": "embeddings.position_embeddings",
        "embeddings_norm": "embeddings.LayerNorm",
        "layer{i}_query": "transformer.layer.{i}.attention.q_lin",
        "layer{i}_key": "transformer.layer.{i}.attention.k_lin",
        "layer{i}_value": "transformer.layer.{i}.attention.v_lin",
        "layer{i}_attention_output": "transformer.layer.{i}.attention.out_lin",
        "layer{i}_attention_norm": "transformer.layer.{i}.sa_layer_norm",
        "layer{i}_ffn_in": "transformer.layer.{i}.ffn.lin1",
        "layer{i}_ffn_out": "transformer.layer.{i}.ffn.lin2",
        "layer{i}_ffn_norm": "transformer.layer.{i}.output_layer_norm",
        "pooler": "pre_classifier",
        "classifier": "classifier",
    },
    "mobilebert": {
        "word_embeddings": "embeddings.word_embeddings",
        "embedding_transformation": "embeddings.embedding_transformation",
        "position_embeddings": "embeddings.position_embeddings",
        "embeddings_norm": "embeddings.LayerNorm",
        "layer{i}_bottleneck_in": "encoder.layer.{i}.bottleneck.input.dense",
        "layer{i}_bottleneck_in_norm": "encoder.layer.{i}.bottleneck.input.LayerNorm",
        "layer{i}_bottleneck_attention": "encoder.layer.{i}.bottleneck.attention.dense",
        "layer{i}_bottleneck_attention_norm": "encoder.layer.{i}.bottleneck.attention.LayerNorm",
        "layer{i}_query": "encoder.layer.{i}.attention.self.query",
        "layer{i}_key": "encoder.layer.{i}.attention.self.key",
        "layer{i}_value": "encoder.layer.{i}.attention.self.value",
        "layer{i}_attention_output": "encoder.layer.{i}.attention.output.dense",
        "layer{i}_attention_norm": "encoder.layer.{i}.attention.output.LayerNorm",
        "layer{i}_ffn{j}_in": "encoder.layer.{i}.ffn.{j}.intermediate.dense",
        "layer{i}_ffn{j}_out": "encoder.layer.{i}.ffn.{j}.output.dense",
        "layer{i}_ffn{j}_norm": "encoder.layer.{i}.ffn.{j}.output.LayerNorm",
        "layer{i}_ffn_in": "encoder.layer.{i}.intermediate.dense",
        "layer{i}_ffn_out": "encoder.layer.{i}.output.dense",
        "layer{i}_ffn_norm": "encoder.layer.{i}.output.LayerNorm",
        "layer{i}_bottleneck_out": "encoder.layer.{i}.output.bottleneck.dense",
        "layer{i}_bottleneck_out_norm": "encoder.layer.{i}.output.bottleneck.LayerNorm",
        "classifier": "classifier",
    },
    "mpnet": {
        "word_embeddings": "embeddings.word_embeddings",
        "position_embeddings": "embeddings.position_embeddings",
        "embeddings_norm": "embeddings.LayerNorm",
        "relative_bias": "encoder.relative_attention_bias",
        "layer{i}_query": "encoder.layer.{i}.attention.attn.q",
        "layer{i}_key": "encoder.layer.{i}.attention.attn.k",
        "layer{i}_value": "encoder.layer.{i}.attention.attn.v",
        "layer{i}_attention_output": "encoder.layer.{i}.attention.attn.o",
        "layer{i}_attention_norm": "encoder.layer.{i}.attention.LayerNorm",
        "layer{i}_ffn_in": "encoder.layer.{i}.intermediate.dense",
        "layer{i}_ffn_out": "encoder.layer.{i}.output.dense",
        "layer{i}_ffn_norm": "encoder.layer.{i}.output.LayerNorm",
        "pooler": "classifier.dense",
        "classifier": "classifier.out_proj",
    },
}


def names(shape: Architecture) -> Iterator[tuple[str, str]]:
    """Pairs (Keras layer, checkpoint prefix) for every layer that has weights."""
    for layer, prefix in TABLES[shape.family].items():
        if "{i}" not in layer:
            yield layer, prefix
            continue
        stacked = shape.bottleneck.ffn_count - 1 if shape.bottleneck and "{j}" in layer else 1
        for i in range(len(shape.heads)):
            for j in range(stacked):
                yield layer.format(i=i, j=j), prefix.format(i=i, j=j)


def require_whole(path: Path, shape: Architecture) -> None:
    """Raises UserError for a file that is missing or cut short, or that has more layers than `shape`.

    Those would be left out unseen. The file's head alone is read, which has the names and says how long the file is.
    """
    with _opened(path), safe_open(path, "numpy") as weights:
        tensors = [_today(name) for name in weights.keys()]  # noqa: SIM118  # it is no dictionary
    stems = {prefix.partition("{i}")[0] for prefix in TABLES[shape.family].values() if "{i}" in prefix}
    layer = re.compile(f"({'|'.join(map(re.escape, stems))})(\\d+)\\.")
    count = 1 + max((int(found[2]) for found in map(layer.match, tensors) if found), default=-1)
    if count > len(shape.heads):
        raise UserError(
            f"model: {path} has {count} layers, config.json {len(shape.heads)}. Set its number of layers to {count}; "
            "slim.layers= leaves some out."
        )


@contextmanager
def _opened(path: Path) -> Iterator[None]:
    """A body that reads the file: what is wrong with it is a UserError."""
    if not path.is_file():
        raise UserError(
            f"model: {path.parent} has no {path.name}. Only safetensors weights are read; "
            "model.save_pretrained(folder) of transformers writes them."
        )
    try:
        yield
    except (SafetensorError, ValueError) as error:
        raise UserError(f"model: {path} is not a readable safetensors file ({error}).") from error


def read(path: Path) -> dict[str, np.ndarray]:
    """Tensors of a safetensors file under today's names: no model prefix, `weight`/`bias` for `gamma`/`beta`."""
    with _opened(path):
        tensors = load_file(path)
    return {_today(name): value.astype(np.float32) if _is_float(value) else value for name, value in tensors.items()}


def _today(name: str) -> str:
    """Today's name of a tensor."""
    name = re.sub(r"^(bert|distilbert|mobilebert|mpnet|model)\.", "", name)
    return re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", name))


def _is_float(value: np.ndarray) -> bool:
    """Whether a tensor is float16, bfloat16 (to NumPy of an unknown kind), float32 or float64."""
    return value.dtype.kind == "f" or (value.dtype.itemsize == 2 and value.dtype.kind not in "iu")


def load(model, shape: Architecture, path: Path) -> list[str]:
    """Fills `model` in place from the safetensors file and returns the layers left at random (the head, if any).

    Raises UserError naming the tensor that is missing or has another shape than the architecture asks for.
    """
    tensors, missing = read(path), []
    if shape.family == "mpnet":
        _skip_positions(tensors)
    for layer, prefix in names(shape):
        variables = model.get_layer(layer).weights
        found = [_take(tensors, prefix, v.name) for v in variables]
        values = [value for value in found if value is not None]
        if len(values) < len(found) or (layer == "classifier" and values[0].shape[-1:] != (shape.classes,)):
            if layer not in HEAD:
                raise UserError(f"model: {path} has no {prefix}.weight/.bias, which a {shape.family} checkpoint needs.")
            missing.append(layer)
            continue
        for variable, value in zip(variables, values, strict=True):
            if tuple(variable.shape) != value.shape:
                turn = -1 if "kernel" in variable.name else 1  # back to PyTorch's [out, in]
                raise UserError(
                    f"model: {prefix} in {path} has shape {value.shape[::turn]}, "
                    f"config.json asks for {tuple(variable.shape)[::turn]}."
                )
            if value.dtype != np.float32:  # the steps of a quantized checkpoint, whose scales stand elsewhere
                raise UserError(
                    f"model: {prefix} in {path} is {value.dtype.name}, as quantized checkpoints have it; only float16, "
                    "bfloat16 and float32 weights are read. Save the model before it was quantized."
                )
            if not np.isfinite(value).all():
                raise UserError(f"model: {prefix} in {path} holds values that are no numbers. Take another checkpoint.")
            variable.assign(value)
    if shape.family in ("bert", "mobilebert"):
        _fold_token_type(model, tensors, path, shape.family)
    return missing


def _take(tensors: dict[str, np.ndarray], prefix: str, variable: str) -> np.ndarray | None:
    """The tensor behind a Keras variable, transposed where Keras keeps [in, out] and PyTorch [out, in]."""
    kind = variable.split("/")[-1].split(":")[0]
    name = f"{prefix}.{'bias' if kind in ('bias', 'beta') else 'weight'}"
    value = tensors.get(name)
    return value.T if value is not None and kind == "kernel" else value


def _skip_positions(tensors: dict[str, np.ndarray]) -> None:
    """Drops the rows of the position embedding that no token has; a table that is missing is told of later."""
    name = "embeddings.position_embeddings.weight"
    if name in tensors:
        tensors[name] = tensors[name][SKIPPED_POSITIONS:]


def _fold_token_type(model, tensors: dict[str, np.ndarray], path: Path, family: str) -> None:
    """Adds the embedding of segment 0 to every position: a single sentence has no other segment."""
    name = "embeddings.token_type_embeddings"
    segments, table = tensors.get(f"{name}.weight"), model.get_layer("position_embeddings").table
    if segments is None:
        raise UserError(f"model: {path} has no {name}.weight, which a {family} checkpoint needs.")
    if segments.shape[1:] != tuple(table.shape[1:]) or not len(segments):
        raise UserError(
            f"model: {name} in {path} has shape {segments.shape}, config.json asks for width {table.shape[1]}."
        )
    table.assign(table.numpy() + segments[0])
