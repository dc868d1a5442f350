"""Digests, whole files in one step, temporary folders, and a disk that may be full: what every cache is made with."""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import logging
import os
import platform
import re
import shutil
import tempfile
import threading
import time
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from optim.common.errors import UserError

ROOT = Path(__file__).resolve().parents[2]  # of this program: train.py, conf and optim lie in it
PACKAGED = ROOT / "optim" / "conf"  # of a wheel; in a checkout conf lies beside optim
PARTIAL_DAYS = 1.0
ALIVE_S = 3600.0  # between two signs of life of who builds in a temporary folder
# What reading an array or a record raises that is damaged: cut short by a power failure, for one, or by a full disk.
UNREADABLE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)
KEPT_BACK: set[str] = set()  # variables that this process has set for itself: a child would take them for the user's
log = logging.getLogger(__name__)


def environment() -> dict[str, str]:
    """For a process of this program: it finds this same `optim`, and no module of the working folder.

    A wheel is found as it is: its folder before the standard library's would let other packages stand for that.
    """
    found = {name: value for name, value in os.environ.items() if name not in KEPT_BACK} | {"PYTHONSAFEPATH": "1"}
    if not PACKAGED.is_dir():
        found["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return found


def sha256_of(path: Path) -> str:
    """The hexadecimal sha256 of a file; read again only if it was written to since this process read it last."""
    stat = path.stat()
    return _digest(str(path), stat.st_size, stat.st_mtime_ns, stat.st_ino)


@functools.lru_cache(maxsize=4096)
def _digest(path: str, *state: int) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_text(path: Path, text: str) -> None:
    """Puts a file in its place in one step, so that a reader finds the whole of it or nothing."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)


@contextlib.contextmanager
def temporary_folder(parent: Path) -> Iterator[Path]:
    """A folder beside what it will become, so that a rename can put it in place; gone afterwards.

    Its name says whose it is, so that what a killed process left is cleared by the next one that comes by. Another
    machine can only tell by its age, which stays low while the body runs.
    """
    clear_leftovers(parent)
    folder, over = Path(tempfile.mkdtemp(prefix=f".partial-{this_process()}-", dir=parent)), threading.Event()

    def live() -> None:
        while not over.wait(ALIVE_S):
            with contextlib.suppress(OSError):
                os.utime(folder)

    threading.Thread(target=live, daemon=True).start()
    try:
        yield folder
    finally:
        over.set()
        shutil.rmtree(folder, ignore_errors=True)


def clear_leftovers(parent: Path) -> None:
    """Removes the temporary folders in `parent` whose process is gone; those of other machines after PARTIAL_DAYS."""
    for left in parent.glob(".partial-*"):
        with contextlib.suppress(OSError):  # another process clears it too
            if _is_dead(left):
                shutil.rmtree(left, ignore_errors=True)


def _is_dead(folder: Path) -> bool:
    owner = re.fullmatch(r"\.partial-([0-9a-f]{8}-\d+-\d+)-.*", folder.name)
    gone = has_ended(owner[1]) if owner else None
    return time.time() - folder.stat().st_mtime > PARTIAL_DAYS * 86400 if gone is None else gone


def this_process() -> str:
    """Which process this is, for `has_ended` of another one."""
    return f"{_host()}-{os.getpid()}-{_started(os.getpid())}"


def has_ended(process: str) -> bool | None:
    """Whether the process that `this_process` named so is gone; None for one of another machine."""
    host, number, started = process.split("-")
    return _started(int(number)) != int(started) if host == _host() else None


def _host() -> str:
    """8 hexadecimal digits of what numbers processes here: this machine, and on Linux the container within it.

    Containers may share a name, and a cache, and know nothing of each other's processes.
    """
    space = ""
    with contextlib.suppress(OSError):
        space = os.readlink("/proc/self/ns/pid")
    return hashlib.sha256(f"{platform.node()}{space}".encode()).hexdigest()[:8]


def _started(pid: int) -> int:
    """When a process of this machine started, in clock ticks since boot; 0 if there is none.

    Numbers of processes come again, with another start. Where the system does not say, 1 for one that is there.
    """
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        pass
    if Path("/proc/self/stat").exists():
        return 0
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return 0
    except OSError:
        pass
    return 1


@contextlib.contextmanager
def exclusive(final: Path) -> Iterator[None]:
    """One process at a time in the body for `final`; its lock file `<final>.lock` is gone when nobody waits for it.

    Removing it is safe with filelock 4: who gets a lock on a file that was removed meanwhile takes another one.
    """
    from filelock import FileLock

    path = Path(f"{final}.lock")
    with FileLock(path):
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def writing(place: Path, *, setting: str = "cache_dir", folder: Path | None = None) -> Iterator[None]:
    """Turns a full, read-only or forbidden disk into a UserError that names `place` and the setting that moves it.

    folder: what is written to, where it lies in `place`.
    """
    try:
        yield
    except OSError as error:
        raise_if_disk(error, f"{setting} {place}", f"{setting}=DIR moves it", folder or place)
        raise


def try_writing(folder: Path) -> None:
    """Creates a folder. Raises OSError where it takes no file."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        pass


def raise_if_disk(error: OSError, place: str, fix: str, folder: Path | None = None) -> None:
    """Raises UserError if `error` says that `place` cannot be written.

    A file that is not there counts only where `folder`, the one of `place`, is not there: it could not be made.
    """
    full = (errno.ENOSPC, errno.EDQUOT)
    if error.errno in full:
        raise UserError(f"{place}: no space left on the disk. Free some; {fix}.") from error
    forbidden = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENOTEMPTY)
    not_made = error.errno == errno.ENOENT and folder is not None and not folder.is_dir()
    if error.errno in forbidden or not_made:
        raise UserError(f"{place} cannot be written ({error.strerror}: {error.filename}). {fix}.") from error


def require_disk(folder: Path, needed_bytes: int, what: str, when: str = "while it is fetched") -> None:
    """Raises UserError, with the figures, if the disk of `folder`, a cache_dir, has less than `needed_bytes` free."""
    free_bytes = shutil.disk_usage(folder).free
    if needed_bytes > free_bytes:
        raise UserError(
            f"{what} takes {needed_bytes / 1e9:.2f} GB of disk {when}, "
            f"cache_dir {folder} has {free_bytes / 1e9:.2f} GB left on its disk. Free some; cache_dir=DIR moves it."
        )


def first_line(error: BaseException) -> str:
    """The first line of an error, for a message of one or two."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
