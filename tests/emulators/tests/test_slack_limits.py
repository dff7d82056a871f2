"""How often the Slack emulator lets a bot call, by the clock that a test puts forward."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from slack_sdk.errors import SlackApiError

from tests.emulators.slack import Rate, SlackEmulator
from tests.emulators.slack.app import App
from tests.emulators.slack.limits import Limits
from tests.emulators.slack.payload import Payload
from tests.emulators.slack.workspace import Workspace
from tests.support.slack_app import StillClock, post, writer

Calls = Sequence[Payload]
HERE: Payload = {"channel": "C1"}


def taken(method: str, calls: Calls, *, unlisted: bool = False) -> int:
    """Return how many of these calls Slack takes at once, before it refuses one."""
    limits, workspace = Limits(StillClock(), {}, unlisted=unlisted), App(()).install("Acme")
    waits = [limits.wait(method, workspace, args) for args in calls]
    return next(number for number, wait in enumerate([*waits, 1]) if wait)


def test_posts_are_limited_for_a_channel_and_for_the_workspace() -> None:
    many: Calls = [{"channel": f"C{number}"} for number in range(301)]

    assert taken("chat.postMessage", [HERE] * 6) == 5
    assert taken("chat.postMessage", [HERE] * 5 + [{"channel": "C2"}]) == 6
    assert taken("chat.postMessage", many) == 300


@pytest.mark.parametrize("method", ["conversations.history", "conversations.replies"])
def test_an_app_sold_outside_of_the_marketplace_reads_once_a_minute(method: str) -> None:
    assert taken(method, [HERE] * 2, unlisted=True) == 1


def test_calls_come_back_as_the_minute_goes_by_in_each_workspace_alone() -> None:
    clock = StillClock()
    limits, workspace = Limits(clock, {}, unlisted=False), App(()).install("Acme")
    other = App(())
    other.install("Acme")
    umbrella = other.install("Umbrella")

    def takes(place: Workspace) -> bool:
        return not limits.wait("chat.startStream", place, HERE)

    assert [takes(workspace) for _ in range(21)] == [True] * 20 + [False]
    assert takes(umbrella)
    clock.advance(3)
    assert [takes(workspace) for _ in range(2)] == [True, False]


async def test_a_call_above_the_rate_gets_429_with_retry_after() -> None:
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
