"""What is measured once more at the end of a sweep."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from made_results import put

from optim.measure.latency import Bench
from optim.report.finished import Finished
from optim.run.result import REMEASURED
from optim.sweep import again, remeasure

BENCH = Bench(sequence_length=128, threads=1, warmup_calls=1, min_calls=1, min_seconds=0.1)


@pytest.fixture
def measured(monkeypatch) -> list[str]:
    """Run ids, as they are measured; the second measurement is as noisy as the first."""
    ids: list[str] = []

    def remeasure(points, bench: Bench) -> int:
        ids.extend(p.result.run_id for p in points)
        for p in points:
            machine, speed = p.result.machine, p.result.speed
            (p.folder / REMEASURED).write_text(json.dumps({"machine": machine, "speed": speed}))
        return len(points)

    monkeypatch.setattr(again, "remeasure", remeasure)
    monkeypatch.setattr(again, "machine_id", lambda: "m1")
    return ids


def with_files(run: Path) -> None:
    """The run with what it takes to measure it again."""
    (run / "bundle").mkdir()
    for name in ("model.tflite", "tokenizer.json"):
        (run / "bundle" / name).write_text("x")


def test_what_is_noisy_is_measured_again_once(measured, tmp_path):
    with_files(put(tmp_path, "calm", wrong=range(5), ms=10, mb=20))
    with_files(put(tmp_path, "unsteady", wrong=range(5), ms=4, mb=40, p90_ms=6, float32_ms=10.0))
    with_files(put(tmp_path, "elsewhere", wrong=range(5), ms=4, mb=40, p90_ms=6, machine="m2"))
    put(tmp_path, "gone", wrong=range(5), ms=4, mb=40, p90_ms=6)
    assert again.measure_noisy_again([tmp_path], BENCH) == 1
    assert measured == ["unsteady"]
    assert again.measure_noisy_again([tmp_path], BENCH) == 0, "what is noisy twice stays as it is, and is marked"


def test_what_was_timed_in_another_way_is_left_alone(measured, tmp_path):
    with_files(put(tmp_path, "unsteady", wrong=range(5), ms=4, mb=40, p90_ms=6))
    other = Bench(sequence_length=64, threads=1, warmup_calls=1, min_calls=1, min_seconds=0.1)
    assert again.measure_noisy_again([tmp_path], other) == 0
    assert measured == []


def test_a_cache_that_one_may_not_look_into_lacks_the_float32_file(tmp_path, monkeypatch):
    """As another user's, of results that were made in a container. `Path.is_file` raises there."""
    found: Any = SimpleNamespace(cost={"stages": {"float32-a": 1.0}}, cfg={"cache_dir": "/forbidden/cache"})
    point = Finished(found, tmp_path, None, None)

    def forbidden(path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(remeasure.Path, "is_file", forbidden)
    assert remeasure._float32(point) is None
