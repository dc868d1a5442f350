"""A .tflite file and sentences -> its answers, milliseconds, memory and bytes: `measure_file` is the whole of it."""

from __future__ import annotations

import gzip
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from optim.export.compress import compress, decompress
from optim.measure.device import cores, token_windows
from optim.measure.latency import Bench, MeasurementError, machine_lock, speed_of
from optim.measure.memory import peak_memory
from optim.measure.runtime import Classifier
from optim.measure.zeros import UNKNOWN, zeros_speed

if TYPE_CHECKING:
    from optim.data.tokens import Tokens


GZIP_LEVEL = 6
ZSTD_LEVEL = (
    3  # zstd's own default: a pruned int8 file of 23 MB is 1.5 % larger than by 19, which takes 100 times as long
)
DECOMPRESSIONS = 7  # that are timed
Progress = Callable[[str, int, int], None]  # (what, done, total)


@dataclass(frozen=True)
class Measurement:
    """What one file does; the three dicts carry the names of result.json."""

    logits: np.ndarray  # float32 [n, classes], in the order of the sentences
    speed: dict[str, Any]
    memory: dict[str, int]
    size: dict[str, int]


def measure_file(
    path: Path, float32_path: Path, dev: Tokens, *, bench: Bench, zeros: bool = False, progress: Progress | None = None
) -> Measurement:
    """Runs the file over every sentence of `dev` at its own length, then times and weighs it.

    Speed is taken at `bench.sequence_length` and at the median length of `dev`, in turns with the float32 file of the
    same student, and over all lengths of `dev`. What zeros are worth is timed where there are `zeros`, else it is None.
    Raises UserError for a file that does not run, MeasurementError for logits that are no numbers.
    """
    report = progress or _silent
    # Answers don't depend on the number of threads; only what is timed runs on bench.threads.
    logits = dev_logits(Classifier(path, min(cores(), 4)), dev, progress=report)
    report("timing", 0, 2)
    speed = speed_of(path, float32_path, dev.ids, counts=dev.length_counts(), bench=bench)
    worth = zeros_speed(path, dev.ids, bench=bench) if zeros else UNKNOWN
    report("timing", 1, 2)
    windows = token_windows(dev.ids, bench.sequence_length)
    memory = peak_memory(path, windows=windows, threads=bench.threads)
    report("timing", 2, 2)
    return Measurement(logits, {**speed, **worth}, memory, sizes(path))


def dev_logits(classifier: Classifier, dev: Tokens, *, progress: Progress) -> np.ndarray:
    """float32 [n, classes], one row per sentence of `dev`, in its order.

    Sentences run sorted by length, because LiteRT plans its memory anew at every change of length.
    """
    logits = np.empty((len(dev), classifier.classes), np.float32)
    for done, index in enumerate(np.argsort(dev.lengths, kind="stable"), start=1):
        logits[index] = classifier.logits(dev.sentence(int(index)))
        progress("sentences", done, len(dev))
    bad = int(np.sum(~np.isfinite(logits).all(axis=1)))
    if bad:
        raise MeasurementError(
            f"{classifier.path} gives NaN or infinite logits for {bad} of {len(dev)} sentences: "
            "an overflow in the conversion (float16 scores beyond 65504?) or in the training."
        )
    return logits


def check_agreement(fraction: float, *, max_disagreement: float) -> None:
    """Raises MeasurementError if the file answers more than `max_disagreement` of the sentences unlike its Keras model.

    fraction: of sentences answered alike, as `quality.agreement` returns it.
    """
    found = 1 - fraction
    if found > max_disagreement + 1e-9:  # 1 - 0.98 is a hair above 0.02
        raise MeasurementError(
            f"The file answers {found:.2%} of the sentences unlike its Keras model; "
            f"measure.max_disagreement={max_disagreement:g} allows {max_disagreement:.2%}.\n"
            "Likely causes: input_ids and attention_mask swapped, the mask ignored, a layer that cannot be quantized "
            "so far (does quant=fp16 agree?), a bug of the converter (does quant=none agree?), or a student that "
            "learnt so little that its classes all but tie (train.log: how much of the held-out slice was right?)."
        )


def sizes(path: Path) -> dict[str, int]:
    """file_bytes as stored, gzip_bytes and zstd_bytes as sent: only compression turns zeros into fewer bytes."""
    content = Path(path).read_bytes()
    return {
        "file_bytes": len(content),
        "gzip_bytes": len(gzip.compress(content, GZIP_LEVEL, mtime=0)),  # the same file has the same size, always
        "zstd_bytes": len(compress(content, level=ZSTD_LEVEL)),
    }


def decompress_p50_ms(path: Path) -> float:
    """Milliseconds to read and unpack a .zst file into memory, the median of some; it lies in the disk's cache."""
    times = []
    with machine_lock():
        for _ in range(DECOMPRESSIONS):
            start = time.perf_counter()
            decompress(path)
            times.append(1000 * (time.perf_counter() - start))
    return float(np.median(times))


def _silent(what: str, done: int, total: int) -> None:
    """Progress that nobody watches."""
