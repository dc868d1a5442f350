"""What Hydra composed for one point, and the resolvers that conf asks of this machine.

`register` makes `${when_hub:distilbert,minilm}`, `${user_cache:}`, `${wandb_mode:}`, `${options:train}` and
`${expanded:PATH}` known before Hydra composes.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from optim.common import hub
from optim.common.errors import UserError
from optim.common.hub import when_hub
from optim.common.secrets import masked
from optim.export.compress import Export
from optim.run.places import GROUPS, TRAIN, config_dirs, config_name, dir_words
from optim.run.words import listing
from optim.track.key import wandb_mode


def register() -> None:
    """Registers the resolvers; harmless when called again."""
    add = OmegaConf.register_new_resolver
    for name, resolver in (("when_hub", when_hub), ("user_cache", user_cache), ("wandb_mode", wandb_mode),
                           ("options", listing), ("expanded", expanded)):  # fmt: skip
        add(name, resolver, replace=True)


def user_cache() -> str:
    """The folder for this tool in the user's cache: `$XDG_CACHE_HOME/distilbert-optim`."""
    try:
        return str(Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "distilbert-optim")
    except RuntimeError:  # neither HOME nor an entry of this user
        raise UserError("there is no home folder for cache_dir. Set HOME, or give cache_dir=DIR.") from None


def expanded(path: object) -> str:
    """A path with the home folder for its ~, which Hydra and its launchers would take for the name of a folder."""
    return str(Path(str(path)).expanduser())


POINTS, STAGES = "points", "stages"  # of verbosity


@dataclass(frozen=True, kw_only=True)
class MeasureKeys:
    """`measure`: when a measurement is not believed."""

    max_disagreement: float  # fraction of dev answers in which the file may differ from its Keras model


@dataclass(frozen=True, kw_only=True)
class SweepKeys:
    """`sweep`: of the plan."""

    dry_run: bool


@dataclass(frozen=True, kw_only=True)
class General:
    """The keys of conf/train.yaml that belong to no group."""

    seed: int
    results_dir: str
    cache_dir: str
    cache_free_gb: float
    cache_max_gb: float | None
    verbosity: str  # points | stages
    measure: MeasureKeys
    export: Export
    sweep: SweepKeys


@dataclass(frozen=True)
class Job:
    """What Hydra composed for one point."""

    cfg: DictConfig
    choices: dict[str, Any]  # option of each group, and what a missing hub made of the default
    overrides: list[str]
    dirs: list[str] = field(default_factory=lambda: [str(path) for path in config_dirs()])  # with options, beside conf
    config_name: str = field(default_factory=config_name)  # that it was composed from

    @classmethod
    def of(cls, cfg: DictConfig, options: Mapping[str, Any], overrides: list[str]) -> Job:
        """From the config, the option that was chosen in each group, and the words of the command line."""
        choices = {group: options[group] for group in GROUPS}
        return cls(cfg, {**choices, **hub.default_choice(choices["model"], choices["data"])}, overrides)

    @property
    def command(self) -> str:
        """What runs this point alone; secrets in it are masked."""
        return shlex.join(masked([*TRAIN, *dir_words(), *self.overrides]))  # quoting would hide one with a ' in it

    @property
    def results_dir(self) -> Path:
        """Where run folders lie."""
        return Path(str(self.cfg.results_dir)).expanduser()

    @property
    def cache_dir(self) -> Path:
        """Where finished stages lie."""
        return Path(str(self.cfg.cache_dir)).expanduser()
