"""A link is made, read and revoked in the page, and what it shows can do nothing."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from playwright.async_api import Route, expect

from bot.text.attachments import ENDINGS
from tests.emulators.model import ModelEmulator
from tests.support.chromium import PHONE, WIDE, Site, Window, window
from tests.web.conftest import OwnPage
from tests.web.test_page_access import findings
from tests.web.test_page_formulas import HOSTILE
from tests.web.test_page_markdown import SAMPLE
from tests.web.test_page_safety import PAYLOADS, expect_nothing

SHOWN = f"{SAMPLE}\n\nThe formula \\(a^2 + b^2 = c^2\\) stands here."
GONE = "The link has ended or was revoked, or a part of it is missing."


async def make_link(one: Window) -> str:
    """Make a link to the open conversation by keyboard; return its path."""
    await one.button("Share this conversation").press("Enter")
    await one.page.get_by_label("Valid for").select_option("One day")
    await one.button("Make a link").press("Enter")
    await expect(one.page.get_by_text("The link is ready to be copied.")).to_be_visible()
    return str(await one.page.locator(".links a").first.get_attribute("href"))


@asynccontextmanager
async def reader(one: Window, path: str, **context: Any) -> AsyncIterator[Window]:
    """Another person who follows a link."""
    browser = one.page.context.browser
    assert browser
    async with window(browser, one.address, **context) as other:
        await other.open(path)
        yield other


async def test_a_link_is_read_by_another_person_until_it_is_revoked(site: Site) -> None:
    async with site.window(SHOWN) as ann:
        await ann.ask("Why is it **so**?")
        await ann.ended()
        path = await make_link(ann)
        await expect(ann.page.locator(":focus")).to_have_text("Copy")
        # When it ends is not cut off.
        uncut = "it => it.scrollWidth <= it.clientWidth"
        assert await ann.page.locator(".links small").evaluate(uncut)
        async with reader(ann, path) as bob:
            asked: list[tuple[str, str]] = []
            bob.page.on("request", lambda it: asked.append((it.method, it.url)))
            await bob.page.reload()
            await expect(bob.page.locator(".said")).to_have_text("Why is it **so**?")
            await expect(bob.page.locator("math")).to_be_visible()
            await expect(bob.page.locator("td").first).to_have_text("1")
            await expect(bob.page.locator("[data-coloured]")).to_have_count(1)
            await expect(bob.page.get_by_role("heading", level=1)).to_have_text("Why is it **so**?")
            await expect(bob.page).to_have_title("Why is it **so**? · Parley")
            about = bob.page.locator("#about")
            await expect(about).to_have_text(re.compile("^As it was shared on .+ends on .+"))
            async with bob.page.expect_download() as saved:
                await bob.page.locator("[data-save=code]").first.click()
            # Nothing to write with, and nothing that stays open.
            names = await bob.read(_BUTTONS)
            await expect(bob.page.locator("textarea, input, form, dialog, aside")).to_have_count(0)

            await ann.page.locator(".links button", has_text="Revoke").press("Enter")
            await expect(ann.page.get_by_text("The link no longer works.")).to_be_visible()
            await expect(ann.page.locator(".links li")).to_have_count(0)
            await bob.page.reload()
            await expect(about).to_have_text(GONE)
            await expect(bob.turns).to_have_count(0)

    download = await saved.value
    assert download.suggested_filename == f"answer.{ENDINGS['python']}"
    assert set(names) == {"Save", "Copy", "Copy your message", "Copy the answer"}
    assert {method for method, _ in asked} == {"GET"}
    assert not [url for _, url in asked if "events" in url]


_BUTTONS = """[...document.querySelectorAll("button:not([hidden])")].map(
  (button) => button.ariaLabel ?? button.textContent)"""


async def test_nothing_that_was_written_acts_in_what_a_link_shows(site: Site) -> None:
    around = ("\\({}\\)", "$${}$$", "\\[\\text{{{}}}\\]")
    wrapped = [form.format(one) for one in PAYLOADS for form in around]
    async with site.window("\n\n".join([*PAYLOADS, *HOSTILE, *wrapped])) as ann:
        await ann.ask("\n".join(PAYLOADS))
        await ann.ended()
        path = await make_link(ann)
        async with reader(ann, path) as bob:
            await expect(bob.page.locator(".said")).to_have_text("\n".join(PAYLOADS))
            await expect(bob.page.locator("math").first).to_be_visible()
            await bob.page.wait_for_function(_SETTLED)
            await bob.page.get_by_text("press").first.hover()

            await expect_nothing(bob)
            links = await bob.read(_LINKS)
            assert {(it[1], it[2]) for it in links} == {("_blank", "noopener noreferrer nofollow")}
            assert {it[0] for it in links} <= {"https:", "mailto:"}
            assert (
                await bob.read(
                    "document.querySelectorAll('#turns :is(img, input, svg:not(.icon *))').length"
                )
                == 0
            )


_SETTLED = """async () => {
  const { isSettled } = await import("/static/formulas.js");
  return isSettled();
}"""
_LINKS = "[...document.querySelectorAll('#turns a')].map((it) => [it.protocol, it.target, it.rel])"


async def test_a_title_of_markup_is_text_in_a_link_and_in_the_list(site: Site) -> None:
    title = PAYLOADS[1]
    async with site.window() as ann:
        await ann.ask("why?")
        await ann.ended()
        await ann.button("Rename this conversation").click()
        await ann.page.locator("#ask-input").fill(title)
        await ann.button("Rename").click()
        await expect(ann.page.locator("#title")).to_have_text(title)
        path = await make_link(ann)
        await expect(ann.page.locator(".links a")).to_have_text(title)
        await expect_nothing(ann)
        async with reader(ann, path) as bob:
            await expect(bob.page.get_by_role("heading", level=1)).to_have_text(title)
            await expect_nothing(bob)


async def test_a_press_that_a_server_does_not_answer_makes_one_link(site: Site) -> None:
    async with site.window() as ann:
        await ann.ask("why?")
        await ann.ended()
        tries: list[str] = []

        async def lose(route: Route) -> None:
            tries.append(route.request.url)
            if len(tries) == 1:
                await route.fetch()  # it is made, and the answer is lost
                await route.abort()
            else:
                await route.continue_()

        await ann.page.route("**/api/conversations/*/shares", lose)
        await make_link(ann)
        await expect(ann.page.locator(".links li")).to_have_count(1)
    assert len(tries) >= 2


async def test_a_link_is_copied_whole_also_where_a_browser_has_no_clipboard(site: Site) -> None:
    async with site.window() as ann:
        await ann.ask("why?")
        await ann.ended()
        path = await make_link(ann)
        await ann.read(_COPIED)
        await ann.page.locator(".links button", has_text="Copy").click()
        await expect(ann.page.locator(".links [data-copied]")).to_have_count(1)
        # What stands outside of an open dialog is not heard.
        await expect(ann.page.locator("dialog [role=status]")).to_have_text("Copied.")
        copied = await ann.read("window.copied")

    assert copied == ann.address.rstrip("/") + path


_COPIED = """() => {
  Object.defineProperty(navigator, "clipboard", { value: undefined });
  addEventListener("copy", () => {
    const { value, selectionStart, selectionEnd } = document.activeElement;
    window.copied = value.slice(selectionStart, selectionEnd);
  });
}"""


@pytest.mark.parametrize("viewport", [WIDE, PHONE])
async def test_axe_finds_nothing_where_links_are_made_and_read(
    site: Site, viewport: dict[str, int]
) -> None:
    looks: dict[str, Any] = {"viewport": viewport, "reduced_motion": "reduce"}
    async with site.window(SHOWN, **looks) as ann:
        await ann.ask("why?")
        await ann.ended()
        path = await make_link(ann)
        found = await findings(ann)
        async with reader(ann, path, **looks) as bob:
            await expect(bob.page.locator("[data-coloured]")).to_have_count(1)
            found += await findings(bob)
            width = await bob.read("document.documentElement.scrollWidth")
            await bob.open("/s/none")
            await expect(bob.page.locator("#about")).to_have_text(GONE)
            found += await findings(bob)

    assert found == []
    assert width <= viewport["width"]


async def test_what_a_link_shows_is_printed_whole_and_without_buttons(site: Site) -> None:
    long = "\n\n".join(f"Paragraph {number}." for number in range(60))
    async with site.window(f"{long}\n\n```\ncode\n```") as ann:
        await ann.ask("much")
        await ann.ended()
        path = await make_link(ann)
        async with reader(ann, path) as bob:
            await expect(bob.turns).to_have_count(1)
            await bob.page.emulate_media(media="print")
            for button in await bob.page.locator("button").all():
                await expect(button).to_be_hidden()
            paper = await bob.page.pdf()

    assert len(re.findall(rb"/Type\s*/Page\b", paper)) > 1


async def test_a_login_leads_a_reader_to_the_link(own_page: OwnPage, model: ModelEmulator) -> None:
    async with own_page(WEB_PASSWORD="open sesame") as ann:
        await ann.open()
        await log_in(ann)
        await expect(ann.page.locator("#me")).to_have_text("Guest")
        await ann.ask("why?")
        await ann.ended()
        path = await make_link(ann)
        async with reader(ann, path) as bob:
            await log_in(bob)
            await expect(bob.page.locator(".said")).to_have_text("why?")
            await expect(bob.page).to_have_url(re.compile(f"{path}$"))


async def log_in(one: Window) -> None:
    await one.page.get_by_label("Password").fill("open sesame")
    await one.page.get_by_label("Password").press("Enter")


@pytest.mark.parametrize(("who", "count"), [("off", 0), ("people", 1), ("anyone", 1)])
async def test_a_page_offers_links_only_where_the_operator_allows_them(
    who: str, count: int, own_page: OwnPage, model: ModelEmulator
) -> None:
    async with own_page({"X-User": "Ann"}, WEB_PROXY_HEADER="X-User", WEB_SHARES=who) as ann:
        await ann.open()
        await ann.ask("why?")
        await ann.ended()
        await expect(ann.page.locator("#export")).to_be_visible()
        await expect(ann.page.locator("#share:visible")).to_have_count(count)
        if not count:
            return
        path = await make_link(ann)
        async with reader(ann, path, extra_http_headers={"X-User": "Bob"}) as bob:
            await expect(bob.page.locator("#about")).to_contain_text("As Ann shared it on ")
        async with reader(ann, path) as nobody:
            if who == "people":
                await expect(nobody.page.get_by_text("Please log in at the proxy")).to_be_visible()
            else:
                about = nobody.page.locator("#about")
                await expect(about).to_contain_text("As it was shared on ")
                await expect(nobody.turns).to_have_count(1)
