"""Texts in a normal form: one sentence has many spellings, and is the same for all of them.

SST-2 writes `it 's` and `( ... )` where a raw snippet has `It's` and `[...]`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

WORD = re.compile(r"[^\W_]+")
NOT_TEXT = re.compile(r"-[lr][rcs]b-|&(?:amp|lt|gt|quot|nbsp|apos|#\d+);|<br ?/?>")  # brackets of a treebank, HTML


def normal_form(text: str) -> str:
    """The letters and digits of a text, lower case and without accents, its words joined by single spaces."""
    return " ".join(words_of(text))


def joined_form(text: str) -> str:
    """What is compared: the normal form without spaces, or the text itself if it has no word (`:-)`)."""
    return joined(words_of(text), text)


def words_of(text: str) -> list[str]:
    """The words of the normal form."""
    if not text.isascii():
        decomposed = unicodedata.normalize("NFKD", text)
        text = "".join(c for c in decomposed if not unicodedata.combining(c))
    return WORD.findall(NOT_TEXT.sub(" ", text.lower()))


def joined(words: Sequence[str], text: str) -> str:
    """The joined form of a text, of its words."""
    return "".join(words) or text.strip()
