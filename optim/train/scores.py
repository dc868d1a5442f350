"""What a model says of sentences, and how wrong that is."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import lru_cache
from pathlib import Path

import numpy as np

from optim.common.interrupts import Interrupts, held_back
from optim.data.tokens import Tokens, pad
from optim.train import saved

SCORE_BATCH = 256


def logits_of(
    model, tokens: Tokens, *, begun: Callable[[int], object] = lambda done: None,
    progress: Callable[[int], object] = lambda done: None, scratch: Path | None = None,
) -> np.ndarray:  # fmt: skip
    """Logits float32 [n, classes] of every sentence, in order.

    `begun` is told how many an earlier call had, `progress` how many there are after each batch.
    `scratch`: a folder where those that are there are saved every `saved.SAVE_SECONDS`, and when the call is stopped by
    Ctrl-C or SIGTERM, for the next one to go on from.
    """
    import tensorflow as tf

    forward = _forward(model)
    out = np.zeros((len(tokens), model.output_shape[-1]), np.float32)
    order, first, at = np.argsort(tokens.lengths, kind="stable"), 0, time.monotonic()
    if scratch and (before := saved.read(scratch)):
        out, first = before["logits"], int(before["done"])
    begun(first)
    with held_back() if scratch else nullcontext(Interrupts()) as stopped:
        for start in range(first, len(order), SCORE_BATCH):
            index = order[start : start + SCORE_BATCH]
            out[index] = forward(*map(tf.constant, pad(tokens, index))).numpy()
            progress(done := start + len(index))
            if scratch and (stopped.noted or time.monotonic() - at > saved.SAVE_SECONDS):
                saved.put(scratch, logits=out, done=done)
                stopped.act()
                at = time.monotonic()
    return out


@lru_cache(maxsize=1)  # a fit scores its model after each epoch and at the end: traced once
def _forward(model):
    """Compiled for batches of any shape: (ids, mask) -> logits."""
    import tensorflow as tf

    specs = (tf.TensorSpec([None, None], tf.int32),) * 2
    forward = tf.function(
        lambda ids, mask: model({"input_ids": ids, "attention_mask": mask}, training=False), autograph=False
    )
    return forward.get_concrete_function(*specs)


def forget() -> None:
    """Lets go of the model that was scored last: a teacher of 100 M parameters holds 0.4 GB."""
    _forward.cache_clear()


def cross_entropy(labels: np.ndarray, logits: np.ndarray) -> float:
    """Mean of -log softmax(logits)[label]; labels int [n], logits [n, classes]."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    return float(np.mean(np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(labels)), labels]))
