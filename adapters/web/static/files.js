// The files for a question. Each is sent at once, and waits at the server until it is asked about.
import { send, sendFileAgain } from "./api.js";
import { announce, byId, element, iconButton, toast, uuid } from "./dom.js";
import { keep, recall } from "./kept.js";

const MB = 1e6;

// A file as it is shown: its name and its size, and what stands `beside` them.
export function chip({ name, size }, ...beside) {
  const label = element("span", { className: "name", dir: "auto", title: name }, name);
  return element("li", { className: "chip" }, label, element("small", {}, sizeOf(size)), ...beside);
}

function sizeOf(bytes) {
  if (bytes < MB) return `${Math.max(1, Math.round(bytes / 1000))} kB`;
  return `${(bytes / MB).toFixed(bytes < 10 * MB ? 1 : 0)} MB`;
}

// An entry is { id, place, name, size, file, aborter, chip }: `place` names the draft to which it
// belongs, and `file` is there until it has arrived.
export class Files {
  constructor(changed) {
    this.changed = changed;
    this.box = byId("files");
    this.input = byId("file");
    this.entries = [];
    this.place = "";
    this.isSending = false;
    this.allow({ files: Infinity, file_mb: Infinity });
    byId("attach").addEventListener("click", () => this.input.click());
    this.input.addEventListener("change", () => {
      this.add(this.input.files);
      this.input.value = "";
    });
  }

  // Learns the limits: how many files a question may have, and how large each may be.
  allow({ files, file_mb: mb }) {
    Object.assign(this, { most: files, mb });
    byId("attach").hidden = !files || !mb;
  }

  // Shows the files of a draft.
  open(place) {
    this.place = place;
    if (!this.list.length) this.put(recall(place, []));
    else this.paint();
  }

  get list() {
    return this.entries.filter((entry) => entry.place === this.place);
  }

  get isReady() {
    return !this.list.some((entry) => entry.file);
  }

  add(files) {
    const refused = [];
    for (const file of files) {
      const { name, size } = file;
      const why = this.refusal(size);
      if (why) refused.push(`${name}: ${why}`);
      else this.entries.push(this.entry({ id: uuid(), name, size, file }));
    }
    if (refused.length) toast(refused.slice(0, 3).join("\n"));
    this.paint();
    this.deliver();
  }

  refusal(size) {
    if (size > this.mb * MB) return `${this.mb} MB is the limit for a file.`;
    if (!size) return "There is nothing in this file.";
    return this.list.length < this.most ? "" : `${this.most} files at once is the limit.`;
  }

  // One after another: each is through as soon as it can be.
  async deliver() {
    if (this.isSending) return;
    this.isSending = true;
    for (let entry; (entry = this.entries.find((one) => one.file)); ) await this.send(entry);
    this.isSending = false;
  }

  async send(entry) {
    entry.aborter = new AbortController();
    const progressed = (part) => {
      entry.chip.querySelector("progress").value = part;
    };
    try {
      const { file, aborter } = entry;
      await sendFileAgain(pathOf(entry), file, { progressed, signal: aborter.signal });
      delete entry.file;
      entry.chip.querySelector("progress").remove();
      announce(`${entry.name} is added.`);
      this.paint(entry.place);
    } catch (error) {
      if (error.message) toast(`${entry.name}: ${error.message}`);
      this.drop([entry]);
    }
  }

  remove(entry) {
    this.drop([entry]);
    announce(`${entry.name} was removed.`);
    byId("box").focus();
  }

  // Takes files away, of all drafts unless they are named.
  drop(entries = this.entries) {
    this.entries = this.entries.filter((entry) => !entries.includes(entry));
    for (const entry of entries) {
      if (entry.file) entry.aborter?.abort();
      else send("DELETE", pathOf(entry)).catch(() => {}); // it expires soon
      this.paint(entry.place);
    }
  }

  // Returns the files that have arrived, for a question; the draft has them no more.
  take() {
    const taken = this.list.filter((entry) => !entry.file);
    this.entries = this.entries.filter((entry) => !taken.includes(entry));
    this.paint();
    return taken.map(plain);
  }

  put(files) {
    this.entries.push(...files.map((one) => this.entry(one)));
    this.paint();
  }

  entry({ id, name, size, file }) {
    const entry = { id, place: this.place, name, size, file };
    const aria = { label: `Sending ${name}` };
    const bars = file ? [element("progress", { max: 1, value: 0, aria })] : [];
    const button = iconButton("close", `Remove ${name}`, "");
    button.onclick = () => this.remove(entry);
    entry.chip = chip(entry, ...bars, button);
    return entry;
  }

  paint(place = this.place) {
    const arrived = this.entries.filter((entry) => entry.place === place && !entry.file);
    keep(place, arrived.length ? arrived.map(plain) : "");
    // One that stays is not touched: it may have the focus.
    const chips = this.list.map((entry) => entry.chip);
    for (const old of [...this.box.children]) if (!chips.includes(old)) old.remove();
    this.box.append(...chips.filter((one) => !one.isConnected));
    this.box.hidden = !this.box.childElementCount;
    this.changed();
  }
}

const plain = ({ id, name, size }) => ({ id, name, size });
const pathOf = ({ id }) => `/api/files/${id}`;
