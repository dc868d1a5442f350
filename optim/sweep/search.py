"""Search: Optuna asks, something answers, and the result is compared with drawing points at random.

A trial is a point that was not seen before. Combinations that mean the same point (a temperature under prune=none) are
answered at once from what is known, and count for nothing.
"""

from __future__ import annotations

import itertools
import logging
import os
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from optim.common.errors import UserError
from optim.common.files import PARTIAL_DAYS, first_line, has_ended, this_process

OBJECTIVES = ("accuracy_fraction", "latency_p50_ms", "file_bytes")
DIRECTIONS = ("maximize", "minimize", "minimize")
SAMPLERS = ("tpe", "nsga2", "random")
PATIENCE = 10  # combinations seen before that are proposed in a row before an unseen one is drawn
JOURNAL_LINE = b'{"op_code":'  # how one begins
Choice = dict[str, Any]  # key of train.py -> its option
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answer:
    """What a point turned out to be."""

    values: tuple[float, float, float]  # of OBJECTIVES
    excess: dict[str, float]  # bound of the budget -> how far above it; at most 0 inside


def study_in(journal: Path, *, name: str, sampler: str, seed: int):
    """The Optuna study `name` in a journal file, new or going on; several processes may share it.

    A study is one question. Options, and what a finished trial was told of the budget, can't be changed in it: another
    space, other words of train.py and another budget need another name. Raises UserError for an unknown sampler, and
    for a file that is no journal.
    """
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    journal.parent.mkdir(parents=True, exist_ok=True)
    chosen = _sampler(sampler, seed)
    _drop_cut_line(journal)
    try:
        storage = JournalStorage(JournalFileBackend(str(journal)))
        return optuna.create_study(storage=storage, study_name=name, sampler=chosen,
                                   directions=list(DIRECTIONS), load_if_exists=True)  # fmt: skip
    except (ValueError, KeyError, TypeError) as error:  # of its lines, which are JSON
        raise UserError(
            f"sweep.journal: {journal} is damaged, or no journal ({first_line(error)}). Move it away: points that were "
            "run cost nothing in a new one."
        ) from error


def _drop_cut_line(journal: Path) -> None:
    """Takes away what was written last if it has no end: its process or machine stopped there.

    Optuna reads past it, but adds its next line to it, and reads neither then. What does not begin as a line of a
    journal is left alone.
    """
    from optuna.storages.journal import JournalFileSymlinkLock

    if not journal.is_file() or not _last_line(journal):
        return
    lock = JournalFileSymlinkLock(str(journal))  # as Optuna's own processes take it
    lock.acquire()
    try:
        if (cut := _last_line(journal)) and cut.startswith(JOURNAL_LINE[: len(cut)]):
            log.warning("search    the last line of %s was cut when it was written, and is left out", journal)
            os.truncate(journal, journal.stat().st_size - len(cut))
    finally:
        lock.release()


def _last_line(path: Path) -> bytes:
    """What stands after the last end of a line."""
    return path.read_bytes().rpartition(b"\n")[2]


def study_in_memory(*, sampler: str, seed: int):
    """The same without a file, for trying a sampler on points that are known."""
    import optuna

    return optuna.create_study(sampler=_sampler(sampler, seed), directions=list(DIRECTIONS))


def _sampler(name: str, seed: int):
    import warnings

    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        match name:
            case "tpe":
                return optuna.samplers.TPESampler(seed=seed, n_startup_trials=10, multivariate=True, constant_liar=True)
            case "nsga2":
                return optuna.samplers.NSGAIISampler(seed=seed, population_size=10)
            case "random":
                return optuna.samplers.RandomSampler(seed=seed)
    raise UserError(f"sweep.sampler must be one of {', '.join(SAMPLERS)}, got {name!r}.")


class Search:
    """A study on a space of options, told what each point is by `identify` and how good by `answer`."""

    def __init__(self, study, space: Mapping[str, Sequence[Any]], *, identify: Callable[[Choice], str],
                 answer: Callable[[Choice], Answer | None], seed: int,
                 there: Callable[[str], bool] = lambda point: True) -> None:  # fmt: skip
        self.study, self.answer, self._identify, self.there = study, answer, identify, there
        self.space = {key: list(options) for key, options in space.items()}
        self.rng = random.Random(seed)
        self.failed: set[str] = set()  # not proposed again before the next call of the command
        self._names: dict[tuple, str] = {}

    def identify(self, choice: Choice) -> str:
        """The point that a choice means; composing a config takes a tenth of a second, so it is done once."""
        key = tuple(choice.values())
        if key not in self._names:
            self._names[key] = self._identify(choice)
        return self._names[key]

    def known(self) -> dict[str, Any]:
        """Point -> its first trial, of those that were answered, here or in another process, and are still there."""
        import optuna

        done = self.study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
        found = {t.user_attrs["point"]: t for t in reversed(done)}
        return {point: trial for point, trial in found.items() if self.there(point)}

    def step(self) -> bool | None:
        """One new point: whether it could be answered. None if the space holds no unseen point."""
        for _ in range(PATIENCE):
            if (answered := self._trial()) is not None:
                return answered
        while unseen := self._unseen():
            self.study.enqueue_trial(self.rng.choice(unseen))
            if (answered := self._trial()) is not None:  # else another process has taken it
                return answered
        return None

    def _elsewhere(self, before: int | None = None) -> set[str]:
        """Points that another process is at: by trials that run, or by those before a trial's number.

        Of two that take one point at a time only the later one leaves it. What a killed process left running is free;
        one of another machine can't be asked, and has a day.
        """
        import optuna

        running = self.study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,))
        return {
            trial.user_attrs["point"]
            for trial in running
            if (before is None or trial.number < before) and _is_at_work(trial)
        }

    def _unseen(self) -> list[Choice]:
        seen = self.known().keys() | self.failed | self._elsewhere()
        return [choice for choice in self._all() if self.identify(choice) not in seen]

    def _trial(self) -> bool | None:
        """One trial; None if its point is known, or another process is at it."""
        import optuna

        trial = self.study.ask()
        choice = {key: trial.suggest_categorical(key, options) for key, options in self.space.items()}
        point = self.identify(choice)
        trial.set_user_attr("process", this_process())
        trial.set_user_attr("point", point)
        if point in self.failed or point in self._elsewhere(trial.number):
            self.study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            return None
        if before := self.known().get(point):
            _tell(self.study, trial, Answer(tuple(before.values), before.user_attrs["excess"]))
            return None
        try:
            answer = self.answer(choice)
        except BaseException:  # Ctrl-C: a trial that runs for ever counts as a bad one, in later calls too
            self.study.tell(trial, state=optuna.trial.TrialState.FAIL)
            raise
        if answer is None:
            self.failed.add(point)
            self.study.tell(trial, state=optuna.trial.TrialState.FAIL)
            return False
        _tell(self.study, trial, answer)
        return True

    def _all(self) -> list[Choice]:
        return [dict(zip(self.space, options, strict=True)) for options in itertools.product(*self.space.values())]


def _is_at_work(trial) -> bool:
    """Whether the process of a trial that was begun, and not ended, is there."""
    if not {"process", "point"} <= trial.user_attrs.keys():
        return False
    ended = has_ended(trial.user_attrs["process"])
    return time.time() - trial.datetime_start.timestamp() < PARTIAL_DAYS * 86400 if ended is None else not ended


def _tell(study, trial, answer: Answer) -> None:
    """The answer and how it stands to the budget, for Optuna and for a later trial of the same point."""
    trial.set_user_attr("excess", answer.excess)
    for bound, excess in answer.excess.items():
        trial.set_constraint(bound, excess)
    study.tell(trial, list(answer.values))


# How good a search was
def losses(values: Sequence[Sequence[float]]) -> np.ndarray:
    """float [n, objectives]: the same points, with less being better in every objective."""
    signs = [-1.0 if direction == "maximize" else 1.0 for direction in DIRECTIONS]
    return np.asarray(values, float).reshape(-1, len(signs)) * signs


def hypervolume(points: np.ndarray, low: np.ndarray, high: np.ndarray) -> float:
    """Share of the box from `low` (best) to `high` (worst) that some point dominates, in [0, 1]. Less is better.

    points: float [n, objectives] (Zitzler & Thiele 1999). Exact: the box is cut into cells at every coordinate.
    """
    scaled = np.unique(np.clip((points - low) / np.where(high > low, high - low, 1.0), 0.0, 1.0), axis=0)
    scaled = scaled[[not ((other <= own).all(axis=1) & (other < own).any(axis=1)).any()
                     for own, other in zip(scaled, itertools.repeat(scaled))]]  # fmt: skip
    edges = [np.unique([*column, 1.0]) for column in scaled.T]
    corners = np.meshgrid(*(edge[:-1] for edge in edges), indexing="ij")
    inside = np.zeros(corners[0].shape, bool)
    for point in scaled:
        inside |= np.logical_and.reduce([corner >= x for corner, x in zip(corners, point, strict=True)])
    cells = np.ones(1)
    for edge in edges:
        cells = np.multiply.outer(cells, np.diff(edge))
    return float((cells[0] * inside).sum())


@dataclass(frozen=True)
class Versus:
    """A search beside draws at random from the points that are known, both of the same number of trials."""

    trials: int
    found: float  # hypervolume of the search
    random: list[float]  # of each random draw
    known: int  # distinct points to draw from

    def line(self) -> str:
        """For the report."""
        wins = sum(self.found > other for other in self.random)
        return (
            f"Search: hypervolume {self.found:.4f} after {self.trials} trials; {len(self.random)} random draws of as "
            f"many from the {self.known} points known here: {np.mean(self.random):.4f} on average, below it in {wins}."
        )


def versus_random(found: Sequence[Sequence[float]], known: Sequence[Sequence[float]], *, draws: int = 10,
                  seed: int = 0) -> Versus:  # fmt: skip
    """Compares the values that a search found with random draws, without replacement, from all values known."""
    everything, own = losses(known), losses(found)
    low, high = everything.min(axis=0), everything.max(axis=0)
    rng = np.random.default_rng(seed)
    count = min(len(own), len(everything))
    others = [everything[rng.choice(len(everything), count, replace=False)] for _ in range(draws)]
    return Versus(len(own), hypervolume(own, low, high), [hypervolume(o, low, high) for o in others], len(everything))


def read_journal(study) -> list[list[float]]:
    """Values of the distinct points of a study, in the order of their trials."""
    import optuna

    done = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    return list({t.user_attrs["point"]: list(t.values) for t in reversed(done)}.values())[::-1]
