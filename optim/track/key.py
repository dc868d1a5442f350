"""What W&B's settings on this machine say: its mode, and whether it has a key. Looks without importing wandb."""

from __future__ import annotations

import configparser
import netrc
import os
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit


def wandb_mode() -> str:
    """The option of `track`: `wandb` where there is a key and `offline` elsewhere, unless WANDB_MODE forbids more."""
    mode = os.environ.get("WANDB_MODE") or settings().get("mode") or "online"
    if mode == "disabled":
        return "none"
    return "wandb" if mode in ("online", "shared") and has_key() else "offline"


def has_key() -> bool:
    """Whether wandb will find a key: in the environment, its settings files or netrc."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    own = settings()
    url = os.environ.get("WANDB_BASE_URL") or own.get("base_url") or "https://api.wandb.ai"
    return bool(own.get("api_key")) or _netrc_has(urlsplit(url).netloc)


def settings() -> dict[str, str]:
    """W&B's settings files, this folder's over this user's (`wandb login --host` writes them); {} without any."""
    user = Path(os.path.expanduser(os.environ.get("WANDB_CONFIG_DIR") or "~/.config/wandb"))  # a ~ stays without a home
    here = Path(os.environ.get("WANDB_DIR") or ".") / "wandb"
    parser = configparser.ConfigParser(interpolation=None, default_section="")
    with suppress(OSError, ValueError, configparser.Error):  # ValueError: not UTF-8
        parser.read([user / "settings", here / "settings"], encoding="utf-8")
    return dict(parser["default"]) if parser.has_section("default") else {}


def _netrc_has(host: str) -> bool:
    """Whether a netrc file of this user holds a password for `host`."""
    given = os.environ.get("NETRC")
    for path in [given] if given else ["~/.netrc", "~/_netrc"]:
        with suppress(OSError, ValueError, netrc.NetrcParseError):
            entry = netrc.netrc(os.path.expanduser(path)).authenticators(host)
            if entry and entry[2]:
                return True
    return False
