"""benchmarks/serve.py: what it counts and computes, on servers and figures whose truth is known."""

# pyright: reportAttributeAccessIssue=false
from __future__ import annotations

import asyncio
import subprocess
import sys

import numpy as np
import pytest
from conftest import BENCHMARKS
from test_predict import TABLE, WORDS, write_tokenizer
from tiny_tflite import write_table_file

from optim.export.bundle import write_labels


@pytest.fixture
def serve(script):
    return script("serve")


def test_percentiles_are_values_that_were_measured(serve):
    hundred = [float(i) for i in range(100, 0, -1)]
    assert [serve.percentile(hundred, share) for share in (0.01, 0.5, 0.99, 1.0)] == [1, 50, 99, 100]
    assert serve.percentile([1.0, 2.0, 3.0], 0.5) == 2
    assert serve.percentile([7.0], 0.99) == 7


def test_moments_come_at_the_rate_that_is_asked(serve):
    assert serve.moments_of(4, 1, "even") == [0, 0.25, 0.5, 0.75]
    drawn = serve.moments_of(100, 50, "poisson")
    assert drawn == sorted(drawn) == serve.moments_of(100, 50, "poisson")
    assert drawn[-1] < 50
    assert 4700 < len(drawn) < 5300, "four standard deviations about 5000"
    gaps = np.diff(drawn)
    assert np.mean(gaps < 0.01) == pytest.approx(0.632, abs=0.03)


ANSWER = b"HTTP/1.1 %d X\r\nContent-Length: 2\r\n\r\n%s"


def test_what_is_refused_broken_off_or_late_is_lost_and_what_changed_is_counted(serve, monkeypatch):
    """Ten requests of one sentence: answers, a refusal, a broken connection, an answer of other bytes, and silence."""
    monkeypatch.setattr(serve, "PATIENCE_S", 0.3)
    asked = 0

    async def answer(reader, writer):
        nonlocal asked
        while await reader.readline():
            while (await reader.readline()).strip():
                pass
            await reader.readexactly(len(b'{"text": "a"}'))
            asked += 1
            if asked == 3:
                break
            if asked != 9:
                writer.write(ANSWER % ((503, b"no") if asked == 2 else (200, b"ya" if asked == 5 else b"ok")))
        writer.close()

    async def through():
        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            load = serve.Load(server.sockets[0].getsockname()[1], ["a"])
            await load.planned([0.05 * i for i in range(10)], tally)

    tally = serve.Tally()
    asyncio.run(through())
    assert (tally.sent, len(tally.seconds), tally.statuses, tally.changed) == (10, 7, {503: 1, 0: 1}, 1)
    assert (tally.lost, tally.said_lost) == (3, "3 (1 with status 503, 2 without an answer)")
    assert serve.Tally(sent=2, seconds=[0.1, 0.2]).said_lost == "0"


def test_a_latency_counts_from_the_planned_moment(serve, monkeypatch):
    """A client that needs a fifth of a second for a connection can't hide it."""
    connect = serve.Load.connect

    async def slow(self):
        await asyncio.sleep(0.2)
        return await connect(self)

    monkeypatch.setattr(serve.Load, "connect", slow)

    async def answer(reader, writer):
        for _ in range(2):
            await reader.readuntil(b"}")
            writer.write(ANSWER % (200, b"ok"))

    async def through():
        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            await serve.Load(server.sockets[0].getsockname()[1], ["a"]).planned([0.0, 0.1], tally)

    tally = serve.Tally()
    asyncio.run(through())
    assert len(tally.seconds) == len(tally.late) == 2
    assert min(tally.seconds) > min(tally.late) >= 0.2


def test_who_finds_no_free_connection_waits_for_one(serve, monkeypatch):
    monkeypatch.setattr(serve, "CONNECTIONS", 1)
    met = 0

    async def answer(reader, writer):
        nonlocal met
        met += 1
        for _ in range(3):
            await reader.readuntil(b"}")
            await asyncio.sleep(0.1)
            writer.write(ANSWER % (200, b"ok"))

    async def through():
        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            await serve.Load(server.sockets[0].getsockname()[1], ["a"]).planned([0.0, 0.0, 0.0], tally)

    tally = serve.Tally()
    asyncio.run(through())
    assert (met, tally.lost) == (1, 0)
    assert all(seconds >= 0.1 * i for i, seconds in enumerate(tally.seconds, 1))


def test_a_connection_goes_past_who_has_given_up(serve):
    async def through():
        load, loop = serve.Load(1, ["a"]), asyncio.get_running_loop()
        gone, there = loop.create_future(), loop.create_future()
        gone.cancel()
        load.queue.extend([gone, there])
        load._free("first")
        load._free("second")
        return there.result(), load.idle

    assert asyncio.run(through()) == ("first", ["second"])


def test_the_table_holds_ratios_to_the_single_sentence(serve):
    single = serve.Tally(sent=3, seconds=[0.001, 0.002, 0.003])
    loaded = serve.Tally(sent=101, seconds=[0.004] * 98 + [0.008, 0.009], statuses={503: 1}, late=[0.0001])
    moments = [serve.Moment(*of_second) for of_second in
               ((100_000_000, 1.0, 5.0, 0), (101_000_000, 1.2, 5.0, 100), (99_000_000, 1.2, 5.0, 100),
                (103_000_000, 1.3, 5.5, 150), (102_000_000, 1.7, 5.7, 250))]  # fmt: skip
    found = serve.Found({1: (single, 400.0), 8: (single, 900.0)}, {"even": (loaded, moments)})
    assert (found.peak, found.single_s) == (900, 0.002)
    rows = {name: (asked, said) for name, asked, said in serve.asked(found)}
    assert rows["p99"] == ("", "8.00 ms")
    assert rows["p99 to the p50 of a single sentence"] == ("<= 5.0", "4.00")
    assert rows["the most it was late by"] == ("", "0.10 ms")
    assert rows["lost"] == ("0", "1 (1 with status 503)")
    assert rows["memory at start, middle, end, MB"] == ("", "100.0, 99.0, 102.0")
    assert rows["memory at the end to that at the start"] == ("<= 1.05", "1.020")
    # 200 ms for 100 answers, a second without any, 100 for 50, 400 for 100
    assert rows["processor time of the server for an answer: median second, dearest"] == ("", "2.00, 4.00 ms")
    assert rows["of the cores' time the host gave to others: in all, in the worst second"] == ("", "0.70, 0.50 s")


def test_a_short_load_of_a_small_bundle_loses_nothing(tmp_path):
    write_table_file(tmp_path / "model.tflite", TABLE)
    write_tokenizer(tmp_path / "tokenizer.json", WORDS)
    write_labels(tmp_path / "labels.json", labels=["negative", "positive"], max_length=5)
    (tmp_path / "dev.tsv").write_text("sentence\tlabel\na charming film\t1\ndull\t0\na dull dull film\t0\n")
    folder, page = str(tmp_path), tmp_path / "SERVER.md"
    short = ["--seconds", "1", "--peak-seconds", "0.3", "--clients", "4", "--page", str(page)]
    command = [sys.executable, str(BENCHMARKS / "serve.py"), "--bundle", folder, "--data", folder, *short]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = page.read_text().splitlines()
    assert "| lost | 0 | 0 | 0 |" in lines
    assert "| answers that are not what the same sentence got before | 0 | 0 | 0 |" in lines
    assert sum(line.startswith(("| 1 |", "| 4 |")) for line in lines) == 2


def test_one_halt_is_in_few_pieces_of_a_load(serve):
    """Of five pieces one holds all that waited: two hundredths of all, and not the median."""
    calm = [0.001] * 98 + [0.003] * 2
    load = serve.Tally(seconds=[*calm, *calm, *[0.5] * 10, *calm[10:], *calm, *calm])
    assert serve.percentile(load.seconds, 0.99) == 0.5
    assert serve.of_pieces([(load, [])], size=100) == [0.003]
