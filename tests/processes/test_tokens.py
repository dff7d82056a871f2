"""A token that is changed while answers grow: docs/operating.md, "To change a token"."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from bot.store import Store
from tests.emulators.discord import DiscordEmulator
from tests.emulators.model import ModelEmulator
from tests.emulators.slack import SlackEmulator
from tests.support.process import (
    ANSWER,
    DiscordDm,
    DiscordMention,
    DiscordSlash,
    SlackDm,
    SlackMention,
    Way,
    bot,
    discord_variables,
    remembered,
    remembered_in,
    shows,
    slack_variables,
    speak_slowly,
)
from tests.support.service import serving
from tests.support.waiting import until

FOREVER = 60.0  # seconds: an answer outlasts what the test does meanwhile


def in_file(variables: dict[str, str], name: str, folder: Path) -> tuple[dict[str, str], Path]:
    """Return the variables, of which one stands in a file, and that file."""
    file = folder / name.lower()
    rest = {one: text for one, text in variables.items() if one != name}
    file.write_text(f"{variables[name]}\n")
    return {**rest, f"{name}_FILE": str(file)}, file


async def test_a_reset_discord_token_loses_and_doubles_nothing(
    data_dir: Path, model: ModelEmulator
) -> None:
    async with DiscordEmulator() as discord:
        variables, token = in_file(discord_variables(discord, model), "DISCORD_TOKEN", data_dir)
        ways = [DiscordMention(discord), DiscordDm(discord), DiscordSlash(discord)]
        speak_slowly(model, seconds=FOREVER)
        async with bot(data_dir=data_dir, variables=variables) as first:
            await until(discord.connected.is_set, why=first.text)
            await all_begin(ways, first.text)
            await discord.reset_token()
            # The model's last word comes when nothing can be written any more.
            model.delay = 0
            # Each write is refused, and tried again.
            await until(lambda: [it.status for it in discord.requests].count(401) > 3)
            assert not any(shows(way, ANSWER) for way in ways[:2])
            first.kill()
        missed = DiscordMention(discord)
        await missed.ask("What is it?")
        token.write_text(discord.token)
        async with bot(data_dir=data_dir, variables=variables) as second:
            for way in (*ways, missed):
                await until(partial(shows, way, ANSWER), why=second.text)

    await nothing_is_doubled(data_dir, 4)


async def test_a_revoked_slack_token_loses_and_doubles_nothing(
    data_dir: Path, model: ModelEmulator
) -> None:
    async with SlackEmulator() as slack:
        variables, token = in_file(slack_variables(slack, model), "SLACK_BOT_TOKEN", data_dir)
        ways = [SlackMention(slack), SlackDm(slack)]
        speak_slowly(model, seconds=FOREVER)
        async with bot(data_dir=data_dir, variables=variables) as first:
            await until(slack.connected.is_set, why=first.text)
            await all_begin(ways, first.text)
            slack.revoke_bot_token()
            model.delay = 0
            await until(lambda: [it.error for it in slack.requests].count("invalid_auth") > 7)
            assert not any(shows(way, ANSWER) for way in ways)
            first.kill()
        slack.reinstall()
        token.write_text(slack.bot_token)
        async with bot(data_dir=data_dir, variables=variables) as second:
            for way in ways:
                await until(partial(shows, way, ANSWER), why=second.text)

    await nothing_is_doubled(data_dir, 2)


async def test_an_event_that_was_signed_with_a_secret_of_tomorrow_is_answered_once(
    own_store: Store, model: ModelEmulator
) -> None:
    # Slack repeats what was refused: at once, after a minute and after five (docs: "Events API").
    async with SlackEmulator() as slack:
        way = SlackMention(slack)

        async def serve() -> None:
            own = {"SLACK_APP_TOKEN": "", "SLACK_SIGNING_SECRET": slack.signing_secret}
            variables = slack_variables(slack, model) | own
            async with serving(own_store, variables=variables) as service:
                await slack.verify(f"{service.address}/slack/events")
                if not way.question:
                    slack.reset_signing_secret()
                    await way.ask("What is it?")
                    await until(lambda: 401 in [it.status for it in slack.deliveries])
                else:
                    for _ in range(2):
                        await way.redeliver()
                    await until(partial(shows, way, "You said: What is it?"), why=service.text)

        await serve()
        assert way.shown() == []
        await serve()

    assert len(await remembered(own_store)) == 1


async def test_a_password_of_redis_is_changed_while_an_answer_grows(
    own_store: Store, model: ModelEmulator
) -> None:
    async def change(*rules: str) -> None:
        await own_store.command("ACL", "SETUSER", "bot", *rules)

    def url(password: str) -> str:
        return own_store.url.replace("unix://", f"unix://bot:{password}@")

    await change("on", ">first", "~*", "&*", "+@all")
    async with SlackEmulator() as slack, AsyncExitStack() as stack:
        stack.push_async_callback(own_store.command, "ACL", "DELUSER", "bot")
        variables, way = slack_variables(slack, model), SlackDm(slack)
        speak_slowly(model, seconds=FOREVER)
        before = {**variables, "REDIS_URL": url("first")}
        async with serving(own_store, variables=before, drain_seconds=0.1) as service:
            await until(slack.connected.is_set, why=service.text)
            await all_begin([way], service.text)
            await change(">second")
        after = {**variables, "REDIS_URL": url("second")}
        async with serving(own_store, variables=after) as service:
            await change("<first")
            model.delay = 0
            await until(partial(shows, way, ANSWER), why=service.text)

        with pytest.raises(RedisConnectionError, match="password"):
            async with Redis.from_url(url("first")) as refused:
                await refused.ping()
    assert len(await remembered(own_store)) == 1


async def all_begin(ways: Sequence[Way], why: Callable[[], object]) -> None:
    for way in ways:
        await way.ask("What is it?")
    await until(
        lambda: all(way.finals() and way.finals()[0][:4] == ANSWER[:4] for way in ways), why=why
    )


async def nothing_is_doubled(data_dir: Path, questions: int) -> None:
    exchanges = await remembered_in(data_dir)
    assert [each.question for each in exchanges] == ["What is it?"] * questions
    assert {each.answer for each in exchanges} == {ANSWER}
