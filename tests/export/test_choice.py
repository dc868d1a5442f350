"""Which candidate is taken, by hand."""

from __future__ import annotations

from typing import Any

import pytest

from optim.common.errors import UserError
from optim.export.choice import Choice, row_text


def row(name: str, ms: float, drop: float, agreement: float = 1.0) -> dict[str, Any]:
    return {"name": name, "latency_p50_ms": ms, "drop_points": drop, "agreement_fraction": agreement,
            "accuracy_fraction": 0.9 - drop / 100, "examples": 200, "file_bytes": 23_120_960}  # fmt: skip


def taken(*rows: dict[str, Any], drop: float = 0.5, tie: float = 0.05) -> str:
    names = tuple(one["name"] for one in rows)
    return Choice(candidates=names, max_drop_points=drop, tie=tie).taken(rows)


def test_the_fastest_is_taken_if_it_is_accurate_enough():
    """0.5 points of 200 sentences is one sentence."""
    assert taken(row("a", 4, 0), row("b", 3, 0.5)) == "b"
    assert taken(row("a", 4, 0), row("b", 3, 1)) == "a"
    assert taken(row("a", 4, 0), row("b", 3, 1), drop=1) == "b"
    assert taken(row("a", 4, 0), row("b", 3, 0.5), row("c", 2, 40)) == "b"
    assert taken(row("a", 4, 0.3), row("b", 3, 0.6)) == "a", "the model is what both are below, not the best of them"
    assert taken(row("a", 4, 2), row("b", 3, 2.5), row("c", 2, 3)) == "b", "where all are below, the best one counts"


def test_to_be_better_than_the_model_is_luck():
    """`a` has two sentences more right than the model, `b` one less: both would ship what the model learnt."""
    assert taken(row("a", 4, -1, agreement=0.98), row("b", 3, 0.5)) == "b"


def test_of_what_is_as_fast_that_most_like_the_model_is_taken():
    assert taken(row("a", 4.15, 0.5), row("b", 4, 0, agreement=0.99)) == "a"
    assert taken(row("a", 4.25, 0.5), row("b", 4, 0, agreement=0.99)) == "b"
    assert taken(row("a", 4.25, 0.5), row("b", 4, 0, agreement=0.99), tie=0.1) == "a"
    assert taken(row("a", 4.15, 0), row("b", 4, 0)) == "b", "then the faster one"


def test_a_choice_is_of_several():
    for names in ((), ("int8",), ("int8", "int8"), ("int8", "fp16", "int8")):
        with pytest.raises(UserError, match="must name two or more precisions, each once"):
            Choice(candidates=names, max_drop_points=0.5, tie=0.05)


def test_a_candidate_is_told_in_a_line():
    assert row_text(row("a", 4.149, 0, 0.9951)) == "4.15 ms, 0.9000 of 200 held out, agrees 99.5%, 23.12 MB"
