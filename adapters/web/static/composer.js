// The box for a message, with a draft for each conversation.
import { byId, element } from "./dom.js";
import { Files } from "./files.js";
import { keep, recall } from "./kept.js";
import { t } from "./words.js";

export const KEYBOARD_ON_SCREEN = matchMedia("(hover: none) and (pointer: coarse)");

// Whether a key press means "send". An IME's Enter ends a word: Safari tells that by 229 only.
function sends(event) {
  if (event.key !== "Enter" || event.shiftKey || event.altKey) return false;
  if (event.isComposing || event.keyCode === 229) return false;
  return !KEYBOARD_ON_SCREEN.matches || event.ctrlKey || event.metaKey;
}

// Lets a box grow with its text where the browser does not by itself.
function fit(box) {
  if (CSS.supports("field-sizing", "content")) return;
  box.style.height = "auto";
  box.style.height = `${box.scrollHeight + 2}px`;
}

// `on` has `send(text)` and `editLast()`.
export class Composer {
  constructor(on) {
    this.on = on;
    this.box = byId("box");
    this.sendButton = byId("send");
    this.name = "";
    this.once = null; // the model for the next question alone, { name, label }
    this.files = new Files(() => this.allowSend());
    this.box.addEventListener("input", () => this.typed());
    this.box.addEventListener("keydown", (event) => this.pressed(event));
    byId("composer").addEventListener("submit", (event) => {
      event.preventDefault();
      this.submit();
    });
  }

  // Shows the draft of a conversation; an empty id is that of a new one.
  open(id) {
    this.name = `draft:${id}`;
    this.put(recall(this.name));
    this.choose(recall(this.onceName, null));
  }

  get onceName() {
    return this.name.replace("draft:", "once:");
  }

  choose(once) {
    this.once = once;
    keep(this.onceName, once ?? "");
    byId("once").hidden = !once;
    byId("once-name").textContent = once
      ? t("{label} answers this question", { label: once.label })
      : "";
  }

  put(text) {
    this.box.value = text;
    this.typed();
  }

  typed() {
    keep(this.name, this.box.value);
    this.allowSend();
    fit(this.box);
  }

  allowSend() {
    this.sendButton.disabled = !this.box.value.trim() || !this.files.areSent;
    this.box.placeholder = this.files.entries.length
      ? t("Ask about your files")
      : t("Ask Parley");
  }

  pressed(event) {
    if (sends(event)) {
      event.preventDefault();
      this.submit();
    } else if (event.key === "ArrowUp" && !this.box.value && !event.isComposing) {
      if (this.on.editLast()) event.preventDefault();
    }
  }

  submit() {
    if (this.sendButton.disabled) return;
    const text = this.box.value.trim();
    this.put("");
    this.on.send(text);
    this.box.focus();
  }
}

// Lets a person change a question in its place, with a box and two buttons.
// `hint` says what becomes of the rest.
export function editQuestion(view, text, hint, save) {
  if (view.asked.querySelector(".editor")) return;
  const label = t("Your message");
  const box = element("textarea", { value: text, rows: 1, dir: "auto", aria: { label } });
  const cancel = element("button", { type: "button", className: "button" }, t("Cancel"));
  const yes = element("button", { className: "button primary" }, t("Send"));
  const choices = element("div", { className: "choices" }, cancel, yes);
  const told = element("p", { className: "hint", textContent: hint, hidden: !hint });
  const editor = element("form", { className: "editor" }, box, told, choices);
  const close = () => {
    editor.remove();
    byId("box").focus();
  };
  cancel.onclick = close;
  box.oninput = () => fit(box);
  box.onkeydown = (event) => {
    if (event.key === "Escape" && !event.isComposing) close();
    else if (sends(event)) editor.requestSubmit();
    else return;
    event.preventDefault();
    event.stopPropagation();
  };
  editor.onsubmit = async (event) => {
    event.preventDefault();
    yes.disabled = true;
    if (!box.value.trim() || (await save(box.value.trim()))) close();
    yes.disabled = false;
  };
  view.asked.append(editor);
  fit(box);
  box.focus();
  box.setSelectionRange(text.length, text.length);
}
