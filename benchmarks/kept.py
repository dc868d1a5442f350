"""What earlier calls of a benchmark have left: its finished points, and the page that shows them."""

from __future__ import annotations

import re
import subprocess
import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir

ROOT = Path(__file__).parent.parent

sys.path[:0] = [str(ROOT)]

from optim.common.interrupts import INTERRUPTED, TERMINATED  # noqa: E402
from optim.report import finished  # noqa: E402
from optim.report.finished import Finished  # noqa: E402
from optim.run import config  # noqa: E402
from optim.run.keys import run_id_of  # noqa: E402
from optim.run.places import CONF  # noqa: E402
from optim.run.point import point_of  # noqa: E402
from optim.run.process import stopping  # noqa: E402

SEEDS = (0, 1, 2)  # that a page shows where they are there
TABLE = re.compile(r"^\| (.*)\n\|-.*\n((?:\| .*\n?)*)", re.MULTILINE)  # its head, and the rows below


def made_before(
    names: Iterable[str], words_of: Callable[[str, int], list[str]], seeds: Iterable[int], results: Path
) -> dict[str, dict[int, Finished]]:
    """Name -> seed -> point, of these seeds and SEEDS: what is finished, whatever this call is asked for."""
    every = sorted({*SEEDS, *seeds})
    found = {name: {seed: there(words_of(name, seed), results) for seed in every} for name in names}
    done = {name: {seed: point for seed, point in some.items() if point} for name, some in found.items()}
    return {name: some for name, some in done.items() if some}


def there(words: list[str], results: Path) -> Finished | None:
    """A finished point; None if it is not there."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        folder = ROOT / results / run_id_of(point_of(compose("train", overrides=words)))
    found = finished.read_all([folder])[0] if folder.is_dir() else []
    return found[0] if found else None


def arguments(about: str | None, points: Iterable[str], *, files: str, seeds: list[int], page: Path) -> ArgumentParser:
    """What a benchmark of points that MPNet teaches is asked; `files` are those of its data."""
    parser = ArgumentParser(description=about, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help=f"folder with {files}")
    parser.add_argument("--seeds", nargs="*", type=int, default=seeds)
    parser.add_argument("--only", nargs="*", choices=list(points), default=list(points))
    parser.add_argument("--teacher-seed", type=int, default=0, help="of the MPNet that teaches")
    parser.add_argument("--results", default="results")
    parser.add_argument("--cache", default=None, help="cache_dir of train.py")
    parser.add_argument("--page", type=Path, default=page, help="what is written")
    return parser


def words_for(args: Namespace, data: str) -> list[str]:
    """The words of train.py for every point."""
    words = [f"data={data}", f"data.path={args.data}", "track=none", f"results_dir={args.results}"]
    return [*words, *([f"cache_dir={args.cache}"] if args.cache else [])]


def make(
    args: Namespace, points: Iterable[str], words_of: Callable[[str, int], list[str]],
    run: Callable[[list[str]], dict[str, Any]], page: Callable[[dict[str, dict[int, Finished]]], str],
) -> None:  # fmt: skip
    """Writes the page of what is finished, and anew after each point that `args` ask for. run: words -> result.json.

    Points are as a later measurement has them, which is the way out of results of two machines.
    """
    config.register()
    results = Path(args.results)
    done = made_before(points, words_of, args.seeds, results)
    write(args.page, page(done))
    for seed in args.seeds:
        for name in args.only:
            folder = ROOT / results / run(words_of(name, seed))["run_id"]
            (point,) = finished.read_all([folder])[0]
            done.setdefault(name, {})[seed] = point
            write(args.page, page(done))


def train(words: Sequence[str], *, captured: bool) -> subprocess.CompletedProcess[str]:
    """A run of train.py, ended or failed; `captured`: what it prints is in the answer, not on the screen.

    Ctrl-C and SIGTERM stop both, once train.py has saved its fit. So does what stops train.py alone: no other point
    begins. (`subprocess.run` would kill it a quarter of a second after Ctrl-C, and leave it alone at SIGTERM.)
    """
    pipe = subprocess.PIPE if captured else None
    child = subprocess.Popen([sys.executable, "train.py", *words], cwd=ROOT, stdout=pipe, stderr=pipe, text=True)
    try:
        with stopping(child):
            out, err = child.communicate()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    if child.returncode in (INTERRUPTED, TERMINATED):
        sys.exit(child.returncode)
    return subprocess.CompletedProcess(child.args, child.returncode, out, err)


def write(page: Path, text: str) -> None:
    """Writes a page. Ends the benchmark if the one that is there shows more: results that this machine has not."""
    before, now = shown(page.read_text(encoding="utf-8")) if page.is_file() else 0, shown(text)
    if now < before:
        sys.exit(f"Error: {page} has {before} results, this call {now}. Give another file with --page, or delete it.")
    page.write_text(text, encoding="utf-8")


def shown(page: str) -> int:
    """How many results a page shows: the rows of its tables, each as often as it has seeds, but not differences."""
    tables = [(head.split(" | "), below.splitlines()) for head, below in TABLE.findall(page)]
    rows = [(head, row.split(" | ")) for head, below in tables if head[0] != "difference" for row in below]
    return sum(row[1].count(",") + 1 if head[1] == "seeds" else 1 for head, row in rows)
