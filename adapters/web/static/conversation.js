// What the page knows of the conversation it shows, as the server's events tell it.

export const isOpen = (turn) => turn.state === "waiting" || turn.state === "running";

// A turn is as the server sends it, with `version`: how often it has changed here.
export class Conversation {
  constructor(id) {
    this.id = id;
    this.title = "";
    this.turns = [];
    this.isKnown = false; // whether a whole state has come
  }

  // Takes the whole state, and returns the turns that have ended since the last one.
  replace(state) {
    const before = new Map(this.turns.map((turn) => [turn.id, turn]));
    this.title = state.title;
    this.turns = state.turns.map((turn) => merged(before.get(turn.id), turn));
    const known = this.isKnown;
    this.isKnown = true;
    if (!known) return [];
    return this.turns.filter((turn) => !isOpen(turn) && isOpen(before.get(turn.id) ?? turn));
  }

  // Takes a change: the answer's first `keep` UTF-16 units stay, and `add` follows them. Returns
  // the turn, or null for one that is not known here.
  change({ keep, add, ...fields }) {
    const index = this.turns.findIndex((turn) => turn.id === fields.id);
    const before = this.turns[index];
    if (!before && fields.question === undefined) return null;
    const answer = (before?.answer ?? "").slice(0, keep) + (add ?? "");
    const turn = merged(before, { ...before, ...fields, answer });
    if (before) this.turns[index] = turn;
    else this.turns.push(turn);
    return turn;
  }

  get last() {
    return this.turns.at(-1);
  }

  // The turn that Stop means: the first that is not answered yet.
  get open() {
    return this.turns.find((turn) => turn.state === "running") ?? this.turns.find(isOpen);
  }
}

function merged(before, turn) {
  return { ...turn, version: (before?.version ?? 0) + 1 };
}
