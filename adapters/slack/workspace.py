"""What every part of the adapter needs to work in one workspace."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from slack_sdk.web.async_client import AsyncWebClient

from adapters.slack.cache import Refusals
from adapters.slack.directory import Directory, Identity
from adapters.slack.limits import Limits
from bot.concurrency import BackgroundTasks
from bot.domain import EditBudget


class Budgets(Protocol):
    """Write limits shared by all processes, as `bot.reply.edit_budget.EditBudgets` has them."""

    async def final(self, budget: EditBudget, *, deadline: float) -> None:
        """Wait for a slot. Raises WriteDelayed if there is none before `deadline`."""

    async def pause(self, budget: EditBudget, seconds: float) -> None:
        """Give out no slots for so many seconds."""


@dataclass(frozen=True, slots=True)
class Workspace:
    """The client of one workspace, and the state that its events and replies share.

    `jobs` is work that no event waits for; each job handles its own errors. If answers are `rated`,
    buttons for that are below them, which are plain ones while Slack has refused its own.
    """

    client: AsyncWebClient = field(repr=False)
    identity: Identity
    directory: Directory
    budgets: Budgets
    jobs: BackgroundTasks
    limits: Limits
    rated: bool
    no_feedback: Refusals
