"""Ctrl-C and SIGTERM: put off until what was computed is saved, and told from other ends of a program."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

INTERRUPTED, TERMINATED = 128 + signal.SIGINT, 128 + signal.SIGTERM  # exit codes, as a shell has them
HELD = (signal.SIGINT, signal.SIGTERM)
STDERR = 2
NOTE = "\nStopping: what is computed is saved first. Once more stops at once.\n"


class Terminated(SystemExit):
    """SIGTERM came: the exit code is TERMINATED."""

    def __init__(self) -> None:
        super().__init__(TERMINATED)


@contextmanager
def terminate_on_sigterm() -> Iterator[None]:
    """Turns SIGTERM into Terminated inside the body, so that everything open is closed on the way out.

    Only the first one: schedulers repeat it, and the second must not cut short the closing. Does nothing outside the
    main thread, where Python allows no handler.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, frame: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise Terminated

    previous = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous or signal.SIG_DFL)


class Interrupts:
    """The first signal of a body, noted; `act` does what it asks for."""

    def __init__(self) -> None:
        self.noted: int | None = None

    def act(self) -> None:
        """Whatever the signal would have done when it came: as a rule it raises. Nothing where none came."""
        if self.noted is not None:
            number, self.noted = self.noted, None
            signal.raise_signal(number)


@contextmanager
def held_back() -> Iterator[Interrupts]:
    """Within the body the first Ctrl-C or SIGTERM is only noted: the body saves what it has, then calls `act`.

    The second one acts at once, and one that the body left acts at its end. A signal that is ignored, or left to the
    system, stays so; outside of the main thread, where Python allows no handler, nothing is held back.
    """
    held = Interrupts()
    if threading.current_thread() is not threading.main_thread():
        yield held
        return
    before = {number: signal.getsignal(number) for number in HELD}
    before = {number: handler for number, handler in before.items() if callable(handler)}

    def give_back() -> None:
        for number, handler in before.items():
            if signal.getsignal(number) is note:  # else it is back, or has changed what it does the next time
                signal.signal(number, handler)

    def note(number: int, frame: object) -> None:
        give_back()
        held.noted = number
        os.write(STDERR, NOTE.encode())  # print may be at work when the signal comes, and allows no second one

    for number in before:
        signal.signal(number, note)
    try:
        yield held
    finally:
        give_back()
        held.act()
