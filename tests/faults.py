"""Makes each fault of tests/faults.toml in a copy of the tree and runs its test, which must fail.

python tests/faults.py [words]      all, or those whose name or file has one of the words
python tests/faults.py --list       writes tests/faults.md
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "tests" / "faults.md"
Fault = dict[str, str]


def faults() -> list[Fault]:
    """name, file, old, new and test of each."""
    return tomllib.loads((ROOT / "tests" / "faults.toml").read_text(encoding="utf-8"))["fault"]


def page() -> str:
    """The list for people."""
    rows = [f"| {f['name']} | `{f['file']}` | `{f['test'].removeprefix('tests/')}` |" for f in faults()]
    intro = "Written by `python tests/faults.py --list`; `make faults` makes each one and sees its test fail."
    head = ["# Faults made on purpose", "", intro, "", "| fault | made in | fails |", "|---|---|---|"]
    return "\n".join([*head, *rows, ""])


def noticed(fault: Fault, tree: Path) -> bool:
    """Whether the fault's test fails on a tree that has it; the tree is as it was afterwards."""
    path = tree / fault["file"]
    whole = path.read_text(encoding="utf-8")
    assert whole.count(fault["old"]) >= 1, fault["name"]
    path.write_text(whole.replace(fault["old"], fault["new"]), encoding="utf-8")
    try:
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", fault["test"]]
        code = subprocess.run(command, cwd=tree, capture_output=True, timeout=600).returncode
    finally:
        path.write_text(whole, encoding="utf-8")
    if code not in (0, 1):  # pytest: 1 is a test that failed; others mean that none was run
        raise RuntimeError(f"{fault['test']} could not be run (pytest ended with {code})")
    return code == 1


def main(words: Sequence[str]) -> int:
    """The number of faults that nobody noticed, at most 1."""
    if list(words) == ["--list"]:
        PAGE.write_text(page(), encoding="utf-8")
        return 0
    chosen = [f for f in faults() if not words or any(word in f["name"] + f["file"] for word in words)]
    missed = []
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        shutil.copytree(
            ROOT, tree, ignore=shutil.ignore_patterns(".venv", ".git", "results", "__pycache__", "*.egg-info")
        )
        for fault in chosen:
            seen = noticed(fault, tree)
            print(f"{'noticed' if seen else 'MISSED '}  {fault['name']}", flush=True)
            missed += [] if seen else [fault["name"]]
    print(f"{len(chosen) - len(missed)} of {len(chosen)} noticed")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
