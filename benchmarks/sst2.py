"""Figures of docs/figures.md, measured: MiniLM on SST-2, two cores, through train.py. About an hour, most of it the teacher.

python benchmarks/sst2.py --data DIR     DIR holds GLUE's own train.tsv and dev.tsv

Writes benchmarks/SST2.md from the result.json of each run, beside what the project asks of itself. Finished stages
are taken from the cache, so a second call only prints; --again measures the finished files anew.
"""

# ruff: noqa: E501
from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from kept import train

ROOT = Path(__file__).parent.parent
POINTS = {
    "teacher, float32": ["prune=none", "quant=none"],
    "teacher, int8": ["prune=none", "quant=int8"],
    "fixed50, float32": ["prune=fixed50", "quant=none"],
    "fixed50, fp16": ["prune=fixed50", "quant=fp16"],
    "fixed50, int8": ["prune=fixed50", "quant=int8"],
    "fixed50, int8_static": ["prune=fixed50", "quant=int8_static"],
}


def main() -> None:
    """Runs every point and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder with train.tsv and dev.tsv")
    parser.add_argument("--results", default="results")
    parser.add_argument("--cache", default=None, help="cache_dir of train.py")
    parser.add_argument("--again", action="store_true", help="measure the finished files anew")
    args = parser.parse_args()
    shared = [
        "model=minilm",
        "data=sst2",
        f"data.path={args.data}",
        "distill.temperature=2",
        f"results_dir={args.results}",
    ]
    shared += [f"cache_dir={args.cache}"] if args.cache else []
    results = {name: run([*shared, *point], again=args.again) for name, point in POINTS.items()}
    quick = [command_s(["train.py", "--help"]), command_s(["train.py", "prune=fixed51"])]
    second = command_s(["train.py", *shared, *POINTS["fixed50, int8"]])
    (ROOT / "benchmarks" / "SST2.md").write_text(report(results, quick, second), encoding="utf-8")


def run(overrides: list[str], *, again: bool = False) -> dict[str, Any]:
    """result.json of one point; the run prints its own table."""
    print("train.py", *overrides, flush=True)
    done = printed(overrides)
    folder = next(
        Path(line.strip()).parent for line in done.stdout.splitlines() if line.strip().endswith("result.json")
    )
    if again and "Done before" in done.stderr:
        forget_figures(ROOT / folder / "result.json")
        printed(overrides)
    return json.loads((ROOT / folder / "result.json").read_text(encoding="utf-8"))


def forget_figures(path: Path) -> None:
    """Takes a result away, and from the cache what its file was measured to do."""
    found = json.loads(path.read_text(encoding="utf-8"))
    for key in found["cost"]["stages"]:
        if key.startswith("figures-"):
            stages = ROOT / Path(found["cfg"]["cache_dir"]).expanduser() / "stages"
            shutil.rmtree(stages / key, ignore_errors=True)
    path.unlink()


def printed(overrides: list[str]) -> subprocess.CompletedProcess[str]:
    """A run of train.py; its failure ends the benchmark."""
    done = train(overrides, captured=True)
    if done.returncode:
        sys.exit(f"train.py {' '.join(overrides)} failed:\n{done.stderr[-2000:]}")
    print(done.stdout, flush=True)
    return done


def command_s(arguments: list[str]) -> float:
    """The median wall time of five calls."""
    times = []
    for _ in range(5):
        start = time.perf_counter()
        subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def report(results: dict[str, dict[str, Any]], quick: list[float], second: float) -> str:
    """SST2.md."""
    require_one_machine((r["machine"] for r in results.values()), "Time all of them here with --again.")
    machine = results["fixed50, int8"]["machine"]
    head = "| point | accuracy (95 %) | MB | gzip MB | p50 ms at 128 | vs float32 | at median | agrees | peak MB |"
    lines = [
        "# MiniLM-L6 on SST-2", "",
        "Written by `python benchmarks/sst2.py`; every figure is that of the `.tflite` file, on all 872 dev sentences.", "",
        f"{timed_on(machine)}, seed 0.", "",
        head, "|" + "---|" * 9, *(row(name, result) for name, result in results.items()), "",
        "| asked for | measured |", "|---|---|", *(f"| {a} | {m} |" for a, m in asked(results, quick, second)), "",
    ]  # fmt: skip
    return "\n".join(lines)


def require_one_machine(machines: Iterable[Mapping[str, Any]], way_out: str) -> None:
    """Ends the benchmark where milliseconds of several machines would stand in one column."""
    found = {machine["id"]: machine["cpu"] for machine in machines}
    if len(found) > 1:
        told = ", ".join(f"{key} ({cpu})" for key, cpu in found.items())
        sys.exit(f"Error: the results were timed on several machines: {told}. {way_out}")


def timed_on(machine: Mapping[str, Any], threads: int = 1) -> str:
    """The machine of a result, and how files are timed on it."""
    many = "one thread" if threads == 1 else f"{threads} threads"
    return f"{machine['cpu']}, {machine['cores']} cores, ISA {', '.join(machine['isa'])}; {many}, batch 1"


def row(name: str, result: dict[str, Any]) -> str:
    """One line of the table."""
    q, s, v, m = result["quality"], result["size"], result["speed"], result["memory"]
    return (
        f"| {name} | {q['accuracy_fraction']:.4f} ({q['ci95_low']:.3f}-{q['ci95_high']:.3f}) | {s['file_bytes'] / 1e6:.1f} "
        f"| {s['gzip_bytes'] / 1e6:.1f} | {v['latency_p50_ms']:.1f} | {v['speedup_vs_float32']:.2f}x "
        f"| {v['median_length_latency_p50_ms']:.2f} ms at {v['median_length']} | {q['agreement_fraction']:.4f} "
        f"| {m['peak_rss_bytes'] / 1e6:.0f} |"
    )


def asked(results: dict[str, dict[str, Any]], quick: list[float], second: float) -> list[tuple[str, str]]:
    """What the project asks of itself, and what came of it."""
    int8, float32 = results["fixed50, int8"], results["fixed50, float32"]
    q, machine = int8["quality"], int8["machine"]
    vnni = any("vnni" in flag for flag in machine["isa"])
    stages = ROOT / Path(int8["cfg"]["cache_dir"]).expanduser() / "stages"
    fits = {key.split("-")[0]: stages / key / "fit.json" for key in int8["cost"]["stages"]}
    rates = {kind: json.loads(p.read_text())["steps_per_second"] for kind, p in fits.items() if p.is_file()}
    return [
        ("teacher >= 0.900", f"{q['teacher_accuracy_fraction']:.4f}"),
        ("fixed50 int8 T=2 within 0.010 of the teacher", f"{q['accuracy_fraction'] - q['teacher_accuracy_fraction']:+.4f}"),
        ("its file <= 23.5 MB", f"{int8['size']['file_bytes'] / 1e6:.2f} MB"),
        ("all 872 scored", str(q["examples"])),
        ("int8 >= 4x faster than float32 at 128 where the CPU has VNNI",
         f"{int8['speed']['speedup_vs_float32']:.2f}x; this CPU has {'VNNI' if vnni else 'no VNNI'}"),
        ("float32 file agrees with Keras >= 0.999", f"{float32['quality']['agreement_fraction']:.4f}"),
        ("--help and a wrong option <= 1.5 s", ", ".join(f"{s:.2f} s" for s in quick)),
        ("the same command again <= 3 s", f"{second:.2f} s"),
        ("training >= 2 steps/s of batch 64 (median of the last epoch)",
         ", ".join(f"{name} {rate:.2f}" for name, rate in rates.items()) or "see train.log"),
    ]  # fmt: skip


if __name__ == "__main__":
    main()
