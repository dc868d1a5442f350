"""`data=sst2`: a GLUE task, from the model hub or a folder of its files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optim.common import hub
from optim.common.build import method
from optim.common.errors import UserError
from optim.common.files import first_line
from optim.data.corpus import Corpus, Source, _check_max_length, _corpus, _labelled
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
        """Rows of the hub's dataset, out of the cache of `datasets` where the hub cannot be reached."""
        from datasets import config

        reachable, offline = hub.hub_reachable(), config.HF_HUB_OFFLINE
        try:
            # Told that it is offline, `datasets` reads its cache at once instead of retrying for half a minute.
            config.HF_HUB_OFFLINE = not reachable
            loaded = self._dataset(self.hub_id) if reachable else self._cached_dataset()
            return {
                "train": list(zip(loaded["train"]["sentence"], map(str, loaded["train"]["label"]), strict=True)),
                "dev": list(
                    zip(loaded["validation"]["sentence"], map(str, loaded["validation"]["label"]), strict=True)
                ),
            }
        except Exception as error:  # of `datasets`, of the hub's client and of its HTTP library
            raise UserError(self._why_not(error, reachable)) from error
        finally:
            config.HF_HUB_OFFLINE = offline

    def _dataset(self, hub_id: str):
        from datasets import load_dataset

        return load_dataset(hub_id, self.config, revision=self.revision)

    def _cached_dataset(self):
        present, former = hub.hub_names(self.hub_id)
        try:
            return self._dataset(present)
        except (OSError, ValueError):
            return self._dataset(former)

    def _why_not(self, error: Exception, reachable: bool) -> str:
        what = f"data={self.name}: {self.hub_id}/{self.config}"
        if not reachable:
            return f"{what}: {hub.why_no_hub()} and its cache lacks these data. {NO_HUB}"
        return f"{what} could not be loaded from {hub.hub_endpoint()} ({first_line(error)}). {NO_HUB}"
