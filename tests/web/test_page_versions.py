"""Versions in the page: arrows below a question, and branches that any of them begins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from playwright.async_api import Locator, expect

from tests.support.chromium import PHONE, Site, Window, gated
from tests.web.test_page_access import findings
from tests.web.test_page_keyboard import to

OLDER, NEWER, EDIT = "The version before", "The next version", "Edit your message"


def says(messages: Sequence[Mapping[str, str]]) -> str:
    return f"Answer to: {messages[-1]['content'].splitlines()[-1]}"


def said(one: Window) -> Locator:
    return one.page.locator(".said")


async def asked(one: Window, site: Site, *texts: str) -> None:
    site.model.answer = says
    for text in texts:
        await one.ask(text)
        await one.says(f"Answer to: {text}")
        await one.ended()


async def edited(one: Window, number: int, text: str) -> None:
    """Send another text in the place of a question."""
    turn = one.turns.nth(number)
    await turn.hover()
    await turn.get_by_role("button", name=EDIT).click()
    await one.page.locator(".editor textarea").fill(text)
    await one.page.locator(".editor textarea").press("Enter")
    await one.says(f"Answer to: {text}")
    await one.ended()


async def test_an_edit_of_an_earlier_question_begins_a_branch_and_arrows_lead_back(
    site: Site,
) -> None:
    async with site.window() as one:
        await asked(one, site, "one", "two", "three")
        await one.turns.nth(1).hover()
        await one.turns.nth(1).get_by_role("button", name=EDIT).click()
        hint = one.page.locator(".editor .hint")
        await expect(hint).to_contain_text("begins a new branch")
        await one.page.locator(".editor").get_by_role("button", name="Cancel").click()
        await edited(one, 1, "four")
        await expect(said(one)).to_have_text(["one", "four"])
        group = one.page.get_by_role("group", name="Version 2 of 2")
        await expect(group).to_be_visible()
        assert await findings(one) == []
        await one.button(OLDER).click()
        await expect(said(one)).to_have_text(["one", "two", "three"])
        await one.page.reload()
        await expect(said(one)).to_have_text(["one", "two", "three"])
        await one.button(NEWER).click()

        await expect(said(one)).to_have_text(["one", "four"])
        await expect(one.answer).to_have_text("Answer to: four")


async def test_the_arrows_need_no_mouse_keep_the_focus_and_say_what_is_open(site: Site) -> None:
    async with site.window(viewport=PHONE) as one:
        await asked(one, site, "one", "two")
        site.model.answer = "Another."
        await one.button("Answer again").click()
        await one.says("Another.")
        await one.ended()
        keys, status = one.page.keyboard, one.page.locator("#status")
        await to(one, OLDER, back=True)
        await keys.press("Enter")
        await expect(one.answer).to_have_text("Answer to: two")
        await expect(status).to_have_text("Version 1 of 2")
        # It leads no further, and keeps the focus.
        await keys.press("Enter")
        older, newer = one.button(OLDER), one.button(NEWER)
        await expect(older).to_be_focused()
        await expect(older).to_have_attribute("aria-disabled", "true")
        await keys.press("Tab")
        await expect(newer).to_be_focused()
        await keys.press("Enter")

        await expect(one.answer).to_have_text("Another.")
        await expect(newer).to_be_focused()
        assert await findings(one) == []


async def test_a_second_tab_follows_and_nothing_is_switched_while_an_answer_grows(
    site: Site,
) -> None:
    async with site.window() as one:
        await asked(one, site, "one", "two")
        await edited(one, 0, "three")
        other = Window(await one.page.context.new_page(), site.address)
        await other.page.goto(one.page.url)
        await expect(said(other)).to_have_text(["three"])
        await one.button(OLDER).click()
        await expect(said(other)).to_have_text(["one", "two"])
        await expect(other.page.get_by_role("group", name="Version 1 of 2")).to_be_visible()
        gates, site.model.answer = gated("Well")
        await other.ask("four")
        gates[0].set()
        await one.says("Well")
        await expect(one.button(NEWER)).to_have_attribute("aria-disabled", "true")
        await one.button(NEWER).click(force=True)
        await expect(said(one)).to_have_text(["one", "two", "four"])
        await other.page.keyboard.press("Escape")
        await one.ended("stopped")
        await one.button(NEWER).click()

        await expect(said(other)).to_have_text(["three"])


async def test_a_message_with_versions_says_what_goes_with_it(site: Site) -> None:
    async with site.window() as one:
        await asked(one, site, "one", "two")
        await edited(one, 1, "three")
        await one.turns.nth(1).hover()
        await one.turns.nth(1).get_by_role("button", name="Delete your message").click()
        await expect(one.page.locator("dialog[open]")).to_contain_text(
            "All versions of the message"
        )
        await one.page.locator("dialog[open]").get_by_role("button", name="Delete").click()

        await expect(said(one)).to_have_text(["one"])
        await expect(one.page.locator(".versions")).to_be_hidden()
