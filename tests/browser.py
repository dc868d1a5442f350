"""A page in headless Chromium: what it drew, what it complained of, what it loaded."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), "")


FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
         "--disable-background-networking", "--disable-component-update", "--enable-unsafe-swiftshader",
         "--enable-logging=stderr", "--v=0", "--dump-dom")  # fmt: skip


# Says, on <body>, when the page was there (ms since it was asked for) and what it loaded. Reading the height makes the
# browser lay out all that the scripts drew; frames would come after --dump-dom.
PROBE = """<script>addEventListener("load", () => {
  const height = document.body.getBoundingClientRect().height;
  document.body.dataset.seen = JSON.stringify({height,
    drawnMs: performance.now(), loaded: performance.getEntriesByType("resource").map(e => e.name)}) })</script>"""


# The DOM as it is when all timers have run, on a screen that holds the whole page; the clock is not real then.
PATIENT = ("--virtual-time-budget=20000", "--window-size=1200,4000")


SCREEN = "--window-size=1200,900"


@dataclass(frozen=True)
class Seen:
    """What a browser made of a page."""

    dom: str
    console: list[str]
    drawn_ms: float
    loaded: list[str]


def browse(page: Path, tmp_path: Path, *more: str) -> Seen:
    """Opens a copy of the page that says when it was there."""
    copy = tmp_path / "probed.html"
    copy.write_text(page.read_text(encoding="utf-8") + PROBE, encoding="utf-8")
    command = [CHROMIUM, *FLAGS, *more, f"--user-data-dir={tmp_path / 'profile'}", f"file://{copy}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    told: dict[str, Any] = json.loads(BodyData.of(done.stdout)["data-seen"])
    # WebGL without a graphics card is slow, and says so: no fault of the page.
    console = [line for line in re.findall(r"CONSOLE.*", done.stderr) if "GL Driver Message" not in line]
    return Seen(done.stdout, console, told["drawnMs"], told["loaded"])


class BodyData(HTMLParser):
    """The attributes of <body>."""

    found: dict[str, str | None]

    @classmethod
    def of(cls, dom: str) -> dict[str, Any]:
        parser = cls()
        parser.found = {}
        parser.feed(dom)
        return parser.found

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "body":
            self.found.update(attrs)
