"""A program of this repository called as on the command line, but in this process: from its first line to its exit."""

from __future__ import annotations

import logging
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout

from conftest import ROOT


def called(program: str, *words: str) -> subprocess.CompletedProcess[str]:
    """`python PROGRAM WORDS`: its exit code and what it and its children said, without the seconds that imports take.

    What goes wrong past the program's own handlers, and so would be a traceback on the screen, is raised.
    """
    with _as_a_program(program, words), _captured() as said:
        try:
            runpy.run_path(str(ROOT / program), run_name="__main__")
            code: str | int | None = 0
        except SystemExit as leave:
            code = leave.code
    returncode = code if isinstance(code, int) else int(code is not None)
    return subprocess.CompletedProcess([program, *words], returncode, *said)


@contextmanager
def _as_a_program(program: str, words: tuple[str, ...]) -> Iterator[None]:
    """argv and working folder of the program; what Hydra and the log leave behind is put back."""
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.hydra_config import HydraConfig

    root, optim = logging.getLogger(), logging.getLogger("optim")
    before = sys.argv, sys.path, os.getcwd(), root.handlers, root.level, optim.level
    sys.argv, sys.path = [program, *words], list(sys.path)
    os.chdir(ROOT)
    try:
        yield
    finally:
        sys.argv, sys.path, folder, root.handlers, *levels = before
        os.chdir(folder)
        for logger, level in zip((root, optim), levels, strict=True):
            logger.setLevel(level)
        GlobalHydra.instance().clear()
        HydraConfig.instance().cfg = None


@contextmanager
def _captured() -> Iterator[list[str]]:
    """[stdout, stderr] of the body, once it has ended: of Python, of its libraries, and of the processes it starts."""
    said: list[str] = []
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
        try:
            with (
                open(1, "w", buffering=1, closefd=False) as stdout,
                open(2, "w", buffering=1, closefd=False) as stderr,
                redirect_stdout(stdout),
                redirect_stderr(stderr),
            ):
                yield said
        finally:
            for own, file in zip(kept, (1, 2), strict=True):
                os.dup2(own, file)
                os.close(own)
            for file in (out, err):
                file.seek(0)
                said.append(file.read())
