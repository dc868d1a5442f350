"""Sentences without labels, from which a student learns what its teachers say of them (Hinton et al. 2015, section 1,
arXiv:1503.02531: the transfer set): the user's file, and the file in which a stage keeps them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from optim.common.errors import UserError
from optim.common.files import first_line
from optim.data.phrases import spans
from optim.data.spelling import normal_form
from optim.data.tables import COLUMNS, SUFFIXES, file_sha256, read_rows

SETTING = "distill.unlabelled"
OWN_COLUMN = "It is that of data.text_column, 'text' where the data have none; or give a .txt file, a sentence a line."
NOBODY = -1  # in place of a training row that a sentence was made from
BLOCK = 10_000  # sentences that are held as texts at once


@dataclass(frozen=True)
class Block:
    """Some sentences, and the training rows that each was made from."""

    texts: list[str]
    parents: np.ndarray  # int32 [n, 2]; NOBODY where there is no such row


def from_nobody(texts: list[str]) -> Block:
    """A block of sentences that were made from no training row."""
    return Block(texts, np.full((len(texts), 2), NOBODY, np.int32))


def name_parents(block: Block, whole: Mapping[int, str]) -> None:
    """Writes which rows of `whole`, row -> normal form, each sentence is a part of: the first two, as its parents."""
    rows_of: dict[str, list[int]] = {normal_form(text): [] for text in block.texts}
    for row in sorted(whole):
        for span in spans([whole[row]]) & rows_of.keys():
            rows_of[span].append(row)
    for place, text in enumerate(block.texts):
        for column, row in enumerate(rows_of[normal_form(text)][:2]):
            block.parents[place, column] = row


LEFT_OUT = 2  # version of what is left out of a user's file; 2 leaves out what is spelt apart too (`does n't`)


@dataclass(frozen=True)
class UnlabelledFile:
    """`distill.unlabelled`: a .txt file with a sentence a line, or a table with a column of them."""

    path: Path
    column: str

    def fingerprint(self) -> dict[str, Any]:
        """The digest and how it is read. Raises UserError for a file that is missing, empty or of another kind."""
        suffix = _format_of(self.path)
        with _named():
            digest = file_sha256(self.path)
        how = {"sha256": digest, "format": suffix, "version": LEFT_OUT}
        return {**how, **({} if suffix == ".txt" else {"column": self.column})}

    def texts(self) -> list[str]:
        """The sentences. Raises UserError, with the line, for what is no such file."""
        with _named():
            if _format_of(self.path) != ".txt":
                return [text for text, _ in read_rows(self.path, self.column, self.column)]
            texts = _read_txt(self.path)
        if not texts:
            raise UserError(f"{SETTING}: {self.path} has no sentences.")
        return texts


def _read_txt(path: Path) -> list[str]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"data: {path} is not UTF-8 (byte {error.start}). Save it as UTF-8.") from error
    except OSError as error:
        raise UserError(f"data: {path} cannot be read ({first_line(error)}).") from error
    return [line.strip() for line in text.split("\n") if line.strip()]


def _format_of(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix not in (".txt", *SUFFIXES):
        raise UserError(f"{SETTING}: {path} must end in one of .txt, {', '.join(SUFFIXES)}.")
    return suffix


class _named:
    """What is said about a data file names this setting instead."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, UserError):
            said = str(error).removeprefix("data: ").replace(COLUMNS, OWN_COLUMN)
            raise UserError(f"{SETTING}: {said}") from error


class Filter:
    """Lets every sentence through once, and none of those that it was told of, by their forms.

    It keeps 8 bytes for each sentence. Two that share them by chance, one pair in 10^19, would count as one.
    """

    def __init__(self, train: Iterable[str], dev: Iterable[str], form: Callable[[str], str] = normal_form) -> None:
        self.form = form
        self.dev = np.unique(self._digests(dev))
        self.seen = np.unique(np.concatenate([self._digests([""]), self._digests(train)]))
        self.left_out = {"repeated": 0, "as_dev": 0}

    def __call__(self, block: Block) -> Block:
        """What is left of a block; the rest is counted."""
        digests = self._digests(block.texts)
        scored = np.isin(digests, self.dev)
        fresh = np.zeros(len(digests), bool)
        fresh[np.unique(digests, return_index=True)[1]] = True
        kept = fresh & ~scored & ~np.isin(digests, self.seen)
        self.seen = np.union1d(self.seen, digests[kept])
        self.left_out["as_dev"] += int(scored.sum())
        self.left_out["repeated"] += int((~kept & ~scored).sum())
        return Block([text for text, keep in zip(block.texts, kept, strict=True) if keep], block.parents[kept])

    def _digests(self, texts: Iterable[str]) -> np.ndarray:
        """uint64 [n]: 8 bytes of a hash of each form."""
        raw = [hashlib.blake2b(self.form(text).encode(), digest_size=8).digest() for text in texts]
        return np.frombuffer(b"".join(raw), np.uint64)


def save(path: Path, blocks: Iterable[Block]) -> int:
    """Writes a Parquet file of text, first and second parent, and returns the number of sentences."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([("text", pa.string()), ("first", pa.int32()), ("second", pa.int32())])
    count = 0
    with pq.ParquetWriter(path, schema) as writer:
        for block in blocks:
            columns = [pa.array(block.texts, pa.string()), *(pa.array(block.parents[:, i]) for i in (0, 1))]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))
            count += len(block.texts)
    return count


def texts_of(path: Path) -> Iterator[list[str]]:
    """The sentences of a file that `save` wrote, BLOCK at a time."""
    import pyarrow.parquet as pq

    for batch in pq.ParquetFile(path).iter_batches(BLOCK, columns=["text"]):
        yield batch.column(0).to_pylist()


def parents_of(path: Path) -> np.ndarray:
    """int32 [n, 2], as in `Block`."""
    import pyarrow.parquet as pq

    table = pq.read_table(path, columns=["first", "second"])
    return np.stack([table.column(i).to_numpy() for i in (0, 1)], axis=1)
