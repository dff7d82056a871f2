"""The app's own place in Slack: what its tabs show."""

from __future__ import annotations

import pytest

from adapters.slack.manifest import PROMPTS
from bot.errors import StoreUnavailable
from bot.turns.desk import COMMANDS, NotOffered
from tests.emulators.slack import SlackEmulator, View
from tests.support.fakes import FakeIntake
from tests.support.slack_commands import FakeDesk, commanding
from tests.support.slack_platform import Transport, both_transports, hearing
from tests.support.waiting import until

AWAY = "I cannot do this at the moment. Please try again in a minute."


@both_transports
async def test_opening_a_dm_brings_a_greeting_and_questions(transport: Transport) -> None:
    async with SlackEmulator() as slack, hearing(slack, FakeIntake(), transport):
        ann = slack.user("Ann")

        await slack.open_home(ann)
        await until(lambda: slack.suggested(slack.dm(ann))[1])

        greeting, prompts = slack.suggested(slack.dm(ann))
        assert greeting.startswith("Hello!")
        assert prompts == [*PROMPTS]


async def test_an_operator_chooses_what_is_suggested() -> None:
    prompts = [("News", "What is new?")]
    async with SlackEmulator() as slack, commanding(slack, FakeDesk(), prompts=prompts):
        ann = slack.user("Ann")

        await slack.open_home(ann)
        await until(lambda: slack.suggested(slack.dm(ann))[1])

        assert slack.suggested(slack.dm(ann))[1] == prompts


async def test_an_app_that_may_not_suggest_does_not_ask_again() -> None:
    async with SlackEmulator() as slack, commanding(slack, FakeDesk()):
        slack.fail("setSuggestedPrompts", error="missing_scope")
        ann = slack.user("Ann")

        await slack.open_home(ann)
        await until(lambda: suggestions(slack) == 1)
        await slack.open_home(ann)
        await slack.open_home(ann, tab="home")
        await until(lambda: slack.home(ann) is not None)

        assert suggestions(slack) == 1


async def test_the_home_tab_tells_what_works_what_was_used_and_what_is_chosen() -> None:
    async with SlackEmulator() as slack, commanding(slack, FakeDesk()):
        ann = slack.user("Ann")

        home = await opened(slack, ann)

        assert home.texts[0] == "What I can do"
        assert all(f"`/parley {name}`" in "\n".join(home.texts) for name in COMMANDS)
        assert home.texts[-4:-2] == ["What you have used", "Done: usage."]
        assert home.texts[-2:] == ["Settings", "Answers come from Small."]
        assert [*home.buttons] == ["open_form:thread:answers"]


async def test_what_is_not_offered_is_not_on_the_home_tab() -> None:
    async with SlackEmulator() as slack, commanding(slack, FakeDesk(error=NotOffered())):
        home = await opened(slack, slack.user("Ann"))

        assert "What you have used" not in home.texts
        assert "Settings" not in home.texts
        assert not home.buttons


async def test_without_the_store_the_home_tab_says_so() -> None:
    desk = FakeDesk(error=StoreUnavailable("no Redis"))
    async with SlackEmulator() as slack, commanding(slack, desk):
        home = await opened(slack, slack.user("Ann"))

        assert home.texts.count(AWAY) == 2


async def test_an_admin_changes_the_workspace_from_the_home_tab_and_sees_it_there() -> None:
    desk = FakeDesk()
    async with SlackEmulator() as slack, commanding(slack, desk):
        ann = slack.user("Ann", role="admin")
        home = await opened(slack, ann)
        assert [*home.buttons] == ["open_form:thread:answers", "open_form:server:access"]

        await slack.press_home(ann, "open_form:server:access")
        await until(lambda: (form := slack.modal(ann)) is not None and bool(form.fields))
        await slack.submit(ann, people=[ann])
        await until(lambda: slack.home(ann) is not home)

        _, call, rest = next(one for one in desk.calls if one[0] == "fill_in")
        assert rest[:2] == ("server", "access")
        assert call.thread.channel == slack.dm(ann)
        assert call.manages_server


@pytest.mark.parametrize("tab", ["about", ""])
async def test_other_tabs_are_left_alone(tab: str) -> None:
    async with SlackEmulator() as slack, commanding(slack, FakeDesk()):
        ann = slack.user("Ann")

        await slack.open_home(ann, tab=tab)
        await opened(slack, ann)

        assert suggestions(slack) == 0


async def opened(slack: SlackEmulator, user: str) -> View:
    await slack.open_home(user, tab="home")
    await until(lambda: slack.home(user) is not None)
    home = slack.home(user)
    assert home is not None
    return home


def suggestions(slack: SlackEmulator) -> int:
    return sum(call.method.endswith("setSuggestedPrompts") for call in slack.requests)
