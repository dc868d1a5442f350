"""The token ids of one vocabulary in another: how a teacher reads a student's tokens, piece by piece.

`[CLS] a film [SEP]` is 101 1037 2143 102 to BERT and 0 1041 2147 2 to MPNet, whose pieces are BERT's: states of both
belong to the same pieces then, and can be compared token by token. Whether they do is looked up in the sentences.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from optim.common.errors import UserError
from optim.data.tokens import Tokens, read_tokenizer


@dataclass(frozen=True)
class Alignment:
    """How a teacher reads the sentences of a fit in the student's tokens."""

    table: np.ndarray  # int32 [ids of the student]: the teacher's id of the same piece; of one it lacks, its unknown's
    same: np.ndarray  # bool [n]: whether both tokenizers cut the sentence into the same pieces

    def save(self, path: Path) -> None:
        """Writes an .npz."""
        np.savez(path, table=self.table, same=self.same)

    @staticmethod
    def load(path: Path) -> Alignment:
        """What `save` wrote."""
        with np.load(path, allow_pickle=False) as arrays:
            return Alignment(arrays["table"], arrays["same"])


@dataclass(frozen=True)
class Vocabulary:
    """The pieces of a tokenizer and the ids of its special tokens by their roles."""

    pieces: dict[str, int]
    first: int | None  # put before a sentence: [CLS], <s>
    last: int | None  # put behind it: [SEP], </s>
    unknown: int | None  # of what has no piece


def read_vocabulary(path: Path) -> Vocabulary:
    """The vocabulary of a tokenizer.json. Raises UserError for a file that is none."""
    tokenizer = read_tokenizer(path)
    tokenizer.no_padding()
    around, unknown = tokenizer.encode("").ids, json.loads(path.read_text(encoding="utf-8"))["model"].get("unk_token")
    pieces = tokenizer.get_vocab(with_added_tokens=True)
    first, last = (around[0], around[-1]) if len(around) == 2 else (None, None)
    return Vocabulary(pieces, first, last, None if unknown is None else pieces.get(unknown))


def require_special_tokens(path: Path, *, framed: bool) -> None:
    """Raises UserError for a tokenizer.json that lacks a token which it makes itself.

    That is the one for the unknown, which words and their pieces look for among their own alone (no other kind makes it
    of every strange letter), and those around a sentence. framed: two of these are needed, as the classifier reads the
    first.
    """
    tokenizer = read_tokenizer(path)
    tokenizer.no_padding()
    model = json.loads(path.read_text(encoding="utf-8"))["model"]
    unknown = model.get("unk_token") if model.get("type") in ("WordPiece", "WordLevel") else None
    own, pieces = tokenizer.get_vocab(with_added_tokens=False), tokenizer.get_vocab(with_added_tokens=True)
    around = tokenizer.encode("").tokens
    missing = [unknown] if unknown is not None and unknown not in own else []
    missing += [token for token in dict.fromkeys(around) if token not in pieces]
    fix = "Save it anew by tokenizer.save_pretrained of the model's own tokenizer."
    if missing:
        raise UserError(f"model: {path} has no {', '.join(missing)} in its vocabulary, which it needs. {fix}")
    if framed and len(around) != 2:
        raise UserError(
            f"model: {path} puts {len(around)} tokens around a sentence, and this model reads [CLS] and [SEP] "
            f"there. {fix}"
        )


def id_table(own: Vocabulary, other: Vocabulary) -> np.ndarray:
    """int32 [ids of `own`]: the id in `other` of the same piece, -1 for none.

    The tokens around a sentence and the one for the unknown go by their roles, whatever they are called: MPNet's
    vocabulary holds a piece `[CLS]` too, which its tokenizer never makes.
    """
    table = np.full(max(own.pieces.values()) + 1, -1, np.int32)
    for piece, number in own.pieces.items():
        table[number] = other.pieces.get(piece, -1)
    for role in ("first", "last", "unknown"):
        one, its = getattr(own, role), getattr(other, role)
        if one is not None:
            table[one] = -1 if its is None else its
    return table


def same_pieces(table: np.ndarray, own: Tokens, other: Tokens) -> np.ndarray:
    """bool [n]: whether the ids of a sentence, looked up in `table`, are those that the other tokenizer gives it."""
    same = own.lengths == other.lengths
    rows = np.flatnonzero(same)
    mine, theirs = own.take(rows), other.take(rows)
    differs = table[mine.ids] != theirs.ids
    same[rows] = np.bincount(np.repeat(np.arange(len(rows)), mine.lengths), differs, minlength=len(rows)) == 0
    return same


def aligned(own: Vocabulary, other: Vocabulary, tokens: Tokens, others: Tokens) -> Alignment:
    """How sentences in the tokens of `own` are read by a model that knows `other`; `others` are its own tokens."""
    table = id_table(own, other)
    same = same_pieces(table, tokens, others)
    return Alignment(np.where(table < 0, other.unknown or 0, table).astype(np.int32), same)
