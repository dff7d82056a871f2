"""Reads what was said in a Slack thread before a question."""

from __future__ import annotations

from collections.abc import Sequence

from adapters.slack.workspace import Workspace
from bot.domain import ContextMessage, Turn


async def read_context(
    workspace: Workspace, turn: Turn, *, since: str, most: int
) -> Sequence[ContextMessage]:
    """Return what was said before a question in its thread."""
    return ()
