// What the browser keeps for this site over reloads: drafts, questions on their way, the theme.

// A browser may refuse to store anything: then the page works without a memory.
export function recall(name, otherwise = "") {
  try {
    return JSON.parse(localStorage.getItem(name)) ?? otherwise;
  } catch {
    return otherwise;
  }
}

// The names that begin so.
export function recallNames(beginning) {
  try {
    return Object.keys(localStorage).filter((name) => name.startsWith(beginning));
  } catch {
    return [];
  }
}

// An empty value is forgotten.
export function keep(name, value) {
  try {
    if (value === "") localStorage.removeItem(name);
    else localStorage.setItem(name, JSON.stringify(value));
  } catch {
    // Full or forbidden.
  }
}
