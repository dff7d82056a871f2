// The server's HTTP interface: requests, and the stream of a conversation's events.
import { owner } from "./kept.js";
import { t } from "./words.js";

const UNREACHABLE = t("Parley cannot be reached at the moment. Your words are kept here.");
const LONGEST_PAUSE = 8000; // milliseconds between two attempts to connect
const PAUSES = [300, 700, 1500, 3000]; // milliseconds between the attempts of `sendAgain`
const LONGEST_WAIT = 20000; // milliseconds for an answer to a request

// Returns the path of a conversation, or of one of its parts, such as "turns", an id and "stop".
export function pathOf(conversation, ...parts) {
  return ["/api/conversations", ...[conversation, ...parts].map(encodeURIComponent)].join("/");
}

// `message` is for people. `status` is that of HTTP, 0 if no answer came. `field` is the refused one
// of a form.
class Refused extends Error {
  constructor(message, status, field) {
    super(message);
    this.status = status;
    this.field = field;
  }

  // Whether the same request may pass later, such as after a login.
  get passes() {
    return [0, 401, 408].includes(this.status) || this.status >= 500;
  }
}

// Returns the JSON of the answer, its text if that is Markdown, or else null. Throws Refused.
export async function send(method, path, body) {
  let response;
  let value = null;
  try {
    response = await fetch(path, {
      method,
      // No form of another site can set this header. The server refuses it from another person.
      headers: { "X-Parley": owner || "1", ...(body && { "Content-Type": "application/json" }) },
      body: body && JSON.stringify(body),
      signal: AbortSignal.timeout(LONGEST_WAIT),
    });
    const type = response.headers.get("Content-Type") ?? "";
    if (type.includes("json")) value = await response.json();
    if (type.includes("markdown")) value = await response.text();
  } catch {
    throw new Refused(UNREACHABLE, 0);
  }
  if (response.ok) return value;
  if (response.status === 401 && path !== "/login") {
    location.assign(`/login?next=${encodeURIComponent(location.pathname)}`);
  }
  const message = value?.error || t("Something went wrong. Please try again.");
  throw new Refused(message, response.status, value?.field);
}

// Sends what counts once however often it comes, for as long as a server takes to start again.
export async function sendAgain(method, path, body) {
  for (const pause of PAUSES) {
    try {
      return await send(method, path, body);
    } catch (error) {
      if (!error.passes) throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, pause));
  }
  return send(method, path, body);
}

// The events of one conversation, over any number of connections. `on` has `state`, `turn` and
// `gone` for events; `open`, `lost` and `end` for the connection, the last if the server does not
// want it back by itself; and `idle`, which says whether the page waits for nothing.
export class Events {
  constructor(id, on) {
    this.path = pathOf(id, "events");
    this.on = on;
    this.failures = 0;
    this.source = null;
    this.timer = 0;
    this.woken = this.woken.bind(this);
    document.addEventListener("visibilitychange", this.woken);
    addEventListener("online", this.woken);
    this.connect();
  }

  connect() {
    this.disconnect();
    const source = new EventSource(this.path);
    this.source = source;
    source.onopen = () => {
      this.failures = 0;
      this.on.open();
    };
    source.onerror = () => this.failed();
    for (const name of ["state", "turn", "gone"]) {
      source.addEventListener(name, (event) => this.on[name](JSON.parse(event.data)));
    }
    // Two windows that both connected again would end each other for ever.
    source.addEventListener("end", (event) => {
      this.disconnect();
      this.on.end(JSON.parse(event.data));
    });
  }

  // Browsers differ in when they connect again by themselves, so none does.
  failed() {
    this.disconnect();
    this.failures += 1;
    const pause = Math.min(250 * 2 ** this.failures, LONGEST_PAUSE);
    this.timer = setTimeout(() => this.connect(), pause * (0.75 + Math.random() / 2));
    this.on.lost(this.failures);
  }

  disconnect() {
    clearTimeout(this.timer);
    this.source?.close();
    this.source = null;
  }

  // Over HTTP/1.1 all tabs share six connections, so one that nobody sees gives its back.
  woken() {
    if (document.hidden && this.on.idle()) this.disconnect();
    else if (!document.hidden) this.resume();
  }

  // For somebody who looks here or asks something; without one, `end` was the end.
  resume() {
    if (!this.source) this.connect();
  }

  close() {
    this.disconnect();
    document.removeEventListener("visibilitychange", this.woken);
    removeEventListener("online", this.woken);
  }
}
