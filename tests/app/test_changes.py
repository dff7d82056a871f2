"""What people change after they have asked, on both platforms, through the whole service."""

from __future__ import annotations

import asyncio
from itertools import chain

import pytest

from bot.store import Store
from tests.emulators.discord import DiscordEmulator
from tests.emulators.model import ModelEmulator
from tests.emulators.model.behaviour import echo
from tests.emulators.slack import SlackEmulator
from tests.support.process import (
    DiscordDm,
    DiscordMention,
    SlackDm,
    SlackMention,
    Way,
    offers_another,
    remembered,
    shows,
    speak_slowly,
)
from tests.support.service import serving_both
from tests.support.waiting import until

MENTIONS = pytest.mark.parametrize("kind", [DiscordMention, SlackMention])
WAYS = pytest.mark.parametrize("kind", [DiscordMention, DiscordDm, SlackMention, SlackDm])


def make_way(
    kind: type[DiscordMention | DiscordDm | SlackMention | SlackDm],
    discord: DiscordEmulator,
    slack: SlackEmulator,
) -> Way:
    if issubclass(kind, SlackMention | SlackDm):
        return kind(slack)
    return kind(discord)


async def until_remembered(store: Store, *questions: str) -> None:
    """Wait until these questions are remembered, each with its own answer, and nothing else."""
    expected = [(question, f"You said: {question}") for question in questions]
    found: list[tuple[str, str]] = []
    try:
        async with asyncio.timeout(60):
            while found != expected:
                found = [(one.question, one.answer) for one in await remembered(store)]
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise TimeoutError(f"remembered: {found}") from None


@WAYS
async def test_an_edited_question_is_answered_anew_in_the_same_message(
    kind: type[DiscordMention], own_store: Store, model: ModelEmulator
) -> None:
    async with serving_both(own_store, model) as (discord, slack, service):
        way = make_way(kind, discord, slack)
        await way.ask("one")
        await until(lambda: shows(way, "You said: one"), why=service.text)
        await way.ask("two")
        await until(lambda: shows(way, "You said: one", "You said: two"), why=service.text)

        await way.edit("three")
        await until(lambda: shows(way, "You said: one", "You said: three"), why=service.text)
        await way.redeliver()
        await way.ask("four")
        await until(lambda: len(way.finals()) == 3, why=service.text)
        await until(lambda: way.finals()[2] == "You said: four", why=service.text)

        assert way.finals() == ["You said: one", "You said: three", "You said: four"]
        await until_remembered(own_store, "one", "three", "four")
        assert len(model.requests) == 4


@WAYS
async def test_an_edited_question_whose_answer_grows_is_answered_in_the_same_message(
    kind: type[DiscordMention], own_store: Store, model: ModelEmulator
) -> None:
    async with serving_both(own_store, model) as (discord, slack, service):
        way = make_way(kind, discord, slack)
        model.chunk, model.delay = 4, 0.2
        await way.ask("one " * 20)
        await until(way.finals, why=service.text)

        model.chunk, model.delay = 8, 0.0
        await way.edit("two")
        await until(lambda: shows(way, "You said: two"), why=service.text)
        await way.ask("three")
        await until(lambda: shows(way, "You said: two", "You said: three"), why=service.text)

        await until_remembered(own_store, "two", "three")


@WAYS
async def test_regenerate_takes_a_question_whose_edit_was_missed_as_it_stands_now(
    kind: type[DiscordMention | DiscordDm | SlackMention | SlackDm],
    own_store: Store,
    model: ModelEmulator,
) -> None:
    async with serving_both(own_store, model) as (discord, slack, service):
        way = make_way(kind, discord, slack)
        await way.ask("one")
        await until(lambda: offers_another(way), why=service.text)
        mention = {DiscordMention: discord.bot_mention, SlackMention: slack.bot_mention}.get(kind)
        text = " ".join(filter(None, [mention, "two"]))
        if isinstance(way, SlackMention | SlackDm):
            await slack.edit(way.channel, way.said, text, tells=False)
        else:
            await discord.edit(way.said, text, tells=False)

        await way.press()

        await until(lambda: shows(way, "You said: two"), why=service.text)
        await until_remembered(own_store, "two")


@MENTIONS
async def test_a_deleted_question_ends_its_answer_and_is_forgotten(
    kind: type[DiscordMention], own_store: Store, model: ModelEmulator
) -> None:
    async with serving_both(own_store, model) as (discord, slack, service):
        way = make_way(kind, discord, slack)
        await way.ask("one")
        await until_remembered(own_store, "one")
        await way.ask("two")
        await until_remembered(own_store, "one", "two")
        await way.delete()
        speak_slowly(model, seconds=60)
        await way.ask("three")
        await until(lambda: len(way.finals()) == 3, why=service.text)

        await way.delete()
        await until(lambda: not model.running, why=service.text)
        model.answer, model.delay = echo, 0.0
        await way.ask("four")

        await until_remembered(own_store, "one", "four")
        said = [one["content"] for one in model.requests[-1].messages if one["role"] == "user"]
        assert said == ["one", "four"]


@WAYS
async def test_a_growing_answer_that_is_deleted_ends_and_is_forgotten(
    kind: type[DiscordMention], own_store: Store, model: ModelEmulator
) -> None:
    speak_slowly(model, seconds=60)
    async with serving_both(own_store, model) as (discord, slack, service):
        way = make_way(kind, discord, slack)
        await way.ask("one")
        await until(way.finals, why=service.text)

        await way.delete_answer()
        await until(lambda: not model.running, why=service.text)
        model.answer, model.delay = echo, 0.0
        await way.ask("two")
        await until(lambda: shows(way, "You said: two"), why=service.text)

        await until_remembered(own_store, "two")


@WAYS
async def test_a_deleted_answer_is_forgotten_with_its_question(
    kind: type[DiscordMention], own_store: Store, model: ModelEmulator
) -> None:
    async with serving_both(own_store, model) as (discord, slack, service):
        way = make_way(kind, discord, slack)
        for number, text in enumerate(("one", "two")):
            await way.ask(text)
            await until(lambda n=number: len(way.finals()) > n, why=service.text)  # type: ignore[misc]
            await until_remembered(own_store, *("one", "two")[: number + 1])

        await way.delete_answer()
        await until_remembered(own_store, "one")
        await way.ask("three")
        await until_remembered(own_store, "one", "three")

        assert way.finals() == ["You said: one", "You said: three"]


@WAYS
async def test_pages_that_the_bot_deletes_itself_forget_nothing(
    kind: type[DiscordMention], own_store: Store, model: ModelEmulator
) -> None:
    async with serving_both(own_store, model) as (discord, slack, service):
        way = make_way(kind, discord, slack)
        model.answer, model.chunk = "long " * 3000, 500
        await way.ask("one")
        await until(lambda: len(way.finals()) > 1 and offers_another(way), why=service.text)

        model.answer = echo
        await way.edit("two")
        await until(lambda: shows(way, "You said: two"), why=service.text)
        await until_remembered(own_store, "two")
        await way.ask("three")
        await until_remembered(own_store, "two", "three")


@WAYS
async def test_quick_messages_of_one_person_are_answered_together(
    kind: type[DiscordMention], own_store: Store, model: ModelEmulator
) -> None:
    async with serving_both(own_store, model) as (discord, slack, service):
        way = make_way(kind, discord, slack)
        model.first_delay = 0.3
        asked = [f"part {number}" for number in range(8)]
        await way.ask(asked[0])
        if isinstance(way, DiscordMention):
            await until(lambda: discord.thread_of(way.said), why=service.text)
        for text in asked[1:]:
            await way.ask(text)
        answered: list[list[str]] = []

        def are_answered() -> bool:
            answered[:] = [one.removeprefix("You said: ").split("\n\n") for one in way.finals()]
            return sorted(chain.from_iterable(answered)) == asked

        await until(are_answered, why=lambda: f"{answered} {service.text()}")
        # Slack delivers events of one moment in any order.
        assert all(sorted(one) == one for one in answered)
        assert len(way.finals()) <= 3
