"""What people see on the screen while a run works: a bar for each long stage, log lines, no notes of the runtimes."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from optim.common.secrets import Masking, masked

REDRAW_S = 0.5
REDRAW_IN_LOG_S = 15  # where the output is a file, every drawing is a line


def bar(what: str, total: int | None = None, unit: str = "step"):
    """A tqdm bar on stderr."""
    from tqdm import tqdm

    terminal = sys.stderr.isatty()
    return tqdm(
        desc=f"  {what}", total=total, unit=unit, leave=False, ncols=88, delay=1,
        mininterval=REDRAW_S if terminal else REDRAW_IN_LOG_S,
    )  # fmt: skip


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


def log_to(stream) -> None:
    """Sends what people should read of the log to `stream`, as plain lines."""
    root = logging.getLogger()
    root.handlers = [logging.StreamHandler(stream)]
    root.handlers[0].setFormatter(logging.Formatter("%(message)s"))
    root.handlers[0].setLevel(logging.INFO)
    root.handlers[0].addFilter(Masking())
    root.setLevel(logging.WARNING)
    logging.getLogger("optim").setLevel(logging.DEBUG)
