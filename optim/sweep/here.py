"""Many points as Python code asks for them: run what is missing, and hand the comparison back."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from omegaconf import OmegaConf

from optim.common.build import build
from optim.common.errors import UserError
from optim.report.comparison import Comparison, compared
from optim.report.index import to_csv
from optim.run.compose import composed, composed_sweep
from optim.run.guarded import explaining
from optim.run.keys import run_id_of
from optim.run.places import options_of
from optim.run.point import point_of
from optim.run.words import OF_ENGINES, key_of, require_known_words, require_words_arrive
from optim.sweep.grid import points_of
from optim.sweep.multirun import sweep_apart
from optim.sweep.points import Recipes
from optim.sweep.verbs import Grid

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True)
class Swept(Comparison):
    """A comparison, and the same as a table of pandas."""

    def frame(self) -> DataFrame:
        """One row for each point, the most accurate first: the columns of results.csv."""
        import pandas

        # Ids are text, though their digits may all be those of a number.
        return pandas.read_csv(io.StringIO(to_csv(self)), dtype={"run_id": str, "machine": str})


def sweep_here(*words: str) -> Swept:
    """The comparison of every combination of these words, after running what is missing."""
    with explaining():
        require_known_words(words)
        require_words_arrive(words)
        _require_no_engine(words)
        batch = _batch(words)
        sweep_apart(batch, composed)
        jobs = [composed(words) for words in batch]
        folders = [job.results_dir / run_id_of(point_of(job.cfg)) for job in jobs]
    shown = compared(folders, [job.command for job in jobs])
    return Swept(**vars(shown))


def _require_no_engine(words: Sequence[str]) -> None:
    """Raises UserError for a launcher or sweeper of Hydra's, which would not be asked."""
    for word in words:
        if key_of(word).startswith(OF_ENGINES):
            raise UserError(f"{word} changes nothing: optim.sweep starts its points itself, one after another.")


def _batch(words: Sequence[str]) -> list[list[str]]:
    """The overrides of each point: a grid of the words, or what sweep=NAME makes of them."""
    names = [word.split("=", 1)[1] for word in words if word.startswith("sweep=")]
    rest = [word for word in words if not word.startswith("sweep=")]
    if not names:
        return points_of(rest)
    if names[-1] not in options_of("sweep"):
        raise UserError(f"sweep has no option {names[-1]!r}; it has {', '.join(sorted(options_of('sweep')))}.")
    own = [word for word in rest if _is_own(word)]
    rest = [word for word in rest if word not in own]
    node = composed_sweep([f"sweep={names[-1]}", *own])
    named = build(OmegaConf.create({key: value for key, value in node.items() if key != "dry_run"}), "sweep")
    if isinstance(named, Grid):
        return points_of(named.words(rest))
    if isinstance(named, Recipes):
        return named.batch(rest)
    raise UserError(f"optim.sweep runs grids and recipes; sweep={names[-1]} is for sweep.py.")


def _is_own(word: str) -> bool:
    """Whether a word is for the named sweep, as sweep.py has it; a plan alone is asked of train.py."""
    key = key_of(word)
    return key.startswith("sweep.") and key != "sweep.dry_run"
