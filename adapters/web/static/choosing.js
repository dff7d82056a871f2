// How people choose who answers them and how: the list of models, and the form for the rest. It is
// loaded when somebody opens one of them.
import { pathOf, send, sendAgain } from "./api.js";
import { ask, newDialog, read } from "./dialogs.js";
import { announce, byId, element } from "./dom.js";
import { t } from "./words.js";

const FOR_ONE = t("For this conversation, from your next question on.");
const FOR_ALL = t("For all your conversations, unless one has its own choice.");
const WRITTEN = ["persona", "temperature", "max_tokens", "instructions"];
const CAN = { pictures: t("sees pictures"), tools: t("uses tools") };

const placeOf = (id) => (id ? pathOf(id, "preferences") : "/api/preferences");

// Opens the list, or the form if there is only one model. `answers` is told what was chosen, and
// `composer` what holds for one question only. Without an `id` it is for all conversations.
export async function choose(answers, id, composer) {
  const known = await read(placeOf(id));
  if (!known) return;
  const style = () => new Style(answers, id, known);
  if (known.models.length) new Models(answers, id, known, composer, style);
  else style();
}

// A listbox in a dialog below its button: the arrows move, Enter chooses, Escape leaves.
class Models {
  constructor(answers, id, known, composer, style) {
    Object.assign(this, { answers, id, known, composer });
    this.list = element("ul", { role: "listbox", tabIndex: 0, aria: { labelledby: "models-title" } });
    this.wrong = element("p", { className: "wrong", role: "alert" });
    const place = id ? t("This conversation") : t("All conversations");
    this.scopes = [
      this.radio(place, !composer.once),
      this.radio(t("Next question only"), composer.once),
    ];
    const scope = element("fieldset", { className: "segments" }, ...this.scopes);
    const more = element("button", { type: "button", textContent: t("Persona and style …") });
    more.onclick = () => {
      this.dialog.close();
      style();
    };
    const { dialog, body, close } = newDialog("models", t("Who answers"));
    this.dialog = dialog;
    const choices = element("div", { className: "choices" }, more, close);
    body.append(scope, this.list, this.wrong, choices);
    // A press beside it leaves it.
    this.dialog.onclick = (event) => {
      if (event.target === this.dialog) this.dialog.close();
    };
    this.list.onkeydown = (event) => this.pressed(event);
    this.list.onclick = (event) => this.take(event.target.closest("li"));
    this.fill();
    this.dialog.showModal();
    this.putBelow(byId("model"));
    this.list.focus();
  }

  radio(text, checked) {
    const input = element("input", { type: "radio", name: "models-for", checked: Boolean(checked) });
    input.onchange = () => this.fill();
    return element("label", {}, input, text);
  }

  get isOnce() {
    return this.scopes[1].firstChild.checked;
  }

  fill() {
    const { models, model } = this.known;
    const usual = this.id ? t("As in all your conversations") : t("As it is set up here");
    const why = this.isOnce ? t("As this conversation goes") : usual;
    const all = [{ name: "", label: t("Default"), purpose: why, can: [] }, ...models];
    if (model && !models.some((one) => one.name === model)) {
      all.push({ name: model, label: model, purpose: t("It is not offered any more"), can: [] });
    }
    const chosen = this.isOnce ? (this.composer.once?.name ?? "") : model;
    const options = all.map(({ name, label, purpose, can }, at) => {
      const line = [purpose, ...can.map((one) => CAN[one])].filter(Boolean).join(" · ");
      const looks = { id: `models-${at}`, role: "option", data: { name, label } };
      const words = [element("strong", { textContent: label }), element("span", { textContent: line })];
      return element("li", { ...looks, aria: { selected: String(name === chosen) } }, ...words);
    });
    this.list.replaceChildren(...options);
    this.move(options.find((one) => one.dataset.name === chosen) ?? options[0]);
  }

  move(option) {
    this.now = option;
    for (const one of this.list.children) one.classList.toggle("now", one === option);
    this.list.setAttribute("aria-activedescendant", option.id);
    option.scrollIntoView({ block: "nearest" });
  }

  pressed(event) {
    const { firstElementChild, lastElementChild } = this.list;
    const { nextElementSibling: after, previousElementSibling: before } = this.now;
    const moves = { ArrowDown: after, ArrowUp: before, Home: firstElementChild, End: lastElementChild };
    if (event.key in moves) this.move(moves[event.key] ?? this.now);
    else if (event.key === "Enter" || event.key === " ") this.take(this.now);
    else return;
    event.preventDefault();
  }

  async take(option) {
    if (!option || this.isBusy) return;
    const { name, label } = option.dataset;
    if (this.isOnce) {
      this.composer.choose(name ? { name, label } : null);
      this.dialog.close();
      const usual = t("Your next question goes as usual.");
      announce(name ? t("{label} answers your next question.", { label }) : usual);
      this.composer.box.focus();
      return;
    }
    this.isBusy = true;
    try {
      this.answers.tell((await sendAgain("PATCH", placeOf(this.id), { model: name })).answers);
      this.dialog.close();
      announce(t("Saved."));
    } catch (error) {
      this.wrong.textContent = error.message;
    }
    this.isBusy = false;
  }

  putBelow(button) {
    const { left, bottom } = button.getBoundingClientRect();
    // Also in a window that becomes narrower, as a phone that is turned.
    const most = "calc(100vw - 24rem)";
    this.dialog.style.inset = `${bottom + 6}px auto auto max(1rem, min(${left}px, ${most}))`;
    this.dialog.style.maxHeight = `calc(100dvh - ${bottom + 22}px)`;
  }
}

// The form: a persona, by its name or in words, and what holds for all of the person's questions.
class Style {
  constructor(answers, id, known) {
    Object.assign(this, { answers, id, known, dialog: byId("answers"), wrong: byId("answers-wrong") });
    this.text = byId("answers-persona");
    this.names = byId("answers-names");
    for (const name of WRITTEN) byId(`answers-${name}`).value = known[name];
    byId("answers-place").textContent = id ? FOR_ONE : FOR_ALL;
    this.wrong.textContent = "";
    this.fill();
    this.names.onchange = () => {
      this.text.value = this.persona?.text ?? "";
      this.match();
    };
    this.text.oninput = () => this.match();
    byId("answers-keep").onclick = () => this.keep();
    byId("answers-drop").onclick = () => this.drop(this.persona.name);
    this.dialog.onsubmit = (event) => {
      event.preventDefault();
      this.save();
    };
    this.dialog.showModal();
  }

  get persona() {
    return this.known.personas[this.names.value];
  }

  fill() {
    const groups = [
      [t("Offered here"), false],
      [t("Saved by you"), true],
    ].map(([label, own]) => {
      const options = this.known.personas.map((one, value) =>
        one.own === own ? element("option", { value, textContent: one.name }) : "",
      );
      return element("optgroup", { label }, ...options.filter(Boolean));
    });
    const words = element("option", { value: "", textContent: t("Your own words") });
    this.names.replaceChildren(words, ...groups.filter((one) => one.children.length));
    byId("answers-named").hidden = !this.known.personas.length;
    this.match();
  }

  // Shows the name of the persona whose words stand in the box.
  match() {
    const written = this.text.value.trim();
    const at = this.known.personas.findLastIndex((one) => one.text === written);
    this.names.value = at < 0 ? "" : String(at);
    byId("answers-keep").hidden = !written || at >= 0;
    byId("answers-drop").hidden = !this.persona?.own;
  }

  async keep() {
    const text = t("You can choose it by this name in all your conversations.");
    const name = await ask({ title: t("Save this persona"), text, value: "", yes: t("Save it") });
    if (name) await this.write(name, this.text.value, t("“{name}” is saved.", { name }));
  }

  async drop(name) {
    const text = t("“{name}” will be gone. Conversations that use it keep its words.", { name });
    const question = { title: t("Delete this persona?"), text, yes: t("Delete"), isDanger: true };
    if (await ask(question)) await this.write(name, "", t("“{name}” is deleted.", { name }));
  }

  async write(name, text, said) {
    try {
      await sendAgain("PUT", "/api/personas", { name, text });
      this.known.personas = (await send("GET", placeOf(this.id))).personas;
      this.fill();
      this.wrong.textContent = "";
      announce(said);
    } catch (error) {
      this.refuse(error, "persona");
    }
  }

  // What is refused stays in the form, with the reason below its field.
  refuse(error, name) {
    const field = byId(`answers-${name}`);
    (field?.closest("label") ?? byId("answers-place")).after(this.wrong);
    this.wrong.textContent = error.message;
    field?.focus();
  }

  async save() {
    // What the person left as it was stays as it is now: another page may have changed it.
    const changes = WRITTEN.map((name) => [name, byId(`answers-${name}`).value]).filter(
      ([name, text]) => text !== this.known[name],
    );
    try {
      const { answers } = await sendAgain("PATCH", placeOf(this.id), Object.fromEntries(changes));
      this.answers.tell(answers);
      this.dialog.close();
      announce(t("Saved."));
    } catch (error) {
      this.refuse(error, error.field);
    }
  }
}
