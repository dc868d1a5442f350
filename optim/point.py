"""One point: a composed config in, a Result out; in this process, or (under -m) in one of its own.

A process of its own gives its memory back, and when it is killed, by the kernel or by a fault in the runtime, the
points after it go on. It is told its config on stdin, and the pipe is its leash: it ends when its parent has gone.
"""

from __future__ import annotations

import json
import logging
import os
import shlex
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from optim import choice, result
from optim.build import build
from optim.errors import UserError, require_fraction, require_number
from optim.result import Result

GROUPS = ("model", "data", "prune", "distill", "quant", "fit", "bench", "track")
CONF = Path(__file__).resolve().parent.parent / "conf"
MODELS = CONF / "model"
USER_MISTAKE, FAILURE, INTERRUPTED = 2, 1, 130
STOP_S = 4.0  # that a point's process has to end in after Ctrl-C

log = logging.getLogger("optim")


@dataclass(frozen=True)
class Job:
    """What Hydra composed for one point."""

    cfg: DictConfig
    choices: dict[str, Any]  # option of each group, and what a missing hub made of the default
    overrides: list[str]

    @classmethod
    def of(cls, cfg: DictConfig, options: Mapping[str, Any], overrides: list[str]) -> Job:
        """From the config, the option that was chosen in each group, and the words of the command line."""
        choices = {group: options[group] for group in GROUPS}
        return cls(cfg, {**choices, **choice.default_choice(choices["model"], choices["data"])}, overrides)

    @property
    def command(self) -> str:
        """What runs this point alone."""
        return shlex.join(["python", "train.py", *self.overrides])

    @property
    def results_dir(self) -> Path:
        """Where run folders lie."""
        return Path(self.cfg.results_dir).expanduser()

    @property
    def cache_dir(self) -> Path:
        """Where finished stages lie."""
        return Path(self.cfg.cache_dir).expanduser()


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


def run_id_of(point) -> str:
    """Content hash of everything that changes the answer."""
    from optim.stages import SCHEMA, digest_of

    return digest_of({"result": result.SCHEMA, "stages": SCHEMA, **point.identity()})


def run(job: Job) -> Result:
    """One point: the result that is there already, or a new one. Raises what went wrong, after recording it."""
    point = point_of(job.cfg)
    run_id = run_id_of(point)
    folder = job.results_dir / run_id
    if done := result.read(folder):
        log.info("Done before; delete %s to run it again.", folder)
        if os.environ.get("WANDB_SWEEP_ID"):
            _tell_agent(job, done)
        print(result.table(done, folder))
        return done
    tracker = build(job.cfg.track, "track")
    result.require_writable(job.results_dir, folder)
    result.require_space(job.cache_dir, free_gb=job.cfg.cache_free_gb)
    draft = draft_of(job, run_id)
    with _logged_to(folder / "train.log"):
        finished = _tracked(point, draft, folder, job.cache_dir, tracker)
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


def _tell_agent(job: Job, done: Result) -> None:
    """A W&B sweep waits for a run of its own for every point that it hands to an agent, finished before or not."""
    with build(job.cfg.track, "track").run(run_id=done.run_id, cfg=done.cfg, choices=done.choices) as tracked:
        tracked.record(done.to_json(), card_path=None)


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
    result.write_answers(folder, outcome.answers)
    card = result.write_bundle(
        folder, file=outcome.file, tokenizer=outcome.tokenizer, labels=outcome.labels,
        max_length=point.source.max_length, result=draft,
    )  # fmt: skip
    result.write(draft, folder)
    return card


def draft_of(job: Job, run_id: str) -> Result:
    """A result with all that is known before the run, marked failed until it is done."""
    plain: dict[str, Any] = OmegaConf.to_container(job.cfg, resolve=True)  # type: ignore[assignment]
    return Result(
        schema=result.SCHEMA, run_id=run_id, status=result.FAILED, error=None, choices=job.choices, cfg=plain,
        seed=job.cfg.seed, command=job.command, machine={},
    )  # fmt: skip


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


def log_to(stream) -> None:
    """Sends what people should read of the log to `stream`, as plain lines."""
    root = logging.getLogger()
    root.handlers = [logging.StreamHandler(stream)]
    root.handlers[0].setFormatter(logging.Formatter("%(message)s"))
    root.handlers[0].setLevel(logging.INFO)
    root.setLevel(logging.WARNING)
    log.setLevel(logging.DEBUG)


# A process for each point


def run_apart(job: Job) -> bool:
    """The point in a process of its own; whether it is done. A failure is on the screen and in its result.json.

    A process that dies without a word (killed, out of memory, a fault in the runtime) leaves its reason there too.
    Ctrl-C reaches the process as well; it has STOP_S to end.
    """
    point = point_of(job.cfg)
    folder = job.results_dir / run_id_of(point)
    if result.read(folder):
        return True
    if _is_light(point, job.cache_dir):
        return guarded(lambda: run(job)) == 0
    told = asdict(job) | {"cfg": OmegaConf.to_container(job.cfg, resolve=True)}
    child = subprocess.Popen([sys.executable, "-m", "optim.point"], stdin=subprocess.PIPE, text=True, env=_env())
    assert child.stdin
    try:
        with suppress(BrokenPipeError):
            child.stdin.write(json.dumps(told, default=str) + "\n")
            child.stdin.flush()
        child.wait()
    except BaseException:
        stop(child)
        raise
    finally:
        with suppress(OSError):
            child.stdin.close()
    if child.returncode < 0:
        draft = draft_of(job, folder.name)
        draft.error = death(child.returncode)
        result.require_writable(job.results_dir, folder)
        result.write(draft, folder)
        print(f"Failed: {draft.error}", file=sys.stderr)
    return result.read(folder) is not None


def _is_light(point, cache_dir: Path) -> bool:
    """Whether the cache holds all that a point is made of: then only its result is left to be written.

    Signals are handled in the main thread alone, so in another no point is run.
    """
    from optim.flow import Flow

    if threading.current_thread() is not threading.main_thread():
        return False
    try:
        wanted = Flow(point, cache_dir=cache_dir, curve=lambda stage, row: None).wanted
    except UserError:
        return False  # the point's process will tell it
    return all(stage.at_hand(cache_dir) is not None for stage in wanted.values())


def death(returncode: int) -> str:
    """What ended a process, by its negative return code."""
    name = signal.Signals(-returncode).name
    hints = {"SIGKILL": "out of memory, or by hand", "SIGSEGV": "a fault in the runtime or a converter"}
    hint = hints.get(name)
    return f"the point's process was ended by {name}" + (f" ({hint}?)." if hint else ".")


def stop(child: subprocess.Popen, *, within_s: float = STOP_S) -> None:
    """After a Ctrl-C, which reached the child as well: waits for its end, and kills it if that does not come."""
    try:
        child.wait(within_s)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def _env() -> dict[str, str]:
    root = str(Path(__file__).resolve().parent.parent)
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))}


def _end_with_parent() -> None:
    """Ends this process at once when its stdin does: its parent has gone, and another may take the point up."""

    def watch() -> None:
        sys.stdin.read()
        os._exit(128 + signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def main() -> int:
    """The process of one point: a Job as one line of JSON on stdin."""
    choice.register()
    log_to(sys.stderr)
    told = json.loads(sys.stdin.readline())
    _end_with_parent()
    return guarded(lambda: run(Job(DictConfig(told["cfg"]), told["choices"], told["overrides"])))


def guarded(work) -> int:
    """The exit code of `work`, with what went wrong in a line or two on stderr."""
    from omegaconf.errors import OmegaConfBaseException

    try:
        work()
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        return USER_MISTAKE
    except OmegaConfBaseException as error:
        print(f"Error: {str(error).splitlines()[0]}", file=sys.stderr)
        return USER_MISTAKE
    except KeyboardInterrupt:
        print("\nStopped. The same command goes on from the last finished epoch.", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:  # reported in full by `run`
        print(f"Failed: {type(error).__name__}: {error}", file=sys.stderr)
        return FAILURE
    return 0


if __name__ == "__main__":
    sys.exit(main())
