// Elements, the text of tokens, numbers, colours and the selection. Texts come from strangers: they become text nodes,
// never HTML, and the content security policy of the page refuses anything else.

const page = JSON.parse(document.getElementById("gptexp-inspection").textContent);
const runs = page.runs;
const SVG = "http://www.w3.org/2000/svg";

// An element with attributes and children. Names that begin with -- are CSS properties; strings become text nodes.
function make(tag, attributes = {}, ...children) {
  const element = tag.startsWith("svg:") ? document.createElementNS(SVG, tag.slice(4)) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("--")) element.style.setProperty(name, String(value));
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat(3).filter((child) => child !== null && child !== undefined));
  return element;
}

const find = (selector, within = document) => within.querySelector(selector);
const range = (n) => Array.from({ length: n }, (_, i) => i);

// ---- text of tokens

// Characters that can't be seen or that reorder or hide others: control and format characters, separators, surrogates.
const UNSEEN = /[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Cn}\p{Zl}\p{Zp}]/gu;

function escaped(text) {
  return text.replace(UNSEEN, (character) => {
    const code = character.codePointAt(0).toString(16);
    return code.length <= 2 ? `\\x${code.padStart(2, "0")}` : `\\u${code.padStart(4, "0")}`;
  });
}

// A token on one line, with visible spaces and line breaks, cut to a number of characters.
function label(text, limit = 24) {
  const characters = Array.from(text);
  const cut = characters.length > limit ? [...characters.slice(0, limit), "…"].join("") : text;
  const seen = cut.replaceAll(" ", "␣").replaceAll("\n", "↵").replaceAll("\t", "⇥");
  return seen === "" ? "(empty)" : escaped(seen);
}

const chip = (text, limit) => make("code", { class: "chip" }, label(text, limit));

// A token in running text: line breaks and tabs are marked and kept.
function running(text) {
  return text.split(/([\n\t])/).filter((part) => part !== "").map((part) => {
    if (part === "\n") return [make("span", { class: "mark", "aria-hidden": "true" }, "↵"), "\n"];
    return part === "\t" ? [make("span", { class: "mark", "aria-hidden": "true" }, "⇥"), "\t"] : escaped(part);
  });
}

// ---- numbers

const MINUS = "−";
const known = (value) => value !== null && value !== undefined;
const signed = (value, digits = 2) => (value > 0 ? "+" : "") + fixed(value, digits);
const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

function fixed(value, digits = 2) {
  if (!known(value)) return "–";
  const text = value.toFixed(digits);
  return Number(text) === 0 ? (0).toFixed(digits) : text.replace("-", MINUS);
}

function percent(p) {
  if (!known(p)) return "–";
  const value = 100 * p;
  if (value > 0 && value < 0.01) return "<0.01%";
  return `${value >= 99.95 ? "100" : value.toFixed(value >= 10 ? 0 : value >= 1 ? 1 : 2)}%`;
}

// A number of an axis, without more digits than it needs.
function tick(value) {
  const size = Math.abs(value);
  if (size === 0) return "0";
  if (size >= 1e6) return `${Number((value / 1e6).toPrecision(3))}M`;
  if (size >= 1e4) return `${Number((value / 1e3).toPrecision(3))}k`;
  return size < 1e-3 ? value.toExponential(0).replace("e-", "e" + MINUS) : String(Number(value.toPrecision(3))).replace("-", MINUS);
}

// The smallest of 1, 1.5, 2, 3, 4, 5, 6, 8, 10 times a power of ten that is not below a value.
function roundUp(value) {
  if (!(value > 0)) return 1;
  const unit = 10 ** Math.floor(Math.log10(value));
  return [1, 1.5, 2, 3, 4, 5, 6, 8, 10].map((factor) => Number((factor * unit).toPrecision(6))).find((nice) => nice >= value * 0.999);
}

function quantile(values, share) {
  const sorted = values.filter(known).sort((a, b) => a - b);
  return sorted.length ? sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] : 0;
}

// ---- colours

// Strength of a colour, from 0 to 1; the ends of a scale are reached by all values beyond.
const strength = (value, top) => Math.min(1, Math.abs(value) / top);

// Colour an element by a value below or above zero; `above` and `below` are classes of the style sheet.
function tint(element, value, top, above = "hot", below = "cool") {
  element.classList.toggle(above, known(value) && value > 0);
  element.classList.toggle(below, known(value) && value < 0);
  element.style.setProperty("--w", known(value) ? strength(value, top).toFixed(3) : "0");
}

// The red, green and blue of a property of the style sheet, for pictures.
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim().split(/\s+/).map(Number);

function legend(name, kind, low, high, what, ...more) {
  const places = document.querySelectorAll(`[data-legend="${name}"]`);
  for (const place of places) {
    const ramp = make("span", { class: `ramp ${kind}` });
    place.replaceChildren(make("span", {}, low, ramp, high, what ? ` ${what}` : ""), ...more);
  }
}

const swatch = (kind, text) => make("span", {}, make("span", { class: `swatch ${kind}`, "--w": 1 }), text);

// ---- the selection: a run, a token of each run, and a head

const state = { run: 0, tokens: runs.map(() => 0), head: { layer: 0, head: 0 }, hover: null };
const watchers = { token: [], head: [], theme: [] };
const announce = (name) => watchers[name].forEach(({ watcher }) => watcher());

// Call a watcher now and after every change of what it names, until the part that it belongs to is drawn again.
let drawing = null; // the part that is being drawn
function watch(names, watcher) {
  for (const name of names) watchers[name].push({ watcher, part: drawing });
  watcher();
}

function redraw(part, draw) {
  for (const name of Object.keys(watchers)) watchers[name] = watchers[name].filter((one) => one.part !== part);
  drawing = part;
  draw();
  drawing = null;
}

// The byte at which each token begins, by which tokens of two runs are matched.
const starts = runs.map((run) => {
  let sum = 0;
  return run.tokens.map((token) => (sum += token.bytes) - token.bytes);
});

function matching(other, run, token) {
  if (other === run) return token;
  const byte = starts[run][token];
  const after = starts[other].findIndex((start) => start > byte);
  return Math.max(0, (after < 0 ? runs[other].tokens.length : after) - 1);
}

// The token that is shown for a run: that under the pointer, or the selected one.
const current = (run = state.run) => (state.hover ? matching(run, state.hover.run, state.hover.token) : state.tokens[run]);

function select(run, token) {
  const last = runs[run].tokens.length - 1;
  if (last < 0) return;
  const kept = Math.max(0, Math.min(last, token));
  state.tokens = runs.map((_, other) => matching(other, run, kept));
  state.hover = null;
  announce("token");
}

function hover(run, token) {
  if (state.hover?.run === run && state.hover?.token === token) return;
  state.hover = token === null ? null : { run, token };
  announce("token");
}

function enlarge(layer, head, scroll = false) {
  state.head = { layer, head };
  announce("head");
  if (scroll) find("#enlarged")?.scrollIntoView({ block: "start" });
}

// ---- moving among many cells with the arrow keys; only one of them is reached by the tab key

function roving(container, selector, columns, choose) {
  container.addEventListener("keydown", (event) => {
    const cells = [...container.querySelectorAll(selector)];
    const at = cells.indexOf(document.activeElement);
    const moves = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns, Home: -at, End: cells.length - 1 - at };
    const move = moves[event.key];
    if (at < 0 || !move || !cells[at + move]) return;
    event.preventDefault();
    cells[at + move].focus();
    choose(cells[at + move]);
  });
}

const tip = find("#tip");
function showTip(event, text) {
  tip.textContent = text;
  tip.hidden = text === "";
  const { offsetWidth: width, offsetHeight: height } = tip;
  const left = Math.min(event.clientX + 14, window.innerWidth - width - 6);
  const top = event.clientY + 18 + height > window.innerHeight ? event.clientY - height - 12 : event.clientY + 18;
  tip.style.left = `${Math.max(6, left)}px`;
  tip.style.top = `${top}px`;
}
const hideTip = () => { tip.hidden = true; };
