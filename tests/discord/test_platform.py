"""The login and the connection to Discord, and how their failures are told."""

from __future__ import annotations

import asyncio
import logging
import math
import socket

import pytest

from adapters.discord.platform import DiscordPlatform, connect
from adapters.discord.settings import DiscordSettings
from adapters.discord.tuning import Tuning
from bot.concurrency import Backoff
from bot.domain import FileRef
from bot.errors import CannotStart
from tests.emulators.discord import DiscordEmulator, GatewayRules
from tests.support.discord_platform import heard, listening, logged_in
from tests.support.fakes import EmptyStore, FakeQueue, NoLimits
from tests.support.waiting import until


async def test_a_refused_token_is_told_by_the_name_of_its_setting() -> None:
    async with DiscordEmulator() as emulator:
        own = DiscordSettings(token="wrong", api_url=emulator.api_url)
        with pytest.raises(CannotStart, match="DISCORD_TOKEN"):
            async with connect(own, budgets=NoLimits()):
                pass


async def test_an_unreachable_discord_is_told_by_its_address() -> None:
    address = "http://127.0.0.1:1/api/v10"

    with pytest.raises(CannotStart, match=address):
        async with connect(DiscordSettings(token="any", api_url=address), budgets=NoLimits()):
            pass


async def test_a_token_that_is_withdrawn_ends_the_listening() -> None:
    async with DiscordEmulator() as emulator, logged_in(emulator) as platform:
        emulator.fail("GET /users/@me", status=401)

        with pytest.raises(CannotStart, match="DISCORD_TOKEN"):
            await platform.listener.listen(FakeQueue().intake, store=EmptyStore())


async def test_an_address_that_has_expired_early_is_asked_for_anew() -> None:
    async with DiscordEmulator() as emulator, logged_in(emulator) as platform:
        place, ann = emulator.channel("general"), emulator.user("Ann")
        said = await emulator.say(place, ann, "Look!", files=(("a.txt", b"in it"),))
        (file_id,) = emulator.file_ids(said)
        gone = f"{emulator.cdn.address()}/attachments/1/2/a.txt?ex=ffffffff&is=0&hm=0"
        where = {"channel": place, "signed": gone}
        file = FileRef(f"discord:{file_id}", f"discord:{said}", "a.txt", 5, where)

        assert b"".join([chunk async for chunk in platform.fetch_file(file)]) == b"in it"


async def test_a_gateway_that_refuses_us_is_told_in_a_sentence_at_each_try(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        address = f"ws://127.0.0.1:{taken.getsockname()[1]}"
        async with (
            DiscordEmulator() as emulator,
            logged_in(emulator, gateway_url=address) as platform,
        ):
            await warned_twice(platform, caplog)

    assert {record.levelno for record in warnings(caplog)} == {logging.WARNING}


async def test_a_login_that_is_cut_off_is_told_in_a_sentence_at_each_try(
    caplog: pytest.LogCaptureFixture,
) -> None:
    tuning = Tuning(client_pause=0.01)
    async with DiscordEmulator() as emulator, logged_in(emulator, tuning=tuning) as platform:
        emulator.fail("GET /users/@me", "drop", times=100)

        await warned_twice(platform, caplog)

    assert {record.levelno for record in warnings(caplog)} == {logging.WARNING}


def warnings(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    found = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert not any(record.exc_info for record in found)
    return found


async def warned_twice(platform: DiscordPlatform, caplog: pytest.LogCaptureFixture) -> None:
    task = asyncio.create_task(platform.listener.listen(FakeQueue().intake, store=EmptyStore()))
    try:
        await until(lambda: len(warnings(caplog)) > 1)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_discord_is_silent_until_a_session_has_begun_and_again_without_a_connection() -> None:
    async with DiscordEmulator() as emulator, logged_in(emulator) as platform:
        at_first = platform.listener.downtime()
        task = asyncio.create_task(platform.listener.listen(FakeQueue().intake, store=EmptyStore()))
        try:
            await until(lambda: platform.listener.downtime() == 0)
            emulator.refuse_connections()
            await emulator.disconnect()
            await until(lambda: 0 < platform.listener.downtime() < math.inf)
            emulator.accept_connections()
            await until(lambda: platform.listener.downtime() == 0)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        assert at_first == math.inf
        assert platform.listener.downtime() > 0


async def test_of_several_shards_one_that_is_not_connected_is_enough_to_be_silent() -> None:
    rules = GatewayRules(shards=2, max_concurrency=2)
    async with (
        DiscordEmulator(gateway=rules) as emulator,
        logged_in(emulator, shards=((0, 1), 2)) as platform,
    ):
        hearing = platform.listener.listen(FakeQueue().intake, store=EmptyStore())
        task = asyncio.create_task(hearing)
        try:
            await until(lambda: platform.listener.downtime() == 0)
            connected = len(emulator.listeners)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        assert connected == 2


async def test_the_command_is_registered_as_soon_as_discord_takes_it() -> None:
    tuning = Tuning(register_retry=Backoff(0.01, 0.01))
    async with DiscordEmulator() as emulator:
        emulator.fail("PUT .*/commands", status=503, times=2)

        async with listening(emulator, FakeQueue(), tuning=tuning):
            await until(
                lambda: (
                    [one.status for one in emulator.requests if one.path.endswith("/commands")]
                    == [503, 503, 200]
                )
            )


async def test_what_is_said_while_the_gateway_is_lost_is_heard() -> None:
    async with heard() as (emulator, intake, ada):
        dm = emulator.dm(ada)
        await emulator.say(dm, ada, "one")
        await until(lambda: intake.turns)

        await emulator.disconnect()
        await emulator.say(dm, ada, "two")
        await until(lambda: len(intake.turns) > 1)

        assert intake.texts == ["one", "two"]
        assert emulator.sessions == 1
