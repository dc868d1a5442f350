"""A composed config -> the values that it names. Everything a setting alone can be wrong in is found here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from optim.common.build import Bound, as_json, bind, build, typed
from optim.common.errors import UserError, require_fraction, require_positive, require_seed
from optim.cut.surgery import NoSurgery, Removal, Surgery
from optim.data.augment import Augment
from optim.data.corpus import Source
from optim.data.leaks import require_unrelated
from optim.data.transfer import UnlabelledFile
from optim.encoder.assets import Checkpoint
from optim.encoder.origin import trained_on
from optim.export.compress import Export
from optim.export.quantize import Quantizer
from optim.measure.device import has_bfloat16
from optim.measure.latency import Bench
from optim.run.config import POINTS, STAGES, General
from optim.run.places import GROUPS, options_of
from optim.train.distill import SAME
from optim.train.objective import Loss
from optim.train.prune import Pruner
from optim.train.recipe import Schedule
from optim.train.wrap import Wrapper

SELF = "_self_"  # in a list of defaults: the keys of the file itself
TEXT_COLUMN = "text"  # of distill.unlabelled, where the data have no data.text_column


@dataclass(frozen=True)
class Teacher:
    """One fine-tuning that teaches: of what, and by which seed."""

    checkpoint: Checkpoint
    seed: int


@dataclass(frozen=True, kw_only=True)
class Point:
    """One point of the trade-off: the values that make it, and their settings as plain dictionaries."""

    source: Source
    checkpoint: Checkpoint  # of the student
    teachers: tuple[Teacher, ...]  # the first is the one that results compare with
    surgery: Surgery
    pruner: Pruner
    loss: Loss
    augment: Augment | None  # None: no sentences are made
    unlabelled: UnlabelledFile | None
    quantizer: Quantizer
    precisions: Mapping[str, Bound]  # of the candidates, by name; none unless the quantizer chooses
    export: Export
    schedule: Schedule  # its precision is float32 or bfloat16
    bench: Bench
    max_disagreement: float
    seed: int
    specs: dict[str, Any]  # group -> method, version and arguments

    @property
    def self_taught(self) -> bool:
        """True if the first teacher and the student have one architecture and one origin."""
        return self.teachers[0].checkpoint.fingerprint() == self.checkpoint.fingerprint()

    @property
    def starts_fitted(self) -> bool:
        """True if the student starts from a fine-tuning of itself: its teacher, or what it is cut out of."""
        return self.self_taught or self.surgery.changes

    @property
    def origins(self) -> tuple[Checkpoint, ...]:
        """What student and teachers begin from."""
        return (self.checkpoint, *(teacher.checkpoint for teacher in self.teachers))

    def candidates(self) -> dict[str, Point]:
        """Name -> the same point in the precision of a candidate."""
        return {
            name: replace(self, quantizer=one.make(), specs={**self.specs, "quant": one.spec}, precisions={})
            for name, one in self.precisions.items()
        }

    @property
    def wrappers(self) -> tuple[Wrapper, ...]:
        """What wraps the student's layers while it is fitted, the innermost first."""
        return tuple(wrapper for wrapper in (self.pruner, *self.quantizer.wrappers) if wrapper.changes)


def point_of(cfg: DictConfig) -> Point:
    """The point of a config. Raises UserError for a setting that is unknown, missing, of another type or too large."""
    general = typed(General, {key: value for key, value in _resolved(cfg).items() if key not in GROUPS}, "train")
    _check(general)
    bound = {group: bind(cfg[group], group) for group in GROUPS if group != "track"}
    bind(cfg.track, "track")
    schedule = _schedule(bound["fit"].make())
    specs: dict[str, Any] = {group: one.spec for group, one in bound.items()}
    specs["fit"] = {**specs["fit"], **as_json(schedule)}
    specs |= {"measure": as_json(general.measure), "export": as_json(general.export)}
    loss = bound["distill"].make()
    quantizer = bound["quant"].make()
    point = Point(
        source=bound["data"].make(),
        checkpoint=bound["model"].make(),
        teachers=_teachers(cfg, loss),
        surgery=_surgery(bound["slim"], bound["vocab"]),
        pruner=bound["prune"].make(),
        loss=loss,
        **_transfer(bound["distill"].arguments, specs["data"].get("text_column", TEXT_COLUMN)),
        quantizer=quantizer,
        precisions=_precisions(cfg, quantizer),
        export=general.export,
        schedule=schedule,
        bench=bound["bench"].make(),
        max_disagreement=general.measure.max_disagreement,
        seed=general.seed,
        specs=specs,
    )
    _check_copies(schedule, point.specs["data"])
    for one in point.origins:
        require_unrelated(point.source.name, trained_on(one), f"model={one.name}")
    return point


def _surgery(slim: Bound, vocab: Bound) -> Surgery:
    """What both groups remove; nothing where neither changes anything."""
    structure, words = slim.make(), vocab.make()
    if not (structure.changes or words.changes):
        return NoSurgery()
    spec = {**({"slim": slim.spec} if structure.changes else {}), **({"vocab": vocab.spec} if words.changes else {})}
    return Removal(slim=structure, vocabulary=words, spec=spec)


def _transfer(distill: Mapping[str, Any], column: str) -> dict[str, Any]:
    """The sentences beside train that a loss names; there are none where its config has no such keys."""
    augment, path = distill.get("augment"), distill.get("unlabelled")
    file = None if path is None else UnlabelledFile(Path(path).expanduser(), column)
    return {"augment": augment if augment and augment.copies else None, "unlabelled": file}


def _resolved(cfg: DictConfig) -> dict[str, Any]:
    return OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)  # type: ignore[return-value]


def _check(general: General) -> None:
    require_fraction("measure.max_disagreement", general.measure.max_disagreement, one=True)
    require_seed("seed", general.seed)
    if general.cache_max_gb is not None:
        require_positive("cache_max_gb", general.cache_max_gb)
    for name in ("results_dir", "cache_dir"):
        if not getattr(general, name):
            raise UserError(f"{name} must name a folder, got ''.")
    if general.verbosity not in (POINTS, STAGES):
        raise UserError(f"verbosity must be {POINTS} or {STAGES}, got {general.verbosity}.")


def _schedule(schedule: Schedule) -> Schedule:
    """The schedule with what `precision: auto` is on this machine."""
    if schedule.precision != "auto":
        return schedule
    return replace(schedule, precision="bfloat16" if has_bfloat16() else "float32")


def _check_copies(schedule: Schedule, data: Mapping[str, Any]) -> None:
    """Raises UserError if whole sentences are to be copied where no row is known to be one."""
    for name, recipe in (("teacher", schedule.teacher), ("student", schedule.student)):
        if recipe.whole_copies > 1 and not data.get("phrases"):
            raise UserError(
                f"fit.{name}.whole_copies needs data whose rows are phrases of whole sentences (data.phrases=true), "
                f"got {recipe.whole_copies}. Set fit.{name}.whole_copies=1."
            )


def _precisions(cfg: DictConfig, quantizer: Quantizer) -> dict[str, Bound]:
    """The options of conf/quant that a quantizer chooses from."""
    files, found = options_of("quant"), {}
    for name in quantizer.choice.candidates if quantizer.choice else ():
        if name not in files:
            raise UserError(f"quant.candidates must be of {', '.join(sorted(files))}; got {name!r}.")
        other = cfg.copy()  # an option may refer to other keys, as to `seed`
        with open_dict(other):
            other.quant = option_node("quant", name)
        found[name] = bind(other.quant, "quant")
        _check_candidate(name, found[name])
    return found


def _check_candidate(name: str, precision: Bound) -> None:
    """Raises UserError for a precision whose file cannot be one of several of a student."""
    quantizer = precision.make()
    reasons = {
        "has a fit of its own, and all candidates are files of one student": bool(quantizer.wrappers),
        "chooses itself": quantizer.choice is not None,
        "has integer logits, for NPUs, and is no faster on a CPU": "activation_bits" in precision.spec,
    }
    for reason, found in reasons.items():
        if found:
            raise UserError(f"quant.candidates has {name}, which {reason}: leave it out.")


def option_node(group: str, name: str) -> DictConfig:
    """An option as Hydra composes it: its own keys over those of the options of its group that its `defaults` name.

    Raises UserError for an option that is not there, or a default of another kind.
    """
    files = options_of(group)
    if name not in files:
        raise UserError(f"{group} has no option {name!r}; it has {', '.join(sorted(files))}.")
    own: Any = OmegaConf.load(files[name])
    named = own.pop("defaults", None) or []
    if SELF not in named:
        named = [*named, SELF]  # as Hydra has it
    merged: Any = OmegaConf.create()
    for one in named:
        if not isinstance(one, str) or "/" in one or "@" in one:
            raise UserError(f"{files[name]}: its defaults may name options of {group} and {SELF} here, got {one!r}.")
        merged = OmegaConf.merge(merged, own if one == SELF else option_node(group, one))
    return merged


def _teachers(cfg: DictConfig, loss: Loss) -> tuple[Teacher, ...]:
    """The teachers, the seeds of each side by side: the student's own checkpoint for `same`, else one of conf/model."""
    _check_teachers(loss)
    nodes: Sequence[Any] = [cfg.model if name == SAME else option_node("model", name) for name in loss.teachers]
    checkpoints = [build(node, "model") for node in nodes]
    _require_distinct(loss.teachers, checkpoints)
    return tuple(Teacher(checkpoint, seed) for checkpoint in checkpoints for seed in loss.teacher_seeds)


def _require_distinct(names: Sequence[str], checkpoints: Sequence[Checkpoint]) -> None:
    """Raises UserError for a model that has two names, `same` and its own: it would count twice in their mean."""
    if len(names) < 2:
        return
    prints = [checkpoint.fingerprint() for checkpoint in checkpoints]
    for place, name in enumerate(names):
        if (first := prints.index(prints[place])) < place:
            raise UserError(
                f"distill.teacher has {names[first]} and {name}, which are one model here: leave one of them out."
            )


def _check_teachers(loss: Loss) -> None:
    names = sorted(options_of("model"))
    for name in loss.teachers:
        if name != SAME and name not in names:
            raise UserError(f"distill.teacher must be same or one of {', '.join(names)}; got {name!r}.")
        if name != SAME and not (loss.needs_logits or loss.needs_models):
            raise UserError(f"distill.teacher={name} teaches nothing under distill=none; choose distill=kd.")
