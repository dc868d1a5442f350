"""Sentences that wait for an answer, and the interpreters that give it, some sentences at a time."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

Answer = dict[str, Any]
Classify = Callable[[list[str]], list[Answer]]
BATCH = 16  # sentences that one interpreter takes at once: sorted by length, they cost less than one by one


class Busy(RuntimeError):
    """More sentences would wait than may."""


class Batcher:
    """Hands sentences to whichever of several classifiers is free.

    classifiers: each is called by one thread at a time. queue: sentences that may wait. A loop must run when it starts.
    """

    def __init__(self, classifiers: Sequence[Classify], *, queue: int) -> None:
        self.classifiers, self.limit, self.answered = classifiers, queue, 0
        self.waiting: asyncio.Queue[tuple[str, asyncio.Future[Answer]]] = asyncio.Queue()
        self._pool = ThreadPoolExecutor(len(classifiers))
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Batcher:
        """Starts a task for each classifier."""
        self._tasks = [asyncio.create_task(self._work(classify)) for classify in self.classifiers]
        return self

    async def __aexit__(self, *error: object) -> None:
        """Stops them; a batch that is being computed is finished first."""
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with suppress(asyncio.CancelledError):
                await task
        self._pool.shutdown()

    async def answers(self, texts: Sequence[str]) -> list[Answer]:
        """In the order of the texts. Raises Busy where they would be more than may wait."""
        if self.waiting.qsize() + len(texts) > self.limit:
            raise Busy(f"{self.waiting.qsize()} sentences wait already, and {self.limit} may.")
        loop = asyncio.get_running_loop()
        futures = [loop.create_future() for _ in texts]
        for text, future in zip(texts, futures, strict=True):
            self.waiting.put_nowait((text, future))
        return list(await asyncio.gather(*futures))

    async def _work(self, classify: Classify) -> None:
        """Takes its share of what waits, up to BATCH sentences, until it is cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            batch = [await self.waiting.get()]
            share = math.ceil((1 + self.waiting.qsize()) / len(self.classifiers))  # the others get theirs
            while len(batch) < min(BATCH, share):
                batch.append(self.waiting.get_nowait())
            found = await loop.run_in_executor(self._pool, each_or_error, classify, [text for text, _ in batch])
            for (_, future), answer in zip(batch, found, strict=True):
                self._tell(future, answer)

    def _tell(self, future: asyncio.Future[Answer], answer: Answer | Exception) -> None:
        """Ends the wait of one sentence, unless its client has gone."""
        if future.done():
            return
        if isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            self.answered += 1
            future.set_result(answer)


def each_or_error(classify: Classify, texts: list[str]) -> list[Answer | Exception]:
    """The answer to each text. Where they can't all be answered each is asked alone: one must not cost the others."""
    try:
        return list(classify(texts))
    except Exception as error:
        return [error] if len(texts) == 1 else [one for text in texts for one in each_or_error(classify, [text])]
