"""What can be reached from here: the model hub, its cache on this machine.

`when_hub` chooses the defaults: Hydra asks it only where the command line chooses nothing, so an explicit `model=` and
`data=` cost no probe. Nothing heavy is imported here: `--help` goes through this file.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Sequence
from pathlib import Path

PROBE_S = 2.0  # all of it: name resolution, connection, answer
DEFAULT_CHECKPOINT = ("distilbert/distilbert-base-uncased", "12040accade4e8a0f71eabdb258fecc2e7e948be")
DEFAULT_DATASET = ("nyu-mll/glue", "sst2")
# Who owns what had no namespace once, of the models and sets that can be used here.
HEIRS = {"google-bert", "distilbert", "nyu-mll", "stanfordnlp", "fancyzhx", "dair-ai", "cornell-movie-review-data"}
SHOWS_ONLY = {"--help", "-h", "--hydra-help", "--info", "-i", "--cfg", "-c", "--shell-completion", "-sc"}
OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")  # the first that is set says whether the hub may be asked
_replaced: dict[str, str] = {}  # what this process fell back to -> what it stands in for
_shown: set[str] = set()  # flags by which one of our programs only shows something


def started_with(words: Sequence[str]) -> None:
    """Told of the words of one of our programs: another one that calls optim.run has flags of its own."""
    _shown.clear()
    _shown.update(SHOWS_ONLY & {word.split("=")[0] for word in words})


def when_hub(with_hub: str, without: str) -> str:
    """`with_hub` if the default model and data can be had from the hub or its cache, else `without`."""
    if _shown:
        return with_hub  # nothing will be loaded: not worth two seconds
    if hub_state() in ("reachable", "cached"):
        return with_hub
    _replaced[without] = with_hub
    return without


@functools.cache
def hub_state() -> str:
    """`cached` (model and data, so nothing was asked), `reachable`, `offline` (by HF_HUB_OFFLINE) or `unreachable`."""
    if _defaults_are_cached():
        return "cached"
    if hub_is_off():
        return "offline"
    return "reachable" if hub_reachable() else "unreachable"


def explain(*chosen: str) -> str | None:
    """One line for the log if a default was replaced for want of a hub, else None.

    `chosen` are the names that the run has in the end (all, if none are given): under `-m` Hydra also asks for a
    default that every job overrides.
    """
    replaced = {new: old for new, old in _replaced.items() if not chosen or new in chosen}
    if not replaced:
        return None
    why = "The model hub cannot be reached"
    if hub_state() == "offline":
        why = f"{offline_by()} is set and the hub's cache lacks DistilBERT or SST-2"
    return (
        f"{why}: using {' and '.join(replaced)} in place of {' and '.join(replaced.values())}; "
        "model=... and data=... override this."
    )


def default_choice(*chosen: str) -> dict[str, object]:
    """What the result records: the state of the hub (`not asked` if nothing depends on it) and what stands for what."""
    replaced = {new: old for new, old in _replaced.items() if not chosen or new in chosen}
    return {"hub": hub_state() if hub_state.cache_info().currsize else "not asked", "replaced": replaced}


def offline_by() -> str | None:
    """The variable of the environment that forbids asking the hub, if one does."""
    name = next((name for name in OFFLINE if os.environ.get(name)), None)
    return name if name and os.environ[name].upper() in ("1", "ON", "YES", "TRUE") else None


def hub_is_off() -> bool:
    """True where the environment forbids asking the hub."""
    return offline_by() is not None


def why_no_hub() -> str:
    """The start of a sentence: why nothing was asked of the hub, or nothing came."""
    return f"{offline_by()} is set" if hub_is_off() else f"the hub ({hub_endpoint()}) cannot be reached"


def hub_endpoint() -> str:
    """The address of the hub."""
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


@functools.cache
def hub_reachable() -> bool:
    """True if the hub answers within PROBE_S. Asked once for the process; never asked under HF_HUB_OFFLINE."""
    if hub_is_off():
        return False
    import urllib.request  # noqa: F401, loaded here so that the time-out is the network's alone

    certificates, answers = _certificates(), []
    # A thread, because no time-out bounds name resolution; a daemon, because it may outlive the program.
    probe = threading.Thread(target=lambda: answers.append(_answers(hub_endpoint(), certificates)), daemon=True)
    probe.start()
    probe.join(PROBE_S)
    return answers == [True]


def _answers(endpoint: str, certificates) -> bool:
    """True if an HTTP server that does not turn us away answers at `endpoint`, through the proxy if one is set."""
    import http.client
    import urllib.error
    import urllib.request

    try:
        request = urllib.request.Request(endpoint, method="HEAD", headers={"User-Agent": "distilbert-optim"})
        urllib.request.urlopen(request, timeout=PROBE_S, context=certificates).close()
    except urllib.error.HTTPError as error:
        return error.code in (401, 404, 405)  # mirrors need not serve their root; 403 and 5xx are firewalls and faults
    except (OSError, ValueError, http.client.HTTPException):
        return False
    return True


def _certificates():
    """A TLS context that trusts the system's authorities and certifi's, as some Pythons come without the former."""
    import ssl

    import certifi

    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context


def hub_home() -> Path:
    """The folder of Hugging Face's caches, as huggingface_hub finds it."""
    default = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "huggingface"
    return Path(os.path.expandvars(os.environ.get("HF_HOME", str(default)))).expanduser()


def hub_names(hub_id: str) -> tuple[str, ...]:
    """The names a cache may hold something under: what is oldest on the hub had no namespace once.

    Only those who own that now: another's `bert-base-uncased` or `imdb` are not what that name once meant.
    """
    owner, _, name = hub_id.partition("/")
    return (hub_id, name) if owner in HEIRS else (hub_id,)


def _defaults_are_cached() -> bool:
    """True if a run of DistilBERT on SST-2 needs nothing from the hub."""
    try:
        return _holds_defaults(hub_home())
    except (OSError, RuntimeError):  # a folder that this user may not look into, or no home at all
        return False


def _holds_defaults(home: Path) -> bool:
    models = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE") or str(home / "hub")
    datasets = os.environ.get("HF_DATASETS_CACHE") or str(home / "datasets")
    (model_id, revision), (data_id, config) = DEFAULT_CHECKPOINT, DEFAULT_DATASET
    tables = [Path(datasets).expanduser() / name.replace("/", "___") / config for name in hub_names(data_id)]
    if not any(any(table.glob("*/*/dataset_info.json")) for table in tables):
        return False
    return any(_holds(Path(models).expanduser(), name, revision) for name in hub_names(model_id))


def _holds(models: Path, name: str, revision: str) -> bool:
    """Whether the hub's cache `models` holds every file of a checkpoint."""
    from huggingface_hub import try_to_load_from_cache

    files = ("config.json", "model.safetensors", "tokenizer.json")
    found = [try_to_load_from_cache(name, file, cache_dir=models, revision=revision) for file in files]
    return all(isinstance(path, str) for path in found)
