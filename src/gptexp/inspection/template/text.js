// The text, token by token, and the card of the selected token.

const losses = runs.flatMap((run) => run.tokens.map((token) => token.loss));
const lossTop = roundUp(Math.max(1, quantile(losses, 0.97)));

// A view of the tokens of a run. paint(element, i) colours a token, again after every change of the watched names.
function textOf(run, paint, names) {
  const { tokens, name } = runs[run];
  const spans = tokens.map((token, i) => make("span", {
    class: "token", role: "option", tabindex: -1, "data-token": i, "aria-selected": "false",
    "aria-label": `${i}: ${label(token.text)}${known(token.loss) ? `, ${fixed(token.loss)} bits` : ", not scored"}`,
  }, running(token.reading ?? token.text)));
  const pieces = tokens.some((token) => Array.from(token.text).length > 1 && !token.text.startsWith("\\"));
  const view = make("div", { class: pieces ? "tokens pieces" : "tokens", role: "listbox", "aria-label": `Tokens of ${name}`,
    "aria-orientation": "horizontal" }, spans);
  follow(view, run, "[data-token]", (cell) => Number(cell.dataset.token));
  roving(view, ".token", Infinity, (cell) => select(run, Number(cell.dataset.token)));
  watch([...new Set(["token", ...names])], () => {
    const chosen = state.tokens[run], pointed = current(run);
    spans.forEach((span, i) => {
      paint(span, i);
      span.classList.toggle("selected", i === chosen);
      span.classList.toggle("same", i === pointed && i !== chosen);
      if ((span.tabIndex === 0) !== (i === chosen)) span.tabIndex = i === chosen ? 0 : -1;
      span.setAttribute("aria-selected", String(i === chosen));
    });
  });
  return view;
}

// Select the token of a cell by a click, and show it while the pointer is over it. A finger only selects.
function follow(container, run, selector, token, also = () => {}) {
  const cellOf = (event) => event.target.closest(selector);
  container.addEventListener("click", (event) => {
    const cell = cellOf(event);
    if (cell) { select(run, token(cell)); also(cell); }
  });
  container.addEventListener("pointerover", (event) => {
    if (event.pointerType !== "mouse") return;
    const cell = cellOf(event);
    if (cell) hover(run, token(cell));
  });
  container.addEventListener("pointerleave", () => hover(run, null));
}

function paintLoss(run) {
  return (span, i) => {
    const { loss } = runs[run].tokens[i];
    tint(span, loss, lossTop);
    span.classList.toggle("unscored", !known(loss));
  };
}

// ---- the card

function bar(kind, text, p, size, from = 0) {
  const fill = make("span", { class: `fill ${kind}`, "--size": `${(100 * size).toFixed(2)}%`, "--from": `${(100 * from).toFixed(2)}%` });
  return make("li", { class: kind }, make("span", {}, text), make("span", { class: "track", "aria-hidden": "true" }, fill), make("span", { class: "number" }, p));
}

function fact(value, name) {
  return make("div", {}, make("b", {}, value), make("span", {}, name));
}

function likeliest(token) {
  const at = known(token.rank) ? token.rank - 1 : -1;
  const rows = token.top.map(([text, p], i) => bar(i === at ? "true" : "", [chip(text, 14), i === at ? " ✓" : ""], percent(p), p));
  if (at >= token.top.length) rows.push(bar("true", [chip(token.text, 14), " ✓"], percent(token.p), token.p ?? 0));
  return make("ol", { class: "bars" }, rows);
}

function cardOf(run) {
  const card = make("div", { class: "card", "aria-live": "polite" });
  watch(["token"], () => {
    const i = current(run), token = runs[run].tokens[i];
    if (!token) return card.replaceChildren("The text has no tokens.");
    const head = make("h3", {}, runs.length > 1 ? `${"AB"[run]}: ` : "", `token ${i}: `, chip(token.text, 60));
    const size = fact(token.bytes, token.bytes === 1 ? "byte" : "bytes");
    if (!known(token.p)) {
      return card.replaceChildren(head, make("div", { class: "facts" }, size),
        make("p", { class: "soft" }, i === 0 ? "Not predicted: no token comes before it." : "Not predicted."));
    }
    const facts = [fact(fixed(token.loss), known(token.loss) ? "bits of loss" : "loss: not scored"), fact(percent(token.p), "probability"),
      fact(token.rank, "rank"), size];
    return card.replaceChildren(head, make("div", { class: "facts" }, facts),
      make("p", { class: "soft" }, "The likeliest tokens in this place (✓: the true one):"), likeliest(token));
  });
  return card;
}

// On a narrow screen the card stays in view, from the first tap on. Scroll if it covers the token.
function uncover(token, card) {
  card.classList.add("stays");
  if (!token || getComputedStyle(card).position !== "sticky" || getComputedStyle(card).bottom === "auto") return;
  const hidden = token.getBoundingClientRect().bottom + 12 - card.getBoundingClientRect().top;
  if (hidden > 0) window.scrollBy({ top: hidden });
}

function drawText(body) {
  const views = runs.map((run, i) => {
    const title = runs.length > 1 ? make("h3", {}, `${"AB"[i]}: ${escaped(run.name)}`) : null;
    const text = textOf(i, paintLoss(i), []), card = cardOf(i);
    text.addEventListener("click", (event) => uncover(event.target.closest(".token"), card));
    return make("div", { class: runs.length > 1 ? "reading" : "reading side" }, make("div", {}, title, text), card);
  });
  body.append(make("div", { class: runs.length > 1 ? "pair two" : "pair" }, views));
  const any = (test) => runs.some((run) => run.tokens.some(test));
  const notes = [any((token) => !known(token.loss)) ? make("span", {}, make("u", {}, "dotted"), " not scored") : null,
    any((token) => known(token.reading)) ? make("span", {}, "· rest of the character before it") : null];
  legend("loss", "hot", "0", `${tick(lossTop)} or more`, "bits", ...notes);
}

// ---- the difference of two runs

function drawDifference(body) {
  const { spans, bits_per_byte: bytes } = page.difference;
  const change = (span) => (known(span.first) && known(span.second) ? span.second - span.first : null);
  const top = roundUp(Math.max(0.1, quantile(spans.map((span) => (known(change(span)) ? Math.abs(change(span)) : null)), 0.97)));
  const readout = make("p", { class: "card", "aria-live": "polite" }, "Point at or tap a part of the text.");
  let sum = 0;
  const begins = spans.map((span) => (sum += span.bytes) - span.bytes);
  const elements = spans.map((span, i) => {
    const element = make("span", { class: "token", tabindex: i ? -1 : 0, "data-span": i, role: "option" }, running(span.text));
    tint(element, change(span), top);
    element.classList.toggle("unscored", !known(change(span)));
    return element;
  });
  const tell = (i) => {
    const { text, first, second } = spans[i];
    const better = first === second ? "equal" : `run ${second < first ? "B" : "A"} is better by ${fixed(Math.abs(second - first))} bits`;
    const said = known(first) && known(second) ? ` A ${fixed(first)} bits, B ${fixed(second)} bits: ${better}.` : " Not scored by both runs.";
    readout.replaceChildren(chip(text, 60), said);
  };
  const choose = (element) => {
    const i = Number(element.dataset.span);
    tell(i);
    const token = starts[0].findLastIndex((start) => start <= begins[i]);
    if (token >= 0) select(0, token);
  };
  const pieces = spans.some((span) => Array.from(span.text).length > 1);
  const view = make("div", { class: pieces ? "tokens pieces" : "tokens", role: "listbox", "aria-label": "Difference by token" }, elements);
  view.addEventListener("click", (event) => { const cell = event.target.closest("[data-span]"); if (cell) choose(cell); });
  view.addEventListener("pointerover", (event) => { const cell = event.target.closest("[data-span]"); if (cell && event.pointerType === "mouse") tell(Number(cell.dataset.span)); });
  roving(view, ".token", Infinity, choose);
  const total = bytes ? make("div", { class: "facts" }, fact(fixed(bytes[0], 3), "bits per byte of A"), fact(fixed(bytes[1], 3), "bits per byte of B"),
    fact(signed(bytes[1] - bytes[0], 3), "B minus A, on what both score")) : make("p", { class: "absent" }, "No part of the text is scored by both runs.");
  body.append(total, make("div", { class: "reading" }, view, readout));
  legend("difference", "both", `${MINUS}${tick(top)} (B is better)`, `+${tick(top)} bits (A is better)`, "");
}
