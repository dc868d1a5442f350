"""What a wheel holds, what it asks for, and that it works away from the checkout."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib import import_module
from pathlib import Path

import pytest
from conftest import CONF, ROOT

SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT, SETUPTOOLS = SETTINGS["project"], SETTINGS["tool"]["setuptools"]


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[^A-Za-z0-9_-]", one)[0] for one in requirements}


def test_every_folder_of_the_package_is_in_the_wheel_and_conf_is_one_of_them():
    folders = {path.parent for path in (ROOT / "optim").rglob("*.py")}
    packages = {".".join(folder.relative_to(ROOT).parts) for folder in folders}
    assert set(SETUPTOOLS["packages"]) == packages | {"optim.conf", "hydra_plugins"}
    assert SETUPTOOLS["package-dir"] == {"optim.conf": "conf"}
    assert not (ROOT / "optim" / "conf").exists(), "conf stays at the top of a checkout"


def test_every_file_that_is_no_code_is_in_the_wheel():
    patterns = SETUPTOOLS["package-data"]
    held = {path for pattern in patterns["optim.conf"] for path in CONF.glob(pattern)}
    assert held == {path for path in CONF.rglob("*") if path.is_file()}
    folders = {name: ROOT / "optim" / name for name in ("report", "serve")}
    held = {path for name, at in folders.items() for pattern in patterns[f"optim.{name}"] for path in at.glob(pattern)}
    other = {path for path in (ROOT / "optim").rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert other == {path for path in held if path.is_file()}


def test_using_a_bundle_asks_for_three_packages_and_make_installs_the_rest():
    assert names(PROJECT["dependencies"]) == {"ai-edge-litert", "numpy", "tokenizers"}
    extras = PROJECT["optional-dependencies"]
    alone = ("train", "serve")  # a server needs no more than what it serves, beside its own packages
    assert all(any(one.startswith("distilbert-optim[") for one in extras[name]) for name in extras if name not in alone)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert '--editable ".[train]"' in makefile
    assert '--editable ".[test]"' in makefile


@pytest.mark.parametrize("command", ["optim-train", "optim-sweep", "optim-predict", "optim-serve"])
def test_every_command_is_a_function(command):
    module, function = PROJECT["scripts"][command].split(":")
    assert callable(getattr(import_module(module), function))


def test_version_licence_and_changelog_agree():
    import optim

    assert PROJECT["license"] == "Apache-2.0"
    assert "Apache License" in (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert f"## {optim.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"version: {optim.__version__}" in citation
    assert "license: Apache-2.0" in citation


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A folder with what the wheel holds, made from a copy of the tree: building leaves files in it."""
    folder = tmp_path_factory.mktemp("wheel")
    left_out = shutil.ignore_patterns(".venv", ".git", "results", "__pycache__", "*.egg-info", "build")
    tree = shutil.copytree(ROOT, folder / "tree", ignore=left_out)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--quiet", "--wheel-dir", str(folder), str(tree)]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        wheel.extractall(folder / "site")
    return folder / "site"


@pytest.mark.slow
def test_a_wheel_works_from_any_folder(installed: Path, tmp_path: Path):
    """A user's own module of a common name in that folder is not taken for one of ours."""
    (tmp_path / "datasets.py").write_text("raise RuntimeError('not this one')\n")
    rows = "".join(f"{'good' if i % 2 else 'bad'} film {i},{i % 2}\n" for i in range(200))
    (tmp_path / "train.csv").write_text(f"text,label\n{rows}")
    words = ["model=tiny", "data=csv", "data.train_path=train.csv", "cache_dir=cache", "cache_free_gb=0.1",
             "track=none", "bench=quick", "quant=int8", "fit.teacher.epochs=1"]  # fmt: skip

    def called(*command: str) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "PYTHONPATH": str(installed), "PYTHONSAFEPATH": "1"}
        return subprocess.run([sys.executable, "-m", *command], cwd=tmp_path, env=env, capture_output=True, text=True)

    assert "hydra/sweeper: basic, optim" in called("optim.command", "train", "--help").stdout
    done = called("optim.command", "sweep", "sweep=grid", *words)
    assert done.returncode == 0, done.stderr
    results = list((tmp_path / "results").glob("*/result.json"))
    assert len(results) == 1
    assert '"command": "optim-train model=tiny' in results[0].read_text(encoding="utf-8")
    done = called("optim.predict", f"results/{results[0].parent.name}", "a good film")
    assert '"label": ' in done.stdout, done.stderr


@pytest.mark.parametrize("program", ["train.py", "sweep.py"])
def test_a_python_without_the_packages_is_told_where_they_are(program):
    command = [sys.executable, "-S", "-E", program, "quant=int8"]  # -S: no site-packages
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "has no package " in done.stderr
    assert "source .venv/bin/activate" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(shutil.which("make") is None, reason="no make")
@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("exit 1", "Python 3.11 or 3.12 is needed"),  # the check of its version fails
        ('[ "$1" = -c ] && exit 0; mkdir -p .venv/bin; touch .venv/bin/python; exit 1', "Error 1"),  # no ensurepip
    ],
)
def test_a_python_that_will_not_do_leaves_nothing_that_stays(tmp_path, script, said):
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    other = tmp_path / "other"
    other.write_text(f"#!/bin/sh\n{script}\n")
    other.chmod(0o755)
    done = subprocess.run(["make", "demo", "PYTHON=./other"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode
    assert said in done.stdout + done.stderr
    assert not (tmp_path / ".venv/bin/python").exists()
