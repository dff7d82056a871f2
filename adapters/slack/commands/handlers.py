"""Passes commands and submitted forms to what carries them out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adapters.slack.commands.ask_command import AskCommand
from adapters.slack.commands.calls import Permissions
from adapters.slack.commands.home import Home
from adapters.slack.commands.parley import Parley
from adapters.slack.commands.shortcuts import Shortcuts
from adapters.slack.commands.views import CommandAnswer
from adapters.slack.manifest import PARLEY, QUESTION_ID
from adapters.slack.workspace import Workspace
from bot.commands.handlers import CommandHandlers
from bot.intake.intake import Intake


class Commands:
    """Handlers for interactions other than messages.

    Each returns within Slack's three seconds; Slack does not retry them.
    """

    def __init__(self, workspace: Workspace, intake: Intake) -> None:
        permissions, handlers = Permissions(workspace), CommandHandlers(intake)
        self.home = Home(workspace, handlers, permissions)
        self.parley = Parley(workspace, handlers, permissions, on_change=self.home.show)
        self._ask = AskCommand(workspace, intake)
        self.shortcuts = Shortcuts(workspace, intake, self._ask)

    async def on_command(self, command: Mapping[str, str]) -> Mapping[str, Any]:
        """Handle a slash command; return an ephemeral message, or {}."""
        if command.get("command") == PARLEY:
            answer = await self.parley.on_command(command)
        else:
            answer = CommandAnswer(await self._ask.on_command(command))
        return {**answer.message(), "response_type": "ephemeral"} if answer.text else {}

    async def on_submit(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """Handle a submitted form; return the response action."""
        if body["view"]["callback_id"] == QUESTION_ID:
            return await self.shortcuts.on_submit(body)
        return await self.parley.on_submit(body)
