"""One run: config in, Result out. `python train.py prune=fixed50 quant=int8`. With -m: every combination, compared."""

from __future__ import annotations

import sys

from optim.command.train import main, start

__all__ = ["main", "start"]

if __name__ == "__main__":
    sys.exit(start())
