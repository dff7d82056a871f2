"""Nothing that a model or a person writes acts in the page, and no host is asked for it."""

from __future__ import annotations

from playwright.async_api import expect

from tests.support.chromium import Site, Window
from tests.web.conftest import OwnPage
from tests.web.test_page_markdown import run

PAYLOADS = (
    "<script>window.acted = 1</script>",
    '<img src="https://evil.example/a.png" onerror="window.acted = 1">',
    "![cat](https://evil.example/cat.png) [![in](https://evil.example/i.png)](https://evil.example)",
    "[press](javascript:window.acted=1) [too](JaVaScRiPt&colon;window.acted=1) <javascript:act()>",
    "[page](data:text/html,<script>window.acted=1</script>) [feed](vbscript:acted)",
    "<style>body { display: none } @import url(https://evil.example/a.css);</style>",
    '<svg onload="window.acted = 1"><use href="https://evil.example/a.svg#a"/></svg>',
    '<iframe src="https://evil.example/"></iframe><object data="https://evil.example/"></object>',
    '<form action="https://evil.example/"><input autofocus onfocus="window.acted = 1"></form>',
    '<meta http-equiv="refresh" content="0; url=https://evil.example/">'
    '<base href="https://evil.example/"><link rel="stylesheet" href="https://evil.example/">',
    '[a](https://evil.example "x\\" onmouseover=\\"window.acted=1") [b](/logout) [c](//evil.io)',
    '```html" onclick="window.acted=1\n</code></pre><script>window.acted = 1</script>\n```',
)

# What the page itself is made of.
_ELEMENTS = """
[...document.querySelectorAll("main *, aside *")].filter((element) =>
  ["SCRIPT", "IFRAME", "OBJECT", "EMBED", "STYLE", "META", "LINK", "BASE"].includes(element.tagName)
  || element.matches("img:not([src^='/static/'])") || element.matches(".log img, .log input")
  || [...element.attributes].some(({ name }) => name.startsWith("on") || name === "style")
).map((element) => element.outerHTML)
"""
_LINKS = """
[...document.querySelectorAll(".log a")].map((link) => [link.protocol, link.target, link.rel])
"""


async def test_markup_in_a_question_a_title_or_a_growing_answer_does_nothing(site: Site) -> None:
    async with site.window("\n\n".join(PAYLOADS), delay=0.002) as window:
        await window.ask("\n".join(PAYLOADS))
        await window.ended()
        await _rename(window, PAYLOADS[1])
        await expect(window.conversations.get_by_role("link")).to_have_text(PAYLOADS[1])
        await window.conversations.hover()
        await window.answer.get_by_text("press").hover()
        await window.page.reload()
        await window.says("press")

        await expect_nothing(window)
        links = await window.read(_LINKS)
        assert set(map(tuple, links)) == {("https:", "_blank", "noopener noreferrer nofollow")}
        await expect(window.page.locator(".said")).to_have_text("\n".join(PAYLOADS))
        await expect(window.page).to_have_title(f"{PAYLOADS[1]} · Parley")

        assert await run(window, _GROW, list(PAYLOADS)) == []
        await expect_nothing(window)


async def test_markup_in_a_name_is_text(own_page: OwnPage) -> None:
    name = '<b>Ann</b><img src="/x" onerror="window.acted = 1">'
    async with own_page({"X-Name": name}, WEB_PROXY_HEADER="X-Name") as one:
        await one.open()

        await expect(one.page.locator("#me")).to_have_text(name)
        await expect_nothing(one)


# Each beginning of each text is shown, as if the model had said it so far.
_GROW = """
  document.querySelector("main").append(box);
  const found = [];
  for (const payload of given) {
    box.replaceChildren();
    const one = new GrowingMarkdown(box);
    for (let end = 1; end <= payload.length; end += 1) {
      one.show(payload.slice(0, end), { ended: end === payload.length });
      if (box.querySelector("img, script, style, iframe, object, form, input, svg, meta, base")) {
        found.push(payload.slice(0, end));
      }
      for (const link of box.querySelectorAll("a")) {
        if (!["https:", "mailto:"].includes(link.protocol)) found.push(link.outerHTML);
      }
    }
  }
  return found;
"""


async def _rename(window: Window, title: str) -> None:
    await window.button("Rename this conversation").click()
    await window.page.locator("#ask-input").fill(title)
    await window.button("Rename").click()


async def expect_nothing(window: Window) -> None:
    """Nothing that was written acts, or is an element that the page itself does not have."""
    assert await window.read("window.acted === undefined")
    assert await window.read(_ELEMENTS) == []
    await expect(window.page.locator("main")).to_be_visible()
