// The dialogs: a question, the help, and how people are answered.
import { send, sendAgain } from "./api.js";
import { announce, byId, element, setText, toast } from "./dom.js";
import { t } from "./words.js";

const PAUSE = 1000; // milliseconds until the page asks again whether a person is forgotten
const FOR_ONE = t("For this conversation, from your next question on.");
const FOR_ALL = t("For all your conversations, unless one has its own choice.");
const WRITTEN = ["persona", "temperature", "max_tokens"];

// Asks in a dialog; returns the text typed, true or null.
export function ask({ title, text = "", value = null, yes, isDanger = false }) {
  const dialog = byId("ask");
  const input = byId("ask-input");
  byId("ask-title").textContent = title;
  setText(byId("ask-text"), text);
  byId("ask-yes").textContent = yes;
  byId("ask-yes").classList.toggle("danger", isDanger);
  input.hidden = value === null;
  input.value = value ?? "";
  input.ariaLabel = title;
  dialog.returnValue = "";
  dialog.showModal();
  // In a dangerous dialog the first button has the focus, which is Cancel.
  if (value !== null) input.select();
  else if (!isDanger) byId("ask-yes").focus();
  return new Promise((resolve) => {
    dialog.onclose = () => {
      // The event comes after the dialog has closed, and it may be open for the next question.
      if (dialog.open) return;
      if (dialog.returnValue !== "yes") resolve(null);
      else resolve(value === null ? true : input.value.trim());
    };
  });
}

// Enter in a field of a dialog presses its first button that submits: Cancel is none.
for (const button of document.querySelectorAll("[data-cancel]")) {
  button.onclick = () => button.closest("dialog").close("");
}

// Reads what a dialog needs; returns nothing, and says why, if that fails.
async function read(path) {
  try {
    return await send("GET", path);
  } catch (error) {
    toast(error.message);
    return null;
  }
}

// What people can do here, what they have used today, and how they are forgotten. `forgotten` is
// called when the server has nothing of the person any more.
export async function openHelp(forgotten) {
  const known = await read("/api/help");
  if (!known) return;
  const { help, usage, tools, allowed, question, yes } = known;
  const dialog = byId("help");
  // A further line of a list stands below its words.
  const lines = help.split(/(?<=\n)/).map((line) =>
    line.startsWith("- ") ? element("span", { textContent: line.slice(2).trimEnd() }) : line,
  );
  byId("help-text").replaceChildren(...lines);
  byId("help-usage").textContent = usage;
  const names = tools.map((line) => element("span", { textContent: line.replaceAll("`", "") }));
  byId("help-tools-text").replaceChildren(...names);
  byId("help-allowed").replaceChildren(...allowed.map(revoking));
  byId("help-tools").hidden = !tools.length && !allowed.length;
  byId("help-forget").textContent = yes;
  dialog.returnValue = "";
  dialog.onclose = async () => {
    if (dialog.returnValue !== "forget") return;
    if (await ask({ title: `${yes}?`, text: question, yes, isDanger: true })) forget(forgotten);
  };
  dialog.showModal();
}

// A button that has the person asked again before a tool is used.
function revoking(name) {
  const textContent = t("Ask me again for {name}", { name });
  const button = element("button", { type: "button", textContent });
  button.onclick = async () => {
    try {
      toast((await send("POST", "/api/tools/revoke", { name })).said.replaceAll("`", ""));
      button.remove();
    } catch (error) {
      toast(error.message);
    }
  };
  return button;
}

async function forget(forgotten) {
  try {
    let told = await sendAgain("POST", "/api/forget-me");
    if (!told.done) toast(told.said);
    while (!told.done) {
      await new Promise((resolve) => setTimeout(resolve, PAUSE));
      told = await sendAgain("GET", "/api/forget-me");
    }
    forgotten();
    toast(told.said);
  } catch (error) {
    toast(error.message);
  }
}

// What is chosen for a conversation, or for all that have no choice.
export class Answers {
  constructor() {
    this.path = "";
    this.label = ""; // of the model that is chosen in the conversation that is shown
    this.name = ""; // of the model that answers where none is chosen
    this.known = null; // what the dialog began with
    this.dialog = byId("answers");
    this.wrong = byId("answers-wrong");
    this.dialog.addEventListener("submit", (event) => {
      event.preventDefault();
      this.save();
    });
  }

  // Shows which model answers in a conversation; without an id, in a new one.
  async show(id) {
    const path = pathOf(id);
    this.path = path;
    try {
      const { answers } = await send("GET", path);
      if (path === this.path) this.label = answers;
    } catch {
      // The conversation is not known yet, or the page will connect again.
    }
    this.paint();
  }

  paint() {
    byId("model").textContent = this.label || this.name || t("Answers");
  }

  async open(id) {
    this.path = pathOf(id);
    this.known = await read(this.path);
    if (!this.known) return;
    const { model, models } = this.known;
    const options = [{ name: "", label: t("Default") }, ...models];
    if (model && !models.some((one) => one.name === model)) {
      options.push({ name: model, label: t("{model} (gone)", { model }) });
    }
    byId("answers-model").replaceChildren(
      ...options.map(({ name, label }) => element("option", { value: name, textContent: label })),
    );
    byId("answers-model").value = model;
    byId("answers-models").hidden = !models.length;
    for (const name of WRITTEN) byId(`answers-${name}`).value = this.known[name];
    byId("answers-place").textContent = id ? FOR_ONE : FOR_ALL;
    this.wrong.textContent = "";
    this.dialog.showModal();
  }

  // What is refused stays in the form, with the reason below its field.
  async save() {
    // What the person left as it was stays as it is now: another page may have changed it.
    const changes = ["model", ...WRITTEN]
      .map((name) => [name, byId(`answers-${name}`).value])
      .filter(([name, text]) => text !== this.known[name]);
    try {
      const { answers } = await sendAgain("PATCH", this.path, Object.fromEntries(changes));
      this.label = answers;
      this.paint();
      this.dialog.close();
      announce(t("Saved."));
    } catch (error) {
      const field = byId(`answers-${error.field}`);
      (field?.closest("label") ?? byId("answers-place")).after(this.wrong);
      this.wrong.textContent = error.message;
      field?.focus();
    }
  }
}

function pathOf(id) {
  return id ? `/api/conversations/${encodeURIComponent(id)}/preferences` : "/api/preferences";
}
