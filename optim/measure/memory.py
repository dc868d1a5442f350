"""Peak memory of a fresh process that runs a file. `python -m optim.measure.device --weigh FILE` is that process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from optim.common.files import environment
from optim.measure import device
from optim.measure.latency import MeasurementError, machine_lock


def peak_memory(path: Path, *, windows: np.ndarray, threads: int) -> dict[str, int]:
    """peak_rss_bytes of a fresh Python process that loads the file and runs it over `windows`; int32 [k, length].

    baseline_rss_bytes is the same process with its imports done and no file: about 35 MB of Python, NumPy and LiteRT.
    Pages of the mapped file count as far as they were read, so a row of the embedding only when its token occurs.
    """
    command = [sys.executable, "-m", "optim.measure.device", "--weigh", str(path), "--threads", str(threads)]
    with machine_lock():
        child = subprocess.run(command, input=device.saved(windows), capture_output=True, env=environment())
    if child.returncode:
        last = (child.stderr.decode(errors="replace").strip().splitlines() or ["no message"])[-1]
        raise MeasurementError(f"The process that weighs {path} ended with code {child.returncode}: {last}")
    return json.loads(child.stdout.splitlines()[-1])
