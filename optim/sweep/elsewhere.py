"""Figures of another machine: measured there over ssh or adb, or brought as a file, and given to the points.

They go to measured-ID.json beside each result.json, ID being that machine's: the result itself stays as it is.
"""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from optim.common.errors import UserError
from optim.common.files import sha256_of, write_text
from optim.common.screen import counted
from optim.measure import device
from optim.measure.latency import Bench
from optim.measure.zeros import UNKNOWN
from optim.report.finished import Finished
from optim.run.card import measure_settings
from optim.run.result import measured_on
from optim.run.schema import Memory, Speed

ADB = "adb"
ADB_FOLDER = "/data/local/tmp"  # which every Android device lets its shell write
CONNECT_S = 10
BEFORE = "--- figures ---"  # the line before them: what a login shell prints comes earlier
TOO_MUCH = 1e15  # milliseconds or bytes
NOT_THERE: dict[str, Any] = {**UNKNOWN, "decompress_p50_ms": None}  # figures of `speed` that measure.py does not take
MACHINE = {"cpu", "isa", "id", "cores", "load_average", "versions"}


class Host(Protocol):
    """Another machine."""

    def measure(self, points: Sequence[Finished], bench: Bench) -> dict[str, Any]:
        """The content of measured.json, of every distinct file of the points."""
        ...


def host_of(name: str, python: str) -> Host:
    """What `host=` names. Raises UserError for a name that is none, or a tool that is not installed."""
    tool = ADB if name.split(":", 1)[0] == ADB else "ssh"
    if name.startswith("-") or not name.strip() or name == f"{ADB}:":
        raise UserError(f"host must be USER@BOARD, as ssh takes it, or adb or adb:SERIAL, got {name!r}.")
    if shutil.which(tool) is None:
        raise UserError(
            f"host={name} needs {tool}, which is not installed here. Or copy a bundle there, see sweep=import."
        )
    return Adb(name.partition(":")[2], python) if tool == ADB else Ssh(name, python)


@dataclass(frozen=True)
class Ssh:
    """A machine that ssh reaches without a password: one call sends the files, measures and brings the figures."""

    name: str
    python: str

    def measure(self, points: Sequence[Finished], bench: Bench) -> dict[str, Any]:
        """The files go as a tar to its stdin, the figures come from its stdout, its progress from its stderr."""
        there = (
            'd=$(mktemp -d) && trap \'rm -rf "$d"\' EXIT && cd "$d" && tar xf - && '
            f"{_script(self.python)} >&2 && echo {shlex.quote(BEFORE)} && cat {device.FIGURES}"
        )
        command = ["ssh", "-o", "BatchMode=yes", "-o", f"ConnectTimeout={CONNECT_S}", self.name]
        with tempfile.TemporaryDirectory() as name, tempfile.TemporaryFile() as packed:
            folder = Path(name)
            _pack(points, bench, folder, put=_linked)
            with tarfile.open(fileobj=packed, mode="w", dereference=True) as tar:
                tar.add(folder, arcname=".")
            packed.seek(0)
            told = _run([*command, f"sh -c {shlex.quote(there)}"], self.name, packed)
            return _figures(told.partition(f"{BEFORE}\n")[2], self.name)


@dataclass(frozen=True)
class Adb:
    """An Android device at a cable. It must have a Python with NumPy and LiteRT."""

    serial: str  # empty: the only one there is
    python: str

    def measure(self, points: Sequence[Finished], bench: Bench) -> dict[str, Any]:
        """Pushes the files, measures, prints the figures, and takes everything away again."""
        adb, name = [ADB, *(["-s", self.serial] if self.serial else [])], f"{ADB} {self.serial}".strip()
        with tempfile.TemporaryDirectory(prefix="distilbert-optim-") as local:
            there = f"{ADB_FOLDER}/{Path(local).name}"
            _pack(points, bench, Path(local))
            try:
                _run([*adb, "push", local, there], name)
                _run([*adb, "shell", f"cd {there} && {_script(self.python)} >&2"], name)
                return _figures(_run([*adb, "shell", f"cat {there}/{device.FIGURES}"], name), name)
            finally:
                subprocess.run([*adb, "shell", f"rm -rf {there}"], capture_output=True)


def _script(python: str) -> str:
    """What runs in the folder that was sent. The shell there lists the folders, so that any number of them fits.

    It also knows whose home a ~ is, which no quotes may hold.
    """
    home = "~/" if python.startswith("~/") else ""
    return f"{home}{shlex.quote(python.removeprefix(home))} {device.SCRIPT} [0-9]* --output {device.FIGURES}"


def _linked(file: Path, place: Path) -> None:
    place.symlink_to(file.resolve())


def _pack(
    points: Sequence[Finished], bench: Bench, folder: Path, put: Callable[[Path, Path], object] = shutil.copyfile
) -> None:
    """measure.py, and for each distinct file a folder with it and how it is timed: bundles without words.

    put: leaves a file in a place; links take no room where what is sent next is what they lead to.
    """
    shutil.copyfile(device.__file__, folder / device.SCRIPT)
    files = {sha256_of(point.model): point for point in points}
    for place, point in enumerate(files.values()):
        own = folder / f"{place:05d}"
        own.mkdir()
        put(point.model, own / point.model.name)
        write_text(own / device.SETTINGS, measure_settings(point.result, asdict(bench)))


def _run(command: Sequence[str], name: str, sent: Any = None) -> str:
    """stdout of a command; its stderr is shown as it comes, and its last line told if it fails."""
    last = ""
    # stdout goes to a file: in a pipe that nobody reads meanwhile the figures of some sixty files would stop it.
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as out:
        with subprocess.Popen(
            command, stdin=sent, stdout=out, stderr=subprocess.PIPE, encoding="utf-8", errors="replace"
        ) as child:
            assert child.stderr is not None
            for line in child.stderr:
                print(f"  {name}: {line.rstrip()}", file=sys.stderr)
                last = line.strip() or last
        if child.returncode:
            raise UserError(f"host {name}: {last or f'{command[0]} ended with code {child.returncode}'}")
        out.seek(0)
        return out.read()


def _figures(text: str, source: str) -> dict[str, Any]:
    """The content of a measured.json. Raises UserError for anything else."""
    try:
        found = json.loads(text)
        version = found["version"]
        measured_on(found["machine"]["id"])  # which is part of the name of a file
        fits = _is_told(found["machine"]) and all(_is_complete(one) for one in found["files"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{source} holds no figures of {device.SCRIPT}: {error}.") from error
    if version != device.VERSION:
        raise UserError(
            f"{source} is of another version of {device.SCRIPT} ({version}, this one has {device.VERSION}): "
            "copy it there again from a new bundle."
        )
    if not fits or not found["files"]:
        raise UserError(f"{source} lacks figures that {device.SCRIPT} writes: measure again there.")
    return found


def _is_told(machine: dict[str, Any]) -> bool:
    """Whether all is there that a comparison says of a machine."""
    if not set(machine) >= MACHINE:
        return False
    return isinstance(machine["isa"], list) and all(isinstance(one, str) for one in (machine["cpu"], *machine["isa"]))


def _is_complete(one: dict[str, Any]) -> bool:
    """Whether the figures of a file are all there, and numbers; those against a float32 file may be null."""
    speed = {**one["speed"], **NOT_THERE}
    told = [v for key, v in one["speed"].items() if v is not None or "float32" not in key]
    names = set(speed) == set(Speed.__annotations__) and set(one["memory"]) == set(Memory.__annotations__)
    numbers = all(_is_number(v) for v in (*told, *one["memory"].values()))
    return names and numbers and isinstance(one["file_sha256"], str)


def _is_number(value: Any) -> bool:
    """Whether it is one, and neither NaN nor infinite, which JSON of Python's may hold."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < TOO_MUCH


def read_figures(path: Path) -> dict[str, Any]:
    """The content of a measured.json that somebody brought."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"file={path} cannot be read: {error}.") from error
    return _figures(text, f"file={path}")


@dataclass(frozen=True)
class Taken:
    """What came of some figures."""

    machine: str  # id
    cpu: str
    files: int  # that are files of points
    points: int
    others: int  # files that are of no point

    def line(self) -> str:
        """For the screen."""
        more = f" {counted(self.others, 'file')} in it of no point here." if self.others else ""
        own = f"{counted(self.files, 'file')} of {counted(self.points, 'point')}"
        return f"Machine {self.machine} ({self.cpu}): {own}.{more}"


def taken(found: dict[str, Any], points: Sequence[Finished], source: str) -> Taken:
    """Writes the figures of each file beside the points that have it. Raises UserError where none has."""
    machine, by_file = found["machine"], {one["file_sha256"]: one for one in found["files"]}
    own = [(point, digest) for point in points if (digest := sha256_of(point.model)) in by_file]
    if not own:
        raise UserError(f"{source}: none of its {len(by_file)} files is that of a finished point of results_dir.")
    for point, digest in own:
        one = by_file[digest]
        content = {"machine": machine, "speed": {**one["speed"], **NOT_THERE}, "memory": one["memory"]}
        write_text(point.folder / measured_on(machine["id"]), json.dumps(content, indent=2) + "\n")
    files = len({digest for _, digest in own})
    return Taken(machine["id"], machine["cpu"], files, len(own), len(by_file) - files)
