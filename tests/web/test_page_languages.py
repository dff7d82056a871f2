"""The page speaks the language of the browser, or the one that a person chose, and no other."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.async_api import expect

from bot.languages import LANGUAGES as NAMED
from bot.languages import say
from bot.store import Store
from tests.emulators.model import ModelEmulator
from tests.support.catalogues import LANGUAGES, catalogue, said
from tests.support.chromium import PHONE, WIDE, Site, Window, window
from tests.support.web_page import page_of
from tests.web.conftest import OwnPage
from tests.web.test_page_access import findings

# All that stands in the page, and is read aloud or shown to a mouse.
_TEXTS = """() => {
  const named = ["title", "placeholder", "aria-label"];
  const texts = [];
  for (const element of document.querySelectorAll("body *, title")) {
    if (element.closest("[data-turn] .text, .said, script, option[lang], kbd")) continue;
    for (const node of element.childNodes) if (node.nodeType === 3) texts.push(node.data);
    for (const name of named) texts.push(element.getAttribute(name) ?? "");
  }
  return texts.map((text) => text.replace(/\\s+/g, " ").trim()).filter(Boolean);
}"""
# What sticks out at the side, or has a word that its box cuts off.
_STICKS_OUT = """() => [...document.querySelectorAll("button, a, p, h1, h2, label, li, dt, dd")]
  .filter((one) => one.checkVisibility() && !one.closest("[inert], .sr, .skip, #conversations"))
  .map((one) => [one, one.getBoundingClientRect()])
  .filter(([one, { left, right }]) => left < -1 || right > innerWidth + 1
    || (one.matches("button, label, dd") && one.scrollWidth > one.clientWidth + 1
      && getComputedStyle(one).overflowX === "visible" && one.clientWidth > 0))
  .map(([one]) => one.outerHTML.slice(0, 200))"""

# The list learns of a narrow window as the next frame is drawn.
_DRAWN = """() => new Promise((drawn) => requestAnimationFrame(() => setTimeout(drawn)))"""


async def english(window: Window, language: str) -> list[str]:
    """Return what the page says in English, though it has a translation."""
    words = catalogue(language)
    texts = await window.read(_TEXTS)
    return sorted({it for it in texts if it in said() and words[it] != it and it not in _MEANT})


# Words that two languages share.
_MEANT = {"Code", "Image", "Conversation", "Conversations", "Sources"}


async def flaws(window: Window, language: str) -> list[str]:
    """Return what is English, or does not fit a wide screen or a phone."""
    found = await english(window, language)
    for size in (WIDE, PHONE):
        await window.page.set_viewport_size(size)  # type: ignore[arg-type]
        await window.read(_DRAWN)
        found += await window.read(_STICKS_OUT)
    await window.page.set_viewport_size(WIDE)  # type: ignore[arg-type]
    return found


@pytest.mark.parametrize("language", LANGUAGES)
async def test_the_page_speaks_the_language_of_the_browser(language: str, site: Site) -> None:
    words = catalogue(language)
    options: dict[str, Any] = {"locale": f"{language}-XX", "reduced_motion": "reduce"}
    async with site.window("Well.\n\n```\nx\n```", **options) as window:
        page = window.page
        await expect(page.locator("html")).to_have_attribute("lang", language)
        await expect(page.locator("#greeting")).to_have_text(words["What is on your mind?"])
        await expect(page.locator("#conversations")).to_contain_text(
            words["Your conversations appear here."]
        )
        found = await flaws(window, language)
        await window.ask("help")
        await expect(page.locator("#help-usage")).to_contain_text(
            words["Your questions today: {used}"].format(used=0)
        )
        found += await flaws(window, language)
        await page.keyboard.press("Escape")
        await window.ask("why?")
        await window.ended()
        # What a screen reader hears.
        await expect(page.locator("#status")).to_have_text(words["The answer is complete."])
        await expect(window.button(words["Copy the answer"])).to_be_visible()
        await expect(page.locator(".code button").last).to_have_text(words["Copy"])
        found += await flaws(window, language)
        await page.locator("#model").click()
        await expect(page.locator("#answers-place")).to_have_text(
            words["For this conversation, from your next question on."]
        )
        found += await flaws(window, language)
        complaints = await findings(window)

    assert (found, complaints) == ([], [])


async def test_a_language_that_was_chosen_stays_and_can_be_given_back(site: Site) -> None:
    async with site.window(locale="de-DE") as window:
        html = window.page.locator("html")
        await window.button(say("Help and usage", language="de")).click()
        await window.page.get_by_label("Sprache").select_option("日本語")
        await expect(html).to_have_attribute("lang", "ja")
        await window.open()
        await expect(window.box).to_have_attribute("placeholder", say("Ask Parley", language="ja"))
        await window.button(say("Help and usage", language="ja")).click()
        chooses = window.page.locator("#language")
        await expect(chooses).to_have_value("ja")
        await chooses.select_option("")

        await expect(html).to_have_attribute("lang", "de")


async def test_dates_are_in_the_language_that_was_chosen(site: Site) -> None:
    async with site.window(locale="en-US") as window:
        chosen = {"name": "language", "value": "de", "url": site.address}
        await window.page.context.add_cookies([chosen])  # type: ignore[list-item]
        await window.open()
        await window.ask("why?")
        await window.ended()
        await window.button(say("Share this conversation", language="de")).click()
        await window.button(say("Make a link", language="de")).click()

        times = window.page.locator(".links small")
        await expect(times).to_have_text(
            re.compile(r"Erstellt \d+\.\d+\.\d+, .+, endet \d+\.\d+\.")
        )


@pytest.mark.parametrize("language", LANGUAGES)
async def test_labels_fit_the_bar_of_those_that_are_selected(language: str, site: Site) -> None:
    async with site.window(locale=language) as window:
        await window.ask("why?")
        await window.ended()
        name = say("More for {name}", language=language, name="why?")
        await window.conversations.hover()
        await window.button(name).click()
        entry = say("Select several", language=language)
        await window.page.get_by_role("menuitem", name=entry).click()
        count = window.page.locator(".several span")
        await expect(count).to_be_visible()

        lines = "it => it.offsetHeight / parseFloat(getComputedStyle(it).lineHeight)"
        assert await count.evaluate(lines) < 1.5


async def test_the_help_is_read_from_its_beginning(site: Site) -> None:
    async with site.window(viewport=PHONE) as window:
        await window.button("Show conversations").click()
        await window.button("Help and usage").click()
        dialog = window.page.locator("#help")
        await expect(dialog).to_be_visible()

        assert await dialog.evaluate("it => [it.scrollTop, it.scrollHeight > innerHeight]") == [
            0,
            True,
        ]


async def test_the_login_is_in_the_language_too(own_page: OwnPage) -> None:
    async with own_page({"Accept-Language": "fr"}, WEB_PASSWORD="open sesame") as one:
        await one.open()
        password = one.page.get_by_label("Mot de passe")
        await password.fill("open barley")
        await password.press("Enter")

        await expect(one.page.get_by_role("alert")).to_have_text(
            catalogue("fr")["That is not the password."]
        )
        await expect(one.page.locator("html")).to_have_attribute("lang", "fr")


async def test_a_page_of_a_known_language_comes_once_and_english_brings_no_catalogue(
    own_store: Store, model: ModelEmulator
) -> None:
    async with page_of(own_store, model) as (ann, _):
        found = {}
        for wanted in ("en", "de", "pt, ja;q=0.5", "pt"):
            ask = {"Accept-Language": wanted}
            async with ann.session.get(ann.address, headers=ask) as answer:
                found[wanted] = await answer.text()
                known = {"If-None-Match": answer.headers["ETag"], **ask}
                assert "Accept-Language" in answer.headers["Vary"]
                assert answer.headers["Cache-Control"] == "no-cache"
            async with ann.session.get(ann.address, headers=known) as answer:
                assert answer.status == 304
            other = {**known, "Accept-Language": "es"}
            async with ann.session.get(ann.address, headers=other) as answer:
                assert answer.status == 200

    assert 'lang="de"' in found["de"]
    assert 'lang="ja"' in found["pt, ja;q=0.5"]
    assert found["en"] == found["pt"]
    assert "application/json" not in found["en"]
    # What the first paint loads more of.
    assert len(found["de"].encode()) - len(found["en"].encode()) < 12_000


@pytest.mark.parametrize("language", ["en", "ja"])
async def test_a_first_visit_takes_less_than_120_kb(language: str, site: Site) -> None:
    sizes: dict[str, int] = {}
    async with window(site.chromium, site.address, locale=language) as one:
        network = await one.page.context.new_cdp_session(one.page)
        await network.send("Network.enable")

        def loaded(event: dict[str, Any]) -> None:
            sizes[event["requestId"]] = event["encodedDataLength"]

        network.on("Network.loadingFinished", loaded)
        await one.open()
        await expect(one.page.locator("#conversations .none")).to_be_visible()
        await one.page.wait_for_load_state("networkidle")

    assert len(sizes) > 20
    assert sum(sizes.values()) < 120_000, (len(sizes), sum(sizes.values()))


async def test_what_the_server_says_is_in_the_language_of_the_request(
    own_store: Store, model: ModelEmulator
) -> None:
    async with page_of(own_store, model) as (ann, _):
        path = f"{ann.address}/api/conversations/{'0' * 32}/export"
        said_so = {}
        for language in NAMED:
            async with ann.session.get(path, headers={"Accept-Language": language}) as answer:
                said_so[language] = (await answer.json())["error"]

    assert said_so == {one: say("There is no such conversation.", language=one) for one in NAMED}
