// What the page says, in the language in which the server has sent it.

const words = JSON.parse(document.getElementById("words")?.textContent ?? "{}");

// Returns a sentence in that language, with its {values}. The sentence stands where it is said, as
// a literal in double quotes: so the server finds it, and sends its translation with the page.
export function t(sentence, values = {}) {
  const said = words[sentence] ?? sentence;
  return said.replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);
}

// The language that was chosen here, "" if it is the browser's.
export const chosenLanguage = /(?:^|; )language=([a-z]{2})(?:;|$)/.exec(document.cookie)?.[1] ?? "";

// Returns a time in seconds since the epoch as people write it.
export function momentOf(seconds) {
  return new Date(seconds * 1000).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
}

// Chooses a language for this browser; "" is the browser's own.
export function speak(name) {
  const age = name ? 365 * 24 * 3600 : 0;
  document.cookie = `language=${name}; Path=/; Max-Age=${age}; SameSite=Lax`;
  location.reload();
}
