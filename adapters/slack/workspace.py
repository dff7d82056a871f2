"""What every part of the adapter needs to work in one workspace."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Protocol

import aiohttp
from slack_sdk.web.async_client import AsyncWebClient

from adapters.slack.directory import Directory, Identity, identify
from adapters.slack.limits import Limits
from bot.concurrency import BackgroundTasks
from bot.domain import EditBudget
from bot.proxy import proxy_for


class Budgets(Protocol):
    """Write limits shared by all processes, as `bot.reply.edit_budget.EditBudgets` has them."""

    async def final(self, budget: EditBudget, *, deadline: float) -> None:
        """Wait for a slot. Raises WriteDelayed if there is none before `deadline`."""

    async def pause(self, budget: EditBudget, seconds: float) -> None:
        """Give out no slots for so many seconds."""


@dataclass(frozen=True, slots=True)
class Workspace:
    """The client of one workspace, and the state that its events and replies share.

    `jobs` is work that no event waits for; each job handles its own errors.
    """

    client: AsyncWebClient = field(repr=False)
    identity: Identity
    directory: Directory
    budgets: Budgets
    jobs: BackgroundTasks
    limits: Limits


@asynccontextmanager
async def open_workspace(
    *, bot_token: str, api_url: str, budgets: Budgets, limits: Limits
) -> AsyncIterator[Workspace]:
    """Join the workspace of a bot token.

    Raises CannotStart if Slack refuses the token or cannot be reached.
    """
    url = api_url or AsyncWebClient.BASE_URL
    # slack-sdk 3.47 ignores its own timeout if it is given a session.
    timeout = aiohttp.ClientTimeout(total=limits.request_timeout)
    # The default limit is 100; a further request would wait, and its timeout would run.
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
        # The default handler would send a message again that may have arrived.
        client = AsyncWebClient(bot_token, url, session=session, retry_handlers=[])
        # slack-sdk 3.47 takes any proxy variable, for loopback too, and ignores NO_PROXY.
        client.proxy = proxy_for(url)
        identity, directory = await identify(client), Directory(client, limits=limits)
        async with BackgroundTasks(grace_seconds=limits.job_grace) as jobs:
            yield Workspace(client, identity, directory, budgets, jobs, limits)
