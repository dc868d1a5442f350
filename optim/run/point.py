"""A composed config -> the objects that it names, and the id of what they will make."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from optim.common.build import build
from optim.common.errors import UserError, require_fraction, require_number
from optim.data.corpus import Source
from optim.export.quantize import Quantizer
from optim.measure.latency import Bench
from optim.run import result
from optim.run.config import MODELS
from optim.train.fit import Schedule


@dataclass(frozen=True, kw_only=True)
class Point:
    """One point of the trade-off: what the config built, and the plain dictionaries that the cache is keyed by."""

    source: Source
    checkpoint: Any  # of the student
    teacher_checkpoint: Any  # equal to `checkpoint` where the model teaches itself
    pruner: Any
    loss: Any
    quantizer: Quantizer
    schedule: Schedule
    bench: Bench
    max_disagreement: float
    seed: int
    specs: dict[str, Any]  # group -> its resolved YAML

    @property
    def self_taught(self) -> bool:
        """True if teacher and student have one architecture and one origin."""
        return self.teacher_checkpoint.fingerprint() == self.checkpoint.fingerprint()

    def identity(self) -> dict[str, Any]:
        """Everything that changes the answer; its hash is the run_id. Paths are left out, what they hold is in."""
        methods = {group: self.specs[group] for group in ("prune", "distill", "quant", "fit", "bench", "measure")}
        return {
            **methods,
            "data": self.source.fingerprint(),
            "model": self.checkpoint.fingerprint(),
            "teacher": self.teacher_checkpoint.fingerprint(),
            "seed": self.seed,
        }


def point_of(cfg: DictConfig):
    """The objects that the config names. Everything a setting alone can be wrong in is found here."""
    from optim.run.point import Point

    specs: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    require_fraction("measure.max_disagreement", cfg.measure.max_disagreement, one=True)
    require_number("cache_free_gb", cfg.cache_free_gb)
    if not isinstance(cfg.seed, int) or cfg.seed < 0:
        raise UserError(f"seed must be a whole number from 0, got {cfg.seed!r}.")
    loss = build(cfg.distill, "distill")
    return Point(
        source=build(cfg.data, "data"),
        checkpoint=build(cfg.model, "model"),
        teacher_checkpoint=build(_teacher_model(cfg, loss), "distill.teacher"),
        pruner=build(cfg.prune, "prune"),
        loss=loss,
        quantizer=build(cfg.quant, "quant"),
        schedule=build(cfg.fit, "fit"),
        bench=build(cfg.bench, "bench"),
        max_disagreement=cfg.measure.max_disagreement,
        seed=cfg.seed,
        specs=specs,
    )


def _teacher_model(cfg: DictConfig, loss) -> DictConfig:
    """The model config of the teacher: the student's own, or another of conf/model."""
    if loss.teacher == "same":
        return cfg.model
    names = sorted(path.stem for path in MODELS.glob("*.yaml"))
    if loss.teacher not in names:
        raise UserError(f"distill.teacher must be same or one of {', '.join(names)}; got {loss.teacher!r}.")
    if not loss.needs_teacher:
        raise UserError(f"distill.teacher={loss.teacher} teaches nothing under distill=none; choose distill=kd.")
    return OmegaConf.load(MODELS / f"{loss.teacher}.yaml")  # type: ignore[return-value]


def run_id_of(point) -> str:
    """Content hash of everything that changes the answer."""
    from optim.common.stages import SCHEMA, digest_of

    return digest_of({"result": result.SCHEMA, "stages": SCHEMA, **point.identity()})
