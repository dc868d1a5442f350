"""Text from data is shown as that text: on the page, in Markdown, in a spreadsheet."""

from __future__ import annotations

import csv
import html
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

from hypothesis import given, settings
from hypothesis import strategies as st
from made_results import points, put

from optim.report import comparison, index, markdown, page
from optim.report.table import Table
from optim.report.template import markdown_text, rendered

EVIL = "<script>alert(1)</script> | `x` [a](b) **b** &amp; {{ 7 * 7 }}"
QUICK = settings(max_examples=60, deadline=None)


def evil_comparison(tmp_path) -> comparison.Comparison:
    """One point whose model, command, error and machine say what they should not."""
    put(tmp_path, "a", wrong=range(5), ms=8, mb=80)
    (found,) = points(tmp_path).values()
    bad = replace(found.result, choices={**found.result.choices, "model": EVIL}, command=f"python train.py '{EVIL}'",
                  error=EVIL, machine={**found.result.machine, "id": EVIL})  # fmt: skip
    one = comparison.compared([tmp_path])
    shown = [replace(found, result=bad)]
    return replace(one, every_point=shown, points=shown, failed=[bad], missing=[EVIL], notes=[EVIL])


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)


def test_the_page_shows_the_text_and_runs_none_of_it(tmp_path):
    evil = evil_comparison(tmp_path)
    shown = page.to_html(evil, tmp_path)
    tags = Tags()
    tags.feed(re.sub(r"<script>.*?</script>", "<script></script>", shown, flags=re.DOTALL))
    drawn = shown.count("class=figure")
    assert tags.seen.count("script") == 5 + drawn, "the theme, the rows, plotly, Tabulator, report.js; and each figure"
    assert html.escape(EVIL) in shown
    assert "49" not in html.escape(EVIL)
    (data,) = re.findall(r'<script type="application/json" id="rows">(.*?)</script>', shown, re.DOTALL)
    assert "<" not in data
    (row,) = json.loads(data)["points"]
    assert row["command"] == f"python train.py '{EVIL}'", "text, which report.js puts into text nodes"
    assert row["machine"] == EVIL
    assert "<script>" not in (row["title"] or "")


def test_markdown_shows_the_text(tmp_path):
    lines = markdown.to_markdown(evil_comparison(tmp_path)).splitlines()
    cells = [line for line in lines if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in cells[:3]}) == 1, "no cell more than the head has"
    assert not [line for line in lines if "<script>" in line]
    assert not [line for line in lines if re.search(r"(?<!\\)`x", line)]
    assert "{{ 7 \\* 7 }}" in "\n".join(lines)


def unescaped(text: str) -> str:
    return re.sub(r"\\([\\`*|\]])", r"\1", text).replace("&lt;", "<").replace("&amp;", "&")


@QUICK
@given(st.text())
def test_markdown_text_can_be_read_back(text):
    made = markdown_text(text)
    assert unescaped(made) == " ".join(text.split())
    assert "\n" not in made
    assert not re.search(r"(?<!\\)(\\\\)*[|`]", made.replace("\\|", "").replace("\\`", ""))


@QUICK
@given(st.lists(st.lists(st.text(max_size=8), min_size=2, max_size=2), max_size=4))
def test_a_markdown_table_has_its_rows_and_no_others(rows):
    table = Table("", ("a", "b"), rows)
    lines = rendered("report.md", headline="", tables=[table], notes=[], baselines=None, baseline_notes=[]).splitlines()
    assert len([line for line in lines if line.startswith("|")]) == 2 + len(rows)


@QUICK
@given(st.text(st.characters(blacklist_characters="\0\r")))
def test_a_csv_cell_is_no_formula_and_can_be_read_back(text):
    out = io.StringIO()
    csv.writer(out).writerow([index.cell(text), "x"])
    (back, _), = csv.reader(io.StringIO(out.getvalue(), newline=""))  # fmt: skip
    assert not back.startswith(index.FORMULA)
    assert back.removeprefix("'") == text.removeprefix("'") or back == f"'{text}"


def test_numbers_stay_numbers_in_the_csv():
    assert [index.cell(value) for value in (-1.5, 3, None, "-1", "=1+1", "fine")] == [
        -1.5,
        3,
        None,
        "'-1",
        "'=1+1",
        "fine",
    ]
