// Lines in SVG with axes and units.

function ticksOf(low, high, { logarithmic = false, count = 5, least = 0 }) {
  if (logarithmic) { // of 1, 2 and 5 times the powers of ten, those that are not too many
    const powers = range(Math.ceil(high) - Math.floor(low) + 1).map((i) => Math.floor(low) + i);
    const within = (factors) => powers.flatMap((power) => factors.map((factor) => power + Math.log10(factor))).filter((at) => at >= low && at <= high);
    const all = [within([1, 2, 5]), within([1, 3]), within([1])].find((ticks) => ticks.length <= 6);
    if (all?.length >= 2) return all;
    if (!all) return within([1]).filter((_, i) => i % Math.ceil(powers.length / 6) === 0);
  }
  const step = Math.max(least, roundUp((high - low) / count));
  return range(Math.floor(high / step + 1e-6) - Math.ceil(low / step - 1e-6) + 1).map((i) => (Math.ceil(low / step - 1e-6) + i) * step);
}

// A chart of lines: series of { points: [[x, y]], band: [[x, low, high]], kind }. logarithmic: of y.
function chart({ series, x, y, logarithmic = false, width = 640, height = 280, from0 = false }) {
  const scaled = (value) => (logarithmic ? Math.log10(value) : value);
  const good = (value) => known(value) && (!logarithmic || value > 0);
  const points = series.flatMap((one) => one.points).filter(([, value]) => good(value));
  const banded = series.flatMap((one) => one.band ?? []).flatMap(([, low, high]) => [low, high]);
  const values = [...points.map(([, value]) => scaled(value)), ...banded];
  const [left, right] = [Math.min(...points.map(([at]) => at)), Math.max(...points.map(([at]) => at))];
  let [low, high] = [Math.min(...values, ...(from0 ? [0] : [])), Math.max(...values)];
  const room = (high - low) * 0.06 || 0.5;
  [low, high] = [low === 0 ? 0 : low - room, high + room];
  const box = { left: 62, right: width - 14, top: 12, bottom: height - 40 };
  const across = (at) => box.left + ((at - left) / (right - left || 1)) * (box.right - box.left);
  const up = (value) => box.bottom - ((value - low) / (high - low)) * (box.bottom - box.top);
  const svg = make("svg:svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${y} by ${x}` });
  for (const at of ticksOf(low, high, { logarithmic })) {
    svg.append(make("svg:line", { class: "rule", x1: box.left, x2: box.right, y1: up(at), y2: up(at) }),
      make("svg:text", { x: box.left - 6, y: up(at) + 4, "text-anchor": "end" }, tick(logarithmic ? Number((10 ** at).toPrecision(2)) : at)));
  }
  for (const at of ticksOf(left, right, { count: width < 450 ? 4 : 8, least: 1 })) {
    svg.append(make("svg:line", { class: "rule", x1: across(at), x2: across(at), y1: box.bottom, y2: box.bottom + 4 }),
      make("svg:text", { x: across(at), y: box.bottom + 17, "text-anchor": "middle" }, tick(at)));
  }
  svg.append(make("svg:text", { x: (box.left + box.right) / 2, y: height - 6, "text-anchor": "middle" }, x),
    make("svg:text", { x: 0, y: 0, "text-anchor": "middle", transform: `translate(12 ${(box.top + box.bottom) / 2}) rotate(-90)` }, y));
  for (const one of series) svg.append(...drawn(one, (at) => across(at).toFixed(1), (value) => up(value).toFixed(1), scaled, good));
  return svg;
}

function drawn({ points, band, kind, stroke }, across, up, scaled, good) {
  const parts = [];
  if (band?.length) {
    const upper = band.map(([at, , high]) => `${across(at)},${up(high)}`), lower = band.map(([at, low]) => `${across(at)},${up(low)}`).reverse();
    parts.push(make("svg:polygon", { class: `band ${kind}`, points: [...upper, ...lower].join(" ") }));
  }
  const seen = points.filter(([, value]) => good(value));
  if (seen.length === 1) parts.push(make("svg:circle", { class: `dot ${kind}`, "--c": stroke, cx: across(seen[0][0]), cy: up(scaled(seen[0][1])), r: 3 }));
  else parts.push(make("svg:polyline", { class: `curve ${kind}`, "--c": stroke, points: seen.map(([at, value]) => `${across(at)},${up(scaled(value))}`).join(" ") }));
  return parts;
}

// Draw charts again in the width that they get, so that their letters keep their size.
const charts = [];
function placed(options) {
  const figure = make("figure");
  const draw = () => figure.replaceChildren(chart({ ...options, width: Math.max(280, Math.min(900, figure.clientWidth || 640)) }));
  charts.push(draw);
  requestAnimationFrame(draw);
  return figure;
}
let resized = 0;
window.addEventListener("resize", () => {
  cancelAnimationFrame(resized);
  resized = requestAnimationFrame(() => charts.forEach((draw) => draw()));
});

// ---- loss by place

function smooth(points, reach) {
  return points.map(([at], i) => [at, mean(points.slice(Math.max(0, i - reach), i + reach + 1).map(([, value]) => value))]);
}

function drawPlaces(body) {
  const series = [], keys = [], facts = [];
  runs.forEach((run, r) => {
    if (!run.places) return;
    const { loss, error, count } = run.places, kind = "ab"[r];
    const points = loss.map((value, i) => [i + 1, value]).filter(([, value]) => known(value));
    if (!points.length) return;
    const reach = Math.floor(points.length / 24);
    const band = points.map(([at, value]) => [at, value - 2 * (error[at - 1] ?? 0), value + 2 * (error[at - 1] ?? 0)]);
    if (reach) series.push({ points, band, kind: `${kind} thin` }, { points: smooth(points, reach), kind });
    else series.push({ points, band, kind });
    if (runs.length > 1) keys.push(make("span", { class: kind }, make("span", { class: "swatch line" }), `${"AB"[r]}: ${escaped(run.name)}`));
    facts.push(Math.max(...count));
  });
  const windows = [...new Set(facts)].map((n) => `${n} window${n === 1 ? "" : "s"}`).join(" and ");
  body.replaceChildren(make("div", { class: "legend" }, keys), placed({ series, x: "tokens before the predicted one", y: "loss, bits per token" }),
    make("p", { class: "soft" }, `Computed on ${windows} of the validation text.`));
}

// ---- norms

const QUANTITIES = [["weight", "norm of the weights"], ["gradient", "norm of the gradients"], ["update", "norm of the updates"]];

// A colour for each group: the hue goes from blue to orange with the depth.
const hue = (i, n) => `hsl(${Math.round(215 + (170 * i) / Math.max(1, n - 1)) % 360} 62% 52%)`;

function drawNorms(body) {
  const { steps, groups } = runs[state.run].norms;
  const keys = groups.map((group, i) => make("span", { "--c": hue(i, groups.length) }, make("span", { class: "swatch line" }), group.name));
  const figures = QUANTITIES.map(([quantity, y]) => {
    const series = groups.map((group, i) => ({ points: steps.map((step, at) => [step, group[quantity][at]]), kind: "", stroke: hue(i, groups.length) }))
      .filter(({ points }) => points.some(([, value]) => known(value) && value > 0));
    return series.length ? placed({ series, x: "step", y, logarithmic: true, height: 260 }) : null;
  }).filter(Boolean);
  body.replaceChildren(make("div", { class: "legend" }, keys), make("div", { class: "charts" }, figures));
}
