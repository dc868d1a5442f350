"""The tracker: what it writes, and that nothing which happens to it reaches the run."""

from __future__ import annotations

import inspect
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import wandb_reader
from wandb_standin import serving

from optim.common.build import methods
from optim.common.errors import UserError
from optim.common.interrupts import terminate_on_sigterm
from optim.track import key, names, sender

ROOT = Path(__file__).resolve().parents[2]
CFG = {
    "seed": 7,
    "distill": {"teacher": "mpnet", "temperature": 2.0},
    "prune": {"sparsity": 0.5, "schedule": "constant"},
    "data": {"path": None, "columns": ["text", "label"]},
}
CHOICES = {"model": "tiny", "data": "csv", "prune": "fixed50", "distill": "kd", "quant": "int8"}
CHANGED = [
    {"text": "so good, it hurts", "label": "positive", "teacher": "positive", "file": "negative"},
    {"text": "<script>", "label": "negative", "teacher": "positive", "file": "negative"},
]
COMMIT = "git init -q . && git -c user.name=a -c user.email=a@b commit -q --allow-empty -m first"
RESULT = {
    "schema": 1,
    "run_id": "point1",
    "status": "done",
    "error": None,
    "choices": CHOICES,
    "cfg": CFG,
    "quality": {
        "accuracy_fraction": 0.8956422018348624,
        "examples": 872,
        "ci95_low": 0.8736,
        "ci95_high": 0.9142,
        "classes": [
            {"label": "negative", "examples": 400, "answered": 0, "precision": None, "recall": 0.0, "f1": 0.0},
            {"label": "positive", "examples": 472, "answered": 872, "precision": 0.54, "recall": 1.0, "f1": 0.7},
        ],
    },
    "size": {"file_bytes": 23_456_789, "zeroed_fraction": 0.5},
    "speed": {"latency_p50_ms": 12.3456789012345, "threads": 1, "speedup_vs_float32": 4.0},
    "memory": {"peak_rss_bytes": 5_000_000_000},
    "cost": {"teacher_s": 0.0, "cached": True},
    "machine": {"cpu": "a cpu", "isa": ["avx2", "vnni"], "versions": {"tensorflow": "2.21.0", "numpy": "2.0"}},
    "seed": 0,
    "command": "python train.py prune=fixed50 quant=int8",
}


@pytest.fixture(autouse=True)
def _alone(tmp_path, monkeypatch):
    """No home, no W&B settings, no key of the person who runs the tests."""
    _isolate(tmp_path, monkeypatch)


def _isolate(folder: Path, patch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("WANDB_") or name == "NETRC"]:
        patch.delenv(name)
    patch.setenv("HOME", str(folder))
    patch.chdir(folder)


def tracker(folder: Path, **changes) -> sender.Tracker:
    """A W&B tracker that writes below `folder`."""
    settings = {
        "mode": "offline",
        "project": "tests",
        "entity": None,
        "dir": str(folder),
        "group": "sweep1",
        "tags": ["a", "b"],
        "artifact": True,
        "init_timeout_s": 5.0,
        "finish_timeout_s": 30.0,
    }
    return sender.wandb_run(**{**settings, **changes})


def only_run(folder: Path, run_id: str) -> wandb_reader.OfflineRun:
    """The one W&B run with that id below `folder`."""
    (path,) = wandb_reader.find(folder, run_id)
    return wandb_reader.read(path)


def warnings(text: str) -> list[str]:
    """The tracker's lines in what went to stderr."""
    return [line for line in text.splitlines() if line.startswith("Warning: W&B: ")]


# ---- what is written ----


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Iterator[tuple[wandb_reader.OfflineRun, Path]]:
    """One complete run, as wandb wrote it offline, and the card of its bundle."""
    folder = tmp_path_factory.mktemp("written")
    with pytest.MonkeyPatch.context() as patch:
        _isolate(folder, patch)
        card = folder / "bundle" / "README.md"
        card.parent.mkdir()
        card.write_text("# model card\n")
        (card.parent / "model.tflite").write_bytes(b"a file")
        (folder / "changed.jsonl").write_text("".join(json.dumps(row) + "\n" for row in CHANGED))
        subprocess.run(COMMIT, cwd=folder, check=True, shell=True, capture_output=True)
        with tracker(folder / "results").run(run_id="point1", cfg=CFG, choices=CHOICES, job_type="student") as run:
            for step in range(300):
                run.curve("teacher", {"step": 10 * step, "loss": 1 / (1 + step)})
            for step in range(3):
                run.curve("student", {"step": step, "loss": np.float32(0.5), "sparsity": np.float64(0.25)})
            run.record(RESULT, folder=folder)
        yield only_run(folder / "results", "point1"), card


IN_A_PROCESS = """
import sys
from optim.track.sender import wandb_run
tracker = wandb_run(mode="offline", project="tests", entity=None, dir=sys.argv[1], group=None, tags=[],
                    artifact=True, init_timeout_s=5.0, finish_timeout_s=30.0)
with tracker.run(run_id="apart", cfg={}, choices={}, job_type="student") as run:
    run.curve("teacher", {"step": 0, "loss": 1.0})
    run.record({"run_id": "apart"}, folder=None)
sys.exit("wandb" in sys.modules)
"""


def test_the_process_of_a_run_does_not_import_wandb(tmp_path):
    command = [sys.executable, "-c", IN_A_PROCESS, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert only_run(tmp_path, "apart").figures() == {"run_id": "apart"}


TOP = {
    "accuracy_fraction": RESULT["quality"]["accuracy_fraction"],
    "file_bytes": 23_456_789,
    "latency_p50_ms": 12.3456789012345,
    "peak_rss_bytes": 5_000_000_000,
}


def test_summary_is_the_result_figure_by_figure_and_what_a_sweep_aims_at_by_itself(written):
    run, _ = written
    assert run.figures() == {key: value for key, value in RESULT.items() if key not in ("cfg", "choices")} | TOP


def test_what_a_sweep_aims_at_is_in_the_history_too(written):
    run, _ = written
    assert [row for row in run.rows if "accuracy_fraction" in row] == [TOP]


def test_config_holds_cfg_and_choices_apart(written):
    run, _ = written
    assert {key: value for key, value in run.config.items() if key != "_wandb"} == {"cfg": CFG, "choices": CHOICES}


def test_run_carries_its_names(written):
    run, _ = written
    assert (run.run_id, run.project, run.group, run.job_type) == ("point1", "tests", "sweep1", "student")
    assert run.name == "tiny-fixed50-int8-mpnet-T2-s7"
    assert set(run.tags) == {"a", "b", "model=tiny", "data=csv", "prune=fixed50", "distill=kd", "quant=int8"}


def test_git_commit_and_the_load_of_the_machine_are_written_down(written):
    run, card = written
    told = subprocess.run(["git", "rev-parse", "HEAD"], cwd=card.parent, capture_output=True, text=True, check=True)
    assert run.git_commit == told.stdout.strip()
    assert {"memory_percent", "proc.memory.availableMB", "proc.memory.rssMB"} <= run.system


def test_errors_by_class_and_changed_sentences_are_tables(written):
    run, card = written
    (path,) = wandb_reader.find(card.parent.parent / "results", "point1")
    assert run.table(path, "tables/classes") == RESULT["quality"]["classes"]
    assert run.table(path, "tables/changed") == CHANGED


def test_curves_are_complete_each_over_its_own_steps(written):
    run, _ = written
    assert run.curve("teacher") == [{"step": 10 * step, "loss": 1 / (1 + step)} for step in range(300)]
    assert run.curve("student") == [{"step": step, "loss": 0.5, "sparsity": 0.25} for step in range(3)]
    assert len([row for row in run.rows if any(name.endswith("/step") for name in row)]) == 303
    assert run.summary["teacher/loss"] == {"min": 1 / 300}
    assert (run.summaries["student/holdout_accuracy_fraction"], run.summaries["student/step"]) == ("max", "none")
    assert run.step_metrics["teacher/*"] == "teacher/step"
    assert run.step_metrics["student/*"] == "student/step"


def test_bundle_is_a_version_of_the_model_on_its_data(written):
    run, card = written
    files = {"README.md": str(card), "model.tflite": str(card.parent / "model.tflite")}
    assert run.artifacts == {"tiny-csv": files}
    assert run.aliases == {"tiny-csv": {"latest", "point1", "fixed50-int8-mpnet-T2-s7"}}


def test_artifact_false_keeps_the_bundle_here(tmp_path):
    (tmp_path / "bundle").mkdir()
    with tracker(tmp_path, artifact=False).run(run_id="kept", cfg=CFG, choices=CHOICES, job_type="student") as run:
        run.record(RESULT, folder=tmp_path)
    found = only_run(tmp_path, "kept")
    assert (found.artifacts, found.exit_code) == ({}, 0)


@pytest.mark.parametrize(
    ("choices", "cfg", "name"),
    [
        (
            {"model": "minilm", "slim": "slim50", "vocab": "full", "prune": "none", "distill": "kd", "quant": "int8"},
            {"seed": 0, "distill": {"teacher": "same", "temperature": 2.0}},
            "minilm-slim50-int8-T2-s0",
        ),
        (
            {"model": "minilm", "slim": "none", "vocab": "seen", "prune": "nm24", "distill": "hidden", "quant": "none"},
            {"seed": 2, "distill": {"teacher": ["mpnet", "same"], "temperature": 1.5}},
            "minilm-seen-nm24-float32-hidden-mpnet-T1.5-s2",
        ),
        ({"model": "mobilebert", "distill": "none", "quant": "fp16"}, {"seed": 1}, "mobilebert-fp16-s1"),
    ],
)
def test_a_run_is_called_by_what_was_done(choices, cfg, name):
    assert names.run_name(cfg, choices, taught=True) == name


def test_a_teacher_is_not_called_by_the_temperature_that_nobody_uses():
    cfg, choices = {"seed": 0, "distill": {"temperature": 2.0}}, {"model": "tiny", "distill": "kd", "quant": "int8"}
    assert names.run_name(cfg, choices, taught=False) == "tiny-int8-s0"


def test_tags_are_short_enough_and_none_is_there_twice():
    assert names.tags({"model": "m" * 90, "quant": "int8"}, ["quant=int8"]) == ["quant=int8", "model=" + "m" * 58]


def test_run_is_closed_with_exit_code_0(written):
    run, _ = written
    assert (run.exit_code, run.preempting) == (0, False)


def test_home_gets_no_copy_of_the_card(written):
    _, card = written
    folder = card.parent.parent
    copies = [path for path in folder.rglob("*") if path.is_file() and path.read_bytes() == card.read_bytes()]
    assert copies == [card]
    assert not (folder / ".local").exists()  # where wandb keeps tables unless it is told otherwise


def test_reader_takes_a_file_cut_short_and_refuses_a_changed_one(written, tmp_path):
    _, card = written
    (path,) = wandb_reader.find(card.parent.parent / "results", "point1")
    data = path.read_bytes()
    copy = tmp_path / "copy.wandb"
    copy.write_bytes(data[: len(data) // 2])
    assert 0 < len(wandb_reader.read(copy).rows) < 303
    copy.write_bytes(data[:100] + bytes([data[100] ^ 1]) + data[101:])
    with pytest.raises(ValueError, match="checksum"):
        wandb_reader.read(copy)


# ---- closed on every way out ----


def test_two_runs_of_one_process_do_not_mix_and_close_with_what_ended_them(tmp_path, capfd):
    both = tracker(tmp_path)

    def point(run_id: str, n: int, stage: str, loss: float, end: BaseException) -> None:
        with both.run(run_id=run_id, cfg={"n": n}, choices={}, job_type="student") as run:
            run.curve(stage, {"step": n, "loss": loss})
            raise end

    with pytest.raises(ValueError, match="the body"):
        point("one", 1, "teacher", 0.25, ValueError("the body"))
    with pytest.raises(SystemExit):
        point("two", 2, "student", 0.75, SystemExit(3))
    one, two = only_run(tmp_path, "one"), only_run(tmp_path, "two")
    assert (one.rows, one.config["cfg"], one.exit_code) == ([{"teacher/step": 1, "teacher/loss": 0.25}], {"n": 1}, 1)
    assert (two.rows, two.config["cfg"], two.exit_code) == ([{"student/step": 2, "student/loss": 0.75}], {"n": 2}, 3)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ValueError("x"), 1),
        (KeyboardInterrupt(), 130),
        (SystemExit(), 0),
        (SystemExit(143), 143),
        (SystemExit("a message"), 1),
    ],
)
def test_exit_code_is_the_process_one(error, code):
    assert sender.exit_code_of(error) == code


SCRIPT = """
import os, sys, time
sys.path.insert(0, sys.argv[1])
from optim.common.interrupts import terminate_on_sigterm
from optim.track import sender
tracker = sender.wandb_run(mode="offline", project="tests", entity=None, dir=sys.argv[2], group=None, tags=[],
                          artifact=True, init_timeout_s=5, finish_timeout_s=30)
with terminate_on_sigterm(), tracker.run(run_id="point", cfg={}, choices={}, job_type="student") as run:
    for step in range(50):
        run.curve("teacher", {"step": step, "loss": 0.5})
    print(run.process.pid, flush=True)
    time.sleep(60)
"""


def _start_script(folder: Path) -> tuple[subprocess.Popen[str], int]:
    """A run in a process group of its own that has logged 50 rows and sleeps, and the id of its writer."""
    command = [sys.executable, "-c", SCRIPT, str(ROOT), str(folder)]
    script = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert script.stdout
    return script, int(script.stdout.readline())


def _wait_for(path: Path) -> None:
    end = time.monotonic() + 30
    while not path.exists() and time.monotonic() < end:
        time.sleep(0.02)


def test_sigterm_keeps_the_history_and_exits_143(tmp_path):
    script, writer = _start_script(tmp_path)
    _wait_for(tmp_path / "wandb")  # from here on the writer is at work
    for _ in range(2):  # as a scheduler does it: all processes of the job, more than once
        os.killpg(script.pid, signal.SIGTERM)
        os.kill(writer, signal.SIGTERM)
        time.sleep(0.2)
    _, stderr = script.communicate(timeout=30)
    run = only_run(tmp_path, "point")
    assert (script.returncode, stderr) == (143, "")
    assert [row["step"] for row in run.curve("teacher")] == list(range(50))
    assert (run.preempting, run.exit_code) == (True, 143)


def test_history_outlives_a_sigkill_of_the_run(tmp_path):
    script, _ = _start_script(tmp_path)
    _wait_for(tmp_path / "wandb")  # by now all rows are in the pipe, and W&B's file is still empty
    script.kill()
    script.communicate(timeout=30)  # returns when the writer, which shares stderr, is gone too
    run = only_run(tmp_path, "point")
    assert [row["step"] for row in run.curve("teacher")] == list(range(50))
    assert (run.preempting, run.exit_code) == (False, 137)


def test_sigterm_handler_is_put_back():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as stopped, terminate_on_sigterm():
        signal.raise_signal(signal.SIGTERM)
    assert stopped.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is before


def test_sigterm_is_left_alone_outside_the_main_thread():
    seen = []

    def body() -> None:
        with terminate_on_sigterm():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGTERM)]


# ---- a tracker that fails ----

FAKE = """
import time
from pathlib import Path

def step(name):
    with Path(__file__).with_name("calls.txt").open("a") as calls:
        calls.write(name + "\\n")
    if name == {at!r}:
        {action}

class Settings:
    def __init__(self, **settings): pass
class Summary:
    def update(self, values): step("summary")
class Run:
    id, dir, summary = "point", "files", Summary()
    def define_metric(self, *args, **kwargs): step("define_metric")
    def log(self, row): step("log")
    def log_artifact(self, artifact, aliases): step("artifact")
    def mark_preempting(self): step("preempting")
    def finish(self, exit_code): step("finish"); step(f"exit {{exit_code}}")
class Table:
    def __init__(self, **kwargs): pass
class Artifact:
    def __init__(self, *args, **kwargs): pass
    def add_file(self, *args, **kwargs): pass
def init(**arguments):
    step("init")
    return Run()
def teardown(): step("teardown")
step("import")
"""


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """fake(at, action): puts a stand-in for wandb on the path, which does `action` at step `at`."""

    def put(at: str, action: str) -> Path:
        folder = tmp_path / "fake"
        folder.mkdir()
        (folder / "wandb.py").write_text(FAKE.format(at=at, action=action))
        monkeypatch.syspath_prepend(folder)
        return folder / "calls.txt"

    return put


def _track_one(folder: Path, rows: int = 3, **changes) -> tuple[float, float]:
    """A small run; (seconds in the body, seconds to close)."""
    made = folder.parent / f"made-{folder.name}"  # folder may be one that cannot be written
    (made / "bundle").mkdir(parents=True, exist_ok=True)
    (made / "bundle" / "README.md").write_text("# model card\n")
    with tracker(folder, **changes).run(run_id="point", cfg=CFG, choices=CHOICES, job_type="student") as run:
        start = time.perf_counter()
        for step in range(rows):
            run.curve("teacher", {"step": step, "loss": 0.5})
        run.record(RESULT, folder=made)
        done = time.perf_counter()
    return done - start, time.perf_counter() - done


STEPS = ["import", "init", "define_metric", "log", "summary", "artifact", "finish", "teardown"]


@pytest.mark.parametrize("at", STEPS)
def test_wandb_that_raises_warns_once_and_fails_nothing(at, fake, tmp_path, capfd):
    calls = fake(at, "raise RuntimeError('this broke')")
    _track_one(tmp_path / "results", rows=3)
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("Warning: W&B: ")
    assert "RuntimeError: this broke." in line
    called = calls.read_text().split("\n")
    assert called.count(at) == 1
    if at in STEPS[2:6]:  # opened, so closed too, as what the run was: a success
        assert "exit 0" in called


def test_fake_without_a_fault_is_used_in_order_and_warns_of_nothing(fake, tmp_path, capfd):
    calls = fake("nowhere", "pass")
    _track_one(tmp_path / "results", rows=2)
    metrics, rows, figures, tables = ["define_metric"] * 5, ["log"] * 2, ["log"], ["log"]
    expected = [
        "import",
        "init",
        *metrics,
        *rows,
        *figures,
        "summary",
        *tables,
        "artifact",
        "finish",
        "exit 0",
        "teardown",
    ]
    assert (calls.read_text().split(), capfd.readouterr().err) == (" ".join(expected).split(), "")


@pytest.mark.timed
@pytest.mark.parametrize("at", ["import", "init", "log", "finish"])
def test_wandb_that_hangs_holds_up_neither_body_nor_end(at, fake, tmp_path, capfd):
    fake(at, "time.sleep(50)")
    body_s, close_s = _track_one(tmp_path / "results", rows=20_000, finish_timeout_s=1.0)  # far more than a pipe holds
    (line,) = capfd.readouterr().err.splitlines()
    assert body_s < 5  # of 50: time enough for a busy machine
    assert 0.9 < close_s < 5
    assert re.fullmatch(r"Warning: W&B: not finished after 1 s, given up\. .*wandb sync \S+/wandb/\*run-\*-point", line)


def test_upload_out_of_time_says_how_to_go_on(fake, tmp_path, capfd):
    fake("finish", "raise TimeoutError('Timed out finishing run.')")
    _track_one(tmp_path / "results")
    (line,) = capfd.readouterr().err.splitlines()
    assert re.fullmatch(r"Warning: W&B: upload not finished in time\. Upload later: wandb sync \S+", line)


def test_writer_that_dies_is_one_line(fake, tmp_path, capfd):
    fake("log", "import os; os.kill(os.getpid(), 9)")
    _track_one(tmp_path / "results", rows=20_000)
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("Warning: W&B: its process died (-9).")


def test_missing_wandb_is_one_line(tmp_path, monkeypatch, capfd):
    (tmp_path / "wandb.py").write_text("raise ModuleNotFoundError(\"No module named 'wandb'\")")
    monkeypatch.syspath_prepend(tmp_path)
    _track_one(tmp_path / "results")
    (line,) = capfd.readouterr().err.splitlines()
    assert line == "Warning: W&B: tracking stops: ModuleNotFoundError: No module named 'wandb'."


def test_folder_that_cannot_be_written_is_one_line(fake, tmp_path, capfd):
    calls = fake("nowhere", "pass")
    (tmp_path / "a file").write_text("")
    _track_one(tmp_path / "a file")
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("Warning: W&B: tracking stops: FileExistsError: ")
    assert "init" not in calls.read_text().split()


def test_no_process_for_it_is_one_line(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no python here"))
    _track_one(tmp_path / "results")
    assert len(warnings(capfd.readouterr().err)) == 1


def test_row_that_is_no_json_is_one_line_and_the_rest_is_closed(fake, tmp_path, capfd):
    calls = fake("nowhere", "pass")
    with tracker(tmp_path).run(run_id="point", cfg={}, choices={}, job_type="student") as run:
        for _ in range(3):
            run.curve("teacher", {("a", "tuple"): 1})  # pyright: ignore[reportArgumentType]
    assert len(warnings(capfd.readouterr().err)) == 1
    assert calls.read_text().split("\n")[:3] == ["import", "init", "finish"]


# ---- what goes to the process that writes ----

COPY = "import sys; from pathlib import Path; Path('sent.txt').write_text(sys.stdin.read(), encoding='utf-8')"


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """Puts a copier in the place of the process that writes; gives the messages that it got, once it has ended."""

    def start(module: str, function: str) -> subprocess.Popen[str]:
        return subprocess.Popen([sys.executable, "-c", COPY], stdin=subprocess.PIPE, cwd=tmp_path, encoding="utf-8")

    def messages() -> list[dict[str, Any]]:
        return [json.loads(line) for line in (tmp_path / "sent.txt").read_text(encoding="utf-8").splitlines()]

    monkeypatch.setattr(sender, "start_apart", start)
    return messages


@pytest.mark.parametrize("secret", ['pa"ssword', "back\\slash", "schlüssel", "two\nlines"])
def test_no_secret_is_sent_whatever_json_makes_of_it(secret, copied, tmp_path, monkeypatch):
    monkeypatch.setenv("MY_API_KEY", secret)
    cfg = CFG | {"data": {"path": Path(f"a/{secret}/b"), "columns": [secret]}}
    with tracker(tmp_path).run(run_id="point", cfg=cfg, choices=CHOICES, job_type="student") as run:
        run.record({"command": f"python train.py x={secret}", secret: 1}, folder=None)
    opened, recorded, _ = copied()
    assert opened["config"]["cfg"]["data"] == {"path": "a/***MY_API_KEY***/b", "columns": ["***MY_API_KEY***"]}
    assert recorded["result"] == {"command": "python train.py x=***MY_API_KEY***", "***MY_API_KEY***": 1}


def test_a_number_with_the_digits_of_a_secret_is_sent_as_it_is(copied, tmp_path, monkeypatch):
    monkeypatch.setenv("MAX_TOKENS", "100000")
    with tracker(tmp_path).run(run_id="point", cfg=CFG, choices=CHOICES, job_type="student") as run:
        run.curve("teacher", {"step": 100000, "loss": 0.100000, "n": np.int64(1000001)})
    _, row, closed = copied()
    assert row["row"] == {"step": 100000, "loss": 0.1, "n": 1000001}
    assert closed == {"kind": "close", "exit_code": 0}


def test_what_no_process_reads_is_not_queued(tmp_path, monkeypatch, capfd):
    def fails(module: str, function: str) -> subprocess.Popen[str]:
        raise OSError("no more processes")

    monkeypatch.setattr(sender, "start_apart", fails)
    with tracker(tmp_path).run(run_id="point", cfg=CFG, choices=CHOICES, job_type="student") as run:
        for step in range(3):
            run.curve("teacher", {"step": step})
        assert run.lines.empty()  # type: ignore[attr-defined]
    assert len(warnings(capfd.readouterr().err)) == 1


# ---- online ----


@pytest.mark.timed
def test_server_out_of_reach_falls_back_to_offline_in_time(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    body_s, close_s = _track_one(tmp_path, mode="online", init_timeout_s=1.0)
    (line,) = capfd.readouterr().err.splitlines()
    found = re.match(
        r"Warning: W&B: offline, since online failed: .* Upload later: wandb sync (\S+/offline-run-\S+)$", line
    )
    assert found
    run = wandb_reader.read(Path(found[1]) / "run-point.wandb")
    assert (len(run.curve("teacher")), run.figures()["quality"], run.exit_code) == (3, RESULT["quality"], 0)
    assert body_s < 5
    assert close_s < 20


def test_online_sends_curves_result_and_card(tmp_path, monkeypatch, capfd):
    with serving() as server:
        for name, value in server.env.items():
            monkeypatch.setenv(name, value)
        _track_one(tmp_path, mode="online")
    seen = server.seen
    assert capfd.readouterr().err == ""
    sent = [body["variables"]["input"] for name, body in seen if name == "CreateArtifact"]
    names = {one["artifactTypeName"]: one["artifactCollectionName"] for one in sent}  # W&B sends them side by side
    assert len(sent) == 2
    assert set(names) == {"run_table", "model"}
    assert names["model"] == "tiny-csv"
    streamed = [body for name, body in seen if name == "/files/me/tests/point/file_stream"]
    lines = {"wandb-history.jsonl": [], "wandb-summary.json": []}
    for body in streamed:
        for file, part in body.get("files", {}).items():
            lines.setdefault(file, []).extend(map(json.loads, part["content"]))
    rows = lines["wandb-history.jsonl"]
    assert [row["teacher/step"] for row in rows if "teacher/step" in row] == [0, 1, 2]
    assert lines["wandb-summary.json"][-1]["quality"] == RESULT["quality"]
    assert streamed[-1]["exitcode"] == 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mode": "online"}, ["track=wandb", "WANDB_API_KEY", "wandb login", "track=offline"]),
        ({"mode": "cloud"}, ["track.mode", "offline or online", "cloud"]),
        ({"init_timeout_s": 0}, ["track.init_timeout_s", "0"]),
        ({"finish_timeout_s": -1}, ["track.finish_timeout_s", "-1"]),
    ],
)
def test_what_the_user_got_wrong_is_said_before_the_run(changes, words, tmp_path):
    with pytest.raises(UserError) as error:
        tracker(tmp_path, **changes)
    assert all(word in str(error.value) for word in words)
    assert str(error.value).count("\n") <= 1


def test_key_is_found_where_wandb_looks(tmp_path, monkeypatch):
    assert not key.has_key()
    netrc = tmp_path / ".netrc"
    netrc.write_text("machine api.wandb.ai login user password secret\n")
    assert key.has_key()
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    assert not key.has_key(), "a key for another server is none"
    settings = tmp_path / ".config" / "wandb" / "settings"
    settings.parent.mkdir(parents=True)
    monkeypatch.delenv("WANDB_BASE_URL")
    settings.write_text("[default]\nbase_url = https://wandb.example.org\n")
    assert not key.has_key()
    settings.write_text("[default]\napi_key = secret\n")
    assert key.has_key()
    settings.write_bytes(b"\xff\xfe broken")
    netrc.write_bytes(b"machine \xff")
    assert not key.has_key()
    monkeypatch.setenv("WANDB_API_KEY", "secret")
    assert key.has_key()


# ---- the options ----


def test_none_does_nothing_and_imports_nothing(tmp_path):
    code = """
import sys
from pathlib import Path
from optim.track import sender
with sender.none().run(run_id="x", cfg={}, choices={}, job_type="student") as run:
    run.curve("teacher", {"step": 1})
    run.record({"status": "done"}, folder=None)
heavy = {"wandb", "numpy", "omegaconf", "hydra", "tensorflow"} & set(sys.modules)
sys.exit(str(heavy) if heavy else 0)
"""
    done = subprocess.run([sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{code}"], check=False)
    assert done.returncode == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("option", "mode"), [("offline", "offline"), ("wandb", "online"), ("none", None)])
def test_option_composes_and_names_every_argument(option, mode, monkeypatch):
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    monkeypatch.setenv("WANDB_API_KEY", "secret")
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose(overrides=[f"+track={option}", "+results_dir=somewhere"])
    arguments: Any = OmegaConf.to_container(cfg.track, resolve=True)
    factory = methods("track")[arguments.pop("method")].factory
    parameters = inspect.signature(factory).parameters.values()
    assert all(
        parameter.kind is parameter.KEYWORD_ONLY and parameter.default is parameter.empty for parameter in parameters
    )
    assert list(arguments) == [parameter.name for parameter in parameters]
    factory(**arguments)
    if mode:
        assert (arguments["mode"], arguments["dir"], arguments["project"]) == (mode, "somewhere", "distilbert-optim")


def test_every_option_file_is_tested_above():
    assert sorted(path.stem for path in (ROOT / "conf" / "track").glob("*.yaml")) == ["none", "offline", "wandb"]


def test_only_two_files_import_wandb_and_only_when_they_are_called():
    files = [*(ROOT / "optim").rglob("*.py"), *ROOT.glob("*.py")]
    importing = {path.name for path in files if re.search(r"^\s*(import|from) wandb", path.read_text(), re.MULTILINE)}
    assert importing == {"writer.py", "wandb_report.py"}
    assert not any(re.search(r"^(import|from) wandb", path.read_text(), re.MULTILINE) for path in files)
