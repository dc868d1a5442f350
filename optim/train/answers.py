"""What teachers say of the sentences: how it is stored, and the mean of several.

An ensemble's answer is the mean of its members' soft answers, the soft-maxes of their logits / temperature
(Hinton et al. 2015, section 1, arXiv:1503.02531; deep ensembles: Lakshminarayanan et al. 2017, arXiv:1612.01474).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from optim.common.errors import UserError

STORED = "float16"  # of the logits of a teacher; it is in their key


def halved(logits: np.ndarray) -> np.ndarray:
    """Logits in half precision, rounded to nearest: each within 2^-11 of itself, relative, from 2^-14 on.

    Smaller ones lose at most 2^-25. Raises UserError for logits that half precision cannot hold.
    """
    largest, bound = float(np.abs(logits).max(initial=0.0)), float(np.finfo(STORED).max)
    if not largest <= bound:
        raise UserError(
            f"A teacher's logits must be finite and within {bound:g} to be stored, got {largest:g}: "
            "its fit went wrong. Lower fit.teacher.learning_rate."
        )
    return logits.astype(STORED)


def mean_soft(logits: Sequence[np.ndarray], temperature: float) -> np.ndarray:
    """The mean over the teachers of soft-max(logits / temperature): float [n, classes] from as many of that shape."""
    scaled = np.stack(logits).astype(np.float64) / temperature
    powers = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
    return (powers / powers.sum(axis=-1, keepdims=True)).mean(axis=0)
