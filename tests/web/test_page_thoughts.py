"""What a model has thought stands folded above its answer, in a browser."""

from __future__ import annotations

from playwright.async_api import Locator, expect

from tests.support.chromium import Site, Window, gated
from tests.web.test_page_access import findings

THOUGHTS = "First, *six* times seven.\n\n- That is 42.\n- Is it? It is."


def fold(one: Window) -> Locator:
    return one.page.locator(".turn:last-child .thoughts")


def summary(one: Window) -> Locator:
    return fold(one).locator("summary")


async def test_thoughts_grow_folded_and_are_read_by_those_who_unfold_them(site: Site) -> None:
    gates, script = gated("First, *six* ", "times seven.")
    site.model.thoughts = script[:-1]
    async with site.window("It is **42**.") as one:
        await one.ask("What is 6 * 7?")
        gates[0].set()
        await expect(summary(one)).to_have_text("Thought for 1 s")
        await expect(one.page.locator(".note")).to_have_text("Thinking …")
        await expect(fold(one).locator("div")).to_be_hidden()
        await summary(one).focus()
        await one.page.keyboard.press("Enter")
        await expect(fold(one).locator("div")).to_have_text("First, *six* ")
        gates[1].set()
        await one.ended()

        await expect(fold(one).locator("div")).to_have_text("First, *six* times seven.")
        await expect(one.answer).to_have_text("It is 42.")
        await expect(one.page.locator("#spoken")).to_have_text("It is 42.")
        assert await findings(one) == []
