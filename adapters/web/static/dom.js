// Small things that all parts of the page do with its elements.
import { t } from "./words.js";

export const byId = (id) => document.getElementById(id);

// `properties` are set on the element; `data` and `aria` become attributes.
export function element(name, { data = {}, aria = {}, ...properties } = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  Object.assign(made.dataset, data);
  for (const [key, value] of Object.entries(aria)) made.setAttribute(`aria-${key}`, value);
  made.append(...children);
  return made;
}

const SVG = "http://www.w3.org/2000/svg";

export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  const use = svg.appendChild(document.createElementNS(SVG, "use"));
  use.setAttribute("href", `#icon-${name}`);
  return svg;
}

// A button with a picture, and a name that is read aloud and shown to a mouse.
export function iconButton(name, label, action) {
  const looks = { type: "button", className: "icon", title: label };
  return element("button", { ...looks, data: { action }, aria: { label } }, icon(name));
}

// As crypto.randomUUID, which browsers lack where the page comes over plain HTTP.
export function uuid() {
  const hex = (byte) => byte.toString(16).padStart(2, "0");
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), hex).join("");
}

// An empty text is out of sight.
export function setText(box, text) {
  if (box.textContent !== text) box.textContent = text;
  box.hidden = !text;
}

// Returns a line as text, with what stands between backticks as code. Nothing else in it is markup.
export function withCode(line) {
  const parts = line.split("`");
  return parts.map((part, at) => (at % 2 ? element("code", { textContent: part }) : part));
}

// Says a sentence to a screen reader only. The same sentence twice is said twice. What is outside of
// an open dialog is silent, so one with a line for it shows it there.
export function announce(sentence) {
  const status = document.querySelector("dialog[open] [role=status]") ?? byId("status");
  status.textContent = status.textContent === sentence ? `${sentence}\u00a0` : sentence;
}

// Returns a module that is loaded when it is needed; null, with a sentence, if it does not come.
export async function loaded(importing) {
  try {
    return await importing;
  } catch {
    toast(t("Parley cannot be reached at the moment. Please try again."));
    return null;
  }
}

let toastTimer = 0;

// Shows a sentence for a while, and says it to a screen reader.
export function toast(sentence) {
  const box = byId("toast");
  box.textContent = sentence;
  box.classList.add("shown");
  if (document.querySelector("dialog[open]")) announce(sentence);
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => box.classList.remove("shown"), 6000);
}

// Over plain HTTP the browser has no clipboard but the old command.
function copyByCommand(text) {
  const box = element("textarea", { value: text, className: "sr" });
  const { activeElement } = document;
  // What is outside of an open dialog cannot be selected.
  (document.querySelector("dialog[open]") ?? document.body).append(box);
  box.select();
  const copied = document.execCommand("copy");
  box.remove();
  activeElement?.focus();
  if (!copied) throw new Error("refused");
}

// Copies a text, and shows on a button that it was copied.
export async function copyBy(button, text) {
  try {
    if (navigator.clipboard) await navigator.clipboard.writeText(text);
    else copyByCommand(text);
  } catch {
    toast(t("The browser does not let me copy. Select the text instead."));
    return;
  }
  announce(t("Copied."));
  button.dataset.copied = t("Copied");
  setTimeout(() => delete button.dataset.copied, 1500);
}
