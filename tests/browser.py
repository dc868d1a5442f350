"""A page in headless Chromium, driven through its own protocol: what it shows, says and loads, and what a user does.

The protocol is the Chrome DevTools Protocol over a pipe (--remote-debugging-pipe): messages of JSON that end in NUL.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), "")
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
         "--disable-background-networking", "--disable-component-update", "--enable-unsafe-swiftshader",
         "--hide-scrollbars", "--remote-debugging-pipe")  # fmt: skip
PATIENCE_S = 60  # for one answer of the browser; a loaded machine draws slowly
# WebGL without a graphics card is slow, and says so: no fault of the page.
NO_FAULT = ("GL Driver Message", "Automatic fallback to software WebGL")


class Page:
    """One open page."""

    def __init__(self, process: subprocess.Popen[bytes], to: int, back: int) -> None:
        self.process, self.to, self.back = process, to, back
        self.session: str | None = None
        self.console: list[str] = []  # errors and warnings
        self.loaded: list[str] = []  # addresses that the page asked for, itself aside
        self._rest, self._count = b"", 0

    # The protocol
    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """The answer to one command. Raises RuntimeError for an error, TimeoutError for none."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": params}
        message |= {"sessionId": self.session} if self.session else {}
        os.write(self.to, json.dumps(message).encode() + b"\0")
        while True:
            got = self._next(PATIENCE_S)
            if got is None:
                raise TimeoutError(f"{method}: no answer in {PATIENCE_S} s")
            if got.get("id") == self._count:
                if "error" in got:
                    raise RuntimeError(f"{method}: {got['error']['message']}")
                return got["result"]

    def _next(self, timeout_s: float) -> dict[str, Any] | None:
        end = time.monotonic() + timeout_s
        while b"\0" not in self._rest:
            if not select.select([self.back], [], [], max(0.0, end - time.monotonic()))[0]:
                return None
            self._rest += os.read(self.back, 1 << 20)
        line, self._rest = self._rest.split(b"\0", 1)
        got: dict[str, Any] = json.loads(line)
        self._note(got)
        return got

    def _note(self, got: dict[str, Any]) -> None:
        params = got.get("params", {})
        if got.get("method") == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.console.append(details.get("exception", {}).get("description") or details["text"])
        elif got.get("method") == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self._complain(" ".join(str(a.get("value", a.get("description"))) for a in params["args"]))
        elif got.get("method") == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self._complain(params["entry"]["text"])
        elif got.get("method") == "Network.requestWillBeSent" and params["type"] != "Document":
            url = params["request"]["url"]
            self.loaded += [] if url.startswith(("data:", "blob:")) else [url]

    def _complain(self, text: str) -> None:
        self.console += [] if any(words in text for words in NO_FAULT) else [text]

    # What a user does
    def run(self, script: str) -> Any:
        """The value of an expression on the page, after its promise if it is one. Raises RuntimeError if it throws."""
        got = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True, userGesture=True)
        if "exceptionDetails" in got:
            raise RuntimeError(got["exceptionDetails"].get("exception", {}).get("description", "it threw"))
        return got["result"].get("value")

    def wait(self, script: str, timeout_s: float = PATIENCE_S) -> None:
        """Until the expression is true."""
        end = time.monotonic() + timeout_s
        while not self.run(f"Boolean({script})"):
            if time.monotonic() > end:
                raise TimeoutError(f"{script} did not come true in {timeout_s:g} s")
            time.sleep(0.05)

    def middle(self, selector: str) -> tuple[float, float]:
        """The middle of an element, scrolled into sight."""
        x, y = self.run(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            "e.scrollIntoView({block: 'center'}); const r = e.getBoundingClientRect();"
            "return [r.x + r.width / 2, r.y + r.height / 2] })()"
        )
        return x, y

    def click(self, selector: str) -> None:
        """With the mouse, in the middle of an element."""
        x, y = self.middle(selector)
        self.drag((x, y), (x, y))

    def drag(self, start: tuple[float, float], end: tuple[float, float], clicks: int = 1) -> None:
        """With the left button held, from one place of the screen to another."""
        steps = 1 if start == end else 6
        self._mouse("mouseMoved", start)
        time.sleep(0.1)  # what is drawn anew under the pointer is there
        self._mouse("mousePressed", start, button="left", clickCount=clicks)
        for i in range(1, steps + 1) if steps > 1 else ():
            at = tuple(a + (b - a) * i / steps for a, b in zip(start, end, strict=True))
            self._mouse("mouseMoved", at, button="left")
        self._mouse("mouseReleased", end, button="left", clickCount=clicks)

    def _mouse(self, kind: str, at: tuple[float, ...], **more: Any) -> None:
        self.call("Input.dispatchMouseEvent", type=kind, x=at[0], y=at[1], **more)

    def press(self, key: str) -> None:
        """A key by its name: Tab, Enter, Escape, ArrowLeft."""
        codes = {"Tab": 9, "Enter": 13, "Escape": 27, " ": 32, "ArrowLeft": 37, "ArrowRight": 39}
        text = {"Enter": "\r", " ": " "}.get(key, "")
        for kind in ("keyDown", "keyUp"):
            more = {"text": text} if text and kind == "keyDown" else {}
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=codes[key], **more)

    def busy_s(self) -> float:
        """Seconds of processor time that the page's thread has worked: what else the machine does is not in it."""
        self.call("Performance.enable", timeDomain="threadTicks")
        metrics = {m["name"]: m["value"] for m in self.call("Performance.getMetrics")["metrics"]}
        return metrics["TaskDuration"]

    # What is seen
    def size(self, width: int, height: int = 900) -> None:
        """Of the screen, px."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def dark(self, on: bool = True) -> None:
        """What the system asks of pages."""
        feature = {"name": "prefers-color-scheme", "value": "dark" if on else "light"}
        self.call("Emulation.setEmulatedMedia", features=[feature])

    def picture(self, path: Path, *, whole: bool = False) -> None:
        """A PNG of the screen, or of the whole page."""
        got = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(got["data"]))

    def printed(self) -> bytes:
        """The page as a PDF on A4."""
        got = self.call(
            "Page.printToPDF", paperWidth=8.27, paperHeight=11.69, preferCSSPageSize=True, printBackground=True
        )
        return base64.b64decode(got["data"])


@contextmanager
def opened(page: Path, *, width: int = 1400, height: int = 900, dark: bool = False) -> Iterator[Page]:
    """The page on a screen of that size, when its load event is over."""
    to_browser, our_end = os.pipe()
    our_start, from_browser = os.pipe()
    with tempfile.TemporaryDirectory() as profile:
        command = [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        process = subprocess.Popen(
            ["bash", "-c", f'exec "$@" 3<&{to_browser} 4>&{from_browser}', "bash", *command],
            pass_fds=(to_browser, from_browser), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(to_browser)
        os.close(from_browser)
        try:
            yield _open(Page(process, our_end, our_start), page, width, height, dark)
        finally:
            process.terminate()
            process.wait(timeout=30)
            os.close(our_end)
            os.close(our_start)
            time.sleep(0.1)  # its children may still write into the profile


def _open(shown: Page, page: Path, width: int, height: int, dark: bool) -> Page:
    tab = next(t for t in shown.call("Target.getTargets")["targetInfos"] if t["type"] == "page")
    shown.session = shown.call("Target.attachToTarget", targetId=tab["targetId"], flatten=True)["sessionId"]
    for domain in ("Page", "Runtime", "Log", "Network"):
        shown.call(f"{domain}.enable")
    shown.size(width, height)
    shown.dark(dark)
    shown.call("Page.navigate", url=page.resolve().as_uri())
    shown.wait("location.protocol === 'file:' && document.readyState === 'complete'")
    return shown
