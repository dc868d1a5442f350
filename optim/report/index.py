"""The SQLite index of every result under a folder."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

from optim.report import compare
from optim.report.page import COLUMNS

INDEX = "index.sqlite"


# Index
def write_index(results_dir: Path) -> Path:
    """Rebuilds the SQLite index of every result under `results_dir`: table `points`, one row for each run."""
    points, failed, _ = compare.read_all([results_dir])
    path, part = results_dir / INDEX, results_dir / f".{INDEX}"
    part.unlink(missing_ok=True)
    columns = [c for part_ in COLUMNS.values() for c in part_]
    groups = ("model", "data", "prune", "distill", "quant", "fit")
    database = sqlite3.connect(part)
    with database:
        names = ", ".join(
            f'"{c}"' for c in ["run_id", "status", "error", *groups, "seed", "machine", *columns, "command", "cfg"]
        )
        database.execute(f"create table points ({names})")
        for r in [*(p.result for p in points), *failed]:
            figures = [getattr(r, part_).get(c) for part_, cs in COLUMNS.items() for c in cs]
            row = [r.run_id, r.status, r.error, *(r.choices.get(g) for g in groups), r.seed, r.machine.get("id"),
                   *figures, r.command, json.dumps(r.cfg)]  # fmt: skip
            database.execute(f"insert into points values ({', '.join('?' * len(row))})", row)
    database.close()
    part.replace(path)
    return path
