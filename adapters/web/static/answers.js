// How people are answered: what is chosen for a conversation, or for all that have no choice.
import { send, sendAgain } from "./api.js";
import { announce, byId, element, toast } from "./dom.js";

const FOR_ONE = "For this conversation, from your next question on.";
const WRITTEN = ["persona", "temperature", "max_tokens"];
const FOR_ALL = "For all your conversations, unless one has its own choice.";

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
    byId("model").textContent = this.label || this.name || "Answers";
  }

  async open(id) {
    this.path = pathOf(id);
    try {
      this.known = await send("GET", this.path);
    } catch (error) {
      toast(error.message);
      return;
    }
    const { model, models } = this.known;
    const options = [{ name: "", label: "Default" }, ...models];
    if (model && !models.some((one) => one.name === model)) {
      options.push({ name: model, label: `${model} (gone)` });
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
      announce("Saved.");
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
