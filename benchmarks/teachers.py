"""Teachers and their students on SST-2 dev, over seeds, through train.py: what docs/figures.md says of MPNet.

python benchmarks/teachers.py --data DIR                  DIR holds GLUE's own train.tsv and dev.tsv
python benchmarks/teachers.py --data DIR --seeds 0 1 2 --only "minilm, int8" "minilm taught by mpnet, int8"
python benchmarks/teachers.py --data DIR --teacher-seed 2 --page benchmarks/TEACHERS_SEED2.md

Writes benchmarks/TEACHERS.md, anew after each point, unless it has more results than are here. Students of every seed
share one MPNet, that of seed 0 unless told otherwise. Finished points and stages are taken from results and cache, so a
call that was stopped goes on where it was.
"""

# ruff: noqa: E501
from __future__ import annotations

import statistics
import sys
from collections.abc import Mapping
from functools import partial

import kept
from sst2 import ROOT, require_one_machine, run, timed_on

sys.path[:0] = [str(ROOT)]
from optim.report.finished import Finished  # noqa: E402
from optim.report.statistics import Answers, against  # noqa: E402
from optim.sweep.points import merged  # noqa: E402

PAGE = ROOT / "benchmarks" / "TEACHERS.md"
RECIPE = [
    "distill.augment.copies=2",
    "fit.student.steps=7480",
    "fit.student.learning_rate=1e-4",
]  # experiment=frontier; RECIPES.md has what else was tried on held-out sentences
ALONE = "distill.augment.copies=0"  # as many steps on train alone: what made sentences bring
POINTS = {  # without what names the teacher
    "mpnet, float32": ["model=mpnet", "prune=none", "quant=none"],
    "mpnet, int8": ["model=mpnet", "prune=none", "quant=int8"],
    "minilm, int8": ["model=minilm", "prune=none", "quant=int8"],
    "minilm taught by mpnet, int8": ["model=minilm", *RECIPE, "prune=none", "quant=int8"],
    "minilm taught by mpnet, train alone, int8": ["model=minilm", *RECIPE, ALONE, "prune=none", "quant=int8"],
    "minilm taught by mpnet, fixed50, int8": ["model=minilm", *RECIPE, "prune=fixed50", "quant=int8"],
    "minilm3 taught by mpnet, int8": ["model=minilm3", *RECIPE, "prune=none", "quant=int8"],
}
COMPARED = [
    ("minilm taught by mpnet, int8", "minilm, int8"),
    ("minilm taught by mpnet, int8", "minilm taught by mpnet, train alone, int8"),
    ("minilm taught by mpnet, fixed50, int8", "minilm taught by mpnet, int8"),
]
Done = dict[str, dict[int, Finished]]  # point -> seed -> what came of it


def main() -> None:
    """Runs every point of every seed, and writes the page after each."""
    args = kept.arguments(__doc__, POINTS, files="train.tsv and dev.tsv", seeds=[0, 1, 2], page=PAGE).parse_args()
    words = partial(words_of, kept.words_for(args, "sst2"), teacher_seed=args.teacher_seed)
    kept.make(args, POINTS, words, run, partial(page, teacher_seed=args.teacher_seed))


def words_of(shared: list[str], name: str, seed: int, teacher_seed: int) -> list[str]:
    """The words of train.py for a point."""
    own = [*(taught_by(teacher_seed) if "taught" in name else []), *POINTS[name]]
    return merged([*shared, f"seed={seed}", *own])


def taught_by(seed: int) -> list[str]:
    """What names the teacher: the MPNet of a seed."""
    return ["distill=kd", "distill.teacher=mpnet", f"distill.teacher_seed={seed}"]


def page(done: Done, teacher_seed: int = 0) -> str:
    """TEACHERS.md, of the points that are finished."""
    way_out = "Time all of them here: python sweep.py sweep=measure results_dir=DIR."
    require_one_machine((p.result.machine for seeds in done.values() for p in seeds.values()), way_out)
    if not done:
        return "# Teachers and students on SST-2\n\nNothing is finished yet.\n"
    first = next(iter(next(iter(done.values())).values())).result
    missing = [name for name in POINTS if name not in done]
    head = "| point | seeds | accuracy, mean | of each seed | agrees | MB | p50 ms at 128 | vs float32 | fit, min |"
    gains = [line for own, base in COMPARED if (line := difference(own, base, done))]
    return "\n".join([
        "# Teachers and students on SST-2", "",
        f"Written by `python benchmarks/teachers.py`; every figure is that of the `.tflite` file, on all {first.data['dev_examples']} dev sentences.", "",
        f"{timed_on(first.machine)}.", "",
        f"A student taught by MPNet: `{' '.join([*taught_by(teacher_seed), *RECIPE])}`; train alone: `{ALONE}`.", "",
        head, "|" + "---|" * 9, *(row(name, done[name]) for name in POINTS if name in done), "",
        *(["| difference | seeds | points (95 %) |", "|---|---|---|", *gains, "",
           "The interval is over sentences and fits (optim/report/difference.py).", ""] if gains else []),
        *([f"Not run yet: {'; '.join(missing)}.", ""] if missing else []),
    ])  # fmt: skip


def row(name: str, seeds: Mapping[int, Finished]) -> str:
    """One line of the table; cost and speed are means over the seeds."""
    seeds = dict(sorted(seeds.items()))
    results = [point.result for point in seeds.values()]
    mean = lambda of: statistics.mean(map(of, results))  # noqa: E731
    # None where it was timed anew (sweep=measure) after its float32 file had left the cache.
    ratios = [ratio for r in results if (ratio := r.speed["speedup_vs_float32"]) is not None]
    return (
        f"| {name} | {', '.join(map(str, seeds))} | {mean(lambda r: r.quality['accuracy_fraction']):.4f} "
        f"| {', '.join(f'{point.accuracy:.4f}' for point in seeds.values())} | {mean(lambda r: r.quality['agreement_fraction']):.4f} "
        f"| {mean(lambda r: r.size['file_bytes']) / 1e6:.1f} | {mean(lambda r: r.speed['latency_p50_ms']):.1f} "
        f"| {f'{statistics.mean(ratios):.2f}x' if ratios else ''} | {mean(lambda r: r.cost['student_s'] or r.cost['teacher_s']) / 60:.0f} |"
    )


def difference(own: str, base: str, done: Done) -> str | None:
    """How much better one point is than another, over the seeds that both have; None if there are none."""
    right = [Answers.of(done.get(name, {})) for name in (own, base)]
    if not set(right[0]) & set(right[1]):
        return None
    found = against(*right)
    return (
        f"| {own} - {base} | {', '.join(map(str, found.seeds))} "
        f"| {found.gain_points:+.2f} ({found.low_points:+.2f} to {found.high_points:+.2f}) |"
    )


if __name__ == "__main__":
    main()
