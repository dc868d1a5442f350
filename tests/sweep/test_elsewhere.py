"""Files measured on another machine: by its own script, over ssh, and brought back to the points."""

from __future__ import annotations

import ast
import getpass
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from copy import copy
from pathlib import Path

import pytest
from conftest import Runs

from optim.common.errors import UserError
from optim.measure import device
from optim.sweep import elsewhere
from optim.sweep.pick import finished_points

ID = device.machine_id()
# Stands in for another machine: the words after the host go to a shell here, as sshd does it.
SSH = """#!/bin/sh
while [ "$1" = -o ]; do shift 2; done
echo "$1" >> "$CALLS"
[ "$1" = nobody@nowhere ] && { echo "ssh: Could not resolve hostname nowhere" >&2; exit 255; }
shift
echo "{welcome} to this board"  # as a login shell may
cd / && exec sh -c "$*"
"""
ADB = """#!/bin/sh
[ "$1" = -s ] && { echo "$2" >> "$CALLS"; shift 2; }
case "$1" in
  push) cp -r "$2" "$DEVICE$(basename "$3")" ;;
  shell) exec sh -c "$(echo "$2" | sed "s#/data/local/tmp/#$DEVICE#g")" ;;
esac
"""


@pytest.fixture(scope="module")
def points(runs: Runs, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Two points, whose files differ, in a folder of their own."""
    points = copy(runs)
    points.results = tmp_path_factory.mktemp("elsewhere")
    for quant in ("none", "int8"):
        points.folder_of("distill=none", "prune=none", f"quant={quant}")
    return points


@pytest.fixture(scope="module")
def figures(points: Runs, tmp_path_factory: pytest.TempPathFactory) -> str:
    """What measure.py wrote for the first of them."""
    path = tmp_path_factory.mktemp("figures") / "f.json"
    assert measured(bundles(points)[0], "--output", str(path)).returncode == 0
    return path.read_text()


@pytest.fixture
def tools(tmp_path, monkeypatch) -> Path:
    """A folder of stand-ins that comes first, and the log of their calls."""
    for name, text in (("ssh", SSH), ("adb", ADB)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    (tmp_path / "device").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    monkeypatch.setenv("DEVICE", f"{tmp_path / 'device'}/")
    return tmp_path


def measured(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """measure.py of a bundle, in a Python that knows nothing of this program."""
    script = folder / device.SCRIPT
    command = [sys.executable, "-I", str(script), *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)


def bundles(runs: Runs) -> list[Path]:
    return sorted(path.parent / "bundle" for path in runs.results.glob("*/result.json"))


def forget(runs: Runs) -> None:
    for path in runs.results.glob("*/measured-*.json"):
        path.unlink()


def test_the_script_of_a_bundle_runs_alone_and_takes_what_a_result_has(points, tmp_path):
    bundle = shutil.copytree(bundles(points)[0], tmp_path / "copy")
    (tmp_path / "optim.py").write_text("raise SystemExit('it must not need the program')")
    done = measured(bundle)
    assert done.returncode == 0, done.stderr
    found = json.loads((bundle / device.FIGURES).read_text())
    result = json.loads((bundles(points)[0].parent / "result.json").read_text())
    (one,) = found["files"]
    assert found["machine"]["id"] == ID
    assert set(one["speed"]) == set(result["speed"]) - {"zeros_accelerated", "zeros_speedup", "decompress_p50_ms"}
    assert set(one["memory"]) == set(result["memory"])
    for name in ("sequence_length", "threads", "median_length"):
        assert one["speed"][name] == result["speed"][name]
    for name in ("latency_p50_ms", "median_length_latency_p50_ms", "dev_mix_latency_p50_ms"):
        assert 0.1 < one["speed"][name] / result["speed"][name] < 10
    assert 0.7 < one["memory"]["peak_rss_bytes"] / result["memory"]["peak_rss_bytes"] < 1.4


def test_the_script_imports_nothing_but_what_a_board_has():
    tree = ast.parse(Path(device.__file__).read_text(encoding="utf-8"), feature_version=(3, 9))
    imported = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    foreign = {name.split(".")[0] for name in imported} - sys.stdlib_module_names
    assert foreign == {"numpy", "ai_edge_litert", "zstandard"}


def test_several_bundles_take_turns_and_settings_win(points, tmp_path):
    done = measured(
        bundles(points)[0], *map(str, bundles(points)), "--output", str(tmp_path / "f.json"), "--length", "9"
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "f.json").read_text())
    assert [one["file_sha256"] for one in found["files"]] == [
        device.sha256_of(bundle / "model.tflite") for bundle in bundles(points)
    ]
    assert {one["speed"]["sequence_length"] for one in found["files"]} == {9}
    assert "timing 2 files at 9 tokens" in done.stderr
    assert len(done.stdout.splitlines()) == 3


@pytest.mark.parametrize(
    ("words", "told"),
    [(["/nowhere"], "Error: /nowhere is not a bundle: it must hold bench.json and model.tflite"),
     (["--output", "no/board.json"], "Error: no/board.json cannot be written"),
     (["--length", "5000"], "cannot run 5000 tokens"),
     (["--threads", "0"], "--threads must be 1 or above, got 0")],
)  # fmt: skip
def test_the_script_says_what_is_wrong_in_a_line(words, told, points):
    done = measured(bundles(points)[0], *words)
    assert done.returncode
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_figures_of_another_machine_are_kept_apart(points, tmp_path):
    """A machine that takes 7 ms for one file: its comparison has that file alone, the other one is as it was."""
    forget(points)
    bundle = bundles(points)[1]
    assert measured(bundle, "--output", str(tmp_path / "f.json")).returncode == 0
    found = json.loads((tmp_path / "f.json").read_text())
    found["machine"] |= {"id": "0badcafe", "cpu": "A board"}
    found["files"][0]["speed"]["latency_p50_ms"] = 7.0
    (tmp_path / "f.json").write_text(json.dumps(found))
    done = points.sweep("sweep=import", f"file={tmp_path / 'f.json'}")
    assert done.returncode == 0, done.stderr
    assert "Machine 0badcafe (A board): 1 file of 1 point." in done.stdout
    rows = (points.results / "report-0badcafe" / "results.csv").read_text().splitlines()
    assert len(rows) == 2
    assert ",7.0," in rows[1]
    assert "machine 0badcafe has not measured it" in (points.results / "report-0badcafe" / "report.md").read_text()
    assert points.sweep("sweep=report").returncode == 0
    here = (points.results / "report" / "results.csv").read_text()
    assert len(here.splitlines()) == 3
    assert ",7.0," not in here
    picked = points.sweep("sweep=pick", "machine=0badcafe", "budget.latency_ms=6")
    assert picked.returncode == 2, "its only file takes longer"


def test_a_host_is_measured_over_ssh_in_one_call(points, tools):
    forget(points)
    done = points.sweep("sweep=measure", "bench=quick", "host=me@board", f"host_python={sys.executable}")
    assert done.returncode == 0, done.stderr
    assert "2 files of 2 points timed side by side." in done.stdout
    assert "me@board: timing 2 files at 32 tokens" in done.stderr
    assert (tools / "calls").read_text().split() == ["me@board"]
    assert len(list(points.results.glob(f"*/measured-{ID}.json"))) == 2
    assert (points.results / f"report-{ID}" / "report.html").is_file()


@pytest.mark.slow
def test_adb_is_asked_for_the_same(points, tools):
    forget(points)
    done = points.sweep("sweep=measure", "bench=quick", "host=adb:R58N", f"host_python={sys.executable}")
    assert done.returncode == 0, done.stderr
    assert set((tools / "calls").read_text().split()) == {"R58N"}
    assert len(list(points.results.glob(f"*/measured-{ID}.json"))) == 2
    assert list((tools / "device").iterdir()) == [], "nothing stays there"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["host=nobody@nowhere"], "host nobody@nowhere: ssh: Could not resolve hostname nowhere"),
        (["host=me@board", "host_python=python0"], "host me@board: sh: "),
        (["host=-oProxyCommand"], "host must be USER@BOARD"),
        (["host=adb:"], "host must be USER@BOARD"),
    ],
)
def test_a_host_that_does_not_answer_is_told_in_a_line(words, told, points, tools):
    done = points.sweep("sweep=measure", "bench=quick", *words)
    assert done.returncode
    assert told in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_a_tool_that_is_not_there_is_named(points, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    done = points.sweep("sweep=measure", "bench=quick", "host=adb")
    assert "host=adb needs adb, which is not installed here" in done.stderr


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda found: found.update(version=0), "is of another version of measure.py (0, this one has 1)"),
        (lambda found: found.pop("machine"), "holds no figures of measure.py: 'machine'"),
        (lambda found: found["files"][0]["speed"].pop("calls"), "lacks figures that measure.py writes"),
        (lambda found: found["files"][0]["speed"].update(calls="x"), "lacks figures that measure.py writes"),
        (lambda found: found["files"][0].update(file_sha256="0" * 64), "none of its 1 files is that of a finished"),
        (lambda found: found.update(files=[]), "lacks figures that measure.py writes"),
        (lambda found: found["machine"].update(id="../../x"), "has 8 hexadecimal digits, as measure.py writes them"),
        (lambda found: found["files"][0].update(memory=None), "holds no figures of measure.py"),
        (lambda found: found["machine"].update(id=7), "holds no figures of measure.py"),
        (lambda found: found["machine"].update(isa=7), "lacks figures that measure.py writes"),
        (lambda found: found["files"][0]["speed"].update(latency_p50_ms=float("nan")), "lacks figures that measure.py"),
        (lambda found: found["files"][0]["speed"].update(calls=float("inf")), "lacks figures that measure.py writes"),
        (lambda found: found["files"][0]["speed"].update(speedup_vs_float32="x"), "lacks figures that measure.py"),
    ],
)
def test_figures_that_cannot_be_taken_are_refused_in_a_line(change, told, points, figures, tmp_path):
    found = json.loads(figures)
    change(found)
    (tmp_path / "f.json").write_text(json.dumps(found))
    with pytest.raises(UserError) as error:
        elsewhere.taken(elsewhere.read_figures(tmp_path / "f.json"), finished_points(points.results), "file=f.json")
    assert told in str(error.value)
    assert list(points.results.glob("*/measured-0*.json")) == []


def test_each_point_gets_the_figures_of_its_own_file(points, figures):
    """Two files, 3 and 7 ms; the machine's file is then broken at one of them, and its point is left out there."""
    found, both = json.loads(figures), finished_points(points.results)
    found["machine"]["id"] = "00c0ffee"
    told = {device.sha256_of(p.folder / "bundle" / "model.tflite"): ms for p, ms in zip(both, (3.0, 7.0), strict=True)}
    one = found["files"][0]
    found["files"] = [
        {**one, "file_sha256": digest, "speed": {**one["speed"], "latency_p50_ms": ms}} for digest, ms in told.items()
    ]
    assert elsewhere.taken(found, both, "f.json").line().endswith("2 files of 2 points.")
    there = {p.folder: p.cost("latency_p50_ms") for p in finished_points(points.results, "00c0ffee")}
    assert there == {p.folder: ms for p, ms in zip(both, (3.0, 7.0), strict=True)}
    (both[0].folder / "measured-00c0ffee.json").write_text('{"machine": ')
    assert [p.folder for p in finished_points(points.results, "00c0ffee")] == [both[1].folder]
    forget(points)


@pytest.mark.timeout(60)
def test_a_number_and_what_it_counts_agree():
    assert [elsewhere.counted(number, "point") for number in (0, 1, 2)] == ["0 points", "1 point", "2 points"]


def test_a_single_point_is_one_point(points, tmp_path):
    one = copy(points)
    one.results = tmp_path
    path = next(points.results.glob("*/result.json")).parent
    shutil.copytree(path, tmp_path / path.name)
    assert "would time the files of 1 point on this machine" in one.sweep("sweep=measure", "sweep.dry_run=true").stdout


def test_figures_of_many_files_do_not_fill_the_pipe():
    code = "import sys; print('x' * 10**6); print('told', file=sys.stderr)"
    assert len(elsewhere._run([sys.executable, "-c", code], "board")) == 10**6 + 1


def test_a_dry_run_of_either_writes_nothing(points, figures, tools):
    forget(points)
    (tools / "f.json").write_text(figures)
    for words, told in ((["sweep=import", f"file={tools / 'f.json'}"], "would take the figures in "),
                        (["sweep=measure", "host=me@board"], "would time the files of 2 points on me@board"),
                        (["sweep=measure"], "would time the files of 2 points on this machine"),
                        (["sweep=report"], f"sweep=report would compare what is under {points.results}, into "
                                           f"{points.results / 'report'}.")):  # fmt: skip
        done = points.sweep(*words, "sweep.dry_run=true")
        assert done.returncode == 0, done.stderr
        assert told in done.stdout
    assert not (tools / "calls").exists()
    assert [*points.results.glob("*/measured-*"), *points.results.glob("*/remeasured.json")] == []


def test_import_without_a_file_and_a_report_of_an_unknown_machine(points, tmp_path):
    assert "sweep=import needs file=FILE" in points.sweep("sweep=import").stderr
    assert "cannot be read" in points.sweep("sweep=import", f"file={tmp_path / 'none.json'}").stderr
    told = points.sweep("sweep=report", "machine=feedbeef").stderr
    assert "holds no finished point that machine feedbeef has measured" in told
    told = points.sweep("sweep=pick", "machine=feedbeef").stderr
    assert told == f"Error: results_dir {points.results} holds no finished point that machine feedbeef has measured.\n"
    assert "has 8 hexadecimal digits" in points.sweep("sweep=report", "machine=../x").stderr


@pytest.fixture
def server(tmp_path):
    """A real sshd on a free port, with keys of its own; the words of host= that reach it."""
    found = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/sbin")
    if found is None or shutil.which("ssh-keygen") is None:
        pytest.skip("no OpenSSH server here")
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / name], check=True)
    shutil.copy(tmp_path / "user.pub", tmp_path / "authorized")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    keys = [f"HostKey {tmp_path / 'host'}", f"AuthorizedKeysFile {tmp_path / 'authorized'}"]
    rules = ["StrictModes no", "UsePAM no", "PasswordAuthentication no", "PidFile none"]
    settings = [f"Port {port}", "ListenAddress 127.0.0.1", *keys, *rules]
    (tmp_path / "sshd_config").write_text("\n".join(settings) + "\n")
    (tmp_path / "config").write_text(
        f"Host board\n HostName 127.0.0.1\n Port {port}\n User {getpass.getuser()}\n IdentityFile {tmp_path / 'user'}\n"
        "  IdentitiesOnly yes\n StrictHostKeyChecking no\n UserKnownHostsFile /dev/null\n"
    )
    if os.access("/run", os.W_OK):
        os.makedirs("/run/sshd", exist_ok=True)  # which the server wants where it runs as root
    process = subprocess.Popen([found, "-D", "-e", "-f", tmp_path / "sshd_config"], stderr=subprocess.DEVNULL)
    time.sleep(1)
    yield tmp_path / "config"
    process.kill()


@pytest.mark.slow
def test_a_real_ssh_server_on_this_machine_measures(server, points, tmp_path, monkeypatch):
    """ssh is made to read the test's config; the rest is as a user has it."""
    real = shutil.which("ssh")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "ssh").write_text(f'#!/bin/sh\nexec {real} -F {server} "$@"\n')
    (tmp_path / "bin" / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    forget(points)
    done = points.sweep("sweep=measure", "bench=quick", "host=board", f"host_python={sys.executable}")
    assert done.returncode == 0, done.stderr
    assert len(list(points.results.glob(f"*/measured-{ID}.json"))) == 2


def test_what_another_machine_says_need_not_be_utf_8(capsys):
    command = ["sh", "-c", r"printf 'caf\351\n' >&2; printf 'caf\351 {}\n'"]
    assert elsewhere._run(command, "board").endswith(" {}\n")
    assert "board: caf" in capsys.readouterr().err


def test_a_folder_is_no_output(tmp_path, monkeypatch):
    monkeypatch.setattr(device, "measured", lambda *given: pytest.fail("it was measured"))
    with pytest.raises(SystemExit, match="is a folder: --output FILE names a file"):
        device.main(["--output", str(tmp_path)])


@pytest.mark.parametrize(
    ("python", "word"),
    [("~/v/bin/python", "~/v/bin/python"), ("/a b/python", "'/a b/python'"), ("python3", "python3")],
)
def test_the_shell_of_a_host_knows_its_home(python, word):
    assert elsewhere._script(python).startswith(f"{word} {device.SCRIPT} ")
