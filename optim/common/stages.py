"""The cache of finished stages: a folder for each, named by the hash of everything that its content depends on.

A stage is built in a folder of its own and renamed into place, so it is there whole or not at all, whatever was killed.
Runs that want the same stage wait for the one that builds it. What is read is checked against the digests written then.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import shutil
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optim.common.files import exclusive, sha256_of, temporary_folder, writing

SCHEMA = 3  # of every stage; raised when code changes what a stage holds
SUMS = "stage.json"  # digests of the files, seconds, and the key that it was made from
SPENT = "spent.json"  # in a scratch folder: seconds of the builds before, and when this one began
SCRATCH = ".scratch-"  # before the name of a stage: the folder of what a killed build of it goes on from
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stage:
    """A finished stage."""

    folder: Path
    cached: bool  # it was there already
    seconds: float  # that building it took, now or then; of a killed build what the next one went on from

    @property
    def key(self) -> str:
        """What later stages name in their own keys."""
        return self.folder.name


def digest_of(key: Any) -> str:
    """16 hexadecimal digits of the sha256 of `key` as sorted JSON."""
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Wanted:
    """A stage by its name and its key; whether it is in the cache is another question."""

    name: str
    depends_on: dict[str, Any]  # everything that its content depends on

    @property
    def key(self) -> str:
        """What later stages name in their own keys, and the name of its folder."""
        return f"{self.name}-{digest_of({'schema': SCHEMA, 'name': self.name, **self.depends_on})}"

    def at_hand(self, cache_dir: Path) -> float | None:
        """Seconds that it took, if the cache has it; the digests of its files are left to its reader."""
        with contextlib.suppress(OSError, ValueError, KeyError):
            return json.loads((cache_dir / "stages" / self.key / SUMS).read_text(encoding="utf-8"))["seconds"]
        return None

    def intact(self, cache_dir: Path) -> Path | None:
        """Its folder, if the cache has it with every file as it was written."""
        folder = cache_dir / "stages" / self.key
        return folder if _intact(folder) else None


def stage(cache_dir: Path, wanted: Wanted, build: Callable[[Path, Path], None]) -> Stage:
    """The stage that is wanted, made by build(folder, scratch) unless it is there and intact.

    `scratch` outlives a killed build of the same stage, so that the next one can go on; it is gone after success.
    Raises UserError where the cache cannot be written or the disk is full.
    """
    final = cache_dir / "stages" / wanted.key
    scratch = final.with_name(f"{SCRATCH}{final.name}")
    with writing(cache_dir):
        final.parent.mkdir(parents=True, exist_ok=True)
        with exclusive(final):
            if record := _intact(final):
                return Stage(final, True, record["seconds"])
            scratch.mkdir(exist_ok=True)
            before = _spent(scratch)
            try:
                seconds = _build(final, wanted.depends_on, lambda folder: build(folder, scratch), before)
                shutil.rmtree(scratch, ignore_errors=True)
            finally:
                _drop_empty(scratch)
            return Stage(final, False, seconds)


def _spent(scratch: Path) -> float:
    """Seconds of the killed builds up to what they saved last; notes that another one begins."""
    note, seconds = scratch / SPENT, 0.0
    if saved := [path.stat().st_mtime for path in scratch.iterdir() if path != note]:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            told = json.loads(note.read_text(encoding="utf-8"))
            seconds = told["seconds"] + max(0.0, max(saved) - told["began"])
    note.write_text(json.dumps({"seconds": seconds, "began": time.time()}), encoding="utf-8")
    return seconds


def _drop_empty(scratch: Path) -> None:
    """Takes away a folder in which a build saved nothing."""
    with contextlib.suppress(OSError):
        if [path.name for path in scratch.iterdir()] == [SPENT]:
            (scratch / SPENT).unlink()
            scratch.rmdir()


def _build(final: Path, key: dict[str, Any], build: Callable[[Path], None], before: float) -> float:
    with temporary_folder(final.parent) as folder:
        start = time.perf_counter()
        build(folder)
        seconds = before + time.perf_counter() - start
        sums = {file.name: sha256_of(file) for file in sorted(folder.iterdir())}
        record = {"seconds": seconds, "sha256": sums, "key": key}
        (folder / SUMS).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        shutil.rmtree(final, ignore_errors=True)
        folder.chmod(stat.S_IMODE(final.parent.stat().st_mode))  # who may use the cache may use what is in it
        folder.rename(final)
        folder.mkdir()  # for temporary_folder to remove
    return seconds


def _intact(folder: Path) -> dict[str, Any] | None:
    """What SUMS says, if every file still has the digest that it names."""
    if not folder.is_dir():
        return None
    with contextlib.suppress(OSError, ValueError, KeyError):
        record = json.loads((folder / SUMS).read_text(encoding="utf-8"))
        if all(sha256_of(folder / file) == digest for file, digest in record["sha256"].items()):
            return record
    log.warning("%s was altered since it was written: made again.", folder)
    return None
