"""Sentences made from train: by hand on sizes that can be read, and what holds for any."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from optim.common.errors import UserError
from optim.data.augment import COMMON, Augment, Maker, Neighbours, Sentences, nearest
from optim.data.transfer import Block, Filter

KNOWN = ["good", "fine", "bad", "awful", "film", "movie"]  # pairs of neighbours, at right angles to each other
TABLE = np.array([[9, 1, 0, 0, 0, 0], [9, 0, 0, 0, 0, 0], [0, 0, 9, 1, 0, 0], [0, 0, 9, 0, 0, 0], [0, 0, 0, 0, 9, 1],
                  [0, 0, 0, 0, 9, 0]], np.float32)  # fmt: skip
PAIR = {"good": "fine", "fine": "good", "bad": "awful", "awful": "bad", "film": "movie", "movie": "film"}
ALWAYS = {"copies": 1, "least_words": 0, "replace": 1.0, "neighbours": 1, "words": "all", "drop": 0.0,
          "join": 0.0, "seed": 0}  # fmt: skip


def rules(**changes) -> Augment:
    return Augment(**{**ALWAYS, **changes})


def made(texts: list[str], **changes) -> Block:
    """The first copy of the texts, under rules that replace every word they can by its one neighbour."""
    return Maker(texts, KNOWN, TABLE, rules(**changes)).copy(0)


def test_nearest_by_hand():
    """Angles of 0, 10, 90 and 180 degrees, and lengths that do not count."""
    angles = np.deg2rad([0, 10, 90, 180])
    table = np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32) * [[1], [50], [0.1], [3]]
    assert nearest(table, np.array([0, 3]), 2).tolist() == [[1, 2], [2, 1]]
    assert nearest(table, np.array([0]), 9).tolist() == [[1, 2, 3]], "no more than there are"


def test_nearest_among_some_by_hand():
    """Of 0, 10, 90 and 180 degrees the second is no choice; a word without any other stays."""
    angles = np.deg2rad([0, 10, 90, 180])
    table = np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)
    assert nearest(table, np.array([0, 3]), 2, np.array([0, 2, 3])).tolist() == [[2, 3], [2, 0]]
    assert nearest(table, np.array([2]), 3, np.array([2])).tolist() == [[2]]


def test_a_word_becomes_one_of_train_where_a_student_reads_no_other(monkeypatch):
    """`good` is nearest to `fine`, which no text has; of those that are there `awful` is next, then `film`."""
    from optim.data import augment

    monkeypatch.setattr(augment, "COMMON", 1.0)
    texts, table = ["good awful film"], TABLE.copy()
    table[KNOWN.index("awful")] += [1, 0, 0, 0, 0, 0]
    replaced = [Maker(texts, KNOWN, table, rules(words=words)).copy(0).texts for words in ("all", "train")]
    assert replaced[0] == ["fine bad movie"]
    assert replaced[1][0].split()[0] == "awful"
    assert set(replaced[1][0].split()) <= {"good", "awful", "film"}


@pytest.mark.parametrize("words", ["all", "train"])
def test_texts_of_which_the_encoder_knows_no_word_are_left_out_and_joined_alone(words):
    """Chinese has no blanks between words, so a sentence is one word here, of many pieces."""
    block = Maker(["这部电影很好看", "剧情无聊透顶"], KNOWN, TABLE, rules(words=words, join=1.0)).copy(0)
    assert block.texts
    assert set("".join(block.texts)) <= set("这部电影很好看剧情无聊透顶 ")


def test_nearest_is_the_same_in_blocks(monkeypatch):
    from optim.data import augment

    table = np.random.default_rng(0).normal(size=(40, 5)).astype(np.float32)
    whole = nearest(table, np.arange(40), 4)
    monkeypatch.setattr(augment, "ROWS", 7)
    np.testing.assert_array_equal(nearest(table, np.arange(40), 4), whole)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("good", "fine"),
        ("Good, (film)!", "Fine, (movie)!"),
        ("see Film", "see Film"),  # a capital inside a sentence: a name, mostly
        ("Film", "Movie"),
        ("3 film2 good-bad film's ... zzz", "3 film2 good-bad film's ... zzz"),
    ],
)
def test_a_word_of_letters_becomes_its_neighbour_in_its_dress(text, expected, monkeypatch):
    from optim.data import augment

    monkeypatch.setattr(augment, "COMMON", 1.0)  # in one sentence every word is common
    assert made([text]).texts == [expected]


def test_common_words_are_replaced_less_often_by_hand():
    """`good` is 500 of 1,000 words, `bad` 1: chances of COMMON / 0.5 and of `replace` itself."""
    texts = ["good"] * 500 + ["zzz"] * 499 + ["bad"]
    found = Neighbours(Sentences(texts), KNOWN, TABLE, rules(replace=0.5)).chance
    assert found.tolist() == pytest.approx([0.5 * COMMON / 0.5, 0.0, 0.5])


def test_a_sentence_that_would_stay_as_it_was_has_one_word_replaced():
    texts = ["good zzz"] * 10 + ["zzz zzz"]
    block = made(texts, replace=1e-9)
    assert block.texts == ["fine zzz"] * 10 + ["zzz zzz"]


def test_no_word_is_lost_of_a_short_sentence_and_never_all_of_one():
    block = made(["good film", "a b c d e", "a b c d e"] * 50, replace=0.0, drop=0.9, seed=3)
    assert {len(text.split()) for text in block.texts[::3]} == {2}
    left = [len(text.split()) for text in block.texts[1::3] + block.texts[2::3]]
    assert min(left) == 1
    assert np.mean([n for n in left if n < 5]) < 3, "most words are gone"


def test_phrases_by_hand():
    """Ended by punctuation, alone or at a word; of two words at least."""
    found = Sentences(["a b , c -- d e f. g", "one", "x y z"])
    stretches = [
        " ".join(found.words[i] for i in found.ids[start : start + length])
        for start, length in zip(found.phrase_starts, found.phrase_lengths, strict=True)
    ]
    assert stretches == ["a b ,", "c --", "d e f.", "x y z"]
    assert found.phrase_counts.tolist() == [3, 0, 1]
    assert found.first_phrases.tolist() == [0, 3, 3]


def test_joined_sentences_are_a_phrase_of_each_of_their_parents():
    texts = ["a b , c d .", "e f ; g h !", "one"]
    parts = [{"a b ,", "c d ."}, {"e f ;", "g h !"}, {"one"}]
    for seed in range(20):
        block = made(texts, replace=0.0, join=1.0, seed=seed)
        for row, (text, (first, second)) in enumerate(zip(block.texts, block.parents.tolist(), strict=True)):
            assert first == row != second
            assert text in {f"{one} {other}" for one in parts[first] for other in parts[second]}


def test_a_neighbour_is_the_likelier_the_nearer_it_is():
    """Of four neighbours the first is drawn with chance sqrt(1 / 4), the last with 1 - sqrt(3 / 4)."""
    table = np.stack([np.cos(np.arange(5) / 9), np.sin(np.arange(5) / 9)], 1).astype(np.float32)
    known = ["aa", "bb", "cc", "dd", "ee"]
    texts = Maker(["aa"] * 20_000, known, table, rules(neighbours=4)).copy(0).texts
    shares = [texts.count(word) / len(texts) for word in known]
    assert shares == pytest.approx([0, 0.5, 0.2071, 0.1589, 0.1340], abs=0.02)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"copies": -1}, "copies must be from 0"),
        ({"copies": 21}, "copies must be from 0 .none. to 20, got 21"),
        ({"replace": 30.0}, "For 30 %, write 0.3"),
        ({"join": -0.1}, "distill.augment.join must be a fraction"),
        ({"least_words": -1}, "distill.augment.least_words must be 0 .all"),
        ({"neighbours": 0}, "distill.augment.neighbours must be above 0"),
        ({"words": "some"}, "distill.augment.words must be all or train, got 'some'"),
        ({"seed": -1}, "distill.augment.seed"),
        ({"replace": 0.0}, "are all 0"),
    ],
)
def test_rules_out_of_range_are_refused(changes, said):
    with pytest.raises(UserError, match=said):
        rules(**changes)


WORDS = st.sampled_from(["good", "Fine,", "bad", "film", "movie", "the", "of", "n't", "3", ",", ".", "zzz"])
TEXTS = st.lists(st.lists(WORDS, min_size=1, max_size=8).map(" ".join), min_size=1, max_size=12)
CHANCES = st.sampled_from([0.0, 0.2, 0.7, 1.0])
RULES = st.builds(
    lambda copies, least, replace, neighbours, drop, join, seed: rules(
        copies=copies, least_words=least, replace=replace, neighbours=neighbours, drop=drop, join=join or 0.1, seed=seed
    ),
    st.integers(1, 4), st.integers(0, 5), CHANCES, st.integers(1, 9), CHANCES, CHANCES, st.integers(0, 99),
)  # fmt: skip


def bare(text: str) -> set[str]:
    return {word.strip(",.").lower() for word in text.split()}


@settings(max_examples=150, deadline=None)
@given(TEXTS, RULES)
def test_what_holds_for_every_made_up_sentence(texts, chosen):
    """A copy of every sentence of enough words, from its words and near ones; parents that are rows; twice the same."""
    near, long = set(KNOWN), [i for i, text in enumerate(texts) if len(text.split()) >= chosen.least_words]
    assume(long)
    for number, block in enumerate(Maker(texts, KNOWN, TABLE, chosen).blocks()):
        assert len(block.texts) == len(block.parents) == len(long)
        assert block.parents[:, 0].tolist() == long
        for text, (first, second) in zip(block.texts, block.parents.tolist(), strict=True):
            assert second == -1 or (second in long and second != first)
            words = bare(texts[first]) | (bare(texts[second]) if second >= 0 else set())
            assert text
            assert bare(text) <= words | (near if words & near else set())
        again = Maker(texts, KNOWN, TABLE, chosen).copy(number)
        assert again.texts == block.texts
        np.testing.assert_array_equal(again.parents, block.parents)


def plain(text: str) -> str:
    """The letters and digits of a text, counted another way than in the program."""
    return " ".join("".join(c if c.isalnum() else " " for c in text.lower()).split())


@settings(max_examples=150, deadline=None)
@given(TEXTS, TEXTS, RULES)
def test_nothing_of_train_or_dev_and_nothing_twice_comes_through_and_all_is_counted(train, dev, chosen):
    long = [text for text in train if len(text.split()) >= chosen.least_words]
    assume(long)
    unseen = Filter(train, dev)
    blocks = [unseen(block) for block in Maker(train, KNOWN, TABLE, chosen).blocks()]
    texts = [text for block in blocks for text in block.texts]
    forms = [plain(text) for text in texts]
    assert len(set(forms)) == len(forms)
    assert not set(forms) & {plain(text) for text in [*train, *dev, ""]}
    assert len(texts) + sum(unseen.left_out.values()) == chosen.copies * len(long)
    assert sum(len(block.parents) for block in blocks) == len(texts)


def test_another_seed_or_copy_makes_other_sentences():
    texts = [f"good bad film zzz w{i}" for i in range(50)]
    maker = Maker(texts, KNOWN, TABLE, rules(neighbours=5))
    other = Maker(texts, KNOWN, TABLE, rules(neighbours=5, seed=1))
    assert maker.copy(0).texts != maker.copy(1).texts
    assert maker.copy(0).texts != other.copy(0).texts


def test_a_least_that_no_sentence_has_is_refused_before_anything_is_made():
    from optim.data.corpus import Corpus, Sentences
    from optim.run.transfer import AugmentedStep

    split = Sentences(["good film", "bad"], np.array([1, 0]))
    corpus = Corpus(name="two", label_names=("no", "yes"), train=split, dev=split, digest="d")
    with pytest.raises(UserError, match="least_words=3 leaves nothing to copy: the longest training sentence has 2"):
        AugmentedStep(corpus, rules(least_words=3), start=None)  # type: ignore[arg-type]
