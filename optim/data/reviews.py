"""`data=reviews`: movie-review snippets from a pinned archive of the package index."""

from __future__ import annotations

import hashlib
import io
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from optim.common.build import method
from optim.common.errors import UserError, require_seed
from optim.common.packages import Pin, pinned_file
from optim.data.corpus import Corpus, Sentences, _check_max_length, _corpus, _hash_order

NO_INDEX = "Use data=csv, or data=sst2 with data.path=DIR."


@method("data", "reviews")
@dataclass(frozen=True, kw_only=True)
class Reviews:
    """Movie-review snippets with the mean of 20 human ratings in [-4, 4] (Hutto & Gilbert 2014, VADER).

    `member` of `archive` of the source archive `file`, which pip downloads as `requirement`. Kept are snippets with
    |rating| > rating_above; positive if the rating is above 0. They are raw snippets of what SST was cut from: a model
    trained on them must not be scored on SST-2.
    """

    requirement: str
    file: str
    sha256: str
    archive: str
    member: str
    member_sha256: str
    rating_above: float
    dev_count: int
    split_seed: int
    max_length: int
    name = "reviews"

    def __post_init__(self) -> None:
        _check_max_length(self.max_length)
        require_seed("data.split_seed", self.split_seed)
        if self.dev_count < 1:
            raise UserError(f"data.dev_count must be at least 1, got {self.dev_count}.")

    def fingerprint(self) -> dict[str, Any]:
        """The pin of the snippets and what is made of them."""
        rule = {"rating_above": self.rating_above, "dev_count": self.dev_count, "split_seed": self.split_seed}
        return {"source": "reviews", "sha256": self.member_sha256, **rule, "max_length": self.max_length}

    def load(self, cache_dir: Path) -> Corpus:
        """The snippets; `dev_count` of them held back by a hash of their text."""
        rows = [line.split("\t") for line in self._text(cache_dir).split("\r\n") if line]
        rated = [(text, float(rating)) for _, rating, text in rows if abs(float(rating)) > self.rating_above]
        if self.dev_count >= len(rated):
            raise UserError(
                f"data.dev_count must be below {len(rated)}, all the snippets there are, got {self.dev_count}."
            )
        order = _hash_order([text for text, _ in rated], self.split_seed)
        dev, train = order[: self.dev_count], order[self.dev_count :]
        train, dev = (_reviews_of([rated[i] for i in sorted(part)]) for part in (train, dev))
        return _corpus(self.name, train, dev, ("negative", "positive"))

    def _text(self, cache_dir: Path) -> str:
        """The snippets' file, read out of two archives without unpacking or running anything."""
        outer = pinned_file(cache_dir, Pin(requirement=self.requirement, file=self.file, sha256=self.sha256), NO_INDEX)
        inner = _tar_member(outer.read_bytes(), self.archive, self.file)
        content = _tar_member(inner, self.member, self.archive)
        found = hashlib.sha256(content).hexdigest()
        if found != self.member_sha256:
            raise UserError(
                f"data=reviews: {self.member}: expected sha256 {self.member_sha256}, found {found}. {NO_INDEX}"
            )
        return content.decode("utf-8")


def _reviews_of(rated: list[tuple[str, float]]) -> Sentences:
    return Sentences([text for text, _ in rated], np.array([rating > 0 for _, rating in rated], np.int32))


def _tar_member(archive: bytes, name: str, origin: str) -> bytes:
    """The content of the one file in a .tar.gz whose path ends with /`name`."""
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
        for member in tar:
            if member.isfile() and f"/{member.name}".endswith(f"/{name}"):
                file = tar.extractfile(member)
                assert file is not None  # a regular file
                return file.read()
    raise UserError(f"data=reviews: {origin} holds no {name}. {NO_INDEX}")
