"""What `-m` does here: plan, run what is missing, compare. Hydra takes sweepers from a package of this name alone.

Public API of Hydra 1.3 only: `plugins.sweeper`, `core.plugins`, `core.override_parser`, the context's config loader.
"""

from __future__ import annotations

import copy
import re
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper as HydraSweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

EXTRAS = {"joblib": "parallel", "submitit": "slurm", "ray": "ray"}  # what runs the points -> extra of pyproject.toml


class Sweeper(HydraSweeper):
    """Every combination of the values on the command line, handed to `optim.sweep.multirun`."""

    def __init__(self, max_batch_size: int | None, params: Mapping[str, Any] | None) -> None:
        self.max_batch_size, self.params = max_batch_size, params or {}
        self.bases: dict[tuple[str, ...], tuple[DictConfig, dict[str, Any]]] = {}
        self.groups: dict[str, bool] = {}

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Ends the program with 2 where the packages of the chosen launcher are not installed."""
        from optim.run.guarded import guarded
        from optim.run.places import use_sources

        use_sources(config.hydra, config.hydra.job.config_name)
        if code := guarded(lambda: _require_engine(config.hydra.launcher._target_)):
            sys.exit(code)
        self.loader, self.whole = hydra_context.config_loader, config
        self.launcher: Launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        """Ends the program with 1 if a point failed, with 2 for a mistake in the settings."""
        from optim.common.screen import log_to
        from optim.run.guarded import guarded
        from optim.sweep import multirun
        from optim.sweep.grid import points_of

        log_to(sys.stderr)
        words = [*(f"{key}={value}" for key, value in self.params.items()), *arguments]
        done: list[bool] = []
        code = guarded(lambda: done.append(multirun.sweep(points_of(words, self.loader), self._composed, self._launch)))
        if code or not all(done):
            sys.exit(code or 1)

    def _parsed(self, words: Sequence[str]) -> list[Override]:
        from optim.sweep.grid import parsed

        return parsed(words, self.loader)

    def _composed(self, overrides: list[str]) -> tuple[DictConfig, dict[str, Any]]:
        """(config, option of each group) of one point.

        Composing takes a fifth of a second, and points that differ in a plain key alone share it: such keys are set
        afterwards, as Hydra does it too.
        """
        parsed = self._parsed(overrides)
        rest = tuple(str(o.input_line) for o in parsed if not self._is_plain(o))
        cfg, choices = self._base(rest)
        plain = {o.key_or_group: o.value() for o in parsed if self._is_plain(o)}
        if any(OmegaConf.select(cfg, key, default=self) is self for key in plain):  # a key that is not there: its error
            return self._base(tuple(overrides))
        for key, value in plain.items():
            OmegaConf.update(cfg, key, value, merge=True)
        return cfg, choices

    def _base(self, overrides: tuple[str, ...]) -> tuple[DictConfig, dict[str, Any]]:
        """A copy of what Hydra composes."""
        if overrides not in self.bases:
            cfg = self.loader.load_sweep_config(self.whole, list(overrides))
            choices = dict(cfg.hydra.runtime.choices)
            with open_dict(cfg):
                del cfg["hydra"]
            self.bases[overrides] = cfg, choices
        cfg, choices = self.bases[overrides]
        return copy.deepcopy(cfg), choices

    def _is_plain(self, override: Override) -> bool:
        """Whether it sets a key that is there, and chooses no option of a group."""
        key = override.key_or_group
        if override.is_add() or override.is_force_add() or override.is_delete() or override.package or "/" in key:
            return False
        if key not in self.groups:
            self.groups[key] = bool(self.loader.get_group_options(key))
        return not self.groups[key]

    def _launch(self, batch: list[list[str]]) -> None:
        """At most max_batch_size points at a time, for launchers that would start all at once."""
        size = self.max_batch_size or len(batch)
        for start in range(0, len(batch), size):
            self.launcher.launch(batch[start : start + size], initial_job_idx=start)


def _require_engine(target: str) -> None:
    """Raises UserError unless the packages of the launcher `target` are there. Hydra's own needs none."""
    from optim.common.errors import UserError

    engine = re.match(rf"hydra_plugins\.hydra_({'|'.join(EXTRAS)})_launcher\.", target)
    if engine and not (find_spec(engine[1]) and find_spec(f"hydra_plugins.hydra_{engine[1]}_launcher")):
        raise UserError(
            f"hydra/launcher: the packages that run points with {engine[1]} are not installed. "
            f'Install them: python -m pip install --constraint constraints.txt ".[{EXTRAS[engine[1]]}]"'
        )
