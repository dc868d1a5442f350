"""Scored sentences that stand in what is learnt from."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from conftest import CONF, DEV_COUNT, TRAIN_COUNT, sentences

from optim.common.errors import UserError
from optim.data.corpus import Sentences, _corpus
from optim.data.leaks import known_sets, names_learnt, require_unrelated, require_unseen, require_unseen_dev, seen
from optim.data.reviews import Reviews
from optim.data.spelling import normal_form

# Of SST-2's dev split; each stands in a snippet of `reviews`, whole or as one sentence of several.
TREEBANK = [
    "it 's a charming and often affecting journey .",
    "you do n't have to know about music to appreciate the film 's easygoing blend of comedy and romance .",
    "pumpkin means to be an outrageous dark satire on fraternity life , but its ambitions far exceed the abilities of "
    "writer adam larson broder and his co-director , tony r. abrams , in their feature debut .",
    "the movie achieves as great an impact by keeping these thoughts hidden as ... ( quills ) did by showing them .",
    "a delectable and intriguing thriller filled with surprises , read my lips is an original .",
    "inside the film 's conflict-powered plot there is a decent moral trying to get out , but it 's not that , "
    "it 's the tension that keeps you in your seat .",
]

LONG = "Its humor never quite finds exactly the right tone"


@pytest.fixture(scope="module")
def snippets(tmp_path_factory: pytest.TempPathFactory):
    """data=reviews."""
    fields = yaml.safe_load((CONF / "data" / "reviews.yaml").read_text())["data"]
    del fields["method"]
    return Reviews(**fields).load(tmp_path_factory.mktemp("packages"))


def test_normal_form_is_words_of_letters_and_digits():
    assert normal_form('It \'s -- a  "Café" of 2,000_things!') == "it s a cafe of 2 000 things"
    assert normal_form("-LRB- Really &amp; truly -rrb- good<br />film") == "really truly good film"


@pytest.mark.parametrize(
    ("scored", "learnt"),
    [
        ("it does n't work , ca n't work .", "It doesn't work, can't work."),
        ("-lrb- a good film -rrb-", "(A good film)"),
        ("the cliche is gone", "The cliché is gone!"),
        (":-)", " :-) "),
        (
            "its humor never quite finds exactly the right tone .",
            "Slow. Its humor never quite finds exactly the right tone.",
        ),
    ],
)
def test_a_sentence_is_found_in_another_spelling(scored, learnt):
    assert seen(["something else", scored], ["no", learnt]) == {1: learnt}


@pytest.mark.parametrize(
    ("scored", "learnt"),
    [
        ("a good film", "It is a good film, for once, and all of us loved it."),  # short: by chance
        (
            "a film that everybody should really have seen one day",
            "Ana film that everybody should really have seen one day",
        ),
        (
            "a film that everybody should really have seen one day",
            "A film that everybody should really have seen one daybreak",
        ),
        (":-)", ":-("),
        ("what it says about its own time", "what it says about our own time"),
    ],
)
def test_other_sentences_are_not_found(scored, learnt):
    assert seen([scored], [learnt]) == {}


def test_copies_of_a_scored_sentence_all_count():
    assert seen(["Fine.", "poor", "fine"], ["fine !"]) == {0: "fine !", 2: "fine !"}


def test_sentences_of_the_treebank_are_found_in_the_snippets(snippets):
    """Tokens of the Penn treebank against raw text."""
    texts = snippets.train.texts + snippets.dev.texts
    assert sorted(seen(TREEBANK, texts)) == list(range(len(TREEBANK)))
    assert seen([text for text, _ in sentences(DEV_COUNT, 1)], texts) == {}


def test_a_few_are_allowed_and_more_are_refused_with_count_and_example():
    scored = [f"sentence number {i}" for i in range(200)]
    assert require_unseen(scored, scored[:4], "distill.unlabelled=x.txt") == 4  # MAX_SEEN_FRACTION of 200
    with pytest.raises(UserError) as caught:
        require_unseen(scored, ["Sentence number 7!", *scored[8:12]], "distill.unlabelled=x.txt")
    said = str(caught.value)
    assert said.startswith("distill.unlabelled=x.txt: 5 of the 200 sentences that are scored stand in these texts")
    assert "at most 2% may: 'sentence number 7' is in 'Sentence number 7!'" in said
    assert said.count("\n") == 1


def test_one_of_few_may_be_chance():
    assert require_unseen(["good", "bad"], ["Good!"], "x") == 1
    with pytest.raises(UserError, match="2 of the 2"):
        require_unseen(["good", "bad"], ["Good!", "bad"], "x")


def test_the_snippets_hold_nothing_of_their_own_dev(snippets):
    assert require_unseen_dev(snippets) == 0


def test_a_corpus_that_scores_what_it_learns_is_refused():
    rows = sentences(TRAIN_COUNT, 0)
    train = Sentences([text for text, _ in rows], np.array([label for _, label in rows], np.int32))
    dev = Sentences([text.upper() for text in train.texts[:100]], train.labels[:100])
    with pytest.raises(UserError, match="data=mine, its sentences to train: 100 of the 100"):
        require_unseen_dev(_corpus("mine", train, dev, ("negative", "positive")))


SIGNS_OF_SST2 = [
    "when leguizamo finally plugged an irritating character late in the movie .",
    "the second coming of harry potter is a film far superior to its predecessor .",
    "Dragonfly has no atmosphere, no tension -- nothing but Costner, flailing away.",
]


def test_sets_are_known_by_their_texts_under_any_name(snippets):
    assert (known_sets(snippets.train.texts), known_sets(snippets.dev.texts)) == (("reviews",), ("reviews",))
    assert known_sets([*SIGNS_OF_SST2, "more"]) == ("sst2",)
    assert known_sets(SIGNS_OF_SST2[:2]) == ()
    assert known_sets([text for text, _ in sentences(TRAIN_COUNT, 0)]) == ()


@pytest.mark.parametrize(
    ("data", "learnt"),
    [
        ("sst2", "reviews"), ("sst2_sentences", "reviews"), ("nyu-mll/glue/sst2", "reviews"),
        ("sst2", "cornell-movie-review-data/rotten_tomatoes"), ("sst2", "textattack/bert-base-uncased-rotten-tomatoes"),
        ("reviews", "sst2"), ("reviews", "distilbert/distilbert-base-uncased-finetuned-sst-2-english"),
    ],
)  # fmt: skip
def test_data_with_the_same_sentences_are_refused_by_name(data, learnt):
    with pytest.raises(UserError, match=f"model=mine was trained on {learnt}, and data={data} has the same"):
        require_unrelated(data, ["csv", learnt], "model=mine")


@pytest.mark.parametrize(
    "learnt",
    [
        "sst2", "distilbert/distilbert-base-uncased-finetuned-sst-2-english", "sst2_sentences_200_0",
        "sst2_sentences_1500_1",
    ],
)  # fmt: skip
def test_sentences_of_a_train_are_not_scored_by_who_learnt_it(learnt):
    """Nor by who learnt from another split of it, whatever else that model says."""
    for said in (["csv", learnt], ["sst2_sentences", learnt]):
        with pytest.raises(UserError, match=f"model=mine was trained on {learnt}, whose sentences to train hold"):
            require_unrelated("sst2_sentences", said, "model=mine")


@pytest.mark.parametrize("split", ["sst2_sentences", "sst2_sentences_200_1"])
def test_who_learnt_from_a_split_is_scored_on_what_it_holds_out(split):
    require_unrelated(split, ["csv", split], "model=mine")
    corpus: Any = SimpleNamespace(name=split, train=SimpleNamespace(texts=SIGNS_OF_SST2))
    assert names_learnt(corpus) == (split,), "not sst2, which would be all of its train"
    corpus.name = "csv"
    assert names_learnt(corpus) == ("csv", "sst2")


@pytest.mark.parametrize(
    ("data", "learnt"),
    [("sst2", "sst2"), ("sst2", "sst2_sentences"), ("reviews", "reviews"), ("csv", "reviews"),
     ("sst2", "amazon_reviews"), ("assets", "reviews"), ("sst2", "distilbert/distilbert-base-uncased"),
     ("banking77", "sst2")],
)  # fmt: skip
def test_other_data_are_not(data, learnt):
    require_unrelated(data, [learnt], "model=mine")
