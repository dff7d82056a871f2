"""What people do with Slack's commands, before a real intake."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext

from adapters.slack.limits import Limits
from bot.access.preferences import ModelChoice, Scope
from bot.domain import Preferences, ThreadKey
from bot.store import Store
from tests.emulators.slack import SlackEmulator, View
from tests.support.fakes import NotedIntake
from tests.support.slack_platform import LIMITS, Transport, hearing
from tests.support.waiting import until

AWAY = "I cannot do this at the moment. Please try again in a minute."
MODELS = (ModelChoice("org/small", "Small"), ModelChoice("org/large", "Large"))


@asynccontextmanager
async def commanded(
    store: Store,
    slack: SlackEmulator | None = None,
    *,
    limits: Limits = LIMITS,
    transport: Transport = "socket",
    models: tuple[ModelChoice, ...] = MODELS,
    runs: bool = False,
) -> AsyncIterator[tuple[SlackEmulator, NotedIntake]]:
    """A Slack with the bot, and what it hands to the core; or one that `runs` already."""
    intake, running = NotedIntake(store, models=models), slack or SlackEmulator()
    async with (
        nullcontext() if runs else running,
        hearing(running, intake, transport, limits=limits),
    ):
        yield running, intake


async def chosen(
    slack: SlackEmulator, intake: NotedIntake, scope: Scope, channel: str = "", thread: str = ""
) -> Preferences:
    """Return what is chosen for a channel, a thread in it, or the workspace."""
    place = channel or slack.channel_id
    key = ThreadKey("slack", slack.team_id, place, thread or place)
    return (await intake.preferences.read(key))[scope]


async def opened(slack: SlackEmulator, user: str) -> View:
    """Return the form that a person sees, once it has its fields."""
    await until(lambda: (form := slack.modal(user)) is not None and bool(form.fields))
    form = slack.modal(user)
    assert form is not None
    return form


def read_by(slack: SlackEmulator, user: str) -> list[str]:
    """Return what only this person was told."""
    return [said.text for said in slack.ephemerals if said.user_id == user]
