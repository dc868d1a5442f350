"""Words of a command line -> the point that train.py would make of them, without its command line."""

from __future__ import annotations

from collections.abc import Sequence

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, open_dict

from optim.run.config import Job, register
from optim.run.places import CONF


def composed(words: Sequence[str]) -> Job:
    """The point of these words. Raises Hydra's exceptions for what cannot be composed."""
    if not GlobalHydra.instance().is_initialized():
        register()
        with initialize_config_dir(str(CONF), version_base="1.3"):
            return composed(words)
    cfg = compose("train", overrides=list(words), return_hydra_config=True)
    choices = dict(cfg.hydra.runtime.choices)
    with open_dict(cfg):
        del cfg["hydra"]
    return Job.of(cfg, choices, list(words))


def composed_sweep(words: Sequence[str]) -> DictConfig:
    """The node `sweep` that sweep.py makes of these words. Raises Hydra's exceptions for what cannot be composed."""
    if not GlobalHydra.instance().is_initialized():
        register()
        with initialize_config_dir(str(CONF), version_base="1.3"):
            return composed_sweep(words)
    return compose("sweep", overrides=list(words)).sweep
