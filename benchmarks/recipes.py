"""Recipes of a fit against each other, over seeds: the points of benchmarks/recipes.yaml, through train.py.

python benchmarks/recipes.py data.path=DIR --minutes 90     DIR as data=sst2_sentences has it
python benchmarks/recipes.py data.path=DIR --study student --only base "r_drop 0.5" --seeds 0 1 2
python benchmarks/recipes.py data.path=DIR --minutes 0      only writes the table of what there is

Words with a = go to train.py and win over those of the file; a recipe that they make the same as the first one of its
study is left out. One seed of every recipe runs before the next seed; what is done is not run again; what would not end
within --minutes is not started. Writes benchmarks/RECIPES.md, with the recipes that did not help: one is kept if over
three seeds it wins by more than its spread. Of the studies that the page has, what is finished stays on it, whatever is
asked for; a page of more results than are here is not written over.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT)]

from benchmarks.kept import train, write  # noqa: E402
from optim.common.errors import UserError  # noqa: E402
from optim.report import finished  # noqa: E402
from optim.report.finished import Finished  # noqa: E402
from optim.report.statistics import Against, Answers, against  # noqa: E402
from optim.run import config, result  # noqa: E402
from optim.run.keys import run_id_of  # noqa: E402
from optim.run.places import CONF  # noqa: E402
from optim.run.point import point_of  # noqa: E402
from optim.sweep.points import merged  # noqa: E402

RECIPES, PAGE = ROOT / "benchmarks" / "recipes.yaml", ROOT / "benchmarks" / "RECIPES.md"
SEEDS_ASKED = 3  # that the rule wants
HEAD = "| recipe | accuracy | spread | difference (95 %) | minutes | verdict |"


@dataclass(frozen=True)
class Planned:
    """One recipe with one seed."""

    study: str
    recipe: str
    seed: int
    work: float  # its time over that of the study's first recipe, a guess
    words: list[str]  # of train.py
    folder: Path  # of its result


def main() -> None:
    """Writes the page, and anew after each point that is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", help="KEY=VALUE of train.py, for every point")
    parser.add_argument("--study", nargs="*", default=list(studies()), choices=list(studies()))
    parser.add_argument("--only", nargs="*", help="names of recipes; without it all")
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--minutes", type=float, default=float("inf"), help="starts no point that would end later")
    parser.add_argument("--page", type=Path, default=PAGE)
    args = parser.parse_args()
    known = {name for study in args.study for name in studies()[study]["recipes"]}
    if unknown := sorted(set(args.only or []) - known):
        sys.exit(f"Error: --only must name recipes of {RECIPES.name}, got {', '.join(unknown)}.")
    config.register()
    try:
        points = [p for study in args.study for p in planned(study, args.only, args.seeds, args.words)]
        also = on_page(args.page, args.seeds, args.words)
    except UserError as error:
        sys.exit(f"Error: {error}")
    write(args.page, page(shown(points, also)))
    for _ in run_missing(points, minutes=args.minutes):
        write(args.page, page(shown(points, also)))
    print(f"Written: {args.page}")


def studies() -> dict[str, Any]:
    """The content of recipes.yaml."""
    return OmegaConf.to_container(OmegaConf.load(RECIPES))  # type: ignore[return-value]


def planned(study: str, only: Sequence[str] | None, seeds: Sequence[int], words: Sequence[str]) -> list[Planned]:
    """The points of a study, one seed of every recipe after the other; the first recipe is always among them.

    Raises UserError for a recipe of `only` that words make the same as the first one; others of that kind are left out.
    """
    found = studies()[study]
    first, *_ = names = list(found["recipes"])
    chosen = [name for name in names if only is None or name in only or name == first]
    points = list(_points(study, found, chosen, seeds, words))
    folders = {p.folder for p in points if p.recipe == first}
    same = {p.recipe for p in points if p.recipe != first and p.folder in folders}
    if only and (asked := sorted(same & set(only))):
        raise UserError(f"--only: by these words {', '.join(asked)} is the same as {first}. Leave its own keys out.")
    return [p for p in points if p.recipe not in same]


def _points(study: str, found: dict[str, Any], names: Sequence[str], seeds: Sequence[int],
            words: Sequence[str]) -> Iterator[Planned]:  # fmt: skip
    with initialize_config_dir(str(CONF), version_base="1.3"):
        for seed in seeds:
            for name in names:
                recipe = found["recipes"][name]
                own = merged([*found["shared"], *recipe["words"], f"seed={seed}", *words])
                cfg = compose("train", overrides=own)
                folder = ROOT / Path(cfg.results_dir).expanduser() / run_id_of(point_of(cfg))
                yield Planned(study, name, seed, recipe["work"], own, folder)


def on_page(page: Path, seeds: Sequence[int], words: Sequence[str]) -> list[Planned]:
    """The points of the studies that a page has, by these seeds and those that the rule wants."""
    text = page.read_text(encoding="utf-8") if page.is_file() else ""
    every = sorted({*range(SEEDS_ASKED), *seeds})
    return [p for study in studies() if f"\n## {study}\n" in text for p in planned(study, None, every, words)]


def shown(points: Sequence[Planned], also: Sequence[Planned]) -> list[Planned]:
    """These points, and of the others those that are finished or compared with, in the order of the file."""
    order = [(study, recipe) for study, found in studies().items() for recipe in found["recipes"]]
    first = {study: next(iter(found["recipes"])) for study, found in studies().items()}
    more = [p for p in also if p.recipe == first[p.study] or (p.folder / result.FILE).is_file()]
    every = {(order.index((p.study, p.recipe)), p.seed): p for p in (*more, *points)}
    return [every[key] for key in sorted(every)]


def run_missing(points: Sequence[Planned], *, minutes: float) -> Iterator[Planned]:
    """Runs and yields every point that is not done and would end in time; what fails is told, and the others run."""
    until = time.monotonic() + 60 * minutes
    for point in points:
        if result.read(point.folder) is not None:
            continue
        expected_s = expected(point, points)
        if time.monotonic() + expected_s >= until:
            print(f"Not started: {point.study}, {point.recipe}, seed {point.seed}, about {expected_s / 60:.0f} min")
            continue
        print("train.py", *point.words, flush=True)
        done = train(point.words, captured=True)
        if done.returncode:
            print(f"Failed: {done.stderr.strip().splitlines()[-1] if done.stderr.strip() else done.returncode}")
        yield point


def expected(point: Planned, points: Sequence[Planned]) -> float:
    """Seconds that a point should take: the median of its recipe's, else the longest first recipe's times its work.

    0 where nothing is known yet. Stages that a point may find in the cache are counted as if it had to make them.
    """
    same = [p for p in points if p.study == point.study]
    done = [(p.recipe, sum(found.cost["stages"].values())) for p in same if (found := result.read(p.folder))]
    if own := [seconds for recipe, seconds in done if recipe == point.recipe]:
        return statistics.median(own)
    return point.work * max((seconds for recipe, seconds in done if recipe == same[0].recipe), default=0.0)


def page(points: Sequence[Planned]) -> str:
    """RECIPES.md."""
    folders = [p.folder for p in points if p.folder.is_dir()]
    done = {p.result.run_id: p for p in finished.read_all(folders)[0]}
    lines = [
        "# Recipes of a fit", "",
        "Written by `python benchmarks/recipes.py`. Accuracy: of the `.tflite` file, the mean over the seeds; spread:",
        "the standard deviation over them, in percentage points. Difference: from the first row, over the seeds that",
        "both have, with an interval over sentences and fits. Minutes: of the fit, a mean over the seeds.",
        f"A recipe is kept if over {SEEDS_ASKED} seeds it wins by more than its spread and that of the first row.",
        "", *machines(list(done.values())), "",
    ]  # fmt: skip
    for study in dict.fromkeys(p.study for p in points):
        lines += [f"## {study}", "", *table([p for p in points if p.study == study], done), ""]
    return "\n".join(lines)


def machines(done: Sequence[Finished]) -> list[str]:
    """Where, and on what."""
    places = {f"{p.result.machine['cpu']}, {p.result.machine['cores']} cores" for p in done}
    data = {f"{p.result.data['name']}: {p.result.data['train_examples']:,} sentences to train, "
            f"{p.result.data['dev_examples']:,} to score" for p in done}  # fmt: skip
    return [f"{'; '.join(sorted(places))}. {'; '.join(sorted(data))}."] if done else ["Nothing has run yet."]


def table(points: Sequence[Planned], done: dict[str, Finished]) -> list[str]:
    """The rows of one study; recipes without a finished point are listed below."""
    runs = {name: {p.seed: done[p.folder.name] for p in points if p.recipe == name and p.folder.name in done}
            for name in dict.fromkeys(p.recipe for p in points)}  # fmt: skip
    if len({run.result.data["digest"] for seeds in runs.values() for run in seeds.values()}) > 1:
        sys.exit("Error: the results are of different data and cannot be compared. Give one data= for all of them.")
    first, *_ = runs
    rows = [row(name, seeds, runs[first], base=name == first) for name, seeds in runs.items()
            if set(seeds) & set(runs[first])]  # fmt: skip
    missing = [name for name, seeds in runs.items() if not set(seeds) & set(runs[first])]
    shared = [word for word in points[0].words if not word.startswith("seed=") and "_dir=" not in word]
    told = [f"`{' '.join(word for word in shared if 'path=' not in word)}`", ""]
    told += [HEAD, "|" + "---|" * 6, *rows] if rows else []
    return told + (["", f"No result yet: {', '.join(missing)}."] if missing else [])


def row(name: str, seeds: dict[int, Finished], base_seeds: dict[int, Finished], *, base: bool) -> str:
    """One line of the table."""
    found = against(Answers.of(seeds), Answers.of(base_seeds))
    costs = [seeds[seed].result.cost for seed in found.seeds]
    minutes = statistics.mean((cost["student_s"] or cost["teacher_s"]) / 60 for cost in costs)
    gain = "" if base else f"{found.gain_points:+.2f} ({found.low_points:+.2f} to {found.high_points:+.2f})"
    spread = f"{found.spread_points:.2f}" if len(found.seeds) > 1 else ""
    told = "what the others are compared with" if base else verdict(found)
    return f"| {name} | {100 * found.mean:.2f} % | {spread} | {gain} | {minutes:.1f} | {told} |"


def verdict(found: Against) -> str:
    """What the rule says."""
    if len(found.seeds) < SEEDS_ASKED:
        return f"open: {len(found.seeds)} of {SEEDS_ASKED} seeds"
    if found.wins:
        return "**wins by more than the spread**"
    return "below by more than the spread" if found.loses else "within it"


if __name__ == "__main__":
    main()
