// Which model answers in the conversation that is shown.
import { send } from "./api.js";
import { byId, loaded } from "./dom.js";
import { t } from "./words.js";

export class Answers {
  constructor() {
    this.label = ""; // of the model that is chosen there
    this.name = ""; // of the model that answers where none is chosen
    this.asked = 0;
  }

  // Asks which model answers in a new conversation; events tell it of the others.
  async ask() {
    const asked = (this.asked += 1);
    try {
      const { answers } = await send("GET", "/api/preferences");
      if (asked === this.asked) this.tell(answers);
    } catch {
      // The page asks again when it is opened again.
    }
  }

  tell(label) {
    this.asked += 1;
    this.label = label;
    this.paint();
  }

  paint() {
    byId("model").textContent = this.label || this.name || t("Answers");
  }

  async open(id, composer) {
    const choosing = await loaded(import("./choosing.js"));
    await choosing?.choose(this, id, composer);
  }
}
