// What stands below an answer: its sources, the steps that led to it, and other notices.
import { element, withCode } from "./dom.js";
import { t } from "./words.js";

// As `Draft` writes them (bot/reply/draft.py).
const SOURCE = /^\[(\d+)\] <?(https?:\/\/[^\s<>]+?)>?$/;
// In the language in which the answer was written.
const STEPS = /^\((?:Steps|Schritte|Étapes|Pasos|手順)\s?: (.+)\.\)$/;

// Divides the notices into { sources: [{ number, url }], steps: [text], others: text }.
export function divided(below = "") {
  const parts = { sources: [], steps: [], others: "" };
  const others = below.split("\n\n").filter((part) => {
    const [head, ...lines] = part.split("\n");
    const found = lines.map((line) => SOURCE.exec(line));
    const areSources = found.every((one) => one && URL.canParse(one[2]));
    if (head.endsWith(":") && found.length && areSources) {
      parts.sources = found.map(([, number, url]) => ({ number, url: new URL(url) }));
      return false;
    }
    const steps = STEPS.exec(part)?.[1].split("; ");
    parts.steps = steps ?? parts.steps;
    return !steps;
  });
  parts.others = others.join("\n\n");
  return parts;
}

export class Below {
  constructor() {
    const title = element("h3", { textContent: t("Sources") });
    this.sources = element("ol");
    this.list = element("div", { className: "sources", hidden: true }, title, this.sources);
    this.summary = element("summary");
    this.steps = element("ol");
    const looks = { className: "steps", hidden: true };
    this.folded = element("details", looks, this.summary, this.steps);
    this.elements = [this.list, this.folded];
    this.shown = "";
  }

  show({ below }) {
    // What a person has unfolded stays so.
    if ((below ?? "") === this.shown) return;
    this.shown = below ?? "";
    const { sources, steps } = divided(below);
    this.list.hidden = !sources.length;
    this.sources.replaceChildren(...sources.map(sourceItem));
    this.folded.hidden = !steps.length;
    const many = steps.reduce((sum, step) => sum + times(step), 0);
    this.summary.textContent = many === 1 ? t("1 step") : t("{many} steps", { many });
    this.steps.replaceChildren(...steps.map((step) => element("li", {}, ...withCode(step))));
  }
}

// Equal steps are written once, such as "(3 times)".
function times(step) {
  return Number(/\((\d+) \S+\)$/.exec(step)?.[1] ?? 1);
}

// The host stands first, and names before it are left out: they can look like another one.
function sourceItem({ number, url }) {
  const host = element("strong", { textContent: url.host });
  const rest = `${url.pathname}${url.search}${url.hash}`.replace(/^\/$/, "");
  const safe = { rel: "noopener noreferrer nofollow", target: "_blank" };
  const link = element("a", { href: url.href, title: url.href, ...safe }, host, rest);
  return element("li", { value: Number(number) }, link);
}
