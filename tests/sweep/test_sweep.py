"""Many points through the front door: what is shared, what survives, what is told."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import ROOT, Runs
from made_results import made, put
from omegaconf import OmegaConf

import optim
import optim.run.steps  # for every kind of step
from optim.command.start import started
from optim.common.errors import UserError
from optim.common.interrupts import Terminated
from optim.measure import device
from optim.report import wandb_report
from optim.run import card, one_point, process, result
from optim.run.compose import composed
from optim.run.config import Job
from optim.run.outcome import COSTS
from optim.run.step import Step
from optim.sweep import again, multirun, plan, verbs

GRID = ("-m", "prune=none,fixed50", "quant=none,int8")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """A cache of its own, in which stages can be counted."""
    return Runs(tmp_path_factory.mktemp("sweep"))


def call(runs: Runs, *words: str) -> list[str]:
    flags, pairs = [w for w in words if "=" not in w], [w for w in words if "=" in w]
    return [sys.executable, "train.py", *flags, *runs.overrides(*pairs)]


def swept(runs: Runs, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(call(runs, *words), cwd=ROOT, capture_output=True, text=True, timeout=500)


def stages(runs: Runs) -> dict[str, int]:
    kinds = ("teacher", "logits", "student", "float32", "file", "figures")
    return {kind: len(list((runs.cache / "stages").glob(f"{kind}-*/stage.json"))) for kind in kinds}


@pytest.fixture(scope="module")
def first(runs: Runs) -> tuple[subprocess.CompletedProcess[str], dict[str, int]]:
    """The first sweep, of four points, and how many stages of each kind it left."""
    return swept(runs, *GRID), stages(runs)


def planned(text: str) -> dict[str, tuple[int, int]]:
    """Stage -> (to build, at hand) of a plan on the screen."""
    found = re.findall(r"^  (\w+) +(\d+) +(\d+) ", text, re.MULTILINE)
    return {kind: (int(new), int(old)) for kind, new, old in found}


@pytest.mark.parametrize(("part", "done"), [("README.md", True), ("labels.json", False)])
def test_a_point_whose_bundle_lacks_a_part_is_run_again(runs, first, part, done, monkeypatch):
    """By the plan and by the process of the point alike: either alone would leave it as it is."""
    job = composed(runs.overrides("prune=fixed50", "quant=int8"))
    (planned_one,) = plan.plan([job]).points
    content = (planned_one.folder / "bundle" / part).read_bytes()
    (planned_one.folder / "bundle" / part).unlink()
    made_again: list[Job] = []
    monkeypatch.setattr(process, "_is_light", lambda point, cache_dir: True)
    monkeypatch.setattr(process, "_run_light", lambda job, quiet: bool(made_again.append(job)))
    try:
        assert plan.plan([job]).points[0].done == done
        assert process.run_apart(job) == done
        assert made_again == ([] if done else [job])
    finally:
        (planned_one.folder / "bundle" / part).write_bytes(content)


def test_the_time_of_every_kind_of_stage_is_in_one_sum():
    """Of tokens alone it is in none: that is no part of a model's cost."""
    summed = [kind for kinds in COSTS.values() for kind in kinds]
    assert sorted([*summed, "tokens"]) == sorted(plan.STAGES)


def test_the_plan_of_27_points_shares_what_can_be_shared(runs, first):
    done = swept(runs, "-m", "prune=none,fixed50,poly80", "quant=none,fp16,int8", "distill.temperature=1,2,4",
                 "sweep.dry_run=true", "seed=7")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "27 points: 0 done, 27 to run" in done.stdout
    plan = planned(done.stdout)
    assert plan["teacher"] == (1, 0)
    assert plan["student"] == (6, 0), "prune=none trains none, whatever the temperature"
    assert plan["file"] == (21, 0)
    assert plan["tokens"] == (0, 1), "the sweep before left them"


def test_a_sweep_says_a_line_for_each_point_and_no_stage(first):
    done, _ = first
    lines = done.stderr.splitlines()
    told = [re.fullmatch(r"point (\d) of 4(, about \S+ \w+ left)?: (\S+) [01]\.\d{4}, .* ms", line) for line in lines]
    assert [(m[1], m[3]) for m in told if m] == [
        ("1", "tiny-float32-s0"), ("2", "tiny-int8-s0"), ("3", "tiny-fixed50-float32-T2-s0"),
        ("4", "tiny-fixed50-int8-T2-s0"),
    ]  # fmt: skip
    assert [bool(m[2]) for m in told if m] == [True, True, True, False]
    others = [line for line, match in zip(lines, told, strict=True) if not match]
    of_timing = r"measure   the timing of|Another process measures on this machine|  \w+: "
    assert all(re.match(of_timing, line) for line in others), others
    assert "\r" not in done.stderr


@pytest.mark.slow
def test_verbosity_brings_the_stages_back(runs, first):
    done = swept(runs, "-m", "prune=none", "quant=fp16,int8", "seed=0", "verbosity=stages", "bench.min_calls=6")
    assert done.returncode == 0, done.stderr
    assert {"teacher", "export", "measure"} <= {line.split(" ")[0] for line in done.stderr.splitlines()}
    assert "agrees with Keras on" in done.stdout


def test_a_sweep_makes_each_stage_once_and_compares(runs, first):
    done, counts = first
    assert done.returncode == 0, done.stderr
    assert counts == {"teacher": 1, "logits": 1, "student": 1, "float32": 2, "file": 4, "figures": 4}
    folders = [
        f for f in (runs.results / "sweeps").iterdir() if len(json.loads((f / "sweep.json").read_text())["points"]) == 4
    ]
    assert len(folders) == 1
    assert {"sweep.json", "results.csv", "report.html", "report.md"} <= {p.name for p in folders[0].iterdir()}
    assert len((folders[0] / "results.csv").read_text().splitlines()) == 5
    assert "The smallest file within 1 point of it: tiny " in " ".join(done.stdout.split())
    table = done.stdout[done.stdout.index("point   ") : done.stdout.index("on the front")]
    assert table.count("tiny prune=") == 4
    assert max(map(len, table.splitlines())) <= 100


def test_a_finished_sweep_imports_nothing_heavy(runs, first):
    """Each point has a process of its own: TensorFlow is never in the program that launches them."""
    code = ("import sys; sys.argv[0] = 'train.py'; import train; train.main(); "
            "heavy = {'tensorflow', 'wandb', 'datasets'} & set(sys.modules); assert not heavy, heavy")  # fmt: skip
    command = [sys.executable, "-c", code, *call(runs, *GRID)[2:]]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert "4 points: 4 done, 0 to run" in done.stdout


def test_a_mistake_in_one_point_stops_the_sweep_before_it_starts(runs):
    done = swept(runs, "-m", "prune=fixed50", "prune.sparsity=0.5,1.5")
    assert done.returncode == 2
    assert "prune.sparsity must be a fraction" in done.stderr
    assert "In the point: python train.py" in done.stderr
    assert "Traceback" not in done.stderr


def point_process(sweep: subprocess.Popen) -> int:
    """The process of the point that is at work."""
    while sweep.poll() is None:
        for task in Path("/proc").glob("[0-9]*"):
            try:
                _, parent, _, session = (task / "stat").read_text().rsplit(")", 1)[1].split()[:4]
                if str(sweep.pid) in (parent, session) and b"optim.run.process" in (task / "cmdline").read_bytes():
                    return int(task.name)
            except (OSError, ValueError, IndexError):
                continue
        time.sleep(0.05)
    raise AssertionError("the sweep ended before a point was found")


on_linux = pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")


@on_linux
@pytest.mark.slow
def test_a_killed_point_fails_alone_and_is_run_again(runs, first):
    words = ("-m", "prune=fixed80", "quant=none,int8")
    sweep = subprocess.Popen(call(runs, *words), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    os.kill(point_process(sweep), signal.SIGKILL)
    out, err = sweep.communicate(timeout=300)
    assert sweep.returncode == 1, err
    assert "ended by SIGKILL" in out
    assert len(re.findall(r"^Failed: python train.py .*quant=none", out, re.MULTILINE)) == 1
    again = swept(runs, *words)
    assert again.returncode == 0, again.stderr
    assert "2 points: 1 done, 1 to run" in again.stdout


def _heed_ctrl_c() -> None:
    """Background jobs of a shell, and so perhaps this test, are started with SIGINT ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@on_linux
@pytest.mark.slow
@pytest.mark.parametrize("program", [("train.py", "-m"), ("sweep.py", "sweep=grid")])
def test_ctrl_c_stops_within_seconds_and_the_point_with_it(program, runs, first):
    words = runs.overrides("prune=poly50", "quant=none,int8", "fit.student.epochs=500")
    sweep = subprocess.Popen([sys.executable, *program, *words], cwd=ROOT, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, text=True, start_new_session=True,
                             preexec_fn=_heed_ctrl_c)  # fmt: skip
    child, begun = point_process(sweep), time.time()
    while not any(half.stat().st_mtime > begun for half in (runs.cache / "stages").glob(".scratch-student-*/half.npz")):
        assert time.time() < begun + 100
        time.sleep(0.1)
    start = time.monotonic()
    os.killpg(sweep.pid, signal.SIGINT)
    _, err = sweep.communicate(timeout=60)
    assert time.monotonic() - start < 10  # 5 on a quiet machine
    assert sweep.returncode == 130
    assert "Traceback" not in err
    told = 2 if program[0] == "train.py" else 3
    assert err.count("Stopped. The same command goes on") == told, "each process had the time to say so"
    assert not Path(f"/proc/{child}").exists()
    assert err.count("saved first") == 1, "the fit goes on from its last step"


@on_linux
@pytest.mark.slow
def test_a_point_does_not_outlive_a_killed_sweep(runs, first):
    words = ("-m", "prune=poly80", "quant=none,int8", "fit.student.epochs=500")
    sweep = subprocess.Popen(call(runs, *words), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    child = Path(f"/proc/{point_process(sweep)}")
    time.sleep(3)
    sweep.kill()
    sweep.wait()
    until = time.monotonic() + 10
    while child.exists() and time.monotonic() < until:
        time.sleep(0.1)
    assert not child.exists()


def test_pick_and_report_of_a_finished_sweep(runs, first):
    done = runs.sweep("sweep=pick")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Best: tiny")
    done = runs.sweep("sweep=pick", "budget.file_mb=0.001")
    assert done.returncode == 2
    assert "excludes" in done.stderr
    assert "Traceback" not in done.stderr
    done = runs.sweep("sweep=report")
    assert done.returncode == 0, done.stderr
    assert (runs.results / "index.sqlite").is_file()


@pytest.mark.slow
def test_measure_times_each_distinct_file_once_and_the_comparison_takes_it(runs, first):
    moved = next(runs.results.glob("*/result.json"))
    own = moved.read_text()
    here = json.loads(own)["machine"]["id"]
    moved.write_text(own.replace(f'"id": "{here}"', '"id": "elsewhere"'))
    done = runs.sweep("sweep=measure", "bench=quick")
    assert done.returncode == 0, done.stderr
    told = re.search(r"^(\d+) files of (\d+) points", done.stdout, re.MULTILINE)
    assert told is not None
    assert int(told[1]) >= 4
    for path in runs.results.glob("*/remeasured.json"):
        later, then = json.loads(path.read_text()), json.loads((path.parent / "result.json").read_text())
        assert later["speed"]["calls"] >= 5
        assert ("memory" in later) == (path.parent == moved.parent), "weighed again where it was weighed elsewhere"
        assert 0.2 < later["speed"]["latency_p50_ms"] / then["speed"]["latency_p50_ms"] < 5
        speed = later["speed"]
        assert set(speed) == set(then["speed"]), "every figure comes from the one measurement"
        assert speed["speedup_vs_float32"] == speed["float32_latency_p50_ms"] / speed["latency_p50_ms"]
        assert speed["float32_latency_p50_ms"] != then["speed"]["float32_latency_p50_ms"]
    weight = json.loads((moved.parent / "remeasured.json").read_text())["memory"]
    assert weight["peak_rss_bytes"] > weight["baseline_rss_bytes"] > 1e7
    moved.write_text(own)
    rows = (runs.results / "report" / "results.csv").read_text()
    some = json.loads(next(runs.results.glob("*/remeasured.json")).read_text())
    assert str(some["speed"]["latency_p50_ms"]) in rows


@pytest.fixture
def alone(tmp_path, monkeypatch):
    """A job whose run folder is tmp_path/abc, and the process of a point, of which `wait` is to be set."""
    child = SimpleNamespace(stdin=io.StringIO(), returncode=0)
    monkeypatch.setattr(process, "point_of", lambda cfg: None)
    monkeypatch.setattr(process, "run_id_of", lambda point: "abc")
    monkeypatch.setattr(process, "_is_light", lambda point, cache_dir: False)
    monkeypatch.setattr(process.subprocess, "Popen", lambda *args, **more: child)
    cfg = OmegaConf.create({"results_dir": str(tmp_path), "cache_dir": str(tmp_path), "verbosity": "points"})
    return Job(cfg, {}, [], dirs=[], config_name="train"), child


def test_a_process_that_dies_on_its_way_out_leaves_its_result(alone, tmp_path):
    job, child = alone

    def wait() -> None:
        (put(tmp_path, "abc", wrong=range(1), ms=1.0, mb=1.0) / "bundle").mkdir()
        child.returncode = -signal.SIGSEGV

    child.wait = wait
    assert process.run_apart(job)
    assert result.read(tmp_path / "abc") is not None


def test_a_point_is_terminated_with_what_started_it(alone):
    """SIGTERM reaches one process of two; the other has to save its fit as well."""
    job, child = alone
    told = []

    def wait(timeout: float | None = None) -> None:
        if timeout is None:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        told.append(("ended within", timeout))

    child.wait, child.terminate = wait, lambda: told.append("terminated")
    with pytest.raises(SystemExit):
        process.run_apart(job)
    assert told == ["terminated", ("ended within", process.STOP_S)]


@pytest.mark.parametrize("stop", [KeyboardInterrupt, Terminated])
def test_ctrl_c_within_a_point_that_needs_no_process_ends_the_sweep(stop, alone, monkeypatch):
    def stopped(job, *, quiet):
        raise stop

    monkeypatch.setattr(process, "_is_light", lambda point, cache_dir: True)
    monkeypatch.setattr(process, "run", stopped)
    with pytest.raises(stop):
        process.run_apart(alone[0])


def test_a_grid_says_what_its_points_refuse_in_a_line(tmp_path):
    """What this process sets for Hydra would pass for the user's wish to see whole errors."""
    for word in ("foo=1", "quant=foo"):
        command = [sys.executable, "sweep.py", "sweep=grid", "model=tiny", f"results_dir={tmp_path}", word]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)
        assert done.returncode == 2, done.stderr
        assert "Traceback" not in done.stderr
        assert done.stderr.startswith("Error: ")


def test_a_sweep_that_is_terminated_closes_what_it_has_open(capsys):
    """A folder on a board, or a child of its own: by default the signal ends a program where it stands."""
    closed = []

    def sweep() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        finally:
            closed.append("the folder")

    before = signal.signal(signal.SIGTERM, lambda number, frame: None)  # this test shall fail, not be killed
    try:
        assert started(sweep, lambda: None) == 143
    finally:
        signal.signal(signal.SIGTERM, before)
    assert closed == ["the folder"]
    assert "Stopped by SIGTERM" in capsys.readouterr().err


@pytest.mark.parametrize("key", ["results_dir", "cache_dir"])
def test_a_sweep_over_folders_is_refused(key):
    """Its points have one run_id, so all but one of them would pass for done."""
    cfg = {"results_dir": "results", "cache_dir": "cache"}
    jobs: Any = [SimpleNamespace(cfg={**cfg, key: folder}) for folder in ("a", "b", "a")]
    with pytest.raises(UserError, match=f"{key}: a sweep has one; got a, b. Start a sweep for each."):
        plan.plan(jobs)


def test_a_grid_that_is_terminated_terminates_its_points(monkeypatch):
    """A scheduler's SIGTERM reaches sweep.py alone; the points would go on beside the same command given again."""
    told = []

    class Sweep:
        def __init__(self, command: list[str], **more) -> None:
            pass

        def wait(self, timeout: float | None = None) -> int:
            if timeout is None:
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(5)
            told.append("ended")
            return -signal.SIGTERM

        def terminate(self) -> None:
            told.append("terminated")

    monkeypatch.setattr(verbs.subprocess, "Popen", Sweep)
    with pytest.raises(SystemExit) as end:
        verbs.Grid(points={}).run(SimpleNamespace(overrides=[], results_dir="r", dry_run=False))  # type: ignore[arg-type]
    assert (end.value.code, told) == (143, ["terminated", "ended"])


def test_a_grid_keeps_its_order_whatever_the_command_line_sets(monkeypatch):
    """The last key changes fastest: what stands last decides which points come one after another."""
    started = []

    class Done:
        def __init__(self, command: list[str], **more) -> None:
            started.append(command[5:])

        def wait(self) -> int:
            return 0

    monkeypatch.setattr(verbs.subprocess, "Popen", Done)
    grid = verbs.Grid(points={"prune": "none,fixed50", "distill.temperature": "1,2", "quant": "none,int8"})
    told = SimpleNamespace(overrides=["model=tiny", "distill.temperature=2,1"], results_dir="r", dry_run=False)
    assert grid.run(told) == 0  # type: ignore[arg-type]
    words = ["prune=none,fixed50", "distill.temperature=2,1", "quant=none,int8", "model=tiny", "results_dir=r"]
    assert started == [words]


def test_a_plan_counts_every_kind_of_stage():
    def below(kind):
        for one in kind.__subclasses__():
            yield one
            yield from below(one)

    kinds = {one.kind for one in below(Step) if hasattr(one, "kind") and one.__module__.startswith("optim.")}
    assert {"alignment", "surgery", "figures"} <= kinds <= set(plan.STAGES)


def test_a_point_without_room_in_the_cache_leaves_its_reason(tmp_path):
    job = composed(["model=tiny", "data=reviews", "track=none", "cache_free_gb=1e9",
                    f"results_dir={tmp_path / 'r'}", f"cache_dir={tmp_path / 'c'}"])  # fmt: skip
    with pytest.raises(UserError, match="cache_free_gb"):
        one_point.run(job)
    (folder,) = (tmp_path / "r").iterdir()
    assert "cache_free_gb=1e+09" in (result.error_of(folder) or "")


def test_the_load_of_a_machine_is_that_before_the_run(monkeypatch, tmp_path):
    order = []

    def computed(*given):
        order.append("computed")
        raise KeyboardInterrupt

    monkeypatch.setattr(device, "machine", lambda: order.append("machine") or {})
    monkeypatch.setattr(one_point, "computed", computed)
    with pytest.raises(KeyboardInterrupt):
        one_point._compute(None, SimpleNamespace(choices={"model": "m", "data": "d"}), tmp_path, tmp_path, None)  # type: ignore[arg-type]
    assert order == ["machine", "computed"]


def test_a_search_takes_the_tracker_that_an_experiment_names():
    settings: Any = SimpleNamespace(overrides=["experiment=smoke", "distill=kd"], composed=composed)
    track = verbs._track(settings)
    assert track == {"method": "none"}
    assert verbs.group_words(track, "search-1") == []


def test_a_grid_takes_no_list():
    with pytest.raises(UserError, match=r"sweep\.points\.prune must be values with commas .* got \[none,fixed50\]"):
        verbs.Grid(points={"prune": ["none", "fixed50"]})
    with pytest.raises(UserError, match=r"sweep\.points\.distill\.temperature must be"):
        verbs.Grid(points={"distill": {"temperature": [1, 2]}})
    assert verbs.Grid(points={"distill": {"temperature": 2}}).points == {"distill.temperature": "2"}


def test_a_full_disk_does_not_hide_its_reason(monkeypatch, tmp_path):
    def full(path, text):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(result, "write_text", full)
    job = composed(["model=tiny", "data=reviews", "track=none", "cache_free_gb=1e9",
                    f"results_dir={tmp_path / 'r'}", f"cache_dir={tmp_path / 'c'}"])  # fmt: skip
    with pytest.raises(UserError, match="cache_free_gb"):
        one_point.run(job)


@pytest.fixture
def two(tmp_path, monkeypatch):
    """The end of a sweep of two points, of which one is done: what it is given, and its folder."""
    monkeypatch.setattr(wandb_report, "save", lambda *given: None)
    monkeypatch.setattr(again, "measure_noisy_again", lambda *given: 0)
    monkeypatch.setattr(multirun, "build", lambda *given: None)
    cfg = OmegaConf.create({"track": {"method": "none"}, "bench": {}})
    job: Any = SimpleNamespace(results_dir=tmp_path, command="python train.py seed=1", cfg=cfg)
    points: Any = [SimpleNamespace(folder=tmp_path / name, job=job) for name in ("a1", "a2")]
    (put(tmp_path, "a1", wrong=range(3), ms=1.0, mb=1.0) / "bundle").mkdir()
    folder = tmp_path / "sweeps" / "x"
    folder.mkdir(parents=True)
    return points, folder


def test_the_page_of_a_sweep_takes_a_point_that_was_run_alone_since(two, tmp_path):
    points, folder = two
    plans: Any = [SimpleNamespace(points=points, todo=todo) for todo in ([points[1]], [])]
    assert not multirun._close(plans[0], folder)
    assert len((folder / "results.csv").read_text().splitlines()) == 2
    (put(tmp_path, "a2", wrong=range(2), ms=1.0, mb=1.0) / "bundle").mkdir()
    assert multirun._close(plans[1], folder)
    assert len((folder / "results.csv").read_text().splitlines()) == 3
    page = folder / "report.html"
    written = page.stat().st_mtime_ns
    assert multirun._close(plans[1], folder)
    assert page.stat().st_mtime_ns == written, "nothing is new"


def test_a_point_whose_job_may_still_run_is_not_told_to_be_not_run(two, capsys):
    points, folder = two
    plan: Any = SimpleNamespace(points=points, todo=[points[1]])
    multirun._close(plan, folder, multirun.NOT_ENDED)
    assert "the launcher gave up, and may have left its job running" in capsys.readouterr().out
    old = put(points[1].folder.parent, points[1].folder.name, wrong=range(1), ms=1, mb=1, status=result.FAILED)
    multirun._close(plan, folder, multirun.NOT_ENDED, time.time() + 1)
    assert "the launcher gave up" in capsys.readouterr().out, "not of what an earlier sweep left"
    multirun._close(plan, folder, multirun.NOT_ENDED, (old / result.FILE).stat().st_mtime)
    assert "it broke" in capsys.readouterr().out


def test_how_a_search_times_is_asked_of_no_key_of_its_data():
    """`data.path` is one of the experiment's data alone: a search of it died after its last trial."""
    settings: Any = SimpleNamespace(
        overrides=["experiment=frontier", "data.path=DIR", "bench.threads=2"], composed=composed
    )
    assert verbs._bench(settings).threads == 2


def test_of_two_values_of_a_key_of_a_grid_the_last_one_counts():
    grid = verbs.Grid(points={"prune": "none,poly50", "quant": "none,int8"})
    assert grid.words(["prune=none", "seed=1", "prune=fixed50"]) == ["prune=fixed50", "quant=none,int8", "seed=1"]


def test_a_run_that_is_stopped_leaves_what_another_process_has_finished(tmp_path, monkeypatch):
    """Two sweeps at once are at one point: the first one ends it, the second one is stopped just then."""
    folder = tmp_path / "abc"

    def stopped(*given):
        (put(tmp_path, "abc", wrong=range(1), ms=1.0, mb=1.0) / "bundle").mkdir()
        raise KeyboardInterrupt

    tracked = SimpleNamespace(curve=None, record=lambda *given, **more: None)
    monkeypatch.setattr(one_point, "_opened", lambda *given: nullcontext(tracked))
    monkeypatch.setattr(one_point, "_compute", stopped)
    with pytest.raises(KeyboardInterrupt):
        one_point._tracked(None, made("abc", accuracy=0.0, status=result.FAILED), folder, tmp_path, None)  # type: ignore[arg-type]
    assert result.read(folder) is not None


def test_two_runs_of_one_point_may_end_together(tmp_path, monkeypatch):
    """The bundle of the other one takes its place between the removal of the old one and the renaming."""
    part, bundle = tmp_path / "part", tmp_path / "bundle"
    for folder in (part, bundle):
        folder.mkdir()
        (folder / "f").touch()
    monkeypatch.setattr(card.shutil, "rmtree", lambda *given, **more: None)
    card._put(part, bundle)
    assert (bundle / "f").is_file()


def test_a_point_without_its_bundle_is_left_out_of_a_measurement(tmp_path):
    put(tmp_path, "abc", wrong=range(1), ms=1.0, mb=1.0)
    for words in (["sweep=measure"], ["sweep=measure", "sweep.dry_run=true"]):
        command = [sys.executable, "sweep.py", *words, f"results_dir={tmp_path}", "bench=quick"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)
        assert done.returncode == 2
        assert "abc is left out: its bundle is not there any more. Run it again: python train.py" in done.stderr
        assert "holds no finished point" in done.stderr


def test_a_point_that_may_not_be_written_is_left_out_before_anything_is_timed(tmp_path, monkeypatch, capsys):
    for name in ("mine", "theirs"):
        (put(tmp_path, name, wrong=range(1), ms=1.0, mb=1.0) / "bundle").mkdir()
        for file in ("model.tflite", "tokenizer.json"):
            (tmp_path / name / "bundle" / file).write_bytes(b"x")
    monkeypatch.setattr("os.access", lambda path, mode: Path(path).name == "mine")
    settings: Any = SimpleNamespace(results_dir=tmp_path)
    assert [p.folder.name for p in verbs._files_of(settings)] == ["mine"]
    assert f"{tmp_path / 'theirs'} is left out: it cannot be written.\n" in capsys.readouterr().err


def test_a_machine_must_be_named(tmp_path):
    """machine=$ID where ID is not set answered by the figures of this one."""
    put(tmp_path, "abc", wrong=range(1), ms=1.0, mb=1.0)
    done = subprocess.run([sys.executable, "sweep.py", "sweep=pick", "machine=", f"results_dir={tmp_path}"], cwd=ROOT,
                          capture_output=True, text=True, timeout=100)  # fmt: skip
    assert (done.returncode, "has 8 hexadecimal digits" in done.stderr) == (2, True), done.stdout


@pytest.mark.parametrize("word", ["hydra/launcher=joblib", "hydra.launcher.n_jobs=4", "hydra/sweeper=basic"])
def test_a_launcher_that_would_not_be_asked_is_refused_in_python(word):
    with pytest.raises(UserError, match=r"changes nothing: optim\.sweep starts its points itself"):
        optim.sweep("model=tiny", "data=reviews", "sweep.dry_run=true", word)


def test_a_letter_that_the_screen_lacks_ends_no_program(tmp_path):
    results = tmp_path / "\u65e5\u672c"
    put(results, "abc", wrong=range(1), ms=1.0, mb=1.0)
    command = [sys.executable, "sweep.py", "sweep=pick", f'results_dir="{results}"']
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100,
                          env={**os.environ, "PYTHONIOENCODING": "latin-1"})  # fmt: skip
    assert (done.returncode, "\\u65e5\\u672c/abc/bundle" in done.stdout) == (0, True), done.stderr
