// Formulas of answers, drawn as MathML by a library that is loaded with the first of them.
import { element } from "./dom.js";

const SLICE = 8; // milliseconds of drawing, after which the page may do something else
const MOST_KEPT = 500; // drawn formulas
const DEEPEST = 30; // braces within each other: deeper ones take long to lay out
const LARGEST = 1500; // elements of one formula
const LIMITS = { throwOnError: true, maxSize: [20, 20], maxExpand: 300 };

const known = new Map(); // what was drawn, by its source; null for what is no formula
const waiting = new Set(); // boxes with formulas that are not known yet
let library = null;

const source = (formula) => formula.dataset.source ?? formula.textContent;
const isDisplay = (text) => text.startsWith("\\[") || text.startsWith("$$");
const formulasIn = (box) => [...box.querySelectorAll(".formula")];

// Draws the formulas that are known; the others follow soon, where they stand in the page then.
export function drawKnown(box) {
  for (const formula of formulasIn(box)) put(formula, known.get(source(formula)));
}

export function drawSoon(box) {
  if (!formulasIn(box).some((formula) => !known.has(source(formula)))) return;
  if (waiting.size === 0) load().then(drawSlice, () => waiting.clear());
  waiting.add(box);
}

export const isSettled = () => waiting.size === 0;

function drawSlice(temml) {
  const until = performance.now() + SLICE;
  for (const box of waiting) {
    for (const formula of formulasIn(box)) {
      if (performance.now() > until) return setTimeout(drawSlice, 0, temml);
      const text = source(formula);
      if (!known.has(text)) keep(text, drawn(text, temml));
      put(formula, known.get(text));
    }
    waiting.delete(box);
  }
}

function put(formula, math) {
  if (!math || formula.dataset.source) return;
  formula.dataset.source = formula.textContent;
  formula.replaceChildren(math.cloneNode(true));
}

function keep(text, math) {
  if (known.size >= MOST_KEPT) known.delete(known.keys().next().value);
  known.set(text, math);
}

function drawn(text, temml) {
  const signs = text.startsWith("$") && !text.startsWith("$$") ? 1 : 2;
  const box = element("span");
  try {
    if (depth(text) > DEEPEST) return null;
    temml.render(text.slice(signs, -signs), box, { ...LIMITS, displayMode: isDisplay(text) });
  } catch {
    return null;
  }
  return box.querySelectorAll("*").length > LARGEST ? null : box.firstElementChild;
}

function depth(text) {
  let [now, most] = [0, 0];
  for (const sign of text) {
    if (sign === "{") most = Math.max(most, (now += 1));
    if (sign === "}") now -= 1;
  }
  return most;
}

// The library is a classic script, which defines `temml`.
function load() {
  library ??= new Promise((resolve, reject) => {
    const looks = new URL("./vendor/temml.css", import.meta.url).href;
    const script = new URL("./vendor/temml.js", import.meta.url).href;
    const end = { onload: () => resolve(globalThis.temml), onerror: reject };
    document.head.append(
      element("link", { rel: "stylesheet", href: looks }),
      element("script", { src: script, ...end }),
    );
  });
  library.catch(() => (library = null)); // the next formula tries again
  return library;
}

// What is copied has formulas as they were written, whole ones even where a part is selected.
document.addEventListener("copy", (event) => {
  const selection = getSelection();
  if (!selection.rangeCount || !event.clipboardData) return;
  const range = selection.getRangeAt(0).cloneRange();
  const around = (node) => (node.closest ? node : node.parentElement)?.closest("[data-source]");
  const [first, last] = [around(range.startContainer), around(range.endContainer)];
  if (first) range.setStartBefore(first);
  if (last) range.setEndAfter(last);
  const copied = element("div", { className: "copied" }, range.cloneContents());
  const formulas = [...copied.querySelectorAll("[data-source]")];
  if (!formulas.length) return;
  for (const formula of formulas) formula.replaceChildren(source(formula));
  document.body.append(copied); // only what is laid out has lines
  event.clipboardData.setData("text/plain", copied.innerText);
  event.clipboardData.setData("text/html", copied.innerHTML);
  copied.remove();
  event.preventDefault();
});
