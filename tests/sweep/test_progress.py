"""How far a sweep is, by what its points leave; bars and tables on screens of any width."""

from __future__ import annotations

import io
import json
import os
import re
import time
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
from made_results import put

from optim.common import screen
from optim.common.stages import SUMS, Wanted
from optim.run import result
from optim.sweep.plan import Planned
from optim.sweep.progress import Progress


def stage(cache, wanted: Wanted, seconds: float) -> None:
    """Leaves a finished stage in the cache."""
    folder = cache / "stages" / wanted.key
    folder.mkdir(parents=True)
    (folder / SUMS).write_text(json.dumps({"seconds": seconds, "sums": {}, "key": {}}))


@pytest.fixture
def progress(tmp_path):
    """Three points that each lack a file, on a machine on which one file took 10 s before; and what is said."""
    cache, results, said = tmp_path / "cache", tmp_path / "results", io.StringIO()
    stage(cache, Wanted("file", {"of": "an earlier sweep"}), 10.0)
    jobs = [SimpleNamespace(cfg={"seed": 0}, choices={"model": "tiny", "quant": "int8"}, cache_dir=cache,
                            results_dir=results, overrides=["model=tiny", "distill.join=0", f"fit.student.epochs={i}"])
            for i in range(3)]  # fmt: skip
    steps = [SimpleNamespace(wanted=Wanted("file", {"of": i}), kind="file") for i in range(3)]
    points = [Planned(jobs[i], f"point{i}", False, [steps[i]]) for i in range(3)]  # pyright: ignore[reportArgumentType]
    planned = SimpleNamespace(points=points, todo=points)
    return Progress(planned, said), cache, results, said  # pyright: ignore[reportArgumentType]


def fail(folder) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / result.FILE).write_text(json.dumps({"status": result.FAILED, "error": "it broke"}))


def test_nothing_is_said_before_a_point_has_ended(progress):
    watched, _, _, said = progress
    watched.look()
    assert said.getvalue() == ""
    assert watched.state() == "point 0 of 3, about 30 s left"


def test_the_time_left_follows_the_pace_of_this_sweep(progress):
    """Two files took 10 s each, side by side, in 10 s of the clock: the third takes half of its 10 s."""
    watched, cache, results, said = progress
    (put(results, "point0", wrong=range(10), ms=1.0, mb=1.0) / "bundle").mkdir()
    for i in range(2):
        stage(cache, Wanted("file", {"of": i}), 10.0)
    watched.clock = time.perf_counter() - 10
    watched.look()
    told = r"point 1 of 3, about 5 s left: tiny-int8-s0 fit\.student\.epochs=0 0\.9000, [\d.]+ MB, [\d.]+ ms\n"
    assert re.fullmatch(told, said.getvalue()), "with the key that tells it from the others"


def test_a_failed_point_is_counted_and_nothing_is_waited_for_from_it(progress):
    watched, _, results, said = progress
    fail(results / "point1")
    watched.look()
    assert said.getvalue() == "point 1 of 3, about 20 s left, 1 failed: tiny-int8-s0 fit.student.epochs=1 failed\n"
    watched.look()
    assert len(said.getvalue().splitlines()) == 1, "a point is told of once"


def test_a_bar_counts_what_is_taken_from_it(monkeypatch):
    counted = []
    drawn = SimpleNamespace(update=counted.append)
    monkeypatch.setattr(screen, "bar", lambda *given: nullcontext(counted.append(given) or drawn))
    assert list(screen.shown("ab", "planned", "point")) == ["a", "b"]
    assert counted == [("planned", 2, "point"), 1, 1]


@pytest.mark.parametrize("by", ["KeyboardInterrupt", "Terminated"])
def test_a_point_that_was_stopped_has_not_failed(progress, by):
    watched, _, results, said = progress
    fail(results / "point1")
    file = results / "point1" / result.FILE
    file.write_text(file.read_text().replace("it broke", f"{by}: "))
    watched.look()
    assert said.getvalue() == "point 1 of 3, about 20 s left: tiny-int8-s0 fit.student.epochs=1 stopped\n"


def test_the_failure_of_an_earlier_sweep_is_not_the_end_of_a_point(progress):
    watched, _, results, said = progress
    fail(results / "point1")
    os.utime(results / "point1" / result.FILE, (watched.started - 60,) * 2)
    watched.look()
    assert said.getvalue() == ""


def test_the_last_point_is_told_of_when_the_launcher_is_done(progress):
    watched, _, results, said = progress
    with watched:
        for i in range(3):
            fail(results / f"point{i}")
    assert said.getvalue().splitlines()[-1] == "point 3 of 3, 3 failed: tiny-int8-s0 fit.student.epochs=2 failed"


def test_a_time_that_nothing_is_known_of_is_not_guessed(tmp_path, progress):
    watched, *_ = progress
    watched.cache_dir = tmp_path / "an empty cache"
    assert watched.state() == "point 0 of 3"


# ---- screens ----


def test_where_there_is_no_terminal_a_bar_is_a_line_now_and_then(monkeypatch, capsys):
    monkeypatch.setattr(screen, "LINE_S", 0.2)
    with screen.bar("student", 40) as shown:
        for _ in range(40):
            time.sleep(0.025)
            shown.update(1)
    said = capsys.readouterr().err
    assert "\r" not in said
    lines = said.splitlines()
    assert 2 <= len(lines) <= 5  # of 1 s, a line every 0.2 s at most
    assert all(re.fullmatch(r"  student: \d+ of 40 steps, 00:0\d so far, 00:0\d left", line) for line in lines)


def test_the_time_left_of_a_stage_that_goes_on_is_by_its_own_pace(monkeypatch, capsys):
    """900 of 1,000 steps were there; 10 took 100 s, so the other 90 take 900. As if all 910 had, they would take 10."""
    monkeypatch.setattr(screen, "LINE_S", 0)
    with screen.bar("teacher") as shown:
        shown.reset(total=1000)
        screen.starts_at(shown, 900)
        shown.start_t -= 100
        shown.last_print_t -= 100
        shown.update(10)
    assert "teacher: 910 of 1000 steps, 01:40 so far, 15:00 left" in capsys.readouterr().err


def test_a_short_stage_draws_no_line(capsys):
    with screen.bar("student") as shown:
        shown.reset(total=3)  # as a fit does, which draws it
        shown.update(3)
    assert capsys.readouterr().err == ""


def test_a_line_takes_the_place_of_a_bar_on_a_terminal_alone():
    stream, terminal = io.StringIO(), io.StringIO()
    terminal.isatty = lambda: True  # type: ignore[method-assign]
    screen.say_beside_bar("point 1 of 2", stream)
    screen.say_beside_bar("point 1 of 2", terminal)
    assert (stream.getvalue(), terminal.getvalue()) == ("point 1 of 2\n", "\r\x1b[Kpoint 1 of 2\n")


@pytest.mark.parametrize(
    ("columns", "shown"),
    [(None, 100), ("80", 80), ("250", 100), ("20", 60)],
)
def test_width_is_the_terminals_within_reason(columns, shown, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns:
        monkeypatch.setenv("COLUMNS", columns)
    assert screen.width() == shown


def test_a_long_cell_goes_on_below(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    name = "tiny slim=slim50 vocab=seen prune=fixed50 quant=int8 T=2 seed=1"
    assert screen.beside("*  ", name, f"{'0.9000':>20}").splitlines() == [
        "*  tiny slim=slim50 vocab=seen                        0.9000",
        "   prune=fixed50 quant=int8 T=2 seed=1",
    ]


def test_seconds_of_before_a_kill_are_no_pace(progress):
    """A stage that went on: 600 s by its record, 10 s of them in this sweep. Files are 305 s in the median."""
    watched, cache, _, _ = progress
    stage(cache, Wanted("file", {"of": 0}), 600.0)
    watched.clock = time.perf_counter() - 10
    assert watched.state() == "point 0 of 3, about 10 min left"
