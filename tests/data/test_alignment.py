"""A vocabulary in another: by roles and pieces, and sentence by sentence."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from optim.common.errors import UserError
from optim.data.alignment import Alignment, aligned, id_table, read_vocabulary, same_pieces
from optim.data.tokens import Tokens, tokenize_blocks
from optim.encoder.assets import make_tokenizer
from optim.encoder.tiny import tiny_vocabulary


def bert(folder: Path, pieces: list[str]) -> Path:
    """A tokenizer.json of BERT's kind."""
    folder.mkdir(parents=True)
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n")
    make_tokenizer(folder)
    return folder / "tokenizer.json"


def mpnet(folder: Path) -> Path:
    """Tiny's pieces four higher, between <s> and </s>, as MPNet's has BERT's: [CLS] is a piece like others."""
    path = bert(folder, ["<s>", "<pad>", "</s>", "<unk>", *tiny_vocabulary(), "<mask>"])
    content = json.loads(path.read_text())
    around = {"sep": ["</s>", 2], "cls": ["<s>", 0], "trim_offsets": True, "add_prefix_space": False}
    content["post_processor"] = {"type": "RobertaProcessing", **around}
    path.write_text(json.dumps(content))
    return path


@pytest.fixture(scope="module")
def paths(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("words")
    cut = [piece for piece in tiny_vocabulary() if piece not in ("film", "##ing", "wonderful")]
    return {"bert": bert(folder / "bert", tiny_vocabulary()), "mpnet": mpnet(folder / "mpnet"),
            "cut": bert(folder / "cut", cut)}  # fmt: skip


def tokens(path: Path, *texts: str) -> Tokens:
    return tokenize_blocks([list(texts)], tokenizer_path=path, max_length=16)


def test_pieces_keep_their_place_and_special_tokens_their_role(paths):
    own, other = read_vocabulary(paths["bert"]), read_vocabulary(paths["mpnet"])
    assert (own.first, own.last, own.unknown) == (2, 3, 1)
    assert (other.first, other.last, other.unknown) == (0, 2, 5)
    table = id_table(own, other)
    assert table[own.pieces["film"]] == other.pieces["film"] == own.pieces["film"] + 4
    assert table[[2, 3, 1]].tolist() == [0, 2, 5], "not the pieces [CLS] and [SEP], which no sentence has there"
    back = id_table(other, own)
    assert back[[0, 2]].tolist() == [2, 3]
    assert back[other.pieces["<mask>"]] == -1


def test_a_cut_vocabulary_is_looked_up_by_its_pieces(paths):
    own, other = read_vocabulary(paths["cut"]), read_vocabulary(paths["bert"])
    table = id_table(own, other)
    assert len(table) == len(tiny_vocabulary()) - 3
    assert [table[own.pieces[p]] for p in ("movie", "##ed")] == [other.pieces[p] for p in ("movie", "##ed")]
    found = aligned(own, other, tokens(paths["cut"], "a movie", "a film", "a wonderful plot", "good"),
                    tokens(paths["bert"], "a movie", "a film", "a wonderful plot", "good"))  # fmt: skip
    assert found.same.tolist() == [True, False, False, True]


SOME = settings(max_examples=50, deadline=None)
texts = st.lists(st.text("abcdefilmngo .,!é中", max_size=40), min_size=1, max_size=6)


@SOME
@given(texts)
def test_any_text_is_read_alike_by_two_tokenizers_of_the_same_pieces(paths, some):
    own, other = tokens(paths["bert"], *some), tokens(paths["mpnet"], *some)
    found = aligned(read_vocabulary(paths["bert"]), read_vocabulary(paths["mpnet"]), own, other)
    assert found.same.all()
    np.testing.assert_array_equal(found.table[own.ids], other.ids)


@SOME
@given(texts)
def test_what_is_called_the_same_is_spelt_by_the_same_pieces(paths, some):
    own, other = tokens(paths["cut"], *some), tokens(paths["mpnet"], *some)
    found = aligned(read_vocabulary(paths["cut"]), read_vocabulary(paths["mpnet"]), own, other)
    for row, same in enumerate(found.same):
        pieces = [Tokenizer.from_file(str(path)).encode(some[row], add_special_tokens=False).tokens[:14]
                  for path in (paths["cut"], paths["mpnet"])]  # fmt: skip
        assert same == (pieces[0] == pieces[1])
        if same:
            np.testing.assert_array_equal(found.table[own.sentence(row)], other.sentence(row))


def test_sentences_differ_by_a_piece_or_by_their_length():
    own = Tokens(np.array([0, 1, 0, 1, 0], np.int32), np.array([0, 2, 4, 5]), np.zeros(3, np.int32))
    other = Tokens(np.array([7, 8, 7, 9, 7, 7], np.int32), np.array([0, 2, 4, 6]), np.zeros(3, np.int32))
    assert same_pieces(np.array([7, 8], np.int32), own, other).tolist() == [True, False, False]


def test_an_alignment_is_what_was_saved(tmp_path):
    Alignment(np.arange(3, dtype=np.int32), np.array([True, False])).save(tmp_path / "a.npz")
    again = Alignment.load(tmp_path / "a.npz")
    assert (again.table.tolist(), again.same.tolist()) == ([0, 1, 2], [True, False])


def test_a_file_that_is_no_tokenizer_is_refused(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match="is no readable tokenizer"):
        read_vocabulary(tmp_path / "tokenizer.json")
