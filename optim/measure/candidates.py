"""What the files of one student in several precisions do on this machine: `quant=int8_auto` takes one of them by it.

They are timed in turns, so that all see the same load, and scored on sentences of train that no weight has learnt from:
dev chooses nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from optim.data.tokens import Tokens
from optim.export.quantize import Student
from optim.measure.device import cores
from optim.measure.file import dev_logits
from optim.measure.latency import Bench, latency
from optim.measure.quality import agreement
from optim.measure.runtime import Classifier
from optim.measure.sensitivity import first

VERSION = 3  # of the table; raised when its figures mean something else, or `Choice` takes another file by them
EXAMPLES = 2_000  # held-out sentences that are scored, at most


def candidates_table(student: Student, files: Mapping[str, Path], *, bench: Bench) -> list[dict[str, Any]]:
    """For each file: name, latency_p50_ms at bench.sequence_length, examples, accuracy_fraction, drop_points below the
    Keras student, agreement_fraction with that, file_bytes.
    """
    from optim.train.scores import logits_of

    held = first(student.train.take(student.rows["held_out"]), EXAMPLES)
    keras = logits_of(student.load_batch(), held)  # type: ignore[misc]
    times = latency(files, ids=held.ids, length=bench.sequence_length, bench=bench)
    return [
        {"name": name, "latency_p50_ms": times[name]["latency_p50_ms"], **_scored(path, held, keras)}
        for name, path in files.items()
    ]


def _scored(path: Path, held: Tokens, keras: np.ndarray) -> dict[str, Any]:
    """How right a file is, how much it answers like the model, and its bytes."""
    logits = dev_logits(Classifier(path, min(cores(), 4)), held, progress=lambda what, done, total: None)
    right, model_right = (float(np.mean(found.argmax(axis=1) == held.labels)) for found in (logits, keras))
    return {
        "examples": len(held), "accuracy_fraction": right, "drop_points": round(100 * (model_right - right), 6),
        "agreement_fraction": agreement(logits, keras), "file_bytes": path.stat().st_size,
    }  # fmt: skip
