"""Sentences that wait for an answer, and the threads that give it, each one sentence at a time.

There are no batches: a file takes one sentence at once, so a batch saves no arithmetic, and its first sentence waits
for its last. On two cores, at 500 requests a second and in turns, the 99th percentile was 18 ms with batches of up to
16 sentences, and 8 ms with single ones.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from queue import SimpleQueue
from threading import Thread, get_native_id
from typing import Any

Answer = dict[str, Any]
Classify = Callable[[str], Answer]
NICENESS = 5  # more for the threads that compute: the one that reads and writes must not wait for a core


class Busy(RuntimeError):
    """More sentences would wait than may."""


class Workers:
    """Hands each sentence to whichever of several classifiers is free.

    classifiers: each is called by one thread. queue: sentences that may wait. A loop must run when they start.
    """

    def __init__(self, classifiers: Sequence[Classify], *, queue: int) -> None:
        self.classifiers, self.limit, self.answered = classifiers, queue, 0
        self._waiting: SimpleQueue[tuple[str, asyncio.Future[Answer]] | None] = SimpleQueue()
        self._threads: list[Thread] = []

    @property
    def waiting(self) -> int:
        """Sentences that no classifier has begun with."""
        return self._waiting.qsize()

    async def __aenter__(self) -> Workers:
        """Starts a thread for each classifier."""
        loop = asyncio.get_running_loop()
        self._threads = [Thread(target=self._work, args=(one, loop), daemon=True) for one in self.classifiers]
        for thread in self._threads:
            thread.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        """Stops them after all that waits."""
        for _ in self._threads:
            self._waiting.put(None)
        for thread in self._threads:
            await asyncio.to_thread(thread.join)

    async def answers(self, texts: Sequence[str]) -> list[Answer]:
        """In the order of the texts. Raises Busy where they would be more than may wait."""
        if (now := self.waiting) + len(texts) > self.limit:
            raise Busy(f"{now} sentences wait already, and {self.limit} may.")
        loop = asyncio.get_running_loop()
        futures = [loop.create_future() for _ in texts]
        for i in sorted(range(len(texts)), key=lambda i: len(texts[i])):  # the runtime plans anew for another length
            self._waiting.put((texts[i], futures[i]))
        return list(await asyncio.gather(*futures))

    def _work(self, classify: Classify, loop: asyncio.AbstractEventLoop) -> None:
        """Answers what waits, one after another, until it is told to stop."""
        behind_the_loop()
        while (one := self._waiting.get()) is not None:
            text, future = one
            if future.done():  # nobody waits for it any more: its client has gone, or the server ends
                continue
            try:
                answer: Answer | Exception = classify(text)
            except Exception as error:  # it must not cost the next sentence its answer
                answer = error
            loop.call_soon_threadsafe(self._tell, future, answer)

    def _tell(self, future: asyncio.Future[Answer], answer: Answer | Exception) -> None:
        """Ends the wait of one sentence, unless its client has gone."""
        if future.done():
            return
        if isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            self.answered += 1
            future.set_result(answer)


def behind_the_loop() -> None:
    """Makes this thread give way to others, where threads have a niceness of their own: on Linux."""
    if sys.platform == "linux":
        with suppress(OSError):
            own = os.getpriority(os.PRIO_PROCESS, get_native_id())  # of who started it: less is not allowed
            os.setpriority(os.PRIO_PROCESS, get_native_id(), own + NICENESS)
