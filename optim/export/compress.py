"""Zstandard (RFC 8878): a file as it is sent or stored, smaller by its zeros. It is unpacked to be run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from optim.common.errors import UserError

SUFFIX = ".zst"
NONE, ZSTD = "none", "zstd"
LEVELS = range(1, 23)


@dataclass(frozen=True, kw_only=True)
class Export:
    """`export`: the form in which the file ships."""

    compress: str  # none | zstd
    zstd_level: int

    def __post_init__(self) -> None:
        if self.compress not in (NONE, ZSTD):
            raise UserError(f"export.compress must be {NONE} or {ZSTD}, got {self.compress!r}.")
        if self.zstd_level not in LEVELS:
            raise UserError(f"export.zstd_level must be from {LEVELS[0]} to {LEVELS[-1]}, got {self.zstd_level}.")

    @property
    def compresses(self) -> bool:
        """Whether the bundle holds a compressed file in place of the file itself."""
        return self.compress == ZSTD


def compress(content: bytes, *, level: int) -> bytes:
    """One frame with its content's size and checksum, on one thread: the same bytes every time."""
    return _zstandard().ZstdCompressor(level=level, write_checksum=True).compress(content)


def decompress(path: Path) -> bytes:
    """What was compressed. Raises UserError for a file that is missing, cut short, or something else."""
    zstandard = _zstandard()
    try:
        return zstandard.ZstdDecompressor().decompress(path.read_bytes())
    except FileNotFoundError as error:
        raise UserError(f"{path}: there is no such file.") from error
    except zstandard.ZstdError as error:
        raise UserError(f"{path} is not a whole zstd file: {str(error)[:160]}") from error


def content_of(path: Path) -> bytes:
    """The bytes of a file, unpacked where it is compressed."""
    return decompress(path) if path.suffix == SUFFIX else path.read_bytes()


def _zstandard():
    try:
        import zstandard
    except ImportError as error:
        raise UserError("A .zst file needs the package zstandard: pip install zstandard.") from error
    return zstandard
