"""BANKING77, 77 classes, through train.py: MiniLM as an int8 file, taught by itself or by MPNet, pruned or not.

python benchmarks/banking77.py --data DIR     DIR holds train.csv and test.csv of PolyAI-LDN/task-specific-datasets
python benchmarks/banking77.py --data DIR --seeds 0 1 2 --only "minilm, int8" "minilm taught by mpnet, int8"
python benchmarks/banking77.py --data DIR --quick --page FILE     the same way with the tiny model: a minute, no figures

Writes benchmarks/BANKING77.md from the result.json of each point, anew after each, unless it has more results than are
here. Students of every seed share one MPNet, that of seed 0 unless told otherwise. Finished points and stages are taken
from results and cache, so a call that was stopped goes on where it was.
"""

# ruff: noqa: E501
from __future__ import annotations

import statistics
import sys
from collections.abc import Mapping, Sequence
from functools import partial

import kept
from sst2 import ROOT, require_one_machine, run, timed_on

sys.path[:0] = [str(ROOT)]
from optim.report.finished import Finished  # noqa: E402
from optim.run.result import Result  # noqa: E402

PAGE = ROOT / "benchmarks" / "BANKING77.md"
MINILM, MPNET = ["model=minilm", "distill=kd"], ["model=mpnet", "distill=kd"]
TAUGHT = ["model=minilm", "distill=kd", "distill.teacher=mpnet"]
MORE = [*TAUGHT, "distill.augment.copies=8", "fit=long"]
POINTS = {
    "mpnet, float32": [*MPNET, "prune=none", "quant=none"],
    "minilm, float32": [*MINILM, "prune=none", "quant=none"],
    "minilm, int8": [*MINILM, "prune=none", "quant=int8"],
    "minilm taught by mpnet, int8": [*TAUGHT, "prune=none", "quant=int8"],
    "minilm taught by mpnet, fixed50, int8": [*TAUGHT, "prune=fixed50", "quant=int8"],
    "minilm taught by mpnet, more, int8": [*MORE, "prune=none", "quant=int8"],
}
Done = dict[str, dict[int, Finished]]  # point -> seed -> what came of it
# A teacher has to be tuned, or it is refused: 60 passes take the tiny model past that over 77 classes. Those are close to
# each other in it, so that its int8 file tells one or two in twenty differently.
QUICK = ["fit=quick", "fit.teacher.epochs=60", "fit.teacher.learning_rate=3e-3", "fit.student.epochs=1", "bench=quick",
         "measure.max_disagreement=0.2"]  # fmt: skip


def main(arguments: list[str] | None = None) -> None:
    """Runs every point of every seed, and writes the page after each."""
    parser = kept.arguments(__doc__, POINTS, files="train.csv and test.csv", seeds=[0], page=PAGE)
    parser.add_argument("--quick", action="store_true", help="the tiny model in place of both; needs --page")
    args = parser.parse_args(arguments)
    if args.quick and args.page == PAGE:
        parser.error("--quick measures nothing that BANKING77.md may show: give another file with --page.")
    shared = kept.words_for(args, "banking77")
    words = partial(words_of, shared, teacher_seed=args.teacher_seed, quick=args.quick)
    kept.make(args, POINTS, words, run, partial(page, teacher_seed=args.teacher_seed))


def words_of(shared: list[str], name: str, seed: int, *, teacher_seed: int, quick: bool) -> list[str]:
    """The words of train.py for a point."""
    own = POINTS[name]
    chosen = [*(_tiny(word) for word in own if not word.startswith("fit=")), *QUICK] if quick else own
    taught = [f"distill.teacher_seed={teacher_seed}"] if "distill.teacher=mpnet" in own else []
    return [*shared, *chosen, *taught, f"seed={seed}"]


def page(done: Done, teacher_seed: int = 0) -> str:
    """BANKING77.md, of the points that are finished."""
    if not done:
        return "# BANKING77\n\nNothing is finished yet.\n"
    results = [point.result for seeds in done.values() for point in seeds.values()]
    way_out = "Time all of them here: python sweep.py sweep=measure results_dir=DIR."
    require_one_machine((result.machine for result in results), way_out)
    data = results[0].data
    stages = {key: seconds for result in results for key, seconds in result.cost["stages"].items()}
    head = "| point | seeds | accuracy, mean | of each seed (95 %) | macro-F1 | teacher | agrees | MB | gzip MB | p50 ms | vs float32 | fits, min |"
    missing = [name for name in POINTS if name not in done]
    tiny = any(result.choices["model"] == "tiny" for result in results)
    lines = [
        "# BANKING77", "",
        f"Written by `python benchmarks/banking77.py`; every figure is that of the `.tflite` file, on all {data['dev_examples']:,} "
        f"questions of its test split, {data['dev_in_train_examples']} of which stand in train, too. {len(data['labels'])} classes.", "",
        *(["The tiny model stands for every other here, to see that the way works: no figure means anything.", ""] if tiny else []),
        *dict.fromkeys(map(_machine, results)),
        f"- taught by mpnet: by that of seed {teacher_seed}.",
        f"- more: `{' '.join(MORE[-2:])}`, in the place of those epochs.", "",
        head, "|" + "---|" * 12, *(row(name, done[name]) for name in POINTS if name in done), "",
        f"All stages together: {sum(stages.values()) / 60:.1f} minutes.", "",
        *([f"Not run yet: {'; '.join(missing)}.", ""] if missing else []),
    ]  # fmt: skip
    return "\n".join(lines)


def row(name: str, seeds: Mapping[int, Finished]) -> str:
    """One line of the table; what is not told of each seed is a mean over them."""
    seeds = dict(sorted(seeds.items()))
    results = [point.result for point in seeds.values()]
    mean = lambda of: statistics.mean(map(of, results))  # noqa: E731
    quality = lambda name: f"{mean(lambda r: r.quality[name]):.4f}"  # noqa: E731
    each = [
        f"{q['accuracy_fraction']:.4f} ({q['ci95_low']:.3f}-{q['ci95_high']:.3f})" for q in (r.quality for r in results)
    ]
    return (
        f"| {name} | {', '.join(map(str, seeds))} | {quality('accuracy_fraction')} | {', '.join(each)} | {quality('macro_f1')} "
        f"| {quality('teacher_accuracy_fraction')} | {quality('agreement_fraction')} | {mean(lambda r: r.size['file_bytes']) / 1e6:.1f} "
        f"| {mean(lambda r: r.size['gzip_bytes']) / 1e6:.1f} "
        f"| {mean(lambda r: r.speed['latency_p50_ms']):.2f} at {results[0].speed['sequence_length']} "
        f"| {_times([r.speed['speedup_vs_float32'] for r in results])} "
        f"| {mean(lambda r: r.cost['teacher_s'] + r.cost['student_s']) / 60:.1f} |"
    )


def _machine(result: Result) -> str:
    epochs = {fit: result.cfg["fit"][fit]["epochs"] for fit in ("teacher", "student")}
    return f"- {result.choices['model']}: {timed_on(result.machine)}; epochs: teacher {epochs['teacher']}, student {epochs['student']}."


def _times(speedups: Sequence[float | None]) -> str:
    """Their mean. Of a file that is timed without its float32 file nothing is known."""
    known = [speedup for speedup in speedups if speedup is not None]
    return f"{statistics.mean(known):.2f}x" if known else "-"


def _tiny(word: str) -> str:
    """The word of the command line with the tiny model in place of each other."""
    key, _, value = word.partition("=")
    return f"{key}=tiny" if key in ("model", "distill.teacher") else f"{key}={value}"


if __name__ == "__main__":
    main()
