"""Formulas in answers are drawn, and do nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Route

from tests.support.chromium import Site, Window
from tests.web.test_page_markdown import run
from tests.web.test_page_safety import PAYLOADS, expect_nothing

DRAWN = r"""The roots are \(x_{1,2} = \frac{-b \pm \sqrt{b^2 - 4ac}}{2a}\), and $E = mc^2$.

\[
\begin{pmatrix} a & b \\
c & d \end{pmatrix}
+ 1
= 2
\]

| a |
|-|
| \(|x|\) |

1. in a list
   $$
   x - y
   $$
   2 more lines
"""
SOURCES = [
    r"\(x_{1,2} = \frac{-b \pm \sqrt{b^2 - 4ac}}{2a}\)",
    "$E = mc^2$",
    "\\[\n\\begin{pmatrix} a & b \\\\\nc & d \\end{pmatrix}\n+ 1\n= 2\n\\]",
    r"\(|x|\)",
    "$$\n   x - y\n   $$",
]
# Resolves once each formula is drawn, or is known to be none.
_DRAWN = """
  document.querySelector("main").append(box);
  const { isSettled } = await import(app.replace("app.js", "formulas.js"));
  const settled = async () => {
    while (!isSettled()) await new Promise((resolve) => setTimeout(resolve, 5));
  };
  const formulas = () => [...box.querySelectorAll("math")].map(
    (math) => math.parentElement.dataset.source);
"""


@pytest.fixture
async def window(site: Site) -> AsyncIterator[Window]:
    """A window whose page only lends its modules."""
    async with site.window() as one:
        yield one


async def test_formulas_are_drawn_once_they_are_whole_and_then_left_alone(window: Window) -> None:
    script = f"""{_DRAWN}
      let removed = 0;
      new MutationObserver((changes) => {{
        const gone = changes.flatMap((change) => [...change.removedNodes]);
        removed += gone.filter((node) => node.localName === "math").length;
      }}).observe(box, {{ subtree: true, childList: true }});
      for (let end = 1; end <= given.length; end += 1) {{
        growing.show(given.slice(0, end), {{ ended: false }});
        await settled();
      }}
      growing.show(given, {{ ended: true }});
      await settled();
      const displays = [...box.querySelectorAll("math[display=block]")].length;
      return [formulas(), displays, removed, box.querySelectorAll("h1, h2, ul").length];
    """
    sources, displays, removed, other = await run(window, script, DRAWN)

    assert sources == SOURCES
    assert (displays, removed, other) == (2, 0, 0)
    assert window.errors == []


async def test_what_is_no_formula_stays_as_it_is_written(window: Window) -> None:
    source = (
        r"Wrong \(\frac{a}\) and \(\nosuch{x}\), half \(a + b "
        "and $HOME/bin:$PATH, it is $5, about US$ or $5 or $6, costs $20 less than the $30 one."
    )
    script = f"""{_DRAWN}
      growing.show(given, {{ ended: true }});
      await settled();
      return [formulas(), box.innerText];
    """
    sources, text = await run(window, script, source)

    assert sources == []
    assert text.strip() == source


async def test_what_is_copied_has_formulas_as_they_were_written(window: Window) -> None:
    # From within the first formula to within the last.
    script = f"""{_DRAWN}
      growing.show(given, {{ ended: true }});
      await settled();
      const letters = [...box.querySelectorAll("mi")].map((letter) => letter.firstChild);
      getSelection().setBaseAndExtent(letters[0], 1, letters[2], 1);
      const clipboardData = new DataTransfer();
      const how = {{ clipboardData, bubbles: true, cancelable: true }};
      const event = new ClipboardEvent("copy", how);
      box.dispatchEvent(event);
      return [event.defaultPrevented, clipboardData.getData("text/plain"),
        document.querySelectorAll(".copied").length];
    """
    source = "Take \\(a + b\\) and **more**.\n\nThen \\[\nc = d\n\\]"

    taken, text, left = await run(window, script, source)

    assert taken
    assert text == "\\(a + b\\) and more.\n\nThen\n\\[\nc = d\n\\]"
    assert left == 0


HOSTILE = (
    r"\(\href{javascript:window.acted=1}{press}\)",
    r"\(\url{javascript:window.acted=1}\)",
    r"\(\includegraphics{https://evil.example/a.png}\)",
    r"\(\class{turn}{x}\) \(\id{box}{x}\) \(\data{x=1}{x}\) \(\style{position:fixed}{x}\)",
    r"\(\color{red;background:url(https://evil.example/a)}{x}\)",
    r"\(\text{<img src=x onerror=window.acted=1>}\) \(\tag{<script>}\)",
    r"\(\def\a{\a\a}\a\) \(\def\b{\b b}\b\) \(\rule{99999em}{99999em}\)",
    "\\(" + "{" * 1400 + "x" + "}" * 1400 + "\\)",
    "\\(" + r"\sqrt " * 490 + "x\\)",
    "\\(" + "x^" * 1400 + "x\\)",
    "\\(" + r"\frac1" * 490 + "x\\)",
    "\\(" + r"\left(" * 490 + "\\)",
    r'[link](https://example.org "\(x\)") ![\(y\)](https://example.org/\(z\))',
    '```\\(x\\)" onclick="window.acted=1\ncode\n```',
    "\uef5ca\uefa9 \uee3cimg src=x onerror=window.acted=1\uee3e",
)


async def test_nothing_in_a_formula_acts(window: Window) -> None:
    around = ("\\({}\\)", "$${}$$", "\\[\\text{{{}}}\\]")
    wrapped = [form.format(one) for one in PAYLOADS for form in around]
    script = f"""{_DRAWN}
      const found = [];
      for (const payload of given) {{
        growing.show(payload, {{ ended: true }});
        await settled();
        const own = "math, .formula, .formula *";
        for (const one of box.querySelectorAll("*")) {{
          const names = [...one.attributes].map((attribute) => attribute.name);
          const isBad = names.some((name) => name.startsWith("on") || name === "id")
            || (one.matches(own) && names.some((name) => ["href", "src"].includes(name)))
            || one.matches("img, script, iframe, form, input, svg");
          if (isBad) found.push(one.outerHTML);
        }}
        if (box.querySelector("math .turn, math[class*=turn]")) found.push(payload);
      }}
      box.remove();
      return found;
    """
    assert await run(window, script, [*HOSTILE, *wrapped]) == []
    await expect_nothing(window)
    assert window.hosts == {window.address.partition("//")[2].strip("/")}
    assert window.errors == []


async def test_a_hostile_formula_takes_no_second(window: Window) -> None:
    script = f"""{_DRAWN}
      growing.show("\\\\(x\\\\)", {{ ended: true }});
      await settled();
      const took = [];
      for (const payload of given) {{
        const began = performance.now();
        growing.show(payload, {{ ended: true }});
        await settled();
        box.getBoundingClientRect();
        took.push(Math.round(performance.now() - began));
      }}
      return took;
    """
    took = await run(window, script, list(HOSTILE))

    assert max(took) < 1000, took


async def test_the_library_comes_with_the_first_formula_and_is_asked_for_again(
    window: Window,
) -> None:
    asked: list[str] = []

    async def answer(route: Route) -> None:
        asked.append(route.request.url)
        await (route.abort() if len(asked) == 1 else route.continue_())

    await window.page.route("**/vendor/temml.js", answer)
    script = f"""{_DRAWN}
      growing.show(given, {{ ended: true }});
      await settled();
      return [formulas(), box.innerText.trim()];
    """
    assert await run(window, script, "No `formula`") == [[], "No formula"]
    assert asked == []
    assert await run(window, script, r"\(x\)") == [[], r"\(x\)"]
    assert (await run(window, script, r"\(y\)"))[0] == [r"\(y\)"]
    assert len(asked) == 2
