// The open conversation on the screen: its turns in their order, and where the reader stands.
import { isOpen } from "./conversation.js";
import { byId, element } from "./dom.js";
import { TurnView } from "./turn.js";
import { t } from "./words.js";

const KEPT = 6; // blocks that stay in the region, which a reader may have to catch up with
const NEAR = 48; // pixels from the end within which the reader is at the end

export class Log {
  constructor() {
    this.element = byId("log");
    this.scroller = byId("scroller");
    this.down = byId("down");
    this.views = new Map(); // key of a turn -> TurnView
    this.voice = new Voice();
    this.follows = true;
    this.top = 0;
    this.scroller.addEventListener("scroll", () => this.scrolled(), { passive: true });
    this.down.addEventListener("click", () => this.toEnd());
    new ResizeObserver(() => this.keepPlace()).observe(this.scroller);
  }

  // Shows the turns and, below them, the questions on their way. `extras` are what `TurnView.show`
  // is told of each of them.
  show(turns, pending, extras) {
    const all = [...turns, ...pending.map(asTurn)];
    const next = turns.find((turn) => turn.state === "running") ?? all.find(isOpen);
    all.forEach((turn, index) => {
      const isLast = index === turns.length - 1;
      const view = this.view(turn);
      view.show(turn, { isLast, isNext: turn === next, isBusy: Boolean(next), ...extras });
      const there = this.element.children[index];
      if (there !== view.element) this.element.insertBefore(view.element, there ?? null);
    });
    const shown = new Set(all.map(keyOf));
    for (const [id, view] of [...this.views]) {
      if (shown.has(id)) continue;
      view.element.remove();
      this.views.delete(id);
    }
    this.speak(turns);
    this.keepPlace();
  }

  // The answer that was growing is heard to its end before the next one.
  speak(turns) {
    const last = turns.find((turn) => turn.id === this.voice.turn);
    const running = turns.find((turn) => turn.state === "running");
    for (const turn of new Set([last, running])) {
      if (turn) this.voice.follow(turn, this.view(turn).markdown.blocks);
    }
  }

  view(turn) {
    const key = keyOf(turn);
    if (!this.views.has(key)) this.views.set(key, new TurnView());
    return this.views.get(key);
  }

  clear() {
    this.views.clear();
    this.element.replaceChildren();
    this.voice.clear();
    this.follows = true;
  }

  // The reader leaves the end by scrolling up, and joins it again by reaching it.
  scrolled() {
    const { scrollTop } = this.scroller;
    if (this.isAtEnd()) this.follows = true;
    else if (scrollTop < this.top) this.follows = false;
    this.top = scrollTop;
    this.showDown();
  }

  isAtEnd() {
    const { scrollHeight, scrollTop, clientHeight } = this.scroller;
    return scrollHeight - scrollTop - clientHeight < NEAR;
  }

  keepPlace() {
    if (this.follows) this.scroller.scrollTop = this.scroller.scrollHeight;
    this.top = this.scroller.scrollTop;
    this.showDown();
  }

  toEnd() {
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.follows = true;
    const behavior = calm ? "instant" : "smooth";
    this.scroller.scrollTo({ top: this.scroller.scrollHeight, behavior });
  }

  // Returns whether the turn is there.
  goTo(id) {
    const view = [...this.views.values()].find((one) => one.turn.id === id);
    if (!view) return false;
    this.follows = false;
    view.element.scrollIntoView({ block: "start" });
    return true;
  }

  showDown() {
    this.down.hidden = this.follows || this.isAtEnd();
  }
}

// All versions of a turn have one view, so that the focus and the place on the screen stay.
function keyOf(turn) {
  return turn.first ?? turn.id;
}

function asTurn({ id, text, files, why, failures }) {
  const note = failures > 1 ? t("Not sent yet. I keep trying.") : "";
  const state = why ? "failed" : "waiting";
  return { id, question: text, files, answer: "", state, why, note, isPending: true };
}

// What a screen reader hears of a growing answer: each block, once it is complete.
class Voice {
  constructor() {
    this.region = byId("spoken");
    this.turn = "";
    this.said = 0; // how many blocks of the turn's answer
  }

  // Says the blocks that are new. What stood there when the turn was first seen is not read again.
  follow(turn, blocks) {
    const complete = isOpen(turn) && !turn.consent ? Math.max(0, blocks.length - 1) : blocks.length;
    if (turn.id !== this.turn) {
      this.turn = turn.id;
      this.said = complete;
    }
    // An answer that is written anew begins again.
    this.said = Math.min(this.said, complete);
    while (this.said < complete) this.say(spoken(blocks[this.said++].element));
  }

  say(text) {
    if (text) this.region.append(element("p", { textContent: text }));
    while (this.region.childElementCount > KEPT) this.region.firstElementChild.remove();
  }

  clear() {
    this.turn = "";
    this.region.replaceChildren();
  }
}

// Code and tables are named only: they are read where they stand, at the reader's own pace.
function spoken(block) {
  const copy = block.cloneNode(true);
  for (const box of copy.querySelectorAll(".code")) {
    box.replaceWith(`${box.querySelector("pre").ariaLabel}.`);
  }
  for (const box of copy.querySelectorAll(".table")) box.replaceWith(t("A table."));
  for (const box of copy.querySelectorAll("input")) box.replaceWith(box.checked ? "☑ " : "☐ ");
  for (const note of copy.querySelectorAll("[data-note]")) note.replaceWith(`[${note.textContent}] `);
  return copy.textContent.trim();
}
