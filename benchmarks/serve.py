"""`python -m optim.serve` under load: its peak rate, then a minute at four fifths of it.

python benchmarks/serve.py --bundle results/ID/bundle --data DIR     or: make bench-serve BUNDLE=DIR DATA=DIR

DIR holds GLUE's own dev.tsv. A request is one sentence. First more and more clients ask again at once when they are
answered: the most answers a second are the peak rate. Then requests start at planned moments, whether or not those before
are answered: evenly spaced, and once more as a Poisson process has them. A latency counts from the planned moment, so
that no wait is hidden. Clients are sockets of one process that shares the cores with the server. Writes
benchmarks/SERVER.md.
"""

# ruff: noqa: E501
from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import math
import random
import re
import selectors
import signal
import statistics
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "benchmarks" / "SERVER.md"
sys.path.insert(0, str(ROOT))

import psutil  # noqa: E402

from optim.common.versions import versions_of  # noqa: E402
from optim.data.tables import read_rows  # noqa: E402
from optim.measure.device import machine  # noqa: E402

CLIENTS = (1, 2, 4, 8, 16, 32, 64)  # at once, while the peak rate is looked for
SHARE = 0.8  # of the peak rate
TIMES = 5.0  # the single sentence's median that the 99th percentile may be
FLAT = 1.05  # of the memory after the first requests: more than that at the end has grown
ARRIVALS = ("even", "poisson")
SERVING = ("ai-edge-litert", "tokenizers", "starlette", "uvicorn", "httptools", "uvloop")  # packages
CONNECTIONS = 900  # a loop on `select` has a thousand files at most
TRIED = """
## What was tried, and where the limit is

On a Xeon with AMX, two cores, in turns with what is there now:

- Batches of up to 16 sentences for each interpreter: 18 ms at the 99th percentile with 500 requests a second, 8 ms without.
  A file takes one sentence at a time, so a batch saves changes of length alone, 0.07 to 0.15 ms of 1.4 ms, and its first
  sentence waits for its last.
- The same niceness for all threads: 13 and 15 ms with 700 requests a second, 8 and 9 ms where those that compute give way to
  the one that reads and writes. Niceness 19 and Python's switch interval a tenth as long: no certain difference.
  The scheduler's idle class: as good, but beside other work it would hardly answer at all.
- Connections that stay open for 75 s without a request, not 5, and what was loaded kept from Python's collector: with Poisson
  arrivals 24 and 37 ms at the 99th percentile against 42 and 98, with even ones 21 and 17 against 11 and 16. Not certain.
- A request takes 1.8 to 2.0 ms of a core in the server, of which LiteRT has 1.4; the client takes 0.15 ms more.
"""
PIECE = 500  # answers, in the order they came: a percentile of each
PATIENCE_S = 10.0  # an answer that has not come so long after the last request is lost


@dataclass
class Tally:
    """What came of some requests."""

    sent: int = 0
    seconds: list[float] = field(default_factory=list)  # of those that were answered with 200
    statuses: dict[int, int] = field(default_factory=dict)  # of the others -> how many; 0: the connection broke
    changed: int = 0  # answers that are not what the same sentence got before
    late: list[float] = field(default_factory=list)  # seconds between the planned moment of a request and its sending

    @property
    def lost(self) -> int:
        """Requests without an answer, or with another status than 200."""
        return self.sent - len(self.seconds)

    @property
    def said_lost(self) -> str:
        """`3 (2 with status 503, 1 without an answer)`."""
        known = [f"{count} with status {status}" for status, count in sorted(self.statuses.items()) if status]
        without = self.lost - sum(count for status, count in self.statuses.items() if status)
        parts = known + [f"{without} without an answer"] * (without > 0)
        return f"{self.lost}" + (f" ({', '.join(parts)})" if parts else "")


def main() -> None:
    """Starts the server, looks for its peak, loads it, and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True, help="a run folder or its bundle")
    parser.add_argument("--data", type=Path, required=True, help="folder with dev.tsv")
    parser.add_argument("--seconds", type=float, default=60, help="of the load at four fifths of the peak")
    parser.add_argument("--peak-seconds", type=float, default=5, help="with each number of clients")
    parser.add_argument("--clients", type=int, nargs="+", default=list(CLIENTS))
    parser.add_argument("--arrivals", nargs="+", choices=ARRIVALS, default=list(ARRIVALS))
    parser.add_argument("--workers", type=int, help="of the server (default: its own)")
    parser.add_argument("--page", type=Path, default=PAGE)
    args = parser.parse_args()
    args.clients = sorted({1, *args.clients})  # one: what the percentiles are compared with
    here, texts = machine(), [text for text, _ in read_rows(args.data / "dev.tsv", "sentence", "label")]
    more = [] if args.workers is None else ["--workers", str(args.workers)]
    with served(args.bundle, more) as (port, process_id), asyncio.Runner(loop_factory=exact_loop) as runner:
        found = runner.run(measured(Load(port, texts), process_id, args))
    args.page.write_text(page(here, found, args, len(texts)), encoding="utf-8")
    print(f"Written: {args.page}")


@contextmanager
def served(bundle: Path, more: Sequence[str]) -> Iterator[tuple[int, int]]:
    """(port, process id) of a server of the bundle, which is ended after."""
    command = [sys.executable, "-m", "optim.serve", str(bundle), "--port", "0", *more]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as program:
        assert program.stderr
        line = program.stderr.readline()
        if not (found := re.search(r"http://127\.0\.0\.1:(\d+)", line)):
            raise SystemExit(line + program.stderr.read())
        try:
            yield int(found[1]), program.pid
        finally:
            program.send_signal(signal.SIGINT)
            program.communicate()


def exact_loop() -> asyncio.AbstractEventLoop:
    """A loop that wakes up to the microsecond: the usual one waits whole milliseconds."""
    return asyncio.SelectorEventLoop(selectors.SelectSelector())


Told = Callable[[int, bytes], None]  # status and body


class Connection(asyncio.Protocol):
    """One that is kept, with one request at a time."""

    def __init__(self, closed: Callable[[], None]) -> None:
        self.closed = closed
        self.transport: Any = None
        self.told: Told | None = None
        self.open, self.read = True, bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ready."""
        self.transport = transport

    def ask(self, request: bytes, told: Told) -> None:
        """Sends; `told` is called once, with status 0 where no answer will come."""
        self.told = told
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        """Some of an answer."""
        self.read += data
        head, found, body = self.read.partition(b"\r\n\r\n")
        if found and len(body) == length_of(head):
            self.read = bytearray()
            self._tell(int(head[9:12]), bytes(body))

    def connection_lost(self, exc: Exception | None) -> None:
        """By the server, perhaps in the middle of an answer."""
        self.open = False
        self.closed()
        self._tell(0, b"")

    def _tell(self, status: int, body: bytes) -> None:
        told, self.told = self.told, None
        if told:
            told(status, body)


def length_of(head: bytes | bytearray) -> int:
    """Bytes of the body that follows these lines of an answer; -1 where they don't say."""
    found = re.search(rb"\ncontent-length: *(\d+)", head.lower())
    return int(found[1]) if found else -1


class Load:
    """Requests to one server, the sentences in turn."""

    def __init__(self, port: int, texts: Sequence[str]) -> None:
        self.port, self.next = port, 0
        self.requests = [request_of(text) for text in texts]
        self.known: dict[int, bytes] = {}  # sentence -> its first answer
        self.idle: list[Connection] = []
        self.opened = 0
        self.queue: deque[asyncio.Future[Connection]] = deque()  # who waits for a connection

    async def connect(self) -> Connection:
        """A connection that nobody uses: an open one, or a new one, of which there are CONNECTIONS at most."""
        while self.idle:
            if (one := self.idle.pop()).open:
                return one
        loop = asyncio.get_running_loop()
        if self.opened >= CONNECTIONS:
            self.queue.append(free := loop.create_future())
            return await free
        self.opened += 1
        try:
            return (await loop.create_connection(lambda: Connection(self._closed), "127.0.0.1", self.port))[1]
        except OSError:
            self.opened -= 1
            raise

    def _closed(self) -> None:
        self.opened -= 1

    def _free(self, one: Connection) -> None:
        """Hands it to who waits longest, and still does."""
        while self.queue:
            if not (waiter := self.queue.popleft()).done():
                waiter.set_result(one)
                return
        self.idle.append(one)

    def ask(self, one: Connection, tally: Tally, since: float, then: Callable[[], object]) -> None:
        """The next sentence, by that connection; `then` is called after its answer."""
        number, self.next = self.next % len(self.requests), self.next + 1

        def told(status: int, body: bytes) -> None:
            if status == 200:
                tally.seconds.append(time.perf_counter() - since)
                tally.changed += self.known.setdefault(number, body) != body
            else:
                tally.statuses[status] = tally.statuses.get(status, 0) + 1
            if one.open:
                self._free(one)
            then()

        tally.sent += 1
        one.ask(self.requests[number], told)

    async def closed(self, clients: int, seconds: float) -> tuple[Tally, float]:
        """(what came of it, answers a second) where each of so many clients asks again when it is answered."""
        tally, start = Tally(), time.perf_counter()

        async def client() -> None:
            while time.perf_counter() - start < seconds:
                one, answered = await self.connect(), asyncio.Event()
                self.ask(one, tally, time.perf_counter(), answered.set)
                await answered.wait()

        await asyncio.gather(*(client() for _ in range(clients)))
        return tally, len(tally.seconds) / (time.perf_counter() - start)

    async def planned(self, moments: Sequence[float], tally: Tally) -> None:
        """Counts what comes of a request at each of these moments, seconds from now on, whatever became of those before."""
        start, opening = time.perf_counter(), set()
        for moment in moments:
            if (wait := start + moment - time.perf_counter()) > 0:
                await asyncio.sleep(wait)
            # Where a connection must be made, the next moment does not wait for it.
            opening.add(task := asyncio.ensure_future(self._planned(tally, start + moment)))
            task.add_done_callback(opening.discard)
        end = time.perf_counter() + PATIENCE_S
        while len(tally.seconds) + sum(tally.statuses.values()) < len(moments) and time.perf_counter() < end:
            await asyncio.sleep(0.01)
        tally.sent = len(moments)  # also those that never got a connection

    async def _planned(self, tally: Tally, moment: float) -> None:
        try:
            one = await self.connect()
        except OSError:
            tally.statuses[0] = tally.statuses.get(0, 0) + 1
            return
        tally.late.append(time.perf_counter() - moment)
        self.ask(one, tally, moment, lambda: None)


def request_of(text: str) -> bytes:
    """A whole request for one sentence."""
    body = json.dumps({"text": text}).encode()
    head = (
        f"POST /classify HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    )
    return head.encode() + b"\r\n\r\n" + body


def moments_of(rate: float, seconds: float, arrivals: str, seed: int = 0) -> list[float]:
    """Moments in seconds from the start: `even` ones, or those of a `poisson` process, of which `rate` come a second."""
    if arrivals == "even":
        return [i / rate for i in range(int(rate * seconds))]
    rng, moment, found = random.Random(seed), 0.0, []
    while (moment := moment + rng.expovariate(rate)) < seconds:
        found.append(moment)
    return found


def percentile(values: Sequence[float], share: float) -> float:
    """The least value that at least `share` of the values, (0, 1], do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(round(share * len(ordered), 6)) - 1)]


@dataclass(frozen=True)
class Moment:
    """The server and its machine at one moment of a load."""

    rss_bytes: int
    processor_s: float  # of the server, since it began
    stolen_s: float  # of all cores, since the machine began: what its host gave to others
    answers: int  # of the load so far


Loads = Sequence[tuple[Tally, Sequence[Moment]]]  # what came of each load, and its moments, a second apart


@dataclass
class Found:
    """Every figure of the page."""

    closed: dict[int, tuple[Tally, float]]  # clients -> (what came of it, answers a second)
    open: dict[str, tuple[Tally, Sequence[Moment]]]  # arrivals -> (what came of it, its moments)

    @property
    def peak(self) -> float:
        """The most answers a second."""
        return max(rate for _, rate in self.closed.values())

    @property
    def single_s(self) -> float:
        """The median of a single sentence: of the fewest clients, one."""
        return statistics.median(self.closed[min(self.closed)][0].seconds)


async def measured(load: Load, process_id: int, args: argparse.Namespace) -> Found:
    """The closed loops, then the load for each kind of arrivals."""
    await load.closed(2, min(2.0, args.peak_seconds))  # warm: each interpreter has met the lengths
    found = Found({}, {})
    for clients in args.clients:
        found.closed[clients] = await load.closed(clients, args.peak_seconds)
        print(f"{clients} clients: {found.closed[clients][1]:.0f} answers a second", flush=True)
    for arrivals in args.arrivals:
        moments = moments_of(SHARE * found.peak, args.seconds, arrivals)
        print(f"{len(moments)} requests in {args.seconds:.0f} s, {arrivals}", flush=True)
        tally = Tally()
        watching = asyncio.ensure_future(watched(psutil.Process(process_id), tally, args.seconds))
        await load.planned(moments, tally)
        found.open[arrivals] = tally, await watching
    return found


async def watched(server: psutil.Process, tally: Tally, seconds: float) -> list[Moment]:
    """The server now, and about each second until the load is over."""
    count, found = max(2, round(seconds)), []
    for number in range(count + 1):
        used = server.cpu_times()
        stolen = getattr(psutil.cpu_times(), "steal", 0.0)  # of Linux alone
        found.append(Moment(server.memory_info().rss, used.user + used.system, stolen, len(tally.seconds)))
        if number < count:
            await asyncio.sleep(seconds / count)
    return found


def page(here: Mapping[str, Any], found: Found, args: argparse.Namespace, count: int) -> str:
    """SERVER.md. here: the machine before it was loaded."""
    lines = [
        "# The server under load", "",
        f"Written by `make bench-serve` on {time.strftime('%Y-%m-%d')}: {here['cpu']}, {here['cores']} cores,",
        f"ISA {', '.join(here['isa'])}.",
        f"Load average before it began: {here['load_average'][0]}.", "",
        f"`python -m optim.serve` with its own settings answers requests of one sentence each, the {count} of SST-2's dev in turn.",
        "The clients are sockets of one process on the same cores, so a part of the machine is theirs. First each of so many",
        f"clients asks again when it is answered, for {args.peak_seconds:.0f} s:", "",
        "| clients | answers a second | p50, ms | p99, ms | lost |", "|---|---|---|---|---|",
    ]  # fmt: skip
    for clients, (tally, rate) in found.closed.items():
        p50, p99 = (1e3 * percentile(tally.seconds, share) for share in (0.5, 0.99))
        lines.append(f"| {clients} | {rate:.0f} | {p50:.2f} | {p99:.2f} | {tally.lost} |")
    lines += [
        "",
        f"Then for {args.seconds:.0f} s requests start at planned moments, as many as {SHARE:.0%} of the peak rate of {found.peak:.0f} a second. A latency",
        f"counts from the planned moment, so a wait in the client counts too. The p50 of a single sentence is {1e3 * found.single_s:.2f} ms.", "",
        f"| figure | asked | {' | '.join(f'{name} arrivals' for name in found.open)} |", "|" + "---|" * (2 + len(found.open)),
        *(f"| {' | '.join(row)} |" for row in asked(found)), "",
        ", ".join(f"{name} {version}" for name, version in versions_of(SERVING).items()) + ".", TRIED,
    ]  # fmt: skip
    return "\n".join(lines)


def asked(found: Found) -> list[list[str]]:
    """Rows of the second table: a figure, what the project asks of itself, and what came of each load."""
    loads, sizes = list(found.open.values()), [sizes_of(moments) for _, moments in found.open.values()]
    p99 = [percentile(tally.seconds, 0.99) for tally, _ in loads]
    return [
        ["p50", "", *(f"{1e3 * percentile(tally.seconds, 0.5):.2f} ms" for tally, _ in loads)],
        ["p99", "", *(f"{1e3 * one:.2f} ms" for one in p99)],
        ["p99 to the p50 of a single sentence", f"<= {TIMES:.1f}", *(f"{one / found.single_s:.2f}" for one in p99)],
        [f"the same of every {PIECE} answers, the median of these", "", *(f"{one / found.single_s:.2f}" for one in of_pieces(loads))],
        ["requests", "", *(f"{tally.sent:,}" for tally, _ in loads)],
        ["lost", "0", *(tally.said_lost for tally, _ in loads)],
        ["answers that are not what the same sentence got before", "0", *(str(tally.changed) for tally, _ in loads)],
        ["memory at start, middle, end, MB", "", *(", ".join(f"{one / 1e6:.1f}" for one in of_load) for of_load in sizes)],
        ["memory at the end to that at the start", f"<= {FLAT:.2f}", *(f"{end / start:.3f}" for start, _, end in sizes)],
        ["p99 of what the client was late by", "", *(f"{1e3 * percentile(tally.late, 0.99):.2f} ms" for tally, _ in loads)],
        ["the most it was late by", "", *(f"{1e3 * max(tally.late, default=0):.2f} ms" for tally, _ in loads)],
        ["processor time of the server for an answer: median second, dearest", "", *(dearness(moments) for _, moments in loads)],
        ["of the cores' time the host gave to others: in all, in the worst second", "", *(theft(moments) for _, moments in loads)],
    ]  # fmt: skip


def sizes_of(moments: Sequence[Moment]) -> tuple[int, int, int]:
    """Resident bytes at start, middle and end."""
    first, middle, last = moments[0], moments[len(moments) // 2], moments[-1]
    return first.rss_bytes, middle.rss_bytes, last.rss_bytes


def dearness(moments: Sequence[Moment]) -> str:
    """What a server that has more to do cannot change: it rises where the machine itself is slower."""
    each = [1e3 * (b.processor_s - a.processor_s) / (b.answers - a.answers)
            for a, b in itertools.pairwise(moments) if b.answers > a.answers]  # fmt: skip
    return f"{statistics.median(each):.2f}, {max(each):.2f} ms" if each else "no answers"


def theft(moments: Sequence[Moment]) -> str:
    """0 where no machine is above this one, or where it doesn't tell."""
    each = [b.stolen_s - a.stolen_s for a, b in itertools.pairwise(moments)]
    return f"{sum(each):.2f}, {max(each):.2f} s"


def of_pieces(loads: Loads, size: int = PIECE) -> list[float]:
    """Seconds: the median over pieces of a load of their 99th percentiles. size: answers of a piece.

    Where the whole machine halts for a tenth of a second, what waited then is more than a hundredth of all requests;
    of the pieces it is a few.
    """
    pieces = [[tally.seconds[i : i + size] for i in range(0, len(tally.seconds), size)] for tally, _ in loads]
    return [statistics.median(percentile(piece, 0.99) for piece in of_load) for of_load in pieces]


if __name__ == "__main__":
    main()
