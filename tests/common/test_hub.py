"""The default model and data with a hub, without one and out of its cache; what the machine offers."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from contextlib import closing
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import hub_standin
import pytest
import yaml
from hub_standin import Hub, serving

from optim.command.start import started
from optim.common import hub
from optim.run import config
from optim.track import key

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def fresh(monkeypatch, tmp_path):
    """A process that has asked nothing, in a home of its own, behind a hub that is gone."""
    for name in list(os.environ):
        if name.startswith(("HF_", "WANDB_", "TRANSFORMERS_", "HUGGINGFACE_")) or name in ("NETRC", "XDG_CACHE_HOME"):
            monkeypatch.delenv(name)
    with serving(Hub()) as gone:
        monkeypatch.setenv("HF_ENDPOINT", gone.address)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["train.py"])
    monkeypatch.chdir(tmp_path)
    hub._replaced.clear()
    hub.hub_state.cache_clear()
    hub.hub_reachable.cache_clear()
    yield
    hub._replaced.clear()
    hub.hub_state.cache_clear()
    hub.hub_reachable.cache_clear()


def fill_hub_cache(home: Path, *, model: str | None = None, data: str | None = None) -> None:
    """What the hub's clients leave after one download."""
    if model:
        snapshot = home / "hub" / f"models--{model}" / "snapshots" / hub.DEFAULT_CHECKPOINT[1]
        snapshot.mkdir(parents=True)
        for name in ("config.json", "model.safetensors", "tokenizer.json"):
            (snapshot / name).touch()
    if data:
        table = home / "datasets" / data / "sst2" / "0.0.0" / "abc"
        table.mkdir(parents=True)
        (table / "dataset_info.json").touch()


# --- the choice


def test_reachable_hub_means_distilbert_on_sst2(monkeypatch):
    with serving(Hub()) as served:
        monkeypatch.setenv("HF_ENDPOINT", served.address)
        assert hub.when_hub("distilbert", "minilm") == "distilbert"
        assert hub.when_hub("sst2", "reviews") == "sst2"
        assert served.requests == ["HEAD "]  # asked once
    assert hub.explain() is None
    assert hub.default_choice() == {"hub": "reachable", "replaced": {}}


def test_unreachable_hub_means_minilm_on_reviews_and_says_so():
    assert hub.when_hub("sst2", "reviews") == "reviews"
    assert hub.when_hub("distilbert", "minilm") == "minilm"
    assert hub.explain() == (
        "The model hub cannot be reached: using reviews and minilm in place of sst2 and distilbert; "
        "model=... and data=... override this."
    )
    assert hub.default_choice() == {"hub": "unreachable", "replaced": {"reviews": "sst2", "minilm": "distilbert"}}


def test_a_default_that_was_overridden_is_not_explained():
    hub.when_hub("distilbert", "minilm")  # Hydra asks for it under -m even if every job has its own model
    hub.when_hub("sst2", "reviews")
    assert hub.explain("tiny", "csv") is None
    assert hub.explain("tiny", "reviews") == (
        "The model hub cannot be reached: using reviews in place of sst2; model=... and data=... override this."
    )
    assert hub.default_choice("tiny", "reviews")["replaced"] == {"reviews": "sst2"}


def test_nothing_asked_is_recorded_as_such():
    assert hub.default_choice() == {"hub": "not asked", "replaced": {}}
    assert hub.explain() is None


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_offline_switch_is_respected(monkeypatch, variable):
    with serving(Hub()) as served:
        monkeypatch.setenv("HF_ENDPOINT", served.address)
        monkeypatch.setenv(variable, "1")
        assert hub.when_hub("distilbert", "minilm") == "minilm"
        assert not hub.hub_reachable()
        assert served.requests == []
    assert hub.default_choice()["hub"] == "offline"
    assert (hub.explain() or "").startswith(f"{variable} is set and the hub's cache lacks DistilBERT or SST-2")
    assert hub.why_no_hub() == f"{variable} is set"


@pytest.mark.parametrize(
    ("model", "data", "state"),
    [
        ("distilbert--distilbert-base-uncased", "nyu-mll___glue", "cached"),
        ("distilbert-base-uncased", "glue", "cached"),  # what older versions of the hub's client left
        ("distilbert--distilbert-base-uncased", None, "offline"),
        (None, "nyu-mll___glue", "offline"),
        ("google-bert--bert-base-uncased", "nyu-mll___glue", "offline"),
    ],
)
@pytest.mark.parametrize("place", ["HF_HOME", "XDG_CACHE_HOME", "HOME"])
def test_hub_cache_counts_if_it_holds_both(monkeypatch, tmp_path, model, data, state, place):
    home = {"HF_HOME": tmp_path, "XDG_CACHE_HOME": tmp_path / "huggingface", "HOME": tmp_path / ".cache/huggingface"}
    monkeypatch.setenv(place, str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    fill_hub_cache(home[place], model=model, data=data)
    assert hub.when_hub("distilbert", "minilm") == ("distilbert" if state == "cached" else "minilm")
    assert hub.default_choice()["hub"] == state


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), RuntimeError("Could not determine home")])
def test_a_cache_that_one_may_not_look_into_holds_nothing(monkeypatch, error):
    """As in the home of root. Hydra would only say that it could not resolve a default."""

    def forbidden(home) -> bool:
        raise error

    monkeypatch.setattr(hub, "_holds_defaults", forbidden)
    assert not hub._defaults_are_cached()


def test_filled_cache_is_not_probed_for(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    fill_hub_cache(tmp_path, model="distilbert--distilbert-base-uncased", data="nyu-mll___glue")
    with serving(Hub()) as served:
        monkeypatch.setenv("HF_ENDPOINT", served.address)
        assert hub.hub_state() == "cached"
        assert served.requests == []


@pytest.mark.parametrize("argument", ["--help", "-h", "--cfg", "--cfg=job", "--info", "--hydra-help"])
def test_showing_something_asks_nothing(monkeypatch, argument):
    with serving(Hub()) as served:
        monkeypatch.setenv("HF_ENDPOINT", served.address)
        monkeypatch.setattr(sys, "argv", ["train.py", argument])
        monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
        chosen = []
        assert started(lambda: chosen.append(hub.when_hub("distilbert", "minilm")), lambda: None) == 0
        assert chosen == ["distilbert"]
        assert served.requests == []
    assert hub.default_choice()["hub"] == "not asked"


def test_defaults_are_those_of_the_yaml_files():
    model, data = (
        yaml.safe_load((ROOT / "conf" / file).read_text()) for file in ("model/distilbert.yaml", "data/sst2.yaml")
    )
    assert (model["hub_id"], model["revision"]) == hub.DEFAULT_CHECKPOINT
    assert (data["data"]["hub_id"], data["data"]["config"]) == hub.DEFAULT_DATASET


# --- the probe


@pytest.mark.timed
def test_probe_ends_in_two_seconds_with_a_server_that_says_nothing(monkeypatch):
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        start = time.monotonic()
        assert not hub.hub_reachable()
        assert time.monotonic() - start < 3


@pytest.mark.timed
def test_probe_does_not_wait_for_name_resolution(monkeypatch):
    monkeypatch.setattr(hub, "PROBE_S", 0.2)

    def slow(*_, **__):
        time.sleep(2)
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    monkeypatch.setenv("HF_ENDPOINT", "http://hub.invalid")
    start = time.monotonic()
    assert not hub.hub_reachable()
    assert time.monotonic() - start < 1.5


@pytest.mark.parametrize(("status", "reachable"), [(200, True), (401, True), (404, True), (403, False), (503, False)])
def test_probe_tells_a_hub_from_a_wall(monkeypatch, status, reachable):
    def answer(self):
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    monkeypatch.setattr(hub_standin, "Handler", type("Fixed", (BaseHTTPRequestHandler,), {"do_HEAD": answer}))
    with serving(Hub()) as served:
        monkeypatch.setenv("HF_ENDPOINT", served.address)
        assert hub.hub_reachable() is reachable


def test_probe_survives_an_address_that_is_none(monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "nonsense")
    assert not hub.hub_reachable()


# --- the other resolvers


def test_user_cache_follows_the_environment(monkeypatch, tmp_path):
    assert config.user_cache() == str(tmp_path / ".cache" / "distilbert-optim")
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert config.user_cache() == "/elsewhere/distilbert-optim"


NETRC = "machine {} login user password 0123456789\n"


@pytest.mark.parametrize(
    ("environment", "files", "mode"),
    [
        ({}, {}, "offline"),
        ({"WANDB_API_KEY": "k"}, {}, "wandb"),
        ({"WANDB_API_KEY": "k", "WANDB_MODE": "offline"}, {}, "offline"),
        ({"WANDB_API_KEY": "k", "WANDB_MODE": "dryrun"}, {}, "offline"),
        ({"WANDB_API_KEY": "k", "WANDB_MODE": "disabled"}, {}, "none"),
        ({"WANDB_API_KEY": "k", "WANDB_MODE": "online"}, {}, "wandb"),
        ({"WANDB_MODE": "online"}, {}, "offline"),
        ({}, {".netrc": NETRC.format("api.wandb.ai")}, "wandb"),
        ({}, {".netrc": NETRC.format("example.org")}, "offline"),
        ({}, {".netrc": "machine api.wandb.ai login"}, "offline"),  # broken
        ({"NETRC": "other"}, {"other": NETRC.format("api.wandb.ai")}, "wandb"),
        ({"WANDB_BASE_URL": "https://w.example.org"}, {".netrc": NETRC.format("w.example.org")}, "wandb"),
        ({"WANDB_API_KEY": "k"}, {"wandb/settings": "[default]\nmode = offline\n"}, "offline"),
        ({}, {".config/wandb/settings": "[default]\napi_key = k\n"}, "wandb"),
        ({"WANDB_API_KEY": "k"}, {".config/wandb/settings": "no section\n"}, "wandb"),
    ],
)
def test_tracking_follows_the_key_and_the_mode(monkeypatch, tmp_path, environment, files, mode):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
        (tmp_path / name).chmod(0o600)
    assert key.wandb_mode() == mode


# --- under Hydra

APP = """
import hydra
from optim.common import hub
from optim.run import config
from optim.track import key
config.register()
config.register()

@hydra.main(version_base="1.3", config_path="conf", config_name="train")
def main(cfg):
    print("RAN", cfg.model.name, cfg.data.name, cfg.track.name, cfg.cache_dir, hub.default_choice()["hub"])

main()
"""
DEFAULTS = """
defaults:
  - model: ${when_hub:distilbert,minilm}
  - data: ${when_hub:sst2,reviews}
  - track: ${wandb_mode:}
  - _self_
cache_dir: ${user_cache:}
hydra: {output_subdir: null, run: {dir: .}, sweep: {dir: multirun}, job_logging: {root: {handlers: []}}}
"""
GROUPS = {
    "model": ("distilbert", "minilm", "tiny"),
    "data": ("sst2", "reviews", "csv"),
    "track": ("wandb", "offline", "none"),
}


def run_app(folder: Path, *arguments: str, **environment: str) -> list[str]:
    """The lines that start with RAN, one for each job."""
    (folder / "app.py").write_text(APP)
    for group, options in GROUPS.items():
        (folder / "conf" / group).mkdir(parents=True, exist_ok=True)
        for option in options:
            (folder / "conf" / group / f"{option}.yaml").write_text(f"name: {option}\n")
    (folder / "conf" / "train.yaml").write_text(DEFAULTS)
    run = subprocess.run(
        [sys.executable, "app.py", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": "/c", **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == 0, run.stderr
    return [line.removeprefix("RAN ") for line in run.stdout.splitlines() if line.startswith("RAN ")]


def test_hydra_takes_the_default_that_can_be_had(tmp_path):
    assert run_app(tmp_path) == ["minilm reviews offline /c/distilbert-optim unreachable"]
    with serving(Hub()) as served:
        assert run_app(tmp_path, HF_ENDPOINT=served.address) == [
            "distilbert sst2 offline /c/distilbert-optim reachable"
        ]
    fill_hub_cache(tmp_path, model="distilbert--distilbert-base-uncased", data="nyu-mll___glue")
    assert run_app(tmp_path, HF_HOME=str(tmp_path)) == ["distilbert sst2 offline /c/distilbert-optim cached"]


def test_hydra_override_wins_and_asks_nothing(tmp_path):
    with serving(Hub()) as served:
        ran = run_app(tmp_path, "model=tiny", "data=csv", "track=none", HF_ENDPOINT=served.address)
        assert ran == ["tiny csv none /c/distilbert-optim not asked"]
        assert served.requests == []


def test_hydra_multirun_override_wins(tmp_path):
    ran = run_app(tmp_path, "-m", "model=tiny,distilbert", "data=csv", "track=none")
    assert [line.split()[:3] for line in ran] == [["tiny", "csv", "none"], ["distilbert", "csv", "none"]]
    ran = run_app(tmp_path, "-m", "track=none,offline")
    assert [line.split()[:3] for line in ran] == [["minilm", "reviews", "none"], ["minilm", "reviews", "offline"]]


def test_import_is_light():
    code = "import sys; from optim.common import hub; print(*sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    heavy = {
        "huggingface_hub",
        "datasets",
        "wandb",
        "numpy",
        "tensorflow",
        "urllib.request",
        "ssl",
        "omegaconf",
        "hydra",
    }
    assert not heavy & set(run.stdout.split())


def test_the_flags_of_another_program_are_its_own(monkeypatch):
    for name in ("mine.py", "train.py", "mine/__main__.py"):
        monkeypatch.setattr(sys, "argv", [name, "-i", "in.txt"])
        assert hub.when_hub("distilbert", "minilm") == "minilm"
    asked = []
    monkeypatch.setattr(sys, "argv", ["train.py", "-i"])
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    assert started(lambda: asked.append(hub.when_hub("distilbert", "minilm")), lambda: None) == 0
    assert asked == ["distilbert"], "nothing will be loaded"
    assert hub.when_hub("distilbert", "minilm") == "minilm", "the program has ended"
