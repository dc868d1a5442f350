"""Makes .tflite files whose logits are known without running them: each token adds its row of a table."""

from __future__ import annotations

from pathlib import Path

import numpy as np

# Adding these rows up gives [sum of the ids, number of tokens]. With ids and mask swapped, row 1 is added once for
# every id, so that both logits are the sum of the ids.
IDS_AND_COUNT = np.stack([np.arange(50), np.ones(50)], axis=1).astype(np.float32)


def write_table_file(
    path: Path,
    table: np.ndarray,
    *,
    inputs: tuple[str, str] = ("input_ids", "attention_mask"),
    output: str = "logits",
    products: int = 0,
) -> Path:
    """logits = sum over tokens of mask * table[id]; float32 [vocabulary, classes] in, the path out.

    products: how many 256 x 256 matrix products every token costs on top; they add less than 1e-20 to a logit.
    """
    import tensorflow as tf

    kernel = tf.constant(np.random.default_rng(0).normal(0, 1 / 16, (256, 256)).astype(np.float32))
    row = tf.TensorSpec([1, None], tf.int32)

    @tf.function(input_signature=[tf.TensorSpec(row.shape, row.dtype, name=name) for name in inputs])
    def serve(ids, mask):
        logits = tf.reduce_sum(tf.gather(table, ids) * tf.cast(mask, tf.float32)[..., None], axis=1)
        if products:
            states = tf.tile(tf.cast(ids[0], tf.float32)[:, None], [1, 256])
            for _ in range(products):
                states = tf.nn.relu(tf.matmul(states, kernel))
            logits += 1e-30 * tf.tanh(tf.reduce_mean(states))
        return {output: logits}

    module = tf.Module()
    folder = path.with_suffix(".saved")
    tf.saved_model.save(module, str(folder), signatures={"serving_default": serve})
    path.write_bytes(tf.lite.TFLiteConverter.from_saved_model(str(folder)).convert())
    return path
