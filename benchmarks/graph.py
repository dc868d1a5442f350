"""What is in .tflite files: their operations, which of them XNNPACK runs, where the time goes, how far the limit is.

python benchmarks/graph.py RUN_OR_BUNDLE_OR_FILE ... [--compare OLD NEW] [--seconds 15] [--out docs/graph.md]

Writes docs/graph.md. Operations are read from the file. Which of them XNNPACK runs is read from the interpreter, after
its first sentence: a DELEGATE stands for all operations between its inputs and its outputs. LiteRT's Python package has
no profiler of operations, so the time is taken by Linux's `perf`, if there is one: it says which kernel of XNNPACK the
process is in, a thousand times a second. The rates of products are those of files that have one FULLY_CONNECTED each,
cut out of the file. All times are processor time of one thread, which other work on the machine changes less than the
clock. --compare, which may be repeated, runs two files in turns.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "graph.md"
sys.path[:0] = [str(ROOT)]

from optim.export import bundle  # noqa: E402
from optim.export.compress import SUFFIX, decompress  # noqa: E402
from optim.export.flatbuffer import Graph  # noqa: E402
from optim.measure.device import machine  # noqa: E402
from optim.measure.runtime import Classifier  # noqa: E402

LENGTHS = (128, 24)
PER_SECOND = 1000  # samples of perf
LOADS, ROUNDS = 6, 8  # of a comparison: rounds of each load
LARGE = (512, 2048, 2048)  # rows, inputs, outputs of the product that shows the machine's peak
OUTSIDE = "outside of layers"

# Kernels of XNNPACK, by the start or a part of their names -> what they do. The first that fits counts.
KERNELS = (
    (r"xnn_(qd8|qp8|qs8|qdu8|qu8)\w*gemm_minmax", "products of int8 or int4 kernels: FULLY_CONNECTED"),
    (r"xnn_f32_gemm|xnn_f32_qc\w*gemm", "float32 products: BATCH_MATMUL, and FULLY_CONNECTED of a float32 file"),
    (r"pack_lh|rminmax|qs8_vcvt|qd8", "rounding of what int8 products take, as it comes"),
    (r"packw", "packing of keys and values for BATCH_MATMUL"),
    (r"gelu", "GELU"),
    (r"raddstoreexp|_rmax_|softmax|reciprocal", "SOFTMAX, but for its last step"),
    (r"rsum|rdsum|rsqrt|mean", "means of LayerNorm"),
    (r"_v(add|sub|mul|sqrdiff|rsub)c?_|elementwise", "element by element: sums, LayerNorm, last step of SOFTMAX"),
    (r"memmove|memcpy|transpose|slice", "copies: TRANSPOSE, RESHAPE, slices"),
)
LITERT = "the rest of LiteRT"
OTHER = "Python, NumPy, and the rest of the process"

# Found by hand, on the machine of docs/graph.md as it lies in the repository.
TRIED = """\
## What was tried, and where the limit is

Changes to the file of a MiniLM-L6 as int8, 128 tokens, 44 to 46 rounds in turns. The ratio is of processor time, the
median of the rounds and its quartiles. The first three are kept, and each has those above it. Their ratios are to the
graph before them. The others are to the graph with all three.

| change | ratio | kept |
|---|---|---|
| tokens are reshaped once for their heads: 18 slices and 18 reshapes fewer | 0.973 (0.949 to 0.990) | yes |
| the first token, with no axis dropped, which XNNPACK refuses: one delegate, not two | 0.968 (0.943 to 0.988) | yes |
| x * x, not SQUARED_DIFFERENCE: XNNPACK takes the mean of squares in one pass | 0.950 (0.909 to 0.970) | yes |
| one product for q, k and v, then TRANSPOSE, then SPLIT | 0.99 (0.94 to 1.03) | no |
| one product for q, k and v, then TRANSPOSE, then three SLICE | 1.10 (1.06 to 1.13) | no |
| the shift of each LayerNorm added to the bias of the next product, not to its sum | 1.00 (0.98 to 1.04) | no |
| no mask added to the scores at all, which only shows what it costs | 0.98 (0.95 to 1.04) | no |

- One product for q, k and v saves two roundings of its input a layer. What it gives must be parted again, which costs
  as much.
- GELU is one operation in the file. SOFTMAX is one. The mask is made once. XNNPACK has no LayerNorm: it is nine
  operations here, and one more for the sum before it.
- The int8 products are at the rate that LiteRT has here: a large one is no faster. A loop of nothing but the AMX
  instructions of the processor, in C, reaches 7,900 to 8,200 GOP/s on one thread, seven times as much. So the limit is
  XNNPACK's kernel `qd8_f32_qc8w_gemm_16x64c4__avx512amx`. No change to the file reaches it.
- The int8 products are two fifths of the time at 128 tokens. The rest is float32: attention, GELU, SOFTMAX, LayerNorm.
- All three together, MiniLM-L6 as int8 at 128 tokens: 0.946 to 0.973 in six loads of both files, 0.954 at the median.
  The table above has fewer calls for each file, so its ratios are rougher.
- With these three the float32 file gives the same answers, to 5e-6 of a logit, and so does the int8 file on all 872
  sentences of dev. As `int8_full` the file takes 0.85 of its time before (0.84 to 0.87, 22 rounds).
- ONNX Runtime's int8 took 8.87 ms where the file before took 4.68, in a comparison older than that of
  [RESULTS.md](../benchmarks/RESULTS.md). For 0.45 of that it would have to take 3.99 ms, a seventh less. The three
  changes are a third of the way.
- What stays out of XNNPACK are operations on whole numbers: the lookups of embeddings, the cast of the mask, and the
  count of positions. Together they hardly take time.
"""


@dataclass(frozen=True)
class Operation:
    """One of a file, as it runs: its place, its type, and `layer N`, or OUTSIDE."""

    index: int
    kind: str
    layer: str


@dataclass(frozen=True)
class Product:
    """A FULLY_CONNECTED: rows x inputs by inputs x outputs. Rows are those of the sentence."""

    index: int
    rows: int
    inputs: int
    outputs: int
    weight_bits: int

    @property
    def operations(self) -> int:
        """Multiplications and additions."""
        return 2 * self.rows * self.inputs * self.outputs

    @property
    def weight_bytes(self) -> int:
        """Of the kernel."""
        return self.inputs * self.outputs * self.weight_bits // 8


# What a file has
def operations(content: bytes) -> list[Operation]:
    """In the order in which they run."""
    graph = Graph.of(content)
    return [
        Operation(index, graph.kind(operator), layer_of(graph.name(operator.outputs[0])))
        for index, operator in enumerate(graph.operators)
    ]


def layer_of(name: str) -> str:
    """`layer N` of an operation by the name of its output: the last one in it, as some operations join several."""
    layers = [int(number) for number in re.findall(r"\blayer(\d+)_", name)]
    return f"layer {max(layers)}" if layers and not re.search(r"\b(pooler|classifier)\b", name) else OUTSIDE


def sizes(content: bytes, length: int) -> list[list[int]]:
    """The shape of every tensor, by its index, when each input that may vary has `length`.

    The file says -1 of some that are always 1, so they are those of a run. It is one without XNNPACK, which keeps the
    shapes of what it makes to itself.
    """
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = Interpreter(model_content=content, experimental_op_resolver_type=plain)
    inputs = interpreter.get_input_details()
    for one in inputs:
        interpreter.resize_tensor_input(one["index"], [length if n == -1 else int(n) for n in one["shape_signature"]])
    interpreter.allocate_tensors()
    for one in interpreter.get_input_details():
        interpreter.set_tensor(one["index"], np.zeros(one["shape"], one["dtype"]))
    interpreter.invoke()
    count = len(Graph.of(content).tensors)
    return [[int(n) for n in interpreter._get_tensor_details(index, 0)["shape"]] for index in range(count)]


def products(content: bytes, length: int) -> list[Product]:
    """Every FULLY_CONNECTED, at `length` tokens."""
    graph, shapes, found = Graph.of(content), sizes(content, length), []
    bits = {"FLOAT32": 32, "FLOAT16": 16, "INT8": 8, "INT4": 4}
    for index, operator in enumerate(graph.operators):
        if graph.kind(operator) == "FULLY_CONNECTED":
            outputs, inputs = graph.shape(operator.inputs[1])
            rows = int(np.prod(shapes[operator.outputs[0]][:-1]))
            found.append(Product(index, rows, inputs, outputs, bits.get(graph.type_of(operator.inputs[1]), 8)))
    return found


def attention_operations(content: bytes, length: int) -> int:
    """Multiplications and additions of every BATCH_MATMUL at `length` tokens."""
    graph, shapes, total = Graph.of(content), sizes(content, length), 0
    for operator in graph.operators:
        if graph.kind(operator) == "BATCH_MATMUL":
            total += 2 * int(np.prod(shapes[operator.outputs[0]])) * shapes[operator.inputs[0]][-1]
    return total


def delegated(path: Path, length: int) -> set[int]:
    """The indices of the operations that XNNPACK runs, of a classifier's file."""
    interpreter = _interpreter(path)
    run = interpreter.get_signature_runner()
    run(input_ids=np.ones((1, length), np.int32), attention_mask=np.ones((1, length), np.int32))
    return inside(interpreter._get_ops_details())


def inside(details: Sequence[Mapping[str, Any]]) -> set[int]:
    """The indices of the operations that the DELEGATEs among `details` stand for."""
    makers = {int(t): one for one in details if one["op_name"] != "DELEGATE" for t in one["outputs"]}
    found: set[int] = set()
    for delegate in (one for one in details if one["op_name"] == "DELEGATE"):
        taken, todo = {int(t) for t in delegate["inputs"]}, [int(t) for t in delegate["outputs"]]
        while todo:
            tensor = todo.pop()
            maker = makers.get(tensor)
            if maker is None or tensor in taken or maker["index"] in found:
                continue
            found.add(maker["index"])
            todo += [int(t) for t in maker["inputs"]]
    return found


# How long it takes
def cpu_ms(call: Callable[[], object], *, seconds: float, least: int = 10) -> np.ndarray:
    """Milliseconds of this thread on a processor, per call, after three free ones."""
    for _ in range(3):
        call()
    times, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < least:
        start = time.thread_time_ns()
        call()
        times.append((time.thread_time_ns() - start) / 1e6)
    return np.array(times)


def ids_of(length: int) -> np.ndarray:
    """Token ids that every vocabulary has."""
    return np.resize(np.arange(1, 30), length).astype(np.int32)


def in_turns(old: Path, new: Path, length: int, *, loads: int = LOADS, rounds: int = ROUNDS) -> np.ndarray:
    """Milliseconds [2, loads * rounds] of old and new, medians of turns, in opposite order each round.

    Both are loaded anew for each set of rounds, in another order: a file is slower or faster by some percent in one
    process, by where its weights came to lie in memory.
    """
    turns: list[list[float]] = [[], []]
    for load in range(loads):
        order = [0, 1] if load % 2 else [1, 0]
        classifiers = {which: Classifier((old, new)[which], 1) for which in order}
        for _ in range(rounds):
            for which in order:
                call = partial(classifiers[which].logits, ids_of(length))
                turns[which].append(float(np.median(cpu_ms(call, seconds=0, least=max(5, 600 // length)))))
            order.reverse()
    return np.array(turns)


def kernels(path: Path, length: int, seconds: float) -> tuple[Counter[str], float] | None:
    """(samples of perf by group of KERNELS, median ms of a sentence); None where there is no perf that works."""
    if not shutil.which("perf"):
        return None
    command = [sys.executable, __file__, "--loop", str(path), str(length), str(seconds + 4)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child, tempfile.TemporaryDirectory() as folder:
        assert child.stdout
        child.stdout.readline()  # it is warm
        data = f"{folder}/perf.data"
        record = ["perf", "record", "-q", "-e", "cpu-clock:u", "-F", str(PER_SECOND), "-o", data, "-p", str(child.pid)]
        subprocess.run([*record, "--", "sleep", str(seconds)], check=False, capture_output=True)
        script = ["perf", "script", "-i", data, "-F", "ip,sym,dso"]
        lines = subprocess.run(script, check=False, capture_output=True, text=True).stdout.splitlines()
        said = child.communicate()[0]
    counts = Counter(group_of(line) for line in lines if line.strip())
    return (counts, json.loads(said)) if counts else None


def group_of(line: str) -> str:
    """What the kernel of one line of `perf script` does."""
    ours = "litert" in line.lower() or "tflite" in line.lower()
    for pattern, group in KERNELS:
        if re.search(pattern, line) and (ours or "memmove" in line or "memcpy" in line):
            return group
    return LITERT if ours else OTHER


def loop(path: Path, length: int, seconds: float) -> None:
    """Runs sentences, says a line when it is warm, and at the end the median of their milliseconds."""
    classifier, ids = Classifier(path, 1), ids_of(length)
    cpu_ms(lambda: classifier.logits(ids), seconds=0.5)
    print("warm", flush=True)
    print(json.dumps(float(np.median(cpu_ms(lambda: classifier.logits(ids), seconds=seconds)))))


# Products alone
def cut(content: bytes, index: int, *, size: tuple[int, int] | None = None) -> bytes:
    """A file of the FULLY_CONNECTED at `index` alone; `size`: with a kernel of ones, (inputs, outputs)."""
    graph = Graph.of(content)
    operator = graph.operators[index]
    if size is not None:
        _resize(graph, operator, *size)
    subgraph = graph.model.subgraphs[0]
    # All tensors stay, so that the indices do; only the buffers that are read keep their content.
    read = {graph.tensors[t].buffer for t in operator.inputs if t >= 0}
    for number, buffer in enumerate(graph.model.buffers):
        if number not in read:
            buffer.data = None
    subgraph.operators, subgraph.inputs, subgraph.outputs = [operator], operator.inputs[:1], operator.outputs[:1]
    graph.model.signatureDefs, graph.model.metadata, graph.model.metadataBuffer = [], [], []
    for tensor in (operator.inputs[0], operator.outputs[0]):
        width = graph.shape(tensor)[-1]
        graph.tensors[tensor].shape, graph.tensors[tensor].shapeSignature = [1, width], [-1, width]
    return graph.bytes()


def _resize(graph: Graph, operator: Any, inputs: int, outputs: int) -> None:
    """Another kernel and bias for a FULLY_CONNECTED; the kernel has one scale for each output, or is float32."""
    kernel = graph.tensors[operator.inputs[1]]
    kind = np.float32 if graph.type_of(operator.inputs[1]) == "FLOAT32" else np.int8
    for tensor, value in ((1, np.ones((outputs, inputs), kind)), (2, np.zeros(outputs, np.float32))):
        graph.tensors[operator.inputs[tensor]].shape = list(value.shape)
        graph.set_constant(operator.inputs[tensor], value)
    if kind is np.int8:
        kernel.quantization.scale, kernel.quantization.zeroPoint = [0.01] * outputs, [0] * outputs
    for tensor, width in ((operator.inputs[0], inputs), (operator.outputs[0], outputs)):
        graph.tensors[tensor].shape = [1, width]


def product_ms(content: bytes, rows: int, seconds: float) -> float:
    """Milliseconds of a file made by `cut`, for that many rows."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content, num_threads=1)
    (taken,) = interpreter.get_input_details()
    interpreter.resize_tensor_input(taken["index"], [rows, int(taken["shape"][-1])])
    interpreter.allocate_tensors()
    values = np.random.default_rng(0).normal(size=(rows, int(taken["shape"][-1]))).astype(np.float32)
    interpreter.set_tensor(taken["index"], values)
    return float(np.median(cpu_ms(interpreter.invoke, seconds=seconds)))


def bytes_per_ms(size: int = 2**28) -> float:
    """The memory's bandwidth, by one thread that copies 256 MB: bytes read and written in a millisecond."""
    source, target = np.ones(size, np.uint8), np.zeros(size, np.uint8)
    return 2 * size / float(np.min(cpu_ms(lambda: np.copyto(target, source), seconds=1, least=5)))


# The page
def operations_table(found: Sequence[Operation], fast: set[int]) -> list[str]:
    """One row for each type: how often it is in the file, in each layer and outside of layers, and not in XNNPACK."""
    layers = [*sorted({one.layer for one in found} - {OUTSIDE}, key=lambda name: int(name.split()[1])), OUTSIDE]
    counts = Counter((one.kind, one.layer) for one in found)
    slow = Counter(one.kind for one in found if one.index not in fast)
    kinds = sorted({one.kind for one in found}, key=lambda kind: (-sum(counts[kind, own] for own in layers), kind))
    rows = [[kind, sum(counts[kind, own] for own in layers), *(counts[kind, own] for own in layers), slow[kind]]
            for kind in kinds]  # fmt: skip
    total = ["all", *(sum(column) for column in zip(*(row[1:] for row in rows), strict=True))]
    return table(["operation", "in the file", *layers, "not in XNNPACK"], [*rows, total])


def table(head: Iterable[object], rows: Iterable[Iterable[object]]) -> list[str]:
    """A Markdown table; 0 is left empty."""
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join("" if cell == 0 and cell != "0" else str(cell) for cell in row) + " |" for row in lines]


def profile_part(path: Path, length: int, seconds: float) -> list[str]:
    """The time of kernels at `length` tokens."""
    found = kernels(path, length, seconds)
    if found is None:
        return [f"No profile at {length} tokens: there is no `perf` here, or it may not look at processes."]
    counts, total_ms = found
    samples = sum(counts.values())
    rows = [[group, f"{100 * n / samples:.1f} %", f"{total_ms * n / samples:.2f}"] for group, n in counts.most_common()]
    return [f"At {length} tokens a sentence takes {total_ms:.2f} ms ({samples:,} samples):", "",
            *table(["kernels", "share", "ms"], rows)]  # fmt: skip


def limit_part(content: bytes, length: int, seconds: float, bandwidth: float) -> list[str]:
    """The products of the file at `length` tokens beside what the machine can do."""
    own = products(content, length)
    alike = Counter((p.rows, p.inputs, p.outputs, p.weight_bits) for p in own)
    first = {(p.rows, p.inputs, p.outputs, p.weight_bits): p.index for p in reversed(own)}
    whole = [index for key, index in first.items() if key[3] in (8, 32)]
    peak = 0.0
    if whole:
        rows, inputs, outputs = LARGE
        large_ms = product_ms(cut(content, whole[0], size=(inputs, outputs)), rows, seconds)
        peak = 2 * rows * inputs * outputs / large_ms / 1e6
    lines, rows_ms = [], 0.0
    for key, count in sorted(alike.items(), key=lambda item: -item[1] * item[0][0] * item[0][1] * item[0][2]):
        one = Product(first[key], *key)
        ms = product_ms(cut(content, one.index), one.rows, seconds / 3)
        rows_ms += count * ms
        rate = one.operations / ms / 1e6
        lines.append([f"{one.rows} x {one.inputs} by {one.inputs} x {one.outputs}", one.weight_bits, count,
                      f"{ms:.3f}", f"{rate:,.0f}", f"{count * ms:.2f}"])  # fmt: skip
    amount, weights = sum(p.operations for p in own), sum(p.weight_bytes for p in own)
    said = [f"FULLY_CONNECTED at {length} tokens, each alone in a file of its own:", "",
            *table(["product", "bits", "times", "ms of one", "GOP/s", "ms of all"], lines), "",
            f"Together {amount / 1e9:.2f} GOP in {rows_ms:.2f} ms. BATCH_MATMUL has "
            f"{attention_operations(content, length) / 1e9:.2f} GOP more.",
            f"The kernels are {weights / 1e6:.1f} MB, which memory gives in {weights / bandwidth:.2f} ms "
            f"({bandwidth / 1e6:.1f} GB/s)."]  # fmt: skip
    if peak:
        said.append(f"One product of {' x '.join(map(str, LARGE))} reaches {peak:,.0f} GOP/s in LiteRT: at that rate "
                    f"those of the file would take {amount / peak / 1e6:.2f} ms.")  # fmt: skip
    return said


def file_part(where: Path, path: Path, seconds: float, bandwidth: float) -> list[str]:
    """All about one file."""
    content = path.read_bytes()
    found, fast = operations(content), delegated(path, LENGTHS[0])
    slow = [f"{one.kind} ({one.index})" for one in found if one.index not in fast]
    counted = f"{len(found)} operations, {len(slow)} of them not in XNNPACK{': ' if slow else ''}{', '.join(slow)}."
    said = [f"## {title(where, path)}", "", *textwrap.wrap(counted, 116), "", *operations_table(found, fast)]
    for length in LENGTHS:
        said += ["", *profile_part(path, length, seconds)]
    return [*said, "", *limit_part(content, LENGTHS[0], seconds / 5, bandwidth), ""]


def title(where: Path, path: Path) -> str:
    """What the run was, of a run folder; else the name of the file."""
    result = where / "result.json"
    if not result.is_file():
        return path.name if where.is_file() else where.name
    choices = json.loads(result.read_text(encoding="utf-8"))["choices"]
    return ", ".join(f"{key}={choices[key]}" for key in ("model", "slim", "quant"))


def compare_part(pairs: Sequence[tuple[Path, Path]]) -> list[str]:
    """The present file beside an earlier one."""
    rows = []
    for old, new in pairs:
        for length in LENGTHS:
            old_ms, new_ms = turns = in_turns(file_of(old), file_of(new), length)
            loads = [np.median(own) for own in np.split(turns[1] / turns[0], LOADS)]
            rows.append([title(old, file_of(old)), title(new, file_of(new)), length, f"{np.median(old_ms):.2f}",
                         f"{np.median(new_ms):.2f}", f"{np.median(turns[1] / turns[0]):.3f}",
                         f"{min(loads):.3f} to {max(loads):.3f}"])  # fmt: skip
    head = ["before", "after", "tokens", "before, ms", "after, ms", "ratio", "of each load"]
    return [f"## In turns, {LOADS} loads of {ROUNDS} rounds", "", *table(head, rows), ""]


def file_of(where: Path) -> Path:
    """The .tflite file of a run folder, of a bundle, or itself; a compressed one is unpacked into another folder."""
    path = bundle.model_in(bundle.bundle_of(where)) if where.is_dir() else where
    if path.suffix != SUFFIX:
        return path
    unpacked = Path(tempfile.mkdtemp()) / path.stem
    unpacked.write_bytes(decompress(path))
    return unpacked


def _interpreter(path: Path) -> Any:
    from ai_edge_litert.interpreter import Interpreter

    return Interpreter(model_path=str(path), num_threads=1)


def head() -> list[str]:
    """What the page is, and of which machine."""
    here = machine()
    return [
        "# What is in a file, and where its time goes", "",
        f"Written by `python benchmarks/graph.py` on {date.today().isoformat()}: {here['cpu']}, {here['cores']} cores,",
        f"ISA {', '.join(here['isa'])}; ai-edge-litert {here['versions']['ai-edge-litert']}.",
        "All times are processor time of one thread, on a machine with other work: read the ratios.",
        "How each figure is found stands at the top of the script. What is not in XNNPACK has its place in the file",
        "behind it. The operations of the mask are named after layer 0; they run once.", "",
    ]  # fmt: skip


def main() -> None:
    """Writes the page."""
    if sys.argv[1:2] == ["--loop"]:
        return loop(Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="*", help="run folders, bundles or .tflite files")
    parser.add_argument("--compare", type=Path, nargs=2, action="append", default=[], metavar=("OLD", "NEW"))
    parser.add_argument("--seconds", type=float, default=15.0, help="of each profile")
    parser.add_argument("--out", type=Path, default=PAGE)
    args = parser.parse_args()
    said, bandwidth = head(), bytes_per_ms()
    for where in args.files:
        said += file_part(where, file_of(where), args.seconds, bandwidth)
    if args.compare:
        said += compare_part(args.compare)
    args.out.write_text("\n".join([*said, TRIED]).rstrip() + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
