"""Keras classifier -> .tflite bytes, in the precision that a method of `conf/quant` asks for.

Every method starts from the same float32 file, so that what it costs can be measured against that file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from optim.common.errors import require_count, require_fraction
from optim.common.screen import without_chatter
from optim.data.tokens import Tokens
from optim.export.convert import SIGNATURE, _quiet, convert

GATHER_SAMPLES = 8  # sentences that show the embedding's range to `int8`; its weights decide, so a few are enough


@dataclass(frozen=True, kw_only=True)
class Quantizer:
    """One way of writing the file. `run(load, float32_path, train) -> bytes of the new file`; load() -> the model."""

    max_disagreement: float  # fraction of dev answers in which the file may differ from the Keras student
    run: Callable[[Callable[[], object], Path, Tokens], bytes]

    def __post_init__(self) -> None:
        require_fraction("quant.max_disagreement", self.max_disagreement, one=True)


def float32(*, max_disagreement: float) -> Quantizer:
    """`quant=none`: the float32 file as it is."""
    return Quantizer(max_disagreement=max_disagreement, run=lambda load, path, train: path.read_bytes())


def float16(*, max_disagreement: float) -> Quantizer:
    """`quant=fp16`: weights as float16, arithmetic in float32; the converter's, which alone halves GATHER too."""
    return Quantizer(max_disagreement=max_disagreement, run=lambda load, path, train: convert(load(), half=True))


def dynamic_int8(*, max_disagreement: float) -> Quantizer:
    """`quant=int8`: int8 weights of FULLY_CONNECTED, whose inputs are quantized as they come, and of GATHER.

    Kernels have one scale for each output, the embeddings one in all.
    """

    def run(load, path: Path, train: Tokens) -> bytes:
        from litert_quantizer import qtyping, quantizer

        method = quantizer.Quantizer(str(path))
        method.add_dynamic_config(".*", qtyping.TFLOperationName.FULLY_CONNECTED, num_bits=8)
        method.add_static_config(".*", qtyping.TFLOperationName.GATHER, activation_num_bits=8, weight_num_bits=8)
        return _quantized(method, _samples(train, GATHER_SAMPLES, seed=0))

    return Quantizer(max_disagreement=max_disagreement, run=run)


def static_int8(*, max_disagreement: float, samples: int, seed: int) -> Quantizer:
    """`quant=int8_full`: weights and activations of FULLY_CONNECTED and GATHER, calibrated on training sentences.

    Attention products, soft-max, GELU and norms stay float: in int8 LiteRT runs them on slow reference kernels.
    """
    require_count("quant.samples", samples)

    def run(load, path: Path, train: Tokens) -> bytes:
        from litert_quantizer import qtyping, quantizer

        method = quantizer.Quantizer(str(path))
        for operation in (qtyping.TFLOperationName.FULLY_CONNECTED, qtyping.TFLOperationName.GATHER):
            method.add_static_config(".*", operation, activation_num_bits=8, weight_num_bits=8)
        return _quantized(method, _samples(train, samples, seed))

    return Quantizer(max_disagreement=max_disagreement, run=run)


def _samples(train: Tokens, count: int, seed: int) -> list[dict[str, np.ndarray]]:
    """`count` training sentences, drawn with `seed`, as inputs of the signature."""
    chosen = np.random.default_rng(seed).permutation(len(train))[:count]
    rows = [train.sentence(int(i))[None] for i in chosen]
    return [{"input_ids": row, "attention_mask": np.ones_like(row)} for row in rows]


def _quantized(method, samples: list[dict[str, np.ndarray]]) -> bytes:
    with without_chatter(), _quiet():
        ranges = method.calibrate({SIGNATURE: samples}, num_threads=2)
        return bytes(method.quantize(ranges).quantized_model)
