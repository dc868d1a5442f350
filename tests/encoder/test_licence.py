"""The licence of the weights that a student starts from: of every model of conf, and of a folder by its card."""

from __future__ import annotations

import pytest
from conftest import CONF
from omegaconf import OmegaConf

from optim.encoder.licence import KNOWN, RANDOM, licence_of, sentence


def node(option: str) -> dict:
    return OmegaConf.to_container(OmegaConf.load(CONF / "model" / f"{option}.yaml"))  # type: ignore[return-value]


@pytest.mark.parametrize("option", sorted(path.stem for path in (CONF / "model").glob("*.yaml")))
def test_of_every_model_of_conf_it_was_looked_up(option):
    model = node(option)
    licence, source = licence_of(model)
    unknown = model["method"] == RANDOM or option.startswith("tinybert")
    assert (licence is None) == unknown
    assert ("are under " in sentence(model)) != unknown
    assert source in sentence(model)


def test_another_repository_under_the_same_name_is_not_taken_for_it():
    assert licence_of({**node("distilbert"), "hub_id": "someone/distilbert"}) == (None, "someone/distilbert")


def test_a_folder_says_it_at_the_head_of_its_card(tmp_path):
    model = {**node("minilm"), "path": str(tmp_path)}
    assert licence_of(model)[0] is None
    (tmp_path / "README.md").write_text("---\nlicense: bsd-3-clause\n---\n# A model\n")
    assert licence_of(model) == ("bsd-3-clause", "README.md of model.path")


def test_no_entry_is_left_over():
    named = {str(model.get("hub_id") or model.get("requirement") or model["parts"][0]["requirement"])
             for path in (CONF / "model").glob("*.yaml") if (model := node(path.stem))["method"] != RANDOM}  # fmt: skip
    assert set(KNOWN) <= named
