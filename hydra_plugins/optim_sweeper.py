"""What `-m` does here: plan, run what is missing, compare. Hydra takes sweepers from a package of this name alone."""

from __future__ import annotations

import re
import sys
from importlib.util import find_spec
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

EXTRAS = {"joblib": "parallel", "submitit": "slurm", "ray": "ray"}  # what runs the points -> extra of pyproject.toml


class Sweeper(BasicSweeper):
    """Hydra's basic sweeper up to the list of points; from there on `optim.multirun`."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Ends the program with 2 where the packages of the chosen launcher are not installed."""
        from optim.point import guarded

        if code := guarded(lambda: _require_engine(config.hydra.launcher._target_)):
            sys.exit(code)
        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)

    def sweep(self, arguments: list[str]) -> Any:
        """Ends the program with 1 if a point failed, with 2 for a mistake in the settings."""
        from optim import multirun
        from optim.point import guarded, log_to

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
        """(config, option of each group) of one point."""
        assert self.hydra_context
        assert self.config
        cfg = self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
        choices = dict(cfg.hydra.runtime.choices)
        with open_dict(cfg):
            del cfg["hydra"]
        return cfg, choices

    def _launch(self, batch: list[list[str]]) -> None:
        """At most max_batch_size points at a time, for launchers that would start all at once."""
        assert self.launcher
        size = self.max_batch_size or len(batch)
        for start in range(0, len(batch), size):
            self.launcher.launch(batch[start : start + size], initial_job_idx=start)


def _require_engine(target: str) -> None:
    """Raises UserError unless the packages of the launcher `target` are there. Hydra's own needs none."""
    from optim.errors import UserError

    engine = re.match(rf"hydra_plugins\.hydra_({'|'.join(EXTRAS)})_launcher\.", target)
    if engine and not (find_spec(engine[1]) and find_spec(f"hydra_plugins.hydra_{engine[1]}_launcher")):
        raise UserError(
            f"hydra/launcher: the packages that run points with {engine[1]} are not installed. "
            f'Install them: python -m pip install --constraint constraints.txt ".[{EXTRAS[engine[1]]}]"'
        )
