"""What a run left beside its result: the curves of its fits, the sentences that its file changed, its links."""

from __future__ import annotations

import html
import json
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from optim.report.finished import Finished
from optim.run.result import CHANGED

LINKS = (("", "folder"), ("bundle/README.md", "card of its bundle"), (CHANGED, "all changed sentences"))
CURVE_ROWS, MOST_CURVE_ROWS, LEAST_CURVE_ROWS = 6_000, 60, 12  # of a page, of a curve at most and at least
MOST_SENTENCES = 20  # of a point that are shown
FEW_POINTS = 50  # of more, only those on the front show their sentences, curves and errors
SENTENCE_CHARACTERS = 200  # a longer one is cut, and says so
TEACHER, STUDENT = "#2b83c6", "#d97a1f"
FITS = ("teacher", "student")  # stages that have a curve
CURVES = ("loss", "accuracy")  # a figure of a fit is drawn if its name has one of these in it


# Fits
def curves_of(points: Iterable[Finished]) -> dict[str, list[dict[str, Any]]]:
    """Stage -> traces for plotly, of every fit whose curve is still in the cache; long curves are thinned.

    There is one for each of `loss`, `holdout_loss` and `holdout_accuracy_fraction`, as the training loop writes them.
    Where a point has two teachers, its student's own fine-tuning for one, their parameters tell them apart.
    """
    points = list(points)
    caches = {key: p.result.cfg.get("cache_dir") for p in points for key in p.stages(*FITS)}
    folders = {key: Path(cache).expanduser() / "stages" / key for key, cache in caches.items() if cache}
    read = {key: _fit_rows(folder / "fit.json") for key, folder in folders.items()}
    several = {key for p in points if len(keys := p.stages("teacher")) > 1 for key in keys}
    found = {key: _by_figure(rows) for key, rows in read.items() if rows}
    most = max(LEAST_CURVE_ROWS, min(MOST_CURVE_ROWS, CURVE_ROWS // max(len(found), 1)))
    return {
        key: [_trace(f"{_fit_name(folders[key], key in several)} {name}", _thinned(rows, most))
              for name, rows in curves.items()]
        for key, curves in found.items()
    }  # fmt: skip


def _fit_name(folder: Path, with_size: bool) -> str:
    """teacher, or teacher of 22.7 M."""
    kind = folder.name.partition("-")[0]
    with suppress(OSError, ValueError, KeyError, TypeError):
        if with_size:
            weights = json.loads((folder / "weights.json").read_text(encoding="utf-8"))
            return f"{kind} of {weights['parameters'] / 1e6:.1f} M"
    return kind


def _trace(name: str, rows: list[list[float]]) -> dict[str, Any]:
    colour = TEACHER if name.startswith("teacher") else STUDENT
    dash = "dash" if "accuracy" in name else "dot" if "holdout" in name else "solid"
    return {
        "name": html.escape(name.removesuffix("_fraction").replace("_", " ")), "x": [step for step, _ in rows],
        "y": [value for _, value in rows], "yaxis": "y2" if "accuracy" in name else "y",
        "mode": "lines" if len(rows) > 8 else "lines+markers", "line": {"color": colour, "dash": dash},
    }  # fmt: skip


def _fit_rows(path: Path) -> list[dict[str, float]]:
    with suppress(OSError, ValueError, KeyError, TypeError):
        rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
        return [row for row in rows if isinstance(row, dict) and "step" in row]
    return []


def _by_figure(rows: Sequence[dict[str, float]]) -> dict[str, list[list[float]]]:
    names = dict.fromkeys(name for row in rows for name in row if any(word in name for word in CURVES))
    return {name: [[row["step"], _rounded(row[name])] for row in rows if name in row] for name in names}


def _thinned(rows: list[list[float]], most: int) -> list[list[float]]:
    """At most `most` rows: evenly spread, the first and the last among them."""
    if len(rows) <= most:
        return rows
    return [rows[round(i * (len(rows) - 1) / (most - 1))] for i in range(most)]


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


# Sentences
def changed_of(points: Sequence[Finished], front: Sequence[bool]) -> tuple[list[list[str]], list[list[list[Any]]]]:
    """([text, label] of each sentence, for each point its [place there, teacher's answer, file's answer] rows).

    Many points change the same sentences: each text is there once. Of a point the first few are shown; one that left no
    such file has none, nor has, in a page of many points, one that is not on the front: the page links to all of them.
    """
    texts: dict[tuple[str, str], int] = {}
    rows = []
    for point, best in zip(points, front, strict=True):
        own = _changed_rows(point.folder / CHANGED) if best or len(points) <= FEW_POINTS else []
        places = [texts.setdefault((_short(row["text"]), str(row["label"])), len(texts)) for row in own]
        rows.append([[i, str(row["teacher"]), str(row["answer"])] for i, row in zip(places, own, strict=True)])
    return [list(text) for text in texts], rows


def _changed_rows(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    with suppress(OSError, ValueError), path.open(encoding="utf-8") as lines:
        for line, _ in zip(lines, range(MOST_SENTENCES), strict=False):
            row = json.loads(line)
            if isinstance(row, dict) and {"text", "label", "teacher", "answer"} <= set(row):
                rows.append(row)
    return rows


def _short(text: Any) -> str:
    line = " ".join(str(text).split())
    return line if len(line) <= SENTENCE_CHARACTERS else f"{line[: SENTENCE_CHARACTERS - 1]}…"


# Links
def address(path: Path, folder: Path) -> str:
    """The address of a folder on a page in `folder`, percent-encoded, with a slash at its end."""
    return quote(os.path.relpath(path.resolve(), folder.resolve()).replace(os.sep, "/")) + "/"


def links_of(folder: Path) -> list[int]:
    """Which of LINKS are there in a run's folder."""
    return [i for i, (name, _) in enumerate(LINKS) if (folder / name).exists()]
