"""Who is addressed in the threads of Slack, over a real store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from bot.domain import Follow
from bot.store import Store
from tests.emulators.slack import SlackEmulator
from tests.emulators.slack.events import EVENTS
from tests.emulators.slack.methods import SCOPES
from tests.support.fakes import NotedIntake, RefusingStore
from tests.support.slack_platform import (
    Transport,
    both_transports,
    dm_event,
    hearing,
    joined,
    send,
    serving,
)
from tests.support.waiting import until


@dataclass
class Talk:
    """Ann, Bob and the bot; Ann has asked "one" in a channel, which began the thread."""

    slack: SlackEmulator
    intake: NotedIntake
    ann: str
    bob: str
    thread: str

    async def say(self, person: str, text: str, *, files: tuple[str, ...] = ()) -> str:
        """Write in the thread, and wait until the bot has acknowledged it."""
        slack = self.slack
        ts = await slack.say(slack.channel_id, person, text, thread_ts=self.thread, files=files)
        # A mention comes twice, but not beside a file.
        events = 2 if slack.bot_mention in text and not files else 1
        await until(lambda: sum(one.ts == ts for one in slack.deliveries) == events)
        return ts

    def answered(self, *texts: str) -> bool:
        return self.intake.texts == ["one", *texts]


@asynccontextmanager
async def talking(
    store: Store, *, follow: Follow = "auto", transport: Transport = "socket"
) -> AsyncIterator[Talk]:
    intake = NotedIntake(store, follow=follow)
    async with SlackEmulator() as slack, hearing(slack, intake, transport):
        ann, bob = slack.user("Ann"), slack.user("Bob")
        thread = await slack.say(slack.channel_id, ann, f"{slack.bot_mention} one")
        await until(lambda: intake.turns)
        yield Talk(slack, intake, ann, bob, thread)


@both_transports
async def test_a_thread_of_one_person_is_followed(store: Store, transport: Transport) -> None:
    async with talking(store, transport=transport) as talk:
        await talk.say(talk.ann, "two")

        assert talk.answered("two")
        one, two = talk.intake.turns
        assert two.key == one.key
        assert two.place["thread"] == talk.thread


@pytest.mark.parametrize("whom", ["<@U0BOB>", "<!here>", "<!subteam^S1|@helpers>"])
async def test_what_mentions_somebody_else_is_not_for_the_bot(store: Store, whom: str) -> None:
    async with talking(store, follow="all") as talk, joined(talk.slack) as platform:
        event = dm_event(talk.slack) | {"channel": talk.slack.channel_id, "channel_type": "channel"}
        event |= {"thread_ts": talk.thread, "user": talk.ann}

        async with serving(platform.handler(talk.intake)) as url:
            await send(talk.slack, url, event | {"text": f"look, {whom}"})
            await send(talk.slack, url, event | {"text": "<!date^1^x|now>", "ts": "1700000001.1"})

        assert talk.answered("now")


async def test_talk_at_the_top_level_costs_no_request_to_the_store(store: Store) -> None:
    async with talking(store) as talk:
        assert isinstance(store, RefusingStore)
        store.refused.add(store.key(""))

        ts = await talk.slack.say(talk.slack.channel_id, talk.bob, "lunch?")
        await until(lambda: any(one.ts == ts for one in talk.slack.deliveries))

        assert [one.status for one in talk.slack.deliveries if one.ts == ts] == [200]
        assert len([one for one in talk.intake.judged if not one.calls_bot]) == 0


async def test_a_thread_of_other_people_is_followed_once_the_bot_has_answered(store: Store) -> None:
    async with talking(store) as talk:
        talk.thread = await talk.slack.say(talk.slack.channel_id, talk.bob, "among people")
        await talk.say(talk.bob, "not for the bot")

        await talk.say(talk.bob, f"{talk.slack.bot_mention} two")
        await talk.say(talk.bob, "three")
        await talk.say(talk.ann, "hello")
        await talk.say(talk.bob, "hi")

        assert talk.answered("two", "three")


async def test_the_person_who_began_the_thread_counts(store: Store) -> None:
    async with talking(store) as talk:
        talk.thread = await talk.slack.say(talk.slack.channel_id, talk.bob, "2 + 2 = 5")

        await talk.say(talk.ann, f"{talk.slack.bot_mention} two")
        await talk.say(talk.ann, "Bob, look")

        assert talk.answered("two")


async def test_a_question_of_the_command_is_followed(store: Store) -> None:
    async with talking(store) as talk:
        await talk.slack.slash(talk.slack.channel_id, talk.ann, "/ask", "two")
        await until(lambda: len(talk.intake.turns) == 2)
        talk.thread = talk.intake.turns[1].key.thread

        await talk.say(talk.ann, "three")
        await talk.say(talk.bob, "hello")

        assert talk.answered("two", "three")


@pytest.mark.parametrize("subtype", ["thread_broadcast", "me_message", "file_share"])
async def test_a_message_of_another_kind_is_followed(store: Store, subtype: str) -> None:
    async with talking(store) as talk, joined(talk.slack) as platform:
        event = dm_event(talk.slack) | {"channel": talk.slack.channel_id, "channel_type": "channel"}
        event |= {"thread_ts": talk.thread, "user": talk.ann, "text": "two", "subtype": subtype}

        async with serving(platform.handler(talk.intake)) as url:
            await send(talk.slack, url, event)

        assert talk.answered("two")


async def test_a_mention_beside_a_file_is_a_question(store: Store) -> None:
    async with talking(store) as talk:
        await talk.say(talk.bob, f"{talk.slack.bot_mention} what is this?", files=("cat.png",))

        assert talk.answered("what is this?\n[file: cat.png]")


async def test_other_bots_do_not_count(store: Store) -> None:
    async with talking(store) as talk, joined(talk.slack) as platform:
        event = dm_event(talk.slack) | {"channel": talk.slack.channel_id, "channel_type": "channel"}
        event |= {"thread_ts": talk.thread, "user": talk.bob, "bot_id": "B0OTHER"}
        async with serving(platform.handler(talk.intake)) as url:
            await send(talk.slack, url, event)

        await talk.say(talk.ann, "two")

        assert talk.answered("two")


async def test_a_group_dm_wants_a_mention_and_its_threads_are_followed(store: Store) -> None:
    async with talking(store) as talk:
        slack = talk.slack
        group = slack.group_dm(talk.ann, talk.bob)
        ts = await slack.say(group, talk.ann, "lunch?")
        await until(lambda: any(one.ts == ts for one in slack.deliveries))
        root = await slack.say(group, talk.ann, f"{slack.bot_mention} two")
        await until(lambda: sum(one.ts == root for one in slack.deliveries) == 2)

        ts = await slack.say(group, talk.ann, "three", thread_ts=root)
        await until(lambda: any(one.ts == ts for one in slack.deliveries))

        assert talk.answered("two", "three")


async def test_an_app_that_hears_only_mentions_answers_them(store: Store) -> None:
    intake = NotedIntake(store)
    subscribed = EVENTS - {"message.channels"}
    async with SlackEmulator(subscribed=subscribed) as slack, hearing(slack, intake):
        ann, place = slack.user("Ann"), slack.channel_id
        root = await slack.say(place, ann, f"{slack.bot_mention} one")
        await until(lambda: intake.turns)
        await slack.say(place, ann, "unheard", thread_ts=root)

        await slack.say(place, ann, f"{slack.bot_mention} two", thread_ts=root)
        await until(lambda: len(intake.turns) == 2)

        assert intake.texts == ["one", "two"]


async def test_help_says_which_scopes_are_missing(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    scopes = SCOPES - {"channels:history"}
    async with SlackEmulator(scopes=scopes) as slack, hearing(slack, NotedIntake(store)):
        ts = await slack.say(slack.channel_id, slack.user("Ann"), slack.bot_mention)
        await until(lambda: len(slack.screen(slack.channel_id, ts)) == 2)

        assert "channels:history" in slack.screen(slack.channel_id, ts)[1].text
        assert "groups:history" not in slack.screen(slack.channel_id, ts)[1].text
        assert "channels:history" in caplog.text


async def test_without_the_store_talk_is_acknowledged_and_questions_come_again(
    store: Store,
) -> None:
    async with talking(store, transport="http") as talk:
        assert isinstance(store, RefusingStore)
        ours, slack = talk.thread, talk.slack
        await talk.say(talk.ann, "two")
        talk.thread = await slack.say(slack.channel_id, talk.bob, "among people")
        store.refused.add(store.key(""))

        talk_ts = await talk.say(talk.bob, "not for the bot")
        ts = await slack.say(slack.channel_id, talk.ann, "three", thread_ts=ours)
        await until(lambda: any(one.ts == ts for one in slack.deliveries))
        store.refused.clear()
        await slack.redeliver(ts)

        assert [one.status for one in slack.deliveries if one.ts == talk_ts] == [200]
        assert talk.answered("two", "three")


async def test_a_stop_ends_the_answer_of_who_says_it(store: Store) -> None:
    async with talking(store) as talk:
        await talk.say(talk.bob, "Stop.")
        ts = await talk.say(talk.ann, "Stop.")
        await talk.slack.redeliver(ts)
        await talk.say(talk.bob, f"{talk.slack.bot_mention} stop")

        stops = set(talk.intake.stopped)
        assert stops == {f"slack:{talk.slack.team_id}:{talk.slack.channel_id}:{ts}"}
        assert talk.answered("stop")


async def test_a_mention_with_stop_ends_the_answers_in_the_channel(store: Store) -> None:
    async with talking(store) as talk:
        slack = talk.slack

        await slack.say(slack.channel_id, talk.ann, f"{slack.bot_mention} stop")
        await until(lambda: talk.intake.stopped)
        await slack.say(slack.channel_id, talk.bob, f"{slack.bot_mention} stop")
        await until(lambda: len(talk.intake.turns) == 2)

        assert talk.answered("stop")
