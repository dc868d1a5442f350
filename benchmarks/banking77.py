"""BANKING77, 77 classes, through train.py: MiniLM as an int8 file, taught by itself or by MPNet, pruned or not.

python benchmarks/banking77.py --data DIR     DIR holds train.csv and test.csv of PolyAI-LDN/task-specific-datasets
python benchmarks/banking77.py --data DIR --quick --page FILE     the same way with the tiny model: a minute, no figures

Writes benchmarks/BANKING77.md from the result.json of each point, anew after each. Finished points and stages are taken
from results and cache, so a call that was stopped goes on where it was.
"""

# ruff: noqa: E501
from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sst2 import ROOT, require_one_machine, run

sys.path[:0] = [str(ROOT)]
from optim.report import finished  # noqa: E402

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
# A teacher has to be tuned, or it is refused: 60 passes take the tiny model past that over 77 classes. Those are close to
# each other in it, so that its int8 file tells one or two in twenty differently.
QUICK = ["fit=quick", "fit.teacher.epochs=60", "fit.teacher.learning_rate=3e-3", "fit.student.epochs=1", "bench=quick",
         "measure.max_disagreement=0.2"]  # fmt: skip


def main(arguments: list[str] | None = None) -> None:
    """Runs every point, and writes the page after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder with train.csv and test.csv")
    parser.add_argument("--results", default="results")
    parser.add_argument("--cache", default=None, help="cache_dir of train.py")
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument("--quick", action="store_true", help="the tiny model in place of both; needs --page")
    args = parser.parse_args(arguments)
    if args.quick and args.page == PAGE:
        parser.error("--quick measures nothing that BANKING77.md may show: give another file with --page.")
    shared = ["data=banking77", f"data.path={args.data}", "track=none", f"results_dir={args.results}"]
    shared += [f"cache_dir={args.cache}"] if args.cache else []
    results: dict[str, dict[str, Any]] = {}
    for name, words in POINTS.items():
        chosen = [*(_tiny(word) for word in words if not word.startswith("fit=")), *QUICK] if args.quick else words
        found = run([*shared, *chosen], Path(args.results), again=False)
        # As a later measurement has it, which is the way out of results of two machines.
        (point,) = finished.read_all([ROOT / args.results / found["run_id"]])[0]
        results[name] = point.result.to_json()
        args.page.write_text(page(results), encoding="utf-8")


def page(results: Mapping[str, dict[str, Any]]) -> str:
    """BANKING77.md, of the points that are finished."""
    way_out = "Time all of them here: python sweep.py sweep=measure results_dir=DIR."
    require_one_machine((result["machine"] for result in results.values()), way_out)
    data = next(iter(results.values()))["data"]
    stages = {key: seconds for result in results.values() for key, seconds in result["cost"]["stages"].items()}
    machines = list(dict.fromkeys(map(_machine, results.values())))
    head = "| point | accuracy (95 %) | macro-F1 | teacher | agrees | MB | gzip MB | p50 ms | vs float32 | fits, min |"
    missing = [name for name in POINTS if name not in results]
    tiny = any(result["choices"]["model"] == "tiny" for result in results.values())
    lines = [
        "# BANKING77", "",
        f"Written by `python benchmarks/banking77.py`; every figure is that of the `.tflite` file, on all {data['dev_examples']:,} "
        f"questions of its test split, {data['dev_in_train_examples']} of which stand in train, too. {len(data['labels'])} classes, one seed.", "",
        *(["The tiny model stands for every other here, to see that the way works: no figure means anything.", ""] if tiny else []),
        *machines,
        f"- more: `{' '.join(MORE[-2:])}`, in the place of those epochs.", "",
        head, "|" + "---|" * 10, *(row(name, result) for name, result in results.items()), "",
        f"All stages together: {sum(stages.values()) / 60:.1f} minutes.", "",
        *([f"Not run yet: {'; '.join(missing)}.", ""] if missing else []),
    ]  # fmt: skip
    return "\n".join(lines)


def row(name: str, result: dict[str, Any]) -> str:
    """One line of the table."""
    q, s, v, cost = result["quality"], result["size"], result["speed"], result["cost"]
    return (
        f"| {name} | {q['accuracy_fraction']:.4f} ({q['ci95_low']:.3f}-{q['ci95_high']:.3f}) | {q['macro_f1']:.4f} "
        f"| {q['teacher_accuracy_fraction']:.4f} | {q['agreement_fraction']:.4f} | {s['file_bytes'] / 1e6:.1f} "
        f"| {s['gzip_bytes'] / 1e6:.1f} | {v['latency_p50_ms']:.2f} at {v['sequence_length']} | {_times(v['speedup_vs_float32'])} "
        f"| {(cost['teacher_s'] + cost['student_s']) / 60:.1f} |"
    )


def _machine(result: dict[str, Any]) -> str:
    machine, model = result["machine"], result["choices"]["model"]
    where = f"{machine['cpu']}, {machine['cores']} cores, ISA {', '.join(machine['isa'])}; one thread, batch 1"
    epochs = {fit: result["cfg"]["fit"][fit]["epochs"] for fit in ("teacher", "student")}
    return (
        f"- {model}: {where}; epochs: teacher {epochs['teacher']}, student {epochs['student']}; seed {result['seed']}."
    )


def _times(speedup: float | None) -> str:
    """Of a file that is timed without its float32 file nothing is known."""
    return "-" if speedup is None else f"{speedup:.2f}x"


def _tiny(word: str) -> str:
    """The word of the command line with the tiny model in place of each other."""
    key, _, value = word.partition("=")
    return f"{key}=tiny" if key in ("model", "distill.teacher") else f"{key}={value}"


if __name__ == "__main__":
    main()
