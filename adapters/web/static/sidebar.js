// The list of conversations: pinned ones, the others by age, archived ones; with a search and a menu
// for each. On a narrow screen it is a drawer.
import { send } from "./api.js";
import { byId, element, icon, loaded } from "./dom.js";
import { t } from "./words.js";

const PAUSE = 150; // milliseconds after a key press until the search begins
const NARROW = matchMedia("(max-width: 50rem)");

const PINNED = t("Pinned");
const ARCHIVED = t("Archived");

// `on` has `rename(conversation)`, `put(conversation, place)`, `delete(conversation)`, and
// `deleted(ids)`, for what was deleted here.
export class Sidebar {
  constructor(on) {
    this.on = on;
    this.list = byId("conversations");
    this.search = byId("search");
    this.conversations = [];
    this.current = "";
    this.loads = 0;
    this.drawn = ""; // what the list shows, and on which day
    this.timer = 0;
    this.search.addEventListener("input", () => {
      clearTimeout(this.timer);
      this.timer = setTimeout(() => this.load(), PAUSE);
    });
    this.showsArchived = false; // without a search
    this.several = null; // those that are chosen, while some are
    this.list.addEventListener("click", (event) => this.clicked(event));
    this.menu = byId("menu");
    this.menu.addEventListener("keydown", (event) => this.moveInMenu(event));
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
      const drawn = JSON.stringify([found, words, new Date().getDate()]);
      if (drawn === this.drawn) return;
      this.drawn = drawn;
      this.conversations = found;
      this.several?.update();
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
    const isOpen = this.showsArchived || words.length > 0;
    const groups = Map.groupBy(this.conversations, groupOf);
    const archived = groups.get(ARCHIVED);
    groups.delete(ARCHIVED);
    const listOf = (label, ones) =>
      element("ul", { aria: { label } }, ...ones.map((one) => itemOf(one, words, this.several)));
    const sections = [...groups].flatMap(([name, ones]) => [
      element("h2", { textContent: name }),
      listOf(name, ones),
    ]);
    if (archived) {
      const summary = element("summary", { textContent: `${ARCHIVED} (${archived.length})` });
      sections.push(element("details", { open: isOpen }, summary, listOf(ARCHIVED, archived)));
    }
    this.list.replaceChildren(...sections);
    if (!this.conversations.length) {
      const text = words.length ? t("Nothing found.") : t("Your conversations appear here.");
      this.list.append(element("p", { className: "none", textContent: text }));
    }
    this.mark(this.current);
    const items = [...this.list.querySelectorAll("li")];
    if (focused) items.find((item) => item.dataset.id === focused)?.querySelector("a, input").focus();
  }

  fail(message) {
    this.drawn = "";
    const again = element("button", { type: "button", className: "button" }, t("Try again"));
    again.onclick = () => this.load();
    this.list.replaceChildren(element("p", { className: "none", textContent: message }), again);
  }

  clicked(event) {
    const archived = event.target.closest("summary")?.parentElement;
    if (archived) this.showsArchived = !archived.open;
    const button = event.target.closest("li button");
    if (!button) return;
    const { id } = button.closest("li").dataset;
    this.openMenu(button, this.conversations.find((one) => one.id === id));
  }

  openMenu(button, one) {
    const { place } = one;
    const isPinned = place === "pinned";
    const isArchived = place === "archived";
    const entries = [
      ["pin", isPinned ? t("Unpin") : t("Pin"), () => this.on.put(one, isPinned ? "" : "pinned")],
      ["edit", t("Rename"), () => this.on.rename(one)],
      ["archive", isArchived ? t("Bring back") : t("Archive"), () =>
        this.on.put(one, isArchived ? "" : "archived")],
      ["select", t("Select several"), () => this.choose(one)],
      ["delete", t("Delete"), () => this.on.delete(one)],
    ];
    const items = entries.map(([name, label, act]) => {
      const item = element("button", { type: "button", role: "menuitem" }, icon(name), label);
      item.onclick = () => {
        this.menu.hidePopover();
        act();
      };
      return item;
    });
    this.menu.replaceChildren(...items);
    this.menu.ariaLabel = button.ariaLabel;
    this.menu.showPopover();
    const { bottom, right } = button.getBoundingClientRect();
    const { offsetWidth, offsetHeight, style } = this.menu;
    style.left = `${Math.max(Math.min(right, innerWidth - 8) - offsetWidth, 8)}px`;
    style.top = `${Math.min(bottom, innerHeight - offsetHeight - 8)}px`;
    items[0].focus();
  }

  moveInMenu(event) {
    const items = [...this.menu.children];
    const at = items.indexOf(document.activeElement);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: -1 }[event.key];
    if (to !== undefined) items.at(to % items.length).focus();
    if (event.key === "Tab") this.menu.hidePopover();
    if (to !== undefined || event.key === "Tab") event.preventDefault();
  }

  // Boxes before the conversations choose several of them; what is done with these is loaded now.
  async choose(first) {
    const module = await loaded(import("./several.js"));
    if (!module) return;
    this.several ??= new module.Several(this, first.id);
    this.show();
    this.list.querySelector("input:checked")?.focus();
  }

  chooseNone() {
    this.several.bar.remove();
    this.several = null;
    this.show();
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

function groupOf({ place, updated }) {
  if (place) return place === "pinned" ? PINNED : ARCHIVED;
  const midnight = new Date().setHours(0, 0, 0, 0);
  const days = Math.ceil((midnight - updated * 1000) / 86400000);
  if (days <= 0) return t("Today");
  if (days === 1) return t("Yesterday");
  if (days <= 7) return t("Previous 7 days");
  return days <= 30 ? t("Previous 30 days") : t("Earlier");
}

// `said` is the text around a word that was found in the talk, and `turn` where it was said.
function itemOf({ id, title, said, turn }, words, several) {
  const name = title || t("New conversation");
  if (several) {
    const box = element("input", { type: "checkbox", checked: several.ids.has(id) });
    const label = element("span", { dir: "auto" }, ...marked(name, words));
    return element("li", { data: { id } }, element("label", { title: name }, box, label));
  }
  const address = `/c/${encodeURIComponent(id)}`;
  const link = { href: turn ? `${address}#${turn}` : address, title: name, dir: "auto" };
  const passage = said ? [element("span", { className: "passage" }, ...marked(said, words))] : [];
  // A text, because a thousand pictures are slow to draw.
  const looks = { type: "button", className: "icon", title: t("More for {name}", { name }), textContent: "⋯" };
  const more = element("button", { ...looks, aria: { label: looks.title, haspopup: "menu" } });
  return element(
    "li",
    { data: { id } },
    element("a", link, ...marked(name, words), ...passage),
    more,
  );
}

function marked(text, words) {
  if (!words.length) return [text];
  const escaped = words.map((word) => word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
  const parts = text.split(new RegExp(`(${escaped.join("|")})`, "giu"));
  return parts.map((part, at) => (at % 2 ? element("mark", {}, part) : part));
}
