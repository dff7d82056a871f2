// What a screen reader hears of a growing answer: each block, once it is complete.
import { byId, element } from "./dom.js";

const KEPT = 6; // blocks that stay in the region, which a reader may have to catch up with

export class Voice {
  constructor() {
    this.region = byId("spoken");
    this.turn = "";
    this.said = 0; // how many blocks of the turn's answer
  }

  // Says the blocks that are new. What stood there when the turn was first seen is not read again.
  follow(turn, blocks) {
    const isOver = turn.state !== "running" && turn.state !== "waiting";
    const complete = isOver ? blocks.length : Math.max(0, blocks.length - 1);
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
    box.replaceWith(`${box.querySelector("pre").getAttribute("aria-label")}.`);
  }
  for (const box of copy.querySelectorAll(".table")) box.replaceWith("A table.");
  return copy.textContent.trim();
}
