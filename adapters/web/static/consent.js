// The card of an answer that waits: what a tool is to do, and whether it may.
import { element, withCode } from "./dom.js";

const CHOICES = [
  ["allow", "Allow", "Allow this call, once"],
  ["always", "Allow always", "Allow this call, and do not ask you for this tool again"],
  ["deny", "Deny", "Do not allow this call"],
];

export class ConsentCard {
  constructor() {
    this.line = element("p", { dir: "auto" });
    const buttons = CHOICES.map(([action, textContent, title]) =>
      element("button", { type: "button", className: "button", textContent, title, data: { action } }),
    );
    buttons[0].classList.add("primary");
    const choices = element("div", { className: "choices" }, ...buttons);
    const looks = { className: "consent", role: "group", tabIndex: -1, hidden: true };
    const label = "Parley asks for your permission";
    this.element = element("div", { ...looks, aria: { label } }, this.line, choices);
    this.call = "";
  }

  // `note` says what the call `consent` would do; without a call there is nothing to allow.
  show({ consent = "", note }) {
    if (consent !== this.call) this.isBusy = false;
    this.call = consent;
    this.element.hidden = !consent;
    this.line.replaceChildren(...withCode(consent ? note : ""));
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
