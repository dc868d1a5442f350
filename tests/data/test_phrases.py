"""Whole sentences found again among their phrases, and held out with everything that is part of them."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import CONF
from hypothesis import given, settings
from hypothesis import strategies as st

from optim.common.errors import UserError
from optim.data import glue
from optim.data.corpus import Corpus
from optim.data.phrases import MIN_WORDS, parts_of
from optim.train.rows import split

SST2 = Path(__file__).resolve().parents[3] / "shared" / "data" / "SST-2"
LONG = "one two three four five six seven"
ROWS = [
    "two three four",
    LONG,
    "a film that is good and long",
    "three",
    "that is good and long indeed",  # overlaps with row 2, and is no part of it
    "good",  # part of rows 2 and 4
    "wo three",  # letters of row 0, but not its words
    "a short one",  # stands alone, with too few words to be held out
    LONG,  # the same again
]


def shared(sentence: str, row: str) -> bool:
    """Whether a row is a sentence or some words in a row of it."""
    return f" {' '.join(row.split())} " in f" {' '.join(sentence.split())} "


def test_parts_by_hand():
    parts = parts_of(ROWS)
    assert parts.whole.tolist() == [1, 2, 4]
    assert [parts.of(np.array([k])).tolist() for k in range(3)] == [[0, 1, 3, 8], [2, 5], [4, 5]]
    assert parts.of(np.array([1, 2])).tolist() == [2, 4, 5]
    assert parts.of(np.zeros(0, np.int64)).tolist() == []


WORDS = st.lists(st.sampled_from("abcd"), min_size=1, max_size=9).map(" ".join)


@settings(max_examples=60, deadline=None)
@given(st.lists(WORDS, min_size=1, max_size=25), st.integers(0, 5), st.integers(0, 99))
def test_parts_are_what_a_search_of_every_pair_finds(texts, count, seed):
    parts = parts_of(texts)
    whole = {
        text for text in texts
        if len(text.split()) >= MIN_WORDS and not any(shared(other, text) and other != text for other in texts)
    }  # fmt: skip
    assert sorted(texts[row] for row in parts.whole) == sorted(whole)
    for k, row in enumerate(parts.whole):
        assert parts.of(np.array([k])).tolist() == [i for i, text in enumerate(texts) if shared(texts[row], text)]
    held, touched = parts.held_out(count, seed)
    left = set(range(len(texts))) - set(touched.tolist())
    assert len(held) == min(count, len(whole))
    assert not any(shared(texts[sentence], texts[row]) for sentence in held for row in left)


# The judge


def source(folder: Path, **changes) -> glue.Glue:
    own = {"hub_id": "", "config": "sst2", "revision": "", "path": str(folder), "label_names": ["negative", "positive"],
           "phrases": True, "held_sentences": 20, "split_seed": 0, "max_length": 32}  # fmt: skip
    return glue.glue(**{**own, **changes})  # type: ignore[return-value]


@pytest.fixture
def folder(tmp_path) -> Path:
    """Train of 60 sentences of nine words, with three phrases of each; there is no dev.tsv to read."""
    rng = random.Random(0)
    rows = []
    for i in range(60):
        words = [f"{rng.choice('abcdefgh')}{rng.randrange(9)}" for _ in range(9)]
        spans = [(0, 9), (0, 4), (4, 9), (5, 6)]
        rows += [f"{' '.join(words[start:stop])} \t{i % 2}" for start, stop in spans]
    (tmp_path / "train.tsv").write_text("sentence\tlabel\n" + "\n".join(rows) + "\n", encoding="utf-8")
    return tmp_path


def require_apart(corpus: Corpus) -> None:
    """No training row is a sentence that is scored, or part of one."""
    spans = {" ".join(words[i:j]) for words in map(str.split, corpus.dev.texts)
             for i in range(len(words)) for j in range(i + 1, len(words) + 1)}  # fmt: skip
    assert not [text for text in corpus.train.texts if " ".join(text.split()) in spans]


def test_no_training_row_shares_a_sentence_with_the_judge_and_dev_is_not_read(folder):
    corpus = source(folder).load(folder)
    assert (corpus.name, corpus.phrases) == ("sst2_sentences_20_0", True)
    assert len(corpus.dev.texts) == 20
    assert all(len(text.split()) == 9 for text in corpus.dev.texts)
    assert len(corpus.train.texts) <= 240 - 4 * 20
    require_apart(corpus)
    assert "dev_sha256" not in source(folder).fingerprint()


def test_the_option_that_ships_has_the_judge_s_plain_name():
    """And every other split one of its own: the two numbers stand in the configs and in the code."""
    own, base = (
        yaml.safe_load((CONF / "data" / name).read_text())["data"] for name in ("sst2_sentences.yaml", "sst2.yaml")
    )
    assert (own["held_sentences"], base["split_seed"]) == glue.JUDGE
    assert "split_seed" not in own


def test_another_seed_holds_other_sentences_out(folder):
    one, other = (source(folder, split_seed=seed) for seed in (0, 1))
    assert one.load(folder).digest != other.load(folder).digest
    assert one.name != other.name, "who learnt from one has seen what the other holds out"
    assert one.fingerprint() != other.fingerprint()
    assert source(folder).load(folder).digest == one.load(folder).digest


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"held_sentences": 60}, "data.held_sentences must be below 60, .* at least 6 words, got 60"),
        ({"held_sentences": 0}, "data.held_sentences must be above 0, got 0"),
        ({"split_seed": -1}, "data.split_seed must be a whole number from 0 to 2147483647, got -1"),
        ({"phrases": False}, "data.held_sentences needs data.phrases=true"),
    ],
)
def test_a_judge_that_cannot_be_is_refused(folder, changes, message):
    with pytest.raises(UserError, match=message):
        source(folder, **changes).load(folder)


@pytest.mark.skipif(not SST2.is_dir(), reason="needs SST-2")
def test_the_judge_of_sst2_looks_like_its_dev():
    """1,500 sentences of a median of 19 words, as dev has, and 50,546 rows that share none with them."""
    corpus = source(SST2, held_sentences=1500, max_length=128).load(SST2)
    assert (corpus.name, len(corpus.train.texts), len(corpus.dev.texts)) == ("sst2_sentences", 50_546, 1_500)
    assert np.median([len(text.split()) for text in corpus.dev.texts]) == 19
    assert 0.45 <= corpus.dev.labels.mean() <= 0.55
    require_apart(corpus)


# The epoch is chosen in the same way


def test_what_chooses_the_epoch_is_whole_sentences_and_no_part_of_one_is_fitted(folder):
    corpus = source(folder, held_sentences=1).load(folder)
    parts = parts_of(corpus.train.texts)
    fitted, held = split(len(corpus.train.texts), holdout=0.1, minimum=1, seed=3, parts=parts)
    assert len(held) == 6  # a tenth of 59 sentences
    texts = np.array(corpus.train.texts, object)
    assert not any(shared(sentence, row) for sentence in texts[held] for row in texts[fitted])
    assert len(fitted) + len(parts.of(np.flatnonzero(np.isin(parts.whole, held)))) == len(texts)


def test_few_sentences_give_up_a_fifth():
    parts = parts_of([f"{i} b c d e f" for i in range(10)])
    fitted, held = split(10, holdout=0.1, minimum=200, seed=0, parts=parts)
    assert (len(fitted), len(held)) == (8, 2)
