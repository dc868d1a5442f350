"""Whether zeros make a file faster: it is timed in turns with itself, its zeros replaced by other weights.

Both files have one graph and one layout, to the byte: nothing but the zeros can make a difference.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from optim.export.compress import content_of
from optim.measure.device import TURN_MS, calls_of, interleaved_turns_ms, token_windows
from optim.measure.latency import Bench, loads_of, machine_lock

ROUNDS = 8  # turns of each file: 7 of 8 to one side are chance with p = 0.035
FASTER = 1.05  # what counts: two loads of one file lie some percent apart, by where its weights come to lie in memory
CHANCE = 0.05
UNKNOWN: dict[str, Any] = {"zeros_accelerated": None, "zeros_speedup": None}


def zeros_speed(path: Path, ids: np.ndarray, *, bench: Bench) -> dict[str, Any]:
    """zeros_accelerated, and zeros_speedup: the latency with the zeros filled, over that of the file as it is.

    ids: int32, real sentences end to end. At bench.sequence_length, in ROUNDS turns of 200 ms each, or of
    bench.min_seconds where that is less: 3 to 4 seconds on the clock.
    """
    turn_ms = min(TURN_MS, 1000 * bench.min_seconds)
    with tempfile.TemporaryDirectory() as folder:
        files = {name: Path(folder) / f"{name}.tflite" for name in ("file", "filled")}
        files["file"].write_bytes(content := content_of(path))  # beside the other: both are read from one place
        files["filled"].write_bytes(filled(content))
        calls = calls_of(loads_of(files, bench), token_windows(ids, bench.sequence_length))
        with machine_lock():
            turns = interleaved_turns_ms(
                calls, warmup=bench.warmup_calls, min_calls=1, min_seconds=0.0, min_turns=ROUNDS, turn_ms=turn_ms
            )
    return verdict(turns["file"], turns["filled"])


def verdict(own: Sequence[np.ndarray], other: Sequence[np.ndarray]) -> dict[str, Any]:
    """Of milliseconds of each call, turn by turn: the median ratio of two turns of a round, and whether it is above
    FASTER by an exact one-sided sign test over the rounds (Dixon & Mood 1946), p < CHANCE.
    """
    from scipy.special import bdtrc

    ratios = np.array([np.median(b) / np.median(a) for a, b in zip(own, other, strict=True)])
    won = int(np.sum(ratios > FASTER))
    by_chance = float(bdtrc(won - 1, len(ratios), 0.5)) if won else 1.0  # at least as many of so many fair coins
    return {"zeros_accelerated": by_chance < CHANCE, "zeros_speedup": float(np.median(ratios))}


def filled(content: bytes) -> bytes:
    """The bytes of a .tflite file in which no weight is 0: each that was has another weight of its own matrix.

    Weights are the constants of two dimensions and more, of FLOAT32, FLOAT16, INT8 or INT4.
    """
    rng, changed = np.random.default_rng(0), bytearray(content)
    for weights, bits in _weights(changed):
        if bits == 4:
            halves = _without_zeros(np.stack([weights & 15, weights >> 4]), rng)
            weights[:] = halves[0] | (halves[1] << 4)
        else:
            weights[:] = _without_zeros(weights, rng)
    return bytes(changed)


def _without_zeros(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The values, with one of those that are not 0 in the place of each that is."""
    zero = values == 0
    rest, made = values[~zero], values.copy()
    if rest.size:
        made[zero] = rng.choice(rest, int(zero.sum()))
    return made


def _weights(content: bytearray) -> list[tuple[np.ndarray, int]]:
    """(values, bits of one) of each matrix in a file, once; writing to the values writes to `content`."""
    from ai_edge_litert import schema_py_generated as schema

    model: Any = schema.Model.GetRootAs(content, 0)
    kinds = {
        schema.TensorType.FLOAT32: (np.dtype("<f4"), 32),
        schema.TensorType.FLOAT16: (np.dtype("<f2"), 16),
        schema.TensorType.INT8: (np.dtype("i1"), 8),
        schema.TensorType.INT4: (np.dtype("u1"), 4),  # two in a byte, the first in its low half
    }
    graphs = [model.Subgraphs(i) for i in range(model.SubgraphsLength())]
    found: dict[int, tuple[np.ndarray, int]] = {}
    for tensor in (graph.Tensors(i) for graph in graphs for i in range(graph.TensorsLength())):
        if tensor.Type() in kinds and tensor.ShapeLength() >= 2 and tensor.Sparsity() is None:
            dtype, bits = kinds[tensor.Type()]
            found[tensor.Buffer()] = _values(content, model.Buffers(tensor.Buffer()), dtype), bits
    return [(values, bits) for values, bits in found.values() if values.size]


def _values(content: bytearray, buffer: Any, dtype: np.dtype) -> np.ndarray:
    """A buffer's bytes, in the file's tables or, as LiteRT's quantizer writes them, behind those."""
    if buffer.Offset() > 1:
        return np.frombuffer(content, dtype, buffer.Size() // dtype.itemsize, buffer.Offset())
    return buffer.DataAsNumpy().view(dtype) if buffer.DataLength() else np.empty(0, dtype)
