"""Which points are better, and which only look so: by hand, on results small enough to count."""

# ruff: noqa: E501
from __future__ import annotations

import json
import re
import shutil
import sqlite3
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from conftest import CONF
from made_results import finished_point, points, put

from optim.common.errors import UserError
from optim.report import (
    compare,
    comparison,
    figures,
    finished,
    index,
    libraries,
    markdown,
    page,
    seeds,
    tables,
    timing,
    write,
)
from optim.report.compare import Rule
from optim.report.difference import Spread
from optim.report.effects import effects
from optim.report.finished import Finished
from optim.report.seeds import pooled
from optim.run import card, result
from optim.run.result import Result
from optim.run.younger import BEFORE
from optim.sweep import pick
from optim.sweep.pick import Budget


def front(some: list[Finished], costs: Sequence[str] = compare.COSTS) -> list[bool]:
    return compare.front(pooled(some), Rule.of(some), costs)


def certain(some: list[Finished]) -> list[bool]:
    return compare.certain(pooled(some), Rule.of(some))


def test_the_front_and_what_is_certain(tmp_path):
    put(tmp_path, "big", wrong=range(0, 2), ms=10, mb=90)
    put(tmp_path, "small", wrong=range(0, 20), ms=2, mb=10)  # surely worse than big: 18 sentences to none
    put(tmp_path, "lucky", wrong=range(0, 19), ms=3, mb=12)  # a sentence above small, and dearer
    put(tmp_path, "beaten", wrong=range(0, 25), ms=5, mb=20)
    found = points(tmp_path)
    some = [found[name] for name in ("big", "small", "lucky", "beaten")]
    assert front(some) == [True, True, True, False]
    assert certain(some) == [True, False, False, False], "small has no rival, and has shown nothing"
    assert front(some, ["file_bytes"]) == [True, True, True, False]


def test_neighbours_of_a_front_are_tested_against_each_other(tmp_path):
    """c has one sentence more right than b (p = 1), b ten more than a (p = 2 / 2^10, doubled by Holm); d is on no front."""
    put(tmp_path, "a", wrong=range(16), ms=1, mb=10)
    put(tmp_path, "b", wrong=range(6), ms=2, mb=40, quant="fp16")
    put(tmp_path, "c", wrong=range(5), ms=8, mb=80, quant="int8")
    put(tmp_path, "d", wrong=range(20), ms=9, mb=90, prune="fixed50")
    put(tmp_path, "e", wrong=range(6), ms=2, mb=41, prune="fixed80", quant="fp16")  # as fast and as good as b
    every = list(points(tmp_path).values())
    first, second = compare.steps(pooled(every), Rule.of(every), "latency_p50_ms")
    assert [s.cheaper.points[0].result.run_id for s in (first, second)] == ["a", "b"]
    assert (first.accuracy_points, first.cost_ratio, first.p) == pytest.approx((10, 2, 4 / 1024))
    assert (second.dearer.points[0].result.run_id, second.p) == ("c", 1.0)
    text = markdown.to_markdown(comparison.compared([tmp_path]))
    latency, size = (
        next(line for line in text.splitlines() if line.startswith(f"| {name} |")) for name in ("latency", "size")
    )
    assert latency.startswith(
        "| latency | tiny prune=none quant=none T=2 | tiny prune=none quant=fp16 T=2 | 2.00x | +10.00 (+"
    )
    assert size.startswith(
        "| size | tiny prune=none quant=none T=2 | tiny prune=none quant=fp16 T=2 | 4.00x | +10.00 (+"
    )
    assert latency.endswith(" | 0.004 |")
    start = "| size | tiny prune=none quant=fp16 T=2 | tiny prune=none quant=int8 T=2 | 2.00x | +1.00 ("
    assert [line.endswith(" | 1.000 |") for line in text.splitlines() if line.startswith(start)] == [True]
    assert "<h2>Along the fronts</h2>" in page.to_html(comparison.compared([tmp_path]), tmp_path)


def test_equal_points_are_both_on_the_front(tmp_path):
    put(tmp_path, "a", wrong=range(5), ms=1, mb=1)
    put(tmp_path, "b", wrong=range(5), ms=1, mb=1)
    assert front(list(points(tmp_path).values())) == [True, True]


def test_a_latency_within_the_noise_of_timing_makes_nothing_certain(tmp_path):
    """`best` beats what is cheaper for sure. `twin` is as good and 5 % slower: a rival once a graph took 10 and 11.4 ms."""
    put(tmp_path, "best", wrong=range(5), ms=10, mb=10)
    put(tmp_path, "fast", wrong=range(19), ms=9, mb=10)
    put(tmp_path, "twin", wrong=range(5), ms=10.5, mb=10)
    some = list(points(tmp_path).values())
    assert (timing.timing_noise(some), certain(some), front(some)) == (0.0, [True, False, False], [True, True, False])
    put(tmp_path, "later", wrong=range(50), ms=40, mb=40, float32_ms=11.4)
    some = list(points(tmp_path).values())
    assert timing.timing_noise(some) == pytest.approx(0.14)
    assert certain(some) == [False] * 4
    put(tmp_path, "elsewhere", wrong=range(50), ms=40, mb=40, float32_ms=99.0, machine="m2")
    assert timing.timing_noise(list(points(tmp_path).values())) == pytest.approx(0.14), "another machine is no noise"


def test_a_file_of_twice_the_bytes_is_not_on_the_front_for_a_latency_within_noise(tmp_path):
    """As good as `small` and 0.16 ms faster, where one graph was timed 5 % apart: a tie, so bytes decide."""
    put(tmp_path, "small", wrong=range(5), ms=8.16, mb=20)
    put(tmp_path, "large", wrong=range(5), ms=8.0, mb=40, float32_ms=10.5)
    assert front(list(points(tmp_path).values())) == [False, True], "large, small"
    put(tmp_path, "packed", wrong=range(5), ms=8.0, mb=20.1)
    assert len(front(list(points(tmp_path).values()))) == 3
    assert front(list(points(tmp_path).values())) == [False, True, True], "sizes within 1 % are ties too"


def test_a_noisy_latency_is_marked_and_decides_nothing(tmp_path):
    """One call in ten took twice as long; the float32 file of another took 47 ms, where those of its graph take 20."""
    put(tmp_path, "calm", wrong=range(5), ms=10, mb=20, float32_ms=20.0)
    put(tmp_path, "same", wrong=range(6), ms=10, mb=21, float32_ms=20.4)
    put(tmp_path, "unsteady", wrong=range(5), ms=4, mb=40, p90_ms=8, float32_ms=20.0)
    put(tmp_path, "strayed", wrong=range(5), ms=1, mb=40, float32_ms=47.0)
    found = comparison.compared([tmp_path])
    assert {p.result.run_id: flag for p, flag in zip(found.points, found.noisy, strict=True)} == {
        "calm": False, "same": False, "unsteady": True, "strayed": True,
    }  # fmt: skip
    assert found.rule.latency_tie == pytest.approx(0.02), "what is noisy does not widen the ties of the others"
    on_front = {p.result.run_id for p, flag in zip(found.points, found.front, strict=True) if flag}
    assert on_front == {"calm"}, "neither is on the front for being fast"
    text = markdown.to_markdown(found)
    assert "| 1.00 ? |" in text
    assert "Latencies of 2 of 4 files are noisy" in text
    assert "? noisy timing" in tables.screen_table(found)


def of_seeds(prune: str, *wrong: int, of: int) -> list[Finished]:
    """A point for each seed, wrong on the first of its sentences."""
    return [finished_point(f"{prune}{seed}", np.arange(of) >= count, np.ones(of, bool), prune=prune, seed=seed,
                           student=f"{prune}{seed}") for seed, count in enumerate(wrong)]  # fmt: skip


def test_nothing_is_certain_that_another_seed_would_turn():
    """Two seeds of three are right on all that the other choice never is: 2/3 gained, with an error of 1/3 by the seeds.

    (Variance 1/3 of a fit and 0 of the other's, 1/6 for both, times six of (1/3)².) t is 2, with 4 degrees of freedom.
    """
    base = of_seeds("none", 100, 100, 100, of=100)
    assert certain([*of_seeds("fixed50", 0, 0, 100, of=100), *base]) == [False, False]
    assert certain([*of_seeds("fixed50", 33, 33, 34, of=100), *base]) == [True, False]


def test_an_effect_has_the_spread_of_its_seeds_by_hand():
    """2/3 of four sentences gained; with one more gained and one lost 4/9, variance 7/81 over sentences, 9/81 over fits.

    See `test_another_seed_of_either_is_in_the_interval_by_hand`: t is 1, with 8.52 degrees of freedom.
    """
    (effect,) = effects([*of_seeds("none", 4, 4, 4, of=4), *of_seeds("fixed50", 0, 0, 4, of=4)])
    assert (effect.factor, effect.base, effect.option, effect.seeds) == ("prune", "none", "fixed50", 3)
    assert effect.found.points == pytest.approx(200 / 3)
    ends = 400 / 9 * (1 - 2.2815), 400 / 9 * (1 + 2.2815)
    assert (effect.found.low, effect.found.high) == pytest.approx(ends, rel=1e-3)
    assert effect.p == pytest.approx(0.345, abs=1e-3)


@pytest.mark.parametrize(("lost", "shown"), [(6, []), (20, ["fixed50", "poly80"])])
def test_what_an_effect_depends_on_is_corrected_for_all_that_was_tried(lost, shown):
    """T from 1 to 4 loses nothing under fixed50, and six sentences of 100 under poly80: p 0.03, one of four tests."""
    wrong = {("fixed50", 1.0): 10, ("fixed50", 4.0): 10, ("poly80", 1.0): 10, ("poly80", 4.0): 10 + lost}
    some = [finished_point(f"{prune}{t:g}x", np.arange(100) >= count, np.ones(100, bool), prune=prune, temperature=t,
                           student=f"{prune}{t:g}") for (prune, t), count in wrong.items()]  # fmt: skip
    by = {effect.factor: effect for effect in effects(some)}
    assert set(by) == {"prune", "distill.temperature"}
    assert [under.value for under in by["distill.temperature"].interactions] == shown


def test_an_effect_that_depends_on_another_option_is_shown_under_it(tmp_path):
    """T from 1 to 4 gains 1 point under fixed50 and loses 30 under poly80: the mean, -14.5, is true of neither."""
    for prune, wrong in (("fixed50", (10, 9)), ("poly80", (15, 45))):
        for t, count in zip((1.0, 4.0), wrong, strict=True):
            put(tmp_path, f"{prune}{t:g}x", wrong=range(count), ms=8, mb=80, prune=prune, temperature=t,
                student=f"{prune}{t:g}")  # fmt: skip
    put(tmp_path, "none", wrong=range(9), ms=8, mb=80)
    effect = next(e for e in comparison.compared([tmp_path]).effects if e.factor == "distill.temperature")
    assert effect.found.points == pytest.approx(-14.5)
    assert [(u.factor, u.value, round(u.found.points, 6)) for u in effect.interactions] == [
        ("prune", "fixed50", 1.0), ("prune", "poly80", -30.0),
    ]  # fmt: skip
    text = markdown.to_markdown(comparison.compared([tmp_path]))
    assert "| ... under prune=poly80 |  |  | -30.00 (" in text


def test_a_seed_is_no_effect(tmp_path):
    for seed in range(3):
        put(tmp_path, f"a{seed}", wrong=range(5 + seed), ms=1, mb=1, seed=seed, student=f"a{seed}")
        put(tmp_path, f"b{seed}", wrong=range(9 + seed), ms=1, mb=1, seed=seed, quant="int8", student=f"a{seed}")
    (effect,) = comparison.compared([tmp_path]).effects
    assert (effect.factor, effect.files, effect.seeds) == ("quant", 3, 3)
    assert effect.found.points == pytest.approx(-4)


def test_points_that_are_one_file_count_once(tmp_path):
    """Without pruning a temperature changes nothing: one row, and no pair for its effect."""
    for t in (1.0, 4.0):
        put(tmp_path, f"none{t}", wrong=range(5), ms=8, mb=80, temperature=t, file="same")
    put(tmp_path, "pruned1", wrong=range(10), ms=8, mb=80, prune="fixed50", temperature=1.0)
    put(tmp_path, "pruned4", wrong=range(12), ms=8, mb=80, prune="fixed50", temperature=4.0)
    found = comparison.compared([tmp_path])
    assert [len(found.every_point), len(found.points)] == [4, 3]
    by = {e.factor: e for e in found.effects}
    assert (by["distill.temperature"].files, by["distill.temperature"].found.points) == (1, pytest.approx(-2))
    assert (by["prune"].files, by["prune"].found.points) == (2, pytest.approx(-6))
    assert len(index.to_csv(found).splitlines()) == 5
    assert "4 points are 3 files" in markdown.to_markdown(found)
    first, second = pick.pick(found.every_point, Budget(file_mb=None, latency_ms=None, drop_points=None))
    assert second
    assert first.file != second.file


def test_effects_are_taken_over_pairs_that_differ_in_nothing_else(tmp_path):
    """fp16 against none: -1 point unpruned, -3 pruned; so -2 on average, half the bytes.

    Half a sentence lost on four of 100; with one more gained and one lost: mean -2 / 102, squares 3; t(101) = 1.984.
    """
    put(tmp_path, "a", wrong=range(5), ms=8, mb=80, prune="none", quant="none")
    put(tmp_path, "b", wrong=range(6), ms=4, mb=40, prune="none", quant="fp16")
    put(tmp_path, "c", wrong=range(7), ms=8, mb=80, prune="fixed50", quant="none")
    put(tmp_path, "d", wrong=range(10), ms=2, mb=40, prune="fixed50", quant="fp16")
    put(tmp_path, "e", wrong=range(50), ms=2, mb=20, prune="fixed50", quant="int8")  # no pair without pruning
    by = {(e.factor, e.option): e for e in effects(list(points(tmp_path).values()))}
    quant = by["quant", "fp16"]
    assert (quant.base, quant.files) == ("none", 2)
    assert quant.found.points == pytest.approx(-2)
    half = 198.373 * np.sqrt((3 - 102 * (2 / 102) ** 2) / 101 / 102)
    assert (quant.found.low, quant.found.high) == pytest.approx((-200 / 102 - half, -200 / 102 + half), rel=1e-4)
    assert quant.bytes_ratio == pytest.approx(0.5)
    assert quant.latency_ratio == pytest.approx(np.sqrt(0.5 * 0.25))
    assert by["quant", "int8"].files == 1
    assert by["prune", "fixed50"].found.points == pytest.approx((-2 - 4) / 2)


def test_an_effect_starts_from_the_smallest_number(tmp_path):
    """Of T = 2 and T = 10 the base is 2: as texts 10 would stand first, and the sign would be the other one."""
    put(tmp_path, "a1", wrong=range(5), ms=8, mb=80, temperature=2)
    put(tmp_path, "a2", wrong=range(9), ms=8, mb=80, temperature=10)
    (effect,) = [one for one in effects(list(points(tmp_path).values())) if one.factor == "distill.temperature"]
    assert (effect.base, effect.option) == ("2", "10")
    assert effect.found.points == pytest.approx(-4)


def test_latencies_of_two_machines_are_never_divided(tmp_path):
    put(tmp_path, "a", wrong=range(5), ms=8, mb=80, quant="none", machine="m1")
    put(tmp_path, "b", wrong=range(5), ms=4, mb=40, quant="fp16", machine="m2")
    effect = effects(list(points(tmp_path).values()))[0]
    assert np.isnan(effect.latency_ratio)
    text = markdown.to_markdown(comparison.compared([tmp_path]))
    assert "Latencies come from several machines" in text


def test_an_effect_takes_the_pairs_of_one_data_set():
    """int8 loses 2 points on 100 sentences, fitted long, and 10 on 50 others, fitted short: these can't be subtracted."""
    some = [at("a", 0, of=100), at("b", 2, of=100, quant="int8"), at("c", 0, of=50), at("d", 5, of=50, quant="int8")]
    for point in some[2:]:
        point.result.choices.update(data="reviews", fit="quick")
        point.result.data["digest"] = "other"
    (effect,) = [e for e in effects(some) if e.factor == "quant"]
    assert (effect.found.points, effect.files) == (pytest.approx(-2), 1)


@pytest.mark.parametrize(("key", "value", "told"), [("sequence_length", 32, "lengths"), ("threads", 2, "threads")])
def test_latencies_of_other_lengths_or_threads_are_never_compared(tmp_path, key, value, told):
    """Equals, one of which was timed on less: neither is faster, and both are on the front."""
    put(tmp_path, "a", wrong=range(5), ms=20, mb=80, quant="none")
    folder = put(tmp_path, "b", wrong=range(5), ms=4, mb=80, quant="fp16")
    read = json.loads((folder / "result.json").read_text())
    read["speed"][key] = value
    (folder / "result.json").write_text(json.dumps(read))
    found = comparison.compared([tmp_path])
    assert found.front == [True, True]
    assert np.isnan(found.effects[0].latency_ratio)
    assert f"Latencies come from several {'numbers of ' * (key == 'threads')}{told}" in markdown.to_markdown(found)
    assert f"Their latencies come from different {'lengths or threads'}" in pick.answer(found.points, budget())


def test_memory_of_two_machines_is_never_compared(tmp_path):
    put(tmp_path, "a", wrong=range(5), ms=8, mb=80, machine="m1")
    folder = put(tmp_path, "b", wrong=range(7), ms=8, mb=80, quant="fp16", machine="m2")
    read = json.loads((folder / "result.json").read_text())
    read["memory"]["peak_rss_bytes"] = 2
    (folder / "result.json").write_text(json.dumps(read))
    assert comparison.compared([tmp_path]).front_of(["peak_rss_bytes"]) == [True, True]
    read["machine"]["id"] = "m1"
    (folder / "result.json").write_text(json.dumps(read))
    assert comparison.compared([tmp_path]).front_of(["peak_rss_bytes"]) == [True, False]


def test_points_of_two_data_sets_are_told_apart_and_never_compared(tmp_path):
    """The worse file has other sentences: it is on a front of its own, and is picked on its own."""
    put(tmp_path, "a", wrong=range(5), ms=4, mb=40)
    folder = put(tmp_path, "b", wrong=range(30), ms=8, mb=80)
    read = json.loads((folder / "result.json").read_text())
    read["choices"]["data"] = "reviews"
    read["data"] |= {"digest": "other", "name": "reviews"}
    (folder / "result.json").write_text(json.dumps(read))
    found = comparison.compared([tmp_path])
    assert found.front == [True, True]
    assert found.names == ["tiny prune=none quant=none T=2 data=sst2", "tiny prune=none quant=none T=2 data=reviews"]
    said = "Points of 2 data sets (sst2, 100 sentences; reviews, 100 sentences)"
    assert said in markdown.to_markdown(found)
    assert found.headline().count("On sst2, 100 sentences: Teacher tiny") == 1
    assert found.headline().count("On reviews, 100 sentences: No file") == 1
    picked = pick.answer(found.points, budget())
    assert re.findall(r"^(?:On|Best).*?[:,]", picked, re.MULTILINE) == ["On sst2,", "Best:", "On reviews,", "Best:"]
    assert pick.answer(found.points, budget(file_mb=50)).count("Best") == 1
    assert [p.result.run_id for p in pick.on_same_data(tmp_path, ["b", "gone"])] == ["b"]


def test_a_label_says_what_else_differs_between_the_points(tmp_path):
    """Two keys that end alike have their group before them; what all have is left out."""
    for name, words in {
        "a": "",
        "b": "distill.teacher=mpnet",
        "c": "fit.student.epochs=3",
        "d": "fit.teacher.epochs=3",
    }.items():
        folder = put(tmp_path, name, wrong=range(5), ms=4, mb=40, seed=int(name == "b"))
        read = json.loads((folder / "result.json").read_text())
        read["command"] += f" {words} distill.weight=1"
        read["cfg"] |= {
            "fit": {"student": {"epochs": 1 + 2 * (name == "c")}, "teacher": {"epochs": 1 + 2 * (name == "d")}}
        }
        read["cfg"]["distill"] |= {"teacher": "mpnet" if name == "b" else "same", "weight": 1}
        (folder / "result.json").write_text(json.dumps(read))
    same = "tiny prune=none quant=none T=2"
    assert set(comparison.compared([tmp_path]).names) == {
        same, f"{same} teacher=mpnet seed=1", f"{same} student.epochs=3", f"{same} teacher.epochs=3"
    }  # fmt: skip


def at(run_id: str, wrong: int, *, of: int, quant: str = "none") -> finished.Finished:
    """A point that is wrong on the first of its sentences."""
    right = np.arange(of) >= wrong
    return finished_point(run_id, right, right, quant=quant, student=f"fit{of}")


def test_seeds_are_pooled(tmp_path):
    for seed, errors in enumerate((4, 6, 8)):
        put(tmp_path, f"s{seed}", wrong=range(errors), ms=1, mb=1, seed=seed)
    put(tmp_path, "other", wrong=range(1), ms=1, mb=1, quant="int8")
    groups = {tuple(g.seeds): g for g in pooled(list(points(tmp_path).values()))}
    assert groups[0, 1, 2].mean == pytest.approx(0.94)
    assert groups[0, 1, 2].spread == pytest.approx(0.02)
    assert len(groups) == 2


YOUNGER_KEYS = [(f"{at}.{key}", value) for at, keys in BEFORE.items() for key, value in keys.items()]


def set_in(point: Finished, place: str, value: object) -> Finished:
    """The point, in whose config the key at a dotted place has this value."""
    *groups, key = place.split(".")
    at = point.result.cfg
    for group in groups:
        at = at.setdefault(group, {})
    at[key] = value
    return point


@pytest.mark.parametrize(("place", "before"), YOUNGER_KEYS)
def test_a_key_that_is_younger_than_a_result_parts_it_from_no_other(place, before):
    """It means what was done before there was the key: seeds are one choice, and options a pair."""

    def made(run_id: str, **more) -> Finished:
        right, group = np.arange(100) >= 9, place.rpartition(".")[0]
        return set_in(finished_point(run_id, right, right, **more), f"{group}.older", 1)

    old, one, other = made("a0", student="0"), *(made("a1", seed=1, student="1") for _ in range(2))
    assert [group.seeds for group in pooled([old, set_in(one, place, before)])] == [[0, 1]]
    assert [group.seeds for group in pooled([old, set_in(other, place, "another")])] == [[0], [1]]
    same, apart = (made("b0", prune="fixed50", student="2") for _ in range(2))
    assert [effect.files for effect in effects([old, set_in(same, place, before)])] == [1]
    assert effects([old, set_in(apart, place, "another")]) == []


def test_what_is_no_result_is_named_and_left_out(tmp_path):
    put(tmp_path, "good", wrong=range(5), ms=1, mb=1)
    put(tmp_path, "bad", wrong=range(5), ms=1, mb=1, status=result.FAILED)
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / result.FILE).write_text('{"accuracy": 1}')
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / result.FILE).write_text('{"schema": 2, "run')
    done, failed, left_out = finished.read_all([tmp_path])
    assert [p.result.run_id for p in done] == ["good"]
    assert [r.run_id for r in failed] == ["bad"]
    assert len(left_out) == 2
    assert all("is left out" in line and "\n" not in line for line in left_out)


def test_of_twins_that_differ_the_first_counts_and_the_other_is_named(tmp_path):
    """As two machines of one kind make them: no reason to refuse a comparison of everything else."""
    put(tmp_path / "one", "same", wrong=range(5), ms=1, mb=1)
    put(tmp_path / "two", "same", wrong=range(5), ms=1, mb=1)
    done, _, left_out = finished.read_all([tmp_path])
    assert (len(done), left_out) == (1, []), "a copy is one point"
    put(tmp_path / "up", "same", wrong=range(9), ms=1, mb=1)
    done, _, left_out = finished.read_all([tmp_path])
    assert [point.accuracy for point in done] == [0.95]
    [line] = left_out
    assert line.startswith(f"{tmp_path / 'up' / 'same' / result.FILE} is left out: {tmp_path / 'one'}")


def test_the_hub_is_no_option_of_a_model(tmp_path):
    """Two points that differ in `quant`, one of them run when the hub could not be reached."""
    for run_id, quant, hub in (("a1", "none", "not asked"), ("a2", "int8", "unreachable")):
        path = put(tmp_path, run_id, wrong=range(5), ms=8, mb=80, quant=quant, student="s") / result.FILE
        fields = json.loads(path.read_text())
        fields["choices"] |= {"hub": hub, "replaced": {} if quant == "none" else {"minilm": "distilbert"}}
        path.write_text(json.dumps(fields))
    found = comparison.compared([tmp_path])
    assert list(finished.factors(found.points)) == ["quant"]
    assert [(one.factor, one.base, one.option) for one in found.effects] == [("quant", "none", "int8")]


def test_a_point_whose_answers_are_damaged_is_compared_without_them(tmp_path):
    run = put(tmp_path, "a", wrong=range(5), ms=1, mb=1)
    (run / result.ANSWERS).write_bytes((run / result.ANSWERS).read_bytes()[:100])
    (point,) = finished.read_all([tmp_path])[0]
    assert (point.accuracy, point.right) == (0.95, None)


def test_later_measurements_are_of_the_file_that_is_there(tmp_path):
    """A run that is made again, as its bundle is gone, or that becomes another file, has no others' milliseconds."""
    run, file = put(tmp_path, "a", wrong=range(5), ms=1, mb=1), tmp_path / "model.tflite"
    later = (run / result.REMEASURED, run / result.measured_on("deadbeef"))
    file.write_text("weights")
    for bundle, stay in (("weights", True), ("others", False), (None, False)):
        for path in later:
            path.write_text("{}")
        shutil.rmtree(run / "bundle", ignore_errors=True)
        if bundle is not None:
            (run / "bundle").mkdir()
            (run / "bundle" / "model.tflite").write_text(bundle)
        result.forget_measurements(run, file)
        assert [path.exists() for path in later] == [stay, stay], bundle


def test_labels_stand_in_a_card_as_they_are():
    assert card._named(["<b>", "*", "a\nb", "a_b"]) == r"Labels: &lt;b&gt;, \*, a b, a\_b"


def test_a_point_that_failed_elsewhere_is_done(tmp_path):
    put(tmp_path / "one", "same", wrong=range(5), ms=1, mb=1, status=result.FAILED)
    put(tmp_path / "two", "same", wrong=range(6), ms=1, mb=1)
    put(tmp_path / "one", "other", wrong=range(6), ms=1, mb=1, status=result.FAILED)
    put(tmp_path / "two", "other", wrong=range(6), ms=1, mb=1, status=result.FAILED)
    done, failed, left_out = finished.read_all([tmp_path])
    assert [p.result.run_id for p in done] == ["same"]
    assert ([r.run_id for r in failed], left_out) == (["other"], [])


def test_two_files_of_one_seed_are_no_two_seeds(tmp_path):
    """What lay at a path was another model the second time: no config says so."""
    put(tmp_path, "x1", wrong=range(4), ms=1, mb=1, student="s1")
    put(tmp_path, "x2", wrong=range(20), ms=1, mb=1, student="s2")
    groups = pooled(list(points(tmp_path).values()))
    assert [group.seeds for group in groups] == [[0], [0]]
    assert seeds.spread_of(groups).freedom == 0


@pytest.mark.parametrize("unknown", [{"p90_ms": 60.0}, {"machine": "m2"}])
def test_a_latency_that_says_nothing_is_better_than_none(unknown, tmp_path):
    """The most accurate one is noisy, or was timed elsewhere: it may take any time."""
    put(tmp_path, "fast", wrong=range(8), ms=2, mb=20)
    put(tmp_path, "slow", wrong=range(5), ms=5, mb=20)
    put(tmp_path, "unknown", wrong=range(2), ms=26, mb=20, **unknown)
    found = comparison.compared([tmp_path])
    on_front = {
        p.result.run_id for p, flag in zip(found.points, front(found.points, [compare.LATENCY]), strict=True) if flag
    }
    assert on_front == {"fast", "slow", "unknown"}
    steps = [(one.cheaper.points[0].result.run_id, one.dearer.points[0].result.run_id)
             for one in compare.steps(pooled(found.points), found.rule, compare.LATENCY)]  # fmt: skip
    assert steps == [("fast", "slow")], "none to or from what cannot be compared"


def test_a_file_that_is_timed_in_two_ways_is_said_to_be(tmp_path):
    for run_id, threads in (("a1", 1), ("a2", 2)):
        path = put(tmp_path, run_id, wrong=range(5), ms=8 / threads, mb=80, file="f") / result.FILE
        fields = json.loads(path.read_text())
        fields["speed"]["threads"] = threads
        path.write_text(json.dumps(fields))
    text = markdown.to_markdown(comparison.compared([tmp_path]))
    assert "2 points are 1 files, each shown once." in text
    assert "Files timed in several ways, of which one is shown: 1. results.csv has all." in text


@pytest.mark.parametrize(("words", "seeds"), [("", (0, 1)), (" distill.teacher_seed=0", (0, 0))])
def test_a_teacher_of_the_same_or_of_a_held_seed_does_not_part_the_seeds(words, seeds, tmp_path):
    """The teacher's seed follows the run's unless it is set: then it is one of the settings."""
    for seed, teacher_seed in enumerate(seeds):
        path = put(tmp_path, f"s{seed}", wrong=range(4 + seed), ms=1, mb=1, seed=seed) / result.FILE
        fields = json.loads(path.read_text())
        fields["cfg"]["distill"]["teacher_seed"] = teacher_seed
        path.write_text(json.dumps({**fields, "command": fields["command"] + words}))
    assert [g.seeds for g in pooled(list(points(tmp_path).values()))] == [[0, 1]]


def test_two_seeds_that_are_one_file_are_one_fit(tmp_path):
    for seed in (0, 1):
        put(tmp_path, f"s{seed}", wrong=range(4), ms=1, mb=1, seed=seed, file="same")
    assert [len(g.points) for g in pooled(list(points(tmp_path).values()))] == [1]


def test_what_another_version_made_is_said_and_never_taken(tmp_path):
    put(tmp_path, "now", wrong=range(9), ms=1, mb=1)
    for schema, name in ((1, "old"), (2, "older"), (result.SCHEMA + 1, "newer")):
        put(tmp_path, name, wrong=range(1), ms=1, mb=1, schema=schema)
        (tmp_path / name / "bundle").mkdir()
        assert result.read(tmp_path / name) is None, "the run is not done"
    (tmp_path / "now" / "bundle").mkdir()
    assert result.read(tmp_path / "now") is not None
    done, failed, left_out = finished.read_all([tmp_path])
    assert ([p.result.run_id for p in done], failed) == (["now"], [])
    said = {line.split("/")[-2]: line for line in left_out}
    now = f"this one has {result.SCHEMA}"
    assert f"made by an older version (schema 1, {now}). Run it again: python train.py" in said["old"]
    assert "an older version (schema 2" in said["older"]
    assert f"a newer version (schema {result.SCHEMA + 1}" in said["newer"]
    report = markdown.to_markdown(comparison.compared([tmp_path]))
    assert f"(schema 1, {now})" in report


def test_a_damaged_result_is_named_and_stops_no_report(tmp_path):
    whole = put(tmp_path, "a", wrong=range(5), ms=8, mb=80)
    damaged = put(tmp_path, "b", wrong=range(6), ms=8, mb=80)
    fields = json.loads((damaged / result.FILE).read_text())
    del fields["speed"]["latency_p50_ms"], fields["quality"]["mcc"]
    (damaged / result.FILE).write_text(json.dumps(fields))
    done, failed, left_out = finished.read_all([tmp_path])
    assert ([p.folder for p in done], failed) == ([whole], [])
    lacks = "damaged: it lacks quality.mcc, speed.latency_p50_ms. Delete it, and run its command again."
    assert left_out == [f"{damaged / result.FILE} is left out: {lacks}"]
    assert lacks in markdown.to_markdown(comparison.compared([tmp_path]))


@pytest.mark.parametrize(
    ("change", "lacks"),
    [
        ({"speed": None}, "speed"),
        ({"quality": {}}, "quality"),
        ({"memory": "peak_rss_bytes"}, "memory"),
        ({"choices": None, "cfg": {}}, "choices, cfg"),
        ({"quality.accuracy_fraction": "x"}, "quality.accuracy_fraction as a number"),
        ({"speed.latency_p50_ms": None}, "speed.latency_p50_ms as a number"),
        ({"choices": {"model": "tiny"}, "cfg": {"seed": 0}}, "choices.data, cfg.distill"),
    ],
)
def test_a_result_whose_parts_are_damaged_is_named(change, lacks, tmp_path):
    folder = put(tmp_path, "a", wrong=range(5), ms=8, mb=80)
    fields = json.loads((folder / result.FILE).read_text())
    for name, value in change.items():
        part, _, key = name.partition(".")
        fields |= {part: fields[part] | {key: value} if key else value}
    (folder / result.FILE).write_text(json.dumps(fields))
    done, _, (line,) = finished.read_all([tmp_path])
    assert done == []
    assert f"damaged: it lacks {lacks}. Delete it" in line


def test_a_result_that_has_lost_a_part_is_named(tmp_path):
    folder = put(tmp_path, "a", wrong=range(5), ms=8, mb=80)
    fields = json.loads((folder / result.FILE).read_text())
    del fields["speed"]
    (folder / result.FILE).write_text(json.dumps(fields))
    assert "damaged: it lacks speed. Delete it" in finished.read_all([tmp_path])[2][0]


def test_a_later_measurement_takes_the_place_of_the_first_one_wholly(tmp_path):
    folder = put(tmp_path, "a", wrong=range(5), ms=8, mb=80, float32_ms=16.0)
    later = {"latency_p50_ms": 2.0, "latency_p90_ms": 2.1, "float32_latency_p50_ms": None, "speedup_vs_float32": None, "sequence_length": 64,
             "threads": 2}  # fmt: skip
    (folder / result.REMEASURED).write_text(
        json.dumps({"machine": {"id": "m9", "cpu": "c", "cores": 1, "isa": []}, "speed": later})
    )
    (point,) = finished.read_all([tmp_path])[0]
    assert point.result.speed == later
    assert (point.machine, point.cost("latency_p50_ms")) == ("m9", 2.0)
    assert timing.timing_noise([point]) == 0.0
    assert "| 2.00 | m9 |" in markdown.to_markdown(comparison.compared([tmp_path]))
    assert point.result.memory["peak_rss_bytes"] == 1
    again = json.loads((folder / result.REMEASURED).read_text()) | {"memory": {"peak_rss_bytes": 7}}
    (folder / result.REMEASURED).write_text(json.dumps(again))
    assert finished.read_all([tmp_path])[0][0].cost("peak_rss_bytes") == 7


# Budget


def budget(**bounds: float) -> Budget:
    return Budget(**{"file_mb": None, "latency_ms": None, "drop_points": None, **bounds})


def test_pick_takes_the_most_accurate_within_the_budget(tmp_path):
    put(tmp_path, "big", wrong=range(2), ms=10, mb=90)
    put(tmp_path, "small", wrong=range(20), ms=2, mb=10, quant="int8")
    put(tmp_path, "mid", wrong=range(6), ms=3, mb=20, quant="fp16")
    some = list(points(tmp_path).values())
    ids = [p.result.run_id for p in pick.pick(some, budget(file_mb=20)) if p]
    assert ids == ["mid", "small"]
    answer = pick.answer(some, budget(file_mb=20))
    assert "quant=fp16" in answer.splitlines()[1]
    assert "The difference is real (McNemar, p = 0.000)" in answer, "14 sentences to none: p = 2 / 2^14"
    assert "not proven" in pick.answer(some, budget()), "4 sentences to none: p = 2 / 2^4 = 0.125"


def test_of_one_file_timed_twice_the_timing_that_fits_is_picked(tmp_path):
    put(tmp_path, "a", wrong=range(5), ms=20, mb=8, file="same")
    put(tmp_path, "b", wrong=range(5), ms=9, mb=8, file="same")
    best, other = pick.pick(list(points(tmp_path).values()), budget(latency_ms=10))
    assert (best.result.run_id, other) == ("b", None)


def test_an_impossible_budget_says_which_bound_and_names_the_nearest(tmp_path):
    put(tmp_path, "big", wrong=range(2), ms=10, mb=90)
    put(tmp_path, "small", wrong=range(20), ms=2, mb=10, quant="int8")
    with pytest.raises(UserError) as refused:
        pick.pick(list(points(tmp_path).values()), budget(file_mb=9, latency_ms=5))
    assert "budget.file_mb=9 excludes 2 of 2 (the least is 10.00)" in str(refused.value)
    assert "budget.latency_ms=5 excludes 1 of 2" in str(refused.value)
    assert "Nearest: tiny prune=none quant=int8" in str(refused.value)
    with pytest.raises(UserError, match=r"budget\.file_mb"):
        budget(file_mb=-1)
    with pytest.raises(UserError, match="no finished point"):
        pick.pick([], budget())


# Report


def test_the_headline_is_the_smallest_file_near_the_teacher(tmp_path):
    put(tmp_path, "big", wrong=range(5), ms=10, mb=90)
    put(tmp_path, "near", wrong=range(6), ms=5, mb=20, quant="int8")  # 1 point below the teacher
    put(tmp_path, "far", wrong=range(7), ms=1, mb=1, quant="fp16")  # 2 points
    headline = comparison.compared([tmp_path]).headline()
    assert "quant=int8" in headline
    assert "4.5x below the largest" in headline


def test_the_headline_names_teacher_and_seeds_and_says_what_is_sure(tmp_path):
    for seed, errors in enumerate((5, 6, 4)):
        put(tmp_path, f"small{seed}", wrong=range(errors), ms=5, mb=20, quant="int8", seed=seed, student=f"s{seed}")
    put(tmp_path, "big", wrong=range(5), ms=10, mb=90)
    headline = comparison.compared([tmp_path]).headline()
    assert headline.startswith("Teacher tiny: 0.9500 of 100 (0.888-0.978). The smallest file within 1 point of it: ")
    assert "tiny prune=none quant=int8 T=2: 0.9500 (mean of seeds 0, 1, 2, spread 0.0100), 20.00 MB (4.5x" in headline
    assert "Against the teacher: +0.00 (" in headline
    assert headline.endswith("points, neither a difference nor equality is certain."), "100 sentences are few"


def test_of_two_files_of_one_size_the_headline_takes_the_one_that_is_not_surely_below(tmp_path, monkeypatch):
    """Both lose 12 sentences against a teacher of five errors, so within 20 points; `below` wins none of them back."""
    monkeypatch.setattr(comparison, "CLOSE_POINTS", 20.0)
    put(tmp_path, "below", wrong=range(17), ms=1, mb=20)
    put(tmp_path, "open", wrong=range(1, 8), ms=5, mb=20, quant="int8")
    found = comparison.compared([tmp_path])
    assert found.front == [True, True], "one is faster, the other better"
    assert "quant=int8" in found.headline()
    assert "below it for certain" not in found.headline()


def test_a_headline_without_a_file_near_its_teacher_says_how_good_that_is(tmp_path):
    put(tmp_path, "far", wrong=range(7), ms=1, mb=1)
    put(tmp_path, "farther", wrong=range(9), ms=1, mb=0.5, quant="int8")
    headline = comparison.compared([tmp_path]).headline()
    assert headline.startswith(
        "No file is within 1 point of its teacher: Teacher tiny: 0.9500 of 100 (0.888-0.978). The most accurate one: "
        "tiny prune=none quant=none T=2: 0.9300 (0.880-0.980), 1.00 MB, 1.00 ms. Against the teacher: -2.00 ("
    )


def test_csv_html_and_index_hold_every_point(tmp_path):
    put(tmp_path, "a", wrong=range(5), ms=8, mb=80)
    put(tmp_path, "b", wrong=range(6), ms=4, mb=40, quant="fp16")
    put(tmp_path, "c", wrong=range(6), ms=4, mb=40, quant="int8", status=result.FAILED)
    planned = [tmp_path / "a", tmp_path / "b", tmp_path / "c", tmp_path / "gone"]
    found = write.write(tmp_path, planned, [f"run {p.name}" for p in planned])
    assert found.missing == ["run gone"]
    rows = (tmp_path / "results.csv").read_text().splitlines()
    assert len(rows) == 3
    assert "choice.quant" in rows[0]
    shown = (tmp_path / "report.html").read_text()
    assert len(shown) < 6e6
    for library in (libraries.plotly_js(), libraries.tabulator_js()):
        assert library in shown
        shown = shown.replace(library, "")
    assert "https://" not in shown, "the page itself asks the network for nothing"
    assert "run gone" in shown
    text = (tmp_path / "report.md").read_text()
    assert "Failed: python train.py prune=none quant=int8 distill.temperature=2 seed=0: it broke" in text
    assert "4 stages took 17 s; each point by itself would have taken 32 s" in text, "without the failed point's"
    with sqlite3.connect(index.write_index(tmp_path)) as database:
        best = database.execute(
            "select run_id from points where status='done' order by accuracy_fraction desc"
        ).fetchall()
        assert best == [("a",), ("b",)]
        assert database.execute("select error from points where status='failed'").fetchall() == [("it broke",)]


def test_stage_times_count_a_shared_stage_once(tmp_path):
    put(tmp_path, "a", wrong=range(5), ms=8, mb=80)
    put(tmp_path, "b", wrong=range(6), ms=4, mb=40, quant="fp16")
    text = markdown.to_markdown(comparison.compared([tmp_path]))
    assert "4 stages took 17 s; each point by itself would have taken 32 s together" in text  # 10 + 5 + 1 + 1


def test_a_report_of_five_hundred_points_is_quick_and_small(tmp_path):
    import time

    rng = np.random.default_rng(0)
    for i in range(500):
        errors = int(rng.integers(1, 40))
        put(tmp_path, f"p{i}", wrong=range(errors), ms=float(rng.uniform(1, 40)), mb=float(rng.uniform(5, 90)), seed=i)
    start = time.process_time()
    write.write(tmp_path / "p0", [tmp_path])
    assert time.process_time() - start < 5
    assert (tmp_path / "p0" / "report.html").stat().st_size < 6e6


def test_every_json_of_a_sweep_can_be_read_back(tmp_path):
    run = put(tmp_path, "a", wrong=range(5), ms=8, mb=80)
    assert Result(**json.loads((run / result.FILE).read_text())).run_id == "a"


def test_every_key_that_follows_the_seed_is_known_to_the_pooling_of_seeds():
    """One that is not would make a point of its own of every seed."""
    found = set()
    for path in CONF.glob("*/*.yaml"):
        for line in path.read_text(encoding="utf-8").splitlines():
            if (key := line.split(":")[0].strip()) and line.split("#")[0].rstrip().endswith(": ${seed}"):
                found.add((path.parent.name, key))
    assert found == set(seeds.FOLLOWS)


def test_a_file_near_its_own_teacher_is_not_denied_for_one_of_a_better_teacher():
    """`near` is 0.2 points below its teacher; `far`, as small, is more accurate and 2 points below a better one."""
    some = [
        finished_point(name, np.arange(1000) >= wrong, np.arange(1000) >= teacher, quant="int8", student=name)
        for name, wrong, teacher in (("far", 80, 60), ("near", 102, 100))
    ]
    for point, teacher in zip(some, ("mpnet", "same"), strict=True):
        point.result.cfg["distill"]["teacher"] = teacher
    shown = comparison.Comparison(some, some, [], [], [])
    assert shown.front == [True, False]
    assert shown.headline().startswith("No file on the front is within 1 point of its teacher: Teacher mpnet: 0.9400")


def test_the_accuracy_of_the_first_of_several_teachers_is_said_to_be_its_own(tmp_path):
    put(tmp_path, "a", wrong=range(5), ms=8, mb=80)
    (point,) = points(tmp_path).values()
    point.result.cfg["distill"]["teacher"] = ["mpnet", "same"]
    assert finished.teacher_text(point).startswith("Teacher mpnet, the first of 2: 0.9500 of 100")
    point.result.cfg["distill"]["teacher"] = "same"
    assert finished.teacher_text(point).startswith("Teacher tiny: 0.9500 of 100")


def test_what_makes_no_other_point_does_not_part_the_seeds(tmp_path):
    for seed, more in enumerate(({"path": "/a"}, {"path": "/b"}, {"path": "/a"})):
        path = put(tmp_path, f"s{seed}", wrong=range(4 + seed), ms=1, mb=1, seed=seed) / result.FILE
        fields = json.loads(path.read_text())
        fields["cfg"] |= {"data": more, "verbosity": "stages" if seed else "points", "cache_free_gb": seed}
        path.write_text(json.dumps(fields))
    assert [g.seeds for g in pooled(list(points(tmp_path).values()))] == [[0, 1, 2]]


def test_a_missing_point_is_named_by_its_own_command_where_two_words_are_one_point(tmp_path):
    put(tmp_path, "a", wrong=range(5), ms=8, mb=80)
    planned = [tmp_path / "a", tmp_path / "a", tmp_path / "gone", tmp_path / "gone"]
    found = write.write(tmp_path, planned, ["run 2", "run 2.0", "run gone", "run gone 4.0"])
    assert found.missing == ["run gone"]


def test_a_line_under_says_what_makes_it_sure(tmp_path):
    for prune, wrong in (("fixed50", (10, 9)), ("poly80", (15, 45))):
        for t, count in zip((1.0, 4.0), wrong, strict=True):
            put(
                tmp_path,
                f"{prune}{t:g}x",
                wrong=range(count),
                ms=8,
                mb=80,
                prune=prune,
                temperature=t,
                student=f"{prune}{t:g}",
            )
    drawn = figures.forest(comparison.compared([tmp_path]))
    assert drawn
    assert "a line `under` where its own interval leaves out 0" in drawn.caption


def test_a_seed_of_slim_is_no_effect(tmp_path):
    for seed in (0, 1):
        path = put(tmp_path, f"a{seed}", wrong=range(4 + seed), ms=1, mb=1, student=f"a{seed}") / result.FILE
        fields = json.loads(path.read_text())
        fields["cfg"]["slim"] = {"seed": seed}
        path.write_text(json.dumps({**fields, "command": f"{fields['command']} slim.seed={seed}"}))
    assert comparison.compared([tmp_path]).effects == []


def test_a_path_of_the_data_parts_no_pair_of_an_effect(tmp_path):
    for seed in (0, 1, 2):
        for quant, wrong in (("none", 20), ("int8", 35)):
            path = put(tmp_path, f"{quant}{seed}", wrong=range(wrong + seed), ms=8, mb=80, seed=seed, quant=quant,
                       student=f"s{seed}") / result.FILE  # fmt: skip
            fields = json.loads(path.read_text())
            where = {"none": "/a", "int8": "/b"}[quant]
            fields["cfg"]["data"] = {"path": where}
            path.write_text(json.dumps({**fields, "command": f"{fields['command']} data.path={where}"}))
    (found,) = comparison.compared([tmp_path]).effects
    assert (found.factor, found.base, found.option, found.seeds) == ("quant", "none", "int8", 3)


def test_p_of_two_single_files_allows_for_another_seed_where_that_is_known():
    """Ten sentences gained, none lost: McNemar's p is 2 / 2^10. A shift of 2 points for each fit makes it chance."""
    right, teacher = np.arange(1000) >= 40, np.ones(1000, bool)
    worse = np.arange(1000) >= 50
    one, other, twin = (pooled([finished_point(name, answers, teacher, student=student)])[0] for name, answers, student in
                        (("a", right, "x"), ("b", worse, "y"), ("c", worse, "x")))  # fmt: skip
    known = Spread(fit=0.02**2, sentences=0.0, freedom=20)
    alone, found, of_one_fit = one.against(other, Spread()), one.against(other, known), one.against(twin, known)
    assert alone
    assert found
    assert of_one_fit
    assert alone.p == pytest.approx(2 / 2**10)
    assert found.low < 0 < found.high
    assert found.p > 0.5, "as the interval says"
    assert of_one_fit.p == pytest.approx(2 / 2**10), "another seed would have moved both"
    taught, taught_alone = one.against_teacher(known), one.against_teacher(Spread())
    assert taught
    assert taught_alone
    assert taught.p > 0.05 > taught_alone.p


def test_a_file_of_its_teacher_is_compared_over_sentences_alone():
    """Ten sentences lost, none gained: another seed would have moved both, so p is McNemar's, 2 / 2^10."""
    teacher, known = np.ones(1000, bool), Spread(fit=0.02**2, sentences=0.0, freedom=20)
    student = finished_point("a", np.arange(1000) >= 10, teacher, quant="int8")
    stages = {"teacher-a": 10.0, "file-a": 1.0}
    itself = replace(student, result=replace(student.result, cost={**student.result.cost, "stages": stages}))
    found, taught = (pooled([point])[0].against_teacher(known) for point in (itself, student))
    assert found
    assert taught
    assert found.p == pytest.approx(2 / 2**10)
    assert found.high < 0, "the interval knows it too"
    assert taught.low < 0 < taught.high
    assert taught.p > 0.5


def test_a_student_is_in_the_spread_once_though_one_of_its_files_has_a_seed_more():
    """Three students as int8, two of them as fp16 too: two degrees of freedom, not three."""
    rng = np.random.default_rng(0)
    some = [finished_point(f"{quant}{seed}", rng.random(100) < 0.9, np.ones(100, bool), quant=quant, seed=seed,
                           student=f"s{seed}") for quant, count in (("fp16", 2), ("int8", 3)) for seed in range(count)]  # fmt: skip
    assert seeds.spread_of(pooled(some)).freedom == 2


def on(digest: str, point: Finished) -> Finished:
    return replace(point, result=replace(point.result, data={"digest": digest}))


def test_the_spread_of_one_data_set_is_in_no_interval_of_another():
    """On `calm` every seed answers alike, on `wild` seeds are 20 points apart."""
    some = []
    for digest, apart in (("calm", 0), ("wild", 20)):
        for prune, seed in ((prune, seed) for prune in ("none", "fixed50") for seed in (0, 1)):
            right = np.arange(100) >= 10 + seed * apart + (prune == "fixed50")
            some.append(on(digest, finished_point(f"{digest}{prune}{seed}", right, np.ones(100, bool), prune=prune,
                                                  seed=seed, student=f"{digest}{prune}{seed}")))  # fmt: skip
    found = seeds.spreads_of(pooled(some))
    assert found["calm"].fit == 0
    assert found["wild"].fit == pytest.approx(0.02)  # 0.2² / 2
    (effect,) = [one for one in effects(some) if one.factor == "prune"]
    (alone,) = [one for one in effects([p for p in some if p.result.data["digest"] == "calm"]) if one.factor == "prune"]
    assert (effect.found.low, effect.found.high) == (alone.found.low, alone.found.high)


def test_what_no_command_names_parts_a_pair_of_an_effect(tmp_path):
    """An experiment sets the steps of one of two points, whose commands differ in `quant` and its name alone."""
    for run_id, quant, steps in (("a1", "none", 100), ("a2", "int8", 100), ("a3", "fp16", 7480)):
        path = put(tmp_path, run_id, wrong=range(5), ms=8, mb=80, quant=quant, student=run_id) / result.FILE
        fields = json.loads(path.read_text())
        fields["cfg"] |= {"fit": {"student": {"steps": steps}}}
        path.write_text(json.dumps(fields))
    assert [(one.factor, one.option) for one in effects(list(points(tmp_path).values()))] == [("quant", "int8")]


def test_a_copy_that_was_told_later_whether_the_teacher_helps_is_a_copy(tmp_path):
    for folder in ("one", "two"):
        put(tmp_path / folder, "same", wrong=range(5), ms=1, mb=1)
    path = tmp_path / "two" / "same" / result.FILE
    fields = json.loads(path.read_text())
    fields["quality"] |= {"untaught_accuracy_fraction": 0.9, "untaught_p": 0.5, "teacher_helps": True}
    path.write_text(json.dumps(fields))
    done, _, left_out = finished.read_all([tmp_path])
    assert (len(done), left_out) == (1, [])
