"""A vocabulary that is cut still spells every text, and text made of kept tokens gives the logits it gave before."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from small_fit import SHAPE, filled, random_weights
from tokenizers import Tokenizer

from optim.common.errors import UserError
from optim.cut.kept import Kept
from optim.cut.structure import Whole
from optim.cut.surgery import CUT, Patient, Removal
from optim.cut.vocabulary import Seen, Top, Words
from optim.data.tokens import Tokens
from optim.encoder.architecture import Architecture, Bottleneck
from optim.encoder.store import ARCHITECTURE, WEIGHTS, read_architecture

SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
# "dead" comes before them, so that their ids change where it goes.
PIECES = ["dead", *SPECIALS, *"abcdeé漢!", *(f"##{c}" for c in "abcde漢!"), "abc", "##de", "bad", "cab", "##ab"]


def content(post: str = "template") -> dict:
    ids = {piece: i for i, piece in enumerate(PIECES)}
    around = {"cls": ["[CLS]", ids["[CLS]"]], "sep": ["[SEP]", ids["[SEP]"]]}
    frame = {
        "template": {
            "type": "TemplateProcessing", "pair": [],
            "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                       {"SpecialToken": {"id": "[SEP]", "type_id": 0}}],
            "special_tokens": {name: {"id": name, "ids": [ids[name]], "tokens": [name]} for name in ("[CLS]", "[SEP]")},
        },
        "bert": {"type": "BertProcessing", **around},
        "roberta": {"type": "RobertaProcessing", **around, "trim_offsets": True, "add_prefix_space": False},
    }[post]  # fmt: skip
    special = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {
        "version": "1.0", "truncation": None, "padding": None, "decoder": None,
        "added_tokens": [{"id": ids[name], "content": name, **special} for name in SPECIALS],
        "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True,
                       "strip_accents": None, "lowercase": True},
        "pre_tokenizer": {"type": "BertPreTokenizer"}, "post_processor": frame,
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                  "max_input_chars_per_word": 100, "vocab": ids},
    }  # fmt: skip


def names(tokenizer: Tokenizer, text: str) -> list[str]:
    return tokenizer.encode(text).tokens


def test_needed_are_specials_and_the_characters_that_a_text_can_bring():
    """é is written e by the normalizer; 漢 and ! are words of their own, so nothing goes on with them."""
    needed = {PIECES[i] for i in Words(content(), "it").needed()}
    assert needed == {*SPECIALS, *"abcde漢!", *(f"##{c}" for c in "abcde")}


@pytest.mark.parametrize("post", ["template", "bert", "roberta"])
def test_a_cut_tokenizer_by_hand(post):
    words = Words(content(post), "it")
    counts = np.zeros(len(PIECES), int)
    counts[PIECES.index("bad")] = 3
    kept = Seen(minimum_count=1, positions=None).keep(words, counts)
    cut = Tokenizer.from_str(json.dumps(words.cut(kept)))
    assert cut.get_vocab_size() == len(kept) == len(words.needed()) + 1
    assert names(cut, "bad cab") == ["[CLS]", "bad", "c", "##a", "##b", "[SEP]"]
    assert [PIECES[kept[i]] for i in cut.encode("bad cab").ids] == names(cut, "bad cab"), "ids are those of the rows"


def test_top_takes_the_most_frequent_and_never_what_train_lacks():
    words, counts = Words(content(), "it"), np.zeros(len(PIECES), int)
    for piece, count in {"bad": 5, "cab": 5, "dead": 9, "a": 100}.items():
        counts[PIECES.index(piece)] = count
    least = len(words.needed())
    chosen = {0: set(), 1: {"dead"}, 2: {"dead", "bad"}, 3: {"dead", "bad", "cab"}, 9: {"dead", "bad", "cab"}}
    for more, wanted in chosen.items():
        kept = Top(size=least + more, positions=None).keep(words, counts)
        assert {PIECES[i] for i in kept} - {PIECES[i] for i in words.needed()} == wanted


@settings(max_examples=200, deadline=None)
@given(
    text=st.text(alphabet="abcdeé漢! x", max_size=30) | st.text(max_size=30),
    kept_pieces=st.sets(st.sampled_from(["dead", *PIECES[-5:]])),
)
def test_any_text_tokenizes_and_kept_text_as_before(text, kept_pieces):
    words = Words(content(), "it")
    whole = Tokenizer.from_str(json.dumps(words.content))
    kept = sorted(words.needed() | {PIECES.index(piece) for piece in kept_pieces})
    cut = Tokenizer.from_str(json.dumps(words.cut(kept)))
    before, after = names(whole, text), names(cut, text)
    assert after.count("[UNK]") == before.count("[UNK]"), "what could be spelled still can"
    assert "".join(t.removeprefix("##") for t in after) == "".join(t.removeprefix("##") for t in before)
    if set(before) <= {PIECES[i] for i in kept}:
        assert after == before
        assert [kept[i] for i in cut.encode(text).ids] == whole.encode(text).ids, "rows of the table: the same logits"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c["model"].update(type="BPE"), "WordPiece vocabularies, it has BPE"),
        (lambda c: c["model"]["vocab"].pop("[UNK]"), r"has no \[UNK\]"),
        (lambda c: c["model"]["vocab"].pop("[SEP]"), r"has no \[SEP\]"),
        (lambda c: c["model"]["vocab"].pop("[CLS]"), r"has no \[CLS\]"),
        (lambda c: c.update(post_processor=None), "no two special tokens"),
    ],
)
def test_a_tokenizer_that_cannot_be_cut_is_refused(change, said):
    broken = content()
    broken["added_tokens"] = []
    change(broken)
    with pytest.raises(UserError, match=said):
        Words(broken, "it")


def test_an_unknown_token_that_is_no_piece_of_wordpiece_is_refused_though_it_is_added():
    broken = content()
    broken["model"]["vocab"].pop("[UNK]")
    with pytest.raises(UserError, match=r"has no \[UNK\]"):
        Words(broken, "it")


def patient_in(folder: Path, shape: Architecture) -> Patient:
    """A random model of that shape with the tokenizer above, and one sentence to train on."""
    folder.mkdir()
    save_file(random_weights(shape), folder / WEIGHTS)
    (folder / ARCHITECTURE).write_text(json.dumps(shape.to_json()), encoding="utf-8")
    (folder / "tokenizer.json").write_text(json.dumps(content()), encoding="utf-8")
    ids = np.array(Tokenizer.from_str(json.dumps(content())).encode("bad cab").ids, np.int32)
    train = Tokens(ids, np.array([0, len(ids)]), np.zeros(1, np.int32))
    return Patient(folder=folder, tokenizer=folder / "tokenizer.json", train=train)


def test_structure_is_chosen_for_the_words_that_stay(tmp_path):
    """A budget in parameters counts those of the embedding that the student will have."""
    seen: list[Architecture] = []

    class Spy(Whole):
        def choose(self, shape: Architecture, score: Any, latency: Any) -> Kept:
            seen.append(shape)
            return super().choose(shape, score, latency)

    whole = replace(SHAPE, vocabulary_size=len(PIECES))
    patient, cut = patient_in(tmp_path / "whole", whole), tmp_path / "cut"
    cut.mkdir()
    Removal(slim=Spy(), vocabulary=Seen(minimum_count=1, positions=None), spec={}).cut(patient, cut)
    words = json.loads((cut / CUT).read_text())["words"]
    assert 0 < len(words) < len(PIECES)
    assert seen == [replace(whole, vocabulary_size=len(words))]


def test_words_are_cut_out_of_a_mobilebert_too(tmp_path):
    """Its embeddings and bottlenecks are narrower than the model."""
    narrow = Bottleneck(embedding_width=12, width=8, ffn_count=2)
    shape = replace(SHAPE, family="mobilebert", head_width=4, pooling="first", bottleneck=narrow,
                    vocabulary_size=len(PIECES))  # fmt: skip
    patient, cut = patient_in(tmp_path / "whole", shape), tmp_path / "cut"
    cut.mkdir()
    weights, before = load_file(patient.folder / WEIGHTS), patient.train.ids
    removal = Removal(slim=Whole(), vocabulary=Seen(minimum_count=1, positions=None), spec={})
    removal.check(shape, patient.tokenizer, lambda: before)
    removal.cut(patient, cut)
    left = read_architecture(cut)
    assert left == replace(shape, vocabulary_size=len(json.loads((cut / CUT).read_text())["words"]))
    after = np.array(Tokenizer.from_file(str(cut / "tokenizer.json")).encode("bad cab").ids, np.int32)
    assert before.tolist() != after.tolist()
    logits = [filled(of, values)({"input_ids": ids[None], "attention_mask": np.ones_like(ids)[None]}).numpy()
              for of, values, ids in ((shape, weights, before), (left, load_file(cut / WEIGHTS), after))]  # fmt: skip
    np.testing.assert_allclose(logits[0], logits[1], atol=1e-5)


def test_a_size_below_what_is_needed_is_refused():
    words = Words(content(), "it")
    with pytest.raises(UserError, match=rf"vocab.size must be at least {len(words.needed())}"):
        Top(size=len(words.needed()) - 1, positions=None).check(words)
    Top(size=len(words.needed()), positions=None).check(words)


def test_a_word_that_train_has_too_seldom_goes():
    words, counts = Words(content(), "it"), np.zeros(len(PIECES), int)
    counts[PIECES.index("bad")], counts[PIECES.index("cab")] = 3, 2
    kept = Seen(minimum_count=3, positions=None).keep(words, counts)
    assert {PIECES[i] for i in kept} - {PIECES[i] for i in words.needed()} == {"bad"}
