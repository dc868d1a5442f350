"""What both command lines share: how they start, and how they end when something is wrong."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from optim.run.process import INTERRUPTED, guarded

FULL = "HYDRA_FULL_ERROR"


def started(main: Callable[[], object], check: Callable[[], object]) -> int:
    """Runs a program of Hydra's after `check`; the exit code.

    Hydra prints what it refuses in a way of its own unless the user asks for whole errors; they are asked for here, and
    told in a line or two.
    """
    if os.environ.get(FULL):
        main()
        return 0
    os.environ[FULL] = "1"
    try:
        return guarded(check) or guarded(main)
    except KeyboardInterrupt:
        print("\nStopped. The same command goes on with what is missing.", file=sys.stderr)
        return INTERRUPTED
    finally:
        del os.environ[FULL]
