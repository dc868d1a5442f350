"""The SQLite index of every result: written at once by several, and when it can't be written."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from made_results import put

from optim.report import index


def rows(path: Path) -> list[tuple]:
    """The ids in an index."""
    with sqlite3.connect(path) as database:
        return database.execute("select run_id from points order by run_id").fetchall()


@pytest.mark.parametrize("whole", [False, True], ids=["before the first fills its own", "before it is put in place"])
def test_another_index_written_meanwhile_breaks_neither(whole, tmp_path, monkeypatch):
    """As when two sweeps end together: the second begins and ends while the first is at its own."""
    put(tmp_path, "a", wrong=range(5), ms=8, mb=80)
    connect, others = sqlite3.connect, []

    def other() -> None:
        if not others:
            others.append("begun")
            others.append(rows(index.write_index(tmp_path)))

    class Meanwhile(sqlite3.Connection):
        def close(self) -> None:
            super().close()
            if whole:
                other()

    def connected(path: Path) -> sqlite3.Connection:
        database = connect(path, factory=Meanwhile)
        if not whole:
            other()
        return database

    monkeypatch.setattr(index.sqlite3, "connect", connected)
    assert rows(index.write_index(tmp_path)) == [("a",)]
    assert others == ["begun", [("a",)]]
    assert {path.name for path in tmp_path.iterdir()} == {"a", "index.sqlite"}


def test_an_index_that_cannot_be_written_leaves_the_old_one_and_nothing_beside_it(tmp_path, monkeypatch):
    put(tmp_path, "a", wrong=range(5), ms=8, mb=80)
    index.write_index(tmp_path)
    put(tmp_path, "b", wrong=range(5), ms=8, mb=80)
    monkeypatch.setattr(index.json, "dumps", lambda value: object())  # no value of SQLite's
    with pytest.raises(sqlite3.Error):
        index.write_index(tmp_path)
    assert rows(tmp_path / "index.sqlite") == [("a",)]
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b", "index.sqlite"}
