"""How much each part of a fine-tuned model matters: by the loss without it, to first order, or by its weights' size.

A gate of 1 stands at the output of each part. The derivative of the loss by a gate, of one sentence, is the sum over
its tokens of output * gradient; a part matters by the mean over sentences of that number's size (Michel et al. 2019,
equation 2, arXiv:1905.10650; Molchanov et al. 2019, arXiv:1906.10771). Layers may also be weighed against each other by
what a table of `sweep=sensitivity` has found.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from optim.cut.kept import Weights
from optim.data.tokens import Tokens, bucketed_batches, pad
from optim.encoder.architecture import Architecture

BATCH = 32  # sentences
WEIGHING = 1  # of how a table weighs layers (`scales`); raised when other parts would go
SENSITIVITY = "sensitivity"  # the table of what each part bears (`measure/sensitivity.py`)
HEAD, FFN = "one head removed", "quarter of ffn removed"  # changes of a layer, as a sensitivity table names them


@dataclass(frozen=True, kw_only=True)
class Importance:
    """Of each part, 0 or above: comparable within each field, and by `taylor` between heads, columns and layers too."""

    heads: tuple[np.ndarray, ...]  # per layer, float [heads]
    columns: tuple[np.ndarray, ...]  # per layer, float [ffn_width]
    layers: np.ndarray  # float [layers]: of a layer as a whole
    width: np.ndarray  # float [width]: of the hidden size
    pooled: np.ndarray  # float [width]: of the pooler's outputs


@dataclass(frozen=True, kw_only=True)
class Scales:
    """What a layer's importance is multiplied by, each float [layers]."""

    heads: np.ndarray
    columns: np.ndarray
    layers: np.ndarray

    def of(self, own: Importance, layers: Sequence[int]) -> Importance:
        """The importance of a model that has kept these layers of the whole one."""
        return replace(
            own, heads=tuple(self.heads[i] * found for i, found in zip(layers, own.heads, strict=True)),
            columns=tuple(self.columns[i] * found for i, found in zip(layers, own.columns, strict=True)),
            layers=self.layers[list(layers)] * own.layers,
        )  # fmt: skip


def scales(shape: Architecture, weights: Weights, own: Importance, rows: Sequence[Mapping[str, Any]]) -> Scales:
    """Those by which layers stand to each other as a sensitivity table says that they bear the loss of a part.

    own: the importance of all of the model; rows: the table's. A removed part matters by the root of the divergence
    without it: that grows with a change as importance does, the divergence itself with its square. What a kind of part
    has to that root in a layer, over the median of all layers, scales the kind there; so heads as a whole and columns
    as a whole stand to each other as before. A layer's own gate is scaled by the mean of both.
    """
    count = range(len(shape.heads))
    found = {(r["layer"], r["change"]): max(r["kl_nats"], 0.0) ** 0.5 for r in rows if r["change"] in (HEAD, FFN)}
    heads = [own.heads[i][least_head(*sides(weights, i, "value", "attention_output"), shape.head_width)] for i in count]
    columns = [together(own.columns[i][least_columns(*sides(weights, i, "ffn_in", "ffn_out"))]) for i in count]
    of_heads = _levelled([found[i, HEAD] for i in count], heads)
    of_columns = _levelled([found[i, FFN] for i in count], columns)
    return Scales(heads=of_heads, columns=of_columns, layers=(of_heads + of_columns) / 2)


def _levelled(wanted: Any, had: Any) -> np.ndarray:
    """wanted / had over the median of that; 1 where nothing is had, which then says nothing."""
    wanted, had = np.asarray(wanted, np.float64), np.asarray(had, np.float64)
    ratios = np.divide(wanted, had, out=np.full_like(had, np.nan), where=had > 0)
    middle = np.nanmedian(ratios) if np.isfinite(ratios).any() else 0.0
    return np.where(np.isnan(ratios), 1.0, ratios / middle) if middle > 0 else np.ones_like(had)


def sides(weights: Mapping[str, np.ndarray], layer: int, into: str, out: str) -> tuple[np.ndarray, np.ndarray]:
    """The kernels on both sides of a layer's heads or columns: float [inputs, outputs] each."""
    return weights[f"layer{layer}_{into}/kernel:0"], weights[f"layer{layer}_{out}/kernel:0"]


def least_head(value: np.ndarray, output: np.ndarray, head_width: int) -> int:
    """The head with the smallest product of the norms of its value and output kernels."""
    heads = value.shape[1] // head_width
    return int((_norms(value.T.reshape(heads, -1)) * _norms(output.reshape(heads, -1))).argmin())


def least_columns(into: np.ndarray, out: np.ndarray) -> np.ndarray:
    """The quarter of the feed-forward columns with the smallest product of the norms of both sides: int [columns]."""
    return np.argsort(_norms(into.T) * _norms(out), kind="stable")[: len(out) // 4]


def _norms(rows: np.ndarray) -> np.ndarray:
    return np.sqrt((rows**2).sum(axis=1))


def together(importance: np.ndarray) -> float:
    """Of parts that go at once: as one gate for all of them, if what they do to the loss were independent."""
    return float(np.sqrt(np.square(importance).sum()))


def magnitude(shape: Architecture, weights: Mapping[str, np.ndarray]) -> Importance:
    """By the Euclidean norm of the weights that would go: no sentence is looked at."""

    def kernel(name: str) -> np.ndarray:
        return weights[f"{name}/kernel:0"].astype(np.float64) ** 2

    def of_head(layer: int) -> np.ndarray:
        into = sum(kernel(f"layer{layer}_{part}").sum(axis=0) for part in ("query", "key", "value"))
        whole = into + kernel(f"layer{layer}_attention_output").sum(axis=1)
        return np.sqrt(np.reshape(whole, (-1, shape.head_width)).sum(axis=1))

    def of_column(layer: int) -> np.ndarray:
        return np.sqrt(kernel(f"layer{layer}_ffn_in").sum(axis=0) + kernel(f"layer{layer}_ffn_out").sum(axis=1))

    count = range(len(shape.heads))
    heads, columns = tuple(map(of_head, count)), tuple(map(of_column, count))
    words = weights["word_embeddings/embeddings:0"].astype(np.float64) ** 2
    pooled = kernel("pooler").sum(axis=0) + kernel("classifier").sum(axis=1)
    layers = [np.sqrt((heads[i] ** 2).sum() + (columns[i] ** 2).sum()) for i in count]
    return Importance(heads=heads, columns=columns, layers=np.array(layers), width=np.sqrt(words.sum(axis=0)),
                      pooled=np.sqrt(pooled))  # fmt: skip


def taylor(shape: Architecture, weights: Weights, sample: Tokens, *, progress: Callable[[int], object]) -> Importance:
    """By the cross-entropy of the labelled sentences of `sample`; `progress` is told how many were seen."""
    import tensorflow as tf

    from optim.encoder import graph

    model = graph.classifier(shape, whole=True)
    for variable in model.weights:
        variable.assign(weights[variable.name])
    gates = _gates_of(model, shape)
    totals: dict[str, np.ndarray] = {}
    for batch in bucketed_batches(sample.lengths, BATCH, np.random.default_rng(0)):
        ids, mask = map(tf.constant, pad(sample, batch))
        for name, value in gates(ids, mask, tf.constant(sample.labels[batch])).items():
            totals[name] = totals.get(name, 0) + np.abs(value.numpy()).sum(axis=0, dtype=np.float64)
        progress(len(batch))
    return _importance({name: total / len(sample) for name, total in totals.items()}, len(shape.heads))


def _importance(means: Mapping[str, np.ndarray], layers: int) -> Importance:
    return Importance(
        heads=tuple(means[f"heads{i}"] for i in range(layers)),
        columns=tuple(means[f"columns{i}"] for i in range(layers)),
        layers=np.array([float(means[f"layer{i}"].sum()) for i in range(layers)]),
        width=np.sum([means[name] for name in means if name.startswith("width")], axis=0),
        pooled=means["pooled"],
    )


def _gates_of(model, shape: Architecture):
    """A function (ids, mask, labels) -> name of a group of gates -> their derivatives, float [batch, gates]."""
    import tensorflow as tf

    from optim.train.objective import hard_loss, watching

    layers = range(len(shape.heads))
    norms = ["embeddings_norm", *(f"layer{i}_{part}_norm" for i in layers for part in ("attention", "ffn"))]
    parts = ("attention", "gelu", "attention_output", "ffn_out")
    watched = [*norms, *(f"layer{i}_{part}" for i in layers for part in parts), "pooler"]
    view = watching(model, watched)

    @tf.function(reduce_retracing=True, autograph=False)
    def derivatives(ids, mask, labels):
        with tf.GradientTape() as tape:
            seen = view(ids, mask, training=False)
            loss = tf.reduce_sum(hard_loss(labels, seen.logits))  # of each sentence, and no sentence sees another
        outputs = dict(seen.layers)
        slopes = tape.gradient(loss, outputs)
        rows, count = tf.where(mask)[:, 0], tf.shape(ids)[0]

        def gate(name: str):
            product = outputs[name] * slopes[name]
            return product if name == "pooler" else tf.math.unsorted_segment_sum(product, rows, count)

        found = {f"width_{name}": gate(name) for name in norms} | {"pooled": gate("pooler")}
        for i in layers:
            own = tf.reshape(gate(f"layer{i}_attention"), [count, shape.heads[i], shape.head_width])
            found[f"heads{i}"] = tf.reduce_sum(own, axis=2)
            found[f"columns{i}"] = gate(f"layer{i}_gelu")
            both = gate(f"layer{i}_attention_output") + gate(f"layer{i}_ffn_out")
            found[f"layer{i}"] = tf.reduce_sum(both, axis=1, keepdims=True)
        return found

    return derivatives
