"""`sweep=cache`: what lies in the cache by kind of stage, age and size, and removing what is not wanted."""

from __future__ import annotations

import json
import re
import shutil
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from filelock import FileLock, Timeout

from optim.common.build import method
from optim.common.cache_size import bytes_of
from optim.common.errors import UserError
from optim.common.screen import say
from optim.common.stages import SCRATCH, SUMS
from optim.encoder.assets import NEEDED
from optim.run import result
from optim.sweep.settings import Settings

DAY_S = 86400
SPARED_S = DAY_S  # between the stages of a run that is under way it holds no lock, but not for long
RULE = "clean must be unused, older:DAYSd (older:30d) or all"


@dataclass(frozen=True)
class Kept:
    """One folder of the cache: a stage, what a killed build of one goes on from, or the file of a package."""

    path: Path
    kind: str  # the kind of stage, `package`, or `unfinished`
    bytes: int
    age_s: float  # since it was made
    used: bool  # some result names it, or it is no stage
    spared: bool = False  # a run that is under way may need it


@method("sweep", "cache")
@dataclass(frozen=True, kw_only=True)
class Cache:
    """Lists the cache; with `clean`, removes a part of it."""

    reads: ClassVar = ()
    launches: ClassVar = False

    def run(self, settings: Settings) -> int:
        """Lists, then cleans if asked to. Nothing that is being built is touched."""
        if not settings.cache_dir.is_dir():
            raise UserError(
                f"cache_dir {settings.cache_dir} does not exist. Name the folder of the cache: cache_dir=DIR."
            )
        if settings.clean == "unused" and not settings.results_dir.is_dir():
            raise UserError(
                f"clean=unused removes what no result under results_dir {settings.results_dir} names, and there is no "
                "such folder. Name that of the runs: results_dir=DIR. By age alone: clean=older:30d."
            )
        entries = kept_in(settings.cache_dir, settings.results_dir)
        say(listing(entries, settings.cache_dir, settings.results_dir))
        if settings.clean is None:
            return 0
        chosen = to_remove(entries, settings.clean)
        if not chosen:
            say("Nothing to remove.")
            return 0
        if settings.dry_run:
            say(f"It would remove {len(chosen)}: {_size(chosen)}.")
            return 0
        if not (settings.yes or _agreed(chosen)):
            say("Nothing was removed.")
            return 1
        may_go = chosen if settings.yes else _still(chosen, settings)
        removed = [entry for entry in may_go if remove(entry.path)]
        say(f"Removed {len(removed)} of {len(chosen)}: {_size(removed)}."
            + (" The rest is in use." if len(removed) < len(chosen) else ""))  # fmt: skip
        return 0


def _still(chosen: Sequence[Kept], settings: Settings) -> list[Kept]:
    """Those that may go now: a run may have begun, or ended, while the question stood on the screen."""
    now = to_remove(kept_in(settings.cache_dir, settings.results_dir), str(settings.clean))
    paths = {entry.path for entry in now}
    return [entry for entry in chosen if entry.path in paths]


def kept_in(cache_dir: Path, results_dir: Path) -> list[Kept]:
    """Everything in the cache. Used is a stage that a result under `results_dir` names, or that one of those names.

    So is a checkpoint, which none names: keys have the digests of its weights, and it may have to be downloaded again.
    """
    records = _ages((cache_dir / "stages").glob(f"[!.]*/{SUMS}"))
    stages = [record.parent for record in records]
    ages = {record.parent.name: age_s for record, age_s in records.items()}
    wanted, spared = used_keys(cache_dir, results_dir), spared_keys(cache_dir, ages)
    entries = [
        Kept(path, path.name.rsplit("-", 1)[0], bytes_of(path), ages[path.name],
             path.name in wanted or all((path / name).is_file() for name in NEEDED), path.name in spared)
        for path in stages
    ]  # fmt: skip
    packages = _ages(path for path in (cache_dir / "packages").glob("[!.]*") if path.is_dir())
    # A package is what checkpoints and data are unpacked from: downloaded again when it is wanted.
    entries += [Kept(path, "package", bytes_of(path), age_s, True) for path, age_s in packages.items()]
    # What a killed build left is what it goes on from: wanted until somebody says otherwise.
    unfinished = _ages(path for path in (cache_dir / "stages").glob(f"{SCRATCH}*") if path.is_dir())
    return entries + [Kept(path, "unfinished", bytes_of(path), age_s, True) for path, age_s in unfinished.items()]


def _ages(paths: Iterable[Path]) -> dict[Path, float]:
    """Seconds since each was changed; without what has gone meanwhile, as the scratch folder of a finished stage."""
    now, found = time.time(), {}
    for path in paths:
        with suppress(OSError):
            found[path] = now - path.stat().st_mtime
    return found


def used_keys(cache_dir: Path, results_dir: Path) -> set[str]:
    """Keys of the stages that results name, and of those that these name in their own keys, and so on."""
    named: list[str] = []
    for path in result.files_below(results_dir):
        with suppress(OSError, ValueError, KeyError, TypeError):
            named += json.loads(path.read_text(encoding="utf-8"))["cost"]["stages"]
    return _with_inputs(cache_dir, named)


def spared_keys(cache_dir: Path, ages: Mapping[str, float]) -> set[str]:
    """Keys of the stages that a run under way may need, which names them in its result, at its end.

    While one is being built that may be any. Else those made within SPARED_S, and what these were made from. ages:
    key -> seconds since it was made.
    """
    if any(_is_held(lock) for lock in (cache_dir / "stages").glob("*.lock")):
        return set(ages)
    return _with_inputs(cache_dir, [key for key, age_s in ages.items() if age_s < SPARED_S])


def _with_inputs(cache_dir: Path, keys: Iterable[str]) -> set[str]:
    """Those, and the stages that these name in their own keys, and so on."""
    waiting, found = list(keys), set()
    while waiting:
        key = waiting.pop()
        if key not in found:
            found.add(key)
            with suppress(OSError, ValueError):
                record = (cache_dir / "stages" / key / SUMS).read_text(encoding="utf-8")
                waiting += re.findall(r'"([a-z0-9_]+-[0-9a-f]{16})"', record)
    return found


def to_remove(entries: Sequence[Kept], clean: str) -> list[Kept]:
    """Those that `clean` names. Raises UserError for another word."""
    if clean == "all":
        return list(entries)
    if clean == "unused":
        return [entry for entry in entries if not (entry.used or entry.spared)]
    if older := re.fullmatch(r"older:(\d+)d", clean):
        return [entry for entry in entries if entry.age_s > int(older[1]) * DAY_S]
    raise UserError(f"{RULE}; got {clean!r}.")


def remove(path: Path) -> bool:
    """Whether the folder is gone; False where a process holds it, or a file of a package.

    What wants it later makes it anew, but not a run that has found it before: it reads the files and holds no lock.
    """
    own, *inside = _locks_of(path)
    try:
        with ExitStack() as held:
            for lock in (own, *inside):
                held.enter_context(FileLock(lock).acquire(timeout=0))
            gone = path.with_name(f".partial-removed-{path.name}")
            shutil.rmtree(gone, ignore_errors=True)
            path.rename(gone)  # whole or not at all
            shutil.rmtree(gone, ignore_errors=True)
            own.unlink(missing_ok=True)
    except (Timeout, OSError):
        return False
    return True


def _locks_of(path: Path) -> list[Path]:
    """The lock files of a folder: its own, of a scratch folder its stage's, and those that packages.py takes in it."""
    own = path.with_name(f"{path.name.removeprefix(SCRATCH)}.lock")
    if path.parent.name != "packages":
        return [own]
    return [own, *sorted({file.with_name(f"{file.name.removesuffix('.lock')}.lock") for file in path.glob("[!.]*")})]


def _is_held(lock: Path) -> bool:
    """Whether a process holds it; one that a killed process left is removed."""
    try:
        with FileLock(lock).acquire(timeout=0):
            lock.unlink(missing_ok=True)
    except (Timeout, OSError):
        return True
    return False


def _agreed(chosen: Sequence[Kept]) -> bool:
    """Asks on a terminal. Raises UserError where there is none to ask on."""
    if sys.stdin is None or not sys.stdin.isatty():
        raise UserError("clean removes files, and there is no terminal to ask on: say yes=true.")
    try:
        said = input(f"Remove {len(chosen)} folders, {_size(chosen)}? [y/N] ")
    except EOFError:  # Ctrl-D
        return False
    return said.strip().lower() in ("y", "yes")


def listing(entries: Sequence[Kept], cache_dir: Path, results_dir: Path) -> str:
    """A row for each kind, for a screen of 100 columns."""
    lines = [f"{cache_dir}: {_size(entries)}", "",
             f"  {'kind':<16}{'count':>7}{'size':>12}{'oldest':>10}{'newest':>10}   in no result"]  # fmt: skip
    for kind in sorted({entry.kind for entry in entries}):
        own = [entry for entry in entries if entry.kind == kind]
        ages, unused = [entry.age_s for entry in own], [entry for entry in own if not entry.used]
        left = f"{len(unused)}, {_size(unused)}" if unused else "-"
        lines.append(f"  {kind:<16}{len(own):>7}{_size(own):>12}{_age(max(ages)):>10}{_age(min(ages)):>10}   {left}")
    unused = [entry for entry in entries if not entry.used]
    lines += ["", f"  {_size(unused)} are named by no result under {results_dir}: clean=unused removes them."]
    return "\n".join([*lines, *_exception([entry for entry in unused if entry.spared]), ""])


def _exception(spared: Sequence[Kept]) -> list[str]:
    """What `unused` leaves alone, why, and what takes it all the same."""
    if not spared:
        return []
    return [f"  But not {_size(spared)} of them, which a run under way may need: it names them only at its end, and",
            "  they were made within a day, or some stage is being built now. clean=all takes them too, and",
            "  clean=older:DAYSd goes by age alone."]  # fmt: skip


def _size(entries: Sequence[Kept]) -> str:
    total = sum(entry.bytes for entry in entries)
    return f"{total / 1e9:.2f} GB" if total >= 1e9 else f"{total / 1e6:.1f} MB"


def _age(seconds: float) -> str:
    return f"{seconds / DAY_S:.0f} d" if seconds >= 2 * DAY_S else f"{seconds / 3600:.0f} h"
