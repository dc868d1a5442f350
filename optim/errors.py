"""Errors that are the user's to mend: shown in one or two lines, without a traceback."""

from __future__ import annotations


class UserError(ValueError):
    """A setting, a file or a machine that cannot be worked with. The message names it, the rule, the value and the fix."""


def require_fraction(setting: str, value: float, *, below: float = 1.0) -> None:
    """Raises UserError unless 0 <= value < below."""
    if not 0 <= value < below:
        hint = f" For {value:g} %, write {value / 100:g}." if 1 < value < 100 else ""
        raise UserError(f"{setting} must be a fraction in [0, {below:g}), got {value:g}.{hint}")


def require_positive(setting: str, value: float) -> None:
    """Raises UserError unless value > 0."""
    if not value > 0:
        raise UserError(f"{setting} must be above 0, got {value:g}.")
