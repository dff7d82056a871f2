"""The buttons below a reply, pressed through both platforms."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from uuid import uuid4

import pytest
from prometheus_client import REGISTRY

from bot.errors import AnswerCut, HasEnded, NotRemembered, NotTheAsker, NotTheLast
from bot.intake.answers import GO_ON, THANKS
from bot.reply.draft import STOPPED
from bot.store import Store
from tests.app.test_service import prompts
from tests.emulators.discord import DiscordEmulator
from tests.emulators.discord import Shown as DiscordShown
from tests.emulators.model import ModelEmulator
from tests.emulators.slack import Shown as SlackShown
from tests.emulators.slack import SlackEmulator
from tests.emulators.slack.payload import Payload
from tests.support.process import (
    DiscordDm,
    DiscordMention,
    DiscordSlash,
    InDiscord,
    InSlack,
    SlackDm,
    SlackMention,
    SlackSlash,
    discord_variables,
    remembered,
    slack_variables,
    speak_slowly,
)
from tests.support.replies import answer_of
from tests.support.service import serving
from tests.support.waiting import until

Talk = InDiscord | InSlack
Way = Callable[..., Talk]
DISCORD: tuple[Way, ...] = (DiscordMention, DiscordDm, DiscordSlash)
SLACK: tuple[Way, ...] = (SlackMention, SlackDm, SlackSlash)
WAYS = pytest.mark.parametrize("way", [*DISCORD, *SLACK], ids=lambda it: it.__name__)
SHARED = pytest.mark.parametrize("way", [DiscordMention, SlackMention], ids=lambda it: it.__name__)


@asynccontextmanager
async def talking(
    way: Way, store: Store, model: ModelEmulator, **chosen: str
) -> AsyncIterator[Scene]:
    """Serve a platform on which somebody talks with the bot in this way."""
    async with (DiscordEmulator if way in DISCORD else SlackEmulator)() as platform:
        if isinstance(platform, DiscordEmulator):
            variables = discord_variables(platform, model)
        else:
            variables = slack_variables(platform, model)
        # Buttons of an older answer are taken away within some leases, or stay.
        variables |= {"LEASE_SECONDS": "2", **chosen}
        async with serving(store, variables=variables) as service:
            await until(platform.connected.is_set, why=service.text)
            yield Scene(way(platform))
        assert not service.errors()


class Scene:
    """A talk with the bot, the buttons below its answers, and what it tells one person alone."""

    def __init__(self, talk: Talk) -> None:
        self.talk = talk

    def shown(self) -> Sequence[DiscordShown | SlackShown]:
        talk = self.talk
        if isinstance(talk, DiscordSlash):
            # An answer that goes on is no answer to a command.
            everything = talk.discord.screen(talk.discord.channel_id)
            return [one for one in everything if one.text and not one.ephemeral]
        if isinstance(talk, InDiscord):
            return [one for one in talk.shown() if not one.ephemeral]
        return talk.shown()

    def labels(self) -> list[tuple[str, ...]]:
        """What stands on the buttons of each message."""
        return [one.labels for one in self.shown()]

    def texts(self) -> list[str]:
        return [answer_of(one.text) for one in self.shown()]

    def told(self) -> list[str]:
        talk = self.talk
        if isinstance(talk, InSlack):
            return [one.text for one in talk.slack.ephemerals]
        places = {one.channel_id for one in talk.shown()}
        return [it.text for one in places for it in talk.discord.screen(one) if it.ephemeral]

    def person(self, name: str) -> str:
        talk = self.talk
        return talk.slack.user(name) if isinstance(talk, InSlack) else talk.discord.user(name)

    def button(self, action: str) -> tuple[str, str]:
        """The message and the id of the newest button that does this."""
        return [each for each in self._buttons() if each[1].startswith(action)][-1]

    def late_press(self, action: str) -> Callable[[], Awaitable[object]]:
        """Press the button that is there now later, from a screen that was not updated."""
        talk, (message, button) = self.talk, self.button(action)
        if isinstance(talk, InSlack):
            value = talk.slack.value(talk.channel, message, button)
            payload = pressed(value, button, channel=talk.channel, user=talk.person)
            return partial(talk.slack.interact, payload)
        data = {"custom_id": button, "component_type": 2}
        channel, seen = self.shown()[-1].channel_id, talk.discord.event_of(message)
        return partial(talk.discord.interact, channel, talk.person, 3, data, message=seen)

    def _buttons(self) -> list[tuple[str, str]]:
        return [(self._id(one), button) for one in self.shown() for button in one.buttons]

    def _id(self, one: DiscordShown | SlackShown) -> str:
        return one.ts if isinstance(one, SlackShown) else one.id

    async def press(self, action: str, *, by: str = "") -> None:
        talk, (message, button) = self.talk, self.button(action)
        person = by or talk.person
        if isinstance(talk, InSlack):
            await talk.slack.click(talk.channel, message, person, button)
        else:
            await talk.discord.click(message, person, button)


@WAYS
async def test_a_cut_answer_goes_on_below_it(
    way: Way, own_store: Store, model: ModelEmulator
) -> None:
    async with talking(way, own_store, model) as scene:
        model.answer, model.finish_reason = "One, two,", "length"
        await scene.talk.ask("Count.")
        await until(lambda: scene.labels() == [("Regenerate", "Continue")], why=scene.labels)

        model.answer, model.finish_reason = "three.", "stop"
        await asyncio.gather(scene.press("continue"), scene.press("continue"))
        await until(lambda: scene.labels() == [(), ("Regenerate",)], why=scene.labels)
        model.answer = "Gladly."
        await scene.talk.ask("Thanks.")
        await until(lambda: scene.labels() == [(), (), ("Regenerate",)], why=scene.labels)

        first = f"One, two,\n\n{AnswerCut.apology}"
        assert scene.texts() == [first, "three.", "Gladly."]
        assert prompts(model) == [
            [("user", "Count.")],
            [("user", "Count."), ("assistant", "One, two,"), ("user", GO_ON)],
            [
                *(("user", "Count."), ("assistant", "One, two,")),
                *(("user", GO_ON), ("assistant", "three."), ("user", "Thanks.")),
            ],
        ]
    assert len(await remembered(own_store)) == 3


@pytest.mark.parametrize("way", [DiscordMention, DiscordDm], ids=lambda it: it.__name__)
async def test_an_answer_that_is_continued_has_no_buttons_at_once(
    way: Way, own_store: Store, model: ModelEmulator
) -> None:
    async with talking(way, own_store, model) as scene:
        model.answer, model.finish_reason = "One, two,", "length"
        await scene.talk.ask("Count.")
        await until(lambda: scene.labels() == [("Regenerate", "Continue")], why=scene.labels)

        speak_slowly(model, seconds=60)
        await scene.press("continue")

        await until(lambda: scene.labels() == [(), ("Stop",)], why=scene.labels)
        assert scene.texts()[0].startswith("One, two,")
        # Else the end would wait for the answer.
        await scene.press("stop")


@WAYS
async def test_a_failed_answer_is_tried_again_in_its_message(
    way: Way, own_store: Store, model: ModelEmulator
) -> None:
    async with talking(way, own_store, model) as scene:
        model.fail("completions", status=402, body={"error": "no"}, times=99)
        await scene.talk.ask("Why?")
        await until(lambda: scene.labels() == [("Retry",)], why=scene.labels)
        failed = scene.button("regenerate")

        model.heal()
        model.answer = "So."
        await scene.press("regenerate")
        await until(lambda: scene.labels() == [("Regenerate",)], why=scene.labels)

        assert scene.texts() == ["So."]
        assert scene.button("regenerate") == failed


@WAYS
async def test_an_older_answer_keeps_no_button_and_refuses_a_late_press(
    way: Way, own_store: Store, model: ModelEmulator
) -> None:
    async with talking(way, own_store, model) as scene:
        model.answer = "First.\n\n| a | b |\n| - | - |\n| 1 | 2 |"
        await scene.talk.ask("One?")
        await until(lambda: scene.labels() == [("Regenerate",)], why=scene.labels)
        before = scene.texts()
        late = scene.late_press("regenerate")
        model.answer = "Second."
        await scene.talk.ask("Two?")
        await until(lambda: scene.labels() == [(), ("Regenerate",)], why=scene.labels)

        await late()
        await until(scene.told)

        assert scene.told() == [NotTheLast.apology]
        assert scene.texts() == [*before, "Second."]


@pytest.mark.parametrize(
    "way", [DiscordMention, DiscordDm, SlackMention, SlackDm], ids=lambda it: it.__name__
)
async def test_the_answer_above_a_deleted_one_gets_its_buttons_back(
    way: Way, own_store: Store, model: ModelEmulator
) -> None:
    async with talking(way, own_store, model) as scene:
        model.answer = "First."
        await scene.talk.ask("One?")
        await until(lambda: scene.labels() == [("Regenerate",)], why=scene.labels)
        model.answer = "Second."
        await scene.talk.ask("Two?")
        await until(lambda: scene.labels() == [(), ("Regenerate",)], why=scene.labels)

        await scene.talk.delete_answer()
        await until(lambda: scene.labels() == [("Regenerate",)], why=scene.labels)
        model.answer = "Third."
        await scene.press("regenerate")
        await until(lambda: scene.texts() == ["Third."], why=scene.labels)


@SHARED
async def test_only_the_asker_may_stop_or_have_more(
    way: Way, own_store: Store, model: ModelEmulator
) -> None:
    speak_slowly(model, seconds=30)
    async with talking(way, own_store, model) as scene:
        bob = scene.person("Bob")
        if isinstance(scene.talk, InSlack):
            # A stream has Slack's own Stop.
            body = {"ok": False, "error": "unknown_method"}
            scene.talk.slack.fail("chat.startStream", status=200, body=body, times=99)
        await scene.talk.ask("Count.")
        await until(scene.texts)

        await scene.press("stop", by=bob)
        await until(scene.told, why=scene.labels)
        refused, still_there = scene.told(), scene.labels()
        await scene.press("stop")
        await until(lambda: scene.labels() == [("Regenerate",)], why=scene.labels)
        await scene.press("regenerate", by=bob)
        await until(lambda: len(scene.told()) == 2)

        assert (refused, still_there) == ([NotTheAsker.apology], [("Stop",)])
        assert scene.told()[1] == NotTheAsker.apology
        assert scene.texts()[0].endswith(STOPPED)
        assert len(model.requests) == 1


async def test_who_manages_messages_stops_any_answer_but_from_no_other_channel(
    own_store: Store, model: ModelEmulator
) -> None:
    speak_slowly(model, seconds=30)
    async with talking(DiscordMention, own_store, model, FEEDBACK="on") as scene:
        talk = scene.talk
        assert isinstance(talk, DiscordMention)
        discord, boss = talk.discord, talk.discord.user("Boss", moderates=True)
        await talk.ask("Count.")
        await until(scene.texts)
        stop = scene.button("stop")[1]
        elsewhere = discord.channel("elsewhere")

        async def press(name: str) -> str:
            data = {"custom_id": name, "component_type": 2}
            pressed = await discord.interact(elsewhere, boss, 3, data)
            await until(lambda: discord.original(pressed))
            told = discord.original(pressed)
            return told.text if told else ""

        refused = await press(stop)
        await scene.press("stop", by=boss)
        await until(lambda: scene.labels() == [("Regenerate", "👍", "👎")], why=scene.labels)
        unrated = await press(scene.button("good")[1])

        assert scene.texts()[0].endswith(STOPPED)
    assert (refused, unrated) == (HasEnded.apology, NotRemembered.apology)
    assert await kept_ratings(own_store) == [{}]


async def rate(scene: Scene, rating: str, *, by: str) -> None:
    talk = scene.talk
    if isinstance(talk, InSlack):
        which = {"good": "positive", "bad": "negative"}[rating]
        await talk.slack.rate(talk.channel, talk.shown()[0].ts, by, which)
    else:
        await scene.press(rating, by=by)


def counted(kind: str, model: str) -> float:
    labels = {"model": model, "kind": kind}
    return REGISTRY.get_sample_value("parley_feedback_total", labels) or 0.0


async def kept_ratings(store: Store) -> list[dict[str, str]]:
    """Return the ratings of each remembered answer."""
    ids: list[str] = []
    for name in await store.command("KEYS", store.key("history", "*")):
        ids += await store.command("LRANGE", name, 0, -1)
    return [dict(await store.command("HGETALL", store.key("ratings", one))) for one in ids]


@WAYS
async def test_a_rating_counts_once_for_each_person_and_the_last_one_is_kept(
    way: Way, own_store: Store, model: ModelEmulator
) -> None:
    name = f"model-{uuid4().hex}"
    model.models = (name,)
    model.answer = 'Look: ", "ratings": {" and {"ratings": 1}'
    async with talking(way, own_store, model, FEEDBACK="on") as scene:
        ann, bob = scene.talk.person, scene.person("Bob")
        await scene.talk.ask("Why?")
        await until(lambda: scene.labels() and "Regenerate" in scene.labels()[0])

        await asyncio.gather(*(rate(scene, "good", by=ann) for _ in range(2)))
        await until(lambda: len(scene.told()) == 2)
        await rate(scene, "bad", by=ann)
        await rate(scene, "bad", by=bob)
        await until(lambda: len(scene.told()) == 4)

        assert scene.told() == [THANKS] * 4
        assert (counted("good", name), counted("bad", name)) == (1, 1)
        assert await kept_ratings(own_store) == [{ann: "bad", bob: "bad"}]
        assert [one.answer for one in await remembered(own_store)] == [model.answer]
        model.answer = "Another."
        await scene.press("regenerate")
        await until(lambda: scene.texts() == ["Another."])
        await until(lambda: "Regenerate" in scene.labels()[0])
    assert await kept_ratings(own_store) == [{}]
    assert [one.model for one in await remembered(own_store)] == [name]


@pytest.mark.parametrize(
    ("way", "feedback", "rated"),
    [
        (DiscordDm, "", False),
        (DiscordDm, "off", False),
        (SlackDm, "", True),
        (SlackDm, "off", False),
    ],
)
async def test_answers_are_rated_where_the_operator_wants_it(
    way: Way, feedback: str, rated: bool, own_store: Store, model: ModelEmulator
) -> None:
    async with talking(way, own_store, model, FEEDBACK=feedback) as scene:
        await scene.talk.ask("Why?")
        await until(lambda: scene.labels() == [("Regenerate",)], why=scene.labels)

        if isinstance(scene.talk, InSlack):
            talk = scene.talk
            assert talk.slack.is_rated(talk.channel, talk.shown()[0].ts) == rated


@pytest.mark.parametrize("way", SLACK, ids=lambda it: it.__name__)
async def test_an_answer_whose_rating_buttons_slack_refuses_stands_without_them(
    way: Way, own_store: Store, model: ModelEmulator
) -> None:
    async with talking(way, own_store, model) as scene:
        talk = scene.talk
        assert isinstance(talk, InSlack)
        talk.slack.refuse_feedback_buttons()
        await talk.ask("Why?")
        await until(lambda: scene.labels() == [("Regenerate",)], why=scene.labels)

        assert scene.texts() == ["You said: Why?"]


def pressed(value: str, action: str, *, channel: str, user: str) -> Payload:
    """What tells of a press on a button that Slack does not show any more."""
    return {
        "type": "block_actions",
        "trigger_id": "12.34.late",
        "team": {"id": SlackEmulator.team_id},
        "user": {"id": user},
        "container": {"type": "message", "channel_id": channel, "message_ts": "2.1"},
        "actions": [{"type": "button", "action_id": action, "block_id": "b", "value": value}],
    }
