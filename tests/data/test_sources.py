"""Sources, their counts and digests, bad input, tokens, batches."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from hub_standin import Hub, ask_in_a_process, serving
from hydra import compose, initialize_config_dir
from tokenizers import Tokenizer, models

from optim.common.errors import UserError
from optim.data import corpus, glue, reviews, tokens
from optim.data.table import table_source
from optim.encoder import tiny

ROOT = Path(__file__).parents[2]


def settings(option: str, **changes) -> dict:
    """The arguments that conf/data/<option>.yaml gives."""
    fields = yaml.safe_load((ROOT / "conf" / "data" / f"{option}.yaml").read_text())
    fields = fields.get("data", fields)  # a file may set other groups too
    assert set(changes) <= set(fields)
    return {key: value for key, value in (fields | changes).items() if key != "method"}


def table(path: Path | None, **changes):
    """data=csv with its defaults."""
    return table_source(**settings("csv", train_path=None if path is None else str(path), **changes))


def write(path: Path, content: str | bytes) -> Path:
    """`path` with just this content."""
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def glue_folder(path: Path, train: str, dev: str) -> Path:
    """GLUE's layout."""
    write(path / "train.tsv", train)
    write(path / "dev.tsv", dev)
    return path


@pytest.fixture(scope="session")
def package_cache(tmp_path_factory) -> Path:
    """One cache for what the package index gives."""
    return tmp_path_factory.mktemp("packages")


@pytest.fixture(scope="session")
def tokenizer_path(tmp_path_factory) -> Path:
    """The tokenizer of `tiny`."""
    fields = yaml.safe_load((ROOT / "conf" / "model" / "tiny.yaml").read_text())
    del fields["method"]
    return tiny.tiny_checkpoint(**fields).fetch(tmp_path_factory.mktemp("tiny")) / "tokenizer.json"


# --- reviews


def test_reviews_have_the_counts_that_are_published(package_cache):
    corpus = reviews.Reviews(**settings("reviews")).load(package_cache)
    labels = np.concatenate([corpus.train.labels, corpus.dev.labels])
    assert (len(corpus.train.texts), len(corpus.dev.texts)) == (8543, 1500)
    assert (int(np.sum(labels == 1)), int(np.sum(labels == 0))) == (4982, 5061)
    assert int(corpus.dev.labels.sum()) == 739
    assert corpus.label_names == ("negative", "positive")
    assert not set(corpus.train.texts) & set(corpus.dev.texts)
    assert corpus.digest == "1a2b440f1b0e231056e5ea83026ac13066b24577876872fdb836ed9c44c94520"


def test_reviews_keep_text_and_label_together(package_cache):
    corpus = reviews.Reviews(**settings("reviews")).load(package_cache)
    where = corpus.train.texts.index("Effective but too tepid biopic")
    assert corpus.train.labels[where] == 0  # its rating is -0.6


def test_a_seed_of_reviews_below_0_is_refused():
    with pytest.raises(UserError, match=r"data\.split_seed must be"):
        reviews.Reviews(**settings("reviews", split_seed=-1))


def test_reviews_split_by_their_seed_and_count(package_cache):
    first = reviews.Reviews(**settings("reviews")).load(package_cache)
    other = reviews.Reviews(**settings("reviews", split_seed=1, dev_count=100)).load(package_cache)
    assert len(other.dev.texts) == 100
    assert len(set(other.dev.texts) & set(first.dev.texts)) < 40  # 15 % of them by chance
    assert other.digest != first.digest


@pytest.mark.parametrize("fit", sorted(path.stem for path in (ROOT / "conf" / "fit").glob("*.yaml")))
def test_reviews_take_one_epoch_whatever_the_fit_says(fit):
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        recipes = compose("train", overrides=["model=tiny", "data=reviews", f"fit={fit}"]).fit
    assert [(recipes[of].epochs, recipes[of].steps) for of in ("teacher", "student")] == [(1, None)] * 2


@pytest.mark.parametrize(("change", "part"), [({"dev_count": 0}, "data.dev_count"), ({"dev_count": 10043}, "10043")])
def test_reviews_refuse_a_dev_split_of_nothing_or_everything(package_cache, change, part):
    with pytest.raises(UserError, match=part):
        reviews.Reviews(**settings("reviews", **change)).load(package_cache)


def test_reviews_name_both_digests_of_other_snippets(package_cache):
    source = reviews.Reviews(**settings("reviews", member_sha256="0" * 64))
    with pytest.raises(
        UserError, match=f"expected sha256 {'0' * 64}, found c8293b0d942e90e223ea2c0955d969040d1a1be514"
    ):
        source.load(package_cache)


def test_reviews_mend_a_corrupted_archive(package_cache):
    source = reviews.Reviews(**settings("reviews"))
    before = source.load(package_cache).digest
    [archive] = package_cache.glob("packages/*/vaderSentiment-3.3.2.tar.gz")
    content = archive.read_bytes()
    archive.write_bytes(content[:1000] + b"\0" + content[1001:])
    assert source.load(package_cache).digest == before
    assert archive.read_bytes() == content


# --- GLUE


def test_glue_folder_takes_a_quote_as_a_character(tmp_path):
    train = 'sentence\tlabel\nan "open quote\t0\n" \'tis fun , \t1\na\u2028b\rc\t1\n'
    glue_folder(tmp_path, train, "sentence\tlabel\r\nfine\t1\r\npoor\t0\r\n")
    corpus = glue.glue(**settings("sst2", path=str(tmp_path))).load(tmp_path)
    assert corpus.train.texts == ['an "open quote', "\" 'tis fun , ", "a\u2028b\rc"]
    assert corpus.train.labels.tolist() == [0, 1, 1]
    assert corpus.train.labels.dtype == np.int32
    assert (corpus.dev.texts, corpus.dev.labels.tolist()) == (["fine", "poor"], [1, 0])
    assert (corpus.name, corpus.label_names) == ("sst2", ("negative", "positive"))


@pytest.mark.parametrize("names", [["a", "a"], ["a", " "], ["a"], []])
def test_names_of_labels_that_no_bundle_takes_are_refused(names):
    with pytest.raises(UserError, match="names must be two names or more, none blank or twice"):
        glue.glue(**settings("sst2", label_names=names))


@pytest.mark.parametrize(
    ("train", "part"),
    [
        (None, "no file .*train.tsv"),
        ("", "is empty"),
        ("sentence\tlabel\n", "has no rows"),
        ("text\tlabel\nfine\t1\n", "no column 'sentence'; it has 'text', 'label'"),
        ("sentence\tlabel\nfine\t1\ngood\t2\n", "data.label_names has not: '2'"),
        ("sentence\tlabel\nfine\t1\ngood\t1\n", "single class, 'positive'"),
        ("sentence\tlabel\nfine\t1\n \t0\n", "line 3: 'sentence' must be a text"),
        ("sentence\tlabel\nfine\t1\nbad\n", "line 3 has 1 cells, the header 2"),
    ],
)
def test_glue_folder_names_what_is_wrong(tmp_path, train, part):
    glue_folder(tmp_path, train or "", "sentence\tlabel\nfine\t1\npoor\t0\n")
    if train is None:
        (tmp_path / "train.tsv").unlink()
    with pytest.raises(UserError, match=part) as caught:
        glue.glue(**settings("sst2", path=str(tmp_path))).load(tmp_path)
    assert str(caught.value).count("\n") <= 1


SCENARIO = """
import json, logging, sys, time
from pathlib import Path
import datasets  # slow, and not what is timed
from optim.data import corpus
from optim.data import tokens
from optim.data import glue
from optim.data import reviews
from optim.data import table
from optim.common.errors import UserError
source = glue.glue(**json.loads(sys.argv[1]))
start = time.monotonic()
try:
    corpus = source.load(Path("cache"))
    out = {"train": corpus.train.texts, "dev": corpus.dev.texts, "labels": corpus.dev.labels.tolist()}
    out["digest"] = corpus.digest
except UserError as error:
    out = {"error": str(error)}
print(json.dumps({**out, "seconds": time.monotonic() - start}))
"""


def load_in_a_process(folder: Path, endpoint: str, **environment: str) -> dict:
    """What data=sst2 gives with the hub at `endpoint` and its cache in `folder`."""
    return ask_in_a_process(SCENARIO, json.dumps(settings("sst2")), folder=folder, endpoint=endpoint, **environment)


def test_glue_comes_from_the_hub_and_then_from_its_cache(tmp_path):
    train, dev = [("good", 1), ('a "bad" one', 0)] * 5, [("fine ", 1), ("poor", 0), ("dull", 0)]
    with serving(Hub()) as hub:
        hub.add_sst2(train, dev)
        online = load_in_a_process(tmp_path, hub.address)
        assert f"GET datasets/nyu-mll/glue/resolve/{settings('sst2')['revision']}/README.md" in hub.requests
    assert online["train"] == [text for text, _ in train]
    assert (online["dev"], online["labels"]) == (["fine ", "poor", "dull"], [1, 0, 0])

    lines = ["\n".join(f"{text}\t{label}" for text, label in rows) for rows in (train, dev)]
    glue_folder(tmp_path, *(f"sentence\tlabel\n{text}\n" for text in lines))
    assert glue.glue(**settings("sst2", path=str(tmp_path))).load(tmp_path).digest == online["digest"]

    unreachable = load_in_a_process(tmp_path, hub.address)
    assert (unreachable["digest"], unreachable["seconds"] < 10) == (online["digest"], True)

    (tmp_path / "hf/datasets/nyu-mll___glue").rename(tmp_path / "hf/datasets/glue")  # as load_dataset("glue") left it
    offline = load_in_a_process(tmp_path, hub.address, HF_HUB_OFFLINE="1")
    assert offline["digest"] == online["digest"]


def test_glue_without_a_hub_fails_in_seconds_with_the_way_out(tmp_path):
    with serving(Hub()) as hub:
        pass  # the address of a hub that is gone
    failed = load_in_a_process(tmp_path, hub.address)
    assert "cannot be reached" in failed["error"]
    assert "data.path=DIR" in failed["error"]
    assert "data=reviews" in failed["error"]
    assert failed["seconds"] < 10


def test_glue_that_the_hub_does_not_have_says_so(tmp_path):
    with serving(Hub()) as hub:
        failed = load_in_a_process(tmp_path, hub.address)
    assert "could not be loaded from http://127.0.0.1" in failed["error"]
    assert "data.path=DIR" in failed["error"]
    assert failed["error"].count("\n") <= 1


# --- the user's own files


def test_csv_keeps_quoted_commas_line_ends_and_words_that_mean_nothing_elsewhere(tmp_path):
    content = '\ufefftext,label,id\n"one, two",x,1\n"a ""b""\nc",y,2\nNA,null,3\nnan,x,4\n'
    corpus = table(
        write(tmp_path / "a.csv", content), dev_path=str(write(tmp_path / "d.csv", "label,text\nx,q\n"))
    ).load(tmp_path)
    assert corpus.train.texts == ["one, two", 'a "b"\nc', "NA", "nan"]
    assert corpus.label_names == ("null", "x", "y")
    assert corpus.train.labels.tolist() == [1, 2, 0, 1]
    assert (corpus.dev.texts, corpus.dev.labels.tolist()) == (["q"], [1])


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (["10", "9", "-1"], ("-1", "9", "10")),
        (["10", "9", "b"], ("10", "9", "b")),
        (["neg", "pos"], ("neg", "pos")),
        (["1.5", "1"], ("1", "1.5")),
        ([f"{i / 2:.1f}" for i in range(20)], tuple(sorted(f"{i / 2:.1f}" for i in range(20)))),
        ([str(i) for i in range(40)], tuple(str(i) for i in range(40))),
    ],
)
def test_labels_sort_by_value_if_all_are_whole_numbers(tmp_path, labels, names):
    rows = [{"text": f"t{i}", "label": label} for i, label in enumerate(labels * 2)]
    path = write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows)))
    corpus = table(path, dev_path=str(path)).load(tmp_path)
    assert corpus.label_names == names
    assert [names[i] for i in corpus.train.labels] == labels * 2


def test_every_format_gives_the_same_corpus(tmp_path):
    import pyarrow
    import pyarrow.parquet

    rows = [(f"text {i}", i % 3 + 1) for i in range(12)]
    write(tmp_path / "a.csv", "text,label\n" + "".join(f"{text},{label}\n" for text, label in rows))
    write(tmp_path / "a.tsv", "text\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in rows))
    write(tmp_path / "a.jsonl", "".join(json.dumps({"text": t, "label": label}) + "\n\n" for t, label in rows))
    texts = pyarrow.array([text for text, _ in rows]).dictionary_encode()
    columns = {"text": texts, "label": pyarrow.array([label for _, label in rows], pyarrow.float64())}
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "a.parquet")
    corpora = [table(tmp_path / f"a{suffix}").load(tmp_path) for suffix in (".csv", ".tsv", ".jsonl", ".parquet")]
    assert {corpus.digest for corpus in corpora} == {corpora[0].digest}
    assert corpora[3].label_names == ("1", "2", "3")


def test_slice_of_phrases_is_of_whole_sentences(tmp_path):
    """Where rows are phrases; a sentence is a row of six words or more that is part of no other."""
    whole = [f"film number {i} is a thing to see" for i in range(20)]
    rows = [f"{part},{i % 2}\n" for i, text in enumerate(whole) for part in (text, text.removesuffix(" to see"))]
    path = write(tmp_path / "a.csv", "text,label\n" + "".join(rows))
    source = table(path, dev_fraction=0.2, phrases=True)
    corpus = source.load(tmp_path)
    assert (corpus.phrases, len(corpus.dev.texts), len(corpus.train.texts)) == (True, 4, 32)
    assert set(corpus.dev.texts) <= set(whole)
    assert not [text for text in corpus.train.texts if any(text in held for held in corpus.dev.texts)]
    assert source.fingerprint() != table(path, dev_fraction=0.2).fingerprint()
    short = write(tmp_path / "b.csv", "text,label\na film,0\nno film,1\n")
    with pytest.raises(UserError, match=r"data\.phrases=true needs two whole sentences.*train has 0"):
        table(short, phrases=True).load(tmp_path)


def test_slice_is_stratified_and_seeded(tmp_path):
    counts = {"a": 100, "b": 50, "c": 7, "d": 1}
    rows = [f"{label}{i},{label}\n" for label, count in counts.items() for i in range(count)]
    path = write(tmp_path / "a.csv", "text,label\n" + "".join(rows))
    corpus = table(path).load(tmp_path)
    # a tenth of each, at least one, but never the last of a class
    assert np.bincount(corpus.dev.labels, minlength=4).tolist() == [10, 5, 1, 0]
    assert np.bincount(corpus.train.labels).tolist() == [90, 45, 6, 1]
    assert not set(corpus.train.texts) & set(corpus.dev.texts)
    assert all(text[0] == "abcd"[label] for text, label in zip(corpus.dev.texts, corpus.dev.labels, strict=True))
    assert table(path).load(tmp_path).dev.texts == corpus.dev.texts
    assert table(path, split_seed=1).load(tmp_path).dev.texts != corpus.dev.texts


@pytest.mark.parametrize("seed", range(4))
def test_slice_takes_copies_of_a_text_together(tmp_path, seed):
    rows = [f"a{i},a\n" for i in range(10)] + ["copy,b\n"] * 20 + ["other,b\n", "another,b\n"]  # half of b is copies
    path = write(tmp_path / "a.csv", "text,label\n" + "".join(rows))
    corpus = table(path, dev_fraction=0.5, split_seed=seed).load(tmp_path)
    assert not set(corpus.train.texts) & set(corpus.dev.texts)
    assert len(corpus.train.texts) + len(corpus.dev.texts) == 32


@pytest.mark.parametrize("seed", range(8))
def test_slice_is_no_larger_where_a_text_has_many_copies(tmp_path, seed):
    """900 rows of 1,000 are one text: a tenth of the class is held back, which that text is not in."""
    rows = ["thank you,a\n"] * 900 + [f"a{i},a\n" for i in range(100)] + [f"b{i},b\n" for i in range(50)]
    rows += ["yes,c\n"] * 6 + ["no,c\n"] * 9  # of two texts the one with fewer copies
    corpus = table(write(tmp_path / "a.csv", "text,label\n" + "".join(rows)), split_seed=seed).load(tmp_path)
    assert np.bincount(corpus.dev.labels).tolist() == [100, 5, 6]
    assert len(set(corpus.dev.texts)) == 100 + 5 + 1


@pytest.mark.parametrize("seed", range(4))
def test_slice_takes_a_text_of_two_labels_with_both(tmp_path, seed):
    """Of 40 texts each is labelled both ways, 300 more once; a class whose texts would all go keeps them."""
    rows = [f"both {i},{label}\n" for i in range(40) for label in "ab"] + ["both 0,c\n"]
    rows += [f"{i},{'aaaab'[i % 5]}\n" for i in range(300)]
    path = write(tmp_path / "a.csv", "text,label\n" + "".join(rows))
    corpus = table(path, split_seed=seed).load(tmp_path)
    assert not set(corpus.train.texts) & set(corpus.dev.texts)
    assert 30 <= len(corpus.dev.texts) <= 60, "a tenth of each, and their copies"
    assert (corpus.train.labels == 2).sum() == 1


GOOD = "text,label\ngood,1\nbad,0\n"


@pytest.mark.parametrize(
    ("name", "content", "changes", "part"),
    [
        ("none.csv", None, {}, "no file .*none.csv"),
        ("a.csv", "", {}, "a.csv is empty"),
        ("a.csv", "text,label\n", {}, "has no rows"),
        ("a.txt", GOOD, {}, "must end in one of .csv, .tsv, .jsonl, .parquet"),
        ("a.csv", "a;b\nfine;1\n", {}, "no column 'text', 'label'; it has 'a;b'"),
        ("a.csv", GOOD, {"text_column": "review"}, "no column 'review'; it has 'text', 'label'.*data.text_column"),
        ("a.csv", "text,label\na,1\nb,1\n", {}, "single class, '1'"),
        ("a.csv", "text,label\na,1\n,0\n", {}, "line 3: 'text' must be a text"),
        ("a.csv", "text,label\na,1\nb,\n", {}, "line 3: 'label' has no label"),
        ("a.csv", "text,label\na,1\nb,nan\n", {}, "line 3: 'label' has no label"),
        (
            "a.csv",
            "text,label\n" + "".join(f"a,{i / 8}\n" for i in range(21)),
            {},
            "21 different numbers, such as 0.0,",
        ),
        ("a.csv", "text,label\na,b,1\n", {}, "line 2 has 3 cells, the header 2"),
        ("a.csv", 'text,label\na,1\n"b,1\nc,0\nd,0\n', {}, "line 3: .* no valid CSV"),
        ("a.csv", 'text,label\n"a\nb",1\n"c" d,0\n', {}, "line 4: .* no valid CSV"),
        ("a.csv", "label,text,label\n1,a,x\n0,b,y\n", {}, "a.csv has 2 columns 'label'"),
        ("a.csv", b"text,label\ncaf\xe9,1\n", {}, "not UTF-8"),
        ("a.csv", b"text,label\n" + b"a,1\n" * 5000 + b"caf\xe9,1\n", {}, r"not UTF-8 \(byte 20014\)"),
        ("a.jsonl", '{"text": "a", "label": 1}\n{"text"\n', {}, "line 2 is not JSON"),
        ("a.jsonl", '{"text": "a", "label": 1}\n' + "[" * 100_000, {}, "line 2 has brackets that are nested too deep"),
        ("a.jsonl", '{"text": "a", "label": %s}\n' % ("9" * 5000), {}, "line 1 has a number that is too long to read"),
        ("a.jsonl", "[1]\n", {}, "line 1 must be a JSON object, got list"),
        ("a.jsonl", '{"text": 5, "label": 1}\n', {}, "line 1: 'text' must be a text, got 5"),
        ("a.jsonl", '{"text": "\\ud800", "label": 1}\n', {}, "line 1: 'text' must be a text"),
        ("a.jsonl", '{"text": "a", "label": null}\n', {}, "line 1: 'label' has no label"),
        (
            "a.jsonl",
            '{"text": "a", "label": ["x", "y"]}\n',
            {},
            r"line 1: 'label' must hold one label, got \['x', 'y'\]",
        ),
        ("a.jsonl", '{"text": "a", "label": {"x": 1}}\n', {}, "line 1: 'label' must hold one label"),
        ("a.jsonl", '{"text": "a", "label": 1}\n{"text": "b"}\n', {}, "no column 'label'"),
        ("a.parquet", b"PAR1 not really", {}, "no readable Parquet file"),
        ("a.csv", "text,label\na,1\nb,0\n", {}, "leaves none for dev"),
        ("a.csv", GOOD, {"dev_path": "{}/dev.csv"}, "no file .*dev.csv"),
        ("a.csv", GOOD, {"dev_path": "{}/odd.csv"}, "odd.csv has labels that train has not: 'odd'. Known: '0', '1'"),
    ],
)
def test_bad_files_get_one_line(tmp_path, name, content, changes, part):
    write(tmp_path / "odd.csv", "text,label\ngood,1\nwhat,odd\n")
    if content is not None:
        write(tmp_path / name, content)
    changes = {key: value.format(tmp_path) for key, value in changes.items()}
    with pytest.raises(UserError, match=part) as caught:
        table(tmp_path / name, **changes).load(tmp_path)
    assert str(caught.value).count("\n") <= 1


def test_a_long_value_is_cut_in_what_is_said_of_it(tmp_path):
    """A column of tokens that is taken for the text, and texts that are taken for labels."""
    tokens = write(tmp_path / "a.jsonl", json.dumps({"text": ["word"] * 1000, "label": 1}))
    swapped = [write(tmp_path / f"{name}.csv", f"text,label\n1,{name * 999}\n0,{name * 998}\n") for name in "ab"]
    for path, dev in ((tokens, None), (swapped[0], str(swapped[1]))):
        with pytest.raises(UserError) as caught:
            table(path, dev_path=dev).load(tmp_path)
        assert len(str(caught.value)) < len(str(tmp_path)) + 500


def test_a_parquet_file_with_a_column_twice_says_which(tmp_path):
    import pyarrow
    import pyarrow.parquet

    names = ["label", "text", "label"]
    columns = pyarrow.Table.from_arrays([pyarrow.array(list("abcd"))] * 3, names=names)
    pyarrow.parquet.write_table(columns, tmp_path / "a.parquet")
    with pytest.raises(UserError, match="has 2 columns 'label'"):
        table(tmp_path / "a.parquet").load(tmp_path)


def test_a_damaged_parquet_file_says_what_is_wrong(tmp_path):
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table({"text": ["a", "b"] * 5, "label": [0, 1] * 5}), tmp_path / "a.parquet")
    content = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "a.parquet").write_bytes(content[:20] + b"\xff" * 60 + content[80:])
    with pytest.raises(UserError, match=r"a\.parquet cannot be read \((?!None)") as caught:
        table(tmp_path / "a.parquet").load(tmp_path)
    assert str(caught.value).count("\n") <= 1


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"train_path": None}, "data.train_path=FILE"),
        ({"dev_fraction": 1.0}, "data.dev_fraction"),
        ({"dev_fraction": -0.1}, "data.dev_fraction"),
        ({"dev_fraction": 0}, "data.dev_fraction must be above 0 without data.dev_path"),
        ({"max_length": 2}, "data.max_length must be at least 3"),
        ({"split_seed": -1}, "data.split_seed must be"),
    ],
)
def test_bad_settings_are_refused_before_a_file_is_read(changes, part):
    with pytest.raises(UserError, match=part):
        table_source(**settings("csv", **{"train_path": "nowhere.csv", **changes}))


# --- fingerprints and digests


def test_fingerprint_follows_content_and_settings_but_not_the_place(tmp_path):
    first, second = (write(tmp_path / name, GOOD) for name in ("a.csv", "b.csv"))
    known = table(first).fingerprint()
    assert table(second).fingerprint() == known
    assert table(first, max_length=64).fingerprint() != known
    assert table(first, split_seed=1).fingerprint() != known
    assert table(first, dev_path=str(second)).fingerprint() != known
    write(second, GOOD + "more,1\n")
    assert table(second).fingerprint() != known


@pytest.mark.parametrize("content", [None, ""])
def test_fingerprint_refuses_a_missing_or_empty_file(tmp_path, content):
    if content is not None:
        write(tmp_path / "a.csv", content)
    with pytest.raises(UserError, match=r"a\.csv"):
        table(tmp_path / "a.csv").fingerprint()


def test_fingerprints_are_quick_and_import_nothing_heavy(tmp_path):
    write(tmp_path / "a.csv", "text,label\n" + "a fine film,1\n" * 300_000)  # 4 MB, as SST-2 has
    code = f"""
import sys, time
from optim.data import corpus
from optim.data import tokens
from optim.data import glue
from optim.data import reviews
from optim.data import table
sources = [glue.glue(**{settings("sst2")!r}), reviews.Reviews(**{settings("reviews")!r})]
sources += [table.table_source(**{settings("csv", train_path=str(tmp_path / "a.csv"))!r})]
start = time.process_time()
[source.fingerprint() for source in sources]
assert time.process_time() - start < 0.3
heavy = {{"pandas", "pyarrow", "datasets", "huggingface_hub", "tensorflow", "tokenizers", "transformers"}}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})


def test_digest_tells_labels_names_and_text_borders_apart():
    def digest(texts, labels, names=("n", "p")):
        part = corpus.Sentences(texts, np.array(labels, np.int32))
        return corpus._corpus("x", part, part, names).digest

    known = digest(["ab", "c"], [0, 1])
    assert known == digest(["ab", "c"], [0, 1])
    others = [digest(["a", "bc"], [0, 1]), digest(["ab", "c"], [1, 0]), digest(["ab", "c"], [0, 1], ("p", "n"))]
    assert len({known, *others}) == 4


# --- tokens


def test_tokens_are_those_of_the_vocabulary(tokenizer_path):
    pieces = tiny.tiny_vocabulary()
    sentences = corpus.Sentences(["A charming film !", "zq", "é"], np.array([1, 0, 1], np.int32))
    made = tokens.tokenize(sentences, tokenizer_path=tokenizer_path, max_length=128)
    words = [[pieces[i] for i in made.sentence(n)] for n in range(3)]
    assert words[0] == ["[CLS]", "a", "charming", "film", "!", "[SEP]"]
    assert words[1] == ["[CLS]", "z", "##q", "[SEP]"]
    assert words[2] == ["[CLS]", "e", "[SEP]"]  # accents go with the capitals
    assert (made.ids.dtype, made.offsets.dtype, made.labels.dtype) == (np.int32, np.int64, np.int32)
    assert (len(made), made.lengths.tolist(), made.labels.tolist()) == (3, [6, 4, 3], [1, 0, 1])


def test_truncation_counts_the_special_tokens(tokenizer_path):
    sentences = corpus.Sentences(["a " * 50, "a"], np.array([0, 1], np.int32))
    made = tokens.tokenize(sentences, tokenizer_path=tokenizer_path, max_length=10)
    assert made.lengths.tolist() == [10, 3]
    assert made.sentence(0)[-1] == made.sentence(1)[-1] == 3  # [SEP] stays


@pytest.mark.parametrize(
    ("model", "unknown"),
    [
        (models.WordPiece({"a": 0, "[UNK]": 1}, unk_token="[UNK]"), 1),
        (models.Unigram([("a", -1.0), ("b", -2.0), ("<unk>", 0.0)], 2, False), 2),
        (models.BPE({"a": 0}, []), None),
    ],
)
def test_the_unknown_token_is_that_of_the_tokenizer(tmp_path, model, unknown):
    Tokenizer(model).save(str(tmp_path / "tokenizer.json"))
    assert tokens.unknown_id(tmp_path / "tokenizer.json") == unknown


def test_tokenizer_that_cannot_be_read_is_named(tmp_path):
    sentences = corpus.Sentences(["a"], np.array([0], np.int32))
    with pytest.raises(UserError, match=r"tokenizer\.json is no readable tokenizer"):
        tokens.tokenize(sentences, tokenizer_path=write(tmp_path / "tokenizer.json", "{}"), max_length=8)


def some_tokens() -> tokens.Tokens:
    """Sentences [1], [2 3], [4 5 6], of labels 0, 1, 0."""
    return tokens.Tokens(np.arange(1, 7, dtype=np.int32), np.array([0, 1, 3, 6]), np.array([0, 1, 0], np.int32))


def test_sentences_that_are_made_of_some_ids_alone():
    assert some_tokens().made_of(np.array([1, 3, 4, 5, 6])).tolist() == [True, False, True]
    assert some_tokens().made_of(np.array([], np.int64)).tolist() == [False] * 3


def test_take_keeps_order_and_repeats():
    taken = some_tokens().take(np.array([2, 0, 2]))
    assert [taken.sentence(i).tolist() for i in range(3)] == [[4, 5, 6], [1], [4, 5, 6]]
    assert (taken.labels.tolist(), taken.lengths.tolist()) == ([0, 0, 0], [3, 1, 3])
    assert len(some_tokens().take(np.array([], np.int64))) == 0


def test_tokens_survive_the_disk(tmp_path):
    some_tokens().save(tmp_path / "tokens.npz")
    loaded = tokens.Tokens.load(tmp_path / "tokens.npz")
    for name in ("ids", "offsets", "labels"):
        before, after = getattr(some_tokens(), name), getattr(loaded, name)
        assert before.dtype == after.dtype
        np.testing.assert_array_equal(before, after)
    assert [path.name for path in tmp_path.iterdir()] == ["tokens.npz"]


def test_pad_fills_to_a_multiple_with_zeros():
    ids, mask = tokens.pad(some_tokens(), np.array([2, 1]), multiple=4)
    assert ids.tolist() == [[4, 5, 6, 0], [2, 3, 0, 0]]
    assert mask.tolist() == [[1, 1, 1, 0], [1, 1, 0, 0]]
    assert ids.dtype == mask.dtype == np.int32
    assert tokens.pad(some_tokens(), np.array([0]))[0].shape == (1, 8)


@pytest.mark.parametrize(("length", "width"), [(8, 8), (9, 16), (66, 72)])
def test_pad_never_goes_to_the_longest_of_all(length, width):
    made = tokens.Tokens(np.ones(length + 200, np.int32), np.array([0, length, length + 200]), np.zeros(2, np.int32))
    assert tokens.pad(made, np.array([0]))[0].shape == (1, width)


# --- batches


def test_batches_hold_every_sentence_once_and_keep_the_last():
    lengths = np.random.default_rng(0).integers(3, 60, 10_001)
    batches = tokens.bucketed_batches(lengths, 64, np.random.default_rng(1))
    assert sorted(np.concatenate(batches).tolist()) == list(range(10_001))
    assert sorted({len(batch) for batch in batches}) == [10_001 % 64, 64]
    assert len(batches) == 157


def test_batches_are_of_like_lengths_yet_shuffled():
    lengths = np.random.default_rng(0).integers(3, 60, 20_000)
    batches = tokens.bucketed_batches(lengths, 64, np.random.default_rng(1))
    padded = sum(len(batch) * lengths[batch].max() for batch in batches)
    assert padded / lengths.sum() < 1.05  # in random order it would be 1.9
    means = np.array([lengths[batch].mean() for batch in batches])
    assert abs(np.corrcoef(means[:-1], means[1:])[0, 1]) < 0.2  # short batches do not come first


def test_batches_follow_their_generator():
    lengths = np.random.default_rng(0).integers(3, 60, 1000)
    first, again, other = (tokens.bucketed_batches(lengths, 32, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_sst2_is_read_in_seconds():
    """A file of the size of SST-2: 67,349 rows."""
    with tempfile.TemporaryDirectory() as folder:
        rows = "".join(f"the film number {i} is what it is\t{i % 2}\n" for i in range(67_349))
        glue_folder(Path(folder), "sentence\tlabel\n" + rows, "sentence\tlabel\nfine\t1\npoor\t0\n")
        start = time.process_time()
        corpus = glue.glue(**settings("sst2", path=folder)).load(Path(folder))
        assert time.process_time() - start < 5
    assert len(corpus.train.texts) == 67_349


@pytest.mark.parametrize("label", ["\ud83d", b"tree"])
def test_a_label_that_no_file_can_hold_is_refused(tmp_path, label):
    """Half an emoji in JSON, bytes in Parquet: the name of a class is written into the bundle, after the fits."""
    import pyarrow
    import pyarrow.parquet

    rows = [{"text": f"film {i}", "label": one} for i, one in enumerate(["a", "b"] * 5)]
    if isinstance(label, str):
        path = write(tmp_path / "a.jsonl", "\n".join(json.dumps(row) for row in [*rows, {"text": "c", "label": label}]))
    else:
        path = tmp_path / "a.parquet"
        columns = {"text": [row["text"] for row in rows], "label": [label, b"stone"] * 5}
        pyarrow.parquet.write_table(pyarrow.table(columns), path)
    with pytest.raises(UserError, match=r"line \d+: 'label' must be a label that can be written, got"):
        table(path).load(tmp_path)


def test_a_large_slice_leaves_every_class_on_both_sides(tmp_path):
    rows = [f"{label}{i},{label}\n" for label, count in {"a": 30, "b": 30, "c": 2}.items() for i in range(count)]
    corpus = table(write(tmp_path / "a.csv", "text,label\n" + "".join(rows)), dev_fraction=0.8).load(tmp_path)
    assert np.bincount(corpus.dev.labels, minlength=3).tolist() == [24, 24, 1]


def test_a_column_of_ids_is_no_column_of_labels(tmp_path):
    path = write(tmp_path / "a.csv", "text,label\n" + "".join(f"film {i},{i}\n" for i in range(20)))
    with pytest.raises(UserError, match=r"all 20 classes have a single text.*Is data\.label_column right\?"):
        table(path).load(tmp_path)


def test_a_line_of_json_without_a_key_is_named(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"text": "a", "label": 1}\n{"text": "b"}\n')
    with pytest.raises(UserError, match=r"a\.jsonl, line 2, has no column 'label'; it has 'text'"):
        table(path).load(tmp_path)


def test_a_tokenizer_without_a_piece_for_the_unknown_is_named(tmp_path, tokenizer_path):
    content = json.loads(tokenizer_path.read_text(encoding="utf-8"))
    del content["model"]["vocab"]["[UNK]"]
    content["added_tokens"] = [one for one in content["added_tokens"] if one["content"] != "[UNK]"]
    path = write(tmp_path / "tokenizer.json", json.dumps(content))
    with pytest.raises(UserError, match=r"tokenizer\.json cannot read the sentences \(.*UNK"):
        tokens.tokenize(corpus.Sentences(["漢"], np.array([0], np.int32)), tokenizer_path=path, max_length=8)
