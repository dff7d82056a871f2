"""A question of a tool's server is answered by a form or a link, through the real discord.py."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from bot.domain import Page
from bot.intake.answers import NOT_WAITING, NOT_YOURS_TO_ANSWER
from bot.tools.questions import write_question
from tests.discord.gateway.test_consent import (
    ASKING,
    Scene,
    Way,
    asked,
    command,
    elsewhere,
    mention,
    private,
)
from tests.emulators.discord import DiscordEmulator
from tests.support.discord_platform import dm_turn, logged_in
from tests.support.tools import FORM_ID, LINK_ID, WHICH
from tests.support.waiting import until

FORM: Page = replace(ASKING, consent=FORM_ID)
ways = pytest.mark.parametrize(
    "way", [mention, command, private, elsewhere], ids=lambda it: it.__name__
)


@asynccontextmanager
async def asking(way: Way = mention) -> AsyncIterator[Scene]:
    async with asked(way, asking=FORM) as scene:
        scene.queue.asks = write_question(WHICH)
        yield scene


async def opened(scene: Scene, label: str = "Answer") -> str:
    shown = scene.shown()
    button = shown.buttons[shown.labels.index(label)]
    pressed = await scene.emulator.click(shown.id, scene.ada, button)
    await until(lambda: scene.emulator.modal(pressed))
    return pressed


@ways
async def test_the_asker_fills_in_the_form_and_the_buttons_give_way_to_stop(way: Way) -> None:
    async with asking(way) as scene:
        assert scene.shown().labels == ("Answer", "Deny")
        pressed = await opened(scene)
        form: Any = scene.emulator.modal(pressed)
        assert form["title"] == "Which room?"
        labels = [(one["label"], one.get("description")) for one in form["components"]]
        assert labels == [("Room", "Its number"), ("colour", None), ("note", None)]
        assert [one["component"]["required"] for one in form["components"]] == [True, True, False]

        await scene.emulator.submit(pressed, field0="5", field1=["2"])
        await until(lambda: scene.shown().labels == ("Stop",))

        assert scene.queue.decided == [(scene.turn.id, FORM_ID, "answer", scene.ada, False)]
        assert list(map(json.loads, scene.queue.words)) == [{"room": 5, "colour": "blue"}]
        assert not scene.told()


async def test_a_wrong_value_is_told_and_the_form_can_be_opened_again() -> None:
    async with asking() as scene:
        await scene.emulator.submit(await opened(scene), field0="five", field1=["1"])
        await until(scene.told)
        assert scene.told() == ["`Room`: please enter a whole number."]
        assert scene.shown().labels == ("Answer", "Deny")
        assert not scene.queue.decided

        await scene.emulator.submit(await opened(scene), field0="5", field1=["1"])
        await until(lambda: scene.queue.decided)


async def test_somebody_else_sees_no_form() -> None:
    async with asking() as scene:
        for number, person in enumerate((scene.emulator.user("Bob"), scene.boss), 1):
            await scene.press("Answer", by=person)
            await until(lambda number=number: len(scene.told()) == number)  # type: ignore[misc]

        assert scene.told() == [NOT_YOURS_TO_ANSWER] * 2
        assert not scene.queue.decided


async def test_a_form_that_is_sent_too_late_changes_nothing() -> None:
    async with asking() as scene:
        pressed = await opened(scene)
        scene.queue.has_ended = True
        await scene.emulator.submit(pressed, field0="5", field1=["1"])
        await until(scene.told)

        assert scene.told() == [NOT_WAITING]
        assert not scene.queue.decided


@pytest.mark.parametrize(("label", "consent"), [("Done", "done"), ("Deny", "deny")])
async def test_a_link_is_answered_by_a_press(label: str, consent: str) -> None:
    async with asked(asking=replace(ASKING, consent=LINK_ID)) as scene:
        assert scene.shown().labels == ("Done", "Deny")
        await scene.press(label)
        await until(lambda: scene.shown().labels == ("Stop",))

        assert scene.queue.decided == [(scene.turn.id, LINK_ID, consent, scene.ada, False)]


async def test_the_buttons_of_the_longest_id_are_accepted() -> None:
    async with DiscordEmulator() as emulator, logged_in(emulator) as platform:
        turn = replace(dm_turn(emulator), id=f"discord:{2**64 - 1}")

        async with platform.surface(turn) as surface:
            await surface.post(FORM)

        (shown,) = emulator.screen(str(turn.place["channel"]))
        assert max(map(len, shown.buttons)) == 50
