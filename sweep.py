"""Many runs -> one comparison. `python sweep.py sweep=paper data=sst2`, `python sweep.py sweep=pick budget.file_mb=10`.

Words that are no key of conf/sweep.yaml go to train.py as they are. Without words it lists what there is.
"""

from __future__ import annotations

import sys

from optim.common.extras import leave_without

try:
    from optim.command.sweep import main, start
except ModuleNotFoundError as error:  # of another Python than that of .venv
    leave_without(error)

__all__ = ["main", "start"]

if __name__ == "__main__":
    sys.exit(start())
