"""Every launcher really runs points, through the front door: they share what they can, and one may be killed."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest
from conftest import ROOT, Runs

MARK = "OPTIM_TEST_OF"  # an environment variable by which a test finds the processes that it started
on_linux = pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """One cache for all but the race."""
    return Runs(tmp_path_factory.mktemp("launchers"))


def command(runs: Runs, *words: str) -> list[str]:
    """`train.py -m` on tiny points; words with a dot before `launcher` are Hydra's own."""
    return [sys.executable, str(ROOT / "train.py"), "-m", *runs.overrides(*words)]


def swept(runs: Runs, *words: str, cwd: Path = ROOT, **env: str) -> subprocess.CompletedProcess[str]:
    """A whole sweep."""
    return subprocess.run(
        command(runs, *words), cwd=cwd, capture_output=True, text=True, timeout=550, env={**os.environ, **env}
    )


def done_points(runs: Runs) -> list[str]:
    """The quantization of each finished point."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in runs.results.glob("*/result.json")]
    return sorted(r["choices"]["quant"] for r in found if r["status"] == "done")


# joblib


def logged_at(line: str) -> datetime:
    return datetime.strptime(line[:23], "%Y-%m-%d %H:%M:%S,%f")


@pytest.mark.slow
def test_two_joblib_workers_race_for_one_teacher_and_one_of_them_trains_it(tmp_path):
    """By the points' own logs: a second training would log its first line, even if its stage were thrown away."""
    runs = Runs(tmp_path)
    done = swept(runs, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "prune=none", "quant=none,int8",
                 "fit.teacher.epochs=8")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done_points(runs) == ["int8", "none"]
    logs = [path.read_text(encoding="utf-8").splitlines() for path in runs.results.glob("*/train.log")]
    trained = [log for log in logs if any("teacher   8 epochs of" in line for line in log)]
    waited = [log for log in logs if any("teacher   at hand" in line for line in log)]
    assert (len(logs), len(trained), len(waited)) == (2, 1, 1)
    finished = next(logged_at(line) for line in trained[0] if "teacher   done" in line)
    assert logged_at(waited[0][0]) < finished, "the second point came when the first was done: no race"


# A point that is killed


def marked(mark: str, what: bytes) -> list[int]:
    """Processes with `what` on their command line that inherited MARK=mark."""
    found = []
    for task in Path("/proc").glob("[0-9]*"):
        try:
            if f"{MARK}={mark}".encode() in (task / "environ").read_bytes().split(b"\0"):
                found += [int(task.name)] if what in (task / "cmdline").read_bytes() else []
        except OSError:
            continue
    return found


def kill_a_point(sweep: subprocess.Popen, mark: str) -> None:
    """SIGKILL to the first process of a point that appears."""
    while sweep.poll() is None:
        if points := marked(mark, b"optim.run.process"):
            os.kill(points[0], signal.SIGKILL)
            return
        time.sleep(0.05)
    raise AssertionError("the sweep ended before a point was found")


def sweep_with_a_killed_point(runs: Runs, mark: str, *words: str) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of a sweep whose first point is killed."""
    sweep = subprocess.Popen(command(runs, *words), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                             env={**os.environ, MARK: mark})  # fmt: skip
    try:
        kill_a_point(sweep, mark)
        out, err = sweep.communicate(timeout=550)
    finally:
        sweep.kill()
    return sweep.returncode, out, err


def require_one_failed(code: int, out: str, err: str) -> None:
    assert code == 1, err
    assert len(re.findall("ended by SIGKILL", out)) == 1, out
    assert len(re.findall(r"^Failed: python train.py", out, re.MULTILINE)) == 1, out


@on_linux
@pytest.mark.slow
@pytest.mark.parametrize("engine", ["joblib", "submitit_local"])
def test_a_killed_point_fails_alone(engine, tmp_path, runs):
    words = [f"hydra/launcher={engine}", "prune=none", "quant=none,fp16,int8", f"results_dir={tmp_path / 'results'}"]
    require_one_failed(*sweep_with_a_killed_point(runs, engine, *words))
    there = [json.loads(p.read_text(encoding="utf-8"))["status"] for p in (tmp_path / "results").glob("*/result.json")]
    assert sorted(there) == ["done", "done", "failed"]


# submitit


@pytest.mark.slow
def test_submitit_local_runs_points(runs, tmp_path):
    """From a folder that is not the program's, with a results_dir relative to it."""
    done = swept(runs, "hydra/launcher=submitit_local", "prune=none", "quant=fp16,int8_static", "results_dir=here",
                 cwd=tmp_path)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "here").glob("*/result.json"))) == 2
    logs = list((tmp_path / "here" / ".submitit").glob("*/*_log.err"))
    assert len(logs) == 2, "a job for each point"


SBATCH = """#!/bin/sh
# A cluster of one node: keeps the batch script, and runs its tasks one after another.
cp "$1" "$SLURM_STANDIN/script.sh"
last=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\).*/\\1/p' "$1")
export SLURM_NTASKS=1 SLURM_JOB_NUM_NODES=1 SLURM_NODEID=0 SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_ARRAY_JOB_ID=4242
(for task in $(seq 0 "$last"); do
  SLURM_JOB_ID=$((4242 + task)) SLURM_ARRAY_TASK_ID=$task sh "$SLURM_STANDIN/script.sh"
done) >"$SLURM_STANDIN/log" 2>&1 &
echo "Submitted batch job 4242"
"""
SRUN = """#!/bin/sh
# Drops srun's own flags and runs the rest.
while [ "${1#--}" != "$1" ]; do
  case $1 in --output|--error) shift ;; esac
  shift
done
exec "$@"
"""
SACCT = "#!/bin/sh\necho 'JobID|State|NodeList'\n"


def slurm_standin(folder: Path) -> dict[str, str]:
    """The environment in which Slurm's commands are ours."""
    for name, text in {"sbatch": SBATCH, "srun": SRUN, "sacct": SACCT}.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}", "SLURM_STANDIN": str(folder)}


@pytest.mark.slow
def test_the_batch_script_for_slurm_says_what_was_asked_and_runs(runs, tmp_path):
    """submitit's own machinery against a stand-in for sbatch and srun; no real Slurm was at hand."""
    done = swept(runs, "hydra/launcher=submitit_slurm", "hydra.launcher.partition=cpu", "hydra.launcher.timeout_min=90",
                 "prune=none", "quant=none,int8", f"results_dir={tmp_path / 'results'}",
                 **slurm_standin(tmp_path))  # type: ignore[arg-type]  # fmt: skip
    assert done.returncode == 0, done.stderr
    script = (tmp_path / "script.sh").read_text()
    flags = set(re.findall(r"^#SBATCH --(.*)$", script, re.MULTILINE))
    assert {"partition=cpu", "time=90", "cpus-per-task=2", "mem=8GB", "nodes=1", "ntasks-per-node=1", "array=0-1%2",
            "job-name=distilbert-optim", "signal=USR2@120"} <= flags  # fmt: skip
    assert len(list((tmp_path / "results").glob("*/result.json"))) == 2


def test_slurm_without_slurm_is_told_in_a_line(runs, tmp_path):
    if shutil.which("srun"):
        pytest.skip("this machine has Slurm")
    done = swept(runs, "hydra/launcher=submitit_slurm", "quant=none,int8", f"results_dir={tmp_path}")
    assert done.returncode == 1
    assert 'Could not detect "srun"' in done.stderr
    assert "Traceback" not in done.stderr


# ray


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def ray_env(home: Path) -> dict[str, str]:
    """Ray keeps a token in $HOME, and tells its makers of its use unless it is asked not to."""
    return {"HOME": str(home), "RAY_USAGE_STATS_ENABLED": "0", MARK: "ray"}


@pytest.fixture
def ray_home(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@pytest.fixture
def cluster(ray_home: Path) -> Iterator[str]:
    """The address of a cluster of one node. `--block` keeps its processes below one, which takes them along."""
    ray = Path(sys.executable).parent / "ray"
    if not ray.is_file():
        pytest.fail('ray is not installed; `make test-slow` does it, or: pip install ".[ray]"')
    port = free_port()
    short = tempfile.mkdtemp(prefix="ray-")  # the paths of its sockets may have 107 bytes
    start = [str(ray), "start", "--head", "--block", "--node-ip-address=127.0.0.1",
             f"--port={port}", "--num-cpus=2", "--include-dashboard=false", f"--temp-dir={short}"]  # fmt: skip
    head = subprocess.Popen(start, cwd=ray_home, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                            env={**os.environ, **ray_env(ray_home)})  # fmt: skip
    try:
        assert head.stdout
        said = []
        for line in head.stdout:
            said.append(line)
            if "--block" in line or "Ray runtime started" in line:
                break
        else:
            raise AssertionError("".join(said))
        yield f"127.0.0.1:{port}"
    finally:
        head.terminate()
        try:
            head.wait(30)
        finally:
            for process in marked("ray", b"ray"):  # whatever it left
                os.kill(process, signal.SIGKILL)
            shutil.rmtree(short, ignore_errors=True)


@on_linux
@pytest.mark.slow
def test_ray_runs_points_on_a_cluster_that_it_joins(cluster, ray_home, runs, tmp_path):
    """The cluster was started elsewhere, and yet a relative results_dir is that of the command."""
    done = swept(runs, "hydra/launcher=ray", f"hydra.launcher.ray.init.address={cluster}", "prune=none",
                 "quant=none,int8", "results_dir=here", cwd=tmp_path, **ray_env(ray_home))  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "here").glob("*/result.json"))) == 2
    assert "2 points: 0 done, 2 to run" in done.stdout
    assert "existing Ray cluster" in done.stderr


# A launcher that is not installed

HIDE = """
import os, pkgutil
from importlib.machinery import PathFinder
hidden, real, walk = os.environ["OPTIM_TEST_HIDDEN"], PathFinder.find_spec, pkgutil.walk_packages
PathFinder.find_spec = classmethod(lambda cls, name, *a, **k: None if name == hidden else real(name, *a, **k))
# Hydra's scan for plugins asks the folders themselves
pkgutil.walk_packages = lambda *a, **k: (found for found in walk(*a, **k) if not found.name.startswith(hidden))
"""


@pytest.mark.parametrize(("launcher", "engine", "extra"), [
    ("joblib", "joblib", "parallel"), ("submitit_local", "submitit", "slurm"), ("submitit_slurm", "submitit", "slurm"),
    ("ray", "ray", "ray"),
])  # fmt: skip
@pytest.mark.parametrize("part", ["{}", "hydra_plugins.hydra_{}_launcher"])
def test_a_launcher_that_is_not_installed_names_its_extra(launcher, engine, extra, part, runs, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(HIDE)
    done = swept(runs, f"hydra/launcher={launcher}", "quant=none,int8", PYTHONPATH=str(tmp_path),
                 OPTIM_TEST_HIDDEN=part.format(engine))  # fmt: skip
    assert done.returncode == 2
    assert f'".[{extra}]"' in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
