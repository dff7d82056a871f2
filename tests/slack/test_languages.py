"""People read the bot in Slack in the language of their profile."""

from __future__ import annotations

from bot.languages import say
from bot.store import Store
from tests.emulators.model import ModelEmulator
from tests.emulators.slack import SCOPES, SlackEmulator
from tests.support.process import slack_variables
from tests.support.service import serving
from tests.support.slack_commands import commanded, read_by
from tests.support.waiting import until


async def test_a_command_is_answered_in_the_language_of_the_profile(store: Store) -> None:
    async with commanded(store) as (slack, _):
        ann, bob = slack.user("Ann"), slack.user("Bob")
        slack.speaks(ann, "de-DE")
        for person in (ann, bob):
            await slack.slash(slack.dm(person), person, "/parley", "reset")

        reset = "I have forgotten this conversation. Your next question begins a new one."
        assert read_by(slack, ann) == [say(reset, language="de")]
        assert read_by(slack, bob) == [reset]


async def test_without_the_scope_for_it_people_are_answered_in_english(store: Store) -> None:
    lacking = SlackEmulator(scopes=[one for one in SCOPES if one != "users:read"])
    async with commanded(store, lacking) as (slack, _):
        ann = slack.user("Ann")
        slack.speaks(ann, "de-DE")
        await slack.slash(slack.dm(ann), ann, "/parley", "usage")

        assert read_by(slack, ann)[0].startswith("Your questions today: 0")


async def test_a_reply_and_its_buttons_are_in_the_language_of_its_person(
    own_store: Store, model: ModelEmulator
) -> None:
    async with SlackEmulator() as slack:
        variables = slack_variables(slack, model)
        async with serving(own_store, variables=variables) as service:
            await until(slack.connected.is_set, why=service.text)
            ann = slack.user("Ann")
            slack.speaks(ann, "ja-JP")
            model.fail_as("bad request")
            await slack.say(slack.dm(ann), ann, "why?")
            refused = "The language model does not accept this question. Please ask in other words."
            await until(
                lambda: say(refused, language="ja") in slack.screen(slack.dm(ann))[-1].text,
                why=service.text,
            )
            await until(
                lambda: say("Retry", language="ja") in slack.screen(slack.dm(ann))[-1].labels,
                why=service.text,
            )
