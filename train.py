"""One run: config in, Result out. `python train.py prune=fixed50 quant=int8`. With -m: every combination, compared."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from optim.common.screen import log_to
from optim.run import config
from optim.run.config import CONF, Job
from optim.run.process import INTERRUPTED, guarded, run, run_apart

sys.path.insert(0, str(Path(__file__).resolve().parent))  # for hydra_plugins, also where a launcher imports this file
config.register()
# Our launchers bear the names of the plugins' own and are checked against them, which is what we want of Hydra 1.3.
warnings.filterwarnings("ignore", message=r"\s*'hydra/launcher/\w+' is validated against ConfigStore schema")


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")
def main(cfg: DictConfig) -> None:
    """Runs one point, or prints the result that it left."""
    hydra_config = HydraConfig.get()
    job = Job.of(cfg, hydra_config.runtime.choices, list(hydra_config.overrides.task))
    log_to(sys.stderr)
    if hydra_config.mode == RunMode.MULTIRUN:
        os.chdir(
            hydra_config.runtime.cwd
        )  # a launcher's worker may stand elsewhere: relative paths are those of the command
        run_apart(job)  # what fails is recorded; the sweeper counts, and the others go on
        return
    if code := guarded(lambda: run(job)):
        sys.exit(code)


if __name__ == "__main__":
    if code := guarded(lambda: config.require_known_keys(sys.argv[1:])):
        sys.exit(code)
    try:
        main()
    except KeyboardInterrupt:
        print("\nStopped. The same command goes on with what is missing.", file=sys.stderr)
        sys.exit(INTERRUPTED)
