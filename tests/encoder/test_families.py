"""What holds of every family that is built: answers against Hugging Face's in tests/golden, its file, its config."""

from __future__ import annotations

import numpy as np
import pytest
import tf_keras as keras
from golden_cases import (
    EVERY_FAMILY,
    TOLERANCE,
    answers,
    cases,
    changed_config,
    config_refusal,
    error,
    loaded,
    shape_of,
)

from optim.encoder import graph
from optim.export.convert import convert
from optim.measure.runtime import Classifier


@pytest.fixture(scope="module", params=EVERY_FAMILY)
def family(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def model(family) -> keras.Model:
    """The golden model; no test changes its weights."""
    return loaded(family)


@pytest.fixture(scope="module")
def single(family, model) -> keras.Model:
    """The same in the graph of one sentence, which is the one that is exported."""
    one = graph.classifier(shape_of(family), single=True)
    one.set_weights(model.get_weights())  # the way a trained model reaches this graph
    return one


def test_padded_batch_gives_the_golden_logits(family, model):
    assert cases(family)["logits"].std(axis=0).min() > 0.1  # the sentences differ: a constant would not pass
    assert error(model, family) <= TOLERANCE


def test_each_sentence_alone_gives_the_golden_logits(family, single):
    case = cases(family)
    for ids, mask, logits in zip(case["input_ids"], case["attention_mask"], case["logits"], strict=True):
        found = answers(single, ids[None, : mask.sum()], mask[None, : mask.sum()])
        assert found.shape == (1, 3)
        assert np.abs(found[0] - logits).max() <= TOLERANCE


def test_the_float_file_answers_like_the_graph_at_every_length(family, single, tmp_path):
    file = tmp_path / "model.tflite"
    file.write_bytes(convert(single))
    case, classifier = cases(family), Classifier(file, 1)
    for ids, mask, logits in zip(case["input_ids"], case["attention_mask"], case["logits"], strict=True):
        assert np.abs(classifier.logits(ids[: mask.sum()]) - logits).max() <= 1e-4


def test_parameters_are_counted_without_building(family, model):
    assert shape_of(family).parameters == model.count_params()


@pytest.mark.parametrize(
    ("of", "key", "value"),
    [
        ("bert", "model_type", "roberta"),
        ("bert", "model_type", None),
        ("bert", "hidden_act", "gelu_new"),
        ("bert", "position_embedding_type", "relative_key"),
        ("distilbert", "activation", "relu"),
        ("mobilebert", "hidden_act", "gelu"),
        ("mobilebert", "normalization_type", "layer_norm"),
        ("mobilebert", "trigram_input", False),
        ("mobilebert", "use_bottleneck", False),
        ("mobilebert", "use_bottleneck_attention", True),
        ("mobilebert", "key_query_shared_bottleneck", False),
        ("mobilebert", "classifier_activation", True),
        ("mobilebert", "num_feedforward_networks", 0),
        ("mobilebert", "num_attention_heads", 5),
        ("mpnet", "hidden_act", "relu"),
        ("mpnet", "relative_attention_num_buckets", 16),
        ("mpnet", "max_position_embeddings", 2),
    ],
)
def test_config_that_cannot_be_built_is_refused(of, key, value, tmp_path):
    message = config_refusal(changed_config(tmp_path, of, **{key: value}))
    assert key in message
    assert repr(value) in message
