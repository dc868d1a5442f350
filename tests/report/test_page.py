"""report.html in a real browser: it draws, complains of nothing, asks nobody for anything, and opens soon."""

from __future__ import annotations

import re
import time
from pathlib import Path

import numpy as np
import pytest
from browser import CHROMIUM, PATIENT, SCREEN, browse
from made_results import put

from optim.report import compare, comparison, page, write

SLACK = 4  # a loaded machine opens a page more slowly than the 2 s that an idle one is asked for

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM, reason="no chromium on PATH: apt-get install chromium, or what your system has"),
]


def grid(folder: Path, count: int) -> None:
    """Points of four prunings, four quantizations and as many seeds as it takes."""
    rng = np.random.default_rng(0)
    size = {"none": 90.0, "fp16": 45.0, "int8": 23.0, "int8_static": 22.8}
    for i in range(count):
        quant, prune = list(size)[i % 4], ("none", "fixed50", "poly80", "fixed80")[i // 4 % 4]
        errors = int(rng.integers(4, 12)) + (8 if prune.endswith("80") else 0)
        put(folder, f"p{i}", wrong=range(errors), ms=size[quant] / 3 * float(rng.uniform(0.9, 1.1)), mb=size[quant],
            prune=prune, quant=quant, seed=i // 16)  # fmt: skip


def test_the_page_draws_the_front_without_a_complaint_or_a_network(tmp_path):
    grid(tmp_path / "runs", 32)
    write.write(tmp_path, [tmp_path / "runs"])
    seen = browse(tmp_path / page.PAGE, tmp_path, *PATIENT)
    assert seen.console == []
    assert seen.loaded == [], "the page loads nothing"
    fronts = re.findall(r'<g class="trace scatter trace\w+"[^>]*>(?:(?!<g class="trace ).)*?class="js-line"[^>]*>',
                        seen.dom, re.DOTALL)  # fmt: skip
    paths = [re.search(r' d="(M[^"]+)"', front) for front in fronts]
    assert len(paths) == 2, "one front in each of the two figures"
    fronts_found = comparison.compared([tmp_path / "runs"]).points
    for path, cost in zip(paths, ("latency_p50_ms", "file_bytes"), strict=True):
        corners = sum(compare.front(fronts_found, [cost])) - 1
        assert path
        assert len(re.findall(r"[HVL]", path[1])) >= min(corners, 2), "a line of as many steps as the front has points"
    assert seen.dom.count(">Pareto front</text>") == 2
    assert len(re.findall(r'<path class="point"', seen.dom)) == 64
    assert 'class="gl-canvas gl-canvas-context"' in seen.dom
    drawn = re.sub(r"<script.*?</script>", "", seen.dom, flags=re.DOTALL)
    assert "WebGL is not supported" not in drawn


def test_the_browser_would_have_told(tmp_path):
    """The ruler: a page with an error and a picture from elsewhere is seen to have both."""
    page = tmp_path / "bad.html"
    page.write_text("<!doctype html><body><img src='http://127.0.0.1:9/x.png'><script>undefined.x</script>")
    seen = browse(page, tmp_path)
    assert any("TypeError" in line for line in seen.console)
    assert seen.loaded == ["http://127.0.0.1:9/x.png"]


def test_a_report_of_500_points_opens_soon(tmp_path):
    grid(tmp_path / "runs", 500)
    start = time.perf_counter()
    write.write(tmp_path, [tmp_path / "runs"])
    built_s = time.perf_counter() - start
    size_mb = (tmp_path / page.PAGE).stat().st_size / 1e6
    seen = browse(tmp_path / page.PAGE, tmp_path, SCREEN)
    print(f"500 points: built in {built_s:.2f} s, drawn in {seen.drawn_ms / 1e3:.2f} s, {size_mb:.2f} MB")
    assert built_s < 5 * SLACK  # 5 s of processor time are asserted in test_compare.py
    assert size_mb < 8
    assert seen.drawn_ms < 2000 * SLACK
    assert seen.console == []
