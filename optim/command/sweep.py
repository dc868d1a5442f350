"""sweep.py: many runs -> one comparison. Words that are no key of conf/sweep.yaml are for train.py, as they are."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from optim.command.start import flags_first, started
from optim.common.build import build, typed
from optim.common.errors import UserError
from optim.common.files import ROOT
from optim.common.screen import log_to
from optim.run import config
from optim.run.compose import composed
from optim.run.guarded import guarded
from optim.run.places import CONF, use_sources
from optim.run.words import BOTH, OF_ENGINES, group_of, key_of, listing, require_known_words, require_words_arrive

if str(ROOT) not in sys.path:  # for hydra_plugins
    sys.path.insert(0, str(ROOT))
config.register()
OWN = set(OmegaConf.to_container(OmegaConf.load(CONF / "sweep.yaml"))) | {"sweep", "hydra"}  # type: ignore[arg-type]
READ_BY = {  # key of conf/sweep.yaml -> the methods of `sweep` that read it, where not all do
    **dict.fromkeys(("clean", "yes"), ("cache",)),
    **dict.fromkeys(("run", "repo"), ("publish",)),
    **dict.fromkeys(("host", "host_python"), ("measure",)),
    **dict.fromkeys(("trials", "timeout_min"), ("search",)),
    "file": ("import",),
    "machine": ("report", "pick"),
    "budget": ("search", "pick"),
}
_passed: list[str] = []


def split(words: list[str]) -> tuple[list[str], list[str]]:
    """(words for this program, words for train.py). Flags, and what has no =, are for this program."""
    own, passed, flag = [], [], ""
    for word in words:
        key = key_of(word)
        bare = "=" not in word and not word.startswith("~")  # `~KEY` takes a key away, of one program or the other
        is_flag = word.startswith("-") or bare or flag in ("--config-dir", "-cd")
        mine = is_flag or (group_of(word).split("/")[0] in OWN and not key.startswith(OF_ENGINES))
        own += [word] if mine else []
        passed += [word] if not mine or (not is_flag and key in BOTH) else []
        flag = word
    return own, passed


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="sweep")
def main(cfg: DictConfig) -> None:
    """Does what the sweep says; the exit code is its."""
    log_to(sys.stderr)
    use_sources(HydraConfig.get())
    codes: list[int] = []
    code = guarded(lambda: codes.append(_run(cfg)))
    if code or codes[0]:
        sys.exit(code or codes[0])


def _run(cfg: DictConfig) -> int:
    from optim.sweep.pick import Budget
    from optim.sweep.settings import Settings

    if "method" not in cfg.sweep:
        return _list()
    _require_read(cfg.sweep.method, HydraConfig.get().overrides.task)
    chosen = {key: value for key, value in cfg.sweep.items() if key != "dry_run"}
    settings = Settings(
        name=f"sweep={HydraConfig.get().runtime.choices['sweep']}",
        results_dir=_folder(cfg, "results_dir"),
        cache_dir=_folder(cfg, "cache_dir"),
        yes=cfg.yes,
        dry_run=cfg.sweep.dry_run,
        budget=typed(Budget, cfg.budget, "budget"),
        trials=cfg.trials,
        timeout_min=cfg.timeout_min,
        **{key: _text(cfg, key) for key in ("clean", "run", "repo", "host", "file", "machine")},
        host_python=_text(cfg, "host_python") or "",
        overrides=list(_passed),
        composed=composed,
    )
    sweep = build(OmegaConf.create(chosen), "sweep")
    settings.check(sweep)
    return sweep.run(settings)


def _require_read(method: str, words: Sequence[str]) -> None:
    """Raises UserError for a key of conf/sweep.yaml that another sweep reads."""
    for word in words:
        readers = READ_BY.get(group_of(word), (method,))
        if method not in readers:
            named = " and ".join(f"sweep={reader}" for reader in readers)
            raise UserError(f"{word} changes nothing here: it is for {named}.")


def _text(cfg: DictConfig, key: str) -> str | None:
    """A key as it was written: Hydra reads an id such as 1234e567 as a number, and that one as infinity."""
    if cfg[key] is None or isinstance(cfg[key], str):
        return cfg[key]
    words = [word.lstrip("+").partition("=") for word in HydraConfig.get().overrides.task]
    return next((value for name, _, value in reversed(words) if name == key), str(cfg[key]))


def _folder(cfg: DictConfig, key: str) -> Path:
    if not (text := _text(cfg, key)):
        raise UserError(f"{key} must name a folder, got {text!r}.")
    return Path(text).expanduser()


def _list() -> int:
    """What there is to do, where the command line names nothing. An error only if it names something else."""
    if _passed:
        raise UserError(f"say what to do with {_passed[0]}: sweep=NAME. sweep.py without words lists what there is.")
    print(f"What sweep.py can do. Choose one: python sweep.py sweep=NAME\n\n{listing('sweep')}\n\n--help has the rest.")
    return 0


def start() -> int:
    """The program; its exit code."""
    words = flags_first(sys.argv[1:])
    sys.argv[1:], _passed[:] = split(words)

    def check() -> None:
        require_known_words(words)
        require_words_arrive(_passed)  # of its own words the folders are read as they are written

    return started(main, check)
