"""How much memory this machine has, and whether something fits."""

from __future__ import annotations

import os

from optim.common.errors import UserError

TRAINING_BYTES = 16  # for each parameter: weight, gradient and Adam's two moments, float32 each


def memory_bytes() -> int:
    """Of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def require_memory(parameters: int, what: str) -> None:
    """Raises UserError, with the figures, if training so many parameters takes more memory than the machine has."""
    needed, there = parameters * TRAINING_BYTES, memory_bytes()
    if needed > there:
        raise UserError(
            f"{what} asks for {parameters:,} parameters: training them takes {needed / 1e9:,.1f} GB, "
            f"this machine has {there / 1e9:.1f} GB. Choose a smaller model, or check its numbers."
        )
