// Questions that the server does not have yet. They are sent until they are through, also by a page
// that is opened later: the server knows a question by its id and takes it once.
import { pathOf, send } from "./api.js";
import { uuid } from "./dom.js";
import { keep, recall, recallNames } from "./kept.js";

const KEPT = "question:"; // begins the name under which the browser keeps an entry
const LONGEST_PAUSE = 2000; // milliseconds between two attempts

// An entry is { id, conversation, text, files, once, at, why, isThrough, isStopped, failures }: `id`
// will be that of its turn, `once` the model for it alone, `at` is when it was asked, `why` says why
// it was refused, `isStopped` tells that no answer is wanted any longer, and `failures` counts
// attempts in vain.
export class Outbox {
  constructor(changed) {
    this.changed = changed;
    this.entries = [];
  }

  // Takes up what the person has asked before, and keeps what was asked before they were known.
  load() {
    const kept = recallNames(KEPT).map((name) => ({ files: [], ...recall(name), failures: 0 }));
    for (const entry of this.entries) if (this.isLeft(entry)) keep(KEPT + entry.id, entry);
    this.entries.unshift(...kept.sort((one, other) => one.at - other.at));
    for (const entry of kept) if (!entry.why) this.deliver(entry);
  }

  of(conversation) {
    return this.entries.filter((entry) => entry.conversation === conversation);
  }

  add(id, conversation, text, files, once) {
    const entry = { id, conversation, text, files, once, at: Date.now(), why: "", failures: 0 };
    this.entries.push(entry);
    this.changed(entry);
    return this.deliver(entry);
  }

  // One that was refused is asked anew: the server may remember that it was taken back.
  again(entry) {
    keep(KEPT + entry.id, "");
    entry.id = uuid();
    entry.why = "";
    entry.isStopped = false;
    this.changed(entry);
    return this.deliver(entry);
  }

  remove(entry) {
    this.entries = this.entries.filter((other) => other !== entry);
    keep(KEPT + entry.id, "");
    this.changed(entry);
  }

  // The order of the questions in a conversation is that in which they were asked.
  async deliver(entry) {
    keep(KEPT + entry.id, entry);
    let pause = 250;
    while (this.isLeft(entry) && !entry.why) {
      const [first] = this.of(entry.conversation).filter((one) => this.isLeft(one) && !one.why);
      if (first === entry) await this.attempt(entry);
      if (entry.isThrough || entry.why) break;
      await new Promise((resolve) => setTimeout(resolve, pause));
      pause = Math.min(pause * 1.5, LONGEST_PAUSE);
    }
    keep(KEPT + entry.id, this.isLeft(entry) ? entry : "");
    this.changed(entry);
  }

  isLeft(entry) {
    return this.entries.includes(entry) && !entry.isThrough;
  }

  async attempt(entry) {
    try {
      const { id, text, files, once } = entry;
      await send("POST", pathOf(entry.conversation, "questions"), { id, text, files, model: once?.name });
      entry.isThrough = true;
    } catch (error) {
      entry.failures += 1;
      if (!error.passes) entry.why = error.message;
      // A model that is not offered any more refuses the question once.
      if (error.field === "model") entry.once = null;
      this.changed(entry);
    }
  }
}
