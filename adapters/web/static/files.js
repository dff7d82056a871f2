// The files for the next question. Each is sent at once, and waits at the server for its question.
import { send } from "./api.js";
import { announce, byId, element, iconButton, toast, uuid } from "./dom.js";
import { owner } from "./kept.js";
import { t } from "./words.js";

const MB = 1e6;
const LONGEST_AWAY = 60000; // milliseconds for which a file is sent again
const PAUSE = 1000; // milliseconds between two attempts

export function chip({ name }, ...beside) {
  const label = element("span", { className: "name", dir: "auto", title: name }, name);
  return element("li", { className: "chip" }, label, ...beside);
}

// An entry is { id, name, chip, request }: `request` is there until the file has arrived.
export class Files {
  constructor(onChange) {
    this.onChange = onChange;
    this.list = byId("files");
    this.limits = { files: Infinity, file_mb: Infinity }; // until the server tells them
    this.entries = [];
    this.sent = Promise.resolve();
    const input = byId("file");
    byId("attach").addEventListener("click", () => input.click());
    input.addEventListener("change", () => {
      this.add(input.files);
      input.value = "";
    });
  }

  get areSent() {
    return !this.entries.some((entry) => entry.request);
  }

  add(files) {
    const refused = [];
    for (const file of files) {
      const why = this.refusal(file.size);
      if (why) refused.push(`${file.name}: ${why}`);
      else this.begin(file);
    }
    if (refused.length) toast(refused.slice(0, 3).join("\n"));
  }

  refusal(size) {
    const { files, file_mb: mb } = this.limits;
    if (!files) return t("No files are read here.");
    if (size > mb * MB) return t("{mb} MB is the limit for a file.", { mb });
    if (!size) return t("There is nothing in this file.");
    return this.entries.length < files ? "" : t("At most {files} at once.", { files });
  }

  begin(file) {
    const { name } = file;
    const label = t("Sending {name}", { name });
    const progress = element("progress", { max: 1, value: 0, aria: { label } });
    const entry = { id: uuid(), name, request: new XMLHttpRequest() };
    // `fetch` does not tell how far an upload is.
    entry.request.upload.onprogress = ({ loaded, total }) => (progress.value = loaded / total);
    this.put(entry, progress);
    // One after another: they would use up the connections that a browser has for a server.
    this.sent = this.sent.then(() => this.send(entry, file));
  }

  async send(entry, file) {
    const { name, request } = entry;
    let end = 0;
    while (this.entries.includes(entry)) {
      await new Promise((ended) => {
        request.open("PUT", pathOf(entry));
        request.responseType = "json";
        request.setRequestHeader("X-Parley", owner || "1");
        request.onloadend = ended;
        request.send(file);
      });
      if (request.status && request.status < 500) break;
      // The server is away, unless it is the file: a folder, or one that is there no more.
      end ||= Date.now() + LONGEST_AWAY;
      if (Date.now() > end || !(await isReadable(file))) break;
      await new Promise((resolve) => setTimeout(resolve, PAUSE));
      // Of the first id, a process may take away later what it has of it.
      entry.id = uuid();
    }
    if (!this.entries.includes(entry)) return;
    if (request.status === 201) {
      delete entry.request;
      entry.chip.querySelector("progress").remove();
      announce(t("{name} is added.", { name }));
      this.onChange();
    } else {
      toast(`${name}: ${request.response?.error ?? t("I could not send it.")}`);
      this.remove(entry);
    }
  }

  // Adds a file that arrives or has arrived.
  put(entry, ...progress) {
    const button = iconButton("close", t("Remove {name}", entry), "");
    button.onclick = () => {
      this.remove(entry);
      announce(t("{name} was removed.", entry));
      byId("box").focus();
    };
    entry.chip = chip(entry, ...progress, button);
    this.list.append(entry.chip);
    this.entries.push(entry);
    this.onChange();
  }

  remove(entry) {
    this.entries = this.entries.filter((one) => one !== entry);
    entry.chip.remove();
    if (entry.request) entry.request.abort();
    else send("DELETE", pathOf(entry)).catch(() => {}); // it expires soon
    this.onChange();
  }

  // Returns the files for a question, none while one is on its way, and has them no longer.
  take() {
    if (!this.areSent) return [];
    const taken = this.entries.map(({ id, name }) => ({ id, name }));
    this.list.replaceChildren();
    this.entries = [];
    this.onChange();
    return taken;
  }
}

const isReadable = (file) => file.slice(0, 1).arrayBuffer().then(() => true, () => false);
const pathOf = ({ id }) => `/api/files/${id}`;
