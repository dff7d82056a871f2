"""How often the Slack emulator lets a bot call, by the clock that a test puts forward."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_client import AsyncWebClient

from tests.emulators.slack import Rate, SlackEmulator
from tests.emulators.slack.app import App
from tests.emulators.slack.limits import Limits
from tests.emulators.slack.payload import Payload
from tests.support.slack_app import QUIET, StillClock, post, refusal, talk, writer


async def test_updates_are_limited_for_the_whole_workspace() -> None:
    rate = Rate(calls=1, seconds=30.0, burst=2)
    async with SlackEmulator(rates={"chat.update": rate}) as slack, writer(slack) as client:
        places = [slack.channel_id, slack.channel("other")]
        posts = [(place, await post(client, place, "x")) for place in places]
        for place, ts in posts:
            await client.chat_update(channel=place, ts=ts, text="y")

        with pytest.raises(SlackApiError) as limited:
            await client.chat_update(channel=places[0], ts=posts[0][1], text="z")

        response = limited.value.response
        assert (response.status_code, response.data) == (429, {"ok": False, "error": "ratelimited"})
        assert 20 < int(response.headers["Retry-After"]) <= 30
        assert slack.states(*posts[0]) == ["x", "y"]
        assert [(call.status, call.limited) for call in slack.requests][-2:] == [
            (200, False),
            (429, True),
        ]


async def test_one_workspace_leaves_the_limits_of_another_alone() -> None:
    rates = {"auth.test": Rate(calls=1, seconds=60.0, burst=1)}
    async with SlackEmulator(rates=rates) as slack:
        other = slack.install("Umbrella")
        async with writer(slack) as first, writer(slack, other.bot_token) as second:
            await first.auth_test()

            assert await refusal(first, "auth.test", {}) == "ratelimited"
            assert (await second.auth_test())["ok"]


async def test_posts_are_limited_for_each_channel_and_the_bucket_fills_again() -> None:
    rates = {"chat.postMessage": Rate(calls=1, seconds=3600.0, burst=2)}
    async with SlackEmulator(rates=rates) as slack, writer(slack) as client:
        here = {"channel": slack.channel_id, "text": "x", **QUIET}
        there = {**here, "channel": slack.channel("other")}
        burst = [await answer(client, "chat.postMessage", here) for _ in range(3)]

        elsewhere = await answer(client, "chat.postMessage", there)
        slack.clock.advance(3600.0)
        later = [await answer(client, "chat.postMessage", here) for _ in range(2)]

        assert burst == ["ok", "ok", "ratelimited"]
        assert elsewhere == "ok"
        assert later == ["ok", "ratelimited"]


async def test_a_channel_takes_a_post_a_second_and_a_burst_of_five() -> None:
    async with SlackEmulator(clock=StillClock()) as slack, writer(slack) as client:
        args = {"channel": slack.channel_id, "text": "x", **QUIET}
        answers = [await answer(client, "chat.postMessage", args) for _ in range(6)]

        assert answers == ["ok"] * 5 + ["ratelimited"]


def test_a_workspace_takes_several_hundred_posts_a_minute() -> None:
    calls: list[Payload] = [{"channel": f"C{number}"} for number in range(301)]

    assert allowed("chat.postMessage", calls) == 300


@pytest.mark.parametrize(
    ("method", "calls"),
    [
        ("agents.sessions.setStatus", 50),
        ("assistant.threads.setStatus", 600),
        ("chat.appendStream", 100),
        ("chat.delete", 50),
        ("chat.postEphemeral", 100),
        ("chat.startStream", 20),
        ("chat.stopStream", 20),
        ("chat.update", 50),
        ("conversations.info", 50),
        ("conversations.replies", 50),
        ("users.info", 100),
    ],
)
def test_a_method_is_of_its_documented_tier(method: str, calls: int) -> None:
    assert allowed(method, [{}] * (calls + 1)) == calls


async def test_an_app_sold_outside_of_the_marketplace_reads_little_and_seldom() -> None:
    async with SlackEmulator(unlisted=True) as slack, writer(slack) as client:
        ann, place = slack.user("Ann"), slack.channel_id
        for number in range(20):
            await slack.say(place, ann, str(number))

        first = await slack.say(place, ann, "question")
        for number in range(20):
            await slack.say(place, ann, str(number), thread_ts=first)

        page = await client.conversations_history(channel=place, limit=100)
        thread = await client.conversations_replies(channel=place, ts=first, limit=100)
        again = await refusal(client, "conversations.history", {"channel": place})
        args = {"channel": place, "ts": first}
        assert await refusal(client, "conversations.replies", args) == "ratelimited"
        slack.clock.advance(60.0)
        later = await client.conversations_history(channel=place)

        assert (len(page["messages"]), page["has_more"]) == (15, True)
        assert (len(thread["messages"]), thread["has_more"]) == (15, True)
        assert again == "ratelimited"
        assert len(later["messages"]) == 15


async def test_a_call_comes_back_as_its_minute_goes_by() -> None:
    async with talk(SlackEmulator(clock=StillClock())) as t:
        starts = [await t.call("chat.startStream", **t.place) for _ in range(21)]
        t.slack.clock.advance(3)
        later = [await t.call("chat.startStream", **t.place) for _ in range(2)]

        assert [start["ok"] for start in starts] == [True] * 20 + [False]
        assert [start["ok"] for start in later] == [True, False]


async def answer(client: AsyncWebClient, method: str, args: Payload) -> str:
    """Call a method and return its error, or "ok"."""
    try:
        await client.api_call(method, json=args)
    except SlackApiError as error:
        return str(error.response["error"])
    return "ok"


def allowed(method: str, calls: Sequence[Payload]) -> int:
    """Return how many of these calls Slack takes at once, before it refuses one."""
    clock = StillClock()
    limits, workspace = Limits(clock, {}, unlisted=False), App(clock).install("Acme")
    waits = [limits.wait(method, workspace, args) for args in calls]
    return next(number for number, wait in enumerate(waits) if wait)


async def test_less_may_be_true_than_is_documented() -> None:
    clock = StillClock()
    async with SlackEmulator(clock=clock, share=0.04) as slack, writer(slack) as client:
        ann = slack.user("Ann")
        for _ in range(4):
            await client.users_info(user=ann)
        assert await refusal(client, "users.info", {"user": ann}) == "ratelimited"

        clock.advance(15)
        await client.users_info(user=ann)
        assert await refusal(client, "users.info", {"user": ann}) == "ratelimited"
