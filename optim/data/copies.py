"""Copies of one text, which are held out, or held back, together: what is learnt by heart measures nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from typing import TypeVar

import numpy as np

from optim.data.spelling import joined_form

Group = TypeVar("Group", bound=Hashable)


def copies_of(texts: Sequence[str]) -> np.ndarray | None:
    """int [n]: texts of one number are the same but for case, spaces and marks. None where no two are."""
    forms = [joined_form(text) for text in texts]
    numbers = {form: number for number, form in enumerate(dict.fromkeys(forms))}
    return np.array([numbers[form] for form in forms]) if len(numbers) < len(forms) else None


def drawn(groups: Iterable[Group], count: int) -> list[Group]:
    """The first of the groups, one for each row and in its order, that come to `count` rows and no more.

    A group with more rows than are still to be drawn is passed over. If nothing else can be drawn it is the smallest.
    """
    rows, found, left = Counter(groups), [], count
    for group, size in rows.items():  # in the order of their first rows
        if size <= left:
            found.append(group)
            left -= size
    return found or ([min(rows, key=rows.__getitem__)] if count else [])
