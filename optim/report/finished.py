"""Finished results as points that can be compared: what was read, what tells them apart, what they are called."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from optim.common.files import UNREADABLE
from optim.export.bundle import BUNDLE, model_in
from optim.measure.quality import wilson
from optim.run import result, schema
from optim.run.places import GROUPS
from optim.run.result import Result
from optim.run.words import key_of


@dataclass(frozen=True)
class Finished:
    """One finished result and what it said of each dev sentence."""

    result: Result
    folder: Path
    right: np.ndarray | None  # bool [examples], in dev's order; None in results without answers
    teacher_right: np.ndarray | None

    @property
    def accuracy(self) -> float:
        """Of the file that ships."""
        return self.result.quality["accuracy_fraction"]

    @property
    def machine(self) -> str:
        """Where it was timed and weighed."""
        return self.result.machine.get("id") or self.result.machine["cpu"]

    @property
    def timed_as(self) -> tuple[str, int, int]:
        """What the latencies of two points must share to be compared: machine, tokens of a sentence, threads."""
        return self.machine, self.result.speed["sequence_length"], self.result.speed["threads"]

    @property
    def file(self) -> str:
        """What two points share that are one file, as those do that differ in what changes nothing for them."""
        files = self.stages("file")
        return files[-1] if files else self.result.run_id  # before it may stand those of candidates

    @property
    def bundle(self) -> Path:
        """The folder that ships. Of some points only the figures were kept."""
        return self.folder / BUNDLE

    @property
    def model(self) -> Path:
        """The file in it."""
        return model_in(self.bundle)

    def stages(self, *kinds: str) -> list[str]:
        """The keys of its stages of some kinds, in the order of its steps."""
        return [key for key in self.result.cost.get("stages", {}) if key.partition("-")[0] in kinds]

    def cost(self, name: str) -> float:
        """A figure of speed, size or memory by its name, such as latency_p50_ms, file_bytes or peak_rss_bytes."""
        parts = (self.result.speed, self.result.size, self.result.memory)
        return next((part for part in parts if name in part), parts[-1])[name]


def drop_points(point: Finished) -> float:
    """Percentage points of accuracy that the point is below its teacher, to the nearest millionth."""
    return round(100 * (point.result.quality["teacher_accuracy_fraction"] - point.accuracy), 6)


def read_all(folders: Sequence[Path], machine: str | None = None) -> tuple[list[Finished], list[Result], list[str]]:
    """(finished points, failed results, one line for each file that is left out), of all folders and those in them.

    machine: the id of another machine, whose figures stand in for those of each result. Left out is what it has not
    measured, what is no result of this tool, what another version of it made (its figures may mean something else), and
    the second of two runs of one id with other figures. Failed is what has failed everywhere.
    """
    done, failed, left_out, seen = [], {}, [], {}
    for path in dict.fromkeys(path for folder in folders for path in result.files_below(folder)):
        read = _read(path)
        if isinstance(read, str):
            left_out.append(f"{path} is left out: {read}")
            continue
        if read.status != result.DONE:
            failed.setdefault(read.run_id, read)
            continue
        twin = seen.setdefault(read.run_id, (path, read))
        if twin[0] != path:
            if not _same(twin[1], read):
                left_out.append(
                    f"{path} is left out: {twin[0]} is the same run with other figures. Delete one of them."
                )
        elif (later := _later(path.parent, machine)) is None and machine:
            left_out.append(f"{path} is left out: machine {machine} has not measured it.")
        else:
            done.append(_point(replace(read, **later or {}), path.parent))
    return done, [read for run_id, read in failed.items() if run_id not in seen], left_out


def _read(path: Path) -> Result | str:
    """The result in a file, or why it is none that can be compared."""
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        if (made_by := fields["schema"]) != result.SCHEMA:
            age = "an older" if made_by < result.SCHEMA else "a newer"
            again = fields.get("command", "its command")
            return f"made by {age} version (schema {made_by}, this one has {result.SCHEMA}). Run it again: {again}"
        read = Result(**fields)
        lacks = schema.lacking(fields) if read.status == result.DONE else []
        return f"damaged: it lacks {', '.join(lacks[:3])}. Delete it, and run its command again." if lacks else read
    except (OSError, ValueError, TypeError, KeyError) as error:
        return f"not a result of this tool ({_short(error)})."


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:80]


# Of `quality`, what one of two copies may have been told after they were made.
TOLD_LATER = ("untaught_accuracy_fraction", "untaught_p", "teacher_helps")


def _same(first: Result, second: Result) -> bool:
    """Whether two files of one run tell the same: a copy does. Another machine of the same kind may round otherwise."""
    qualities = [{k: v for k, v in found.quality.items() if k not in TOLD_LATER} for found in (first, second)]
    return qualities[0] == qualities[1] and first.size == second.size


def _later(folder: Path, machine: str | None) -> dict[str, Any] | None:
    """Parts of a result that a later measurement takes the place of, here or on another machine; None: there is none.

    machine and speed, and memory where that was measured again too.
    """
    name = result.measured_on(machine) if machine else result.REMEASURED
    with suppress(OSError, ValueError, KeyError, TypeError):
        found = json.loads((folder / name).read_text(encoding="utf-8"))
        parts = ("machine", "speed", "memory") if machine or "memory" in found else ("machine", "speed")
        return {part: found[part] for part in parts}
    return None


def _point(found: Result, folder: Path) -> Finished:
    try:
        with np.load(folder / result.ANSWERS) as saved:
            labels, answers, teacher = saved["labels"], saved["answers"], saved["teacher"]
    except UNREADABLE:
        return Finished(found, folder, None, None)
    return Finished(found, folder, answers == labels, teacher == labels)


def distinct(points: Sequence[Finished]) -> list[Finished]:
    """The first point of each file."""
    return list({p.file: p for p in reversed(points)}.values())[::-1]


def factors(points: Sequence[Finished]) -> dict[str, list[Any]]:
    """Name -> value for each point of everything that differs: options of groups, and keys set on a command line.

    But for the tracker: to where a point was logged changes nothing in it. Nor does whether a hub was there to be
    asked, which the choices say beside the options.
    """
    groups = sorted({g for p in points for g in p.result.choices if g in GROUPS and g != "track"})
    keys = sorted({key for p in points for key in _keys(p.result.command) if "." in key or key == "seed"})
    keys = [key for key in keys if not key.startswith("track.")]
    columns = {group: [p.result.choices.get(group) for p in points] for group in groups}
    columns |= {key: [_lookup(p.result.cfg, key) for p in points] for key in keys if not key.endswith("_dir")}
    return {name: values for name, values in columns.items() if len({str(v) for v in values}) > 1}


def ordered(values: Sequence[str]) -> list[str]:
    """The distinct options of a factor: neutral ones first, numbers by size, then words."""

    def place(value: str) -> tuple[bool, bool, float, str]:
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        word = math.isnan(number)
        return value not in result.NEUTRAL, word, 0.0 if word else number, value

    return sorted(set(values), key=place)


def set_on_command_line(point: Finished) -> list[str]:
    """The keys that the command of a point names."""
    return _keys(point.result.command)


def _keys(command: str) -> list[str]:
    return [key_of(word) for word in shlex.split(command) if "=" in word]


def _lookup(cfg: Any, key: str) -> Any:
    for part in key.split("."):
        cfg = cfg.get(part) if isinstance(cfg, dict) else None
    return cfg


CHANGES = ("slim.", "vocab.", "prune.", "quant.")  # keys without which two labels could be one
SAID = ("model", "slim", "vocab", "prune", "quant", "seed", "distill.temperature")  # by `label` already


def label(point: Finished) -> str:
    """The choices of a point in a few words."""
    choice, cfg = point.result.choices, point.result.cfg
    words = [choice["model"], *result.removed(choice), f"prune={choice['prune']}", f"quant={choice['quant']}"]
    words += [word for word in shlex.split(point.result.command) if word.lstrip("+").startswith(CHANGES)]
    if point.result.cost["student_s"] and "temperature" in cfg["distill"]:
        words.append(f"T={cfg['distill']['temperature']:g}")
    return " ".join(words) + (f" seed={point.result.seed}" if point.result.seed else "")


def labels(points: Sequence[Finished]) -> list[str]:
    """`label` of each, with what else differs between them: its data, teacher, fit, and what its command set."""
    every = factors(points)
    varied = {name: every[name] for name in every if name not in SAID and not name.startswith(CHANGES)}
    short, out = short_names(list(varied)), []
    for i, point in enumerate(points):
        told = set(set_on_command_line(point))
        more = [f"{short[name]}={values[i]}" for name, values in varied.items() if "." not in name or name in told]
        words, seed, number = label(point).partition(" seed=")
        out.append(" ".join([words, *more]) + seed + number)
    return out


def short_names(names: Sequence[str]) -> dict[str, str]:
    """Each key -> its last part, or its last two where several keys end alike."""
    last = [name.rsplit(".", 1)[-1] for name in names]
    return {name: end if last.count(end) == 1 else ".".join(name.split(".")[-2:])
            for name, end in zip(names, last, strict=True)}  # fmt: skip


def data_of(point: Finished) -> str:
    """What two points must share for their accuracies to be compared: the digest of their data."""
    return point.result.data["digest"]


def by_data(points: Sequence[Finished]) -> list[list[Finished]]:
    """The points of each data set, in the order of their first: accuracies on two are never compared."""
    sets: dict[str, list[Finished]] = {}
    for point in points:
        sets.setdefault(data_of(point), []).append(point)
    return list(sets.values())


def data_name(point: Finished) -> str:
    """What its data is called, and how much of it was scored."""
    name = point.result.data.get("name") or point.result.choices.get("data")
    return f"{name}, {point.result.quality['examples']:,} sentences"


def teacher_text(point: Finished) -> str:
    """What taught a point, or what it was made of, and how good that is."""
    teacher, q = point.result.cfg["distill"].get("teacher", "same"), point.result.quality
    names = [teacher] if isinstance(teacher, str) else list(teacher)
    first = point.result.choices["model"] if names[0] == "same" else names[0]
    named = f"{first}, the first of {len(names)}" if len(names) > 1 else first  # whose accuracy it is
    low, high = wilson(round(q["teacher_accuracy_fraction"] * q["examples"]), q["examples"])
    return f"Teacher {named}: {q['teacher_accuracy_fraction']:.4f} of {q['examples']:,} ({low:.3f}-{high:.3f})"


def accuracy_text(point: Finished) -> str:
    """Accuracy and its 95 % interval."""
    q = point.result.quality
    return f"{point.accuracy:.4f} ({q['ci95_low']:.3f}-{q['ci95_high']:.3f})"
