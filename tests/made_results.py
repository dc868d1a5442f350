"""Finished results made by hand, small enough to count."""

# ruff: noqa: E501
from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from conftest import ROOT

from optim.report import finished
from optim.run import result
from optim.run.result import Result

LABELS = np.zeros(100, np.int16)
PARTS = json.loads((ROOT / "docs" / "result.schema.json").read_text(encoding="utf-8"))["$defs"]
EMPTY = {"string": "", "integer": 0, "number": 0.0, "boolean": False, "array": [], "object": {}}


def put(folder: Path, run_id: str, *, wrong: range, ms: float, mb: float, machine: str = "m1", seed: int = 0,
        prune: str = "none", quant: str = "none", status: str = result.DONE, schema: int = result.SCHEMA,
        file: str = "", float32_ms: float = 10.0, temperature: float = 2.0, p90_ms: float | None = None,
        student: str = "") -> Path:  # fmt: skip
    """A result whose answers are wrong on `wrong`, of 100 sentences; the teacher is wrong on the first five.

    Runs whose ids differ in their last digits alone have one config, but for what is given.
    """
    answers, teacher = LABELS.copy(), LABELS.copy()
    answers[list(wrong)] = 1
    teacher[:5] = 1
    found = made(run_id, accuracy=float(np.mean(answers == 0)), ms=ms, mb=mb, machine=machine, seed=seed, prune=prune,
                 quant=quant, status=status, schema=schema, file=file, float32_ms=float32_ms, temperature=temperature,
                 p90_ms=p90_ms, student=student)  # fmt: skip
    run = folder / run_id
    run.mkdir(parents=True)
    result.write(found, run)
    result.write_answers(run, {"labels": LABELS, "answers": answers, "teacher": teacher})
    return run


def made(run_id: str, *, accuracy: float, ms: float = 1.0, mb: float = 1.0, machine: str = "m1", seed: int = 0,
         prune: str = "none", quant: str = "none", status: str = result.DONE, schema: int = result.SCHEMA,
         file: str = "", float32_ms: float = 10.0, temperature: float = 2.0, p90_ms: float | None = None,
         student: str = "", examples: int = 100, teacher_accuracy: float = 0.95) -> Result:  # fmt: skip
    """A result without files."""
    found = Result(
        schema=schema, run_id=run_id, status=status, error=None if status == result.DONE else "it broke",
        choices={"model": "tiny", "data": "sst2", "prune": prune, "distill": "kd", "quant": quant, "fit": "full"},
        cfg={"seed": seed, "prune": {"name": prune}, "quant": {"name": quant}, "distill": {"temperature": temperature},
             "made": run_id.rstrip("0123456789")},
        seed=seed, command=f"python train.py prune={prune} quant={quant} distill.temperature={temperature:g} seed={seed}",
        machine={"id": machine, "cpu": "a cpu", "cores": 2, "isa": ["avx2"]}, data={"digest": "d"},
        quality={"accuracy_fraction": accuracy, "examples": examples, "ci95_low": accuracy - 0.05, "ci95_high": accuracy + 0.05,
                 "mcc": 0.9, "macro_f1": accuracy, "teacher_accuracy_fraction": teacher_accuracy, "agreement_fraction": 1.0,
                 "ensemble_accuracy_fraction": None, "taught": True, "student_accuracy_fraction": accuracy,
                 "untaught_accuracy_fraction": None, "untaught_p": None, "teacher_helps": None,
                 "classes": [], "confusion": [], "kinds": []},
        size={"file_bytes": int(mb * 1e6), "gzip_bytes": int(mb * 8e5), "zstd_bytes": int(mb * 7e5), "compressed_bytes": None,
              "parameters": 10, "effective_parameters": 10, "zeroed_fraction": 0.0},
        speed={"latency_p50_ms": ms, "latency_p90_ms": ms if p90_ms is None else p90_ms, "latency_p99_ms": ms, "sequence_length": 128, "threads": 1,
               "float32_latency_p50_ms": float32_ms, "speedup_vs_float32": float32_ms / ms, "median_length_latency_p50_ms": ms,
               "dev_mix_latency_p50_ms": ms / 4, "dev_mix_latency_p99_ms": ms, "length_change_p50_ms": 0.1,
               "zeros_accelerated": None, "zeros_speedup": None, "decompress_p50_ms": None},
        memory={"peak_rss_bytes": 1},
        cost={"teacher_s": 10.0, "student_s": 5.0, "export_s": 1.0, "measure_s": 1.0,
              "stages": {"teacher-a": 10.0, f"student-{student or prune}": 5.0, f"file-{file or run_id}": 1.0}},
    )  # fmt: skip
    return replace(found, **{part: whole(part, getattr(found, part)) for part in PARTS})


def whole(part: str, given: dict[str, Any]) -> dict[str, Any]:
    """A part of a result with every key that it must hold: what is not given is empty."""
    kinds = {key: PARTS[part]["properties"][key].get("type") for key in PARTS[part]["required"]}
    return {key: EMPTY.get(kind) for key, kind in kinds.items()} | given


def finished_point(run_id: str, right: np.ndarray, teacher_right: np.ndarray, **figures) -> finished.Finished:
    """A point that was never written; bool [n] each."""
    shares = {"accuracy": float(right.mean()), "teacher_accuracy": float(teacher_right.mean())}
    return finished.Finished(made(run_id, examples=len(right), **shares, **figures), Path(), right, teacher_right)


def points(folder: Path) -> dict[str, finished.Finished]:
    """Finished points by run_id."""
    return {p.result.run_id: p for p in finished.read_all([folder])[0]}
