"""Secrets of the environment, kept out of everything that is written or shown.

A config can hold `${oc.env:NAME}`, and a command line what the shell put into it. Values of variables whose names look
like those of secrets are replaced by `***NAME***` wherever a result, a card, a log, a line or a W&B message goes out.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from typing import Any

NAMES = re.compile(r"KEY|TOKEN|SECRET|PASSWORD", re.IGNORECASE)
LEAST_CHARACTERS = 6  # of a secret: a shorter value would be found in the middle of ordinary words


def secrets() -> dict[str, str]:
    """Value -> name of the variable, the longest value first, so that none is left half replaced."""
    found = {value: name for name, value in os.environ.items() if NAMES.search(name) and len(value) >= LEAST_CHARACTERS}
    return dict(sorted(found.items(), key=lambda item: -len(item[0])))


def masked(value: Any) -> Any:
    """The same text, dictionary or list without any secret in it; other values as they are."""
    known = secrets()
    return _masked(value, known) if known else value


def _masked(value: Any, known: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        for secret, name in known.items():
            value = value.replace(secret, f"***{name}***")
        return value
    if isinstance(value, Mapping):
        return {_masked(key, known): _masked(entry, known) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_masked(entry, known) for entry in value]
    return value


class Masking(logging.Filter):
    """Takes secrets out of what a handler writes."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Always true; the record's message is the masked one."""
        record.msg, record.args = masked(record.getMessage()), ()
        return True
