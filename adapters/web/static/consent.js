// The card of an answer that waits: what a tool is to do, and whether it may; or what the tool's
// server asks, with the fields of its form.
import { element, withCode } from "./dom.js";
import { t } from "./words.js";

const DENY = ["deny", t("Deny"), t("Do not allow this call")];
const CHOICES = [
  ["allow", t("Allow"), t("Allow this call, once")],
  ["always", t("Allow always"), t("Allow this call, and do not ask you for this tool again")],
  DENY,
];
// By the beginning of a question's id.
const ANSWERS = {
  form: [["answer", t("Answer"), t("Send your answer to the server of this tool")], DENY],
  link: [["done", t("Done"), t("Say that you have been to this page")], DENY],
};
const ADDRESS = /https:\S+$/; // the end of the line, which the server of the page has checked

export class ConsentCard {
  constructor() {
    this.line = element("p", { dir: "auto" });
    this.form = element("form", { className: "fields", autocomplete: "off" });
    this.form.onsubmit = (event) => {
      event.preventDefault();
      this.choices.firstChild.click();
    };
    this.choices = element("div", { className: "choices" });
    const looks = { className: "consent", role: "group", tabIndex: -1, hidden: true };
    const label = t("Parley asks for your permission");
    this.element = element("div", { ...looks, aria: { label } }, this.line, this.form, this.choices);
    this.call = null;
  }

  // `note` says what the call `consent` would do; without a call there is nothing to allow.
  show({ consent = "", note }) {
    if (consent !== this.call) {
      this.isBusy = this.isLoaded = false;
      this.form.replaceChildren();
      this.choices.replaceChildren(...(ANSWERS[consent.split("-")[0]] ?? CHOICES).map(choice));
      this.choices.firstChild.classList.add("primary");
    }
    this.call = consent;
    this.element.hidden = !consent;
    const [address = ""] = (consent.startsWith("link-") && note.match(ADDRESS)) || [];
    const words = withCode(consent ? note.slice(0, note.length - address.length) : "");
    const looks = { href: address, textContent: address, target: "_blank", rel: "noopener noreferrer" };
    this.line.replaceChildren(...words, ...(address ? [element("a", looks)] : []));
  }

  // Shows the fields of a form, as the server of the page describes them.
  fill(fields) {
    this.form.replaceChildren(...fields.map(field));
  }

  // Whether an answer is on its way. The buttons keep the focus meanwhile.
  get isBusy() {
    return this.element.ariaBusy === "true";
  }

  set isBusy(isBusy) {
    this.element.ariaBusy = String(isBusy);
  }

  // Leads a person to the card who is at the empty box, or nowhere: nobody is torn from elsewhere,
  // and no key that is typed on presses a button.
  takeFocus() {
    const { activeElement: at } = document;
    const isFree = !at || at === document.body || (at.id === "box" && !at.value);
    if (isFree) this.element.focus({ preventScroll: true });
  }
}

function choice([action, textContent, title]) {
  const looks = { type: "button", className: "button", textContent, title };
  return element("button", { ...looks, data: { action } });
}

function field({ name, label, hint, kind, options, most, is_required: required }) {
  let input = element("input", { maxLength: most });
  if (kind === "text") input = element("textarea", { rows: 2, maxLength: most });
  if (kind === "choice") {
    const offered = [["", "—"], ...options];
    input = element("select", {}, ...offered.map(([value, text]) => new Option(text, value)));
  }
  Object.assign(input, { name, required });
  return element("label", { dir: "auto" }, [label, hint].filter(Boolean).join(" · "), input);
}
