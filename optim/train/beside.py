"""Teachers in a step of a fit: those that run beside the student, and those whose answers were stored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from optim.data.alignment import Alignment
from optim.train.objective import Objective, View, watching

Alignments = Sequence[Alignment | None]  # of each teacher that runs; None for one that knows the student's words


def aligned_rows(alignments: Alignments, count: int) -> np.ndarray:
    """float32 [count, teachers that run]: 0 where one cuts the sentence into other pieces than the student, else 1."""
    found = np.ones((count, len(alignments)), np.float32)
    for column, alignment in enumerate(alignments):
        if alignment is not None:
            found[:, column] = alignment.same
    return found


def teacher_views(teachers: Sequence[Any], alignments: Alignments, objective: Objective, *, stored: bool
                  ) -> Callable[..., list[View]]:  # fmt: skip
    """(ids, mask, logits [batch, teachers, classes], aligned [batch, teachers that run]) -> what each teacher says.

    stored: the answers are the logits that are given, of which those teachers that run, the first ones, compute none.
    """
    import tensorflow as tf

    live = [_live(model, names, alignment, answers=not stored) for model, names, alignment
            in zip(teachers, objective.teacher_layers, alignments, strict=True)]  # fmt: skip

    def views(ids, mask, logits, aligned) -> list[View]:
        seen = [replace(view(ids, mask), aligned=aligned[:, i]) for i, view in enumerate(live)]
        if not stored:
            return seen
        said = tf.unstack(logits, axis=1)
        seen += [View(None, {}, mask)] * (len(said) - len(seen))
        return [replace(view, logits=own) for view, own in zip(seen, said, strict=True)]

    return views


def _live(model: Any, names: Sequence[str], alignment: Alignment | None, *, answers: bool) -> Callable[..., View]:
    """(ids, mask) -> View of a teacher that runs: no dropout, no gradient, the ids in its own words."""
    import tensorflow as tf

    view = watching(model, names, answers=answers)
    table = None if alignment is None else tf.constant(alignment.table)

    def seen(ids, mask) -> View:
        found = view(ids if table is None else tf.gather(table, ids), mask, training=False)
        logits = None if found.logits is None else tf.stop_gradient(found.logits)
        return replace(found, logits=logits, layers={k: tf.stop_gradient(v) for k, v in found.layers.items()})

    return seen
