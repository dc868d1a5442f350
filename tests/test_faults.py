"""The faults of tests/faults.toml fit the code and the tests that there are. `make faults` makes each of them."""

from __future__ import annotations

import re

import pytest
from faults import PAGE, ROOT, faults, page


@pytest.mark.parametrize("fault", faults(), ids=lambda fault: fault["name"])
def test_a_fault_can_be_made_and_its_test_is_there(fault):
    code = (ROOT / fault["file"]).read_text(encoding="utf-8")
    assert fault["old"] in code
    assert fault["old"] != fault["new"]
    file, _, name = fault["test"].partition("::")
    assert re.search(
        rf"^def {re.escape(name.split('[')[0])}\(", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE
    )


def test_the_list_for_people_is_up_to_date():
    assert PAGE.read_text(encoding="utf-8") == page()
