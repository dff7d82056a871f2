"""The card of a question of a tool's server, in a browser."""

from __future__ import annotations

from playwright.async_api import Browser, expect

from bot.domain import Json
from bot.store import Store
from bot.tools.questions import Answered, ToolAsks, form_question
from tests.support.tools import FakeTool
from tests.web.test_page_access import findings
from tests.web.test_page_consent import card, opened
from tests.web.test_page_keyboard import to
from tests.web.test_page_safety import PAYLOADS, expect_nothing
from tests.web.test_questions import FORM, LINK


async def test_a_form_is_filled_in_without_a_mouse(chromium: Browser, own_store: Store) -> None:
    tool = FakeTool("reads", asks=[ToolAsks("1", [FORM])])
    async with opened(chromium, own_store, tool) as one:
        await one.ask("Make a ticket.")
        await expect(card(one)).to_contain_text("tracker asks: Which room?")
        room = card(one).get_by_label("Room · Its number")
        await expect(room).to_be_visible()
        assert await findings(one) == []
        await one.button("Answer").click()  # the browser says that the field is required
        await expect(room).to_be_focused()
        await room.fill("five")
        await one.page.keyboard.press("Enter")
        await expect(one.page.locator("#toast")).to_have_text("Room: please enter a whole number.")
        await expect(room).to_have_value("five")
        await room.fill("5")
        await card(one).get_by_label("colour").select_option("blue")
        await to(one, "Answer")
        await one.page.keyboard.press("Enter")
        await one.ended()

        await expect(card(one)).to_have_count(0)
    assert tool.answered == [Answered("1", {"k": {"room": 5, "colour": "blue"}})]


async def test_what_was_typed_stays_while_the_page_is_painted_and_the_fields_after_a_reload(
    chromium: Browser, own_store: Store
) -> None:
    tool = FakeTool("reads", asks=[ToolAsks("1", [FORM])])
    async with opened(chromium, own_store, tool) as one:
        await one.ask("Make a ticket.")
        room = card(one).get_by_label("Room · Its number")
        await room.fill("5")
        await one.page.evaluate("dispatchEvent(new Event('online'))")
        await expect(room).to_have_value("5")
        await one.page.reload()
        await expect(room).to_have_value("")
        await one.button("Deny").click()
        await one.ended()
    assert tool.answered == []


async def test_a_page_to_visit_is_one_link_that_tells_nobody_where_it_was(
    chromium: Browser, own_store: Store
) -> None:
    tool = FakeTool("reads", asks=[ToolAsks("1", [LINK])])
    async with opened(chromium, own_store, tool) as one:
        await one.ask("Make a ticket.")
        link = card(one).get_by_role("link")
        await expect(link).to_have_attribute("href", "https://pay.example.com/1")
        await expect(link).to_have_attribute("rel", "noopener noreferrer")
        await one.button("Done").click()
        await one.ended()
    assert tool.answered == [Answered("1", {"k": None})]


async def test_nothing_in_a_form_acts(chromium: Browser, own_store: Store) -> None:
    bad = "".join(PAYLOADS)
    schema: dict[str, Json] = {
        "properties": {
            bad: {"type": "string", "title": bad, "description": bad},
            "b": {"type": "string", "enum": [bad]},
        }
    }
    message = "https://evil.example/ " + bad + " https://evil.example/"
    form = form_question("k", message, schema)
    tool = FakeTool("reads", asks=[ToolAsks("1", [form])])
    async with opened(chromium, own_store, tool) as one:
        await one.ask("Make a ticket.")
        await expect(card(one).locator("textarea")).to_be_visible()

        await expect_nothing(one)
        await expect(card(one).locator("a")).to_have_count(0)
        await one.button("Deny").click()
        await one.ended()
