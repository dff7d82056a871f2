"""Forgetting on request: people on every platform, and an operator's ids."""

from __future__ import annotations

import io
from functools import partial

import pytest

from bot.app.forget import ELSEWHERE, forget, kinds_of
from bot.commands.handlers import AWAY, FORGET_QUESTION, FORGOTTEN
from bot.concurrency import running
from bot.domain import Person, Shown, ThreadKey, Turn
from bot.errors import CannotStart
from bot.store import Store
from tests.emulators.model import ModelEmulator
from tests.support.at_work import all_ended, make_queue, make_turn
from tests.support.process import (
    DiscordDm,
    DiscordMention,
    DiscordSlash,
    InDiscord,
    InSlack,
    SlackDm,
    SlackMention,
    SlackSlash,
)
from tests.support.service import make_settings, serving_both
from tests.support.stored import Stored, stored
from tests.support.waiting import until
from tests.turns.test_forgetting import next_of

QUESTION, ANSWER = "zebra", "walrus " * 40


async def with_traces(store: Store, *traces: str) -> list[Stored]:
    return [one for one in await stored(store) if any(word in one for word in traces)]


async def forget_in_discord(way: InDiscord) -> None:
    discord = way.discord

    def told(interaction: str) -> str:
        answer = discord.original(interaction)
        return answer.text if answer else ""

    async def forgets() -> bool:
        asked = await discord.slash(discord.channel_id, way.person, "parley forget-me")
        await until(partial(told, asked))
        question = discord.original(asked)
        assert question
        assert question.text == FORGET_QUESTION
        pressed = await discord.click(question.id, way.person, *question.buttons)
        await until(lambda: told(pressed) in (AWAY, FORGOTTEN))
        return told(pressed) == FORGOTTEN

    # Where the machine stands still, the store answers too late.
    while not await forgets():
        pass


async def forget_in_slack(way: InSlack) -> None:
    slack = way.slack
    await slack.slash(slack.channel_id, way.person, "/parley", "forget-me")

    def own() -> list[str]:
        return [one.text for one in slack.ephemerals if one.user_id == way.person]

    await until(lambda: FORGET_QUESTION in own())
    (asked,) = [one for one in slack.ephemerals if one.user_id == way.person]
    await slack.press(asked, "forget_me")
    await until(lambda: FORGOTTEN in own())


async def test_forget_me_leaves_nothing_of_those_who_ask_for_it(
    own_store: Store, model: ModelEmulator
) -> None:
    model.answer = ANSWER
    async with serving_both(own_store, model) as (discord, slack, service):
        in_discord = [way(discord) for way in (DiscordMention, DiscordDm, DiscordSlash)]
        in_slack = [way(slack) for way in (SlackMention, SlackDm, SlackSlash)]
        ways = [*in_discord, *in_slack]
        for way in ways:
            await way.ask(f"{QUESTION} one")
        await until(lambda: all(len(way.finals()) == 1 for way in ways), why=service.text)
        await all_ended(own_store)
        # The second answer grows when its person asks to be forgotten.
        model.delay = 1.0
        for way in ways:
            await way.ask(f"{QUESTION} two")
        await until(lambda: all(len(way.finals()) == 2 for way in ways), why=service.text)
        people = [way.person for way in ways]
        assert await with_traces(own_store, QUESTION)

        for one in in_discord:
            await forget_in_discord(one)
        for other in in_slack:
            await forget_in_slack(other)

        assert await with_traces(own_store, QUESTION, "walrus", "Ann", "Ben", *people) == []
        assert service.errors() == []
        model.delay = 0.0
        for way in ways:
            await way.ask("lion")
        await until(lambda: service.text().count("ended: platform=") == 3 * len(ways))
        # A thread that Discord still calls by the first question is named in the system prompt.
        later = [str(each) for it in model.requests[-len(ways) :] for each in it.messages[1:]]
        assert len(later) == len(ways)
        assert not [each for each in later if QUESTION in each]


@pytest.mark.parametrize(
    ("written", "kinds"),
    [
        ("123456789012345678", [("person", "discord"), ("server", "discord")]),
        ("U0123ABCD", [("person", "slack")]),
        ("T0123ABCD", [("server", "slack")]),
        ("0123456789abcdef0123456789abcdef", [("person", "web")]),
        ("ann", [("person", "console")]),
    ],
)
def test_an_id_tells_whose_it_is(written: str, kinds: list[tuple[str, str]]) -> None:
    assert kinds_of(written) == kinds


@pytest.mark.parametrize("written", ["", "U0", "T1", "12345", "C0123ABCD", "u0123abcd", "@ann"])
async def test_what_looks_like_an_id_and_is_none_is_refused(own_store: Store, written: str) -> None:
    output = io.StringIO()

    with pytest.raises(CannotStart, match=f"'{written}' is no id"):
        await forget(make_settings(own_store, {}), written, output)

    assert output.getvalue() == ""


async def test_an_id_that_nobody_has_reads_otherwise_than_one_that_is_forgotten(
    own_store: Store,
) -> None:
    queue = make_queue(own_store)
    key = ThreadKey("slack", "T0123ABCD", "C1", "t1")
    await queue.admit(make_turn(1, key=key, person=Person("U0123ABCD", "Ann")))
    output, settings = io.StringIO(), make_settings(own_store, {})

    with pytest.raises(CannotStart, match=r"nothing of U0123ABCE \(a person of slack\)"):
        await forget(settings, "U0123ABCE", output)
    await forget(settings, "<@U0123ABCD|ann> ", output)
    with pytest.raises(CannotStart, match="nothing of U0123ABCD"):
        await forget(settings, "U0123ABCD", output)

    assert output.getvalue() == (
        "Of this person the store had 1 question in 1 conversation, and other entries: of 1, "
        "speakers 1, spent 1.\n"
        f"Nothing of U0123ABCD (a person of slack) is left in the store. {ELSEWHERE}\n"
    )


async def test_an_id_of_discord_is_a_persons_alone_if_no_server_has_it(own_store: Store) -> None:
    ann = Person("123456789012345678", "Ann")
    key = ThreadKey("discord", "g1", "c1", "t1")
    await make_queue(own_store).admit(make_turn(1, key=key, person=ann))
    output = io.StringIO()

    await forget(make_settings(own_store, {}), ann.id, output)

    assert "Of this person the store had 1 question in 1 conversation" in output.getvalue()
    assert "of 1," in output.getvalue()
    assert "Of this server" not in output.getvalue()


@pytest.mark.parametrize(
    "written",
    ["*", "?", "[a-z]*", "%", "%3A", "a:b", "person:discord:u1", "", "\n", "\udce9", "ann\x1b[2J"],
)
async def test_an_id_that_nobody_has_takes_nothing_from_others(
    own_store: Store, written: str
) -> None:
    queue = make_queue(own_store)
    for number, platform in enumerate(("console", "discord", "web")):
        key = ThreadKey(platform, "g1", "c1", "t1")
        await queue.admit(make_turn(number, key=key, person=Person("ann", "Ann")))
    before = await stored(own_store)

    with pytest.raises(CannotStart) as caught:
        await forget(make_settings(own_store, {}), written, io.StringIO())

    def of_people(found: list[Stored]) -> list[tuple[str, object]]:
        return [
            (one.name, one.value)
            for one in found
            if not one.name.startswith(("format", "spent:salt", "forgotten:"))
        ]

    assert of_people(await stored(own_store)) == of_people(before)
    assert str(caught.value).isprintable()


async def test_an_operator_reads_that_a_reply_has_to_end_first(own_store: Store) -> None:
    queue, output = make_queue(own_store), io.StringIO()
    key = ThreadKey("discord", "g1", "c1", "t1")
    ann = Person("123456789012345678", "Ann")
    await queue.admit(Turn("discord:1", key, ann, QUESTION, {}, 1000.0))
    taken = await next_of(queue)

    forgetting = forget(make_settings(own_store, {}), ann.id, output, patience=0.0)
    async with running(forgetting) as task:
        await until(lambda: "must end first" in output.getvalue())
        stopped = Shown(("m1",), "walrus", "walrus", outcome="stopped")
        await queue.leases.finish(taken, stopped, None)
        await task

    assert output.getvalue().endswith(
        f"Nothing of {ann.id} (a person or a server of discord) is left in the store. {ELSEWHERE}\n"
    )
    assert await with_traces(own_store, ann.id, "walrus", QUESTION) == []
