"""`data=sst2`: a GLUE task, from the model hub or a folder of its files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optim.common.build import method
from optim.data.corpus import Corpus, Source, _check_max_length, _corpus, _labelled
from optim.data.sets import hub_set, split_cells
from optim.data.tables import file_sha256, read_rows

NO_HUB = "Use data.path=DIR with train.tsv and dev.tsv of GLUE, or data=reviews, which needs no hub."


@method("data", "glue")
def glue(
    *, hub_id: str, config: str, revision: str, path: str | None, label_names: Sequence[str], max_length: int
) -> Source:
    """The GLUE task `config` (Wang et al. 2018, arXiv:1804.07461) with columns `sentence` and `label`.

    From the model hub's `hub_id` at `revision`, or from the folder `path` with GLUE's own train.tsv and dev.tsv.
    """
    _check_max_length(max_length)
    return Glue(hub_id, config, revision, None if path is None else Path(path), tuple(label_names), max_length)


@dataclass(frozen=True)
class Glue:
    """A single-sentence GLUE task."""

    hub_id: str
    config: str
    revision: str
    path: Path | None
    label_names: tuple[str, ...]
    max_length: int

    @property
    def name(self) -> str:
        """The task."""
        return self.config

    def fingerprint(self) -> dict[str, Any]:
        """The digests of the local files, or the hub's revision."""
        shared = {"source": "glue", "label_names": list(self.label_names), "max_length": self.max_length}
        if self.path is None:
            return {**shared, "hub_id": self.hub_id, "config": self.config, "revision": self.revision}
        return {
            **shared,
            "train_sha256": file_sha256(self._file("train")),
            "dev_sha256": file_sha256(self._file("dev")),
        }

    def load(self, cache_dir: Path) -> Corpus:
        """Both splits; the test split of GLUE has no labels and is left alone."""
        if self.path is None:
            splits = self._from_hub()
        else:
            splits = {split: read_rows(self._file(split), "sentence", "label") for split in ("train", "dev")}
        ids = {str(label): label for label in range(len(self.label_names))}
        train, dev = (
            _labelled(rows, ids, f"{self.name} {split}", "data.label_names") for split, rows in splits.items()
        )
        return _corpus(self.name, train, dev, self.label_names)

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

        return {"train": rows("train"), "dev": rows("validation")}
