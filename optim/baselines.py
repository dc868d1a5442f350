"""Known small models through this same code, and what others published of them.

Where the weights of a model cannot be had, its architecture is measured with random weights: a row with size, speed
and memory and no accuracy. Such a row is no result, so it is on no front. `python -m optim.baselines` is the process
that measures one; like that of a point it gives its memory back.
"""

from __future__ import annotations

import filecmp
import html
import json
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from optim import compare, result
from optim.build import build
from optim.errors import UserError, require_number
from optim.files import first_line, write_text
from optim.point import CONF, Job, death, guarded, log_to, point_of, run_apart, run_id_of
from optim.stages import digest_of

if TYPE_CHECKING:
    from optim.data import Tokens
    from optim.encoder.architecture import Architecture
    from optim.sweeps import Settings

ROOT = Path(__file__).resolve().parent.parent
FOLDER = "baselines"  # under results_dir
PAGE = "baselines.md"  # in it
FINE_TUNED, RANDOM = "fine-tuned", "random"
SPLITS = ("dev", "test")
CLASSES = 2  # as SST-2 has
SENTENCES = 32  # that time, weigh and calibrate a model of random weights
SCHEMA = 1  # of a record; raised when code changes what its figures mean

log = logging.getLogger("optim")


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


@dataclass(frozen=True)
class Known:
    """What the catalogue holds of a model."""

    config: dict[str, Any]  # as in its config.json
    published: list[Published]


def read_catalogue(path: Path) -> dict[str, Known]:
    """Model -> its architecture and published accuracies. Raises UserError for what is missing or misspelt."""
    try:
        entries = OmegaConf.to_container(OmegaConf.load(path))
    except (OSError, OmegaConfBaseException, YAMLError, ValueError) as error:
        raise UserError(f"sweep.catalogue: {path} cannot be read ({first_line(error)}).") from error
    if not isinstance(entries, dict):
        raise UserError(f"sweep.catalogue: {path} must map each model to its config and published.")
    return {str(name): _known(path, str(name), entry) for name, entry in entries.items()}


def _known(path: Path, name: str, entry: Any) -> Known:
    try:
        return Known(dict(entry["config"]), [Published(**row) for row in entry["published"]])
    except UserError as error:
        raise UserError(f"sweep.catalogue: {path}, {name}: {error}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"sweep.catalogue: {path}, {name}: needs config (a mapping) and published (a list of accuracy_percent, "
            f"split, source, and perhaps second_hand and note): {first_line(error)}."
        ) from error


# The sweep


@dataclass(frozen=True, kw_only=True)
class Baselines:
    """Every named model: fine-tuned as a point where its weights can be had, else measured with random weights."""

    models: Sequence[str]
    paths: Mapping[str, str]  # model -> a folder with its checkpoint
    catalogue: str  # a file in conf

    def run(self, told: Settings) -> int:
        """Makes what is missing, then the page. 1 if a model failed."""
        known = read_catalogue(CONF / self.catalogue)
        self._check(known, told.overrides)
        jobs = {name: self._job(name, told) for name in self.models}
        failed = [name for name, job in jobs.items() if not self._make(name, job, known[name])]
        rows = read_rows(told.results_dir)
        page = told.results_dir / FOLDER / PAGE
        write_text(page, to_page(rows))
        print(f"\n{table(rows)}\n\n  {page}")
        for name in failed:
            print(f"Failed: {jobs[name].command}")
        return 1 if failed else 0

    def _check(self, known: Mapping[str, Known], overrides: Sequence[str]) -> None:
        """Raises UserError for a mistake in the settings, before anything is made."""
        if not self.models:
            raise UserError("sweep.models is empty. Name at least one model of conf/model.")
        unknown = [name for name in self.models if name not in known]
        if unknown:
            raise UserError(f"sweep.models: {self.catalogue} has no {', '.join(unknown)}; it has {', '.join(known)}.")
        strange = [name for name in self.paths if name not in self.models]
        if strange:
            raise UserError(f"sweep.paths names {', '.join(strange)}, which sweep.models does not.")
        if given := [word for word in overrides if word.split("=")[0].split(".")[0].lstrip("+~") == "model"]:
            raise UserError(
                f"sweep=baselines chooses the models itself: use sweep.models and sweep.paths, not {given[0]}."
            )

    def _job(self, name: str, told: Settings) -> Job:
        words = [f"model={name}", "quant=int8", f"results_dir={told.results_dir}"]
        words += [f"model.path={self.paths[name]}"] if name in self.paths else []
        given = {word.split("=")[0] for word in told.overrides}
        job = told.composed([*(word for word in words if word.split("=")[0] not in given), *told.overrides])
        point = point_of(job.cfg)
        if name in self.paths:
            point.checkpoint.fingerprint()  # a folder that is none is a mistake, not a reason for random weights
        return job

    def _make(self, name: str, job: Job, known: Known) -> bool:
        """Leaves the record of a model; whether it could."""
        folder = job.results_dir / FOLDER
        result.require_writable(job.results_dir, folder)
        result.require_space(job.cache_dir, free_gb=job.cfg.cache_free_gb)
        shared = {"model": name, "quant": job.choices["quant"], "published": [asdict(row) for row in known.published]}
        if why := None if name in self.paths else lacking(job):
            log.info("%s: random weights, as its own cannot be had. %s", name, why)
            return _random(folder / f"{name}.json", job, known.config, {**shared, "why": why})
        log.info("%s: fine-tuned", name)
        if not run_apart(job):
            return False
        _write(folder / f"{name}.json", {**shared, "weights": FINE_TUNED, "run_id": run_id_of(point_of(job.cfg))})
        return True


def lacking(job: Job) -> str | None:
    """Why the weights of the job's model cannot be had; None if they are at hand now."""
    try:
        build(job.cfg.model, "model").fetch(job.cache_dir)
    except UserError as error:
        return first_line(error)
    return None


def _random(file: Path, job: Job, config: dict[str, Any], shared: dict[str, Any]) -> bool:
    """The record of a model with random weights; one of the same settings and machine is kept."""
    from optim.measure import machine_id

    specs: dict[str, Any] = OmegaConf.to_container(job.cfg, resolve=True)  # type: ignore[assignment]
    asked = {"config": config, "pooling": specs["model"]["pooling"], "quant": specs["quant"], "bench": specs["bench"]}
    key = digest_of({"schema": SCHEMA, "machine": machine_id(), **asked})
    with suppress(OSError, ValueError, KeyError):
        if json.loads(file.read_text(encoding="utf-8"))["key"] == key:
            log.info("Measured before; delete %s to do it again.", file)
            return True
    command = [sys.executable, "-m", "optim.baselines"]
    child = subprocess.run(command, input=json.dumps(asked), stdout=subprocess.PIPE, text=True, cwd=ROOT)
    if child.returncode:
        if child.returncode < 0:
            print(f"Failed: {death(child.returncode)}", file=sys.stderr)
        return False
    found = json.loads(child.stdout.splitlines()[-1])
    _write(file, {**shared, "weights": RANDOM, "key": key, **found})
    return True


def _write(file: Path, record: dict[str, Any]) -> None:
    write_text(file, json.dumps({"schema": SCHEMA, **record}, indent=2) + "\n")


# A model of random weights


def measured(*, config: dict[str, Any], pooling: str, quant: dict[str, Any], bench: dict[str, Any]) -> dict[str, Any]:
    """size, speed, memory and machine of the file that the architecture `config` becomes with random weights.

    The keys are those of result.json. Raises UserError for an architecture that cannot be built.
    """
    from optim.encoder.architecture import read_config
    from optim.measure import machine, peak_memory, sizes, token_windows

    how, quantizer = build(DictConfig(bench), "bench"), build(DictConfig(quant), "quant")
    here = machine()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
        shape = read_config(folder, pooling=pooling, classes=CLASSES)
        tokens = _tokens(shape.vocabulary_size, how.sequence_length)
        file, float32 = folder / "model.tflite", folder / "float32.tflite"
        parameters = _export(shape, quantizer, tokens, file, float32)
        windows = token_windows(tokens.ids, how.sequence_length)
        return {
            "size": {**sizes(file), "parameters": parameters},
            "speed": _speed(file, float32, tokens.ids, how),
            "memory": peak_memory(file, windows=windows, threads=how.threads),
            "machine": here,
        }


def _tokens(vocabulary_size: int, length: int) -> Tokens:
    """SENTENCES of `length` ids from all over the vocabulary: what a call takes does not hang on which."""
    from optim.data import Tokens

    ids = np.random.default_rng(0).integers(0, vocabulary_size, SENTENCES * length).astype(np.int32)
    return Tokens(ids, np.arange(SENTENCES + 1, dtype=np.int64) * length, np.zeros(SENTENCES, np.int32))


def _export(shape: Architecture, quantizer, tokens: Tokens, file: Path, float32: Path) -> int:
    """Writes both files and returns the number of parameters."""
    from optim.runtime import without_chatter

    with without_chatter():
        import tf_keras as keras

        from optim.encoder import graph
        from optim.quantize import convert

        keras.utils.set_random_seed(0)
        model = graph.classifier(shape, single=True)
    float32.write_bytes(convert(model))
    file.write_bytes(quantizer.run(model, float32, tokens))
    return int(model.count_params())


def _speed(file: Path, float32: Path, ids: np.ndarray, bench) -> dict[str, Any]:
    """The part of result.json's `speed` that hangs on no data."""
    from optim.measure import latency

    files = {"file": file} if filecmp.cmp(file, float32, shallow=False) else {"file": file, "float32": float32}
    times = latency(files, ids=ids, length=bench.sequence_length, bench=bench)
    whole_ms, own_ms = times.get("float32", times["file"])["latency_p50_ms"], times["file"]["latency_p50_ms"]
    return {
        **times["file"],
        "threads": bench.threads,
        "sequence_length": bench.sequence_length,
        "float32_latency_p50_ms": whole_ms,
        "speedup_vs_float32": whole_ms / own_ms,
    }


# The table


@dataclass(frozen=True)
class Row:
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


def read_rows(results_dir: Path) -> list[Row]:
    """The baselines under `results_dir`, the smallest file first. What is no record, or lost its point, is left out."""
    rows = []
    for path in sorted((results_dir / FOLDER).glob("*.json")):
        with suppress(OSError, ValueError, KeyError, TypeError):
            record = json.loads(path.read_text(encoding="utf-8"))
            if record["schema"] == SCHEMA and (row := _row(record, results_dir)):
                rows.append(row)
    return sorted(rows, key=lambda row: row.size["file_bytes"])


def _row(record: dict[str, Any], results_dir: Path) -> Row | None:
    published = [Published(**row) for row in record["published"]]
    named = (record["model"], record["quant"], record["weights"])
    if record["weights"] == RANDOM:
        parts = (record["size"], record["speed"], record["memory"], record["machine"])
        return Row(*named, "-", published, *parts, why=record["why"])
    points = compare.read_all([results_dir / record["run_id"]])[0]
    if not points:
        return None
    found = points[0].result
    accuracy = f"{points[0].accuracy:.4f} of {found.quality['examples']:,} ({found.data['name']})"
    return Row(*named, accuracy, published, found.size, found.speed, found.memory, found.machine)


HEAD = ("model", "accuracy", "published, SST-2", "parameters", "MB", "p50 ms", "peak MB", "weights")
LEGEND = (
    "Random weights have the size and the speed of trained ones and no accuracy: such a row is on no front.",
    "Published accuracies are others' figures. Dev and test differ: compare neither with the other.",
)


def _sources(rows: Sequence[Row]) -> dict[Published, int]:
    """Each distinct source with its number, in the order of the rows."""
    cited = dict.fromkeys(_citation(p) for row in rows for p in row.published)
    numbers = {citation: i for i, citation in enumerate(cited, start=1)}
    return {p: numbers[_citation(p)] for row in rows for p in row.published}


def _citation(published: Published) -> str:
    second = f" (second-hand: {published.second_hand})" if published.second_hand else ""
    return f"{published.source}{second}" + (f"; {published.note}" if published.note else "")


def _cells(row: Row, sources: Mapping[Published, int]) -> list[str]:
    told = ", ".join(f"{p.accuracy_percent:.4g} {p.split} [{sources[p]}]" for p in row.published) or "-"
    return [
        f"{row.model} quant={row.quant}", row.accuracy, told, f"{row.size['parameters'] / 1e6:.2f} M",
        f"{row.size['file_bytes'] / 1e6:.2f}", f"{row.speed['latency_p50_ms']:.2f}",
        f"{row.memory['peak_rss_bytes'] / 1e6:.0f}", row.weights,
    ]  # fmt: skip


def _notes(rows: Sequence[Row]) -> list[str]:
    """What the columns mean, and where the figures come from."""
    how = sorted({(r.speed["sequence_length"], r.speed["threads"]) for r in rows})
    timed = " or ".join(f"{length} tokens on {threads} thread{'s' * (threads > 1)}" for length, threads in how)
    found = {row.machine["id"]: row.machine for row in rows}
    machines = {key: f"{m['cpu']}, {m['cores']} cores, {' '.join(m['isa'])}" for key, m in found.items()}
    loads = [r.machine["load_average"][0] for r in rows]
    return [
        *LEGEND,
        f"p50 ms: one sentence of {timed}. Peak MB: of a process with Python and LiteRT in it.",
        *(f"Measured on {name} (machine {key})." for key, name in machines.items()),
        f"Load average before the timing: {min(loads):.2f} to {max(loads):.2f}. A lock keeps other measurements of "
        "this tool away, not other programs: on a shared machine trust the order of the rows more than milliseconds.",
        *(["**Latencies come from several machines: compare them within one alone.**"] if len(machines) > 1 else []),
    ]


def to_markdown(rows: Sequence[Row]) -> list[str]:
    """Lines: the table, its sources and its notes; none where there are no baselines."""
    if not rows:
        return []
    sources = _sources(rows)
    lines = [f"| {' | '.join(HEAD)} |", "|---" * len(HEAD) + "|"]
    lines += [f"| {' | '.join(_cells(row, sources))} |" for row in rows]
    listed = dict(sorted((number, _citation(p)) for p, number in sources.items()))
    lines += ["", *(f"- [{number}] {citation}" for number, citation in listed.items())]
    return [*lines, "", *(f"- {note}" for note in _notes(rows)), ""]


def to_html(rows: Sequence[Row]) -> str:
    """The same for a page."""
    if not rows:
        return ""
    sources = _sources(rows)
    head = "".join(f"<th>{title}" for title in HEAD)
    body = "".join(
        f"<tr title='{html.escape(row.why or '', quote=True)}'>"
        + "".join(f"<td>{html.escape(cell)}" for cell in _cells(row, sources))
        for row in rows
    )
    listed = dict(sorted((number, _citation(p)) for p, number in sources.items()))
    notes = [*(f"[{number}] {citation}" for number, citation in listed.items()), *_notes(rows)]
    items = "".join(f"<li>{html.escape(note.replace('**', ''))}" for note in notes)
    return f"<h2>Baselines</h2><table><tr>{head}{body}</table><ul>{items}</ul>"


def table(rows: Sequence[Row]) -> str:
    """For a screen of 100 columns."""
    lines = [f"{'baseline':<26}{'accuracy':<27}{'M':>7}{'MB':>8}{'p50 ms':>9}{'peak MB':>9}  weights"]
    for row in rows:
        name, accuracy, _, parameters, size, speed, peak, weights = _cells(row, _sources(rows))
        lines.append(
            f"{name[:25]:<26}{accuracy[:26]:<27}{parameters[:-2]:>7}{size:>8}{speed:>9}{peak:>9}  {weights}"[:100]
        )
    return "\n".join(lines)


def to_page(rows: Sequence[Row]) -> str:
    """A page by itself: docs/baselines.md is one."""
    why = dict.fromkeys(f"- {row.model}: {row.why}" for row in rows if row.why)
    reasons = ["Why the weights are random:", "", *why, ""] if why else []
    intro = [
        "# Baselines",
        "",
        "Written by `python sweep.py sweep=baselines`, exported and timed by the same code as any point.",
        "",
    ]
    return "\n".join([*intro, *to_markdown(rows), *reasons]).rstrip() + "\n"


def main() -> int:
    """The process of one model: the arguments of `measured` as JSON on stdin, its answer as the last line of stdout."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    log_to(sys.stderr)
    asked = json.load(sys.stdin)
    return guarded(lambda: print(json.dumps(measured(**asked))))


if __name__ == "__main__":
    sys.exit(main())
