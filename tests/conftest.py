"""What the tests share: sentences that a tiny model can learn, and runs of train.py through its front door."""

from __future__ import annotations

import atexit
import gc
import json
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from optim.run import config

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["HF_HUB_OFFLINE"] = "1"  # no test asks a real hub; those of the hub code start processes with their own
os.environ.pop("WANDB_API_KEY", None)

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts its background jobs with Ctrl-C ignored, and so would be the programs that tests interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)

if sys.dont_write_bytecode:
    # Without compiled modules every process that imports TensorFlow compiles its thousands of files anew, for five
    # seconds. Those of a session lie in a folder of their own, so none is left beside the sources.
    compiled = tempfile.mkdtemp(prefix="compiled-")
    atexit.register(shutil.rmtree, compiled, ignore_errors=True)
    sys.pycache_prefix = os.environ["PYTHONPYCACHEPREFIX"] = compiled
    sys.dont_write_bytecode = os.environ.pop("PYTHONDONTWRITEBYTECODE", None) is None

config.register()
ROOT = Path(__file__).parent.parent
BENCHMARKS = ROOT / "benchmarks"
CONF = ROOT / "conf"
POSITIVE = ("good", "wonderful", "charming", "funny", "great", "excellent")
NEGATIVE = ("bad", "awful", "boring", "dull", "terrible", "weak")
FILLER = ("the", "film", "is", "a", "very", "plot", "and", "story", "with", "this", "scene")
TRAIN_COUNT, DEV_COUNT = 600, 150


def sentences(count: int, seed: int) -> list[tuple[str, int]]:
    """Pairs (sentence, label): filler with two telling words of the label."""
    rng = random.Random(seed)
    rows = []
    for i in range(count):
        words = [rng.choice(FILLER) for _ in range(rng.randint(3, 14))]
        for _ in range(2):
            words.insert(rng.randint(0, len(words)), rng.choice((NEGATIVE, POSITIVE)[i % 2]))
        rows.append((" ".join(words), i % 2))
    return rows


def write_glue(folder: Path) -> Path:
    """A folder in GLUE's own layout."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, count, seed in (("train", TRAIN_COUNT, 0), ("dev", DEV_COUNT, 1)):
        lines = ["sentence\tlabel", *(f"{text}\t{label}" for text, label in sentences(count, seed))]
        (folder / f"{name}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


class Runs:
    """train.py on `model=tiny`, with one cache for all the runs of a session."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.cache, self.results = folder, folder / "cache", folder / "results"
        self.data = write_glue(folder / "glue")

    def overrides(self, *more: str) -> list[str]:
        """The command line of a quick run; what stands in `more` comes last and wins."""
        own = {
            "model": "tiny", "data": "sst2", "data.path": str(self.data), "bench": "quick", "track": "none",
            "fit.teacher.learning_rate": "3e-3", "fit.student.learning_rate": "2e-3", "fit.teacher.epochs": "3",
            "fit.student.epochs": "2", "fit.teacher.batch_size": "32", "fit.student.batch_size": "32",
            "results_dir": str(self.results), "cache_dir": str(self.cache), "cache_free_gb": "0.1",
        }  # fmt: skip
        own.update(dict(item.split("=", 1) for item in more))
        return [f"{key}={value}" for key, value in own.items()]

    def here(self, *more: str) -> dict[str, Any]:
        """A run in this process (TensorFlow is imported once); the content of its result.json."""
        return json.loads((self.folder_of(*more) / "result.json").read_text(encoding="utf-8"))

    def folder_of(self, *more: str) -> Path:
        """The run folder, after the run."""
        from hydra.core.global_hydra import GlobalHydra

        import train

        before = set(self.results.glob("*/result.json"))
        argv, handlers = sys.argv, logging.getLogger().handlers
        sys.argv = ["train.py", *self.overrides(*more)]
        try:
            train.main()
        finally:
            sys.argv, logging.getLogger().handlers = argv, handlers
            GlobalHydra.instance().clear()
        fresh = set(self.results.glob("*/result.json")) - before
        assert len(fresh) == 1, "the run was expected to leave one new result"
        return fresh.pop().parent

    def apart(self, *more: str, **env: str) -> subprocess.CompletedProcess[str]:
        """A run in its own process."""
        command = [sys.executable, "train.py", *self.overrides(*more)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, env={**os.environ, **env})

    def sweep(self, *words: str) -> subprocess.CompletedProcess[str]:
        """sweep.py on what these runs have left, in its own process."""
        command = [sys.executable, "sweep.py", f"results_dir={self.results}", *words]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """One cache for the whole session: the teacher is trained once."""
    return Runs(tmp_path_factory.mktemp("runs"))


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], ModuleType]]:
    """Imports a script of benchmarks/ by its name. It and those that it imports are forgotten after the test."""
    before = set(sys.modules)
    for folder in (BENCHMARKS / "peers", BENCHMARKS):
        monkeypatch.syspath_prepend(str(folder))
    yield import_module
    for name in set(sys.modules) - before:
        if Path(getattr(sys.modules[name], "__file__", None) or "/").is_relative_to(BENCHMARKS):
            del sys.modules[name]


@pytest.fixture
def ctrl_c() -> Iterator[Callable[[], None]]:
    """A Ctrl-C, when it is called."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield partial(signal.raise_signal, signal.SIGINT)
    signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True)
def _small_heap() -> Iterator[None]:
    """Once TensorFlow is there, its million objects are no longer looked at by the garbage collector.

    Each measurement collects before its clocks start, and would look at all of them for a fifth of a second.
    """
    yield
    if "tensorflow" in sys.modules and not gc.get_freeze_count():
        gc.collect()
        gc.freeze()
