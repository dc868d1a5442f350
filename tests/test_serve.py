"""`python -m optim.serve` on a bundle whose answers are known by hand: what it answers, refuses, and survives."""

from __future__ import annotations

import asyncio
import json
import math
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.requests import ClientDisconnect
from test_predict import TABLE, WORDS, write_tokenizer
from tiny_tflite import write_table_file

from optim.export.bundle import write_labels
from optim.serve import __main__ as serve
from optim.serve.__main__ import _listening
from optim.serve.app import while_there
from optim.serve.workers import NICENESS, Busy, Workers

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    write_table_file(folder / "model.tflite", TABLE)
    write_tokenizer(folder / "tokenizer.json", [*WORDS, "new"])  # which the file has no row for
    write_labels(folder / "labels.json", labels=["negative", "positive"], max_length=5)
    return folder


@pytest.fixture(scope="module")
def server(bundle) -> Iterator[str]:
    with serving(bundle, "--workers", "2") as address:
        yield address


@contextmanager
def serving(bundle: Path, *options: str) -> Iterator[str]:
    """Its address; what it says on stderr until it ends is looked at then."""
    command = [sys.executable, "-m", "optim.serve", str(bundle), "--port", "0", *options]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as program:
        assert program.stderr
        found = re.search(r"http://127\.0\.0\.1:\d+", program.stderr.readline())
        assert found
        try:
            yield found.group()
        finally:
            program.send_signal(signal.SIGINT)
            try:
                said = program.communicate(timeout=30)[1]
            except subprocess.TimeoutExpired:
                program.kill()
                raise
    assert "Traceback" not in said, said


def asked(address: str, body: bytes | object, path: str = "/classify") -> tuple[int, dict]:
    """(status, answer) of a POST."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(address + path, data), timeout=60) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_one_sentence_and_several_are_answered_as_predict_does(server):
    status, answer = asked(server, {"text": "A charming film"})
    assert (status, answer["label"]) == (200, "positive")
    assert answer["score"] == answer["scores"]["positive"] == pytest.approx(1 / (1 + math.exp(-3)))
    status, answer = asked(server, {"texts": ["dull", "charming", "dull film"]})
    assert status == 200
    assert [one["label"] for one in answer["answers"]] == ["negative", "positive", "negative"]


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b'{"text": "a fi', 400, "The body is no JSON. POST /classify takes JSON"),
        (b"\xff\xfe", 400, "no JSON"),
        (b"", 400, "no JSON"),
        (b"[" * 100_000, 400, "The body is nested too deep. POST /classify takes JSON"),
        (b'{"text": ' * 100_000, 400, "nested too deep"),
        (rb'{"text": "a \ud83d film"}', 422, "Sentence 1 is no Unicode: it has one half of a surrogate pair."),
        ({"texts": ["a film", "\ude00"]}, 422, "Sentence 2 is no Unicode"),
        (b'{"text": "a \xed\xa0\xbd film"}', 422, "Sentence 1 is no Unicode"),
        ({}, 422, 'POST /classify takes JSON: {"text": "a sentence"}'),
        ([], 422, "POST /classify takes JSON"),
        ({"text": 7}, 422, "POST /classify takes JSON"),
        ({"texts": []}, 422, "POST /classify takes JSON"),
        ({"text": "  "}, 422, "Sentence 1 is blank."),
        ({"texts": ["a film", ""]}, 422, "Sentence 2 is blank."),
        ({"texts": ["a film"] * 257}, 413, "257 sentences in one request, and 256 may be."),
        ({"texts": ["a film", "a new film"]}, 422, "cannot run 5 tokens"),
        ({"text": "film " * 10_000}, 413, "A sentence has 50,000 characters, and 20,000 may be."),
        ({"text": "film " * 2_000_000}, 413, "The body has more than 1,000,000 bytes."),
    ],
    ids=["broken", "bytes", "nothing", "deep", "deep texts", "half an emoji", "the other half", "half in bytes",
         "no text", "a list", "a number", "none", "blank", "one blank", "many", "unknown", "long", "10 MB"],
)  # fmt: skip
def test_a_bad_request_is_refused_in_a_line_and_the_next_one_is_answered(server, body, status, said):
    found, answer = asked(server, body)
    assert found == status
    assert said in answer["error"]
    assert asked(server, {"text": "dull"})[1]["label"] == "negative"


def test_more_sentences_than_may_ever_wait_are_refused_for_good(bundle):
    """503 would ask the client to come again, and each time it would be sent away."""
    with serving(bundle, "--workers", "1", "--queue", "2") as address:
        status, answer = asked(address, {"texts": ["dull"] * 3})
        assert (status, answer["error"]) == (413, "3 sentences in one request, and 2 may be.")
        assert asked(address, {"texts": ["dull"] * 2})[0] == 200


def test_a_body_that_only_claims_to_be_large_is_not_waited_for(server):
    host = server.removeprefix("http://")
    connection = HTTPConnection(host, timeout=20)
    connection.putrequest("POST", "/classify")
    connection.putheader("Content-Length", str(10**9))
    connection.endheaders()
    connection.send(b"x" * 1000)
    assert connection.getresponse().status == 413
    connection.close()


def test_a_client_that_never_sends_the_rest_does_not_keep_the_server_from_ending(bundle):
    with serving(bundle, "--workers", "1") as address:
        host, port = address.removeprefix("http://").split(":")
        client = socket.create_connection((host, int(port)), timeout=20)
        client.sendall(b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n{")
        assert b"100 Continue" in client.recv(100), "it is being read"
    with client:
        assert client.recv(1000).startswith(b"HTTP/1.1 503 ")


def test_what_nobody_waits_for_any_more_is_not_computed():
    """A server that ends would first answer all of its queue."""
    begun, go, seen = threading.Event(), threading.Event(), []

    def classify(text):
        seen.append(text)
        begun.set()
        assert go.wait(20)
        return {"label": text}

    async def through() -> None:
        async with Workers([classify], queue=9) as workers:
            asked = asyncio.create_task(workers.answers(["a", "bb", "ccc"]))
            await asyncio.to_thread(begun.wait, 20)
            asked.cancel()
            await asyncio.wait([asked])
            go.set()

    asyncio.run(through())
    assert seen == ["a"]


def test_what_a_client_that_has_gone_asked_for_is_not_computed():
    """Else those with little patience keep all cores at work for nobody, and those who wait are sent away."""
    begun, go, gone, seen = threading.Event(), threading.Event(), asyncio.Event(), []

    def classify(text):
        seen.append(text)
        begun.set()
        assert go.wait(20)
        return {"label": text}

    async def receive() -> dict[str, str]:
        await gone.wait()
        return {"type": "http.disconnect"}

    async def through() -> None:
        request: Any = SimpleNamespace(receive=receive)
        async with Workers([classify], queue=9) as workers:
            asked = asyncio.create_task(while_there(request, workers.answers(["a", "bb", "ccc"])))
            await asyncio.to_thread(begun.wait, 20)
            gone.set()
            with pytest.raises(ClientDisconnect):
                await asked
            go.set()
            assert await workers.answers(["d"]) == [{"label": "d"}]

    asyncio.run(through())
    assert seen == ["a", "d"]


def test_a_thousand_requests_at_once_are_all_answered(server):
    texts = ["charming" if i % 3 else "dull" for i in range(1000)]
    with ThreadPoolExecutor(100) as pool:
        found = list(pool.map(lambda text: asked(server, {"text": text}), texts))
    assert [(status, answer.get("label")) for status, answer in found] == [
        (200, "positive" if text == "charming" else "negative") for text in texts
    ]


def test_an_answer_is_sent_at_once_on_a_connection_that_is_kept():
    """asyncio turns Nagle's algorithm off where a socket says that it is TCP; else each answer waits 40 ms."""
    accepted = asyncio.Queue()

    async def through() -> int:
        def met(reader, writer):
            accepted.put_nowait(writer)

        listening = _listening("127.0.0.1", 0)
        async with await asyncio.start_server(met, sock=listening):
            _, own = await asyncio.open_connection(*listening.getsockname())
            writer = await accepted.get()
            set_to = writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            for one in (own, writer):
                one.close()
            return set_to

    assert asyncio.run(through()) != 0


def test_health_and_page(server):
    with urllib.request.urlopen(f"{server}/health") as response:
        health = json.load(response)
    assert health["labels"] == ["negative", "positive"]
    assert health["answered"] >= 1
    with urllib.request.urlopen(server) as response:
        page = response.read().decode()
    assert "Try a sentence" in page
    assert "http://" not in page, "it loads nothing from elsewhere"


def test_a_run_folder_is_taken_for_its_bundle(bundle, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "bundle").symlink_to(bundle)
    taken = subprocess.Popen(
        [sys.executable, "-m", "optim.serve", str(tmp_path / "run"), "--port", "0"],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    with taken:
        assert taken.stderr
        assert "answers at http://127.0.0.1:" in taken.stderr.readline()
        taken.terminate()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["."], "is not a bundle"),
        (["{bundle}", "--port", "99999"], "can't be listened on"),
        (["{bundle}", "--host", "nowhere.invalid"], "or --host"),
        (["{bundle}", "--host", ""], "--host must name an address, got ''"),
        (["{bundle}", "--queue", "0"], "--queue must be above 0"),
        (["a" * 300], "File name too long"),
    ],
)
def test_what_cannot_be_served_is_one_line(bundle, words, said):
    command = [sys.executable, "-m", "optim.serve", *(word.format(bundle=bundle) for word in words)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert said in done.stderr


def test_an_interrupt_while_it_loads_ends_it_without_a_traceback(bundle, monkeypatch):
    def interrupted(folder):
        raise KeyboardInterrupt

    monkeypatch.setattr(serve, "Classifier", interrupted)
    assert serve.main([str(bundle)]) == 130


def test_who_waits_is_answered_by_whoever_is_free_and_not_after_a_slow_one():
    """Eight of nine sentences are answered by one worker while the other is at the ninth."""
    begun, go, threads = threading.Event(), threading.Event(), set()

    def classify(text):
        threads.add(threading.get_ident())
        if text == "slow":
            begun.set()
            assert go.wait(20)
        return {"label": text}

    async def through() -> list:
        async with Workers([classify] * 2, queue=100) as workers:
            slow = asyncio.create_task(workers.answers(["slow"]))
            await asyncio.to_thread(begun.wait, 20)
            async with asyncio.timeout(20):
                others = await workers.answers([str(i) for i in range(8)])
            assert not slow.done()
            go.set()
            return [*await slow, *others]

    assert [answer["label"] for answer in asyncio.run(through())] == ["slow", *"01234567"]
    assert len(threads) == 2


def test_who_would_wait_too_long_is_sent_away_and_nobody_else():
    """Four may wait while one is answered; a sentence that has no answer costs no other its own."""
    started, go, seen = threading.Event(), threading.Event(), Counter()

    def classify(text):
        seen[text] += 1
        started.set()
        assert go.wait(20)
        if text == "bad":
            raise ValueError("no such word")
        return {"label": text}

    async def through() -> tuple:
        async with Workers([classify], queue=4) as workers:
            first = asyncio.create_task(workers.answers(["one"]))
            await asyncio.to_thread(started.wait, 20)
            second = asyncio.create_task(workers.answers(["three", "four", "two"]))
            await asyncio.sleep(0)
            assert workers.waiting == 3
            with pytest.raises(Busy, match="3 sentences wait already, and 4 may"):
                await workers.answers(["five", "six"])
            go.set()
            found = [await first, await second]
            asked = [workers.answers([text]) for text in ("good", "bad", "last")]
            good, bad, last = await asyncio.gather(*asked, return_exceptions=True)
            assert isinstance(bad, ValueError)
            return *found, good, last, workers.answered

    one, more, good, last, answered = asyncio.run(asyncio.wait_for(through(), 30))
    assert (one, good, last) == ([{"label": "one"}], [{"label": "good"}], [{"label": "last"}])
    assert [answer["label"] for answer in more] == ["three", "four", "two"]
    assert answered == 6
    assert seen == Counter(["one", "two", "three", "four", "good", "bad", "last"])


def test_sentences_of_one_request_are_answered_by_length():
    """Each length once: the runtime plans anew for another one."""
    seen: list[str] = []

    async def through() -> list:
        async with Workers([lambda text: {"label": seen.append(text) or text}], queue=9) as workers:
            return await workers.answers(["aaa", "b", "ccc", "d", "ee"])

    assert [answer["label"] for answer in asyncio.run(through())] == ["aaa", "b", "ccc", "d", "ee"]
    assert [len(text) for text in seen] == [1, 1, 2, 3, 3]


@pytest.mark.skipif(sys.platform != "linux", reason="niceness of a thread")
def test_only_the_threads_that_compute_give_way():
    """Also where the whole server has a niceness already."""
    found: list[int] = []

    def niceness() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    def classify(text):
        found.append(niceness())
        return {"label": text}

    async def through() -> None:
        async with Workers([classify], queue=9) as workers:
            await workers.answers(["a film"])
            found.append(niceness())

    def nice() -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), before + 7)
        asyncio.run(through())

    before = niceness()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(nice).result(30)
    assert found == [min(19, before + 7 + NICENESS), before + 7]


@pytest.mark.parametrize("host", ["::1", "[::1]"])
@pytest.mark.parametrize("given", [["--host", "{}"], ["--host={}"]])
def test_an_address_of_ipv6_may_have_the_brackets_of_a_url(host, given, monkeypatch):
    asked = []
    monkeypatch.setattr(serve, "serve", asked.append)
    assert serve.main([".", *(word.format(host) for word in given)]) == 0
    assert asked[0].host == "::1"


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
def test_an_address_of_ipv6_is_listened_on():
    with _listening("::1", 0) as made:
        assert made.family == socket.AF_INET6
