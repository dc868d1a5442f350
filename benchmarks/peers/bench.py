"""The speed of this project's files beside ONNX Runtime, OpenVINO and PyTorch: one model, one machine, in turns.

python benchmarks/peers/bench.py --data DIR [--rounds 7]      or: make bench DATA=DIR

DIR holds GLUE's own train.tsv and dev.tsv. MiniLM-L6 is fine-tuned on them, or taken from the cache; the same weights go
to every runtime. Each runtime is a process of its own, all loaded at once; a round asks each of them in turn, in another
order each time, and a ratio is taken round by round. Writes benchmarks/RESULTS.md. The other runtimes come from
benchmarks/peers/requirements.txt, in .venv-peers, which is made where it is missing.
"""

# ruff: noqa: E501
from __future__ import annotations

import argparse
import json
import random
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

ROOT = Path(__file__).parents[2]
HERE, PAGE = ROOT / "benchmarks" / "peers", ROOT / "benchmarks" / "RESULTS.md"
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from sst2 import run  # noqa: E402

from optim.common.versions import versions_of  # noqa: E402
from optim.data.tables import read_rows  # noqa: E402
from optim.encoder import store  # noqa: E402
from optim.encoder.checkpoint import names  # noqa: E402
from optim.export.bundle import BUNDLE  # noqa: E402
from optim.measure.device import machine  # noqa: E402

CALIBRATION = 300  # training sentences
OURS = {"litert int8": "int8", "litert float32": "none"}  # name -> quant, and the folder of its bundle
# Name -> (kind of contender.py, file).
PEERS = {
    "onnxruntime int8": ("onnx", "int8.onnx"),
    "onnxruntime float32": ("onnx", "model.onnx"),
    "openvino int8": ("openvino", "int8.xml"),
    "openvino bfloat16": ("openvino-bf16", "model.xml"),
    "openvino float32": ("openvino", "model.xml"),
    "torch int8": ("torch-int8", "."),
    "torch bfloat16": ("torch-bf16", "."),
    "torch float32": ("torch", "."),
}
SMALL = ("openvino int8", "openvino bfloat16", "onnxruntime int8", "torch int8", "torch bfloat16")
FLOAT = ("onnxruntime float32", "openvino float32")


@dataclass
class Contender:
    """A process of contender.py, and what it answered."""

    name: str
    process: subprocess.Popen[str]
    threads: int
    padded_ms: list[float] = field(default_factory=list)  # the median of each round
    texts_s: list[float] = field(default_factory=list)
    batch_s: list[float] = field(default_factory=list)
    accuracy: float = 0.0

    def ask(self, **command: Any) -> dict[str, Any]:
        """One command."""
        assert self.process.stdin
        assert self.process.stdout
        print(json.dumps(command), file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} ended with {self.process.wait()}")
        return json.loads(line)


def main() -> None:
    """Fits or finds the model, converts it for everyone, measures in turns, and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train.tsv and dev.tsv")
    parser.add_argument("--results", type=Path, default=ROOT / "results")
    parser.add_argument("--cache", type=Path, default=Path("~/.cache/distilbert-optim").expanduser(), help="cache_dir")
    parser.add_argument("--work", type=Path, default=ROOT / "benchmarks" / "peers" / "work", help="the peers' files")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", nargs="*", choices=[*OURS, *PEERS], default=[*OURS, *PEERS])
    args = parser.parse_args()
    texts, truth = sentences(args.data / "dev.tsv")
    python = peers_python()
    work = prepare(args, python, texts)
    alone, pair = (started(args.only, work, python, threads) for threads in (1, 2))
    for one in alone:
        one.accuracy = float(np.mean(np.array(one.ask(do="labels")["labels"]) == truth))
        print(f"{one.name}: accuracy {one.accuracy:.4f}", flush=True)
    measured(alone, pair, args.rounds)
    packages = versions(python, "onnxruntime", "openvino", "nncf", "torch", "transformers", own=("ai-edge-litert",))
    PAGE.write_text(page(alone, pair, packages, args.rounds, len(texts)), encoding="utf-8")
    print(f"Written: {PAGE}")


def sentences(path: Path) -> tuple[list[str], np.ndarray]:
    """(texts, labels 0 and 1: int [n]) of one of GLUE's files."""
    rows = read_rows(path, "sentence", "label")
    return [text for text, _ in rows], np.array([int(label) for _, label in rows])


def peers_python() -> Path:
    """The Python that has the other runtimes."""
    folder = ROOT / ".venv-peers"
    if not (folder / "bin" / "python").exists():
        print("Installing the other runtimes into .venv-peers (some minutes, 3 GB)", flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    requirements = ["-r", str(HERE / "requirements.txt")]  # seconds, where they are there
    subprocess.run([folder / "bin" / "pip", "install", "--quiet", "--no-compile", *requirements], check=True)
    return folder / "bin" / "python"


def prepare(args: argparse.Namespace, python: Path, texts: Sequence[str]) -> Path:
    """The folder with one fine-tuned MiniLM as everyone's file, under `args.work`."""
    shared = ["model=minilm", "data=sst2", f"data.path={args.data}", "distill=none", "track=none",
              f"results_dir={args.results}", f"cache_dir={args.cache}"]  # fmt: skip
    made = {quant: run([*shared, f"quant={quant}"]) for quant in OURS.values()}
    teacher = next(stage for stage in made["int8"]["cost"]["stages"] if stage.startswith("teacher-"))
    work = args.work / teacher  # what is converted of another fit is another's
    for quant, result in made.items():
        shutil.copytree(args.results / result["run_id"] / BUNDLE, work / quant, dirs_exist_ok=True)
    shutil.copy(work / "int8" / "tokenizer.json", work)
    write_hugging_face(args.cache / "stages" / teacher, work)
    (work / "dev.json").write_text(json.dumps(texts), encoding="utf-8")
    train = sentences(args.data / "train.tsv")[0]
    drawn = random.Random(0).sample(train, CALIBRATION)
    (work / "calibration.json").write_text(json.dumps(drawn), encoding="utf-8")
    convert = [python, HERE / "convert.py", work, work / "calibration.json"]
    subprocess.run([str(word) for word in convert], check=True)
    return work


def write_hugging_face(stage: Path, folder: Path) -> None:
    """A BERT of this project as transformers reads it: config.json and model.safetensors."""
    shape, weights, tensors = store.read_architecture(stage), load_file(stage / store.WEIGHTS), {}
    for layer, prefix in names(shape):
        for name, value in weights.items():
            if name.rsplit("/", 1)[0] != layer:
                continue
            kind = name.rsplit("/", 1)[1].split(":")[0]
            target = ("" if prefix == "classifier" else "bert.") + prefix
            target += ".bias" if kind in ("bias", "beta") else ".weight"
            tensors[target] = np.ascontiguousarray(value.T if kind == "kernel" else value)
    tensors["bert.embeddings.token_type_embeddings.weight"] = np.zeros((2, shape.width), np.float32)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = {
        "architectures": ["BertForSequenceClassification"], "model_type": "bert", "hidden_act": "gelu",
        "vocab_size": shape.vocabulary_size, "hidden_size": shape.width, "num_hidden_layers": len(shape.heads),
        "num_attention_heads": shape.heads[0], "intermediate_size": shape.ffn_widths[0],
        "max_position_embeddings": shape.position_count, "type_vocab_size": 2, "layer_norm_eps": shape.norm_epsilon,
        "num_labels": shape.classes,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")


def started(only: Sequence[str], work: Path, python: Path, threads: int) -> list[Contender]:
    """A process for each runtime, loaded."""
    whole = {**{name: (sys.executable, "litert", file) for name, file in OURS.items()},
             **{name: (str(python), kind, file) for name, (kind, file) in PEERS.items()}}  # fmt: skip
    found = []
    for name in only:
        program, kind, file = whole[name]
        words = [program, str(HERE / "contender.py"), kind, str(work / file), str(work / "tokenizer.json")]
        words += [str(work / "dev.json"), str(threads)]
        process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        found.append(Contender(name, process, threads))
    for one in found:
        assert one.process.stdout
        if not one.process.stdout.readline():
            raise RuntimeError(f"{one.name} did not start: {' '.join(map(str, one.process.args))}")  # type: ignore[arg-type]
    return found


def measured(alone: Sequence[Contender], pair: Sequence[Contender], rounds: int) -> None:
    """Every figure once a round, the contenders in an order drawn anew."""
    rng = random.Random(0)
    for one in alone:
        one.ask(do="padded", length=128, calls=10)  # warm
    for one in pair:
        one.ask(do="batch", size=32)  # warm, and every interpreter is loaded
    for number in range(rounds):
        start = time.perf_counter()
        for one in rng.sample(list(alone), len(alone)):
            one.padded_ms.append(statistics.median(one.ask(do="padded", length=128, calls=15)["ms"]))
        for one in rng.sample(list(alone), len(alone)):
            one.texts_s.append(one.ask(do="texts")["seconds"])
        for one in rng.sample(list(pair), len(pair)):
            one.batch_s.append(one.ask(do="batch", size=32)["seconds"])
        print(f"round {number + 1} of {rounds}: {time.perf_counter() - start:.0f} s", flush=True)


def ratio(own: Sequence[float], other: Sequence[float]) -> tuple[float, float, float]:
    """(median, least, greatest) of own / other, round by round."""
    ratios = [a / b for a, b in zip(own, other, strict=True)]
    return statistics.median(ratios), min(ratios), max(ratios)


def fastest(named: Mapping[str, Contender], names: Sequence[str], figure: str) -> Contender | None:
    """The contender of least median; None where none of them was measured."""
    there = [named[name] for name in names if name in named]
    return min(there, key=lambda one: statistics.median(getattr(one, figure)), default=None)


def page(alone: Sequence[Contender], pair: Sequence[Contender], packages: Mapping[str, str], rounds: int,
         count: int) -> str:  # fmt: skip
    """RESULTS.md."""
    here, two = machine(), {one.name: one for one in pair}
    lines = [
        "# Speed beside other runtimes", "",
        f"Written by `make bench` on {time.strftime('%Y-%m-%d')}: {here['cpu']}, {here['cores']} cores,",
        f"ISA {', '.join(here['isa'])}.",
        f"One fine-tuned MiniLM-L6 in every runtime, medians of {rounds} rounds in turns. 128: milliseconds of 128 tokens on one",
        f"thread. texts: milliseconds from a text to its label, the {count} sentences of SST-2's dev at their own lengths,",
        "one by one on one thread. batch: sentences a second on two threads, sorted by length, 32 at once; LiteRT's file",
        "takes one at a time, so optim.predict's two interpreters answer side by side.", "",
        "| runtime | accuracy | 128, ms | texts, ms | batch, a second |", "|---|---|---|---|---|",
    ]  # fmt: skip
    for one in alone:
        batch = count / statistics.median(two[one.name].batch_s)
        lines.append(f"| {one.name} | {one.accuracy:.4f} | {statistics.median(one.padded_ms):.2f} | "
                     f"{1e3 * statistics.median(one.texts_s) / count:.2f} | {batch:.0f} |")  # fmt: skip
    lines += ["", *asked({one.name: one for one in alone}, two), ""]
    return "\n".join([*lines, ", ".join(f"{name} {version}" for name, version in packages.items()) + ".", ""])


def asked(alone: Mapping[str, Contender], pair: Mapping[str, Contender]) -> list[str]:
    """What the project asks of itself, and what came of it: the ratio, and its least and greatest round."""
    rows = [
        ("int8, 128 tokens, to ONNX Runtime's int8", "<= 0.45", "litert int8", ("onnxruntime int8",), "padded_ms", alone),
        ("int8, 128 tokens, to the faster of OpenVINO's", "<= 0.80", "litert int8", SMALL[:2], "padded_ms", alone),
        ("int8, texts, to the fastest", "<= 0.80", "litert int8", SMALL, "texts_s", alone),
        ("float32, 128 tokens, to the fastest", "<= 1.00", "litert float32", FLOAT, "padded_ms", alone),
        ("int8, batch on two threads, time to the fastest", "<= 0.91", "litert int8", SMALL, "batch_s", pair),
    ]  # fmt: skip
    lines = ["| ratio of times | asked | measured (least to greatest round) | to |", "|---|---|---|---|"]
    for said, goal, own, others, figure, named in rows:
        if own in named and (other := fastest(named, others, figure)):
            middle, least, most = ratio(getattr(named[own], figure), getattr(other, figure))
            lines.append(f"| {said} | {goal} | {middle:.2f} ({least:.2f} to {most:.2f}) | {other.name} |")
    return lines


def versions(python: Path, *theirs: str, own: Sequence[str]) -> dict[str, str]:
    """Package -> version of what was measured: `own` are this Python's packages, `theirs` those of `python`."""
    code = f"from importlib.metadata import version as v; import json; print(json.dumps({{n: v(n) for n in {theirs}}}))"
    told = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True).stdout
    return versions_of(own) | json.loads(told)


if __name__ == "__main__":
    main()
