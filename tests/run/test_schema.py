"""docs/result.md and docs/result.schema.json against what a run leaves."""

from __future__ import annotations

import copy
import dataclasses
import json

import jsonschema
import pytest
from conftest import ROOT, Runs

import optim
from optim.run import schema
from optim.run.result import FAILED, FILE, Result

DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def left(runs: Runs) -> dict:
    """result.json of a real run; the settings are those of another test, so that one of the two finds it done."""
    result = optim.run(*runs.overrides("quant=int8", "seed=51"))
    return json.loads((runs.results / result.run_id / FILE).read_text(encoding="utf-8"))


def check(content: dict) -> None:
    told = json.loads((DOCS / "result.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(told)
    jsonschema.validate(content, told, cls=jsonschema.Draft202012Validator)


def test_the_files_of_docs_are_those_of_the_classes():
    assert (DOCS / "result.md").read_text(encoding="utf-8") == schema.page()
    assert json.loads((DOCS / "result.schema.json").read_text(encoding="utf-8")) == schema.schema()
    assert set(schema.TOP) == {field.name for field in dataclasses.fields(Result)}


def test_a_real_result_is_what_the_schema_says(left):
    check(left)


def test_a_failed_result_has_empty_parts(left):
    empty = {part: {} for part in schema.PARTS}
    check({**left, **empty, "status": FAILED, "error": "UserError: no"})
    with pytest.raises(jsonschema.ValidationError):
        check({**left, **empty})


@pytest.mark.parametrize("part", schema.PARTS)
def test_a_key_that_is_missing_or_new_or_of_another_type_is_told(left, part):
    """So that a figure that is added is described, and one that goes is noticed."""
    for key in left[part]:
        less = copy.deepcopy(left)
        del less[part][key]
        with pytest.raises(jsonschema.ValidationError):
            check(less)
    with pytest.raises(jsonschema.ValidationError):
        check({**left, part: {**left[part], "colour": 1}})
    first = next(iter(left[part]))
    with pytest.raises(jsonschema.ValidationError):
        check({**left, part: {**left[part], first: {"not": "this"}}})
