"""`data=csv` and `data=banking77`: the user's own files, split where there is no dev file."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from optim.common.build import method
from optim.common.errors import UserError, require_fraction, require_seed
from optim.data.copies import drawn
from optim.data.corpus import Corpus, Source, _check_max_length, _corpus, _hash_order, _labelled
from optim.data.phrases import MIN_WORDS, parts_of
from optim.data.spelling import joined_form
from optim.data.tables import SUFFIXES, file_sha256, format_of, read_rows

MOST_FRACTIONS = 20  # numbers with fractions that may be classes: ten half stars, and some


@method("data", "table")
def table_source(
    *,
    train_path: str | None,
    dev_path: str | None,
    text_column: str,
    label_column: str,
    phrases: bool,
    dev_fraction: float,
    split_seed: int,
    max_length: int,
) -> Source:
    """Any .csv (RFC 4180), .tsv (no quoting: a `"` is a character), .jsonl or .parquet file with any number of classes.

    Without `dev_path`, `dev_fraction` of every class of the training file is held back, the same for a given seed.
    phrases: rows are phrases of whole sentences; then it is of those, and rows that are part of one are left out.
    """
    _check_max_length(max_length)
    if train_path is None:
        raise UserError(f"data=csv needs data.train_path=FILE, a {', '.join(SUFFIXES)} file.")
    require_fraction("data.dev_fraction", dev_fraction)
    require_seed("data.split_seed", split_seed)
    if dev_path is None and dev_fraction == 0:
        raise UserError("data.dev_fraction must be above 0 without data.dev_path: nothing would be left to score.")
    dev = None if dev_path is None else Path(dev_path)
    columns = text_column, label_column
    return Table(Path(train_path), dev, *columns, dev_fraction, split_seed, max_length, phrases=phrases)


@method("data", "folder")
def folder_source(
    *,
    name: str,
    path: str | None,
    train_file: str,
    dev_file: str,
    text_column: str,
    label_column: str,
    max_length: int,
) -> Source:
    """The set `name` whose two files lie in the folder `path`, in one of the formats of `table`."""
    _check_max_length(max_length)
    if path is None:
        raise UserError(f"data={name} needs data.path=DIR, a folder with {train_file} and {dev_file}.")
    train, dev = (Path(path) / file for file in (train_file, dev_file))
    return Table(train, dev, text_column, label_column, 0, 0, max_length, name)


@dataclass(frozen=True)
class Table:
    """The user's own files."""

    train_path: Path
    dev_path: Path | None
    text_column: str
    label_column: str
    dev_fraction: float
    split_seed: int
    max_length: int
    name: str = "csv"
    phrases: bool = False

    def fingerprint(self) -> dict[str, Any]:
        """The digests of the files and how they are read."""
        files = (
            {"train": self.train_path} if self.dev_path is None else {"train": self.train_path, "dev": self.dev_path}
        )
        split = held_back_key(self.dev_fraction, self.split_seed) if self.dev_path is None else {}
        return {
            "source": "table",
            **{f"{key}_sha256": file_sha256(path.expanduser()) for key, path in files.items()},
            "formats": [format_of(path) for path in files.values()],
            "columns": [self.text_column, self.label_column],
            **split,
            **({"phrases": True} if self.phrases else {}),
            "max_length": self.max_length,
        }

    def load(self, cache_dir: Path) -> Corpus:
        """Both files, or one file and a slice of it. Classes are sorted: by number if all labels are whole numbers."""
        rows = self._rows(self.train_path)
        names = _sorted_labels({label for _, label in rows}, f"data.label_column: {self.train_path}")
        if len(names) < 2:
            only = next(iter(names))
            raise UserError(
                f"data.label_column: {self.train_path} has a single class, {only!r} in {self.label_column!r}. "
                "A classifier needs two."
            )
        ids = {name: i for i, name in enumerate(names)}
        if self.dev_path is None:
            train_rows, dev_rows = held_back(rows, self.dev_fraction, self.split_seed, phrases=self.phrases)
        else:
            train_rows, dev_rows = rows, self._rows(self.dev_path)
        train = _labelled(train_rows, ids, str(self.train_path), "train")
        corpus = _corpus(self.name, train, _labelled(dev_rows, ids, str(self.dev_path), "train"), names)
        return replace(corpus, phrases=self.phrases)

    def _rows(self, path: Path) -> list[tuple[str, str]]:
        return read_rows(path.expanduser(), self.text_column, self.label_column)


def _sorted_labels(labels: set[str], origin: str) -> tuple[str, ...]:
    """Class names in the order of their ids: by value if all are whole numbers, else by spelling.

    Raises UserError, `origin` first, for many numbers with fractions: measurements, which no class stands for.
    """
    if len(labels) > MOST_FRACTIONS and all(map(_is_number, labels)) and any("." in label for label in labels):
        raise UserError(
            f"{origin} has {len(labels)} different numbers, such as {min(labels)}, for labels: a classifier needs "
            "classes. Put them into some, as high and low, first."
        )
    if all(re.fullmatch(r"[+-]?\d+", label) for label in labels):
        return tuple(sorted(labels, key=lambda label: (int(label), label)))
    return tuple(sorted(labels))


def _is_number(label: str) -> bool:
    with suppress(ValueError):
        return math.isfinite(float(label))
    return False


def held_back_key(fraction: float, seed: int) -> dict[str, Any]:
    """What the id of a slice of train knows; version 2 holds back no more than `fraction` where rows have copies."""
    return {"dev_fraction": fraction, "split_seed": seed, "version": 2}


def held_back(
    rows: list[tuple[str, str]], fraction: float, seed: int, *, phrases: bool
) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """(train, dev): `fraction` of every class in dev, or, where rows are phrases, of the whole sentences.

    Of phrases none is in train that is part of a sentence in dev. Raises UserError where no two sentences are whole.
    """
    if not phrases:
        return _stratified(rows, fraction, seed)
    parts = parts_of([text for text, _ in rows])
    if len(parts.whole) < 2:
        raise UserError(
            f"data.phrases=true needs two whole sentences, rows of at least {MIN_WORDS} words that are part of no "
            f"other, to hold one back; train has {len(parts.whole)}. Set data.phrases=false, or give dev sentences."
        )
    held, touched = parts.held_out(min(max(1, round(fraction * len(parts.whole))), len(parts.whole) - 1), seed)
    left = np.setdiff1d(np.arange(len(rows)), touched)
    return [rows[i] for i in left], [rows[i] for i in held]


def _stratified(
    rows: list[tuple[str, str]], fraction: float, seed: int
) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """(train, dev): `fraction` of every class in dev, at least one sentence, and never the last of a class.

    Copies of a text, with other capitals and marks or another label too, go to the same side: dev holds nothing that
    was trained on. A text of which there are more copies than are still to be held back stays in train.
    """
    order = _hash_order([text for text, _ in rows], seed)
    forms = [joined_form(text) for text, _ in rows]
    members: dict[str, list[int]] = defaultdict(list)
    for i in order:
        members[rows[i][1]].append(i)
    counts = {label: min(max(1, round(fraction * len(some))), len(some) - 1) for label, some in members.items()}
    chosen = {form for label, some in members.items() for form in drawn([forms[i] for i in some], counts[label])}
    for indices in members.values():
        if all(forms[i] in chosen for i in indices):
            chosen -= {forms[i] for i in indices}
    dev = {i for i, form in enumerate(forms) if form in chosen}
    if not dev:
        raise UserError(
            f"data.dev_fraction={fraction:g} of {len(rows)} rows leaves none for dev: all {len(members)} classes have "
            "a single text, which stays in train. Is data.label_column right? Else give dev sentences of their own."
        )
    return [row for i, row in enumerate(rows) if i not in dev], [row for i, row in enumerate(rows) if i in dev]
