"""Sweeps whose points are no grid: named recipes, and one recipe with each of its ingredients taken out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from optim.common.build import method
from optim.common.errors import UserError, require_seed
from optim.report.statistics import Answers, against
from optim.run.keys import run_id_of
from optim.run.point import point_of
from optim.run.worded import worded
from optim.run.words import key_of
from optim.sweep import pick
from optim.sweep.multirun import sweep_apart
from optim.sweep.settings import EVERY, Settings

WHOLE = "nothing"  # what the recipe itself lacks, in the table of an ablation


@method("sweep", "recipes")
@dataclass(frozen=True, kw_only=True)
class Recipes:
    """Named points, each by every seed, as one sweep: plan, run what is missing, compare."""

    recipes: Mapping[str, Sequence[str]]  # name -> words of train.py
    seeds: Sequence[int]

    reads: ClassVar = EVERY
    launches: ClassVar = False

    def __post_init__(self) -> None:
        if not self.recipes:
            raise UserError("sweep.recipes is empty. Name at least one: '+sweep.recipes.NAME=[\"key=value\"]'.")
        _check_seeds(self.seeds)

    def run(self, settings: Settings) -> int:
        """Runs what is missing, and compares; what stands on the command line wins over a recipe."""
        return 0 if _sweep(self.batch(settings.overrides), settings) else 1

    def batch(self, overrides: Sequence[str]) -> list[list[str]]:
        """The words of every point."""
        _check_words(overrides)
        recipes = [merged([*options_first(words), *options_first(overrides)]) for words in self.recipes.values()]
        return [merged([*words, f"seed={seed}"]) for seed in self.seeds for words in recipes]


@method("sweep", "ablation")
@dataclass(frozen=True, kw_only=True)
class Ablation:
    """The recipe of the command line, and the same with each ingredient taken out in turn, by every seed."""

    without: Mapping[str, Sequence[str]]  # ingredient -> the words of train.py that take it out
    seeds: Sequence[int]

    reads: ClassVar = EVERY
    launches: ClassVar = False

    def __post_init__(self) -> None:
        if not self.without:
            raise UserError("sweep.without is empty. Name an ingredient: '+sweep.without.NAME=[\"key=value\"]'.")
        _check_seeds(self.seeds)

    def run(self, settings: Settings) -> int:
        """Runs what is missing, compares, and says what each ingredient is worth."""
        _check_words(settings.overrides)
        there = self._there(settings)
        points = {name: [self._words(settings, words, seed) for seed in self.seeds] for name, words in there}
        if len(points) == 1:
            raise UserError(
                f"sweep=ablation takes {', '.join(self.without)} out of a recipe, and this one has none of them. "
                "Name it: sweep=ablation slim=slim50 vocab=seen quant=int8."
            )
        batch = [words for batch in zip(*points.values(), strict=True) for words in batch]
        done = _sweep(batch, settings, notes=lambda: self.notes(points, settings))
        if settings.dry_run:
            return 0
        print("\n".join(self.table(points, settings)))
        return 0 if done else 1

    def _words(self, settings: Settings, words: Sequence[str], seed: int) -> list[str]:
        return merged([*options_first(settings.overrides), *words, *self._held(settings), f"seed={seed}"])

    def _held(self, settings: Settings) -> list[str]:
        """The seed that the command line holds of a fine-tuning which the student starts from, taught or not."""
        held = [word for word in settings.overrides if word.startswith("distill.teacher_seed=")]
        if not held:
            return []
        whole = settings.composed(merged(options_first(settings.overrides)))
        return held if point_of(whole.cfg).starts_fitted else []

    def _there(self, settings: Settings) -> Iterable[tuple[str, Sequence[str]]]:
        """The whole recipe, then each ingredient without which the point would be another one."""

        def identity(words: Sequence[str]) -> str:
            return run_id_of(point_of(settings.composed(self._words(settings, words, self.seeds[0])).cfg))

        whole = identity(())
        yield WHOLE, ()
        for name, words in self.without.items():
            try:
                other = identity(words)
            except UserError as error:
                raise UserError(
                    f"{error} That is the recipe without {name}, by {' '.join(words)}. "
                    f"Leave it out of the ablation: '~sweep.without.{name}'."
                ) from error
            if other != whole:
                yield name, words

    def table(self, points: Mapping[str, Sequence[Sequence[str]]], settings: Settings) -> list[str]:
        """What the recipe loses without each ingredient, over seeds and sentences; a line for what was not measured."""
        lines = ["", f"{'without':<16}{'accuracy':>10}{'points':>9}   {'95 %':<20}{'MB':>8}{'ms':>8}"]
        for name, one, than in self._compared(points, settings):
            if one is None:
                lines.append(f"{name:<16}not measured")
                continue
            gain = f"{than.gain_points:+9.2f}   {f'{than.low_points:+.2f} to {than.high_points:+.2f}':<20}"
            cost = f"{one.cost('file_bytes') / 1e6:8.2f}{one.cost('latency_p50_ms'):8.2f}"
            lines.append(f"{name:<16}{than.mean:10.4f}{gain if name != WHOLE else ' ' * 32}{cost}")
        return [*lines, self._seeds_line()]

    def notes(self, points: Mapping[str, Sequence[Sequence[str]]], settings: Settings) -> list[str]:
        """The same as sentences of a report."""
        lines = []
        for name, one, than in self._compared(points, settings):
            if one is None:
                lines.append(f"Ablation, without {name}: not measured.")
                continue
            gain = f", {than.gain_points:+.2f} points ({than.low_points:+.2f} to {than.high_points:+.2f})"
            cost = f"{one.cost('file_bytes') / 1e6:.2f} MB, {one.cost('latency_p50_ms'):.2f} ms"
            lines.append(f"Ablation, without {name}: {than.mean:.4f}{gain if name != WHOLE else ''}; {cost}.")
        return [*lines, self._seeds_line()]

    def _seeds_line(self) -> str:
        return f"Seeds {', '.join(map(str, self.seeds))}; the intervals are over sentences and fits."

    def _compared(self, points: Mapping[str, Sequence[Sequence[str]]], settings: Settings) -> Iterable[tuple]:
        """(ingredient, a point without it, its answers against those of the whole recipe); None where not measured."""
        found = {p.result.run_id: p for p in pick.finished_points(settings.results_dir)}
        made = {name: {seed: found.get(_run_id(words, settings)) for seed, words in zip(self.seeds, batch, strict=True)}
                for name, batch in points.items()}  # fmt: skip
        right = {name: Answers.of(seeds) for name, seeds in made.items()}
        for name, answers in right.items():
            one = next((p for p in made[name].values() if p is not None), None)
            measured = one is not None and set(answers) & set(right[WHOLE])
            yield (name, one, against(answers, right[WHOLE])) if measured else (name, None, None)


def merged(words: Sequence[str]) -> list[str]:
    """The words without those that a later one makes void: of its key, or, where it chooses an option, of its keys."""
    kept: list[str] = []
    for word in words:
        key = key_of(word)
        kept = [w for w in kept if (own := key_of(w)) != key and not own.startswith(f"{key}.")]
        kept.append(word)
    return kept


def options_first(words: Sequence[str]) -> list[str]:
    """The words of one command line with those that choose an option before those of keys: their order means nothing,
    and none of them makes another void."""
    return sorted(words, key=lambda word: "." in key_of(word))


def _check_seeds(seeds: Sequence[int]) -> None:
    if not seeds or len(set(seeds)) < len(seeds):
        raise UserError(f"sweep.seeds must be one or more different seeds, got {list(seeds)}.")
    for seed in seeds:
        require_seed("sweep.seeds", seed)


def _check_words(overrides: Sequence[str]) -> None:
    """Raises UserError for a seed of train.py, which sweep.seeds would make void."""
    for word in overrides:
        if key_of(word) == "seed":
            seed = word.partition("=")[2]
            raise UserError(f"{word} changes nothing: each point is run by every seed of sweep.seeds=[{seed}].")


def _run_id(words: Sequence[str], settings: Settings) -> str:
    return run_id_of(point_of(settings.composed(list(words)).cfg))


def _sweep(batch: Sequence[Sequence[str]], settings: Settings, notes: Callable[[], Sequence[str]] = lambda: ()) -> bool:
    """Plans, runs and compares these points, each in a process of its own. notes: lines of the report."""
    more = [worded("results_dir", settings.results_dir), *(["sweep.dry_run=true"] if settings.dry_run else [])]
    return sweep_apart([[*words, *more] for words in batch], settings.composed, notes)
