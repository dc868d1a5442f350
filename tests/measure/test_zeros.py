"""Whether zeros make a file faster: files and stand-ins whose times are known, and what the other file holds."""

# pyright: reportPrivateUsage=false
from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_tflite import IDS_AND_COUNT, write_table_file

from optim.measure import device, latency, zeros
from optim.measure.runtime import Classifier

QUICK = latency.Bench(sequence_length=16, threads=1, warmup_calls=1, min_calls=5, min_seconds=0.05)
IDS = np.arange(1, 45, dtype=np.int32)


@pytest.fixture(autouse=True)
def own_lock(tmp_path, monkeypatch):
    """No test waits for a measurement that happens to run on this machine."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A light file and one with the same logits and 8 * 65,536 products a token more."""
    folder = tmp_path_factory.mktemp("zeros")
    light = write_table_file(folder / "light.tflite", IDS_AND_COUNT)
    return {"light": light, "heavy": write_table_file(folder / "heavy.tflite", IDS_AND_COUNT, products=8)}


class FakeClock:
    """Stands in for `time`: a call takes what the test says, times what the machine is slowed by just then."""

    def __init__(self, *slowed: float):
        self.now_ns, self.slowed, self.calls = 0, slowed or (1.0,), 0

    def perf_counter_ns(self):
        return self.now_ns

    def call(self, ms: float):
        def run():
            self.calls += 1
            self.now_ns += int(1e6 * ms * self.slowed[self.calls // 40 % len(self.slowed)])

        return run


@pytest.mark.parametrize(
    ("own_ms", "filled_ms", "accelerated"),
    [
        (10.0, 13.0, True),
        (10.0, 20.0, True),
        (10.0, 10.0, False),  # as fast
        (10.0, 10.3, False),  # so little is where the weights lie in memory
        (13.0, 10.0, False),  # slower
    ],
)
def test_the_verdict_is_that_of_known_times(own_ms, filled_ms, accelerated, files, monkeypatch):
    """On a machine that is three times slower now and then, for some turns at a time."""
    clock = FakeClock(1, 1, 3, 1, 2)
    monkeypatch.setattr(device, "time", clock)
    calls = {"file": clock.call(own_ms), "filled": clock.call(filled_ms)}
    monkeypatch.setattr(zeros, "calls_of", lambda *args, **more: calls)
    found = zeros.zeros_speed(files["light"], IDS, bench=latency.Bench(**{**vars(QUICK), "min_seconds": 3.0}))
    assert found["zeros_accelerated"] is accelerated
    assert found["zeros_speedup"] == pytest.approx(filled_ms / own_ms, rel=0.35)
    assert 8 * 2 * 200 / 3 < clock.now_ns / 1e6 < 8 * 2 * 200 * 2, "three to four seconds in all"


def test_a_steady_machine_reads_the_ratio(files, monkeypatch):
    clock = FakeClock()
    monkeypatch.setattr(device, "time", clock)
    calls = {"file": clock.call(8.0), "filled": clock.call(10.0)}
    monkeypatch.setattr(zeros, "calls_of", lambda *args, **more: calls)
    assert zeros.zeros_speed(files["light"], IDS, bench=QUICK) == {"zeros_accelerated": True, "zeros_speedup": 1.25}


@pytest.mark.parametrize(("faster", "accelerated"), [(8, True), (7, True), (6, False), (0, False)])
def test_seven_of_eight_rounds_are_hardly_chance(faster, accelerated):
    """Of 8 fair coins 7 and more fall to one side with 9 / 256 = 0.035, 6 and more with 37 / 256 = 0.145."""
    own = [np.array([10.0, 10.0, 90.0])] * 8  # a call that was disturbed is not the median
    other = [np.array([12.0])] * faster + [np.array([10.0])] * (8 - faster)
    assert zeros.verdict(own, other)["zeros_accelerated"] is accelerated


@pytest.mark.timed
def test_real_files_are_told_apart(files, monkeypatch):
    """A file that computes far more stands for the one without zeros; the other way round nothing is faster."""
    heavy, light = files["heavy"].read_bytes(), files["light"].read_bytes()
    monkeypatch.setattr(zeros, "filled", lambda content: heavy)
    found = zeros.zeros_speed(files["light"], IDS, bench=QUICK)
    assert found["zeros_accelerated"] is True
    assert found["zeros_speedup"] > 2
    monkeypatch.setattr(zeros, "filled", lambda content: light)
    assert zeros.zeros_speed(files["heavy"], IDS, bench=QUICK)["zeros_accelerated"] is False


# The other file


def test_a_filled_file_differs_in_its_zeros_alone_and_runs(tmp_path):
    """A table of halves of zeros: the graph and every other weight stay, and each new one is one of the table's."""
    table = np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32)
    table[::2] = 0
    path, other = write_table_file(tmp_path / "a.tflite", table), tmp_path / "b.tflite"
    other.write_bytes(zeros.filled(path.read_bytes()))
    assert other.stat().st_size == path.stat().st_size
    ids = np.arange(50)
    before, after = (np.stack([Classifier(file, 1).logits(ids[i : i + 1]) for i in ids]) for file in (path, other))
    np.testing.assert_array_equal(before, table)
    np.testing.assert_array_equal(after[1::2], table[1::2])
    assert (after[::2] != 0).all()
    assert np.isin(after[::2], table[1::2]).all()
    changed = np.frombuffer(path.read_bytes(), np.uint8) != np.frombuffer(other.read_bytes(), np.uint8)
    assert changed.sum() <= 25 * 8 * 4
    assert zeros.filled(path.read_bytes()) == other.read_bytes(), "drawn the same every time"


def test_two_weights_of_four_bits_in_a_byte_by_hand(monkeypatch):
    """0x30: the low half is 0 and takes the 3. 0x33 has none to fill; 0x00 becomes 0x33."""
    weights = np.array([0x30, 0x33, 0x00], np.uint8)
    monkeypatch.setattr(zeros, "_weights", lambda content: [(weights, 4)])
    zeros.filled(b"")
    assert weights.tolist() == [0x33, 0x33, 0x33]


@given(st.lists(st.integers(-128, 127), min_size=1, max_size=60))
def test_no_zero_is_left_where_there_is_something_to_draw(values):
    given_ = np.array(values, np.int8)
    made = zeros._without_zeros(given_, np.random.default_rng(0))
    if (given_ != 0).any():
        assert (made != 0).all()
        assert set(made.tolist()) <= set(given_.tolist())
    np.testing.assert_array_equal(made[given_ != 0], given_[given_ != 0])


def test_a_whole_file_of_the_tiny_model_has_no_zero_left(tmp_path):
    """Every matrix of a converted encoder is found, in float32 and in int8, where the quantizer puts them elsewhere."""
    import tf_keras as keras

    from optim.data.tokens import Tokens
    from optim.encoder import graph
    from optim.export.convert import convert
    from optim.export.quantize import Student, dynamic_int8
    from small_fit import SHAPE  # isort: skip

    model = graph.classifier(SHAPE, single=True)
    for layer in model.layers:
        if isinstance(layer, keras.layers.Dense):
            layer.kernel.assign(np.where(np.arange(layer.kernel.shape[0])[:, None] % 2, layer.kernel, 0))
    path = tmp_path / "float32.tflite"
    path.write_bytes(convert(model))
    train = Tokens(np.arange(20, dtype=np.int32), np.arange(0, 21, 2), np.zeros(10, np.int32))
    int8 = dynamic_int8(max_disagreement=1.0).run(Student(load=lambda: model, float32_path=path, train=train))
    for content in (path.read_bytes(), int8):
        matrices = zeros._weights(bytearray(content))
        assert sum(values.size for values, _ in matrices) >= sum(
            w.shape.num_elements() for w in model.weights if w.shape.rank == 2
        )
        assert sum((values == 0).sum() for values, _ in matrices) > 13 * 16 * 16 / 2
        for values, _ in zeros._weights(bytearray(zeros.filled(content))):
            assert (values != 0).all() or values.size < 64


@pytest.mark.parametrize("bits", [16, 4])
def test_zeros_of_half_precision_and_of_four_bits_are_found_and_filled(bits, tmp_path):
    """Half of the inputs of each kernel are zero; the embeddings, which are not, have 8 bits beside kernels of 4."""
    import tf_keras as keras

    from optim.encoder import graph
    from optim.export.convert import convert
    from optim.export.quantize import Student, dynamic_blocks, float16
    from small_fit import SHAPE, tokens_of  # isort: skip

    model = graph.classifier(replace(SHAPE, width=32, head_width=16, ffn_widths=(64, 64)), single=True)
    for layer in model.layers:
        if isinstance(layer, keras.layers.Dense):
            layer.kernel.assign(np.where(np.arange(layer.kernel.shape[0])[:, None] % 2, layer.kernel, 0))
    path = tmp_path / "float32.tflite"
    path.write_bytes(convert(model))
    blocks = dynamic_blocks(max_disagreement=1.0, kernel_bits=4, block=32, embedding_bits=8)
    quantizer = float16(max_disagreement=1.0) if bits == 16 else blocks
    content = quantizer.run(Student(load=lambda: model, float32_path=path, train=tokens_of(10)))
    found = sum(values.size for values, width in zeros._weights(bytearray(content)) if width == bits)
    assert found * (1 if bits == 16 else 2) >= 2 * (4 * 32 * 32 + 2 * 32 * 64), "the kernels of both layers"
    before, after = (np.frombuffer(one, np.uint8) for one in (content, zeros.filled(content)))
    assert (before != after).sum() > 1000


def test_zeros_are_timed_at_the_length_of_the_bench(files, monkeypatch):
    seen, honest = [], zeros.token_windows
    monkeypatch.setattr(zeros, "token_windows", lambda ids, length: seen.append(length) or honest(ids, length))
    zeros.zeros_speed(files["light"], IDS, bench=QUICK)
    assert seen == [QUICK.sequence_length]


def test_the_lock_is_held_while_the_clock_runs(files, monkeypatch):
    held: list[bool] = []
    from contextlib import contextmanager

    @contextmanager
    def lock():
        held.append(True)
        yield
        held.append(False)

    def timed(*args, **more):
        assert held == [True]
        return {"file": [np.ones(1)] * 8, "filled": [np.ones(1)] * 8}

    monkeypatch.setattr(zeros, "machine_lock", lock)
    monkeypatch.setattr(zeros, "interleaved_turns_ms", timed)
    assert zeros.zeros_speed(Path(files["light"]), IDS, bench=QUICK)["zeros_speedup"] == 1.0
    assert held == [True, False]
