"""Which packages are there: using a bundle needs few of them, making one needs all."""

from __future__ import annotations

from importlib.util import find_spec

from optim.common.errors import UserError

TRAINING = ("hydra", "omegaconf", "tensorflow", "tf_keras")  # that stand for all of the extra `train`


def require_extra() -> None:
    """Raises UserError where the packages that train are not installed."""
    if lacking := [name for name in TRAINING if not _is_there(name)]:
        raise UserError(
            f"{', '.join(lacking)} not installed: a bundle can be used here, but none can be made. "
            'Install the rest: pip install "distilbert-optim[train]", or ".[train]" in a checkout.'
        )


def _is_there(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ImportError:  # a finder that forbids it
        return False
