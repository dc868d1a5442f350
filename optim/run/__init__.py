"""One point. The package can be called: `optim.run("model=minilm", "quant=int8")` runs one and returns its Result."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from optim.run.result import Result


class _Callable(ModuleType):
    """This package, which is called by the name that its files lie under."""

    def __call__(self, *words: str) -> Result:
        """One point in this process: the words of train.py in, the Result out; its table is printed.

        results/<run_id> and the cache are where train.py leaves them, relative to the working folder. Raises UserError
        for a mistake in the words, and what went wrong in the run itself, after it was recorded.
        """
        from optim.common.extras import require_extra

        require_extra()
        from optim.run.here import run_here

        return run_here(*words)


sys.modules[__name__].__class__ = _Callable
