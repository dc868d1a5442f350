"""What the precisions of `conf/quant` leave in a file, and the traps that they step around."""

# pyright: reportAttributeAccessIssue=false, reportArgumentType=false
from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import CONF
from small_fit import SHAPE, tokens_of

from optim.common.errors import UserError
from optim.export import flatbuffer, quantize
from optim.export.convert import convert
from optim.export.flatbuffer import Graph, float_tensors
from optim.export.quantize import Student, small_kernels
from optim.measure.runtime import Classifier
from optim.train.fake_quant import FakeQuant

WIDE = replace(SHAPE, width=64, head_width=32, ffn_widths=(96, 96))  # blocks of 32 divide everything, of 64 not ffn_out


@dataclass
class Case:
    """A model of two layers with seeded weights, its float32 file, and what both say of some sentences."""

    student: Student
    model: Any  # of one sentence
    folder: Path

    def answers(self, content: bytes) -> np.ndarray:
        """float32 [sentences, classes] of a file."""
        path = self.folder / "made.tflite"
        path.write_bytes(content)
        classifier = Classifier(path, 1)
        return np.array([classifier.logits(self.student.train.sentence(i)) for i in range(40)])


def case_of(folder: Path, edit=lambda model: None) -> Case:
    import tf_keras as keras

    from optim.encoder import graph

    keras.utils.set_random_seed(0)
    model = graph.classifier(WIDE, single=True)
    rng = np.random.default_rng(0)
    for variable in model.weights:  # larger than at birth, norms and biases too: rounding must show
        variable.assign(variable.numpy() + rng.normal(0, 0.2, variable.shape))
    edit(model)
    (folder / "float32.tflite").write_bytes(convert(model))
    student = Student(load=lambda: model, float32_path=folder / "float32.tflite", train=tokens_of(60))
    return Case(student, model, folder)


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return case_of(tmp_path_factory.mktemp("quantize"))


@pytest.fixture(scope="module")
def float32(case: Case) -> np.ndarray:
    return case.answers(case.student.float32_path.read_bytes())


def blocks(**arguments: Any):
    return quantize.dynamic_blocks(
        **{"max_disagreement": 1.0, "kernel_bits": 8, "block": 32, "embedding_bits": 8, **arguments}
    )


def integer(bits: int):
    return quantize.integer(max_disagreement=1.0, activation_bits=bits, samples=40, seed=0, source="train")


def kinds(content: bytes) -> Counter:
    graph = Graph.of(content)
    return Counter(graph.kind(operator) for operator in graph.operators)


def stored(content: bytes) -> dict[str, set[str]]:
    """Operator -> types of the weights that it reads."""
    graph, found = Graph.of(content), {}
    place = {"FULLY_CONNECTED": 1, "EMBEDDING_LOOKUP": 1, "GATHER": 0}
    for operator in graph.operators:
        if (kind := graph.kind(operator)) in place:
            found.setdefault(kind, set()).add(graph.type_of(operator.inputs[place[kind]]))
    return found


def test_every_option_stands_in_the_table_of_precisions():
    rows = [line.split("|")[1].strip() for line in (quantize.__doc__ or "").splitlines() if line.startswith("|")]
    assert sorted(rows[2:]) == sorted(path.stem for path in (CONF / "quant").glob("*.yaml"))


def test_lookups_answer_as_gather_does(case, float32):
    content = flatbuffer.with_lookups(case.student.float32_path.read_bytes())
    assert kinds(content)["EMBEDDING_LOOKUP"] == 2  # words and positions
    assert "GATHER" not in kinds(content)
    np.testing.assert_array_equal(case.answers(content), float32)


@pytest.mark.parametrize(
    ("arguments", "kernels", "table", "off"),
    [
        ({}, {"INT8"}, {"INT8"}, 0.1),
        ({"embedding_bits": 4}, {"INT8"}, {"INT4"}, 0.5),
        ({"kernel_bits": 4}, {"INT4", "INT8"}, {"INT8"}, 1.0),  # the classifier stays int8
        ({"kernel_bits": 4, "block": None}, {"INT4", "INT8"}, {"INT8"}, 1.2),
        ({"kernel_bits": 4, "embedding_bits": 4}, {"INT4", "INT8"}, {"INT4"}, 1.2),
    ],
)
def test_weights_have_the_bits_that_were_asked_for(case, float32, arguments, kernels, table, off):
    content = blocks(**arguments).run(case.student)
    assert stored(content) == {"FULLY_CONNECTED": kernels, "EMBEDDING_LOOKUP": table}
    found = np.abs(case.answers(content) - float32).max()
    assert 0 < found < off * np.abs(float32).max()


def test_a_kernel_that_blocks_do_not_divide_stays_int8_and_is_named(case, caplog):
    with caplog.at_level("INFO", logger="optim"):
        content = blocks(kernel_bits=4, block=64).run(case.student)
    graph = Graph.of(content)
    wide = {graph.name(operator.outputs[0]): graph.type_of(operator.inputs[1])
            for operator in graph.operators if graph.kind(operator) == "FULLY_CONNECTED"}  # fmt: skip
    whole = {name for name in ("layer0_ffn_out", "layer1_ffn_out", "layer1_query")
             for output, kind in wide.items() if f"{name}/" in output and kind == "INT8"}  # fmt: skip
    assert whole == {"layer0_ffn_out", "layer1_ffn_out"}
    assert "layer0_ffn_out, layer1_ffn_out" in caplog.text


def test_a_pruned_block_runs_though_its_scale_would_be_zero(tmp_path, monkeypatch):
    """The trap is real: as the quantizer writes it, XNNPACK refuses the file."""

    def prune(model):
        kernel = model.get_layer("layer0_ffn_in").kernel
        kernel.assign(np.where(np.arange(64)[:, None] < 32, 0, kernel.numpy()))

    case = case_of(tmp_path, prune)
    answers = case.answers(blocks(kernel_bits=4).run(case.student))
    assert np.isfinite(answers).all()
    monkeypatch.setattr(quantize, "without_zero_scales", lambda content: content)
    with pytest.raises(UserError, match="unsupported scale value"):
        case.answers(blocks(kernel_bits=4).run(case.student))


@pytest.mark.parametrize(("products", "calibrated"), [("all", 14), ("attention", 8), ("ffn", 4), ("but_ffn_out", 10)])
def test_products_take_int8_where_they_are_calibrated(case, float32, products, calibrated):
    """Two layers have 4 products each in attention and 2 in the feed-forward network; pooler and classifier are 2."""
    static = quantize.static_int8(max_disagreement=1.0, products=products, samples=40, seed=0, source="train")
    content = static.run(case.student)
    graph = Graph.of(content)
    taken = [(graph.name(o.outputs[0]), graph.type_of(o.inputs[0])) for o in graph.operators
             if graph.kind(o) == "FULLY_CONNECTED"]  # fmt: skip
    assert len(taken) == 14
    assert sum(kind == "INT8" for _, kind in taken) == calibrated
    own = {"all": "/MatMul|:0$", "attention": "(query|key|value|attention_output)/MatMul",
           "ffn": "ffn_(in|out)/MatMul", "but_ffn_out": "(query|key|value|attention_output|ffn_in)/MatMul"}  # fmt: skip
    assert all(bool(re.search(own[products], name)) == (kind == "INT8") for name, kind in taken)
    assert stored(content) == {"FULLY_CONNECTED": {"INT8"}, "GATHER": {"INT8"}}
    assert np.abs(case.answers(content) - float32).mean() < 0.3 * np.abs(float32).max()


def test_float32_file_has_no_copies_that_a_reshape_saves_and_squares_that_xnnpack_sums_at_once(tmp_path):
    """Slices: one of the mask, one of the ids, and the first token, by an operation that XNNPACK runs."""
    import tf_keras as keras

    from optim.encoder import graph

    keras.utils.set_random_seed(0)
    content = convert(graph.classifier(replace(WIDE, pooling="first"), single=True))
    found = kinds(content)
    assert (found["STRIDED_SLICE"], found["SLICE"], found["SQUARED_DIFFERENCE"]) == (2, 1, 0)
    file = Graph.of(content)
    squares = [one for one in file.operators if file.kind(one) == "MUL" and one.inputs[0] == one.inputs[1]]
    assert len(squares) == 5  # of two norms a layer, and of that of the embeddings


def test_int8_full_has_no_float_and_its_logits_carry_their_scale(case, float32):
    content = integer(8).run(case.student)
    assert float_tensors(content) == []
    graph = Graph.of(content)
    signature = graph.model.signatureDefs[0]
    assert [graph.type_of(entry.tensorIndex) for entry in signature.outputs] == ["INT8"]
    assert {graph.type_of(entry.tensorIndex) for entry in signature.inputs} == {"INT32"}
    answers = case.answers(content)
    assert answers.dtype == np.float32
    assert np.abs(answers - float32).mean() < 0.3 * np.abs(float32).max()


def test_int16_is_closer_than_int8_and_its_table_is_int8(case, float32):
    content = integer(16).run(case.student)
    assert float_tensors(content) == []
    assert stored(content) == {"FULLY_CONNECTED": {"INT8"}, "GATHER": {"INT8"}}
    graph = Graph.of(content)
    assert graph.type_of(graph.model.signatureDefs[0].outputs[0].tensorIndex) == "INT16"
    near, far = (np.abs(case.answers(c) - float32).mean() for c in (content, integer(8).run(case.student)))
    assert near < far


def test_a_float_that_is_left_is_an_error(case, monkeypatch):
    monkeypatch.setattr(quantize, "with_integer_casts", lambda content: content)
    with pytest.raises(RuntimeError, match="no int8 form of CAST"):
        integer(8).run(case.student)


def dense(model) -> dict[str, tuple]:
    return {name: tuple(model.get_layer(name).get_weights()) for name in quantize.encoder_kernels(model)}


def test_unfolding_gives_products_what_their_layers_take(case, float32):
    """The converter folds norms into kernels; those of the unfolded file are the Keras ones, the query's scaled."""
    content, found = flatbuffer.unfolded(case.student.float32_path.read_bytes(), dense(case.model))
    assert len(found) == 12
    assert {name: round(factor, 4) for name, (_, _, factor) in found.items() if factor != pytest.approx(1)} == {
        "layer0_query": 0.1768, "layer1_query": 0.1768}  # fmt: skip
    np.testing.assert_allclose(case.answers(content), float32, atol=1e-4)
    graph, seen = Graph.of(content), 0
    for operator in graph.operators:
        for name, (kernel, _) in dense(case.model).items():
            if graph.kind(operator) == "FULLY_CONNECTED" and found[name][1] == graph.name(operator.outputs[0]):
                held = np.frombuffer(graph.constant(operator.inputs[1]) or b"", np.float32).reshape(kernel.T.shape)
                np.testing.assert_allclose(held, kernel.T * found[name][2], rtol=1e-5)
                seen += 1
    assert seen == 12


def test_a_kernel_that_is_pruned_to_the_last_weight_has_the_factor_of_its_bias(tmp_path):
    def prune(model):
        for name in ("layer1_query", "layer0_ffn_in"):
            kernel = model.get_layer(name).kernel
            kernel.assign(0 * kernel.numpy())

    case = case_of(tmp_path, prune)
    whole = case.student.float32_path.read_bytes()
    content, found = flatbuffer.unfolded(whole, dense(case.model))
    assert found["layer1_query"][2] == pytest.approx(32**-0.5)
    assert found["layer0_ffn_in"][2] == pytest.approx(1)
    np.testing.assert_allclose(case.answers(content), case.answers(whole), atol=1e-4)


def test_a_kernel_that_the_converter_changed_otherwise_is_an_error(case):
    others = {name: (kernel + 1, bias) for name, (kernel, bias) in dense(case.model).items()}
    with pytest.raises(RuntimeError, match="in a way that quant=int8_qat does not know"):
        flatbuffer.unfolded(case.student.float32_path.read_bytes(), others)


@pytest.mark.parametrize("products", list(quantize.PRODUCTS))
def test_a_fit_rounds_what_the_products_of_its_file_take(products):
    qat = quantize.qat_int8(max_disagreement=1.0, products=products, samples=40, seed=0, source="train", memory=0.9)
    assert qat.wrappers == (FakeQuant(memory=0.9, ranged=quantize.PRODUCTS[products]),)


@pytest.mark.parametrize(("products", "ranged"), [("all", 12), ("but_ffn_out", 10)])
def test_the_file_of_a_fit_has_the_ranges_of_the_fit(products, ranged, case):
    """Of 12 kernels; of the others the file takes and gives floats.

    -1 to 4.1 are steps of 0.02 from the 50th on, so 0 is -128 + 50; -3 to 3.12 are steps of 0.024 from the 125th.
    """
    qat = quantize.qat_int8(max_disagreement=1.0, products=products, samples=40, seed=0, source="train", memory=0.9)
    names = [name for name in dense(case.model) if re.search(quantize.PRODUCTS[products], f"{name}/")]
    ranges = {name: np.array([-1.0, 4.1, -3.0, 3.12], np.float32) for name in names}
    graph = Graph.of(qat.run(replace(case.student, ranges=ranges)))
    scales, zeros = {}, {}
    for operator in graph.operators:
        if graph.kind(operator) == "FULLY_CONNECTED":
            ends = [graph.tensors[i].quantization for i in (operator.inputs[0], operator.outputs[0])]
            if all(end.scale is not None for end in ends):
                scales[graph.name(operator.outputs[0])] = tuple(end.scale[0] for end in ends)
                zeros[graph.name(operator.outputs[0])] = [int(end.zeroPoint[0]) for end in ends]
    assert len(ranges) == ranged
    assert len(scales) == (14 if products == "all" else ranged), "pooler and classifier are calibrated with all"
    ffn, query = (next(name for name in scales if f"{part}/" in name) for part in ("layer0_ffn_in", "layer1_query"))
    assert scales[ffn] == pytest.approx((0.02, 0.024), rel=1e-3)
    assert scales[query] == pytest.approx((0.02, 0.024 * 32**-0.5), rel=1e-3)
    assert zeros[ffn] == zeros[query] == [-78, -3]


def test_mixed_takes_the_longest_piece_that_loses_little_enough():
    steps = [([], 0.0), (["a"], -0.4), (["a", "b"], 0.2), (["a", "b", "c"], -0.9)]
    together = [{"kernels": names, "accuracy_points": p, "low": p - 1, "high": p + 1} for names, p in steps]
    table = {"order_int4": ["a", "b", "c"], "examples": 100, "together_int4": together}
    assert small_kernels(table, 0.5) == ["a", "b"], "a loss that the next kernel makes good is no obstacle"
    assert small_kernels(table, 0.9) == ["a", "b", "c"]
    assert small_kernels({**table, "together_int4": table["together_int4"][3:]}, 0.5) == []


def test_mixed_has_int4_where_the_table_says(case):
    together = [{"kernels": ["layer1_key"], "accuracy_points": 0.0, "low": -1.0, "high": 1.0}]
    table = {"order_int4": ["layer1_key"], "examples": 10, "together_int4": together}
    content = quantize.mixed(max_disagreement=1.0, max_drop_points=0.5, block=32).run(
        replace(case.student, tables={quantize.SENSITIVITY: table})
    )
    graph = Graph.of(content)
    small = [graph.name(o.outputs[0]) for o in graph.operators if graph.kind(o) == "FULLY_CONNECTED"
             and graph.type_of(o.inputs[1]) == "INT4"]  # fmt: skip
    assert len(small) == 1
    assert "layer1_key/" in small[0]


def test_a_calibration_draws_from_its_source(case):
    tokens = case.student.train
    student = replace(case.student, rows={"held_out": np.array([3, 5, 7])})
    drawn = quantize.Calibration(samples=3, seed=0, source="held_out").drawn(student)
    found = sorted(row["input_ids"][0].tolist() for row in drawn)
    assert found == sorted(tokens.sentence(i).tolist() for i in (3, 5, 7))
    with pytest.raises(UserError, match=r"asks for 4 sentences, quant\.source=held_out has 3: set quant\.samples=3"):
        quantize.Calibration(samples=4, seed=0, source="held_out").drawn(student)


@pytest.mark.parametrize(
    "made", [blocks(kernel_bits=4), quantize.mixed(max_disagreement=1.0, max_drop_points=1, block=32)]
)
def test_a_model_without_a_kernel_for_blocks_is_refused(made):
    """TinyBERT's 312 and 1200: its file would be int8 throughout."""
    odd = replace(WIDE, width=312, head_width=26, heads=(12, 12), ffn_widths=(1200, 1200))
    with pytest.raises(UserError, match=r"quant\.block=32 divides the inputs of no kernel of this model"):
        made.refuse(odd)
    made.refuse(WIDE)
    blocks(kernel_bits=4, block=None).refuse(odd)


@pytest.mark.parametrize("block", [32, 64])
def test_as_many_weights_share_a_scale_as_are_asked_for(case, block):
    graph = Graph.of(blocks(kernel_bits=4, block=block).run(case.student))
    (query,) = [graph.tensors[o.inputs[1]] for o in graph.operators
                if graph.kind(o) == "FULLY_CONNECTED" and "layer0_query/" in graph.name(o.outputs[0])]  # fmt: skip
    scales = np.frombuffer(graph.constant(query.quantization.details.scales) or b"", np.float16)
    assert len(scales) == 64 * 64 // block


def test_each_output_of_an_int8_kernel_has_a_scale_and_a_table_has_one(case):
    graph = Graph.of(quantize.dynamic_int8(max_disagreement=1.0).run(case.student))
    of_kernels, of_tables = [], []
    for operator in graph.operators:
        if (kind := graph.kind(operator)) in ("FULLY_CONNECTED", "GATHER"):
            weights = operator.inputs[1 if kind == "FULLY_CONNECTED" else 0]
            found = (len(graph.tensors[weights].quantization.scale), graph.shape(weights)[0])
            (of_kernels if kind == "FULLY_CONNECTED" else of_tables).append(found)
    assert len(of_kernels) == 14
    assert all(scales == outputs for scales, outputs in of_kernels)
    assert sorted(of_tables) == [(1, 32), (1, 40)], "positions and words"


@pytest.mark.parametrize("block", [32, 64])
def test_as_many_numbers_of_an_embedding_share_a_scale_as_are_asked_for(case, block):
    """Of 40 words and 32 positions, 64 numbers each."""
    graph = Graph.of(blocks(embedding_bits=4, block=block).run(case.student))
    tables = [graph.tensors[o.inputs[1]] for o in graph.operators if graph.kind(o) == "EMBEDDING_LOOKUP"]
    assert all(table.quantization.details for table in tables), "blocks have a tensor of scales, rows have none"
    scales = [len(np.frombuffer(graph.constant(table.quantization.details.scales) or b"", np.float16))
              for table in tables]  # fmt: skip
    assert sorted(scales) == [32 * 64 // block, 40 * 64 // block]
