"""What a fit, or a teacher's answers, have saved so far: one file of arrays in a scratch folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from optim.common.files import UNREADABLE

SAVED = "half.npz"
SAVE_SECONDS = 600.0  # between two savings within an epoch, or of answers: MPNet's take an hour, a saving seconds


def put(scratch: Path, **arrays: Any) -> None:
    """Saves arrays beside those of before, and then puts them in their place: a kill leaves the one or the other."""
    part = scratch / f"part.{SAVED}"
    try:
        with part.open("wb") as file:
            np.savez(file, **arrays)
            file.flush()
            os.fsync(file.fileno())  # else a power failure may leave the new name without the content
        os.replace(part, scratch / SAVED)
    except BaseException:  # a full disk above all, which the half of a file would keep full
        part.unlink(missing_ok=True)
        raise


def read(scratch: Path) -> dict[str, np.ndarray]:
    """The arrays by name; none where none were saved, or what was saved is damaged."""
    try:
        with np.load(scratch / SAVED) as saved:
            return {name: saved[name] for name in saved.files}
    except UNREADABLE:
        return {}
