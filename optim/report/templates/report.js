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
const tableOf = (head, rows) => make("table", {}, row("th", head), ...rows.map((cells) => row("td", cells)));

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
  if (afresh || !figures.has(element)) figures.set(element, JSON.parse(element.querySelector("script").textContent));
  const { data, layout } = figures.get(element);
  const how = afresh ? Plotly.newPlot : Plotly.react;
  const drawn = how(element, data, themed(layout), { ...CONFIG, displayModeBar: false });
  if (D && element.id === "parallel") drawn.then(brushLines);
}

const near = (entries) => {
  for (const { target, isIntersecting } of entries) if (isIntersecting && !figures.has(target)) draw(target);
};

// The points
const D = $("rows") && JSON.parse($("rows").textContent);
const points = D?.points ?? [];
const OPACITY = [0.1, 0.95]; // of points that the filters leave out, and of the others
let shown = points.map(() => true); // for each point, whether all filters let it through
let table;

const colours = () => D.looks[document.documentElement.dataset.theme];
const look = (place) => Math.min(place ?? 0, D.looks.symbols.length - 1); // the last look is for all the others
const isNoisy = (point) => point.marks.includes("noisy") && D.costs[state.cost].key === "latency_p50_ms";
const costOf = (point) => point.costs[state.cost];
const opacities = () => shown.map((s) => OPACITY[+s]);

function hover(p) {
  const accuracy = `accuracy ${p.accuracy.toFixed(4)} (${p.low.toFixed(3)} to ${p.high.toFixed(3)})`;
  const costs = D.costs.map(({ axis }, c) => `${axis}: ${number(p.costs[c])}`);
  const more = [...p.marks.map((m) => D.marks[m]), ...(D.several_machines ? [esc(`machine ${p.machine}`)] : [])];
  const lines = [`<b>${p.title ?? esc(p.name)}</b>`, accuracy, `${p.drop.toFixed(2)} points below`, ...costs, ...more];
  return lines.join("<br>");
}

/** Annotations of the front: number and name where they find room, the number alone where that does, else none. */
function labels(front, place, width, height, taken) {
  const pen = document.createElement("canvas").getContext("2d");
  pen.font = "12px system-ui, sans-serif";
  const clash = ([l, t, r, b], [left, top, right, bottom]) => l < right && r > left && t < bottom && b > top;
  const inside = ([l, t, r, b]) => l > 0 && t > 0 && r < width && b < height;
  const put = (text, [x, y]) => {
    const half = pen.measureText(text).width / 2 + 4;
    for (const [side, gap, ay] of D.plot.tries) {
      const ax = side * (half + gap);
      const box = [x + ax - half, y + ay - 9, x + ax + half, y + ay + 9];
      if (!inside(box) || taken.some((other) => clash(box, other))) continue;
      taken.push(box);
      return [{ text: esc(text), ax, ay }];
    }
    return [];
  };
  return front.flatMap((p, n) => {
    const at = { ...D.plot.label, x: Math.log10(costOf(p)), y: p.accuracy, arrowcolor: css("--soft") };
    const named = narrow() || p.name.length > D.plot.named ? [] : put(`${n + 1}  ${p.name}`, place(p));
    return (named.length ? named : put(`${n + 1}`, place(p))).map((found) => ({ ...at, ...found }));
  });
}

function drawPlot() {
  state.cost = Number($("cost").querySelector(":checked").value);
  const cost = D.costs[state.cost];
  const front = cost.front.map((i) => points[i]);
  const margin = { l: narrow() ? 46 : 62, r: 12, t: 30, b: 54 };
  const [width, height] = state.paper ? [state.paper, 420] : [$("plot").clientWidth, $("plot").clientHeight];
  const [inner, tall] = [width - margin.l - margin.r, height - margin.t - margin.b];
  const across = (log) => ((log - cost.range[0]) / (cost.range[1] - cost.range[0])) * inner;
  const down = (accuracy) => ((D.range[1] - accuracy) / (D.range[1] - D.range[0])) * tall;
  const place = (point) => [across(Math.log10(costOf(point))), down(point.accuracy)];
  const [byColour, byShape, soft] = [Number($("colour").value), Number($("shape").value), css("--soft")];
  const marker = {
    size: narrow() ? 10 : 12,
    opacity: opacities(),
    line: { width: 1, color: css("--card") },
    color: points.map((p) => colours()[look(p.options[byColour])]),
    symbol: points.map((p) => D.looks.symbols[look(p.options[byShape])] + (isNoisy(p) ? "-open" : "")),
  };
  const [x, y] = [points.map(costOf), points.map((p) => p.accuracy)];
  const spots = { ...D.plot.spots, text: points.map(hover), x, y, marker };
  const [array, arrayminus] = [front.map((p) => p.high - p.accuracy), front.map((p) => p.accuracy - p.low)];
  const error_y = { array, arrayminus, thickness: 1, color: `${soft}80` };
  const line = { ...D.plot.line, x: front.map(costOf), y: front.map((p) => p.accuracy), error_y };
  const [band, edge] = D.plot.shapes;
  Object.assign(band, { fillcolor: css("--band") });
  for (const one of [line, edge]) one.line.color = soft;
  const level = down(D.teacher);
  const marks = points.map(place).map(([x, y]) => [x - 6, y - 6, x + 6, y + 6]);
  const steps = front.map(place).map(([x, y], n) => [x, y - 1, front[n + 1] ? place(front[n + 1])[0] : x, y + 1]);
  const taken = [...marks, ...steps, [0, level - 20, 190, level], [0, level - 1, inner, level + 1]];
  const layout = {
    ...D.plot.layout,
    margin,
    height,
    shapes: [band, edge],
    dragmode: narrow() ? false : "select",
    xaxis: { ...cost.ticks, type: "log", range: cost.range, title: { text: cost.axis, standoff: 10 } },
    yaxis: { range: D.range, tickformat: ".3f", title: { text: narrow() ? "" : "accuracy" } },
    annotations: [...labels(front, place, inner, tall, taken), { ...D.plot.said, font: { color: soft, size: 11 } }],
  };
  Plotly.react("plot", [spots, line], themed(layout), CONFIG);
  for (const side of every(".side")) side.hidden = Number(side.dataset.cost) !== state.cost;
  for (const chip of every(".group input")) {
    const [factor, place] = [Number(chip.name), look(Number(chip.value))];
    const glyph = chip.nextElementSibling;
    glyph.textContent = factor === byShape ? D.looks.glyphs[place] : factor === byColour ? "●" : "";
    glyph.style.color = factor === byColour ? colours()[place] : "";
  }
}

// Filters
function update() {
  const off = new Set(every(".group input:not(:checked)").map((chip) => `${chip.name}:${chip.value}`));
  const most = every(".budget input").map((bar, b) => D.budgets[b].steps[bar.value]);
  const within = (i) => D.budgets.every(({ cost }, b) => (points[i].costs[cost] ?? points[i].drop) <= most[b]);
  const brushed = (i) => (state.box?.has(i) ?? true) && (state.lines?.[i] ?? true);
  shown = points.map((p, i) => !p.options.some((o, f) => off.has(`${f}:${o}`)) && within(i) && brushed(i));
  $("plot").data[0].marker.opacity = opacities(); // with Plotly.restyle, which lays all out anew, most of an answer's time
  for (const { style, __data__: at } of every("#plot .point")) style.opacity = at.mo = OPACITY[+shown[at.i]];
  table?.refreshFilter();
  clearTimeout(state.later); // a graphics card's work, or a processor's half second
  state.later = setTimeout(colourLines, 150);
  every(".budget").forEach((label, b) => {
    const bar = label.querySelector("input");
    bar.ariaValueText = bar.value === bar.max ? "any" : `at most ${number(most[b])}`;
    label.querySelector("b").textContent = bar.ariaValueText;
  });
  $("count").textContent = `${shown.filter(Boolean).length} of ${points.length} shown`;
}

function showAll() {
  $("filters").reset();
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
    const ranges = (d) => [d.constraintrange].flat(Array.isArray(d.constraintrange[0]) ? 1 : 0);
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
const marks = (point) => point.marks.map((m) => make("span", { className: `mark ${m}` }, D.marks[m]));
const CELLS = {
  name: (value, p) => make("div", {}, make("button", { className: "open" }, value), make("div", {}, ...marks(p))),
  accuracy: (value, { low, high }) => {
    const interval = make("small", { className: "soft" }, `${low.toFixed(3)}–${high.toFixed(3)}`);
    return make("div", {}, `${value.toFixed(4)} `, interval);
  },
  option: (value, _, field) => D.factors[field.split(".")[1]].options[value],
  text: (value) => value,
  two: (value) => value.toFixed(2),
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
  const made = new Tabulator("#table", { ...D.table, columns, data: points.map((point, id) => ({ ...point, id })) });
  made.on("rowClick", (_, clicked) => openPoint(clicked.getData().id));
  made.on("tableBuilt", () => {
    table = made;
    made.setFilter((point) => shown[point.id]);
    for (const head of every("#table .tabulator-col[aria-sort]")) {
      head.tabIndex = 0;
      head.onkeydown = ({ key }) => void (key === "Enter" && head.click()); // false would hold the tab key
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
  const own = ({ varied }) => Object.entries(varied).map(([key, all]) => [key, all[i]]);
  const changed = p.changed.map(([id, teacher, answer]) => [...D.sentences[id], teacher, answer]);
  const tables = [
    [["Figures", [`run ${p.run}`, ""]], ...own(D.figures), ...Object.entries(D.figures.same)],
    ...p.tables.map(([head, ...rows]) => [D.heads[head], ...rows]),
    [["Sentences on which it left its teacher", ["sentence", "right", "teacher", "file"]], ...changed],
    [
      ["Configuration: what differs, then what all have", ["key", "value"]],
      ...own(D.config),
      ...Object.entries(D.config.same),
    ],
  ]
    .map(([[title, head], ...rows]) => [title, head, rows.filter((cells) => !cells.includes(null))])
    .filter(([, , rows]) => rows.length);
  const traces = p.fits.flatMap((fit) => D.curves[fit]);
  $("point-title").textContent = p.name;
  $("command").textContent = p.command;
  $("copy").textContent = "copy";
  $("point-marks").replaceChildren(...marks(p));
  $("links").replaceChildren(...p.links.map((l) => make("a", { href: p.folder + D.links[l][0] }, D.links[l][1])));
  $("tables").replaceChildren(...tables.flatMap(([title, head, rows]) => [make("h3", {}, title), tableOf(head, rows)]));
  $("fits").hidden = !traces.length;
  $("point").showModal();
  $("point").scrollTop = 0;
  if (traces.length) Plotly.react("curves", traces, themed(D.plot.curves), { ...CONFIG, displayModeBar: false });
}

// The page
function show(theme, paper = state.paper) {
  document.documentElement.dataset.theme = theme;
  state.paper = paper;
  for (const [i, line] of every("#plain tbody tr").entries()) line.hidden = paper > 0 && !shown[i];
  for (const element of paper ? every(".figure") : figures.keys()) draw(element);
  if (D) drawPlot();
}

for (const element of every(".figure")) new IntersectionObserver(near, { rootMargin: "300px" }).observe(element);
const dark = matchMedia("(prefers-color-scheme: dark)");
dark.onchange = () => show(dark.matches && !state.paper ? "dark" : "light");
$("theme").onclick = () => show(document.documentElement.dataset.theme === "dark" ? "light" : "dark");
addEventListener("beforeprint", () => show("light", 660));
addEventListener("afterprint", () => show(dark.matches ? "dark" : "light", 0));
if (D) {
  drawPlot();
  drawTable();
  update();
  const brush = (chosen) => {
    if (chosen !== null && !chosen?.range) return; // a click, or a plot that is drawn anew: what was brushed stays
    state.box = chosen && new Set(chosen.points.map((at) => at.pointIndex));
    update();
  };
  $("plot").on("plotly_click", ({ points: [at] }) => openPoint(at.pointIndex));
  for (const event of ["plotly_selected", "plotly_deselect"]) $("plot").on(event, brush);
  const counted = ({ detail }) => Object.assign($("plot"), { _mouseDownTime: detail > 1 ? Date.now() : 0 });
  $("plot").addEventListener("mousedown", counted, true); // plotly counts clicks when it hears them: a busy page late
  for (const name of ["cost", "colour", "shape"]) $(name).onchange = drawPlot;
  for (const button of every(".side button")) button.onclick = () => openPoint(Number(button.value));
  $("filters").oninput = update;
  $("all").onclick = showAll;
  $("copy").onclick = copy;
  new ResizeObserver(drawPlot).observe($("plot"));
}
