// Saves code and tables of an answer as files, made of what is shown.
import { element } from "./dom.js";

// The same as in bot/text/attachments.py, for the same reasons.
const LANGUAGES =
  "bash:sh c:c c++:cpp cpp:cpp cs:cs csharp:cs css:css go:go html:html.txt java:java" +
  " javascript:js.txt js:js.txt json:json kotlin:kt lua:lua markdown:md md:md php:php py:py" +
  " python:py r:r rb:rb ruby:rb rs:rs rust:rs sh:sh shell:sh sql:sql swift:swift toml:toml" +
  " ts:ts typescript:ts xml:xml.txt yaml:yaml yml:yaml";
const ENDINGS = new Map(LANGUAGES.split(" ").map((pair) => pair.split(":")));
const FORMULA = /^(?:[=@]|[-+](?![-\d\s.,:/%]*$))/;

// Saves the code or the table of which this is the button.
export function saveBy(button) {
  const code = button.closest(".code")?.querySelector("code");
  if (!code) return save("table.csv", csv(button.closest(".table").querySelector("table")));
  const ending = ENDINGS.get(code.dataset.language.toLowerCase()) ?? "txt";
  return save(`answer.${ending}`, code.textContent);
}

function csv(table) {
  const quoted = (text) => `"${text.replace(FORMULA, "'$&").replaceAll('"', '""')}"`;
  const rows = [...table.rows].map((row) =>
    [...row.cells].map((cell) => quoted(cell.textContent.trim())).join(","),
  );
  return `\ufeff${rows.join("\r\n")}\r\n`;
}

function save(name, text) {
  const href = URL.createObjectURL(new Blob([text]));
  element("a", { href, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(href), 60000);
}
