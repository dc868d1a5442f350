"""(text, label) rows of .csv, .tsv, .jsonl and .parquet files; what is wrong with a file is said with its line."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from optim.common.errors import UserError, shown
from optim.common.files import first_line, sha256_of
from optim.common.text import is_unicode

Cells = tuple[int, Any, Any]  # line, text, label
COLUMNS = "For data=csv set data.text_column and data.label_column."


def format_of(path: Path) -> str:
    """The kind of file, by its suffix."""
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(f"data: {path} must end in one of {', '.join(SUFFIXES)}.")
    return path.suffix.lower()


def require_file(path: Path) -> None:
    """Raises UserError if a data file is missing or empty."""
    if not path.is_file():
        raise UserError(f"data: no file {path}. Give the path of one that exists, relative to {Path.cwd()}.")
    if path.stat().st_size == 0:
        raise UserError(f"data: {path} is empty.")


def file_sha256(path: Path) -> str:
    """The digest of a data file. Raises UserError if it is missing, empty or unreadable."""
    require_file(path)
    try:
        return sha256_of(path)
    except OSError as error:
        raise UserError(f"data: {path} cannot be read ({error.strerror}).") from error


def read_rows(path: Path, text_column: str, label_column: str) -> list[tuple[str, str]]:
    """(text, label) of every row. Raises UserError for what is no such table, naming the line."""
    read = READERS[format_of(path)]
    require_file(path)
    try:
        rows = read(path, (text_column, label_column))
    except UnicodeDecodeError as error:
        raise UserError(f"data: {path} is not UTF-8 (byte {error.start}). Save it as UTF-8.") from error
    except OSError as error:
        raise UserError(f"data: {path} cannot be read ({error.strerror or first_line(error)}).") from error
    if not rows:
        raise UserError(f"data: {path} has no rows.")
    return checked(rows, f"data: {path}, line", text_column, label_column)


def checked(rows: list[Cells], where: str, text_column: str, label_column: str) -> list[tuple[str, str]]:
    """(text, label) of every row. Raises UserError, `where` and its number first, for one without a text or label."""
    pairs = []
    for line, text, label in rows:
        if not _is_text(text):
            raise UserError(f"{where} {line}: {text_column!r} must be a text, got {shown(text)}.")
        if _is_missing(label):
            raise UserError(f"{where} {line}: {label_column!r} has no label.")
        if isinstance(label, list | dict):
            raise UserError(f"{where} {line}: {label_column!r} must hold one label, got {shown(label)}.")
        if isinstance(label, bytes) or (isinstance(label, str) and not _is_text(label)):
            what = f"{label_column!r} must be a label that can be written"
            raise UserError(f"{where} {line}: {what}, got {shown(label)}.")
        pairs.append((text, _label_text(label)))
    return pairs


def _read_csv(path: Path, columns: tuple[str, str]) -> list[Cells]:
    """Rows of a comma-separated file with a header; quoted fields may hold commas and line ends."""
    limit = csv.field_size_limit(2**31 - 1)
    rows, begun = [], 1  # the line at which a row began: a quote that is left open is noticed at the end of the file
    try:
        text = path.read_bytes().decode("utf-8-sig")  # at once: read in pieces, a bad byte is counted from its piece
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        header = next(reader, [])
        places = _places(path, header, columns)
        begun = reader.line_num + 1
        for row in reader:
            if row:
                rows.append(_row(path, reader.line_num, row, header, places))
            begun = reader.line_num + 1
        return rows
    except csv.Error as error:
        raise UserError(
            f"data: {path}, line {begun}: the row that begins there is no valid CSV ({error}). Is a quote left open?"
        ) from error
    finally:
        csv.field_size_limit(limit)


def _read_tsv(path: Path, columns: tuple[str, str]) -> list[Cells]:
    """Rows of a tab-separated file with a header, split by nothing but tabs and line ends."""
    text = path.read_bytes().decode("utf-8-sig")  # not read_text: it would take a lone \r for a line end
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    header = lines[0].split("\t")
    places = _places(path, header, columns)
    return [_row(path, i, line.split("\t"), header, places) for i, line in enumerate(lines[1:], start=2) if line]


def _read_jsonl(path: Path, columns: tuple[str, str]) -> list[Cells]:
    """Rows of a file with one JSON object in each line."""
    rows = []
    for i, line in enumerate(path.read_bytes().decode("utf-8-sig").split("\n"), start=1):
        if not line.strip():
            continue
        entry = _parsed(line, f"data: {path}, line {i}")
        if not isinstance(entry, dict):
            raise UserError(f"data: {path}, line {i} must be a JSON object, got {type(entry).__name__}.")
        _places(f"{path}, line {i},", list(entry), columns)
        rows.append((i, entry[columns[0]], entry[columns[1]]))
    return rows


def _parsed(line: str, where: str) -> Any:
    """What a line of JSON says. Raises UserError, `where` first, for one that is none or that Python does not read."""
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(f"{where} is not JSON ({error}).") from error
    except ValueError as error:  # a number of more digits than Python reads
        raise UserError(f"{where} has a number that is too long to read. Is it meant to be a text?") from error
    except RecursionError as error:
        raise UserError(f"{where} has brackets that are nested too deep to read.") from error


def _read_parquet(path: Path, columns: tuple[str, str]) -> list[Cells]:
    """Rows of a Parquet file, counted from 1."""
    import pyarrow
    import pyarrow.parquet

    try:
        _places(path, pyarrow.parquet.read_schema(path).names, columns)
        read = pyarrow.parquet.read_table(path, columns=list(dict.fromkeys(columns)))
    except (pyarrow.ArrowInvalid, pyarrow.ArrowNotImplementedError) as error:
        raise UserError(f"data: {path} is no readable Parquet file ({first_line(error)}).") from error
    texts, labels = (read[column].to_pylist() for column in columns)
    return [(i, text, label) for i, (text, label) in enumerate(zip(texts, labels, strict=True), start=1)]


def absent_columns(header: Sequence[str], columns: tuple[str, str]) -> str:
    """What is missing and what is there, for a message; nothing if both columns are there."""
    absent = [column for column in dict.fromkeys(columns) if column not in header]
    lacks, has = (", ".join(map(repr, names)) or "none" for names in (absent, header))
    return f"{lacks}; it has {has}" if absent else ""


def _places(where: Path | str, header: list[str], columns: tuple[str, str]) -> list[int]:
    """Where the columns stand. Raises UserError listing those that are there, and for one that is there twice."""
    if absent := absent_columns(header, columns):
        raise UserError(f"data: {where} has no column {absent}. {COLUMNS}")
    for column in columns:
        if (count := header.count(column)) > 1:
            raise UserError(f"data: {where} has {count} columns {column!r}. Rename all but the one that is meant.")
    return [header.index(column) for column in columns]


def _row(path: Path, line: int, row: list[str], header: list[str], places: list[int]) -> Cells:
    """The line and the two cells of a row, which must have as many as the header."""
    if len(row) != len(header):
        raise UserError(f"data: {path}, line {line} has {len(row)} cells, the header {len(header)}.")
    return line, row[places[0]], row[places[1]]


def _is_text(value: Any) -> bool:
    """True for a string that says something and can be written."""
    return isinstance(value, str) and bool(value.strip()) and is_unicode(value)


def _is_missing(label: Any) -> bool:
    """None, NaN (which differs from itself), nothing, and the word that a table writes for NaN."""
    return label is None or label != label or (isinstance(label, str) and label.strip().lower() in ("", "nan"))


def _label_text(label: Any) -> str:
    """A label as its name: 1.0 (what tables make of whole numbers with gaps) is "1"."""
    if isinstance(label, float) and label.is_integer():
        label = int(label)
    return str(label).strip()


READERS = {".csv": _read_csv, ".tsv": _read_tsv, ".jsonl": _read_jsonl, ".parquet": _read_parquet}
SUFFIXES = tuple(READERS)
