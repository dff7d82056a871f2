"""How a growing answer is rendered: as the whole would be, and only where it changes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

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


async def run(window: Window, script: str, given: object = None) -> Any:
    """Run a script with the page's modules; `shown` renders a whole answer into a new box."""
    return await window.read(f"async (given) => {{ {_MODULES} {script} }}", given)


_MODULES = """
  const app = document.querySelector("script[type=module]").src;
  const { default: MarkdownIt } = await import(app.replace("app.js", "vendor/markdown-it.js"));
  const { GrowingMarkdown } = await import(app.replace("app.js", "markdown.js"));
  const { parse } = MarkdownIt.prototype;
  const box = document.createElement("div");
  const growing = new GrowingMarkdown(box, { rests: 0 });
  const shown = (source, options) => {
    const other = document.createElement("div");
    new GrowingMarkdown(other, options).show(source, { ended: true });
    return other;
  };
"""
_GROWN = """
  const raw = [];
  let first = null;
  let touched = 0;
  new MutationObserver((changes) => {
    touched += changes.filter((change) => first?.contains(change.target)).length;
  }).observe(box, { subtree: true, childList: true, characterData: true });
  for (let end = 1; end <= given.length; end += 1) {
    growing.show(given.slice(0, end), { ended: false });
    if (/\\*\\*|\\]\\(|\\|/.test(box.textContent)) raw.push(box.textContent);
    // What is observed until here is of the first block's own growth.
    if (!first && box.childElementCount > 1) {
      await Promise.resolve();
      first = box.firstElementChild;
    }
  }
  growing.show(given, { ended: true });
  await Promise.resolve();
  const colours = /<span class="hljs[^>]*>|<.span>|data-coloured=""/g;
  const plain = (one) => one.innerHTML.replace(colours, "");
  return { raw, touched, isSame: plain(box) === plain(shown(given)), html: box.innerHTML };
"""


async def test_a_growing_answer_ends_as_the_whole_and_leaves_settled_blocks(window: Window) -> None:
    grown = await run(window, _GROWN, SAMPLE)

    assert grown["isSame"]
    assert grown["touched"] == 0
    assert grown["raw"] == []
    assert '<a href="https://example.org/p.png"' in grown["html"]
    assert '<td dir="auto" data-align="right">2</td>' in grown["html"]


async def test_more_of_a_long_answer_costs_no_more_than_its_last_block(window: Window) -> None:
    # What the parser was given at most, while the answer grew.
    script = """
      let longest = 0;
      MarkdownIt.prototype.parse = function (text, env) {
        longest = Math.max(longest, text.length);
        return parse.call(this, text, env);
      };
      for (let end = 1; end <= given.length; end += 7) {
        growing.show(given.slice(0, end), { ended: false });
      }
      MarkdownIt.prototype.parse = parse;
      return longest;
    """
    longest = await run(window, script, "\n".join([SAMPLE] * 8))

    assert longest < 2 * max(map(len, SAMPLE.split("\n\n")))


async def test_what_is_taken_back_of_an_answer_leaves_no_trace(window: Window) -> None:
    script = """
      for (const source of given) growing.show(source, { ended: false });
      return box.textContent;
    """
    inner = await run(window, script, [SAMPLE, SAMPLE[:40] + " other"])
    none = await run(window, script, [SAMPLE, ""])

    assert inner.strip() == "Some bold, slanted and coded wor other"
    assert none == ""


async def test_what_is_hard_to_render_is_rendered_less_often(window: Window) -> None:
    script = """
      let times = 0;
      MarkdownIt.prototype.parse = function (text, env) {
        times += 1;
        const end = performance.now() + 60;
        while (performance.now() < end);
        return parse.call(this, text, env);
      };
      const resting = new GrowingMarkdown(box);
      for (const text of ["a", "ab", "abc", "abcd"]) resting.show(text, { ended: false });
      const before = box.textContent;
      const first = times;
      while (box.textContent !== "abcd\\n") await new Promise(requestAnimationFrame);
      MarkdownIt.prototype.parse = parse;
      return [before.trim(), first, times];
    """
    before, first, times = await run(window, script)

    assert before == "a"
    assert times == 2 * first


_COUNTED = """
  const whole = shown(given);
  const counts = ["td, th", "p code", "wbr", "[href]"].map(
    (name) => whole.querySelectorAll(name).length);
  return [whole.textContent, ...counts];
"""


async def test_a_few_characters_make_no_table_of_many_thousand_cells(window: Window) -> None:
    wide = f"|{'a|' * 2000}\n|{'-|' * 2000}\n" + "|a|\n" * 500
    honest = "|a|b|c|\n|-|-|-|\n" + "|1|2|3|\n" * 2000

    assert [(await run(window, _COUNTED, one))[1] for one in (wide, honest)] == [0, 6003]


async def test_a_link_to_nothing_is_none(window: Window) -> None:
    text, *_, links = await run(window, _COUNTED, "[a]() ![b]() [c]( ) [e](https://example.org)")

    assert (text.strip(), links) == ("a b c e", 1)


async def test_thousands_of_marks_in_one_paragraph_stay_text(window: Window) -> None:
    _, _, few, _, _ = await run(window, _COUNTED, "`a` " * 2000)
    text, _, many, _, _ = await run(window, _COUNTED, "` " * 10_000)

    assert (few, many) == (2000, 0)
    assert text.strip() == ("` " * 10_000).strip()


@pytest.mark.parametrize("around", ["{}", "```\n{}\n```"])
async def test_thousands_of_accents_on_a_letter_are_laid_out_in_parts(
    window: Window, around: str
) -> None:
    accents = "a" + "\u0301" * 20_000

    text, _, _, breaks, _ = await run(window, _COUNTED, around.format(accents))

    assert breaks == 200
    assert accents in text


async def test_code_that_is_hard_to_colour_stays_plain_and_holds_up_no_other(
    window: Window,
) -> None:
    script = """
      const [hard, easy] = given;
      const before = shown(hard, { patience: 1000 });
      let after = shown(easy, { patience: 1000 });
      while (!after.querySelector("[data-coloured]")) {
        await new Promise((resolve) => setTimeout(resolve, 100));
        // On a busy machine the worker may not have started in time.
        if (!after.querySelector("[data-coloured]")) after = shown(easy, { patience: 1000 });
      }
      return before.querySelectorAll("[data-coloured]").length;
    """
    slow = "```markdown\n" + "[a](" * 5000 + "\n```\n"
    wide = "```json\n" + "[" * 20_000 + "\n```\n"

    assert await run(window, script, [slow + wide, "```python\nx = 1\n```"]) == 0


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
    script = """
      const raw = [];
      for (let end = 1; end <= given.length; end += 1) {
        growing.show(given.slice(0, end), { ended: false });
        const isRaw = /(?<!\\\\)\\((a|b)/.test(box.textContent);
        if (isRaw || box.querySelector("h1, h2, .block > ul")) raw.push(given.slice(0, end));
      }
      growing.show(given, { ended: true });
      document.querySelector("main").append(box);
      return [raw, box.innerText, ["em", "td", "code", "a, b"].map((name) =>
        [...box.querySelectorAll(name)].map((one) => one.href ?? one.textContent.trim()))];
    """
    raw, text, elements = await run(window, script, FORMULAS)

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

    text, *_ = await run(window, _COUNTED, source)

    assert text.strip() == source.replace("**", "")


async def test_half_a_formula_in_code_does_not_hide_the_end_of_the_code(window: Window) -> None:
    code = 'import re\n\nre.compile(r"\\(\\d+")\n'

    text, *_ = await run(window, _COUNTED, f"```\n{code}```")

    assert text == f"textSaveCopy{code}"
