"""Steps a second of this project's fits beside the Hugging Face Trainer: one model, one machine, the same batches.

python benchmarks/peers/training.py --data DIR [--rounds 3]      or: make bench-training DATA=DIR

DIR holds GLUE's own train.tsv and dev.tsv. Each fit is a process of its own, all loaded at once; a round gives each of
them in turn so many steps, in another order each time, and a ratio is taken round by round. Before the first round each
makes some steps that are not counted. Then fits that end are weighed. Writes benchmarks/TRAINING.md. The Trainer comes
from benchmarks/peers/requirements.txt, in .venv-peers, which is made where it is missing.
"""

# ruff: noqa: E501
from __future__ import annotations

import argparse
import json
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[2]
HERE, PAGE = ROOT / "benchmarks" / "peers", ROOT / "benchmarks" / "TRAINING.md"
sys.path[:0] = [str(ROOT), str(HERE)]

from bench import peers_python, ratio, versions  # noqa: E402
from learner import LAST  # noqa: E402

from optim.data.tokens import Tokens, tokenize  # noqa: E402
from optim.measure.device import cores, has_bfloat16, machine  # noqa: E402
from optim.run.compose import composed  # noqa: E402
from optim.run.point import Point, point_of  # noqa: E402

BATCH = 64
PLAIN = ["prune=none", "quant=none", "distill=none"]
FAST = "bfloat16" if has_bfloat16() else "float32"  # what `fit.precision=auto` is here
# Name -> words of train.py.
OURS = {
    "ours float32": [*PLAIN, "fit.precision=float32"],
    "ours bfloat16": [*PLAIN, "fit.precision=bfloat16"],
    "ours, distill=kd": ["prune=none", "quant=none", "distill=kd", f"fit.precision={FAST}"],
    "ours, prune=fixed50": ["prune=fixed50", "quant=none", "distill=none", f"fit.precision={FAST}"],
    "ours, quant=int8_qat": ["prune=none", "quant=int8_qat", "distill=none", f"fit.precision={FAST}"],
}
PEERS = {"Trainer float32": False, "Trainer bfloat16": True}  # name -> bf16
WEIGHED = {"minilm": 3.0, "mpnet": 8.0}  # model -> gigabytes that its fit may take
# Of a fit that is weighed: the longest sentences of train, of which no batch can ask for more, and as many others.
WEIGHED_BATCHES = 12
# Figure, what is asked, fit, the fit it is compared with, and whether the ratio is of times (else of speeds).
ASKED = [
    ("steps a second, float32, to the Trainer's", ">= 1.00, aim 1.30", "ours float32", "Trainer float32", False),
    ("steps a second, bfloat16, to the Trainer's", ">= 1.00, aim 1.30", "ours bfloat16", "Trainer bfloat16", False),
    ("time of a step, distill=kd with stored answers, to plain", "about 1.00", "ours, distill=kd", f"ours {FAST}", True),
    ("time of a step, prune=fixed50, to plain", "<= 1.30", "ours, prune=fixed50", f"ours {FAST}", True),
    ("time of a step, quant=int8_qat, to plain", "<= 1.30", "ours, quant=int8_qat", f"ours {FAST}", True),
]  # fmt: skip


@dataclass
class Learner:
    """A process of learner.py, and what it answered."""

    name: str
    process: subprocess.Popen[str]
    total: int = 0  # steps of the whole fit, of which it makes the first ones
    seconds: list[float] = field(default_factory=list)  # of each round
    busy: list[float] = field(default_factory=list)  # seconds of all processors in each round
    loss: float = 0.0
    peak_bytes: int = 0

    def answer(self) -> dict[str, Any]:
        """The next one."""
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} ended with {self.process.wait()}")
        return json.loads(line)

    def ask(self, steps: int) -> dict[str, Any]:
        """So many steps."""
        assert self.process.stdin
        print(json.dumps({"steps": steps}), file=self.process.stdin, flush=True)
        return self.answer()

    def end(self) -> None:
        """Weighs it, and closes it."""
        assert self.process.stdin
        self.peak_bytes = peak_rss_bytes(self.process.pid)
        self.process.stdin.close()
        self.process.wait()


def main() -> None:
    """Prepares tokens and batches, measures in turns, weighs, and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train.tsv and dev.tsv")
    parser.add_argument("--cache", type=Path, default=Path("~/.cache/distilbert-optim").expanduser(), help="cache_dir")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=100, help="of each fit in a round; masks are drawn every 100")
    parser.add_argument("--warm", type=int, default=40, help="steps before the first round, which are not counted")
    parser.add_argument("--only", nargs="*", choices=[*OURS, *PEERS], default=[*OURS, *PEERS])
    parser.add_argument(
        "--weigh", nargs="*", choices=list(WEIGHED), default=list(WEIGHED), help="fits that are weighed"
    )
    parser.add_argument("--page", type=Path, default=PAGE)
    args = parser.parse_args()
    if min(args.rounds, args.steps, args.warm) < 1:
        parser.error("--rounds, --steps and --warm must be 1 or above.")
    before = machine()
    python = peers_python()
    packages = versions(python, "torch", "transformers", "accelerate", own=("tensorflow", "tf_keras"))
    with tempfile.TemporaryDirectory() as folder:
        found = started(args, Path(folder), python)
        measured(found, rounds=args.rounds, steps=args.steps, warm=args.warm)
        weights: dict[str, int] = {}
        for model in [None, *args.weigh]:  # what was timed is written before minutes of weighing
            weights |= {model: weighed(args, model, Path(folder))} if model else {}
            args.page.write_text(page(found, weights, args, before, packages), encoding="utf-8")
    print(f"Written: {args.page}")


def started(args: argparse.Namespace, folder: Path, python: Path) -> list[Learner]:
    """A process for each fit, loaded; this project's first one leaves the batches for the others."""
    batches = folder / "batches.npz"
    count = args.warm + args.rounds * args.steps
    point, checkpoint, tokens = prepared(args, "minilm", folder)
    found: list[Learner] = []
    for name in sorted({*args.only, "ours float32"}, key=[*OURS, *PEERS].index):
        if name in OURS:
            first = None if found else str(batches)
            spec = {"words": words(args, "minilm", OURS[name]), "batches": first, "count": count, "tokens": str(tokens)}
            program = sys.executable
        else:
            recipe, program = point.schedule.teacher_of("minilm"), str(python)
            spec = {"batches": str(batches), "total": found[0].total, "rate": recipe.learning_rate, "bf16": PEERS[name],
                    "weight_decay": recipe.weight_decay, "warmup": recipe.warmup, "threads": cores()}  # fmt: skip
        found.append(start(name, program, {**spec, "checkpoint": str(checkpoint)}, folder))
        print(f"{name}: loaded", flush=True)
    if len(np.load(batches).files) < 3 * count:
        raise SystemExit(f"{count} steps are more than an epoch has: fewer --rounds or --steps.")
    return found


def prepared(args: argparse.Namespace, model: str, folder: Path) -> tuple[Point, Path, Path]:
    """(the point of a plain fit, the folder of its checkpoint, a file with train in its tokens)."""
    point = point_of(composed(words(args, model, PLAIN)).cfg)
    checkpoint, path = point.checkpoint.fetch(args.cache), folder / f"{model}.npz"
    train = point.source.load(args.cache).train
    tokenize(train, tokenizer_path=checkpoint / "tokenizer.json", max_length=point.source.max_length).save(path)
    return point, checkpoint, path


def words(args: argparse.Namespace, model: str, more: Sequence[str]) -> list[str]:
    """Those of train.py for a fit on all of train."""
    return [f"model={model}", "data=sst2", f"data.path={args.data.resolve()}", "track=none", *more]


def start(name: str, program: str, spec: Mapping[str, Any], folder: Path) -> Learner:
    """A process of learner.py that waits for its first steps."""
    kind, scratch = "ours" if "words" in spec else "trainer", folder / f"scratch {name}"
    scratch.mkdir()
    command = [program, str(HERE / "learner.py"), kind, json.dumps({**spec, "scratch": str(scratch)})]
    with (folder / f"{name}.log").open("w") as log:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)
    one = Learner(name, process)
    try:
        one.total = one.answer()["total"]
    except RuntimeError as error:
        raise SystemExit(f"{error}:\n{(folder / f'{name}.log').read_text()[-2000:]}") from None
    return one


def measured(found: Sequence[Learner], *, rounds: int, steps: int, warm: int) -> None:
    """The seconds of each round, the fits in an order drawn anew."""
    rng = random.Random(0)
    for one in found:
        print(f"{one.name}: {warm / one.ask(warm)['seconds']:.2f} steps a second while it warms up", flush=True)
    for number in range(rounds):
        start = time.perf_counter()
        for one in rng.sample(list(found), len(found)):
            answer = one.ask(steps)
            one.seconds.append(answer["seconds"])
            one.busy.append(answer["busy"])
            one.loss = answer["loss"]
        print(f"round {number + 1} of {rounds}: {time.perf_counter() - start:.0f} s", flush=True)
    for one in found:
        one.end()


def weighed(args: argparse.Namespace, model: str, folder: Path) -> int:
    """The most memory, in bytes, that a fit of so many batches takes from its start to its end."""
    _, checkpoint, path = prepared(args, model, folder)
    train, path = Tokens.load(path), folder / f"weighed {model}.npz"
    train.take(heavy_rows(train.lengths, WEIGHED_BATCHES * BATCH)).save(path)
    spec = {"words": words(args, model, [*PLAIN, f"fit.precision={FAST}", "fit.teacher.epochs=1"]), "batches": None,
            "count": 0, "tokens": str(path), "checkpoint": str(checkpoint)}  # fmt: skip
    one = start(f"weighed {model}", sys.executable, spec, folder)
    one.ask(one.total + 1)  # more than it has: it ends
    one.end()
    print(f"{model}: a fit takes {one.peak_bytes / 1e9:.2f} GB at most", flush=True)
    return one.peak_bytes


def heavy_rows(lengths: np.ndarray, count: int) -> np.ndarray:
    """The `count` longest of the sentences, and as many others spread over the rest: int [2 count]."""
    order = np.argsort(-lengths, kind="stable")
    rest = order[count:]
    return np.concatenate([order[:count], rest[np.linspace(0, len(rest) - 1, count).astype(int)]])


def peak_rss_bytes(process_id: int) -> int:
    """The most resident memory that a process has had; on Linux."""
    found = re.search(r"^VmHWM:\s*(\d+) kB", Path(f"/proc/{process_id}/status").read_text(), re.MULTILINE)
    assert found
    return int(found[1]) * 1024


def page(found: Sequence[Learner], weights: Mapping[str, int], args: argparse.Namespace, here: Mapping[str, Any],
         packages: Mapping[str, str]) -> str:  # fmt: skip
    """TRAINING.md. here: the machine before it was loaded."""
    lines = [
        "# Speed of training beside the Hugging Face Trainer", "",
        f"Written by `make bench-training` on {time.strftime('%Y-%m-%d')}: {here['cpu']}, {here['cores']} cores,",
        f"ISA {', '.join(here['isa'])}.",
        f"Load average before it began: {here['load_average'][0]}.", "",
        f"Every fit starts from the same MiniLM-L6 checkpoint. Each sees the same batches of {BATCH} phrases of SST-2's train,",
        "padded alike, and uses AdamW with the same rate, decay and clipping. The Trainer's batches are padded before it",
        f"starts; ours are padded in the step. All are loaded at once and take turns: {args.rounds} rounds of {args.steps} steps, after",
        f"{args.warm} steps that are not counted. Loss is the mean of about the last {LAST} steps, with the dropout of training.", "",
        "| fit | steps a second (least to greatest round) | processor seconds a step | loss | peak GB |", "|---|---|---|---|---|",
        *(line_of(one, args.steps) for one in found), "",
        "| figure | asked | measured (least to greatest round) |", "|---|---|---|",
        *asked({one.name: one for one in found}),
    ]  # fmt: skip
    lines += [
        f"| peak memory of a whole fit of {model}, {FAST}, batches of {BATCH} | <= {WEIGHED[model]:.0f} GB | {size / 1e9:.2f} GB |"
        for model, size in weights.items()
    ]
    if weights:
        lines += [
            "",
            f"A fit that is weighed has the {WEIGHED_BATCHES * BATCH} longest phrases of train among its own, is judged and saved.",
        ]
    made_with = ", ".join(f"{name} {version}" for name, version in packages.items())
    return "\n".join([*lines, "", "No GPU was measured.", "", f"{made_with}.", ""])


def line_of(one: Learner, steps: int) -> str:
    """A line of the first table."""
    rates = [steps / seconds for seconds in one.seconds]
    spread = f"{statistics.median(rates):.2f} ({min(rates):.2f} to {max(rates):.2f})"
    busy = statistics.median(one.busy) / steps
    return f"| {one.name} | {spread} | {busy:.2f} | {one.loss:.3f} | {one.peak_bytes / 1e9:.2f} |"


def asked(named: Mapping[str, Learner]) -> list[str]:
    """What the project asks of itself, and what came of it: the ratio, and its least and greatest round."""
    lines = []
    for said, goal, own, other, times in ASKED:
        if own in named and other in named:
            above, below = (own, other) if times else (other, own)
            middle, least, most = ratio(named[above].seconds, named[below].seconds)
            lines.append(f"| {said} | {goal} | {middle:.2f} ({least:.2f} to {most:.2f}) |")
    return lines


if __name__ == "__main__":
    main()
