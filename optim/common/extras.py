"""Which packages are there: using a bundle needs few of them, making one needs all."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import NoReturn

from optim.common.errors import UserError

TRAINING = ("hydra", "omegaconf", "tensorflow", "tf_keras")  # that stand for all of the extra `train`


def require_extra() -> None:
    """Raises UserError where the packages that train are not installed."""
    if lacking := [name for name in TRAINING if not _is_there(name)]:
        raise UserError(
            f"{', '.join(lacking)} not installed: a bundle can be used here, but none can be made. "
            'Install the rest: pip install "distilbert-optim[train]", or ".[train]" in a checkout.'
        )


def leave_without(error: ModuleNotFoundError) -> NoReturn:
    """Ends a program of a checkout that a Python without its packages was asked to run."""
    print(
        f"Error: {sys.executable} has no package {error.name}. `make demo` installs all of them into .venv: run "
        f"`source .venv/bin/activate` first, or .venv/bin/python in place of python.",
        file=sys.stderr,
    )
    sys.exit(2)


def _is_there(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ImportError:  # a finder that forbids it
        return False
