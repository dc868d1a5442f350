"""Places where coming methods will be put in, each tried with a toy one on the whole way of a point.

(a) a loss that sees hidden states and attention of both models and has a variable of its own; (b) several wrappers on
one model, whose ranges reach the quantizer; (c) a quantizer that asks for a table; (d) several teachers.
"""

# pyright: reportAttributeAccessIssue=false
from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from whole_points import made, point

from optim.common.errors import UserError
from optim.export.quantize import Quantizer, Student
from optim.run import tables
from optim.run.steps import steps_of
from optim.train.objective import Objective, View
from optim.train.wrap import innermost

# (a)


@dataclass(frozen=True)
class HiddenAndAttention:
    """Squared distance of projected hidden states and of attention scores of layer 0; `seen` keeps what it saw."""

    teachers: tuple[str, ...] = ("same",)
    teacher_seeds: tuple[int, ...] = (0,)
    needs_logits: bool = False
    needs_models: bool = True
    seen: dict[str, Any] = field(default_factory=dict)

    def require_shapes(self, student: Any, teachers: Any) -> None: ...

    def attach(self, student: Any, teachers: Any) -> Objective:
        import tensorflow as tf

        from optim.train.objective import hard_loss

        width = student.get_layer("layer0_ffn_norm").output_shape[-1]
        projection = tf.Variable(tf.eye(width), name="projection/kernel")
        watched = ("layer0_ffn_norm", "layer0_query", "layer0_key")
        self.seen["projection"] = projection

        def distance(one: View, other: View):
            hidden = one.layers["layer0_ffn_norm"] @ projection - other.layers["layer0_ffn_norm"]
            scores = [v.layers["layer0_query"] @ tf.transpose(v.layers["layer0_key"]) for v in (one, other)]
            self.seen["tokens"] = one.layers["layer0_ffn_norm"].shape
            return tf.reduce_mean(hidden**2) + 0.01 * tf.reduce_mean((scores[0] - scores[1]) ** 2)

        def value(labels, own: View, others):
            return hard_loss(labels, own.logits) + distance(own, others[0])

        return Objective(value=value, student_layers=watched, teacher_layers=(watched,), variables=(projection,))


@pytest.mark.slow
def test_a_loss_sees_inner_states_of_both_models_and_trains_a_variable_of_its_own(runs):
    loss = HiddenAndAttention()
    plain = point(runs, "prune=fixed50")
    chosen = replace(plain, loss=loss, specs={**plain.specs, "distill": {"method": "toy", "version": 1}})
    steps, _, outcome = made(runs, chosen)
    assert [step.kind for step in steps.student.inputs()] == ["tokens", "teacher", "teacher"]
    assert loss.seen["tokens"][-1] == 32, "[tokens, width]"
    assert np.abs(loss.seen["projection"].numpy() - np.eye(32)).max() > 1e-3, "it was trained"
    assert outcome.quality["accuracy_fraction"] >= 0.9
    assert outcome.size["zeroed_fraction"] == pytest.approx(0.5, abs=0.001)


def test_the_variable_of_a_loss_is_in_the_journal(tmp_path):
    from small_fit import fit_of, new_model, tokens_of

    tokens, teacher, losses = tokens_of(60), new_model(), [HiddenAndAttention(), HiddenAndAttention()]
    fit_of(new_model(1), tokens, tmp_path, loss=losses[0], teachers=[teacher]).run()
    fit_of(new_model(2), tokens, tmp_path, loss=losses[1], teachers=[teacher]).run()  # nothing is left to be done
    first, restored = (loss.seen["projection"].numpy() for loss in losses)
    np.testing.assert_array_equal(first, restored)


@pytest.mark.slow
def test_a_loss_that_sees_inner_states_is_smoothed_and_sees_both_passes(tmp_path):
    """Teachers that run in every step answer the doubled batch as well: states of one shape are compared."""
    from small_fit import RECIPE, SHAPE, fit_of, new_model, tokens_of

    from optim.encoder import graph

    loss, tokens = HiddenAndAttention(), tokens_of(60)
    student = graph.classifier(replace(SHAPE, hidden_dropout=0.3))
    recipe = replace(RECIPE, epochs=1, r_drop=1.0, label_smoothing=0.1, average=0.9, layer_decay=0.9)
    fit_of(student, tokens, tmp_path, loss=loss, teachers=[new_model()], recipe=recipe).run()
    assert np.abs(loss.seen["projection"].numpy() - np.eye(SHAPE.width)).max() > 1e-3, "trained, at the full rate"


# (b)


@dataclass(frozen=True)
class Ranges:
    """Records the largest output of the Dense layers of layer 0, as fake quantization would; changes no number."""

    changes: bool = True
    packages: tuple[str, ...] = ()

    def attach(self, model: Any, *, total_steps: int) -> RecordedRanges:
        return RecordedRanges(model)

    def check(self, model: Any) -> None: ...


class RecordedRanges:
    def __init__(self, model: Any) -> None:
        import tensorflow as tf
        import tf_keras as keras

        class Recorder(keras.layers.Wrapper):
            def build(self, input_shape):
                super().build(input_shape)
                self.largest = self.add_weight(name="largest", shape=(), initializer="zeros", trainable=False)

            def call(self, inputs, training=None):
                out = self.layer(inputs, training=training) if _takes_training(self.layer) else self.layer(inputs)
                if training:
                    largest = tf.reduce_max(tf.abs(tf.cast(out, tf.float32)))
                    self.largest.assign(tf.maximum(self.largest, largest))
                return out

        def wrap(layer):
            wanted = innermost(layer).name.startswith("layer0_") and type(innermost(layer)).__name__ == "Dense"
            return Recorder(layer, name=f"recorded_{layer.name}") if wanted else layer

        self.model = keras.models.clone_model(model, clone_function=wrap)
        self.recorders = [layer for layer in self.model.layers if isinstance(layer, Recorder)]

    def after_epoch(self) -> None: ...

    def settled(self, progress: float) -> bool:
        return True

    def ranges(self) -> dict[str, np.ndarray]:
        return {innermost(r).name: r.largest.numpy() for r in self.recorders}


def _takes_training(layer: Any) -> bool:
    import inspect

    return "training" in inspect.signature(layer.call).parameters


@pytest.mark.slow
def test_two_wrappers_hold_on_one_model_and_their_ranges_reach_the_quantizer(runs):
    shown: dict[str, Any] = {}

    def run(student: Student) -> bytes:
        shown.update(student.ranges)
        return student.float32_path.read_bytes()

    plain = point(runs, "prune=fixed50")
    quantizer = Quantizer(max_disagreement=0.02, run=run, wrappers=(Ranges(),))
    spec = {"method": "toy_qat", "version": 1, "max_disagreement": 0.02}
    chosen = replace(plain, quantizer=quantizer, specs={**plain.specs, "quant": spec})
    steps, _, outcome = made(runs, chosen)
    assert steps.student.wanted.key != steps_of(plain, plain.source.load(runs.cache), runs.cache).student.wanted.key
    assert set(shown) == {
        f"layer0_{part}" for part in ("query", "key", "value", "attention_output", "ffn_in", "ffn_out")
    }
    assert all(value > 0 for value in shown.values())
    assert outcome.size["zeroed_fraction"] == pytest.approx(0.5, abs=0.001), "the mask held under the other wrapper"
    assert outcome.quality["accuracy_fraction"] >= 0.9


# (c)


@pytest.mark.slow
def test_a_quantizer_asks_for_a_table_that_a_step_makes_once(runs, monkeypatch):
    calls: list[str] = []

    def count_kernels(student: Student) -> dict[str, int]:
        calls.append("made")
        return {layer.name: int(layer.count_params()) for layer in student.load().layers if "ffn" in layer.name}

    def run(student: Student) -> bytes:
        calls.append(f"{len(student.tables['counts'])} layers")
        return student.float32_path.read_bytes()

    monkeypatch.setitem(tables.TABLES, "counts", (1, count_kernels))
    plain = point(runs)
    quantizer = Quantizer(max_disagreement=0.02, run=run, tables=("counts",))
    for name in ("one", "two"):  # two methods, one table
        chosen = replace(plain, quantizer=quantizer, specs={**plain.specs, "quant": {"method": name, "version": 1}})
        steps, _, _ = made(runs, chosen)
        assert "table" in [step.kind for step in steps.all()]
    assert calls == ["made", "10 layers", "10 layers"]  # ffn_in, ffn_out, ffn_dropout, ffn_sum, ffn_norm of 2 layers
    monkeypatch.setitem(tables.TABLES, "counts", (2, count_kernels))
    assert steps_of(chosen, chosen.source.load(runs.cache), runs.cache).file.wanted.key != steps.file.wanted.key


def test_mixed_asks_for_the_table_of_its_own_blocks(runs):
    asked = {}
    for block in ("32", "64", "null"):
        chosen = point(runs, "quant=mixed", f"quant.block={block}")
        ((_, table),) = steps_of(chosen, chosen.source.load(runs.cache), runs.cache).file.tables.items()
        asked[table.name] = table.make.keywords["block"]  # type: ignore[union-attr]
    assert asked == {"sensitivity": 32, "sensitivity_64": 64, "sensitivity_output": None}


def test_a_table_that_nobody_makes_is_refused(runs):
    plain = point(runs)
    chosen = replace(plain, quantizer=Quantizer(max_disagreement=0.02, run=lambda student: b"", tables=("nothing",)))
    with pytest.raises(UserError, match="a table 'nothing' is asked for; known: sensitivity"):
        steps_of(chosen, chosen.source.load(runs.cache), runs.cache)


# (d)


@pytest.mark.slow
def test_two_teachers_teach_one_student(runs):
    chosen = point(runs, "model.seed=5", "model.layers=1", "distill.teacher=[same,tiny]", "prune=fixed50")
    steps, _, outcome = made(runs, chosen)
    assert [step.kind for step in steps.all()].count("teacher") == 2
    assert [step.kind for step in steps.all()].count("logits") == 2
    assert outcome.quality["accuracy_fraction"] >= 0.9
    alone = point(runs, "model.seed=5", "model.layers=1", "distill.teacher=[same]", "prune=fixed50")
    corpus = chosen.source.load(runs.cache)
    assert steps_of(alone, corpus, runs.cache).student.wanted.key != steps.student.wanted.key
    plain = point(runs, "model.seed=5", "model.layers=1", "prune=fixed50")
    assert (
        steps_of(alone, corpus, runs.cache).student.wanted.key == steps_of(plain, corpus, runs.cache).student.wanted.key
    )


def test_two_teachers_weigh_the_same_by_hand():
    """Teachers (3/4, 1/4) and (1/4, 3/4) at T = 1, a student of (1/2, 1/2): what both say on average.

    The mean of the two divergences, which has the same gradient, would be 3/4 ln(3/2) + 1/4 ln(1/2) instead of 0.
    """
    from optim.train.distill import SoftTargets

    loss = SoftTargets(temperature=1.0, teacher_weight=1.0, teachers=("a", "b"), teacher_seeds=(0,))
    one, two = (np.log(np.array([row], np.float32)) for row in ([0.75, 0.25], [0.25, 0.75]))
    student = np.zeros((1, 2), np.float32)
    each = 0.75 * np.log(1.5) + 0.25 * np.log(0.5)
    assert loss(np.array([0]), student, [one, two]).numpy() == pytest.approx([0], abs=1e-6)
    assert loss(np.array([0]), student, [one, one]).numpy() == pytest.approx([each], abs=1e-6)
