"""The comparison as plain rows: all that the page's script draws, sorts, filters and opens. JSON holds it as it is."""

from __future__ import annotations

import html
import json
import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from optim.report import attached, finished
from optim.report.compare import LATENCY, MEMORY
from optim.report.comparison import Comparison, difference_text, verdicts
from optim.report.difference import CLOSE_POINTS, Difference, Spread
from optim.report.finished import Finished, drop_points, label
from optim.report.seeds import Pooled
from optim.report.table import Table

# Costs that the plot can be switched to: key, button, axis, column, what one unit is.
COSTS = (
    ("latency_p50_ms", "latency", "latency p50, ms", "p50 ms", 1.0),
    ("file_bytes", "bytes", "file, MB", "MB", 1e6),
    ("gzip_bytes", "gzip", "file after gzip, MB", "gzip MB", 1e6),
    ("zstd_bytes", "zstd", "file after zstd, MB", "zstd MB", 1e6),
    ("peak_rss_bytes", "memory", "peak memory, MB", "peak MB", 1e6),
)
MARKS = {"front": "front", "sure": "front, certain", "noisy": "noisy timing"}
BUDGETS = ("file_bytes", "latency_p50_ms")  # of them, those that a slider bounds
HOVER_CHARACTERS = 34  # of a line
# Figures that an opened point shows: title, part of the result, key, what one unit is, decimals.
FIGURES = (
    ("teacher's accuracy", "quality", "teacher_accuracy_fraction", 1.0, 4),
    ("macro-F1", "quality", "macro_f1", 1.0, 4),
    ("MCC", "quality", "mcc", 1.0, 4),
    ("same answer as its Keras model, fraction", "quality", "agreement_fraction", 1.0, 4),
    ("file, MB", "size", "file_bytes", 1e6, 2),
    ("after gzip, MB", "size", "gzip_bytes", 1e6, 2),
    ("after zstd, MB", "size", "zstd_bytes", 1e6, 2),
    ("ships as, MB", "size", "compressed_bytes", 1e6, 2),
    ("parameters, million", "size", "parameters", 1e6, 2),
    ("of them not zero, million", "size", "effective_parameters", 1e6, 2),
    ("latency p50, ms", "speed", "latency_p50_ms", 1.0, 2),
    ("latency p90, ms", "speed", "latency_p90_ms", 1.0, 2),
    ("latency p99, ms", "speed", "latency_p99_ms", 1.0, 2),
    ("tokens in a timed sentence", "speed", "sequence_length", 1.0, 0),
    ("latency p50 at the median length, ms", "speed", "median_length_latency_p50_ms", 1.0, 2),
    ("latency p50 over the scored sentences, ms", "speed", "dev_mix_latency_p50_ms", 1.0, 2),
    ("latency p99 over them, ms", "speed", "dev_mix_latency_p99_ms", 1.0, 2),
    ("float32 file, ms", "speed", "float32_latency_p50_ms", 1.0, 2),
    ("faster than the float32 file, times", "speed", "speedup_vs_float32", 1.0, 2),
    ("peak memory, MB", "memory", "peak_rss_bytes", 1e6, 0),
    ("teacher, s", "cost", "teacher_s", 1.0, 0),
    ("student, s", "cost", "student_s", 1.0, 0),
    ("export, s", "cost", "export_s", 1.0, 0),
    ("measurement, s", "cost", "measure_s", 1.0, 0),
)
MOST_CLASSES = 12  # that a confusion matrix is shown for; of more, the worst classes and the commonest confusions
NEUTRAL = {"none": "no {}", "full": "full {}"}


def rows_of(shown: Comparison, folder: Path) -> dict[str, Any]:
    """What report.js reads, for a page in `folder`: lists, numbers and text alone, no NaN.

    `points` are in the order of shown.points, as are all lists with a value for each point. A point's `options` are
    places in the options of each factor, its `costs` are in the order of `costs`, its `tables` are [place in `heads`,
    *rows], its `links` are places in `links`, its `fits` are places in `curves`.
    """
    points = shown.points
    varied = {name: [text_of(value) for value in values] for name, values in finished.factors(points).items()}
    short = finished.short_names(list(varied))
    factors = [
        {"name": name, "column": short[name], "options": finished.ordered(values)} for name, values in varied.items()
    ]
    options = [
        [factor["options"].index(values[i]) for factor, values in zip(factors, varied.values(), strict=True)]
        for i in range(len(points))
    ]
    costs, heads = _costs(shown), []
    texts, changed = attached.changed_of(points, shown.front)
    curves = attached.curves_of([p for i, p in enumerate(points) if _in_full(shown, i)])
    names = short_labels(points, varied)
    rows = [_row(p, folder, name, costs) for p, name in zip(points, names, strict=True)]
    gains = [Pooled([p]).against_teacher(Spread()) for p in points]
    told = verdicts(gains)
    for i, row in enumerate(rows):
        fits = [place for place, key in enumerate(curves) if key in points[i].stages(*attached.FITS)]
        row |= {"marks": _marks(shown, i), "options": options[i], "fits": fits, "verdict": told[i],
                "changed": changed[i], "tables": _headless(_tables(shown, i), heads)}  # fmt: skip
    return finite({
        **_scale(points), "costs": costs, "factors": factors, "budgets": _budgets(rows, costs), "points": rows,
        "heads": heads, "links": attached.LINKS, 
        "figures": columns([_figures(*each) for each in zip(points, gains, told, strict=True)]),
        "config": columns([{**_options(p), **flattened(p.result.cfg)} for p in points]),
        "curves": list(curves.values()), "marks": MARKS,
        "sentences": texts, "several_machines": len(shown.machines()) > 1,
    })  # fmt: skip


def _row(point: Finished, folder: Path, name: str, costs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One point; absent figures are None. `title` is its name as lines of HTML, where it is long."""
    r, q = point.result, point.result.quality
    lines = textwrap.wrap(name, HOVER_CHARACTERS)
    title = "<br>".join(map(html.escape, lines)) if len(lines) > 1 else None
    return {
        "name": name, "title": title, "accuracy": _short(point.accuracy), "low": _short(q["ci95_low"]),
        "high": _short(q["ci95_high"]), "drop": _short(drop_points(point)),
        "machine": point.machine, "run": r.run_id, "command": r.command,
        "costs": [_short(point.cost(cost["key"]) / cost["unit"]) for cost in costs],
        "folder": attached.address(point.folder, folder), "links": attached.links_of(point.folder),
    }  # fmt: skip


def _marks(shown: Comparison, place: int) -> list[str]:
    """Which of MARKS a point has."""
    front = ["sure" if shown.certain[place] else "front"] if shown.front[place] else []
    return [*front, *(["noisy"] if shown.noisy[place] else [])]


# Costs and figures
def _costs(shown: Comparison) -> list[dict[str, Any]]:
    """The costs that every point has above zero, so that a logarithmic axis can show them."""
    known = [cost for cost in COSTS if all((_cost(p, cost[0]) or 0) > 0 for p in shown.points)]
    return [
        {"key": key, "name": name, "axis": axis, "column": column, "unit": unit,
         "unit_name": axis.rsplit(", ")[-1], "front": _front(shown, key),
         **axis_of([p.cost(key) / unit for p in shown.points]), "told": _told(shown, key, axis)}
        for key, name, axis, column, unit in known
    ]  # fmt: skip


def _cost(point: Finished, key: str) -> float | None:
    try:
        return point.cost(key)
    except KeyError:
        return None


def _told(shown: Comparison, key: str, axis: str) -> str:
    """How to read the plot of one cost."""
    teacher = _scale(shown.points)["teacher_name"]
    several = _apart(shown, key)
    line = f"The line is the front of accuracy and {axis}, with 95 % intervals."
    line = line if not several else f"No line joins points of several {several}."
    line = line if len(shown.by_data()) < 2 else "No line joins points of several data sets."
    hollow = key == LATENCY and any(shown.noisy)
    return (
        f"{line} Green: within {CLOSE_POINTS:g} point of {teacher}. Drag over points to keep them alone, "
        "double-click to keep all."
        + (" Hollow: the timing is noisy." if hollow else "")
        + (f" SEVERAL {several.upper()}: do not compare across them." if several else "")
    )


def axis_of(values: Sequence[float]) -> dict[str, Any]:
    """`range` of a logarithmic axis that holds the values (decimal logarithms), and its `ticks` for plotly.

    Ticks are 1, 2 and 5 of each decade, or even steps where the axis spans less than one.
    """
    pad = max((max(values) / min(values)) ** 0.07, 1.08)
    low, high = min(values) / pad, max(values) * pad
    step = _step((high - low) / 5)
    ticks = [i * step for i in range(math.ceil(low / step), math.floor(high / step) + 1)]
    if high / low > 8:
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        ticks = [digit * 10.0**decade for decade in decades for digit in (1, 2, 5)]
    within = [_short(tick) for tick in ticks if low <= tick <= high]
    return {
        "range": [_short(math.log10(low)), _short(math.log10(high))],
        "ticks": {"tickvals": within, "ticktext": [f"{tick:,.10g}" for tick in within]},
    }


def _step(least: float) -> float:
    """The smallest of 1, 2, 5 times a power of ten that is no less than `least`."""
    ten = 10.0 ** math.floor(math.log10(least))
    return next(digit * ten for digit in (1, 2, 5, 10) if digit * ten >= least * (1 - 1e-9))


def _scale(points: Sequence[Finished]) -> dict[str, Any]:
    """The axis of accuracy, and the best teacher in it with what counts as close."""
    teachers = sorted({p.result.quality["teacher_accuracy_fraction"] for p in points})
    close = teachers[-1] - CLOSE_POINTS / 100
    accuracies = [p.accuracy for p in points]
    low, high = min(close, *accuracies), max(teachers[-1], *accuracies)
    best = max(points, key=lambda p: p.result.quality["teacher_accuracy_fraction"]).result
    on = f" on {best.data.get('name') or best.choices['data']}" if len({*map(finished.data_of, points)}) > 1 else ""
    return {
        "range": [_short(low - 0.09 * (high - low)), _short(high + 0.09 * (high - low))],
        "teacher": _short(teachers[-1]), "close": _short(close),
        "teacher_name": ("the best teacher" if len(teachers) > 1 else "the teacher") + on,
    }  # fmt: skip


def _budgets(rows: Sequence[Mapping[str, Any]], costs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What sliders bound: its name, its place in a point's costs (None: `drop`), and its steps, the smallest first."""
    found = [{"name": cost["axis"], "cost": i, "steps": sorted({row["costs"][i] for row in rows})}
             for i, cost in enumerate(costs) if cost["key"] in BUDGETS]  # fmt: skip
    found.append({"name": "points below the teacher", "cost": None, "steps": sorted({row["drop"] for row in rows})})
    return [budget for budget in found if len(budget["steps"]) > 1]


def _figures(point: Finished, gain: Difference | None, verdict: str) -> dict[str, str]:
    """Title -> text of accuracy, of its distance to the teacher, and of those of FIGURES that the point has."""
    against = {} if gain is None else {"against its teacher, points (95 %)": f"{difference_text(gain)} {verdict}"}
    q = point.result.quality
    values = {title: (getattr(point.result, part).get(key), *how) for title, part, key, *how in FIGURES}
    there = {title: value for title, value in values.items() if value[0] is not None}
    return {
        "accuracy": f"{point.accuracy:.4f} ({q['ci95_low']:.3f} to {q['ci95_high']:.3f}) of {q['examples']:,}",
        **against, "machine": point.machine,
        **{title: f"{value / unit:,.{decimals}f}" for title, (value, unit, decimals) in there.items()},
    }  # fmt: skip


def _apart(shown: Comparison, cost: str) -> str | None:
    """What the points differ in so that this cost of theirs cannot be compared; None: nothing."""
    machines = "machines" if len(shown.machines()) > 1 else None
    return {LATENCY: shown.several_clocks(), MEMORY: machines}.get(cost)


def _front(shown: Comparison, cost: str) -> list[int]:
    """Places of the points on the front of accuracy and one cost, the cheapest first; equals are there once.

    None for points of several data sets, or whose costs cannot be compared: no line can join those. Of a choice with
    several seeds, whose mean is on the front, the point nearest to that mean stands for it.
    """
    if len(shown.by_data()) > 1 or _apart(shown, cost):
        return []
    points, flags = shown.points, shown.front_of([cost])
    places = {p.file: i for i, p in enumerate(points)}
    chosen = [min(group.points, key=lambda p: abs(p.accuracy - group.mean)) for group in shown.groups]
    best = sorted((i for i in (places[p.file] for p in chosen) if flags[i]), key=lambda i: (points[i].cost(cost), i))
    return list({(points[i].cost(cost), points[i].accuracy): i for i in reversed(best)}.values())[::-1]


# What differs between points
def short_labels(points: Sequence[Finished], varied: Mapping[str, Sequence[str]]) -> list[str]:
    """Each point by what was varied alone: `fixed50 int8 T=2 s1`; its whole label where nothing was.

    A key that a point was not told, but has by the option of its group, is not said of it.
    """
    if not varied:
        return [label(p) for p in points]
    told, short = [set(finished.set_on_command_line(point)) for point in points], finished.short_names(list(varied))
    return [
        " ".join(_word(name, short[name], some[i]) for name, some in varied.items() if "." not in name or name in own)
        or label(points[i])
        for i, own in enumerate(told)
    ]


def _word(name: str, short: str, value: str) -> str:
    if name == "seed":
        return f"s{value}"
    if "." not in name:
        return NEUTRAL.get(value, "{1}").format(name, value)
    return f"{'T' if name == 'distill.temperature' else short}={value}"


def columns(rows: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """{"same": key -> text of all rows, "varied": key -> text of each row}; None stands where a row has no such key."""
    found = {key: [row.get(key) for row in rows] for key in dict.fromkeys(key for row in rows for key in row)}
    same = {key: values[0] for key, values in found.items() if len(set(values)) == 1}
    return {"same": same, "varied": {key: values for key, values in found.items() if key not in same}}


def _options(point: Finished) -> dict[str, str]:
    return {group: option for group, option in point.result.choices.items() if isinstance(option, str)}


def flattened(cfg: Any, prefix: str = "") -> dict[str, str]:
    """A nested config as dotted key -> text."""
    if not isinstance(cfg, dict) or not cfg:
        return {prefix: text_of(cfg)} if prefix else {}
    return {
        key: value
        for name, part in cfg.items()
        for key, value in flattened(part, f"{prefix}.{name}".strip(".")).items()
    }


# Errors by class
def _tables(shown: Comparison, place: int) -> list[Table]:
    """Of a point; in a page of many points only those on the front have any."""
    point = shown.points[place]
    return [*error_tables(point), *kinds_table(point)] if _in_full(shown, place) else []


def _in_full(shown: Comparison, place: int) -> bool:
    """Whether a point has everything on the page: in one of many points, those on the front do."""
    return shown.front[place] or len(shown.points) <= attached.FEW_POINTS


def error_tables(point: Finished) -> list[Table]:
    """What a page shows of a point's confusion matrix; none without one.

    `quality.confusion` is int [classes, classes], a row for each right class, a column for each answer. Of more than
    MOST_CLASSES classes only those of lowest recall are shown, and the commonest confusions instead of the matrix.
    """
    confusion, names = point.result.quality.get("confusion"), point.result.data.get("labels", ())
    if not confusion:
        return []
    count = range(len(confusion))
    named = [names[i] if i < len(names) else str(i) for i in count]
    answered = [sum(row[i] for row in confusion) for i in count]
    classes = [(named[i], confusion[i][i], sum(confusion[i]), answered[i]) for i in count]
    head = ("class", "precision", "recall", "F1", "sentences")
    if len(confusion) <= MOST_CLASSES:
        matrix = [[named[i], *map(str, confusion[i])] for i in count]
        return [Table("Errors by class", head, [*map(_class_row, classes)]),
                Table("Right class down, answer across", ("", *named), matrix)]  # fmt: skip
    worst = sorted(classes, key=lambda row: row[1] / row[2] if row[2] else 1.0)[:MOST_CLASSES]
    pairs = sorted(((confusion[i][j], named[i], named[j]) for i in count for j in count if i != j), key=lambda p: -p[0])
    common = [[right, answer, str(number)] for number, right, answer in pairs[:MOST_CLASSES] if number]
    return [Table(f"The {MOST_CLASSES} classes of lowest recall", head, [*map(_class_row, worst)]),
            Table("Commonest confusions", ("class", "answer", "sentences"), common)]  # fmt: skip


def kinds_table(point: Finished) -> list[Table]:
    """Accuracy by length and by class beside the teacher's, those that lose most first; none where it is not there."""
    kinds = sorted(point.result.quality.get("kinds") or [], key=lambda one: one["change_points"])[:MOST_CLASSES]
    rows = [
        [f"{one['kind']} {one['value']}", f"{one['examples']:,}", f"{one['accuracy_fraction']:.4f}",
         f"{one['change_points']:+.2f} ({one['change_low_points']:+.2f} to {one['change_high_points']:+.2f})"]
        for one in kinds
    ]  # fmt: skip
    head = ("kind of sentence", "sentences", "accuracy", "against its teacher, points (95 %)")
    return [Table("By kind of sentence", head, rows)] if rows else []


def _headless(tables: Sequence[Table], heads: list[list[Any]]) -> list[list[Any]]:
    """Each table as [place of its title and head in `heads`, *rows]; a head that is new is put there."""
    out = []
    for table in tables:
        head = [table.title, list(table.head)]
        if head not in heads:
            heads.append(head)
        out.append([heads.index(head), *table.rows])
    return out


def _class_row(row: tuple[str, int, int, int]) -> list[str]:
    """Text of (class, right answers, its sentences, times it was answered); a class never answered has no precision."""
    name, right, sentences, answered = row
    precision, recall = (f"{right / of:.4f}" if of else "–" for of in (answered, sentences))
    return [name, precision, recall, f"{2 * right / max(sentences + answered, 1):.4f}", str(sentences)]


# Plain values
def _short(value: float) -> float:
    """Six significant digits: the page shows no more."""
    return float(f"{value:.6g}")


def text_of(value: Any) -> str:
    """A value of a config as people write it."""
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value, default=str)


def finite(value: Any) -> Any:
    """The same with None for every number that JSON has no word for."""
    if isinstance(value, dict):
        return {key: finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
