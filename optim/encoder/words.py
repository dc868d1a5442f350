"""The words that a checkpoint knows as a whole, and their embeddings."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors import safe_open

from optim.common.errors import UserError

TABLE = "embeddings.word_embeddings.weight"
# What a tokenizer leaves of aren't, couldn't, ...: no words.
STUMPS = {"aren", "couldn", "didn", "doesn", "don", "hadn", "hasn", "isn", "mustn", "needn", "shouldn", "wasn", "weren",
          "wouldn"}  # fmt: skip


def word_table(folder: Path) -> tuple[list[str], np.ndarray]:
    """(words, embeddings float32 [words, width]) of the whole words of two letters or more, in the tokenizer's order.

    folder: config.json, model.safetensors and a WordPiece tokenizer.json, in which a piece that goes on a word begins
    with `##`. Raises UserError for another kind of tokenizer, or weights without such a table.
    """
    import ml_dtypes  # noqa: F401, by which NumPy, and so safetensors, knows weights in bfloat16

    pieces = _pieces(folder / "tokenizer.json")
    whole = (word for word in pieces if len(word) > 1 and word.isalpha() and word not in STUMPS)
    words = sorted(whole, key=pieces.__getitem__)
    with safe_open(folder / "model.safetensors", framework="numpy") as file:
        names = [name for name in file.keys() if name.endswith(TABLE)]  # noqa: SIM118, it is no dictionary
        if not names:
            raise UserError(f"distill.augment: {folder} has no {TABLE} among its weights, so no word has neighbours.")
        table = np.asarray(file.get_tensor(names[0]), np.float32)
    if len(words) < 2 or max(pieces[word] for word in words) >= len(table):
        raise UserError(f"distill.augment: the tokenizer of {folder} does not fit its {len(table):,} embeddings.")
    return words, table[[pieces[word] for word in words]]


def _pieces(path: Path) -> dict[str, int]:
    """piece -> number."""
    model = json.loads(path.read_text(encoding="utf-8"))["model"]
    if model.get("type") != "WordPiece" or model.get("continuing_subword_prefix") != "##":
        kind = model.get("type")
        raise UserError(f"distill.augment needs a teacher with a WordPiece tokenizer, {path} is {kind}.")
    return model["vocab"]
