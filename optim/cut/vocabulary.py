"""`conf/vocab`: which words a model keeps. A tokenizer.json loses the others, the embedding their rows. Positions that
no sentence comes to can go as well.

WordPiece takes the longest piece that fits, so a word whose pieces are all kept is cut into the same pieces as before.
Any other word falls into shorter ones: every single character that could be spelled before is kept.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from optim.common.build import method
from optim.common.errors import UserError, require_count


class Vocabulary(Protocol):
    """What `conf/vocab` names."""

    @property
    def changes(self) -> bool:
        """False for the one that keeps every word."""
        ...

    @property
    def positions(self) -> int | None:
        """How many positions stay, from the first on; None: all."""
        ...

    def check(self, words: Words) -> None:
        """Raises UserError for what can be known without a sentence."""
        ...

    def keep(self, words: Words, counts: np.ndarray) -> list[int]:
        """The ids to keep, rising; counts: int [vocabulary], how often each stands in train."""
        ...


@method("vocab", "full")
@dataclass(frozen=True)
class Full:
    """`vocab=full`."""

    changes = False
    positions = None

    def check(self, words: Words) -> None:
        """Nothing can be wrong."""

    def keep(self, words: Words, counts: np.ndarray) -> list[int]:
        """All."""
        return list(range(len(counts)))


@method("vocab", "seen")
@dataclass(frozen=True, kw_only=True)
class Seen:
    """`vocab=seen`: what stands in train at least `minimum_count` times, and what every word can be spelled with."""

    minimum_count: int
    positions: int | None
    changes = True

    def __post_init__(self) -> None:
        require_count("vocab.minimum_count", self.minimum_count)
        _require_positions(self.positions)

    def check(self, words: Words) -> None:
        """That the tokenizer can be cut."""
        words.needed()

    def keep(self, words: Words, counts: np.ndarray) -> list[int]:
        """Those, rising."""
        return sorted(words.needed() | set(np.flatnonzero(counts >= self.minimum_count).tolist()))


@method("vocab", "top")
@dataclass(frozen=True, kw_only=True)
class Top:
    """`vocab=top`: as many as `size`; after what is needed, those that stand in train most often."""

    size: int
    positions: int | None
    changes = True

    def __post_init__(self) -> None:
        require_count("vocab.size", self.size)
        _require_positions(self.positions)

    def check(self, words: Words) -> None:
        """That what is needed fits."""
        needed = len(words.needed())
        if self.size < needed:
            raise UserError(
                f"vocab.size must be at least {needed:,}: the special tokens and the single characters of this "
                f"tokenizer, with which every word can be spelled; got {self.size:,}."
            )

    def keep(self, words: Words, counts: np.ndarray) -> list[int]:
        """Those, rising; of two that are as frequent the one with the lower id. Never one that train does not have."""
        needed = words.needed()
        order = [int(i) for i in np.argsort(-counts, kind="stable") if counts[i] and int(i) not in needed]
        return sorted(needed | set(order[: self.size - len(needed)]))


def _require_positions(positions: int | None) -> None:
    if positions is not None:
        require_count("vocab.positions", positions)


class Words:
    """A tokenizer.json of WordPiece."""

    def __init__(self, content: Mapping[str, Any], name: str) -> None:
        self.content, self.name = content, name
        model = content.get("model", {})
        if model.get("type") != "WordPiece":
            raise UserError(
                f"vocab cuts WordPiece vocabularies, {name} has {model.get('type')}. Choose vocab=full for this model."
            )
        self.ids: dict[str, int] = model["vocab"]
        self.prefix: str = model["continuing_subword_prefix"]
        self._require_specials()

    @classmethod
    def read(cls, path: Path) -> Words:
        """Of a file. Raises UserError for one that cannot be cut."""
        return cls(json.loads(path.read_text(encoding="utf-8")), str(path))

    def _require_specials(self) -> None:
        unknown = self.content["model"]["unk_token"]  # WordPiece looks for it among its own pieces alone
        added = {one["content"] for one in self._added()} - {unknown}
        if missing := sorted({unknown, *self._framing()} - set(self.ids) - added):
            raise UserError(f"vocab: {self.name} has no {', '.join(missing)} in its vocabulary, which it needs.")
        if len(self._framing()) < 2:
            raise UserError(f"vocab: {self.name} frames a sentence by no two special tokens, as [CLS] and [SEP] are.")

    def _added(self) -> Sequence[Mapping[str, Any]]:
        return self.content.get("added_tokens") or []

    def _framing(self) -> set[str]:
        """The tokens that the post-processor puts around a sentence."""
        after = self.content.get("post_processor") or {}
        pairs = {after[key][0] for key in ("cls", "sep") if key in after}
        return pairs | set(after.get("special_tokens", {}))

    def needed(self) -> set[int]:
        """Ids of the special tokens, and of the single characters that a text can bring at each place of a word."""
        kept = {self.ids[self.content["model"]["unk_token"]]}
        kept |= {one["id"] for one in self._added()} | {self.ids[name] for name in self._framing() if name in self.ids}
        return kept | {i for piece, i in self.ids.items() if self._is_met(piece)}

    def _is_met(self, piece: str) -> bool:
        """Whether a piece is one character, and some word has it there: others are split off or written otherwise."""
        inside = piece.startswith(self.prefix) and len(piece) > len(self.prefix)
        character = piece[len(self.prefix) :] if inside else piece
        if len(character) != 1:
            return False
        word = f"a{character}" if inside else character
        return self._words_of(word) == [word]

    def _words_of(self, text: str) -> list[str]:
        text = self._tokenizer.normalizer.normalize_str(text) if self._tokenizer.normalizer else text
        before = self._tokenizer.pre_tokenizer
        return [word for word, _ in before.pre_tokenize_str(text)] if before else [text]

    @cached_property
    def _tokenizer(self) -> Any:
        from tokenizers import Tokenizer

        return Tokenizer.from_str(json.dumps(self.content))

    def cut(self, kept: Sequence[int]) -> dict[str, Any]:
        """The tokenizer.json that has the pieces of `kept` alone: id kept[i] becomes i."""
        place = {old: new for new, old in enumerate(kept)}
        content = json.loads(json.dumps(self.content))
        content["model"]["vocab"] = {piece: place[i] for piece, i in self.ids.items() if i in place}
        for one in content.get("added_tokens") or []:
            one["id"] = place[one["id"]]
        after = content.get("post_processor") or {}
        for key in ("cls", "sep"):
            if key in after:
                after[key][1] = place[after[key][1]]
        for one in after.get("special_tokens", {}).values():
            one["ids"] = [place[i] for i in one["ids"]]
        if padding := content.get("padding"):
            padding["pad_id"] = place.get(padding["pad_id"], 0)
        return content
