"""TensorFlow, made ready for this tool: imported late, with one Keras and without its notes on the screen."""

from __future__ import annotations

import logging
import os

from optim.common.screen import without_chatter


def prepare_tensorflow() -> None:
    """Imports TensorFlow, starts its devices, and keeps its notes on having found no GPU off the screen."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")  # else it imports Keras 3 as well: two seconds for nothing
    # TensorFlow turns oneDNN on by itself only where AVX-512 is; with AVX2 it makes a training step a tenth faster.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    with without_chatter():
        import tensorflow as tf

        tf.config.list_logical_devices()
