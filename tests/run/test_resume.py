"""A run that is killed (SIGKILL) in each of its stages, and started again with the same command."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import DEV_COUNT, ROOT, Runs

SIGNS = {
    "teacher": "teacher   4 epochs",
    "student": "student   2 epochs",
    "export": "export    float32",
    "measure": "measure   ",
}
LIMIT_S = 240


def _start(runs: Runs, *more: str) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        "train.py",
        *runs.overrides("prune=fixed50", "quant=int8", "fit.teacher.epochs=4", *more),
    ]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _wait_for(process: subprocess.Popen[str], sign: str) -> str:
    """What the process says up to the line that shows that the stage has begun."""
    said, end = "", time.monotonic() + LIMIT_S
    assert process.stderr is not None
    while sign not in said:
        line = process.stderr.readline()
        assert line, f"the run ended before {sign!r}:\n{said}"
        assert time.monotonic() < end
        said += line
    return said


def _stages(cache: Path) -> set[str]:
    there = {path.name.split("-")[0] for path in (cache / "stages").iterdir() if path.is_dir() and path.name[0] != "."}
    return there - {"tiny"}  # the checkpoint


@pytest.mark.slow
def test_a_run_killed_in_every_stage_finishes_when_started_again(tmp_path):
    """Each time what was finished is kept, what was not is built, and only the last start leaves a result."""
    runs = Runs(tmp_path)
    there = {"teacher": {"tokens"}, "student": {"tokens", "teacher", "logits"},
             "export": {"tokens", "teacher", "logits", "student"},
             "measure": {"tokens", "teacher", "logits", "student", "float32", "file"}}  # fmt: skip
    teacher_time = None
    for stage, sign in SIGNS.items():
        process = _start(runs)
        said = _wait_for(process, sign)
        process.send_signal(signal.SIGKILL)
        process.wait(30)
        assert _stages(runs.cache) == there[stage]
        assert ("teacher   at hand" in said) == (stage in ("export", "measure"))
        assert not list(runs.results.glob("*/result.json"))
        if stage == "student":
            (teacher,) = (runs.cache / "stages").glob("teacher-*[0-9a-f]")
            teacher_time = (teacher / "weights.safetensors").stat().st_mtime_ns
    last = _start(runs)
    out, said = last.communicate(timeout=LIMIT_S)
    assert last.returncode == 0, said
    (file,) = runs.results.glob("*/result.json")
    result = json.loads(file.read_text())
    assert result["status"] == "done"
    assert result["quality"]["examples"] == DEV_COUNT
    assert {key.split("-")[0] for key, cached in result["cost"]["cached"].items() if not cached} == {"figures"}
    assert f"of {DEV_COUNT}" in out
    (teacher,) = (runs.cache / "stages").glob("teacher-*[0-9a-f]")
    assert (teacher / "weights.safetensors").stat().st_mtime_ns == teacher_time


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_run_says_so_and_loses_no_finished_stage(tmp_path, number, code):
    runs = Runs(tmp_path)
    process = _start(runs, "track=offline")
    _wait_for(process, SIGNS["student"])
    start = time.monotonic()
    os.kill(process.pid, number)
    _, said = process.communicate(timeout=LIMIT_S)
    assert process.returncode == code
    assert "Traceback" not in said
    assert said.count("The same command goes on from what it saved last.") == 1
    assert ("by SIGTERM" in said) == (number == signal.SIGTERM)
    assert _stages(runs.cache) == {"tokens", "teacher", "logits"}
    (file,) = runs.results.glob("*/result.json")
    assert json.loads(file.read_text())["status"] == "failed"
    from wandb_reader import read

    (tracked,) = runs.results.glob("wandb/offline-run-*/*.wandb")
    assert read(tracked).exit_code == code
    assert time.monotonic() - start < 60
