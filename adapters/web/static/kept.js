// What the browser keeps for this site over reloads: drafts, questions on their way, the theme.

// The id of the person at the page. Others may use the same browser: until it is known, and for
// anybody else, nothing is kept or found but the theme.
export let owner = "";

export function keepFor(id) {
  owner = id;
}

const placeOf = (name) => (name === "theme" ? name : `${owner}/${name}`);

// A browser may refuse to store anything: then the page works without a memory.
export function recall(name, otherwise = "") {
  try {
    return JSON.parse(localStorage.getItem(placeOf(name))) ?? otherwise;
  } catch {
    return otherwise;
  }
}

// The person's names that begin so.
export function recallNames(beginning) {
  try {
    const names = Object.keys(localStorage).filter((name) => name.startsWith(placeOf(beginning)));
    return names.map((name) => name.slice(placeOf("").length));
  } catch {
    return [];
  }
}

// An empty value is forgotten.
export function keep(name, value) {
  try {
    if (value === "") localStorage.removeItem(placeOf(name));
    else if (owner || name === "theme") localStorage.setItem(placeOf(name), JSON.stringify(value));
  } catch {
    // Full or forbidden.
  }
}
