"""A node of the config -> the object that its `_target_` makes. The only caller of Hydra's `instantiate`."""

from __future__ import annotations

from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from optim.common.errors import UserError

PREFIX = "optim."


def build(node: DictConfig, group: str) -> Any:
    """The object. Raises UserError for a target outside `optim.`, a key its factory lacks, or a value it refuses."""
    _check_targets(OmegaConf.to_container(node, resolve=True), group)
    try:
        return instantiate(node, _convert_="all")
    except InstantiationException as error:
        if isinstance(error.__cause__, UserError):
            raise error.__cause__ from None
        first = str(error).splitlines()
        raise UserError(f"{group}: {' '.join(first[:2])}") from error


def _check_targets(node: Any, group: str) -> None:
    """A config is input: it may name what this package makes, and nothing else."""
    if isinstance(node, dict):
        target = node.get("_target_", PREFIX)
        if not str(target).startswith(PREFIX):
            raise UserError(f"{group}._target_ must name something in {PREFIX[:-1]}, got {target!r}.")
        for value in node.values():
            _check_targets(value, group)
    elif isinstance(node, list):
        for value in node:
            _check_targets(value, group)
