"""docs/tour.ipynb runs from its first cell to its last, and says what it promises."""

from __future__ import annotations

import os

import pytest
from conftest import ROOT

TOUR = ROOT / "docs" / "tour.ipynb"


@pytest.mark.slow
def test_the_tour_runs_and_ends_where_it_says(tmp_path, monkeypatch):
    nbformat = pytest.importorskip("nbformat", reason='pip install ".[test]"')
    nbclient = pytest.importorskip("nbclient", reason='pip install ".[test]"')
    pytest.importorskip("ipykernel", reason='pip install ".[test]"')
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])))
    tour = nbformat.read(TOUR, as_version=4)
    client = nbclient.NotebookClient(
        tour, timeout=300, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    )
    client.execute()  # raises for a cell that fails
    said = ["".join(out.text for out in cell.outputs if out.get("name") == "stdout")
            for cell in tour.cells if cell.cell_type == "code"]  # fmt: skip
    assert "done True True\n" in said
    assert "positive\n['negative', 'positive']\n" in said
    assert "3 sentences: 2 positive, 1 negative; none was cut.\n" in said
    assert said[-1] == "epochs is no key here. The nearest: fit.teacher.epochs, fit.student.epochs.\n"
    table = next(out for cell in tour.cells for out in cell.get("outputs", []) if "text/html" in out.get("data", {}))
    assert "accuracy_fraction" in table.data["text/plain"]
    assert len(table.data["text/plain"].splitlines()) == 3
