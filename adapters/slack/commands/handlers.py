"""Dispatches commands, presses, shortcuts, forms and opened tabs."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from adapters.slack.commands.calls import CommandLocation, Permissions
from adapters.slack.commands.home import Home
from adapters.slack.commands.parley import Parley
from adapters.slack.commands.shortcuts import Shortcuts
from adapters.slack.commands.views import CommandAnswer
from adapters.slack.inbound.ask_command import AskCommand
from adapters.slack.manifest import PARLEY, QUESTION_ID
from adapters.slack.workspace import Workspace
from bot.commands.handlers import CommandHandlers
from bot.errors import ParleyError
from bot.intake.intake import Intake

log = logging.getLogger(__name__)

Body = Mapping[str, object]
_REQUIRED = ("user_id", "channel_id", "trigger_id")


class Commands:
    """Handlers for interactions other than messages.

    Each returns within Slack's three seconds; Slack does not retry them.
    """

    def __init__(
        self, workspace: Workspace, intake: Intake, *, prompts: Sequence[tuple[str, str]]
    ) -> None:
        permissions, handlers = Permissions(workspace), CommandHandlers(intake)
        self._home = Home(workspace, handlers, permissions, prompts=prompts)
        self._parley = Parley(workspace, handlers, permissions, on_change=self._home.show)
        self._ask = AskCommand(workspace, intake)
        self._shortcuts = Shortcuts(workspace, intake, self._ask)

    async def on_command(self, command: Mapping[str, str]) -> Mapping[str, object]:
        """Handle a slash command; return an ephemeral message, or {}."""
        if missing := [name for name in _REQUIRED if not command.get(name)]:
            log.warning("Cannot read a command: %s is missing", ", ".join(missing))
            answer = CommandAnswer(ParleyError.apology)
        elif command.get("command") == PARLEY:
            answer = await self._parley.on_command(command)
        else:
            answer = CommandAnswer(await self._ask.on_command(command))
        return {**answer.message(), "response_type": "ephemeral"} if answer.text else {}

    async def on_command_text(
        self, words: str, *, id_: str, channel: str, thread: str, user: str
    ) -> Mapping[str, object]:
        """Handle the text after `/parley` in a message; return an ephemeral message, or {}.

        Slack takes no commands in threads.
        """
        answer = await self._parley.carry_out(
            words, id_=id_, location=CommandLocation(channel, thread), user=user
        )
        return answer.message() if answer.text else {}

    async def on_press(self, body: Body) -> bool:
        """Handle a press of a command's button; False for other buttons."""
        return await self._parley.on_press(body)

    async def on_shortcut(self, body: Body) -> None:
        """Handle an entry in the menu of a message."""
        await self._shortcuts.on_shortcut(body)

    async def on_submit(self, body: Body) -> Mapping[str, object]:
        """Handle a submitted form; return the response action."""
        view = body.get("view")
        if isinstance(view, dict) and view.get("callback_id") == QUESTION_ID:
            return await self._shortcuts.on_submit(body)
        return await self._parley.on_submit(body)

    def on_home(self, event: Body) -> None:
        """Update an opened tab of the app's home."""
        self._home.on_opened(event)
