"""Every column and every field of a report has its own figure, of its own point."""

# pyright: reportArgumentType=false
from __future__ import annotations

import csv
import io
import json
import sqlite3

import numpy as np
import pytest
from made_results import finished_point, put
from made_sweep import sweep

from optim.report import attached, baselines, comparison, figures, index, rows, tables
from optim.report.baselines import Baseline, Published
from optim.report.comparison import compared


@pytest.fixture
def three(tmp_path) -> comparison.Comparison:
    """The best one is certain, the small one is on the front, the last one on none; each has a seed of its own."""
    for seed, (name, wrong, ms, mb, quant) in enumerate(
        (("big", 2, 10, 90, "none"), ("small", 20, 2, 10, "int8"), ("beaten", 25, 5, 20, "fp16"))
    ):
        put(tmp_path, f"{name}{seed}", wrong=range(wrong), ms=ms, mb=mb, quant=quant, seed=seed)
    return compared([tmp_path])


def test_a_row_of_the_csv_is_of_one_point(three):
    found = {row["run_id"]: row for row in csv.DictReader(io.StringIO(index.to_csv(three)))}
    columns = ("choice.quant", "seed", "machine", "on_front", "on_front_for_certain", "file_bytes", "latency_p50_ms")
    assert {run: tuple(row[name] for name in columns) for run, row in found.items()} == {
        "big0": ("none", "0", "m1", "True", "True", "90000000", "10"),
        "small1": ("int8", "1", "m1", "True", "False", "10000000", "2"),
        "beaten2": ("fp16", "2", "m1", "False", "False", "20000000", "5"),
    }


def test_a_row_of_the_index_is_of_one_point(three, tmp_path):
    with sqlite3.connect(index.write_index(tmp_path)) as database:
        told = database.execute(
            "select run_id, quant, seed, machine, file_bytes, latency_p50_ms from points order by seed"
        )
        assert told.fetchall() == [
            ("big0", "none", 0, "m1", 90_000_000, 10),
            ("small1", "int8", 1, "m1", 10_000_000, 2),
            ("beaten2", "fp16", 2, "m1", 20_000_000, 5),
        ]


def test_the_columns_of_points_and_of_seeds_have_their_own_figures(three, tmp_path):
    """Gzip makes 0.8 and zstd 0.7 of a file."""
    row = tables.points_table(three).rows[1]
    assert row[:8] == (
        "*",
        "tiny prune=none quant=int8 T=2 seed=1",
        "0.8000 (0.750-0.850)",
        "10.00",
        "8.00",
        "7.00",
        "2.00",
        "m1",
    )
    shown = next(line for line in tables.screen_table(three).splitlines() if "quant=int8" in line)
    assert shown.split()[-5:] == ["0.8000", "(0.750-0.850)", "10.00", "8.00", "2.00"]
    for seed, wrong in enumerate((4, 6, 8)):
        put(tmp_path / "seeds", f"s{seed}", wrong=range(wrong), ms=1, mb=1, seed=seed, student=f"s{seed}")
    ((choice, *cells, against),) = tables.seeds_table(compared([tmp_path / "seeds"])).rows
    assert (choice, cells) == ("tiny prune=none quant=none T=2", ["0, 1, 2", "0.9400", "0.0200"])
    assert against.startswith("-1.00 (")


def test_an_opened_point_shows_each_figure_under_its_own_name():
    point = finished_point("a", np.arange(100) >= 9, np.arange(100) >= 5, ms=2.0, mb=20, float32_ms=7.0, p90_ms=3.0)
    point.result.quality.update(mcc=0.5, macro_f1=0.75, agreement_fraction=0.99)
    point.result.size.update(compressed_bytes=6_000_000, parameters=30_000_000, effective_parameters=10_000_000)
    point.result.speed.update(
        latency_p99_ms=4.0, median_length_latency_p50_ms=1.0, dev_mix_latency_p50_ms=1.25, dev_mix_latency_p99_ms=1.75
    )
    point.result.memory.update(peak_rss_bytes=60_000_000)
    point.result.cost.update(teacher_s=11.0, student_s=12.0, export_s=13.0, measure_s=14.0)
    assert rows._figures(point, None, "open") == {
        "accuracy": "0.9100 (0.860 to 0.960) of 100",
        "machine": "m1",
        "teacher's accuracy": "0.9500",
        "macro-F1": "0.7500",
        "MCC": "0.5000",
        "same answer as its Keras model, fraction": "0.9900",
        "file, MB": "20.00",
        "after gzip, MB": "16.00",
        "after zstd, MB": "14.00",
        "ships as, MB": "6.00",
        "parameters, million": "30.00",
        "of them not zero, million": "10.00",
        "latency p50, ms": "2.00",
        "latency p90, ms": "3.00",
        "latency p99, ms": "4.00",
        "tokens in a timed sentence": "128",
        "latency p50 at the median length, ms": "1.00",
        "latency p50 over the scored sentences, ms": "1.25",
        "latency p99 over them, ms": "1.75",
        "float32 file, ms": "7.00",
        "faster than the float32 file, times": "3.50",
        "peak memory, MB": "60",
        "teacher, s": "11",
        "student, s": "12",
        "export, s": "13",
        "measurement, s": "14",
    }


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """(the comparison of 27 made-up points, its rows)."""
    folder = tmp_path_factory.mktemp("swept")
    shown = compared([sweep(folder)])
    return shown, rows.rows_of(shown, folder / "report")


def test_what_the_page_says_of_a_point_is_its_own(swept):
    shown, said = swept
    assert len({row["verdict"] for row in said["points"]}) > 1
    curves = attached.curves_of(shown.points)
    verdicts = [row[-1].rsplit(" ", 1)[-1] for row in tables.points_table(shown).rows]
    for i, (row, point) in enumerate(zip(said["points"], shown.points, strict=True)):
        quality = point.result.quality
        own = [quality["accuracy_fraction"], quality["ci95_low"], quality["ci95_high"]]
        assert [row["accuracy"], row["low"], row["high"]] == pytest.approx(own, rel=1e-5)
        assert row["drop"] == pytest.approx(100 * (quality["teacher_accuracy_fraction"] - own[0]), abs=1e-3)
        assert row["verdict"] == verdicts[i]
        marks = ["sure" if shown.certain[i] else "front"] if shown.front[i] else []
        assert [mark for mark in row["marks"] if mark != "noisy"] == marks
        lines = [json.loads(line) for line in (point.folder / attached.CHANGED).read_text().splitlines()]
        own_changed = [[line["text"], line["label"], line["teacher"], line["answer"]] for line in lines][
            : attached.MOST_SENTENCES
        ]
        assert [[*said["sentences"][place], *more] for place, *more in row["changed"]] == own_changed
        _, matrix = (table[1:] for table in row["tables"])
        assert [list(map(int, cells[1:])) for cells in matrix] == quality["confusion"]
        drawn = [said["curves"][place] for place in row["fits"]]
        assert drawn == [curves[key] for key in curves if key in point.stages(*attached.FITS)]


def test_an_effect_is_drawn_where_it_lies_and_as_sure_as_it_is(swept):
    shown, _ = swept
    drawn = figures.forest(shown)
    assert drawn is not None
    effects = {f"{e.factor}: {e.base} → {e.option}": e for e in shown.effects}
    assert {e.sure for e in effects.values()} == {True, False}
    labels = [label.replace("<br>", " ") for label in drawn.figure.layout.yaxis.ticktext]
    for trace in drawn.figure.data:
        for x, y, more, less in zip(trace.x, trace.y, trace.error_x.array, trace.error_x.arrayminus, strict=True):
            if labels[y] in effects:
                effect = effects.pop(labels[y])
                assert (x, x + more, x - less) == pytest.approx(
                    (effect.found.points, effect.found.high, effect.found.low)
                )
                assert (trace.name == "sure") == effect.sure
    assert not effects
    lines = figures.parallel(shown)
    assert lines is not None
    axes = {one.label: list(one["values"]) for one in lines.figure.data[0].dimensions}
    assert axes["accuracy"] == [p.accuracy for p in shown.points]
    assert axes["MB"] == [p.cost("file_bytes") / 1e6 for p in shown.points]
    assert axes["p50 ms"] == [p.cost("latency_p50_ms") for p in shown.points]


def test_the_columns_of_a_baseline_have_their_own_figures():
    size = {"file_bytes": 20_000_000, "gzip_bytes": 9_000_000, "parameters": 5_000_000}
    speed = {"latency_p50_ms": 7.0, "latency_p90_ms": 8.0, "sequence_length": 128, "threads": 1}
    published = Published(accuracy_percent=91.2, split="dev", source="a paper")
    row = Baseline(
        "tiny", "int8", "random", "-", [published], size, speed, {"peak_rss_bytes": 60_000_000}, {"id": "m1"}
    )
    table = baselines.baselines_table([row])
    assert table is not None
    assert dict(zip(table.head, table.rows[0], strict=True)) == {
        "model": "tiny quant=int8",
        "accuracy": "-",
        "published, SST-2": "91.2 dev [1]",
        "parameters": "5.00 M",
        "MB": "20.00",
        "p50 ms": "7.00",
        "peak MB": "60",
        "weights": "random",
    }
    head, shown = baselines.screen_table([row]).splitlines()
    assert (head.split()[1:], shown.split()[2:]) == (
        ["accuracy", "M", "MB", "p50", "ms", "peak", "MB", "weights"],
        ["-", "5.00", "20.00", "7.00", "60", "random"],
    )
