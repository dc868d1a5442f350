"""One point in this process, as Python code asks for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from optim.common.errors import UnknownKey, UserError
from optim.run import process
from optim.run.compose import composed
from optim.run.result import Result
from optim.run.words import explained, require_known_words, told


@contextmanager
def explaining() -> Iterator[None]:
    """What Hydra refuses becomes a UserError, and a key that nothing reads is told with the nearest one."""
    try:
        yield
    except HydraException as error:
        raise UserError(explained(error)) from None
    except UnknownKey as error:
        raise UserError(told(error)) from None
    except OmegaConfBaseException as error:
        raise UserError(str(error).splitlines()[0]) from None


def run_here(*words: str) -> Result:
    """The Result of the point that these words of train.py make."""
    with explaining():
        require_known_words(words)
        job = composed(words)
        if job.cfg.sweep.dry_run:
            raise UserError("sweep.dry_run=true is for optim.sweep and train.py: optim.run makes its point.")
        return process.run(job)
