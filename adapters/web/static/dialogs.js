// The dialogs: those that ask, those that are made when they are wanted, and the help.
import { send, sendAgain } from "./api.js";
import { byId, element, setText, toast } from "./dom.js";
import { t } from "./words.js";

const PAUSE = 1000; // milliseconds until the page asks again whether a person is forgotten

// Asks in a dialog; returns the text typed, true or null.
export function ask({ title, text = "", value = null, yes, isDanger = false }) {
  const dialog = byId("ask");
  const input = byId("ask-input");
  byId("ask-title").textContent = title;
  setText(byId("ask-text"), text);
  byId("ask-yes").textContent = yes;
  byId("ask-yes").classList.toggle("danger", isDanger);
  input.hidden = value === null;
  input.value = value ?? "";
  input.ariaLabel = title;
  dialog.returnValue = "";
  dialog.showModal();
  // In a dangerous dialog the first button has the focus, which is Cancel.
  if (value !== null) input.select();
  else if (!isDanger) byId("ask-yes").focus();
  return new Promise((resolve) => {
    dialog.onclose = () => {
      // The event comes after the dialog has closed, and it may be open for the next question.
      if (dialog.open) return;
      if (dialog.returnValue !== "yes") resolve(null);
      else resolve(value === null ? true : input.value.trim());
    };
  });
}

// Enter in a field of a dialog presses its first button that submits: Cancel is none.
for (const button of document.querySelectorAll("[data-cancel]")) {
  button.onclick = () => button.closest("dialog").close("");
}

// Returns a dialog that is not open yet, with the box for what is in it and a button that closes it.
// It goes when it is closed.
export function newDialog(id, title) {
  const heading = element("h2", { id: `${id}-title`, textContent: title });
  const body = element("div", {}, heading);
  const dialog = element("dialog", { id, className: "dialog", aria: { labelledby: heading.id } }, body);
  const close = element("button", { type: "button", onclick: () => dialog.close() }, t("Close"));
  dialog.onclose = () => dialog.remove();
  document.body.append(dialog);
  return { dialog, body, close };
}

// Reads what a dialog needs; returns nothing, and says why, if that fails.
export async function read(path) {
  try {
    return await send("GET", path);
  } catch (error) {
    toast(error.message);
    return null;
  }
}

// What people can do here, what they have used today, and how they are forgotten. `forgotten` is
// called when the server has nothing of the person any more.
export async function openHelp(forgotten) {
  const known = await read("/api/help");
  if (!known) return;
  const { help, usage, tools, allowed, question, yes } = known;
  const dialog = byId("help");
  // A further line of a list stands below its words.
  const lines = help.split(/(?<=\n)/).map((line) =>
    line.startsWith("- ") ? element("span", { textContent: line.slice(2).trimEnd() }) : line,
  );
  byId("help-text").replaceChildren(...lines);
  byId("help-usage").textContent = usage;
  const names = tools.map((line) => element("span", { textContent: line.replaceAll("`", "") }));
  byId("help-tools-text").replaceChildren(...names);
  byId("help-allowed").replaceChildren(...allowed.map(revoking));
  byId("help-tools").hidden = !tools.length && !allowed.length;
  byId("help-forget").textContent = yes;
  dialog.returnValue = "";
  dialog.onclose = async () => {
    if (dialog.returnValue !== "forget") return;
    if (await ask({ title: `${yes}?`, text: question, yes, isDanger: true })) forget(forgotten);
  };
  dialog.showModal();
}

// A button that has the person asked again before a tool is used.
function revoking(name) {
  const textContent = t("Ask me again for {name}", { name });
  const button = element("button", { type: "button", textContent });
  button.onclick = async () => {
    try {
      toast((await send("POST", "/api/tools/revoke", { name })).said.replaceAll("`", ""));
      button.remove();
    } catch (error) {
      toast(error.message);
    }
  };
  return button;
}

async function forget(forgotten) {
  try {
    let told = await sendAgain("POST", "/api/forget-me");
    if (!told.done) toast(told.said);
    while (!told.done) {
      await new Promise((resolve) => setTimeout(resolve, PAUSE));
      told = await sendAgain("GET", "/api/forget-me");
    }
    forgotten();
    toast(told.said);
  } catch (error) {
    toast(error.message);
  }
}
