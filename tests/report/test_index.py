"""The SQLite index of every result: written at once by several, and when it can't be written."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from made_results import put
from omegaconf import OmegaConf

from optim.report import index, wandb_report
from optim.sweep import verbs


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


@pytest.mark.parametrize("machine", [None, "0badcafe"], ids=["this machine", "another"])
def test_a_comparison_leaves_the_index_and_tells_wandb_unless_it_is_of_another_machine(machine, tmp_path, monkeypatch):
    """As sweep=report and the end of a search do it; of another machine's figures neither is written."""
    put(tmp_path, "a", wrong=range(5), ms=8, mb=80, machine="0badcafe")
    told = []
    monkeypatch.setattr(verbs, "_track", lambda settings: OmegaConf.create({}))
    monkeypatch.setattr(wandb_report, "save", lambda shown, folder, place: told.append(folder))
    settings: Any = SimpleNamespace(results_dir=tmp_path, machine=machine)
    verbs.compare_all(settings, "search", group="search-1")
    assert (tmp_path / "search" / "report.md").is_file()
    assert told == ([] if machine else [tmp_path / "search"])
    assert (tmp_path / "index.sqlite").is_file() == (machine is None)
