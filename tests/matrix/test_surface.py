"""Replies on a real homeserver: each page once, few edits, and nothing left of what is gone."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from itertools import count
from typing import Any
from urllib.parse import quote

import pytest

from adapters.matrix.client import connected
from adapters.matrix.messages import KEY
from adapters.matrix.platform import MatrixPlatform
from adapters.matrix.surface import MOST_EDITS, MatrixSurface
from bot.concurrency import running
from bot.domain import Attachment, Page, Person, Purpose, ThreadKey, Turn
from bot.errors import MessageGone, PlaceGone, WriteDelayed, WriteFailed
from bot.reply.edit_budget import EditBudgets
from bot.store import Store
from tests.support.fakes import FakeModel
from tests.support.matrix_proxy import WRITES, MatrixProxy, disobeyed, in_front_of
from tests.support.replies import make_reply
from tests.support.synapse import Member, Shown, Synapse, eventually
from tests.support.waiting import at_least


@dataclass
class Scene:
    """A room in which Ann asks the bot."""

    synapse: Synapse
    ann: Member
    bot: Member
    room: str
    proxy: MatrixProxy
    budgets: EditBudgets
    direct: bool

    async def ask(self, text: str = "why?", *, thread: str = "") -> Turn:
        asked = await self.ann.say(self.room, text, to=[self.bot], thread=thread)
        root = "" if self.direct else thread or asked
        key = ThreadKey("matrix", "synapse.test", self.room, root or self.room)
        person = Person(self.ann.user_id, "Ann")
        place = {"room": self.room, "thread": root, "question": asked}
        return Turn(f"matrix:{asked}", key, person, text, place, time.time())

    @asynccontextmanager
    async def platform(self, token: str = "") -> AsyncIterator[MatrixPlatform]:
        """A process of the bot."""
        address, budgets = self.proxy.url, self.budgets
        async with connected(address, token or self.bot.token, budgets=budgets) as client:
            platform = MatrixPlatform(client)
            async with platform.jobs:
                yield platform

    @asynccontextmanager
    async def surface(
        self, turn: Turn, purpose: Purpose = Purpose.ANSWER, *, token: str = ""
    ) -> AsyncIterator[MatrixSurface]:
        async with self.platform(token) as platform, platform.surface(turn, purpose) as surface:
            yield surface

    async def shown(self) -> list[Shown]:
        """What the bot shows to Ann."""
        found = await self.ann.screen(self.room)
        return [one for one in found if one.sender == self.bot.user_id]

    async def texts(self) -> list[str]:
        return [one.text for one in await self.shown()]

    async def sent(self) -> list[Mapping[str, Any]]:
        """All messages and edits of the bot that have a content."""
        events = await self.ann.events(self.room)
        ours = [it for it in events if it["sender"] == self.bot.user_id]
        return [it for it in ours if it["type"] == "m.room.message" and it["content"]]


@asynccontextmanager
async def scene_of(
    synapse: Synapse, store: Store, *, direct: bool = False, limited: bool = False
) -> AsyncIterator[Scene]:
    ann, bot = await synapse.person("ann"), await synapse.person("parley", limited=limited)
    room = await ann.create_room(bot, direct=direct)
    await bot.join(room)
    async with in_front_of(synapse.url) as proxy:
        yield Scene(synapse, ann, bot, room, proxy, EditBudgets(store=store), direct)


@pytest.fixture(params=[False, True], ids=["thread", "direct"])
async def either(
    request: pytest.FixtureRequest, synapse: Synapse, store: Store
) -> AsyncIterator[Scene]:
    async with scene_of(synapse, store, direct=request.param) as scene:
        yield scene


@pytest.fixture
async def scene(synapse: Synapse, store: Store) -> AsyncIterator[Scene]:
    async with scene_of(synapse, store) as one:
        yield one


def page(text: str, number: int = 0, *, last: bool = False, **more: Any) -> Page:
    return Page(number, text, final=last, last=last, said=text, **more)


class TestPosting:
    async def test_an_answer_stands_in_the_thread_of_its_question(self, scene: Scene) -> None:
        turn = await scene.ask()
        async with scene.surface(turn) as surface:
            message = await surface.post(page("Be"))
            await surface.edit(message, page("Because **of** rain.", last=True))

        (shown,) = await scene.shown()
        assert (shown.text, shown.edits) == ("Because **of** rain.", 1)
        assert shown.html == "<p>Because <strong>of</strong> rain.</p>"
        assert shown.thread == turn.place["question"]
        assert shown.kind == "m.text"
        assert shown.content["m.mentions"] == {}

    async def test_in_a_direct_room_it_stands_in_place(
        self, synapse: Synapse, store: Store
    ) -> None:
        async with scene_of(synapse, store, direct=True) as scene:
            turn = await scene.ask()
            async with scene.surface(turn) as surface:
                await surface.post(page("Because", last=True))

            (shown,) = await scene.shown()
            assert shown.thread == ""
            assert "m.relates_to" not in shown.content

    async def test_an_answer_names_its_question_where_several_wait(self, either: Scene) -> None:
        turn = await either.ask()
        turn = replace(turn, place={**turn.place, "refers": True})
        async with either.surface(turn) as surface:
            await surface.post(page("Because", last=True))

        (sent,) = await either.sent()
        relation = sent["content"]["m.relates_to"]
        assert relation["m.in_reply_to"] == {"event_id": turn.place["question"]}
        assert relation.get("is_falling_back") is not True

    async def test_a_repeated_post_is_one_message(self, either: Scene) -> None:
        turn = await either.ask()
        async with either.surface(turn) as surface, either.surface(turn) as other:
            first, second = await asyncio.gather(
                surface.post(page("Because")), other.post(page("Because"))
            )

        assert first == second
        assert await either.texts() == ["Because"]

    async def test_a_post_whose_answer_is_lost_shows_the_newer_text(self, either: Scene) -> None:
        turn = await either.ask()
        async with either.surface(turn) as surface:
            either.proxy.lose_answer()
            with pytest.raises(WriteFailed):
                await surface.post(page("Because"))
            await surface.post(page("Because of the rain.", last=True))

        assert await either.texts() == ["Because of the rain."]

    async def test_another_login_goes_on_with_the_message_of_a_dead_process(
        self, either: Scene
    ) -> None:
        turn, again = await either.ask(), await either.synapse.log_in(either.bot)
        async with either.surface(turn) as surface:
            unsaved = await surface.post(page("Because"))
        async with either.surface(turn, Purpose.RESUME, token=again.token) as surface:
            message = await surface.post(page("Because of the rain.", last=True))

        assert message == unsaved
        assert await either.texts() == ["Because of the rain."]

    async def test_a_page_that_was_taken_away_comes_back_as_another_message(
        self, either: Scene
    ) -> None:
        turn = await either.ask()
        async with either.surface(turn) as surface:
            first = await surface.post(page("one", last=True))
            await surface.edit(first, Page(0, "", final=True))
            other = await surface.post(page("one", last=True))
            assert await either.texts() == ["one"]
            await surface.edit(other, Page(0, "", final=True))
        async with either.surface(turn, Purpose.RESUME) as surface:
            second = await surface.post(page("two", last=True))
            await surface.edit(second, Page(0, "", final=True))
            third = await surface.post(page("three", last=True))

        assert len({first, other, second, third}) == 4
        assert await either.texts() == ["three"]

    async def test_other_peoples_messages_with_our_key_are_not_ours(self, scene: Scene) -> None:
        turn = await scene.ask()
        mark = {"turn": turn.id, "page": 0, "open": True, "last": False}
        content = {"msgtype": "m.text", "body": "mine", KEY: mark}
        forged = await scene.ann.send(scene.room, content)
        async with scene.platform() as platform:
            assert await platform.orphaned_messages(turn, but=[]) == []
        async with scene.surface(turn, Purpose.RESUME) as surface:
            message = await surface.post(page("Because", last=True))
            with pytest.raises(MessageGone):
                await surface.edit(forged, page("Because", last=True))

        assert message != forged
        assert await scene.texts() == ["Because"]

    async def test_who_was_removed_from_the_room_cannot_write(self, scene: Scene) -> None:
        turn = await scene.ask()
        await scene.bot.leave(scene.room)
        async with scene.surface(turn) as surface:
            with pytest.raises(PlaceGone):
                await surface.post(page("Because"))


class TestEdits:
    async def test_an_edit_that_shows_the_same_is_none(self, either: Scene) -> None:
        turn = await either.ask()
        async with either.surface(turn) as surface:
            message = await surface.post(page("Because"))
            await surface.edit(message, page("Because of the rain.", last=True))
            await surface.edit(message, page("Because of the rain.", last=True))
        async with either.surface(turn, Purpose.RESTORE) as surface:
            await surface.edit(message, page("Because of the rain.", last=True))

        (shown,) = await either.shown()
        assert (shown.text, shown.edits) == ("Because of the rain.", 1)

    async def test_a_text_that_comes_back_is_shown_again(self, either: Scene) -> None:
        turn = await either.ask()
        async with either.surface(turn) as surface:
            message = await surface.post(page("one"))
            for text in ("two", "one", "two"):
                await surface.edit(message, page(text))
        assert await either.texts() == ["two"]
        async with either.surface(turn, Purpose.RESUME) as surface:
            for text in ("one", "two", "one"):
                await surface.edit(message, page(text))

        assert await either.texts() == ["one"]

    async def test_an_edit_whose_answer_is_lost_is_repeated_as_the_same(self, scene: Scene) -> None:
        turn = await scene.ask()
        async with scene.surface(turn) as surface:
            message = await surface.post(page("one"))
            scene.proxy.lose_answer()
            with pytest.raises(WriteFailed):
                await surface.edit(message, page("two"))
            await surface.edit(message, page("two"))

        (shown,) = await scene.shown()
        assert (shown.text, shown.edits) == ("two", 1)

    async def test_a_growing_page_has_few_edits_and_its_end_always(self, scene: Scene) -> None:
        turn = await scene.ask()
        async with scene.surface(turn) as surface:
            message = await surface.post(page("0"))
            for number in range(1, MOST_EDITS):
                await surface.edit(message, page(str(number)))
            with pytest.raises(WriteDelayed) as refused:
                await surface.edit(message, page("more"))
        async with scene.surface(turn, Purpose.RESUME) as surface:
            with pytest.raises(WriteDelayed):
                await surface.edit(message, page("more"))
            await surface.edit(message, page("the end", last=True))

        (shown,) = await scene.shown()
        assert (shown.text, shown.edits) == ("the end", MOST_EDITS)
        assert refused.value.retry_after > 600
        assert refused.value.bucket != surface.budget(page("x", last=True), new=False).bucket

    async def test_what_a_person_is_asked_is_always_shown(self, scene: Scene) -> None:
        turn = await scene.ask()
        async with scene.surface(turn) as surface:
            message = await surface.post(page("0"))
            for number in range(1, MOST_EDITS):
                await surface.edit(message, page(str(number)))
            asking = page("May I?", consent="call12345")
            assert surface.budget(asking, new=False).within is None
            await surface.edit(message, asking)

        assert (await scene.texts())[0] == "May I?"

    async def test_another_answer_in_the_message_may_grow_again(self, scene: Scene) -> None:
        turn = await scene.ask()
        async with scene.surface(turn) as surface:
            message = await surface.post(page("0"))
            for number in range(1, MOST_EDITS):
                await surface.edit(message, page(str(number)))
            await surface.edit(message, page("the end", last=True))
        async with scene.surface(turn, Purpose.RESUME) as surface:
            await surface.edit(message, page("anew"))

        assert await scene.texts() == ["anew"]

    async def test_the_plan_is_the_documented_one(self, scene: Scene) -> None:
        turn = await scene.ask()
        async with scene.surface(turn) as surface:
            plan = [surface.budget(page("x"), new=True)]
            message = await surface.post(page("x"))
            for number in range(7):
                plan.append(surface.budget(page("x"), new=False))
                await surface.edit(message, page(str(number)))
            account = surface.budget(page("x", last=True), new=False)

        assert [one.seconds for one in plan] == [2, 3, 5, 10, 20, 20, 20, 20]
        assert {(one.writes, one.bucket) for one in plan} == {(1, f"{turn.id}/page/0")}
        assert {one.within for one in plan} == {account}

    async def test_a_quick_answer_is_written_by_the_plan(self, scene: Scene, store: Store) -> None:
        turn, words = await scene.ask(), [f"word{number} " for number in range(60)]
        async with scene.surface(turn) as surface:
            reply = make_reply(store, surface, budgets=scene.budgets, patience=30.0)
            began = time.monotonic()
            await reply.stream(FakeModel(words, pause=0.1).stream([]))
            ended = time.monotonic()

        (shown,) = await scene.shown()
        assert shown.text.split() == "".join(words).split()
        # At 2 and 5 seconds after the post, and the end after 6, or later on a busy machine.
        assert 2 <= shown.edits <= 1 + sum(it < ended - began for it in (2, 5, 10, 20, 40, 60))
        _, first, *_ = [it for it in scene.proxy.calls if re.fullmatch(WRITES, it.call)]
        assert first.began - began >= at_least(2.0)
        edited = (await scene.sent())[1]["content"]["m.new_content"]["body"]
        assert 1 < len(edited.split()) < 50

    async def test_a_page_is_gone_on_with_by_the_plan_of_a_dead_process(self, scene: Scene) -> None:
        turn = await scene.ask()
        async with scene.surface(turn) as surface:
            budget = surface.budget(page("one"), new=True)
            began = asyncio.get_running_loop().time()
            await scene.budgets.interim(budget, new=True, since=0, wrote=0, unless=asyncio.Event())
            message = await surface.post(page("one"))
        async with scene.surface(turn, Purpose.RESUME) as surface:
            budget = surface.budget(page("two"), new=False)
            await scene.budgets.interim(
                budget, new=False, since=0, wrote=-100, unless=asyncio.Event()
            )
            await surface.edit(message, page("two"))

        assert asyncio.get_running_loop().time() - began >= at_least(2.0)

    async def test_a_limited_account_is_told_when_to_write_again(
        self, synapse: Synapse, store: Store
    ) -> None:
        async with scene_of(synapse, store, limited=True) as scene:
            turn = await scene.ask()
            async with scene.surface(turn) as surface:
                message = await surface.post(page("0"))
                with pytest.raises(WriteDelayed) as refused:
                    await write_often(surface, message)
                account = surface.budget(page("x", last=True), new=False)

            assert account is not None
            assert refused.value.bucket == account.bucket
            assert 0 < refused.value.retry_after < 6

    async def test_every_write_waits_as_long_as_a_429_asks(self, scene: Scene) -> None:
        turn = await scene.ask()
        async with scene.surface(turn) as surface:
            message = await surface.post(page("0"))
            await surface.edit(message, page("1", last=True))
            scene.proxy.refuse(2.0)
            with pytest.raises(WriteDelayed):
                await surface.edit(message, page("2", last=True))
            await asyncio.sleep(0.4)  # what comes sooner may have been on its way
            # More requests than the writer has taken slots for.
            await surface.edit(message, Page(0, "", final=True))

        assert await scene.texts() == []
        assert list(disobeyed(scene.proxy.calls)) == []


async def write_often(surface: MatrixSurface, message: str) -> None:
    for number in range(1, 30):
        await surface.edit(message, page(str(number), last=True))


class TestDeleting:
    async def test_a_page_goes_with_its_edits_and_files(self, either: Scene) -> None:
        turn = await either.ask()
        async with either.surface(turn) as surface:
            await surface.post(page("first secret", last=True))
            second = await surface.post(page("secret", 1))
            for text in ("secret too", "a secret"):
                await surface.edit(second, page(text, 1))
            files = (Attachment("code.py", b"secret"),)
            await surface.edit(second, page("last secret", 1, last=True, attachments=files))
        async with either.surface(turn, Purpose.RESTORE) as surface:
            await surface.edit(second, Page(1, "", final=True))

        assert await either.texts() == ["first secret"]
        assert json.dumps(await either.sent()).count("secret") == 1

    async def test_what_somebody_redacts_is_gone_with_its_edits(self, either: Scene) -> None:
        turn = await either.ask()
        async with either.surface(turn) as surface:
            message = await surface.post(page("secret"))
            await surface.edit(message, page("secret too"))
            await either.bot.redact(either.room, message)
            with pytest.raises(MessageGone):
                await surface.edit(message, page("more secrets"))

        assert "secret" not in json.dumps(await either.sent())

    async def test_what_a_person_has_deleted_is_not_posted_again(self, either: Scene) -> None:
        turn = await either.ask()
        async with either.surface(turn) as surface:
            message = await surface.post(page("Because"))
            await surface.edit(message, page("Because of"))
        # No process has recorded it when it is deleted.
        await either.ann.redact(either.room, message)

        async with either.surface(turn, Purpose.RESUME) as surface:
            with pytest.raises(MessageGone):
                await surface.post(page("Because of the rain.", last=True))

        assert await either.shown() == []

    async def test_the_edits_of_a_redacted_answer_can_be_swept(self, either: Scene) -> None:
        turn = await either.ask()
        files = (Attachment("code.py", b"secret"),)
        async with either.surface(turn) as surface:
            message = await surface.post(page("secret"))
            await surface.edit(message, page("secret too", last=True, attachments=files))
            other = await surface.post(page("stays", 1, last=True))
        await either.bot.redact(either.room, message)
        async with either.platform() as platform:
            await platform.withdraw(either.room, message)
            await platform.withdraw(either.room, message)

        assert [one["event_id"] for one in await either.sent()] == [other]

    async def test_the_answer_to_a_redacted_question_can_be_withdrawn(self, either: Scene) -> None:
        turn, stays = await either.ask(), await either.ask("and?")
        async with either.surface(stays) as surface:
            await surface.post(page("stays", last=True))
        async with either.surface(turn) as surface:
            message = await surface.post(page("secret"))
            await surface.edit(message, page("secret too", last=True))
            await surface.post(page("secret", 1, last=True))
        await either.ann.redact(either.room, str(turn.place["question"]))
        async with either.platform() as platform:
            await platform.withdraw(either.room, str(turn.place["question"]))

        assert await either.texts() == ["stays"]
        assert "secret" not in json.dumps(await either.sent())

    async def test_all_answers_to_a_person_go_but_those_to_later_questions(
        self, either: Scene
    ) -> None:
        turn, later = await either.ask(), await either.ask("and?")
        of_ben = replace(await either.ask("or?"), person=Person("@ben:synapse.test", "Ben"))
        files = (Attachment("code.py", b"secret"),)
        async with either.surface(turn) as surface:
            message = await surface.post(page("secret"))
            await surface.edit(message, page("secret too", last=True, attachments=files))
        for one in (later, of_ben):
            async with either.surface(one) as surface:
                await surface.post(page(f"stays {one.person.name}", last=True))
        elsewhere = await either.ann.create_room(either.bot)
        await either.bot.join(elsewhere)

        async def is_owed(mark: Mapping[str, Any]) -> bool:
            return bool(mark["for"] == turn.person.id and mark["turn"] != later.id)

        async with either.platform() as platform:
            either.proxy.fail(503)
            await platform.withdraw_all(is_owed)

        assert await either.texts() == ["stays Ann", "stays Ben"]
        assert "secret" not in json.dumps(await either.sent())

    async def test_a_room_in_which_the_server_fails_holds_up_no_other(self, scene: Scene) -> None:
        turn, rooms = await scene.ask(), [scene.room]
        for _ in range(2):
            rooms.append(await scene.ann.create_room(scene.bot))
            await scene.bot.join(rooms[-1])
        for room in rooms:
            await scene.bot.send(
                room, {"msgtype": "m.text", "body": "secret", KEY: {"turn": turn.id}}
            )

        async def is_owed(_: Mapping[str, Any]) -> bool:
            return True

        async def are_left(*wanted: str) -> bool:
            screens = {room: await scene.ann.screen(room) for room in rooms}
            left = [it for it, screen in screens.items() if any(x.text == "secret" for x in screen)]
            return left == [*wanted]

        async with scene.platform() as platform:
            first = (await platform.client.joined_rooms())[0]
            scene.proxy.fail(500, rf"GET .*/{quote(first, safe='')}/messages", times=100)
            async with running(platform.withdraw_all(is_owed)) as removal:
                await eventually(lambda: are_left(first))
                scene.proxy.heal()
                await removal

        assert await are_left()


class TestOrphans:
    async def test_they_are_named_but_for_ended_ones(self, either: Scene) -> None:
        turn, other = await either.ask(), await either.ask("and?")
        async with either.surface(turn) as surface:
            ended = await surface.post(page("one", last=True))
            growing = await surface.post(page("two", 1))
            unknown = await surface.post(page("three", 2, last=True))
        async with either.surface(other) as surface:
            await surface.post(page("of another", last=True))
        async with either.platform() as platform:
            found = await platform.orphaned_messages(turn, but=[ended, growing])

        assert set(found) == {growing, unknown}

    async def test_they_are_found_although_the_question_was_redacted(self, either: Scene) -> None:
        turn = await either.ask()
        async with either.surface(turn) as surface:
            posted = await surface.post(page("one", last=True))
        await either.ann.redact(either.room, str(turn.place["question"]))
        async with either.platform() as platform:
            assert list(await platform.orphaned_messages(turn, but=[])) == [posted]


class TestTyping:
    async def test_the_room_sees_the_bot_type_until_the_end(self, scene: Scene) -> None:
        turn = await scene.ask()
        async with scene.platform() as platform:
            async with platform.surface(turn), platform.surface(turn):
                await typing(scene, [scene.bot.user_id])
            await typing(scene, [])
            async with platform.surface(turn, Purpose.RESTORE):
                await asyncio.sleep(0.2)
                assert await who_types(scene) == []


_numbers = count(1)


async def typing(scene: Scene, wanted: list[str]) -> None:
    async with asyncio.timeout(20):
        while await who_types(scene) != wanted:
            await asyncio.sleep(0.05)


async def who_types(scene: Scene) -> list[str]:
    # Synapse answers the same request from memory for two minutes.
    limits = json.dumps({"room": {"timeline": {"limit": next(_numbers)}}})
    found = await scene.ann.call("GET", "sync", timeout=0, filter=limits)
    events = found["rooms"]["join"][scene.room]["ephemeral"]["events"]
    return next((it["content"]["user_ids"] for it in events if it["type"] == "m.typing"), [])
