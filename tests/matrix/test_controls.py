"""Reactions and commands in words, on a real homeserver."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from adapters.matrix.controls import Controls
from adapters.matrix.platform import MatrixPlatform
from bot.commands.handlers import FORGETTING, FORGOTTEN_AND_REMOVED, MayNotChange
from bot.domain import FORM, LINK, Asker, Json, Page, Person, Purpose, Rating, Standing, Turn
from bot.errors import HasEnded, NothingAsked, NotTheAsker, StoreUnavailable, ThreadBusy
from bot.intake.answers import NOT_WAITING
from bot.intake.intake import Intake
from bot.store import Store
from bot.tools.questions import InputField, Question, write_question
from tests.matrix.test_surface import Scene, page, scene_of
from tests.support.fakes import FakeQueue, NotedIntake
from tests.support.synapse import Member, Shown, Synapse, eventually

ASKED = write_question(
    Question(
        "key",
        "Where to?",
        (
            InputField("town", "Town", "of the hotel", "string", is_required=True),
            InputField("stars", "Stars", "", "integer", is_required=False),
        ),
    )
)


class Queue(FakeQueue):
    """With the ratings of answers, and what waits for a person."""

    def __init__(self) -> None:
        super().__init__()
        self.ratings_given: list[tuple[str, str, str]] = []
        self.waits_for = ""

    async def rate(self, turn_id: str, *, person_id: str, rating: Rating | str) -> tuple[str, bool]:
        self._refuse()
        self.ratings_given.append((turn_id, person_id, rating))
        return "", False

    async def standings(self, *turn_ids: str, person_id: str) -> list[Standing]:
        return [Standing(it, "why?", 0.0, "waiting", consent=self.waits_for) for it in turn_ids]


class Desk(Scene):
    """A scene with a process that hears of what people do."""

    queue: Queue
    process: MatrixPlatform
    controls: Controls

    async def react(self, key: str, to: str, *, by: Member | None = None) -> str:
        """React as a client does, and hand it over as /sync does."""
        who = by or self.ann
        reaction = await who.react(self.room, to, key)
        await self.again(key, to, reaction, by=who)
        return reaction

    async def again(self, key: str, to: str, reaction: str, *, by: Member | None = None) -> None:
        who = by or self.ann
        relation = {"rel_type": "m.annotation", "event_id": to, "key": key}
        event = {"event_id": reaction, "content": {"m.relates_to": relation}}
        person, asker = Person(who.user_id, who.name), Asker(direct=self.direct)
        await self.controls.react(self.room, event, person=person, asker=asker)

    async def write(self, words: str, *, thread: str = "") -> Turn:
        turn = await self.ask(f"!parley {words}", thread=thread)
        turn = replace(turn, asker=Asker(direct=self.direct))
        await self.controls.command(turn, words)
        return turn

    async def notices(self) -> list[Shown]:
        return [one for one in await self.shown() if one.kind == "m.notice"]

    async def answered(self, text: str = "Because.") -> tuple[Turn, str]:
        """Ask and answer; return the turn and its message."""
        turn = await self.ask()
        self.queue.turns.append(turn)
        async with self.surface(turn) as surface:
            return turn, await surface.post(page(text, last=True))

    async def asked(self, call_id: str) -> tuple[Turn, str]:
        """Ask, and be asked; return the turn and the message on which to react."""
        turn = await self.ask()
        self.queue.turns.append(turn)
        self.queue.first_there, self.queue.waits_for, self.queue.asks = turn.id, call_id, ASKED
        async with self.surface(turn) as surface:
            await surface.post(Page(0, "May I book?", False, consent=call_id))
        return turn, (await self.shown())[-1].id


def patient(platform: MatrixPlatform, intake: Intake) -> Controls:
    """Return controls that wait for each notice, also on a busy machine."""
    return Controls(platform, intake, notice_seconds=60.0)


@asynccontextmanager
async def desk_of(synapse: Synapse, store: Store, *, direct: bool) -> AsyncIterator[Desk]:
    async with scene_of(synapse, store, direct=direct) as scene, scene.platform() as platform:
        desk = Desk(**vars(scene))
        desk.queue = Queue()
        desk.process, desk.controls = platform, patient(platform, desk.queue.intake)
        yield desk


@pytest.fixture
async def desk(synapse: Synapse, store: Store) -> AsyncIterator[Desk]:
    async with desk_of(synapse, store, direct=False) as one:
        yield one


@pytest.fixture
async def direct(synapse: Synapse, store: Store) -> AsyncIterator[Desk]:
    async with desk_of(synapse, store, direct=True) as one:
        yield one


class TestReactions:
    @pytest.mark.parametrize("key", ["🔁", "🔁\ufe0f"])
    async def test_one_asks_for_another_answer_once(self, desk: Desk, key: str) -> None:
        turn, message = await desk.answered()

        reaction = await desk.react(key, message)
        await desk.again(key, message, reaction)

        assert desk.queue.pressed == [(turn.id, desk.ann.user_id, f"matrix:{reaction}")]
        assert await desk.notices() == []

    @pytest.mark.parametrize("key", ["⏹", "⏹\ufe0f"])
    async def test_one_stops_the_answer(self, desk: Desk, key: str) -> None:
        turn, message = await desk.answered()

        await desk.react(key, message)

        assert desk.queue.stopped == [turn.id]
        assert desk.queue.stopped_by == [desk.ann.user_id]

    async def test_one_goes_on_with_a_cut_answer(self, desk: Desk) -> None:
        turn, message = await desk.answered()

        reaction = await desk.react("▶️", message)

        following = desk.queue.last
        assert (following.id, following.place) == (f"matrix:{reaction}", turn.place)

    @pytest.mark.parametrize(("key", "rating"), [("👍", "good"), ("👎🏽", "bad"), ("👍️", "good")])
    async def test_one_rates_the_answer(self, desk: Desk, key: str, rating: str) -> None:
        turn, message = await desk.answered()

        await desk.react(key, message)

        assert desk.queue.ratings_given == [(turn.id, desk.ann.user_id, rating)]
        assert await desk.notices() == []

    async def test_to_like_what_is_forgotten_is_no_request(self, desk: Desk) -> None:
        _, message = await desk.answered()
        desk.queue.turns.clear()
        desk.queue.refuses = HasEnded()

        await desk.react("👍", message)

        assert await desk.notices() == []

    async def test_a_refusal_is_told_once_in_the_thread(self, desk: Desk) -> None:
        turn, message = await desk.answered()
        ben = await desk.ann.bring(desk.room, "ben")

        reaction = await desk.react("🔁", message, by=ben)
        desk.queue.handled.clear()
        await desk.again("🔁", message, reaction, by=ben)

        (notice,) = await desk.notices()
        assert notice.text == NotTheAsker.apology
        assert notice.thread == turn.place["thread"]
        assert desk.queue.pressed == []

    async def test_a_flood_of_refusals_is_one_notice(self, desk: Desk) -> None:
        _, message = await desk.answered()
        ben = await desk.ann.bring(desk.room, "ben")

        for key in ("🔁", "🔁\ufe0f", "▶️", "🔁\ufe0f\ufe0f", "▶"):
            await desk.react(key, message, by=ben)

        assert len(await desk.notices()) == 1

    async def test_those_to_a_file_are_about_its_answer(self, desk: Desk) -> None:
        turn, message = await desk.answered()
        mark: dict[str, Json] = {"turn": turn.id, "beside": message, "name": "file:1"}
        file = await desk.bot.send(
            desk.room, {"msgtype": "m.file", "body": "a.py", "dev.parley.reply": mark}
        )

        await desk.react("✅", file)
        await desk.react("👍", file)

        assert await desk.notices() == []
        assert desk.queue.decided == []
        assert desk.queue.ratings_given == [(turn.id, desk.ann.user_id, "good")]

    @pytest.mark.parametrize("key", ["❤️", "🔁🔁", "x" * 5000, "", "✅"])
    async def test_others_mean_nothing(self, desk: Desk, key: str) -> None:
        turn, message = await desk.answered()

        await desk.again(key, message, "$of-somebody")

        assert (desk.queue.pressed, desk.queue.stopped, desk.queue.decided) == ([], [], [])
        assert await desk.notices() == []
        assert turn.id not in desk.queue.stopped

    async def test_only_messages_of_the_bot_count(self, desk: Desk) -> None:
        turn, _ = await desk.answered()
        mark: dict[str, Json] = {"turn": turn.id, "page": 0}
        forged = await desk.ann.send(
            desk.room, {"msgtype": "m.text", "body": "x", "dev.parley.reply": mark}
        )

        await desk.react("⏹", forged)
        await desk.again("⏹", "$none", "$reaction")

        assert desk.queue.stopped == []

    async def test_an_event_waits_for_the_store(self, desk: Desk) -> None:
        turn, message = await desk.answered()
        desk.queue.refuses = StoreUnavailable()
        with pytest.raises(StoreUnavailable):
            await desk.again("⏹", message, "$reaction")
        desk.queue.refuses = None

        await desk.again("⏹", message, "$reaction")

        assert desk.queue.stopped == [turn.id]


class TestConsent:
    @pytest.mark.parametrize(
        ("key", "consent"), [("✅", "allow"), ("♾️", "always"), ("♾", "always"), ("❌", "deny")]
    )
    async def test_the_asker_answers_by_a_reaction(
        self, desk: Desk, key: str, consent: str
    ) -> None:
        turn, message = await desk.asked("call12345")

        await desk.react(key, message)

        assert desk.queue.decided == [
            (turn.id, "call12345", consent, desk.ann.user_id, False)
        ]  # fmt: skip

    @pytest.mark.parametrize("word", ["allow", "always", "deny"])
    async def test_the_asker_answers_in_words(self, desk: Desk, word: str) -> None:
        turn, _ = await desk.asked("call12345")

        await desk.write(word.upper(), thread=str(turn.place["thread"]))

        assert [one[:3] for one in desk.queue.decided] == [(turn.id, "call12345", word)]

    async def test_the_asker_is_notified_and_told_how(self, desk: Desk) -> None:
        await desk.asked("call12345")

        how = (await desk.shown())[-1]
        assert how.content["m.mentions"] == {"user_ids": [desk.ann.user_id]}
        assert how.text == (
            "React to this message with ✅ (Allow), ♾️ (Allow always), ❌ (Deny), or write"
            " `!parley allow`, `!parley always`, `!parley deny`."
        )

    async def test_how_to_answer_goes_once_it_is_answered(self, desk: Desk) -> None:
        turn, message = await desk.asked("call12345")
        async with desk.surface(turn, Purpose.RESUME) as surface:
            await surface.post(Page(0, "May I book?", False, consent="call12345"))
            assert (await desk.shown())[-1].id == message
            await surface.post(page("Booked", last=True))

        assert await desk.texts() == ["Booked"]

    async def test_another_person_may_not_allow_it(self, desk: Desk) -> None:
        _, message = await desk.asked("call12345")
        ben = await desk.ann.bring(desk.room, "ben")

        await desk.react("✅", message, by=ben)

        assert desk.queue.decided == []
        (notice,) = await desk.notices()
        assert notice.text == "Only the person who asked can allow or deny this."

    async def test_a_link_is_visited(self, desk: Desk) -> None:
        turn, message = await desk.asked(f"{LINK}12345")

        await desk.react("✅", message)

        assert [one[:3] for one in desk.queue.decided] == [(turn.id, f"{LINK}12345", "done")]

    async def test_a_form_is_answered_in_words(self, desk: Desk) -> None:
        turn, message = await desk.asked(f"{FORM}12345")
        thread = str(turn.place["thread"])

        await desk.react("✅", message)
        asked = (await desk.notices())[-1].text
        await desk.write("answer", thread=thread)
        await desk.write("answer\nBonn", thread=thread)
        await desk.write("answer Bonn\n 4 ", thread=thread)
        await desk.write("answer\n-\n4", thread=thread)
        await desk.write("answer\nBonn\nmany", thread=thread)

        assert "- `Town` (`of the hotel`)\n- `Stars` (`may be empty`)" in asked
        texts = [one.text for one in await desk.notices()][2:]
        assert [json.loads(one) for one in desk.queue.words] == [
            {"town": "Bonn"}, {"town": "Bonn", "stars": 4}
        ]  # fmt: skip
        assert texts[:2] == ["Thank you, I go on."] * 2
        assert "please answer this" in texts[2]
        assert "whole number" in texts[3]

    async def test_nothing_waits_for_an_answer(self, desk: Desk) -> None:
        turn = await desk.write("allow")

        (notice,) = await desk.notices()
        assert notice.text == NOT_WAITING
        assert notice.thread == ""
        relation = notice.content["m.relates_to"]
        assert relation == {"m.in_reply_to": {"event_id": turn.place["question"]}}


class TestCommands:
    async def test_help_says_what_works_here(self, desk: Desk, direct: Desk) -> None:
        await desk.write("help")
        await desk.write("")
        await direct.write("help")

        first, second = await desk.notices()
        assert first.text == second.text
        assert "🔁" in first.text
        assert "`!parley forget-me`" in first.text
        assert "Mention me" in first.text
        (alone,) = await direct.notices()
        assert "Mention me" not in alone.text

    async def test_a_command_is_carried_out_once(self, desk: Desk) -> None:
        turn = await desk.write("stop")
        await desk.controls.command(turn, "stop")

        assert desk.queue.stopped_own == [(desk.ann.user_id, desk.room)]
        assert len(await desk.notices()) == 1

    async def test_in_a_thread_it_is_about_the_thread(self, desk: Desk) -> None:
        turn, _ = await desk.answered()

        await desk.write("stop", thread=str(turn.place["thread"]))
        await desk.write("reset", thread=str(turn.place["thread"]))

        assert desk.queue.stopped_own == [(desk.ann.user_id, "")]
        assert desk.queue.resets == [turn.key]
        assert {one.thread for one in await desk.notices()} == {turn.place["thread"]}

    @pytest.mark.parametrize("words", ["nonsense", "<b>x</b>", "x" * 5000, "!parley"])
    async def test_an_unknown_one_names_the_help(self, desk: Desk, words: str) -> None:
        await desk.write(words)

        (notice,) = await desk.notices()
        assert notice.text == "I do not know this command. Write `!parley help`."

    async def test_who_manages_the_room_chooses_for_it(self, desk: Desk, store: Store) -> None:
        desk.controls = patient(desk.process, NotedIntake(store))
        ben = await desk.ann.bring(desk.room, "ben")

        await desk.write("persona room briefly")
        await desk.write("settings room temperature 0.5")
        await desk.write("settings")
        await desk.write("me room service is my job")
        await desk.write("me")
        desk.ann = ben
        await desk.write("persona room at length")

        texts = [one.text for one in await desk.notices()]
        assert texts[0] == "From now on I use this persona in this room."
        assert texts[1] == "Saved for this room: Temperature."
        assert "`temperature`" in texts[2]
        assert "\nroom service is my job\n" in texts[4]
        assert texts[5] == "Only somebody who manages this room can change this."

    async def test_settings_of_a_scope_that_may_not_be_changed_are_refused(
        self, desk: Desk, store: Store
    ) -> None:
        desk.controls = patient(desk.process, NotedIntake(store))

        await desk.write("settings server follow all")
        await desk.write("settings room nonsense")

        refused, unknown = [one.text for one in await desk.notices()]
        assert refused == str(MayNotChange("server"))
        assert "`!parley settings [room|server] NAME VALUE`" in unknown
        assert "`people`" in unknown
        assert "`roles`" not in unknown

    async def test_who_began_a_thread_chooses_for_it(self, desk: Desk, store: Store) -> None:
        desk.controls = patient(desk.process, NotedIntake(store))
        ben, cleo = [await desk.ann.bring(desk.room, it) for it in ("ben", "cleo")]
        root = await ben.say(desk.room, "why?")

        for desk.ann in (cleo, ben):
            await desk.write("persona briefly", thread=root)

        texts = [one.text for one in await desk.notices()]
        assert texts == [
            str(MayNotChange("thread", "this room")),
            "From now on I use this persona in this thread.",
        ]

    async def test_a_direct_room_has_no_other_scopes(self, direct: Desk, store: Store) -> None:
        direct.controls = patient(direct.process, NotedIntake(store))

        await direct.write("settings")
        await direct.write("settings room temperature 1")
        await direct.write("settings temperature 1")

        how, refused, saved = [one.text for one in await direct.notices()]
        assert "`!parley settings NAME VALUE`" in how
        assert saved == "Saved for our conversation: Temperature."
        assert refused == "Here you can only choose for this conversation."

    async def test_what_follows_a_list_stands_below_it(self, desk: Desk, store: Store) -> None:
        desk.controls = patient(desk.process, NotedIntake(store))

        await desk.write("settings temperature 1")
        await desk.write("settings")

        notice = (await desk.notices())[-1]
        assert "1\n\nWrite `!parley" in notice.text
        assert "</ul>\n<p>Write" in notice.html

    async def test_an_answer_to_a_command_waits_as_long_as_the_server_asks(
        self, desk: Desk
    ) -> None:
        desk.proxy.refuse(0.2, times=2)
        desk.proxy.fail(503)
        await desk.write("nonsense")

        await eventually(desk.notices)

    async def test_forgetting_asks_first(self, desk: Desk) -> None:
        await desk.write("forget-me")
        assert desk.queue.people == []
        await desk.write("forget-me yes")

        assert desk.queue.people == [desk.ann.user_id.replace(":", "%3A").replace("@", "%40")]
        question, done = await desk.notices()
        assert "`!parley forget-me yes`" in question.text
        assert done.text.startswith("I have forgotten")

    async def test_forgetting_that_takes_longer_is_reported_when_it_is_done(
        self, desk: Desk
    ) -> None:
        desk.queue.is_quick = False
        await desk.write("forget-me yes")
        begun = [one.text for one in await desk.notices()]
        desk.queue.is_quick = True

        async def is_told() -> bool:
            return [one.text for one in await desk.notices()] == [FORGETTING, FORGOTTEN_AND_REMOVED]

        await eventually(is_told)
        assert begun == [FORGETTING]

    async def test_answers_to_commands_go_with_their_person(self, desk: Desk, store: Store) -> None:
        async def is_owed(mark: Mapping[str, Any]) -> bool:
            return bool(mark["for"] == desk.ann.user_id)

        desk.controls = patient(desk.process, NotedIntake(store))
        await desk.write("persona like a secret agent")
        await desk.write("persona")
        await desk.write("forget-me yes")
        notice = (await desk.notices())[1]
        await desk.react("🔁", notice.id)
        await desk.process.withdraw_all(is_owed)

        assert "secret agent" in notice.text
        assert [one.text for one in await desk.notices()] == [FORGETTING]

    async def test_a_refused_question_is_told_once(self, desk: Desk) -> None:
        turn = await desk.ask()

        for _ in range(2):
            await desk.controls.refuse(turn, ThreadBusy())
        await desk.controls.refuse(await desk.ask(), NothingAsked())

        refused, helped = await desk.notices()
        assert refused.text == ThreadBusy.apology
        assert "`!parley help`" in helped.text

    async def test_a_room_that_was_left_is_no_obstacle(self, desk: Desk) -> None:
        turn = await desk.ask()
        await desk.bot.leave(desk.room)

        await desk.controls.refuse(turn, ThreadBusy())


class TestTelling:
    async def test_a_direct_room_is_made_once(self, desk: Desk) -> None:
        cleo = await desk.synapse.person("cleo")
        async with desk.platform() as platform:
            await platform.tell(cleo.user_id, "80 % are used.")
            await platform.tell(cleo.user_id, "80 % are used.")
            await platform.tell(cleo.user_id, "All is used.")

        invites = (await cleo.call("GET", "sync", timeout=0))["rooms"]["invite"]
        (room,) = invites
        await cleo.join(room)
        assert [one.text for one in await cleo.screen(room)][-2:] == [
            "80 % are used.", "All is used."
        ]  # fmt: skip

    async def test_who_has_left_is_told_in_another_room(self, desk: Desk) -> None:
        cleo = await desk.synapse.person("cleo")
        async with desk.platform() as platform:
            await platform.tell(cleo.user_id, "one")
            (first,) = (await cleo.call("GET", "sync", timeout=0))["rooms"]["invite"]
            await cleo.leave(first)
            await platform.tell(cleo.user_id, "two")

        found = await desk.bot.call("GET", f"user/{desk.bot.user_id}/account_data/m.direct")
        assert len(found[cleo.user_id]) == 1
        assert found[cleo.user_id] != [first]


async def test_a_notice_that_waits_for_the_limit_holds_up_nothing_else(desk: Desk) -> None:
    client = desk.process.client

    async def waiting(*_: Any, **__: Any) -> str:
        await asyncio.sleep(3600)
        return ""

    client.send = waiting  # type: ignore[method-assign]

    desk.controls = Controls(desk.process, desk.queue.intake)

    async with asyncio.timeout(20):
        turn = await desk.write("help")

    assert turn.id in desk.queue.handled
