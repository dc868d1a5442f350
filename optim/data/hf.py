"""`data=hf`: any text-classification set of the model hub, or a local folder of one."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from optim.common.build import method
from optim.common.errors import UserError, require_fraction, require_seed
from optim.data.corpus import Corpus, Source, _check_max_length, _corpus, _labelled
from optim.data.sets import folder_set, folder_sha256, hub_set, split_cells
from optim.data.table import _sorted_labels, held_back, held_back_key
from optim.data.tables import _label_text, checked

FIX = "Set data.train_split, data.dev_split, data.text_column, data.label_column."
NO_HUB = "data.path=DIR takes a local copy, data=csv your own files."
log = logging.getLogger(__name__)


@method("data", "hf")
def hub_or_folder(
    *,
    name: str | None,
    config: str | None,
    revision: str,
    path: str | None,
    train_split: str,
    dev_split: str | None,
    text_column: str,
    label_column: str,
    phrases: bool,
    dev_fraction: float,
    split_seed: int,
    max_length: int,
) -> Source:
    """The set `name` (OWNER/NAME) of the model hub at `revision`, or a local folder `path`, through `datasets`.

    Without `dev_split`, `dev_fraction` of every class of the training split is held back, the same for a given seed.
    phrases: rows of train are phrases of whole sentences; then it is of those, and what is part of one is not learnt.
    Nothing from the hub is ever run (`optim/data/sets.py`).
    """
    _check_max_length(max_length)
    if path is None and (name is None or "/" not in name):
        raise UserError(
            f"data=hf needs data.name=OWNER/NAME, a set of the model hub, or data.path=DIR, got data.name={name}. "
            "Sets without an owner have moved: glue is nyu-mll/glue now."
        )
    require_fraction("data.dev_fraction", dev_fraction)
    require_seed("data.split_seed", split_seed)
    if dev_split is None and dev_fraction == 0:
        raise UserError("data.dev_fraction must be above 0 without data.dev_split: nothing would be left to score.")
    if dev_split == train_split:
        raise UserError(f"data.dev_split must be another split than data.train_split, got {dev_split!r} for both.")
    return HubSet(
        hub_id=name or "",
        config=config,
        revision=revision,
        path=None if path is None else Path(path).expanduser(),
        splits=(train_split, dev_split),
        columns=(text_column, label_column),
        phrases=phrases,
        dev_fraction=dev_fraction,
        split_seed=split_seed,
        max_length=max_length,
    )


@dataclass(frozen=True)
class HubSet:
    """A set of the hub, or a folder."""

    hub_id: str
    config: str | None
    revision: str
    path: Path | None
    splits: tuple[str, str | None]  # train, dev
    columns: tuple[str, str]  # text, label
    phrases: bool  # rows are phrases of whole sentences
    dev_fraction: float
    split_seed: int
    max_length: int

    @property
    def name(self) -> str:
        """OWNER/NAME and the configuration; of a folder without such a name, its own."""
        base = self.hub_id or (Path(os.path.abspath(self.path)).name if self.path else "")
        return f"{base}/{self.config}" if self.config else base

    def fingerprint(self) -> dict[str, Any]:
        """The hub's name and revision, or the digests of the folder's files, and how they are read."""
        held = held_back_key(self.dev_fraction, self.split_seed) if not self.splits[1] else {}
        phrases = {"phrases": True} if self.phrases else {}
        shared = {"splits": list(self.splits), "columns": list(self.columns), **phrases, **held}
        origin = {"hub_id": self.hub_id, "revision": self.revision} if not self.path else folder_sha256(self.path)
        return {"source": "hf", "config": self.config, "origin": origin, **shared, "max_length": self.max_length}

    def load(self, cache_dir: Path) -> Corpus:
        """Both splits, or one and a slice of it. Classes are those that the set names, else the labels of train."""
        loaded = self._loaded()
        (train_split, dev_split), named = self.splits, self._class_names(loaded, self.splits[0])
        train_rows = self._rows(loaded, train_split, named)
        origin = f"data.label_column: {self.name} {train_split}"
        names = named or _sorted_labels({label for _, label in train_rows}, origin)
        if dev_split is None:
            train_rows, dev_rows = held_back(train_rows, self.dev_fraction, self.split_seed, phrases=self.phrases)
        else:
            own = self._class_names(loaded, dev_split)  # a saved split may name its classes in another order
            dev_rows = self._rows(loaded, dev_split, own if set(own) & set(names) else named)
        ids = {name: i for i, name in enumerate(names)}
        train = _labelled(train_rows, ids, f"{self.name} {train_split}", "train")
        corpus = _corpus(self.name, train, _labelled(dev_rows, ids, f"{self.name} {dev_split}", "train"), names)
        return replace(corpus, phrases=self.phrases)

    def _loaded(self) -> Any:
        if self.path:
            return folder_set(self.path, self.config, split=self.splits[0])
        return hub_set(self.hub_id, self.config, self.revision, data="data.name", way_out=NO_HUB)

    def _class_names(self, loaded: Any, split: str) -> tuple[str, ...]:
        """The names of the classes where the split has them, else none. Raises UserError for several labels a row."""
        from datasets import ClassLabel, Value

        rows = loaded.get(split)
        feature = rows.features.get(self.columns[1]) if rows is not None else None
        if isinstance(feature, ClassLabel):
            return tuple(map(_label_text, feature.names or ()))
        if feature is not None and not isinstance(feature, Value):
            what = f"data={self.name}: {self.columns[1]!r} must hold one label a sentence"
            raise UserError(f"{what}, got {type(feature).__name__}. {FIX}")
        return ()

    def _rows(self, loaded: Any, split: str, named: tuple[str, ...]) -> list[tuple[str, str]]:
        """(text, label) of a split. Raises UserError for a split, a column, a text or a label that is not there."""
        data = f"data={self.name}"
        cells = split_cells(loaded, split, self.columns, data=data, fix=FIX, label=_meaning(named))
        if cells and all(label is None for _, _, label in cells):
            raise UserError(f"{data}, split {split!r}, has no labels, only -1 or nothing. {FIX}")
        return checked(cells, f"{data}, split {split!r}, row", *self.columns)


def _meaning(named: tuple[str, ...]) -> Callable[[Any], Any]:
    """What a stored label means: its name where classes have names; nothing for -1, which marks a missing one there."""

    def name_of(label: Any) -> Any:
        if not isinstance(label, int):  # another split may hold the names themselves
            return label
        return named[label] if 0 <= label < len(named) else None

    return name_of if named else lambda label: label
