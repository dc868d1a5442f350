"""What a wrong word is told, and what --config-dir, experiments and other sweepers do: through the front doors."""

from __future__ import annotations

import functools
import json
import logging
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import CONF, ROOT, Runs
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from made_results import put
from omegaconf import OmegaConf

from optim.command import sweep, train
from optim.command.start import flags_first
from optim.common import hub
from optim.common.build import build
from optim.run import places, words
from optim.run.point import point_of
from optim.run.worded import worded
from optim.sweep import baselines, multirun, verbs


@pytest.fixture
def said(monkeypatch, capsys):
    """A program in this process: (exit code, stdout, stderr)."""
    monkeypatch.setattr(places, "_added", [])
    handlers = logging.getLogger().handlers

    def call(program, *given: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [f"{program.__name__}.py", *given])
        try:
            code = program.start()
        except SystemExit as end:
            code = int(end.code or 0)
        finally:
            GlobalHydra.instance().clear()
            logging.getLogger().handlers = handlers
        out, err = capsys.readouterr()
        return code, out, err

    return call


# ---- what is told ----


@pytest.mark.parametrize(
    ("key", "found"),
    [
        ("epochs", ["fit.teacher.epochs", "fit.student.epochs"]),
        ("fit.epochs", ["fit.teacher.epochs", "fit.student.epochs"]),
        ("temperature", ["distill.temperature"]),
        ("quant.sample", ["quant.samples"]),
        ("modle", ["model"]),
        ("xyzzy", []),
    ],
)
def test_the_nearest_key_is_alike_in_its_last_part(key, found):
    assert words.nearest(key, [*places.GROUPS, *words.known_keys()]) == found


def test_every_key_that_a_run_composes_is_known():
    """So that no key is called unknown that is one."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", overrides=["model=minilm", "data=reviews", "prune=fixed50", "quant=int8"])
    plain = OmegaConf.to_container(cfg)
    assert set(words._leaves(plain, "")) - set(places.GROUPS) <= set(words.known_keys())


def test_a_sweep_names_the_point_and_the_nearest_key(said, runs: Runs):
    code, _, err = said(train, "-m", *runs.overrides("+epochs=1", "quant=none,int8"))
    assert code == 2
    assert "The nearest: fit.teacher.epochs, fit.student.epochs.\nIn the point: python train.py" in err


def test_a_plan_of_one_point_does_not_say_which_point_has_the_mistake(said, runs: Runs):
    code, _, err = said(train, *runs.overrides("seed=-1", "sweep.dry_run=true"))
    assert (code, len(err.splitlines())) == (2, 1)
    assert err.startswith("Error: seed must be a whole number from 0")


def test_help_says_where_the_keys_of_other_options_are(said):
    _, shown, _ = said(train, "--help")
    assert "Another option brings its own: python train.py slim=budget --help\nmodel:\n" in shown
    assert "  latency_ms: null" in said(train, "slim=budget", "--help")[1]


def test_hydras_own_form_of_an_error_is_there_for_who_asks(said, monkeypatch):
    from hydra.errors import ConfigCompositionException

    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(ConfigCompositionException):
        said(train, "epochs=3")


# ---- sweep.py ----


def test_sweep_py_without_words_lists_what_it_can_do(said):
    code, out, err = said(sweep)
    assert (code, err) == (0, "")
    names = {path.stem for path in (CONF / "sweep").glob("*.yaml")}
    rows = dict(line.split(maxsplit=1) for line in out.splitlines() if line.split(maxsplit=1)[:1] and line[0] != "W")
    assert names <= set(rows)
    assert rows["pick"] == "the most accurate finished point within a budget."


def test_every_option_of_every_group_starts_with_a_line_about_it():
    for path in CONF.glob("*/*.yaml"):
        assert path.read_text(encoding="utf-8").startswith("#"), path
    assert all(words._about(path) for path in (CONF / "sweep").glob("*.yaml"))


def test_help_lists_what_each_program_takes_and_nothing_that_it_refuses(said):
    _, shown, _ = said(train, "--help")
    listed = dict(line.split(": ", 1) for line in shown.split("==")[2].strip().splitlines())
    assert set(listed) == {*places.GROUPS, "experiment", "hydra/launcher", "hydra/sweeper"}
    assert "sweep:\n  dry_run: false" in shown
    _, shown, _ = said(sweep, "--help", "sweep=frontier")
    assert "Sweeps: choose one with sweep=NAME" in shown
    assert "seeds:\n  - 0" in shown, "the keys of the sweep that is named"
    assert "bench: cpu1" not in shown, "the groups of train.py are no options here"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["data=sst2"], "say what to do with data=sst2: sweep=NAME"),
        (["sweep=pick", "prune=fixed50"], "prune=fixed50 changes nothing under sweep=pick: it reads no key"),
        (["sweep=report", "bench=quick"], "of train.py's keys it reads track alone"),
        (["sweep=frontier", "hydra/launcher=joblib"], "hydra/launcher=joblib changes nothing: sweep=frontier starts"),
        (["sweep=search", "distill.temperature=interval(1,4)"],
         "endless points; list those to choose from, sweep.space.distill.temperature=[1,2,4]."),
        (["sweep=frontier", "seed=interval(1,4)"], "endless points; give one value, seed=2: this sweep has"),
        (["sweep=papre"], "sensitivity. The nearest: paper."),
        (["sweep=search", "model=tiny", "data=csv", "epochs=3"], "epochs is no key here. The nearest: fit.teacher.ep"),
        (["trails=3"], "say what to do with trails=3"),
        (["sweep=pick", "budget.latency=3"], "budget.latency is no key here. The nearest: budget.latency_ms."),
        (["sweep=frontier", "sweep.seed=1"], "sweep.seed is no key here. The nearest: sweep.seeds"),
        (["sweep=frontier", "seed=1"], "seed=1 changes nothing: each point is run by every seed of sweep.seeds=[1]."),
        (["sweep=ablation", "seed=1"], "seed=1 changes nothing"),
        (["sweep=report", "results_dir=null"], "results_dir must name a folder, got None"),
        (["sweep=cache", "clean=all", "yes=no"], "yes must be true or false, got 'no'"),
        (["sweep=search", "sweep.space.quant=[]"], "sweep.space.quant is empty"),
        (["sweep=search", "sweep.seed=-1"], "sweep.seed must be a whole number from 0"),
        (["sweep=report", "budget.file_mb=10"], "changes nothing here: it is for sweep=search and sweep=pick"),
        (["sweep=measure", "machine=0badcafe"], "changes nothing here: it is for sweep=report and sweep=pick"),
        (["sweep=measure", "model=minilm"], "of train.py's keys it reads bench and track alone"),
    ],
)  # fmt: skip
def test_words_that_nothing_reads_are_refused(said, given, told):
    code, _, err = said(sweep, *given)
    assert code == 2
    assert told in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("name", ["report", "measure"])
def test_what_could_not_be_uploaded_is_not_begun(said, tmp_path, name):
    put(tmp_path, "one", wrong=range(1), ms=1, mb=1)
    code, out, err = said(sweep, f"sweep={name}", "track=wandb", f"results_dir={tmp_path}")
    assert (code, out, err.count("no W&B key was found")) == (2, "", 1), err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["sweep=pick", "machine=1234e567"], "that machine 1234e567 has measured"),
        (["sweep=publish", "run=1e23456789012345"], "run=1e23456789012345: "),
        (["sweep=import", "file=1.10"], "file=1.10 cannot be read"),
    ],
)
def test_an_id_that_looks_like_a_number_stays_as_it_was_written(said, tmp_path, words, told):
    code, _, err = said(sweep, *words, f"results_dir={tmp_path}")
    assert (code, told in err) == (2, True), err


def test_a_folder_may_be_named_by_a_number(said, runs: Runs):
    assert "results_dir 2024 does not exist" in said(sweep, "sweep=report", "results_dir=2024")[2]
    code, out, err = said(train, *runs.overrides("results_dir=2024", "sweep.dry_run=true"))
    assert (code, "1 point: 0 done, 1 to run" in out) == (0, True), err


@pytest.mark.parametrize("group", ["track", "experiment"])
def test_null_is_no_option(said, group):
    code, _, err = said(train, f"{group}=null")
    assert (code, f"{group}=null: that is no option; {group} has " in err) == (2, True), err


def test_a_sweep_that_could_not_upload_its_points_does_not_start(said, runs: Runs):
    code, _, err = said(train, "-m", *runs.overrides("quant=none,int8", "seed=41", "track=wandb"))
    assert (code, err.count("no W&B key was found")) == (2, 1), err


@pytest.mark.parametrize(
    "value",
    ["a b", "a,b", "jörg", "2024", "1e5", "null", "true", "a=b", "it's", 'a"b', "a\\", "[a]", "{a}", "~/x", "", "a(1)",
     None, True, 3, 0.5, ["a,b", "c", None, ["d"]], {"a": 1}],
)  # fmt: skip
def test_hydra_reads_from_a_word_the_value_that_it_was_made_of(value):
    (word,) = OverridesParser.create().parse_overrides([worded("key", value)])
    assert not word.is_sweep_override()
    assert word.value() == value


@pytest.mark.parametrize("words", [["sweep=grid", "quant=none,int8"], ["sweep=search", "sweep.space.quant=[none,int8]"],
                                   ["sweep=frontier", "slim=none", "vocab=full"]])  # fmt: skip
def test_results_may_lie_in_a_folder_of_any_name(said, runs: Runs, tmp_path, monkeypatch, words):
    """It goes on to the points as it was read, in processes too."""
    jobs, started = [], []
    monkeypatch.setattr(verbs, "plan", lambda found: jobs.extend(found) or SimpleNamespace(table=str))
    monkeypatch.setattr(multirun, "plan", verbs.plan)
    monkeypatch.setattr(verbs.subprocess, "Popen", lambda command, **_: started.append(command) or Done())
    own = [word for word in runs.overrides() if not word.startswith(("results_dir=", "seed="))]
    code, _, err = said(sweep, *words, *own, f'results_dir="{tmp_path}/jörg, a=b"', "sweep.dry_run=true")
    assert code == 0, err
    for command in started:
        parsed = OverridesParser.create().parse_overrides([word for word in command if word.startswith("results_dir=")])
        assert [word.value() for word in parsed] == [f"{tmp_path}/jörg, a=b"]
    assert {job.results_dir for job in jobs} <= {tmp_path / "jörg, a=b"}
    assert jobs or started


class Done:
    def wait(self) -> int:
        return 0


@pytest.mark.filterwarnings("ignore:\\s*'hydra/launcher/")
def test_the_home_folder_stands_for_its_sign_wherever_something_is_written(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    cfg = composed("model=tiny", "data=csv", "track=offline", 'results_dir="~/r"', "hydra/launcher=submitit_local")
    assert cfg.hydra.sweep.dir == f"{tmp_path}/r"
    assert cfg.hydra.launcher.submitit_folder == f"{tmp_path}/r/.submitit/%j"
    assert build(cfg.track, "track").dir == f"{tmp_path}/r"


def test_folders_of_options_are_named_again_whatever_their_names(monkeypatch):
    monkeypatch.setattr(places, "_added", [Path("/a, b"), Path("/c")])
    (word,) = OverridesParser.create().parse_overrides(places.dir_words())
    assert word.value() == ["file:///a, b", "file:///c"]


def test_words_of_the_launcher_go_to_train_py():
    own, passed = sweep.split(
        [
            "sweep=grid",
            "--config-dir",
            "a=b",
            "hydra/launcher=joblib",
            "hydra.launcher.n_jobs=4",
            "hydra.searchpath=[file://x]",
            "cache_dir=c",
            "prune=none",
            "hydra.help.header=h",
        ]
    )
    assert own == [
        "sweep=grid",
        "--config-dir",
        "a=b",
        "hydra.searchpath=[file://x]",
        "cache_dir=c",
        "hydra.help.header=h",
    ]
    assert passed == ["hydra/launcher=joblib", "hydra.launcher.n_jobs=4", "hydra.searchpath=[file://x]", "cache_dir=c",
                      "prune=none"]  # fmt: skip


def test_a_word_that_takes_a_key_away_goes_to_the_program_that_has_the_key():
    own, passed = sweep.split(["sweep=ablation", "~sweep.without.distill", "~distill.augment", "~hydra.run.dir"])
    assert own == ["sweep=ablation", "~sweep.without.distill", "~hydra.run.dir"]
    assert passed == ["~distill.augment"]


# ---- flags ----


@pytest.mark.parametrize(
    ("given", "parsed"),
    [
        ("a=1 -m b=1,2", "-m a=1 b=1,2"),
        ("-m a=1 b=1,2", "-m a=1 b=1,2"),
        ("a=1 --config-dir x=y b=1 -cn z c=1", "--config-dir x=y -cn z a=1 b=1 c=1"),
        ("a=1 --cfg job b=1 -p fit c=1", "--cfg job -p fit a=1 b=1 c=1"),
        ("a=1 --config-dir=x b=1 -cp y c=1", "--config-dir=x -cp y a=1 b=1 c=1"),
        ("a=1 --info b=1", "--info all a=1 b=1"),
        ("a=1 -i defaults-tree b=1", "-i defaults-tree a=1 b=1"),
        ("a=1 --config-d x b=1 --inf", "--config-d x --inf all a=1 b=1"),
        ("a=1 ~b --resolve c=-1", "--resolve a=1 ~b c=-1"),
        ("a=1 b=1 --config-dir", "a=1 b=1 --config-dir"),
    ],
)  # fmt: skip
def test_flags_stand_before_the_other_words_with_what_they_take(given, parsed):
    assert flags_first(given.split()) == parsed.split()


def test_a_flag_may_stand_between_words(said, runs: Runs, own):
    words = runs.overrides("seed=41", "sweep.dry_run=true")
    code, out, err = said(train, "prune=fixed50", "-m", "quant=none,int8", *words)
    assert (code, "2 points: 0 done, 2 to run" in out) == (0, True), err
    code, out, err = said(train, "prune=fixed50", "--help", "quant=int8")
    assert (code, "sparsity: 0.5" in out) == (0, True), err
    code, out, err = said(train, "prune=fixed50", "--cfg", "job", "seed=77")
    assert (code, "seed: 77" in out) == (0, True), err
    code, out, err = said(sweep, "quant=int8", "--config-dir", str(own), "sweep=small", "--help", "trials=7")
    assert (code, "trials: 7" in out) == (0, True), err


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["fit.teacher.epochs=20", "fit.teacher.steps=3"], ["fit.teacher.epochs=20 is not read"]),
        (["fit.student.steps=3", "fit.student.epochs=2,4", "fit.teacher.epochs=1"],
         ["fit.student.epochs=2 is not read", "fit.student.epochs=4 is not read"]),
        (["fit.student.steps=null", "fit.student.epochs=2"], []),
        (["fit.student.steps=null,3", "fit.student.epochs=2"], ["2 is not read: the fit has fit.student.steps=3."]),
        (["fit.student.steps=3", "fit.teacher.epochs=2"], ["fit.student.epochs=2 is not read"]),  # that of `runs`
        (["fit=long", "fit.student.epochs=2"], ["2 is not read: the fit has fit.student.steps=7480"]),
        (["experiment=frontier", "distill.teacher=same", "fit.student.epochs=2"], ["fit.student.epochs=2 is not read"]),
        (["fit=long", "fit.student.epochs=2", "fit.student.steps=null"], []),
    ],
)  # fmt: skip
def test_epochs_beside_steps_are_told_to_be_not_read(said, runs: Runs, given, told):
    code, _, err = said(train, *runs.overrides(*given, "quant=none,int8"), "-m", "sweep.dry_run=true")
    assert code == 0, err
    assert err.count("is not read") == len(told)
    assert all(part in err for part in told)


def test_a_dry_run_of_one_point_tells_of_epochs_too(said, runs: Runs):
    _, _, err = said(train, *runs.overrides("fit.student.epochs=2", "fit.student.steps=3", "sweep.dry_run=true"))
    assert "fit.student.epochs=2 is not read" in err


def test_a_key_that_is_taken_away_gives_no_epochs():
    cfg = {"fit": {"teacher": {"steps": 3}, "student": {"steps": 3}}}
    assert words.unread_epochs(["~fit.teacher.epochs"], cfg) == []
    assert len(words.unread_epochs(["++fit.teacher.epochs=2"], cfg)) == 1


# ---- dry runs ----


def test_a_dry_run_of_one_point_plans_it(said, runs: Runs):
    code, out, _ = said(train, *runs.overrides("quant=int8", "seed=41", "sweep.dry_run=true"))
    assert code == 0
    assert "1 point: 0 done, 1 to run" in out
    assert not list(runs.results.glob("*/result.json"))


def test_a_dry_run_under_hydras_own_sweeper_plans_each_point(said, runs: Runs):
    code, out, _ = said(train, "-m", "hydra/sweeper=basic",
                        *runs.overrides("quant=none,int8", "seed=41", "sweep.dry_run=true"))  # fmt: skip
    assert code == 0
    assert out.count("1 point: 0 done, 1 to run") == 2
    assert not list(runs.results.glob("*/result.json"))
    assert not Path("multirun.yaml").exists(), "Hydra's record of it is not left where the command was given"
    assert (runs.results / "multirun.yaml").is_file()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["sweep=search", "sweep.space.quant=[none,int8]"], "The space has 30 points; at most 40 trials run."),
        (["sweep=baselines", "sweep.models=[minilm]"], "minilm "),
        (["sweep=sensitivity", "quant=int8"], "is to be made"),
        (["sweep=frontier", "slim=none", "vocab=full", "prune=none"], "28 points: 0 done, 8 to run"),
    ],
)
def test_a_dry_run_of_a_sweep_makes_nothing(said, runs: Runs, words, told):
    chosen = {"sweep=baselines": "model=", "sweep=frontier": "seed="}.get(words[0], "-")  # by the sweep itself
    own = [word for word in runs.overrides("seed=41") if not word.startswith(chosen)]
    assert said(train, *runs.overrides("sweep.dry_run=true"))[0] == 0  # a plan reads the tokenizer of the checkpoint
    before = set(runs.cache.glob("stages/[!.]*"))
    assert {path.name.split("-")[0] for path in before} == {"tiny"}
    code, out, err = said(sweep, *words, *own, "sweep.dry_run=true")
    assert code == 0, err
    assert told in out
    assert not list(runs.results.rglob("*.json"))
    assert set(runs.cache.glob("stages/[!.]*")) == before


# ---- other sweepers ----


def test_under_hydras_own_sweeper_a_point_that_fails_fails_the_program(said, runs: Runs, monkeypatch):
    ran = []

    def run_apart(job, *, quiet) -> bool:
        assert quiet is False, "nobody else tells how a point ended"
        ran.append(job.choices["quant"])
        return job.choices["quant"] == "int8"

    monkeypatch.setattr(train, "run_apart", run_apart)
    code, _, err = said(train, "-m", "hydra/sweeper=basic", *runs.overrides("quant=none,int8", "seed=41"))
    assert code == 1
    assert ran == ["none", "int8"], "the others go on"
    assert "a point failed: python train.py" in err
    assert said(train, "-m", "hydra/sweeper=basic", *runs.overrides("quant=int8", "seed=41"))[0] == 0


# ---- --config-dir ----


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A folder of one's own options: a model, a sweep, an experiment."""
    for group in ("model", "sweep", "experiment"):
        (tmp_path / "own" / group).mkdir(parents=True)
    tiny = OmegaConf.load(CONF / "model" / "tiny.yaml")
    OmegaConf.save(OmegaConf.merge(tiny, {"name": "mine", "seed": 9}), tmp_path / "own" / "model" / "mine.yaml")
    grid = "# small: two precisions.\nmethod: grid\npoints:\n  quant: none,int8\n"
    (tmp_path / "own" / "sweep" / "small.yaml").write_text(grid)
    (tmp_path / "own" / "experiment" / "half.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /prune: fixed50\n"
    )
    return tmp_path / "own"


def test_config_dir_reaches_teachers_and_experiments_and_the_recorded_command(said, runs: Runs, own, monkeypatch):
    jobs = []
    monkeypatch.setattr(train, "run", jobs.append)
    given = runs.overrides("distill.teacher=mine", "experiment=half", "quant=int8")
    code, _, err = said(train, "--config-dir", str(own), *given)
    assert code == 0, err
    assert jobs[0].choices["prune"] == "fixed50"
    assert point_of(jobs[0].cfg).teachers[0].checkpoint.fingerprint()["seed"] == 9
    assert jobs[0].command.startswith(f"python train.py --config-dir {own} model=tiny")
    assert str(own) in jobs[0].dirs, "and the process of the point is told"


@pytest.mark.slow
def test_the_recorded_command_names_the_config_and_quotes_what_a_shell_would_take_apart(runs: Runs, own, tmp_path):
    """A config of one's own, a folder with a space, under a launcher: the command that is left runs the same point."""
    (own / "mine.yaml").write_text("defaults: [train, _self_]\nfit: {teacher: {epochs: 1}}\n")
    results = tmp_path / "two words"
    words = [word for word in runs.overrides("seed=3", f"results_dir='{results}'") if "teacher.epochs" not in word]
    command = [sys.executable, "train.py", "--config-dir", str(own), "--config-name", "mine", "-m"]
    done = subprocess.run([*command, "quant=none", *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (path,) = results.glob("*/result.json")
    made = json.loads(path.read_text(encoding="utf-8"))
    assert made["command"].startswith(f"python train.py --config-dir {own} --config-name mine ")
    assert made["cfg"]["fit"]["teacher"]["epochs"] == 1
    again = subprocess.run(
        [sys.executable, *shlex.split(made["command"])[1:]], cwd=ROOT, capture_output=True, text=True
    )
    assert (again.returncode, "Done before" in again.stderr) == (0, True), again.stderr


def test_config_dir_reaches_sweeps_their_points_and_help(said, runs: Runs, own):
    words = runs.overrides("distill.teacher=mine", "experiment=half")
    code, out, _ = said(sweep, "--config-dir", str(own), "sweep=frontier", *words, "slim=none", "vocab=full",
                        "sweep.dry_run=true")  # fmt: skip
    assert (code, "teacher mine, seed 0: 1 to build" in out) == (0, True)
    assert "small        two precisions." in said(sweep, "--config-dir", str(own), "--help")[1]
    assert "experiment: frontier, half, paper, smoke" in said(train, "--config-dir", str(own), "--help")[1]


def test_a_sweep_of_ones_own_reaches_its_own_points(runs: Runs, own):
    """In processes: sweep.py hands its folder on to train.py -m."""
    command = [sys.executable, "sweep.py", "--config-dir", str(own), "sweep=small", "sweep.dry_run=true"]
    done = subprocess.run(
        [*command, *runs.overrides("model=mine", "seed=41")], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "2 points: 0 done, 2 to run" in done.stdout


# ---- experiments ----


def composed(*overrides: str):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", overrides=list(overrides), return_hydra_config=True)


def test_the_experiment_paper_is_the_ancestors_run(monkeypatch):
    monkeypatch.setattr(hub, "hub_state", lambda: pytest.fail("an experiment that names its model asks for no hub"))
    cfg = composed("experiment=paper")
    chosen = cfg.hydra.runtime.choices
    names = [chosen[group] for group in ("model", "data", "prune", "distill", "quant")]
    assert names == ["distilbert", "sst2", "fixed50", "kd", "int8"]
    assert (cfg.prune.sparsity, cfg.distill.temperature) == (0.5, 2.0)


def test_the_command_line_wins_over_an_experiment():
    cfg = composed("experiment=paper", "prune=fixed80", "distill.temperature=4", "data=csv")
    assert (cfg.hydra.runtime.choices.prune, cfg.prune.sparsity, cfg.distill.temperature) == ("fixed80", 0.8, 4)
    assert cfg.hydra.runtime.choices.data == "csv"


def test_an_experiment_is_the_point_of_its_own_words(runs: Runs):
    """frontier is one point of sweep=frontier, fitted as README's front was."""
    recipe = OmegaConf.load(CONF / "sweep" / "frontier.yaml").recipes["half int8_emb4"]
    more = [
        "model=minilm",
        "data=sst2",
        "distill.teacher=mpnet",
        "distill.augment.copies=2",
        "fit.student.steps=7480",
        "fit.student.learning_rate=1e-4",
    ]
    one, other = composed("experiment=frontier"), composed(*more, *recipe)
    for cfg in (one, other):
        del cfg.hydra
    assert OmegaConf.to_container(one, resolve=True) == OmegaConf.to_container(other, resolve=True)


@pytest.mark.slow
def test_smoke_runs_from_its_first_step_to_its_last(tmp_path):
    """As the guide says it: nothing else is named, so its sentences come from the package index."""
    words = ["experiment=smoke", f"results_dir={tmp_path / 'results'}", f"cache_dir={tmp_path / 'cache'}"]
    done = subprocess.run([sys.executable, "train.py", *words], cwd=ROOT, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    assert "tiny on reviews, prune=fixed50, quant=int8, no distillation" in done.stdout


def test_smoke_takes_few_steps_of_a_tiny_model():
    cfg = composed("experiment=smoke")
    assert cfg.hydra.runtime.choices.track == "none"
    assert (cfg.model.name, cfg.fit.teacher.epochs) == ("tiny", 1)
    assert cfg.bench == composed("bench=quick").bench


@pytest.fixture
def runs(tmp_path):
    """Results of its own: a dry run is seen to leave none."""
    return Runs(tmp_path)


@pytest.mark.parametrize("name", ["results_dir", "cache_dir"])
def test_a_folder_without_a_name_is_refused(said, runs: Runs, name):
    code, _, err = said(train, *runs.overrides(f"{name}=", "sweep.dry_run=true"))
    assert (code, f"{name} must name a folder" in err) == (2, True), err


def test_a_key_that_is_taken_out_may_stand_beside_a_folder_named_by_a_number(said):
    code, _, err = said(sweep, "sweep=ablation", "results_dir=2024", "~sweep.without.vocab", "sweep.dry_run=true",
                        "model=tiny", "data=reviews", "track=none", "seed=0")  # fmt: skip
    assert (code, "seed=0 changes nothing" in err) == (2, True), err  # read up to there: nothing is planned


@pytest.mark.parametrize("words", [["sweep=search", "trials=1"], ["sweep=baselines", "sweep.models=[minilm]"]])
def test_no_point_is_begun_that_could_not_be_uploaded(said, runs: Runs, words, monkeypatch):
    for module in (verbs, baselines):
        monkeypatch.setattr(module, "run_apart", lambda job: pytest.fail("it was begun"))
    own = [w for w in runs.overrides("track=wandb") if words[0] == "sweep=search" or not w.startswith("model=")]
    code, _, err = said(sweep, *words, *own)
    assert (code, err.count("no W&B key was found")) == (2, 1), err


def test_a_search_ends_before_its_first_trial_where_no_point_can_be_made(said, runs: Runs, monkeypatch):
    monkeypatch.setattr(verbs, "run_apart", lambda job: pytest.fail("it was begun"))
    code, _, err = said(sweep, "sweep=search", "trials=1", *runs.overrides("data.max_length=1000"))
    assert (code, "data.max_length must be at most 512" in err) == (2, True), err


def test_every_key_of_a_space_can_be_taken_out_and_another_put_in(said, runs: Runs):
    words = ["~sweep.space.distill.temperature", "+sweep.space.fit.student.average=[0,0.9]", "sweep.space.quant=[int8]"]
    own = runs.overrides("distill=none", "prune=fixed50", "sweep.dry_run=true")
    code, out, err = said(sweep, "sweep=search", *words, *own)
    assert (code, "The space has 2 points" in out) == (0, True), err
    grid = verbs.Grid(points={"prune": "none", "distill": {"temperature": "1,2"}})
    assert grid.words([]) == ["prune=none", "distill.temperature=1,2"]


@pytest.mark.parametrize("text", ["seed: 3\n", "defaults:\n  - override /quant: int8\nseed: 3\n"])
def test_an_experiment_without_its_first_line_is_told_what_it_lacks(said, runs: Runs, tmp_path, text):
    path = tmp_path / "experiment" / "mine.yaml"
    path.parent.mkdir()
    path.write_text(text)
    code, _, err = said(train, "--config-dir", str(tmp_path), *runs.overrides("experiment=mine"))
    assert code == 2
    assert "The first line of its file must be `# @package _global_`" in err


def test_a_sweep_says_what_stands_in_for_what_the_hub_has(said, runs: Runs, monkeypatch):
    monkeypatch.setattr(hub, "_replaced", {"tiny": "distilbert"})
    monkeypatch.setattr(hub, "hub_state", functools.cache(lambda: "unreachable"))
    code, _, err = said(train, *runs.overrides("quant=none,int8"), "-m", "sweep.dry_run=true")
    assert code == 0
    assert "using tiny in place of distilbert" in err


@pytest.mark.parametrize(
    ("word", "read"),
    [("results_dir=2024_10_05", "20241005"), ("cache_dir=1e5", "100000.0"), ("data.label_column=1_0", "10")],
)
def test_a_folder_that_would_be_read_as_another_number_is_refused(said, word, read):
    key, value = word.split("=")
    code, _, err = said(train, "model=tiny", "data=csv", "data.train_path=x.csv", word)
    assert code == 2
    assert f"{word} would be read as the number {read}. A text is quoted twice: '{key}=\"{value}\"'." in err


def test_numbers_that_stay_what_they_are_pass():
    words.require_words_arrive(["results_dir=2024", "data.label_column=1", "results_dir=007", "fit.student.steps=7_480",
                                "results_dir=2024-10-05", 'results_dir="2024_10_05"', "data.path=1.5"])  # fmt: skip


def test_sweep_reads_such_a_folder_as_it_is_written(said):
    code, _, err = said(sweep, "sweep=report", "results_dir=2024_10_05")
    assert (code, "results_dir 2024_10_05" in err) == (2, True), err


def test_what_is_not_utf_8_is_refused_before_anything_starts(said):
    code, _, err = said(train, "results_dir=lat\udcfcin")
    assert (code, "'results_dir=lat\\udcfcin' is not UTF-8" in err) == (2, True), err


def test_without_a_home_folder_the_cache_is_asked_for(said, monkeypatch):
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    code, _, err = said(train, "model=tiny", "data=csv", "data.train_path=x.csv")
    assert (code, err) == (2, "Error: there is no home folder for cache_dir. Set HOME, or give cache_dir=DIR.\n")


def test_a_working_folder_that_has_gone_is_told(said, monkeypatch):
    def gone() -> str:
        raise FileNotFoundError

    with monkeypatch.context() as patched:
        patched.setattr("os.getcwd", gone)
        code, _, err = said(train, "model=tiny")
    assert (code, err) == (2, "Error: the working folder is not there any more. cd to another one.\n")


def test_an_option_of_a_space_may_hold_signs(said, tmp_path):
    """A text that Hydra cannot read as it stands is quoted; one that is a list there stays one."""
    assert [verbs._option(v) for v in ("kd", "[a,b]", "text, x", "a=b (1)", 2, True, None, ["a"])] == [
        "kd", "[a,b]", '"text, x"', '"a=b (1)"', 2, True, "null", "[a]"]  # fmt: skip
