"""The emulated Discord takes only so much, and goes wrong when it is told to."""

from __future__ import annotations

import asyncio
import contextlib
import io
import math
import time

import aiohttp
import discord
import pytest

from tests.emulators.discord import DiscordEmulator, Limits
from tests.support.discord_bot import ask_and_defer, bot_of, http_of, raises
from tests.support.waiting import at_least

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


async def test_the_library_waits_for_the_bucket() -> None:
    limits = Limits(edit=(2, 0.2))
    async with DiscordEmulator(limits=limits) as emulator, bot_of(emulator) as bot:
        begun = time.monotonic()
        message = await bot.place(emulator.channel_id).send("0")
        for number in range(1, 5):
            await message.edit(content=str(number))

    assert time.monotonic() - begun >= at_least(0.2)
    assert not any(call.limited for call in emulator.requests)
    assert emulator.states(str(message.id)) == ["0", "1", "2", "3", "4"]


async def test_an_interaction_has_a_bucket_of_its_own() -> None:
    async with (
        DiscordEmulator(limits=Limits(webhook=ONE)) as emulator,
        bot_of(emulator, listens=True) as bot,
        http_of(emulator) as http,
    ):
        first, second = [await ask_and_defer(emulator, bot) for _ in range(2)]
        paths = [f"webhooks/{emulator.application_id}/{one.token}" for one in (first, second)]
        answers = [
            await http.patch(f"{path}/messages/@original", json={"content": "x"})
            for path in (paths[0], paths[0], paths[1])
        ]

    assert [one.status for one in answers] == [200, 429, 200]


async def test_all_calls_of_a_bot_have_one_limit_beside() -> None:
    async with DiscordEmulator() as emulator, http_of(emulator) as http:
        emulator.limits.everything = (2, 60.0)
        answers = [await http.get("users/@me") for _ in range(3)]
        error = await answers[-1].json()
        emulator.clock.advance(60)
        after = await http.get("users/@me")

    late = answers[-1]
    assert [one.status for one in answers] == [200, 200, 429]
    assert error["global"] is True
    assert late.headers["X-RateLimit-Global"] == "true"
    assert late.headers["X-RateLimit-Scope"] == "global"
    assert int(late.headers["Retry-After"]) == math.ceil(error["retry_after"])
    assert after.status == 200


async def test_interactions_are_outside_the_limit_of_all_calls() -> None:
    async with (
        DiscordEmulator() as emulator,
        bot_of(emulator, listens=True) as bot,
        http_of(emulator) as http,
    ):
        interaction = await ask_and_defer(emulator, bot)
        emulator.limits.everything = (0, 60.0)
        path = f"webhooks/{emulator.application_id}/{interaction.token}/messages/@original"
        edited = await http.patch(path, json={"content": "x"})
        other = await http.get("users/@me")

    assert (edited.status, other.status) == (200, 429)


async def test_too_many_invalid_requests_are_banned_by_cloudflare() -> None:
    async with DiscordEmulator() as emulator, http_of(emulator) as http:
        emulator.limits.invalid = (2, 600.0)
        for _ in range(2):
            await http.get("users/@me", headers={"Authorization": "Bot wrong"})
        banned = await http.get("users/@me")
        text = await banned.text()
        emulator.clock.advance(emulator.limits.ban_seconds)
        after = await http.get("users/@me")

    assert (banned.status, text) == (429, "error code: 1015")
    assert "Via" not in banned.headers
    assert 3590 < int(banned.headers["Retry-After"]) <= 3600
    assert after.status == 200


async def test_invalid_requests_are_forgotten_in_time() -> None:
    async with DiscordEmulator() as emulator, http_of(emulator) as http:
        emulator.limits.invalid = (2, 600.0)
        for _ in range(3):
            await http.get("users/@me", headers={"Authorization": "Bot wrong"})
            emulator.clock.advance(601)
        right = await http.get("users/@me")

    assert right.status == 200


async def test_the_library_gives_up_when_it_is_banned() -> None:
    async with DiscordEmulator() as emulator, bot_of(emulator) as bot:
        emulator.limits.invalid = (1, 600.0)
        emulator.fail("POST .*/messages", status=403, body={"code": 50013})
        with raises(50013):
            await bot.place(emulator.channel_id).send("one")
        with pytest.raises(discord.HTTPException, match="1015"):
            await bot.place(emulator.channel_id).send("two")

    assert emulator.screen(emulator.channel_id) == []


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


async def test_a_request_may_be_only_so_large() -> None:
    async with DiscordEmulator() as emulator, http_of(emulator) as http:
        path = f"channels/{emulator.channel_id}/messages"
        large = await http.post(path, json={"content": "x" * 2000, "attachments": []})
        emulator.limits.body_bytes = 2000
        larger = await http.post(path, json={"content": "x" * 2000, "attachments": []})
        error = await larger.json()

    assert large.status == 200
    assert (larger.status, error["code"]) == (413, 40005)


async def test_a_request_of_two_mebibytes_is_not_too_large() -> None:
    async with DiscordEmulator() as emulator, http_of(emulator) as http:
        path = f"channels/{emulator.channel_id}/messages"
        body = io.BytesIO(b" " * 2**21 + b'{"content": "x"}')
        answer = await http.post(path, data=body, headers={"Content-Type": "application/json"})

    assert answer.status == 200


async def test_a_call_fails_as_often_as_it_is_told_to() -> None:
    async with DiscordEmulator() as emulator, bot_of(emulator) as bot:
        emulator.fail("POST .*/messages$", status=403, body={"code": 50013}, after=1)
        await bot.place(emulator.channel_id).send("one")
        with raises(50013):
            await bot.place(emulator.channel_id).send("two")
        await bot.place(emulator.channel_id).send("three")

    assert [one.text for one in emulator.screen(emulator.channel_id)] == ["one", "three"]
    assert [call.status for call in emulator.requests if call.method == "POST"] == [200, 403, 200]


async def test_a_call_fails_after_its_work_was_done() -> None:
    async with DiscordEmulator() as emulator, bot_of(emulator) as bot:
        emulator.fail("POST .*/messages$", "drop", applied=True)
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await bot.place(emulator.channel_id).send("one")

    assert [one.text for one in emulator.screen(emulator.channel_id)] == ["one"]
    assert emulator.requests[-1].status is None


async def test_a_call_hangs_until_the_caller_gives_up() -> None:
    async with DiscordEmulator() as emulator, bot_of(emulator) as bot:
        emulator.fail("POST .*/messages$", "hang")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(bot.place(emulator.channel_id).send("one"), 0.1)

        assert emulator.screen(emulator.channel_id) == []
        assert emulator.requests[-1].body["content"] == "one"


async def test_a_call_is_answered_late_and_rightly() -> None:
    async with DiscordEmulator() as emulator, http_of(emulator) as http:
        emulator.fail("GET /users/@me", "late", seconds=0.1)
        begun = time.monotonic()
        answer = await http.get("users/@me")

    assert answer.status == 200
    assert time.monotonic() - begun >= at_least(0.1)


async def test_calls_go_well_after_healing() -> None:
    async with DiscordEmulator() as emulator, http_of(emulator) as http:
        emulator.fail("GET /users/@me", times=100)
        ill = await http.get("users/@me")
        error = await ill.json()
        emulator.heal()
        well = await http.get("users/@me")

    assert (ill.status, well.status) == (500, 200)
    assert error == {"message": "500: Internal Server Error", "code": 0}


async def test_a_429_on_request_looks_like_discords() -> None:
    async with DiscordEmulator() as emulator, http_of(emulator) as http:
        emulator.fail("GET /users/@me", status=429, retry_after=6.5)
        late = await http.get("users/@me")
        error = await late.json()

    assert error["retry_after"] == 6.5
    assert (late.headers["Retry-After"], late.headers["X-RateLimit-Scope"]) == ("7", "user")


@pytest.mark.parametrize("via", [True, False])
async def test_the_library_believes_a_429_only_with_via(via: bool) -> None:
    async with DiscordEmulator() as emulator, bot_of(emulator) as bot:
        emulator.fail("POST .*/messages$", status=429, via=via)
        with contextlib.nullcontext() if via else raises(0):
            await bot.place(emulator.channel_id).send("one")

    tries = [call.limited for call in emulator.requests if call.method == "POST"]
    assert tries == ([True, False] if via else [True])


async def test_every_call_takes_the_latency() -> None:
    async with DiscordEmulator() as emulator, http_of(emulator) as http:
        emulator.latency = 0.1
        begun = time.monotonic()
        await http.get("users/@me")

    assert time.monotonic() - begun >= at_least(0.1)
