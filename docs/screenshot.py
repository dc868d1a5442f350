"""A report as a picture: python docs/screenshot.py results/sweeps/ID/report.html docs/report.png (needs Chromium)."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

WIDTH, HEIGHT = 1200, 1500  # of the window: headline, table, and the first figures
MOST_BYTES = 300_000
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
         "--disable-background-networking", "--disable-component-update", "--enable-unsafe-swiftshader",
         "--hide-scrollbars", "--virtual-time-budget=10000")  # fmt: skip


def shoot(page: Path, picture: Path, height: int = HEIGHT) -> None:
    """Writes the upper `height` pixels of a page as PNG. Raises SystemExit with a line that says what is wrong."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        raise SystemExit("No chromium on PATH.")
    if not page.is_file():
        raise SystemExit(f"{page} is not there; a sweep writes it.")
    with tempfile.TemporaryDirectory() as profile:
        subprocess.run(
            [browser, *FLAGS, f"--user-data-dir={profile}", f"--window-size={WIDTH},{height}",
             f"--screenshot={picture.resolve()}", page.resolve().as_uri()], check=True, capture_output=True,
        )  # fmt: skip
    if picture.stat().st_size > MOST_BYTES:
        raise SystemExit(f"{picture} has {picture.stat().st_size:,} bytes, more than {MOST_BYTES:,}: lower the height.")


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        raise SystemExit(__doc__)
    shoot(Path(sys.argv[1]), Path(sys.argv[2]), *(int(word) for word in sys.argv[3:]))
