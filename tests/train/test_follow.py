"""Losses of states at work in a fit: what they look at, train, and leave alone, and an end in between."""

# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportOptionalMemberAccess=false
from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from small_fit import RECIPE, SHAPE, filled, fit_of, new_model, random_weights, tokens_of

from optim.common.errors import UserError
from optim.data.alignment import Alignment
from optim.encoder import graph
from optim.train.beside import aligned_rows
from optim.train.fit import Fit
from optim.train.follow import HiddenStates, Relations
from optim.train.inner import Inner
from optim.train.objective import View
from optim.train.scores import logits_of

ANSWERS: dict[str, Any] = {"temperature": 2.0, "teacher_weight": 0.5, "teachers": ("same",), "teacher_seeds": (0,)}
HIDDEN = HiddenStates(layers="even", embeddings_weight=1.0, hidden_weight=1.0, attention_weight=1.0, **ANSWERS)
RELATIONS = Relations(layers="last", relation_heads=4, query_weight=1.0, key_weight=1.0, value_weight=1.0, **ANSWERS)
SMALL = replace(SHAPE, width=8, heads=(1,), ffn_widths=(12,))  # narrower, shallower, of fewer heads and columns
DROPPING = replace(SHAPE, hidden_dropout=0.2, attention_dropout=0.2, head_dropout=0.2)
ONE = replace(RECIPE, epochs=1)
BOTH = pytest.mark.parametrize("loss", [HIDDEN, RELATIONS], ids=["hidden", "relations"])


def model_of(shape=SHAPE, seed: int = 0, *, bfloat16: bool = False):
    """With all of its tokens, as a fit builds it for a loss that looks at states."""
    import tf_keras as keras

    keras.utils.set_random_seed(seed)
    return graph.classifier(shape, whole=True, bfloat16=bfloat16)


def teacher_of(shape=SHAPE, *, bfloat16: bool = False):
    """A random model whose tokens relate to each other: by the small weights that it is drawn with hardly any do."""
    model = model_of(shape, seed=7, bfloat16=bfloat16)
    for layer in model.layers:
        if layer.name.endswith(("_query", "_key", "_value")):
            kernel, bias = layer.get_weights()
            layer.set_weights([20 * kernel, bias])
    return model


def taught(student, loss, scratch, *, teacher=None, tokens=None, recipe=RECIPE, wrappers=(), alignments=()):
    """A fit of a student that a random teacher teaches."""
    tokens, teacher = tokens or tokens_of(60), teacher or teacher_of()
    fit = fit_of(student, tokens, scratch, loss=loss, teachers=[teacher], logits=logits_of(teacher, tokens),
                 recipe=recipe, wrappers=wrappers, alignments=alignments)  # fmt: skip
    return fit


def value_of(loss, student, teacher, tokens, rows) -> np.ndarray:
    """float [rows]: the loss without dropout, both models as they are."""
    from optim.data.tokens import pad
    from optim.train.objective import watching

    objective = loss.attach(student, [teacher])
    ids, mask = pad(tokens, np.asarray(rows))
    said = watching(student, objective.student_layers)(ids, mask, training=False)
    seen = watching(teacher, objective.teacher_layers[0])(ids, mask, training=False)
    return objective.value(tokens.labels[rows], said, [seen]).numpy()


@BOTH
def test_a_student_that_is_its_teacher_has_the_loss_of_the_labels_alone(loss):
    """Projections are the identity where widths are equal: nothing is left of the states, nor of the soft targets."""
    from optim.train.objective import hard_loss

    model, tokens, rows = model_of(), tokens_of(20), np.arange(10)
    hard = hard_loss(tokens.labels[rows], logits_of(model, tokens.take(rows))).numpy()
    assert value_of(loss, model, model, tokens, rows) == pytest.approx(0.5 * hard, abs=1e-5)
    assert (value_of(loss, model, teacher_of(), tokens, rows) > 0.5 * hard + 1e-4).all()


def test_each_term_counts_by_its_weight_and_a_layer_by_its_share():
    """Two pairs of layers: what is called the hidden states' loss is their mean."""
    student, teacher, tokens, rows = model_of(), teacher_of(), tokens_of(20), np.arange(6)
    none = {"embeddings_weight": 0.0, "hidden_weight": 0.0, "attention_weight": 0.0}
    soft = value_of(replace(HIDDEN, **{**none, "embeddings_weight": 1e-9}), student, teacher, tokens, rows)

    def part(**weights: Any) -> np.ndarray:
        return value_of(replace(HIDDEN, **{**none, **weights}), student, teacher, tokens, rows) - soft

    for name in none:
        assert (part(**{name: 1.0}) > 1e-4).all(), "three times nothing is nothing"
        assert part(**{name: 3.0}) == pytest.approx(3 * part(**{name: 1.0}), rel=1e-3)
    both, first, last = (part(hidden_weight=1.0, layers=layers) for layers in ("even", (1, None), "last"))
    assert both == pytest.approx((first + last) / 2, rel=1e-3)
    whole = value_of(HIDDEN, student, teacher, tokens, rows) - soft
    assert whole == pytest.approx(sum(part(**{name: 1.0}) for name in none), rel=1e-3)


def test_a_weight_means_the_same_for_a_teacher_with_ten_times_the_states():
    """Of a student whose states are zeros each term is its weight: shares of 1 of the embeddings and of each layer."""
    student, teacher = model_of(), teacher_of()
    for layer in student.layers:
        if layer.name.endswith("_norm"):
            layer.set_weights([np.zeros_like(weight) for weight in layer.get_weights()])
    for name, weight in (("embeddings_weight", 1.0), ("hidden_weight", 1.0)):
        none = {"embeddings_weight": 0.0, "hidden_weight": 0.0, "attention_weight": 0.0}
        for times in (1.0, 10.0):
            for layer in teacher.layers:
                if layer.name.endswith("embeddings_norm" if name.startswith("emb") else "ffn_norm"):
                    layer.set_weights([times * value for value in layer.get_weights()])
            models = student, teacher, tokens_of(20), np.arange(6)
            one, nothing = (value_of(replace(HIDDEN, **{**none, name: share}), *models) for share in (weight, 1e-12))
            assert one - nothing == pytest.approx(np.ones(6), rel=1e-3)


@pytest.mark.parametrize("layer", [1, 2])
@pytest.mark.parametrize("columns", [((0,), (1,)), ((0, 1), (2, 3)), ((1, 0), (0, 1))])
def test_scores_have_the_bias_of_the_heads_that_are_left(columns, layer):
    """MPNet: a layer whose heads read some columns of the shared bias scores as one that has those alone.

    Values are 0, so that the layers see the same whatever the scores are.
    """
    shape = replace(SHAPE, family="mpnet", relative_buckets=8, heads=(len(columns[0]),) * 2, relative_columns=columns)
    weights = {name: value * ("_value/" not in name) for name, value in random_weights(shape).items()}
    table = next(name for name in weights if name.startswith("relative_bias"))
    alone = {**weights, table: weights[table][:, columns[layer - 1]]}
    student = filled(shape, weights, whole=True)
    teacher = filled(replace(shape, relative_columns=None), alone, whole=True)
    own = replace(HIDDEN, embeddings_weight=0.0, hidden_weight=0.0, layers=tuple(
        layer if place == layer else None for place in (1, 2)))  # fmt: skip
    without, with_ = (value_of(replace(own, attention_weight=weight), student, teacher, tokens_of(20), np.arange(6))
                      for weight in (1e-12, 1.0))  # fmt: skip
    np.testing.assert_allclose(with_, without, atol=1e-6)


def test_each_relation_counts_by_its_weight():
    student, teacher, tokens, rows = model_of(), teacher_of(), tokens_of(20), np.arange(6)
    none = {"query_weight": 0.0, "key_weight": 0.0, "value_weight": 0.0}

    def whole(**weights: float) -> np.ndarray:
        return value_of(replace(RELATIONS, **{**none, **weights}), student, teacher, tokens, rows)

    soft = whole(query_weight=1e-12)
    parts = [whole(**{name: 1.0}) - soft for name in none]
    assert all((part > 1e-4).all() for part in parts)
    assert np.abs(parts[0] - parts[1]).min() > 1e-6, "queries are not keys"
    assert whole(**dict.fromkeys(none, 1.0)) - soft == pytest.approx(sum(parts), rel=1e-3)


def test_the_relations_of_the_teacher_are_those_that_are_to_be_matched():
    """KL(teacher || student) of the queries of the last layers, which is not KL(student || teacher)."""
    from optim.data.tokens import pad
    from optim.train.objective import watching
    from optim.train.states import relation_distance

    student, teacher, tokens, rows = model_of(), teacher_of(), tokens_of(20), np.arange(6)
    alone = replace(RELATIONS, key_weight=0.0, value_weight=0.0)
    ids, mask = pad(tokens, rows)
    own, other = (watching(model, ("layer1_query",))(ids, mask, training=False).layers["layer1_query"]
                  for model in (student, teacher))  # fmt: skip
    wanted, turned = (relation_distance(*pair, mask, 4).numpy() for pair in ((own, other), (other, own)))
    with_, without = (value_of(replace(alone, query_weight=weight), student, teacher, tokens, rows)
                      for weight in (1.0, 1e-12))  # fmt: skip
    assert with_ - without == pytest.approx(wanted, rel=1e-3)
    assert np.abs(turned / wanted - 1).min() > 0.01


@BOTH
def test_a_student_of_another_width_depth_and_number_of_heads_comes_nearer_to_the_states(loss, tmp_path):
    """What falls is the part of the states; it is a hundred times as heavy as the rest."""
    weights = {name: 100.0 for name in vars(loss) if name.endswith("_weight") and name != "teacher_weight"}
    heavy, tokens, student, teacher = replace(loss, **weights), tokens_of(120), model_of(SMALL), teacher_of()
    fit = taught(student, heavy, tmp_path, teacher=teacher, tokens=tokens, recipe=replace(RECIPE, epochs=3))
    before = states_part(fit, student, teacher, tokens)
    fit.run()
    assert states_part(fit, student, teacher, tokens) < 0.95 * before


def states_part(fit, student, teacher, tokens) -> float:
    """The mean loss of a fit on some sentences with the states' part, less that without it."""
    from optim.data.tokens import pad
    from optim.train.objective import watching

    ids, mask = pad(tokens, np.arange(40))
    said = watching(student, fit.objective.student_layers)(ids, mask, training=False)
    seen = watching(teacher, fit.objective.teacher_layers[0])(ids, mask, training=False)
    with_, without = (
        fit.objective.value(tokens.labels[:40], said, [replace(seen, aligned=share)]) for share in (1.0, 0.0)
    )
    return float(np.mean(with_ - without))


def test_projections_are_trained_and_are_no_part_of_the_model(tmp_path):
    student = model_of(SMALL)
    names = [weight.name for weight in student.weights]
    fit = taught(student, HIDDEN, tmp_path, recipe=ONE)
    before = [variable.numpy() for variable in fit.objective.variables]
    assert [v.shape.as_list() for v in fit.objective.variables] == [[8, 16], [8, 16]]
    assert before[0] @ before[0].T == pytest.approx(np.eye(8), abs=1e-5)
    fit.run()
    assert all(np.abs(v.numpy() - old).max() > 1e-3 for v, old in zip(fit.objective.variables, before, strict=True))
    assert [weight.name for weight in student.weights] == names
    assert taught(student, RELATIONS, tmp_path / "other").objective.variables == ()


@BOTH
def test_the_teacher_stays_as_it_was_and_answers_nothing(loss, tmp_path):
    teacher = teacher_of(DROPPING)
    before = teacher.get_weights()
    fit = taught(model_of(DROPPING), loss, tmp_path, teacher=teacher, recipe=ONE)
    fit.run()
    for one, other in zip(before, teacher.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert not {id(v) for v in fit.trained} & {id(v) for v in teacher.variables}


@BOTH
def test_the_step_is_traced_once_and_its_teacher_goes_no_further_than_it_is_looked_at(loss, tmp_path):
    """Products of weights: the student's 14, forwards and backwards, and those of the teacher up to its last term.

    The teacher's last layer ends with its values under `relations`; under `hidden` with its feed-forward network.
    """
    fit = taught(model_of(), loss, tmp_path, recipe=ONE)
    fit.run()
    step = fit.train_step
    assert step.experimental_get_tracing_count() == 1
    operations = step.get_concrete_function().graph.get_operations()
    products = [o for o in operations if o.type == "MatMul"]
    teacher = 6 + 3 if loss is RELATIONS else 6 + 6
    projections = 0 if loss is RELATIONS else 1 + 2  # of the embeddings' output, and of two layers' with one matrix
    assert len(products) == 3 * 14 + teacher + 3 * projections


@BOTH
def test_after_the_share_that_follows_states_no_teacher_runs_and_answers_alone_are_learnt(loss, tmp_path):
    """Six steps of twelve: projections stay but for their decay; the step has the 8 products of the student alone."""
    fit = taught(model_of(SMALL), replace(loss, states_until=0.5), tmp_path, recipe=replace(RECIPE, epochs=2))
    assert (fit.total_steps, fit.change) == (12, 6)
    assert [fit._step_at(step) is fit.train_step for step in range(12)] == [True] * 6 + [False] * 6
    honest, projections = fit._step, {}

    def watched(index, step):
        value = honest(index, step)
        projections[step] = [v.numpy() for v in fit.objective.variables]
        return value

    fit._step = watched
    fit.run()
    moved = [[np.abs(a - b).max() for a, b in zip(projections[first], projections[last], strict=True)]
             for first, last in ((0, 5), (5, 11))]  # fmt: skip
    assert all(late < early / 2 for early, late in zip(*moved, strict=True)), "Adam's momentum alone moves them"
    graph_of_step = fit.later_step.get_concrete_function().graph
    assert sum(o.type == "MatMul" for o in graph_of_step.get_operations()) == 3 * 8
    assert fit.objective.after.student_layers == ()


def test_what_comes_after_the_states_is_the_loss_of_answers_with_all_that_the_recipe_adds(tmp_path):
    """The same step of a fit of `kd`, smoothed labels, two draws of dropout and all."""
    from optim.train.distill import SoftTargets

    recipe, tokens, teacher, steps = replace(EVERYTHING, epochs=1), tokens_of(60), teacher_of(), []
    for loss, teachers in ((replace(HIDDEN, states_until=1e-9), [teacher]), (SoftTargets(**ANSWERS), [])):
        fit = fit_of(model_of(DROPPING), tokens, tmp_path / str(len(teachers)), loss=loss, teachers=teachers,
                     logits=logits_of(teacher, tokens), recipe=recipe)  # fmt: skip
        steps.append([fit._step(fit._batches(0)[0], at) for at in (1, 2)])
    assert steps[0] == pytest.approx(steps[1], rel=1e-5)


@BOTH
def test_a_share_of_all_steps_has_one_step(loss, tmp_path):
    fit = taught(model_of(), loss, tmp_path, recipe=ONE)
    assert fit.change == fit.total_steps
    assert fit.later_step is fit.train_step


@pytest.mark.parametrize(("share", "message"), [
    (0.0, r"distill\.states_until must be above 0, got 0"),
    (1.5, r"distill\.states_until must be a fraction in \[0, 1\], got 1\.5"),
])  # fmt: skip
def test_a_share_that_cannot_be_is_refused(share, message):
    with pytest.raises(UserError, match=message):
        replace(HIDDEN, states_until=share)


@BOTH
def test_in_bfloat16_only_distances_and_projections_are_float32(loss, tmp_path):
    fit = taught(model_of(bfloat16=True), loss, tmp_path, teacher=teacher_of(bfloat16=True), recipe=ONE)
    operations = fit.train_step.get_concrete_function().graph.get_operations()
    products = [o.outputs[0].dtype.name for o in operations if o.type == "MatMul"]
    assert products.count("float32") == (0 if loss is RELATIONS else 9)
    fit.run()


EVERYTHING = replace(RECIPE, average=0.9, layer_decay=0.8, label_smoothing=0.1, r_drop=0.5)


class Killed(Exception):
    """Stands for SIGKILL."""


@pytest.mark.parametrize(("loss", "recipe"), [
    pytest.param(replace(HIDDEN, states_until=0.5), EVERYTHING, id="hidden"),
    pytest.param(RELATIONS, RECIPE, id="relations"),
])  # fmt: skip
@pytest.mark.slow  # what is saved and how a fit goes on is the same without states: test_exact
def test_an_end_in_the_middle_changes_no_bit(loss, recipe, tmp_path, monkeypatch, ctrl_c):
    """Neither of model, projections (which are in the journal) nor curve, a row of which it cuts."""

    def fit_in(name: str, seed: int) -> Fit:
        (tmp_path / name).mkdir(exist_ok=True)
        return taught(model_of(DROPPING, seed=seed), loss, tmp_path / name, recipe=recipe)

    def left(fit: Fit) -> tuple[list[np.ndarray], list[dict[str, float]]]:
        rows = fit.run().rows
        return [*fit.task.model.get_weights(), *(v.numpy() for v in fit.objective.variables)], rows

    def ends_in_the_last_but_one(name: str, how, error: type[BaseException]) -> Fit:
        fit = fit_in(name, seed=0)
        honest, at = fit._step, fit.total_steps - 2
        fit._step = lambda index, step: (how() if step == at else None, honest(index, step))[1]
        with pytest.raises(error):
            fit.run()
        return fit_in(name, seed=9)  # all that this one ends with must come from the journal

    (whole, curve), steps = left(first := fit_in("whole", seed=0)), first.total_steps
    stopped = ends_in_the_last_but_one("stopped", ctrl_c, KeyboardInterrupt)
    monkeypatch.setattr("optim.train.saved.SAVE_SECONDS", -1)
    killed = ends_in_the_last_but_one("killed", _kill, Killed)
    for fit, done in ((stopped, steps - 1), (killed, steps - 2)):
        assert fit._restore() == done > fit.epoch_steps
        assert fit.losses, "a row of the curve has begun"
    for name in ("stopped", "killed"):
        weights, again = left(fit_in(name, seed=9))
        for one, other in zip(whole, weights, strict=True):
            np.testing.assert_array_equal(one, other)
        assert again == curve


def _kill() -> None:
    raise Killed


def test_masks_hold_under_a_loss_of_states(tmp_path):
    from small_fit import FIXED

    from optim.train.prune import Magnitude

    student = model_of()
    taught(student, HIDDEN, tmp_path, wrappers=[Magnitude(schedule="constant", sparsity=0.5, **FIXED)]).run()
    kernel = student.get_layer("layer0_query").kernel.numpy()
    assert np.mean(kernel == 0) == pytest.approx(0.5, abs=0.01)


@BOTH
def test_a_sentence_that_is_cut_otherwise_has_the_soft_targets_alone(loss):
    student, teacher = model_of(), teacher_of()
    objective = loss.attach(student, [teacher])
    tokens, rows = tokens_of(20), np.arange(4)
    from optim.data.tokens import pad
    from optim.train.objective import watching

    ids, mask = pad(tokens, rows)
    said = watching(student, objective.student_layers)(ids, mask, training=False)
    seen = watching(teacher, objective.teacher_layers[0])(ids, mask, training=False)
    found = objective.value(tokens.labels[rows], said, [replace(seen, aligned=np.float32([1, 0, 1, 0]))]).numpy()
    soft = loss(tokens.labels[rows], said.logits, [seen.logits]).numpy()
    assert found[[1, 3]] == pytest.approx(soft[[1, 3]], rel=1e-6)
    assert (found[[0, 2]] > soft[[0, 2]] + 1e-4).all()


def test_a_teacher_reads_the_tokens_in_its_own_words(tmp_path):
    """The same weights under ids that are four higher: through the table it says what it said before."""
    from optim.data.tokens import pad
    from optim.train.beside import teacher_views

    tokens, teacher = tokens_of(20), model_of(seed=7)
    shifted = graph.classifier(replace(SHAPE, vocabulary_size=SHAPE.vocabulary_size + 4), whole=True)
    table = teacher.get_layer("word_embeddings").get_weights()[0]
    for layer in teacher.layers:
        shifted.get_layer(layer.name).set_weights(layer.get_weights() if layer.name != "word_embeddings" else
                                                  [np.concatenate([np.ones((4, SHAPE.width)), table])])  # fmt: skip
    objective = HIDDEN.attach(model_of(), [teacher])
    ids, mask = pad(tokens, np.arange(6))
    alignment = Alignment(np.arange(SHAPE.vocabulary_size, dtype=np.int32) + 4, np.ones(20, bool))
    answers, aligned = np.zeros((6, 1, 2), np.float32), np.ones((6, 1), np.float32)

    def view(model, how) -> View:
        return teacher_views([model], [how], objective, stored=True)(ids, mask, answers, aligned)[0]

    own, through = view(teacher, None), view(shifted, alignment)
    for name, states in own.layers.items():
        np.testing.assert_allclose(through.layers[name].numpy(), states.numpy(), atol=1e-6)


def test_a_teacher_drops_nothing():
    """One whose shape has dropout says, and has in its layers, what the same weights without any do."""
    from optim.data.tokens import pad
    from optim.train.beside import teacher_views

    calm, dropping = model_of(seed=7), model_of(DROPPING)
    dropping.set_weights(calm.get_weights())
    objective = HIDDEN.attach(model_of(), [calm])
    ids, mask = pad(tokens_of(20), np.arange(6))
    nothing, aligned = np.zeros((6, 0, 2), np.float32), np.ones((6, 1), np.float32)
    own, other = (teacher_views([model], [None], objective, stored=False)(ids, mask, nothing, aligned)[0]
                  for model in (calm, dropping))  # fmt: skip
    np.testing.assert_allclose(other.logits.numpy(), own.logits.numpy(), atol=1e-6)
    assert len(own.layers) == 1 + 3 * 2, "embeddings; states, queries and keys of two layers"
    for name, states in own.layers.items():
        np.testing.assert_allclose(other.layers[name].numpy(), states.numpy(), atol=1e-6)


def test_with_several_teachers_states_are_the_first_s_and_answers_are_of_all():
    from optim.train.beside import teacher_views

    first = model_of(seed=7)
    objective = HIDDEN.attach(model_of(), [first])
    ids, mask = np.ones((2, 8), np.int32), np.ones((2, 8), np.int32)
    answers = np.arange(8, dtype=np.float32).reshape(2, 2, 2)
    views = teacher_views([first], [None], objective, stored=True)(ids, mask, answers, np.ones((2, 1), np.float32))
    assert [bool(view.layers) for view in views] == [True, False]
    assert [view.logits.numpy().tolist() for view in views] == [answers[:, 0].tolist(), answers[:, 1].tolist()]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"relation_heads": 5}, "must divide the 16 features of the model's layer 2, got 5; 4 does"),
        ({"layers": (1, 3)}, "must be from 1 to 2, the teacher's layers"),
    ],
)
def test_layers_that_cannot_be_compared_are_refused(change, said):
    inner = Inner.of_shape(SHAPE)
    with pytest.raises(UserError, match=said):
        replace(RELATIONS, **change).require_shapes(inner, [inner])
    with pytest.raises(UserError, match=said):
        replace(RELATIONS, **change).attach(model_of(), [new_model()])


@pytest.mark.parametrize(
    ("loss", "change", "said"),
    [
        (HIDDEN, {"hidden_weight": -1.0}, r"distill.hidden_weight must be 0 or above, got -1"),
        (HIDDEN, dict.fromkeys(("embeddings_weight", "hidden_weight", "attention_weight"), 0.0), "must be above 0"),
        (RELATIONS, dict.fromkeys(("query_weight", "key_weight", "value_weight"), 0.0), "must be above 0"),
        (RELATIONS, {"relation_heads": 0}, "distill.relation_heads must be above 0, got 0"),
        (HIDDEN, {"temperature": 0.0}, "distill.temperature must be above 0"),
    ],
)
def test_settings_that_mean_nothing_are_refused(loss, change, said):
    with pytest.raises(UserError, match=said):
        replace(loss, **change)


@BOTH
def test_a_layer_learns_from_the_layer_that_it_is_told(loss):
    objective = replace(loss, layers=(2, None)).attach(model_of(), [teacher_of()])
    parts = {"hidden": ("ffn_norm", "query", "key"), "relations": ("query", "key", "value")}
    own = parts["hidden" if loss is HIDDEN else "relations"]
    for names, layer in ((objective.student_layers, 0), (objective.teacher_layers[0], 1)):
        assert {name for name in names if name != "embeddings_norm"} == {f"layer{layer}_{part}" for part in own}


@pytest.mark.parametrize(("loss", "weight"), [(HIDDEN, "attention_weight"), (RELATIONS, "query_weight")])
def test_two_pairs_of_layers_count_as_much_as_one(loss, weight):
    names = [name for name in vars(loss) if name.endswith("_weight") and name != "teacher_weight"]
    only = replace(loss, **{**dict.fromkeys(names, 0.0), weight: 1.0})
    models = model_of(), teacher_of(), tokens_of(20), np.arange(6)
    soft = value_of(replace(only, **{weight: 1e-9}), *models)
    both, first, last = (value_of(replace(only, layers=layers), *models) - soft
                         for layers in ("even", (1, None), "last"))  # fmt: skip
    assert both == pytest.approx((first + last) / 2, rel=1e-2)


@pytest.mark.parametrize("part", ["query", "key", "value"])
def test_a_relation_has_the_weight_of_its_own_name(part):
    """The teacher is the student but for one kernel of the last layer."""
    student, teacher, tokens, rows = model_of(), model_of(), tokens_of(20), np.arange(6)
    teacher.set_weights(student.get_weights())
    kernel = teacher.get_layer(f"layer1_{part}").kernel
    kernel.assign(20 * kernel)
    none = dict.fromkeys(("query_weight", "key_weight", "value_weight"), 0.0)
    for name in none:
        one, nothing = (value_of(replace(RELATIONS, **{**none, name: weight}), student, teacher, tokens, rows)
                        for weight in (1.0, 1e-9))  # fmt: skip
        if name == f"{part}_weight":
            assert (one - nothing > 1e-4).all()
        else:
            assert one == pytest.approx(nothing, abs=1e-5)


def test_a_sentence_counts_for_the_teachers_that_cut_it_alike():
    one = Alignment(np.arange(3, dtype=np.int32), np.array([True, False, True]))
    assert aligned_rows([None, one], 3).tolist() == [[1, 1], [1, 0], [1, 1]]


def test_a_step_knows_which_of_its_sentences_are_cut_alike(tmp_path):
    alike = np.arange(60) % 2 == 0
    own = Alignment(np.arange(SHAPE.vocabulary_size, dtype=np.int32), alike)
    fit, seen = taught(model_of(), HIDDEN, tmp_path, alignments=[own]), []
    fit.train_step = lambda *given: seen.append(given[5].numpy()[:, 0].tolist()) or 0.5
    fit._step(np.array([1, 4, 7]), 0)
    assert seen == [[0, 1, 0]]
