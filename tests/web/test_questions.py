"""What a tool's server asks is answered on the page by the person alone."""

from __future__ import annotations

from typing import Any

import pytest

from bot.errors import NotRemembered
from bot.intake.answers import NOT_WAITING
from bot.store import Store
from bot.tools.questions import Answered, ToolAsks, form_question, link_question
from tests.support.tools import FakeTool
from tests.support.waiting import until
from tests.support.web_page import browser
from tests.web.test_consent import waiting

SCHEMA: Any = {
    "properties": {
        "room": {"type": "integer", "title": "Room", "description": "Its number"},
        "colour": {"type": "string", "enum": ["red", "blue"]},
    },
    "required": ["room"],
}
FORM = form_question("k", "Which room?", SCHEMA)
LINK = link_question("k", "Please pay.", "https://pay.example.com/1")
ASKS = "`tracker` asks: `Which room?` (Never answer with a password.)"


async def test_the_person_fills_in_the_fields_of_a_form(own_store: Store) -> None:
    tool = FakeTool("reads", asks=[ToolAsks("1", [FORM])])
    async with waiting(own_store, tool) as one, browser(one.person.address) as other:
        which: Any = {"call": one.turn["consent"], "consent": "answer"}
        path = f"/api/conversations/{one.talk}/turns/{one.name}/question?call={which['call']}"
        note = one.turn["note"]
        status, found = await one.person.get(path)
        strangers = [
            await other.get(path),
            await other.press(one.talk, one.name, "consent", **which, filled={"field0": "5"}),
        ]
        bad: list[Any] = [{"field0": "five"}, {"field0": 5}, [], {}]
        wrong = [await one.press("consent", **which, filled=it) for it in bad]
        taken, _ = await one.press("consent", **which, filled={"field0": "5", "field1": "2"})
        await until(lambda: tool.answered)
        after = await one.person.get(path)
        await one.until_done()

    shown = [(it["name"], it["label"], it["hint"], it["is_required"]) for it in found["fields"]]
    assert (status, note) == (200, ASKS)
    assert shown == [("field0", "Room", "Its number", True), ("field1", "colour", "", False)]
    assert found["fields"][1]["options"] == [["1", "red"], ["2", "blue"]]
    assert strangers == [(410, {"error": NotRemembered.apology})] * 2
    assert wrong == [
        (409, {"error": "`Room`: please enter a whole number.", "field": "field0"}),
        *[(409, {"error": "`Room`: please answer this.", "field": "field0"})] * 3,
    ]
    assert taken == 202
    assert after == (409, {"error": NOT_WAITING})
    assert tool.answered == [Answered("1", {"k": {"room": 5, "colour": "blue"}})]


@pytest.mark.parametrize(("consent", "answered"), [("done", 1), ("deny", 0)])
async def test_a_link_is_answered_by_a_press(own_store: Store, consent: str, answered: int) -> None:
    tool = FakeTool("reads", asks=[ToolAsks("1", [LINK])])
    async with waiting(own_store, tool) as one:
        assert one.turn["note"].endswith(" https://pay.example.com/1")
        status, _ = await one.decide(consent)
        await one.until_done()

    assert (status, len(tool.answered)) == (202, answered)
