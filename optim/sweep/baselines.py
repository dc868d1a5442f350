"""Known small models through this same code, and what others published of them.

Where the weights of a model cannot be had, its architecture is measured with random weights: a row with size, speed
and memory and no accuracy. Such a row is no result, so it is on no front. `python -m optim.sweep.baselines` is the
process that measures one; like that of a point it gives its memory back.
"""

from __future__ import annotations

import filecmp
import json
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from optim.common.build import build, method
from optim.common.errors import UserError
from optim.common.files import environment, first_line, write_text
from optim.common.screen import log_to
from optim.common.stages import digest_of
from optim.report.baselines import FINE_TUNED, FOLDER, RANDOM, SCHEMA, Published, read_baselines, screen_table
from optim.report.markdown import baselines_page
from optim.run import result
from optim.run.config import Job
from optim.run.guarded import guarded
from optim.run.keys import FILES, RUNTIME, made_by, run_id_of, written
from optim.run.places import file_named
from optim.run.point import point_of
from optim.run.process import death, run_apart
from optim.run.worded import worded
from optim.run.words import group_of, key_of
from optim.sweep.settings import EVERY

if TYPE_CHECKING:
    from optim.data.tokens import Tokens
    from optim.encoder.architecture import Architecture
    from optim.sweep.settings import Settings


PAGE = "baselines.md"  # in it
CLASSES = 2  # as SST-2 has
SENTENCES = 32  # that time and weigh a model of random weights, and calibrate it unless more are asked for
log = logging.getLogger("optim")


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
@method("sweep", "baselines")
@dataclass(frozen=True, kw_only=True)
class Baselines:
    """Every named model: fine-tuned as a point where its weights can be had, else measured with random weights."""

    models: Sequence[str]
    paths: Mapping[str, str]  # model -> a folder with its checkpoint
    catalogue: str  # a file in conf, or in a folder of --config-dir

    reads: ClassVar = EVERY
    launches: ClassVar = False

    def run(self, settings: Settings) -> int:
        """Makes what is missing, then the page. 1 if a model failed."""
        known = read_catalogue(file_named(self.catalogue))
        self._check(known, settings.overrides)
        jobs = {name: self._job(name, settings) for name in self.models}
        if settings.dry_run:
            print("\n".join(f"{name:<14}{job.command}" for name, job in jobs.items()))
            print("Models whose weights cannot be had are measured with random ones. Which: it is asked when they run.")
            return 0
        failed = [name for name, job in jobs.items() if not self._make(name, job, known[name])]
        rows = read_baselines(settings.results_dir)
        page = settings.results_dir / FOLDER / PAGE
        write_text(page, baselines_page(rows))
        print(f"\n{screen_table(rows)}\n\n  {page}")
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
        if given := [word for word in overrides if group_of(word) == "model"]:
            raise UserError(
                f"sweep=baselines chooses the models itself: use sweep.models and sweep.paths, not {given[0]}."
            )

    def _job(self, name: str, settings: Settings) -> Job:
        words = [f"model={name}", "quant=int8", worded("results_dir", settings.results_dir)]
        words += [worded("model.path", self.paths[name])] if name in self.paths else []
        given = set(map(key_of, settings.overrides))
        job = settings.composed([*(word for word in words if key_of(word) not in given), *settings.overrides])
        build(job.cfg.track, "track")  # without a key W&B takes no point
        quantizer = build(job.cfg.quant, "quant")
        if quantizer.tables or quantizer.choice or quantizer.wrappers:
            raise UserError(
                f"sweep=baselines cannot have quant={job.choices['quant']}: it needs a fitted student, and a model "
                "whose weights cannot be had is measured with random ones. Choose another quant, int8 for one."
            )
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
    from optim.measure.device import machine_id

    specs: dict[str, Any] = OmegaConf.to_container(job.cfg, resolve=True)  # type: ignore[assignment]
    asked = {"config": config, "pooling": specs["model"]["pooling"], "quant": specs["quant"], "bench": specs["bench"]}
    made = {**written(), **made_by(*FILES, *RUNTIME)}
    key = digest_of({"schema": SCHEMA, "machine": machine_id(), **made, **asked})
    with suppress(OSError, ValueError, KeyError):
        if json.loads(file.read_text(encoding="utf-8"))["key"] == key:
            log.info("Measured before; delete %s to do it again.", file)
            return True
    command = [sys.executable, "-m", "optim.sweep.baselines"]
    child = subprocess.run(command, input=json.dumps(asked), stdout=subprocess.PIPE, text=True, env=environment())
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
    from optim.measure.device import machine, token_windows
    from optim.measure.file import sizes
    from optim.measure.memory import peak_memory

    how, quantizer = build(DictConfig(bench), "bench"), build(DictConfig(quant), "quant")
    here = machine()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
        shape = read_config(folder, pooling=pooling, classes=CLASSES)
        count = max(SENTENCES, quantizer.calibration.samples if quantizer.calibration else 0)
        tokens = _tokens(shape.vocabulary_size, how.sequence_length, count)
        file, float32 = folder / "model.tflite", folder / "float32.tflite"
        parameters = _export(shape, quantizer, tokens, file, float32)
        windows = token_windows(tokens.ids, how.sequence_length)
        return {
            "size": {**sizes(file), "parameters": parameters},
            "speed": _speed(file, float32, tokens.ids, how),
            "memory": peak_memory(file, windows=windows, threads=how.threads),
            "machine": here,
        }


def _tokens(vocabulary_size: int, length: int, count: int) -> Tokens:
    """`count` sentences of `length` ids from all over the vocabulary: what a call takes does not depend on which."""
    from optim.data.tokens import Tokens

    ids = np.random.default_rng(0).integers(0, vocabulary_size, count * length).astype(np.int32)
    return Tokens(ids, np.arange(count + 1, dtype=np.int64) * length, np.zeros(count, np.int32))


def _export(shape: Architecture, quantizer, tokens: Tokens, file: Path, float32: Path) -> int:
    """Writes both files and returns the number of parameters."""
    from optim.common.screen import without_chatter

    with without_chatter():
        import tf_keras as keras

        from optim.encoder import graph
        from optim.export.convert import convert
        from optim.export.quantize import Student

        keras.utils.set_random_seed(0)
        model = graph.classifier(shape, single=True)
    float32.write_bytes(convert(model))
    file.write_bytes(quantizer.run(Student(load=lambda: model, float32_path=float32, train=tokens)))
    return int(model.count_params())


def _speed(file: Path, float32: Path, ids: np.ndarray, bench) -> dict[str, Any]:
    """The part of result.json's `speed` that depends on no data."""
    from optim.measure.latency import latency

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


def main() -> int:
    """The process of one model: the arguments of `measured` as JSON on stdin, its answer as the last line of stdout."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    log_to(sys.stderr)
    asked = json.load(sys.stdin)
    return guarded(lambda: print(json.dumps(measured(**asked))))


if __name__ == "__main__":
    sys.exit(main())
