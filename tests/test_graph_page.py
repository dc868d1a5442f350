"""benchmarks/graph.py: what it counts in a file, what XNNPACK runs, how the time is grouped, and the page."""

# pyright: reportAttributeAccessIssue=false
from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import pytest
from tiny_tflite import IDS_AND_COUNT, write_table_file


@pytest.fixture
def graph(script):
    return script("graph")


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    """Two products of 256 x 256 for each token, and the sum of rows of a table."""
    return write_table_file(tmp_path_factory.mktemp("file") / "model.tflite", IDS_AND_COUNT, products=2)


@pytest.fixture(scope="module")
def attention_file(tmp_path_factory) -> Path:
    """Scores of 2 heads of 8 numbers."""
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec([1, 2, None, 8]), tf.TensorSpec([1, 2, None, 8])])
    def serve(query, key):
        return tf.matmul(query, key, transpose_b=True)

    converter = tf.lite.TFLiteConverter.from_concrete_functions([serve.get_concrete_function()])
    path = tmp_path_factory.mktemp("attention") / "model.tflite"
    path.write_bytes(converter.convert())
    return path


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("bert/layer0_attention/MatMul", "layer 0"),
        ("x;bert/layer0_ffn_norm/add_1;bert/layer1_key/MatMul;bert/layer1_key/BiasAdd1", "layer 1"),
        ("bert/layer11_gelu/Gelu/mul_1", "layer 11"),
        ("bert/layer5_ffn_norm/add_1;bert/pooler/MatMul", "outside of layers"),
        ("bert/embeddings_norm/Mean", "outside of layers"),
    ],
)
def test_an_operation_is_of_the_layer_that_its_output_is_named_after(graph, name, layer):
    assert graph.layer_of(name) == layer


def test_a_file_of_two_products_has_two(graph, file):
    found = graph.operations(file.read_bytes())
    assert [one.index for one in found] == list(range(len(found)))
    kinds = Counter(one.kind for one in found)
    assert (kinds["FULLY_CONNECTED"], kinds["GATHER"], kinds["TANH"]) == (2, 1, 1)
    products = graph.products(file.read_bytes(), 7)
    assert [(p.rows, p.inputs, p.outputs, p.weight_bits) for p in products] == [(7, 256, 256, 32)] * 2
    assert products[0].operations == 2 * 7 * 256 * 256
    assert products[0].weight_bytes == 256 * 256 * 4


def test_attention_is_counted_at_the_length_of_the_sentence(graph, attention_file):
    assert graph.attention_operations(attention_file.read_bytes(), 5) == 2 * (2 * 5 * 5) * 8


def test_what_delegates_stand_for_is_found_between_their_inputs_and_outputs(graph):
    """0 -> 1 -> 2 -> 3, and 1 is read by nobody else: the delegate takes what 0 makes and gives what 2 makes."""
    details = [
        {"index": i, "op_name": "ADD", "inputs": [10 + i], "outputs": [11 + i]} for i in range(4)
    ] + [{"index": 4, "op_name": "DELEGATE", "inputs": [11], "outputs": [13]}]  # fmt: skip
    assert graph.inside(details) == {1, 2}
    assert graph.inside(details[:4]) == set()


def test_xnnpack_runs_the_products_and_not_the_lookup(graph, file):
    fast = graph.delegated(file, 4)
    kinds = {one.kind: one.index in fast for one in graph.operations(file.read_bytes())}
    assert kinds["FULLY_CONNECTED"]
    assert not kinds["GATHER"]


@pytest.mark.parametrize("size", [None, (64, 32)])
def test_a_product_runs_alone(graph, file, size):
    content = file.read_bytes()
    product = graph.products(content, 3)[0]
    alone = graph.cut(content, product.index, size=size)
    assert [one.kind for one in graph.operations(alone)] == ["FULLY_CONNECTED"]
    (only,) = graph.products(alone, 3)
    assert (only.rows, only.inputs, only.outputs) == (3, *(size or (256, 256)))
    assert graph.product_ms(alone, 3, 0.01) > 0


@pytest.mark.parametrize(
    ("line", "group"),
    [
        ("f7 xnn_qd8_f32_qc8w_gemm_minmax_ukernel_16x64c4__avx512amx (/x/libpywrap_litert_common.so)", "int8 or int4"),
        ("f7 xnn_f32_gemm_minmax_ukernel_7x32__avx512f_broadcast (/x/libpywrap_litert_common.so)", "BATCH_MATMUL"),
        ("f7 xnn_x32_packw_gemm_goi_ukernel_x32__avx512f_u4_prfm (/x/libpywrap_litert_common.so)", "packing"),
        ("f7 xnn_f32_vgelu_ukernel__avx512f (/x/libpywrap_litert_common.so)", "GELU"),
        ("f7 xnn_f32_rminmax_ukernel__avx512f_u64_acc4 (/x/libpywrap_litert_common.so)", "rounding"),
        ("f7 xnn_f32_vsqrdiffc_ukernel__avx512f_u32 (/x/libpywrap_litert_common.so)", "element by element"),
        ("f7 __memmove_avx512_unaligned_erms (/usr/lib/libc.so.6)", "copies"),
        ("f7 tflite::Subgraph::InvokeImpl (/x/libpywrap_litert_common.so)", "the rest of LiteRT"),
        ("f7 _PyEval_EvalFrameDefault (/usr/lib/libpython3.11.so)", "Python"),
    ],
)  # fmt: skip
def test_a_kernel_counts_for_what_it_does(graph, line, group):
    assert group in graph.group_of(line)


def test_turns_are_of_both_files_in_every_load(graph, file):
    turns = graph.in_turns(file, file, 8, loads=2, rounds=3)
    assert turns.shape == (2, 6)
    assert (turns > 0).all()


def test_the_page_has_every_part_without_perf(graph, file, tmp_path, monkeypatch):
    monkeypatch.setattr(graph.shutil, "which", lambda name: None)
    monkeypatch.setattr(graph, "LARGE", (4, 64, 64))
    monkeypatch.setattr(graph, "LENGTHS", (8, 4))
    monkeypatch.setattr(graph, "bytes_per_ms", lambda: 1e6)
    out = tmp_path / "graph.md"
    monkeypatch.setattr(sys, "argv", ["graph.py", str(file), "--seconds", "0.05", "--out", str(out)])
    graph.main()
    page = out.read_text(encoding="utf-8")
    assert "| FULLY_CONNECTED | 2 | 2 |  |\n" in page  # in the file, outside of layers, not in XNNPACK
    assert "| GATHER | 1 | 1 | 1 |\n" in page
    assert "No profile at 8 tokens" in page
    assert "| 8 x 256 by 256 x 256 | 32 | 2 |" in page
    assert "The kernels are 0.5 MB, which memory gives in 0.52 ms" in page
    assert all(len(line) <= 120 for line in page.splitlines() if not line.startswith("|"))
