"""People choose in the page who answers and how: by label, by name, for one question or all."""

from __future__ import annotations

import re
from pathlib import Path

from playwright.async_api import expect

from bot.store import Store
from bot.text.context import INSTRUCTIONS, PERSONA
from tests.emulators.model import ModelEmulator
from tests.support.chromium import PHONE
from tests.support.stored import stored
from tests.support.waiting import until
from tests.web.conftest import OwnPage
from tests.web.test_page_access import findings

MODELS = {
    "MODEL_ID": "small",
    "MODELS": "Fast=small (for most questions, quickly),Clever=large (for hard ones),Odd=odd",
    "VISION": "on",
    "TOOLS": "on",
}


def personas(folder: Path) -> str:
    (folder / "Pirate.md").write_text("Answer like a pirate.\n")
    (folder / "Strict teacher.md").write_text("Ask back.")
    return str(folder)


async def test_one_press_lists_the_models_and_keys_choose_for_a_conversation(
    own_page: OwnPage, model: ModelEmulator
) -> None:
    model.models, model.answer = ("small", "large", "odd"), "Well."
    async with own_page(**MODELS) as one:
        await one.open()
        await one.ask("why?")
        await one.ended()
        opener, keys = one.page.locator("#model"), one.page.keyboard
        options = one.page.get_by_role("option")
        tab = await one.page.context.new_page()
        await tab.goto(one.page.url)
        await expect(tab.locator("#model")).to_have_text("Fast")

        async def lists_abilities() -> bool:
            await opener.click()
            await expect(options).to_have_count(4)
            lines = await options.all_inner_texts()
            await keys.press("Escape")
            return "for hard ones · sees pictures · uses tools" in lines[2]

        # A worker notes them soon after its start.

        while not await lists_abilities():
            pass
        await opener.focus()
        await keys.press("Enter")
        await expect(options).to_have_text(
            [
                re.compile("DefaultAs in all your conversations"),
                re.compile("Fastfor most questions, quickly"),
                re.compile("Clever"),
                re.compile("Oddsees pictures · uses tools"),
            ]
        )
        found = await findings(one)
        await keys.press("ArrowUp")
        await keys.press("ArrowDown")
        await keys.press("ArrowDown")
        await keys.press("Enter")
        await expect(one.page.get_by_role("listbox")).to_have_count(0)
        await expect(opener).to_have_text("Clever")
        await expect(opener).to_be_focused()
        # The other tab has heard of it.
        await expect(tab.locator("#model")).to_have_text("Clever")
        await one.ask("and?")
        await one.ended()
        await opener.click()
        await expect(one.page.get_by_role("option", selected=True)).to_contain_text("Clever")
        await keys.press("Home")
        await keys.press("Enter")
        await expect(opener).to_have_text("Fast")

    assert found == []
    assert [each.body["model"] for each in model.requests] == ["small", "large"]


async def test_the_list_of_models_fits_a_window_that_becomes_narrower(
    own_page: OwnPage, model: ModelEmulator
) -> None:
    model.models = ("small", "large", "odd")
    async with own_page(**MODELS) as one:
        await one.open()
        await one.page.locator("#model").click()
        close = one.button("Close")
        style = one.button("Persona and style …")
        colour = "it => getComputedStyle(it).color"
        assert await close.evaluate(colour) == await style.evaluate(colour)
        await one.page.set_viewport_size({"width": PHONE["width"], "height": PHONE["height"]})
        box = await one.page.locator("#models").bounding_box()

    assert box
    assert 0 <= box["x"] <= box["x"] + box["width"] <= PHONE["width"]


async def test_a_model_for_one_question_stays_with_it_and_changes_nothing_else(
    own_page: OwnPage, model: ModelEmulator
) -> None:
    model.models, model.answer = ("small", "large", "odd"), "Well."
    async with own_page(**MODELS) as one:
        await one.page.set_viewport_size({"width": PHONE["width"], "height": PHONE["height"]})
        await one.open()
        await one.page.locator("#model").click()
        await one.page.get_by_text("Next question only").click()
        await one.page.get_by_role("option", name="Clever").click()
        chip = one.page.locator("#once")
        await expect(chip).to_contain_text("Clever answers this question")
        width = await one.read("document.documentElement.scrollWidth")
        found = await findings(one)
        await one.page.reload()
        await expect(chip).to_contain_text("Clever answers this question")
        await one.ask("why?")
        await one.ended()
        await expect(chip).to_be_hidden()
        await expect(one.page.locator("#model")).to_have_text("Fast")
        await one.page.locator('[data-action="regenerate"]').click()
        await until(lambda: len(model.requests) == 2)
        await one.ended()
        await one.page.locator('[data-action="edit"]').click()
        await one.page.locator(".editor textarea").fill("why not?")
        await one.page.locator(".editor .primary").click()
        await until(lambda: len(model.requests) == 3)
        await one.ended()
        await one.ask("and?")
        await until(lambda: len(model.requests) == 4)
        await one.ended()

    assert [each.body["model"] for each in model.requests] == ["large", "large", "large", "small"]
    assert width == PHONE["width"]
    assert found == []


async def test_a_model_that_is_gone_refuses_its_question_once(
    own_page: OwnPage, model: ModelEmulator
) -> None:
    model.models, model.answer = ("small", "large"), "Well."
    async with own_page(**MODELS) as one:
        await one.open()
        await expect(one.page.locator("#me")).to_have_text("Guest")
        await one.read(
            "() => fetch('/api/me').then((one) => one.json()).then(({ id }) => localStorage"
            ".setItem(`${id}/once:`, JSON.stringify({ name: 'older', label: 'Older' })))"
        )
        await one.page.reload()
        await expect(one.page.locator("#once")).to_contain_text("Older answers this question")
        await one.ask("why?")
        await expect(one.page.locator(".note")).to_contain_text("There is no such model.")
        await one.button("Try again").click()
        await one.ended()

    assert [each.body["model"] for each in model.requests] == ["small"]


async def test_personas_have_names_and_instructions_hold_for_all_conversations(
    own_page: OwnPage, model: ModelEmulator, own_store: Store, tmp_path: Path
) -> None:
    model.answer = "Well."
    async with own_page(PERSONAS=personas(tmp_path)) as one:
        await one.open()
        dialog, opener = one.page.locator("#answers"), one.page.locator("#model")
        names = dialog.get_by_label("Choose a persona")
        words = dialog.get_by_label("Persona", exact=True)
        await opener.click()
        await names.select_option("Pirate")
        await expect(words).to_have_value("Answer like a pirate.")
        await words.fill("Speak\nin rhymes.")
        await expect(names).to_have_value("")
        await dialog.get_by_role("button", name="Save under a name").click()
        await one.page.locator("#ask-input").fill("Poet")
        await one.page.locator("#ask-input").press("Enter")
        await expect(names.locator("option:checked")).to_have_text("Poet")
        await dialog.get_by_label("My instructions").fill("I am new to this.")
        found = await findings(one)
        await dialog.get_by_role("button", name="Save", exact=True).click()
        await expect(dialog).to_be_hidden()
        await one.ask("why?")
        await one.ended()
        await one.page.get_by_role("link", name="New conversation").click()
        await opener.click()
        await expect(names.locator("option:checked")).to_have_text("Poet")
        await dialog.get_by_role("button", name="Delete it").click()
        await one.page.locator("#ask-yes").click()
        await expect(names.locator("option")).to_have_text(
            ["Your own words", "Pirate", "Strict teacher"]
        )
        await dialog.get_by_label("My instructions").fill("")
        await names.select_option("Strict teacher")
        await dialog.get_by_role("button", name="Save", exact=True).click()
        await expect(dialog).to_be_hidden()
        await one.ask("and?")
        await until(lambda: len(model.requests) == 2)
        await one.ended()
        left = [each.name for each in await stored(own_store) if each.name.startswith("own:")]

    first, second = [each.messages[0]["content"] for each in model.requests]
    assert first.endswith(
        f"{PERSONA}\n> Speak\n> in rhymes.\n\n{INSTRUCTIONS}\n> I am new to this."
    )
    assert second.endswith(f"{PERSONA}\n> Ask back.")
    assert found == []
    assert left == []
