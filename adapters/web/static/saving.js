// Copies a turn and its code, and saves code and tables as files, made of what is shown.
import { copyBy, element } from "./dom.js";

// A cell that a spreadsheet takes for a formula; the same as in bot/text/attachments.py.
const FORMULA = /^(?:[=@]|[-+](?![-\d\s.,:/%]*$))/;

// Copies or saves, if this is a button for that; `endings` are those of files, by their languages.
export function takeBy(button, turn, endings) {
  const { copy, save: saves, action } = button.dataset;
  if (copy) copyBy(button, button.closest(".code").querySelector("code").textContent);
  if (saves) saveBy(button, endings);
  if (turn && action === "copy-question") copyBy(button, turn.question);
  if (turn && action === "copy-answer") copyBy(button, turn.answer);
}

function saveBy(button, endings) {
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
