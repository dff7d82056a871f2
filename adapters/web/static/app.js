// The page: which conversation is open, and what people do with it.
import { divided } from "./below.js";
import { Events, pathOf, send, sendAgain } from "./api.js";
import { Composer, editQuestion, KEYBOARD_ON_SCREEN } from "./composer.js";
import { Conversation, isOpen } from "./conversation.js";
import { ask, openHelp } from "./dialogs.js";
import { announce, byId, icon, loaded, toast, uuid } from "./dom.js";
import { keep, keepFor, recall, recallNames } from "./kept.js";
import { Log } from "./log.js";
import { Answers } from "./model.js";
import { Outbox } from "./outbox.js";
import { takeBy } from "./saving.js";
import { Sidebar } from "./sidebar.js";
import { shortName, versionOf } from "./turn.js";
import { chosenLanguage, speak, t } from "./words.js";

const THEMES = { auto: t("as the system"), light: t("light"), dark: t("dark") };
const UNTITLED = t("New conversation");
const BRANCH = t(
  "This begins a new branch. What followed stays with the version that is there now.",
);

class App {
  constructor() {
    this.me = { name: "", model: "", endings: {} };
    this.conversation = null; // null while a new one has no question yet
    this.events = null;
    this.frame = 0;
    this.log = new Log();
    this.answers = new Answers();
    this.sidebar = new Sidebar({
      rename: (one) => this.rename(one),
      put: (one, place) => this.put(one, place),
      delete: (one) => this.delete(one),
      deleted: (ids) => this.deleted(ids),
    });
    this.composer = new Composer({
      send: (text) => (/^help\s*\.?$/i.test(text) ? this.openHelp() : this.ask(text)),
      editLast: () => this.edit(this.conversation?.turns.at(-1)),
    });
    this.outbox = new Outbox((entry) => this.outboxChanged(entry));
  }

  start() {
    document.addEventListener("click", (event) => this.clicked(event));
    document.addEventListener("keydown", (event) => this.pressed(event));
    for (const name of ["dragover", "dragleave", "drop", "paste"]) {
      document.addEventListener(name, (event) => this.brought(event));
    }
    addEventListener("popstate", () => this.route());
    addEventListener("focus", () => this.sidebar.load());
    this.setTheme(recall("theme", "auto"));
    byId("language").value = chosenLanguage;
    byId("language").onchange = (event) => speak(event.target.value);
    this.route();
    this.sidebar.load();
    this.learnWhoIAm();
  }

  async learnWhoIAm() {
    try {
      this.me = await send("GET", "/api/me");
      keepFor(this.me.id);
      // What was begun meanwhile goes before the draft.
      this.composer.put(this.composer.box.value || recall(this.composer.name));
      this.composer.choose(this.composer.once ?? recall(this.composer.onceName, null));
      this.composer.files.limits = this.me;
      byId("attach").hidden = !this.me.files;
      this.outbox.load();
      byId("me").textContent = this.me.name === "Guest" ? t("Guest") : this.me.name || "";
      byId("demo").hidden = !this.me.demo;
      byId("logout").hidden = this.me.login !== "password";
      this.answers.name = shortName(this.me.model || "");
      this.answers.paint();
      this.paintSoon();
    } catch (error) {
      if (error.passes) setTimeout(() => this.learnWhoIAm(), 2000);
    }
  }

  // Opening and leaving conversations

  // An address that no conversation has says so.
  route() {
    const id = /^\/c\/([A-Za-z0-9-]{8,64})$/.exec(location.pathname)?.[1] ?? "";
    if (id && id === this.conversation?.id) return;
    this.leave({ isMissing: !id && location.pathname !== "/" });
    if (id) this.follow(id);
    else {
      this.composer.open("");
      this.answers.ask();
    }
    this.paint();
  }

  // Behind a "#", a path names the turn to be shown.
  go(path) {
    const [place, turn] = path.split("#");
    this.sought = turn;
    this.paintSoon();
    if (place !== location.pathname) history.pushState(null, "", place);
    this.route();
    this.sidebar.setOpen(false);
    this.composer.box.focus();
  }

  leave({ isMissing }) {
    this.events?.close();
    this.events = null;
    this.conversation = null;
    this.log.clear();
    byId("missing").hidden = !isMissing;
    byId("connection").hidden = true;
  }

  follow(id) {
    this.conversation = new Conversation(id);
    this.composer.open(id);
    this.events = new Events(id, {
      open: () => this.connected(),
      lost: (failures) => this.lost(failures),
      end: ({ why }) => this.tellConnection(why, t("Continue here")),
      state: (state) => this.stateCame(state),
      turn: (change) => this.turnCame(change),
      gone: () => this.gone(),
      idle: () => !this.conversation?.open && !this.outbox.of(id).length,
    });
  }

  // What the server tells

  stateCame(state) {
    const { id, title, place, turns: before } = this.conversation;
    // What was asked here is heard of, though its turn may be older than the connection.
    const asked = new Set(this.outbox.of(id).map((entry) => entry.id));
    const ended = this.conversation.replace(state);
    const begun = this.conversation.turns.filter((turn) => asked.has(turn.id));
    for (const turn of new Set([...ended, ...begun])) this.say(turn);
    if (state.title !== title || state.place !== place) this.sidebar.load();
    this.answers.tell(state.answers);
    this.dropDelivered();
    this.paintSoon();
    const known = new Set(before.map((turn) => turn.consent));
    const asking = this.conversation.turns.find((turn) => turn.consent && !known.has(turn.consent));
    if (asking) this.askForConsent(asking);
  }

  turnCame(change) {
    const before = this.conversation.turns.find((turn) => turn.id === change.id);
    const turn = this.conversation.change(change);
    if (!turn) return this.events.connect();
    this.dropDelivered();
    if (turn.consent && turn.consent !== before?.consent) return this.askForConsent(turn);
    // A turn may have ended before the page hears of it at all.
    if (before && isOpen(turn) === isOpen(before)) return this.paintSoon();
    // The end of the answer is heard before the words that it is complete.
    this.paint();
    return this.say(turn);
  }

  say(turn) {
    if (isOpen(turn)) announce(t("Parley is answering."));
    else if (turn.state === "done") announce(t("The answer is complete."));
    else if (turn.state === "stopped") announce(t("The answer was stopped."));
    else announce(t("The answer failed. {why}", { why: divided(turn.below).others }));
  }

  askForConsent(turn) {
    this.paint();
    const question = turn.note.replaceAll("`", "");
    announce(t("Parley asks: {question}", { question }));
    this.log.view(turn).card.takeFocus();
  }

  gone() {
    const { id } = this.conversation;
    keep(`draft:${id}`, "");
    this.sidebar.load();
    if (this.outbox.of(id).length) return;
    // What is in the box stays there.
    this.leave({ isMissing: true });
    this.paint();
  }

  connected() {
    if (!byId("connection").hidden) this.sidebar.load();
    byId("connection").hidden = true;
  }

  lost(failures) {
    if (failures < 2) return;
    this.tellConnection(t("The connection is lost. I keep trying, and keep what you write."));
    // A stream does not tell why it ended: a login may have run out.
    if (failures % 4 === 2) send("GET", "/api/me").catch(() => {});
  }

  tellConnection(text, label = t("Try now")) {
    byId("connection").querySelector("span").textContent = text;
    byId("reconnect").textContent = label;
    byId("connection").hidden = false;
  }

  // Questions

  ask(text) {
    const { once } = this.composer;
    this.composer.choose(null);
    if (!this.conversation) {
      byId("missing").hidden = true;
      this.follow(uuid());
      history.pushState(null, "", `/c/${this.conversation.id}`);
    }
    this.events.resume();
    this.log.follows = true;
    this.outbox.add(uuid(), this.conversation.id, text, this.composer.files.take(), once);
    this.paintSoon();
  }

  outboxChanged(entry) {
    if (entry.conversation !== this.conversation?.id) return;
    if (entry.isThrough) this.sidebar.load();
    this.dropDelivered();
    this.paintSoon();
  }

  // A question leaves the outbox when its turn is seen.
  dropDelivered() {
    const { id, turns } = this.conversation;
    for (const entry of this.outbox.of(id)) {
      const turn = turns.find((one) => one.id === entry.id);
      if (turn) this.outbox.remove(entry);
      if (turn && entry.isStopped) this.act(turn, "stop");
    }
  }

  // Returns whether there is a question to edit.
  edit(turn) {
    if (!turn?.question) return false;
    const isLast = turn === this.conversation.turns.at(-1);
    const hint = isLast || isOpen(turn) ? "" : BRANCH;
    // An id of its own makes an edit that is sent twice count once.
    let sent = {};
    editQuestion(this.log.view(turn), turn.question, hint, (text) => {
      if (text !== sent.text) sent = { text, id: uuid() };
      return text === turn.question ? true : this.act(turn, "edit", sent);
    });
    return true;
  }

  // Opens the version before, or the next one; one at a time, so that none overtakes another.
  async openVersion(button, { id, versions }, step) {
    const other = versions[versions.indexOf(id) + step];
    if (!other || button.ariaDisabled === "true" || this.isSwitching) return;
    this.isSwitching = true;
    // What stands above stays where it is, and so does the button.
    this.log.follows = false;
    if (await this.act({ id: other }, "open")) {
      announce(versionOf(versions.indexOf(other), versions));
    }
    this.isSwitching = false;
  }

  // Returns whether it went through.
  act(turn, verb, body = {}) {
    this.events.resume();
    const path = pathOf(this.conversation.id, "turns", turn.id, verb);
    // An answer that has just ended needs no stop.
    return this.write("POST", path, body, { calm: verb === "stop" ? 409 : 0 });
  }

  // Returns whether there was something to stop. A question on its way is stopped once it is there.
  stop() {
    const turn = this.conversation?.open;
    const entry = this.onItsWay;
    if (turn) this.act(turn, "stop");
    else if (entry) entry.isStopped = true;
    this.paintSoon();
    return Boolean(turn ?? entry);
  }

  get onItsWay() {
    const entries = this.outbox.of(this.conversation?.id);
    return entries.find((entry) => !entry.why && !entry.isStopped);
  }

  // Conversations

  async rename({ id, title }) {
    const question = { title: t("Rename this conversation"), yes: t("Rename") };
    const chosen = await ask({ ...question, value: title });
    if (!chosen || chosen === title) return;
    await this.write("PATCH", pathOf(id), { title: chosen });
    if (this.conversation?.id === id) this.conversation.title = chosen;
    this.sidebar.load();
    this.paintSoon();
  }

  async delete({ id, title }) {
    const text = t("“{title}” will be gone for good, with all its answers.", {
      title: title || UNTITLED,
    });
    const question = { title: t("Delete this conversation?"), text, yes: t("Delete") };
    if (!(await ask({ ...question, isDanger: true }))) return;
    // The stream may tell of the end before the answer to this request comes.
    const isDone = await this.write("DELETE", pathOf(id));
    this.sidebar.load();
    if (isDone) this.deleted([id]);
  }

  deleted(ids) {
    for (const id of ids) keep(`draft:${id}`, "");
    if (ids.some((id) => location.pathname === `/c/${id}`)) this.go("/");
  }

  // Pins or archives a conversation, or puts it among the others.
  async put({ id }, place) {
    if (!(await this.write("PATCH", pathOf(id), { place }))) return;
    const { days } = this.me;
    const text = t(
      "Pinned. Like every conversation, it is deleted after {days} days without a question.",
      { days },
    );
    if (place === "pinned") toast(text);
    else announce(place ? t("Archived.") : t("Done."));
    this.sidebar.load();
  }

  openHelp() {
    openHelp(() => {
      // The browser forgets with the server.
      this.forgetWords();
      this.sidebar.load();
      this.go("/");
    });
  }

  forgetWords() {
    for (const entry of [...this.outbox.entries]) this.outbox.remove(entry);
    for (const entry of this.composer.files.entries) this.composer.files.remove(entry);
    for (const name of [...recallNames("draft:"), ...recallNames("once:")]) keep(name, "");
  }

  // Returns whether it went through. Nothing is told of a refusal with the status `calm`.
  async write(method, path, body, { calm = 0 } = {}) {
    try {
      await sendAgain(method, path, body);
      return true;
    } catch (error) {
      if (error.status !== calm) toast(error.message.replaceAll("`", ""));
      return false;
    }
  }

  // Buttons and keys

  // What the buttons with an id do.
  buttons = {
    stop: () => {
      this.stop();
      this.toBox();
    },
    reconnect: () => this.events?.connect(),
    model: () => {
      const id = this.conversation?.turns.length ? this.conversation.id : "";
      this.answers.open(id, this.composer);
    },
    "once-drop": () => {
      this.composer.choose(null);
      this.toBox();
    },
    rename: () => this.rename(this.conversation),
    share: async () => {
      const sharing = await loaded(import("./sharing.js"));
      sharing?.openSharing(this.conversation.id, this.me);
    },
    delete: () => this.delete(this.conversation),
    "help-open": () => this.openHelp(),
    theme: () => {
      const names = Object.keys(THEMES);
      const now = names.indexOf(document.documentElement.dataset.theme);
      this.setTheme(names[(now + 1) % names.length]);
    },
    logout: async () => {
      this.forgetWords();
      await send("POST", "/logout").catch((error) => toast(error.message));
      location.assign("/login");
    },
  };

  clicked(event) {
    const link = event.target.closest("a[href^='/']");
    const isPlain = !event.ctrlKey && !event.metaKey && !event.shiftKey;
    if (link && isPlain && !link.hasAttribute("download") && !link.target) {
      event.preventDefault();
      this.go(link.getAttribute("href"));
    }
    const button = event.target.closest("button");
    if (!button) return;
    this.buttons[button.id]?.();
    if (button.closest("#prompts")) this.ask(button.querySelector("span").textContent);
    const { turn: id } = button.closest(".turn")?.dataset ?? {};
    const turn = this.conversation?.turns.find((one) => one.id === id);
    takeBy(button, turn, this.me.endings);
    if (id && button.dataset.action) this.press(button, id, turn);
  }

  press(button, id, turn) {
    const { action } = button.dataset;
    const entry = this.outbox.entries.find((one) => one.id === id);
    if (action === "resend") this.outbox.again(entry);
    if (action === "unsend") this.unsend(entry);
    if (!turn) return;
    if (action === "edit") this.edit(turn);
    if (action === "older") this.openVersion(button, turn, -1);
    if (action === "newer") this.openVersion(button, turn, 1);
    if (action === "take-back") this.takeBack(turn);
    if (["good", "bad"].includes(action)) this.rate(turn, action);
    if (["allow", "always", "deny", "answer", "done"].includes(action)) this.decide(turn, action);
    if (["regenerate", "continue"].includes(action)) {
      this.log.follows = true;
      // An id of its own makes a press that is sent twice count once.
      this.act(turn, action, { id: uuid() });
    }
  }

  async decide(turn, consent) {
    const { card } = this.log.view(turn);
    if (card.isBusy) return;
    // The browser says which field lacks an answer.
    if (consent === "answer" && !card.form.reportValidity()) return;
    const filled = consent === "answer" ? Object.fromEntries(new FormData(card.form)) : {};
    card.isBusy = true;
    card.isBusy = await this.act(turn, "consent", { call: turn.consent, consent, filled });
  }

  // The fields of a form come once it is shown.
  async loadFields(turn) {
    const { card } = this.log.view(turn);
    if (card.isLoaded) return;
    card.isLoaded = true;
    const path = pathOf(this.conversation.id, "turns", turn.id, "question");
    try {
      const { fields } = await send("GET", `${path}?call=${turn.consent}`);
      if (card.call === turn.consent) card.fill(fields);
    } catch (error) {
      card.isLoaded = false;
      toast(error.message);
    }
  }

  unsend(entry) {
    this.outbox.remove(entry);
    this.composer.put([entry.text, this.composer.box.value].filter(Boolean).join("\n"));
    for (const file of entry.files) this.composer.files.put(file);
    if (entry.once) this.composer.choose(entry.once);
    this.composer.box.focus();
  }

  async takeBack(turn) {
    const hasVersions = turn.versions.length > 1;
    const text = hasVersions
      ? t("All versions of the message will be forgotten, with their answers and what followed the others.")
      : t("The message and its answer will be forgotten.");
    const sure = await ask({ title: t("Delete your message?"), text, yes: t("Delete") });
    if (!sure) return;
    // A conversation goes with its only turn.
    const isOnly = this.conversation?.turns.length === 1;
    if ((await this.act(turn, "delete")) && isOnly) this.go("/");
  }

  // The same rating once more takes it back.
  async rate(turn, chosen) {
    const rating = turn.rating === chosen ? "" : chosen;
    if (!(await this.act(turn, "rate", { rating }))) return;
    announce(rating ? t("Thank you.") : t("Your rating was removed."));
  }

  // What had the focus goes; but nobody who reads wants a keyboard to come up.
  toBox() {
    if (!KEYBOARD_ON_SCREEN.matches) this.composer.box.focus();
  }

  pressed(event) {
    if (event.isComposing || event.defaultPrevented) return;
    if (document.querySelector("dialog[open], :popover-open")) return;
    const command = event.ctrlKey || event.metaKey;
    const isDrawn = this.sidebar.isDrawn;
    if (event.key === "Escape" && this.sidebar.several) this.sidebar.several.none();
    else if (event.key === "Escape" && isDrawn) this.sidebar.setOpen(false);
    else if (event.key === "Escape" && this.stop()) event.preventDefault();
    else if (command && event.key === "k") this.sidebar.find();
    else if (command && event.shiftKey && event.key.toLowerCase() === "o") this.go("/");
    else return;
    if (command) event.preventDefault();
  }

  // A file or an address that is dropped beside a text box would replace the page.
  brought(event) {
    const { types, files } = event.dataTransfer ?? event.clipboardData;
    const isFile = types.includes("Files") && !types.includes("text/plain");
    if (!isFile && (event.type === "paste" || event.target.closest?.("textarea, input"))) return;
    event.preventDefault();
    document.body.classList.toggle("dropping", isFile && event.type === "dragover");
    const isHere = ["drop", "paste"].includes(event.type);
    if (isFile && isHere && !document.querySelector("dialog[open]")) this.composer.files.add(files);
  }

  setTheme(name) {
    document.documentElement.dataset.theme = name;
    keep("theme", name);
    const label = t("Colours: {choice}", { choice: THEMES[name] });
    byId("theme").title = byId("theme").ariaLabel = label;
    byId("theme").replaceChildren(icon(name));
  }

  // Painting: at most once a frame, whatever came meanwhile.

  paintSoon() {
    this.frame ||= requestAnimationFrame(() => this.paint());
  }

  paint() {
    cancelAnimationFrame(this.frame);
    this.frame = 0;
    const { conversation } = this;
    const pending = this.outbox.of(conversation?.id);
    const turns = conversation?.turns ?? [];
    const title = conversation?.title || UNTITLED;
    document.title = conversation?.title ? `${title} · Parley` : "Parley";
    byId("title").textContent = title;
    const isEmpty = !turns.length && !pending.length && byId("missing").hidden;
    byId("welcome").hidden = !isEmpty || (conversation && !conversation.isKnown);
    byId("actions").hidden = !turns.length;
    byId("share").hidden = !this.me.shares || this.me.shares === "off";
    byId("export").href = conversation ? pathOf(conversation.id, "export") : "";
    byId("stop").hidden = !conversation?.open && !this.onItsWay;
    this.sidebar.mark(conversation?.id ?? "");
    const card = document.activeElement?.closest(".consent");
    const { feedback, versions, model } = this.me;
    this.log.show(turns, pending, { rates: feedback !== false, versions, model, talk: conversation?.id });
    if (card?.hidden) this.toBox();
    const asking = turns.find((turn) => turn.consent?.startsWith("form-"));
    if (asking) this.loadFields(asking);
    if (this.sought && this.log.goTo(this.sought)) this.sought = "";
  }
}

new App().start();
