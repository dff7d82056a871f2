"""A question of a tool's server is answered by a form or a link in Slack."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from bot.intake.answers import NOT_WAITING, NOT_YOURS_TO_ANSWER
from bot.tools.questions import write_question
from tests.slack.inbound.test_consent import Scene, asked
from tests.support.slack_platform import Transport, both_transports
from tests.support.tools import FORM_ID, LINK_ID, WHICH
from tests.support.waiting import until


@asynccontextmanager
async def asking(way: str = "mention", transport: Transport = "socket") -> AsyncIterator[Scene]:
    async with asked(way, transport, call_id=FORM_ID) as scene:
        scene.queue.asks = write_question(WHICH)
        yield scene


async def opened(scene: Scene) -> Any:
    assert await scene.press("answer") == 200
    form = scene.slack.modal(scene.ann)
    assert form
    return form


@both_transports
@pytest.mark.parametrize("way", ["mention", "command", "dm"])
async def test_the_asker_fills_in_the_form(way: str, transport: Transport) -> None:
    async with asking(way, transport) as scene:
        assert scene.shown().labels == ("Answer", "Deny")
        form = await opened(scene)
        assert (form.title, [*form.fields]) == ("Which room?", ["field0", "field1", "field2"])
        with pytest.raises(LookupError):
            await scene.slack.submit(scene.ann, field0="5")  # the colour is required

        await scene.slack.submit(scene.ann, field0="5", field1="2")

        assert scene.queue.decided == [(scene.turn.id, FORM_ID, "answer", scene.ann, False)]
        assert list(map(json.loads, scene.queue.words)) == [{"room": 5, "colour": "blue"}]


async def test_a_wrong_value_is_told_below_its_field() -> None:
    async with asking() as scene:
        form = await opened(scene)
        await scene.slack.submit(scene.ann, field0="five", field1="1")

        assert form.errors == {"field0": "`Room`: please enter a whole number."}
        assert not scene.queue.decided


async def test_somebody_else_sees_no_form() -> None:
    async with asking() as scene:
        scene.slack.set_role(scene.bob, "admin")
        await scene.press("answer", by=scene.bob)
        await until(scene.told)

        assert scene.told() == [(scene.bob, NOT_YOURS_TO_ANSWER)]
        assert scene.slack.modal(scene.bob) is None


async def test_a_form_that_is_sent_too_late_changes_nothing() -> None:
    async with asking() as scene:
        form = await opened(scene)
        scene.queue.has_ended = True
        await scene.slack.submit(scene.ann, field0="5", field1="1")

        assert form.errors == {"field0": NOT_WAITING}
        assert not scene.queue.decided


@pytest.mark.parametrize(("label", "consent"), [("Done", "done"), ("Deny", "deny")])
async def test_a_link_is_answered_by_a_press(label: str, consent: str) -> None:
    async with asked(call_id=LINK_ID) as scene:
        assert scene.shown().labels == ("Done", "Deny")
        await scene.press(consent)

        assert label in scene.shown().labels
        assert scene.queue.decided == [(scene.turn.id, LINK_ID, consent, scene.ann, False)]
