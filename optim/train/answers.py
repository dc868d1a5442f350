"""What teachers say of the sentences: how it is stored, and the mean of several.

An ensemble's answer is the mean of its members' soft answers, the soft-maxes of their logits / temperature
(Hinton et al. 2015, section 1, arXiv:1503.02531; deep ensembles: Lakshminarayanan et al. 2017, arXiv:1612.01474).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from optim.common.errors import UserError

# A teacher must get so much of what the commonest label gets wrong: 0.55 right of two classes as frequent. Less may be
# chance, on a slice of two hundred sentences, and a student follows its teacher down to it.
LEAST_GAIN = 0.1
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


def require_tuned(teacher: str, labels: np.ndarray, logits: np.ndarray, weights: np.ndarray) -> None:
    """Raises UserError unless the teacher gets LEAST_GAIN of the sentences right that the commonest label gets wrong.

    labels: int [n], of sentences that it was not fitted on; logits: float [n, classes]; weights: float [classes], what
    a sentence of each class counts. A teacher at random, or one whose fit has failed, is as right as one label. Where
    all of them have that one, as a class of one in a thousand leaves it, nothing tells a good teacher from it.
    """
    if len(np.unique(labels)) == 1:
        return
    each = weights[labels] / weights[labels].sum()
    right = float(each[logits.argmax(axis=1) == labels].sum())
    common = max(float(each[labels == label].sum()) for label in np.unique(labels))
    least = common + LEAST_GAIN * (1 - common)
    if right < least:
        raise UserError(
            f"The teacher {teacher} has {right:.4f} of the held-out slice of train right, where its commonest label "
            f"has {common:.4f}: one that teaches needs {least:.4f}. Raise fit.teacher.epochs (or steps, "
            "where those are set), or take another teacher."
        )


def mean_soft(logits: Sequence[np.ndarray], temperature: float) -> np.ndarray:
    """The mean over the teachers of soft-max(logits / temperature): float [n, classes] from as many of that shape."""
    from scipy.special import softmax

    return softmax(np.stack(logits).astype(np.float64) / temperature, axis=-1).mean(axis=0)
