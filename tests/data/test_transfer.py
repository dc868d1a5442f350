"""Sentences without labels: the user's file, the filter, the file of a stage; and what may not be learnt from."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from optim.common.errors import UserError
from optim.data.leaks import holding, require_unseen
from optim.data.spelling import normal_form
from optim.data.transfer import Block, Filter, UnlabelledFile, from_nobody, parents_of, save, texts_of
from optim.run.transfer import UnlabelledStep
from optim.train.rows import unlabelled_rows


def test_normal_form_by_hand():
    assert normal_form("  It's a GOOD\tfilm -- 10/10 !") == "it s a good film 10 10"
    assert normal_form("it 's a good_film , 10 10") == "it s a good film 10 10"
    assert normal_form(" ... ") == ""
    assert normal_form("Élan") == "elan"


def test_a_scored_sentence_is_refused_with_its_count():
    with pytest.raises(UserError, match=r"distill\.unlabelled: 2 of the 3 sentences that are scored.*'A good film\.'"):
        require_unseen(["a good film", "bad", "poor"], ["fine", "A good film.", "Bad!"], "distill.unlabelled")
    require_unseen(["a good film"], ["a good films"], "distill.unlabelled")


def test_the_filter_by_hand():
    """Of six: one of dev, one of train, one twice, one without a letter; two are left with their parents."""
    unseen = Filter(["Seen."], ["Scored"])
    block = Block(["new", "SEEN", "scored !", "New,", "...", "newer"], np.arange(12, dtype=np.int32).reshape(6, 2))
    kept = unseen(block)
    assert kept.texts == ["new", "newer"]
    assert kept.parents.tolist() == [[0, 1], [10, 11]]
    assert unseen.left_out == {"repeated": 3, "as_dev": 1}
    assert unseen(from_nobody(["newer", "newest"])).texts == ["newest"], "a later block repeats an earlier one"
    assert unseen.left_out == {"repeated": 4, "as_dev": 1}


def test_a_file_that_spells_sentences_otherwise_or_holds_them_is_left_out():
    """SST-2's `does n't` is the file's `doesn't`; a longer text that holds a scored sentence goes too."""
    train, dev = ("it is n't bad", "fine"), ("it does n't make for a completely honest evening of film",)
    corpus = SimpleNamespace(digest="d", phrases=False, train=SimpleNamespace(texts=train),
                             dev=SimpleNamespace(texts=dev * 60))  # fmt: skip
    texts = ["It isn't bad!", "He said it doesn't make for a completely honest evening of film.", "a new one", "..."]
    file = SimpleNamespace(path="x.txt", texts=lambda: texts, fingerprint=dict)
    step = UnlabelledStep(corpus, file)  # pyright: ignore[reportArgumentType]
    with pytest.raises(UserError, match="60 of the 60"):
        list(step.blocks())
    corpus.dev.texts = (*dev, *(f"another {i}" for i in range(60)))
    kept = step.filter()
    assert [text for block in step.blocks() for text in kept(block).texts] == ["a new one"]
    assert kept.left_out == {"repeated": 2, "as_dev": 1}
    assert holding(dev, [dev[0], "It does n't."]) == [dev[0]]


def test_a_part_of_a_scored_sentence_is_left_out_and_one_of_train_follows_its_sentence():
    """Where rows are phrases; elsewhere two sentences may share a few words by chance."""
    whole = "a deep and very moving film , n't it", "this one is as bad as any other film"
    train = (whole[0], "very moving", whole[1])
    corpus = SimpleNamespace(digest="d", train=SimpleNamespace(texts=train), phrases=True,
                             dev=SimpleNamespace(texts=("the dullest of all plots", *map(str, range(60)))))  # fmt: skip
    texts = ["dullest of all", "Deep and very", "film", "is as bad", "nothing of both"]
    file = SimpleNamespace(path="x.txt", texts=lambda: texts, fingerprint=dict)
    step = UnlabelledStep(corpus, file)  # pyright: ignore[reportArgumentType]
    [kept] = [step.filter()(block) for block in step.blocks()]
    assert kept.texts == texts[1:]
    assert kept.parents.tolist() == [[0, -1], [0, 2], [2, -1], [-1, -1]]
    assert unlabelled_rows(kept.parents, np.array([1, 2]), 7).tolist() == [5, 6], "without the first sentence"
    keys = [step.key()]
    corpus.phrases = False
    [kept] = [step.filter()(block) for block in step.blocks()]
    assert (kept.texts, kept.parents.max()) == (texts, -1)
    assert step.key() not in keys


def test_what_was_saved_is_read(tmp_path, monkeypatch):
    from optim.data import transfer

    monkeypatch.setattr(transfer, "BLOCK", 2)
    blocks = [Block(["a", "b ü"], np.array([[0, -1], [1, 7]], np.int32)), from_nobody(["c"])]
    assert save(tmp_path / "texts.parquet", iter(blocks)) == 3
    assert list(texts_of(tmp_path / "texts.parquet")) == [["a", "b ü"], ["c"]]
    assert parents_of(tmp_path / "texts.parquet").tolist() == [[0, -1], [1, 7], [-1, -1]]


def write_parquet(path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"n": [1, 2], "text": ["a, b", "c"]}), path)


FILES = {
    "x.txt": "\ufeffa, b\r\n\n  c \n",
    "x.csv": 'text,label\n"a, b",1\nc,\n',
    "x.tsv": "text\na, b\nc\n",
    "x.jsonl": "\n".join(json.dumps({"text": text}) for text in ("a, b", "c")),
}


@pytest.mark.parametrize("name", [*FILES, "x.parquet"])
def test_every_kind_of_file_is_read_without_labels(tmp_path, name):
    path = tmp_path / name
    write_parquet(path) if name == "x.parquet" else path.write_text(FILES[name], encoding="utf-8")
    file = UnlabelledFile(path, "text")
    assert file.texts() == ["a, b", "c"]
    assert ("column" in file.fingerprint()) == (name != "x.txt")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("x.doc", b"a", r"distill\.unlabelled: .*x\.doc must end in one of \.txt, \.csv"),
        ("x.txt", b"", r"distill\.unlabelled: .*x\.txt is empty"),
        ("x.txt", b" \n\n", r"distill\.unlabelled: .*x\.txt has no sentences"),
        ("x.txt", b"\xff\xfe", r"distill\.unlabelled: .*x\.txt is not UTF-8"),
        ("x.csv", b"review\nfine\n", r"distill\.unlabelled: .*has no column 'text'; it has 'review'"),
        ("x.csv", b"text\n", r"distill\.unlabelled: .*has no rows"),
    ],
)
def test_what_is_no_such_file_is_said(tmp_path, name, content, said):
    file = UnlabelledFile(tmp_path / name, "text")
    file.path.write_bytes(content)
    with pytest.raises(UserError, match=said):
        print(file.fingerprint(), file.texts())


def test_the_content_of_a_file_counts_and_not_its_place(tmp_path):
    for name, text in (("a.txt", "x"), ("b.txt", "x"), ("c.txt", "y")):
        (tmp_path / name).write_text(text)
    one, same, other = (UnlabelledFile(tmp_path / name, "text").fingerprint() for name in ("a.txt", "b.txt", "c.txt"))
    assert one == same != other


def test_a_file_without_the_column_says_which_it_is_read_by(tmp_path):
    """GLUE's own test.tsv, for one: data=sst2 has no data.text_column."""
    (tmp_path / "test.tsv").write_text("index\tsentence\n0\tfine\n")
    with pytest.raises(
        UserError, match=r"no column 'text'; it has 'index', 'sentence'\. .*or give a \.txt file"
    ) as caught:
        UnlabelledFile(tmp_path / "test.tsv", "text").texts()
    assert "label_column" not in str(caught.value)
