"""One browser for several people: nobody's words go out as another person's."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from playwright.async_api import Browser, Page, Route, expect

from bot.store import Store
from tests.emulators.model import ModelEmulator
from tests.support.chromium import Window, window
from tests.support.service import serving
from tests.support.web_page import address_of, web_variables

QUESTIONS = "**/questions"


async def go_under(route: Route) -> None:
    await route.abort()


async def be(page: Page, name: str) -> None:
    """Be another person from now on, as the proxy in front of the page says."""
    await page.context.set_extra_http_headers({"X-User": name})


@asynccontextmanager
async def shared(
    chromium: Browser, store: Store, model: ModelEmulator, **variables: str
) -> AsyncIterator[Window]:
    variables = web_variables(model, **variables)
    async with (
        serving(store, "web", "worker", variables=variables) as service,
        window(chromium, address_of(service)) as one,
    ):
        yield one


async def test_what_one_person_wrote_waits_for_them_and_is_not_the_next_ones(
    chromium: Browser, own_store: Store, model: ModelEmulator
) -> None:
    async with shared(chromium, own_store, model, WEB_PROXY_HEADER="X-User") as one:
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


async def test_a_page_whose_person_has_changed_sends_nothing(
    chromium: Browser, own_store: Store, model: ModelEmulator
) -> None:
    async with shared(chromium, own_store, model, WEB_PROXY_HEADER="X-User") as one:
        await be(one.page, "ann")
        await one.open()
        await expect(one.page.locator("#me")).to_have_text("ann")
        await be(one.page, "bob")
        await one.ask("ann's secret")

        await expect(one.page.locator(".note")).to_contain_text("Somebody else")
    assert not model.requests


async def test_who_logs_out_leaves_no_words_in_the_browser(
    chromium: Browser, own_store: Store, model: ModelEmulator
) -> None:
    async with shared(chromium, own_store, model, WEB_PASSWORD="open sesame") as one:
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
