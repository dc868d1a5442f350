"""What people see on the screen while a run works: a bar for each long stage, log lines, no notes of the runtimes."""

from __future__ import annotations

import io
import logging
import os
import shutil
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TextIO, TypeVar

from optim.common.secrets import Masking, masked

REDRAW_S = 0.5
NARROWEST, WIDEST = 60, 100  # columns
LINE_S = 60  # where the output is no terminal: a line a minute
Thing = TypeVar("Thing")
IN_LINES = "{desc}: {n_fmt} of {total_fmt} {unit}s, {elapsed} so far, {remaining} left"


def bar(what: str, total: int | None = None, unit: str = "step"):
    """A tqdm bar on stderr, as wide as the terminal; where that is none, a line a minute."""
    from tqdm import tqdm

    shared: dict[str, Any] = {"desc": f"  {what}", "total": total, "unit": unit, "leave": False}
    if sys.stderr.isatty():
        return tqdm(**shared, dynamic_ncols=True, delay=1, mininterval=REDRAW_S)
    return tqdm(**shared, file=_Lines(sys.stderr), delay=LINE_S, mininterval=LINE_S, maxinterval=LINE_S,
                bar_format=IN_LINES)  # fmt: skip


def shown(things: Sequence[Thing], what: str, unit: str) -> Iterator[Thing]:
    """The things one by one, with a bar."""
    with bar(what, len(things), unit) as drawn:
        for thing in things:
            yield thing
            drawn.update(1)


def starts_at(bar: Any, done: int) -> None:
    """What an earlier run did counts as done, but not as done by this one, whose own pace tells the time left."""
    bar.initial = bar.n = bar.last_print_n = done  # what tqdm makes of its own `initial`, which `reset` takes back


def width() -> int:
    """Columns that a table or a sentence may take: those of the terminal, WIDEST at most, and where there is none."""
    return max(NARROWEST, min(WIDEST, shutil.get_terminal_size((WIDEST, 24)).columns))


def counted(number: int, what: str) -> str:
    """A number and what it counts: 1 file, 2 files."""
    return f"{number} {what}{'s' * (number != 1)}"


def beside(lead: str, text: str, tail: str = "", *, room: int | None = None) -> str:
    """`lead`, then `text` wrapped in a column of its own, with `tail` after its first line; `room`: of that column."""
    room = max(1 + bool(tail), room or width() - len(lead) - len(tail))
    first, *more = textwrap.wrap(text, room - bool(tail)) or [""]
    return "\n".join([f"{lead}{first:<{room}}{tail}".rstrip(), *(f"{' ' * len(lead)}{line}" for line in more)])


class _Lines:
    """Makes a line of a bar's drawing once every LINE_S, and nothing of its clearing."""

    def __init__(self, stream: TextIO) -> None:
        self.stream, self.due = stream, time.monotonic() + LINE_S

    def write(self, text: str) -> None:
        """One drawing."""
        line = text.strip()
        if line and time.monotonic() >= self.due:
            self.due = time.monotonic() + LINE_S
            print(f"  {line}", file=self.stream, flush=True)

    def flush(self) -> None:
        """Every line is flushed as it is written."""


def say_beside_bar(text: str, stream: TextIO) -> None:
    """A line on a screen where a bar of another process may stand: on a terminal it takes the bar's place."""
    print(f"{CLEAR_LINE if stream.isatty() else ''}{masked(text)}", file=stream, flush=True)


CLEAR_LINE = "\r\x1b[K"
CHATTER = (b"INFO: ", b"cudart_stub.cc", b"cuda_platform.cc", b"absl::InitializeLog()", b"oneDNN custom operations")


@contextmanager
def without_chatter() -> Iterator[None]:
    """Holds back the notes that LiteRT and TensorFlow write on starting, which no setting silences.

    What else goes to stderr meanwhile is shown after. They are written by C++ straight to the file descriptor, so the
    descriptor itself is diverted.
    """
    sys.stderr.flush()
    try:
        screen = os.dup(2)
    except OSError:  # a process without a stderr has no screen to keep clean
        yield
        return
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(screen, 2)
            held.seek(0)
            for line in held:
                if not any(note in line for note in CHATTER):
                    os.write(screen, line)
            os.close(screen)


def say(text: str, stream: TextIO | None = None) -> None:
    """Prints a line on stdout, or `stream`, without any secret in it."""
    print(masked(text), file=stream or sys.stdout)


def with_stderr() -> None:
    """Sends what is for a closed stderr nowhere: to Python it is None, and print would take stdout instead."""
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  # as long as the process


def spell_out() -> None:
    """Has stdout write \\u65e5 for a letter that its encoding lacks, as stderr does, and not end the program."""
    with_stderr()
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  # as long as the process
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def log_to(stream) -> None:
    """Sends what people should read of the log to `stream`, as plain lines."""
    root = logging.getLogger()
    root.handlers = [logging.StreamHandler(stream)]
    root.handlers[0].setFormatter(logging.Formatter("%(message)s"))
    root.handlers[0].setLevel(logging.INFO)
    root.handlers[0].addFilter(Masking())
    root.setLevel(logging.WARNING)
    logging.getLogger("optim").setLevel(logging.DEBUG)


@contextmanager
def warnings_alone() -> Iterator[None]:
    """Holds back on the screen what the log says in the body, but for warnings."""
    levels = [(handler, handler.level) for handler in logging.getLogger().handlers]
    for handler, level in levels:
        handler.setLevel(max(level, logging.WARNING))
    try:
        yield
    finally:
        for handler, level in levels:
            handler.setLevel(level)
