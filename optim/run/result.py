"""The result of one point: result.json, what lies beside it, and how both are written and read."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optim.common.errors import UserError
from optim.common.files import sha256_of, try_writing, write_text, writing
from optim.common.secrets import masked
from optim.export.bundle import BUNDLE, is_whole, model_in

if TYPE_CHECKING:
    import numpy as np


SCHEMA = 7  # of result.json; raised when a figure means something else, or a reader counts on a new one
NEUTRAL = ("none", "full")  # of slim and vocab
DONE, FAILED = "done", "failed"
FILE = "result.json"
REMEASURED = "remeasured.json"  # beside it: machine and speed of a later, common measurement
MEASURED = "measured-{}.json"  # beside it: machine, speed and memory by another machine, its id in the name
CHANGED = "changed.jsonl"  # beside it: a line for each sentence of dev that file and teacher answer differently
ANSWERS = "answers.npz"  # beside it: labels, answers, teacher, a class for each sentence of dev


@dataclass
class Result:
    """One point of the trade-off: the row of the table, of result.json and of W&B."""

    schema: int
    run_id: str
    status: str  # done | failed
    error: str | None
    choices: dict[str, Any]  # option of each group, and what a missing hub made of the default
    cfg: dict[str, Any]
    seed: int
    command: str
    machine: dict[str, Any]
    data: dict[str, Any] = field(default_factory=dict)
    quality: dict[str, Any] = field(default_factory=dict)
    size: dict[str, Any] = field(default_factory=dict)
    speed: dict[str, Any] = field(default_factory=dict)
    memory: dict[str, Any] = field(default_factory=dict)
    cost: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The content of result.json, without any secret in it."""
        return masked(asdict(self))


def read(folder: Path) -> Result | None:
    """The finished result in a run folder; None if there is none yet, or its file cannot be read, or it failed."""
    try:
        fields = json.loads((folder / FILE).read_text(encoding="utf-8"))
        result = Result(**fields)
    except (OSError, ValueError, TypeError):
        return None
    return result if result.status == DONE and result.schema == SCHEMA and _bundle(folder).is_dir() else None


def done_in(folder: Path) -> Result | None:
    """The result of a run that need not be run again: its bundle has all its parts."""
    return read(folder) if is_whole(_bundle(folder)) else None


def files_below(folder: Path) -> list[Path]:
    """Every result.json in a folder and those in it, each once; a run that lies elsewhere, behind a link, too."""
    found, seen = [], set()
    for place, names, files in os.walk(folder, followlinks=True):
        names.sort(key=lambda name: os.path.islink(os.path.join(place, name)))  # a run before the links to it
        if (real := os.path.realpath(place)) in seen:
            names.clear()  # which may lead round in a circle
            continue
        seen.add(real)
        found += [Path(place, FILE)] if FILE in files else []
    return sorted(found)


def measured_on(machine: str) -> str:
    """The file, beside result.json, of what the machine with this id has measured. Raises UserError for no such id."""
    if not re.fullmatch("[0-9a-f]{8}", machine):
        raise UserError(f"The id of a machine has 8 hexadecimal digits, as measure.py writes them; got {machine!r}.")
    return MEASURED.format(machine)


def error_of(folder: Path) -> str | None:
    """What a failed run left as its reason."""
    try:
        return json.loads((folder / FILE).read_text(encoding="utf-8"))["error"]
    except (OSError, ValueError, KeyError):
        return None


def write(result: Result, folder: Path) -> None:
    """Puts result.json in its place in one step, so that a reader finds the whole of it or nothing."""
    write_text(folder / FILE, NUMBERS.sub(_one_line, json.dumps(result.to_json(), indent=2)) + "\n")


NUMBERS = re.compile(r"\[\n\s+-?\d+(?:,\n\s+-?\d+)*\n\s+\]")  # a list of whole numbers, as a row of a confusion table


def _one_line(found: re.Match[str]) -> str:
    return " ".join(found[0].split()).replace("[ ", "[").replace(" ]", "]")


def require_writable(results_dir: Path, folder: Path) -> None:
    """Creates the run folder. Raises UserError where it cannot be written."""
    with writing(results_dir, setting="results_dir", folder=folder):
        try_writing(folder)


def require_space(cache_dir: Path, *, free_gb: float) -> None:
    """Raises UserError unless the disk of the cache has `free_gb` gigabytes left and takes a file."""
    if found := [sign for sign in "[\\" if sign in str(cache_dir.absolute())]:  # TensorFlow reads it as a pattern
        raise UserError(f"cache_dir {cache_dir} must have no {found[0]} in it. cache_dir=DIR moves it.")
    with writing(cache_dir):
        try_writing(cache_dir)
    left_gb = shutil.disk_usage(cache_dir).free / 1e9
    if left_gb < free_gb:
        raise UserError(
            f"cache_dir {cache_dir} has {left_gb:.1f} GB left on its disk, cache_free_gb={free_gb:g} asks for more. "
            "Free some, or cache_dir=DIR moves it."
        )


def write_answers(folder: Path, answers: dict[str, np.ndarray]) -> None:
    """Keeps what was said of each sentence of dev: without it two points cannot be tested against each other."""
    import numpy as np

    part = folder / f".{ANSWERS}.{os.getpid()}.npz"
    small: dict[str, Any] = {name: values.astype(np.int16) for name, values in answers.items()}
    np.savez_compressed(part, **small)
    os.replace(part, folder / ANSWERS)


def write_changed(folder: Path, changed: Sequence[Mapping[str, Any]]) -> None:
    """Keeps the sentences that the file answers unlike its teacher, one JSON object a line."""
    lines = (json.dumps(masked(dict(one)), ensure_ascii=False) for one in changed)
    write_text(folder / CHANGED, "".join(f"{line}\n" for line in lines))


def forget_measurements(folder: Path, file: Path) -> None:
    """Takes away the later measurements of a run whose bundle holds, or held, another file than `file`."""
    old = model_in(_bundle(folder))
    if not old.is_file() or sha256_of(old) != sha256_of(file):
        for path in (folder / REMEASURED, *folder.glob(MEASURED.format("*"))):
            path.unlink(missing_ok=True)


def read_labels(folder: Path) -> np.ndarray:
    """int [dev_examples], of a finished run."""
    import numpy as np

    with np.load(folder / ANSWERS) as saved:
        return saved["labels"]


def _bundle(folder: Path) -> Path:
    return folder / BUNDLE


def removed(choices: dict[str, Any]) -> list[str]:
    """The options of `slim` and `vocab` as words; none where nothing is removed."""
    return [f"{group}={choices[group]}" for group in ("slim", "vocab") if choices.get(group) not in (None, *NEUTRAL)]
