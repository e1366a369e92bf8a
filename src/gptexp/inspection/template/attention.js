// The attention of every head as a small picture, one of them enlarged, and where a token looks.

const SMALL = 128; // most pixels of a side of a small picture

function decoded(base64) {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

// The attention of the shown run, with its bytes; each is the square root of a weight, times 255.
const opened = runs.map(() => null);
function attention() {
  const found = runs[state.run].attention;
  if (!found) return null;
  opened[state.run] ??= { ...found, bytes: decoded(found.weights), size: (found.length * (found.length + 1)) / 2 };
  return opened[state.run];
}

const offset = (from, layer, head) => (layer * from.heads + head) * from.size;
const byteAt = (from, base, query, key) => (key > query ? 0 : from.bytes[base + (query * (query + 1)) / 2 + key]);
const weightAt = (from, base, query, key) => (byteAt(from, base, query, key) / 255) ** 2;

// Draw a head on a canvas; if it has fewer pixels than tokens, the largest weight of each pixel is drawn.
function drawHead(canvas, from, layer, head, most, [red, green, blue]) {
  const n = from.length, side = Math.max(1, Math.min(n, most)), base = offset(from, layer, head);
  canvas.width = canvas.height = side;
  const context = canvas.getContext("2d");
  const image = context.createImageData(side, side);
  let at = base;
  for (let query = 0; query < n; query++) {
    const row = Math.floor((query * side) / n) * side;
    for (let key = 0; key <= query; key++, at++) {
      const pixel = 4 * (row + Math.floor((key * side) / n));
      if (from.bytes[at] > image.data[pixel + 3]) image.data.set([red, green, blue, from.bytes[at]], pixel);
    }
  }
  context.putImageData(image, 0, 0);
}

function thumbs(from) {
  const cells = [make("span"), ...range(from.heads).map((head) => make("span", { class: "column" }, `head ${head}`))];
  const buttons = [];
  for (const layer of range(from.layers)) {
    cells.push(make("span", { class: "row" }, `layer ${layer}`));
    for (const head of range(from.heads)) {
      const button = make("button", { type: "button", class: "thumb", tabindex: -1, "data-layer": layer, "data-head": head,
        "aria-label": `Layer ${layer}, head ${head}` }, make("canvas", { "aria-hidden": "true" }));
      buttons.push(button);
      cells.push(button);
    }
  }
  const grid = make("div", { class: "thumbs", role: "group", "aria-label": "All heads", "--n": from.heads, "--rows": from.layers }, cells);
  const chosen = (button) => enlarge(Number(button.dataset.layer), Number(button.dataset.head));
  grid.addEventListener("click", (event) => { const button = event.target.closest(".thumb"); if (button) chosen(button); });
  roving(grid, ".thumb", from.heads, chosen);
  const mark = () => buttons.forEach((button) => {
    const is = Number(button.dataset.layer) === state.head.layer && Number(button.dataset.head) === state.head.head;
    button.setAttribute("aria-pressed", String(is));
    button.tabIndex = is ? 0 : -1;
  });
  const draw = () => {
    const paint = colour("--cool");
    buttons.forEach((button) => drawHead(button.firstChild, from, Number(button.dataset.layer), Number(button.dataset.head), SMALL, paint));
  };
  return { grid, mark, draw };
}

// The enlarged head: rows attend to columns. The lines show the row and the column of the current token.
function mapOf(from) {
  const canvas = make("canvas", { role: "img" });
  const row = make("div", { class: "cross" }), column = make("div", { class: "cross" });
  const field = make("div", { class: "field" }, canvas, row, column);
  const { tokens } = runs[state.run], run = state.run;
  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    const cell = (at, size) => Math.max(0, Math.min(from.length - 1, Math.floor((at / size) * from.length)));
    return [cell(event.clientY - box.top, box.height), cell(event.clientX - box.left, box.width)];
  };
  field.addEventListener("pointermove", (event) => {
    const [query, key] = place(event), base = offset(from, state.head.layer, state.head.head);
    if (key > query) return showTip(event, "A token does not see those after it.");
    const weight = percent(weightAt(from, base, query, key));
    return showTip(event, `token ${query} ${label(tokens[query].text)} looks at token ${key} ${label(tokens[key].text)}: ${weight}`);
  });
  field.addEventListener("pointerleave", hideTip);
  field.addEventListener("click", (event) => select(run, place(event)[0]));
  const figure = make("figure", { class: "map" }, make("div", { class: "across" }, "→ the token that is looked at"), field,
    make("figcaption", {}, "↓ the token that looks. The lines mark the selected token. Click a row to select its token."));
  const draw = () => {
    const { layer, head } = state.head;
    canvas.setAttribute("aria-label", `Attention of layer ${layer}, head ${head}: rows look at columns`);
    drawHead(canvas, from, layer, head, from.length, colour("--cool"));
  };
  const cross = () => {
    const at = current(), unit = 100 / from.length, outside = at >= from.length;
    row.hidden = column.hidden = outside;
    Object.assign(row.style, { left: "0", width: `${(at + 1) * unit}%`, top: `${at * unit}%`, height: `${unit}%` });
    Object.assign(column.style, { top: `${at * unit}%`, bottom: "0", left: `${at * unit}%`, width: `${unit}%` });
  };
  return { figure, draw, cross };
}

// The weights of the current token: those it gives to itself and earlier tokens, and those that later ones give to it.
function weights(from) {
  const at = current(), base = offset(from, state.head.layer, state.head.head);
  if (at >= from.length) return { at, looks: [], seen: [] };
  return {
    at,
    looks: range(at + 1).map((key) => weightAt(from, base, at, key)),
    seen: range(from.length).slice(at + 1).map((query) => weightAt(from, base, query, at)),
  };
}

function strongest(values, first, kind, nothing) {
  const { tokens } = runs[state.run];
  const best = values.map((weight, i) => ({ weight, i: i + first })).sort((a, b) => b.weight - a.weight).slice(0, 5).filter(({ weight }) => weight >= 0.0005);
  if (!best.length) return make("p", { class: "soft" }, nothing);
  return make("ol", { class: "bars" }, best.map(({ weight, i }) =>
    bar(kind, [chip(tokens[i].text, 10), make("span", { class: "soft" }, ` ${i}`)], percent(weight), weight)));
}

function drawAttention(body) {
  const from = attention();
  body.replaceChildren();
  const small = thumbs(from), map = mapOf(from);
  const name = make("h3"), title = make("h3"), lists = make("div", { class: "looks", "aria-live": "polite" });
  let now = weights(from);
  const paint = (span, i) => {
    span.classList.toggle("cool", i <= now.at);
    span.classList.toggle("leaf", i > now.at);
    const weight = i <= now.at ? now.looks[i] : now.seen[i - now.at - 1];
    span.style.setProperty("--w", Math.sqrt(weight ?? 0).toFixed(3));
  };
  const tell = () => {
    now = weights(from);
    map.cross();
    const { layer, head } = state.head, token = runs[state.run].tokens[now.at];
    name.replaceChildren(`Layer ${layer}, head ${head}`);
    title.replaceChildren(`Token ${now.at} `, chip(token?.text ?? "", 30), ` in layer ${layer}, head ${head}`);
    lists.replaceChildren(make("div", {}, make("h4", {}, "It looks at"), strongest(now.looks, 0, "", "This token is outside the window.")),
      make("div", {}, make("h4", {}, "It is looked at by"), strongest(now.seen, now.at + 1, "leafy", "No later token looks at it.")));
  };
  const draw = () => { small.draw(); map.draw(); };
  watch(["head"], () => { small.mark(); map.draw(); tell(); });
  watch(["token"], tell);
  watch(["theme"], draw);
  const text = textOf(state.run, paint, ["head"]);
  const key = make("div", { class: "legend" }, swatch("cool", "the selected token looks at these"), swatch("leaf", "these look at the selected token"));
  body.append(make("div", { class: "overview" }, make("div", { class: "scroll" }, small.grid), make("div", { id: "enlarged" }, name, map.figure)),
    make("div", { class: "looking" }, make("div", {}, title, key, text), lists));
  const outside = runs[state.run].tokens.length - from.length;
  if (outside > 0) body.append(make("p", { class: "soft" }, `The attention is shown for the first ${from.length} tokens; ${outside} more are outside the window.`));
}
