"""data=hf: sets of the hub stand-in, its cache, and local folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import CONF
from hub_standin import Hub, ask_in_a_process, serving

from optim.common.errors import UserError
from optim.data import hf

Rows = list[tuple[str, str | None]]
KINDS = (("cat", "animal"), ("oak", "tree"))
ROWS: Rows = [(f"the {word} is number {i}", label) for i in range(10) for word, label in KINDS]
DEV: Rows = [("a lone wolf", "animal"), ("an elm", "tree"), ("a birch", "tree")]
SCENARIO = """
import json, sys, time
from pathlib import Path
import datasets  # slow, and not what is timed
from optim.common.errors import UserError
from optim.data import hf
answers = []
for fields in json.loads(sys.argv[1]):
    start = time.monotonic()
    try:
        source = hf.hub_or_folder(**fields)
        source.fingerprint()
        corpus = source.load(Path("cache"))
        answer = {"train": corpus.train.texts, "dev": corpus.dev.texts, "labels": corpus.dev.labels.tolist()}
        answer |= {"names": corpus.label_names, "name": corpus.name, "digest": corpus.digest}
    except UserError as error:
        answer = {"error": str(error)}
    answers.append(answer | {"seconds": time.monotonic() - start})
print(json.dumps(answers))
"""


def settings(**changes: Any) -> dict[str, Any]:
    """The arguments that conf/data/hf.yaml gives."""
    fields = yaml.safe_load((CONF / "data" / "hf.yaml").read_text())
    assert set(changes) <= set(fields)
    return {key: value for key, value in (fields | changes).items() if key != "method"}


def csv(rows: Rows) -> bytes:
    return ("text,label\n" + "".join(f"{text},{label}\n" for text, label in rows)).encode()


def loads(folder: Path, endpoint: str, *changes: dict[str, Any]) -> list[dict[str, Any]]:
    """What data=hf gives for each of the settings, with the hub at `endpoint` and its cache in `folder`."""
    asked = json.dumps([settings(**change) for change in changes])
    return ask_in_a_process(SCENARIO, asked, folder=folder, endpoint=endpoint)  # type: ignore[return-value]


SST2 = {"name": "nyu-mll/glue", "config": "sst2", "text_column": "sentence"}
REFUSED = {
    "a name that does not exist": ({"name": "no/such"}, "data.name: no/such", "doesn't exist"),
    "no such split": ({"dev_split": "validation"}, "no split 'validation'; it has 'train', 'test'", "data.dev_split"),
    "no such configuration": ({"config": "x"}, "someone/things/x", "Available: ['default']"),
    "no such revision": ({"revision": "old"}, "Revision 'old' doesn't exist"),
    "no text column": ({"text_column": "review"}, "no column 'review'; it has 'text', 'label'", "data.text_column"),
    "no label column": ({"label_column": "y"}, "no column 'y'; it has 'text', 'label'"),
    "labels that are hidden": ({**SST2, "dev_split": "test"}, "split 'test', has no labels, only -1"),
    "a set that would run code": ({"name": "someone/scripted"}, "scripts are no longer supported"),
}


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Everything asked of one stand-in, in one process; then of its cache."""
    folder = tmp_path_factory.mktemp("hf")
    asked = {
        "test": {}, "slice": {"dev_split": None}, "sst2": {**SST2, "dev_split": "validation"},
        **{name: change for name, (change, *_) in REFUSED.items()},
    }  # fmt: skip
    changes = [{"name": "someone/things", "dev_split": "test"} | change for change in asked.values()]
    with serving(Hub()) as hub:
        hub.add_set("someone/things", {"train.csv": csv(ROWS), "test.csv": csv(DEV)})
        hub.add_set("someone/scripted", {"scripted.py": b"open('ran', 'w')", "train.csv": csv(ROWS)})
        hub.add_sst2([("good", 1), ("bad", 0)], [("fine", 1), ("poor", 0)])
        found = dict(zip(asked, loads(folder, hub.address, *changes), strict=True))
        gone = hub.address
    commits = [{**changes[0], "revision": letter * 40} for letter in "bc"]
    keys = ("cached", "cached by its commit", "cached by another", "never seen")
    found |= dict(zip(keys, loads(folder, gone, changes[0], *commits, {"name": "no/such"}), strict=True))
    assert not list(folder.rglob("ran"))
    return found


def test_a_set_of_the_hub_is_read_with_its_labels_sorted(answers):
    found = answers["test"]
    assert found["train"] == [text for text, _ in ROWS]
    assert (found["dev"], found["labels"]) == ([text for text, _ in DEV], [0, 1, 1])
    assert (found["names"], found["name"]) == (["animal", "tree"], "someone/things")


def test_names_of_classes_are_those_of_the_set(answers):
    found = answers["sst2"]
    assert (found["dev"], found["labels"]) == (["fine", "poor"], [1, 0])
    assert (found["names"], found["name"]) == (["negative", "positive"], "nyu-mll/glue/sst2")


def test_a_set_without_a_dev_split_has_a_slice_of_every_class(answers):
    found = answers["slice"]
    assert (len(found["train"]), len(found["dev"]), sorted(found["labels"])) == (18, 2, [0, 1])
    assert not set(found["train"]) & set(found["dev"])


@pytest.mark.parametrize("name", REFUSED)
def test_bad_settings_get_a_line(answers, name):
    said = answers[name]["error"]
    assert all(part in said for part in REFUSED[name][1:]), said
    assert "\n" not in said


def test_a_cached_set_needs_no_hub(answers):
    assert answers["cached"]["digest"] == answers["test"]["digest"]
    assert answers["cached"]["seconds"] < 10
    assert "its cache lacks these data" in answers["never seen"]["error"]
    assert "data.path=DIR" in answers["never seen"]["error"]


def test_a_cached_set_of_another_commit_is_refused(answers):
    """Out of reach of its hub, `datasets` would take the newest that it has, whatever the revision."""
    assert answers["cached by its commit"]["digest"] == answers["test"]["digest"]
    assert f"holds commit {'b' * 40}, not data.revision={'c' * 40}" in answers["cached by another"]["error"]


# --- local folders


def labelled(rows: Rows):
    """The rows with named classes, in an order of their own; None is stored as -1."""
    from datasets import ClassLabel, Dataset, Features, Value

    names = ["tree", "animal", "stone"]
    columns = {"text": [text for text, _ in rows], "label": [names.index(y) if y else -1 for _, y in rows]}
    return Dataset.from_dict(columns, features=Features({"text": Value("string"), "label": ClassLabel(names=names)}))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set as save_to_disk leaves it."""
    from datasets import DatasetDict

    folder = tmp_path_factory.mktemp("saved") / "things"
    DatasetDict([("train", labelled(ROWS)), ("validation", labelled(DEV))]).save_to_disk(str(folder))  # type: ignore[arg-type]
    return folder


def hub_set(**changes: Any):
    return hf.hub_or_folder(**settings(**changes))


def local(path: Path, **changes: Any):
    return hf.hub_or_folder(**settings(path=str(path), **changes))


def test_a_saved_folder_keeps_the_names_and_order_of_its_classes(saved, tmp_path):
    corpus = local(saved).load(tmp_path)
    assert corpus.label_names == ("tree", "animal", "stone")
    assert corpus.train.texts == [text for text, _ in ROWS]
    assert corpus.dev.labels.tolist() == [1, 0, 0]
    assert corpus.name == "things"


@pytest.mark.parametrize("kind", ["another order", "text", "numbers"])
def test_labels_of_the_splits_of_a_saved_folder_mean_the_same(tmp_path, kind):
    from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

    feature = {"another order": ClassLabel(names=["stone", "tree", "animal"]), "text": Value("string")}
    stored = {"another order": [2, 1, 1], "text": ["animal", "tree", "tree"], "numbers": [1, 0, 0]}[kind]
    columns = Features({"text": Value("string"), "label": feature.get(kind, Value("int64"))})
    dev = Dataset.from_dict({"text": [text for text, _ in DEV], "label": stored}, features=columns)
    DatasetDict([("train", labelled(ROWS)), ("validation", dev)]).save_to_disk(str(tmp_path / "some"))  # type: ignore[arg-type]
    corpus = local(tmp_path / "some").load(tmp_path)
    assert [corpus.label_names[label] for label in corpus.dev.labels] == ["animal", "tree", "tree"]


def test_numbers_are_not_renamed_by_the_other_split(tmp_path):
    from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

    def split(texts, feature):
        columns = {"text": texts, "label": [0, 1] * 2}
        return Dataset.from_dict(columns, features=Features({"text": Value("string"), "label": feature}))

    train, dev = split(list("abcd"), Value("int64")), split(list("efgh"), ClassLabel(names=["tree", "animal"]))
    DatasetDict([("train", train), ("validation", dev)]).save_to_disk(str(tmp_path / "some"))  # type: ignore[arg-type]
    corpus = local(tmp_path / "some").load(tmp_path)
    assert (corpus.label_names, corpus.dev.labels.tolist()) == (("0", "1"), [0, 1, 0, 1])


def test_the_folder_that_one_stands_in_has_its_name(saved, monkeypatch):
    monkeypatch.chdir(saved / "train")
    assert (local(Path()).name, local(Path("..")).name) == ("train", "things")


def test_a_saved_single_split_is_held_back_from(saved, tmp_path):
    corpus = local(saved / "train", dev_split=None).load(tmp_path)
    assert (len(corpus.train.texts), len(corpus.dev.texts)) == (18, 2)
    assert local(saved / "train", dev_split=None, split_seed=1).load(tmp_path).digest != corpus.digest


def test_a_folder_of_files_is_read_by_its_splits(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "train.csv").write_bytes(csv(ROWS))
    (folder / "test.csv").write_bytes(csv(DEV))
    corpus = local(folder, dev_split="test").load(tmp_path)
    assert (corpus.train.texts, corpus.dev.texts) == ([t for t, _ in ROWS], [t for t, _ in DEV])
    assert corpus.label_names == ("animal", "tree")


@pytest.mark.parametrize("key", sorted(set(settings()) - {"path"}))
def test_every_setting_of_a_set_of_the_hub_counts(key):
    """A folder counts by its content alone: below."""
    known = {"name": "a/b", "dev_split": None}
    other = {"dev_split": "test", "dev_fraction": 0.2, "split_seed": 1, "max_length": 64}.get(key, "other/one")
    assert hub_set(**known).fingerprint() != hub_set(**known | {key: other}).fingerprint()


def test_settings_of_a_slice_count_only_where_one_is_taken():
    whole = hub_set(name="a/b").fingerprint()
    assert hub_set(name="a/b", dev_fraction=0.3, split_seed=9).fingerprint() == whole


def test_a_folder_counts_by_what_it_holds(saved, tmp_path):
    import shutil

    copy = Path(shutil.copytree(saved, tmp_path / "things"))
    known = local(saved).fingerprint()
    assert local(copy).fingerprint() == known
    assert local(copy, text_column="other").fingerprint() != known
    assert local(copy, max_length=64).fingerprint() != known
    assert local(copy, dev_split=None).fingerprint() != local(copy, dev_split=None, dev_fraction=0.2).fingerprint()
    (copy / "validation" / "cache-1f2e.arrow").write_bytes(b"what map() leaves")
    assert local(copy).fingerprint() == known
    (copy / "validation" / "more.arrow").write_bytes(b"x")
    assert local(copy).fingerprint() != known


def test_a_label_that_is_hidden_is_named_by_its_row(tmp_path):
    labelled([*ROWS, ("unknown", None)]).save_to_disk(str(tmp_path / "some"))
    with pytest.raises(UserError, match="split 'train', row 21: 'label' has no label"):
        local(tmp_path / "some", dev_split=None).load(tmp_path)


@pytest.mark.parametrize(
    ("content", "part"),
    [(None, "data.path: .* is not a folder"), ({}, "is empty"), ({"notes.md": "hello"}, "no folder that datasets can")],
)
def test_a_folder_that_is_none_is_named(tmp_path, content, part):
    folder = tmp_path / "folder"
    for name, text in (content or {}).items():
        folder.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    if content == {}:
        folder.mkdir()
    with pytest.raises(UserError, match=part) as caught:
        local(folder).load(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_file_of_a_folder_that_is_not_utf_8_is_named(tmp_path):
    (tmp_path / "test.csv").write_bytes(csv(DEV))
    (tmp_path / "train.csv").write_bytes("text,label\ntrès bon,1\nmal,0\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"data.path: .*train.csv is not UTF-8"):
        local(tmp_path).load(tmp_path)


def test_a_configuration_of_what_save_to_disk_left_is_refused(saved, tmp_path):
    with pytest.raises(UserError, match=r"data\.config=plain chooses nothing in .*things, which save_to_disk left"):
        local(saved, config="plain").load(tmp_path)


def test_phrases_of_a_sentence_that_is_scored_are_not_learnt(tmp_path):
    """A slice of one split, of whole sentences where rows are phrases; without that key of any rows."""
    whole = [f"film number {i} is a thing to see" for i in range(20)]
    rows: Rows = [(part, str(i % 2)) for i, text in enumerate(whole) for part in (text, text.removesuffix(" to see"))]
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "train.csv").write_bytes(csv(rows))
    corpus = local(tmp_path / "set", dev_split=None, dev_fraction=0.2, phrases=True).load(tmp_path)
    assert corpus.phrases
    assert len(corpus.dev.texts) == 4
    assert set(corpus.dev.texts) <= set(whole)
    assert len(corpus.train.texts) == 40 - 8
    assert not [text for text in corpus.train.texts if any(text in held for held in corpus.dev.texts)]
    plain = local(tmp_path / "set", dev_split=None, dev_fraction=0.2)
    assert not plain.load(tmp_path).phrases
    assert plain.fingerprint() != local(tmp_path / "set", dev_split=None, dev_fraction=0.2, phrases=True).fingerprint()


def test_several_labels_a_sentence_are_refused(tmp_path):
    from datasets import Dataset

    Dataset.from_dict({"text": ["a", "b"], "label": [[0], [0, 1]]}).save_to_disk(str(tmp_path / "many"))
    with pytest.raises(UserError, match="'label' must hold one label a sentence, got List"):
        local(tmp_path / "many", dev_split=None).load(tmp_path)


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({}, "data=hf needs data.name=OWNER/NAME"),
        ({"name": "glue"}, "data.name=OWNER/NAME, .* got data.name=glue"),
        ({"name": "a/b", "dev_split": None, "dev_fraction": 0}, "data.dev_fraction must be above 0"),
        ({"name": "a/b", "dev_split": "train"}, "data.dev_split must be another split"),
        ({"name": "a/b", "dev_fraction": 1.5}, "data.dev_fraction"),
        ({"name": "a/b", "max_length": 2}, "data.max_length must be at least 3"),
        ({"name": "a/b", "split_seed": -1}, "data.split_seed must be"),
    ],
)
def test_settings_alone_are_refused_before_anything_is_read(changes, part):
    with pytest.raises(UserError, match=part):
        hf.hub_or_folder(**settings(**changes))


def test_a_folder_called_like_a_reader_is_read_alone(tmp_path, monkeypatch):
    """`load_dataset("csv")` is the reader of that name, and takes whatever lies below the working folder."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "csv").mkdir()
    other: Rows = [("of another set", "tree")]
    for place, rows in (("csv/train.csv", ROWS), ("csv/test.csv", DEV), ("train.csv", other)):
        (tmp_path / place).write_bytes(csv(rows))
    corpus = local(Path("csv"), dev_split="test").load(tmp_path)
    assert (corpus.train.texts, corpus.name) == ([text for text, _ in ROWS], "csv")


@pytest.mark.parametrize("folder", ["someone/things", "things"])
def test_a_folder_called_like_a_set_of_the_hub_is_not_taken_for_it(tmp_path, monkeypatch, folder):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr("optim.common.hub.hub_reachable", lambda: False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / folder).mkdir(parents=True)
    (tmp_path / folder / "train.csv").write_bytes(csv(ROWS))
    with pytest.raises(UserError, match=r"someone/things( is a folder here too|: .* its cache lacks these data)"):
        hub_set(name="someone/things", dev_split=None, revision="b" * 40).load(tmp_path)


def test_a_set_of_the_same_short_name_is_not_taken_for_it(tmp_path, monkeypatch):
    """A cache may hold Stanford's under the name without a namespace that it had; somebody's `imdb` is another set."""
    from datasets import DatasetDict

    def load(name: str, config: str | None, revision: str) -> DatasetDict:
        if name != "imdb":
            raise FileNotFoundError(name)
        return DatasetDict({"train": labelled(ROWS)})

    monkeypatch.setattr("datasets.load_dataset", load)
    monkeypatch.setattr("optim.common.hub.hub_reachable", lambda: False)
    assert len(hub_set(name="stanfordnlp/imdb", dev_split=None).load(tmp_path).train.texts) == 18
    with pytest.raises(UserError, match=r"someone/imdb: .* its cache lacks these data"):
        hub_set(name="someone/imdb", dev_split=None).load(tmp_path)


@pytest.mark.parametrize("name", ["set[1]", "set*"])
def test_a_folder_that_is_called_like_a_pattern_is_refused(tmp_path, monkeypatch, name):
    """`load_dataset("set[1]")` reads the folder `set1`."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    for folder in (name, "set1"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "train.csv").write_bytes(csv(ROWS))
    with pytest.raises(UserError, match=r"which datasets takes for a pattern .* Rename that folder"):
        local(tmp_path / name, dev_split=None).load(tmp_path)


def test_a_saved_folder_may_be_called_like_a_pattern(saved, tmp_path):
    import shutil

    folder = Path(shutil.copytree(saved, tmp_path / "set[1]"))
    assert local(folder).load(tmp_path).digest == local(saved).load(tmp_path).digest


def test_a_data_file_called_like_a_cache_counts(tmp_path):
    (tmp_path / "train.csv").write_bytes(csv(ROWS))
    (tmp_path / "cache-train.csv").write_bytes(csv(DEV))
    known = local(tmp_path).fingerprint()
    (tmp_path / "cache-train.csv").write_bytes(csv(DEV[:2]))
    assert local(tmp_path).fingerprint() != known
