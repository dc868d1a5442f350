"""Keras classifier -> .tflite bytes, in the precision that a method of `conf/quant` asks for.

| quant       | kernels               | embeddings         | what products take          | all the rest | logits  |
|-------------|-----------------------|--------------------|-----------------------------|--------------|---------|
| none        | float32               | float32            | float32                     | float32      | float32 |
| fp16        | float16               | float16            | float32                     | float32      | float32 |
| int8        | int8, each output     | int8, the table    | int8, scaled as they come   | float32      | float32 |
| int8_emb4   | int8, each output     | int4, 32 of a row  | int8, scaled as they come   | float32      | float32 |
| int4        | int4, 32 of an output | int8, each row     | int8, scaled as they come   | float32      | float32 |
| int4_emb4   | int4, 32 of an output | int4, 32 of a row  | int8, scaled as they come   | float32      | float32 |
| mixed       | int8 or int4, by each | int8, each row     | int8, scaled as they come   | float32      | float32 |
| int8_static | int8, each output     | int8, the table    | int8, calibrated            | float32      | float32 |
| int8_part   | int8, each output     | int8, the table    | int8, calibrated for some   | float32      | float32 |
| int8_qat    | int8, each output     | int8, the table    | int8, the fit's for most    | float32      | float32 |
| int8_full   | int8, each output     | int8, the table    | int8, calibrated            | int8         | int8    |
| int16x8     | int8, each output     | int8, the table    | int16, calibrated           | int16        | int16   |
| int8_auto   | that of int8, int8_static, int8_part and int8_emb4 which does best on this machine                  |

How a name decodes: `int8`, `int4`: the kernels. `_emb4`: the embeddings, where they are not int8. `static`: the ranges
of what products take are fixed, by calibration or (`qat`) by the fit, not found anew for each token. `part`: those of
some products alone, as with `qat` (`quant.products`). `full`: not only products. `16x8`: what is computed, by what is
stored. "each output": one scale for each output of a kernel; "32 of an output": one for each block of 32 of the weights
that make one output (`quant.block`).

Token ids and the mask are int32 in every file, so that a file with integers everywhere takes and gives integers alone;
its logits carry their scale, and `measure/runtime.py` gives them back as float32. That one is for NPUs and
micro-controllers: on a CPU, attention products, soft-max, GELU and norms fall to LiteRT's slow reference kernels.

Every method but `float16`, which the converter itself writes, starts from the same float32 file. What a method costs is
measured against that file.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from optim.common.build import method
from optim.common.errors import UserError, require_count, require_fraction, require_not_negative, require_seed
from optim.common.screen import without_chatter
from optim.cut.importance import SENSITIVITY
from optim.data.tokens import Tokens
from optim.encoder.architecture import Architecture
from optim.encoder.kernels import prunable_shapes
from optim.export.choice import Choice
from optim.export.convert import SIGNATURE, _quiet, convert
from optim.export.flatbuffer import (
    float_tensors,
    unfolded,
    with_integer_casts,
    with_lookups,
    without_zero_scales,
)
from optim.train.fake_quant import FakeQuant, encoder_kernels
from optim.train.prune import prunable
from optim.train.wrap import Wrapper

GATHER_SAMPLES = 8  # sentences that show the embedding's range to `int8`; its weights decide, so a few are enough
SOURCES = ("train", "whole", "held_out")
PRODUCTS = {  # whose ranges may be fixed, by the names of their kernels
    "all": ".*", "attention": r"_(query|key|value|attention_output)/", "ffn": r"_ffn\d*_(in|out)/",
    # What a feed-forward network gives has a few values of a hundred beside all others of one (Bondarenko et al. 2021,
    # arXiv:2109.12948): one scale of 8 bits does not hold both.
    "but_ffn_out": r"_(query|key|value|attention_output|ffn\d*_in)/",
}  # fmt: skip
BLOCKS = (32, 64, 128, 256)  # weights that may share a scale, in LiteRT
CANDIDATES = "candidates"  # that of a quantizer that chooses (`measure/candidates.py`)

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Student:
    """What a quantizer, or the maker of a table, may use of a student."""

    load: Callable[[], Any]  # -> the Keras model of one sentence, float32
    float32_path: Path  # its float32 .tflite file
    train: Tokens  # training sentences, for calibration
    ranges: Mapping[str, np.ndarray] = field(default_factory=dict)  # what wrappers of the fit measured, by name
    tables: Mapping[str, Any] = field(default_factory=dict)  # name -> what earlier steps made: those it asked for
    files: Mapping[str, Path] = field(default_factory=dict)  # of the candidates of a choice, by name
    load_batch: Callable[[], Any] | None = None  # -> the Keras model of any batch, float32
    rows: Mapping[str, np.ndarray] = field(default_factory=dict)  # of SOURCES: int [n] of `train`; `train` is all of it


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """The sentences that show a quantizer what it will meet. None of them is one of dev."""

    samples: int
    seed: int  # that draws them
    # train: any row | whole: whole sentences, where rows are phrases | held_out: the held-out slice of train
    source: str

    def __post_init__(self) -> None:
        require_count("quant.samples", self.samples)
        require_seed("quant.seed", self.seed)
        if self.source not in SOURCES:
            raise UserError(f"quant.source must be one of {', '.join(SOURCES)}; got {self.source!r}.")

    def require(self, available: int) -> None:
        """Raises UserError unless the source has that many sentences."""
        if available < self.samples:
            raise UserError(
                f"quant.samples asks for {self.samples:,} sentences, quant.source={self.source} has {available:,}: "
                f"set quant.samples={available} or less."
            )

    def drawn(self, student: Student) -> list[dict[str, np.ndarray]]:
        """They as inputs of the signature."""
        rows = student.rows.get(self.source)
        tokens = student.train if rows is None else student.train.take(rows)
        self.require(len(tokens))
        return _samples(tokens, self.samples, self.seed)


@dataclass(frozen=True, kw_only=True)
class Quantizer:
    """One way of writing the file."""

    max_disagreement: float  # fraction of dev answers in which the file may differ from the Keras student
    run: Callable[[Student], bytes]  # -> the new file
    tables: tuple[str, ...] = ()  # that it asks for, by name
    wrappers: tuple[Wrapper, ...] = ()  # that the student must be fitted with, fake quantization for one
    calibration: Calibration | None = None
    choice: Choice | None = None  # of one that takes the file of another
    refuse: Callable[[Architecture], None] = lambda shape: None  # raises UserError for a model that it can't write

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


@method("quant", "dynamic_blocks")
def dynamic_blocks(*, max_disagreement: float, kernel_bits: int, block: int | None, embedding_bits: int) -> Quantizer:
    """`quant=int4`, `int8_emb4`, `int4_emb4`: weights of 4 or 8 bits, what products take quantized as it comes.

    block: weights that share a scale where they have 4 bits; None: all that make one output, or all of a row. Kernels
    whose inputs it does not divide stay int8. The embeddings are read by EMBEDDING_LOOKUP: LiteRT's GATHER has one
    scale for the whole table, which 4 bits do not survive.
    """
    _require_bits("quant.kernel_bits", kernel_bits)
    _require_bits("quant.embedding_bits", embedding_bits)
    _require_block(block)

    def run(student: Student) -> bytes:
        content = with_lookups(student.float32_path.read_bytes())
        small = prunable(student.load()) if kernel_bits == 4 else []
        return _blocks_file(student, content, small=small, block=block, embedding_bits=embedding_bits)

    def refuse(shape: Architecture) -> None:
        if kernel_bits == 4:
            _refuse_indivisible(shape, block)
        width = shape.bottleneck.embedding_width if shape.bottleneck else shape.width
        if embedding_bits == 4 and block is not None and width % block:
            raise UserError(
                f"quant.block={block} must divide the {width} numbers of an embedding: choose "
                f"{' or '.join([*(f'{b}' for b in BLOCKS if width % b == 0), 'quant.embedding_bits=8'])}."
            )

    return Quantizer(max_disagreement=max_disagreement, run=run, refuse=refuse)


@method("quant", "mixed", version=3)  # that of its table
def mixed(*, max_disagreement: float, max_drop_points: float, block: int | None) -> Quantizer:
    """`quant=mixed`: int4 for the kernels that bear it, int8 for the others, by the table `sensitivity`.

    The table takes kernels to int4 one after another, those first whose answers change least, and says what accuracy is
    lost with each more, on the held-out slice of train. The most are taken that lose no more than max_drop_points
    there.
    """
    require_not_negative("quant.max_drop_points", max_drop_points)
    _require_block(block)
    table = sensitivity_of(block)

    def run(student: Student) -> bytes:
        small = small_kernels(student.tables[table], max_drop_points)
        content = with_lookups(student.float32_path.read_bytes())
        return _blocks_file(student, content, small=small, block=block, embedding_bits=8)

    return Quantizer(max_disagreement=max_disagreement, run=run, tables=(table,),
                     refuse=lambda shape: _refuse_indivisible(shape, block))  # fmt: skip


def sensitivity_of(block: int | None) -> str:
    """The name of the table `sensitivity` whose int4 has blocks of so many weights."""
    return SENSITIVITY if block == BLOCKS[0] else f"{SENSITIVITY}_{block or 'output'}"


def small_kernels(table: Mapping[str, Any], max_drop_points: float) -> list[str]:
    """The kernels of the longest piece of `together` that loses no more than `max_drop_points`."""
    fitting = [one for one in table["together_int4"] if -one["accuracy_points"] <= max_drop_points + 1e-9]
    chosen = max(fitting, key=lambda one: len(one["kernels"]), default={"kernels": []})
    log.info("mixed     %d of %d kernels in int4: %s", len(chosen["kernels"]), len(table["order_int4"]),
             "none loses so little" if not fitting else f"{chosen['accuracy_points']:+.2f} points of accuracy "
             f"({chosen['low']:+.2f} to {chosen['high']:+.2f}) on {table['examples']} held-out sentences")  # fmt: skip
    return list(chosen["kernels"])


@method("quant", "auto")
def auto(*, max_disagreement: float, candidates: Sequence[str], max_drop_points: float, tie: float) -> Quantizer:
    """`quant=int8_auto`: the file of one of the candidates, by what they do on this machine: the table `candidates`.

    `Choice` has the rule. Accuracy is that on the held-out slice of train.
    """
    choice = Choice(candidates=tuple(candidates), max_drop_points=max_drop_points, tie=tie)

    def run(student: Student) -> bytes:
        return student.files[choice.taken(student.tables[CANDIDATES])].read_bytes()

    return Quantizer(max_disagreement=max_disagreement, run=run, choice=choice)


@method("quant", "static_int8")
def static_int8(*, max_disagreement: float, products: str, samples: int, seed: int, source: str) -> Quantizer:
    """`quant=int8_static`: weights and activations of FULLY_CONNECTED and GATHER, calibrated on training sentences.

    `int8_part`: those of some products; what the others take is quantized as it comes, as in `int8`.
    Attention products, soft-max, GELU and norms stay float: in int8 LiteRT runs them on slow reference kernels.
    """
    calibration = Calibration(samples=samples, seed=seed, source=source)
    _scope(products)

    def run(student: Student) -> bytes:
        from litert_quantizer import quantizer

        recipe = _partly_static(quantizer.Quantizer(str(student.float32_path)), products)
        return _quantized(recipe, calibration.drawn(student))

    return Quantizer(max_disagreement=max_disagreement, run=run, calibration=calibration)


@method("quant", "integer")
def integer(*, max_disagreement: float, activation_bits: int, samples: int, seed: int, source: str) -> Quantizer:
    """`quant=int8_full`, `int16x8`: no float is left in the file, from the token ids to the logits.

    The calibration is of sentences without padding, whose masks are all ones: give a file of this kind no other.
    """
    calibration = Calibration(samples=samples, seed=seed, source=source)
    if activation_bits not in (8, 16):
        raise UserError(f"quant.activation_bits must be 8 or 16, got {activation_bits}.")

    def run(student: Student) -> bytes:
        from litert_quantizer import qtyping, quantizer

        recipe = quantizer.Quantizer(str(student.float32_path))
        everything, table = qtyping.TFLOperationName.ALL_SUPPORTED, qtyping.TFLOperationName.GATHER
        recipe.add_static_config(".*", everything, activation_num_bits=activation_bits, weight_num_bits=8)
        recipe.add_static_config(".*", table, activation_num_bits=8, weight_num_bits=8)  # of int16 it is twice as large
        content = with_integer_casts(_quantized(recipe, calibration.drawn(student)))
        if left := float_tensors(content):
            raise RuntimeError(f"LiteRT has no int{activation_bits} form of {', '.join(left[:5])}")
        return content

    return Quantizer(max_disagreement=max_disagreement, run=run, calibration=calibration)


@method("quant", "qat_int8", version=3)
def qat_int8(*, max_disagreement: float, products: str, samples: int, seed: int, source: str,
             memory: float) -> Quantizer:  # fmt: skip
    """`quant=int8_qat`: the student is fitted with the rounding of its file (Jacob et al. 2018, arXiv:1712.05877).

    Kernels of the encoder's layers, and what `products` of them take and give, are rounded as the file rounds them, and
    the file has the ranges that the fit has seen. What other products take is quantized as it comes, as in `int8`; with
    `all`, pooler and classifier are calibrated. So are the embeddings. See `train/fake_quant.py`.
    """
    calibration = Calibration(samples=samples, seed=seed, source=source)
    scope = _scope(products)
    wrapper = FakeQuant(memory=memory, ranged=scope)

    def run(student: Student) -> bytes:
        from litert_quantizer import quantizer

        model = student.load()
        dense = {name: tuple(model.get_layer(name).get_weights()) for name in encoder_kernels(model)}
        content, found = unfolded(student.float32_path.read_bytes(), dense)
        if missing := sorted(set(dense) - set(found)):
            raise RuntimeError(f"the float32 file has no product for {', '.join(missing[:5])}")
        recipe = _partly_static(quantizer.Quantizer(bytearray(content)), products)
        return _quantized(recipe, calibration.drawn(student), _fitted_ranges(found, student.ranges))

    return Quantizer(max_disagreement=max_disagreement, run=run, calibration=calibration, wrappers=(wrapper,),
                     refuse=_refuse_mobilebert)  # fmt: skip


def _scope(products: str) -> str:
    """The pattern of a name of PRODUCTS."""
    if products not in PRODUCTS:
        raise UserError(f"quant.products must be one of {', '.join(PRODUCTS)}; got {products!r}.")
    return PRODUCTS[products]


def _partly_static(recipe: Any, products: str) -> Any:
    """The recipe with fixed ranges for these products and the embeddings; what others take is quantized as it comes."""
    from litert_quantizer import qtyping

    product, table = qtyping.TFLOperationName.FULLY_CONNECTED, qtyping.TFLOperationName.GATHER
    if products != "all":
        recipe.add_dynamic_config(".*", product, num_bits=8)
    for scope, operation in ((_scope(products), product), (".*", table)):
        recipe.add_static_config(scope, operation, activation_num_bits=8, weight_num_bits=8)
    return recipe


def _refuse_mobilebert(shape: Architecture) -> None:
    if shape.family == "mobilebert":
        raise UserError(
            "quant=int8_qat does not know a mobilebert, whose scales the converter multiplies into its kernels: "
            "choose quant=int8 or quant=int8_static."
        )


def _fitted_ranges(found: Mapping[str, tuple[str, str, float]], ranges: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Name of a tensor -> its range, as the quantizer has them, for each layer of `ranges`, which the fit has seen."""
    fitted: dict[str, Any] = {}
    for layer, seen in ranges.items():
        taken, given, factor = found[layer]
        low, high, out_low, out_high = (float(value) for value in seen)
        for name, least, most in ((taken, low, high), (given, out_low * factor, out_high * factor)):
            fitted[name] = {"min": np.array([[least]], np.float32), "max": np.array([[most]], np.float32)}
    return fitted


def _blocks_file(student: Student, content: bytes, *, small: Sequence[str], block: int | None,
                 embedding_bits: int) -> bytes:  # fmt: skip
    """`content`, a float32 file, with `small` kernels in int4 and the others in int8, inputs quantized as they come."""
    from litert_quantizer import qtyping, quantizer

    granularity = qtyping.QuantGranularity
    blocks = granularity.CHANNELWISE if block is None else granularity[f"BLOCKWISE_{block}"]
    product, lookup = qtyping.TFLOperationName.FULLY_CONNECTED, qtyping.TFLOperationName.EMBEDDING_LOOKUP
    recipe = quantizer.Quantizer(bytearray(content))
    recipe.add_dynamic_config(".*", product, num_bits=8)
    for name in _divided(student, small, block):
        recipe.add_dynamic_config(f"/{name}/", product, num_bits=4, granularity=blocks)
    recipe.add_dynamic_config(".*", lookup, num_bits=embedding_bits,
                              granularity=blocks if embedding_bits == 4 else granularity.CHANNELWISE)  # fmt: skip
    return without_zero_scales(_quantized(recipe, []))


def _divided(student: Student, names: Sequence[str], block: int | None) -> list[str]:
    """The kernels whose inputs `block` divides; LiteRT has no blocks of other sizes. The others are said."""
    if block is None or not names:
        return list(names)
    model = student.load()
    odd = [name for name in names if model.get_layer(name).kernel.shape[0] % block]
    if odd:
        log.info("export    stay int8, as blocks of %d do not divide their inputs: %s", block, ", ".join(odd))
    return [name for name in names if name not in odd]


def _refuse_indivisible(shape: Architecture, block: int | None) -> None:
    """Raises UserError for a model none of whose kernels can have blocks: its file would hold no int4 at all."""
    if block is not None and all(inputs % block for inputs, _ in prunable_shapes(shape).values()):
        raise UserError(
            f"quant.block={block} divides the inputs of no kernel of this model, so none would be int4: "
            "choose quant=int8, or quant.block=null, which can collapse."
        )


def _require_bits(setting: str, value: int) -> None:
    if value not in (4, 8):
        raise UserError(f"{setting} must be 4 or 8, got {value}.")


def _require_block(value: int | None) -> None:
    if value is not None and value not in BLOCKS:
        raise UserError(f"quant.block must be null or one of {', '.join(map(str, BLOCKS))}; got {value}.")


def _samples(train: Tokens, count: int, seed: int) -> list[dict[str, np.ndarray]]:
    """`count` training sentences, drawn with `seed`, as inputs of the signature."""
    chosen = np.random.default_rng(seed).permutation(len(train))[:count]
    rows = [train.sentence(int(i))[None] for i in chosen]
    return [{"input_ids": row, "attention_mask": np.ones_like(row)} for row in rows]


def _quantized(recipe, samples: list[dict[str, np.ndarray]], known: Mapping[str, Any] | None = None) -> bytes:
    """The file of a recipe; `known` ranges win over those of the samples."""
    with without_chatter(), _quiet():
        ranges = recipe.calibrate({SIGNATURE: samples}, num_threads=2)
        return bytes(recipe.quantize({**ranges, **(known or {})}).quantized_model)
