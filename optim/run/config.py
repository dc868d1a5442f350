"""What Hydra composed for one point, and the resolvers that conf asks of this machine.

`register` makes `${when_hub:distilbert,minilm}`, `${user_cache:}` and `${wandb_mode:}` known before Hydra composes.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from optim.common import hub
from optim.common.errors import UserError
from optim.common.files import ROOT
from optim.common.hub import when_hub
from optim.common.secrets import masked
from optim.export.compress import Export
from optim.track.key import wandb_mode


def register() -> None:
    """Registers the resolvers; harmless when called again."""

    add = OmegaConf.register_new_resolver
    for name, resolver in (("when_hub", when_hub), ("user_cache", user_cache), ("wandb_mode", wandb_mode)):
        add(name, resolver, replace=True)


def user_cache() -> str:
    """The folder for this tool in the user's cache: `$XDG_CACHE_HOME/distilbert-optim`."""
    return str(Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "distilbert-optim")


GROUPS = ("model", "data", "slim", "vocab", "prune", "distill", "quant", "fit", "bench", "track")
CONF = ROOT / "conf"
MODELS = CONF / "model"


@dataclass(frozen=True, kw_only=True)
class MeasureKeys:
    """`measure`: when a measurement is not believed."""

    max_disagreement: float  # fraction of dev answers in which the file may differ from its Keras model


@dataclass(frozen=True, kw_only=True)
class SweepKeys:
    """`sweep`: of -m alone."""

    dry_run: bool


@dataclass(frozen=True, kw_only=True)
class General:
    """The keys of conf/train.yaml that belong to no group."""

    seed: int
    results_dir: str
    cache_dir: str
    cache_free_gb: float
    cache_max_gb: float | None
    measure: MeasureKeys
    export: Export
    sweep: SweepKeys


# Keys that people try -> what there is instead.
MISSPELT = {
    "distill.teachers": "distill.teacher takes a list: distill.teacher=[a,b]",
    "distill.seed": "distill.seeds=3 fits each teacher three times; distill.teacher_seed is the first of their seeds",
}


def require_known_keys(words: Sequence[str]) -> None:
    """Raises UserError for a key of the command line whose right name is known; Hydra refuses the others."""
    for word in words:
        key = word.lstrip("+~").split("=", 1)[0]
        if key in MISSPELT:
            raise UserError(f"{key} is no key: {MISSPELT[key]}. Got {word!r}.")


@dataclass(frozen=True)
class Job:
    """What Hydra composed for one point."""

    cfg: DictConfig
    choices: dict[str, Any]  # option of each group, and what a missing hub made of the default
    overrides: list[str]

    @classmethod
    def of(cls, cfg: DictConfig, options: Mapping[str, Any], overrides: list[str]) -> Job:
        """From the config, the option that was chosen in each group, and the words of the command line."""
        choices = {group: options[group] for group in GROUPS}
        return cls(cfg, {**choices, **hub.default_choice(choices["model"], choices["data"])}, overrides)

    @property
    def command(self) -> str:
        """What runs this point alone; secrets in it are masked."""
        return masked(shlex.join(["python", "train.py", *self.overrides]))

    @property
    def results_dir(self) -> Path:
        """Where run folders lie."""
        return Path(self.cfg.results_dir).expanduser()

    @property
    def cache_dir(self) -> Path:
        """Where finished stages lie."""
        return Path(self.cfg.cache_dir).expanduser()
