"""How much memory this machine has, and whether something fits."""

from __future__ import annotations

import os
from pathlib import Path

from optim.common.errors import UserError

# Of a container as it sees itself: control groups of version 2, and of version 1.
LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
# For each parameter: weight, gradient and Adam's two moments are 16, as float32. With what a batch leaves on its way
# MPNet took 32 in batches of 32 (3.5 GB), and up to 58 in batches of 64.
TRAINING_BYTES = 32


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


def require_memory(parameters: int, what: str) -> None:
    """Raises UserError, with the figures, if training so many parameters takes more memory than the machine has."""
    needed, there = parameters * TRAINING_BYTES, memory_bytes()
    if needed > there:
        raise UserError(
            f"{what} asks for {parameters:,} parameters: training them takes {needed / 1e9:,.1f} GB or more, "
            f"there are {there / 1e9:.1f} GB here. Choose a smaller model, or check its numbers."
        )
