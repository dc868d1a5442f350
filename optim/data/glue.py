"""`data=sst2`: a GLUE task, from the model hub or a folder of its files; `data=sst2_sentences`: a judge made of train.

On 872 sentences of dev a recipe's luck is as large as its merit, and what chose it there would be scored there too. So
recipes are chosen on whole sentences held out of train, with every row that is part of one, and dev is left unread.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from optim.common.build import method
from optim.common.errors import UserError, require_count, require_seed
from optim.data.corpus import Corpus, Sentences, Source, _check_max_length, _corpus, _labelled
from optim.data.phrases import MIN_WORDS, parts_of
from optim.data.sets import hub_set, split_cells
from optim.data.tables import file_sha256, read_rows

NO_HUB = "Use data.path=DIR with train.tsv and dev.tsv of GLUE, or data=reviews, which needs no hub."
JUDGE = (1500, 0)  # held_sentences and split_seed of conf/data/sst2_sentences.yaml


@method("data", "glue")
def glue(
    *,
    hub_id: str,
    config: str,
    revision: str,
    path: str | None,
    label_names: Sequence[str],
    phrases: bool,
    held_sentences: int | None,
    split_seed: int,
    max_length: int,
) -> Source:
    """The GLUE task `config` (Wang et al. 2018, arXiv:1804.07461) with columns `sentence` and `label`.

    From the model hub's `hub_id` at `revision`, or from the folder `path` with GLUE's own train.tsv and dev.tsv.
    phrases: rows of train are phrases of whole sentences. held_sentences: so many of those, drawn by `split_seed`, are
    scored instead of dev, which is not read; rows that are part of one are left out of train.
    """
    _check_max_length(max_length)
    require_seed("data.split_seed", split_seed)
    names = [str(name).strip() for name in label_names]
    if len(names) < 2 or len(set(names)) < len(names) or not all(names):
        raise UserError(f"data.label_names must be two names or more, none blank or twice, got {list(label_names)}.")
    if held_sentences is not None:
        require_count("data.held_sentences", held_sentences)
        if not phrases:
            raise UserError("data.held_sentences needs data.phrases=true: rows of train that are phrases of sentences.")
    local = None if path is None else Path(path)
    return Glue(hub_id, config, revision, local, tuple(label_names), phrases, held_sentences, split_seed, max_length)


@dataclass(frozen=True)
class Glue:
    """A single-sentence GLUE task."""

    hub_id: str
    config: str
    revision: str
    path: Path | None
    label_names: tuple[str, ...]
    phrases: bool
    held_sentences: int | None
    split_seed: int
    max_length: int

    @property
    def name(self) -> str:
        """The task; a split that is not the judge's is told by its count and seed, as it holds other sentences."""
        if self.held_sentences is None:
            return self.config
        split = (self.held_sentences, self.split_seed)
        return f"{self.config}_sentences" + ("" if split == JUDGE else f"_{split[0]}_{split[1]}")

    @property
    def _splits(self) -> tuple[str, ...]:
        """What is read."""
        return ("train", "dev") if self.held_sentences is None else ("train",)

    def fingerprint(self) -> dict[str, Any]:
        """The digests of the local files, or the hub's revision."""
        shared = {"source": "glue", "label_names": list(self.label_names), "max_length": self.max_length,
                  "phrases": self.phrases}  # fmt: skip
        if self.held_sentences is not None:
            shared |= {"held_sentences": self.held_sentences, "split_seed": self.split_seed}
        if self.path is None:
            return {**shared, "hub_id": self.hub_id, "config": self.config, "revision": self.revision}
        return {**shared, **{f"{split}_sha256": file_sha256(self._file(split)) for split in self._splits}}

    def load(self, cache_dir: Path) -> Corpus:
        """What is learnt and what is scored; the test split of GLUE has no labels and is left alone."""
        if self.path is None:
            splits = self._from_hub()
        else:
            splits = {split: read_rows(self._file(split), "sentence", "label") for split in self._splits}
        ids = {str(label): label for label in range(len(self.label_names))}
        read = {
            split: _labelled(rows, ids, f"{self.name} {split}", "data.label_names") for split, rows in splits.items()
        }
        train, dev = (read["train"], read["dev"]) if self.held_sentences is None else self._held_out(read["train"])
        return replace(_corpus(self.name, train, dev, self.label_names), phrases=self.phrases)

    def _held_out(self, train: Sentences) -> tuple[Sentences, Sentences]:
        """(rows that are part of no sentence held out, the sentences held out)."""
        assert self.held_sentences is not None
        parts = parts_of(train.texts)
        if self.held_sentences >= len(parts.whole):
            raise UserError(
                f"data.held_sentences must be below {len(parts.whole)}, the sentences of train with at least "
                f"{MIN_WORDS} words, got {self.held_sentences}."
            )
        held, touched = parts.held_out(self.held_sentences, self.split_seed)
        return train.take(np.setdiff1d(np.arange(len(train.texts)), touched)), train.take(held)

    def _file(self, split: str) -> Path:
        assert self.path is not None
        return self.path.expanduser() / f"{split}.tsv"

    def _from_hub(self) -> dict[str, list[tuple[str, str]]]:
        """Rows of the hub's dataset."""
        data, columns = f"data={self.name}", ("sentence", "label")
        loaded = hub_set(self.hub_id, self.config, self.revision, data=data, way_out=NO_HUB)

        def rows(split: str) -> list[tuple[str, str]]:
            cells = split_cells(loaded, split, columns, data=data, fix=NO_HUB, label=str)
            return [(text, label) for _, text, label in cells]

        return {split: rows({"train": "train", "dev": "validation"}[split]) for split in self._splits}
