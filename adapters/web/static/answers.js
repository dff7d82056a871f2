// How people are answered: the model and the persona of a conversation, or of all that have none.
import { send, sendAgain } from "./api.js";
import { announce, byId, element, toast } from "./dom.js";

const FOR_ONE = "For this conversation, from the next question on.";
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
    const { model, persona, models } = this.known;
    const options = [{ name: "", label: "As set up" }, ...models];
    if (model && !models.some((one) => one.name === model)) {
      options.push({ name: model, label: `${model} (gone)` });
    }
    byId("answers-model").replaceChildren(
      ...options.map(({ name, label }) => element("option", { value: name, textContent: label })),
    );
    byId("answers-model").value = model;
    byId("answers-models").hidden = !models.length;
    byId("answers-persona").value = persona;
    byId("answers-place").textContent = id ? FOR_ONE : FOR_ALL;
    this.dialog.returnValue = "";
    this.dialog.showModal();
  }

  async closed() {
    if (this.dialog.returnValue !== "yes") return;
    const chosen = { model: byId("answers-model").value, persona: byId("answers-persona").value };
    // What the person left as it was stays as it is now: another page may have changed it.
    const changes = Object.entries(chosen).filter(([field, text]) => text !== this.known[field]);
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
