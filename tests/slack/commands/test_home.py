"""The app's own place in Slack: what its tabs show."""

from __future__ import annotations

import pytest

from adapters.slack.manifest import PROMPTS
from bot.commands.handlers import COMMANDS
from bot.store import Store
from tests.emulators.slack import SlackEmulator, View
from tests.support.fakes import FakeQueue, RefusingStore
from tests.support.slack_commands import AWAY, chosen, commanded
from tests.support.slack_platform import Transport, both_transports, hearing, joined, serving
from tests.support.waiting import until


@both_transports
async def test_opening_a_dm_brings_a_greeting_and_questions(transport: Transport) -> None:
    async with SlackEmulator() as slack, hearing(slack, FakeQueue(), transport):
        ann = slack.user("Ann")

        await slack.open_home(ann)
        await until(lambda: slack.suggested(slack.dm(ann))[1])

        greeting, prompts = slack.suggested(slack.dm(ann))
        assert greeting.startswith("Hello!")
        assert prompts == [*PROMPTS]


async def test_an_operator_chooses_what_is_suggested() -> None:
    prompts = [("News", "What is new?")]
    async with SlackEmulator() as slack, joined(slack, prompts=prompts) as platform:
        async with serving(platform.handler(FakeQueue().intake)) as url:
            await slack.verify(url)
            ann = slack.user("Ann")

            await slack.open_home(ann)
            await until(lambda: slack.suggested(slack.dm(ann))[1])

        assert slack.suggested(slack.dm(ann))[1] == prompts


async def test_the_home_tab_shows_what_works_and_what_is_chosen(store: Store) -> None:
    async with commanded(store) as (slack, _):
        ann = slack.user("Ann")
        await slack.slash(slack.dm(ann), ann, "/parley", "model large")

        home = await opened(slack, ann)

        assert home.texts[0] == "What I can do"
        named = {name for name in COMMANDS if f"`/parley {name}`" in "\n".join(home.texts)}
        assert named == {*COMMANDS} - {"quiet", "follow"}
        assert "What you have used" in home.texts
        assert home.texts[-2] == "Settings"
        assert home.texts[-1].startswith("For our conversation:\n- Model: Large")
        assert [*home.buttons] == ["open_form:thread:answers"]


async def test_without_the_store_the_home_tab_says_so(store: Store) -> None:
    assert isinstance(store, RefusingStore)
    store.refused.add(store.key("preferences"))
    async with commanded(store) as (slack, _):
        home = await opened(slack, slack.user("Ann"))

        assert home.texts[-2:] == ["Settings", AWAY]
        assert not home.buttons


async def test_an_admin_changes_the_workspace_from_the_home_tab_and_sees_it_there(
    store: Store,
) -> None:
    async with commanded(store) as (slack, intake):
        ann = slack.user("Ann", role="admin")
        home = await opened(slack, ann)
        places = {name.split(":")[1] for name in home.buttons}

        await slack.press_home(ann, "open_form:server:access")
        await until(lambda: (form := slack.modal(ann)) is not None and bool(form.fields))
        await slack.submit(ann, people=[ann])
        await until(lambda: slack.home(ann) is not home)

        shown = slack.home(ann)
        assert shown is not None
        assert places == {"thread", "server"}
        assert "People who may use me: 1 chosen" in shown.texts[-1]
        assert (await chosen(slack, intake, "server")).people == (ann,)


@pytest.mark.parametrize("tab", ["about", ""])
async def test_other_tabs_are_left_alone(tab: str, store: Store) -> None:
    async with commanded(store) as (slack, _):
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
