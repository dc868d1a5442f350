"""What `-m` does here: plan, run what is missing, compare. Hydra takes sweepers from a package of this name alone."""

from __future__ import annotations

import copy
import re
import sys
from importlib.util import find_spec
from typing import Any, cast

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

EXTRAS = {"joblib": "parallel", "submitit": "slurm", "ray": "ray"}  # what runs the points -> extra of pyproject.toml


class Sweeper(BasicSweeper):
    """Hydra's basic sweeper up to the list of points; from there on `optim.multirun`."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Ends the program with 2 where the packages of the chosen launcher are not installed."""
        from optim.run.process import guarded

        if code := guarded(lambda: _require_engine(config.hydra.launcher._target_)):
            sys.exit(code)
        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)
        loader = cast(ConfigLoaderImpl, hydra_context.config_loader)
        # Each file of conf is read once for all points.
        loader.repository = CachingConfigRepository(loader.repository)  # type: ignore[assignment]
        self._bases: dict[tuple[str, ...], tuple[DictConfig, dict[str, Any]]] = {}
        self._groups: dict[str, bool] = {}

    def sweep(self, arguments: list[str]) -> Any:
        """Ends the program with 1 if a point failed, with 2 for a mistake in the settings."""
        from optim.common.screen import log_to
        from optim.run.process import guarded
        from optim.sweep import multirun

        assert self.hydra_context
        log_to(sys.stderr)
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        parsed = parser.parse_overrides([*self._parse_config(), *arguments])
        batch = self.split_arguments(parsed, None)[0]
        left: list[bool] = []
        code = guarded(lambda: left.append(multirun.sweep(batch, self._composed, self._launch)))
        if code or not all(left):
            sys.exit(code or 1)

    def _composed(self, overrides: list[str]) -> tuple[DictConfig, dict[str, Any]]:
        """(config, option of each group) of one point.

        Composing takes a fifth of a second, and points that differ in a plain key alone share it: such keys are set
        afterwards, as Hydra does it too.
        """
        assert self.hydra_context
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        parsed = parser.parse_overrides(list(overrides))
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
        assert self.hydra_context
        assert self.config
        if overrides not in self._bases:
            cfg = self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
            choices = dict(cfg.hydra.runtime.choices)
            with open_dict(cfg):
                del cfg["hydra"]
            self._bases[overrides] = cfg, choices
        cfg, choices = self._bases[overrides]
        return copy.deepcopy(cfg), choices

    def _is_plain(self, override: Override) -> bool:
        """Whether it sets a key that is there, and chooses no option of a group."""
        assert self.hydra_context
        key = override.key_or_group
        if override.is_add() or override.is_force_add() or override.is_delete() or override.package or "/" in key:
            return False
        if key not in self._groups:
            self._groups[key] = bool(self.hydra_context.config_loader.get_group_options(key))
        return not self._groups[key]

    def _launch(self, batch: list[list[str]]) -> None:
        """At most max_batch_size points at a time, for launchers that would start all at once."""
        assert self.launcher
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
