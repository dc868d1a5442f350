"""Where configs lie: conf, and the folders that --config-dir or hydra.searchpath add to it.

A process runs one command, so the added folders are those of the process; a point takes them along into its own one.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from optim.common.files import PACKAGED, ROOT
from optim.run.worded import worded

GROUPS = ("model", "data", "slim", "vocab", "prune", "distill", "quant", "fit", "bench", "track")
EXPERIMENT = "experiment"  # sets options of the groups, and is none of them
CONF = PACKAGED if PACKAGED.is_dir() else ROOT / "conf"
TRAIN = ["optim-train"] if PACKAGED.is_dir() else ["python", "train.py"]  # how people start the programs
SWEEP = ["optim-sweep"] if PACKAGED.is_dir() else ["python", "sweep.py"]
PRIMARY = "train"  # the config that a point is composed from, but for --config-name
_added: list[Path] = []
_primary: list[str] = [PRIMARY]


def use_config_dirs(dirs: Iterable[Path | str], name: str = PRIMARY) -> None:
    """Makes this process look for options in these folders too, after conf; `name`: of the config, as --config-name."""
    _added[:] = [path for path in dict.fromkeys(map(Path, dirs)) if path != CONF]
    _primary[:] = [name]


def use_sources(hydra: Any, name: str = PRIMARY) -> None:
    """The same with the folders that Hydra composed from; `hydra`: that node of what it composed."""
    use_config_dirs((one.path for one in hydra.runtime.config_sources if one.schema == "file"), name)


def config_name() -> str:
    """The config that points are composed from."""
    return _primary[0]


def config_dirs() -> list[Path]:
    """Where options lie: conf first, then what was added, in Hydra's order."""
    return [CONF, *_added]


def dir_words() -> list[str]:
    """The words of a command line that add the same folders again, and name the same config."""
    named = [] if config_name() == PRIMARY else ["--config-name", config_name()]
    if len(_added) < 2:
        return [*(word for path in _added for word in ("--config-dir", str(path))), *named]
    return [*named, worded("hydra.searchpath", [f"file://{path}" for path in _added])]


def options_of(group: str) -> dict[str, Path]:
    """Option -> its file, of a group; of two files of one name the first one counts, as for Hydra."""
    files = [path for folder in config_dirs() for path in sorted((folder / group).glob("*.yaml"))]
    return {path.stem: path for path in reversed(files)}


def file_named(name: str) -> Path:
    """The first file of that name in the folders; where none has it, the path at which conf would."""
    return next((found for folder in config_dirs() if (found := folder / name).is_file()), CONF / name)
