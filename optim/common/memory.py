"""How much memory this machine has, and whether something fits."""

from __future__ import annotations

import os
from pathlib import Path

from optim.common.errors import UserError

# Of a container as it sees itself: control groups of version 2, and of version 1.
LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
TRAINING_BYTES = 16  # for each parameter, and no fit takes less: weight, gradient and Adam's two moments, float32 each
FIT_BYTES = 32  # with what a batch of 32 leaves on its way: of MPNet, 3.5 GB; a batch of 64 took up to 58


def memory_bytes() -> int:
    """Of this machine, or what a container may use of it, if that is less."""
    limits = [limit for path in LIMITS if (limit := _limit_in(path)) is not None]
    return min([os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), *limits])


def _limit_in(path: Path) -> int | None:
    """The bytes that a file of the kernel allows; None where there is none, or no limit in it (`max`)."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def require_memory(parameters: int, what: str, *, each: int = TRAINING_BYTES) -> None:
    """Raises UserError, with the figures, if training so many parameters takes more memory than the machine has.

    each: bytes for a parameter.
    """
    needed, there = parameters * each, memory_bytes()
    if needed > there:
        raise UserError(
            f"{what} asks for {parameters:,} parameters: training them takes {needed / 1e9:,.1f} GB or more, "
            f"there are {there / 1e9:.1f} GB here. Choose a smaller model, or check its numbers."
        )
