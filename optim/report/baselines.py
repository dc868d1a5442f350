"""Known small models beside the points: what was measured here and what others published."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from optim.common.errors import UserError, require_number
from optim.common.screen import beside, width
from optim.report.finished import read_all
from optim.report.table import Table
from optim.report.timing import machine_line

FOLDER = "baselines"  # under results_dir
FINE_TUNED, RANDOM = "fine-tuned", "random"
SPLITS = ("dev", "test")
SCHEMA = 1  # of a record; raised when code changes what its figures mean


# The catalogue
@dataclass(frozen=True, kw_only=True)
class Published:
    """An accuracy on SST-2 that others report."""

    accuracy_percent: float
    split: str  # dev | test
    source: str
    second_hand: str | None = None  # where it was read, if not in the source
    note: str | None = None

    def __post_init__(self) -> None:
        require_number("published.accuracy_percent", self.accuracy_percent)
        if not 50 <= self.accuracy_percent <= 100:
            raise UserError(f"published.accuracy_percent must lie in [50, 100], got {self.accuracy_percent:g}.")
        if self.split not in SPLITS:
            raise UserError(f"published.split must be {' or '.join(SPLITS)}, got {self.split!r}.")
        if not isinstance(self.source, str) or not self.source.strip():
            raise UserError(f"published.source must say where {self.accuracy_percent:g} comes from.")


# The table
@dataclass(frozen=True)
class Baseline:
    """One baseline, as a report shows it."""

    model: str
    quant: str
    weights: str  # fine-tuned | random
    accuracy: str  # of our own, with the data it is of; "-" for random weights
    published: list[Published]
    size: dict[str, Any]
    speed: dict[str, Any]
    memory: dict[str, Any]
    machine: dict[str, Any]
    why: str | None = field(default=None)  # the weights are random


def read_baselines(results_dir: Path) -> list[Baseline]:
    """The baselines under `results_dir`, the smallest file first. What is no record, or lost its point, is left out."""
    rows = []
    for path in sorted((results_dir / FOLDER).glob("*.json")):
        with suppress(OSError, ValueError, KeyError, TypeError):
            record = json.loads(path.read_text(encoding="utf-8"))
            if record["schema"] == SCHEMA and (row := _row(record, results_dir)):
                rows.append(row)
    return sorted(rows, key=lambda row: row.size["file_bytes"])


def _row(record: dict[str, Any], results_dir: Path) -> Baseline | None:
    published = [Published(**row) for row in record["published"]]
    named = (record["model"], record["quant"], record["weights"])
    if record["weights"] == RANDOM:
        parts = (record["size"], record["speed"], record["memory"], record["machine"])
        return Baseline(*named, "-", published, *parts, why=record["why"])
    points = read_all([results_dir / record["run_id"]])[0]
    if not points:
        return None
    found = points[0].result
    accuracy = f"{points[0].accuracy:.4f} of {found.quality['examples']:,} ({found.data['name']})"
    return Baseline(*named, accuracy, published, found.size, found.speed, found.memory, found.machine)


NAME_ROOM = 24  # columns of a name on the narrowest screen, whatever else then has to go on below
HEAD = ("model", "accuracy", "published, SST-2", "parameters", "MB", "p50 ms", "peak MB", "weights")
LEGEND = (
    "Random weights have the size and the speed of trained ones and no accuracy: such a row is on no front.",
    "Published accuracies are others' figures. Dev and test differ: compare neither with the other.",
)


def _sources(rows: Sequence[Baseline]) -> dict[Published, int]:
    """Each distinct source with its number, in the order of the rows."""
    cited = dict.fromkeys(_citation(p) for row in rows for p in row.published)
    numbers = {citation: i for i, citation in enumerate(cited, start=1)}
    return {p: numbers[_citation(p)] for row in rows for p in row.published}


def _citation(published: Published) -> str:
    second = f" (second-hand: {published.second_hand})" if published.second_hand else ""
    return f"{published.source}{second}" + (f"; {published.note}" if published.note else "")


def _cells(row: Baseline, sources: Mapping[Published, int]) -> list[str]:
    published = ", ".join(f"{p.accuracy_percent:.4g} {p.split} [{sources[p]}]" for p in row.published) or "-"
    return [
        f"{row.model} quant={row.quant}", row.accuracy, published, f"{row.size['parameters'] / 1e6:.2f} M",
        f"{row.size['file_bytes'] / 1e6:.2f}", f"{row.speed['latency_p50_ms']:.2f}",
        f"{row.memory['peak_rss_bytes'] / 1e6:.0f}", row.weights,
    ]  # fmt: skip


def _notes(rows: Sequence[Baseline]) -> list[str]:
    """What the columns mean, and where the figures come from."""
    how = sorted({(r.speed["sequence_length"], r.speed["threads"]) for r in rows})
    timed = " or ".join(f"{length} tokens on {threads} thread{'s' * (threads > 1)}" for length, threads in how)
    found = {row.machine["id"]: row.machine for row in rows}
    loads = [r.machine["load_average"][0] for r in rows]
    return [
        *LEGEND,
        f"p50 ms: one sentence of {timed}. Peak MB: of a process with Python and LiteRT in it.",
        *(f"Measured on {machine_line(machine)} (machine {key})." for key, machine in found.items()),
        f"Load average before the runs began: {min(loads):.2f} to {max(loads):.2f}. A lock keeps other measurements of "
        "this tool away, not other programs: on a shared machine trust the order of the rows more than milliseconds.",
        *(["Latencies come from several machines: compare them within one alone."] if len(found) > 1 else []),
    ]


def baselines_table(rows: Sequence[Baseline]) -> Table | None:
    """A row for each, the smallest file first; None without any."""
    if not rows:
        return None
    sources = _sources(rows)
    return Table("Baselines", HEAD, [_cells(row, sources) for row in rows])


def notes_on(rows: Sequence[Baseline]) -> list[str]:
    """The sources of the published figures, then what the columns mean and where ours come from."""
    if not rows:
        return []
    listed = dict(sorted((number, _citation(p)) for p, number in _sources(rows).items()))
    return [*(f"[{number}] {citation}" for number, citation in listed.items()), *_notes(rows)]


def screen_table(rows: Sequence[Baseline]) -> str:
    """For a screen; a name that is longer than its column goes on below."""
    tail = "{:<22}{:>6}{:>8}{:>8}{:>9}  {:<10}"
    heads = tail.format("accuracy", "M", "MB", "p50 ms", "peak MB", "weights")
    room = max(NAME_ROOM, width() - len(heads))
    lines = [beside("", "baseline", heads, room=room)]
    for row in rows:
        name, accuracy, _, parameters, size, speed, peak, weights = _cells(row, _sources(rows))
        lines.append(beside("", name, tail.format(accuracy[:21], parameters[:-2], size, speed, peak, weights),
                            room=room))  # fmt: skip
    return "\n".join(lines)
