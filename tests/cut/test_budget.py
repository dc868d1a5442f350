"""The greedy choice under a budget, by hand and by what must always hold."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_fit import SHAPE

from optim.common.errors import UserError
from optim.cut import budget
from optim.cut.budget import LatencyModel, smallest, within_budget
from optim.cut.importance import Importance
from optim.cut.kept import Kept, cut_shape
from optim.cut.structure import Budget, Criterion, Even, _left
from optim.run.latency_model import probes

CRITERION = Criterion(importance="taylor", samples=10, seed=0, steps=1)
COUNTS = LatencyModel(base_ms=1.0, layer_ms=2.0, head_ms=1.0, column_ms=0.25)


def importance_of(heads, columns, layers) -> Importance:
    arrays = [tuple(np.array(own, float) for own in one) for one in (heads, columns)]
    ones = np.ones(SHAPE.width)
    return Importance(heads=arrays[0], columns=arrays[1], layers=np.array(layers, float), width=ones, pooled=ones)


@pytest.mark.parametrize("seed", [-1, 2**31])
def test_a_seed_that_draws_nothing_is_refused(seed):
    with pytest.raises(UserError, match=rf"slim\.seed must be a whole number from 0 to 2147483647, got {seed}"):
        replace(CRITERION, seed=seed)


def test_what_matters_least_for_its_cost_goes_first(monkeypatch):
    """Two layers of two heads and four columns, in groups of two: 1 + 2 * (2 + 2 + 1) = 11 ms by COUNTS."""
    monkeypatch.setattr(budget, "TOGETHER", 2)
    shape = replace(SHAPE, ffn_widths=(4, 4))
    scores = importance_of([[3, 0.4], [5, 6]], [[1, 9, 0.1, 2], [7, 7, 0.2, 0.1]], [20, 30])
    # For each ms: head 1 of layer 0 0.4; its columns 0 and 2 2.0; layer 1's columns 2 and 3 0.45.
    keeps = {11: ((0, 1), (0, 1, 2, 3), (0, 1), (0, 1, 2, 3)), 10: ((0,), (0, 1, 2, 3), (0, 1), (0, 1, 2, 3)),
             9.5: ((0,), (0, 1, 2, 3), (0, 1), (0, 1)), 9: ((0,), (1, 3), (0, 1), (0, 1))}  # fmt: skip
    for goal, wanted in keeps.items():
        kept = within_budget(shape, scores, cost=COUNTS, budget=goal)
        assert (kept.heads[0], kept.columns[0], kept.heads[1], kept.columns[1]) == wanted, goal


def test_a_layer_goes_as_a_whole_when_that_is_the_least_loss(monkeypatch):
    """Two columns of layer 1 first, 0.28 for each ms, then head 0 of layer 0, 1; then all of layer 1, 18.1 for 4.5."""
    monkeypatch.setattr(budget, "TOGETHER", 2)
    shape = replace(SHAPE, ffn_widths=(4, 4))
    scores = importance_of([[1, 1], [9, 9]], [[9, 9, 9, 9], [0.1, 0.1, 0.1, 0.1]], [90, 1])
    kept = within_budget(shape, scores, cost=COUNTS, budget=9.5)
    assert (kept.layers, kept.heads) == ((0, 1), ((1,), (0, 1)))
    kept = within_budget(shape, scores, cost=COUNTS, budget=9.4)
    assert (kept.layers, kept.heads) == ((0,), ((1,),))


def test_columns_that_go_at_once_matter_by_the_root_of_their_squares(monkeypatch):
    """Four columns of 1 cost a ms, as a head does: together they matter 2, not 4, so they go before a head of 3."""
    monkeypatch.setattr(budget, "TOGETHER", 4)
    shape = replace(SHAPE, ffn_widths=(8, 8))
    scores = importance_of([[3, 9], [9, 9]], [[1] * 4 + [9] * 4, [9] * 8], [90, 90])
    for goal, heads in ((12, (0, 1)), (11, (1,))):  # of 13 ms
        kept = within_budget(shape, scores, cost=COUNTS, budget=goal)
        assert (kept.heads[0], kept.columns[0]) == (heads, (4, 5, 6, 7)), goal


def test_a_layer_whose_gate_matters_stays_however_little_its_parts_do(monkeypatch):
    """Layer 0 loses what it may, 1.5 ms of 11; then all of layer 1 goes, 24 for 5 ms, and not the gate of 90."""
    monkeypatch.setattr(budget, "TOGETHER", 2)
    shape = replace(SHAPE, ffn_widths=(4, 4))
    scores = importance_of([[1, 1], [5, 5]], [[0.1] * 4, [5] * 4], [90, 1])
    kept = within_budget(shape, scores, cost=COUNTS, budget=9.4)
    assert (kept.layers, kept.heads, kept.columns) == ((0,), ((1,),), ((2, 3),))


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 1000), share=st.floats(0.05, 1.0))
def test_a_budget_is_kept_and_every_layer_can_still_run(seed, share):
    rng = np.random.default_rng(seed)
    shape = replace(SHAPE, heads=(4, 4, 4), ffn_widths=(96, 96, 96))
    scores = importance_of(rng.random((3, 4)), rng.random((3, 96)), rng.random(3))
    least, most = (float(one.parameters) for one in (smallest(shape), shape))
    goal = least + share * (most - least)
    kept = within_budget(shape, scores, cost=lambda s: float(s.parameters), budget=goal)
    left = cut_shape(shape, kept)
    assert left.parameters <= goal
    assert min(left.heads) >= 1, "and a layer is left"
    assert min(left.ffn_widths) >= 32
    assert left == shape if goal >= most else left.parameters < most


@pytest.mark.parametrize("pooling", ["mean", "first"])
def test_a_latency_model_is_found_again_in_what_it_says(pooling):
    shapes = [replace(SHAPE, pooling=pooling, heads=(h,) * n, ffn_widths=(f,) * n) for n, h, f in
              [(6, 12, 1536), (6, 6, 1536), (6, 12, 768), (3, 12, 1536), (2, 3, 384)]]  # fmt: skip
    truth = LatencyModel(base_ms=0.3, layer_ms=0.2, head_ms=0.02, column_ms=0.0005)
    found = LatencyModel.fitted(shapes, [truth(shape) for shape in shapes])
    assert found.to_json() == pytest.approx(truth.to_json(), rel=1e-6)


def clock_ms(shape) -> float:
    """What a file takes that pools the first token: multiplications at 128 tokens, of MiniLM's 384 wide."""
    ms = 0.3
    for i, (heads, columns) in enumerate(zip(shape.heads, shape.ffn_widths, strict=True)):
        tokens, width = 1 if i + 1 == len(shape.heads) else 128, 384
        own = 2 * (tokens + 128) * width * 32 * heads  # query and output, then keys and values
        ms += (own + 2 * tokens * width * columns + 2 * tokens * 128 * 32 * heads) / 3e8
    return ms


def test_what_the_last_layer_computes_for_one_token_costs_nearly_nothing():
    """Its columns are no way to save time, so none of them go for a budget, little as they matter."""
    whole = replace(SHAPE, pooling="first", heads=(12,) * 6, ffn_widths=(1536,) * 6)
    shapes = probes(whole)
    model = LatencyModel.fitted(shapes, [clock_ms(shape) for shape in shapes])
    for narrow in (whole, replace(whole, ffn_widths=(1536,) * 5 + (32,)), replace(whole, heads=(12,) * 5 + (2,))):
        assert model(narrow) == pytest.approx(clock_ms(narrow), rel=0.03)
    scores = importance_of(np.ones((6, 12)), [[1.0] * 1536] * 5 + [[0.001] * 1536], [100] * 6)
    left = cut_shape(whole, within_budget(whole, scores, cost=model, budget=0.7 * clock_ms(whole)))
    assert left.ffn_widths[-1] == 1536
    assert clock_ms(left) <= 0.7 * clock_ms(whole) * 1.03


@pytest.mark.parametrize(
    ("parameters", "latency_ms", "said"),
    [(None, None, "one of the two"), (10, 1.0, "one of the two"), (0, None, "slim.parameters must be above 0"),
     (None, -1.0, "slim.latency_ms must be above 0")],
)  # fmt: skip
def test_a_budget_is_one_number(parameters, latency_ms, said):
    with pytest.raises(UserError, match=said):
        Budget(parameters=parameters, latency_ms=latency_ms, width=None, criterion=CRITERION)


def test_a_budget_that_nothing_keeps_is_refused_before_anything_is_trained():
    small = Budget(parameters=100, latency_ms=None, width=None, criterion=CRITERION)
    with pytest.raises(UserError, match=rf"at least {smallest(SHAPE).parameters:,}"):
        small.check(SHAPE)
    fast = Budget(parameters=None, latency_ms=3.0, width=None, criterion=CRITERION)
    with pytest.raises(UserError, match=r"at least 12\.00"):  # 1 + 2 + 1 + 32 / 4
        fast.check_latency(SHAPE, COUNTS)


def test_the_least_that_a_refusal_names_is_enough():
    """12.004 ms is no 12.00; of 3,072 columns 0.9999 leave none, and 1.000 would be no share."""
    fast = Budget(parameters=None, latency_ms=12.0, width=None, criterion=CRITERION)
    with pytest.raises(UserError, match=r"at least 12\.01"):
        fast.check_latency(SHAPE, replace(COUNTS, base_ms=1.004))
    wide = replace(SHAPE, ffn_widths=(3072, 3072))
    with pytest.raises(UserError, match=r"at most 0\.999 leaves one"):
        even(ffn=0.9999).check(wide)
    even(ffn=0.999).check(wide)


def test_a_budget_that_the_words_that_stay_exceed_is_told_in_a_line():
    same = importance_of([[1, 1], [1, 1]], [[1] * SHAPE.ffn_widths[0]] * 2, [1, 1])
    with pytest.raises(UserError, match=r"slim\.parameters or slim\.latency_ms must be at least 12: .*; got 3\."):
        within_budget(SHAPE, same, cost=COUNTS, budget=3)


def even(**chosen) -> Even:
    return Even(**{"heads": 0.0, "ffn": 0.0, "layers": None, "width": None, "criterion": CRITERION, **chosen})


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        ({"heads": 0.8}, r"slim.heads 0.8 leaves no head in a layer that has 2; at most 0.500 leaves one"),
        ({"ffn": 0.99}, r"slim.ffn 0.99 leaves no feed-forward column"),
        ({"layers": 3}, "slim.layers must be at most 2, what the model has, got 3"),
        ({"width": 17}, "slim.width must be at most 16, what the model has, got 17"),
    ],
)
def test_what_cannot_be_removed_is_refused(chosen, said):
    with pytest.raises(UserError, match=said):
        even(**chosen).check(SHAPE)


def test_a_mobilebert_is_refused():
    with pytest.raises(UserError, match="this model is a mobilebert"):
        even(heads=0.5).check(replace(SHAPE, family="mobilebert"))


def test_even_slimming_keeps_the_most_important_of_each_layer():
    scores = importance_of([[1, 2], [4, 3]], [range(32), range(32, 0, -1)], [1, 1])
    kept = even(heads=0.5, ffn=0.75).choose(SHAPE, lambda now: scores, None)
    assert kept.heads == ((1,), (0,))
    assert kept.columns == (tuple(range(24, 32)), tuple(range(8)))


def test_layers_go_by_their_place_so_nothing_is_scored():
    def score(kept: Kept) -> Importance:
        raise AssertionError("scored")

    assert even(layers=1).choose(SHAPE, score, None) == replace(Kept.all_of(SHAPE), layers=(1,),
        heads=Kept.all_of(SHAPE).heads[1:], columns=Kept.all_of(SHAPE).columns[1:])  # fmt: skip
    for chosen in ({"heads": 0.5}, {"ffn": 0.5}, {"width": 8}):
        with pytest.raises(AssertionError, match="scored"):
            even(layers=1, **chosen).choose(SHAPE, score, None)


EVENLY = [(6, 3, (0, 2, 5)), (12, 6, (0, 2, 4, 7, 9, 11)), (6, 1, (5,)), (2, 2, (0, 1))]


@pytest.mark.parametrize(("of", "count", "wanted"), EVENLY)
def test_evenly_spaced_layers(of, count, wanted):
    shape = replace(SHAPE, heads=(2,) * of, ffn_widths=(32,) * of)
    assert even(layers=count).choose(shape, scored, None).layers == wanted


def scored(kept: Kept) -> Importance:
    """What is in the middle matters most, whatever is left."""
    heads = [[-abs(i - len(own) / 2) for i in range(len(own))] for own in kept.heads]
    columns = [[-abs(i - len(own) / 2) for i in range(len(own))] for own in kept.columns]
    width = -np.abs(np.arange(len(kept.width)) - len(kept.width) / 2)
    return replace(importance_of(heads, columns, np.ones(len(kept.layers))), width=width, pooled=width)


@settings(max_examples=30, deadline=None)
@given(steps=st.integers(1, 5), heads=st.sampled_from([0, 0.25, 0.5, 0.75]), ffn=st.floats(0, 0.9),
       layers=st.sampled_from([None, 1, 2, 4]), width=st.sampled_from([None, 4, 16]))  # fmt: skip
def test_steps_end_where_one_cut_ends_in_counts(steps, heads, ffn, layers, width):
    shape = replace(SHAPE, heads=(4,) * 4, ffn_widths=(33,) * 4)
    method = even(heads=heads, ffn=ffn, layers=layers, width=width, criterion=replace(CRITERION, steps=steps))
    kept = method.choose(shape, scored, None)
    assert cut_shape(shape, kept) == method.after(shape)
    assert all(list(own) == sorted(set(own)) for own in (*kept.heads, *kept.columns, kept.width))


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_even_steps_keep_what_matters_most_of_the_whole_model(steps):
    """A head, column or hidden unit matters as much as its number in the whole model: the upper halves stay."""
    shape = replace(SHAPE, heads=(4, 4), ffn_widths=(32, 32))

    def score(kept: Kept) -> Importance:
        scores = importance_of(kept.heads, kept.columns, np.ones(len(kept.layers)))
        return replace(scores, width=np.array(kept.width, float), pooled=np.array(kept.pooled, float))

    method = even(heads=0.5, ffn=0.5, width=8, criterion=replace(CRITERION, steps=steps))
    kept = method.choose(shape, score, None)
    assert kept.heads == ((2, 3),) * 2
    assert kept.columns == (tuple(range(16, 32)),) * 2
    assert kept.width == kept.pooled == tuple(range(8, 16))


def test_shares_round_from_a_half_to_the_even_number_that_goes():
    """1.5 of 3 and 2.5 of 5: two go of both. 3/4 of 6 are 4.5: four go. 0.6 of 1,536 are 921.6: 922 go."""
    assert [_left(*one) for one in ((3, 0.5), (5, 0.5), (6, 0.75), (1536, 0.6), (12, 0.0))] == [1, 3, 2, 614, 12]


@pytest.mark.parametrize(("spare", "told"), [(0, True), (-1, False)])
def test_a_budget_that_the_whole_model_keeps_removes_nothing_and_says_so(spare, told, caplog):
    shape = replace(SHAPE, ffn_widths=(64, 64))
    scores = importance_of([[1] * heads for heads in shape.heads], [[1] * 64] * 2, [9, 9])
    method = Budget(parameters=shape.parameters + spare, latency_ms=None, width=None, criterion=CRITERION)
    with caplog.at_level("INFO"):
        left = cut_shape(shape, method.choose(shape, lambda kept: scores, None))
    assert (left == shape) == told
    assert ("within the budget as it is" in caplog.text) == told


@pytest.mark.parametrize("steps", [1, 2, 4])
@pytest.mark.parametrize("width", [None, 8])
def test_a_budget_in_steps_keeps_what_matters_most_of_the_whole_model(steps, width):
    """A column or hidden unit matters as much as its number in the whole model; a ms is a column: 256, then 128."""
    shape, seen = replace(SHAPE, ffn_widths=(128, 128)), []

    def score(kept: Kept) -> Importance:
        seen.append((sum(map(len, kept.columns)), len(kept.width)))
        heads = tuple(np.full(len(own), 1e6) for own in kept.heads)
        return Importance(heads=heads, columns=tuple(np.array(own, float) for own in kept.columns),
                          layers=np.full(len(kept.layers), 1e9), width=np.array(kept.width, float),
                          pooled=np.array(kept.pooled, float))  # fmt: skip

    method = Budget(parameters=None, latency_ms=128.0, width=width, criterion=replace(CRITERION, steps=steps))
    kept = method.choose(shape, score, lambda one: float(sum(one.ffn_widths)))
    assert kept.columns == (tuple(range(64, 128)),) * 2
    assert kept.width == kept.pooled == tuple(range(16 - (width or 16), 16))
    assert seen[-steps:] == [(256 - 128 * i // steps, width or 16) for i in range(steps)], "scored anew after each"
