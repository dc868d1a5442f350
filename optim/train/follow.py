"""Losses of a student that follows the inner states of its teacher, beside the soft targets that teach its classifier.

The teacher runs beside the student until `states_until`: the states of a training set are too large to store. Its
answers are stored as ever, so it computes no further than the last layer that is looked at. With several teachers the
student learns the answers of all of them and the states of the first: states of two teachers have no common mean.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from optim.common.build import method
from optim.common.errors import UserError, require_count, require_fraction, require_not_negative, require_positive
from optim.data.augment import Augment
from optim.train.distill import SoftTargets, listed, on_logits, require_weight, seeds_from
from optim.train.inner import EMBEDDINGS, PARTS, RELATIVE_BIAS, Inner, layer_pairs
from optim.train.objective import Objective, View


@dataclass(frozen=True)
class Term:
    """One distance between states of both models, and what it counts."""

    weight: float
    own: tuple[str, ...]  # the layers of the student that it looks at
    other: tuple[str, ...]  # and those of the teacher
    distance: Callable[[Sequence[Any], Sequence[Any], Any], Any]  # (their outputs, mask) -> float [batch]

    def __call__(self, student: View, teacher: View):
        """float [batch]."""
        mine, theirs = [student.layers[name] for name in self.own], [teacher.layers[name] for name in self.other]
        return self.weight * self.distance(mine, theirs, student.mask)


@dataclass(frozen=True, kw_only=True)
class Follows(SoftTargets):
    """Soft targets, and terms about the states of the first teacher; a subclass says which.

    A sentence that the teacher's tokenizer cuts into other pieces has the soft targets alone.
    """

    layers: str | Sequence[int | None]
    states_until: float = 1.0  # the share of the fit's steps that follow states; the others learn answers and labels
    needs_models: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        require_fraction("distill.states_until", self.states_until, one=True)
        require_positive("distill.states_until", self.states_until)

    def terms(self, student: Inner, teacher: Inner) -> tuple[list[Term], list[Any]]:
        """What is compared, and the variables that are trained for it."""
        raise NotImplementedError

    def require_shapes(self, student: Inner, teachers: Sequence[Inner]) -> None:
        """Raises UserError for models whose layers can't be compared as the settings say."""
        layer_pairs(self.layers, student.depth, teachers[0].depth)

    def attach(self, student: Any, teachers: Sequence[Any]) -> Objective:
        """The loss on Keras models, whose states it looks at."""
        import tensorflow as tf

        own, other = Inner.of_model(student), Inner.of_model(teachers[0])
        self.require_shapes(own, [other])
        terms, variables = self.terms(own, other)

        def value(labels, said: View, views: Sequence[View]):
            soft = self(labels, said.logits, [view.logits for view in views])
            return soft + views[0].aligned * tf.add_n([term(said, views[0]) for term in terms])

        return Objective(
            value=value,
            student_layers=tuple(dict.fromkeys(name for term in terms for name in term.own)),
            teacher_layers=(tuple(dict.fromkeys(name for term in terms for name in term.other)),),
            variables=tuple(variables),
            until=self.states_until,
            after=on_logits(self) if self.states_until < 1 else None,
        )


@dataclass(frozen=True, kw_only=True)
class HiddenStates(Follows):
    """Soft targets + embeddings + hidden states + attention scores, each times its weight (TinyBERT).

    Jiao et al. 2019, section 3.1, arXiv:1909.10351: mean squared differences of the embeddings' output and of layers'
    outputs, those of the student times a learned matrix each (equations 8 and 9), and of attention scores before the
    soft-max (equation 7), MPNet's with its bias by distance, which is part of them. Each is divided by the mean square
    of what the teacher has: by their own sizes the distances of MPNet's scores are sixty times those of its states
    (docs/figures.md). Where the paper sums over layers, here is the mean over the pairs of layers: a weight
    means the same for three layers and for six. The paper learns states first and answers in a second fit; here both
    are learnt at first, and answers alone after `states_until`.

    A projection is the identity at first where both widths are equal, else it has orthonormal rows or columns.
    """

    embeddings_weight: float
    hidden_weight: float
    attention_weight: float

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_weights(embeddings_weight=self.embeddings_weight, hidden_weight=self.hidden_weight,
                         attention_weight=self.attention_weight)  # fmt: skip

    def terms(self, student: Inner, teacher: Inner) -> tuple[list[Term], list[Any]]:
        """In the order of the class's first line; nothing of weight 0 is looked at."""
        pairs = layer_pairs(self.layers, student.depth, teacher.depth)
        terms, variables = [], []
        if self.embeddings_weight:
            matrix = _projection("embeddings", student.width, teacher.width)
            terms.append(_states(self.embeddings_weight, EMBEDDINGS, EMBEDDINGS, matrix))
            variables.append(matrix)
        if self.hidden_weight:
            matrix, weight = _projection("hidden", student.width, teacher.width), self.hidden_weight / len(pairs)
            terms += [_states(weight, student.hidden(m), teacher.hidden(n), matrix) for m, n in pairs]
            variables.append(matrix)
        if self.attention_weight:
            terms += [_scores(self.attention_weight / len(pairs), student, m, teacher, n) for m, n in pairs]
        return terms, variables


@dataclass(frozen=True, kw_only=True)
class Relations(Follows):
    """Soft targets + relations between the tokens of a sentence by queries, by keys and by values (MiniLMv2).

    Wang et al. 2021, section 3, arXiv:2012.15828, of which the value relation is that of Wang et al. 2020,
    arXiv:2002.10957. Nothing is projected: relations have the sentence's length, whatever the widths and heads of both.
    The mean over the pairs of layers, of which the papers have one, the last of both.
    """

    relation_heads: int
    query_weight: float
    key_weight: float
    value_weight: float

    def __post_init__(self) -> None:
        super().__post_init__()
        require_count("distill.relation_heads", self.relation_heads)
        _require_weights(query_weight=self.query_weight, key_weight=self.key_weight, value_weight=self.value_weight)

    def require_shapes(self, student: Inner, teachers: Sequence[Inner]) -> None:
        """Raises UserError for layers that can't be cut into as many relation heads too."""
        super().require_shapes(student, teachers)
        teacher = teachers[0]
        for pair in layer_pairs(self.layers, student.depth, teacher.depth):
            for inner, layer, whose in zip((student, teacher), pair, ("model", "teacher"), strict=True):
                if (features := inner.features(layer)) % self.relation_heads:
                    fits = max(n for n in range(1, self.relation_heads) if features % n == 0)
                    raise UserError(
                        f"distill.relation_heads must divide the {features} features of the {whose}'s layer {layer}, "
                        f"got {self.relation_heads}; {fits} does."
                    )

    def terms(self, student: Inner, teacher: Inner) -> tuple[list[Term], list[Any]]:
        """One for each pair of layers and kind of relation."""
        from optim.train.states import relation_distance

        def distance(own, other, mask):
            return relation_distance(own[0], other[0], mask, self.relation_heads)

        pairs = layer_pairs(self.layers, student.depth, teacher.depth)
        weights = zip(PARTS, (self.query_weight, self.key_weight, self.value_weight), strict=True)
        terms = [
            Term(weight / len(pairs), (student.part(m, part),), (teacher.part(n, part),), distance)
            for part, weight in weights if weight
            for m, n in pairs
        ]  # fmt: skip
        return terms, []


def _require_weights(**weights: float) -> None:
    """Raises UserError for one below 0, and where all are 0."""
    for name, weight in weights.items():
        require_not_negative(f"distill.{name}", weight)
    if not any(weights.values()):
        names = ", ".join(f"distill.{name}" for name in weights)
        raise UserError(f"One of {names} must be above 0; with distill=kd no states are learnt.")


def _projection(name: str, student: int, teacher: int) -> Any:
    """A matrix [student, teacher] to be learnt: no part of the model, and saved only in the journal of the fit."""
    import tensorflow as tf
    import tf_keras as keras

    start = tf.eye(student) if student == teacher else keras.initializers.Orthogonal(seed=0)((student, teacher))
    return tf.Variable(start, name=f"projection/{name}/kernel")


def _states(weight: float, own: str, other: str, matrix: Any) -> Term:
    """The states of one layer, projected, against those of another."""
    import tensorflow as tf

    from optim.train.states import state_share

    def distance(mine, theirs, mask):
        return state_share(tf.cast(mine[0], tf.float32) @ matrix, theirs[0], mask)

    return Term(weight, (own,), (other,), distance)


def _scores(weight: float, student: Inner, own: int, teacher: Inner, other: int) -> Term:
    """The attention scores of one layer against those of another."""
    import tensorflow as tf

    from optim.train.states import attention_scores, score_share

    def watched(inner: Inner, layer: int) -> tuple[str, ...]:
        return (inner.part(layer, "query"), inner.part(layer, "key"), *[RELATIVE_BIAS] * inner.relative)

    def scores(inner: Inner, layer: int, seen, mask):
        query, key, *bias = seen
        if (columns := inner.columns[layer - 1]) is not None:
            bias = [tf.gather(one, columns, axis=1) for one in bias]
        return attention_scores(query, key, mask, inner.heads[layer - 1], *bias)

    of_student, of_teacher = partial(scores, student, own), partial(scores, teacher, other)

    def distance(mine, theirs, mask):
        return score_share(of_student(mine, mask), of_teacher(theirs, mask), mask)

    return Term(weight, watched(student, own), watched(teacher, other), distance)


@method("distill", "hidden_states", version=2)
def hidden_states(*, temperature: float, teacher_weight: float, layers: str | Sequence[int | None],
                  states_until: float, embeddings_weight: float, hidden_weight: float, attention_weight: float,
                  teacher: str | Sequence[str], seeds: int, teacher_seed: int, augment: Augment,
                  unlabelled: str | None) -> HiddenStates:  # fmt: skip
    """The loss of `distill=hidden`."""
    require_weight(teacher_weight, augment, unlabelled)
    return HiddenStates(temperature=temperature, teacher_weight=teacher_weight, layers=layers,
                        states_until=states_until, embeddings_weight=embeddings_weight, hidden_weight=hidden_weight,
                        attention_weight=attention_weight, teachers=listed(teacher),
                        teacher_seeds=seeds_from(teacher_seed, seeds))  # fmt: skip


@method("distill", "relations")
def relations(*, temperature: float, teacher_weight: float, layers: str | Sequence[int | None], states_until: float,
              relation_heads: int,
              query_weight: float, key_weight: float, value_weight: float, teacher: str | Sequence[str], seeds: int,
              teacher_seed: int, augment: Augment, unlabelled: str | None) -> Relations:  # fmt: skip
    """The loss of `distill=minilm`."""
    require_weight(teacher_weight, augment, unlabelled)
    return Relations(temperature=temperature, teacher_weight=teacher_weight, layers=layers, states_until=states_until,
                     relation_heads=relation_heads, query_weight=query_weight, key_weight=key_weight,
                     value_weight=value_weight, teachers=listed(teacher),
                     teacher_seeds=seeds_from(teacher_seed, seeds))  # fmt: skip
