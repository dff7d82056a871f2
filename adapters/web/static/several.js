// Several conversations that are chosen in the list, to archive, save or delete them together.
import { pathOf, send, sendAgain } from "./api.js";
import { ask } from "./dialogs.js";
import { announce, element, iconButton, toast } from "./dom.js";
import { save } from "./saving.js";
import { t } from "./words.js";

const AT_ONCE = 3; // requests; over HTTP/1.1 all tabs share six connections
const NAMED = 3; // conversations in a sentence

export class Several {
  constructor(sidebar, first) {
    this.sidebar = sidebar;
    this.ids = new Set([first]);
    this.all = element("input", { type: "checkbox", title: t("All"), ariaLabel: t("All") });
    this.count = element("span", { role: "status" });
    this.bar = element(
      "div",
      { className: "several", role: "group", ariaLabel: t("Selected conversations") },
      element("label", {}, this.all),
      this.count,
      iconButton("archive", t("Archive"), "archive"),
      iconButton("export", t("Export as Markdown"), "export"),
      iconButton("delete", t("Delete"), "delete"),
      iconButton("close", t("Select none"), "none"),
    );
    sidebar.list.before(this.bar);
    this.bar.addEventListener("click", (event) => {
      const { action } = event.target.closest("button")?.dataset ?? {};
      if (action) this[action]();
    });
    this.all.onchange = () => {
      this.ids = new Set(this.all.checked ? sidebar.conversations.map((one) => one.id) : []);
      this.update();
      sidebar.show();
    };
    sidebar.list.addEventListener("change", ({ target }) => {
      const { id } = target.closest("li").dataset;
      if (target.checked) this.ids.add(id);
      else this.ids.delete(id);
      this.update();
    });
    this.update();
  }

  get chosen() {
    return this.sidebar.conversations.filter((one) => this.ids.has(one.id));
  }

  get isArchived() {
    return this.chosen.length > 0 && this.chosen.every((one) => one.place === "archived");
  }

  // What was deleted elsewhere, or is not found by the search, is not chosen any more.
  update() {
    const { chosen, isArchived } = this;
    this.ids = new Set(chosen.map((one) => one.id));
    this.count.textContent = t("{count} selected", { count: chosen.length });
    this.all.checked = chosen.length > 0 && chosen.length === this.sidebar.conversations.length;
    this.all.indeterminate = chosen.length > 0 && !this.all.checked;
    const buttons = [...this.bar.querySelectorAll("button")].slice(0, -1);
    for (const button of buttons) button.disabled = !chosen.length;
    buttons[0].title = buttons[0].ariaLabel = isArchived ? t("Bring back") : t("Archive");
  }

  archive() {
    const place = this.isArchived ? "" : "archived";
    return this.each((id) => sendAgain("PATCH", pathOf(id), { place }));
  }

  async export() {
    const texts = new Map(this.chosen.map((one) => [one.id, ""]));
    await this.each(async (id) => texts.set(id, await send("GET", pathOf(id, "export"))));
    const found = [...texts.values()].filter(Boolean);
    if (found.length) save("conversations.md", found.join("\n---\n\n"));
  }

  async delete() {
    const { length } = this.chosen;
    const title = t("Delete the selected conversations ({count})?", { count: length });
    const text = t("They will be gone for good, with all their answers.");
    if (!(await ask({ title, text, yes: t("Delete"), isDanger: true }))) return;
    const done = await this.each((id) => sendAgain("DELETE", pathOf(id)));
    this.sidebar.on.deleted(done);
  }

  none() {
    this.sidebar.chooseNone();
    this.sidebar.search.focus();
  }

  // Does it for each, and returns the ids of those with which it went through. The others stay
  // chosen, and are named.
  async each(act) {
    const { chosen } = this;
    const [left, done] = [[...chosen], []];
    let why = "";
    const work = async () => {
      for (let one; (one = left.shift()); ) {
        try {
          await act(one.id);
          done.push(one.id);
        } catch (error) {
          // One that is gone already needs nothing more.
          if (error.status === 404) done.push(one.id);
          else why = error.message;
          if (error.passes) left.length = 0;
        }
        this.count.textContent = doneOf(done, chosen);
      }
    };
    this.bar.inert = this.sidebar.list.inert = true;
    await Promise.all(Array.from({ length: AT_ONCE }, work));
    this.bar.inert = this.sidebar.list.inert = false;
    const stay = chosen.filter((one) => !done.includes(one.id));
    this.ids = new Set(stay.map((one) => one.id));
    if (stay.length) {
      const titles = stay.slice(0, NAMED).map((one) => `“${one.title}”`).join(", ");
      const more = stay.length > NAMED ? " …" : "";
      const counts = { count: stay.length, all: chosen.length };
      const names = titles + more;
      toast(t("{count} of {all} stay as they were: {names}. {why}", { ...counts, names, why }));
    } else {
      announce(doneOf(done, chosen));
      this.sidebar.chooseNone();
    }
    await this.sidebar.load();
    return done;
  }
}

function doneOf(done, chosen) {
  return t("{count} of {all} done", { count: done.length, all: chosen.length });
}
