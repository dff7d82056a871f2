// What the model has thought, folded above its answer. Its words are fetched while it is unfolded.
import { send } from "./api.js";
import { element } from "./dom.js";
import { t } from "./words.js";

export class Thoughts {
  constructor() {
    this.summary = element("summary");
    this.text = element("div", { dir: "auto" });
    const unfolded = () => this.load();
    const looks = { className: "thoughts", hidden: true, ontoggle: unfolded };
    this.element = element("details", looks, this.summary, this.text);
    this.isLoading = false;
  }

  // `path` is that of the words at the server, of one of several versions.
  show({ thought, state }, path) {
    const news = thought ? `${path} ${state} ${thought}` : "";
    if (news === this.news) return;
    Object.assign(this, { news, path });
    this.element.hidden = !thought;
    this.summary.textContent = thoughtFor(thought);
    this.load();
  }

  // Fetches again what has grown meanwhile.
  async load() {
    if (!this.element.open || !this.news || this.isLoading) return;
    const { news } = this;
    this.isLoading = true;
    try {
      const { text } = await send("GET", this.path);
      this.put(text || t("This is no longer kept."));
    } catch (error) {
      this.put(error.message);
    }
    this.isLoading = false;
    if (news !== this.news) this.load();
  }

  // What a person has selected stays so.
  put(text) {
    const { textContent: before } = this.text;
    if (before && text.startsWith(before)) this.text.append(text.slice(before.length));
    else if (before !== text) this.text.textContent = text;
  }
}

function thoughtFor(seconds) {
  if (seconds < 100) return t("Thought for {seconds} s", { seconds });
  return t("Thought for {minutes} min", { minutes: Math.round(seconds / 60) });
}
