"""A call waits for a press: who may answer in Slack, and what becomes of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from adapters.slack.platform import SlackPlatform
from bot.access.rules import AccessRules
from bot.domain import Consent, Page, Turn
from bot.errors import StoreUnavailable
from bot.intake.answers import ALLOWED_ONCE, NOT_WAITING, NOT_YOURS
from tests.emulators.slack import Shown, SlackEmulator
from tests.slack.inbound.test_interactions import press
from tests.support.fakes import FakeQueue
from tests.support.slack_platform import Transport, both_transports, hearing
from tests.support.waiting import until

CALL = "aB3dE6gH9"
QUESTION = "May I call `create_ticket` on `tracker` with `{}`?"
LABELS = ("Allow", "Allow always", "Deny")
ACTIONS = pytest.mark.parametrize("consent", ["allow", "always", "deny"])


@dataclass
class Scene:
    """A question of Ann's that has led to a question for consent."""

    slack: SlackEmulator
    platform: SlackPlatform
    queue: FakeQueue
    ann: str
    bob: str

    @property
    def turn(self) -> Turn:
        return self.queue.last

    def shown(self) -> Shown:
        place = self.turn.place
        thread = str(place["thread"]) if place["thread"] else None
        return self.slack.screen(str(place["channel"]), thread)[-1]

    def told(self) -> list[tuple[str, str]]:
        return [(one.user_id, one.text) for one in self.slack.ephemerals]

    async def press(self, consent: str, *, by: str = "") -> int | None:
        shown = self.shown()
        person = by or self.ann
        return (await self.slack.click(shown.channel_id, shown.ts, person, consent)).status


@asynccontextmanager
async def asked(
    way: str = "mention",
    transport: Transport = "socket",
    *,
    is_admin: bool = False,
    call_id: str = CALL,
) -> AsyncIterator[Scene]:
    """Let Ann ask in a way; the bot asks her back."""
    async with SlackEmulator() as slack:
        ann, bob = slack.user("Ann"), slack.user("Bob")
        queue = FakeQueue(access=AccessRules(admins=frozenset({bob} if is_admin else ())))
        async with hearing(slack, queue, transport) as platform:
            if way == "command":
                await slack.slash(slack.channel_id, ann, "/ask", "do")
            elif way == "dm":
                await slack.say(slack.dm(ann), ann, "do")
            else:
                await slack.say(slack.channel_id, ann, f"{slack.bot_mention} do")
            await until(lambda: queue.turns)
            async with platform.surface(queue.last) as surface:
                await surface.post(Page(0, QUESTION, final=False, sign=QUESTION, consent=call_id))
            yield Scene(slack, platform, queue, ann, bob)


@both_transports
@ACTIONS
@pytest.mark.parametrize("way", ["mention", "command", "dm"])
async def test_the_asker_answers(way: str, consent: Consent, transport: Transport) -> None:
    async with asked(way, transport) as scene:
        status = await scene.press(consent)

        assert status == 200
        assert scene.queue.decided == [(scene.turn.id, CALL, consent, scene.ann, False)]
        assert not scene.told()
        assert not [call for call in scene.slack.requests if call.method == "users.info"][1:]


@ACTIONS
async def test_somebody_else_is_told_that_they_may_not_answer(consent: Consent) -> None:
    async with asked() as scene:
        status = await scene.press(consent, by=scene.bob)
        await until(scene.told)

        assert status == 200
        assert scene.told() == [(scene.bob, NOT_YOURS)]
        assert scene.shown().labels == LABELS
        assert not scene.queue.decided


@pytest.mark.parametrize("role", ["admin", "owner", "operator"])
@ACTIONS
async def test_an_admin_answers_for_this_call_alone(role: str, consent: Consent) -> None:
    async with asked(is_admin=role == "operator") as scene:
        scene.slack.set_role(scene.bob, role if role in ("admin", "owner") else None)  # type: ignore[arg-type]
        counted, told = consent, list[tuple[str, str]]()
        if consent == "always":
            counted, told = "allow", [(scene.bob, ALLOWED_ONCE)]

        await scene.press(consent, by=scene.bob)
        await until(lambda: scene.told() == told)

        assert scene.queue.decided == [(scene.turn.id, CALL, counted, scene.bob, True)]


async def test_who_cannot_be_looked_up_is_no_admin() -> None:
    async with asked() as scene:
        scene.slack.set_role(scene.bob, "admin")
        scene.slack.fail("users.info", error="internal_error", times=2)  # the language, too

        await scene.press("allow", by=scene.bob)
        await until(scene.told)

        assert scene.told() == [(scene.bob, NOT_YOURS)]
        assert not scene.queue.decided


async def test_a_press_after_the_end_or_another_answer_changes_nothing() -> None:
    async with asked() as scene:
        scene.queue.has_ended = True
        status = await scene.press("allow")
        await until(scene.told)

        assert status == 200
        assert scene.told() == [(scene.ann, NOT_WAITING)]


@pytest.mark.parametrize("value", ["{call}:{turn}", "{turn}", "{call}", ":", ""], ids=str)
async def test_a_press_from_another_channel_or_of_nothing_is_told_so(value: str) -> None:
    async with asked() as scene:
        scene.slack.set_role(scene.bob, "admin")
        dm = scene.slack.dm(scene.bob)
        forged = value.format(call=CALL, turn=scene.turn.id)
        payload = press(forged, "allow", channel=dm, user=scene.bob)

        delivery = await scene.slack.interact(payload)
        await until(scene.told)

        assert delivery.status == 200
        assert scene.told() == [(scene.bob, NOT_WAITING)]
        assert not scene.queue.decided


async def test_a_press_while_the_store_is_away_can_be_repeated() -> None:
    async with asked() as scene:
        scene.queue.refuses = StoreUnavailable("away")
        await scene.press("allow")
        await until(scene.told)
        before = scene.shown().labels

        scene.queue.refuses = None
        await scene.press("allow")

        assert (scene.told(), before) == ([(scene.ann, StoreUnavailable.apology)], LABELS)
        assert len(scene.queue.decided) == 1
