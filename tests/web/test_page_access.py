"""The page can be used by everybody: axe finds nothing, at any width and in any colours."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import expect

from tests.support.chromium import PHONE, WIDE, Site, Window
from tests.web.conftest import OwnPage
from tests.web.test_page_markdown import SAMPLE

_AXE = (Path(__file__).parent / "vendor/axe.js").read_text()


async def findings(window: Window) -> list[str]:
    """Return what axe complains about: in light all that it knows, in dark the colours."""
    # Past the page's own policy, which forbids a script in a page.
    await window.read(f"() => {{ if (!window.axe) {{ {_AXE}; window.axe = axe; }} }}")
    found = await window.read(_RUN, {})
    await window.page.emulate_media(color_scheme="dark")
    found += await window.read(_RUN, {"runOnly": ["color-contrast"]})
    await window.page.emulate_media(color_scheme="light")
    return [str(one) for one in found]


_RUN = """async (options) => {
  const { violations } = await axe.run({ resultTypes: ["violations"], ...options });
  return violations.flatMap(({ id, nodes }) =>
    nodes.map(({ html, failureSummary }) => `${id}: ${html}: ${failureSummary}`));
}"""


async def test_axe_finds_nothing_on_a_wide_screen(site: Site) -> None:
    async with site.window(SAMPLE, reduced_motion="reduce") as window:
        found = await findings(window)
        await window.ask("why?")
        await window.ended()
        await expect(window.page.locator("[data-coloured]")).to_have_count(1)
        await window.box.press("ArrowUp")
        found += await findings(window)
        await window.button("Delete this conversation").click()
        found += await findings(window)

    assert found == []


async def test_axe_finds_nothing_on_a_phone(site: Site) -> None:
    phone: dict[str, Any] = {"viewport": PHONE, "has_touch": True, "reduced_motion": "reduce"}
    async with site.window(SAMPLE, **phone) as window:
        # A keyboard on the screen has no Shift+Enter.
        await window.ask("why?")
        await expect(window.box).to_have_value("why?\n")
        await window.button("Send").click()
        await window.ended()
        found = await findings(window)
        await window.button("Show conversations").click()
        await expect(window.button("Close the list")).to_be_focused()
        found += await findings(window)
        await window.page.keyboard.press("Escape")

        await expect(window.button("Show conversations")).to_be_focused()
    assert found == []


async def test_the_login_says_what_is_wrong_and_leads_back(own_page: OwnPage) -> None:
    async with own_page(WEB_PASSWORD="open sesame") as one:
        await one.open("/c/0123456789")
        password = one.page.get_by_label("Password")
        await password.fill("open barley")
        await password.press("Enter")
        await expect(one.page.get_by_role("alert")).to_have_text("That is not the password.")
        found = await findings(one)
        await password.fill("open sesame")
        await password.press("Enter")
        await expect(one.page).to_have_url(f"{one.address}/c/0123456789")
        await one.button("Log out").click()
        await expect(password).to_be_visible()

    assert found == []


async def test_the_colours_that_are_chosen_stay(site: Site) -> None:
    async with site.window(color_scheme="light") as window:
        colours = []
        for choice in ("as the system", "light", "dark"):
            await expect(window.button(f"Colours: {choice}")).to_be_visible()
            colours.append(await window.read(_BACKGROUND))
            await window.button(f"Colours: {choice}").click()
        await window.button("Colours: as the system").click()
        await window.button("Colours: light").click()
        await window.page.reload()
        await expect(window.button("Colours: dark")).to_be_visible()
        colours.append(await window.read(_BACKGROUND))

    light, again, dark, reloaded = colours
    assert (light, dark) == (again, reloaded)
    assert light != dark


_BACKGROUND = "getComputedStyle(document.body).backgroundColor"


async def test_who_wants_less_motion_sees_none(site: Site) -> None:
    async with site.window(reduced_motion="reduce") as window:
        site.model.answer = [(0.0, ""), (600.0, "never")]
        await window.ask("why?")
        await expect(window.page.locator(".dots")).to_be_visible()
        still = await window.read("document.getAnimations().length")
        await window.page.emulate_media(reduced_motion="no-preference")
        await window.page.wait_for_function("document.getAnimations().length > 0")
        await window.box.press("Escape")
        await window.ended("stopped")

    assert still == 0


async def test_a_conversation_is_printed_whole_and_alone(site: Site) -> None:
    long = "\n\n".join(f"Paragraph {number}." for number in range(60))
    async with site.window(long) as window:
        await window.ask("much")
        await window.ended()
        await window.page.emulate_media(media="print")

        for part in ("#sidebar", ".dock", "#actions", ".tools >> nth=0"):
            await expect(window.page.locator(part)).to_be_hidden()
        await expect(window.answer.get_by_text("Paragraph 59.")).to_be_visible()
        paper = await window.page.pdf()

    assert len(re.findall(rb"/Type\s*/Page\b", paper)) > 1


@pytest.mark.parametrize("viewport", [WIDE, PHONE])
async def test_the_welcome_fits_the_window(site: Site, viewport: dict[str, int]) -> None:
    async with site.window(viewport=viewport) as window:
        await expect(window.page.locator("#welcome")).to_be_visible()

        scroller = "document.querySelector('#scroller')"
        assert await window.read(f"{scroller}.scrollHeight === {scroller}.clientHeight")


async def test_nothing_is_wider_than_a_phone(site: Site) -> None:
    code = f"```\n{'code ' * 100}\n```"
    table = (
        f"|{'cell' * 40}|b|\n|-|-|\n|1|2|\n\n|{'words |' * 9}\n{'|-' * 9}|\n|{'a few words |' * 9}"
    )
    wide = f"{'word' * 100} `{'code' * 100}`\n\n{code}\n\n{table}"
    async with site.window(wide, viewport=PHONE) as window:
        await window.ask("word" * 100)
        await window.ended()

        scroller = "document.querySelector('#scroller')"
        assert await window.read(f"{scroller}.scrollWidth <= {scroller}.clientWidth")
        assert await window.read("document.documentElement.scrollWidth") == PHONE["width"]
        # It scrolls by itself: a few words in a cell are one line.
        cell = "[...document.querySelectorAll('td')].at(-1)"
        assert await window.read(f"{cell}.clientHeight < 60")


async def test_a_screen_reader_hears_a_growing_answer_block_by_block(site: Site) -> None:
    answer = (
        "One **bold** word.\n\n```python\nx = 1\n```\n\n- [x] done[^1]\n\n[^1]: A note.\n\nEnd."
    )
    async with site.window() as window:
        await window.read(_HEARD)
        # A busy page that first sees the end of an answer tells of no beginning.
        begins = asyncio.Event()
        site.model.answer = [(begins, ""), *((0.01, character) for character in answer)]
        await window.ask("why?")
        await window.page.wait_for_function("() => window.heard.length")
        begins.set()
        await window.ended()
        complete = "() => window.heard.includes('The answer is complete.')"
        await window.page.wait_for_function(complete)
        heard = await window.read("() => window.heard")
        await window.open(window.page.url.removeprefix(site.address))
        await window.ended()
        again = await window.read("() => document.querySelector('#spoken').textContent")

    words = ["One bold word.", "Code in python.", "☑ done[1]", "[1] A note.", "End."]
    assert heard == ["Parley is answering.", *words, "The answer is complete."]
    assert again == ""


_HEARD = """() => {
  window.heard = [];
  const hear = (changes) => {
    for (const { addedNodes } of changes) {
      window.heard.push(...[...addedNodes].map((node) => node.textContent));
    }
  };
  for (const id of ["spoken", "status"]) {
    new MutationObserver(hear).observe(document.getElementById(id), { childList: true });
  }
}"""


# The page hears of a turn only once it has ended, as if its server had been slower than the worker.
_HEARS_ENDS_ONLY = """(() => {
  const listen = EventSource.prototype.addEventListener;
  const held = new Map();
  EventSource.prototype.addEventListener = function (name, heard) {
    listen.call(this, name, (event) => {
      const { id, keep, add, ...fields } = name === "turn" ? JSON.parse(event.data) : {};
      if (fields.question !== undefined) held.set(id, { answer: "" });
      if (!held.has(id)) return heard(event);
      const before = held.get(id);
      const whole = { ...before, ...fields, answer: before.answer.slice(0, keep) + (add ?? "") };
      held.set(id, whole);
      if (whole.state !== "done") return undefined;
      return heard({ data: JSON.stringify({ ...whole, id, add: whole.answer }) });
    });
  };
})()"""


async def test_a_screen_reader_hears_of_an_answer_that_ended_at_once(site: Site) -> None:
    async with site.window() as window:
        await window.page.add_init_script(_HEARS_ENDS_ONLY)
        await window.open()
        await window.ask("why?")
        await window.ended()
        status = window.page.locator("#status")
        await status.evaluate("status => status.textContent = ''")
        await window.ask("why not?")

        await expect(status).to_have_text("The answer is complete.")
