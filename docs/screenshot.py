"""The pictures of docs/, of a report or of made-up points: python docs/screenshot.py [results/sweeps/ID/report.html]

docs/report*.png: the page on a wide screen, in the dark, on a phone, and with a point opened. Needs Chromium.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

DOCS = Path(__file__).parent
sys.path[:0] = [str(DOCS.parent), str(DOCS.parent / "tests")]

from browser import CHROMIUM, opened  # noqa: E402
from made_sweep import sweep  # noqa: E402

from optim.report import page, write  # noqa: E402

MOST_BYTES = 300_000
# Name, width and height in px, dark, what is done first.
PICTURES = (
    ("report", 1400, 1560, False, ""),
    ("report-dark", 1400, 1000, True, ""),
    ("report-phone", 360, 1560, False, ""),
    ("report-point", 1400, 1000, False, "openPoint(D.costs.flatMap((cost) => cost.front)[0])"),
)


def shoot(report: Path, folder: Path) -> None:
    """Writes PICTURES of a report into `folder`. Raises SystemExit with a line that says what is wrong."""
    if not CHROMIUM:
        raise SystemExit("No chromium on PATH.")
    if not report.is_file():
        raise SystemExit(f"{report} is not there; a sweep writes it.")
    for name, width, height, dark, first in PICTURES:
        picture = folder / f"{name}.png"
        with opened(report, width=width, height=height, dark=dark) as shown:
            shown.wait("typeof figures !== 'undefined' && table instanceof Tabulator")
            shown.run(first or "0")
            time.sleep(2)  # what comes near the screen is drawn a moment later
            shown.picture(picture)
        if picture.stat().st_size > MOST_BYTES:
            raise SystemExit(f"{picture} has {picture.stat().st_size:,} bytes, more than {MOST_BYTES:,}.")


def main(words: list[str]) -> None:
    """Of the report that is named, or of 27 made-up points."""
    if words:
        return shoot(Path(words[0]), DOCS)
    with tempfile.TemporaryDirectory() as folder:
        write.write(Path(folder), [sweep(Path(folder))])
        return shoot(Path(folder) / page.PAGE, DOCS)


if __name__ == "__main__":
    if len(sys.argv) > 2:
        raise SystemExit(__doc__)
    main(sys.argv[1:])
