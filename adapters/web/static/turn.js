// How one question and its answer look.
import { pathOf } from "./api.js";
import { Below, divided } from "./below.js";
import { ConsentCard } from "./consent.js";
import { isOpen } from "./conversation.js";
import { element, icon, iconButton, setText } from "./dom.js";
import { chip } from "./files.js";
import { GrowingMarkdown } from "./markdown.js";
import { Thoughts } from "./thoughts.js";
import { t } from "./words.js";

const TAKES_TIME = t("This takes longer than usual. The model may still be loading.");
// A longer question, such as a pasted file, is folded.
const [MOST_LINES, MOST_SIGNS] = [20, 2000];
const SLOW = 8000; // milliseconds without a word after which a person may wonder

// Buttons carry data-action; the page hears them all in one place and finds the turn's id above.
export class TurnView {
  constructor() {
    this.files = element("ul", { className: "chips", aria: { label: t("Files") } });
    this.question = element("div", { className: "said", dir: "auto" });
    const unfold = () => this.fold(!this.question.classList.contains("folded"));
    this.unfold = element("button", { type: "button", className: "unfold", onclick: unfold });
    this.asking = tools(t("Your message"), [
      ["copy", t("Copy your message"), "copy-question"],
      ["edit", t("Edit your message"), "edit"],
      ["delete", t("Delete your message"), "take-back"],
    ]);
    this.count = element("span", { aria: { hidden: "true" } });
    this.older = iconButton("left", t("The version before"), "older");
    this.newer = iconButton("right", t("The next version"), "newer");
    const looks = { className: "versions", role: "group" };
    this.versions = element("div", looks, this.older, this.count, this.newer);
    this.thoughts = new Thoughts();
    this.text = element("div", { className: "text" });
    this.markdown = new GrowingMarkdown(this.text);
    const dots = ["i", "i", "i"].map((name) => element(name));
    this.dots = element("span", { className: "dots", aria: { hidden: "true" } }, ...dots);
    this.below = new Below();
    this.note = element("p", { className: "note" });
    this.card = new ConsentCard();
    this.more = element("p", { className: "more" });
    this.answering = tools(t("The answer"), [
      ["copy", t("Copy the answer"), "copy-answer"],
      ["good", t("Good answer"), "good"],
      ["bad", t("Bad answer"), "bad"],
      ["again", t("Answer again"), "regenerate"],
    ]);
    this.model = this.answering.appendChild(element("span", { className: "by" }));
    const question = [this.files, this.question, this.unfold, this.versions, this.asking];
    this.asked = part("question", t("You said"), ...question);
    const said = [this.thoughts.element, this.text, this.dots, ...this.below.elements];
    const ends = [this.note, this.card.element, this.more, this.answering];
    this.answer = part("answer", t("Parley said"), ...said, ...ends);
    this.element = element("article", { className: "turn" }, this.asked, this.answer);
    this.ask("");
    this.turn = null; // as it is shown
    this.slow = 0;
  }

  // `place` says where the turn stands: { isLast, isNext, isBusy, rates, versions, model, talk }.
  show(turn, place) {
    const where = JSON.stringify(place);
    if (turn === this.turn && where === this.where) return;
    Object.assign(this, { turn, where });
    this.element.dataset.turn = turn.id;
    this.element.dataset.state = turn.consent ? "asking" : turn.state;
    // A turn that continues the answer above has no words of its own.
    const isSwitch = turn.versions?.length > 1;
    this.asked.hidden = !turn.question && !isSwitch;
    this.question.hidden = this.asking.hidden = !turn.question;
    this.versions.hidden = !isSwitch;
    if (isSwitch) this.showVersions(turn, place);
    if (this.question.textContent !== turn.question) this.ask(turn.question);
    if (this.files.childElementCount !== turn.files.length) {
      this.files.replaceChildren(...turn.files.map((file) => chip(file)));
    }
    this.showAnswer(turn, place);
    this.showTools(turn, place);
  }

  // A button that does nothing now keeps the focus.
  showVersions({ id, versions }, { isBusy }) {
    const at = versions.indexOf(id);
    setText(this.count, `${at + 1}/${versions.length}`);
    this.versions.ariaLabel = versionOf(at, versions);
    this.older.ariaDisabled = String(isBusy || at === 0);
    this.newer.ariaDisabled = String(isBusy || at === versions.length - 1);
  }

  ask(question) {
    this.question.textContent = question;
    const isLong = question.length > MOST_SIGNS || question.split("\n").length > MOST_LINES;
    this.unfold.hidden = !isLong;
    this.fold(isLong);
  }

  fold(isFolded) {
    this.question.classList.toggle("folded", isFolded);
    this.unfold.ariaExpanded = String(!isFolded);
    this.unfold.textContent = isFolded ? t("Show all") : t("Show less");
  }

  showAnswer(turn, place) {
    const open = isOpen(turn);
    this.thoughts.show(turn, pathOf(place.talk, "turns", turn.id, "thoughts"));
    this.markdown.show(turn.answer, { ended: !open });
    const isGrowing = open && !turn.consent;
    const isNext = turn.state === "running" || place.isNext;
    this.answer.ariaBusy = String(isGrowing);
    this.dots.hidden = turn.answer !== "" || !isNext || Boolean(turn.consent);
    this.below.show(turn);
    this.card.show(turn);
    setText(this.note, noteOf(turn, place));
    // A model may be loading for a minute: the person reads that something happens.
    const tell = () => this.note.textContent || setText(this.note, TAKES_TIME);
    if (this.dots.hidden) clearTimeout(this.slow);
    this.slow = this.dots.hidden ? 0 : this.slow || setTimeout(tell, SLOW);
  }

  showTools(turn, place) {
    const ended = !isOpen(turn) && !turn.isPending;
    const free = place.isLast && !place.isBusy;
    const isOurs = place.isLast || turn.state === "waiting" || (place.versions && !place.isBusy);
    show(this.asking, "edit", !turn.isPending && isOurs);
    show(this.asking, "take-back", !turn.isPending && turn.state !== "running");
    this.answering.hidden = !ended || !(turn.answer || free);
    show(this.answering, "copy-answer", Boolean(turn.answer));
    show(this.answering, "regenerate", free && turn.end !== "failed");
    for (const rating of ["good", "bad"]) {
      const button = show(this.answering, rating, place.rates && turn.state === "done");
      button.ariaPressed = String(turn.rating === rating);
    }
    const model = turn.answer ? turn.model || place.model : "";
    setText(this.model, shortName(model));
    this.model.title = model;
    // A button that is being pressed stays while an answer above grows.
    const ways = waysOn(turn, ended && free);
    const names = ways.map(({ dataset }) => dataset.action).join();
    if (names !== this.ways) this.more.replaceChildren(...ways);
    this.ways = names;
    this.more.hidden = !ways.length;
  }
}

// `at` counts from 0.
export function versionOf(at, versions) {
  return t("Version {number} of {count}", { number: at + 1, count: versions.length });
}

// Hubs put an owner before a model's name, and servers a path.
export function shortName(model) {
  return model.split("/").at(-1);
}

function part(className, heading, ...children) {
  const title = element("h2", { className: "sr", textContent: heading });
  return element("div", { className }, title, ...children);
}

function tools(label, buttons) {
  const made = buttons.map(([name, text, action]) => iconButton(name, text, action));
  return element("div", { className: "tools", role: "group", aria: { label } }, ...made);
}

function show(bar, action, isShown) {
  const button = bar.querySelector(`[data-action="${action}"]`);
  button.hidden = !isShown;
  return button;
}

function noteOf(turn, place) {
  if (turn.why) return turn.why;
  if (turn.isPending && turn.note) return turn.note;
  if (turn.state === "waiting" && !place.isNext) return t("Waits for the answer above.");
  const { others } = divided(turn.below);
  if (others) return plain(others);
  if (turn.consent) return ""; // its card says what it waits for
  if (turn.note && isOpen(turn)) return plain(turn.note);
  if (turn.state === "stopped" && !turn.answer) return t("Stopped.");
  if (isOpen(turn) || turn.answer) return "";
  return t("There is no answer. Try again, or ask in another way.");
}

// A platform shows a notice in brackets; here its look sets it apart.
function plain(text) {
  return text.replace(/^\((.*)\)$/gm, "$1").replaceAll("`", "").trim();
}

function waysOn(turn, free) {
  if (turn.why) {
    return [wide("again", t("Try again"), "resend"), wide("edit", t("Edit"), "unsend")];
  }
  if (!free) return [];
  if (turn.end === "cut") return [wide("on", t("Continue"), "continue")];
  if (turn.end === "failed") return [wide("again", t("Try again"), "regenerate")];
  return [];
}

function wide(name, text, action) {
  const looks = { type: "button", className: "button", data: { action } };
  return element("button", looks, icon(name), text);
}
