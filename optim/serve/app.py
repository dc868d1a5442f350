"""What the server answers: POST /classify, GET /health, and a page to try sentences on at /."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from optim.common.errors import UserError
from optim.common.text import is_unicode
from optim.predict import Classifier
from optim.serve.workers import Answer, Busy, Workers

PAGE = Path(__file__).with_name("page.html")
DRAINED = (
    32  # times its limit that a body is read and thrown away, so that its sender is there to hear that it is too long
)
HOW = 'POST /classify takes JSON: {"text": "a sentence"} or {"texts": ["one", "another"]}'


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a request may ask for; the rest is refused with 413."""

    body_bytes: int = 1_000_000
    characters: int = 20_000  # of a sentence: the model reads its first tokens, whatever it is long
    sentences: int = 256  # or as many as may wait, where those are fewer


class Refused(Exception):
    """A request that gets no answer: a status and what is wrong with it."""

    def __init__(self, status: int, said: str) -> None:
        super().__init__(said)
        self.status = status


def application(classifiers: Sequence[Classifier], *, queue: int, limits: Limits | None = None) -> Starlette:
    """The server's application. classifiers: of one bundle, each for one thread; queue: sentences that may wait."""
    workers = Workers(classifiers, queue=queue)
    limits, first, start = limits or Limits(), classifiers[0], time.monotonic()
    limits = replace(limits, sentences=min(limits.sentences, queue))  # more would be sent away each time they come

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with workers:
            yield

    async def classify(request: Request) -> Response:
        try:
            texts, single = wanted(await body_of(request, limits.body_bytes), limits)
            answers = await while_there(request, workers.answers(texts))
        except Refused as error:
            return JSONResponse({"error": str(error)}, error.status)
        except Busy as error:
            return JSONResponse({"error": str(error)}, 503, headers={"Retry-After": "1"})
        except UserError as error:  # a sentence that the file can't run
            return JSONResponse({"error": str(error)}, 422)
        except ClientDisconnect:  # nobody is there to hear an answer
            return Response(status_code=400)
        except asyncio.CancelledError:  # the server ends, and this one took too long for that
            return JSONResponse({"error": "The server ends."}, 503)
        return JSONResponse(answers[0] if single else {"answers": answers})

    async def health(request: Request) -> Response:
        said = {"labels": first.labels, "max_length": first.max_length, "workers": len(classifiers)}
        now = {"answered": workers.answered, "waiting": workers.waiting}
        return JSONResponse({"status": "ok", **said, **now, "uptime_s": round(time.monotonic() - start, 1)})

    async def page(request: Request) -> Response:
        return HTMLResponse(PAGE.read_text(encoding="utf-8"))

    routes = [Route("/", page), Route("/health", health), Route("/classify", classify, methods=["POST"])]
    return Starlette(routes=routes, lifespan=lifespan)


async def while_there(request: Request, asking: Coroutine[Any, Any, list[Answer]]) -> list[Answer]:
    """The answers; raises ClientDisconnect once nobody is there to hear them, and what has not begun never does.

    After its body all that a request can still receive is that its client has gone.
    """
    asked, left = asyncio.ensure_future(asking), asyncio.ensure_future(request.receive())
    try:
        await asyncio.wait([asked, left], return_when=asyncio.FIRST_COMPLETED)
        if not asked.done():
            raise ClientDisconnect
        return asked.result()
    finally:
        asked.cancel()
        left.cancel()


async def body_of(request: Request, limit: int) -> bytes:
    """The body, kept no further than the limit in bytes. Raises Refused for a longer one."""
    long = Refused(413, f"The body has more than {limit:,} bytes.")
    if int(request.headers.get("content-length", 0)) > DRAINED * limit:
        raise long
    kept, count = bytearray(), 0
    async for chunk in request.stream():
        count += len(chunk)
        if count <= limit:
            kept += chunk
        if count > DRAINED * limit:
            break
    if count > limit:
        raise long
    return bytes(kept)


def wanted(body: bytes, limits: Limits) -> tuple[list[str], bool]:
    """(the sentences of a body, whether it is a single one). Raises Refused for what is not as HOW says."""
    texts, single = _listed(_parsed(body))
    if not texts or not all(isinstance(text, str) for text in texts):
        raise Refused(422, f"{HOW}.")
    if blank := [i for i, text in enumerate(texts) if not text.strip()]:
        raise Refused(422, f"Sentence {blank[0] + 1} is blank.")
    if halved := [i for i, text in enumerate(texts) if not is_unicode(text)]:
        raise Refused(422, f"Sentence {halved[0] + 1} is no Unicode: it has one half of a surrogate pair.")
    if len(texts) > limits.sentences:
        raise Refused(413, f"{len(texts):,} sentences in one request, and {limits.sentences} may be.")
    if (longest := max(map(len, texts))) > limits.characters:
        raise Refused(413, f"A sentence has {longest:,} characters, and {limits.characters:,} may be.")
    return texts, single


def _parsed(body: bytes) -> Any:
    """What a body holds. Raises Refused where it can't be read."""
    try:
        return json.loads(body)
    except ValueError as error:  # also of bytes that are no text
        raise Refused(400, f"The body is no JSON. {HOW}.") from error
    except RecursionError as error:
        raise Refused(400, f"The body is nested too deep. {HOW}.") from error


def _listed(content: Any) -> tuple[list[Any], bool]:
    """(what stands under `text` or `texts`, whether it is under `text`); nothing where neither is there."""
    match content:
        case {"text": text}:
            return [text], True
        case {"texts": [*texts]}:
            return texts, False
    return [], False
