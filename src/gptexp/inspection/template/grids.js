// Layers and parts by tokens: the logit lens, and the direct effect on the true token.

function drawLens(body) {
  const run = state.run, { tokens, lens } = runs[run];
  const scored = range(tokens.length).filter((i) => lens.loss.some((row) => known(row[i])));
  const cell = (layer, i) => {
    const guess = lens.likeliest[layer][i], loss = lens.loss[layer][i];
    const element = make("td", { "data-token": i, "data-layer": layer }, known(guess) ? label(guess, 10) : "");
    tint(element, loss, lossTop);
    element.classList.toggle("right", guess === tokens[i].text);
    return element;
  };
  const first = make("tr", {}, make("th", { class: "corner", scope: "col" }, "true token"),
    scored.map((i) => make("th", { "data-token": i, scope: "col" }, label(tokens[i].text, 10))));
  const rows = lens.layers.map((name, layer) => make("tr", {}, make("th", { scope: "row" }, name), scored.map((i) => cell(layer, i))));
  const grid = make("table", { class: "grid words" }, make("thead", {}, first), make("tbody", {}, rows));
  const scroll = make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Logit lens" }, grid);
  follow(grid, run, "[data-token]", (element) => Number(element.dataset.token));
  grid.addEventListener("pointermove", (event) => {
    const element = event.target.closest("td");
    if (!element) return hideTip();
    const i = Number(element.dataset.token), layer = Number(element.dataset.layer), guess = lens.likeliest[layer][i];
    return showTip(event, `${lens.layers[layer]}: ${known(guess) ? label(guess) : "–"}; true token ${label(tokens[i].text)}: ${fixed(lens.loss[layer][i])} bits`);
  });
  grid.addEventListener("pointerleave", hideTip);
  const columns = new Map();
  for (const element of grid.querySelectorAll("[data-token]")) {
    const i = Number(element.dataset.token);
    if (!columns.has(i)) columns.set(i, []);
    columns.get(i).push(element);
  }
  body.replaceChildren(scroll);
  let marked = [], pinned = -1;
  watch(["token"], () => {
    marked.forEach((element) => element.classList.remove("chosen"));
    marked = columns.get(current(run)) ?? [];
    marked.forEach((element) => element.classList.add("chosen"));
    if (state.tokens[run] === pinned || state.hover) return;
    pinned = state.tokens[run];
    const head = columns.get(pinned)?.[0], { scrollLeft: left, clientWidth: width } = scroll;
    if (head && (head.offsetLeft < left + width / 5 || head.offsetLeft > left + width - 60)) scroll.scrollLeft = head.offsetLeft - width / 2;
  });
  const means = lens.layers.map((name, layer) => mean(lens.loss[layer].filter(known)));
  const summary = lens.layers.map((name, layer) => bar("", name, `${fixed(means[layer])} bits`, means[layer] / Math.max(...means)));
  if (scored.length > 20) body.append(make("p", { class: "soft printed" }, "The first 20 scored tokens are printed."));
  if (scored.length) body.append(make("h3", {}, "Mean loss after each layer"), make("ol", { class: "bars narrow" }, summary));
  legend("lens", "hot", "0", `${tick(lossTop)} or more`, "bits", make("span", {}, make("code", { class: "framed" }, "a"), " correct"));
}

// ---- the direct effect

function drawPicture(canvas, effect, width, top) {
  canvas.width = Math.max(1, width);
  canvas.height = Math.max(1, effect.length);
  const context = canvas.getContext("2d"), image = context.createImageData(canvas.width, canvas.height);
  const above = colour("--cool"), below = colour("--hot");
  effect.forEach((row, part) => row.forEach((value, i) => {
    if (known(value)) image.data.set([...(value > 0 ? above : below), Math.round(255 * strength(value, top))], 4 * (part * canvas.width + i));
  }));
  context.putImageData(image, 0, 0);
}

function drawDirect(body) {
  const run = state.run, { tokens, direct } = runs[run], { parts, effect } = direct;
  const top = roundUp(Math.max(0.1, quantile(effect.flat().map((value) => (known(value) ? Math.abs(value) : null)), 0.98)));
  const canvas = make("canvas", { role: "img", "aria-label": "Direct effect by part and token; the bars give the numbers of the selected token" });
  const column = make("div", { class: "cross" });
  const field = make("div", { class: "field" }, canvas, column);
  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    const cell = (at, size, count) => Math.max(0, Math.min(count - 1, Math.floor((at / size) * count)));
    return [cell(event.clientY - box.top, box.height, parts.length), cell(event.clientX - box.left, box.width, tokens.length)];
  };
  field.addEventListener("pointermove", (event) => {
    const [part, i] = place(event), value = effect[part][i];
    showTip(event, `${parts[part]}, token ${i} ${label(tokens[i].text)}: ${known(value) ? signed(value) : "–"}`);
    if (event.pointerType === "mouse") hover(run, i);
  });
  field.addEventListener("pointerleave", () => { hideTip(); hover(run, null); });
  field.addEventListener("click", (event) => select(run, place(event)[1]));
  const bars = make("div", { "aria-live": "polite" });
  const largest = Math.max(0.001, ...effect.flat().filter(known).map(Math.abs));
  const barOf = (name, value) => {
    const size = Math.min(0.5, (0.5 * Math.abs(value)) / largest);
    const item = bar(value < 0 ? "minus" : "", name, signed(value), size, value < 0 ? 0.5 - size : 0.5);
    find(".track", item).append(make("span", { class: "axis", "--from": "50%" }));
    return item;
  };
  watch(["token"], () => {
    const i = current(run), unit = 100 / Math.max(1, tokens.length);
    Object.assign(column.style, { left: `${i * unit}%`, width: `${unit}%`, top: "0", bottom: "0" });
    const values = effect.map((row) => row[i]), head = make("h3", {}, `token ${i}: `, chip(tokens[i]?.text ?? "", 30));
    if (!values.every(known)) return bars.replaceChildren(head, make("p", { class: "soft" }, "This token is not predicted."));
    const sum = values.reduce((total, value) => total + value, 0);
    return bars.replaceChildren(head, make("ol", { class: "bars" }, parts.map((name, part) => barOf(name, values[part]))),
      make("p", { class: "soft" }, `Sum: ${signed(sum)}. This is the logit of the true token above the mean of all logits.`));
  });
  watch(["theme"], () => drawPicture(canvas, effect, tokens.length, top));
  const names = make("ol", { "aria-hidden": "true" }, parts.map((name) => make("li", {}, name)));
  const picture = make("div", { class: "parts", "--rows": parts.length }, names, field);
  body.replaceChildren(make("div", { class: "effects" }, make("div", {}, picture), bars));
  legend("direct", "gain", `${MINUS}${tick(top)} (less likely)`, `+${tick(top)} (more likely)`, "");
}
