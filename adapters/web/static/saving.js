// Saves code and tables of an answer as files, made of what is shown.
import { element } from "./dom.js";

// A cell that a spreadsheet takes for a formula; the same as in bot/text/attachments.py.
const FORMULA = /^(?:[=@]|[-+](?![-\d\s.,:/%]*$))/;

// Saves the code or the table of which this is the button; `endings` are those of languages.
export function saveBy(button, endings) {
  const code = button.closest(".code")?.querySelector("code");
  if (!code) return save("table.csv", csv(button.closest(".table").querySelector("table")));
  const language = code.dataset.language.toLowerCase();
  const ending = Object.hasOwn(endings, language) ? endings[language] : "txt";
  return save(`answer.${ending}`, code.textContent);
}

function csv(table) {
  const quoted = (text) => `"${text.replace(FORMULA, "'$&").replaceAll('"', '""')}"`;
  const rows = [...table.rows].map((row) =>
    [...row.cells].map((cell) => quoted(cell.textContent.trim())).join(","),
  );
  return `\ufeff${rows.join("\r\n")}\r\n`;
}

export function save(name, text) {
  const href = URL.createObjectURL(new Blob([text]));
  element("a", { href, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(href), 60000);
}
