// How people are answered: what is chosen for a conversation, or for all that have no choice.
import { send, sendAgain } from "./api.js";
import { announce, byId, element, toast } from "./dom.js";

const FOR_ONE = "For this conversation, from the next question on.";
const WRITTEN = ["persona", "temperature", "max_tokens"];
const FOR_ALL = "For all your conversations in which nothing else is chosen.";

export class Answers {
  constructor() {
    this.path = "";
    this.label = ""; // of the model that is chosen in the conversation that is shown
    this.name = ""; // of the model that answers where none is chosen
    this.known = null; // what the dialog began with
    this.dialog = byId("answers");
    this.dialog.addEventListener("close", () => this.closed());
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
    const options = [{ name: "", label: "As set up" }, ...models];
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
    this.dialog.returnValue = "";
    this.dialog.showModal();
  }

  async closed() {
    if (this.dialog.returnValue !== "yes") return;
    // What the person left as it was stays as it is now: another page may have changed it.
    const changes = ["model", ...WRITTEN]
      .map((name) => [name, byId(`answers-${name}`).value])
      .filter(([name, text]) => text !== this.known[name]);
    try {
      const { answers } = await sendAgain("PATCH", this.path, Object.fromEntries(changes));
      this.label = answers;
      this.paint();
      announce("Chosen.");
    } catch (error) {
      toast(error.message);
    }
  }
}

function pathOf(id) {
  return id ? `/api/conversations/${encodeURIComponent(id)}/preferences` : "/api/preferences";
}
