"""A workspace that uninstalls the app is forgotten within a day, unless it installs it again."""

from __future__ import annotations

import pytest

from bot.store import Store
from bot.turns.forgetting import named
from tests.emulators.model import ModelEmulator
from tests.emulators.slack import SlackEmulator
from tests.support.process import slack_variables
from tests.support.service import serving
from tests.support.slack_platform import dm_event, joined, make_intake, send
from tests.support.slack_platform import serving as serving_handler
from tests.support.waiting import until

JOB = named("server", "slack", SlackEmulator.team_id)


async def due(store: Store) -> str | None:
    score: str | None = await store.command("ZSCORE", store.key("forgetting"), JOB)
    return score


@pytest.mark.parametrize("reason", ["app_uninstalled", "tokens_revoked"])
@pytest.mark.parametrize(
    ("error", "status", "goes"),
    [
        ("account_inactive", 200, True),
        ("token_revoked", 200, True),
        # The event is a late one: the app has been installed again.
        (None, 200, False),
        # Slack sends the event again.
        ("internal_error", 503, False),
    ],
)
async def test_a_workspace_whose_token_is_dead_is_to_be_forgotten(
    store: Store, reason: str, error: str | None, status: int, goes: bool
) -> None:
    async with (
        SlackEmulator() as slack,
        joined(slack) as platform,
        serving_handler(platform.handler(make_intake(store))) as url,
    ):
        if error:
            slack.fail("auth.test", error=error, times=10)

        answered = await send(slack, url, {**dm_event(slack), "type": reason})

    assert answered == status
    assert (await due(store) is not None) == goes


async def test_a_workspace_that_installs_the_app_again_is_kept(
    own_store: Store, model: ModelEmulator
) -> None:
    await make_intake(own_store).forget_server("slack", SlackEmulator.team_id)
    assert await due(own_store) is not None
    async with SlackEmulator() as slack:
        variables = slack_variables(slack, model)
        async with serving(own_store, variables=variables) as service:
            await until(lambda: "connected as" in service.text(), why=service.text)
            assert await due(own_store) is None
