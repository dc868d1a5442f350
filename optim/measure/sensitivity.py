"""Which parts of a fitted model bear what: each changed alone, without training, and scored on held-out sentences.

The sentences are the held-out slice of train, from which no weight has learnt; dev is never looked at, since what this
says decides something (`quant=mixed`). Every figure is against the unchanged model on the same sentences:
percentage points of accuracy with a 95 % interval, how many answers change, and the mean Kullback-Leibler divergence of
the answers in nats, which tells parts apart where no answer changes.

| change                  | of a kernel, a layer, or the embeddings                                            |
|-------------------------|------------------------------------------------------------------------------------|
| weights int8, int4      | rounded as `quant=int8` and `int4` store them, all else as it is                   |
| activations int8        | what its products take, rounded with a scale of each token's own, as in `int8`     |
| activations int8 static | the same with one scale for all, from other sentences of train, as `int8_static`   |
| pruned 50 %, 80 %       | its smallest weights are 0                                                         |
| one head removed        | of a layer: that with the smallest product of the norms of its value and output    |
| quarter of ffn removed  | of a layer: the columns with the smallest product of the norms of their two sides  |
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from optim.common.screen import bar
from optim.cut.importance import FFN, HEAD, least_columns, least_head
from optim.data.tokens import Tokens, pad
from optim.export.quantize import Student
from optim.measure.quality import paired_change
from optim.train.inner import Inner
from optim.train.prune import prunable

# Of the table; raised when its figures mean something else, and with it that of `quant=mixed`. A cut that it weighs has
# it in its key.
VERSION = 3
EXAMPLES, RANGE_EXAMPLES, BATCH, BLOCK = 400, 128, 64, 32
TOGETHER_STEPS = 12  # that take all kernels to int4
EMBEDDINGS, ALL_OF = "word_embeddings", "layer{}"
INT8, INT4, TOKENS, STATIC = "weights int8", "weights int4", "activations int8", "activations int8 static"
PRUNED = {"pruned 50 %": 0.5, "pruned 80 %": 0.8}
CHANGES = (INT8, INT4, TOKENS, STATIC, *PRUNED, HEAD, FFN)
OFF, BY_TOKEN, BY_RANGE, RECORD = range(4)  # what a probe does to what its layer takes


def sensitivity_table(student: Student, *, block: int | None = BLOCK) -> dict[str, Any]:
    """The table as plain lists: examples, accuracy_fraction, rows (a change of a part), order_int4, together_int4.

    block: weights of a kernel that share a scale in int4; None: all of an output. order_int4 has the kernels that a
    file can have in int4: not the classifier, nor those whose inputs the block does not divide.
    """
    held = first(student.train.take(student.rows["held_out"]), EXAMPLES)
    probed = Probed(student.load_batch(), held)  # type: ignore[misc]
    seen = np.setdiff1d(np.arange(len(student.train)), student.rows["held_out"])
    probed.record(student.train.take(np.random.default_rng(0).permutation(seen)[:RANGE_EXAMPLES]))
    changes = list(_changes(probed, block))
    with bar("sensitivity", len(changes), "change") as shown:
        rows = []
        for part, layer, change, changed in changes:
            with changed():
                rows.append({"part": part, "layer": layer, "change": change, **probed.against_unchanged(layer)})
            shown.update(1)
    kernels = {name: probed.model.get_layer(name).kernel for name in prunable(probed.model)}
    small = {name for name, kernel in kernels.items() if not block or kernel.shape[0] % block == 0}
    order = [row["part"] for row in sorted(rows, key=lambda row: row["kl_nats"])
             if row["change"] == INT4 and row["part"] in small]  # fmt: skip
    return {
        "version": VERSION, "examples": len(held), "accuracy_fraction": float(probed.right.mean()),
        "rows": rows, "order_int4": order, "together_int4": _together(probed, order, block),
    }  # fmt: skip


def _together(probed: Probed, order: Sequence[str], block: int | None) -> list[dict[str, Any]]:
    """What the first 0, 1/12, 2/12 ... of the kernels lose in int4 together: drops do not add up."""
    ends = sorted({round(len(order) * k / TOGETHER_STEPS) for k in range(TOGETHER_STEPS + 1)})
    found = []
    for end in ends:
        with probed.weights({name: lambda kernel: rounded(kernel, 4, block) for name in order[:end]}):
            found.append({"kernels": list(order[:end]), **probed.against_unchanged(0)})
    return found


def first(tokens: Tokens, count: int) -> Tokens:
    """`count` of the sentences, drawn by a seed of their own; all where there are no more."""
    return tokens.take(np.random.default_rng(0).permutation(len(tokens))[:count])


Change = Callable[[], Any]  # -> a context in which the model is changed


def _changes(probed: Probed, block: int | None) -> Iterator[tuple[str, int, str, Change]]:
    """(part, layer, change, context): every kernel, every layer as a whole, and the embeddings."""
    for part, names in probed.parts().items():
        layer = probed.layer_of(names[0])
        edits = {INT8: lambda k: rounded(k, 8, None), INT4: lambda k: rounded(k, 4, block)}
        edits |= {change: (lambda k, share=share: pruned(k, share)) for change, share in PRUNED.items()}
        for change, edit in edits.items():
            yield part, layer, change, _bind(probed.weights, dict.fromkeys(names, edit))
        for change, mode in ((TOKENS, BY_TOKEN), (STATIC, BY_RANGE)):
            yield part, layer, change, _bind(probed.activations, names, mode)
    for index in range(probed.inner.depth):
        head = without_head(probed.model, index, probed.inner.head_width)
        yield ALL_OF.format(index), index, HEAD, _bind(probed.weights, head)
        yield ALL_OF.format(index), index, FFN, _bind(probed.weights, without_columns(probed.model, index))
    for change, edit in ((INT8, lambda t: rounded(t, 8, None, whole=True)), (INT4, lambda t: rounded(t.T, 4, BLOCK).T)):
        yield EMBEDDINGS, 0, change, _bind(probed.weights, {EMBEDDINGS: edit})


def _bind(context: Callable[..., Any], *arguments: Any) -> Change:
    return lambda: context(*arguments)


@dataclass(frozen=True)
class _Batch:
    index: np.ndarray  # int [batch], of the held-out sentences
    ids: Any
    mask: Any


class Probed:
    """A model whose parts can be changed and put back, and its answers on the held-out sentences.

    What lies before a changed layer is computed once: states between layers are kept for every batch.
    """

    def __init__(self, model: Any, held: Tokens) -> None:
        import tf_keras as keras

        self.model, self.held, self.kernels = model, held, [*prunable(model), "classifier"]
        self.probes = {name: _probe(model.get_layer(name)) for name in self.kernels}
        self.probed = keras.models.clone_model(model, clone_function=lambda one: self.probes.get(one.name, one))
        self.inner = Inner.of_model(model)
        # What every layer but the last gives, in the model with the probes; both models use a layer that is left alone.
        # Found before a model is made from them: Keras then uses the layers once more, and takes that for the last use.
        self.ends = [
            model.get_layer(self.inner.hidden(layer)).get_output_at(-1) for layer in range(1, self.inner.depth)
        ]
        self.tails: dict[int, Any] = {}
        order = np.argsort(held.lengths, kind="stable")
        self.batches = [_Batch(index, *pad(held, index)) for index in np.array_split(order, -(-len(order) // BATCH))]
        self.states = self._between_layers()
        self.unchanged = self.logits(0)
        self.right = self.unchanged.argmax(axis=1) == held.labels

    def parts(self) -> dict[str, list[str]]:
        """Name -> kernels: each by itself, then those of each layer."""
        layers: dict[str, list[str]] = {}
        for name in self.kernels:
            if found := re.match(r"layer(\d+)_", name):
                layers.setdefault(ALL_OF.format(found[1]), []).append(name)
        return {**{name: [name] for name in self.kernels}, **layers}

    def layer_of(self, name: str) -> int:
        """The layer of a kernel; what comes behind the last one counts as that one."""
        found = re.match(r"layer(\d+)_", name)
        behind = name in ("pooler", "classifier")
        return int(found[1]) if found else self.inner.depth - 1 if behind else 0

    def logits(self, layer: int) -> np.ndarray:
        """float32 [held out, classes] of the model as it is now; nothing before `layer` may have been changed."""
        out = np.zeros((len(self.held), self.model.output_shape[-1]), np.float32)
        for batch, states in zip(self.batches, self.states, strict=True):
            given = [] if layer == 0 else [states[layer - 1]]
            out[batch.index] = self._tail(layer)(batch.ids, batch.mask, *given).numpy()
        return out

    def against_unchanged(self, layer: int) -> dict[str, float]:
        """accuracy_points with low and high (95 %), changed_answers (a fraction), kl_nats."""
        now = self.logits(layer)
        points, low, high = paired_change(self.right, now.argmax(axis=1) == self.held.labels)
        changed = float(np.mean(now.argmax(axis=1) != self.unchanged.argmax(axis=1)))
        divergence = float(np.mean(_kl(self.unchanged, now)))
        return {"accuracy_points": points, "low": low, "high": high, "changed_answers": changed, "kl_nats": divergence}

    def record(self, tokens: Tokens) -> None:
        """Finds the range of what every kernel takes, over `tokens`."""
        with self.activations(list(self.probes), RECORD):
            for index in np.array_split(np.arange(len(tokens)), -(-len(tokens) // BATCH)):
                self._tail(0)(*pad(tokens, index))

    @contextmanager
    def weights(self, edits: Mapping[str, Callable[[np.ndarray], np.ndarray]]) -> Iterator[None]:
        """The model with the kernels, or the table, of some layers changed."""
        variables = {name: self.model.get_layer(name).weights[0] for name in edits}
        before = {name: variable.numpy() for name, variable in variables.items()}
        try:
            for name, edit in edits.items():
                variables[name].assign(edit(before[name]))
            yield
        finally:
            for name, value in before.items():
                variables[name].assign(value)

    @contextmanager
    def activations(self, names: Sequence[str], mode: int) -> Iterator[None]:
        """The model with what some kernels take rounded."""
        try:
            for name in names:
                self.probes[name].mode.assign(mode)
            yield
        finally:
            for name in names:
                self.probes[name].mode.assign(OFF)

    def _between_layers(self) -> list[list[Any]]:
        """For each batch, what every layer but the last gives."""
        import tensorflow as tf
        import tf_keras as keras

        if not self.ends:
            return [[] for _ in self.batches]
        run = _compiled(keras.Model(self._inputs(("input_ids", "attention_mask")), self.ends), ())
        return [[tf.identity(one) for one in tf.nest.flatten(run(batch.ids, batch.mask))] for batch in self.batches]

    def _inputs(self, names: Sequence[str]) -> dict[str, Any]:
        inputs: Any = self.probed.input  # by name
        return {name: inputs[name] for name in names}

    def _tail(self, layer: int) -> Any:
        """Compiled: (ids, mask, what the layer before gives) -> logits."""
        import tf_keras as keras

        if layer not in self.tails:
            # Behind the embeddings only a bias between positions still asks for the ids.
            reads_ids = layer == 0 or self.inner.relative
            names = ("input_ids", "attention_mask") if reads_ids else ("attention_mask",)
            before = {} if layer == 0 else {"states": self.ends[layer - 1]}
            tail = keras.Model({**self._inputs(names), **before}, self.probed.output)
            self.tails[layer] = _compiled(tail, tuple(one.shape[-1] for one in before.values()))
        return self.tails[layer]


def _compiled(model: Any, widths: tuple[int, ...]) -> Any:
    """A function of ids, mask, both [batch, length], and states [tokens, width] for each of `widths`."""
    import tensorflow as tf

    names = set(model.input)

    def run(ids, mask, *states):
        given = {"input_ids": ids, "attention_mask": mask, **dict(zip(("states",), states, strict=False))}
        return model({name: value for name, value in given.items() if name in names}, training=False)

    specs = [tf.TensorSpec([None, None], tf.int32)] * 2 + [tf.TensorSpec([None, width], tf.float32) for width in widths]
    return tf.function(run, input_signature=specs, autograph=False)


def _probe(layer: Any) -> Any:
    """A Keras layer around a Dense that can round, or look at, what it takes."""
    import tensorflow as tf
    import tf_keras as keras

    class Probe(keras.layers.Wrapper):
        """mode: OFF, BY_TOKEN, BY_RANGE or RECORD; low and high: the range that it has seen."""

        def build(self, input_shape):
            super().build(input_shape)
            start = {"initializer": "zeros", "trainable": False}
            self.mode = self.add_weight(name="mode", shape=(), dtype=tf.int32, **start)
            self.low, self.high = (self.add_weight(name=end, shape=(), **start) for end in ("low", "high"))

        def call(self, inputs):
            def by_range():
                return _int8(inputs, ends=(self.low, self.high))

            branches = [lambda: inputs, lambda: _int8(inputs, axis=-1), by_range, lambda: self._seen(inputs)]
            return self.layer(tf.switch_case(tf.identity(self.mode), branches))

        def _seen(self, inputs):
            low = self.low.assign(tf.minimum(self.low, tf.reduce_min(inputs)))
            high = self.high.assign(tf.maximum(self.high, tf.reduce_max(inputs)))
            with tf.control_dependencies([low, high]):
                return tf.identity(inputs)

    return Probe(layer, name=f"probed_{layer.name}")


def _int8(x: Any, axis: int | None = None, ends: tuple[Any, Any] | None = None) -> Any:
    """float [..., width] rounded to 256 steps between its ends, which are those of the axis where none are given."""
    import tensorflow as tf

    low, high = ends or (tf.reduce_min(x, axis, keepdims=True), tf.reduce_max(x, axis, keepdims=True))
    low, high = tf.minimum(low, 0.0), tf.maximum(high, 0.0)
    scale = tf.maximum(high - low, 1e-9) / 255
    zero = tf.round(-low / scale)
    return (tf.clip_by_value(tf.round(x / scale) + zero, 0, 255) - zero) * scale


def rounded(kernel: np.ndarray, bits: int, block: int | None, *, whole: bool = False) -> np.ndarray:
    """The kernel, float [inputs, outputs], as `bits` store it, symmetric about 0.

    One scale for each output, for each `block` of inputs of an output where that divides them, or one in all.
    """
    shape, most = kernel.shape, 2 ** (bits - 1) - 1
    parts = kernel.reshape(-1, 1) if whole else kernel
    if block and shape[0] % block == 0:
        parts = kernel.reshape(-1, block, shape[1]).transpose(1, 0, 2).reshape(block, -1)
    scale = np.maximum(np.abs(parts).max(axis=0, keepdims=True), 1e-12) / most
    stored = np.round(parts / scale) * scale
    if block and shape[0] % block == 0:
        stored = stored.reshape(block, -1, shape[1]).transpose(1, 0, 2)
    return stored.reshape(shape).astype(np.float32)


def pruned(kernel: np.ndarray, share: float) -> np.ndarray:
    """The kernel with `share` of its weights, the smallest, set to 0."""
    kept = np.sort(np.abs(kernel), axis=None)[round(share * kernel.size):]  # fmt: skip
    return np.where(np.abs(kernel) >= (kept[0] if len(kept) else math.inf), kernel, 0).astype(np.float32)


def without_head(model: Any, layer: int, head_width: int) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """Edits that remove the head with the smallest product of the norms of its value and output kernels."""
    value, output = (model.get_layer(f"layer{layer}_{part}").kernel.numpy() for part in ("value", "attention_output"))
    first = least_head(value, output, head_width) * head_width
    return {
        f"layer{layer}_attention_output": lambda kernel: _without_rows(kernel, np.arange(first, first + head_width))
    }


def without_columns(model: Any, layer: int) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """Edits that remove the quarter of the feed-forward columns with the smallest product of norms of both sides."""
    least = least_columns(*(model.get_layer(f"layer{layer}_{part}").kernel.numpy() for part in ("ffn_in", "ffn_out")))
    return {f"layer{layer}_ffn_out": lambda kernel: _without_rows(kernel, least)}


def _without_rows(kernel: np.ndarray, rows: np.ndarray) -> np.ndarray:
    kernel = kernel.copy()
    kernel[rows] = 0
    return kernel


def _kl(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """sum of p log(p / q) for each row of logits, nats: float [n]."""
    from scipy.special import log_softmax

    p, q = (log_softmax(logits.astype(np.float64), axis=1) for logits in (one, other))
    return (np.exp(p) * (p - q)).sum(axis=1)
