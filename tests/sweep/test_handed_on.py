"""What a sweep, a server, a tracker and the pages of benchmarks hand on from one part to the next."""

# pyright: reportArgumentType=false
from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hydra.core.global_hydra import GlobalHydra
from made_results import finished_point, points, put
from omegaconf import OmegaConf

from optim.command import sweep as command
from optim.measure import latency
from optim.measure.device import machine_id
from optim.measure.latency import Bench
from optim.report import wandb_report
from optim.run import places, result
from optim.serve import __main__ as serve
from optim.sweep import again, multirun, pick, remeasure, search, verbs
from optim.sweep import baselines as sweep_baselines
from optim.sweep import points as named
from optim.sweep.pick import Budget
from optim.track import writer

BENCH = Bench(sequence_length=64, threads=2, warmup_calls=1, min_calls=1, min_seconds=0.1)


def change(run: Path, **parts: dict[str, Any]) -> Path:
    """The run with other fields in some parts of its result."""
    fields = json.loads((run / result.FILE).read_text())
    for part, more in parts.items():
        fields[part] |= more
    (run / result.FILE).write_text(json.dumps(fields))
    return run


@pytest.mark.parametrize("dry_run", [True, False])
def test_a_dry_run_of_a_grid_is_one_of_train_py(dry_run, monkeypatch):
    """Else the plan of `sweep=paper sweep.dry_run=true` would be hours of fits."""
    started: list[list[str]] = []

    def popen(words, **more):
        started.append(words)
        return SimpleNamespace(wait=lambda: 0)

    monkeypatch.setattr(verbs.subprocess, "Popen", popen)
    told: Any = SimpleNamespace(overrides=["model=tiny"], results_dir="r", dry_run=dry_run)
    assert verbs.Grid(points={"quant": "none,int8"}).run(told) == 0
    assert ("sweep.dry_run=true" in started[0]) == dry_run


def test_files_are_timed_anew_at_their_lengths_and_weighed_as_the_bench_says(tmp_path, monkeypatch):
    """A clock that says the tokens of a sentence: 64 by the bench, 3 in the middle of dev, whose file is lighter."""
    run = put(tmp_path, "a", wrong=range(5), ms=8, mb=80, machine="elsewhere")
    change(run, data={"dev_lengths": [0, 0, 0, 2, 1]}, size={"structure": {"vocabulary_size": 9}})
    (run / "bundle").mkdir()
    for name in ("model.tflite", "tokenizer.json"):
        (run / "bundle" / name).write_text("x")

    def clock(files, *, length, **more):
        return {file: {"latency_p50_ms": float(length)} for file in files}

    def mix(files, *, counts, **more):
        return {file: {"of": list(counts)} for file in files}

    def scale(path, *, windows, threads):
        return {"peak_rss_bytes": 100 * windows.shape[1] + threads}

    monkeypatch.setattr(remeasure, "latency", clock)
    monkeypatch.setattr(remeasure, "dev_mix", mix)
    monkeypatch.setattr(remeasure, "peak_memory", scale)
    assert remeasure.remeasure(list(points(tmp_path).values()), BENCH) == 1
    found = json.loads((run / result.REMEASURED).read_text())
    speed = found["speed"]
    assert (speed["latency_p50_ms"], speed["sequence_length"], speed["threads"]) == (64, 64, 2)
    assert (speed["median_length_latency_p50_ms"], speed["median_length"], speed["of"]) == (3, 3, [0, 0, 0, 2, 1])
    assert found["memory"] == {"peak_rss_bytes": 6402}


def test_a_search_begins_no_trial_after_its_minutes(monkeypatch):
    """Trials of 50 s each within two minutes: the third begins at 100 s, and no fourth at 150 s."""
    clock = [7.0]
    monkeypatch.setattr(verbs, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    known: dict[str, int] = {}

    def step() -> bool:
        clock[0] += 50
        known[str(clock[0])] = 1
        return True

    one = verbs.SearchSweep(space={}, sampler="tpe", journal="log", seed=0)
    told: Any = SimpleNamespace(trials=9, timeout_min=2)
    assert one._trials(SimpleNamespace(known=lambda: known, step=step), told) == 0
    assert len(known) == 3
    assert (
        one._trials(SimpleNamespace(known=lambda: known, step=step), SimpleNamespace(trials=9, timeout_min=None)) == 0
    )
    assert len(known) == 9


def test_trials_and_minutes_are_those_of_the_command_line(monkeypatch, tmp_path):
    told = []
    monkeypatch.setattr(places, "_added", [])
    monkeypatch.setattr(verbs.SearchSweep, "run", lambda sweep, settings: told.append((sweep, settings)) or 0)
    words = [
        "sweep=search",
        "trials=7",
        "timeout_min=30",
        "sweep.sampler=nsga2",
        "sweep.seed=3",
        f"results_dir={tmp_path}",
    ]
    monkeypatch.setattr(sys, "argv", ["sweep.py", *words])
    try:
        assert command.start() == 0
    finally:
        GlobalHydra.instance().clear()
    ((found, settings),) = told
    assert (settings.trials, settings.timeout_min, found.sampler, found.seed) == (7, 30, "nsga2", 3)


@pytest.fixture
def searched(tmp_path, monkeypatch, capsys):
    """The end of a search that has found two points, the better one too large: what was asked on the way."""
    put(tmp_path, "big", wrong=range(1), ms=30, mb=90)
    put(tmp_path, "small", wrong=range(9), ms=5, mb=20, quant="int8")
    known, asked = points(tmp_path), SimpleNamespace(sampler=None, seeds=[], notes=[], bench=None)

    def study_in(journal, *, name, sampler, seed):
        asked.sampler = sampler
        asked.seeds.append(seed)

    def engine(study, space, *, seed, **more):
        asked.seeds.append(seed)
        return SimpleNamespace(known=lambda: dict.fromkeys(known))

    monkeypatch.setattr(search, "study_in", study_in)
    monkeypatch.setattr(search, "Search", engine)
    monkeypatch.setattr(search, "read_journal", lambda study: [verbs.point_values(known["small"])])
    monkeypatch.setattr(again, "measure_noisy_again", lambda folders, bench: setattr(asked, "bench", bench))
    monkeypatch.setattr(verbs, "compare_all", lambda *given, notes, **more: asked.notes.extend(notes))
    monkeypatch.setattr(verbs, "_track", lambda settings: OmegaConf.create({}))
    monkeypatch.setattr(verbs, "_bench", lambda settings: BENCH)
    monkeypatch.setattr(verbs.SearchSweep, "_asked", lambda sweep, settings: "x")
    monkeypatch.setattr(verbs.SearchSweep, "_trials", lambda sweep, engine, settings: 0)
    settings: Any = SimpleNamespace(
        dry_run=False, results_dir=tmp_path, overrides=[], budget=Budget(file_mb=24, latency_ms=None, drop_points=None)
    )
    assert verbs.SearchSweep(space={}, sampler="random", journal="log", seed=3).run(settings) == 0
    asked.out = capsys.readouterr().out
    return asked


def test_a_search_draws_by_its_sampler_and_its_seed_and_times_by_the_bench(searched):
    assert (searched.sampler, searched.seeds, searched.bench) == ("random", [3, 3], BENCH)


def test_a_search_ends_with_the_best_point_of_its_budget_and_how_good_it_was(searched):
    assert searched.out.startswith("Best: tiny prune=none quant=int8 T=2: 0.9100")
    assert "No other finished point fits the budget." in searched.out
    (line,) = searched.notes
    assert " after 1 trials; " in line
    assert "from the 2 points known here" in line


def test_what_a_point_came_to_is_told_in_the_order_of_the_objectives(tmp_path):
    put(tmp_path, "a", wrong=range(9), ms=5, mb=20)
    (point,) = points(tmp_path).values()
    told = dict(zip(search.OBJECTIVES, verbs.point_values(point), strict=True))
    assert told == {"accuracy_fraction": 0.91, "latency_p50_ms": 5, "file_bytes": 20_000_000}
    assert dict(zip(search.OBJECTIVES, search.DIRECTIONS, strict=True))["accuracy_fraction"] == "maximize"


def test_an_ingredient_has_its_own_figures_and_what_the_recipe_loses_without_it(tmp_path, monkeypatch):
    """Ten sentences more of 100 are wrong without it, and the file is four times as large."""
    for seed in (0, 1):
        put(tmp_path, f"whole{seed}", wrong=range(5), ms=2, mb=10, seed=seed, student=f"w{seed}")
        put(tmp_path, f"less{seed}", wrong=range(15), ms=8, mb=40, seed=seed, student=f"l{seed}")
    monkeypatch.setattr(named, "_run_id", lambda words, settings: words[0])
    one = named.Ablation(without={"slim": ["slim=none"]}, seeds=[0, 1])
    batch: Any = {named.WHOLE: [["whole0"], ["whole1"]], "slim": [["less0"], ["less1"]], "vocab": [["x"], ["y"]]}
    settings: Any = SimpleNamespace(results_dir=tmp_path)
    whole, slim, vocab, _ = one.notes(batch, settings)
    assert whole == "Ablation, without nothing: 0.9500; 10.00 MB, 2.00 ms."
    assert slim.startswith("Ablation, without slim: 0.8500, -10.00 points (-")
    assert slim.endswith("; 40.00 MB, 8.00 ms.")
    assert vocab == "Ablation, without vocab: not measured."
    _, head, first, second, *_ = one.table(batch, settings)
    assert head.split() == ["without", "accuracy", "points", "95", "%", "MB", "ms"]
    assert first.split() == ["nothing", "0.9500", "10.00", "2.00"]
    cells = second.split()
    assert cells[:3] + cells[-2:] == ["slim", "0.8500", "-10.00", "40.00", "8.00"]


def test_the_end_of_a_sweep_times_its_noisy_points_again_as_its_points_say(tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(wandb_report, "save", lambda *given: None)
    monkeypatch.setattr(again, "measure_noisy_again", lambda folders, bench: told.append((folders, bench)))
    monkeypatch.setattr(multirun, "build", lambda node, group: (node.threads, group))
    cfg = OmegaConf.create({"track": {"method": "none"}, "bench": {"threads": 2}})
    job: Any = SimpleNamespace(results_dir=tmp_path, command="python train.py", cfg=cfg)
    made_points: Any = [SimpleNamespace(folder=tmp_path / name, job=job) for name in ("a1", "a2", "a1")]
    for name in ("a1", "a2"):
        (put(tmp_path, name, wrong=range(3), ms=1.0, mb=1.0) / "bundle").mkdir()
    (tmp_path / "x").mkdir()
    multirun._close(SimpleNamespace(points=made_points, todo=made_points[:1]), tmp_path / "x", notes=lambda: ["a line"])
    assert told == [([tmp_path / "a1", tmp_path / "a2"], (2, "bench"))]
    assert "- a line\n" in (tmp_path / "x" / "report.md").read_text()


def closed(tmp_path, monkeypatch, *names, todo, notes=lambda: ()):
    """The end of a sweep over finished points of these names: the folder of its report."""
    monkeypatch.setattr(multirun, "build", lambda node, group: BENCH)
    cfg = OmegaConf.create({"track": {"method": "none"}, "bench": {}})
    job: Any = SimpleNamespace(results_dir=tmp_path, command="python train.py", cfg=cfg)
    made_points: Any = [SimpleNamespace(folder=tmp_path / name, job=job) for name in names]
    (tmp_path / "x").mkdir(exist_ok=True)
    multirun._close(SimpleNamespace(points=made_points, todo=made_points[:todo]), tmp_path / "x", notes=notes)
    return tmp_path / "x"


def test_a_noisy_point_whose_file_is_gone_ends_no_sweep(tmp_path, monkeypatch):
    """Its bundle was emptied to save disk; its figures can still be compared."""
    bench = {"sequence_length": BENCH.sequence_length, "threads": BENCH.threads}
    for name, more in (("new", {}), ("old", {"p90_ms": 9.0})):
        run = put(tmp_path, name, wrong=range(3), ms=1.0, mb=1.0, machine=machine_id(), **more)
        (change(run, speed=bench) / "bundle").mkdir()
    assert (closed(tmp_path, monkeypatch, "new", "old", todo=1) / "report.md").is_file()


def test_the_lines_of_an_ablation_stay_when_it_is_called_again(tmp_path, monkeypatch):
    """A page that train.py -m wrote of the same points gets them too, and so does the report on W&B."""
    said: list[list[str]] = []
    monkeypatch.setattr(wandb_report, "save", lambda found, folder, place: said.append(found.notes))
    (put(tmp_path, "a", wrong=range(3), ms=1.0, mb=1.0) / "bundle").mkdir()
    for todo, notes in ((1, ()), (0, ("a line",)), (0, ("a line",))):
        page = closed(tmp_path, monkeypatch, "a", todo=todo, notes=lambda notes=notes: list(notes)) / "report.md"
        assert ("- a line\n" in page.read_text()) == bool(notes)
    assert said == [[], ["a line"], ["a line"]]


def test_a_pick_says_the_megabytes_that_ship(tmp_path):
    put(tmp_path, "a", wrong=range(9), ms=5, mb=20)
    (point,) = points(tmp_path).values()
    assert pick.describe(point) == (
        "tiny prune=none quant=none T=2: 0.9100 of 100 (95 %: 0.860 to 0.960), 20.00 MB, 5.00 ms"
    )


def test_a_model_of_random_weights_is_timed_as_the_bench_says(tmp_path, monkeypatch):
    """A clock that says the tokens of a sentence, and three times as many of a float32 file."""
    file, float32 = tmp_path / "file", tmp_path / "float32"
    file.write_text("a")
    float32.write_text("b")

    def clock(files, *, length, **more):
        return {name: {"latency_p50_ms": length * (1.0 + 2 * (name == "float32"))} for name in files}

    monkeypatch.setattr(latency, "latency", clock)
    assert sweep_baselines._speed(file, float32, np.zeros(9, np.int32), BENCH) == {
        "latency_p50_ms": 64,
        "threads": 2,
        "sequence_length": 64,
        "float32_latency_p50_ms": 192,
        "speedup_vs_float32": 3,
    }


# Serving and tracking


def test_every_worker_has_an_interpreter_of_its_own(monkeypatch):
    """uvicorn's own Config would close the handlers of all logs, and with absl's the stream that pytest writes to."""
    loaded, told = [], {}
    monkeypatch.setattr(serve, "Classifier", lambda folder: loaded.append(folder) or object())

    def application(classifiers, *, queue):
        told.update(n=len(set(map(id, classifiers))), queue=queue)

    monkeypatch.setattr("optim.serve.app.application", application)
    monkeypatch.setattr("uvicorn.Config", lambda app, **more: app)
    monkeypatch.setattr("uvicorn.Server", lambda config: SimpleNamespace(run=lambda sockets: None))
    assert serve.main(["a/bundle", "--workers", "3", "--queue", "9", "--port", "0"]) == 0
    assert (loaded, told) == ([Path("a/bundle")] * 3, {"n": 3, "queue": 9})


def test_a_run_is_opened_for_the_team_and_watches_the_process_that_is_asked_for(monkeypatch):
    told: dict[str, Any] = {}
    wandb: Any = SimpleNamespace(Settings=lambda **given: given, init=lambda **given: told.update(given))
    names = ("project", "entity", "dir", "group", "tags", "name", "job_type", "config")
    opening = {name: f"own {name}" for name in names}
    writer._init(
        wandb, {**opening, "run_id": "point1", "pid": 7, "init_timeout_s": 5.0, "finish_timeout_s": 30.0}, "online"
    )
    settings = told.pop("settings")
    assert told == {**opening, "id": "point1", "mode": "online", "resume": "allow", "allow_val_change": True}
    assert (settings["x_stats_pid"], settings["init_timeout"], settings["finish_timeout"]) == (7, 5.0, 24.0)


# Pages of benchmarks


@pytest.mark.parametrize("name", ["methods", "teachers", "banking77"])
def test_students_are_taught_by_the_mpnet_that_is_asked_for(name, script, monkeypatch, tmp_path):
    """The page says its seed in any case."""
    module, told = script(name), []
    taught = "half" if name == "methods" else "minilm taught by mpnet, int8"

    def asked(given, points_, words, *more):
        told.extend(words(taught, 1))
        raise SystemExit

    if name == "methods":
        monkeypatch.setattr(module, "made_before", lambda points_, words, seeds, results: asked(None, points_, words))
    else:
        monkeypatch.setattr(module.kept, "make", asked)
    monkeypatch.setattr(
        sys, "argv", [f"{name}.py", "--data", str(tmp_path), "--teacher-seed", "2", "--page", str(tmp_path / "p.md")]
    )
    with pytest.raises(SystemExit):
        module.main()
    assert {"distill.teacher_seed=2", "seed=1"} <= set(told)


def test_no_recipe_is_begun_after_the_minutes_that_are_asked_for(monkeypatch, tmp_path):
    from benchmarks import recipes

    told = []
    monkeypatch.setattr(recipes, "planned", lambda *given: [])
    monkeypatch.setattr(recipes, "on_page", lambda *given: [])
    monkeypatch.setattr(recipes, "write", lambda *given: None)
    monkeypatch.setattr(recipes, "run_missing", lambda points, *, minutes: told.append(minutes) or ())
    monkeypatch.setattr(sys, "argv", ["recipes.py", "--minutes", "5", "--page", str(tmp_path / "p.md")])
    recipes.main()
    assert told == [5]


def test_a_row_of_teachers_has_its_own_figures(script):
    """Two seeds, 4 and 6 ms, p90 far above; MB are of the file, minutes of the student."""
    right = np.arange(100) >= 10
    seeds = {
        seed: finished_point("a", right, right, seed=seed, ms=4 + 2 * seed, p90_ms=50.0, mb=20, float32_ms=12.0)
        for seed in (0, 1)
    }
    for point in seeds.values():
        point.result.quality.update(agreement_fraction=0.99)
        point.result.cost.update(student_s=600.0, teacher_s=6000.0)
    assert script("teachers").row("minilm, int8", seeds) == (
        "| minilm, int8 | 0, 1 | 0.9000 | 0.9000, 0.9000 | 0.9900 | 20.0 | 5.0 | 2.50x | 10 |"
    )
