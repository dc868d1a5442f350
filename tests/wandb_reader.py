"""Reads a W&B offline file: LevelDB's log frames, each holding a piece of one protobuf `Record`.

File: 7 bytes of header (":W&B", two bytes, version), then blocks of 32 KiB counted from the start of the file. A frame
is crc32 (uint32), length (uint16), kind (1 whole, 2 first, 3 middle, 4 last), payload. It never spans a block.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BLOCK_BYTES = 32768
FRAME = struct.Struct("<IHB")


@dataclass
class OfflineRun:
    """What wandb wrote down for one run. `exit_code` is None where the run was never closed."""

    run_id: str = ""
    project: str = ""
    group: str = ""
    name: str = ""
    job_type: str = ""
    tags: list[str] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    step_metrics: dict[str, str] = field(default_factory=dict)
    summaries: dict[str, str] = field(default_factory=dict)  # metric -> what its curve comes to: min, max or none
    artifacts: dict[str, dict[str, str]] = field(default_factory=dict)  # of type model: name -> path inside -> on disk
    aliases: dict[str, set[str]] = field(default_factory=dict)  # name of one of those -> what it is asked for by
    git_commit: str = ""
    system: set[str] = field(default_factory=set)  # names of the machine's figures
    preempting: bool = False
    exit_code: int | None = None

    def curve(self, stage: str) -> list[dict[str, Any]]:
        """The rows of one stage, without its name and without wandb's own columns."""
        rows = ({k.split("/", 1)[1]: v for k, v in row.items() if k.startswith(f"{stage}/")} for row in self.rows)
        return [row for row in rows if row]

    def figures(self) -> dict[str, Any]:
        """The summary as the run set it: without wandb's own entries, what curves come to, and tables."""
        return {key: value for key, value in self.summary.items() if not key.startswith("_") and "/" not in key}

    def table(self, path: Path, name: str) -> list[dict[str, Any]]:
        """The rows of a logged table, of the run whose file is `path`."""
        (file,) = (row[name]["path"] for row in self.rows if name in row)
        found = json.loads((path.parent / "files" / file).read_text(encoding="utf-8"))
        return [dict(zip(found["columns"], row, strict=True)) for row in found["data"]]


def find(folder: Path, run_id: str) -> list[Path]:
    """The files of a run below `folder`, oldest first."""
    return sorted(folder.glob(f"wandb/*run-*-{run_id}/run-{run_id}.wandb"))


def read(path: Path) -> OfflineRun:
    """The run in `path`, as far as it is on disk."""
    run = OfflineRun()
    for record in records(path):
        kind = record.WhichOneof("record_type")
        if kind == "request":
            kind = record.request.WhichOneof("request_type")
        if kind in _TAKE:
            _TAKE[kind](run, record)
    return run


def records(path: Path) -> Iterator[Any]:
    """Every whole Record. A file cut short ends the sequence; a wrong checksum is an error."""
    from wandb.proto import wandb_internal_pb2

    for payload in _payloads(path.read_bytes()):
        record = wandb_internal_pb2.Record()  # type: ignore[attr-defined]
        record.ParseFromString(payload)
        yield record


def _payloads(data: bytes) -> Iterator[bytes]:
    if data[:4] != b":W&B":
        raise ValueError(f"not a W&B file: starts with {data[:4]!r}")
    at, payload = 7, b""
    while at + FRAME.size <= len(data):
        left = BLOCK_BYTES - at % BLOCK_BYTES
        if left < FRAME.size:
            at += left
            continue
        checksum, length, kind = FRAME.unpack_from(data, at)
        piece = data[at + FRAME.size : at + FRAME.size + length]
        at += FRAME.size + length
        if kind == 0 or len(piece) < length:
            return
        if zlib.crc32(piece, zlib.crc32(bytes([kind]))) != checksum:
            raise ValueError(f"wrong checksum before byte {at}")
        payload = piece if kind in (1, 2) else payload + piece
        if kind in (1, 4):
            yield payload


def _put(items: Any, into: dict[str, Any]) -> None:
    """Sets each item at its place: a plain key, or a path of nested keys."""
    for item in items:
        *parents, last = item.nested_key or [item.key]
        place = into
        for key in parents:
            place = place.setdefault(key, {})
        place[last] = json.loads(item.value_json)


def _take_run(run: OfflineRun, record: Any) -> None:
    run.run_id, run.project, run.group = (record.run.run_id, record.run.project, record.run.run_group)
    run.name, run.job_type = record.run.display_name, record.run.job_type
    run.tags = list(record.run.tags)
    _put(record.run.config.update, run.config)


def _take_history(run: OfflineRun, record: Any) -> None:
    row: dict[str, Any] = {}
    _put(record.history.item, row)
    run.rows.append({key: value for key, value in row.items() if not key.startswith("_")})


def _take_metric(run: OfflineRun, record: Any) -> None:
    name = record.metric.name or record.metric.glob_name
    run.step_metrics[name] = record.metric.step_metric
    run.summaries[name] = next((kind for kind in ("min", "max", "none") if getattr(record.metric.summary, kind)), "")


def _take_artifact(run: OfflineRun, artifact: Any) -> None:
    if artifact.type == "model":  # tables are artifacts too
        run.artifacts[artifact.name] = {entry.path: entry.local_path for entry in artifact.manifest.contents}
        run.aliases[artifact.name] = set(artifact.aliases)


def _take_exit(run: OfflineRun, record: Any) -> None:
    run.exit_code = record.exit.exit_code


_TAKE = {
    "run": _take_run,
    "config": lambda run, record: _put(record.config.update, run.config),
    "summary": lambda run, record: _put(record.summary.update, run.summary),
    "history": _take_history,
    "metric": _take_metric,
    "artifact": lambda run, record: _take_artifact(run, record.artifact),
    "log_artifact": lambda run, record: _take_artifact(run, record.request.log_artifact.artifact),
    "environment": lambda run, record: setattr(run, "git_commit", run.git_commit or record.environment.git.commit),
    "stats": lambda run, record: run.system.update(item.key for item in record.stats.item),
    "preempting": lambda run, record: setattr(run, "preempting", True),
    "exit": _take_exit,
}
