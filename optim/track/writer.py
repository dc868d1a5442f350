"""The process that writes to W&B what `track/sender` tells it."""

from __future__ import annotations

import itertools
import json
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, TextIO

from optim.common.interrupts import TERMINATED
from optim.track.sender import one_line, warn

KILLED = 128 + 9  # SIGKILL by its number: Windows has no name for it
BUNDLE, CHANGED = "bundle", "changed.jsonl"  # in a run's folder
CHANGED_ROWS = 1000  # of changed.jsonl that go into a table
CURVES = {"loss": "min", "holdout_loss": "min", "holdout_accuracy_fraction": "max"}  # what a curve comes to
TOP = {  # figure that a W&B sweep may aim at -> the part of the result that has it
    "accuracy_fraction": "quality",
    "file_bytes": "size",
    "latency_p50_ms": "speed",
    "peak_rss_bytes": "memory",
}
UPLOAD_SHARE = 0.8  # of finish_timeout_s: wandb gives up first and closes its file, only then is its process killed


def write_to_wandb() -> None:
    """Reads messages from stdin until "close", or until the run's process is gone, and does what they say.

    The first failure is one line on stderr and the end of tracking. Nothing else is printed, by wandb neither.
    """
    for number in (signal.SIGINT, signal.SIGTERM):  # a scheduler sends them to every process: the run answers for all
        signal.signal(number, signal.SIG_IGN)
    messages, stderr = private_streams()
    try:
        _write(messages, lambda text: warn(text, stderr))
    except Exception as error:
        warn(f"tracking stops: {one_line(error)}", stderr)
    os._exit(0)  # not through wandb's exit hooks, which wait for a helper that may hang


def private_streams() -> tuple[TextIO, TextIO]:
    """(stdin, stderr) for us alone: wandb and its helper get the null device for all three."""
    ours = (os.fdopen(os.dup(0), encoding="utf-8"), os.fdopen(os.dup(2), "w", encoding="utf-8"))
    null = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(null, stream)
    return ours


def _write(lines: Iterable[str], say: Callable[[str], None]) -> None:
    """The whole life of one W&B run. That the run's process is gone without "close" is an exit code too."""
    messages = (json.loads(line) for line in lines if line.endswith("\n"))  # a killed run may leave half a line
    opening = next(messages, None)
    if opening is None:
        return
    wandb = load_wandb(opening["mode"])
    run = _open(wandb, opening, say)
    wandb.Table(columns=[])  # its first one imports pandas: now, while the run has other work, not when it ends
    exit_code, stopped = _log_until_close(wandb, run, opening, messages, say)
    try:
        if exit_code == TERMINATED:
            run.mark_preempting()
        run.finish(exit_code=exit_code)
        wandb.teardown()
    except TimeoutError:
        say(f"upload not finished in time. Upload later: wandb sync {Path(run.dir).parent}")
    except Exception:
        if not stopped:
            raise


def _log_until_close(
    wandb: ModuleType,
    run: Any,
    opening: dict[str, Any],
    messages: Iterator[dict[str, Any]],
    say: Callable[[str], None],
) -> tuple[int, bool]:
    """(exit code of the run, whether W&B failed). After a failure nothing more is logged, only waited for the code."""
    stopped = False
    for message in messages:
        if message["kind"] == "close":
            return message["exit_code"], stopped
        if stopped:
            continue
        try:
            _ACTIONS[message["kind"]](wandb, run, opening, message)
        except Exception as error:
            stopped = True
            say(f"tracking stops: {one_line(error)}")
    return KILLED, stopped


def load_wandb(mode: str) -> ModuleType:
    """The package. Offline it reports no crashes to its makers either."""
    if mode == "offline":
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    import wandb

    return wandb


def _open(wandb: ModuleType, opening: dict[str, Any], say: Callable[[str], None]) -> Any:
    """An open W&B run: the one asked for, or an offline one where the server can't be had in time."""
    folder = Path(opening["dir"])
    folder.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault(
        "WANDB_DATA_DIR", str(folder / "wandb")
    )  # of tables, until they are uploaded: not in the home
    if not os.access(folder, os.W_OK):  # wandb would quietly write to the temporary folder
        raise PermissionError(f"track.dir={folder} can't be written to.")
    try:
        return _init(wandb, opening, opening["mode"])
    except Exception as error:
        if opening["mode"] == "offline":
            raise
        wandb.teardown()  # its helper still holds the id
        run = _init(wandb, opening, "offline")
        say(f"offline, since online failed: {one_line(error)} Upload later: wandb sync {Path(run.dir).parent}")
        return run


def _init(wandb: ModuleType, opening: dict[str, Any], mode: str) -> Any:
    """wandb.init: silent, no console, the content hash as the id, the machine's load as the run's process makes it."""
    settings = wandb.Settings(
        silent=True,
        console="off",
        save_code=False,  # git's commit is written down, changes on top of it are not
        x_stats_pid=opening["pid"],
        x_stats_track_process_tree=True,
        init_timeout=opening["init_timeout_s"],
        finish_timeout=UPLOAD_SHARE * opening["finish_timeout_s"],
        finish_timeout_raises=True,
    )
    return wandb.init(
        mode=mode,
        **{key: opening[key] for key in ("project", "entity", "dir", "group", "tags", "name", "job_type", "config")},
        id=opening["run_id"],
        resume="allow",
        allow_val_change=True,  # the same point once more: its id is the same, paths in its config may not be
        settings=settings,
    )


def _curve(wandb: ModuleType, run: Any, opening: dict[str, Any], message: dict[str, Any]) -> None:
    """Logs one row under `stage/`, over that stage's own steps: W&B's global step can't go back for a second stage."""
    stage = message["stage"]
    if stage not in opening.setdefault("stages", []):
        opening["stages"].append(stage)
        run.define_metric(f"{stage}/step", summary="none")
        run.define_metric(f"{stage}/*", step_metric=f"{stage}/step", summary="none")
        for figure, best in CURVES.items():
            run.define_metric(f"{stage}/{figure}", step_metric=f"{stage}/step", summary=best)
    run.log({f"{stage}/{name}": value for name, value in message["row"].items()})


def _record(wandb: ModuleType, run: Any, opening: dict[str, Any], message: dict[str, Any]) -> None:
    """Sets the summary to the result, nested as it is; what it was asked for stands in the config already."""
    result, folder = message["result"], message["folder"] and Path(message["folder"])
    _log_top(run, result)
    run.summary.update({key: value for key, value in result.items() if key not in ("cfg", "choices")})
    for name, rows in (("classes", result.get("quality", {}).get("classes")), ("changed", changed_rows(folder))):
        if rows:
            columns = list(rows[0])
            run.log({f"tables/{name}": wandb.Table(columns=columns, data=[[row[c] for c in columns] for row in rows])})
    if folder and opening["artifact"]:
        made = wandb.Artifact(opening["model"], type="model", metadata={"run_id": run.id})
        for path in sorted((folder / BUNDLE).iterdir()):
            made.add_file(str(path), name=path.name, policy="immutable")  # no copy in the home folder
        run.log_artifact(made, aliases=["latest", *opening["aliases"]])


def _log_top(run: Any, result: dict[str, Any]) -> None:
    """Logs the figures that a W&B sweep aims at under a plain name: its search reads the history, not nested keys."""
    found = {name: result.get(part, {}).get(name) for name, part in TOP.items()}
    if found := {name: value for name, value in found.items() if value is not None}:
        run.log(found)


def changed_rows(folder: Path | None) -> list[dict[str, Any]]:
    """The sentences on which file and teacher differ, the first CHANGED_ROWS of them."""
    try:
        with open(folder / CHANGED, encoding="utf-8") as lines:  # type: ignore[operator]
            return [json.loads(line) for line in itertools.islice(lines, CHANGED_ROWS)]
    except (OSError, TypeError):  # no folder, or a result of before there was the file
        return []


_ACTIONS = {"curve": _curve, "record": _record}
