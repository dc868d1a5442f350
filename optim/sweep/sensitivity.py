"""`python sweep.py sweep=sensitivity`: which parts of one fitted student bear what, without training it again."""

from __future__ import annotations

import logging
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from optim.common.build import method
from optim.common.screen import width
from optim.export.quantize import BLOCKS, sensitivity_of
from optim.run.forecast import Forecast
from optim.run.places import SWEEP, dir_words
from optim.run.point import point_of
from optim.run.result import removed, require_space, require_writable
from optim.run.step import Stages
from optim.run.steps import steps_of
from optim.run.tables import TableStep
from optim.sweep.settings import EVERY, Settings

log = logging.getLogger(__name__)


@method("sweep", "sensitivity")
@dataclass(frozen=True, kw_only=True)
class Sensitivity:
    """The sensitivity table of the student that train.py makes of the same words; `quant=mixed` takes the same one."""

    reads: ClassVar = EVERY
    launches: ClassVar = False

    def run(self, settings: Settings) -> int:
        """Makes what is missing of the student, then the table, and writes its report."""
        from optim.report import sensitivity
        from optim.report.write import write_sensitivity

        job = settings.composed(settings.overrides)
        point = point_of(job.cfg)
        steps = steps_of(point, point.source.load(job.cache_dir), job.cache_dir)
        # Blocks are those of `quant`, so that `mixed` finds its own table; of a precision without any, the usual ones.
        block = point.specs["quant"].get("block", BLOCKS[0])
        table = TableStep(sensitivity_of(block), steps.file.float32)
        for line in Forecast(job.cache_dir).lines([*steps.student.inputs(), steps.student]):
            log.info("plan      %s", line)
        if settings.dry_run:
            at_hand = table.wanted.at_hand(job.cache_dir) is not None
            print(f"The table of {table.wanted.key} is {'at hand' if at_hand else 'to be made'}.")
            return 0
        require_writable(settings.results_dir, settings.results_dir)
        require_space(job.cache_dir, free_gb=job.cfg.cache_free_gb)
        stages = Stages(job.cache_dir, lambda fit, row: None)
        stages.make(table)
        title = _title(job.choices, block, point.seed)
        folder = settings.results_dir / sensitivity.FOLDER / table.wanted.key
        made = {"title": title, "command": _command(settings), **table.read(stages)}
        write_sensitivity(folder, made)
        print(f"\n{textwrap.fill(sensitivity.headline(made), width())}\n\n  {folder / sensitivity.PAGE}\n")
        return 0


def _title(choices: Mapping[str, Any], block: int | None, seed: int) -> str:
    """What the table is of: all that parts it from others of one report."""
    made = [*removed(dict(choices)), *(f"{group}={choices[group]}" for group in ("prune", "distill"))]
    scales = f"blocks of {block}" if block else "a scale for each output"
    return f"{choices['model']} on {choices['data']}, {', '.join(made)}, {scales}, seed {seed}"


def _command(settings: Settings) -> str:
    import shlex

    from optim.common.secrets import masked

    return shlex.join(masked([*SWEEP, *dir_words(), "sweep=sensitivity", *settings.overrides]))  # as Job.command
