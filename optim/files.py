"""Files of the package index, digests, and a disk that may be full: what every cache here is made with."""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from optim.errors import UserError

PIP_LIMIT_S = 1800
PARTIAL_DAYS = 1.0

log = logging.getLogger(__name__)


def pinned_file(cache_dir: Path, *, requirement: str, file: str, sha256: str, way_out: str) -> Path:
    """The file `file` of the package index, downloaded by pip once and checked against `sha256` at every call.

    requirement: name==version; a `file` that is no wheel is taken as the source archive. pip gets the digest too, so
    that it refuses an altered archive before running anything in it.
    """
    from filelock import FileLock

    final = cache_dir / "packages" / sha256[:16] / file
    with writing(cache_dir):
        final.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{final}.lock"):
            if final.is_file():
                found = sha256_of(final)
                if found == sha256:
                    return final
                log.warning("%s has sha256 %s, not %s: downloaded again.", final, found, sha256)
            with temporary_folder(final.parent) as folder:
                _pip_download(folder, requirement, file, sha256, way_out)
                require_sha256(folder / file, sha256, requirement, way_out)
                os.replace(folder / file, final)
    return final


def _pip_download(folder: Path, requirement: str, file: str, sha256: str, way_out: str) -> None:
    """Downloads `file` into `folder` with this Python's pip, without its dependencies."""
    log.info("Downloading %s from the package index", requirement)
    kind = ["--only-binary", ":all:"] if file.endswith(".whl") else ["--no-binary", requirement.split("==")[0]]
    folder = folder.resolve()  # pip runs helpers elsewhere
    (folder / "pin.txt").write_text(f"{requirement} --hash=sha256:{sha256}\n", encoding="utf-8")
    quick = ["--retries", "1", "--timeout", "10", "--no-input", "--disable-pip-version-check", "--progress-bar", "off"]
    where = ["--requirement", str(folder / "pin.txt"), "--dest", str(folder)]
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", *kind, *quick, *where]
    try:
        run = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PIP_LIMIT_S,
            env={**os.environ, "TMPDIR": str(folder)},  # pip's own copy must not fill another disk
        )
    except subprocess.TimeoutExpired as error:
        raise UserError(f"pip did not download {requirement} in {PIP_LIMIT_S} s. {way_out}") from error
    if run.returncode or not (folder / file).is_file():
        _explain_pip(run.stdout + run.stderr, requirement, file, sha256, way_out)


def _explain_pip(output: str, requirement: str, file: str, sha256: str, way_out: str) -> None:
    """Raises what pip's output means."""
    if found := re.search(r"Expected sha256\s+\w+\s+Got\s+(\w+)", output):
        raise UserError(_altered(f"{file} of {requirement}", sha256, found[1], way_out))
    if "No space left on device" in output:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if "No module named pip" in output:
        raise UserError(
            f"{requirement} is taken by pip, which {sys.executable} lacks: run it with -m ensurepip. {way_out}"
        )
    errors = [line for line in output.splitlines() if line.strip().lower().startswith("error")]
    reason = " ".join((errors or output.splitlines() or ["no output"])[0].split())[:200]
    raise UserError(f"pip could not download {file} of {requirement} ({reason}). Can it reach the index? {way_out}")


def require_sha256(path: Path, expected: str, origin: str, way_out: str) -> None:
    """Raises UserError naming both digests unless the file has the `expected` one."""
    found = sha256_of(path)
    if found != expected:
        raise UserError(_altered(f"{path.name} of {origin}", expected, found, way_out))


def _altered(what: str, expected: str, found: str, way_out: str) -> str:
    return f"{what} is not the file this tool was tested with: expected sha256 {expected}, found {found}. {way_out}"


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
    """A folder beside what it will become, so that a rename can put it in place; gone afterwards."""
    for left in parent.glob(".partial-*"):  # by runs that were killed
        if time.time() - left.stat().st_mtime > PARTIAL_DAYS * 86400:
            shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=".partial-", dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def writing(cache_dir: Path) -> Iterator[None]:
    """Turns a full, read-only or forbidden disk into a UserError that names `cache_dir`."""
    try:
        yield
    except OSError as error:
        raise_if_disk(error, f"cache_dir {cache_dir}", "cache_dir=DIR moves it")
        raise


def raise_if_disk(error: OSError, place: str, fix: str) -> None:
    """Raises UserError if `error` says that `place` cannot be written."""
    full = (errno.ENOSPC, errno.EDQUOT)
    if error.errno in full:
        raise UserError(f"{place}: no space left on the disk. Free some; {fix}.") from error
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
        raise UserError(f"{place} cannot be written ({error.strerror}: {error.filename}). {fix}.") from error


def first_line(error: BaseException) -> str:
    """The first line of an error, for a message of one or two."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
