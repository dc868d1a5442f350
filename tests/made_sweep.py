"""A made-up sweep that looks like a real one: python tests/made_sweep.py FOLDER [COUNT]"""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from made_results import put

from optim.measure.quality import wilson
from optim.report.attached import CHANGED
from optim.run import result

EXAMPLES = 1500
CLASSES = ("negative", "positive")
MB = {"none": 90.3, "fp16": 45.2, "int8": 23.1}
MS = {"none": 25.4, "fp16": 25.1, "int8": 9.0}
PACKED = {"none": 0.92, "fixed50": 0.66, "poly80": 0.41}  # of the file, after gzip
LOST = {"none": 0.2, "fixed50": 0.7, "poly80": 2.6}  # points of accuracy
GRID = [*itertools.product(("none", "fixed50", "poly80"), ("none", "fp16", "int8"), (1.0, 2.0, 4.0))]  # 27 points


def sweep(folder: Path, count: int = len(GRID), *, classes: tuple[str, ...] = CLASSES) -> Path:
    """Makes `count` runs in `folder`/runs, and returns that: the grid, then the grid with the next seed, and so on."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, len(classes), EXAMPLES)
    teacher = spoiled(labels, 0.149, len(classes), rng)
    for i in range(count):
        prune, quant, temperature = GRID[i % len(GRID)]
        seed = i // len(GRID)
        lost = (
            LOST[prune] + (0.3 if quant == "int8" else 0) + abs(temperature - 2) * (0.4 if prune == "poly80" else 0.1)
        )
        answers = spoiled(teacher, float(np.clip(0.01 * (lost + rng.normal(0.2, 0.25)), 0, 1)), len(classes), rng)
        ms, mb = MS[quant] * float(rng.uniform(0.97, 1.05)), MB[quant] * float(rng.uniform(0.999, 1.001))
        run = put(folder / "runs", f"{i:016d}", wrong=range(1), ms=ms, mb=mb, prune=prune, quant=quant, seed=seed,
                  temperature=temperature, student=f"{prune}T{temperature:g}s{seed}")  # fmt: skip
        _describe(run, labels, answers, teacher, classes, packed=PACKED[prune], cache=folder / "cache")
        _write_curves(folder / "cache" / "stages" / f"student-{prune}T{temperature:g}s{seed}", rng)
    _write_curves(folder / "cache" / "stages" / "teacher-a", rng)
    return folder / "runs"


def spoiled(answers: np.ndarray, share: float, classes: int, rng: np.random.Generator) -> np.ndarray:
    """The answers with a share of them moved to another class."""
    moved = rng.random(len(answers)) < share
    return np.where(moved, (answers + rng.integers(1, classes, len(answers))) % classes, answers)


def _describe(run: Path, labels: np.ndarray, answers: np.ndarray, teacher: np.ndarray, classes: tuple[str, ...], *,
              packed: float, cache: Path) -> None:  # fmt: skip
    """Makes the result say what the answers say, with a bundle card and changed sentences beside it."""
    fields: dict[str, Any] = json.loads((run / result.FILE).read_text())
    right = int((answers == labels).sum())
    low, high = wilson(right, EXAMPLES)
    confusion = np.zeros((len(classes), len(classes)), int)
    np.add.at(confusion, (labels, answers), 1)
    fields["choices"] |= {"model": "minilm", "data": "made_up"}
    fields["command"] = (
        f"python train.py model=minilm data=made_up {fields['command'].removeprefix('python train.py ')}"
    )
    fields["data"] |= {"name": "made_up", "labels": list(classes)}
    fields["cfg"] |= {
        "cache_dir": str(cache),
        "fit": {"student": {"epochs": 2, "learning_rate": 1e-4, "batch_size": 64}},
    }
    fields["quality"] |= {
        "accuracy_fraction": right / EXAMPLES, "examples": EXAMPLES, "ci95_low": low, "ci95_high": high,
        "teacher_accuracy_fraction": float((teacher == labels).mean()), "confusion": confusion.tolist(),
    }  # fmt: skip
    size = fields["size"]
    size |= {"gzip_bytes": int(size["file_bytes"] * packed), "zstd_bytes": int(size["file_bytes"] * packed * 0.96)}
    fields["memory"]["peak_rss_bytes"] = int(size["file_bytes"] * 1.6 + 48e6)
    (run / result.FILE).write_text(json.dumps(fields, indent=2))
    result.write_answers(run, {"labels": labels, "answers": answers, "teacher": teacher})
    (run / "bundle").mkdir()
    (run / "bundle" / "README.md").write_text("# a card\n")
    changed = [
        {"row": int(i), "text": f"sentence number {i}, which is made up and says nothing of any film",
         "label": classes[labels[i]], "teacher": classes[teacher[i]], "answer": classes[answers[i]]}
        for i in np.flatnonzero(answers != teacher)
    ]  # fmt: skip
    (run / CHANGED).write_text("".join(json.dumps(row) + "\n" for row in changed))


def _write_curves(stage: Path, rng: np.random.Generator) -> None:
    steps = np.arange(0, 530, 10)
    losses = 0.2 + 0.5 * np.exp(-steps / 120) + rng.normal(0, 0.01, len(steps))
    rows = [{"step": int(s), "epoch": int(s // 265), "loss": float(x)} for s, x in zip(steps, losses, strict=True)]
    rows += [{"step": s, "epoch": 0, "holdout_loss": x, "holdout_accuracy_fraction": a}
             for s, x, a in ((265, 0.36, 0.84), (530, 0.33, 0.857))]  # fmt: skip
    stage.mkdir(parents=True, exist_ok=True)
    (stage / "fit.json").write_text(json.dumps({"rows": rows}))


if __name__ == "__main__":
    print(sweep(Path(sys.argv[1]), *map(int, sys.argv[2:3])))
