"""Importance is the derivative of the loss by a gate: compared with a gate that is really moved."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from small_fit import SHAPE, filled, random_weights, tokens_of

from optim.cut.importance import FFN, HEAD, Importance, magnitude, scales, taylor
from optim.cut.kept import Kept
from optim.cut.structure import Criterion
from optim.cut.surgery import Patient, Removal, _sample
from optim.cut.vocabulary import Full
from optim.data.tokens import Tokens
from optim.encoder.store import ARCHITECTURE, WEIGHTS

STEP = 1e-2


def gated(weights, kernel: str, rows: slice | int, gate: float):
    """The weights whose `rows` of a kernel are `gate` times as large: a gate at what they multiply."""
    changed = {name: value.copy() for name, value in weights.items()}
    changed[f"{kernel}/kernel:0"][rows] *= gate
    return changed


def slopes(weights, sentences, kernel: str, rows: slice | int) -> np.ndarray:
    """The derivative of each sentence's cross-entropy by the gate, by differences."""
    models = (filled(SHAPE, gated(weights, kernel, rows, gate)) for gate in (1 + STEP, 1 - STEP))
    above, below = ([loss_of(model, sentence) for sentence in sentences] for model in models)
    return (np.array(above) - np.array(below)) / (2 * STEP)


def loss_of(model, sentence) -> float:
    ids, label = sentence
    logits = model({"input_ids": ids[None], "attention_mask": np.ones_like(ids[None])}, training=False).numpy()[0]
    return float(np.log(np.exp(logits.astype(np.float64)).sum()) - logits[label])


@pytest.fixture(scope="module")
def of_three():
    """What `taylor` finds over three sentences: it is the same for every part that is asked for."""
    return taylor(SHAPE, random_weights(SHAPE), tokens_of(3), progress=lambda done: None)


@pytest.mark.parametrize(
    ("part", "kernel", "rows"),
    [
        (lambda i: i.heads[0][1], "layer0_attention_output", slice(8, 16)),
        (lambda i: i.heads[1][0], "layer1_attention_output", slice(0, 8)),
        (lambda i: i.columns[0][3], "layer0_ffn_out", 3),
        (lambda i: i.columns[1][31], "layer1_ffn_out", 31),
        (lambda i: i.pooled[5], "classifier", 5),
    ],
)
def test_taylor_is_the_mean_size_of_the_slope_over_sentences(of_three, part, kernel, rows):
    tokens = tokens_of(3)
    each = slopes(random_weights(SHAPE), [(tokens.sentence(i), tokens.labels[i]) for i in range(3)], kernel, rows)
    assert part(of_three) == pytest.approx(np.mean(np.abs(each)), rel=0.02, abs=1e-5)


def test_taylor_sees_each_sentence_by_itself():
    """The batch that a sentence is in, and its order, change nothing."""
    weights, tokens = random_weights(SHAPE), tokens_of(40)
    one = taylor(SHAPE, weights, tokens, progress=lambda done: None)
    other = taylor(SHAPE, weights, tokens.take(np.arange(40)[::-1]), progress=lambda done: None)
    np.testing.assert_allclose(one.width, other.width, rtol=1e-4)
    np.testing.assert_allclose(one.layers, other.layers, rtol=1e-4)
    assert (len(one.layers), len(one.width)) == (2, 16)
    assert (one.width > 0).all()


def test_what_has_no_effect_has_no_importance():
    weights = gated(gated(random_weights(SHAPE), "layer0_ffn_out", 7, 0.0), "layer1_attention_output", slice(8, 16), 0)
    found = taylor(SHAPE, weights, tokens_of(5), progress=lambda done: None)
    assert found.columns[0][7] == 0
    assert found.heads[1][1] == 0
    assert np.count_nonzero(found.columns[0]) == 31


def test_a_layer_is_scaled_by_what_a_table_says_of_its_parts():
    """Two layers of two heads of width 1 and four columns.

    The weakest head by its norms is head 1 of layer 0 and head 0 of layer 1, and so is the weakest column, 3 and 2.
    Columns: roots of 0.6 and 0.1 over 3 and 2 make 0.2 and 0.05, over their median of 0.125 1.6 and 0.4. Of layer 1 the
    head that went does nothing by `taylor`, so heads stand to each other as before.
    """
    shape = replace(SHAPE, width=2, head_width=1, heads=(2, 2), ffn_widths=(4, 4), vocabulary_size=2)
    own = Importance(
        heads=(np.array([6.0, 4]), np.array([0.0, 3])), columns=(np.array([9.0, 8, 7, 3]), np.array([1.0, 1, 2, 1])),
        layers=np.array([20.0, 10]), width=np.ones(2), pooled=np.ones(2),
    )  # fmt: skip
    ones = {"value": (2, 2), "attention_output": (2, 2), "ffn_in": (2, 4), "ffn_out": (4, 2)}
    weights = {f"layer{i}_{part}/kernel:0": np.ones(shape) for i in (0, 1) for part, shape in ones.items()}
    weights["layer0_value/kernel:0"][:, 1] = weights["layer1_attention_output/kernel:0"][0] = 0.5
    weights["layer0_ffn_in/kernel:0"][:, 3] = weights["layer1_ffn_out/kernel:0"][2] = 0.5
    rows = [{"layer": layer, "change": change, "kl_nats": root**2, "part": f"layer{layer}"}
            for layer, change, root in ((0, HEAD, 0.2), (0, FFN, 0.6), (1, HEAD, 0.0), (1, FFN, 0.1))]  # fmt: skip
    found = scales(shape, weights, own, rows)
    np.testing.assert_allclose(found.heads, [1, 1])
    np.testing.assert_allclose(found.columns, [1.6, 0.4])
    np.testing.assert_allclose(found.layers, [1.3, 0.7])
    last = Importance(heads=own.heads[1:], columns=own.columns[1:], layers=own.layers[1:], width=own.width,
                      pooled=own.pooled)  # fmt: skip
    weighed = found.of(last, [1])  # layer 0 has gone
    np.testing.assert_allclose(weighed.heads[0], [0, 3])
    np.testing.assert_allclose(weighed.columns[0], [0.4, 0.4, 0.8, 0.4])
    np.testing.assert_allclose(weighed.layers, [7])


def test_a_table_that_says_nothing_leaves_importance_as_it_is():
    """A divergence of nothing, which rounding may have below 0."""
    weights = random_weights(SHAPE)
    own = magnitude(SHAPE, weights)
    rows = [{"layer": layer, "change": change, "kl_nats": -1e-17} for layer in (0, 1) for change in (HEAD, FFN)]
    found = scales(SHAPE, weights, own, rows)
    np.testing.assert_array_equal([found.heads, found.columns, found.layers], np.ones((3, 2)))


def test_magnitude_by_hand():
    """Two heads of width 1 in a hidden size of 2, one column: squares that can be added in the head."""
    shape = replace(SHAPE, width=2, head_width=1, heads=(2,), ffn_widths=(1,), vocabulary_size=2)
    kernels = {
        "layer0_query": [[1, 0], [2, 0]], "layer0_key": [[2, 0], [0, 1]], "layer0_value": [[0, 2], [0, 2]],
        "layer0_attention_output": [[0, 4], [0, 0]], "layer0_ffn_in": [[3], [0]], "layer0_ffn_out": [[0, 4]],
        "pooler": [[3, 0], [0, 1]], "classifier": [[4, 0], [0, 0]],
    }  # fmt: skip
    weights = {f"{name}/kernel:0": np.array(value, np.float32) for name, value in kernels.items()}
    weights["word_embeddings/embeddings:0"] = np.array([[3, 0], [4, 1]], np.float32)
    found = magnitude(shape, weights)
    np.testing.assert_allclose(found.heads[0], [5, 3])  # 1 + 4 + 4 + 16 and 1 + 4 + 4 + 0
    np.testing.assert_allclose(found.columns[0], [5])  # 9 + 16
    np.testing.assert_allclose(found.layers, [np.sqrt(59)])
    np.testing.assert_allclose(found.width, [5, 1])
    np.testing.assert_allclose(found.pooled, [5, 1])


def each_slope(weights, sentences, names, index) -> np.ndarray:
    """The derivative of each sentence's cross-entropy by one gate at all of these variables, by differences."""
    sides = []
    for gate in (1 + STEP, 1 - STEP):
        changed = {name: value.copy() for name, value in weights.items()}
        for name in names:
            changed[f"{name}:0"][index] *= gate
        model = filled(SHAPE, changed)
        sides.append(np.array([loss_of(model, sentence) for sentence in sentences]))
    return (sides[0] - sides[1]) / (2 * STEP)


@pytest.fixture(scope="module")
def three():
    tokens = tokens_of(3)
    return [(tokens.sentence(i), tokens.labels[i]) for i in range(3)]


@pytest.mark.parametrize("layer", [0, 1])
def test_a_layer_has_one_gate_at_both_of_its_branches(of_three, three, layer):
    """Signs are kept between the branches: what one adds the other may take away."""
    names = [f"layer{layer}_{part}/{kind}" for part in ("attention_output", "ffn_out") for kind in ("kernel", "bias")]
    found = each_slope(random_weights(SHAPE), three, names, ...)
    assert of_three.layers[layer] == pytest.approx(np.abs(found).mean(), rel=0.02, abs=1e-5)


def test_a_hidden_unit_has_a_gate_at_each_norm_and_matters_by_their_sizes_together(of_three, three):
    norms = ["embeddings_norm", *(f"layer{i}_{part}_norm" for i in (0, 1) for part in ("attention", "ffn"))]
    slopes = [each_slope(random_weights(SHAPE), three, [f"{norm}/gamma", f"{norm}/beta"], 5) for norm in norms]
    assert of_three.width[5] == pytest.approx(sum(np.abs(one).mean() for one in slopes), rel=0.02, abs=1e-5)


def test_as_many_sentences_score_as_are_asked_for_and_the_seed_draws_them():
    train = Tokens(np.arange(60, dtype=np.int32), np.arange(61), np.zeros(60, np.int32))

    def drawn(samples: int, seed: int) -> list[int]:
        return sorted(_sample(train, Criterion(importance="taylor", samples=samples, seed=seed, steps=1)).ids.tolist())

    assert len(set(drawn(20, 0))) == 20
    assert drawn(99, 0) == list(range(60)), "all of fewer"
    assert drawn(20, 0) == drawn(20, 0) != drawn(20, 1)


@pytest.mark.parametrize("importance", ["taylor", "magnitude", "sensitivity"])
def test_parts_are_scored_by_what_is_asked_for(importance, tmp_path):
    weights, tokens = random_weights(SHAPE), tokens_of(5)
    slim: Any = SimpleNamespace(criterion=Criterion(importance=importance, samples=5, seed=0, steps=1))
    patient = Patient(folder=tmp_path, tokenizer=tmp_path, train=tokens)
    found = Removal(slim=slim, vocabulary=Full(), spec={})._score(patient, SHAPE, weights, Kept.all_of(SHAPE))
    by_norms = importance == "magnitude"
    wanted = magnitude(SHAPE, weights) if by_norms else taylor(SHAPE, weights, tokens, progress=lambda done: None)
    np.testing.assert_allclose(found.columns[0], wanted.columns[0], rtol=1e-4)


def test_a_second_cut_is_scaled_by_what_the_whole_model_said(tmp_path, monkeypatch):
    """The table is of the whole model: layer 1, once it is alone, keeps its own scales, whatever it matters by then."""
    seen: list[Importance] = []
    weights, whole = random_weights(SHAPE), Kept.all_of(SHAPE)
    last = replace(whole, layers=(1,), heads=whole.heads[1:], columns=whole.columns[1:])

    def choose(shape, score, latency):
        seen.extend((score(whole), score(last)))
        return last

    def scored(removal, patient, shape, weights, kept):
        own = magnitude(SHAPE, weights)
        return own if kept == whole else Importance(
            heads=(7 * own.heads[1],), columns=(9 * own.columns[1],), layers=own.layers[1:], width=own.width,
            pooled=own.pooled)  # fmt: skip

    monkeypatch.setattr(Removal, "_score", scored)
    (tmp_path / ARCHITECTURE).write_text(json.dumps(SHAPE.to_json()))
    save_file(weights, tmp_path / WEIGHTS)
    (tmp_path / "words.json").write_text("{}")
    rows = [{"layer": i, "change": change, "kl_nats": (1 + i) ** 2} for i in (0, 1) for change in (HEAD, FFN)]
    slim: Any = SimpleNamespace(criterion=Criterion(importance="sensitivity", samples=1, seed=0, steps=2),
                                changes=True, choose=choose)  # fmt: skip
    patient = Patient(folder=tmp_path, tokenizer=tmp_path / "words.json", train=tokens_of(2),
                      tables={"sensitivity": {"rows": rows}})  # fmt: skip
    (tmp_path / "out").mkdir()
    Removal(slim=slim, vocabulary=Full(), spec={}).cut(patient, tmp_path / "out")
    np.testing.assert_allclose(seen[1].heads[0], 7 * seen[0].heads[1])
    np.testing.assert_allclose(seen[1].columns[0], 9 * seen[0].columns[1])
    np.testing.assert_allclose(seen[1].layers, seen[0].layers[1:])
