"""Comparison -> W&B report: the tables of report.md over panels of the sweep's runs. Its spec always, itself on demand.

The package that makes it costs two seconds to import, and the server may be slow: both in a process of its own, and
only when the comparison has changed. Nothing that goes wrong there reaches the sweep.

    save() ── JSON ──> write_report() ── wandb-workspaces ──> <sweep>/wandb_report.json, and the server if there is one
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from optim.common.files import write_text
from optim.common.stages import digest_of
from optim.report import markdown
from optim.report.comparison import Comparison
from optim.report.finished import Finished, factors
from optim.report.wandb_spec import spec_of
from optim.run import result
from optim.run.places import CONF
from optim.track import sender, writer
from optim.track.key import has_key

FILE = "wandb_report.json"
ACCURACY, LATENCY, BYTES = "quality.accuracy_fraction", "speed.latency_p50_ms", "size.file_bytes"  # in W&B's summary
TITLE_CHARS = 128  # what W&B takes
MOST_BARS = 100


@dataclass(frozen=True)
class Place:
    """Where a report belongs on W&B, and whether it goes there."""

    project: str
    entity: str  # "": the default of the key
    group: str | None  # that the sweep's runs share
    publish: bool
    timeout_s: float  # the longest that a report may hold up the end of a sweep

    @classmethod
    def of(cls, chosen: DictConfig, group: str | None) -> Place:
        """From the option of `track`; what track=none leaves open is as under track=offline."""
        track: Any = OmegaConf.merge(OmegaConf.load(CONF / "track" / "offline.yaml"), chosen)
        entity = track.entity or os.environ.get("WANDB_ENTITY") or ""
        publish = track.mode == "online" and has_key()
        return cls(track.project, entity, track.group or group, publish, track.finish_timeout_s)


def save(found: Comparison, folder: Path, place: Place) -> None:
    """Writes the spec into `folder` if it would be another one, publishes it if asked, and prints its address.

    A report that was published before is replaced, not doubled. What fails is one line on stderr; nothing is raised.
    """
    content = described(found, folder.name, place)
    digest, kept = digest_of(content), _read(folder)
    if kept.get("digest") != digest or (place.publish and kept.get("published") != digest):
        content |= {"digest": digest, "folder": os.path.abspath(folder), "publish": place.publish}
        _write_apart(content, place.timeout_s)
        kept = _read(folder)
    if kept.get("published") == digest:
        print(f"  {kept['url']}\n")


def _group_of(point: Finished) -> str | None:
    return (point.result.cfg.get("track") or {}).get("group")


def described(found: Comparison, name: str, place: Place) -> dict[str, Any]:
    """All that the report's process must know, as JSON: the same for the same comparison.

    run_ids: of the points that were logged under another group or none, in another sweep or alone.
    """
    others = [p for p in found.every_point if place.group is None or _group_of(p) != place.group]
    return {
        "title": _title(found, name),
        "markdown": markdown.to_markdown(found) + _warning(found),
        "varied": [_config_key(factor) for factor in factors(found.every_point)],
        "group": place.group,
        "run_ids": sorted(p.result.run_id for p in others),
        "project": place.project,
        "entity": place.entity,
    }


def _title(found: Comparison, name: str) -> str:
    if not found.points:
        return f"No finished point, {name}"[:TITLE_CHARS]
    of = {group: sorted({p.result.choices[group] for p in found.points}) for group in ("model", "data")}
    return f"{', '.join(of['model'])} on {', '.join(of['data'])}, {len(found.every_point)} points, {name}"[:TITLE_CHARS]


def _warning(found: Comparison) -> str:
    """W&B keeps what each run measured, the tables what was measured last."""
    if not any((p.folder / result.REMEASURED).is_file() for p in found.every_point):
        return ""
    return "- The tables show latencies taken side by side later, the panels those of each run by itself.\n"


def _config_key(factor: str) -> str:
    """Where the tracker puts what a sweep varies."""
    return f"cfg.{factor}" if "." in factor or factor == "seed" else f"choices.{factor}"


def _read(folder: Path) -> dict[str, Any]:
    """What stands in the folder: `view` as W&B takes it, the digest it was made from, what was published where."""
    try:
        found = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _write_apart(content: Mapping[str, Any], timeout_s: float) -> None:
    """Runs `write_report` for at most `timeout_s`."""
    try:
        with sender.start_apart("optim.report.wandb_report", "write_report") as process:
            try:
                process.communicate(json.dumps(content) + "\n", timeout=timeout_s)
            except BaseException:
                process.kill()
                raise
        if process.returncode:
            sender.warn(f"the report's process died ({process.returncode}).")
    except subprocess.TimeoutExpired:
        sender.warn(
            f"the report was not {'published' if content['publish'] else 'written'} in {timeout_s:g} s, given up."
        )
    except OSError as error:
        sender.warn(f"no process to write the report: {error}")


# ---- below: the report's process ----
def write_report() -> None:
    """Reads one message from stdin and does what it says. The first failure is one line on stderr."""
    messages, stderr = writer.private_streams()
    content = json.loads(messages.readline())
    try:
        writer.load_wandb("online" if content["publish"] else "offline")
        before = _sent_before(content)
        report = built(content)
        if before:
            report.id, report.entity = before["view"]["id"], before["view"]["project"]["entityName"]
        _keep(report, content, url=before.get("url"), published=before.get("published"))
        if content["publish"]:
            _publish(report, content, stderr)
    except Exception as error:
        sender.warn(f"the report's spec was not written: {writer.one_line(error)}", stderr)
    os._exit(0)  # not through wandb's exit hooks, which wait for a helper that may hang


def built(content: Mapping[str, Any]) -> Any:
    """The wandb-workspaces report of what `described` says. Asks no server, as the runs' project is left open."""
    wr: Any = import_module("wandb_workspaces.reports.v2")
    from wandb_workspaces import expr

    filters: Any = [expr.Metric("ID").isin(content["run_ids"])]
    if content["group"]:
        grouped = expr.Metric("Group") == content["group"]
        filters = expr.Or(grouped, *filters) if content["run_ids"] else [grouped]
    runs = wr.Runset(name="points", filters=filters)
    blocks = [
        wr.MarkdownBlock(text=content["markdown"]),
        wr.PanelGrid(runsets=[runs], panels=_panels(wr, content["varied"])),
    ]
    return wr.Report(
        project=content["project"], entity=content["entity"], title=content["title"], blocks=blocks, width="fluid"
    )  # fmt: skip


def _panels(wr: Any, varied: Sequence[str]) -> list[Any]:
    """Two fronts, all points by what was varied, the sizes, and what differs between runs. A row is 24 wide."""
    accuracy, latency, size = (wr.SummaryMetric(name) for name in (ACCURACY, LATENCY, BYTES))
    column = wr.ParallelCoordinatesPlotColumn
    columns = [column(wr.Config(key)) for key in varied] + [column(figure) for figure in (latency, size, accuracy)]
    # running_ymax draws the best accuracy so far from left to right: the front of these two
    return [
        wr.ScatterPlot(title="Accuracy against latency p50, ms", x=latency, y=accuracy, running_ymax=True,
                       layout=wr.Layout(x=0, y=0, w=12, h=8)),
        wr.ScatterPlot(title="Accuracy against file, bytes", x=size, y=accuracy, running_ymax=True,
                       layout=wr.Layout(x=12, y=0, w=12, h=8)),
        wr.ParallelCoordinatesPlot(title="All points by what was varied", columns=columns,
                                   layout=wr.Layout(x=0, y=8, w=24, h=8)),
        wr.BarPlot(title="File, bytes", metrics=[size], max_runs_to_show=MOST_BARS, max_bars_to_show=MOST_BARS,
                   layout=wr.Layout(x=0, y=16, w=24, h=8)),
        wr.RunComparer(diff_only="split", layout=wr.Layout(x=0, y=24, w=24, h=10)),
    ]  # fmt: skip


def _sent_before(content: Mapping[str, Any]) -> dict[str, Any]:
    """What the folder holds, if that was published in the same project; else {}."""
    kept = _read(Path(content["folder"]))
    project = kept["view"]["project"] if kept.get("url") else {}
    same = project.get("name") == content["project"] and content["entity"] in ("", project.get("entityName"))
    return kept if same else {}


def _keep(report: Any, content: Mapping[str, Any], *, url: str | None, published: str | None) -> None:
    """Writes the spec; nothing where this version of wandb-workspaces has none to give."""
    view = spec_of(report)
    if view is None:
        return
    kept = {"digest": content["digest"], "published": published, "url": url, "view": view}
    write_text(Path(content["folder"]) / FILE, json.dumps(kept, indent=1) + "\n")


def _publish(report: Any, content: Mapping[str, Any], stderr: Any) -> None:
    """Sends the report: a new one, or in the place of the one that was sent before."""
    import wandb

    try:
        report.entity = report.entity or wandb.Api().default_entity
        report.save()
        _keep(report, content, url=report.url, published=content["digest"])
    except Exception as error:
        again = f" To publish a new one delete {content['folder']}/{FILE}." if report.id else ""
        sender.warn(f"the report was not published: {writer.one_line(error)}{again}", stderr)
