"""A .tflite file and token ids -> logits, by LiteRT. Neither TensorFlow nor transformers is imported here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from optim.common.errors import UserError, require_positive
from optim.common.screen import without_chatter
from optim.export.compress import SUFFIX, decompress

INPUTS = ("input_ids", "attention_mask")
OUTPUT = "logits"
MOST_THREADS = 1024
INTEGERS = ("int8", "int16")  # of logits that carry their scale


class Classifier:
    """A text classifier in a .tflite or .tflite.zst file, loaded once; `logits` scores one sentence of any length.

    Inputs are bound by name: a converter orders them as it likes, and swapped ids and mask answer at chance. The
    runtime re-plans its memory when the length changes and only then, so many sentences go fastest sorted by length.

    Raises UserError for a file that is missing, damaged, or has other inputs and outputs than input_ids and
    attention_mask, int32 [1, length], and logits, float32 [1, classes].
    """

    def __init__(self, path: Path, threads: int):
        require_threads("threads", threads)
        self.path = Path(path)
        with without_chatter():
            self._run = _signature_runner(self.path, threads)
            self._scale, self._zero = self._run.get_output_details()[OUTPUT]["quantization"]  # 0, 0 of a float
            # One token, id 0: every vocabulary has it. LiteRT packs the weights in its first call, not on loading.
            self.classes = len(self.logits(np.zeros(1, np.int32)))

    def logits(self, ids: np.ndarray) -> np.ndarray:
        """int [length] token ids, all of them real (the mask is all ones) -> float32 [classes].

        Raises UserError for a sentence the file cannot run: no token, more tokens than it has positions, or an id
        beyond its vocabulary.
        """
        row = np.ascontiguousarray(ids, np.int32)[None]
        if row.ndim != 2 or row.shape[1] == 0:
            raise UserError(f"{self.path}: a sentence must be a row of at least one token, got shape {row.shape[1:]}.")
        try:
            return self._as_float(self._run(input_ids=row, attention_mask=np.ones_like(row))[OUTPUT][0])
        except (RuntimeError, ValueError) as error:
            raise UserError(
                f"{self.path} cannot run {row.shape[1]} tokens with ids up to {row.max()}: are there more than it has "
                f"positions, or is its vocabulary smaller? LiteRT says: {_short(error)}"
            ) from error

    def _as_float(self, logits: np.ndarray) -> np.ndarray:
        """float32 [classes]: scale * (logits - zero point) of integers, floats as they are."""
        if logits.dtype == np.float32:
            return logits
        return (np.float32(self._scale) * (logits.astype(np.int32) - self._zero)).astype(np.float32)


def require_threads(setting: str, threads: int) -> None:
    """Raises UserError for a number of threads that no interpreter can have."""
    require_positive(setting, threads)
    if threads > MOST_THREADS:
        raise UserError(f"{setting} must be at most {MOST_THREADS:,}, got {threads:,}.")


def _signature_runner(path: Path, threads: int):
    """LiteRT's callable for the one signature of the file, after a look at its names and types."""
    from ai_edge_litert.interpreter import Interpreter

    if not path.is_file():
        raise UserError(f"{path}: there is no such .tflite file.")
    try:
        runner = Interpreter(**_source(path), num_threads=threads).get_signature_runner()
    except (RuntimeError, ValueError) as error:
        raise UserError(f"{path} is not a .tflite file with one signature: {_short(error)}") from error
    _check_contract(path, runner.get_input_details(), runner.get_output_details())
    return runner


def _source(path: Path) -> dict[str, Any]:
    """What LiteRT is given: the path, whose pages it maps; of a .zst file its content, unpacked into memory."""
    return {"model_content": decompress(path)} if path.suffix == SUFFIX else {"model_path": str(path)}


def _check_contract(path: Path, inputs: dict, outputs: dict) -> None:
    """Raises UserError unless names, types and ranks are those that `Classifier` binds."""
    found = {name: (np.dtype(details["dtype"]).name, len(details["shape"])) for name, details in inputs.items()}
    if found != dict.fromkeys(INPUTS, ("int32", 2)):
        raise UserError(f"{path} must take {INPUTS[0]} and {INPUTS[1]}, int32 [1, length]; it takes {_listed(found)}.")
    found = {name: (np.dtype(details["dtype"]).name, len(details["shape"])) for name, details in outputs.items()}
    integers = [{OUTPUT: (kind, 2)} for kind in INTEGERS if outputs.get(OUTPUT, {}).get("quantization", (0,))[0] > 0]
    if found not in [{OUTPUT: ("float32", 2)}, *integers]:
        raise UserError(f"{path} must return {OUTPUT}, float32 [1, classes]; it returns {_listed(found)}.")


def _listed(found: dict[str, tuple[str, int]]) -> str:
    """`input_ids int32 of rank 2, ...`."""
    return ", ".join(f"{name} {dtype} of rank {rank}" for name, (dtype, rank) in sorted(found.items())) or "nothing"


def _short(error: Exception) -> str:
    """The start of LiteRT's message, on one line: it repeats the earlier errors of the same interpreter."""
    return " ".join(str(error).split())[:160]
