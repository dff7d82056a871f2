"""The list of conversations in Chromium: pinned, archived, and several chosen together."""

from __future__ import annotations

from typing import Any

from playwright.async_api import Locator, Route, expect

from tests.support.chromium import PHONE, Site, Window
from tests.web.test_page_access import findings
from tests.web.test_page_saving import content_of


async def talked(window: Window, *questions: str) -> None:
    """Have each question answered in a conversation of its own."""
    for text in questions:
        await window.open()
        await window.ask(text)
        await window.ended()
        await expect(window.conversations.filter(has_text=text)).to_have_count(1)


async def choose(window: Window, title: str, entry: str) -> None:
    """Choose an entry of the menu of a conversation."""
    row = window.conversations.filter(has_text=title)
    await row.hover()
    await row.get_by_role("button", name=f"More for {title}").click()
    await window.page.get_by_role("menuitem", name=entry, exact=True).click()


def group(window: Window, name: str) -> Locator:
    return window.page.get_by_role("list", name=name, exact=True).locator("a, label")


async def test_pinned_ones_stand_on_top_and_archived_ones_apart(site: Site) -> None:
    async with site.window() as window:
        await talked(window, "one?", "two?", "three?")
        second = Window(await window.page.context.new_page(), site.address)
        await second.open(window.page.url.removeprefix(site.address))
        await expect(group(second, "Today")).to_have_text(["three?", "two?", "one?"])
        pinned, archived = group(window, "Pinned"), window.page.locator("#conversations summary")
        await choose(window, "three?", "Pin")
        await expect(window.page.locator("#toast")).to_contain_text("after 30 days without")
        # Each conversation has moved before the next one is chosen.
        await expect(pinned).to_have_text(["three?"])
        await choose(window, "one?", "Pin")
        await expect(pinned).to_have_text(["three?", "one?"])
        await choose(window, "two?", "Archive")
        await expect(archived).to_have_text("Archived (1)")
        await choose(window, "three?", "Unpin")
        # A page that shows the conversation hears of it at once.
        await expect(group(second, "Pinned")).to_have_text(["one?"])
        await expect(pinned).to_have_text(["one?"])
        await expect(group(window, "Today")).to_have_text(["three?"])
        await expect(window.page.get_by_role("link", name="two?")).to_be_hidden()

        await window.page.get_by_role("searchbox").fill("two")
        await expect(window.page.get_by_role("link", name="two?")).to_be_visible()
        await window.page.get_by_role("searchbox").fill("")
        await expect(group(window, "Today")).to_have_text(["three?"])
        await archived.click()
        await window.page.get_by_role("link", name="two?").click()
        await window.ask("and two more?")
        await window.ended()
        await expect(group(window, "Today")).to_have_text(["two?", "three?"])
        await expect(archived).to_have_count(0)


async def test_several_are_deleted_after_one_question_and_those_that_stay_are_named(
    site: Site,
) -> None:
    async with site.window() as window:
        await talked(window, "one?", "two?", "three?")
        await choose(window, "one?", "Select several")
        await expect(window.page.get_by_role("checkbox", name="one?")).to_be_focused()
        await window.page.keyboard.press("Space")
        await window.page.get_by_label("All", exact=True).check()
        await expect(window.page.locator(".several")).to_contain_text("3 selected")
        ids = await window.read(
            "[...document.querySelectorAll('#conversations li')].map((it) => it.dataset.id)"
        )

        async def refuse(route: Route) -> None:
            if route.request.method == "DELETE":
                await route.fulfill(status=429, json={"error": "Please try again later."})
            else:
                await route.continue_()

        await window.page.route(f"**/conversations/{ids[1]}", refuse)
        await window.page.locator(".several").get_by_role("button", name="Delete").click()
        await expect(window.page.locator("#ask-title")).to_have_text(
            "Delete the selected conversations (3)?"
        )
        await window.page.locator("#ask-yes").click()
        told = "1 of 3 stay as they were: “two?”. Please try again later."
        await expect(window.page.locator("#toast")).to_have_text(told)
        await expect(window.conversations).to_have_text(["two?"])
        await expect(window.page.get_by_role("checkbox", name="two?")).to_be_checked()
        await expect(window.page).to_have_url(f"{site.address}/")
        await window.page.keyboard.press("Escape")
        await expect(window.page.locator(".several")).to_have_count(0)
        await expect(group(window, "Today")).to_have_text(["two?"])


async def test_several_are_archived_exported_and_brought_back(site: Site) -> None:
    async with site.window("Because.") as window:
        await talked(window, "one?", "two?", "three?")
        bar = window.page.locator(".several")
        await choose(window, "one?", "Select several")
        await window.page.get_by_role("checkbox", name="three?").check()
        async with window.page.expect_download() as download:
            await bar.get_by_role("button", name="Export").click()
        file = await download.value
        text = content_of(await file.path())
        await choose(window, "three?", "Select several")
        await window.page.get_by_role("checkbox", name="two?").check()
        await bar.get_by_role("button", name="Archive").click()
        await expect(window.page.locator("#conversations summary")).to_have_text("Archived (2)")
        await window.page.locator("#conversations summary").click()
        await choose(window, "three?", "Select several")
        await window.page.get_by_role("checkbox", name="two?").check()
        await bar.get_by_role("button", name="Bring back").click()

        await expect(group(window, "Today")).to_have_text(["three?", "two?", "one?"])
        assert file.suggested_filename == "conversations.md"
        assert [part.splitlines()[0] for part in text.split("\n---\n\n")] == ["# three?", "# one?"]
        assert text.count("Because.") == 2


async def test_the_menu_is_left_by_escape_and_an_answer_goes_on(site: Site) -> None:
    async with site.window() as window:
        site.model.answer = [(0.0, "Well"), (600.0, "never")]
        await window.ask("one?")
        await window.says("Well")
        more = window.page.get_by_role("button", name="More for one?")
        await more.focus()
        for key in ("Enter", "ArrowUp", "ArrowDown", "End"):
            await window.page.keyboard.press(key)
        await expect(window.page.get_by_role("menuitem", name="Delete")).to_be_focused()
        box = await window.page.get_by_role("menu").bounding_box()
        assert box
        assert box["width"] < 220  # as wide as its words
        await window.page.keyboard.press("Escape")
        await expect(more).to_be_focused()
        await expect(window.page.get_by_role("menu")).to_be_hidden()
        await expect(window.page.locator("#stop")).to_be_visible()
        await window.page.keyboard.press("Escape")
        await window.ended("stopped")


async def test_axe_finds_nothing_in_the_menu_and_among_the_chosen(site: Site) -> None:
    sizes: list[dict[str, Any]] = [{}, {"viewport": PHONE, "has_touch": True, "is_mobile": True}]
    for context in sizes:
        async with site.window(**context) as window:
            await window.box.fill("one?")
            await window.button("Send").click()
            await window.ended()
            if context:
                await window.button("Show conversations").click()
            await window.conversations.hover()
            await window.button("More for one?").click()
            in_menu = await findings(window)
            await window.page.get_by_role("menuitem", name="Archive").click()
            await window.page.locator("#conversations summary").click()
            await window.conversations.hover()
            await window.button("More for one?").click()
            await window.page.get_by_role("menuitem", name="Select several").click()
            await expect(window.page.locator(".several")).to_be_visible()
            assert (in_menu, await findings(window)) == ([], [])
            width = "document.documentElement.scrollWidth <= innerWidth"
            assert await window.read(width)
