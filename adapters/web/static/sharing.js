// The dialog in which a link to a conversation is made, and the person's links are revoked.
import { pathOf, send, sendAgain } from "./api.js";
import { newDialog } from "./dialogs.js";
import { copyBy, element, uuid } from "./dom.js";
import { date, t } from "./words.js";

const READERS = {
  people: t("Everybody who has the link and is signed in here can read it."),
  anyone: t("Everybody who has the link can read it, without a login."),
  here: t("Everybody at this machine who has the link can read it."),
};
const SHOWN = t(
  "A link shows this conversation as it is now: what you ask or change later is not in it, and what you delete is gone from it, too.",
);
const PERIODS = { 1: t("One day"), 7: t("One week"), 30: t("Thirty days") };

let press = ""; // the id of a press whose answer has not come, so that it counts once

export async function openSharing(conversation, { shares, login }) {
  const { dialog, body, close } = newDialog("sharing", t("Share this conversation"));
  const options = Object.entries(PERIODS).map(([value, text]) => element("option", { value }, text));
  const days = element("select", {}, ...options);
  days.value = "7";
  const make = element("button", { type: "button", className: "primary" }, t("Make a link"));
  const said = element("p", { role: "status" });
  const heading = element("h2", { textContent: t("Your links"), hidden: true });
  const list = element("ul", { className: "links" });
  body.append(
    element("p", {}, SHOWN),
    element("p", {}, READERS[login ? shares : "here"]),
    element("label", {}, t("Valid for"), " ", days),
    element("div", { className: "choices" }, close, make),
    said,
    heading,
    list,
  );

  const show = (links) => {
    list.replaceChildren(...links.map((link) => itemOf(link, revoke)));
    heading.hidden = !links.length;
  };
  const load = async () => show(await send("GET", "/api/shares"));
  const attempt = async (work, done = "") => {
    try {
      await work();
      said.textContent = done;
    } catch (error) {
      if (!error.passes) press = "";
      said.textContent = error.message;
    }
  };
  const revoke = ({ name }) =>
    attempt(async () => {
      await sendAgain("DELETE", `/api/shares/${name}`);
      await load();
      days.focus(); // the button that had it is gone
    }, t("The link no longer works."));
  make.onclick = () => {
    make.disabled = true;
    press ||= uuid();
    const sent = { id: press, days: Number(days.value) };
    attempt(async () => {
      await sendAgain("POST", pathOf(conversation, "shares"), sent);
      press = "";
      await load();
      list.querySelector("button").focus();
    }, t("The link is ready to be copied.")).finally(() => (make.disabled = false));
  };
  dialog.showModal();
  days.focus();
  await attempt(load);
}

function itemOf({ token, title, made, ends, ...link }, revoke) {
  const href = `/s/${token}`;
  const name = title || t("New conversation");
  const times = t("Made {from}, ends {until}", { from: date(made), until: date(ends) });
  const looks = { href, target: "_blank", title: name, dir: "auto" };
  const button = (text, onclick) =>
    element("button", { type: "button", onclick, aria: { label: `${text}: ${name}` } }, text);
  return element(
    "li",
    {},
    element("span", {}, element("a", looks, name), element("small", {}, times)),
    button(t("Copy"), (event) => copyBy(event.currentTarget, new URL(href, location.href).href)),
    button(t("Revoke"), () => revoke(link)),
  );
}
