"""Distances between inner states: by hand, and what they must not depend on."""

# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportCallIssue=false
from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optim.train.states import (
    attention_scores,
    mean_over_tokens,
    relation_distance,
    score_distance,
    score_share,
    state_distance,
    state_share,
)

MASK = np.array([[1, 1, 0], [1, 0, 0]], np.int32)  # two tokens and one


def packed(*rows: list[float]) -> np.ndarray:
    return np.array(rows, np.float32)


def random_states(seed: int, lengths: list[int], width: int, extra: int = 0):
    """(states [tokens, width], mask) of sentences of these lengths, padded by `extra`."""
    rng = np.random.default_rng(seed)
    mask = (np.arange(max(lengths) + extra) < np.array(lengths)[:, None]).astype(np.int32)
    return rng.normal(size=(sum(lengths), width)).astype(np.float32), mask


def test_a_sentence_s_mean_is_over_its_own_tokens():
    assert mean_over_tokens(np.array([1.0, 3.0, 7.0], np.float32), MASK).numpy().tolist() == [2.0, 7.0]


def test_the_distance_of_states_by_hand():
    """Tokens differ by (1, 0), (0, 2) and (3, 3): squared, over features 1/2, 2, 9; over tokens (1/2 + 2) / 2 and 9."""
    own, other = packed([1, 1], [1, 3], [4, 4]), packed([0, 1], [1, 1], [1, 1])
    assert state_distance(own, other, MASK).numpy().tolist() == [1.25, 9.0]


def test_a_share_is_of_the_mean_square_of_the_teacher_s_states():
    """Of a distance of 1.25 over (1/2 + 1) / 2, and of 9 over 1; states ten times as large change nothing."""
    own, other = packed([1, 1], [1, 3], [4, 4]), packed([0, 1], [1, 1], [1, 1])
    assert state_share(own, other, MASK).numpy() == pytest.approx([1.25 / 0.75, 9.0], rel=1e-4)
    assert state_share(10 * own, 10 * other, MASK).numpy() == pytest.approx([1.25 / 0.75, 9.0], rel=1e-4)
    assert state_share(0 * own, other, MASK).numpy() == pytest.approx([1, 1], rel=1e-4)
    assert np.isfinite(state_share(own, 0 * other, MASK).numpy()).all()


def test_a_share_of_scores_is_of_the_mean_square_of_what_is_compared():
    """Two heads of 1 and 3 against one of 4: their mean is 2 from it, 4 of 16."""
    two = np.stack([np.full((1, 2, 2), fill, np.float32) for fill in (1, 3)], axis=1)
    one, mask = np.full((1, 1, 2, 2), 4, np.float32), np.ones((1, 2), np.int32)
    assert score_share(two, one, mask).numpy() == pytest.approx([4 / 16], rel=1e-4)
    assert score_share(one, two, mask).numpy() == pytest.approx([4 / 4], rel=1e-4)
    assert score_share(two, two[:, ::-1], mask).numpy() == pytest.approx([4 / 5], rel=1e-4), "head by head"


def test_attention_scores_by_hand():
    """One head of four features: query 2 in each, key 1 and 3 in each: 4 * 2 * k / sqrt(4) is 4 and 12."""
    query, key = packed([2] * 4, [2] * 4, [1] * 4), packed([1] * 4, [3] * 4, [5] * 4)
    scores = attention_scores(query, key, MASK, 1).numpy()
    assert scores[0, 0, :2, :2].tolist() == [[4, 12], [4, 12]]
    assert scores[1, 0, 0, 0] == 10
    biased = attention_scores(query, key, MASK, 1, np.full((1, 1, 3, 3), 0.5)).numpy()
    assert biased[0, 0, 0, 1] == 12.5


def test_the_distance_of_scores_by_hand():
    """Of the 2 x 2 real pairs one differs by 4: 16 / 4. What stands in the padding counts nothing."""
    own = np.zeros((1, 1, 3, 3), np.float32)
    other = own.copy()
    other[0, 0, 1, 0], other[0, 0, 2, :], other[0, 0, :, 2] = 4, 99, 99
    assert score_distance(own, other, MASK[:1]).numpy().tolist() == [4.0]


def test_scores_of_as_many_heads_are_compared_head_by_head_and_of_others_by_their_means():
    """Heads (1, 3) against (3, 1) differ by 2 in each; against one head of 2, which is their mean, by nothing."""
    two = np.ones((1, 2, 1, 1), np.float32) * np.array([1, 3], np.float32)[None, :, None, None]
    mask = np.ones((1, 1), np.int32)
    assert score_distance(two, two[:, ::-1], mask).numpy().tolist() == [4.0]
    assert score_distance(two, np.full((1, 1, 1, 1), 2, np.float32), mask).numpy().tolist() == [0.0]
    assert score_distance(two, np.full((1, 1, 1, 1), 5, np.float32), mask).numpy().tolist() == [9.0]


def test_the_distance_of_relations_by_hand():
    """Two tokens, one head of one feature. Teacher (0, 0): each relates to both by 1/2. Student (0, s), s² = ln 3.

    Its first token relates by (1/2, 1/2), its second by soft-max(0, ln 3) = (1/4, 3/4). KL: 0 and
    1/2 ln(1/2 / 1/4) + 1/2 ln(1/2 / 3/4) = 1/2 ln(4/3); the mean over the tokens is 1/4 ln(4/3). A single token: 0.
    """
    own, other = packed([0], [math.sqrt(math.log(3))], [5]), packed([0], [0], [1])
    found = relation_distance(own, other, MASK, 1).numpy()
    assert found == pytest.approx([math.log(4 / 3) / 4, 0], abs=1e-6)
    turned = (0.25 * math.log(0.5) + 0.75 * math.log(1.5)) / 2
    assert relation_distance(other, own, MASK, 1).numpy()[0] == pytest.approx(turned, abs=1e-6)


def test_relations_are_divided_by_the_root_of_their_own_features():
    """Four features of s / 2 each: x xᵀ is s² again, and / sqrt(4) is half of it: soft-max(0, ln(3) / 2)."""
    s = math.sqrt(math.log(3)) / 2
    found = relation_distance(packed([0] * 4, [s] * 4), packed([0], [0]), MASK[:1], 1).numpy()
    p, q = 1 / (1 + math.sqrt(3)), math.sqrt(3) / (1 + math.sqrt(3))
    assert found == pytest.approx([(0.5 * math.log(0.5 / p) + 0.5 * math.log(0.5 / q)) / 2], abs=1e-6)


def test_two_relation_heads_that_are_alike_are_as_far_as_one():
    """Eight features in two heads of four: each is the head above, divided by sqrt(4); the distance is their mean."""
    s = math.sqrt(math.log(3)) / 2
    one = relation_distance(packed([0] * 4, [s] * 4), packed([0], [0]), MASK[:1], 1).numpy()
    two = relation_distance(packed([0] * 8, [s] * 8), packed([0, 0], [0, 0]), MASK[:1], 2).numpy()
    p = 1 / (1 + math.sqrt(3))
    assert one == pytest.approx([-math.log(4 * p * (1 - p)) / 4], abs=1e-6)
    assert two == pytest.approx(one, abs=1e-6)


lengths = st.lists(st.integers(1, 6), min_size=1, max_size=4)
SOME = settings(max_examples=25, deadline=None)


@SOME
@given(lengths, st.integers(0, 999))
def test_models_of_the_same_states_are_at_no_distance_and_others_are(lengths, seed):
    states, mask = random_states(seed, lengths, 8)
    scores = attention_scores(states, states, mask, 2)
    for found in (state_distance(states, states, mask), score_distance(scores, scores, mask),
                  relation_distance(states, states, mask, 4)):  # fmt: skip
        assert found.numpy() == pytest.approx(np.zeros(len(lengths)), abs=1e-5)
    far = relation_distance(2 * states, states, mask, 4).numpy()
    assert ((far > 1e-4) == (np.array(lengths) > 1)).all(), "a token alone relates to itself alone"


@SOME
@given(lengths, st.integers(0, 999), st.permutations(range(4)))
def test_relations_do_not_depend_on_the_order_of_the_heads_nor_on_rotations_within_them(lengths, seed, order):
    """Four relation heads of two features; the student's features are three a head."""
    teacher, mask = random_states(seed, lengths, 8)
    student, _ = random_states(seed + 1, lengths, 12)
    before = relation_distance(student, teacher, mask, 4).numpy()
    turned = [x.reshape(len(x), 4, -1)[:, order].reshape(x.shape) for x in (student, teacher)]
    assert relation_distance(*turned, mask, 4).numpy() == pytest.approx(before, rel=1e-4, abs=1e-6)
    rotation, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    rotated = (student.reshape(-1, 4, 3) @ rotation.astype(np.float32)).reshape(student.shape)
    assert relation_distance(rotated, teacher, mask, 4).numpy() == pytest.approx(before, rel=1e-3, abs=1e-5)


@SOME
@given(lengths, st.integers(0, 999), st.integers(1, 5))
def test_no_distance_depends_on_the_padding_or_on_the_other_sentences(lengths, seed, extra):
    student, mask = random_states(seed, lengths, 8)
    teacher, wide = random_states(seed + 1, lengths, 8, extra)

    def distances(own, other, mask):
        scores = [attention_scores(x, 2 * x, mask, 2) for x in (own, other)]
        return np.stack([state_distance(own, other, mask), score_distance(*scores, mask),
                         relation_distance(own, other, mask, 2)])  # fmt: skip

    whole = distances(student, teacher, mask)
    assert distances(student, teacher, wide) == pytest.approx(whole, rel=1e-4, abs=1e-5)
    last = lengths[-1]
    alone = distances(student[-last:], teacher[-last:], np.ones((1, last), np.int32))
    assert alone[:, 0] == pytest.approx(whole[:, -1], rel=1e-4, abs=1e-5)


def test_distances_are_float32_though_states_are_bfloat16():
    import tensorflow as tf

    states, mask = random_states(0, [3, 2], 8)
    half = tf.cast(states, tf.bfloat16)
    for found in (state_distance(half, half, mask), attention_scores(half, half, mask, 2),
                  relation_distance(half, half, mask, 2)):  # fmt: skip
        assert found.dtype == tf.float32
    rounded = half.numpy().astype(np.float32)
    assert relation_distance(half, states, mask, 2).numpy() == pytest.approx(
        relation_distance(rounded, states, mask, 2).numpy(), rel=1e-5), "rounded once, as the state was"  # fmt: skip
