"""Pruning: which weights go, when, and that they stay away."""

# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportUnusedExpression=false
from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from conftest import CONF
from hydra import compose, initialize_config_dir
from small_fit import FIXED, RECIPE, SHAPE, fit_of, new_model, tokens_of

from optim.common.build import build
from optim.train.distill import SoftTargets
from optim.train.prune import Magnitude, prunable, zeroed_fractions


@pytest.mark.parametrize("name", sorted(p.stem for p in (CONF / "prune").glob("*.yaml")))
def test_every_pruning_reaches_its_sparsity_and_holds_it(name, tmp_path):
    """Through the one loop with distillation: each kernel of the encoder and the pooler, not the classifier."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        pruner = build(compose("train", overrides=["model=tiny", "data=csv", f"prune={name}"]).prune, "prune")
    tokens, model = tokens_of(240), new_model()
    teacher = np.random.default_rng(0).normal(size=(240, 2)).astype(np.float32)
    kd = SoftTargets(temperature=2.0, teacher_weight=0.9, teachers=("same",), teacher_seeds=(0,))
    fit_of(model, tokens, tmp_path, wrappers=[pruner], loss=kd, logits=teacher).run()
    pruner.check(model)
    zeros = zeroed_fractions(model)
    expected = 0.0 if name == "none" else int(name[-2:]) / 100
    assert len(zeros) == 2 * 6 + 1
    assert all(z == pytest.approx(expected, abs=0.001) for z in zeros.values())
    assert np.mean(model.get_layer("classifier").kernel.numpy() == 0) == 0


def test_the_smallest_weights_go_and_stay_away(tmp_path):
    """fixed: after one step of no learning, what is zero is the smaller half of what there was."""
    tokens, model = tokens_of(60), new_model()
    before = {name: model.get_layer(name).kernel.numpy().copy() for name in prunable(model)}
    still = dataclasses.replace(RECIPE, epochs=1, batch_size=64, learning_rate=1e-12, warmup=0.0, weight_decay=0.0)
    pruner = Magnitude(schedule="constant", sparsity=0.5, **FIXED)
    fit_of(model, tokens, tmp_path, wrappers=[pruner], recipe=still).run()
    for name, kernel in before.items():
        expected = np.abs(kernel) >= np.median(np.abs(kernel))
        np.testing.assert_array_equal(model.get_layer(name).kernel.numpy() != 0, expected)


def test_the_polynomial_follows_its_cubic():
    """Zhu & Gupta 2017, eq. 1: s(t) = s_f + (s_i - s_f) (1 - t)^3; at half way 0.8 (1 - 1/8) = 0.7."""
    pruner = Magnitude(schedule="polynomial", sparsity=0.8, **{**FIXED, "every_steps": 1})
    schedule = pruner._steps(101)
    assert [float(schedule(step)[1]) for step in (1, 51, 101)] == pytest.approx([0.0, 0.7, 0.8], abs=1e-6)
    assert bool(schedule(101)[0])


def test_the_polynomial_draws_its_last_mask_before_the_end():
    for total in (10, 37, 250, 1032):
        schedule = Magnitude(schedule="polynomial", sparsity=0.8, **{**FIXED, "end": 0.6})._steps(total)
        assert schedule.end_step <= total
        assert bool(schedule(schedule.end_step)[0])
        assert float(schedule(schedule.end_step)[1]) == pytest.approx(0.8)


def test_a_lost_mask_is_noticed():
    model = new_model()
    with pytest.raises(RuntimeError, match="did not hold: 13 kernels"):
        Magnitude(schedule="constant", sparsity=0.5, **FIXED).check(model)


@pytest.mark.parametrize("pooling", ["first", "mean"])
def test_a_pruned_step_multiplies_bfloat16_and_rounds_no_weight(pooling, tmp_path):
    """TFMOT's wrapper is float32 for its masks; what it wraps must still multiply in its own precision."""
    import tf_keras as keras

    from optim.encoder import graph

    keras.utils.set_random_seed(0)
    model = graph.classifier(dataclasses.replace(SHAPE, pooling=pooling), bfloat16=True)
    fit = fit_of(model, tokens_of(60), tmp_path, wrappers=[Magnitude(schedule="constant", sparsity=0.5, **FIXED)])
    operations = fit.train_step.get_concrete_function().graph.get_operations()
    products = [o.outputs[0].dtype.name for o in operations if "MatMul" in o.type and "Grad" not in o.type]
    # 2 layers of 6 kernels, the pooler and the classifier: once forwards, twice backwards; 6 for each attention.
    assert products == ["bfloat16"] * (3 * 14 + 2 * 6)
    fit.run()
    kept = model.get_layer("layer0_ffn_in").kernel.numpy()
    assert np.mean(kept == 0) == pytest.approx(0.5, abs=0.001)
    low_bits = kept[kept != 0].view(np.uint32) & 0xFFFF  # those that bfloat16 lacks
    assert np.mean(low_bits != 0) > 0.9, "the weights themselves stay float32"
