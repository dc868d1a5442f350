"""train.py: one run, config in, Result out. With -m: every combination of the values, planned, run and compared."""

from __future__ import annotations

import os
import sys
import warnings

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from optim.command.start import flags_first, started
from optim.common.files import ROOT
from optim.common.screen import log_to, say
from optim.run import config
from optim.run.config import Job
from optim.run.guarded import guarded
from optim.run.one_point import run
from optim.run.places import CONF, PRIMARY, use_sources
from optim.run.process import run_apart
from optim.run.words import require_known_words, require_words_arrive, unread_epochs

OURS = "optim"  # of hydra/sweeper: it plans and counts itself
if str(ROOT) not in sys.path:  # for hydra_plugins, also in the processes of a launcher
    sys.path.insert(0, str(ROOT))
config.register()
# Our launchers bear the names of the plugins' own and are checked against them, which is what we want of Hydra 1.3.
warnings.filterwarnings("ignore", message=r"\s*'hydra/launcher/\w+' is validated against ConfigStore schema")


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")
def main(cfg: DictConfig) -> None:
    """Runs one point, or prints the result that it left."""
    hydra_config = HydraConfig.get()
    use_sources(hydra_config, hydra_config.job.config_name or PRIMARY)
    job = Job.of(cfg, hydra_config.runtime.choices, list(hydra_config.overrides.task))
    log_to(sys.stderr)
    if hydra_config.mode == RunMode.MULTIRUN:
        # A launcher's worker may stand elsewhere: relative paths are those of the command.
        os.chdir(hydra_config.runtime.cwd)
        _one_of_many(job, counts=hydra_config.runtime.choices["hydra/sweeper"] != OURS)
    elif code := guarded(lambda: _show(job) if cfg.sweep.dry_run else run(job)):
        sys.exit(code)


def _show(job: Job) -> None:
    """The plan of one point."""
    from optim.sweep.plan import plan

    for line in unread_epochs(job.overrides, job.cfg):
        say(line, sys.stderr)
    print(plan([job]).table())


def _one_of_many(job: Job, *, counts: bool) -> None:
    """A point under -m. What fails is recorded and the others go on.

    counts: the sweeper is not ours: it has to be told of a failure, and says nothing of a point by itself.
    """
    if counts and job.cfg.sweep.dry_run:
        _show(job)
        return
    done = run_apart(job, quiet=False if counts else None)
    if counts and not done:
        raise RuntimeError(f"a point failed: {job.command}")


def _check() -> None:
    require_known_words(sys.argv[1:])
    require_words_arrive(sys.argv[1:])


def start() -> int:
    """The program; its exit code."""
    sys.argv[1:] = flags_first(sys.argv[1:])
    return started(main, _check)
