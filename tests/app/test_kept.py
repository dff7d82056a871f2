"""What the store keeps of what people say, and for how long: docs/privacy.md."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Sequence
from functools import partial
from itertools import chain

from prometheus_client import generate_latest

from bot.app.logging import MaskingFormatter
from bot.domain import Json
from bot.store import Store
from bot.turns.script import VERBS, source_of
from tests.emulators.discord import DiscordEmulator
from tests.emulators.model import ModelEmulator
from tests.emulators.slack import SlackEmulator
from tests.shipping.release import NEWEST
from tests.support.at_work import all_ended
from tests.support.process import (
    PROCESS_LEASE,
    ROOT,
    DiscordDm,
    DiscordMention,
    DiscordSlash,
    SlackDm,
    SlackMention,
    SlackSlash,
    Way,
    discord_variables,
    shows,
)
from tests.support.service import serving, serving_both
from tests.support.settings import settings_of
from tests.support.stored import Stored, stored
from tests.support.waiting import until
from tests.support.web_page import WRITES, page_of

QUESTION, ANSWER = "zebra", "walrus"
# A minute after the last time at which a reply may be corrected.
LAST_WORDS_MS = 60_000 + 3 * 1000 * PROCESS_LEASE


def is_shown(way: Way, text: str) -> bool:
    return text in way.finals()


async def with_words(store: Store, *words: str) -> list[Stored]:
    return [one for one in await stored(store) if any(word in one for word in words)]


async def let_expire(store: Store, found: Sequence[Stored]) -> None:
    """Do what the store does when the time of these keys is over."""
    for one in found:
        assert 0 <= one.expires_ms <= LAST_WORDS_MS, one
        await store.command("DEL", store.key("") + one.name)


async def test_without_a_history_no_word_outlives_its_turn(
    own_store: Store, model: ModelEmulator
) -> None:
    model.answer = ANSWER
    async with serving_both(own_store, model, HISTORY_DAYS="0", THREAD_CONTEXT="0") as (
        discord,
        slack,
        service,
    ):
        ways: list[Way] = [
            *(way(discord) for way in (DiscordMention, DiscordDm, DiscordSlash)),
            *(way(slack) for way in (SlackMention, SlackDm, SlackSlash)),
        ]
        for way in ways:
            await way.ask(f"{QUESTION} one")
        await until(lambda: all(shows(way, ANSWER) for way in ways), why=service.text)
        await all_ended(own_store)
        for way in ways:
            await way.ask(f"{QUESTION} two")
        await until(lambda: all(shows(way, ANSWER, ANSWER) for way in ways), why=service.text)
        await all_ended(own_store)

        await let_expire(own_store, await with_words(own_store, QUESTION, ANSWER))

        assert await with_words(own_store, QUESTION, ANSWER, "Ann") == []
        assert not any(way.buttons() for way in ways)
        for request in model.requests:
            assert [one["role"] for one in request.messages] == ["system", "user"]

        # The ids are still known: a question that is delivered once more is not answered again.
        for way in (ways[0], ways[3]):
            await way.redeliver()
            await way.ask("three")
        await until(lambda: all(len(ways[at].finals()) == 3 for at in (0, 3)), why=service.text)
        await all_ended(own_store)
        assert len(model.requests) == 2 * len(ways) + 2


async def test_in_a_server_without_a_history_no_word_outlives_its_turn(
    own_store: Store, model: ModelEmulator
) -> None:
    model.answer, days = ANSWER, f"{SlackEmulator.team_id}=0"
    async with serving_both(own_store, model, SERVER_HISTORY_DAYS=days) as (
        discord,
        slack,
        service,
    ):
        ways: list[Way] = [SlackMention(slack), SlackDm(slack)]
        elsewhere = DiscordMention(discord)
        for answers, word in enumerate(("one", "two"), start=1):
            for way in ways:
                await way.ask(f"{QUESTION} {word}")
            shown = partial(all_show, ways, *[ANSWER] * answers)
            await until(shown, why=service.text)
            await all_ended(own_store)
        await elsewhere.ask("lion")
        await until(lambda: shows(elsewhere, ANSWER), why=service.text)
        await all_ended(own_store)

        await let_expire(own_store, await with_words(own_store, QUESTION))

    assert not any(way.buttons() for way in ways)
    assert elsewhere.buttons()
    assert [one.name.partition(":")[0] for one in await with_words(own_store, ANSWER)] == ["turn"]


def all_show(ways: Iterable[Way], *answers: str) -> bool:
    return all(shows(way, *answers) for way in ways)


async def test_without_a_history_the_page_shows_an_answer_and_keeps_nothing(
    own_store: Store, model: ModelEmulator
) -> None:
    model.answer, talk = ANSWER, "talk-0001"
    async with page_of(own_store, model, HISTORY_DAYS="0") as (browser, service):
        async with browser.page(talk) as screen:
            for _ in range(2):
                name = await browser.ask(talk, QUESTION)
                await until(partial(screen.is_done, name), why=service.text)
                assert (screen.answer(name), screen.turn(name)["end"]) == (ANSWER, "older")
        await browser.send("PATCH", f"/api/conversations/{talk}", {"title": QUESTION})
        await all_ended(own_store)

        await let_expire(own_store, await with_words(own_store, QUESTION, ANSWER))

        assert await with_words(own_store, QUESTION, ANSWER) == []
        assert (await browser.get("/api/conversations"))[1] == []
    assert all(len(request.messages) == 2 for request in model.requests)


async def test_without_a_history_what_was_remembered_before_is_dropped(
    own_store: Store, model: ModelEmulator
) -> None:
    async with DiscordEmulator() as discord:
        way, variables = DiscordDm(discord), discord_variables(discord, model)
        for days, word in (("30", QUESTION), ("0", "two")):
            variables["HISTORY_DAYS"] = days
            async with serving(own_store, variables=variables) as service:
                await until(discord.connected.is_set, why=service.text)
                await way.ask(word)
                await all_ended(own_store)
                await until(partial(is_shown, way, f"You said: {word}"), why=service.text)
                await all_ended(own_store)

    assert [one for one in await stored(own_store) if one.name.startswith("history:")] == []
    assert QUESTION not in str(model.requests[-1].messages)


def kinds(names: Iterable[str]) -> set[str]:
    """Return the kinds of keys, as docs/privacy.md names them."""
    parts = [name.split(":") for name in names]
    return {":".join(one[:2] if one[0] == "web" else one[:1]) for one in parts}


def told() -> list[str]:
    """Return the kinds of keys that docs/privacy.md tells of, each as often as it does."""
    text = (ROOT / "docs" / "privacy.md").read_text(encoding="utf-8")
    _, _, rows = text.partition("| key |")
    first = [line.split("|")[1] for line in rows.partition("\n\n")[0].splitlines()[2:]]
    return [word for cell in first for word in re.findall(r"`(.+?)`", cell)]


def test_the_privacy_page_tells_once_of_every_key_that_the_code_names() -> None:
    code = [file for room in ("bot", "adapters") for file in (ROOT / room).rglob("*.py")]
    # `requests` and `replicated` are channels, and `check` lives for a second.
    named = re.findall(r"\.key\(\"(\w+)\"", "".join(it.read_text(encoding="utf-8") for it in code))

    assert {*named} - {"check", "replicated", "requests"} <= {*told()}
    assert sorted(told()) == sorted({*told()})


async def test_the_privacy_page_tells_of_every_key(own_store: Store, model: ModelEmulator) -> None:
    model.answer = ANSWER
    async with (
        serving_both(own_store, model) as (discord, slack, service),
        page_of(own_store, model) as (browser, _),
    ):
        ways: list[Way] = [DiscordMention(discord), SlackDm(slack)]
        for way in ways:
            await way.ask(QUESTION)
        ben = discord.user("Ben")
        await discord.say(discord.dm(ben), ben, "Look!", files=(("a.txt", QUESTION.encode()),))
        await browser.ask("talk-0001", QUESTION)
        upload = f"{browser.address}/api/files/{'a' * 32}"
        async with browser.session.put(upload, data=QUESTION, headers=WRITES) as response:
            assert response.status == 201
        await until(lambda: all(shows(way, ANSWER) for way in ways), why=service.text)
        await all_ended(own_store)
        found = await stored(own_store)
    released = json.loads(NEWEST.read_text(encoding="utf-8"))
    queue = "".join(map(source_of, chain(*VERBS.values())))
    renamed = dict(re.findall(r"^  (\w+) = '(\w+)',$", queue, re.M))
    # `requests` is a channel: what is published there is not kept.
    named = {renamed.get(kind, kind) for kind in re.findall(r"key\('(\w+)'", queue)} - {"requests"}

    assert kinds(one.name for one in found) <= {*told()}
    assert kinds(one["name"] for one in released) | named <= {*told()}
    assert "files" in kinds(one.name for one in found)
    texts = [one for one in found if QUESTION in one or ANSWER in one]
    assert kinds(one.name for one in texts) == {"turn", "live", "upload", "web:titles"}
    forever = kinds(one.name for one in found if one.expires_ms < 0)
    assert forever == {"format", "servers", "web:secret"}


async def test_no_log_line_and_no_metric_holds_a_word_of_anybody(
    own_store: Store, model: ModelEmulator
) -> None:
    model.answer = ANSWER
    root = logging.getLogger("bot"), logging.getLogger("adapters")
    async with serving_both(own_store, model) as (discord, slack, service):
        for each in root:
            each.setLevel(logging.DEBUG)
        try:
            for way in (
                DiscordMention(discord),
                DiscordSlash(discord),
                SlackMention(slack),
                SlackDm(slack),
                SlackSlash(slack),
            ):
                await way.ask(QUESTION)
                await until(partial(is_shown, way, ANSWER), why=service.text)
            # What a server says of a request may quote it.
            model.fail("POST /v1/chat/completions", status=422, body={"error": QUESTION})
            failing = DiscordDm(discord)
            await failing.ask(QUESTION)
            await until(lambda: failing.finals(), why=service.text)
            refusal: Json = {"code": 50035, "message": "Invalid Form Body"}
            discord.fail("POST /channels/[0-9]+/messages", status=400, body=refusal)
            refused = DiscordDm(discord)
            await refused.ask(QUESTION)
            # It stays silent: nobody calls the bot.
            ben = discord.user("Ben")
            silent = await discord.say(discord.channel_id, ben, f"{QUESTION} {ANSWER}")
            await until(lambda: f" {silent} " in service.text(), why=service.text)
            await until(lambda: service.text().count("ended: platform=") == 7, why=service.text)
        finally:
            for each in root:
                each.setLevel(logging.NOTSET)
    lines = [*map(MaskingFormatter(settings_of()).format, service.records)]

    assert sum("ended: platform=" in line for line in lines) == 7
    for word in (QUESTION, ANSWER):
        assert [line for line in lines if word in line] == []
        assert word not in generate_latest().decode()
