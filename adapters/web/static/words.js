// What the page says, in the language in which the server has sent it.

const words = JSON.parse(document.getElementById("words")?.textContent ?? "{}");

// Returns a sentence in that language, with its {values}. The sentence stands where it is said, as
// a literal in double quotes: so the server finds it, and sends its translation with the page.
export function t(sentence, values = {}) {
  const said = words[sentence] ?? sentence;
  return said.replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);
}

// When something was or will be, in seconds since 1970: as it is written in the page's language,
// and, where the browser's is that, in its land.
export function date(seconds) {
  const { lang } = document.documentElement;
  const land = navigator.languages.find((one) => one.startsWith(lang));
  const looks = { dateStyle: "medium", timeStyle: "short" };
  return new Date(seconds * 1000).toLocaleString(land ?? lang, looks);
}

// The language that was chosen here, "" if it is the browser's.
export const chosenLanguage = /(?:^|; )language=([a-z]{2})(?:;|$)/.exec(document.cookie)?.[1] ?? "";

// Chooses a language for this browser; "" is the browser's own.
export function speak(name) {
  const age = name ? 365 * 24 * 3600 : 0;
  document.cookie = `language=${name}; Path=/; Max-Age=${age}; SameSite=Lax`;
  location.reload();
}
