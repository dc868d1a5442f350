"""What a program says of what went wrong, in a line or two, and the exit code that it ends with."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from optim.common.errors import UnknownKey, UserError
from optim.common.interrupts import INTERRUPTED, TERMINATED, Terminated
from optim.common.screen import say
from optim.run.words import explained, told

USER_MISTAKE, FAILURE, UNREAD = 2, 1, 141  # the last as a shell says SIGPIPE


@contextmanager
def explaining() -> Iterator[None]:
    """What Hydra refuses becomes a UserError, and a key that nothing reads is told with the nearest one."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    try:
        yield
    except HydraException as error:
        raise UserError(explained(error)) from None
    except UnknownKey as error:
        raise UserError(told(error)) from None
    except OmegaConfBaseException as error:
        of_a_resolver = f"{UserError.__name__} raised while resolving interpolation: "
        raise UserError(str(error).splitlines()[0].removeprefix(of_a_resolver)) from None


def guarded(work) -> int:
    """The exit code of `work`, with what went wrong in a line or two on stderr."""
    try:
        with explaining():
            work()
    except UserError as error:
        say(f"Error: {error}", sys.stderr)
        return USER_MISTAKE
    except (KeyboardInterrupt, Terminated) as stop:
        by = " by SIGTERM" if isinstance(stop, Terminated) else ""
        print(f"\nStopped{by}. The same command goes on from what it saved last.", file=sys.stderr)
        return TERMINATED if by else INTERRUPTED
    except BrokenPipeError:  # the reader of stdout, `head` for one, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return UNREAD
    except Exception as error:  # reported in full by `run`
        say(f"Failed: {type(error).__name__}: {error}", sys.stderr)
        return FAILURE
    return 0
