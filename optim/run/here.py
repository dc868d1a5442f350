"""One point in this process, as Python code asks for it."""

from __future__ import annotations

from optim.common.errors import UserError
from optim.run import one_point
from optim.run.compose import composed
from optim.run.guarded import explaining
from optim.run.result import Result
from optim.run.words import require_known_words, require_words_arrive


def run_here(*words: str) -> Result:
    """The Result of the point that these words of train.py make."""
    with explaining():
        require_known_words(words)
        require_words_arrive(words)
        job = composed(words)
        if job.cfg.sweep.dry_run:
            raise UserError("sweep.dry_run=true is for optim.sweep and train.py: optim.run makes its point.")
        return one_point.run(job)
