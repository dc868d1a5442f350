"""Imports run down the floors: of this package, and of packages made to break the rule."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from floors import PACKAGE, faults, floors, imports

ROOT = PACKAGE.parent


def test_no_import_goes_up_and_there_is_no_circle():
    assert faults(PACKAGE) == []
    assert len(imports(PACKAGE)) > 40


def test_every_floor_is_there():
    names = {path.stem for path in PACKAGE.iterdir() if path.name[0] not in "_."}
    assert names == set(floors(PACKAGE))


@pytest.mark.parametrize(
    ("file", "line", "said"),
    [
        ("common/errors.py", "from optim.run import point", "common.errors imports run.point, which lies above"),
        ("data/corpus.py", "def f():\n    from optim.sweep.pick import Budget", "data.corpus imports sweep.pick"),
        ("common/errors.py", "from optim.common import files", "a circle: "),
        ("common/errors.py", "import optim.report.compare", "common.errors imports report.compare"),
        ("attic.py", "", "attic lies on no floor"),
    ],
)
def test_what_breaks_the_rule_is_named(tmp_path, file, line, said):
    package = shutil.copytree(PACKAGE, tmp_path / "optim", ignore=shutil.ignore_patterns("__pycache__"))
    with (package / file).open("a") as changed:
        changed.write(f"\n{line}\n")
    assert any(said in fault for fault in faults(package))


def importing(pattern: str, *files: Path) -> set[str]:
    return {path.relative_to(ROOT).as_posix() for path in files or PACKAGE.rglob("*.py")
            if re.search(pattern, path.read_text(encoding="utf-8"), re.MULTILINE)}  # fmt: skip


def test_config_objects_stay_at_the_doors():
    """Library functions take plain arguments: OmegaConf is known where configs are read, and nowhere below `run`."""
    assert importing(r"^\s*(from|import) (omegaconf|hydra)\b") <= {
        "optim/common/build.py", "optim/run/config.py", "optim/run/point.py", "optim/run/process.py",
        "optim/report/wandb_report.py", "optim/sweep/multirun.py", "optim/sweep/verbs.py", "optim/sweep/baselines.py",
        "optim/run/compose.py", "optim/run/one_point.py", "optim/run/here.py", "optim/sweep/grid.py",
        "optim/sweep/here.py", "optim/run/worded.py", "optim/run/guarded.py", "optim/command/train.py",
        "optim/command/sweep.py",
    }  # fmt: skip


def test_private_modules_of_others_are_imported_in_files_of_their_own():
    assert importing(r"^\s*(from|import) \w+(\.\w+)*\._") == set()
    assert importing(r"^\s*(from|import) hydra\._internal", *(ROOT / "hydra_plugins").glob("*.py")) == set()


def test_the_contributing_guide_names_files_and_floors_that_are_there():
    guide = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (?!to change)[^|]+ \| (`optim/[^|]+`) \|$", guide, re.MULTILINE)
    named = [path for row in rows for path in re.findall(r"`([^`]+)`", row)]
    assert len(rows) >= 12
    assert [path for path in named if not (ROOT / path).is_file()] == []
    assert dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \|$", guide, re.MULTILINE)).items() >= floors(PACKAGE).items()
