"""Which of the scored sentences stand in texts that are to be learnt from."""

from __future__ import annotations

import re
from collections.abc import Iterable

from optim.common.errors import UserError


def normal_form(text: str) -> str:
    """Lower-case letters and digits alone, joined by single blanks: two texts of one form are one sentence."""
    return re.sub(r"[\W_]+", " ", text.lower()).strip()


def require_unseen(dev_texts: Iterable[str], texts: Iterable[str], setting: str) -> None:
    """Raises UserError, naming the setting, if one of `texts` is a sentence of dev."""
    scored = {normal_form(text) for text in dev_texts}
    seen = [text for text in texts if normal_form(text) in scored]
    if seen:
        raise UserError(
            f"{setting} holds {len(seen):,} sentences that are scored (dev), the first: {seen[0][:80]!r}. "
            "Nothing may be learnt from those: take them out."
        )
