"""One browser for several people: nobody's words go out as another person's."""

from __future__ import annotations

import asyncio

from playwright.async_api import Page, Route, expect

from tests.emulators.model import ModelEmulator
from tests.web.conftest import OwnPage

QUESTIONS = "**/questions"


async def go_under(route: Route) -> None:
    await route.abort()


async def be(page: Page, name: str) -> None:
    """Be another person from now on, as the proxy in front of the page says."""
    await page.context.set_extra_http_headers({"X-User": name})


async def test_what_one_person_wrote_waits_for_them_and_is_not_the_next_ones(
    own_page: OwnPage, model: ModelEmulator
) -> None:
    async with own_page(WEB_PROXY_HEADER="X-User") as one:
        await be(one.page, "ann")
        await one.open()
        await expect(one.page.locator("#me")).to_have_text("ann")
        await one.box.fill("for a new one")
        await one.page.route(QUESTIONS, go_under)
        await one.open("/c/0123456789")
        await one.ask("ann's secret")
        await expect(one.page.locator(".note")).to_contain_text("Not sent yet")

        await be(one.page, "bob")
        await one.page.unroute(QUESTIONS)
        await one.page.reload()
        await expect(one.page.locator("#me")).to_have_text("bob")
        await one.ask("bob's own")
        await one.ended()
        await expect(one.turns).to_have_count(1)
        await one.open()
        await expect(one.page.locator("#me")).to_have_text("bob")
        await expect(one.box).to_have_value("")

        await be(one.page, "ann")
        await one.page.reload()
        await expect(one.box).to_have_value("for a new one")
        await one.open("/c/0123456789")
        await one.ended()

    asked = [each.messages[-1]["content"] for each in model.requests]
    assert [each.splitlines()[-1] for each in asked] == ["bob's own", "ann's secret"]


async def test_what_was_asked_before_the_page_knew_its_person_outlives_a_reload(
    own_page: OwnPage,
) -> None:
    known = asyncio.Event()

    async def hold(route: Route) -> None:
        await known.wait()
        await route.continue_()

    async with own_page() as one:
        await one.page.route("**/api/me", hold)
        await one.page.route(QUESTIONS, go_under)
        await one.open()
        await one.ask("quickly")
        known.set()
        await expect(one.page.locator("#me")).to_have_text("Guest")
        await one.page.unroute(QUESTIONS)
        await one.page.reload()
        await one.ended()

        await expect(one.page.locator(".said")).to_have_text("quickly")


async def test_a_page_whose_person_has_changed_sends_nothing(
    own_page: OwnPage, model: ModelEmulator
) -> None:
    async with own_page(WEB_PROXY_HEADER="X-User") as one:
        await be(one.page, "ann")
        await one.open()
        await expect(one.page.locator("#me")).to_have_text("ann")
        await be(one.page, "bob")
        await one.ask("ann's secret")

        await expect(one.page.locator(".note")).to_contain_text("Somebody else")
    assert not model.requests


async def test_who_logs_out_leaves_no_words_in_the_browser(
    own_page: OwnPage, model: ModelEmulator
) -> None:
    async with own_page(WEB_PASSWORD="open sesame") as one:
        await one.open()
        await one.page.get_by_label("Password").fill("open sesame")
        await one.page.get_by_role("button", name="Log in").click()
        await expect(one.page.locator("#me")).to_have_text("Guest")
        await one.page.route(QUESTIONS, go_under)
        await one.ask("a secret")
        await expect(one.page.locator(".note")).to_contain_text("Not sent yet")
        await one.box.fill("another secret")
        kept = await one.read("JSON.stringify(localStorage)")
        await one.button("Log out").click()
        await expect(one.page.get_by_label("Password")).to_be_visible()

        assert kept.count("secret") == 2
        assert "secret" not in await one.read("JSON.stringify(localStorage)")
