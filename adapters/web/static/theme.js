// Sets the chosen theme before the first paint; so this is no module, for those wait.
try {
  document.documentElement.dataset.theme = JSON.parse(localStorage.getItem("theme")) || "auto";
} catch {
  // A browser that stores nothing shows the theme of its system.
}
