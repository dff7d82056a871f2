"""People of the page choose who answers them and how: for one conversation, or for all."""

from __future__ import annotations

from playwright.async_api import expect

from bot.store import Store
from tests.emulators.model import ModelEmulator
from tests.support.web_page import address_of, browser, new_talk, page_of
from tests.web.conftest import OwnPage

MODELS = {"MODEL_ID": "small", "MODELS": "Fast=small,Clever=large"}
ALL = "/api/preferences"


def path_of(talk: str) -> str:
    return f"/api/conversations/{talk}/preferences"


async def test_a_choice_holds_for_one_conversation_or_for_all(
    own_store: Store, model: ModelEmulator
) -> None:
    model.models, model.answer = ("small", "large"), "Well."
    talks = new_talk(), new_talk()
    async with page_of(own_store, model, **MODELS) as (person, service):
        before, _ = await person.send("PATCH", path_of(talks[0]), {"model": "Clever"})
        _, for_all = await person.send("PATCH", ALL, {"model": "Clever", "persona": "A pirate."})
        await person.answered(talks[0], "why?")
        _, for_one = await person.send("PATCH", path_of(talks[0]), {"model": "small"})
        await person.answered(talks[0], "and?")
        async with browser(address_of(service)) as other:
            _, others = await other.get(ALL)

    assert before == 404
    assert for_all == {
        "model": "large",
        "persona": "A pirate.",
        "temperature": "",
        "max_tokens": "",
        "instructions": "",
        "personas": [],
        "models": for_all["models"],
        "answers": "Clever",
    }
    assert [{**one, "can": []} for one in for_all["models"]] == [
        {"name": "small", "label": "Fast", "purpose": "", "can": []},
        {"name": "large", "label": "Clever", "purpose": "", "can": []},
    ]
    assert (for_one["model"], for_one["persona"], for_one["answers"]) == ("small", "", "Fast")
    assert (others["model"], others["persona"], others["answers"]) == ("", "", "")
    assert [one.body["model"] for one in model.requests] == ["large", "small"]
    systems = [one.messages[0]["content"] for one in model.requests]
    assert all(one.endswith("> A pirate.") for one in systems)


async def test_a_temperature_and_a_longest_answer_are_chosen_and_taken_back(
    own_store: Store, model: ModelEmulator
) -> None:
    model.answer = "Well."
    async with page_of(own_store, model) as (person, _):
        _, chosen = await person.send("PATCH", ALL, {"temperature": "0,5", "max_tokens": "50"})
        await person.answered(new_talk(), "why?")
        _, left = await person.send("PATCH", ALL, {"temperature": "", "max_tokens": ""})

    assert (chosen["temperature"], chosen["max_tokens"]) == ("0.5", "50")
    assert [model.requests[-1].body[one] for one in ("temperature", "max_tokens")] == [0.5, 50]
    assert (left["temperature"], left["max_tokens"]) == ("", "")


async def test_only_what_fits_is_taken(own_store: Store, model: ModelEmulator) -> None:
    model.models = ("small", "large")
    async with page_of(own_store, model, **MODELS) as (person, _):
        answers = [
            await person.send("PATCH", ALL, body)
            for body in (
                {"model": "other"},
                {"people": ["u1"]},
                {"persona": "x" * 2001},
                {"temperature": 3},
            )
        ]
        _, chosen = await person.get(ALL)

    assert [status for status, _ in answers] == [409, 400, 409, 400]
    assert answers[0][1] == {
        "error": "There is no such model. You can choose Fast, Clever.",
        "field": "model",
    }
    assert (chosen["model"], chosen["persona"]) == ("", "")


async def test_a_person_chooses_in_the_page(own_page: OwnPage, model: ModelEmulator) -> None:
    model.models, model.answer = ("small", "large"), "Well."
    async with own_page(**MODELS) as person:
        await person.open()
        opener, dialog = person.page.locator("#model"), person.page.locator("#answers")
        await expect(opener).to_have_text("Fast")
        style = person.page.get_by_role("button", name="Persona and style …")
        await opener.click()
        await style.click()
        await expect(dialog).to_contain_text("For all your conversations, unless")
        await dialog.get_by_role("textbox", name="Persona").fill("A pirate.")
        await dialog.get_by_label("Temperature").fill("0.5")
        await dialog.get_by_role("button", name="Save", exact=True).click()
        await expect(dialog).to_be_hidden()
        await person.ask("why?")
        await person.ended()
        await opener.click()
        await style.click()
        await expect(dialog).to_contain_text("For this conversation")
        await expect(dialog.get_by_role("textbox", name="Persona")).to_have_value("")
        await person.page.keyboard.press("Escape")
        await opener.click()
        await person.page.get_by_role("option", name="Clever").click()
        await expect(opener).to_have_text("Clever")
        await person.ask("and?")
        await person.ended()
        await person.page.reload()
        await expect(opener).to_have_text("Clever")
        await person.page.get_by_role("link", name="New conversation").click()
        await expect(opener).to_have_text("Fast")

    assert [one.body["model"] for one in model.requests] == ["small", "large"]
    assert all(one.body["temperature"] == 0.5 for one in model.requests)
