"""What removal, zeros, precision and distillation come to on SST-2 dev, through train.py: the table of METHODS.md.

python benchmarks/methods.py --data DIR                       DIR holds GLUE's own train.tsv and dev.tsv
python benchmarks/methods.py --data DIR --seeds 0 1 2 --only half quarter
python benchmarks/methods.py --data DIR fit.student.epochs=4  words with a = go to train.py, for every student

Students are MiniLM-L6 taught by MPNet of seed 0 (or --teacher-seed), which all seeds share. MiniLM's own float32 file is 1x. Finished points
and stages are taken from results and cache, so a call that was stopped goes on where it was. A page of more results than
are here is not written over. In the end all files are timed side by side. A file that answers unlike its Keras student is a failed point: it is listed as failed.
"""

# ruff: noqa: E501
from __future__ import annotations

import statistics
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from kept import arguments, made_before, there, train, words_for, write
from sst2 import require_one_machine, timed_on
from teachers import difference

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT)]

from hydra import compose, initialize_config_dir  # noqa: E402
from omegaconf import DictConfig, OmegaConf  # noqa: E402

from optim.common.build import build  # noqa: E402
from optim.report import finished  # noqa: E402
from optim.report.finished import Finished  # noqa: E402
from optim.run import config  # noqa: E402
from optim.run.places import CONF  # noqa: E402
from optim.sweep import pick  # noqa: E402
from optim.sweep.points import merged, options_first  # noqa: E402
from optim.sweep.remeasure import remeasure  # noqa: E402

PAGE = ROOT / "benchmarks" / "METHODS.md"
TAUGHT = ["distill.teacher=mpnet"]
HALF, QUARTER = ["slim=slim50", "vocab=seen"], ["slim=slim75", "vocab=seen"]
SIX = ["model=mpnet", "slim=layers6", "slim.ffn=0.5", "vocab=seen"]  # its own teacher: MPNet of the same seed
BASE, TEACHER = "minilm, float32", "mpnet, float32"
# Name -> (words, what the project asks of it).
POINTS: dict[str, tuple[list[str], str]] = {
    BASE: (["distill=none", "distill.augment.copies=0", "quant=none"], "1x"),
    "whole": ([*TAUGHT, "quant=int8"], "0.912; 23 MB"),
    "words": ([*TAUGHT, "vocab=seen", "quant=int8"], "report"),
    "words, int4": ([*TAUGHT, "vocab=seen", "quant=int4"], "11 MB"),
    "words, int4_emb4": ([*TAUGHT, "vocab=seen", "quant=int4_emb4"], "8 MB"),
    "half": ([*TAUGHT, *HALF, "quant=int8"], "0.902, aim 0.912; 11 MB; 7x"),
    "half, train alone": ([*TAUGHT, *HALF, "distill.augment.copies=0", "quant=int8"], "below half"),
    "half, int8_emb4": ([*TAUGHT, *HALF, "quant=int8_emb4"], "8 MB"),
    "half, int4_emb4": ([*TAUGHT, *HALF, "quant=int4_emb4"], "5 MB"),
    "half, zeros": ([*TAUGHT, *HALF, "prune=fixed50", "quant=int8"], "within 0.010 of half; zstd 7.5 MB; 7x"),
    "quarter": ([*TAUGHT, *QUARTER, "quant=int8"], "0.892, aim 0.900; 8.2 MB; 11x"),
    "quarter, int8_emb4": ([*TAUGHT, *QUARTER, "quant=int8_emb4"], "5 MB at 0.895"),
    "quarter of five layers, int8_emb4": (
        [*TAUGHT, "slim=slim75", "slim.layers=5", "vocab=top", "vocab.size=10000", "quant=int8_emb4"],
        "5 MB at 0.895; 15x",
    ),
    "quarter of four layers, int8_emb4": (
        [*TAUGHT, "slim=slim75", "slim.layers=4", "vocab=top", "vocab.size=10000", "quant=int8_emb4"],
        "20x at 0.895",
    ),
    "quarter of five layers, two heads, int8_emb4": (
        [*TAUGHT, "slim=slim75", "slim.layers=5", "slim.heads=0.83", "vocab=top", "vocab.size=10000", "quant=int8_emb4"],
        "20x at 0.895",
    ),
    "quarter, int4_emb4": ([*TAUGHT, *QUARTER, "quant=int4_emb4"], "report"),
    "quarter, hidden": (["distill=hidden", *TAUGHT, *QUARTER, "quant=int8"], "+0.005 over quarter"),
    "quarter, relations": (["distill=minilm", *TAUGHT, *QUARTER, "quant=int8"], "+0.005 over quarter"),
    "three layers, half": ([*TAUGHT, "slim=layers3", "slim.heads=0.5", "slim.ffn=0.5", "vocab=seen", "quant=int8"], "20x at 0.895"),
    "three layers, half, int8_emb4": (
        [*TAUGHT, "slim=layers3", "slim.heads=0.5", "slim.ffn=0.5", "vocab=seen", "quant=int8_emb4"],
        "5 MB",
    ),
    "narrow half, int8_emb4": ([*TAUGHT, *HALF, "slim.width=256", "quant=int8_emb4"], "5 MB at 0.895; 15x"),
    "narrow half": ([*TAUGHT, *HALF, "slim.width=256", "quant=int8"], "5 MB at 0.895; 15x"),
    "half, qat": ([*TAUGHT, *HALF, "prune=fixed50", "quant=int8_qat"], "not below half, zeros"),
    TEACHER: (["model=mpnet", "distill=none", "distill.augment.copies=0", "quant=none"], "report"),
    "mpnet, six layers": (["model=mpnet", "slim=layers6", "prune=fixed50", "quant=int8"], "0.920; 68 MB"),
    "mpnet, six layers, words": (["model=mpnet", "slim=layers6", "vocab=seen", "prune=fixed50", "quant=int8"], "8x below mpnet, float32"),
    "mpnet, six layers, half columns, int4_emb4": ([*SIX, "quant=int4_emb4"], "23 MB"),
    "mpnet, six layers, half columns, int8_emb4": ([*SIX, "quant=int8_emb4"], "report"),
    "mpnet, six layers, half columns": ([*SIX, "quant=int8"], "report"),
}  # fmt: skip
COMPARED = [
    ("half", "half, train alone"),  # what made sentences bring in as many steps
    ("half, zeros", "half"),
    ("quarter, hidden", "quarter"),
    ("quarter, relations", "quarter"),
    ("half, qat", "half, zeros"),
]
Done = dict[str, Mapping[int, Finished | None]]  # point -> seed -> what came of it, None: it failed


def main() -> None:
    """Runs every point of every seed, writes the page after each, and times all files side by side in the end."""
    parser = arguments(__doc__, POINTS, files="train.tsv and dev.tsv", seeds=[0], page=PAGE)
    parser.add_argument("words", nargs="*", help="KEY=VALUE of train.py, for every point")
    args = parser.parse_args()
    config.register()
    shared = ["model=minilm", *words_for(args, "sst2"), *args.words]
    words = partial(words_of, shared, teacher_seed=args.teacher_seed)
    done: Done = {**made_before(POINTS, words, args.seeds, Path(args.results))}
    write(args.page, page(done, args.words, args.teacher_seed))
    for seed in args.seeds:
        for name in args.only:
            done[name] = {**done.get(name, {}), seed: made(words(name, seed), Path(args.results))}
            write(args.page, page(done, args.words, args.teacher_seed))
    points = [point for seeds in done.values() for point in seeds.values() if point]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        remeasure(pick.have_files(points), build(compose("train", overrides=shared).bench, "bench"))
    again = {p.folder: p for p in finished.read_all([p.folder for p in points])[0]}
    done = {name: {s: again[p.folder] if p else None for s, p in seeds.items()} for name, seeds in done.items()}
    way_out = "Those without their files were not timed again: move them out of --results."
    require_one_machine((p.result.machine for seeds in done.values() for p in seeds.values() if p), way_out)
    write(args.page, page(done, args.words, args.teacher_seed))


def words_of(shared: list[str], name: str, seed: int, teacher_seed: int) -> list[str]:
    """The words of train.py for a point. Options stand before keys, so that `distill=hidden` of a point leaves what the
    user says of `distill`; a key that the point's own option does not have is left out, as `distill.temperature` of none.
    """
    own = POINTS[name][0]
    taught = [f"distill.teacher_seed={teacher_seed}"] if "distill.teacher=mpnet" in own else []
    words = merged(options_first([*shared, *own, *taught, f"seed={seed}"]))
    chosen = {word.split("=")[0] for word in own}
    loose = [word for word in words if word in shared and word.split(".")[0] in chosen]
    return [word for word in words if word not in loose or has_key(words, word.split("=")[0])] if loose else words


def has_key(words: list[str], key: str) -> bool:
    """Whether the options among these words have a key."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", overrides=[word for word in words if "." not in word.split("=")[0]])
    folder, _, last = key.rpartition(".")
    found = OmegaConf.select(cfg, folder)
    return isinstance(found, DictConfig) and last in list(found)


def made(words: list[str], results: Path) -> Finished | None:
    """Runs a point unless it is there; None if it failed, with its reason on the screen."""
    print("train.py", *words, flush=True)
    train(words, captured=False)
    return there(words, results)


def page(done: Done, words: Sequence[str] = (), teacher_seed: int = 0) -> str:
    """METHODS.md, of the points that are finished; `words`: what all students were fitted with."""
    points = [p for seeds in done.values() for p in seeds.values() if p]
    if not points:
        return "# Methods on SST-2\n\nNothing is finished yet.\n"
    first, base = points[0].result, [p for p in done.get(BASE, {}).values() if p]
    whole = {name: {seed: p for seed, p in seeds.items() if p} for name, seeds in done.items()}
    gains = [line for own, other in COMPARED if (line := difference(own, other, whole))]
    missing = [name for name in POINTS if name not in done]
    failed = [f"{name}, seed {seed}" for name, seeds in done.items() for seed, p in seeds.items() if p is None]
    head = "| recipe | seeds | accuracy, mean | of each seed | MB | zstd MB | p50 ms at 128 | speed | p50 ms of dev | speed | zeros faster | agrees | asked |"
    return "\n".join([
        "# Methods on SST-2", "",
        f"Written by `python benchmarks/methods.py`; every figure is that of the `.tflite` file, on all {first.quality['examples']} dev sentences.", "",
        f"{timed_on(first.machine, first.speed['threads'])}. Speed: MiniLM's own float32 file is 1x. Of dev: over its sentences, each at its own length.", "",
        f"Students are taught by MPNet of seed {teacher_seed} in what `train.py {' '.join(words) or '(its defaults)'}` asks for.", "",
        head, "|" + "---|" * 13, *(row(name, done[name], base) for name in POINTS if any(done.get(name, {}).values())), "",
        *below_teacher(whole),
        *(["| difference | seeds | points (95 %) |", "|---|---|---|", *gains, "", "The interval is over sentences and fits (optim/report/difference.py).", ""] if gains else []),
        *([f"Failed: {'; '.join(failed)}.", ""] if failed else []),
        *([f"Not run yet: {'; '.join(missing)}.", ""] if missing else []),
    ])  # fmt: skip


def below_teacher(done: Mapping[str, Mapping[int, Finished]]) -> list[str]:
    """A line that says how many times smaller the files made of MPNet are than its own float32 file."""
    mb = {name: statistics.mean(p.cost("file_bytes") / 1e6 for p in seeds.values())
          for name in POINTS if "model=mpnet" in POINTS[name][0] and (seeds := done.get(name))}  # fmt: skip
    if not (whole := mb.pop(TEACHER, None)) or not mb:
        return []
    return [f"Times smaller than {TEACHER}: {'; '.join(f'{name} {whole / own:.2f}x' for name, own in mb.items())}.", ""]


def row(name: str, seeds: Mapping[int, Finished | None], base: Sequence[Finished]) -> str:
    """One line of the table; cost and speed are means over the seeds. base: of each seed, what is 1x."""
    points = {seed: point for seed, point in sorted(seeds.items()) if point}
    results = [point.result for point in points.values()]
    mean = lambda of: statistics.mean(map(of, results))  # noqa: E731
    said = {None: "", True: "yes", False: "no"}
    verdicts = dict.fromkeys(said[r.speed.get("zeros_accelerated")] for r in results)
    faster = ", ".join(verdicts)  # `yes, no` where the seeds differ
    return (
        f"| {name} | {', '.join(map(str, points))} | {mean(lambda r: r.quality['accuracy_fraction']):.4f} "
        f"| {', '.join(f'{point.accuracy:.4f}' for point in points.values())} "
        f"| {mean(lambda r: r.size['file_bytes']) / 1e6:.2f} | {mean(lambda r: r.size['zstd_bytes']) / 1e6:.2f} "
        f"| {times('latency_p50_ms', [*points.values()], base)} "
        f"| {times('dev_mix_latency_p50_ms', [*points.values()], base)} | {faster} "
        f"| {mean(lambda r: r.quality['agreement_fraction']):.4f} | {POINTS[name][1]} |"
    )


def times(name: str, points: Sequence[Finished], base: Sequence[Finished]) -> str:
    """Two cells: the mean of a latency, and how many times that of the base is it."""
    own, whole = (statistics.mean(p.cost(name) for p in some) if some else None for some in (points, base))
    return f"{own:.2f} | {f'{whole / own:.1f}x' if whole and own else ''}"


if __name__ == "__main__":
    main()
