"""How a growing answer is rendered: as the whole would be, and only where it changes."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.support.chromium import Site, Window

SAMPLE = """Some **bold**, *slanted* and `coded` words with a [link](https://example.org/a_b).

A heading
---------

- one
- two
  1. inner

  more of two

* another list

| a | b |
| :- | -: |
| 1 | 2 |

> quoted
lazily

```python
def f():

    return "```"
```

    indented

    code

Last, a [reference][1] and ![a picture](https://example.org/p.png).

[1]: https://example.org/
"""


@pytest.fixture(scope="module")
async def window(site: Site) -> AsyncIterator[Window]:
    """A window whose page only lends its modules."""
    async with site.window() as one:
        yield one


_GROWN = """async (source) => {
  const { GrowingMarkdown } = await import(document.querySelector("script[type=module]").src
    .replace("app.js", "markdown.js"));
  const [grown, whole] = [document.createElement("div"), document.createElement("div")];
  const growing = new GrowingMarkdown(grown, { rests: 0 });
  const raw = [];
  let first = null;
  let touched = 0;
  new MutationObserver((changes) => {
    touched += changes.filter((change) => first?.contains(change.target)).length;
  }).observe(grown, { subtree: true, childList: true, characterData: true });
  for (let end = 1; end <= source.length; end += 1) {
    growing.show(source.slice(0, end), { ended: false });
    if (/\\*\\*|\\]\\(|\\|/.test(grown.textContent)) raw.push(grown.textContent);
    // What is observed until here is of the first block's own growth.
    if (!first && grown.childElementCount > 1) {
      await Promise.resolve();
      first = grown.firstElementChild;
    }
  }
  growing.show(source, { ended: true });
  await Promise.resolve();
  new GrowingMarkdown(whole).show(source, { ended: true });
  const colours = /<span class="hljs[^>]*>|<.span>|data-coloured=""/g;
  const plain = (box) => box.innerHTML.replace(colours, "");
  return { raw, touched, isSame: plain(grown) === plain(whole), html: grown.innerHTML };
}"""


async def test_a_growing_answer_ends_as_the_whole_and_leaves_settled_blocks(
    window: Window,
) -> None:
    grown = await window.read(_GROWN, SAMPLE)

    assert grown["isSame"]
    assert grown["touched"] == 0
    assert grown["raw"] == []
    assert '<a href="https://example.org/p.png"' in grown["html"]
    assert '<td data-align="right">2</td>' in grown["html"]


async def test_more_of_a_long_answer_costs_no_more_than_its_last_block(window: Window) -> None:
    longest = await window.read(_PARSED, "\n".join([SAMPLE] * 8))

    assert longest < 2 * max(map(len, SAMPLE.split("\n\n")))


# What the parser was given at most, while the answer grew.
_PARSED = """async (source) => {
  const app = document.querySelector("script[type=module]").src;
  const { default: MarkdownIt } = await import(app.replace("app.js", "vendor/markdown-it.js"));
  const { GrowingMarkdown } = await import(app.replace("app.js", "markdown.js"));
  const { parse } = MarkdownIt.prototype;
  let longest = 0;
  MarkdownIt.prototype.parse = function (text, env) {
    longest = Math.max(longest, text.length);
    return parse.call(this, text, env);
  };
  const growing = new GrowingMarkdown(document.createElement("div"), { rests: 0 });
  for (let end = 1; end <= source.length; end += 7) {
    growing.show(source.slice(0, end), { ended: false });
  }
  MarkdownIt.prototype.parse = parse;
  return longest;
}"""


async def test_what_is_taken_back_of_an_answer_leaves_no_trace(window: Window) -> None:
    shrunk = """async ([long, short]) => {
      const { GrowingMarkdown } = await import(document.querySelector("script[type=module]").src
        .replace("app.js", "markdown.js"));
      const box = document.createElement("div");
      const growing = new GrowingMarkdown(box, { rests: 0 });
      growing.show(long, { ended: false });
      growing.show(short, { ended: false });
      return box.textContent;
    }"""
    inner = await window.read(shrunk, [SAMPLE, SAMPLE[:40] + " other"])
    none = await window.read(shrunk, [SAMPLE, ""])

    assert inner.strip() == "Some bold, slanted and coded wor other"
    assert none == ""


async def test_a_few_characters_make_no_table_of_many_thousand_cells(window: Window) -> None:
    cells = """async (source) => {
      const { GrowingMarkdown } = await import(document.querySelector("script[type=module]").src
        .replace("app.js", "markdown.js"));
      const box = document.createElement("div");
      new GrowingMarkdown(box).show(source, { ended: true });
      return box.querySelectorAll("td, th").length;
    }"""
    wide = f"|{'a|' * 2000}\n|{'-|' * 2000}\n" + "|a|\n" * 500
    honest = "|a|b|c|\n|-|-|-|\n" + "|1|2|3|\n" * 2000

    assert await window.read(cells, wide) == 0
    assert await window.read(cells, honest) == 6003


async def test_what_is_hard_to_render_is_rendered_less_often(window: Window) -> None:
    rendered = """async () => {
      const app = document.querySelector("script[type=module]").src;
      const { default: MarkdownIt } = await import(app.replace("app.js", "vendor/markdown-it.js"));
      const { GrowingMarkdown } = await import(app.replace("app.js", "markdown.js"));
      const { parse } = MarkdownIt.prototype;
      let times = 0;
      MarkdownIt.prototype.parse = function (text, env) {
        times += 1;
        const end = performance.now() + 60;
        while (performance.now() < end);
        return parse.call(this, text, env);
      };
      const box = document.createElement("div");
      const growing = new GrowingMarkdown(box);
      for (const text of ["a", "ab", "abc", "abcd"]) growing.show(text, { ended: false });
      const before = box.textContent;
      const first = times;
      while (box.textContent !== "abcd\\n") await new Promise(requestAnimationFrame);
      MarkdownIt.prototype.parse = parse;
      return [before.trim(), first, times];
    }"""
    before, first, times = await window.read(rendered)

    assert before == "a"
    assert times == 2 * first


_SHOWN = """async (source) => {
  const { GrowingMarkdown } = await import(document.querySelector("script[type=module]").src
    .replace("app.js", "markdown.js"));
  const box = document.createElement("div");
  new GrowingMarkdown(box).show(source, { ended: true });
  return [box.querySelectorAll("p code").length, box.querySelectorAll("wbr").length,
    box.textContent];
}"""


async def test_a_link_to_nothing_is_none(window: Window) -> None:
    shown = await window.read(
        """async (source) => {
          const app = document.querySelector("script[type=module]").src;
          const { GrowingMarkdown } = await import(app.replace("app.js", "markdown.js"));
          const box = document.createElement("div");
          new GrowingMarkdown(box).show(source, { ended: true });
          return [box.textContent.trim(), box.querySelectorAll("[href]").length];
        }""",
        "[a]() ![b]() [c]( ) [e](https://example.org)",
    )

    assert shown == ["a b c e", 1]


async def test_thousands_of_marks_in_one_paragraph_stay_text(window: Window) -> None:
    few, _, _ = await window.read(_SHOWN, "`a` " * 2000)
    many, _, text = await window.read(_SHOWN, "` " * 10_000)

    assert few == 2000
    assert many == 0
    assert text.strip() == ("` " * 10_000).strip()


@pytest.mark.parametrize("around", ["{}", "```\n{}\n```"])
async def test_thousands_of_accents_on_a_letter_are_laid_out_in_parts(
    window: Window, around: str
) -> None:
    accents = "a" + "\u0301" * 20_000

    _, breaks, text = await window.read(_SHOWN, around.format(accents))

    assert breaks == 200
    assert accents in text


async def test_code_that_is_hard_to_colour_stays_plain_and_holds_up_no_other(
    window: Window,
) -> None:
    coloured = """async ([hard, easy]) => {
      const { GrowingMarkdown } = await import(document.querySelector("script[type=module]").src
        .replace("app.js", "markdown.js"));
      const shown = (source) => {
        const box = document.createElement("div");
        new GrowingMarkdown(box, { patience: 1000 }).show(source, { ended: true });
        return box;
      };
      const before = shown(hard);
      let after = shown(easy);
      while (!after.querySelector("[data-coloured]")) {
        await new Promise((resolve) => setTimeout(resolve, 100));
        // On a busy machine the worker may not have started in time.
        if (!after.querySelector("[data-coloured]")) after = shown(easy);
      }
      return before.querySelectorAll("[data-coloured]").length;
    }"""
    slow = "```markdown\n" + "[a](" * 5000 + "\n```\n"
    wide = "```json\n" + "[" * 20_000 + "\n```\n"

    assert await window.read(coloured, [slow + wide, "```python\nx = 1\n```"]) == 0


FORMULAS = r"""Take \(a^2 + b_1 * c_2 * d\) and $x_i^2 * y * \{1, 2\}$ for \$5, $6 or $7: *slanted*.

\[
\begin{pmatrix} a & b \\
c & d \end{pmatrix}
+ 1
= <b>2</b>
\]
where $$\left\[ a \\[2pt] b \right\]$$ stands.

1. in a list:
   $$
   x
   - y
   $$

| table | of |
|-|-|
| \(|x|\) | `\(a\)` https://a.b/?c=$d&e=$f |

```
\[ \alpha \]
```

Left open: \(b * c * d"""


ADDRESS = "https://a.b/?c=$d&e=$f"


async def test_formulas_are_shown_as_they_are_written(window: Window) -> None:
    formulas = """async (source) => {
      const { GrowingMarkdown } = await import(document.querySelector("script[type=module]").src
        .replace("app.js", "markdown.js"));
      const box = document.createElement("div");
      const growing = new GrowingMarkdown(box, { rests: 0 });
      const raw = [];
      for (let end = 1; end <= source.length; end += 1) {
        growing.show(source.slice(0, end), { ended: false });
        const isRaw = /(?<!\\\\)\\((a|b)/.test(box.textContent);
        if (isRaw || box.querySelector("h1, h2, .block > ul")) raw.push(source.slice(0, end));
      }
      growing.show(source, { ended: true });
      document.querySelector("main").append(box);
      return [raw, box.innerText, ["em", "td", "code", "a, b"].map((name) =>
        [...box.querySelectorAll(name)].map((one) => one.href ?? one.textContent.trim()))];
    }"""
    raw, text, elements = await window.read(formulas, FORMULAS)

    first, display, in_list, *_ = FORMULAS.split("\n\n")
    assert first.replace(r"\$5", "$5").replace("*slanted*", "slanted") in text
    assert display in text
    assert in_list.partition(" ")[2].replace("\n   ", "\n") in text
    assert r"\(b * c * d" in text
    cells, codes = [r"\(|x|\)", rf"\(a\) {ADDRESS}"], [r"\(a\)", r"\[ \alpha \]"]
    assert elements == [["slanted"], cells, codes, [ADDRESS]]
    assert raw == []


async def test_what_only_begins_like_a_formula_is_none(window: Window) -> None:
    source = r"Use \( in sed, $HOME or **$PATH**, $5 **more** than US$. **Do** this."

    _, _, text = await window.read(_SHOWN, source)

    assert text.strip() == source.replace("**", "")


async def test_half_a_formula_in_code_does_not_hide_the_end_of_the_code(window: Window) -> None:
    code = 'import re\n\nre.compile(r"\\(\\d+")\n'

    _, _, text = await window.read(_SHOWN, f"```\n{code}```")

    assert text == f"textCopy{code}"
