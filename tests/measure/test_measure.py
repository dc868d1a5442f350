"""The rulers: stop-watch, scale and lock, each against something known."""

from __future__ import annotations

import gzip
import itertools
import json
import math
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from tiny_tflite import IDS_AND_COUNT, write_table_file

from optim.common.errors import UserError
from optim.data.tokens import Tokens
from optim.measure import device, file, latency, memory
from optim.measure.runtime import Classifier

ROOT = Path(__file__).parents[2]
QUICK = latency.Bench(sequence_length=16, threads=1, warmup_calls=1, min_calls=5, min_seconds=0.01)


def dev_of(*lengths):
    """Sentences of these lengths with ids 1 ... 49 running through all of them."""
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return Tokens((np.arange(offsets[-1]) % 49 + 1).astype(np.int32), offsets, np.zeros(len(lengths), np.int32))


@pytest.fixture(autouse=True)
def own_lock(tmp_path, monkeypatch):
    """No test waits for a measurement that happens to run on this machine."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A light file and one with the same logits and 8 * 65,536 products a token more."""
    folder = tmp_path_factory.mktemp("measure")
    light = write_table_file(folder / "light.tflite", IDS_AND_COUNT)
    return {"light": light, "heavy": write_table_file(folder / "heavy.tflite", IDS_AND_COUNT, products=8)}


# Stop-watch


@pytest.mark.timed
def test_the_stop_watch_reads_a_known_sleep():
    sleep = {"sleep": lambda: time.sleep(0.02)}
    times = device.interleaved_times_ms(sleep, warmup=1, min_calls=5, min_seconds=0.1)["sleep"]
    assert len(times) >= 5
    assert all(t >= 20 for t in times)
    assert np.median(times) < 40


@pytest.mark.timed
def test_the_warm_up_is_not_counted():
    sleeps = itertools.chain([0.05, 0.05], itertools.repeat(0.001))
    calls = {"sleep": lambda: time.sleep(next(sleeps))}
    assert device.interleaved_times_ms(calls, warmup=2, min_calls=5, min_seconds=0.01)["sleep"].max() < 40


class FakeClock:
    """Stands in for `time`: a call takes exactly what the test says."""

    def __init__(self):
        self.now_ns, self.log = 0, []

    def perf_counter_ns(self):
        return self.now_ns

    def call(self, name, ms):
        def run():
            self.log.append(name)
            self.now_ns += int(ms * 1e6)

        return run


def test_interleaved_rounds_alternate_their_order(monkeypatch):
    clock = FakeClock()
    monkeypatch.setattr(device, "time", clock)
    calls = {"a": clock.call("a", 100), "b": clock.call("b", 200), "c": clock.call("c", 240)}
    times = device.interleaved_times_ms(calls, warmup=2, min_calls=3, min_seconds=0.2)
    # Warm-up, then turns of at least 200 ms (a: two calls) behind one free call each; there and back and there.
    assert "".join(clock.log) == "aabbcc" + "aaabbcc" + "ccbbaaa" + "aaabbcc"
    assert {name: t.tolist() for name, t in times.items()} == {"a": [100] * 6, "b": [200] * 3, "c": [240] * 3}


def test_a_turn_is_no_longer_than_the_time_that_is_asked_for(monkeypatch):
    clock = FakeClock()
    monkeypatch.setattr(device, "time", clock)
    calls = {"a": clock.call("a", 30), "b": clock.call("b", 40)}
    device.interleaved_times_ms(calls, warmup=1, min_calls=2, min_seconds=0.05)
    assert "".join(clock.log) == "ab" + "aaabbb", "two calls that count make 50 ms, behind one that does not"


def test_interleaved_gives_each_its_calls_and_its_seconds(monkeypatch):
    clock = FakeClock()
    monkeypatch.setattr(device, "time", clock)
    calls = {"slow": clock.call("s", 400), "fast": clock.call("f", 10)}
    times = device.interleaved_times_ms(calls, warmup=1, min_calls=4, min_seconds=1.0)
    # fast: 20 calls of 10 ms a round, so 5 rounds for its own second; slow is done after 4 and goes on beside it.
    assert len(times["fast"]) == 100
    assert len(times["slow"]) == 5
    times = device.interleaved_times_ms(calls, warmup=1, min_calls=30, min_seconds=0.1)
    assert len(times["slow"]) == 30


def test_interleaved_reads_known_sleeps():
    calls = {"short": lambda: time.sleep(0.005), "long": lambda: time.sleep(0.02)}
    times = device.interleaved_times_ms(calls, warmup=1, min_calls=10, min_seconds=0.05)
    assert 5 <= np.median(times["short"]) < 15
    assert 20 <= np.median(times["long"]) < 40


def test_percentiles_of_a_hand_array():
    # 1 ... 101: the p-th percentile is 1 + p.
    found = device.percentiles(np.random.default_rng(0).permutation(np.arange(1.0, 102.0)))
    assert found == {"latency_p50_ms": 51, "latency_p90_ms": 91, "latency_p99_ms": 100, "calls": 101}
    # 10, 20, 30, 40: p90 lies 0.7 of the way from the third to the fourth.
    assert device.percentiles(np.array([40.0, 10, 30, 20]))["latency_p90_ms"] == pytest.approx(37)


def test_collection_waits_for_the_clock_and_comes_back():
    import gc

    seen = []
    calls = {"one": lambda: seen.append(gc.isenabled()) or time.sleep(0.05)}
    device.interleaved_times_ms(calls, warmup=1, min_calls=2, min_seconds=0.01)
    assert set(seen) == {False}
    assert gc.isenabled()


def test_token_windows_cut_the_running_text():
    windows = device.token_windows(np.arange(100, dtype=np.int32), 7)
    assert windows.shape == (device.WINDOWS, 7)
    assert windows.dtype == np.int32
    assert windows[1].tolist() == [7, 8, 9, 10, 11, 12, 13]
    assert windows[14].tolist() == [98, 99, 0, 1, 2, 3, 4]


def test_latency_feeds_the_files_real_tokens_of_that_length(files, monkeypatch):
    seen = []

    class Spy(Classifier):
        def logits(self, ids):
            seen.append(ids)
            return super().logits(ids)

    monkeypatch.setattr(latency, "Classifier", Spy)
    ids = dev_of(40, 60).ids
    latency.latency({"file": files["light"]}, ids=ids, length=9, bench=QUICK)
    seen = seen[1:]  # the one-token call of loading
    assert {len(row) for row in seen} == {9}
    assert np.concatenate(seen[:3]).tolist() == ids[:27].tolist()


def test_the_median_length_of_hand_counts():
    """Lengths 2, 2, 3, 5, 5, 5, 9: the fourth of seven."""
    assert device.median_length([0, 0, 2, 1, 0, 3, 0, 0, 0, 1]) == 5


def test_few_lengths_stand_for_all_of_them():
    """300 of 3 tokens, 100 of 5 and 100 of 40: of five the ranks are 50, 150, 250, 350, 450."""
    counts = [0, 0, 0, 300, 0, 100, *[0] * 34, 100]
    few = device.mixed_lengths(counts, 5).tolist()
    assert sorted(few) == [3, 3, 3, 5, 40]
    assert few == device.mixed_lengths(counts, 5).tolist(), "the same order every time"
    assert device.mixed_lengths(counts, 500).tolist() != sorted(device.mixed_lengths(counts, 500).tolist())


def test_pieces_cut_the_running_text_to_their_lengths():
    found = [piece.tolist() for piece in device.pieces(np.arange(5), [2, 4, 1])]
    assert found == [[0, 1], [2, 3, 4, 0], [1]]


def test_the_mix_is_timed_length_by_length_and_a_change_of_length_is_told_apart(monkeypatch):
    """A file that takes 1 ms a token, and 100 ms more where the length is not that of the call before."""
    clock, last = FakeClock(), [0]

    def score(row):
        clock.now_ns += int(1e6) * (len(row) + 100 * (len(row) != last[0]))
        last[0] = len(row)

    monkeypatch.setattr(device, "time", clock)
    counts = [0, *[5] * 8]  # eight lengths: seven of eight calls have another one than the call before
    bench = replace(QUICK, min_calls=40, min_seconds=0.001)
    found = device.over_mix({"file": lambda: score}, np.arange(9), counts, bench)["file"]
    assert found["dev_mix_latency_p99_ms"] == 108
    assert 103 <= found["dev_mix_latency_p50_ms"] <= 106
    assert 95 <= found["length_change_p50_ms"] <= 103, "sorted, one of five calls has another length"


@pytest.mark.parametrize("token_ms", [0.05, 0.3, 1.3, 3.7, 10.0])
def test_sentences_count_alike_in_both_orders_however_slow_the_file(token_ms, monkeypatch):
    """A change of length costs nothing here. 3 s hold 1.1 rounds of 1.3 ms a token; at 10 ms a call fills a turn."""
    clock = FakeClock()

    def score(row):
        clock.now_ns += round(1e6 * token_ms * len(row))

    monkeypatch.setattr(device, "time", clock)
    counts = np.bincount(np.clip(np.random.default_rng(1).gamma(4, 6, 872).astype(int), 4, 60)).tolist()
    bench = replace(QUICK, warmup_calls=10, min_calls=100, min_seconds=3.0)
    found = device.over_mix({"file": lambda: score}, np.arange(5000), counts, bench)["file"]
    lengths = device.mixed_lengths(counts, 100)
    assert found["length_change_p50_ms"] == pytest.approx(0, abs=1e-6)
    assert found["dev_mix_latency_p50_ms"] == pytest.approx(token_ms * np.median(lengths))
    assert found["dev_mix_latency_p99_ms"] == pytest.approx(token_ms * np.percentile(lengths, 99), rel=0.05)


def test_the_free_call_of_a_turn_repeats_the_row_before():
    seen = []
    call = device.InOrder(lambda: seen.append, [np.array([i]) for i in range(3)])
    for one in (call, call.again, call, call, call.again, call):
        one()
    assert [int(row[0]) for row in seen] == [0, 0, 1, 2, 2, 0]


def test_each_file_has_its_own_mix(monkeypatch):
    clock = FakeClock()
    monkeypatch.setattr(device, "time", clock)
    calls = {name: clock.call(name, ms) for name, ms in (("light", 2.0), ("heavy", 6.0))}
    scores = {name: lambda call=call: lambda row: call() for name, call in calls.items()}
    found = device.over_mix(scores, np.arange(9), [0, *[5] * 8], replace(QUICK, min_calls=40, min_seconds=0.001))
    assert {name: own["dev_mix_latency_p50_ms"] for name, own in found.items()} == {"light": 2.0, "heavy": 6.0}
    assert {own["length_change_p50_ms"] for own in found.values()} == {0.0}


# Whole measurement


def test_as_many_files_are_held_as_a_quarter_of_the_memory_has_twice_the_room_for(tmp_path, monkeypatch):
    """Files of 100 and 10 bytes: each counts as 200, and a quarter of 4,000 holds five."""
    paths = [tmp_path / "large", tmp_path / "small"]
    for path, count in zip(paths, (100, 10), strict=True):
        path.write_bytes(bytes(count))
    monkeypatch.setattr(device, "_memory_bytes", lambda: 4000)
    assert device._most_loaded(paths) == 5


@pytest.mark.parametrize(("content", "wanted"), [("4000\n", 4000), ("max\n", None), (None, None)])
def test_the_memory_of_a_container_is_what_it_may_use(content, wanted, tmp_path, monkeypatch):
    limit = tmp_path / "memory.max"
    if content:
        limit.write_text(content)
    monkeypatch.setattr(device, "MEMORY_LIMITS", (limit,))
    assert device._memory_bytes() == (wanted or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


@pytest.mark.parametrize(("contents", "wanted"), [
    (["200000 100000\n"], 2), (["250000 100000\n"], 2), (["50000 100000\n"], 1), (["max 100000\n"], 8),
    (["1600000 100000\n"], 8), (["150000\n", "50000\n"], 3), (["-1\n", "100000\n"], 8), (["200000\n"], 8),
])  # fmt: skip
def test_the_cores_of_a_container_are_those_of_its_time(tmp_path, monkeypatch, contents, wanted):
    """Of eight, by one file of quota and period, or by two. No limit, or files that say none, leave all."""
    paths = [tmp_path / str(number) for number, _ in enumerate(contents)]
    for path, content in zip(paths, contents, strict=True):
        path.write_text(content)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)))
    monkeypatch.setattr(device, "CPU_LIMITS", ((tmp_path / "none",), paths))
    assert device.cores() == wanted


def test_files_too_many_for_the_memory_take_turns_in_it(files, monkeypatch):
    """Room for two of three: at each turn of the order those two stay, and the third is loaded, off the clock."""
    ids, alive, most, loads = np.arange(40, dtype=np.int32), 0, 0, 0

    class Counted(Classifier):
        def __init__(self, path, threads):
            nonlocal alive, most, loads
            super().__init__(path, threads)
            alive, loads = alive + 1, loads + 1
            most = max(most, alive)
            time.sleep(0.1)  # a load that would be seen

        def __del__(self):
            nonlocal alive
            alive -= 1

    monkeypatch.setattr(latency, "Classifier", Counted)
    monkeypatch.setattr(device, "_memory_bytes", lambda: 0)
    monkeypatch.setattr(device, "TURN_MS", 1.0)
    copy = Path(shutil.copy(files["light"], files["light"].with_name("copy.tflite")))
    three = {"a": files["light"], "b": copy, "c": files["heavy"]}
    found = latency.latency(three, ids=ids, length=9, bench=replace(QUICK, min_calls=40))
    assert most <= 3, "two that stay and the one that comes"
    assert loads > 5
    assert all(figures["latency_p99_ms"] < 100 for figures in found.values())


def test_measure_file_against_a_heavier_float32_file(files):
    dev = dev_of(9, 3, 3, 30, 4, 9, 1)
    steps = []
    found = file.measure_file(
        files["light"], files["heavy"], dev, bench=QUICK, progress=lambda *step: steps.append(step)
    )
    assert found.logits.dtype == np.float32
    assert found.logits.tolist() == [[dev.sentence(i).sum(), dev.lengths[i]] for i in range(7)]
    assert steps[:7] == [("sentences", i, 7) for i in range(1, 8)]
    assert steps[7:] == [("timing", 0, 2), ("timing", 1, 2), ("timing", 2, 2)]
    speed = found.speed
    assert set(speed) == {
        *("latency_p50_ms", "latency_p90_ms", "latency_p99_ms", "calls", "threads", "sequence_length"),
        *("float32_latency_p50_ms", "speedup_vs_float32", "median_length", "median_length_latency_p50_ms"),
        *("median_length_float32_latency_p50_ms", "zeros_accelerated", "zeros_speedup"),
        *("dev_mix_latency_p50_ms", "dev_mix_latency_p99_ms", "length_change_p50_ms"),
    }
    assert (speed["zeros_accelerated"], speed["zeros_speedup"]) == (None, None), "it was said to have none"
    assert 0 < speed["latency_p50_ms"] <= speed["latency_p90_ms"] <= speed["latency_p99_ms"]
    assert speed["calls"] >= 5
    assert (speed["threads"], speed["sequence_length"], speed["median_length"]) == (1, 16, 4)
    assert speed["speedup_vs_float32"] == speed["float32_latency_p50_ms"] / speed["latency_p50_ms"]
    assert speed["speedup_vs_float32"] > 3  # 16 * 8 * 65,536 products more
    assert speed["median_length_float32_latency_p50_ms"] < speed["float32_latency_p50_ms"]
    assert set(found.memory) == {"peak_rss_bytes", "baseline_rss_bytes"}
    assert found.size["file_bytes"] == files["light"].stat().st_size


def test_a_file_with_zeros_is_timed_against_itself_without_them(files):
    found = file.measure_file(files["light"], files["light"], dev_of(9, 3, 3), bench=QUICK, zeros=True)
    assert found.speed["zeros_accelerated"] in (True, False)
    assert 0.1 < (found.speed["zeros_speedup"] or 0) < 10


def test_float32_file_is_not_faster_than_itself(files, tmp_path):
    copy = tmp_path / "copy.tflite"
    copy.write_bytes(files["light"].read_bytes())
    speed = latency.speed_of(copy, files["light"], dev_of(20).ids, counts=[0, 0, 3], bench=QUICK)
    assert speed["speedup_vs_float32"] == 1
    assert speed["float32_latency_p50_ms"] == speed["latency_p50_ms"]
    assert speed["median_length_float32_latency_p50_ms"] == speed["median_length_latency_p50_ms"]


def test_dev_logits_run_sorted_by_length_and_come_back_in_order(files):
    class Spy(Classifier):
        def logits(self, ids):
            lengths.append(len(ids))
            return super().logits(ids)

    lengths: list[int] = []
    dev = dev_of(5, 2, 8, 2, 5)
    logits = file.dev_logits(Spy(files["light"], 1), dev, progress=file._silent)
    assert lengths[1:] == [2, 2, 5, 5, 8]
    assert logits[:, 1].tolist() == [5, 2, 8, 2, 5]


@pytest.mark.parametrize("poison", [np.nan, 3e38])
def test_logits_that_are_no_numbers_fail(tmp_path, poison):
    """NaN in two rows, or two rows that only add up to infinity; both are in the second sentence of ids 6 ... 9."""
    table = IDS_AND_COUNT.copy()
    table[7:9] = poison
    path = write_table_file(tmp_path / "poison.tflite", table)
    with pytest.raises(latency.MeasurementError, match=r"NaN or infinite logits for 1 of 3 sentences"):
        file.dev_logits(Classifier(path, 1), dev_of(5, 4, 6), progress=file._silent)


def test_check_agreement_fails_with_causes():
    file.check_agreement(0.98, max_disagreement=0.02)
    file.check_agreement(1.0, max_disagreement=0.0)
    with pytest.raises(latency.MeasurementError) as error:
        file.check_agreement(0.948, max_disagreement=0.02)
    message = str(error.value)
    assert "5.20%" in message
    assert "measure.max_disagreement=0.02 allows 2.00%" in message
    for cause in ("swapped", "mask ignored", "quantized", "converter"):
        assert cause in message
    assert isinstance(error.value, UserError)
    assert len(message.splitlines()) == 2


def test_sizes_are_those_of_gzip_and_stay_the_same(tmp_path, monkeypatch):
    path = tmp_path / "model.tflite"
    path.write_bytes(bytes(100_000) + np.random.default_rng(0).bytes(1000))
    first = file.sizes(path)
    assert first["file_bytes"] == 101_000
    assert 1000 < first["gzip_bytes"] < 1300
    assert 1000 < first["zstd_bytes"] < 1300
    monkeypatch.setattr(time, "time", lambda: 2e9)
    assert file.sizes(path) == first
    assert first["gzip_bytes"] == len(gzip.compress(path.read_bytes(), 9, mtime=0))


# Memory


@pytest.fixture(scope="module")
def large_parent():
    """300 MB in this process while it starts others."""
    return bytearray(os.urandom(1 << 20) * 300)


def child_bytes(code):
    """What a fresh process prints, with `peak` = peak_rss_bytes at hand."""
    code = f"from optim.measure.device import peak_rss_bytes as peak\n{code}"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return int(child.stdout)


def test_peak_rss_reads_200_mb_that_were_touched_and_freed(large_parent):
    code = "before = peak(); x = bytearray(b'x') * 200_000_000; del x; print(peak() - before)"
    assert 195e6 < child_bytes(code) < 215e6


def test_peak_rss_of_a_small_child_is_not_that_of_its_large_parent(large_parent):
    assert device.peak_rss_bytes() > len(large_parent)
    assert 5e6 < child_bytes("print(peak())") < 150e6


def test_peak_memory_sees_the_rows_that_were_read(tmp_path, large_parent):
    """A table of 12 MB whose every page is read, against a run that reads one row of it."""
    path = write_table_file(tmp_path / "table.tflite", np.ones((3000, 1000), np.float32))
    every = memory.peak_memory(path, windows=np.arange(3000, dtype=np.int32).reshape(300, 10), threads=1)
    single = memory.peak_memory(path, windows=np.zeros((300, 10), np.int32), threads=1)
    assert 9e6 < every["peak_rss_bytes"] - single["peak_rss_bytes"] < 14e6
    assert 15e6 < every["baseline_rss_bytes"] < 150e6
    assert single["baseline_rss_bytes"] < single["peak_rss_bytes"] < 150e6


def test_peak_memory_of_a_file_that_fails_says_why(tmp_path):
    (tmp_path / "broken.tflite").write_bytes(b"nothing")
    with pytest.raises(latency.MeasurementError, match=r"ended with code 1: .*broken.tflite is not a .tflite file"):
        memory.peak_memory(tmp_path / "broken.tflite", windows=np.zeros((1, 1), np.int32), threads=1)


# The script of a bundle


@pytest.fixture
def bundle(files, tmp_path):
    """One that holds what measure.py needs."""
    folder = tmp_path / "bundle"
    folder.mkdir()
    shutil.copy(files["light"], folder / "model.tflite")
    shutil.copy(device.__file__, folder / device.SCRIPT)
    settings = {"bench": vars(QUICK), "dev_lengths": [0, 0, 3, 4], "vocabulary_size": 50}
    (folder / device.SETTINGS).write_text(json.dumps(settings))
    return folder


def alone(folder, *words):
    """measure.py in a Python that knows nothing of this program."""
    command = [sys.executable, "-I", str(folder / device.SCRIPT), *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


SETTINGS = {"dev_lengths": [0, 1], "vocabulary_size": 9}  # of a bench.json, beside `bench`


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [("bench.json", '{"bench": ', "bench.json is damaged"),
     ("bench.json", '{"bench": {}, "dev_lengths": [0, 1], "vocabulary_size": 9}', "bench.json is damaged"),
     ("bench.json", "[]", "bench.json is damaged"),
     *[("bench.json", json.dumps({**SETTINGS, "bench": dict.fromkeys(device.BENCH, value)}), "bench.json is damaged")
       for value in ("x", 10**9, 0, 1.5)],
     ("model.tflite.zst", "", "model.tflite.zst is empty: copy the bundle here again"),
     ("model.tflite.zst", "nothing", "model.tflite.zst is not a whole zstd file")],
)  # fmt: skip
def test_a_damaged_bundle_is_told_in_a_line(bundle, name, content, said):
    (bundle / name).write_text(content)
    if name != device.SETTINGS:
        (bundle / "model.tflite").unlink()
    done = alone(bundle)
    assert done.returncode == 1
    assert said in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_settings_that_may_not_be_read_are_told_in_a_line(bundle, monkeypatch):
    def forbidden(path, **more):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(device.Path, "read_text", forbidden)
    with pytest.raises(SystemExit, match=r"^Error: .*bench\.json cannot be read \(Permission denied\)$"):
        device._settings(bundle / device.SETTINGS)


def test_a_folder_that_may_not_be_entered_is_told_in_a_line(bundle):
    """A name that is too long stands for it: root may enter all."""
    done = alone(bundle, "a" * 300)
    assert (done.returncode, done.stderr) == (1, f"Error: {'a' * 300}/model.tflite: File name too long\n")


def test_a_name_that_the_locale_cannot_read_is_told_in_a_line(bundle):
    named = bundle.rename(bundle.with_name("schön"))
    command = [sys.executable, str(named / device.SCRIPT)]  # not -I, which would not hear PYTHONUTF8
    env = {**os.environ, "LC_ALL": "POSIX", "PYTHONUTF8": "0"}
    done = subprocess.run(command, cwd=named, capture_output=True, text=True, env=env)
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert "has letters that the locale lacks: set LC_ALL=C.UTF-8" in done.stderr.splitlines()[-1]


def test_a_python_without_numpy_is_told_what_to_install(bundle):
    """-S leaves out the folder that packages lie in."""
    command = [sys.executable, "-I", "-S", str(bundle / device.SCRIPT)]
    done = subprocess.run(command, cwd=bundle, capture_output=True, text=True)
    said = "Error: NumPy is missing (No module named 'numpy'): python3 -m pip install numpy ai-edge-litert\n"
    assert (done.returncode, done.stderr) == (1, said)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_does_not_lose_the_figures(bundle):
    done = alone(bundle, "--output", "/dev/full")
    assert done.returncode == 1
    assert len(json.loads(done.stdout)["files"]) == 1
    assert done.stderr.splitlines()[-1].startswith("Error: /dev/full cannot be written (No space left on device)")


def test_a_weighing_that_is_killed_is_told_in_a_line(files, monkeypatch):
    killed = subprocess.CompletedProcess([], -9, b"")
    monkeypatch.setattr(device.subprocess, "run", lambda *args, **more: killed)
    with pytest.raises(SystemExit, match=r"weighs .*light\.tflite ended with code -9; -9 is too little memory"):
        device._weighed(files["light"], QUICK, 50)


def test_an_interrupt_ends_the_script_without_a_traceback(bundle):
    settings = json.loads((bundle / device.SETTINGS).read_text())
    settings["bench"]["min_seconds"] = 600.0
    (bundle / device.SETTINGS).write_text(json.dumps(settings))
    command = [sys.executable, "-I", str(bundle / device.SCRIPT)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as program:
        assert program.stderr
        assert "timing 1 file" in program.stderr.readline()
        program.send_signal(signal.SIGINT)
        assert "Traceback" not in program.stderr.read()
    assert program.returncode == 130


# Lock


HOLDER = """
import sys
from optim.measure.latency import machine_lock
with machine_lock():
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def holder():
    """Another process that holds the machine until a line comes."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


@pytest.mark.parametrize("what", ["latency", "peak_memory"])
def test_a_second_process_waits_for_the_machine(holder, files, caplog, what):
    windows = np.ones((1, 3), np.int32)
    work = {
        "latency": lambda: latency.latency({"a": files["light"]}, ids=windows[0], length=3, bench=QUICK),
        "peak_memory": lambda: memory.peak_memory(files["light"], windows=windows, threads=1),
    }[what]
    caplog.set_level("INFO", "optim.measure")
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(0.5)
    assert thread.is_alive()
    assert "Another process measures on this machine" in caplog.text
    holder.communicate("go\n")
    thread.join(30)
    assert not thread.is_alive()


def test_lock_of_a_killed_process_is_free(holder):
    holder.kill()
    holder.wait()
    started = time.monotonic()
    with latency.machine_lock():
        assert time.monotonic() - started < 1


def test_lock_file_is_one_for_all_users_wherever_their_temporary_files_go(tmp_path, monkeypatch):
    shared, own = tmp_path / "shared", tmp_path / "own"
    for folder in (shared, own):
        folder.mkdir()
    monkeypatch.setattr(latency, "SHARED", shared)
    monkeypatch.setattr(tempfile, "tempdir", str(own))  # as TMPDIR of a job
    with latency.machine_lock():
        pass
    (path,) = shared.glob("*.lock")
    assert path.stat().st_mode & 0o777 == 0o666
    monkeypatch.setattr(latency, "SHARED", tmp_path / "none")
    with latency.machine_lock():
        pass
    assert [found.name for found in own.glob("*.lock")] == [path.name]


# Settings


def test_every_bench_config_builds_and_says_what_it_is():
    configs = {path.stem: path for path in (ROOT / "conf/bench").glob("*.yaml")}
    assert set(configs) == {"cpu1", "quick"}
    for name, path in configs.items():
        values = yaml.safe_load(path.read_text())
        assert values.pop("method") == "interleaved"
        bench = latency.Bench(**values)
        assert path.read_text().startswith(f"# {name}: ")
        if name == "cpu1":
            assert (bench.sequence_length, bench.threads, bench.min_calls, bench.min_seconds) == (128, 1, 100, 3.0)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("sequence_length", 0, "bench.sequence_length must be above 0, got 0"),
        ("threads", -1, "bench.threads must be above 0, got -1"),
        ("threads", 1025, "bench.threads must be at most 1,024, got 1,025"),
        ("threads", 1.5, "bench.threads must be a whole number, got 1.5"),
        ("threads", True, "bench.threads must be a whole number, got True"),
        ("warmup_calls", 0, "bench.warmup_calls must be above 0"),
        ("min_calls", "many", "bench.min_calls must be a whole number, got 'many'"),
        ("min_seconds", 0.0, "bench.min_seconds must be above 0"),
        ("min_seconds", math.nan, "bench.min_seconds must be above 0"),
        ("min_seconds", None, "bench.min_seconds must be a number, got None"),
    ],
)
def test_unfit_bench_settings_are_named(name, value, message):
    with pytest.raises(UserError, match=message):
        replace(QUICK, **{name: value})


# Machine

XEON = """processor\t: 0
model name\t: Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz
flags\t\t: fpu sse2 avx2 avx512f avx512_vnni avx512_bf16 avx_vnni amx_bf16 amx_tile amx_int8

processor\t: 1
flags\t\t: fpu
"""
GRAVITON = """processor\t: 0
BogoMIPS\t: 2100.00
Features\t: fp asimd evtstrm aes asimddp sve i8mm bf16
CPU implementer\t: 0x41
"""
BOARD = """processor\t: 0
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm crc32 cpuid
CPU implementer\t: 0x41
CPU part\t: 0xd08

Hardware\t: BCM2835
Serial\t\t: 1000000012345678
Model\t\t: Raspberry Pi 4 Model B Rev 1.4
"""
OLD = "model name : Old\nflags : fpu sse2 avx2 avx\n"


@pytest.mark.parametrize(
    ("cpuinfo", "isa", "bfloat16"),
    [
        (XEON, ["avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "amx_bf16", "avx512_bf16"], True),
        (GRAVITON, ["asimd", "asimddp", "i8mm", "bf16", "sve"], True),
        (OLD, ["avx2"], False),
        ("", [], False),
    ],
)
def test_isa_of_known_processors(monkeypatch, cpuinfo, isa, bfloat16):
    monkeypatch.setattr(device, "_cpuinfo", lambda: cpuinfo)
    assert device.isa_of(cpuinfo) == isa
    assert device.has_bfloat16() == bfloat16


def test_cpu_name():
    assert device._cpu_name(XEON) == "Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz"
    architecture = platform.processor() or platform.machine()
    assert device._cpu_name("") == architecture
    assert device._cpu_name(GRAVITON) == f"{architecture} 0x41"
    assert device._cpu_name(BOARD) == f"{architecture} 0x41 0xd08 BCM2835 Raspberry Pi 4 Model B Rev 1.4"
    phone = "CPU part : 0xd05\n" * 2 + "CPU part : 0xd0b\n"  # small and large cores
    assert device._cpu_name(f"model name : ARMv8 Processor rev 1 (v8l)\n{phone}") == (
        "ARMv8 Processor rev 1 (v8l) 0xd05 0xd0b"
    )


def test_two_boards_of_one_host_name_are_two_machines(monkeypatch):
    """As they leave the factory, each of four cores: 64-bit Arm kernels tell no model name."""
    found = set()
    for core, board in (("0xd08", "4 Model B Rev 1.4"), ("0xd0b", "5 Model B Rev 1.0")):
        cpuinfo = BOARD.replace("0xd08", core).replace("4 Model B Rev 1.4", board)
        monkeypatch.setattr(device, "_cpuinfo", lambda cpuinfo=cpuinfo: cpuinfo)
        found.add(device.machine_id())
    assert len(found) == 2


def test_machine_facts_fit_into_json():
    found = json.loads(json.dumps(device.machine()))
    assert list(found) == ["cpu", "isa", "id", "cores", "load_average", "versions"]
    assert found["id"] == device.machine_id()
    assert re.fullmatch("[0-9a-f]{8}", found["id"])
    assert found["cpu"]
    assert 1 <= found["cores"] <= (os.cpu_count() or 1)
    assert len(found["load_average"]) == 3
    assert found["versions"]["python"] == platform.python_version()
    assert found["versions"]["numpy"] == np.__version__
    assert {"tensorflow", "tf_keras", "ai-edge-litert", "tensorflow-model-optimization"} <= set(found["versions"])
    assert "ai-edge-quantizer" in found["versions"] or "litert-quantizer" in found["versions"]


def test_machine_facts_need_no_tensorflow():
    code = "import sys; from optim.measure import file, device; device.machine(); print('tensorflow' in sys.modules)"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert child.stdout == "False\n"


# What is handed from one ruler to the next


def test_the_mix_of_lengths_is_that_of_the_file(files, monkeypatch):
    def over_mix(loads, *given):
        return {name: {"of": load.args} for name, load in loads.items()}

    monkeypatch.setattr(device, "over_mix", over_mix)
    speed = latency.speed_of(files["light"], files["heavy"], np.arange(1, 21), counts=[0, 0, 3], bench=QUICK)
    assert speed["of"] == (files["light"],)


def test_litert_runs_on_the_threads_that_are_asked_for(files, monkeypatch):
    from ai_edge_litert import interpreter

    asked, honest = [], interpreter.Interpreter
    monkeypatch.setattr(interpreter, "Interpreter", lambda **how: asked.append(how.get("num_threads")) or honest(**how))
    Classifier(files["light"], 3)
    device.scorer(files["light"], 2)
    assert asked == [3, 2]


def test_memory_is_that_of_the_file_at_the_length_and_on_the_threads_of_the_bench(files, monkeypatch):
    seen = []

    def peak_memory(path, *, windows, threads, **how):
        seen.append((path, windows.shape, threads))
        return {}

    monkeypatch.setattr(file, "peak_memory", peak_memory)
    file.measure_file(files["light"], files["heavy"], dev_of(*[2] * 10), bench=replace(QUICK, threads=2))
    assert seen == [(files["light"], (device.WINDOWS, QUICK.sequence_length), 2)]
