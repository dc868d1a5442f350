"""The W&B side of a sweep: one group, a report with the sweep's own figures, and a sweep that W&B drives."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import wandb_reader
import yaml
from conftest import CONF, ROOT, Runs
from hydra import compose, initialize_config_dir
from made_results import put
from wandb_standin import ENTITY, VIEW_ID, serving

from optim.report import comparison, markdown, wandb_report
from optim.report.wandb_report import FILE, Place
from optim.run import point
from optim.run.keys import run_id_of
from optim.sweep import settings, verbs
from optim.sweep.pick import Budget
from optim.track import sender

ALONE = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_") and name != "NETRC"}


@pytest.fixture(autouse=True)
def _alone(tmp_path, monkeypatch):
    """No W&B settings or key of the person who runs the tests."""
    for name in [name for name in os.environ if name not in ALONE]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))


def place(**changes: Any) -> Place:
    return Place(**{"project": "tests", "entity": "", "group": "sweep-1", "publish": False, "timeout_s": 30, **changes})


def compared(folder: Path, *, more: int = 0) -> comparison.Comparison:
    """Two points, and `more` others."""
    options = [("none", "none"), ("fixed50", "int8"), ("poly80", "int8"), ("poly50", "none")][: 2 + more]
    for i, (prune, quant) in enumerate(options):
        if not (folder / f"point{i}").exists():
            put(folder, f"point{i}", wrong=range(i), ms=10 - i, mb=90 - 40 * i, prune=prune, quant=quant)
    return comparison.compared([folder])


def kept(folder: Path) -> dict[str, Any]:
    return json.loads((folder / FILE).read_text())


def grid(spec: dict[str, Any]) -> dict[str, Any]:
    (found,) = [block["metadata"] for block in spec["blocks"] if block["type"] == "panel-grid"]
    return found


def panels(spec: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """(kind, settings) of each panel."""
    return [(p["viewType"], p["config"]) for p in grid(spec)["panelBankSectionConfig"]["panels"]]


def filters(spec: dict[str, Any]) -> list[tuple[str, str, Any, str | None]]:
    """(attribute of a run, operator, value, how it is joined to the one before) of each filter."""
    (runs,) = grid(spec)["runSets"]
    assert "project" not in runs  # the report's own
    parts = runs["filters"]["filters"]
    return [(f["key"]["name"], f["op"], f["value"], f.get("connector")) for f in parts]


# ---- the spec ----


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> tuple[comparison.Comparison, dict[str, Any]]:
    """A comparison and the spec that was made of it, without a key."""
    folder = tmp_path_factory.mktemp("written")
    found = compared(folder)
    found.points[0].result.cfg["track"] = {"group": "sweep-1"}
    found.points[1].result.cfg["track"] = {"group": None}  # it was run alone before
    assert not {"wandb", "wandb_workspaces"} & set(_imported(folder, found))
    return found, kept(folder)["view"]


def _imported(folder: Path, found: comparison.Comparison) -> set[str]:
    """What saving a report makes this process import."""
    before = set(sys.modules)
    wandb_report.save(found, folder, place())
    return set(sys.modules) - before


def test_spec_shows_the_tables_of_the_html_report(written):
    found, view = written
    (text,) = [block["content"] for block in view["spec"]["blocks"] if block["type"] == "markdown-block"]
    assert text == markdown.to_markdown(found)
    assert found.headline() in text
    assert view["displayName"].startswith("tiny on sst2, 2 points, written")
    assert view["project"]["name"] == "tests"


def test_spec_has_the_panels_over_what_the_tracker_logs(written):
    _, view = written
    accuracy, latency, size = "quality.accuracy_fraction", "speed.latency_p50_ms", "size.file_bytes"
    kinds = {kind: settings for kind, settings in panels(view["spec"])}
    scatters = [settings for kind, settings in panels(view["spec"]) if kind == "Scatter Plot"]
    assert [(s["xAxis"], s["yAxis"]) for s in scatters] == [
        (f"summary:{latency}", f"summary:{accuracy}"),
        (f"summary:{size}", f"summary:{accuracy}"),
    ]
    assert all(s["showMaxYAxisLine"] for s in scatters), "the front"
    assert [column["accessor"] for column in kinds["Parallel Coordinates Plot"]["columns"]] == [
        "config:choices.value.prune",
        "config:choices.value.quant",
        *(f"summary:{figure}" for figure in (latency, size, accuracy)),
    ]
    assert kinds["Bar Chart"]["metrics"] == [f"summary_metrics.{size}"]
    assert kinds["Run Comparer"]["diffOnly"] == "split"


def test_spec_is_of_the_group_and_of_points_that_were_logged_elsewhere(written):
    found, view = written
    other = found.points[1].result.run_id
    assert filters(view["spec"]) == [("group", "=", "sweep-1", None), ("name", "IN", [other], "OR")]


def test_spec_can_be_read_back_by_the_package_that_made_it(written):
    from wandb_workspaces.reports.v2 import internal

    wr: Any = import_module("wandb_workspaces.reports.v2")

    again = wr.Report._from_model(internal.ReportViewspec.model_validate(written[1]))
    assert [type(block).__name__ for block in again.blocks] == ["MarkdownBlock", "PanelGrid"]


def test_same_comparison_starts_no_process_and_another_does(tmp_path, monkeypatch):
    wandb_report.save(compared(tmp_path), tmp_path, place())
    first = (tmp_path / FILE).stat().st_mtime_ns
    with monkeypatch.context() as patch:
        patch.setattr(sender, "start_apart", lambda *names: pytest.fail("started"))
        wandb_report.save(compared(tmp_path), tmp_path, place())
    wandb_report.save(compared(tmp_path, more=1), tmp_path, place())
    assert (tmp_path / FILE).stat().st_mtime_ns > first
    assert "3 points" in kept(tmp_path)["view"]["displayName"]


def test_factors_are_not_where_a_point_was_logged(tmp_path):
    found = compared(tmp_path)
    for p, group, option in zip(found.points, ("a", "b"), ("offline", "wandb"), strict=True):
        p.result.choices["track"], p.result.cfg["track"] = option, {"group": group}
        p.result.command += f" track.group={group}"
    assert wandb_report.described(found, "x", place())["varied"] == ["choices.prune", "choices.quant"]


def test_place_takes_what_no_tracker_leaves_open_from_offline(monkeypatch):
    def of(*words: str) -> Place:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            return Place.of(compose("train", overrides=["model=tiny", "data=csv", *words]).track, "sweep-1")

    assert of("track=none") == Place("distilbert-optim", "", "sweep-1", False, 30)
    monkeypatch.setenv("WANDB_ENTITY", "us")
    assert of("track=wandb", "track.group=mine") == Place("distilbert-optim", "us", "mine", False, 30), "no key"
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    assert of("track=wandb", "track.project=p") == Place("p", "us", "sweep-1", True, 30)
    assert not of("track=offline").publish


# ---- the upload ----


@pytest.fixture
def use(monkeypatch):
    """use(server): W&B's address and key from here on."""

    def put(server) -> None:
        for name, value in server.env.items():
            monkeypatch.setenv(name, value)

    return put


def test_upload_makes_the_project_and_sends_the_spec_that_is_kept(tmp_path, use, capfd):
    with serving() as server:
        use(server)
        wandb_report.save(compared(tmp_path), tmp_path, place(publish=True))
    (project,), (sent,) = server.bodies("CreateProject"), server.bodies("upsertView")
    assert (project["input"]["name"], project["input"]["entityName"]) == ("tests", ENTITY)
    assert (sent["projectName"], sent["entityName"], sent["type"]) == ("tests", ENTITY, "runs")
    assert not sent["id"]
    spec = json.loads(sent["spec"])
    assert spec == kept(tmp_path)["view"]["spec"]
    assert filters(spec)[0] == ("group", "=", "sweep-1", None)
    assert len(panels(spec)) == 5
    out, err = capfd.readouterr()
    assert err == ""
    assert f"/{ENTITY}/tests/reports/" in out
    assert out.strip().endswith(f"--{VIEW_ID}")


def operations(server) -> list[str]:
    """Names of what was asked, without the telemetry, which may come late."""
    return [name for name, *_ in server.seen if not name.startswith("/sdk/otel")]


def test_upload_once_more_replaces_the_report_and_only_if_it_changed(tmp_path, use, capfd):
    with serving(projects=("tests",)) as server:
        use(server)
        wandb_report.save(compared(tmp_path), tmp_path, place(publish=True))
        count = len(operations(server))
        wandb_report.save(compared(tmp_path), tmp_path, place(publish=True))
        assert len(operations(server)) == count
        wandb_report.save(compared(tmp_path, more=1), tmp_path, place())  # offline for once
        wandb_report.save(compared(tmp_path, more=1), tmp_path, place(publish=True))
    assert not server.bodies("CreateProject")
    first, second = server.bodies("upsertView")
    assert (first["id"] or None, second["id"]) == (None, VIEW_ID)
    assert capfd.readouterr().out.count(VIEW_ID) == 3


@pytest.mark.timed
@pytest.mark.slow
@pytest.mark.parametrize("fault", [{"status": 500}, {"status": 403}, {"hang_s": 20.0}])
def test_server_that_fails_is_one_line_in_time(fault, tmp_path, use, capfd):
    with serving(**fault) as server:
        use(server)
        start = time.monotonic()
        wandb_report.save(compared(tmp_path), tmp_path, place(publish=True, timeout_s=8))
        assert time.monotonic() - start < 12
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("Warning: W&B: the report was not published")
    assert kept(tmp_path)["published"] is None
    assert len(panels(kept(tmp_path)["view"]["spec"])) == 5


def test_package_that_broke_is_one_line(tmp_path, monkeypatch, capfd):
    (tmp_path / "wandb_workspaces").mkdir()
    (tmp_path / "wandb_workspaces" / "__init__.py").write_text("raise AttributeError('no _to_model')")
    monkeypatch.syspath_prepend(tmp_path)
    wandb_report.save(compared(tmp_path / "results"), tmp_path, place())
    (line,) = capfd.readouterr().err.splitlines()
    assert line == "Warning: W&B: the report's spec was not written: AttributeError: no _to_model."


def test_process_that_dies_is_one_line(tmp_path, monkeypatch, capfd):
    (tmp_path / "wandb.py").write_text("import os; os.kill(os.getpid(), 9)")
    monkeypatch.syspath_prepend(tmp_path)
    wandb_report.save(compared(tmp_path / "results"), tmp_path, place())
    assert capfd.readouterr().err == "Warning: W&B: the report's process died (-9).\n"


# ---- through the front door ----


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Runs:
    """A finished sweep of two points, logged offline."""
    found = Runs(tmp_path_factory.mktemp("sweep"))
    done = swept(found)
    assert done.returncode == 0, done.stderr
    return found


def swept(runs: Runs, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    own = ("quant=none,int8", "prune=none", "fit.teacher.epochs=1", "track=offline")
    command = [sys.executable, "train.py", "-m", *runs.overrides(*own, *words)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, env={**ALONE, **env})


def logged(runs: Runs) -> list[wandb_reader.OfflineRun]:
    """What W&B's files hold of each finished point."""
    ids = [path.parent.name for path in runs.results.glob("*/result.json")]
    return [wandb_reader.read(path) for run_id in ids for path in wandb_reader.find(runs.results, run_id)]


def at(values: dict[str, Any], path: str) -> Any:
    for part in path.split("."):
        values = values[part]
    return values


def test_all_points_of_a_sweep_share_the_group_that_the_report_filters_by(runs):
    (folder,) = (runs.results / "sweeps").iterdir()
    points = logged(runs)
    assert [p.group for p in points] == [f"sweep-{folder.name}"] * 2
    assert filters(kept(folder)["view"]["spec"]) == [("group", "=", f"sweep-{folder.name}", None)]


def test_every_key_of_the_report_stands_in_the_points_as_they_were_logged(runs):
    (folder,) = (runs.results / "sweeps").iterdir()
    results = {p.name: json.loads((p / "result.json").read_text()) for p in runs.results.iterdir() if p.name in
               {run.run_id for run in logged(runs)}}  # fmt: skip
    kinds = dict(panels(kept(folder)["view"]["spec"]))
    accessors = [column["accessor"] for column in kinds["Parallel Coordinates Plot"]["columns"]]
    assert accessors[0] == "config:choices.value.quant"
    for run in logged(runs):
        section = {"config": run.config, "summary": run.figures()}
        shown = [at(section[a.split(":")[0]], a.split(":")[1].replace(".value", "", 1)) for a in accessors]
        found = results[run.run_id]
        assert shown == [found["choices"]["quant"], found["speed"]["latency_p50_ms"], found["size"]["file_bytes"],
                         found["quality"]["accuracy_fraction"]]  # fmt: skip


@pytest.mark.slow
def test_finished_sweep_is_published_later_and_survives_a_server_that_does_not_answer(runs):
    (folder,) = (runs.results / "sweeps").iterdir()
    online = ("track=wandb", "track.finish_timeout_s=8")
    with serving(hang_s=30.0) as server:
        done = swept(runs, *online, **server.env)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("Warning: W&B: the report was not published in 8 s") == 1
    with serving() as server:
        done = swept(runs, *online, **server.env)
    assert done.returncode == 0, done.stderr
    (sent,) = server.bodies("upsertView")
    assert json.loads(sent["spec"]) == kept(folder)["view"]["spec"]
    assert f"--{VIEW_ID}" in done.stdout


def test_point_that_was_finished_is_told_to_the_agent_that_asks_for_it(runs):
    words = runs.overrides("quant=int8", "prune=none", "fit.teacher.epochs=1", "track=offline")
    env = {**ALONE, "WANDB_SWEEP_ID": "abcdefgh", "WANDB_RUN_ID": "agents1"}
    done = subprocess.run([sys.executable, "train.py", *words], cwd=ROOT, capture_output=True, text=True, env=env)
    assert (done.returncode, "Warning" in done.stderr) == (0, False), done.stderr
    (path,) = wandb_reader.find(runs.results, "agents1")
    told = wandb_reader.read(path)
    (same,) = [run for run in logged(runs) if run.config["choices"]["quant"] == "int8"]
    assert (told.figures()["quality"], told.exit_code) == (same.figures()["quality"], 0)


def test_group_is_no_part_of_what_a_point_is(runs):
    def run_id(*words: str) -> str:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            return run_id_of(point.point_of(compose("train", overrides=runs.overrides(*words))))

    assert run_id("track=offline", "track.group=a") == run_id("track=offline", "track.group=b") == run_id("track=none")
    assert run_id("track=offline", "quant=int8") != run_id("track=offline")


def test_trials_of_a_search_share_a_group_and_its_report_filters_by_it(tmp_path, monkeypatch):
    from optim.run.compose import composed

    jobs, reports = [], []
    monkeypatch.setattr(verbs, "run_apart", lambda job: bool(jobs.append(job)))
    monkeypatch.setattr(verbs, "compare_all", lambda told, name, group, notes: reports.append(group))
    monkeypatch.setattr(verbs.pick, "answer", lambda *points: "")
    budget = Budget(file_mb=None, latency_ms=None, drop_points=None)
    data = Runs(tmp_path).overrides("track=offline")
    words = [word for word in data if not word.startswith("results_dir=")]
    plain: Any = {
        "name": "sweep=search",
        "run": None,
        "repo": None,
        "dry_run": False,
        "results_dir": tmp_path,
        "cache_dir": tmp_path,
        **dict.fromkeys(("clean", "host", "file", "machine")),
        "host_python": "python3",
        "yes": False,
        "timeout_min": None,
    }
    told = settings.Settings(**plain, budget=budget, trials=2, overrides=words,
                           composed=composed)  # fmt: skip
    search = verbs.SearchSweep(space={"quant": ["none", "int8"]}, journal="log", sampler="tpe", seed=0)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        assert search.run(told) == 1  # no trial was really run
        search.run(settings.Settings(**{**vars(told), "trials": 3}))
    groups = {job.cfg.track.group for job in jobs}
    assert len(jobs) == 4, "what failed is tried again by the next call, once"
    assert len(groups) == 1
    assert groups == set(reports)
    assert groups.pop().startswith("search-")


# ---- a sweep that W&B drives ----


def agent_command(monkeypatch, folder: Path, values: dict[str, Any]) -> list[str]:
    """What an agent runs for these parameters, by wandb's own code."""
    from wandb import wandb_agent

    commands = []

    class Process:
        def __init__(self, command, **settings):
            commands.append(command)

    for name in ("WANDB_RUN_ID", "WANDB_SWEEP_PARAM_PATH"):
        monkeypatch.setenv(name, "")  # so that what the agent sets is put back
    monkeypatch.setenv("WANDB_DIR", str(folder))
    monkeypatch.chdir(folder)
    monkeypatch.setattr(wandb_agent, "AgentProcess", Process)
    agent = wandb_agent.Agent(None, None)
    told = yaml.safe_load((CONF / "wandb_sweep.yaml").read_text())
    agent._sweep_command = told["command"]
    args = {name: {"value": value} for name, value in values.items()}
    agent._command_run({"run_id": "r", "program": told["program"], "args": args})
    return commands[0]


def test_every_point_of_the_wandb_sweep_is_a_config_of_train_py(tmp_path, monkeypatch):
    parameters = yaml.safe_load((CONF / "wandb_sweep.yaml").read_text())["parameters"]
    assert set(parameters) == {"prune", "quant", "distill.temperature"}
    longest = max(len(given["values"]) for given in parameters.values())
    for i in range(longest):
        values = {name: given["values"][i % len(given["values"])] for name, given in parameters.items()}
        env, python, program, *words = agent_command(monkeypatch, tmp_path, values)
        assert (env, python, program) == ("/usr/bin/env", "python", "train.py")
        with initialize_config_dir(str(CONF), version_base="1.3"):
            cfg = compose("train", overrides=["model=tiny", "data=csv", *words], return_hydra_config=True)
        chosen = cfg.hydra.runtime.choices
        assert (chosen.prune, chosen.quant) == (values["prune"], values["quant"])
        assert cfg.distill.temperature == values["distill.temperature"]


def test_metric_of_the_wandb_sweep_is_logged_under_that_name(runs):
    told = yaml.safe_load((CONF / "wandb_sweep.yaml").read_text())
    assert (told["method"], told["metric"]["goal"]) == ("grid", "maximize")
    for run in logged(runs):
        assert 0 < at(run.figures(), told["metric"]["name"]) <= 1


def test_panels_name_figures_that_results_have_with_their_units():
    from optim.report.index import COLUMNS

    for name in (wandb_report.ACCURACY, wandb_report.LATENCY, wandb_report.BYTES):
        part, figure = name.split(".")
        assert figure in COLUMNS[part]
    assert wandb_report.LATENCY.endswith("_ms")
    assert wandb_report.BYTES.endswith("_bytes")
    titles = "".join(inspect.getsource(wandb_report._panels).split("title=")[1:])
    assert "ms" in titles
    assert "bytes" in titles


def test_the_private_way_to_a_spec_is_there_and_can_be_missed():
    """In a process of its own: wandb-workspaces brings wandb, which no process of a run may hold."""
    code = """
from types import SimpleNamespace
from optim.report.wandb_spec import spec_of
import wandb_workspaces.reports.v2 as v2
spec = spec_of(v2.Report(project="p", entity="e", title="t", blocks=[]))
assert spec is not None and spec["displayName"] == "t", spec
assert spec_of(SimpleNamespace()) is None
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, timeout=100)
