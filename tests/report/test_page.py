"""report.html in a real browser: what a user sees and does, at 1400 and at 360 px, on paper, light and dark."""

from __future__ import annotations

import json
import shlex
import time
from dataclasses import replace
from pathlib import Path

import pytest
from browser import CHROMIUM, Page, opened
from made_results import put
from made_sweep import sweep

from optim.report import page, write
from optim.report.comparison import compared
from optim.run import result

LOADED = 2  # a busy core does half as much in a second of its time as an idle one, which the asked figures are of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM, reason="no chromium on PATH: apt-get install chromium, or what your system has"),
]

# Boxes of every line of text that can be seen, and whether something that does not scroll cuts it.
TEXTS = """(() => {
  const boxes = [];
  const walker = document.createTreeWalker(document.querySelector("body"), NodeFilter.SHOW_TEXT);
  for (let node; (node = walker.nextNode());) {
    const parent = node.parentElement, text = node.textContent.trim(), style = getComputedStyle(parent);
    const unseen = style.visibility === "hidden" || [style.color, style.fill].includes("rgba(0, 0, 0, 0)");
    if (!text || unseen || !parent.checkVisibility()) continue;
    if (parent.closest("script, style, noscript, select, .hoverlayer")) continue;
    const range = document.createRange();
    range.selectNodeContents(node);
    for (const r of range.getClientRects()) {
      let [l, t, R, b, cut] = [r.left, r.top, r.right, r.bottom, false];
      for (let e = parent; e && e !== document.body; e = e.parentElement) {
        const how = getComputedStyle(e), edge = e.getBoundingClientRect();
        if (how.overflowX === "visible") continue;
        if (how.overflowX === "hidden" && (r.left < edge.left - 2 || r.right > edge.right + 2)) cut = true;
        [l, t] = [Math.max(l, edge.left), Math.max(t, edge.top)];
        [R, b] = [Math.min(R, edge.right), Math.min(b, edge.bottom)];
      }
      cut ||= l < -1 || R > innerWidth + 1;
      if (R - l > 1 && b - t > 1) boxes.push({ text, box: [l, t, R, b], cut });
    }
  }
  return boxes;
})()"""
BUILT = "typeof figures !== 'undefined' && table instanceof Tabulator"
# The points of the plot that are drawn as those which the filters let through
STRONG = "every('#plot .point').flatMap((mark, i) => (Number(mark.style.opacity) > 0.5 ? [i] : []))"
SLACK_PX = 3.0  # boxes of lines are higher than their letters


def laid_over(boxes: list[dict]) -> list[tuple[str, str]]:
    """The pairs of texts whose boxes share more than a rim."""
    found = []
    for i, one in enumerate(boxes):
        for other in boxes[i + 1 :]:
            left, top = map(max, one["box"][:2], other["box"][:2])
            right, bottom = map(min, one["box"][2:], other["box"][2:])
            if right - left > SLACK_PX and bottom - top > SLACK_PX:
                found.append((one["text"], other["text"]))
    return found


def settled(shown: Page) -> None:
    """Until table and every figure are drawn."""
    shown.wait(BUILT)
    shown.run("every('.figure').forEach((e) => figures.has(e) || draw(e))")
    shown.wait("every('.figure').every((e) => e.querySelector('.main-svg'))")
    time.sleep(0.5)  # parallel coordinates are coloured a moment later


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    """The page of 27 points."""
    folder = tmp_path_factory.mktemp("page")
    (folder / "report").mkdir()
    write.write(folder / "report", [sweep(folder)])
    return folder / "report" / page.PAGE


@pytest.fixture(scope="module")
def wide(report):
    with opened(report) as shown:
        settled(shown)
        yield shown


@pytest.fixture(scope="module")
def phone(report):
    with opened(report, width=360, height=780) as shown:
        settled(shown)
        yield shown


@pytest.fixture(autouse=True)
def afresh(request):
    """Whatever a test before has filtered, sorted or opened is undone."""
    for name in {"wide", "phone"} & set(request.fixturenames):
        shown = request.getfixturevalue(name)
        shown.run("$('point').close(); showAll(); table.clearSort(); scrollTo(0, 0)")


def count(shown: Page) -> str:
    return shown.run("$('count').textContent")


def rows(shown: Page, field: str) -> list:
    """A column of the table, as it is sorted and filtered."""
    return shown.run(f"table.getData('active').map((p) => p.{field})")


@pytest.mark.parametrize("size", ["wide", "phone"])
def test_nothing_lies_on_anything_nothing_is_cut_and_nobody_complains(size, request):
    shown: Page = request.getfixturevalue(size)
    boxes = shown.run(TEXTS)
    assert len(boxes) > 150
    assert laid_over(boxes) == []
    assert [box["text"] for box in boxes if box["cut"]] == []
    assert shown.run("document.documentElement.scrollWidth") == shown.run("innerWidth"), "no scrolling sideways"
    assert (shown.console, shown.loaded) == ([], [])


def test_the_rulers_would_have_told(tmp_path):
    """A page with an error, a picture from elsewhere, a text on another and a text that is cut is seen to have them."""
    bad = tmp_path / "bad.html"
    bad.write_text(
        "<!doctype html><body><img src='http://127.0.0.1:9/x.png'><p>one<p style='margin-top:-30px'>two"
        "<div style='width:30px;overflow:hidden;white-space:nowrap'>much too long</div><script>undefined.x</script>"
    )
    with opened(bad) as shown:
        assert any("TypeError" in line for line in shown.console)
        assert shown.loaded == ["http://127.0.0.1:9/x.png"]
        boxes = shown.run(TEXTS)
    assert laid_over(boxes) == [("one", "two")]
    assert [box["text"] for box in boxes if box["cut"]] == ["much too long"]


def test_a_heads_click_and_its_enter_key_sort(wide):
    head = "#table .tabulator-col[tabulator-field='costs.1'] .tabulator-col-title"
    wide.click(head)
    sizes = rows(wide, "costs[1]")
    assert sizes == sorted(sizes)
    wide.run("document.querySelector(\"#table .tabulator-col[tabulator-field='accuracy']\").focus()")
    wide.press("Enter")
    accuracies = rows(wide, "accuracy")
    assert accuracies in (sorted(accuracies), sorted(accuracies, reverse=True))
    assert rows(wide, "costs[1]") != sizes


def test_filters_answer_in_table_plot_and_lines(wide):
    assert count(wide) == "27 of 27 shown"
    wide.click(".group:nth-of-type(2) input[value='2']")  # int8 off
    assert count(wide) == "18 of 27 shown"
    assert {D for D in rows(wide, "options[1]")} == {0, 1}
    opacities = wide.run("$('plot').data[0].marker.opacity")
    assert sorted(set(opacities)) == [0.1, 0.95]
    assert opacities.count(0.95) == 18
    for deed in ("0", "Plotly.relayout('plot', {'xaxis.range': $('plot').layout.xaxis.range.map((end) => end + 0.01)})",
                 "Plotly.redraw('plot')", "drawPlot()"):  # fmt: skip
        wide.run(f"{deed}; 0")
        assert wide.run(STRONG) == wide.run("points.flatMap((p, i) => p.options[1] === 2 ? [] : [i])"), deed
    time.sleep(0.4)
    assert wide.run("$('parallel').data[0].line.color.filter((c) => c === $('parallel').data[0].line.cmin).length") == 9
    wide.run("document.querySelectorAll('.budget input')[1].focus()")  # MB
    for _ in range(9):
        wide.press("ArrowLeft")  # nine float32 files are the largest
    assert count(wide) == "9 of 27 shown"
    assert "at most 45" in wide.run("document.querySelectorAll('.budget b')[1].textContent")
    wide.click("#all")
    assert count(wide) == "27 of 27 shown"
    assert wide.run("document.querySelectorAll('.budget b')[1].textContent") == "any"


def test_a_brush_over_the_plot_keeps_its_points_and_a_double_click_all(wide):
    wide.run("$('plot').scrollIntoView({block: 'center'})")
    left, top, width, height = wide.run(
        "(() => { const r = document.querySelector('#plot .nsewdrag').getBoundingClientRect();"
        "return [r.x, r.y, r.width, r.height] })()"
    )
    wide.drag((left + 2, top + 2), (left + width / 2, top + height - 2))
    wide.wait("$('count').textContent === '9 of 27 shown'", 10)
    assert set(rows(wide, "options[1]")) == {2}, "only int8 is that fast"
    assert wide.run(STRONG) == wide.run("points.flatMap((p, i) => p.options[1] === 2 ? [i] : [])")
    for clicks in (1, 2):
        wide.run("$('plot')._mouseDownTime = 0")  # as if plotly had heard the first click a long time ago
        wide.drag((left + width * 0.75, top + height / 2), (left + width * 0.75, top + height / 2), clicks)
    wide.wait("$('count').textContent === '27 of 27 shown'", 10)
    assert len(wide.run(STRONG)) == 27


def test_a_brush_over_the_parallel_coordinates_keeps_its_points(wide):
    wide.run("$('parallel').scrollIntoView({block: 'center'})")
    time.sleep(0.3)
    x, top, bottom = wide.run(
        "(() => { const r = document.querySelectorAll('#parallel .y-axis .axis-brush')[0].getBoundingClientRect();"
        "return [r.x + r.width / 2, r.top, r.bottom] })()"
    )
    wide.drag((x, bottom - 2), (x, bottom - (bottom - top) * 0.3))  # the lowest option of the first axis
    wide.wait("$('count').textContent === '9 of 27 shown'", 10)
    assert set(rows(wide, "options[0]")) == {0}


def test_the_switch_of_cost_draws_another_front(wide):
    for i, name in enumerate(("latency", "bytes", "gzip", "zstd", "memory")):
        wide.click(f"#cost label:nth-of-type({i + 1})")
        front = wide.run(f"D.costs[{i}].front")
        assert wide.run("$('plot').data[1].x") == wide.run(f"D.costs[{i}].front.map((p) => points[p].costs[{i}])"), name
        assert wide.run("$('plot').layout.xaxis.type") == "log"
        labels = wide.run("$('plot').layout.annotations.slice(0, -1).map((a) => a.text)")
        assert [int(text.split()[0]) for text in labels] == list(range(1, len(front) + 1)), "each point has its number"
        assert wide.run("every('.side').filter((s) => !s.hidden).length") == 1
    wide.click("#cost label:nth-of-type(1)")


def test_a_name_that_would_run_across_the_plot_stands_below_it_alone(wide):
    said = "(drawPlot(), $('plot').layout.annotations.slice(0, -1).map((a) => a.text.split(' ').length > 1))"
    assert any(wide.run(said)), "short names stand in the plot where they find room"
    wide.run("D.plot.named = 3")
    assert not any(wide.run(said))
    wide.run("(D.plot.named = 44, drawPlot())")


def test_colour_and_shape_follow_any_two_groups(wide):
    looks = "[new Set($('plot').data[0].marker.color).size, new Set($('plot').data[0].marker.symbol).size]"
    assert wide.run(looks) == [3, 3]
    wide.run("$('shape').value = '-1'; $('shape').onchange()")
    assert wide.run(looks) == [3, 1]
    wide.run("$('shape').value = '2'; $('colour').value = '-1'; $('colour').onchange()")
    assert wide.run(looks) == [1, 3]
    wide.run("$('shape').value = '0'; $('colour').value = '1'; $('colour').onchange()")


def test_a_click_opens_a_point_and_escape_closes_it(wide):
    wide.click("#table .tabulator-row:nth-child(3) .tabulator-cell:nth-child(2)")
    wide.wait("$('point').open", 10)
    first = wide.run("table.getRows('active')[2].getData()")
    text = wide.run("$('point').innerText")
    for told in (first["name"], first["command"], f"{first['accuracy']:.4f}", "Errors by class", "positive", "folder"):
        assert told in text
    assert wide.run("$('curves').data.length") == 6
    links = wide.run("[...$('links').children].map((a) => a.getAttribute('href'))")
    assert links == [first["folder"] + tail for tail in ("", "bundle/README.md", "changed.jsonl")]
    boxes = wide.run(TEXTS.replace('"body"', '"dialog"'))
    assert len(boxes) > 20
    assert laid_over(boxes) == []
    assert [box["text"] for box in boxes if box["cut"]] == []
    wide.press("Escape")
    wide.wait("!$('point').open", 10)
    wide.run("document.querySelector('#table .open').focus()")
    wide.press("Enter")
    wide.wait("$('point').open", 10)


def test_a_click_in_the_plot_and_in_the_front_opens_that_point(wide):
    wide.run("$('plot').scrollIntoView({block: 'center'})")
    wide.run("$('plot').emit('plotly_click', {points: [{pointIndex: 5}]})")
    assert wide.run("$('command').textContent === points[5].command && $('point').open")
    wide.press("Escape")
    wide.click(".side:not([hidden]) li:nth-child(2) button")
    assert wide.run("$('command').textContent === points[D.costs[0].front[1]].command && $('point').open")


@pytest.mark.parametrize("clipboard", [True, False])
def test_the_command_can_be_copied_with_a_clipboard_and_without(clipboard, wide):
    wide.run("openPoint(4); window.got = null; document.oncopy = () => { window.got = String(getSelection()) }")
    allowed = "(text) => { window.got = text }" if clipboard else "() => { throw new Error('not from the disk') }"
    wide.run(f"Object.defineProperty(navigator, 'clipboard', {{value: {{writeText: {allowed}}}, configurable: true}})")
    wide.click("#copy")
    wide.wait("window.got", 10)
    assert wide.run("window.got.trim()") == wide.run("points[4].command")
    wide.wait("$('copy').textContent === 'copied'", 10)


def test_the_keyboard_reaches_what_the_mouse_does(wide):
    reached = set()
    wide.run("$('theme').focus()")
    reached.add("theme")
    for _ in range(60):
        wide.press("Tab")
        reached.add(wide.run("(e => e.id || e.name || e.className.split(' ')[0] || e.type)(document.activeElement)"))
    assert {"theme", "cost", "colour", "shape", "all", "range", "0", "1", "2", "tabulator-col", "open"} <= reached
    outline = wide.run("getComputedStyle(document.activeElement).outlineStyle")
    assert outline != "none", "one sees where the keyboard is"


def test_dark_is_what_the_system_asks_for_and_what_the_button_says(report):
    with opened(report, dark=True) as shown:
        settled(shown)
        back = "getComputedStyle(document.body).backgroundColor"
        dark = shown.run(back)
        assert sum(json.loads(dark.replace("rgb(", "[").replace(")", "]"))) < 150
        assert shown.run("$('plot').layout.paper_bgcolor") == "#181c23"
        shown.click("#theme")
        assert sum(json.loads(shown.run(back).replace("rgb(", "[").replace(")", "]"))) > 600
        assert shown.run("$('plot').layout.paper_bgcolor") == "#ffffff"
        shown.dark(False)
        shown.wait("!dark.matches")
        shown.dark(True)
        shown.wait(f"{back} === '{dark}'", 10)
        assert shown.console == []


def test_it_prints_on_a4_with_the_rows_that_are_shown(report):
    with opened(report, dark=True) as shown:
        settled(shown)
        shown.run("document.querySelectorAll('.group input')[0].click()")  # 18 of 27
        shown.size(688)  # the width between the margins
        shown.call("Emulation.setEmulatedMedia", media="print")
        shown.run("dispatchEvent(new Event('beforeprint'))")
        time.sleep(1)
        boxes = shown.run(TEXTS)
        assert laid_over(boxes) == []
        assert [box["text"] for box in boxes if box["cut"]] == []
        assert shown.run("every('#plain tbody tr').filter((r) => r.getClientRects().length).length") == 18
        assert shown.run("$('table').getClientRects().length") == 0
        assert shown.run(
            "[$('plot'), ...every('.figure')].every((e) => e.querySelector('.main-svg').clientWidth === 660)"
        )
        assert shown.printed().startswith(b"%PDF")
        shown.run("dispatchEvent(new Event('afterprint'))")
        assert shown.run("state.paper") == 0


def test_noisy_timings_are_drawn_hollow_and_said(tmp_path):
    put(tmp_path / "runs", "a", wrong=range(5), ms=8, mb=80)
    put(tmp_path / "runs", "b", wrong=range(6), ms=5, mb=20, quant="int8", p90_ms=9)
    write.write(tmp_path, [tmp_path / "runs"])
    with opened(tmp_path / page.PAGE) as shown:
        settled(shown)
        assert shown.run("$('plot').data[0].marker.symbol.map((s) => s.endsWith('-open'))") == [False, True]
        assert "noisy timing" in shown.run("$('table').innerText")
        assert "noisy timing" in shown.run("$('plot').data[0].text[1]")
        assert "Hollow" in shown.run("document.querySelector('.side').innerText")
        shown.click("#cost label:nth-of-type(2)")
        assert not shown.run("$('plot').data[0].marker.symbol.some((s) => s.endsWith('-open'))"), "bytes are no timing"


EVIL = "<script>window.hit = 1</script><img src=x onerror='window.hit = 2'>%{y} & <b>"


def test_what_data_says_stays_text(tmp_path):
    runs = sweep(tmp_path, 4, classes=(EVIL, "fine"))
    for i, path in enumerate(sorted(runs.glob(f"*/{result.FILE}"))):
        fields = json.loads(path.read_text())
        fields["choices"] |= {"prune": f"{EVIL}{i % 2}", "data": EVIL, "model": EVIL}
        fields["cfg"] |= {"x": {"y": f"{EVIL}{i}"}, "<script>window": {"hit ": i}, EVIL: EVIL}
        fields |= {"command": shlex.join(["python", "train.py", f"x.y={EVIL}{i}", EVIL])}
        fields["machine"] |= {"id": f"{EVIL}{i % 2}", "cpu": EVIL}
        path.write_text(json.dumps(fields))
    shown = compared([runs])
    text = page.to_html(replace(shown, notes=[EVIL], missing=[EVIL]), tmp_path)
    (tmp_path / page.PAGE).write_text(text, encoding="utf-8")
    with opened(tmp_path / page.PAGE) as seen:
        settled(seen)
        seen.run("openPoint(0); Plotly.Fx.hover('plot', [{curveNumber: 0, pointNumber: 1}])")
        time.sleep(0.5)
        assert seen.run("window.hit === undefined")
        assert (seen.console, seen.loaded) == ([], [])
        for place in (
            "#table",
            "#point-title",
            "#tables",
            "#command",
            "h1",
            ".notes",
            ".hoverlayer",
            "#filters",
            "#parallel",
        ):
            assert EVIL[:20] in seen.run(f"document.querySelector({json.dumps(place)}).textContent"), place
        assert seen.run("document.querySelectorAll('body img').length") == 0
        assert seen.run("document.title").startswith(EVIL)


def test_a_report_of_500_points_is_small_opens_soon_and_answers_at_once(tmp_path):
    runs = sweep(tmp_path, 500)
    (tmp_path / "report").mkdir()
    start = time.process_time()
    write.write(tmp_path / "report", [runs])
    built_s = time.process_time() - start
    made = tmp_path / "report" / page.PAGE
    blank = tmp_path / "blank.html"
    blank.write_text("<!doctype html><p>blank")
    with opened(blank) as shown:
        before = shown.busy_s()
        shown.call("Page.navigate", url=made.as_uri())
        shown.wait(BUILT)
        opened_s = shown.busy_s() - before
        settled(shown)
        answers = []
        for share in (0.3, 0.9, 0.5, 0.7):
            before = shown.busy_s()
            shown.run(
                f"(() => {{ const bar = document.querySelector('.budget input'); bar.value = bar.max * {share};"
                "bar.dispatchEvent(new Event('input', {bubbles: true})); document.body.getBoundingClientRect() })()"
            )
            answers.append(shown.busy_s() - before)
            time.sleep(0.6)  # the lines of the parallel coordinates follow, by themselves
        assert shown.console == []
    size_mb = made.stat().st_size / 1e6
    print(f"500 points: built in {built_s:.2f} s, opened in {opened_s:.2f} s, {size_mb:.2f} MB, "
          f"a filter answers in {1e3 * sorted(answers)[1]:.0f} ms, all of processor time")  # fmt: skip
    assert size_mb <= 6
    assert built_s <= 5 * LOADED
    assert opened_s <= 2 * LOADED
    assert sorted(answers)[1] <= 0.1 * LOADED


def test_a_brush_stays_when_the_plot_is_drawn_anew_or_clicked(wide):
    wide.run("$('plot').scrollIntoView({block: 'center'})")
    left, top, width, height = wide.run(
        "(() => { const r = document.querySelector('#plot .nsewdrag').getBoundingClientRect();"
        "return [r.x, r.y, r.width, r.height] })()"
    )
    wide.drag((left + 2, top + 2), (left + width / 2, top + height - 2))
    wide.wait("$('count').textContent === '9 of 27 shown'", 10)
    wide.run("$('plot')._mouseDownTime = Date.now() + 1000")  # as if plotly had heard of the drag just now
    wide.drag((left + width * 0.75, top + height / 2), (left + width * 0.75, top + height / 2))  # a click
    wide.run("$('point').close()")
    for deed in (
        "$('theme').click()",
        "$('theme').click()",
        "$('colour').onchange()",
        "$('cost').querySelectorAll('input')[1].click()",
        "$('cost').querySelectorAll('input')[0].click()",
    ):
        wide.run(deed)
        time.sleep(0.5)
        assert count(wide) == "9 of 27 shown", deed


def test_show_all_takes_the_brush_off_the_parallel_coordinates(wide):
    wide.run("$('parallel').scrollIntoView({block: 'center'})")
    time.sleep(0.3)
    x, top, bottom = wide.run(
        "(() => { const r = document.querySelectorAll('#parallel .y-axis .axis-brush')[0].getBoundingClientRect();"
        "return [r.x + r.width / 2, r.top, r.bottom] })()"
    )
    wide.drag((x, bottom - 2), (x, bottom - (bottom - top) * 0.3))
    wide.wait("$('count').textContent === '9 of 27 shown'", 10)
    wide.click("#all")
    wide.wait("$('count').textContent === '27 of 27 shown'", 10)
    assert wide.run("$('parallel')._fullData[0].dimensions.filter((d) => d.constraintrange).length") == 0
