"""What a model has thought stands folded above its answer, in a browser."""

from __future__ import annotations

from typing import Any

from playwright.async_api import Locator, Route, expect

from tests.support.chromium import PHONE, Site, Window, gated
from tests.web.test_page_access import findings
from tests.web.test_page_safety import PAYLOADS, expect_nothing


def fold(one: Window) -> Locator:
    return one.page.locator(".turn:last-child .thoughts")


def words(one: Window) -> Locator:
    return fold(one).locator("div")


async def unfold(one: Window) -> None:
    """As somebody does who has no mouse."""
    await fold(one).locator("summary").focus()
    await one.page.keyboard.press("Enter")


async def test_thoughts_grow_folded_and_are_read_by_those_who_unfold_them(site: Site) -> None:
    gates, script = gated("First, *six* ", "times <b>seven</b>.")
    site.model.thoughts = script[:-1]
    async with site.window("It is **42**.") as one:
        await one.ask("What is 6 * 7?")
        gates[0].set()
        await expect(fold(one).locator("summary")).to_have_text("Thought for 1 s")
        await expect(one.page.locator(".note")).to_have_text("Thinking …")
        await expect(words(one)).to_be_hidden()
        await unfold(one)
        await expect(words(one)).to_have_text("First, *six* ")
        await one.read("getSelection().selectAllChildren(document.querySelector('.thoughts div'))")
        gates[1].set()
        await one.ended()

        await expect(words(one)).to_have_text("First, *six* times <b>seven</b>.")
        assert await one.read("getSelection().toString()") == "First, *six* "
        await expect(one.answer).to_have_text("It is 42.")
        # A screen reader hears the answer alone.
        await expect(one.page.locator("#spoken")).to_have_text("It is 42.")
        assert await findings(one) == []


async def test_thoughts_are_there_after_a_reload_and_are_not_copied(site: Site) -> None:
    site.model.thoughts = "First, six times seven."
    phone: dict[str, Any] = {
        "viewport": PHONE,
        "permissions": ["clipboard-read", "clipboard-write"],
    }
    async with site.window("It is 42.", **phone) as one:
        await one.ask("What is 6 * 7?")
        await one.ended()
        await one.page.reload()
        await unfold(one)
        await expect(words(one)).to_have_text("First, six times seven.")
        assert await findings(one) == []
        await one.button("Copy the answer").click()
        await expect(one.page.locator("#status")).to_have_text("Copied.")

        assert await one.read("navigator.clipboard.readText()") == "It is 42."


async def test_thoughts_that_do_not_come_are_fetched_when_they_are_unfolded_again(
    site: Site,
) -> None:
    async def fail(route: Route) -> None:
        await route.abort()

    site.model.thoughts = "First, six times seven."
    async with site.window("It is 42.") as one:
        await one.ask("What is 6 * 7?")
        await one.ended()
        await one.page.route("**/thoughts", fail)
        await unfold(one)
        await expect(words(one)).to_contain_text("Parley cannot be reached")
        await one.page.unroute("**/thoughts")
        await unfold(one)
        await unfold(one)
        await expect(words(one)).to_have_text("First, six times seven.")

        site.model.thoughts = ""
        await one.ask("Again?")
        await expect(one.turns).to_have_count(2)
        await one.ended()
        await expect(fold(one)).to_be_hidden()


async def test_every_version_shows_its_own_thoughts(site: Site) -> None:
    async with site.window("It is 42.") as one:
        site.model.thoughts = "First, six times seven."
        await one.ask("What is 6 * 7?")
        await one.ended()
        site.model.thoughts = "Now seven times six."
        await one.button("Answer again").click()
        await expect(one.page.get_by_role("group", name="Version 2 of 2")).to_be_visible()
        await one.ended()
        await unfold(one)
        await expect(words(one)).to_have_text("Now seven times six.")
        await one.button("The version before").click()

        await expect(words(one)).to_have_text("First, six times seven.")


async def test_nothing_in_a_thought_acts(site: Site) -> None:
    site.model.thoughts, site.model.chunk = "\n\n".join(PAYLOADS), 10_000
    async with site.window("It is 42.") as one:
        await one.ask("What is 6 * 7?")
        await one.ended()
        await unfold(one)
        await expect(words(one)).to_contain_text(PAYLOADS[-1].strip())

        assert await words(one).locator("*").count() == 0
        await expect_nothing(one)
    site.model.chunk = 8
