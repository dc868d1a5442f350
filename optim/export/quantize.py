"""Keras classifier -> .tflite bytes, in the precision that a method of `conf/quant` asks for.

Every method starts from the same float32 file, so that what it costs can be measured against that file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from optim.common.build import method
from optim.common.errors import require_count, require_fraction
from optim.common.screen import without_chatter
from optim.data.tokens import Tokens
from optim.export.convert import SIGNATURE, _quiet, convert
from optim.train.wrap import Wrapper

GATHER_SAMPLES = 8  # sentences that show the embedding's range to `int8`; its weights decide, so a few are enough


@dataclass(frozen=True, kw_only=True)
class Student:
    """What a quantizer may use of a student."""

    load: Callable[[], Any]  # -> the Keras model of one sentence, float32
    float32_path: Path  # its float32 .tflite file
    train: Tokens  # training sentences, for calibration
    ranges: Mapping[str, np.ndarray] = field(default_factory=dict)  # what wrappers of the fit measured, by name
    tables: Mapping[str, Any] = field(default_factory=dict)  # name -> what earlier steps made: those it asked for


@dataclass(frozen=True, kw_only=True)
class Quantizer:
    """One way of writing the file."""

    max_disagreement: float  # fraction of dev answers in which the file may differ from the Keras student
    run: Callable[[Student], bytes]  # -> the new file
    tables: tuple[str, ...] = ()  # that it asks for, by name
    wrappers: tuple[Wrapper, ...] = ()  # that the student must be fitted with, fake quantization for one

    def __post_init__(self) -> None:
        require_fraction("quant.max_disagreement", self.max_disagreement, one=True)


@method("quant", "float32")
def float32(*, max_disagreement: float) -> Quantizer:
    """`quant=none`: the float32 file as it is."""
    return Quantizer(max_disagreement=max_disagreement, run=lambda student: student.float32_path.read_bytes())


@method("quant", "float16")
def float16(*, max_disagreement: float) -> Quantizer:
    """`quant=fp16`: weights as float16, arithmetic in float32; the converter's, which alone halves GATHER too."""
    return Quantizer(max_disagreement=max_disagreement, run=lambda student: convert(student.load(), half=True))


@method("quant", "dynamic_int8")
def dynamic_int8(*, max_disagreement: float) -> Quantizer:
    """`quant=int8`: int8 weights of FULLY_CONNECTED, whose inputs are quantized as they come, and of GATHER.

    Kernels have one scale for each output, the embeddings one in all.
    """

    def run(student: Student) -> bytes:
        from litert_quantizer import qtyping, quantizer

        recipe = quantizer.Quantizer(str(student.float32_path))
        recipe.add_dynamic_config(".*", qtyping.TFLOperationName.FULLY_CONNECTED, num_bits=8)
        recipe.add_static_config(".*", qtyping.TFLOperationName.GATHER, activation_num_bits=8, weight_num_bits=8)
        return _quantized(recipe, _samples(student.train, GATHER_SAMPLES, seed=0))

    return Quantizer(max_disagreement=max_disagreement, run=run)


@method("quant", "static_int8")
def static_int8(*, max_disagreement: float, samples: int, seed: int) -> Quantizer:
    """`quant=int8_full`: weights and activations of FULLY_CONNECTED and GATHER, calibrated on training sentences.

    Attention products, soft-max, GELU and norms stay float: in int8 LiteRT runs them on slow reference kernels.
    """
    require_count("quant.samples", samples)

    def run(student: Student) -> bytes:
        from litert_quantizer import qtyping, quantizer

        recipe = quantizer.Quantizer(str(student.float32_path))
        for operation in (qtyping.TFLOperationName.FULLY_CONNECTED, qtyping.TFLOperationName.GATHER):
            recipe.add_static_config(".*", operation, activation_num_bits=8, weight_num_bits=8)
        return _quantized(recipe, _samples(student.train, samples, seed))

    return Quantizer(max_disagreement=max_disagreement, run=run)


def _samples(train: Tokens, count: int, seed: int) -> list[dict[str, np.ndarray]]:
    """`count` training sentences, drawn with `seed`, as inputs of the signature."""
    chosen = np.random.default_rng(seed).permutation(len(train))[:count]
    rows = [train.sentence(int(i))[None] for i in chosen]
    return [{"input_ids": row, "attention_mask": np.ones_like(row)} for row in rows]


def _quantized(recipe, samples: list[dict[str, np.ndarray]]) -> bytes:
    with without_chatter(), _quiet():
        ranges = recipe.calibrate({SIGNATURE: samples}, num_threads=2)
        return bytes(recipe.quantize(ranges).quantized_model)
