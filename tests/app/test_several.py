"""Several people ask in one thread at once, on both platforms."""

from __future__ import annotations

import pytest

from bot.store import Store
from tests.emulators.model import ModelEmulator
from tests.support.process import (
    DiscordMention,
    InSlack,
    SlackMention,
    offers_another,
    remembered,
    shows,
)
from tests.support.rooms import Room, last_word, until_open
from tests.support.service import serving_both
from tests.support.waiting import until

KINDS = pytest.mark.parametrize("kind", [DiscordMention, SlackMention])


def references(way: DiscordMention | SlackMention) -> list[str]:
    """Return to what each answer refers: in Discord a message, in Slack a line."""
    if isinstance(way, DiscordMention):
        return [one.reply_to or "" for one in way.shown()]
    return [" ".join(one.notes) for one in way.shown()]


@KINDS
async def test_each_of_several_waiting_questions_is_named_by_its_answer(
    kind: type[DiscordMention | SlackMention], own_store: Store, model: ModelEmulator
) -> None:
    async with serving_both(own_store, model, FOLLOW_THREADS="all") as (discord, slack, service):
        way = kind(slack if issubclass(kind, InSlack) else discord)  # type: ignore[arg-type]
        platform = slack if isinstance(way, InSlack) else discord
        ann, bob, cleo = way.person, platform.user("Bob"), platform.user("Cleo")
        model.answer = last_word
        await way.ask("one")
        await until(lambda: shows(way, "one") and offers_another(way), why=service.text)
        model.answer, model.delay = "slowly " * 300, 0.1
        await way.ask("two")
        await until(lambda: len(way.finals()) == 2, why=service.text)
        asked = []
        for way.person, text in ((bob, "three"), (cleo, "four")):
            await way.ask(text)
            asked.append(way.said)
            await until_open(own_store, 1 + len(asked))

        model.answer, model.delay, way.person = last_word, 0.0, ann
        await way.ask("stop")
        await until(lambda: shows(way, *way.finals()[:2], "three", "four"), why=service.text)
        await until(lambda: offers_another(way), why=service.text)
        way.person = ann
        await way.ask("five")
        await until(lambda: way.finals()[4:] == ["five"], why=service.text)

        if isinstance(way, SlackMention):
            asked = [f"Answer to {it}" for it in ("Bob's question of", "Cleo's question of")]
        found = references(way)
        assert [one.partition(" <!date")[0] for one in found] == ["", "", *asked, ""]
        assert not platform.pings
        assert not slack.unfurls


@KINDS
async def test_an_empty_call_into_a_foreign_thread_is_no_reason_to_answer_there(
    kind: type[DiscordMention | SlackMention], own_store: Store, model: ModelEmulator
) -> None:
    model.answer = last_word
    async with serving_both(own_store, model) as (discord, slack, service):
        room = Room(slack if issubclass(kind, InSlack) else discord)
        await room.begin()
        await room.call()
        await until(room.answers, why=service.text)
        await room.say("unanswered")
        await room.call("one")
        await until(lambda: room.answers()[1:] == ["one"], why=service.text)
        await room.say("two")
        await until(lambda: room.answers()[1:] == ["one", "two"], why=service.text)

        await until_open(own_store, 0)
        assert [one.question for one in await remembered(own_store)] == ["one", "two"]


@KINDS
async def test_called_into_a_talk_of_several_people_it_answers_only_calls(
    kind: type[DiscordMention | SlackMention], own_store: Store, model: ModelEmulator
) -> None:
    model.answer = last_word
    async with serving_both(own_store, model) as (discord, slack, service):
        room = Room(slack if issubclass(kind, InSlack) else discord)
        await room.begin()
        await room.say("Mine!", person="Bob")
        await room.call("one")
        await until(lambda: room.answers() == ["one"], why=service.text)
        await until_open(own_store, 0)

        await room.say("unanswered")
        await room.call("two")
        await until(lambda: room.answers()[1:], why=service.text)

        await until_open(own_store, 0)
        assert [one.question for one in await remembered(own_store)] == ["one", "two"]
