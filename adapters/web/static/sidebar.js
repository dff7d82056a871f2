// The list of conversations: by age, with a search; on a narrow screen a drawer.
import { send } from "./api.js";
import { byId, element, iconButton } from "./dom.js";
import { t } from "./words.js";

const PAUSE = 150; // milliseconds after a key press until the search begins
const NARROW = matchMedia("(max-width: 50rem)");

// `on` has `rename(conversation)` and `delete(conversation)`.
export class Sidebar {
  constructor(on) {
    this.on = on;
    this.list = byId("conversations");
    this.search = byId("search");
    this.conversations = [];
    this.current = "";
    this.loads = 0;
    this.timer = 0;
    this.search.addEventListener("input", () => {
      clearTimeout(this.timer);
      this.timer = setTimeout(() => this.load(), PAUSE);
    });
    this.list.addEventListener("click", (event) => this.clicked(event));
    byId("drawer").onclick = () => this.setOpen(true);
    for (const id of ["drawer-close", "shade"]) byId(id).onclick = () => this.setOpen(false);
    NARROW.addEventListener("change", () => this.setOpen(false));
    this.setOpen(false);
  }

  async load() {
    this.loads += 1;
    const load = this.loads;
    const words = encodeURIComponent(this.search.value.trim());
    try {
      const found = await send("GET", `/api/conversations?search=${words}`);
      // An earlier request may be answered later.
      if (load !== this.loads) return;
      this.conversations = found;
      this.show();
    } catch (error) {
      if (load === this.loads && !this.conversations.length) this.fail(error.message);
    }
  }

  mark(id) {
    this.current = id;
    for (const item of this.list.querySelectorAll("li")) {
      item.firstChild.ariaCurrent = item.dataset.id === id ? "page" : null;
    }
  }

  show() {
    const focused = document.activeElement?.closest?.("li")?.dataset.id;
    const words = this.search.value.split(/\s+/).filter(Boolean);
    const groups = Map.groupBy(this.conversations, (one) => ageOf(one.updated));
    const sections = [...groups].flatMap(([age, ones]) => [
      element("h2", { textContent: age }),
      element("ul", { aria: { label: age } }, ...ones.map((one) => itemOf(one, words))),
    ]);
    this.list.replaceChildren(...sections);
    if (!this.conversations.length) {
      const text = words.length ? t("Nothing found.") : t("Your conversations appear here.");
      this.list.append(element("p", { className: "none", textContent: text }));
    }
    this.mark(this.current);
    const items = [...this.list.querySelectorAll("li")];
    if (focused) items.find((item) => item.dataset.id === focused)?.firstChild.focus();
  }

  fail(message) {
    const again = element("button", { type: "button", className: "button" }, t("Try again"));
    again.onclick = () => this.load();
    this.list.replaceChildren(element("p", { className: "none", textContent: message }), again);
  }

  clicked(event) {
    const button = event.target.closest("button[data-action]");
    if (!button) return;
    const { id } = button.closest("li").dataset;
    this.on[button.dataset.action](this.conversations.find((one) => one.id === id));
  }

  setOpen(isOpen) {
    const wasOpen = this.isDrawn;
    document.body.classList.toggle("drawn", isOpen);
    byId("drawer").ariaExpanded = String(isOpen);
    byId("shade").hidden = !isOpen;
    // What is out of sight is out of reach of the keyboard and of a screen reader, too.
    byId("sidebar").inert = NARROW.matches && !isOpen;
    document.querySelector("main").inert = isOpen;
    if (isOpen) byId("drawer-close").focus();
    else if (wasOpen && NARROW.matches) byId("drawer").focus();
  }

  // Leads to the search, wherever the list is.
  find() {
    if (byId("sidebar").inert) this.setOpen(true);
    this.search.select();
  }

  get isDrawn() {
    return document.body.classList.contains("drawn");
  }
}

function ageOf(updated) {
  const midnight = new Date().setHours(0, 0, 0, 0);
  const days = Math.ceil((midnight - updated * 1000) / 86400000);
  if (days <= 0) return t("Today");
  if (days === 1) return t("Yesterday");
  return days <= 7 ? t("This week") : t("Earlier");
}

// `said` is the text around a word that was found in the talk, and `turn` where it was said.
function itemOf({ id, title, said, turn }, words) {
  const name = title || t("New conversation");
  const address = `/c/${encodeURIComponent(id)}`;
  const link = { href: turn ? `${address}#${turn}` : address, title: name, dir: "auto" };
  const passage = said ? [element("span", { className: "passage" }, ...marked(said, words))] : [];
  return element(
    "li",
    { data: { id } },
    element("a", link, ...marked(name, words), ...passage),
    iconButton("edit", t("Rename {name}", { name }), "rename"),
    iconButton("delete", t("Delete {name}", { name }), "delete"),
  );
}

function marked(text, words) {
  if (!words.length) return [text];
  const escaped = words.map((word) => word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
  const parts = text.split(new RegExp(`(${escaped.join("|")})`, "giu"));
  return parts.map((part, at) => (at % 2 ? element("mark", {}, part) : part));
}
