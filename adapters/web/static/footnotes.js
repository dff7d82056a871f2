// Footnotes of an answer: `[^1]` leads to the text behind `[^1]:`, which stands where it is written
// and leads back. Both stay within the answer.
import { t } from "./words.js";

const LABEL = String.raw`\[\^([\w-]{1,30})\]`;
const REFERENCE = new RegExp(LABEL, "y");
const NOTE = new RegExp(`${LABEL}:(?=[ \t]|$)[ \t]*`, "my");
const INDENT = 4; // columns of further lines, as GitHub and Pandoc read them

// `env` of a parsing has `name`, a word for the answer; `ids`, those given in it; and `isGrowing`:
// then a number is a reference though its note is not there yet.
export function withFootnotes(parser) {
  parser.block.ruler.before("reference", "note", note, { alt: ["paragraph", "reference"] });
  parser.inline.ruler.before("link", "note_mark", mark);
  parser.renderer.rules.note_mark = (tokens, index, options, env) => {
    const label = tokens[index].meta;
    const own = given(env, `mark-${env.name}-${label}`);
    const link = `href="#note-${env.name}-${label}" data-note="${label}"`;
    return `<sup><a role="doc-noteref"${own} ${link}>${label}</a></sup>`;
  };
  parser.renderer.rules.note_open = (tokens, index, options, env) => {
    const label = tokens[index].meta;
    const own = given(env, `note-${env.name}-${label}`);
    const link = `href="#mark-${env.name}-${label}" data-note="${label}"`;
    const back = t("Back to the text");
    const name = `aria-label="${label}: ${back}" title="${back}"`;
    return (
      `<div class="footnote" role="doc-footnote"${own} tabindex="-1" dir="auto" ` +
      `data-label="${label}"><a role="doc-backlink" dir="ltr" ${link} ${name}>${label}</a><div>`
    );
  };
  parser.renderer.rules.note_close = () => "</div></div>\n";
}

// An id is given once: the first of several marks, or notes, has it.
function given({ ids }, id) {
  if (ids.has(id)) return "";
  ids.add(id);
  return ` id="${id}"`;
}

function note(state, first, end, silent) {
  NOTE.lastIndex = state.bMarks[first] + state.tShift[first];
  const found = NOTE.exec(state.src);
  if (!found || state.sCount[first] - state.blkIndent >= INDENT) return false;
  if (silent) return true;
  (state.env.notes ??= new Set()).add(found[1]);
  const token = Object.assign(state.push("note_open", "div", 1), { meta: found[1] });
  const { bMarks, tShift, sCount, blkIndent } = state;
  const line = [bMarks[first], tShift[first], sCount[first]];
  state.blkIndent += INDENT;
  [bMarks[first], tShift[first], sCount[first]] = [NOTE.lastIndex, 0, state.blkIndent];
  state.md.block.tokenize(state, first, end);
  [bMarks[first], tShift[first], sCount[first]] = line;
  state.blkIndent = blkIndent;
  token.map = [first, state.line];
  state.push("note_close", "div", -1);
  return true;
}

function mark(state, silent) {
  // In the words of a link a mark is text; while the end of these is sought, the parser is silent.
  if (silent || state.linkLevel) return false;
  REFERENCE.lastIndex = state.pos;
  const label = REFERENCE.exec(state.src)?.[1];
  if (!label || REFERENCE.lastIndex > state.posMax) return false;
  const isExpected = state.env.isGrowing && /^\d+$/.test(label);
  if (!isExpected && !state.env.notes?.has(label)) return false;
  state.push("note_mark", "", 0).meta = label;
  state.pos += label.length + "[^]".length;
  return true;
}

let came = null; // the mark that was followed last

// Leads from a mark to its note, or from a note to the mark that led there.
export function followNote(event) {
  const link = event.target.closest("[data-note]");
  if (!link) return;
  event.preventDefault();
  const isBack = link.role === "doc-backlink";
  const kind = isBack ? "sup > [data-note" : "[data-label";
  const goals = [...event.currentTarget.querySelectorAll(`${kind}="${link.dataset.note}"]`)];
  const goal = goals.find((one) => one === came) ?? goals[0];
  if (!isBack) came = link;
  goal?.scrollIntoView({ block: "center" });
  goal?.focus({ preventScroll: true });
}
