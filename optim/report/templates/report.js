// The page of a comparison. All that it shows comes from #rows (optim/report/rows.py) and from the figures of the page.
// Text from data becomes text nodes, or passes esc(): plotly reads HTML. What #rows calls HTML is escaped already.
const $ = (id) => document.getElementById(id);
const every = (selector) => [...document.querySelectorAll(selector)];
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const narrow = () => innerWidth <= 900;
const esc = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
const number = (value) => value.toLocaleString("en", { maximumSignificantDigits: 4 });

/** An element with its properties and children; null children are left out. */
function make(tag, given, ...children) {
  const made = Object.assign(document.createElement(tag), given);
  made.append(...children.filter((child) => child !== null));
  return made;
}

const row = (tag, cells) => make("tr", {}, ...cells.map((cell) => make(tag, {}, cell)));
const tableOf = (head, rows) =>
  make("table", {}, make("thead", {}, row("th", head)), make("tbody", {}, ...rows.map((cells) => row("td", cells))));

// Figures that look the same whatever is filtered. Each is drawn when it comes near the screen.
const BUTTONS = [["zoom2d", "pan2d", "select2d", "resetScale2d"]]; // plotly's own list has one that uploads the figure
const CONFIG = { displaylogo: false, responsive: true, modeBarButtons: BUTTONS };
const figures = new Map(); // element -> what it is drawn from, once it is drawn
const state = { cost: 0, box: null, lines: null, paper: 0 }; // paper: px of a printed line; 0 on a screen

function themed(layout) {
  const axis = { gridcolor: css("--line"), linecolor: css("--line"), zerolinecolor: css("--soft") };
  const [ink, card] = [css("--ink"), css("--card")];
  const font = { family: "system-ui, sans-serif", color: ink };
  const own = { ...layout, font, paper_bgcolor: card, plot_bgcolor: card };
  for (const name of ["xaxis", "yaxis"]) own[name] = { ...axis, ...layout[name] };
  if (state.paper) own.width = state.paper;
  return { ...own, hoverlabel: { align: "left", bgcolor: card, bordercolor: css("--soft"), font } };
}

function draw(element, afresh = false) {
  if (!figures.has(element)) figures.set(element, JSON.parse(element.firstElementChild.textContent));
  const { data, layout } = figures.get(element);
  const how = afresh ? Plotly.newPlot : Plotly.react;
  const drawn = how(element, data, themed(layout), { ...CONFIG, displayModeBar: false });
  if (D && element.id === "parallel") drawn.then(brushLines);
}

const seen = (entries) => {
  for (const { target, isIntersecting } of entries) if (isIntersecting && !figures.has(target)) draw(target);
};
const near = new IntersectionObserver(seen, { rootMargin: "300px" });

// The points
const D = $("rows") && JSON.parse($("rows").textContent);
const points = D?.points ?? [];
const OPACITY = [0.1, 0.95]; // of points that the filters leave out, and of the others
let shown = points.map(() => true); // for each point, whether all filters let it through
let table = null;

const colours = () => D.looks[document.documentElement.dataset.theme];
const look = (place) => Math.min(place ?? 0, D.looks.symbols.length - 1); // the last look is for all the others
const isNoisy = (point) => point.noisy && D.costs[state.cost].key === "latency_p50_ms";
const costOf = (point) => point.costs[state.cost];

/** Annotations of the front: number and name where they find room, the number alone where that does, else none. */
function labels(front, place, width, height, taken) {
  const pen = document.createElement("canvas").getContext("2d");
  pen.font = "12px system-ui, sans-serif";
  const marks = points.map(place).map(([x, y]) => [x - 6, y - 6, x + 6, y + 6]);
  const clash = ([l, t, r, b], [left, top, right, bottom]) => l < right && r > left && t < bottom && b > top;
  const inside = ([l, t, r, b]) => l > 0 && t > 0 && r < width && b < height;
  const put = (text, [x, y]) => {
    const half = pen.measureText(text).width / 2 + 4;
    for (const [side, gap, ay] of D.plot.tries) {
      const ax = side * (half + gap);
      const box = [x + ax - half, y + ay - 9, x + ax + half, y + ay + 9];
      if (!inside(box) || [...taken, ...marks].some((other) => clash(box, other))) continue;
      taken.push(box);
      return [{ text: esc(text), ax, ay }];
    }
    return [];
  };
  return front.flatMap((i, n) => {
    const at = { ...D.plot.label, x: Math.log10(costOf(points[i])), y: points[i].accuracy, arrowcolor: css("--soft") };
    const named = narrow() ? [] : put(`${n + 1}  ${points[i].name}`, place(points[i]));
    return (named.length ? named : put(`${n + 1}`, place(points[i]))).map((found) => ({ ...at, ...found }));
  });
}

function drawPlot() {
  const cost = D.costs[state.cost];
  const sides = cost.front.map((i) => points[i]);
  const margin = { l: narrow() ? 46 : 62, r: 12, t: 30, b: 54 };
  const [width, height] = [state.paper || $("plot").clientWidth, $("plot").clientHeight];
  const [inner, tall] = [width - margin.l - margin.r, height - margin.t - margin.b];
  const across = (log) => ((log - cost.range[0]) / (cost.range[1] - cost.range[0])) * inner;
  const down = (accuracy) => ((D.range[1] - accuracy) / (D.range[1] - D.range[0])) * tall;
  const place = (point) => [across(Math.log10(costOf(point))), down(point.accuracy)];
  const [byColour, byShape] = [Number($("colour").value), Number($("shape").value)];
  const soft = css("--soft");
  const marker = {
    size: narrow() ? 10 : 12,
    opacity: shown.map((s) => OPACITY[+s]),
    line: { width: 1, color: css("--card") },
    color: points.map((p) => colours()[look(p.options[byColour])]),
    symbol: points.map((p) => D.looks.symbols[look(p.options[byShape])] + (isNoisy(p) ? "-open" : "")),
  };
  const spots = { ...D.plot.spots, x: points.map(costOf), y: points.map((p) => p.accuracy), marker };
  const up = sides.map((p) => p.high - p.accuracy);
  const error_y = { array: up, arrayminus: sides.map((p) => p.accuracy - p.low), thickness: 1, color: `${soft}80` };
  const line = { ...D.plot.line, x: sides.map(costOf), y: sides.map((p) => p.accuracy), error_y };
  line.line = { ...line.line, color: soft };
  const [band, edge] = D.plot.shapes;
  const shapes = [{ ...band, fillcolor: css("--band") }, { ...edge, line: { ...edge.line, color: soft } }]; // biome-ignore format: short
  const said = { ...D.plot.said, font: { color: soft, size: 11 } };
  const heading = [0, down(D.teacher) - 20, 190, down(D.teacher)];
  const layout = {
    ...D.plot.layout,
    margin,
    shapes,
    dragmode: narrow() ? false : "select",
    xaxis: { ...cost.ticks, type: "log", range: cost.range, title: { text: cost.axis, standoff: 10 } },
    yaxis: { range: D.range, tickformat: ".3f", title: { text: narrow() ? "" : "accuracy" } },
    annotations: [...labels(cost.front, place, inner, tall, [heading]), said],
  };
  Plotly.react("plot", [spots, line], themed(layout), CONFIG);
  $("told").textContent = cost.told;
  const entry = (p) => `${p.accuracy.toFixed(4)} at ${number(costOf(p))} ${cost.unit_name}`;
  const items = sides.map((p, n) => {
    const text = make("span", {}, p.name, make("br", {}), make("small", {}, entry(p)));
    const onclick = () => openPoint(cost.front[n]);
    return make("li", {}, make("button", { type: "button", onclick }, make("b", {}, `${n + 1}`), text));
  });
  $("front").replaceChildren(...items);
  for (const chip of every(".group button")) {
    const [factor, place] = [Number(chip.dataset.factor), look(Number(chip.value))];
    const glyph = chip.firstElementChild;
    glyph.textContent = factor === byShape ? D.looks.glyphs[place] : factor === byColour ? "●" : "";
    glyph.style.color = factor === byColour ? colours()[place] : "";
  }
}

// Filters
function update() {
  const off = new Set(every(".group [aria-pressed=false]").map((chip) => `${chip.dataset.factor}:${chip.value}`));
  const most = every(".budget input").map((bar, b) => D.budgets[b].steps[bar.value]);
  const within = (i) => D.budgets.every((budget, b) => budget.values[i] <= most[b]);
  const brushed = (i) => (state.box?.has(i) ?? true) && (state.lines?.[i] ?? true);
  shown = points.map((p, i) => !p.options.some((o, f) => off.has(`${f}:${o}`)) && within(i) && brushed(i));
  Plotly.restyle("plot", { "marker.opacity": [shown.map((s) => OPACITY[+s])] }, [0]);
  table?.refreshFilter();
  colourLines();
  every(".budget").forEach((label, b) => {
    const bar = label.querySelector("input");
    bar.ariaValueText = bar.value === bar.max ? "any" : `at most ${number(most[b])}`;
    label.querySelector("b").textContent = bar.ariaValueText;
  });
  $("count").textContent = `${shown.filter(Boolean).length} of ${points.length} shown`;
}

function showAll() {
  for (const chip of every(".group button")) chip.ariaPressed = "true";
  for (const bar of every(".budget input")) bar.value = bar.max;
  Object.assign(state, { box: null, lines: null });
  Plotly.update("plot", { selectedpoints: [null] }, { selections: [] }, [0]);
  if (figures.has($("parallel"))) draw($("parallel"), true);
  update();
}

function brushLines(element) {
  element.removeAllListeners("plotly_restyle");
  element.on("plotly_restyle", ([changed]) => {
    if (!Object.keys(changed).some((key) => key.includes("constraintrange"))) return;
    const kept = element.data[0].dimensions.filter((d) => d.constraintrange?.length);
    const ranges = (d) => (Array.isArray(d.constraintrange[0]) ? d.constraintrange : [d.constraintrange]);
    const within = (d, i) => ranges(d).some(([low, high]) => d.values[i] >= low && d.values[i] <= high);
    state.lines = kept.length ? points.map((_, i) => kept.every((d) => within(d, i))) : null;
    update();
  });
  colourLines();
}

function colourLines() {
  const figure = figures.get($("parallel"));
  if (!figure) return;
  const values = points.map((p, i) => (shown[i] ? p.accuracy : figure.data[0].line.cmin));
  Plotly.restyle("parallel", { "line.color": [values] }, [0]);
}

// Table
const mark = (kind, text) => make("span", { className: `mark ${kind}` }, text);
const marks = (point) => [
  point.front ? mark(point.front > 1 ? "sure" : "", point.front > 1 ? "front, certain" : "front") : null,
  point.noisy ? mark("noisy", "noisy timing") : null,
];
const CELLS = {
  name: (value, point) =>
    make("div", {}, make("button", { className: "open", type: "button" }, value), make("div", {}, ...marks(point))),
  accuracy: (value, { low, high }) => {
    const interval = make("small", { className: "soft" }, `${low.toFixed(3)}–${high.toFixed(3)}`);
    return make("div", {}, `${value.toFixed(4)} `, interval);
  },
  option: (value, _, field) => D.factors[field.split(".")[1]].options[value],
  text: (value) => value,
  two: (value) => value.toFixed(2),
  three: (value) => value?.toFixed(3) ?? "–",
};

function drawTable() {
  const wide = !narrow();
  const columns = D.columns.map(({ cell, phone, minWidth, frozen, ...column }) => ({
    ...column,
    formatter: (at) => make("span", {}, CELLS[cell](at.getValue(), at.getData(), at.getField())),
    minWidth: wide ? minWidth : phone,
    visible: wide || phone > 0,
    frozen: frozen && wide,
  }));
  const data = points.map((point, id) => ({ ...point, id }));
  const made = new Tabulator("#table", { ...D.table, data, columns });
  made.on("rowClick", (_, clicked) => openPoint(clicked.getData().id));
  made.on("tableBuilt", () => {
    table = made;
    made.setFilter((point) => shown[point.id]);
    for (const head of every("#table .tabulator-col[aria-sort]")) {
      head.tabIndex = 0;
      head.onkeydown = ({ key }) => key === "Enter" && head.click();
    }
  });
}

// One point
async function copy() {
  try {
    await navigator.clipboard.writeText($("command").textContent);
  } catch {
    getSelection().selectAllChildren($("command")); // a page from the disk may not use the clipboard itself
    document.execCommand("copy");
  }
  $("copy").textContent = "copied";
}

function openPoint(i) {
  const p = points[i];
  const link = ([address, textContent]) => (address ? make("a", { href: address, textContent }) : null);
  const links = [[p.folder, "folder"], [p.card, "card of its bundle"], [p.sentences, "all changed sentences"]]; // biome-ignore format: short
  const changed = p.changed.map(([id, teacher, answer]) => [...D.sentences[id], teacher, answer]);
  const tables = [
    ["Figures", [`run ${p.run}`, ""], ...D.figures.map((title, f) => [title, p.figures[f]])],
    ...p.tables,
    ["Sentences on which it left its teacher", ["sentence", "right", "teacher", "file"], ...changed],
    ["Its configuration", ["key", "value"], ...Object.entries(D.config.varied).map(([key, all]) => [key, all[i]])],
    ["The configuration of all points", ["key", "value"], ...Object.entries(D.config.same)],
  ].map(([title, head, ...rows]) => [title, head, rows.filter((cells) => !cells.includes(null))]);
  const filled = tables.filter(([, , rows]) => rows.length);
  const traces = p.fits.flatMap((key) => D.curves[key] ?? []);
  $("point-title").textContent = p.label;
  $("command").textContent = p.command;
  $("copy").textContent = "copy";
  $("point-marks").replaceChildren(...marks(p).filter(Boolean));
  $("links").replaceChildren(...links.map(link).filter(Boolean));
  $("tables").replaceChildren(...filled.flatMap(([title, head, rows]) => [make("h3", {}, title), tableOf(head, rows)]));
  $("fits").hidden = !traces.length;
  $("point").showModal();
  $("point").scrollTop = 0;
  if (traces.length) Plotly.react("curves", traces, themed(D.plot.curves), { ...CONFIG, displayModeBar: false });
}

// The page
function show(theme, paper = 0) {
  document.documentElement.dataset.theme = theme;
  state.paper = paper;
  for (const [i, line] of every("#plain tbody tr").entries()) line.hidden = paper > 0 && !shown[i];
  for (const element of paper ? every(".figure") : figures.keys()) draw(element);
  if (D) drawPlot();
}

for (const element of every(".figure")) near.observe(element);
const dark = matchMedia("(prefers-color-scheme: dark)");
dark.onchange = () => show(dark.matches ? "dark" : "light");
$("theme").onclick = () => show(document.documentElement.dataset.theme === "dark" ? "light" : "dark");
addEventListener("beforeprint", () => show("light", 660));
addEventListener("afterprint", dark.onchange);
if (D) {
  document.documentElement.classList.add("scripted");
  drawPlot();
  drawTable();
  update();
  const brush = (chosen) => {
    state.box = chosen?.points ? new Set(chosen.points.map((at) => at.pointIndex)) : null;
    update();
  };
  $("plot").on("plotly_click", ({ points: [at] }) => openPoint(at.pointIndex));
  $("plot").on("plotly_selected", brush);
  $("plot").on("plotly_deselect", () => brush(null));
  $("cost").onchange = ({ target }) => {
    state.cost = Number(target.value);
    drawPlot();
  };
  for (const name of ["colour", "shape"]) $(name).onchange = drawPlot;
  for (const bar of every(".budget input")) bar.oninput = update;
  for (const chip of every(".group button"))
    chip.onclick = () => {
      chip.ariaPressed = String(chip.ariaPressed !== "true");
      update();
    };
  $("reset").onclick = showAll;
  $("copy").onclick = copy;
  new ResizeObserver(drawPlot).observe($("plot"));
}
