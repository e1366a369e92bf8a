// The table of heads, which can be sorted, and the heat map of what each head is worth.

const COLUMNS = [
  { name: "layer", value: (head) => head.layer, text: String, up: true },
  { name: "head", value: (head) => head.head, text: String, up: true },
  { name: "entropy, bits", value: (head) => head.entropy, text: fixed, up: true },
  { name: "distance", value: (head) => head.distance, text: (value) => fixed(value, 1), up: true },
  { name: "previous", value: (head) => head.previous, text: percent },
  { name: "induction", value: (head) => head.induction, text: percent },
  { name: "first", value: (head) => head.first, text: percent },
  { name: "knock-out, bits", value: (head) => head.knockout, text: (value) => (known(value) ? signed(value, 3) : "–") },
];

// Compare two values for sorting; what is missing comes last in both directions.
function compared(a, b, up) {
  if (!known(a) || !known(b)) return known(a) ? -1 : known(b) ? 1 : 0;
  return up ? a - b : b - a;
}

function drawHeads(body) {
  const run = runs[state.run], { table } = run.attention;
  const shown = COLUMNS.filter((column) => table.some((head) => known(column.value(head, run))));
  const tops = shown.map((column, i) => (i < 2 ? Infinity : Math.max(...table.map((head) => column.value(head, run) ?? 0))));
  const rows = table.map((head) => {
    const cells = shown.map((column, i) => {
      const value = column.value(head, run);
      return make("td", { class: "number", "--bar": `${Math.max(0, (100 * (value ?? 0)) / (tops[i] || Infinity)).toFixed(1)}%` }, column.text(value));
    });
    const row = make("tr", { tabindex: -1, "aria-selected": "false" }, cells);
    row.addEventListener("click", () => enlarge(head.layer, head.head, true));
    row.addEventListener("keydown", (event) => { if (event.key === "Enter") enlarge(head.layer, head.head, true); });
    return { head, row };
  });
  const content = make("tbody", {}, rows.map(({ row }) => row));
  const headings = shown.map((column) => make("th", { scope: "col", "aria-sort": "none" }, make("button", { type: "button" }, column.name)));
  const sort = (index, up) => {
    const { value } = shown[index];
    headings.forEach((heading, i) => heading.setAttribute("aria-sort", i !== index ? "none" : up ? "ascending" : "descending"));
    const sorted = [...rows].sort((a, b) => compared(value(a.head, run), value(b.head, run), up));
    content.replaceChildren(...sorted.map(({ row }) => row));
  };
  headings.forEach((heading, i) => heading.addEventListener("click", () => {
    const now = heading.getAttribute("aria-sort");
    sort(i, now === "none" ? Boolean(shown[i].up) : now === "descending");
  }));
  roving(content, "tr", 1, () => {});
  const last = shown.length - 1;
  sort(shown[last].up ? 0 : last, Boolean(shown[last].up));
  watch(["head"], () => rows.forEach(({ head, row }) => {
    const is = head.layer === state.head.layer && head.head === state.head.head;
    row.setAttribute("aria-selected", String(is));
    row.tabIndex = is ? 0 : -1;
  }));
  body.replaceChildren(make("div", { class: "list" }, make("table", {}, make("thead", {}, make("tr", {}, headings)), content)));
  if (rows.length > 32) body.append(make("p", { class: "soft printed" }, `The first 32 of ${rows.length} heads are printed.`));
}

function drawKnockout(body) {
  const run = runs[state.run], { table, layers, heads } = run.attention;
  const changes = table.map((head) => head.knockout);
  const top = roundUp(Math.max(0.001, ...changes.map((value) => Math.abs(value ?? 0))));
  const digits = top < 0.1 ? 4 : top < 1 ? 3 : 2;
  const cells = new Map();
  const rows = range(layers).map((layer) => make("tr", {}, make("th", { scope: "row" }, `layer ${layer}`), range(heads).map((head) => {
    const value = changes[layer * heads + head];
    const cell = make("td", { tabindex: -1, "data-layer": layer, "data-head": head }, known(value) ? signed(value, digits) : "–");
    tint(cell, value, top);
    cells.set(`${layer} ${head}`, cell);
    return cell;
  })));
  const first = make("tr", {}, make("th", { class: "corner" }), range(heads).map((head) => make("th", { scope: "col" }, `head ${head}`)));
  const grid = make("table", { class: "grid plain" }, make("thead", {}, first), make("tbody", {}, rows));
  const choose = (cell) => enlarge(Number(cell.dataset.layer), Number(cell.dataset.head));
  grid.addEventListener("click", (event) => { const cell = event.target.closest("td"); if (cell) choose(cell); });
  roving(grid, "td", heads, choose);
  watch(["head"], () => cells.forEach((cell, name) => {
    const is = name === `${state.head.layer} ${state.head.head}`;
    cell.classList.toggle("chosen", is);
    cell.tabIndex = is ? 0 : -1;
  }));
  body.replaceChildren(make("div", { class: "scroll" }, grid));
  legend("knockout", "both", `${MINUS}${tick(top)} (better without it)`, `+${tick(top)} bits per token (needed)`, "");
}
