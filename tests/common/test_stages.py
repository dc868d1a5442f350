"""A stage that is built in parts: what a kill leaves, and the seconds of all parts."""

from __future__ import annotations

import json
import os
import stat
import tempfile
import time
from pathlib import Path

import pytest

from optim.common import files
from optim.common.stages import SPENT, Wanted, stage
from optim.run.step import Stages, Step

WANTED = Wanted("some", {"what": 1})


class Killed(Exception):
    """In the place of a signal."""


def scratch_of(cache: Path) -> Path:
    return cache / "stages" / f".scratch-{WANTED.key}"


def killed(cache: Path, *, saved_at: float | None) -> None:
    """A build that ends before its time; what it saved has an age of `saved_at` seconds after its beginning."""

    def build(folder: Path, scratch: Path) -> None:
        began = json.loads((scratch / SPENT).read_text())["began"]
        if saved_at is not None:
            (scratch / "half").write_text("half")
            os.utime(scratch / "half", (began + saved_at, began + saved_at))
        raise Killed

    with pytest.raises(Killed):
        stage(cache, WANTED, build)


def finished(cache: Path) -> float:
    return stage(cache, WANTED, lambda folder, scratch: time.sleep(0.1)).seconds


def test_the_seconds_of_a_stage_are_those_of_all_its_parts(tmp_path):
    killed(tmp_path, saved_at=100.0)
    killed(tmp_path, saved_at=20.0)
    killed(tmp_path, saved_at=-5.0)  # it saved nothing that is newer
    seconds = finished(tmp_path)
    assert 120.0 < seconds < 122.0
    assert WANTED.at_hand(tmp_path) == seconds
    assert not scratch_of(tmp_path).exists()


@pytest.mark.parametrize("note", ["", "{}", "null", '{"seconds": null, "began": 0}'])
def test_a_note_that_cannot_be_read_counts_nothing(note, tmp_path):
    killed(tmp_path, saved_at=100.0)
    (scratch_of(tmp_path) / SPENT).write_text(note)
    assert 0.1 < finished(tmp_path) < 2.0


def test_a_build_that_saved_nothing_leaves_no_folder_and_no_seconds(tmp_path):
    killed(tmp_path, saved_at=None)
    assert not scratch_of(tmp_path).exists()
    assert 0.1 < finished(tmp_path) < 2.0


@pytest.mark.parametrize("mode", [0o700, 0o755, 0o775])
def test_who_may_use_the_cache_may_use_a_stage(mode, tmp_path):
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages").chmod(mode)
    folder = stage(tmp_path, Wanted("x", {}), lambda folder, scratch: (folder / "f").touch()).folder
    assert stat.S_IMODE(folder.stat().st_mode) == mode


def test_a_folder_that_is_built_in_looks_alive(tmp_path, monkeypatch):
    """Another machine takes one for left over that nobody touched for a day, and a fit writes elsewhere to its end."""
    monkeypatch.setattr(files, "ALIVE_S", 0.01)
    with files.temporary_folder(tmp_path) as folder:
        os.utime(folder, (0, 0))
        until = time.monotonic() + 20
        while folder.stat().st_mtime == 0 and time.monotonic() < until:
            time.sleep(0.01)
        assert time.time() - folder.stat().st_mtime < 60
    assert not folder.exists()


def test_temporary_files_of_a_step_go_beside_its_stage(tmp_path):
    """A whole model is among them, and the system's own place for them may be memory."""

    class Writes(Step):
        kind = "writes"

        def key(self):
            return {}

        def build(self, folder, scratch, stages):
            (folder / "where.txt").write_text(tempfile.gettempdir())
            assert tempfile.gettempdir() == str(scratch)

    before, stages = tempfile.gettempdir(), Stages(tmp_path, lambda fit, row: None)
    where = (stages.folder(Writes()) / "where.txt").read_text()
    assert Path(where).parent == tmp_path / "stages"
    assert tempfile.gettempdir() == before
