"""The figures that the project asks of its sweeps, measured through train.py and sweep.py. Hours if all are asked for.

python benchmarks/sweep.py points alone --work DIR     the 27 points on `reviews`; three of them by themselves
python benchmarks/sweep.py kill search report --work DIR --recorded RESULTS_DIR
python benchmarks/sweep.py paper --work DIR --data SST-2

Each part writes DIR/<part>.json, and benchmarks/SWEEP.md is made of those that are there.
"""

# ruff: noqa: E501
from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
SHARED = ["model=minilm", "data=reviews", "fit=quick", "track=none"]
GRID = ["prune=none,fixed50,poly80", "quant=none,fp16,int8", "distill.temperature=1,2,4"]
ALONE = [["prune=none", "quant=int8"], ["prune=fixed50", "quant=none"], ["prune=poly80", "quant=fp16"]]
TINY = ["prune=none,fixed50", "quant=none,int8,int8_static", "distill.temperature=1,2"]
Figures = dict[str, Any]
EARLIER = "What was measured before the present layout: [SWEEP_EARLIER.md](SWEEP_EARLIER.md).\n"


def main() -> None:
    """Measures the parts that are asked for, then writes what there is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help=", ".join(PARTS))
    parser.add_argument("--work", required=True, type=Path, help="folder for caches, results and figures")
    parser.add_argument("--data", type=Path, help="folder with GLUE's train.tsv and dev.tsv, for paper")
    parser.add_argument("--streams", type=int, default=1, help="sweeps at once, for kill")
    parser.add_argument("--minutes", type=float, default=60, help="for paper")
    parser.add_argument("--recorded", type=Path, help="results_dir of finished points, for search and report")
    args = parser.parse_args()
    if unknown := sorted(set(args.parts) - set(PARTS)):
        parser.error(f"no such part: {', '.join(unknown)}. They are {', '.join(PARTS)}.")
    if {"search", "report"} & set(args.parts) and not (args.recorded and any(args.recorded.glob("*/result.json"))):
        parser.error("search and report need --recorded RESULTS_DIR, a folder with finished points.")
    if "paper" in args.parts and not args.data:
        parser.error("paper needs --data DIR, a folder with train.tsv and dev.tsv.")
    args.work.mkdir(parents=True, exist_ok=True)
    for part in args.parts:
        figures = {**PARTS[part](args), "on": machine_text()}
        print(part, json.dumps(figures, indent=2), flush=True)
        (args.work / f"{part}.json").write_text(json.dumps(figures, indent=2) + "\n")
    found = {
        part: json.loads((args.work / f"{part}.json").read_text())
        for part in PARTS
        if (args.work / f"{part}.json").is_file()
    }
    (ROOT / "benchmarks" / "SWEEP.md").write_text(written(found), encoding="utf-8")


def call(words: list[str], **more: Any) -> tuple[float, subprocess.CompletedProcess[str]]:
    """(seconds, finished process) of a program of this project."""
    start = time.perf_counter()
    done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, **more)
    return time.perf_counter() - start, done


def checked(words: list[str]) -> tuple[float, str]:
    """(seconds, output); a failure ends the benchmark."""
    seconds, done = call(words)
    if done.returncode:
        sys.exit(f"{' '.join(words)} failed:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return seconds, done.stdout


def folders(work: Path) -> list[str]:
    """Where a run of this benchmark puts things."""
    return [f"results_dir={work / 'results'}", f"cache_dir={work / 'cache'}"]


# 27 points


def points(args: argparse.Namespace) -> Figures:
    """The sweep, into an empty folder."""
    work = args.work / "points"
    shutil.rmtree(work, ignore_errors=True)
    wall_s, _ = checked(["train.py", "-m", *SHARED, *GRID, *folders(work)])
    kinds = {
        kind: len(list((work / "cache" / "stages").glob(f"{kind}-*/stage.json")))
        for kind in ("teacher", "student", "file")
    }
    results = [json.loads(p.read_text()) for p in (work / "results").glob("*/result.json")]
    stages = {key: s for r in results for key, s in r["cost"]["stages"].items()}
    apart_s = sum(s for r in results for s in r["cost"]["stages"].values())
    return {"wall_s": wall_s, "stages_s": sum(stages.values()), "apart_s": apart_s, "stages": len(stages), **kinds,
            "points": len(results)}  # fmt: skip


def again(args: argparse.Namespace) -> Figures:
    """The finished sweep once more, and all its points served from the cache into an empty results_dir."""
    work = args.work / "points"
    words = ["train.py", "-m", *SHARED, *GRID, *folders(work)]
    second_s = statistics.median(checked(words)[0] for _ in range(3))
    traced = subprocess.run(
        [sys.executable, "-X", "importtime", *words], cwd=ROOT, capture_output=True, text=True
    ).stderr
    shutil.rmtree(work / "served", ignore_errors=True)
    served_s, _ = checked(
        ["train.py", "-m", *SHARED, *GRID, f"results_dir={work / 'served'}", f"cache_dir={work / 'cache'}"]
    )
    count = len(list((work / "served").glob("*/result.json")))
    shutil.rmtree(work / "served")
    modules = {line.split("|")[-1].strip() for line in traced.splitlines()}
    return {"second_s": second_s, "imports_tensorflow": "tensorflow" in modules, "served_s": served_s, "points": count}


def alone(args: argparse.Namespace) -> Figures:
    """Three points, each with an empty cache."""
    times = []
    for chosen in ALONE:
        work = args.work / "alone"
        shutil.rmtree(work, ignore_errors=True)
        times.append(checked(["train.py", *SHARED, *chosen, "distill.temperature=2", *folders(work)])[0])
    return {"times_s": times, "scaled_s": 27 * statistics.mean(times)}


# Killed at random moments


def kill(args: argparse.Namespace, *, times: int = 20, seed: int = 0) -> Figures:
    """12-point sweeps of tiny models: any process of each is killed at a random moment, then the same command runs.

    `--streams` of them go on at once; how long one takes is measured under that load.
    """
    with ThreadPoolExecutor(args.streams) as pool:
        whole_s = max(pool.map(lambda i: whole(args.work / f"whole{i}"), range(args.streams)))
        rows = list(pool.map(lambda i: struck(args.work / f"kill{i}", whole_s, random.Random(seed * times + i)),
                             range(times)))  # fmt: skip
    sound = [r for r in rows if r["finished"] == 12 and not r["made_twice"] and r["rc"] == 0]
    return {"times": times, "whole": len(sound), "whole_s": whole_s, "rows": rows}


def whole(folder: Path) -> float:
    """Seconds of the sweep that nobody disturbs."""
    from conftest import Runs

    seconds, _ = checked(["train.py", "-m", *TINY, *Runs(folder).overrides()])
    shutil.rmtree(folder)
    return seconds


def struck(folder: Path, whole_s: float, rng: random.Random) -> Figures:
    """One sweep that is killed and called again: what was finished in the end, and what was made although it was there."""
    from conftest import Runs

    victim = None
    while victim is None:  # it had ended before: that tells nothing, so it is run anew
        shutil.rmtree(folder, ignore_errors=True)
        runs = Runs(folder)
        words = ["train.py", "-m", *TINY, *runs.overrides()]
        victim = killed(words, rng.uniform(1.0, whole_s), rng)
    before = stamps(folder)
    _, done = call(words)
    after = stamps(folder)
    finished = sum(json.loads(p.read_text())["status"] == "done" for p in runs.results.glob("*/result.json"))
    again = [name for name, stamp in before.items() if after.get(name) != stamp]
    row = {
        "victim": victim,
        "finished": finished,
        "made_twice": again,
        "rc": done.returncode,
        "done_before": len(before),
    }
    print(folder.name, row, flush=True)
    shutil.rmtree(folder)
    return row


def killed(words: list[str], after_s: float, rng: random.Random) -> str | None:
    """Starts the command, kills one of its processes after a while, and waits for the rest; says which was killed.

    None where it had ended before. A process that has ended and was not waited for takes a signal without an error.
    """
    sweep = subprocess.Popen([sys.executable, *words], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(after_s)
    if sweep.poll() is not None:
        return None
    family = descendants(sweep.pid)
    chosen = rng.choice(family)
    victim = "the sweep" if chosen == sweep.pid else "a process below it"
    try:
        os.kill(chosen, signal.SIGKILL)
    except ProcessLookupError:  # it has just ended; the sweep has not
        os.kill(sweep.pid, signal.SIGKILL)
        victim = "the sweep"
    sweep.wait()
    until = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in family) and time.monotonic() < until:
        time.sleep(0.1)
    return f"{victim}, after {after_s:.1f} s"


def descendants(pid: int) -> list[int]:
    """The process and all below it."""
    found = [pid]
    for parent in found:
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            with suppress(OSError):  # it has just ended
                found += [int(child) for child in task.read_text().split()]
    return found


def stamps(folder: Path) -> dict[str, int]:
    """When each finished stage and each finished result was written."""
    kept = {str(p): p.stat().st_mtime_ns for p in folder.glob("cache/stages/*/stage.json")}
    for path in folder.glob("results/*/result.json"):
        if json.loads(path.read_text())["status"] == "done":
            kept[str(path)] = path.stat().st_mtime_ns
    return kept


# Search and report, on recorded points


def search(args: argparse.Namespace, *, trials: int = 30, seeds: int = 10) -> Figures:
    """The search against draws at random, both answered from recorded points of the space in conf/sweep/search.yaml."""
    import numpy as np
    from omegaconf import OmegaConf

    from optim.report import finished
    from optim.sweep.search import Answer, Search, hypervolume, losses, read_journal, study_in_memory
    from optim.sweep.verbs import flat, point_values

    space = flat(OmegaConf.to_container(OmegaConf.load(ROOT / "conf/sweep/search.yaml").space))  # type: ignore[arg-type]
    table = {}
    for p in finished.read_all([args.recorded])[0]:
        choice = [p.result.choices["prune"], p.result.choices["quant"], p.result.cfg["distill"]["temperature"]]
        for t in space["distill.temperature"] if choice[0] == "none" else choice[2:]:
            table[choice[0], choice[1], t] = (
                p.result.run_id if choice[0] != "none" else f"none-{choice[1]}",
                point_values(p),
            )
    space = {
        key: [o for o in options if any(o == k[i] for k in table)] for i, (key, options) in enumerate(space.items())
    }
    distinct = dict(table.values())
    everything = losses(list(distinct.values()))
    low, high = everything.min(axis=0), everything.max(axis=0)

    def found(sampler: str, seed: int) -> float:
        going = Search(study_in_memory(sampler=sampler, seed=seed), space, seed=seed,
                       identify=lambda c: table[tuple(c.values())][0],
                       answer=lambda c: Answer(table[tuple(c.values())][1], {}))  # fmt: skip
        while len(going.known()) < trials and going.step() is not None:
            pass
        return hypervolume(losses(read_journal(going.study)), low, high)

    def drawn(seed: int) -> float:
        chosen = np.random.default_rng(seed).choice(len(everything), min(trials, len(everything)), replace=False)
        return hypervolume(everything[chosen], low, high)

    rows = {sampler: [found(sampler, seed) for seed in range(seeds)] for sampler in ("tpe", "nsga2", "random")}
    return {"points": len(distinct), "trials": trials, "drawn": [drawn(s) for s in range(seeds)],
            "best": hypervolume(everything, low, high), **rows}  # fmt: skip


def report(args: argparse.Namespace, *, count: int = 500) -> Figures:
    """A report of many points: recorded ones, copied under other seeds until there are enough."""
    source, work = sorted(args.recorded.glob("*/result.json")), args.work / "report"
    shutil.rmtree(work, ignore_errors=True)
    for number in range(count):
        path = source[number % len(source)]
        copy = json.loads(path.read_text())
        copy |= {"run_id": f"{number:016x}", "seed": number // len(source)}
        copy["cfg"]["seed"] = copy["seed"]
        folder = work / "points" / copy["run_id"]
        folder.mkdir(parents=True)
        (folder / "result.json").write_text(json.dumps(copy))
        if (answers := path.with_name("answers.npz")).is_file():
            shutil.copy(answers, folder)
    from optim.report import page, write

    start = time.perf_counter()
    write.write(work, [work / "points"])
    built_s, opened = time.perf_counter() - start, work / page.PAGE
    return {"points": count, "built_s": built_s, "bytes": opened.stat().st_size, "opened_s": opened_s(opened)}


def opened_s(page: Path, times: int = 5) -> float | None:
    """Median seconds from the start of a fresh headless Chromium until it has drawn the page; None without one."""
    from browser import CHROMIUM, opened

    def once() -> float:
        start = time.perf_counter()
        with opened(page):
            return time.perf_counter() - start

    return statistics.median(once() for _ in range(times)) if CHROMIUM else None


# The paper's grid on SST-2, for as long as there is


def paper(args: argparse.Namespace) -> Figures:
    """`sweep=paper` until its time is up, then Ctrl-C, then the comparison of what there is."""
    words = [f"data.path={args.data}", "model=minilm", "data=sst2", "track=none", *folders(args.work / "paper")]
    sweep = subprocess.Popen([sys.executable, "sweep.py", "sweep=paper", *words], cwd=ROOT, start_new_session=True,
                             preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))  # fmt: skip
    start = time.perf_counter()
    try:
        sweep.wait(60 * args.minutes)
    except subprocess.TimeoutExpired:
        os.killpg(sweep.pid, signal.SIGINT)
    asked = time.perf_counter()
    sweep.wait()
    stopped_s = time.perf_counter() - asked
    checked(["sweep.py", "sweep=report", "track=none", f"results_dir={args.work / 'paper' / 'results'}"])
    folder = args.work / "paper" / "results"
    done = [json.loads(path.read_text())["status"] for path in folder.glob("*/result.json")]
    headline = (folder / "report" / "report.md").read_text().splitlines()[0].strip("*")
    return {"minutes": (asked - start) / 60, "points": done.count("done"), "stopped_s": stopped_s, "headline": headline}


PARTS = {"points": points, "again": again, "alone": alone, "kill": kill, "search": search, "report": report,
         "paper": paper}  # fmt: skip


def machine_text() -> str:
    """This machine in a line."""
    from optim.measure.device import machine
    from optim.report.timing import machine_line

    return machine_line(machine())


def written(found: dict[str, Figures]) -> str:
    """SWEEP.md: a table for each machine that figures were measured on."""
    rows = ["# Sweeps", "", "Written by `python benchmarks/sweep.py`.", ""]
    for on in dict.fromkeys(figures.get("on", "A machine that was not noted") for figures in found.values()):
        own = {part: f for part, f in found.items() if f.get("on", "A machine that was not noted") == on}
        rows += [f"{on}.", "", "| asked for | measured |", "|---|---|"]
        rows += [f"| {asked} | {told} |" for part, f in own.items() for asked, told in TOLD[part](f, own)]
        rows += [""]
    return "\n".join([*rows, EARLIER])


def _points_told(f: Figures, found: dict[str, Figures]) -> list[tuple[str, str]]:
    rows = [
        (
            "27 points on `reviews`, `fit=quick`: 1 teacher, 6 students, 21 files",
            f"{f['teacher']} teacher, {f['student']} students, {f['file']} files; {f['points']} results",
        ),
        (
            "wall time at most 1.15x the sum of its stages",
            f"{f['wall_s'] / f['stages_s']:.3f}x ({f['wall_s']:.0f} s against {f['stages_s']:.0f} s, {f['stages']} stages)",
        ),
    ]
    if "alone" in found:
        rows.append(
            (
                "each point alone with an empty cache at least 6x slower",
                f"{found['alone']['scaled_s'] / f['wall_s']:.1f}x ({', '.join(f'{t:.0f}' for t in found['alone']['times_s'])} s for three points, scaled to 27); {f['apart_s'] / f['wall_s']:.1f}x by the stages' own times",
            )
        )
    return rows


def _again_told(f: Figures, found: dict[str, Figures]) -> list[tuple[str, str]]:
    return [
        (
            "second call at most 5 s, no TensorFlow",
            f"{f['second_s']:.2f} s, TensorFlow {'imported' if f['imports_tensorflow'] else 'not imported'}",
        ),
        (
            "overhead of a point served from the cache at most 1 s",
            f"{(f['served_s'] - f['second_s']) / f['points']:.2f} s",
        ),
    ]


def _search_told(f: Figures, found: dict[str, Figures]) -> list[tuple[str, str]]:
    """`drawn` are distinct points at random; the random sampler draws combinations, so prune=none three times as often."""
    rows = []
    for sampler in ("tpe", "nsga2"):
        for name, others in (("random draws of distinct points", f["drawn"]), ("the random sampler", f["random"])):
            wins = sum(a > b for a, b in zip(f[sampler], others, strict=True))
            rows.append((f"search `{sampler}`, {f['trials']} trials of {f['points']} recorded points, against {name}: above in 8 of 10",
                         f"above in {wins} of {len(others)}; hypervolume {statistics.mean(f[sampler]):.4f} against {statistics.mean(others):.4f}, of {f['best']:.4f}"))  # fmt: skip
    return rows


def _seconds(value: float | None) -> str:
    return "not looked at (no Chromium)" if value is None else f"{value:.2f} s"


TOLD: dict[str, Any] = {
    "points": _points_told,
    "again": _again_told,
    "alone": lambda f, found: [],
    "kill": lambda f, found: [
        (
            "kill -9 at 20 random moments of a 12-point sweep: whole after the same command, nothing made twice",
            f"{f['whole']} of {f['times']}",
        )
    ],
    "search": _search_told,
    "report": lambda f, found: [
        (
            f"report of {f['points']} points: built in 5 s, opens in 2 s, at most 8 MB",
            f"{f['built_s']:.1f} s, {_seconds(f['opened_s'])}, {f['bytes'] / 1e6:.2f} MB",
        )
    ],
    "paper": lambda f, found: [
        (
            f"SST-2, `sweep=paper`, {f['minutes']:.0f} minutes, then Ctrl-C: stops in 5 s, loses nothing",
            f"{f['points']} points done, stopped in {f['stopped_s']:.1f} s. {f['headline']}",
        )
    ],
}


if __name__ == "__main__":
    main()
