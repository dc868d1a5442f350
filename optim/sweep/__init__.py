"""Many points. The package can be called: `optim.sweep("prune=none,fixed50", "quant=none,int8")` runs and compares."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from optim.sweep.here import Swept


class _Callable(ModuleType):
    """This package, which is called by the name that its files lie under."""

    def __call__(self, *words: str) -> Swept:
        """Every combination of the words, each point in a process of its own; the comparison of those that are done.

        The words are those of `train.py -m`; sweep=NAME names a grid or recipes of conf/sweep. The plan comes first,
        and nothing that is done is done again. A point that fails is in `failed`. Raises UserError for a mistake in
        any point, before the first one starts.
        """
        from optim.common.extras import require_extra

        require_extra()
        from optim.sweep.here import sweep_here

        return sweep_here(*words)


sys.modules[__name__].__class__ = _Callable
