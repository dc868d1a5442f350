"""One run: config in, Result out. `python train.py prune=fixed50 quant=int8`. With -m: every combination, compared."""

from __future__ import annotations

import sys

from optim.common.extras import leave_without

try:
    from optim.command.train import main, start
except ModuleNotFoundError as error:  # of another Python than that of .venv
    leave_without(error)

__all__ = ["main", "start"]

if __name__ == "__main__":
    sys.exit(start())
