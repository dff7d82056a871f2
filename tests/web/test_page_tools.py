"""The whole bot uses tools on the page, in a browser: it searches, remembers, and asks first."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from playwright.async_api import Browser, Locator, expect

pytest.importorskip("mcp", reason="MCP servers need requirements-tools.txt")

from bot.store import Store
from tests.emulators.model import Calls, ModelEmulator
from tests.support.chromium import Window, window
from tests.support.ports import free_port
from tests.support.service import serving
from tests.support.tool_servers import (
    QUESTION,
    SEARCH,
    STEP,
    TICKET,
    Office,
    Search,
    answers,
    results,
)
from tests.support.web_page import browser, web_variables
from tests.web.conftest import OwnPage
from tests.web.test_page_consent import card


def steps(one: Window) -> Locator:
    return one.turns.last.locator(".steps li")


async def test_a_question_that_needs_a_search_is_answered_with_numbered_sources(
    own_page: OwnPage, model: ModelEmulator
) -> None:
    search = Search()
    answers(model, SEARCH, "It is so [1], and [3] agrees.")
    async with search.serving() as variables, own_page(**variables) as one:
        await one.open()
        await one.ask("Who won?")
        await expect(one.page.locator(".note:visible")).to_have_text("Searching the web …")
        search.may.set()
        await one.ended()

        await expect(one.page.locator(".sources a")).to_have_text(
            ["example.org/1", "example.org/3"]
        )
        await expect(steps(one)).to_have_text(["Searching the web: done"])
        await expect(one.answer).to_contain_text("It is so [1], and [3] agrees.")
    assert search.queries == ["who won"]


async def test_the_beginning_of_a_conversation_is_known_that_no_prompt_has_room_for(
    own_page: OwnPage, model: ModelEmulator
) -> None:
    model.answer = "word " * 150
    async with own_page(CONTEXT_TOKENS="2000", MAX_TOKENS="500", TOOLS="on") as one:
        await one.open()
        for text in ["My cat is called Mia.", *(f"{n} " + "word " * 150 for n in range(5))]:
            await one.ask(text)
            await one.ended()
        answers(model, Calls([("read_earlier_messages", '{"page": 99}')]), "{result}")
        before = len(model.requests)
        await one.ask("What is she called?")
        await one.says("Mia")
        await one.ended()

        first, second = [it.messages for it in model.requests[before:]]
        assert "Mia" not in str(first)
        assert "My cat is called Mia." in results(second)[0]
        await expect(steps(one)).to_have_text(["Reading earlier messages: done"])


@pytest.mark.parametrize(
    ("label", "outcome"), [("Allow", "done"), ("Deny", "denied"), ("", "not allowed in time")]
)
async def test_a_ticket_is_made_once_after_allow_and_never_after_deny_or_silence(
    label: str, outcome: str, own_page: OwnPage, model: ModelEmulator, tmp_path: Path
) -> None:
    office, seconds = Office(), "300" if label else "1"
    answers(model, TICKET, "So it is.")
    async with (
        office.serving(tmp_path) as variables,
        own_page(CONSENT_SECONDS=seconds, **variables) as one,
    ):
        await one.open()
        await one.ask("Make a ticket.")
        if label:
            await expect(card(one).locator("p")).to_have_text(QUESTION.replace("`", ""))
            assert not office.made
            await one.button(label).click()
        await one.ended()

        await expect(steps(one)).to_have_text([f"{STEP}: {outcome}".replace("`", "")])
        await expect(card(one)).to_have_count(0)
        await expect(one.answer).to_contain_text("So it is.")
    assert office.made == ["Printer"] * (label == "Allow")


async def test_nobody_else_can_answer_and_the_person_still_can(
    own_page: OwnPage, model: ModelEmulator, tmp_path: Path
) -> None:
    """Somebody else is another browser, who knows all ids."""
    office = Office()
    answers(model, TICKET, "It is done.")
    async with office.serving(tmp_path) as variables, own_page(**variables) as one:
        await one.open()
        await one.ask("Make a ticket.")
        await expect(card(one)).to_be_visible()
        async with one.page.expect_event("requestfailed") as pressing:
            await one.page.route("**/consent", lambda route: route.abort())
            await one.button("Allow").click()
        request = await pressing.value
        await expect(card(one)).not_to_have_attribute("aria-busy", "true")
        path, body = request.url.removeprefix(one.address), request.post_data_json or {}
        async with browser(one.address) as other:
            statuses = [
                (await other.send("POST", path, {**body, "consent": consent}))[0]
                for consent in ("allow", "always", "deny")
            ]
        made = list(office.made)
        await one.page.unroute("**/consent")
        await one.button("Allow").click()
        await one.ended()

    assert [status // 100 for status in statuses] == [4] * 3
    assert (made, office.made) == ([], ["Printer"])


@asynccontextmanager
async def at_port(
    port: int, store: Store, model: ModelEmulator, variables: Mapping[str, str]
) -> AsyncIterator[None]:
    """Serve the page at a port that a browser knows already."""
    variables = web_variables(model, WEB_PORT=str(port), **variables)
    async with serving(store, "web", "worker", variables=variables):
        yield


async def test_what_is_allowed_always_is_asked_for_again_once_it_is_revoked_or_changed(
    chromium: Browser, own_store: Store, model: ModelEmulator, tmp_path: Path
) -> None:
    office, port = Office(), free_port()
    answers(model, TICKET, "It is done.")
    async with window(chromium, f"http://127.0.0.1:{port}") as one:

        async def asks(label: str) -> None:
            await one.ask("Make a ticket.")
            await expect(card(one)).to_be_visible()
            await one.button(label).click()
            await one.ended()

        async with (
            office.serving(tmp_path) as variables,
            at_port(port, own_store, model, variables),
        ):
            await one.open()
            await asks("Allow always")
            await one.ask("And another.")
            await expect(steps(one)).to_have_text([f"{STEP}: done".replace("`", "")])
            await one.button("Help and usage").click()
            await one.button("Ask me again for office/create_ticket").click()
            await one.page.keyboard.press("Escape")
            await asks("Allow always")

        office.description = "Make a ticket, and send it to everybody."
        async with (
            office.serving(tmp_path) as variables,
            at_port(port, own_store, model, variables),
        ):
            await asks("Deny")

    assert office.made == ["Printer"] * 3


async def test_a_question_that_waits_to_be_allowed_survives_a_restart(
    chromium: Browser, own_store: Store, model: ModelEmulator, tmp_path: Path
) -> None:
    office, port = Office(), free_port()
    answers(model, TICKET, "It is done.")
    async with (
        office.serving(tmp_path) as variables,
        window(chromium, f"http://127.0.0.1:{port}") as one,
    ):
        async with at_port(port, own_store, model, variables):
            await one.open()
            await one.ask("Make a ticket.")
            await expect(card(one)).to_be_visible()
        async with at_port(port, own_store, model, variables):
            await one.button("Allow").click()
            await one.ended()
            await expect(one.answer).to_contain_text("Let me see.")
            await expect(one.answer).to_contain_text("It is done.")

    assert office.made == ["Printer"]
    assert len(model.requests) == 2
