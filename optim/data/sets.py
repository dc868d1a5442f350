"""Data sets of the model hub, of its cache and of local folders, through `datasets`: what `glue` and `hf` share.

Nothing of a set is ever run: `datasets` refuses sets that come with a loading script since its version 4, and the
setting that once allowed them, trust_remote_code, is never passed.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from optim.common import hub
from optim.common.errors import UserError
from optim.common.files import sha256_of
from optim.data.tables import Cells, absent_columns

COMMIT = re.compile(r"[0-9a-f]{40}")  # of the hub; in the cache of `datasets` it names the folder of a set
PATTERN = re.compile(r"[*?]|\[.*\]|::")  # in a path, to load_dataset: it would read folders that are called alike
TEXTS = (".csv", ".tsv", ".txt", ".json", ".jsonl")  # suffixes of files that `datasets` reads as text
SAVED = ("dataset_dict.json", "state.json")  # one of them lies in what save_to_disk left: of several splits, of one

log = logging.getLogger(__name__)


def hub_set(hub_id: str, config: str | None, revision: str, *, data: str, way_out: str) -> Any:
    """The splits of a set of the hub, a DatasetDict, out of the cache of `datasets` where the hub cannot be reached.

    Raises UserError, which begins with `data` and ends with `way_out`, for a name, configuration or revision that is
    not there, and where neither hub nor cache has it.
    """
    from datasets import config as settings

    reachable, offline = hub.hub_reachable(), settings.HF_HUB_OFFLINE
    what = f"{data}: {hub_id}" + (f"/{config}" if config else "")
    if Path(hub_id).is_dir():  # of any revision
        raise UserError(
            f"{what} is a folder here too, which datasets would read in place of the hub's set: rename it, or take it "
            "itself by data=hf data.path=DIR."
        )
    try:
        # Told that it is offline, `datasets` reads its cache at once instead of retrying for half a minute.
        settings.HF_HUB_OFFLINE = not reachable
        loaded = _of_hub(hub_id, config, revision) if reachable else _cached(hub_id, config, revision)
    except Exception as error:  # of `datasets`, of the hub's client and of its HTTP library
        why = f"{what} could not be loaded from {hub.hub_endpoint()} ({_one_line(error)})."
        if not reachable:
            why = f"{what}: {hub.why_no_hub()} and its cache lacks these data."
        raise UserError(f"{why} {way_out}") from error
    finally:
        settings.HF_HUB_OFFLINE = offline
    _check_commit(loaded, revision, what, way_out)
    return loaded


def folder_set(folder: Path, config: str | None, *, split: str) -> Any:
    """The splits of a local folder: what `save_to_disk` left, or files that `load_dataset` reads (CSV, JSON, Parquet).

    What was saved without splits becomes `split`.
    """
    from datasets import DatasetDict, load_dataset, load_from_disk

    require_folder(folder)
    saved = any((folder / name).is_file() for name in SAVED)
    if saved and config:
        raise UserError(
            f"data.config={config} chooses nothing in {folder}, which save_to_disk left: it holds one configuration. "
            "Leave data.config out."
        )
    if not saved and (found := PATTERN.search(str(folder.absolute()))):
        raise UserError(
            f"data.path: {folder.absolute()} has {found[0]} in it, which datasets takes for a pattern of several "
            "folders' names. Rename that folder."
        )
    try:
        # By its whole path: `csv`, `json` and `text` alone are readers to load_dataset, whatever folder is there.
        loaded = load_from_disk(str(folder)) if saved else load_dataset(str(folder.absolute()), config)
    except Exception as error:  # `datasets` raises what its readers raise
        if not saved and (found := _not_utf8(folder)):
            raise UserError(f"data.path: {found} is not UTF-8. Save it as UTF-8.") from error
        raise UserError(
            f"data.path: {folder} is no folder that datasets can read ({_one_line(error)}). "
            "It takes what save_to_disk left, or .csv, .jsonl or .parquet files named after their split (train.csv)."
        ) from error
    return loaded if isinstance(loaded, DatasetDict) else DatasetDict({split: loaded})


def _not_utf8(folder: Path) -> Path | None:
    """The first file of text below a folder that is not UTF-8, which readers tell of without its name."""
    for path in sorted(path for path in folder.rglob("*") if path.suffix.lower() in TEXTS and path.is_file()):
        with suppress(OSError):
            try:
                path.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                return path
    return None


def require_folder(folder: Path) -> None:
    """Raises UserError unless there is such a folder, with something in it."""
    if not folder.is_dir():
        raise UserError(f"data.path: {folder} is not a folder. Give one that exists, relative to {Path.cwd()}.")
    if not any(folder.iterdir()):
        raise UserError(f"data.path: {folder} is empty.")


def folder_sha256(folder: Path) -> dict[str, str]:
    """Name -> digest of every file in a folder and below, without hidden ones and what `datasets` left there itself."""
    require_folder(folder)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    names = {path: path.relative_to(folder) for path in files}
    kept = {p: n for p, n in names.items() if not n.match("cache-*.arrow") and not any(x[0] == "." for x in n.parts)}
    try:
        return {name.as_posix(): sha256_of(path) for path, name in kept.items()}
    except OSError as error:
        raise UserError(f"data.path: {error.filename} cannot be read ({error.strerror}).") from error


def split_cells(
    loaded: Any, split: str, columns: tuple[str, str], *, data: str, fix: str, label: Callable[[Any], Any]
) -> list[Cells]:
    """(row, text, label) of a split, rows counted from 1; `label` turns what the set holds into what it means.

    Raises UserError listing the splits or the columns that are there; `fix` names the settings that choose them.
    """
    if split not in loaded:
        raise UserError(f"{data} has no split {split!r}; it has {', '.join(map(repr, loaded))}. {fix}")
    rows = loaded[split]
    if absent := absent_columns(rows.column_names, columns):
        raise UserError(f"{data}, split {split!r}, has no column {absent}. {fix}")
    texts, labels = (rows[column] for column in columns)
    return [(i, text, label(one)) for i, (text, one) in enumerate(zip(texts, labels, strict=True), start=1)]


def _of_hub(hub_id: str, config: str | None, revision: str) -> Any:
    from datasets import load_dataset

    return load_dataset(hub_id, config, revision=revision)


def _cached(hub_id: str, config: str | None, revision: str) -> Any:
    """From the cache, under the name of today or a former one."""
    present, *former = hub.hub_names(hub_id)
    try:
        return _of_hub(present, config, revision)
    except (OSError, ValueError):
        if not former or Path(former[0]).is_dir():  # which would be read in its place
            raise
        return _of_hub(former[0], config, revision)


def _check_commit(loaded: Any, revision: str, what: str, way_out: str) -> None:
    """Raises UserError if these are of another commit than `revision`: out of reach of the hub, `datasets` takes the
    newest that its cache holds. Says which commit a branch is, since a branch moves.
    """
    files = [Path(file["filename"]) for rows in loaded.values() for file in rows.cache_files]
    commit = files[0].parent.name if files else ""
    if not COMMIT.fullmatch(commit) or commit == revision:
        return
    if COMMIT.fullmatch(revision):
        raise UserError(f"{what}: the cache of datasets holds commit {commit}, not data.revision={revision}. {way_out}")
    log.info("%s: %s is commit %s now; data.revision=%s fixes it", what, revision, commit, commit)


def _one_line(error: BaseException) -> str:
    """The whole error in one line: `datasets` lists the configurations that there are in its second."""
    return " ".join(str(error).split())[:300] or type(error).__name__
