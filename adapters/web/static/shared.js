// A conversation as a link shows it: to be read, and nothing else.
import { send } from "./api.js";
import { byId } from "./dom.js";
import { takeBy } from "./saving.js";
import { TurnView } from "./turn.js";
import { date, t } from "./words.js";

const ENDED = { state: "done", note: "", consent: "", end: "", rating: "", versions: [], thought: 0 };
const PLACE = { isLast: false, isNext: false, isBusy: true, rates: false, model: "" };

async function load() {
  try {
    show(await send("GET", `/api/shared/${location.pathname.split("/").at(-1)}`));
  } catch (error) {
    if (error.status === 404) byId("title").textContent = t("This conversation is not here");
    byId("about").textContent = error.message;
  }
}

function show({ by, made, ends, endings, turns }) {
  const [from, until] = [made, ends].map(date);
  const title = turns[0].title || t("A conversation");
  document.title = `${title} · Parley`;
  byId("title").textContent = title;
  byId("about").textContent = by
    ? t("As {by} shared it on {from}. The link ends on {until}.", { by, from, until })
    : t("As it was shared on {from}. The link ends on {until}.", { from, until });
  const said = turns.map((turn) => ({ ...ENDED, ...turn }));
  byId("turns").append(...said.map(viewOf));
  byId("hint").hidden = false;
  document.addEventListener("click", ({ target }) => {
    const button = target.closest("button");
    if (button) takeBy(button, said[button.closest(".turn")?.dataset.turn], endings);
  });
}

function viewOf(turn) {
  const view = new TurnView();
  view.show(turn, PLACE);
  const acting = ".consent, [data-action]:not([data-action^='copy'])";
  for (const one of view.element.querySelectorAll(acting)) one.remove();
  return view.element;
}

load();
