"""The emulated Discord takes only so much, and goes wrong when it is told to."""

from __future__ import annotations

import math
import time

import pytest

from tests.emulators.discord import DiscordEmulator
from tests.support.discord_http import http_of, sent, slashed

ONE = (1, 5.0)  # a bucket that one call empties

# How the bot calls what has a bucket: its name, and the call behind the channel.
LIMITED = [
    ("create", "POST", "messages", {"content": "x"}),
    ("edit", "PATCH", "messages/1", {"content": "x"}),
    ("delete", "DELETE", "messages/1", None),
    ("listing", "GET", "messages", None),
    ("typing", "POST", "typing", None),
    ("thread", "POST", "messages/1/threads", {"name": "x"}),
    ("channel", "PATCH", "", {"archived": False}),
]


@pytest.mark.parametrize(("bucket", "method", "call", "body"), LIMITED)
async def test_each_channel_has_a_bucket_for_each_kind_of_call(
    bucket: str, method: str, call: str, body: dict[str, object] | None
) -> None:
    async with DiscordEmulator() as emulator, http_of(emulator) as http:
        setattr(emulator.limits, bucket, ONE)
        here = f"channels/{emulator.channel_id}/{call}".rstrip("/")
        elsewhere = f"channels/{emulator.channel('other')}/{call}".rstrip("/")
        answers = [await http.request(method, path, json=body) for path in (here, here, elsewhere)]

    assert [one.status == 429 for one in answers] == [False, True, False]
    assert {one.headers["X-RateLimit-Bucket"] for one in answers} == {bucket}


async def test_a_full_bucket_says_when_it_opens_again() -> None:
    async with DiscordEmulator() as emulator, http_of(emulator) as http:
        emulator.limits.create = (2, 60.5)
        path = f"channels/{emulator.channel_id}/messages"
        taken = [await http.post(path, json={"content": "x"}) for _ in range(2)]
        late = await http.post(path, json={"content": "x"})
        error = await late.json()
        emulator.clock.advance(error["retry_after"])
        after = await http.post(path, json={"content": "x"})

    assert [one.headers["X-RateLimit-Remaining"] for one in taken] == ["1", "0"]
    assert late.status == 429
    assert error["message"] == "You are being rate limited."
    assert (error["global"], late.headers["X-RateLimit-Scope"]) == (False, "user")
    assert 50 < error["retry_after"] == float(late.headers["X-RateLimit-Reset-After"]) <= 60.5
    assert int(late.headers["Retry-After"]) == math.ceil(error["retry_after"])
    assert float(late.headers["X-RateLimit-Reset"]) == pytest.approx(time.time() + 60, abs=10)
    assert late.headers["Via"]
    assert after.status == 200
    assert [call.limited for call in emulator.requests] == [False, False, True, False]


async def test_edits_of_old_messages_have_a_quota_that_no_header_tells() -> None:
    async with DiscordEmulator() as emulator, http_of(emulator) as http:
        emulator.limits.old_edits = (1, 60.0)
        path = f"channels/{emulator.channel_id}/messages"
        await http.post(path, json={"content": "old"})
        emulator.clock.advance(3601)
        await http.post(path, json={"content": "young"})
        old, young = [f"{path}/{one.id}" for one in emulator.screen(emulator.channel_id)]
        edits = [await http.patch(old, json={"content": text}) for text in ("older", "oldest")]
        error = await edits[-1].json()
        other = await http.patch(young, json={"content": "younger"})
        emulator.clock.advance(60)
        after = await http.patch(old, json={"content": "oldest"})

    assert [one.status for one in edits] == [200, 429]
    assert (error["code"], error["global"]) == (30046, False)
    assert 50 < error["retry_after"] <= 60
    assert int(edits[-1].headers["Retry-After"]) == math.ceil(error["retry_after"])
    assert int(edits[-1].headers["X-RateLimit-Remaining"]) > 0
    assert (other.status, after.status) == (200, 200)


async def test_all_calls_of_a_bot_but_for_interactions_have_one_limit_beside() -> None:
    async with DiscordEmulator() as emulator, http_of(emulator) as http:
        callback, hook = await slashed(emulator, http)
        await sent(http, callback, {"type": 5})
        emulator.clock.advance(1)
        emulator.limits.everything = (2, 60.0)
        answers = [await http.get("users/@me") for _ in range(3)]
        error = await answers[-1].json()
        edited = await http.patch(f"{hook}/messages/@original", json={"content": "x"})
        emulator.clock.advance(60)
        after = await http.get("users/@me")

    late = answers[-1]
    assert [one.status for one in answers] == [200, 200, 429]
    assert error["global"] is True
    assert late.headers["X-RateLimit-Global"] == "true"
    assert late.headers["X-RateLimit-Scope"] == "global"
    assert int(late.headers["Retry-After"]) == math.ceil(error["retry_after"])
    assert (edited.status, after.status) == (200, 200)


@pytest.mark.parametrize("via", [True, False])
async def test_a_429_on_request_looks_like_discords_or_like_cloudflares(*, via: bool) -> None:
    async with DiscordEmulator() as emulator, http_of(emulator) as http:
        emulator.fail("GET /users/@me", status=429, retry_after=6.5, via=via)
        late = await http.get("users/@me")
        error = await late.json()

    assert error["retry_after"] == 6.5
    assert (late.headers["Retry-After"], late.headers["X-RateLimit-Scope"]) == ("7", "user")
    assert ("Via" in late.headers) is via
