"""Which candidate is taken, by hand."""

from __future__ import annotations

from typing import Any

import pytest

from optim.common.errors import UserError
from optim.export.choice import Choice, row_text


def row(name: str, ms: float, accuracy: float, agreement: float = 1.0) -> dict[str, Any]:
    return {"name": name, "latency_p50_ms": ms, "accuracy_fraction": accuracy, "agreement_fraction": agreement,
            "examples": 200, "file_bytes": 23_120_960}  # fmt: skip


def taken(*rows: dict[str, Any], drop: float = 0.5, tie: float = 0.05) -> str:
    names = tuple(one["name"] for one in rows)
    return Choice(candidates=names, max_drop_points=drop, tie=tie).taken(rows)


def test_the_fastest_is_taken_if_it_is_accurate_enough():
    """0.5 points of 200 sentences is one sentence: 0.895 is under 0.9 by that, 0.89 by two."""
    assert taken(row("a", 4, 0.9), row("b", 3, 0.895)) == "b"
    assert taken(row("a", 4, 0.9), row("b", 3, 0.89)) == "a"
    assert taken(row("a", 4, 0.9), row("b", 3, 0.89), drop=1) == "b"
    assert taken(row("a", 4, 0.9), row("b", 3, 0.895), row("c", 2, 0.5)) == "b", "what is too wrong is no measure"


def test_of_what_is_as_fast_the_more_accurate_is_taken():
    assert taken(row("a", 4.15, 0.9), row("b", 4, 0.895)) == "a"
    assert taken(row("a", 4.25, 0.9), row("b", 4, 0.895)) == "b"
    assert taken(row("a", 4.25, 0.9), row("b", 4, 0.895), tie=0.1) == "a"
    assert taken(row("a", 4.15, 0.9), row("b", 4, 0.9, agreement=0.99)) == "a", "then what is more like the model"
    assert taken(row("a", 4.15, 0.9), row("b", 4, 0.9)) == "b", "then the faster one"


def test_a_choice_is_of_several():
    for names in ((), ("int8",), ("int8", "int8"), ("int8", "fp16", "int8")):
        with pytest.raises(UserError, match="must name two or more precisions, each once"):
            Choice(candidates=names, max_drop_points=0.5, tie=0.05)


def test_a_candidate_is_told_in_a_line():
    assert row_text(row("a", 4.149, 0.9, 0.9951)) == "4.15 ms, 0.9000 of 200 held out, agrees 99.5%, 23.12 MB"
