// Puts the parts together: the head of the page, the bar that stays in view, and each part for the shown run.

// The parts that show one run, and what a run must have for them.
const PARTS = {
  attention: [(run) => run.attention, drawAttention],
  heads: [(run) => run.attention, drawHeads],
  knockout: [(run) => run.attention?.table.some((head) => known(head.knockout)), drawKnockout],
  lens: [(run) => run.lens, drawLens],
  direct: [(run) => run.direct, drawDirect],
  norms: [(run) => run.norms, drawNorms],
};

const bodyOf = (part) => find(`#${part} .body`);

// Draw a part, or the sentence that says why it is missing.
function fill(part, has, draw) {
  const body = bodyOf(part);
  find(`#${part}`).classList.toggle("without", !has);
  if (has) redraw(part, () => draw(body));
  else redraw(part, () => body.replaceChildren(make("p", { class: "absent" }, body.dataset.absent)));
}

function drawShown() {
  const run = runs[state.run], { attention: heads } = run;
  if (heads) state.head = { layer: Math.min(state.head.layer, heads.layers - 1), head: Math.min(state.head.head, heads.heads - 1) };
  for (const [part, [has, draw]] of Object.entries(PARTS)) fill(part, Boolean(has(run)), draw);
  for (const button of find("#shown").children) button.setAttribute("aria-pressed", String(Number(button.dataset.run) === state.run));
}

// ---- the head of the page

function facts(run) {
  const scored = run.tokens.filter((token) => known(token.loss));
  const bits = scored.reduce((sum, token) => sum + token.loss, 0), bytes = scored.reduce((sum, token) => sum + token.bytes, 0);
  const numbers = [fact(fixed(run.loss, 3), "bits per token"), bytes ? fact(fixed(bits / bytes, 3), "bits per byte") : null,
    known(run.loss) ? fact(fixed(2 ** run.loss, 2), "perplexity") : null, fact(scored.length, `of ${run.tokens.length} tokens scored`)];
  return make("div", { class: "facts" }, numbers);
}

// The settings of a run on one line; those in which two runs differ are emphasized.
function settings(run) {
  const others = runs.filter((other) => other !== run).map((other) => new Map(other.settings));
  return make("ul", { class: "settings" }, run.settings.map(([name, value]) => {
    const differs = others.some((other) => other.get(name) !== value);
    return make("li", { class: differs ? "differs" : null }, `${escaped(name)} `, make("b", {}, escaped(value)));
  }));
}

function drawTop() {
  const two = runs.length > 1;
  find("#runs").append(...runs.map((run, i) => make("div", {}, two ? make("h3", {}, `${"AB"[i]}: ${escaped(run.name)}`) : null, facts(run), settings(run),
    run.notes.map((note) => make("p", { class: "soft" }, escaped(note))))));
  find("#shown").hidden = !two;
  if (!two) return;
  find("#shown").append(...runs.map((run, i) => make("button", { type: "button", "data-run": i, title: escaped(run.name), "aria-label": `Show run ${"AB"[i]}` }, "AB"[i])));
  find("#shown").addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    state.run = Number(button.dataset.run);
    state.hover = null;
    drawShown();
    announce("token");
  });
}

// ---- the bar

function drawBar() {
  const sections = [...document.querySelectorAll("main > section:not([hidden])")];
  const links = sections.map((section) => make("a", { href: `#${section.id}` }, section.dataset.name));
  const contents = find("#contents");
  contents.append(...links);
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) entry.target.dataset.seen = entry.isIntersecting ? "yes" : "";
    const at = sections.findIndex((section) => section.dataset.seen);
    links.forEach((link, i) => (i === at ? link.setAttribute("aria-current", "true") : link.removeAttribute("aria-current")));
    if (at >= 0) contents.scrollLeft = links[at].offsetLeft - contents.offsetLeft - contents.clientWidth / 3;
  }, { rootMargin: "-30% 0px -60% 0px" });
  sections.forEach((section) => seen.observe(section));
  find("#back").addEventListener("click", () => select(state.run, state.tokens[state.run] - 1));
  find("#next").addEventListener("click", () => select(state.run, state.tokens[state.run] + 1));
  watch(["token"], () => {
    const i = state.tokens[state.run], token = runs[state.run].tokens[i];
    find("#selected").replaceChildren(...(token ? [`token ${i} `, chip(token.text, 8)] : ["no tokens"]));
  });
}

// ---- begin with the head that matters most and with a token that had some context, and the largest loss of these

function begin() {
  const { tokens, attention: heads } = runs[0];
  const least = Math.floor(tokens.length / 4);
  const surprising = tokens.reduce((best, token, i) => (i > least && (token.loss ?? -1) > (tokens[best].loss ?? -1) ? i : best), Math.min(least, Math.max(0, tokens.length - 1)));
  state.tokens = runs.map((_, run) => matching(run, 0, surprising));
  const most = heads?.table.reduce((best, head) => ((head.knockout ?? 0) > (best.knockout ?? 0) ? head : best));
  if (most) state.head = { layer: most.layer, head: most.head };
}

begin();
drawTop();
drawText(bodyOf("text"));
find("#difference").hidden = !page.difference;
if (page.difference) drawDifference(bodyOf("difference"));
drawShown();
fill("places", runs.some((run) => run.places), drawPlaces);
drawBar();
for (const query of ["(prefers-color-scheme: dark)", "print"]) matchMedia(query).addEventListener("change", () => announce("theme"));
document.body.dataset.ready = "yes";
