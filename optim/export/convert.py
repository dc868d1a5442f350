"""Keras classifier -> float32 or float16 .tflite bytes."""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Iterator

from optim.export.flatbuffer import without_squared_differences

SIGNATURE = "serving_default"
# Version of the file that a model becomes: raised when it has other operations, of the graph of one sentence or made
# here. Files are made anew then, and no fit is.
OPERATIONS = 2


def convert(model, *, half: bool = False) -> bytes:
    """The .tflite bytes of a `single` classifier: inputs int32 [1, length] of any length, output `logits`.

    A norm's squares are products: XNNPACK takes the mean of x * x in one pass, that of SQUARED_DIFFERENCE in two.
    """
    import tensorflow as tf

    with tempfile.TemporaryDirectory() as folder, _quiet():
        module, serve = _served(model)
        tf.saved_model.save(module, folder, signatures=serve)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        if half:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.target_spec.supported_types = [tf.float16]
        return without_squared_differences(converter.convert())


def _served(model):
    """(module that owns the weights, its one signature, which names its inputs and its output)."""
    import tensorflow as tf

    module = tf.Module()
    # The variables alone: a Keras model in it would have every layer traced four times over, twenty seconds in all.
    module.weights = model.weights  # type: ignore[attr-defined]

    @tf.function(autograph=False)
    def serve(input_ids, attention_mask):
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
        return {"logits": model(inputs, training=False)}

    specs = (tf.TensorSpec([1, None], tf.int32, name) for name in ("input_ids", "attention_mask"))
    return module, serve.get_concrete_function(*specs)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Holds back the progress bars and tables that the converter and the quantizer print."""
    import warnings

    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        yield
