"""Many runs -> one comparison. `python sweep.py sweep=paper data=sst2`, `python sweep.py sweep=pick budget.file_mb=10`.

Words that are no key of conf/sweep.yaml go to train.py as they are.
"""

from __future__ import annotations

import sys
from pathlib import Path

import hydra
from hydra import compose
from omegaconf import DictConfig, OmegaConf, open_dict

from optim.common.build import build, typed
from optim.common.screen import log_to
from optim.run import config
from optim.run.config import CONF, Job
from optim.run.process import INTERRUPTED, guarded

config.register()
OWN = set(OmegaConf.to_container(OmegaConf.load(CONF / "sweep.yaml"))) | {"sweep", "hydra"}  # type: ignore[arg-type]
BOTH = {"cache_dir"}  # keys of both programs
_passed: list[str] = []


def split(words: list[str]) -> tuple[list[str], list[str]]:
    """(words for this program, words for train.py). Flags, and what has no =, are for this program."""
    own = [w for w in words if "=" not in w or w.startswith("-") or _root(w) in OWN]
    return own, [w for w in words if w not in own or _root(w) in BOTH]


def _root(word: str) -> str:
    return word.split("=", 1)[0].lstrip("+~").split(".")[0].split("/")[0]


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="sweep")
def main(cfg: DictConfig) -> None:
    """Does what the sweep says; the exit code is its."""
    log_to(sys.stderr)
    codes: list[int] = []
    code = guarded(lambda: codes.append(_run(cfg)))
    if code or codes[0]:
        sys.exit(code or codes[0])


def _run(cfg: DictConfig) -> int:
    from optim.sweep.pick import Budget
    from optim.sweep.settings import Settings

    settings = Settings(
        results_dir=Path(cfg.results_dir).expanduser(),
        cache_dir=Path(cfg.cache_dir).expanduser(),
        clean=cfg.clean,
        yes=bool(cfg.yes),
        budget=typed(Budget, cfg.budget, "budget"),
        trials=cfg.trials,
        timeout_min=cfg.timeout_min,
        overrides=list(_passed),
        composed=_composed,
    )
    return build(cfg.sweep, "sweep").run(settings)


def _composed(overrides: list[str]) -> Job:
    """The point that train.py would make of these words."""
    cfg = compose("train", overrides=overrides, return_hydra_config=True)
    choices = dict(cfg.hydra.runtime.choices)
    with open_dict(cfg):
        del cfg["hydra"]
    return Job.of(cfg, choices, overrides)


if __name__ == "__main__":
    sys.argv[1:], _passed[:] = split(sys.argv[1:])
    try:
        main()
    except KeyboardInterrupt:
        print("\nStopped. The same command goes on with what is missing.", file=sys.stderr)
        sys.exit(INTERRUPTED)
