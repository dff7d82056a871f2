"""The card of a call that waits to be allowed, and what stands below an answer, in a browser."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from playwright.async_api import Browser, Locator, Route, expect

from bot.intake.answers import NOT_WAITING
from bot.store import Store
from bot.tools.toolset import Found
from tests.support.asking import QUESTION, Rounds, Search, asking_worker
from tests.support.chromium import PHONE, WIDE, Window, window
from tests.support.service import serving
from tests.support.tools import FakeTool, call
from tests.support.web_page import address_of, web_variables
from tests.web.test_page_access import findings
from tests.web.test_page_keyboard import to
from tests.web.test_page_safety import PAYLOADS, expect_nothing

ROUNDS: Rounds = (["Let me see.", call()], ["It is done."])
SHOWN = QUESTION.replace("`", "")


def card(one: Window) -> Locator:
    return one.page.get_by_role("group", name="Parley asks for your permission")


@asynccontextmanager
async def opened(
    chromium: Browser,
    store: Store,
    *tools: FakeTool,
    rounds: Rounds = ROUNDS,
    **context: Any,
) -> AsyncIterator[Window]:
    """A window of a new person, whose worker is elsewhere."""
    async with (
        asking_worker(store, *rounds, tools=tools),
        serving(store, "web", variables=web_variables()) as service,
        window(chromium, address_of(service), **context) as one,
    ):
        await one.open()
        yield one


async def test_a_call_is_allowed_without_a_mouse(chromium: Browser, own_store: Store) -> None:
    tool = FakeTool()
    async with opened(chromium, own_store, tool) as one:
        await one.ask("Make a ticket.")
        await expect(card(one)).to_be_focused()
        await expect(card(one).locator("p")).to_have_text(SHOWN)
        await expect(card(one).locator("code")).to_have_text(
            ["make_ticket", "tracker", '{"title": "Printer"}']
        )
        await expect(one.page.locator("#status")).to_have_text(f"Parley asks: {SHOWN}")
        await expect(one.page.locator(".note:visible, .dots:visible")).to_have_count(0)
        # No key that was meant for the box presses a button.
        await one.page.keyboard.type("a b\n")
        await expect(card(one)).to_be_focused()
        assert tool.runs == []
        await to(one, "Allow")
        await one.page.keyboard.press("Enter")
        await one.ended()

        await expect(card(one)).to_have_count(0)
        await expect(one.box).to_be_focused()
        await expect(one.answer).to_contain_text("It is done.")
    assert len(tool.runs) == 1


async def test_who_types_goes_on_typing(chromium: Browser, own_store: Store) -> None:
    tool = FakeTool()
    ready = False
    search = Search(may=lambda: ready)
    rounds: Rounds = (["Hm.", call("search", "{}")], [call()], ["It is not done."])
    async with opened(chromium, own_store, tool, search, rounds=rounds) as one:
        await one.ask("Make a ticket.")
        await expect(one.page.locator(".note")).to_have_text("Searching the web …")
        await one.box.press_sequentially("And th")
        ready = True
        await expect(card(one)).to_be_visible()
        await one.page.keyboard.type("en?")
        await expect(one.box).to_have_value("And then?")
        await one.button("Deny").click()
        await one.ended()

        await expect(one.box).to_have_value("And then?")
    assert tool.runs == []


async def test_a_card_stays_after_a_reload_and_goes_in_all_tabs(
    chromium: Browser, own_store: Store
) -> None:
    tool = FakeTool()
    async with opened(chromium, own_store, tool) as one:
        await one.ask("Make a ticket.")
        await expect(card(one)).to_be_visible()
        await one.page.reload()
        await expect(card(one).locator("p")).to_have_text(SHOWN)
        other = Window(await one.page.context.new_page(), one.address)
        await other.open(one.page.url.removeprefix(one.address))
        await expect(card(other)).to_be_focused()
        await other.button("Allow always").click()
        await one.ended()
        await other.ended()

        await expect(card(one)).to_have_count(0)
        await expect(card(other)).to_have_count(0)
        assert other.errors == []
    assert len(tool.runs) == 1


async def test_a_press_that_is_too_late_is_told_calmly(chromium: Browser, own_store: Store) -> None:
    presses, may_pass = [], asyncio.Event()

    async def refuse(route: Route) -> None:
        presses.append(route)
        await may_pass.wait()
        await route.fulfill(status=409, json={"error": NOT_WAITING})

    async with opened(chromium, own_store, FakeTool()) as one:
        await one.ask("Make a ticket.")
        await expect(card(one)).to_be_visible()
        # Another page has answered, and this one has not heard of it.
        await one.page.route("**/consent", refuse)
        await one.button("Allow").dblclick()
        may_pass.set()

        await expect(one.page.locator("#toast")).to_have_text(NOT_WAITING)
        await one.page.unroute("**/consent")
        await one.button("Deny").click()
        await one.ended()
    assert len(presses) == 1


async def test_nothing_in_a_question_a_source_or_a_step_acts(
    chromium: Browser, own_store: Store
) -> None:
    hostile = json.dumps({"title": "".join(PAYLOADS)})
    found = [
        Found("<b>A</b>", "https://example.org/a?b=<img src=x onerror=act()>", "..."),
        Found("C", "javascript:window.acted=1", "..."),
    ]
    calls = [
        call("search", "{}"),
        call("<img src=x>", "{}"),
        call(arguments=hostile),
    ]
    rounds: Rounds = (calls, ["As [1] and [2] say."])
    async with opened(chromium, own_store, FakeTool(), Search(found=found), rounds=rounds) as one:
        await one.ask("Make a ticket.")
        await expect(card(one)).to_contain_text("<script>window.acted = 1</script>")
        await expect_nothing(one)
        await one.button("Deny").click()
        await one.ended()
        await one.page.locator(".steps summary").click()

        await expect_nothing(one)
        await expect(one.page.locator(".log a")).to_have_count(0)


async def test_sources_are_numbered_links_and_steps_are_folded(
    chromium: Browser, own_store: Store
) -> None:
    found = [
        Found("One", "https://example.org/", "..."),
        Found("Two", "https://example.org/two", "..."),
        Found("Three", "https://example.com@evil.example/three?a=b#c", "..."),
    ]
    rounds: Rounds = (
        [call("search", "{}"), call("search", '{"again": 1}'), call()],
        ["It is so [1] [3]."],
    )
    async with opened(chromium, own_store, FakeTool(), Search(found=found), rounds=rounds) as one:
        await one.ask("Make a ticket.")
        await one.button("Deny").click()
        await one.ended()
        links = one.page.locator(".sources a")
        await expect(links).to_have_text(["example.org", "evil.example/three?a=b#c"])
        await expect(links.locator("strong")).to_have_text(["example.org", "evil.example"])
        shown = await one.read(
            """[...document.querySelectorAll(".sources a")].map((link) =>
              [link.parentElement.value, link.href, link.target, link.rel])"""
        )
        steps = one.page.locator(".steps li")
        await expect(steps.first).to_be_hidden()
        await one.page.get_by_text("3 steps").click()

        await expect(steps).to_have_text(
            ["Searching the web: done (2 times)", "Calling make_ticket on tracker: denied"]
        )
        await one.button("Good answer").click()
        await expect(one.page.locator("[aria-pressed=true]")).to_have_count(1)
        await expect(steps.first).to_be_visible()
        await expect(one.page.locator(".note:visible")).to_have_count(0)
    safe = ["_blank", "noopener noreferrer nofollow"]
    assert shown == [
        [1, "https://example.org/", *safe],
        [3, "https://example.com@evil.example/three?a=b#c", *safe],
    ]


@pytest.mark.parametrize("viewport", [WIDE, PHONE])
async def test_axe_finds_nothing_in_a_card_which_is_no_wider_than_a_phone(
    chromium: Browser, own_store: Store, viewport: dict[str, int]
) -> None:
    found = [Found("One", f"https://example.org/{'one' * 100}", "...")]
    long = f'{{"title": "{"word" * 60}"}}'
    rounds: Rounds = (["Let me see.", call("search", "{}"), call(arguments=long)], ["So it is."])
    context: dict[str, Any] = {"viewport": viewport, "reduced_motion": "reduce"}
    tools = FakeTool(), Search(found=found)
    async with opened(chromium, own_store, *tools, rounds=rounds, **context) as one:
        await one.ask("Make a ticket.")
        await expect(card(one)).to_be_visible()
        complaints = await findings(one)
        widths = [await one.read(_WIDTH)]
        await one.button("Deny").click()
        await one.ended()
        await one.page.locator(".steps summary").click()
        complaints += await findings(one)
        widths.append(await one.read(_WIDTH))

    assert complaints == []
    assert widths == [viewport["width"]] * 2


_WIDTH = "document.documentElement.scrollWidth"


async def test_a_screen_reader_hears_what_was_said_before_the_question(
    chromium: Browser, own_store: Store
) -> None:
    ready = False
    search = Search(may=lambda: ready)
    rounds: Rounds = (["Let me see.", call("search", "{}")], [call()], ["It is done."])
    async with opened(chromium, own_store, FakeTool(), search, rounds=rounds) as one:
        await one.ask("Make a ticket.")
        await one.says("Let me see.")
        # The last words may still grow.
        await expect(one.page.locator("#spoken")).to_be_empty()
        ready = True
        await expect(card(one)).to_be_visible()

        await expect(one.page.locator("#spoken")).to_have_text("Let me see.")
        await expect(one.page.locator(".answer")).to_have_attribute("aria-busy", "false")
