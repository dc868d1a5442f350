"""What a model was trained on, as its folder or its name says: kept beside weights and in bundles, read from them.

trained_on.json   {"data": ["reviews"]}: names of data sets, in what this program leaves
README.md         `datasets:` at the head of a model card of the hub, or the card of a bundle
config.json       `_name_or_path`: what transformers loaded it from, which may be a fine-tuned model
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from optim.encoder.assets import Checkpoint, HubCheckpoint, LocalCheckpoint

TRAINED_ON = "trained_on.json"
HEAD = re.compile(r"\A---\n(.*?)\n---\s", re.DOTALL)  # of a model card: YAML between two lines
OUR_CARD = re.compile(r"^- Trained on [\d,]+ sentences of (.+?)(?: and on .+?)?;", re.MULTILINE)


def trained_on(checkpoint: Checkpoint) -> tuple[str, ...]:
    """The names of the data sets that a checkpoint says it was trained on; on the hub its own name may say it."""
    if isinstance(checkpoint, LocalCheckpoint):
        return said_in(checkpoint.path.expanduser())
    return (checkpoint.hub_id,) if isinstance(checkpoint, HubCheckpoint) else ()


def trained_on_by_its_files(checkpoint: Checkpoint, cache_dir: Path) -> tuple[str, ...]:
    """The same, where the hub may be asked: the card and the config.json there may say more than a name."""
    more = said_in(checkpoint.fetch(cache_dir)) if isinstance(checkpoint, HubCheckpoint) else ()
    return tuple(dict.fromkeys((*trained_on(checkpoint), *more)))


def said_in(folder: Path) -> tuple[str, ...]:
    """What the files of a folder say, and for the bundle of a run its result.json; nothing where nothing is said."""
    names = [*_strings(_json(folder / TRAINED_ON), "data"), *_strings(_json(folder / "config.json"), "_name_or_path")]
    fields, card = read_card(folder / "README.md")
    names += [*_strings(fields, "datasets"), *OUR_CARD.findall(card)]
    place = Path(os.path.realpath(folder))  # which `resolve` raises for where a link leads to itself
    if place.name == "bundle":
        names += _strings(_json(place.parent / "result.json").get("data"), "name")
    return tuple(dict.fromkeys(names))


def write_trained_on(folder: Path, names: Iterable[str]) -> None:
    """Leaves the names beside the weights or the file that came of them."""
    content = json.dumps({"data": list(dict.fromkeys(names))}, ensure_ascii=False)
    (folder / TRAINED_ON).write_text(content + "\n", encoding="utf-8")


def read_card(path: Path) -> tuple[dict[str, Any], str]:
    """(what stands at the head of a model card, its whole text); nothing of a file that is none, or is damaged."""
    import yaml

    try:
        card = path.read_text(encoding="utf-8")
        head = HEAD.match(card)
        fields = yaml.safe_load(head[1]) if head else {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return {}, ""
    return fields if isinstance(fields, dict) else {}, card


def _strings(fields: Any, key: str) -> list[str]:
    """The string or strings under a key of what may be anything: it comes from outside."""
    value = fields.get(key) if isinstance(fields, dict) else None
    return [entry for entry in (value if isinstance(value, list) else [value]) if isinstance(entry, str)]


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
