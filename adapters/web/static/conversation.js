// What the page knows of the conversation it shows, as the server's events tell it.

export const isOpen = (turn) => turn.state === "waiting" || turn.state === "running";

// A turn is as the server sends it, and another object after each change.
export class Conversation {
  constructor(id) {
    this.id = id;
    this.title = "";
    this.place = ""; // in the list
    this.turns = [];
    this.isKnown = false; // whether a whole state has come
  }

  // Takes the whole state, and returns the turns that have ended since the last one.
  replace({ title, place, turns }) {
    const open = new Set(this.turns.filter(isOpen).map((turn) => turn.id));
    Object.assign(this, { title, place, turns, isKnown: true });
    return turns.filter((turn) => !isOpen(turn) && open.has(turn.id));
  }

  // Takes a change: the answer's first `keep` UTF-16 units stay, and `add` follows them. Returns
  // the turn, or null for one that is not known here.
  change({ keep, add, ...fields }) {
    const index = this.turns.findIndex((turn) => turn.id === fields.id);
    const before = this.turns[index];
    if (!before && fields.question === undefined) return null;
    const answer = (before?.answer ?? "").slice(0, keep) + (add ?? "");
    const turn = { ...before, ...fields, answer };
    if (before) this.turns[index] = turn;
    else this.turns.push(turn);
    return turn;
  }

  // The turn that Stop means: the first that is not answered yet.
  get open() {
    return this.turns.find((turn) => turn.state === "running") ?? this.turns.find(isOpen);
  }
}
