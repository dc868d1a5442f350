"""What a folder says its model was trained on."""

from __future__ import annotations

import json

import pytest

from optim.common.packages import Pin
from optim.encoder.assets import HubCheckpoint, LocalCheckpoint, PackageCheckpoint
from optim.encoder.origin import said_in, trained_on, write_trained_on

CARD = "---\nlicense: mit\ndatasets:\n- rotten_tomatoes\n- imdb\n---\n# A model\n"


def test_what_is_written_is_read(tmp_path):
    write_trained_on(tmp_path, ["csv", "reviews", "csv"])
    assert said_in(tmp_path) == ("csv", "reviews")
    assert trained_on(LocalCheckpoint("mine", tmp_path, "first")) == ("csv", "reviews")


@pytest.mark.parametrize(
    ("file", "content", "names"),
    [
        ("README.md", CARD, ("rotten_tomatoes", "imdb")),
        ("README.md", "---\ndatasets: sst2\n---\n", ("sst2",)),
        (
            "README.md",
            "# t\n- Trained on 8,543 sentences of reviews; the 1,500 of dev chose nothing.\n",
            ("reviews",),
        ),
        ("README.md", "- Trained on 10 sentences of csv and on 5 more, which have no labels; the rest.\n", ("csv",)),
        ("config.json", json.dumps({"_name_or_path": "someone/bert-sst2"}), ("someone/bert-sst2",)),
        ("README.md", "---\n{: no yaml\n---\n", ()),
        ("README.md", "---\n- a list\n---\n", ()),
        ("README.md", "---\ndatasets: {a: 1}\n---\n", ()),
        ("trained_on.json", "[1, 2", ()),
        ("trained_on.json", '{"data": [1, null, "reviews"]}', ("reviews",)),
        ("config.json", "[]", ()),
    ],
)
def test_each_place_is_read_and_nothing_else_stops_it(tmp_path, file, content, names):
    (tmp_path / file).write_text(content)
    assert said_in(tmp_path) == names


def test_the_bundle_of_a_run_is_known_by_its_result(tmp_path):
    (tmp_path / "result.json").write_text(json.dumps({"data": {"name": "reviews"}}))
    for name, names in (("bundle", ("reviews",)), ("other", ())):
        (tmp_path / name).mkdir()
        assert said_in(tmp_path / name) == names


def test_a_folder_that_is_not_there_says_nothing(tmp_path):
    assert said_in(tmp_path / "nowhere") == ()


def test_a_checkpoint_of_the_hub_is_known_by_its_name():
    assert trained_on(HubCheckpoint("mine", "someone/bert-rotten-tomatoes", "main", "first")) == (
        "someone/bert-rotten-tomatoes",
    )
    wheel = Pin(requirement="a==1", file="a.whl", sha256="0")
    assert trained_on(PackageCheckpoint("mine", wheel, "a", "0", "first")) == ()
