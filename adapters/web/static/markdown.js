// A growing answer in Markdown, rendered block by block and only where it changed.
import { element } from "./dom.js";
import { followNote, withFootnotes } from "./footnotes.js";
import { drawKnown, drawSoon } from "./formulas.js";
import MarkdownIt from "./vendor/markdown-it.js";
import { t } from "./words.js";

const LONGEST_COLOURED = 50000; // characters of one block of code
const PATIENCE = 5000; // milliseconds for its colours, the first time with the download

const LONG_TASK = 50; // milliseconds of one rendering after which the next one is put off
const RESTS = 4; // times as long as that rendering took
// More than an answer of 20,000 characters can have; rows are filled up to the width of the head.
const MOST_CELLS = 16000;
const MOST_MARKS = 6000; // pieces of text, code, links and so on in one paragraph

const parser = new MarkdownIt({ html: false, linkify: true, breaks: true });
parser.linkify.set({ fuzzyLink: false, fuzzyEmail: false });
parser.validateLink = (address) => /^(https?:|mailto:)/i.test(address.trim());
withFootnotes(parser);

// What is kept (an address, code, `\\`, `\$`), or a formula without an empty line, which may lack
// its end at the text's end, or a lone sign of one.
const FORMULA = new RegExp(
  [
    "(\\\\[\\\\$]|https?://\\S+|(?<!`)(`+)(?!`)(?:(?!\n[ \t]*\n).)*?(?<!`)\\2(?!`))",
    String.raw`\\\((?:(?!\n[ \t]*(?:\n|[\x60~]{3}))(?:[^\\]|\\[^()])){1,3000}(\\\)|\\?$)`,
    String.raw`\\\[(?:(?!\n[ \t]*(?:\n|[\x60~]{3}))(?:[^\\]|\\[^[\]])){1,3000}(\\\]|\\?$)`,
    String.raw`\$\$(?:(?!\n[ \t]*(?:\n|[\x60~]{3}))(?:[^\\$]|\\.|\$(?!\$|$))){1,3000}(\$\$|\$?$)`,
    // But not "$5 or $6", nor "$5 **or** US$", nor "$HOME/bin:$PATH".
    String.raw`\$(?![\s$])(?:[^\\$*\n]|\*(?!\*)|\\.){1,3000}(?<!\s)(?<!\s\*)(\$)(?!\w)`,
    String.raw`\\[()[\]]`,
  ].join("|"),
  "gs",
);
const ENDS = ["\\)", "\\]", "$$", "$"];
// Two words, or an amount: between single dollars that is a text about money.
const MONEY = /[a-z]{2}[\s,;]+[a-z]{2}|^\$[\d.,]+(?!.*[\\^_=])/i;

// A formula is no Markdown: its signs are hidden from the parser. A whole one is marked by its
// first and its last sign, and so becomes a token of its own.
const shifted = (by) => (sign) => String.fromCharCode(sign.charCodeAt(0) + by);
const hide = shifted(0xee00); // where no text has characters
const begin = shifted(0xef00);
const end = shifted(0xef80);
const show = (sign) => String.fromCharCode(sign.charCodeAt(0) & 0x7f);
const HIDDEN = /[\uee00-\uefff]/g;
const WHOLE = /([\uef00-\uef7f][^\uef00-\uefff]*[\uef80-\uefff])/;

function hidden(source) {
  const signs = /[!-/:-@[-`{-~]/g;
  return source.replace(FORMULA, (found, kept, run, ...ends) => {
    if (kept) return found;
    const isWhole = ENDS.some((sign, at) => ends[at] === sign);
    if (!isWhole || (ends[3] && MONEY.test(withoutTeX(found)))) return found.replace(signs, hide);
    const inner = found.slice(1, -1).replace(/[\n!-/:-@[-`{-~]/g, hide);
    return begin(found[0]) + inner + end(found.at(-1));
  });
}

const withoutTeX = (formula) => formula.replace(/\\[a-z]+(\{[^{}]*\})?/gi, "\\");

function unhidden(html) {
  return html.replace(HIDDEN, (sign) => parser.utils.escapeHtml(show(sign)));
}

// Few characters can make a table of 65,000 cells: such a one stays text.
const asTable = parser.block.ruler.__rules__.find(({ name }) => name === "table").fn;
parser.block.ruler.at(
  "table",
  (state, start, end, silent) => !isHuge(state, start, end) && asTable(state, start, end, silent),
  { alt: ["paragraph", "reference"] },
);

function isHuge(state, start, end) {
  const lineAt = (line) => state.src.slice(state.bMarks[line], state.eMarks[line]);
  if (start + 1 >= end || !/^[\s>|:]*-[\s|:-]*$/.test(lineAt(start + 1))) return false;
  const columns = lineAt(start).split("|").length;
  let lines = 1;
  while (start + lines < end && !state.isEmpty(start + lines)) lines += 1;
  return columns * lines > MOST_CELLS;
}

function textOf(content, Token) {
  return Object.assign(new Token("text", "", 0), { content });
}

parser.core.ruler.after("inline", "simple", ({ tokens, Token }) => {
  tokens.forEach((token, index) => {
    if (!token.children) return;
    // Thousands of marks in one paragraph take long to lay out: such a one stays text.
    if (token.children.length > MOST_MARKS) token.children = [textOf(token.content, Token)];
    token.children = withFormulas(withoutImages(token.children, Token), Token);
    const task = /^\[([ xX])\](\s|$)/.exec(token.content)?.[1];
    const item = tokens[index - 2];
    if (!task || item?.type !== "list_item_open") return;
    item.attrSet("class", "task");
    const [first] = token.children;
    first.content = first.content.replace(/^\[.\]\s?/, "");
    const box = Object.assign(new Token("task_open", "label", 1), { meta: task !== " " });
    token.children = [box, ...token.children, new Token("task_close", "label", -1)];
  });
  giveDirections(tokens);
});

// Each part is written from the side where its first word begins. What holds others, as an item
// or a table does, takes its direction from its first text, so that has none of its own.
function giveDirections(tokens) {
  let isFirst = false;
  tokens.forEach(({ type, children }, index) => {
    const isCell = /^t[hd]_open$/.test(type);
    const holds = /^(list_item|blockquote|note|table)_open$/.test(type);
    if (isCell || holds || /^(paragraph|heading)_open$/.test(type)) {
      if (!isFirst) tokens[index].attrSet("dir", "auto");
      isFirst = holds || (isFirst && isCell && !tokens[index + 1].content);
    }
    if (/^(list_item|blockquote|note|table)_close$/.test(type)) isFirst = false;
    for (const child of children ?? []) {
      if (child.type === "code_inline") child.attrSet("dir", "ltr");
    }
  });
}

function withFormulas(tokens, Token) {
  return tokens.flatMap((token) => {
    if (token.type !== "text" || !WHOLE.test(token.content)) return [token];
    const parts = token.content.split(WHOLE);
    const part = (content, at) => Object.assign(textOf(content, Token), at % 2 && { type: "formula" });
    return parts.map(part).filter(({ content }) => content);
  });
}

// An image would be loaded from elsewhere, which tells others who reads; so it is a link.
function withoutImages(tokens, Token) {
  let inLink = 0;
  return tokens.flatMap((token) => {
    if (token.type === "link_open") inLink += 1;
    if (token.type === "link_close") inLink -= 1;
    if (token.type !== "image") return [token];
    const text = textOf(token.content || t("Image"), Token);
    if (inLink) return [text];
    const open = new Token("link_open", "a", 1);
    open.attrSet("href", token.attrGet("src"));
    return [open, text, new Token("link_close", "a", -1)];
  });
}

parser.renderer.rules.link_open = (tokens, index, options, env, self) => {
  const token = tokens[index];
  if (!token.attrGet("href")) return "<a>"; // the parser does not refuse an empty address
  token.attrSet("rel", "noopener noreferrer nofollow");
  token.attrSet("target", "_blank");
  // What the text says need not be where the link leads.
  token.attrSet("title", token.attrGet("href"));
  return self.renderToken(tokens, index, options);
};
parser.renderer.rules.formula = (tokens, index) => {
  const { content } = tokens[index];
  const kind = /^(\\\[|\$\$)/.test(content.replace(HIDDEN, show)) ? " display" : "";
  return `<span class="formula${kind}" dir="ltr">${parser.utils.escapeHtml(content)}</span>`;
};
parser.renderer.rules.task_open = (tokens, index) =>
  `<label><input type="checkbox" disabled${tokens[index].meta ? " checked" : ""}>`;
parser.renderer.rules.table_open = () =>
  `<div class="table"><div role="group" aria-label="${t("Table")}" tabindex="0"><table>`;
parser.renderer.rules.table_close = () =>
  `</table></div><button type="button" data-save="table">${t("Save")}</button></div>`;
// The page's policy forbids styles in elements.
parser.renderer.rules.th_open = parser.renderer.rules.td_open = (tokens, index) => {
  const align = tokens[index].attrGet("style")?.split(":")[1];
  const dir = tokens[index].attrGet("dir");
  return `<${tokens[index].tag}${dir ? ' dir="auto"' : ""}${align ? ` data-align="${align}"` : ""}>`;
};
parser.renderer.rules.fence = (tokens, index) => code(tokens[index]);
parser.renderer.rules.code_block = (tokens, index) => code(tokens[index]);

function code(token) {
  const language = token.info.trim().split(/\s+/)[0];
  const name = parser.utils.escapeHtml(language);
  const label = name ? t("Code in {name}", { name }) : t("Code");
  const content = parser.utils.escapeHtml(token.content);
  return (
    `<div class="code" dir="ltr"><div class="bar"><span>${name || t("text")}</span>` +
    `<button type="button" data-save="code">${t("Save")}</button>` +
    `<button type="button" data-copy="code">${t("Copy")}</button></div>` +
    `<pre tabindex="0" role="group" aria-label="${label}"><code data-language="${name}">` +
    `${content}</code></pre></div>`
  );
}

let answers = 0;

// A block of the top level ends where the next begins, so all but the last are settled: more text
// changes the last one only. The exception, an address that a `[text][name]` lacked above it, is
// seen to once the answer has ended.
export class GrowingMarkdown {
  constructor(box, { rests = RESTS, patience = PATIENCE } = {}) {
    this.element = box;
    this.name = answers += 1;
    this.rests = rests;
    this.patience = patience;
    this.restsUntil = 0;
    this.timer = 0;
    this.source = "";
    this.isWhole = false;
    this.blocks = []; // { start, html, ids, element, isColoured }, in their order
    box.addEventListener("click", followNote);
  }

  // What takes long to render is rendered less often, so that the page can be used meanwhile.
  show(source, { ended }) {
    clearTimeout(this.timer);
    const began = performance.now();
    if (!ended && began < this.restsUntil) {
      this.timer = setTimeout(() => this.show(source, { ended }), this.restsUntil - began);
      return;
    }
    if (source !== this.source || (ended && !this.isWhole)) {
      const first = ended ? 0 : this.firstChanged(source);
      this.source = source;
      this.isWhole = ended;
      this.render(first);
    }
    const complete = ended ? this.blocks : this.blocks.slice(0, -1);
    for (const block of complete) block.isColoured ||= colour(block.element, this.patience);
    const spent = performance.now() - began;
    if (spent > LONG_TASK) this.restsUntil = began + spent + this.rests * spent;
  }

  // The block before a changed one may take it in, unless text was only added.
  firstChanged(source) {
    if (source.startsWith(this.source)) return Math.max(0, this.blocks.length - 1);
    let kept = 0;
    while (source[kept] === this.source[kept]) kept += 1;
    return Math.max(0, this.blocks.findLastIndex((block) => block.start < kept) - 1);
  }

  render(first) {
    const start = first ? this.blocks[first].start : 0;
    const tail = this.source.slice(start);
    // Behind an empty line, nothing can close a formula any more.
    const text = this.isWhole ? hidden(`${tail}\n\n`) : tidied(hidden(tail));
    const ids = new Set(this.blocks.slice(0, first).flatMap((block) => block.ids));
    const fresh = blocksOf(text, { name: this.name, ids, isGrowing: !this.isWhole });
    const old = this.blocks.splice(first);
    fresh.forEach((block, index) => {
      const shown = old[index];
      block.start += start;
      block.element = shown?.element ?? this.append();
      if (shown?.html === block.html) block.isColoured = shown.isColoured;
      else write(block);
      this.blocks.push(block);
    });
    for (const block of old.slice(fresh.length)) block.element.remove();
  }

  append() {
    return this.element.appendChild(element("div", { className: "block", dir: "auto" }));
  }
}

function blocksOf(source, env) {
  const tokens = parser.parse(source, env);
  const lineEnds = [...source.matchAll(/\r\n?|\n/g)];
  const starts = [0, ...lineEnds.map((end) => end.index + end[0].length)];
  const blocks = [];
  let open = 0;
  tokens.forEach((token, index) => {
    if (token.level === 0 && token.nesting >= 0) open = index;
    if (token.level !== 0 || token.nesting > 0) return;
    const before = env.ids.size;
    const html = parser.renderer.render(tokens.slice(open, index + 1), parser.options, env);
    const ids = env.ids.size > before ? [...env.ids].slice(before) : [];
    blocks.push({ start: starts[tokens[open].map[0]], html: unhidden(html), ids });
  });
  return blocks;
}

// What is written by half looks as it will look: neither marks nor addresses flash up.
function tidied(source) {
  const lines = source.trimEnd().split("\n").length;
  const isOpen = (token) => token.type === "fence" && token.map[1] >= lines;
  if (parser.parse(source, {}).some(isOpen)) return source;
  const at = source.lastIndexOf("\n\n") + 1;
  return source.slice(0, at) + closed(source.slice(at));
}

// Half a mark or address is looked for in the last characters only: the expressions try a run of
// spaces or marks from each of its characters.
const TAIL = 1000;
const HALF_TASK = /((?:^|\n)\s{0,20}(?:[-*+]|\d{1,9}[.)])\s+)\[(?:[ xX]\]?)?$/;
const HALF_NOTE = /\[\^[\w-]{0,30}$|(?<![^\n]) {0,3}\[\^[\w-]{1,30}\]$/;

function closed(paragraph) {
  if (/^\s*\|[^\n]*(\n[\s|:-]*)?$/.test(paragraph)) return ""; // the head of a table
  const at = Math.max(0, paragraph.length - TAIL);
  let text = paragraph.slice(0, at) + withoutHalf(paragraph.slice(at));
  for (const mark of ["`", "**", "~~"]) {
    if (text.split(mark).length % 2 === 0) text = text.trimEnd() + mark;
  }
  const italics = /(^|[\s(])(\*|_)(?![\s*_])[^*_\n]*$/.exec(text);
  return italics && !text.includes("`") ? text.trimEnd() + italics[2] : text;
}

function withoutHalf(end) {
  return end
    .replace(/(\*\*[^*\n]+)\*$/, "$1")
    .replace(HALF_TASK, "$1")
    .replace(HALF_NOTE, "")
    .replace(/(^|[^\\])!?\[(?!\^\w)([^\]\n]*)(\](\([^)\n]*)?)?$/, "$1$2")
    .replace(/[ \t]*[*_~`#[!]+$/, (marks) => (/\w[*_~`]+$/.test(end) ? marks : ""));
}

function write(block) {
  const fresh = document.createElement("template");
  // Safe: the parser escapes all markup of its input.
  fresh.innerHTML = calm(block.html);
  drawKnown(fresh.content);
  grow(block.element, fresh.content);
  drawSoon(block.element);
}

// Thousands of accents on one letter take seconds to lay out. Nothing is seen or copied of the
// places where the line may break.
function calm(html) {
  return html.replace(/\p{M}{100}/gu, "$&<wbr>");
}

// Changes only what differs, so that a selection in what stays is kept.
function grow(old, fresh) {
  const added = [...fresh.childNodes];
  added.forEach((node, index) => {
    const there = old.childNodes[index];
    if (!there) old.append(node);
    else if (!sameKind(there, node)) there.replaceWith(node);
    else if (node.nodeType !== Node.TEXT_NODE) grow(there, node);
    else if (node.data.startsWith(there.data)) there.appendData(node.data.slice(there.length));
    else there.data = node.data;
  });
  while (old.childNodes.length > added.length) old.lastChild.remove();
}

function sameKind(one, other) {
  if (one.nodeType === Node.TEXT_NODE) return other.nodeType === Node.TEXT_NODE;
  return one.cloneNode(false).isEqualNode(other.cloneNode(false));
}

// Returns whether nothing is left to do: a selection in the code would be lost.
function colour(block, patience) {
  const codes = [...block.querySelectorAll("code[data-language]:not([data-language=''])")];
  if (codes.some((code) => getSelection().containsNode(code, true))) return false;
  codes.forEach(async (code) => {
    const source = code.textContent;
    const { language } = code.dataset;
    if (source.length > LONGEST_COLOURED) return;
    const html = await coloured({ source, language }, patience);
    // Meanwhile the text may have changed.
    if (!html || code.textContent !== source || "coloured" in code.dataset) return;
    code.dataset.coloured = "";
    // Safe: the highlighter escapes all markup of its input.
    code.innerHTML = calm(html);
  });
  return true;
}

let worker = null;
let lastColoured = Promise.resolve();

// Resolves to HTML, or to nothing if that took too long or failed. One after the other, so that
// only what is hard to colour is given up.
function coloured(code, patience) {
  const colourNow = (resolve) => {
    worker ??= new Worker(new URL("./colours.js", import.meta.url), { type: "module" });
    const end = (html) => {
      clearTimeout(timer);
      resolve(html);
    };
    const giveUp = () => {
      worker.terminate();
      worker = null;
      end("");
    };
    const timer = setTimeout(giveUp, patience);
    worker.onmessage = ({ data }) => end(data);
    worker.onerror = giveUp;
    worker.postMessage(code);
  };
  lastColoured = lastColoured.then(() => new Promise(colourNow));
  return lastColoured;
}
