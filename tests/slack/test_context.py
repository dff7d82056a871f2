"""What others said in a thread of Slack is read by one request, within Slack's limits."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from adapters.slack.platform import SlackPlatform
from bot.domain import Attachment, ContextMessage, Page, Person, Turn
from bot.errors import NoSlot, PlaceGone, WriteDelayed
from bot.ports import Earlier, PartlyRead
from bot.reply.edit_budget import Clock, EditBudgets
from bot.store import Store
from tests.emulators.slack import SlackEmulator
from tests.emulators.slack.methods import SCOPES
from tests.support.fakes import FakeQueue
from tests.support.slack_platform import LIMITS, hearing, joined
from tests.support.waiting import until

FILE = Attachment("answer.py", b"x = 1")


def texts(found: Sequence[ContextMessage]) -> list[tuple[str, str]]:
    return [(one.person.name if one.person else "the bot", one.text) for one in found]


def calls(slack: SlackEmulator, method: str) -> int:
    return sum(call.method == method for call in slack.requests)


async def thread_of(slack: SlackEmulator, *people: str) -> str:
    """Let the first of these people begin a thread in which the others answer."""
    parent = await slack.say(slack.channel_id, people[0], "We deploy. When?")
    for person, text in zip(people[1:], ("On Friday?", "On Monday."), strict=False):
        await slack.say(slack.channel_id, person, text, thread_ts=parent)
    return parent


async def asked(slack: SlackEmulator, intake: FakeQueue, user: str, thread: str) -> Turn:
    text = f"{slack.bot_mention} who is right?"
    ts = await slack.say(slack.channel_id, user, text, thread_ts=thread)
    await until(lambda: [turn for turn in intake.turns if turn.id.endswith(ts)])
    return intake.last


async def know(platform: SlackPlatform, *people: str) -> None:
    """Let the process know people, as it does after it has read what they said."""
    await platform.workspace.directory.learn(people)


async def test_called_into_a_thread_it_reads_what_was_said_and_its_parent() -> None:
    intake = FakeQueue()
    async with SlackEmulator() as slack, hearing(slack, intake) as platform:
        ann, bob = slack.user("Ann"), slack.user("Bob")
        parent = await thread_of(slack, ann, bob, ann)
        await slack.say(slack.channel_id, bob, f"<@{ann}>: no!", thread_ts=parent, files=("a.pdf",))
        turn = await asked(slack, intake, ann, parent)
        await slack.say(slack.channel_id, bob, "Said later.", thread_ts=parent)
        await know(platform, bob)

        found = await platform.read_context(turn, since="", most=50)
        few = await platform.read_context(turn, since="", most=1)
        since = await platform.read_context(turn, since=found[1].id, most=50)

        prefix = f"slack:{slack.team_id}:{slack.channel_id}:"
        assert turn.quote == ContextMessage(prefix + parent, None, "")
        assert found[0] == ContextMessage(
            prefix + parent, Person(ann, "Ann", slack.team_id), "We deploy. When?"
        )
        assert texts(found)[1:] == [
            ("Bob", "On Friday?"),
            ("Ann", "On Monday."),
            ("Bob", "@Ann: no!\n[file: a.pdf]"),
        ]
        assert few == [found[0], found[-1]]
        assert since == found[2:]
        assert calls(slack, "conversations.replies") == 3
        assert calls(slack, "users.info") <= 2


async def test_where_a_talk_begins_nothing_is_read() -> None:
    intake = FakeQueue()
    async with SlackEmulator() as slack, hearing(slack, intake) as platform:
        ann = slack.user("Ann")
        dm = slack.dm(ann)
        await slack.say(dm, ann, "earlier")
        await slack.say(dm, ann, "in a DM")
        await slack.say(slack.channel_id, ann, f"{slack.bot_mention} in a channel")
        await until(lambda: len(intake.turns) == 3)

        for turn in intake.turns:
            assert turn.quote is None
            assert list(await platform.read_context(turn, since="", most=50)) == []
        assert calls(slack, "conversations.replies") == 0


async def test_a_thread_in_a_dm_begins_with_the_message_that_it_answers() -> None:
    intake = FakeQueue()
    async with SlackEmulator() as slack, hearing(slack, intake) as platform:
        ann = slack.user("Ann")
        dm = slack.dm(ann)
        await slack.say(dm, ann, "one")
        await until(lambda: intake.turns)
        async with platform.surface(intake.last) as surface:
            end = Page(0, "First & <last>.", final=True, last=True, attachments=(FILE,))
            posted = await surface.post(end)
        answer = posted.rpartition(":")[2]

        await slack.say(dm, ann, "two", thread_ts=answer)
        await until(lambda: len(intake.turns) == 2)
        found = await platform.read_context(intake.last, since="", most=50)

        assert texts(found) == [("the bot", "First & <last>.")]
        assert found[0].files == ()


async def test_other_apps_speak_by_their_name_and_joins_are_no_words() -> None:
    intake = FakeQueue()
    async with SlackEmulator() as slack, hearing(slack, intake) as platform:
        ann = slack.user("Ann")
        parent = await thread_of(slack, ann)
        slack.message_of_another(slack.channel_id, parent, "Build failed", metadata={})
        turn = await asked(slack, intake, ann, parent)

        found = await platform.read_context(turn, since="", most=50)

        assert [text for _, text in texts(found)] == ["We deploy. When?", "Build failed"]
        assert found[1].person


async def test_after_a_command_the_thread_is_read_from_its_question_on() -> None:
    intake = FakeQueue()
    async with SlackEmulator() as slack, hearing(slack, intake) as platform:
        ann, bob = slack.user("Ann"), slack.user("Bob")
        await slack.slash(slack.channel_id, ann, "/ask", "when?")
        parent = intake.last.key.thread
        command = intake.last
        await slack.say(slack.channel_id, bob, "On Friday?", thread_ts=parent)
        turn = await asked(slack, intake, ann, parent)
        await know(platform, bob)

        assert list(await platform.read_context(turn, since=command.id, most=0)) == []
        found = await platform.read_context(turn, since=command.id, most=50)

        assert texts(found) == [("Bob", "On Friday?")]
        assert calls(slack, "conversations.replies") == 1


async def test_nobody_waits_for_long_for_names_which_are_known_the_next_time() -> None:
    intake = FakeQueue()
    answered, limits = asyncio.Event(), replace(LIMITS, name_timeout=0.0)
    async with SlackEmulator() as slack, hearing(slack, intake, limits=limits) as platform:
        people = [slack.user(f"Person {n}") for n in range(30)]
        parent = await thread_of(slack, people[0])
        for person in people[1:]:
            await slack.say(slack.channel_id, person, "Me.", thread_ts=parent)
        turn = await asked(slack, intake, people[0], parent)
        before = len(slack.requests)
        slack.fail("users.info", "late", times=20, gate=answered)

        found = await platform.read_context(turn, since="", most=50)
        calls_before = [call.method for call in slack.requests[before:]]
        answered.set()
        await until(lambda: all(map(platform.workspace.directory.cached, people[10:])))
        later = await platform.read_context(turn, since="", most=50)

        # Requests for names may have begun, but nothing has waited for one.
        assert {*calls_before} - {"users.info", "conversations.info"} == {"conversations.replies"}
        assert calls_before.count("conversations.replies") == 1
        assert texts(found)[0] == ("Person 0", "We deploy. When?")
        assert texts(found)[1:] == [(person, "Me.") for person in people[1:]]
        assert texts(later)[9:11] == [(people[9], "Me."), ("Person 10", "Me.")]


class Shifted(Clock):
    """The time of edit budgets, which can be put forward."""

    ahead = 0.0

    def now(self) -> float:
        return super().now() + self.ahead

    def shared_now(self) -> int:
        return int(self.now() * 1000)


async def long_thread(slack: SlackEmulator, intake: FakeQueue) -> Turn:
    """Let somebody ask below twenty messages."""
    ann = slack.user("Ann")
    parent = await slack.say(slack.channel_id, ann, "0")
    for number in range(1, 20):
        await slack.say(slack.channel_id, ann, str(number), thread_ts=parent)
    return await asked(slack, intake, ann, parent)


async def test_an_app_outside_the_marketplace_reads_once_a_minute_and_says_what_it_lacks(
    store: Store,
) -> None:
    intake, clock = FakeQueue(), Shifted()
    budgets, of_another = (EditBudgets(store=store, clock=clock) for _ in range(2))
    async with (
        SlackEmulator(unlisted=True) as slack,
        hearing(slack, intake, budgets=budgets) as platform,
        joined(slack, budgets=of_another) as other,
    ):
        turn = await long_thread(slack, intake)

        with pytest.raises(PartlyRead) as partly:
            await platform.read_context(turn, since="", most=50)
        with pytest.raises(WriteDelayed, match="ratelimited"):
            await platform.read_context(turn, since="", most=50)
        for each in (platform, other):
            with pytest.raises(NoSlot):
                await each.read_context(turn, since="", most=50)
        clock.ahead += 60.0
        slack.clock.advance(60.0)
        with pytest.raises(PartlyRead):
            await platform.read_context(turn, since="", most=50)
        assert [text for _, text in texts(partly.value.found)] == [str(it) for it in range(15)]
        reads = [call for call in slack.requests if call.method == "conversations.replies"]
        assert [call.limited for call in reads] == [False, True, False]


async def test_a_missing_scope_is_named() -> None:
    intake = FakeQueue()
    scopes = SCOPES - {"channels:history"}
    async with SlackEmulator(scopes=scopes) as slack, hearing(slack, intake) as platform:
        ann = slack.user("Ann")
        turn = await asked(slack, intake, ann, await thread_of(slack, ann))

        with pytest.raises(PlaceGone, match="channels:history"):
            await platform.read_context(turn, since="", most=50)


async def read_of(platform: SlackPlatform, turn: Turn, most: int = 50) -> Earlier:
    read = platform.earlier(turn)
    assert read
    return await read(turn.asked_at, most)


def said_in(found: Earlier) -> list[str]:
    return [one.text for _, one in found.messages]


async def test_earlier_messages_of_a_thread_are_read_page_by_page() -> None:
    intake = FakeQueue()
    async with SlackEmulator() as slack, hearing(slack, intake) as platform:
        await slack.say(slack.channel_id, slack.user("Bob"), "In the channel.")
        turn = await long_thread(slack, intake)
        await slack.say(slack.channel_id, slack.user("Bob"), "Later.", thread_ts=turn.key.thread)
        read = platform.earlier(turn)
        assert read

        first = await read(turn.asked_at, 15)
        second = await read(first.unread_before, 15)

        assert said_in(first) == [str(number) for number in range(5, 20)]
        assert said_in(second) == [str(number) for number in range(5)]
        assert (second.unread_before, first.has_gap) == (0.0, False)
        assert first.messages[0][0] == first.unread_before
        assert calls(slack, "conversations.replies") == 2


async def test_earlier_messages_of_a_channel_are_read_page_by_page() -> None:
    intake = FakeQueue()
    async with SlackEmulator() as slack, hearing(slack, intake) as platform:
        ann = slack.user("Ann")
        for number in range(5):
            ts = await slack.say(slack.channel_id, ann, str(number))
        await slack.say(slack.channel_id, ann, "In a thread.", thread_ts=ts)
        await slack.say(slack.channel_id, ann, f"{slack.bot_mention} and?")
        await until(lambda: intake.turns)
        await slack.say(slack.channel_id, ann, "Later.")
        read = platform.earlier(intake.last)
        assert read

        first = await read(intake.last.asked_at, 3)
        second = await read(first.unread_before, 3)

        assert [said_in(first), said_in(second)] == [["2", "3", "4"], ["0", "1"]]
        assert second.unread_before == 0.0
        assert calls(slack, "conversations.history") == 2


async def test_no_earlier_messages_are_read_in_a_dm() -> None:
    intake = FakeQueue()
    async with SlackEmulator() as slack, hearing(slack, intake) as platform:
        ann = slack.user("Ann")
        await slack.say(slack.dm(ann), ann, "why?")
        await until(lambda: intake.turns)

        assert platform.earlier(intake.last) is None


async def test_of_a_long_thread_an_app_outside_the_marketplace_reads_the_beginning(
    store: Store,
) -> None:
    intake, budgets = FakeQueue(), EditBudgets(store=store, clock=Shifted())
    async with (
        SlackEmulator(unlisted=True) as slack,
        hearing(slack, intake, budgets=budgets) as platform,
    ):
        turn = await long_thread(slack, intake)

        found = await read_of(platform, turn)
        with pytest.raises(WriteDelayed):
            await read_of(platform, turn)

        assert said_in(found) == [str(number) for number in range(15)]
        assert found.has_gap
