"""Mutation testing with cosmic-ray: small changes to the code, one at a time, which the fast tests should notice.

python tests/mutants.py --minutes 30      goes on with what is left, in a seeded random order; writes docs/mutants.md

All mutants would take a day on two cores, so a random sample is taken for as long as there is time; every file gets its
turn. The session lies in build/mutants.sqlite: delete it after the code has changed.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
SESSION = ROOT / "build" / "mutants.sqlite"
PAGE = ROOT / "docs" / "mutants.md"
LIMIT_S = 240  # of the tests of one mutant: what takes longer hangs, and counts as noticed
OF_TYPES = "_BitOr_"  # `|` stands in types, which no test runs: those mutants are left out
SURVIVORS = 40  # that the page lists
# Files, and the tests that should notice a change in them.
TESTS = {
    "optim/measure/quality.py": "tests/measure/test_quality.py",
    "optim/measure": "tests/measure",
    "optim/report/baselines.py": "tests/sweep/test_baselines.py",
    "optim/report/wandb_report.py": "tests/report/test_wandb_report.py",
    "optim/report": "tests/report/test_compare.py tests/report/test_template.py tests/report/test_recipes.py",
    "optim/run/keys.py": "tests/run/test_keys.py",
    "optim/run/point.py": "tests/run/test_keys.py",
    "optim/run": "tests/run/test_keys.py tests/run/test_seams.py tests/run/test_honesty.py",
    "optim/run/forecast.py": "tests/run/test_forecast.py",
    "optim/run/teaching.py": "tests/run/test_teaching.py",
    "optim/run/transfer.py": "tests/run/test_transfer.py",
    "optim/train": "tests/train",
    "optim/train/answers.py": "tests/train/test_distill.py",
    "optim/train/average.py": "tests/train/test_recipe.py",
    "optim/train/regularize.py": "tests/train/test_recipe.py",
    "optim/train/rows.py": "tests/train/test_rows.py tests/train/test_unlabelled.py",
    "optim/export": "tests/run/test_honesty.py tests/test_predict.py",
}


def tests_of(file: str) -> str:
    """The tests for a file: those of the longest prefix in TESTS."""
    return TESTS[max((prefix for prefix in TESTS if file.startswith(prefix)), key=len)]


def opened(tree: Path) -> Any:
    """The session, with every mutant of every file in it. Paths in it are relative to the tree."""
    from cosmic_ray import commands
    from cosmic_ray.work_db import WorkDB

    SESSION.parent.mkdir(exist_ok=True)
    new = not SESSION.is_file()
    session = WorkDB(str(SESSION), WorkDB.Mode.create)
    if new:
        files = [path for prefix in TESTS for path in _files(tree, prefix)]
        commands.init(list(dict.fromkeys(files)), session, {})
    return session


def _files(tree: Path, prefix: str) -> list[Path]:
    place = Path(prefix)
    found = [place] if place.suffix else sorted(p.relative_to(tree) for p in (tree / place).glob("*.py"))
    return [path for path in found if path.name != "__init__.py"]


def turns(items: list[Any], seed: int) -> list[Any]:
    """The items in a random order in which the files take turns."""
    random.Random(seed).shuffle(items)
    by_file: dict[str, list[Any]] = {}
    for item in items:
        by_file.setdefault(str(item.mutations[0].module_path), []).append(item)
    rounds = max(map(len, by_file.values()), default=0)
    return [own[i] for i in range(rounds) for own in by_file.values() if i < len(own)]


def exercise(session: Any, minutes: float, seed: int) -> None:
    """Tests mutants until the time is up."""
    from cosmic_ray.mutating import mutate_and_test

    until = time.monotonic() + 60 * minutes
    items = [item for item in session.pending_work_items if OF_TYPES not in item.mutations[0].operator_name]
    for item in turns(items, seed):
        if time.monotonic() > until:
            return
        file = str(item.mutations[0].module_path)
        command = f"{sys.executable} -m pytest -q -x -p no:cacheprovider -m 'not slow' {tests_of(file)}"
        done = mutate_and_test(item.mutations, command, LIMIT_S)
        session.set_result(item.job_id, done)
        print(f"{done.test_outcome!s:<24} {file}:{item.mutations[0].start_pos[0]} {item.mutations[0].operator_name}",
              flush=True)  # fmt: skip


def report(session: Any) -> str:
    """docs/mutants.md: the score of each folder, and survivors to look at."""
    items = {item.job_id: item for item in session.work_items}
    killed, tried, survivors = Counter(), Counter(), []
    for job, done in session.results:
        mutation = items[job].mutations[0]
        folder = str(mutation.module_path).split("/")[1]
        tried[folder] += 1
        if "surviv" in str(done.test_outcome).lower():
            survivors.append(f"- `{mutation.module_path}:{mutation.start_pos[0]}` {mutation.operator_name}")
        else:
            killed[folder] += 1
    every = Counter(str(item.mutations[0].module_path).split("/")[1] for item in items.values())
    rows = [_row(f, every[f], tried[f], killed[f]) for f in sorted(every)]
    return "\n".join([*INTRO, *rows, _row("all", every.total(), tried.total(), killed.total()), "",
                      "Not noticed (the first ones):", "", *sorted(survivors)[:SURVIVORS], ""])  # fmt: skip


INTRO = (
    "# Mutants",
    "",
    "Written by `python tests/mutants.py`: cosmic-ray changes one thing in the code, the fast tests of that part run,",
    "and should fail. A random sample, the files in turns; the share is that of the sample.",
    "",
    "| folder | mutants | tried | noticed | share |",
    "|---|---|---|---|---|",
)


def _row(name: str, mutants: int, tried: int, killed: int) -> str:
    share = f"{killed / tried:.0%}" if tried else "not tried"
    return f"| {name} | {mutants} | {tried} | {killed} | {share} |"


def main() -> None:
    """Works in a copy of the tree, since cosmic-ray changes files in place."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        left_out = shutil.ignore_patterns(".venv", ".git", "results", "build", "__pycache__")
        shutil.copytree(ROOT, tree, ignore=left_out)
        os.chdir(tree)
        session = opened(tree)
        try:
            exercise(session, args.minutes, args.seed)
        finally:
            PAGE.write_text(report(session), encoding="utf-8")
            session.close()


if __name__ == "__main__":
    main()
