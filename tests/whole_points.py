"""Whole points of the tiny model, without a process and without result.json."""

from __future__ import annotations

from conftest import CONF, Runs
from hydra import compose, initialize_config_dir

from optim.run.outcome import outcome_of
from optim.run.point import Point, point_of
from optim.run.step import Stages
from optim.run.steps import steps_of


def point(runs: Runs, *more: str) -> Point:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return point_of(compose("train", overrides=runs.overrides("fit.precision=float32", *more)))


def made(runs: Runs, chosen: Point):
    """(steps, stages, outcome) of a point."""
    corpus = chosen.source.load(runs.cache)
    steps, stages = steps_of(chosen, corpus, runs.cache), Stages(runs.cache, lambda fit, row: None)
    return steps, stages, outcome_of(chosen, corpus, steps, stages)
