// The server's HTTP interface: requests, and the stream of a conversation's events.
import { owner } from "./kept.js";

const UNREACHABLE = "Parley cannot be reached at the moment. Your words are kept here.";
const LONGEST_PAUSE = 8000; // milliseconds between two attempts to connect
const PAUSES = [300, 700, 1500, 3000]; // milliseconds between the attempts of `sendAgain`
const LONGEST_WAIT = 20000; // milliseconds for an answer to a request
const LONGEST_UPLOAD = 300000; // milliseconds until a file has arrived
const ABORTED = 499; // in place of a status, as nginx says it

// `message` is for people. `status` is that of HTTP, 0 if no answer came. `field` is the refused one
// of a form.
export class Refused extends Error {
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

// Returns the JSON of the answer, or null if it has none. Throws Refused.
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
  } catch {
    throw new Refused(UNREACHABLE, 0);
  }
  if (response.ok) return value;
  throw refused(path, response.status, value);
}

function refused(path, status, value) {
  if (status === 401 && path !== "/login") {
    location.assign(`/login?next=${encodeURIComponent(location.pathname)}`);
  }
  const message = value?.error || "Something went wrong. Please try again.";
  return new Refused(message, status, value?.field);
}

// Sends a file, until `signal` aborts that. `progressed` hears which part of it is through. Throws
// Refused. Not by `fetch`, which does not tell how far an upload is.
function sendFile(path, file, { progressed, signal }) {
  if (signal.aborted) throw new Refused("", ABORTED);
  const request = new XMLHttpRequest();
  return new Promise((resolve, reject) => {
    request.open("PUT", path);
    request.responseType = "json";
    request.timeout = LONGEST_UPLOAD;
    request.setRequestHeader("X-Parley", owner || "1");
    request.upload.onprogress = ({ loaded, total }) => progressed(loaded / total);
    request.onload = () => {
      if (request.status < 300) resolve();
      else reject(refused(path, request.status, request.response));
    };
    request.onerror = request.ontimeout = () => reject(new Refused("I could not send it.", 0));
    request.onabort = () => reject(new Refused("", ABORTED));
    signal.onabort = () => request.abort();
    request.send(file);
  });
}

// Send what counts once however often it comes, for as long as a server takes to start again.
export const sendAgain = (...request) => again(() => send(...request));
export const sendFileAgain = (...upload) => again(() => sendFile(...upload));

async function again(attempt) {
  for (const pause of PAUSES) {
    try {
      return await attempt();
    } catch (error) {
      if (!error.passes) throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, pause));
  }
  return attempt();
}

// The events of one conversation, over any number of connections. `on` has `state`, `turn` and
// `gone` for events; `open`, `lost` and `end` for the connection, the last if the server does not
// want it back by itself; and `idle`, which says whether the page waits for nothing.
export class Events {
  constructor(id, on) {
    this.path = `/api/conversations/${encodeURIComponent(id)}/events`;
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
