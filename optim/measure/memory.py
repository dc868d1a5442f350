"""Peak memory of a fresh process that runs a file. `python -m optim.measure.memory` is that process."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from optim.common.errors import UserError
from optim.common.files import environment
from optim.measure.latency import MeasurementError, machine_lock
from optim.measure.runtime import Classifier

if TYPE_CHECKING:
    pass


# Memory
def peak_memory(path: Path, *, windows: np.ndarray, threads: int) -> dict[str, int]:
    """peak_rss_bytes of a fresh Python process that loads the file and runs it over `windows`; int32 [k, length].

    baseline_rss_bytes is the same process with its imports done and no file: about 35 MB of Python, NumPy and LiteRT.
    Pages of the mapped file count as far as they were read, so a row of the embedding only when its token occurs.
    """
    sent = io.BytesIO()
    np.save(sent, windows)
    command = [sys.executable, "-m", "optim.measure.memory", str(path), str(threads)]
    with machine_lock():
        child = subprocess.run(command, input=sent.getvalue(), capture_output=True, env=environment())
    if child.returncode:
        last = (child.stderr.decode(errors="replace").strip().splitlines() or ["no message"])[-1]
        raise MeasurementError(f"The process that weighs {path} ended with code {child.returncode}: {last}")
    return json.loads(child.stdout.splitlines()[-1])


def peak_rss_bytes() -> int:
    """The most resident memory this process has had.

    On Linux from VmHWM, which starts anew with each program. getrusage's ru_maxrss does not: a child starts with the
    peak of the parent that forked it, and a small process started from a large one reports the large one.
    """
    status = Path("/proc/self/status")
    found = re.search(r"^VmHWM:\s*(\d+) kB", status.read_text(), re.MULTILINE) if status.exists() else None
    if found:
        return int(found[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # bytes on macOS, kilobytes elsewhere


def _weigh(path: Path, threads: int) -> None:
    """The child of `peak_memory`: windows as .npy on stdin, one line of JSON on stdout."""
    import ai_edge_litert.interpreter  # noqa: F401  # part of the baseline, like NumPy

    windows = np.load(io.BytesIO(sys.stdin.buffer.read()))
    baseline = peak_rss_bytes()
    classifier = Classifier(path, threads)
    for window in windows:
        classifier.logits(window)
    print(json.dumps({"peak_rss_bytes": peak_rss_bytes(), "baseline_rss_bytes": baseline}))


if __name__ == "__main__":
    try:
        _weigh(Path(sys.argv[1]), int(sys.argv[2]))
    except UserError as error:
        sys.exit(str(error))
