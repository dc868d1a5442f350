"""One run: config in, Result out. `python train.py prune=fixed50 quant=int8`."""

from __future__ import annotations

import logging
import shlex
import sys
import traceback
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from optim import choice, result
from optim.build import build
from optim.errors import UserError, require_fraction, require_number
from optim.result import Result

GROUPS = ("model", "data", "prune", "distill", "quant", "fit", "bench", "track")
CONF = Path(__file__).resolve().parent / "conf"
MODELS = CONF / "model"
USER_MISTAKE, FAILURE, INTERRUPTED = 2, 1, 130

log = logging.getLogger("optim")
choice.register()


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")
def main(cfg: DictConfig) -> None:
    """Runs one point, or prints the result that it left."""
    _log_to(sys.stderr)
    try:
        run(cfg)
    except UserError as error:
        _leave(f"Error: {error}", USER_MISTAKE)
    except OmegaConfBaseException as error:
        _leave(f"Error: {str(error).splitlines()[0]}", USER_MISTAKE)
    except KeyboardInterrupt:
        print("\nStopped. The same command goes on from the last finished epoch.", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except Exception as error:  # reported in full by `run`
        _leave(f"Failed: {type(error).__name__}: {error}", FAILURE)


def run(cfg: DictConfig) -> Result:
    """One point: the result that is there already, or a new one. Raises what went wrong, after recording it."""
    point = point_of(cfg)
    run_id = _run_id(point)
    results_dir, cache_dir = Path(cfg.results_dir).expanduser(), Path(cfg.cache_dir).expanduser()
    folder = results_dir / run_id
    if done := result.read(folder):
        log.info("Done before; delete %s to run it again.", folder)
        print(result.table(done, folder))
        return done
    tracker = build(cfg.track, "track")
    result.require_writable(results_dir, folder)
    result.require_space(cache_dir, free_gb=cfg.cache_free_gb)
    draft = _draft(cfg, run_id)
    with _logged_to(folder / "train.log"):
        finished = _tracked(point, draft, folder, cache_dir, tracker)
    print(result.table(finished, folder))
    return finished


def _tracked(point, draft: Result, folder: Path, cache_dir: Path, tracker) -> Result:
    """The run itself, under the tracker; every way out leaves a result.json first and then a closed tracker."""
    from optim.track import terminate_on_sigterm

    with terminate_on_sigterm(), tracker.run(run_id=draft.run_id, cfg=draft.cfg, choices=draft.choices) as tracked:
        try:
            card = _compute(point, draft, folder, cache_dir, tracked.curve)
        except BaseException as error:
            draft.status, draft.error = result.FAILED, f"{type(error).__name__}: {error}"
            if isinstance(error, Exception) and not isinstance(error, UserError):
                log.debug("%s", traceback.format_exc())
            result.write(draft, folder)
            tracked.record(draft.to_json(), card_path=None)
            raise
        tracked.record(draft.to_json(), card_path=card)
    return draft


def _compute(point, draft: Result, folder: Path, cache_dir: Path, curve) -> Path:
    """Fills the draft, writes the bundle and then result.json, and returns the path of the model card."""
    from optim.flow import Flow
    from optim.measure import machine

    if line := choice.explain(draft.choices["model"], draft.choices["data"]):
        log.info("%s", line)
    flow = Flow(point, cache_dir=cache_dir, curve=curve)
    outcome = flow.run()
    for part in ("quality", "size", "speed", "memory", "cost", "data"):
        setattr(draft, part, getattr(outcome, part))
    draft.machine, draft.status = machine(), result.DONE
    card = result.write_bundle(
        folder, file=outcome.file, tokenizer=outcome.tokenizer, labels=outcome.labels,
        max_length=point.source.max_length, result=draft,
    )  # fmt: skip
    result.write(draft, folder)
    return card


def point_of(cfg: DictConfig):
    """The objects that the config names. Everything a setting alone can be wrong in is found here."""
    from optim.flow import Point

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


def _run_id(point) -> str:
    from optim.stages import SCHEMA, digest_of

    return digest_of({"result": result.SCHEMA, "stages": SCHEMA, **point.identity()})


def _draft(cfg: DictConfig, run_id: str) -> Result:
    """A result with all that is known before the run, marked failed until it is done."""
    hydra_cfg = HydraConfig.get()
    choices: dict[str, Any] = {group: hydra_cfg.runtime.choices[group] for group in GROUPS}
    default = choice.default_choice(choices["model"], choices["data"])
    plain: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    return Result(
        schema=result.SCHEMA, run_id=run_id, status=result.FAILED, error=None, choices={**choices, **default},
        cfg=plain, seed=cfg.seed, command=shlex.join(["python", "train.py", *hydra_cfg.overrides.task]), machine={},
    )  # fmt: skip


def _leave(message: str, code: int) -> None:
    """Ends the program; under -m ends the point alone, so that the others run."""
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        raise RuntimeError(message)
    print(message, file=sys.stderr)
    sys.exit(code)


def _log_to(stream) -> None:
    root = logging.getLogger()
    root.handlers = [logging.StreamHandler(stream)]
    root.handlers[0].setFormatter(logging.Formatter("%(message)s"))
    root.handlers[0].setLevel(logging.INFO)
    root.setLevel(logging.WARNING)
    log.setLevel(logging.DEBUG)


class _logged_to:
    """Everything logged in the body also goes to a file, tracebacks included."""

    def __init__(self, path: Path) -> None:
        self.handler = logging.FileHandler(path, encoding="utf-8")
        self.handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))

    def __enter__(self) -> None:
        logging.getLogger().addHandler(self.handler)

    def __exit__(self, *exception) -> None:
        logging.getLogger().removeHandler(self.handler)
        self.handler.close()


if __name__ == "__main__":
    main()
