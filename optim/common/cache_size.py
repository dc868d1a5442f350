"""How much the cache holds: what a run says before it starts, and what `sweep=cache` lists."""

from __future__ import annotations

import logging
import os
import shlex
import stat
from contextlib import suppress
from pathlib import Path

log = logging.getLogger(__name__)


def bytes_of(folder: Path) -> int:
    """Of all files in a folder and below it; one that goes away meanwhile counts nothing."""
    total = 0
    for place, _, names in os.walk(folder):  # which passes over a folder that has gone; rglob raises
        for name in names:
            with suppress(OSError):
                found = os.lstat(os.path.join(place, name))
                total += found.st_size if stat.S_ISREG(found.st_mode) else 0
    return total


def warn_if_above(cache_dir: Path, cache_max_gb: float | None, results_dir: Path) -> None:
    """Says so where the cache holds more than `cache_max_gb` gigabytes, and what shows what no result there needs."""
    if cache_max_gb is None:
        return
    held_gb = bytes_of(cache_dir) / 1e9
    if held_gb > cache_max_gb:
        log.warning(
            "cache_dir %s holds %.1f GB, cache_max_gb=%g allows less. To see what can go: "
            "python sweep.py sweep=cache %s", cache_dir, held_gb, cache_max_gb,
            shlex.join([f"cache_dir={cache_dir}", f"results_dir={results_dir}"]),
        )  # fmt: skip
