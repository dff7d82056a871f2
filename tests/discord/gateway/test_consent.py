"""A call waits for a press: the buttons of a question for consent, through the real discord.py."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Literal

import pytest

from adapters.discord.platform import DiscordPlatform
from bot.access.rules import AccessRules
from bot.commands.handlers import AWAY
from bot.domain import Consent, Page, Purpose, Turn
from bot.errors import StoreUnavailable
from bot.intake.answers import ALLOWED_ONCE, NOT_WAITING, NOT_YOURS
from tests.emulators.discord import DiscordEmulator, Shown
from tests.support.discord_platform import dm_turn, listening, logged_in, page
from tests.support.fakes import FakeQueue
from tests.support.replies import answer_of
from tests.support.waiting import until

CALL = "aB3dE6gH9"
QUESTION = 'May I call `create_ticket` on `tracker` with `{"title": "Down"}`?'
TEXT = f"I look.\n\n{QUESTION}"
ASKING = Page(0, TEXT, final=False, said="I look.", sign=QUESTION, consent=CALL)
LABELS = ("Allow", "Allow always", "Deny")

# Ask as a person, and return the channel in which the answer is.
Way = Callable[[DiscordEmulator, str], Awaitable[str]]


async def mention(emulator: DiscordEmulator, ada: str) -> str:
    return await emulator.say(emulator.channel_id, ada, f"{emulator.bot_mention} do")


async def thread(emulator: DiscordEmulator, ada: str) -> str:
    said = await emulator.say(emulator.channel_id, ada, "We deploy.")
    place = await emulator.open_thread(said, ada, "Deploy")
    await emulator.say(place, ada, f"{emulator.bot_mention} do")
    return place


async def dm(emulator: DiscordEmulator, ada: str) -> str:
    await emulator.say(emulator.dm(ada), ada, "do")
    return emulator.dm(ada)


async def command(emulator: DiscordEmulator, ada: str) -> str:
    return await commanded(emulator, ada, emulator.channel_id)


async def private(emulator: DiscordEmulator, ada: str) -> str:
    return await commanded(emulator, ada, emulator.channel_id, private=True)


async def elsewhere(emulator: DiscordEmulator, ada: str) -> str:
    return await commanded(emulator, ada, emulator.elsewhere(0))


async def commanded(emulator: DiscordEmulator, ada: str, place: str, **options: bool) -> str:
    given = await emulator.slash(place, ada, "ask", question="do", **options)
    await until(lambda: emulator.original(given))
    return place


ways = pytest.mark.parametrize(
    "way", [mention, thread, dm, command, private, elsewhere], ids=lambda it: it.__name__
)
consents = pytest.mark.parametrize(
    ("consent", "label"), [("allow", "Allow"), ("always", "Allow always"), ("deny", "Deny")]
)


@dataclass
class Scene:
    """A question of Ada's that has led to a question for consent, in `place`."""

    emulator: DiscordEmulator
    platform: DiscordPlatform
    queue: FakeQueue
    ada: str
    boss: str
    place: str
    message: str

    @property
    def turn(self) -> Turn:
        return self.queue.last

    def shown(self) -> Shown:
        [found] = [one for one in self._screen() if one.id == self.message.removeprefix("@")]
        return found

    def told(self) -> list[str]:
        """What single people were told beside the answer."""
        return [one.text for one in self._screen() if one.id != self.message.removeprefix("@")]

    async def press(self, label: str, *, by: str = "") -> None:
        shown = self.shown()
        button = shown.buttons[shown.labels.index(label)]
        await self.emulator.click(shown.id, by or self.ada, button)

    def _screen(self) -> list[Shown]:
        everything = self.emulator.screen(self.place)
        return [one for one in everything if one.ephemeral or one.author_id == self.emulator.bot_id]


@asynccontextmanager
async def asked(
    way: Way = mention,
    *,
    boss: Literal["moderator", "admin"] = "moderator",
    asking: Page = ASKING,
) -> AsyncIterator[Scene]:
    """Let Ada ask in a way; the bot asks her back."""
    async with DiscordEmulator() as emulator:
        ada, other = emulator.user("Ada"), emulator.user("Boss", moderates=boss == "moderator")
        admins = frozenset({other} if boss == "admin" else ())
        queue = FakeQueue(access=AccessRules(admins=admins))
        async with listening(emulator, queue) as platform:
            place = await way(emulator, ada)
            await until(lambda: queue.turns)
            async with platform.surface(queue.last) as surface:
                message = await surface.post(asking)
            yield Scene(emulator, platform, queue, ada, other, place, message)


@ways
async def test_a_question_for_consent_has_three_buttons_in_place_of_stop(way: Way) -> None:
    async with asked(way) as scene:
        shown, suffix = scene.shown(), f"-{CALL}:{scene.turn.id}"

        assert answer_of(shown.text) == TEXT
        assert shown.labels == LABELS
        assert shown.buttons == (f"allow{suffix}", f"always{suffix}", f"deny{suffix}")


async def test_the_buttons_of_the_longest_id_are_accepted() -> None:
    async with DiscordEmulator() as emulator, logged_in(emulator) as platform:
        turn = replace(dm_turn(emulator), id=f"discord:{2**64 - 1}")

        async with platform.surface(turn) as surface:
            await surface.post(ASKING)

        (shown,) = emulator.screen(str(turn.place["channel"]))
        assert max(map(len, shown.buttons)) == 45


async def test_a_page_above_the_question_has_no_buttons() -> None:
    async with DiscordEmulator() as emulator, logged_in(emulator) as platform:
        turn = dm_turn(emulator)
        async with platform.surface(turn) as surface:
            await surface.post(page("I look.", final=True))
            await surface.post(Page(1, QUESTION, final=False, sign=QUESTION, consent=CALL))

        shown = emulator.screen(str(turn.place["channel"]))
        assert [one.labels for one in shown] == [(), LABELS]


@ways
@consents
async def test_the_asker_answers_and_the_buttons_give_way_to_stop(
    way: Way, consent: Consent, label: str
) -> None:
    async with asked(way) as scene:
        await scene.press(label)
        await until(lambda: scene.shown().labels == ("Stop",))

        assert scene.queue.decided == [(scene.turn.id, CALL, consent, scene.ada, False)]
        assert answer_of(scene.shown().text) == TEXT
        assert scene.shown().buttons == (f"stop:{scene.turn.id}",)
        assert scene.shown().suppressed
        assert not scene.told()


@ways
async def test_after_a_press_the_answer_goes_on_in_its_message(way: Way) -> None:
    async with asked(way) as scene:
        await scene.press("Allow")
        await until(lambda: scene.shown().labels == ("Stop",))
        before = len(scene.emulator.requests)
        turn = replace(scene.turn, place={**scene.turn.place, "continues": True})
        async with scene.platform.surface(turn, Purpose.RESUME) as surface:
            await surface.edit(scene.message, page("I look. Done."))
            await surface.edit(scene.message, page("I look. Done.", last=True))

        assert answer_of(scene.shown().text) == "I look. Done."
        assert scene.shown().labels == ("Regenerate",)
        calls = [one.call for one in scene.emulator.requests[before:]]
        writes = [one for one in calls if not one.endswith("/typing")]
        assert [one.split()[0] for one in writes] == ["PATCH", "PATCH"]


@pytest.mark.parametrize("label", LABELS)
async def test_somebody_else_is_told_that_they_may_not_answer(label: str) -> None:
    async with asked() as scene:
        await scene.press(label, by=scene.emulator.user("Bob"))
        await until(scene.told)

        assert scene.told() == [NOT_YOURS]
        assert scene.shown().labels == LABELS
        assert not scene.queue.decided


@pytest.mark.parametrize(
    ("label", "counted", "told"),
    [
        ("Allow", "allow", []),
        ("Allow always", "allow", [ALLOWED_ONCE]),
        ("Deny", "deny", []),
    ],
)
@pytest.mark.parametrize("boss", ["moderator", "admin"])
async def test_an_admin_answers_for_this_call_alone(
    boss: Literal["moderator", "admin"], label: str, counted: Consent, told: list[str]
) -> None:
    async with asked(boss=boss) as scene:
        await scene.press(label, by=scene.boss)
        await until(lambda: scene.shown().labels == ("Stop",) and scene.told() == told)

        assert scene.queue.decided == [(scene.turn.id, CALL, counted, scene.boss, True)]


async def test_a_moderator_where_we_are_no_member_may_not_answer() -> None:
    async with asked(elsewhere) as scene:
        await scene.press("Allow", by=scene.boss)
        await until(scene.told)

        assert scene.told() == [NOT_YOURS]
        assert not scene.queue.decided


async def test_a_moderator_answers_in_no_other_channel() -> None:
    async with asked() as scene:
        data = {"custom_id": scene.shown().buttons[0], "component_type": 2}
        other = scene.emulator.channel("other")

        pressed = await scene.emulator.interact(other, scene.boss, 3, data)
        await until(lambda: scene.emulator.original(pressed))

        told = scene.emulator.original(pressed)
        assert told
        assert (told.text, told.ephemeral) == (NOT_WAITING, True)
        assert not scene.queue.decided


@ways
async def test_a_press_after_the_end_or_another_answer_changes_nothing(way: Way) -> None:
    async with asked(way) as scene:
        scene.queue.has_ended = True
        await scene.press("Allow")
        await until(scene.told)

        assert scene.told() == [NOT_WAITING]
        assert scene.shown().labels == LABELS


async def test_a_press_on_a_turn_that_nobody_remembers_is_told_so() -> None:
    async with asked() as scene:
        scene.queue.turns.clear()
        await scene.press("Allow always")
        await until(scene.told)

        assert scene.told() == [NOT_WAITING]
        assert not scene.queue.decided


async def test_a_press_while_the_store_is_away_can_be_repeated() -> None:
    async with asked() as scene:
        scene.queue.refuses = StoreUnavailable("away")
        await scene.press("Allow")
        await until(scene.told)
        before = scene.shown().labels

        scene.queue.refuses = None
        await scene.press("Allow")
        await until(lambda: scene.queue.decided)

        assert (scene.told(), before) == ([AWAY], LABELS)


async def test_a_repair_finds_a_question_that_was_written_too_late() -> None:
    async with asked(dm) as scene:
        found = await scene.platform.orphaned_messages(scene.turn, but=[scene.message])

        assert found == [scene.message]
