"""What both command lines share: how they are read and start, and how they end when something is wrong."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence

from optim.common import hub
from optim.common.files import KEPT_BACK
from optim.common.interrupts import INTERRUPTED, terminate_on_sigterm
from optim.common.screen import spell_out
from optim.run.guarded import USER_MISTAKE, guarded

FULL = "HYDRA_FULL_ERROR"
# Hydra's flags that take the word after them; that of INFO may be left out.
TAKING = ("--cfg", "-c", "--package", "-p", "--config-path", "-cp", "--config-name", "-cn", "--config-dir", "-cd",
          "--experimental-rerun")  # fmt: skip
INFO = ("--info", "-i")


def flags_first(words: Sequence[str]) -> list[str]:
    """The words with the flags before the others: Hydra's parser takes no others on both sides of a flag.

    A flag that lacks its word stays the last one, for the parser to say so.
    """
    flags, others, rest = [], [], list(words)
    while rest:
        word = rest.pop(0)
        takes = _is_one_of(word, TAKING)
        (flags if word.startswith("-") and (rest or not takes) else others).append(word)
        if takes and rest:
            flags.append(rest.pop(0))
        elif _is_one_of(word, INFO):
            named = rest and "=" not in rest[0] and not rest[0].startswith(("-", "~"))
            flags.append(rest.pop(0) if named else "all")
    return [*flags, *others]


def _is_one_of(word: str, flags: Sequence[str]) -> bool:
    """Whether the word is a flag or, as argparse has it, the beginning of one."""
    return any(word == flag or (len(word) > 2 and flag.startswith(word)) for flag in flags)


def started(main: Callable[[], object], check: Callable[[], object]) -> int:
    """Runs a program of Hydra's after `check`; the exit code.

    Hydra prints what it refuses in a way of its own unless the user asks for whole errors; they are asked for here, and
    told in a line or two.
    """
    hub.started_with(sys.argv[1:])
    spell_out()
    try:
        os.getcwd()
    except FileNotFoundError:
        print("Error: the working folder is not there any more. cd to another one.", file=sys.stderr)
        return USER_MISTAKE
    if os.environ.get(FULL):
        main()
        return 0
    os.environ[FULL] = "1"
    KEPT_BACK.add(FULL)
    try:
        with terminate_on_sigterm():  # so that what a sweep has opened, here or on a board, is closed
            return guarded(check) or guarded(main)
    except KeyboardInterrupt:
        print("\nStopped. The same command goes on with what is missing.", file=sys.stderr)
        return INTERRUPTED
    finally:
        del os.environ[FULL]
        KEPT_BACK.discard(FULL)
        hub.started_with([])
