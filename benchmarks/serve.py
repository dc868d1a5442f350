"""`python -m optim.serve` under load: its peak rate, then a minute at four fifths of it.

python benchmarks/serve.py --bundle results/ID/bundle --data DIR     or: make bench-serve BUNDLE=DIR DATA=DIR

DIR holds GLUE's own dev.tsv. A request is one sentence. First more and more clients ask again at once when they are
answered: the most answers a second are the peak rate. Then requests start at moments drawn beforehand (a Poisson
process), whether or not those before are answered, and a latency counts from the moment that was drawn, so that no wait
is hidden. Clients are sockets of one process that shares the cores with the server. Writes benchmarks/SERVER.md.
"""

# ruff: noqa: E501
from __future__ import annotations

import argparse
import asyncio
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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "benchmarks" / "SERVER.md"
sys.path.insert(0, str(ROOT))

from optim.data.tables import read_rows  # noqa: E402
from optim.measure.machine import machine  # noqa: E402

CLIENTS = (1, 2, 4, 8, 16, 32, 64)  # at once, while the peak rate is looked for
SHARE = 0.8  # of the peak rate
TIMES = 5.0  # the single sentence's median that the 99th percentile may be
FLAT = 1.05  # of the memory after the first requests: more than that at the end has grown
PATIENCE_S = 10.0  # an answer that has not come so long after the last request is lost


@dataclass
class Tally:
    """What came of some requests."""

    sent: int = 0
    seconds: list[float] = field(default_factory=list)  # of those that were answered with 200
    statuses: dict[int, int] = field(default_factory=dict)  # of the others -> how many; 0: the connection broke
    changed: int = 0  # answers that are not what the same sentence got before

    @property
    def lost(self) -> int:
        """Requests without an answer, or with another status than 200."""
        return self.sent - len(self.seconds)


def main() -> None:
    """Starts the server, looks for its peak, loads it, and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True, help="a run folder or its bundle")
    parser.add_argument("--data", type=Path, required=True, help="folder with dev.tsv")
    parser.add_argument("--seconds", type=float, default=60, help="of the load at four fifths of the peak")
    parser.add_argument("--peak-seconds", type=float, default=5, help="with each number of clients")
    parser.add_argument("--clients", type=int, nargs="+", default=list(CLIENTS))
    parser.add_argument("--workers", type=int, help="of the server (default: its own)")
    parser.add_argument("--page", type=Path, default=PAGE)
    args = parser.parse_args()
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

    def __init__(self) -> None:
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
        self.late: list[float] = []  # seconds between the moment that was drawn for a request and its sending

    async def connect(self) -> Connection:
        """A connection that nobody uses: an open one, or a new one."""
        while self.idle:
            if (one := self.idle.pop()).open:
                return one
        loop = asyncio.get_running_loop()
        return (await loop.create_connection(Connection, "127.0.0.1", self.port))[1]

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
                self.idle.append(one)
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

    async def planned(self, moments: Sequence[float]) -> Tally:
        """What came of a request at each of these moments, seconds from now on, whatever became of those before."""
        tally, start, opening = Tally(), time.perf_counter(), set()
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
        return tally

    async def _planned(self, tally: Tally, moment: float) -> None:
        try:
            one = await self.connect()
        except OSError:
            tally.statuses[0] = tally.statuses.get(0, 0) + 1
            return
        self.late.append(time.perf_counter() - moment)
        self.ask(one, tally, moment, lambda: None)


def request_of(text: str) -> bytes:
    """A whole request for one sentence."""
    body = json.dumps({"text": text}).encode()
    head = (
        f"POST /classify HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    )
    return head.encode() + b"\r\n\r\n" + body


def moments_of(rate: float, seconds: float, seed: int = 0) -> list[float]:
    """The moments of a Poisson process of that rate, in seconds from its start."""
    rng, moment, found = random.Random(seed), 0.0, []
    while (moment := moment + rng.expovariate(rate)) < seconds:
        found.append(moment)
    return found


def percentile(values: Sequence[float], share: float) -> float:
    """The least value that at least `share` of the values, (0, 1], do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(round(share * len(ordered), 6)) - 1)]


async def measured(load: Load, process_id: int, args: argparse.Namespace) -> dict[str, Any]:
    """Every figure of the page."""
    await load.closed(2, min(2.0, args.peak_seconds))  # warm: each interpreter has met the lengths
    rates: dict[int, tuple[float, float, float]] = {}
    lost = 0
    for clients in args.clients:
        tally, rate = await load.closed(clients, args.peak_seconds)
        lost += tally.lost
        rates[clients] = rate, statistics.median(tally.seconds), percentile(tally.seconds, 0.99)
        print(f"{clients} clients: {rate:.0f} answers a second", flush=True)
    peak = max(rate for rate, _, _ in rates.values())
    moments = moments_of(SHARE * peak, args.seconds)
    print(f"{len(moments)} requests in {args.seconds:.0f} s", flush=True)
    weighing = asyncio.ensure_future(weighed(process_id, args.seconds))
    tally = await load.planned(moments)
    return {"rates": rates, "single_s": rates[min(rates)][1], "peak": peak, "tally": tally, "late": load.late,
            "lost_before": lost, "memory": await weighing}  # fmt: skip


async def weighed(process_id: int, seconds: float) -> list[int]:
    """Resident bytes of a process now, after half of the time, and after all of it."""
    found = [rss_bytes(process_id)]
    for _ in range(2):
        await asyncio.sleep(seconds / 2)
        found.append(rss_bytes(process_id))
    return found


def rss_bytes(process_id: int) -> int:
    """On Linux."""
    found = re.search(r"^VmRSS:\s*(\d+) kB", Path(f"/proc/{process_id}/status").read_text(), re.MULTILINE)
    assert found
    return int(found[1]) * 1024


def page(here: Mapping[str, Any], found: Mapping[str, Any], args: argparse.Namespace, count: int) -> str:
    """SERVER.md. here: the machine before it was loaded."""
    megabytes = ", ".join(f"{size / 1e6:.1f}" for size in found["memory"])
    late = 1e3 * percentile(found["late"], 0.99)
    lines = [
        "# The server under load", "",
        f"Written by `make bench-serve` on {time.strftime('%Y-%m-%d')}: {here['cpu']}, {here['cores']} cores,",
        f"ISA {', '.join(here['isa'])}.",
        f"Load average before it began: {here['load_average'][0]}.", "",
        f"`python -m optim.serve` with its own settings answers requests of one sentence each, the {count} of SST-2's dev in turn.",
        "The clients are sockets of one process on the same cores, so a part of the machine is theirs. First each of so many",
        f"clients asks again when it is answered, for {args.peak_seconds:.0f} s:", "",
        "| clients | answers a second | p50, ms | p99, ms |", "|---|---|---|---|",
        *(f"| {clients} | {rate:.0f} | {1e3 * median:.2f} | {1e3 * most:.2f} |"
          for clients, (rate, median, most) in found["rates"].items()), "",
        f"Then for {args.seconds:.0f} s requests start at moments drawn beforehand, as many as {SHARE:.0%} of the peak rate. A latency counts from the",
        "moment that was drawn, so a wait in the client counts too.", "",
        "| figure | asked | measured |", "|---|---|---|",
        *(f"| {' | '.join(row)} |" for row in asked(found, args.seconds)), "",
        f"Resident megabytes at the start, in the middle and at the end: {megabytes}. 99 of 100 requests were sent within",
        f"{late:.2f} ms of their moment.", "",
        ", ".join(f"{name} {version}" for name, version in versions().items()) + ".", "",
    ]  # fmt: skip
    return "\n".join(lines)


def asked(found: Mapping[str, Any], seconds: float) -> list[tuple[str, str, str]]:
    """(figure, what the project asks of itself, what came of it)."""
    tally: Tally = found["tally"]
    single, (start, middle, end) = found["single_s"], found["memory"]
    most = percentile(tally.seconds, 0.99)
    others = "".join(f", {count} with status {status}" for status, count in sorted(tally.statuses.items()))
    return [
        ("peak rate, answers a second", "", f"{found['peak']:.0f}"),
        ("p50 of a single sentence, one client", "", f"{1e3 * single:.2f} ms"),
        ("p50 under load", "", f"{1e3 * percentile(tally.seconds, 0.5):.2f} ms"),
        ("p99 under load", f"<= {TIMES:.0f} times the single p50",
         f"{1e3 * most:.2f} ms, {most / single:.2f} times"),
        (f"requests lost, of {tally.sent:,} in {seconds:.0f} s", "0", f"{tally.lost}{others}"),
        ("answers that differ from that to the same sentence before", "0", str(tally.changed)),
        ("lost while the peak was looked for", "0", str(found["lost_before"])),
        ("memory at the end to that at the start", f"<= {FLAT:.2f}", f"{end / start:.3f} (in the middle {middle / start:.3f})"),
    ]  # fmt: skip


def versions() -> dict[str, str]:
    """Package -> version of what serves."""
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in ("ai-edge-litert", "tokenizers", "starlette", "uvicorn", "httptools", "uvloop"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


if __name__ == "__main__":
    main()
