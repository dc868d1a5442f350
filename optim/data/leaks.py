"""Sentences that are scored and stand in what is learnt from: found by their text, and by the names of data sets.

Texts are compared in a normal form, since one sentence has many spellings: SST-2 writes `it 's` and `( ... )` where a
raw snippet has `It's` and `[...]`. Of the 872 dev sentences of SST-2, 2 stand in its own train, 699 in that of
`reviews`, whose snippets SST was cut from, and 807 in all of its snippets. BANKING77 has 35 of 3,080 in its train.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence

from optim.common.errors import UserError
from optim.data import signs
from optim.data.corpus import Corpus
from optim.data.spelling import joined, joined_form, normal_form, words_of

MAX_SEEN_FRACTION = 0.02  # of the scored sentences; SST-2 has 0.002 in its own train, BANKING77 0.011
MIN_LETTERS = 40  # some eight words: a shorter sentence stands inside a longer one by chance
MIN_SIGNS = 3  # of some 80 each; a tenth of a set has about 8 of them
PREFIX_LETTERS = 12  # by which sentences that may begin at a word are looked up
# Data sets that hold the same sentences: who learnt from one is not scored on another. Parts of names, in normal form.
MOVIE_SNIPPETS = ("rotten tomatoes", "movie review snippets", "sentence polarity")
INNER = "sst2 sentences"
TREEBANK = ("sst", "sst2", "sst5", "sst 2", "sst 5", "sst2 sentences", "stanford sentiment treebank")


def seen(scored: Sequence[str], learnt: Iterable[str]) -> dict[int, str]:
    """Index of a scored sentence -> the first of the learnt texts that it stands in, for those that stand in one.

    A sentence stands in a text that is the same in normal form, spaces aside (`does n't` is `doesn't`), and one of
    MIN_LETTERS or more also where such a text holds it between two borders of words.
    """
    whole: dict[str, list[int]] = {}
    for i, text in enumerate(scored):
        whole.setdefault(joined_form(text), []).append(i)
    found: dict[str, str] = {}
    for text, keys in _standing(whole, learnt):
        for key in keys:
            found.setdefault(key, text)
    return {i: text for key, text in found.items() for i in whole[key]}


def holding(scored: Sequence[str], learnt: Iterable[str]) -> list[str]:
    """The learnt texts in which a scored sentence stands, as `seen` has it."""
    return [text for text, keys in _standing(dict.fromkeys(map(joined_form, scored)), learnt) if keys]


def _standing(scored: Mapping[str, object], learnt: Iterable[str]) -> Iterator[tuple[str, list[str]]]:
    """Each learnt text, and which of the scored ones, by their joined forms, stand in it."""
    starts: dict[str, list[str]] = {}
    for key in scored:
        if len(key) >= MIN_LETTERS:
            starts.setdefault(key[:PREFIX_LETTERS], []).append(key)
    for text in learnt:
        words = words_of(text)
        form = joined(words, text)
        own = [form] if form in scored else []
        yield text, own + (list(_held(form, words, starts)) if len(form) > MIN_LETTERS else [])


def require_unseen(scored: Sequence[str], learnt: Iterable[str], setting: str) -> int:
    """How many scored sentences stand in the texts that `setting` names.

    Raises UserError, with the count and an example, for more than MAX_SEEN_FRACTION of them (one may always be chance).
    """
    found = seen(scored, learnt)
    if len(found) > max(1, MAX_SEEN_FRACTION * len(scored)):
        first = min(found)
        raise UserError(
            f"{setting}: {len(found):,} of the {len(scored):,} sentences that are scored stand in these texts, at most "
            f"{MAX_SEEN_FRACTION:.0%} may: {_short(scored[first])} is in {_short(found[first])}.\n"
            "A score on what was learnt says nothing. Take them out of one of the two, or score other sentences."
        )
    return len(found)


def require_unseen_dev(corpus: Corpus) -> int:
    """How many sentences of dev stand in train. Raises UserError like `require_unseen`."""
    return require_unseen(corpus.dev.texts, corpus.train.texts, f"data={corpus.name}, its sentences to train")


def known_sets(texts: Iterable[str]) -> tuple[str, ...]:
    """Which of `sst2` and `reviews` the texts hold MIN_SIGNS or more signs of, whatever their file is called."""
    digests = {hashlib.sha256(joined_form(text).encode()).hexdigest()[: signs.DIGITS] for text in texts}
    return tuple(name for name, marks in signs.SETS.items() if len(marks & digests) >= MIN_SIGNS)


def names_learnt(corpus: Corpus) -> tuple[str, ...]:
    """The names of what a model learns from the corpus: its own, and what its training texts turn out to be.

    A split of SST-2's train is not called SST-2 too: who learnt from that has seen the sentences it holds out.
    """
    known = known_sets(corpus.train.texts)
    more = [name for name in known if not (_inner(corpus.name) and name == "sst2")]
    return tuple(dict.fromkeys((corpus.name, *more)))


def names_scored(corpus: Corpus) -> tuple[str, ...]:
    """The names of what is scored: its own, and what the texts of dev turn out to be."""
    return tuple(dict.fromkeys((corpus.name, *known_sets(corpus.dev.texts))))


def require_unrelated(data: str, learnt: Iterable[str], setting: str, *, verb: str = "was trained on") -> None:
    """Raises UserError if one of the data sets named `learnt`, which a model was trained on, holds what `data` scores.

    verb: what `setting` has to do with those data sets.

    Movie-review snippets are what SST was cut from, so each of the two holds most sentences of the other.
    `sst2_sentences` scores sentences of SST-2's own train; what was fitted on that split has not seen them.
    """
    scored, inner = _sentences_of(data), _inner(data)
    for name in learnt:
        other = _sentences_of(name)
        if scored and other and scored != other:
            raise UserError(
                f"{setting} {verb} {name}, and data={data} has the same sentences: SST was cut from those "
                "movie reviews. A score on what was learnt says nothing; choose other data or another model."
            )
        if inner and other and normal_form(name) != normal_form(data):
            raise UserError(
                f"{setting} {verb} {name}, whose sentences to train hold those that data={data} scores. "
                "A score on what was learnt says nothing; choose data=sst2 or another model."
            )


def _inner(name: str) -> bool:
    """Whether this data set holds out sentences of SST-2's train."""
    return f"{normal_form(name)} ".startswith(f"{INNER} ")


def _sentences_of(name: str) -> str | None:
    """Which of the sentences known here a data set or model of that name holds; None for all others."""
    form = f" {normal_form(name)} "
    if form == " reviews " or any(f" {part} " in form for part in MOVIE_SNIPPETS):
        return "snippets"
    return "treebank" if any(f" {part} " in form for part in TREEBANK) else None


def _held(form: str, words: list[str], starts: dict[str, list[str]]) -> list[str]:
    """The sentences of `starts` that `form` holds from the beginning of a word to the end of one."""
    places, ends, place = [], set(), 0
    for word in words:
        places.append(place)
        place += len(word)
        ends.add(place)
    return [
        key
        for place in places
        for key in starts.get(form[place : place + PREFIX_LETTERS], ())
        if place + len(key) in ends and form.startswith(key, place)
    ]


def _short(text: str) -> str:
    return repr(text if len(text) <= 80 else f"{text[:77]}...")
