"""Errors that the user can correct: shown in one or two lines, without a traceback."""

from __future__ import annotations

MOST_SHOWN = 80  # characters of a value in a message


class UserError(ValueError):
    """A setting, file or machine that cannot be worked with. The message names it, the rule, the value and the fix."""


class UnknownKey(UserError):
    """A key that nothing reads. `key` is its whole name, as on a command line."""

    def __init__(self, message: str, key: str) -> None:
        super().__init__(message)
        self.key = key


def shown(value: object) -> str:
    """A value out of the user's files as a message shows it: a text or list that is long is cut."""
    whole = repr(value)
    return whole if len(whole) <= MOST_SHOWN else f"{whole[: MOST_SHOWN - 4]} ..."


def require_number(setting: str, value: object) -> None:
    """Raises UserError for a word, a truth value or nothing."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UserError(f"{setting} must be a number, got {value!r}.")


def require_fraction(setting: str, value: float, *, one: bool = False) -> None:
    """Raises UserError unless 0 <= value < 1, or value is 1 where `one` allows it."""
    require_number(setting, value)
    if not (0 <= value < 1 or (one and value == 1)):
        hint = f" For {value:g} %, write {value / 100:g}." if 1 < value < 100 else ""
        raise UserError(f"{setting} must be a fraction in [0, 1{']' if one else ')'}, got {value:g}.{hint}")


def require_positive(setting: str, value: float) -> None:
    """Raises UserError unless value > 0."""
    require_number(setting, value)
    if not value > 0:
        raise UserError(f"{setting} must be above 0, got {value:g}.")


def require_not_negative(setting: str, value: float) -> None:
    """Raises UserError unless value >= 0."""
    require_number(setting, value)
    if not value >= 0:
        raise UserError(f"{setting} must be 0 or above, got {value:g}.")


def require_count(setting: str, value: int) -> None:
    """Raises UserError unless value is a whole number above 0."""
    require_positive(setting, value)
    if not isinstance(value, int):
        raise UserError(f"{setting} must be a whole number, got {value:g}.")


def require_seed(setting: str, value: int, *, count: int = 1) -> None:
    """Raises UserError unless value and the `count` - 1 numbers after it are seeds: 0 to 2^31 - 1."""
    if not 0 <= value <= 2**31 - count:
        raise UserError(f"{setting} must be a whole number from 0 to {2**31 - count}, got {value}.")
