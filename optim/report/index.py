"""The comparison for programs: results.csv, and an SQLite index of every result under a folder."""

from __future__ import annotations

import csv
import io
import json
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import uuid4

from optim.report.comparison import Comparison
from optim.report.finished import factors, read_all
from optim.run.result import Result

COLUMNS = {
    "quality": ("accuracy_fraction", "ci95_low", "ci95_high", "examples", "mcc", "macro_f1",
                "teacher_accuracy_fraction", "ensemble_accuracy_fraction", "taught", "student_accuracy_fraction",
                "untaught_accuracy_fraction", "untaught_p", "teacher_helps", "agreement_fraction"),
    "size": ("file_bytes", "gzip_bytes", "zstd_bytes", "compressed_bytes", "parameters", "effective_parameters",
             "zeroed_fraction"),
    "speed": ("latency_p50_ms", "latency_p90_ms", "latency_p99_ms", "sequence_length", "threads",
              "float32_latency_p50_ms", "speedup_vs_float32", "median_length_latency_p50_ms",
              "dev_mix_latency_p50_ms", "dev_mix_latency_p99_ms", "length_change_p50_ms",
              "zeros_accelerated", "zeros_speedup", "decompress_p50_ms"),
    "memory": ("peak_rss_bytes",),
    "cost": ("teacher_s", "student_s", "export_s", "measure_s"),
}  # fmt: skip


def cell(value: Any) -> Any:
    """A value as a CSV cell; a text that a spreadsheet would run as a formula gets a quote in front."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value


def to_csv(shown: Comparison) -> str:
    """One row for each point, with what was varied, every figure, and the command."""
    varied = factors(shown.every_point)
    marks = {p.file: m for p, *m in zip(shown.points, shown.front, shown.certain, strict=True)}
    head = ["run_id", *(f"choice.{name}" for name in varied), *(c for part in COLUMNS.values() for c in part),
            "machine", "on_front", "on_front_for_certain", "seed", "command"]  # fmt: skip
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(map(cell, head))
    for i, point in enumerate(shown.every_point):
        r = point.result
        figures = [getattr(r, part)[c] for part, columns in COLUMNS.items() for c in columns]
        row = [r.run_id, *(values[i] for values in varied.values()), *figures, point.machine,
                         *marks[point.file], r.seed, r.command]  # fmt: skip
        writer.writerow(map(cell, row))
    return out.getvalue()


INDEX = "index.sqlite"
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what makes a spreadsheet take a text for a formula


# Index
def write_index(results_dir: Path) -> Path:
    """Rebuilds the SQLite index of every result under `results_dir`: table `points`, one row for each run.

    Each call fills a file of its own, since sweeps may end together: the index is the one that is put in place last.
    """
    points, failed, _ = read_all([results_dir])
    path, part = results_dir / INDEX, results_dir / f".{INDEX}.{uuid4().hex}"
    try:
        with closing(sqlite3.connect(part)) as database, database:
            _fill(database, [*(p.result for p in points), *failed])
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return path


def _fill(database: sqlite3.Connection, results: Sequence[Result]) -> None:
    """Makes the table `points` of them."""
    columns = [c for part in COLUMNS.values() for c in part]
    groups = ("model", "data", "slim", "vocab", "prune", "distill", "quant", "fit")
    named = ["run_id", "status", "error", *groups, "seed", "machine", *columns, "command", "cfg"]
    names = ", ".join(f'"{c}"' for c in named)
    database.execute(f"create table points ({names})")
    for r in results:
        figures = [getattr(r, part).get(c) for part, cs in COLUMNS.items() for c in cs]
        row = [r.run_id, r.status, r.error, *(r.choices.get(g) for g in groups), r.seed, r.machine.get("id"),
               *figures, r.command, json.dumps(r.cfg)]  # fmt: skip
        database.execute(f"insert into points values ({', '.join('?' * len(row))})", row)
