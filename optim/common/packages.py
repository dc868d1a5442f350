"""Pinned files of the package index: downloaded once, checked against their sha256 at every call, never run."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from pathlib import Path

from optim.common.errors import UserError
from optim.common.files import log, sha256_of, temporary_folder, writing

PIP_LIMIT_S = 1800


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
