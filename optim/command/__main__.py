"""`python -m optim.command train prune=fixed50`: the programs under their names, from any folder."""

from __future__ import annotations

import sys
from collections.abc import Callable

from optim.common.extras import require_extra


def train() -> int:
    """optim-train: the exit code."""
    return _program("train")


def sweep() -> int:
    """optim-sweep: the exit code."""
    return _program("sweep")


def _program(name: str) -> int:
    """Runs optim/command/NAME.py, or says which packages it lacks."""
    from importlib import import_module

    from optim.common.errors import UserError

    try:
        require_extra()
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    return import_module(f"optim.command.{name}").start()


def main() -> int:
    """The program that the first word names."""
    programs: dict[str, Callable[[], int]] = {"train": train, "sweep": sweep}
    name = sys.argv.pop(1) if len(sys.argv) > 1 else None
    if name not in programs:
        print(f"Error: the first word must be {' or '.join(programs)}, got {name!r}.", file=sys.stderr)
        return 2
    return programs[name]()


if __name__ == "__main__":
    sys.exit(main())
