"""The files of many finished points, timed side by side on this machine, so that their latencies can be compared."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from optim.common.files import sha256_of, write_text
from optim.export.bundle import MODEL_FILE, TOKENIZER_FILE
from optim.measure.latency import Bench, latency
from optim.measure.machine import machine
from optim.report.compare import Point
from optim.run.result import REMEASURED


def remeasure(points: Sequence[Point], bench: Bench) -> int:
    """Times every distinct file in one run, in turns, at bench.sequence_length; returns how many files those were.

    The figures go to REMEASURED beside each result.json, which stays as it is; a comparison prefers them. Files that
    came out with the same bytes are timed once. Points with other tokens are timed over their own.
    """
    here = machine()
    distinct = {sha256_of(_file(p)): p for p in points}
    times = {}
    for tokenizer in {sha256_of(_tokenizer(p)) for p in distinct.values()}:
        group = {sha: _file(p) for sha, p in distinct.items() if sha256_of(_tokenizer(p)) == tokenizer}
        ids = _ids(next(_tokenizer(p) for p in distinct.values() if sha256_of(_tokenizer(p)) == tokenizer))
        times |= latency(group, ids=ids, length=bench.sequence_length, bench=bench)
    for point in points:
        found = {**times[sha256_of(_file(point))], "sequence_length": bench.sequence_length, "threads": bench.threads}
        text = json.dumps({"machine": here, "speed": found}, indent=2)
        write_text(point.folder / REMEASURED, text + "\n")
    return len(distinct)


def _file(point: Point) -> Path:
    return point.folder / "bundle" / MODEL_FILE


def _tokenizer(point: Point) -> Path:
    return point.folder / "bundle" / TOKENIZER_FILE


def _ids(tokenizer: Path) -> np.ndarray:
    """Token ids all over the vocabulary: what a file takes does not hang on which, as long as rows are fetched."""
    size = len(json.loads(tokenizer.read_text(encoding="utf-8"))["model"]["vocab"])
    return np.random.default_rng(0).integers(0, size, 4096).astype(np.int32)
