// What people can do here, what they have used today, and how they are forgotten.
import { send, sendAgain } from "./api.js";
import { ask, byId, element, toast } from "./dom.js";

const PAUSE = 1000; // milliseconds until the page asks again whether a person is forgotten

export class Help {
  // `forgotten` is called when the server has nothing of the person any more.
  constructor(forgotten) {
    this.forgotten = forgotten;
    this.known = null;
    this.dialog = byId("help");
    this.dialog.addEventListener("close", () => {
      if (this.dialog.returnValue === "forget") this.forget();
    });
  }

  async open() {
    try {
      this.known = await send("GET", "/api/help");
    } catch (error) {
      toast(error.message);
      return;
    }
    byId("help-text").replaceChildren(...lines(this.known.help));
    byId("help-usage").textContent = this.known.usage;
    byId("help-forget").textContent = this.known.yes;
    this.dialog.returnValue = "";
    this.dialog.showModal();
  }

  async forget() {
    const { question, yes } = this.known;
    if (!(await ask({ title: `${yes}?`, text: question, yes, isDanger: true }))) return;
    try {
      let told = await sendAgain("POST", "/api/forget-me");
      if (!told.done) toast(told.said);
      while (!told.done) {
        await new Promise((resolve) => setTimeout(resolve, PAUSE));
        told = await sendAgain("GET", "/api/forget-me");
      }
      this.forgotten();
      toast(told.said);
    } catch (error) {
      toast(error.message);
    }
  }
}

// A further line of a list stands below its words.
function lines(text) {
  return text.split(/(?<=\n)/).map((line) =>
    line.startsWith("- ") ? element("span", { textContent: line.slice(2).trimEnd() }) : line,
  );
}
