"""Progress on the screen: one bar for each long stage, with the time left."""

from __future__ import annotations

import sys

REDRAW_S = 0.5
REDRAW_IN_LOG_S = 15  # where the output is a file, every drawing is a line


def bar(what: str, total: int | None = None, unit: str = "step"):
    """A tqdm bar on stderr."""
    from tqdm import tqdm

    terminal = sys.stderr.isatty()
    return tqdm(
        desc=f"  {what}", total=total, unit=unit, leave=False, ncols=88, delay=1,
        mininterval=REDRAW_S if terminal else REDRAW_IN_LOG_S,
    )  # fmt: skip
