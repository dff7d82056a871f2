"""The Home tab, and the suggested prompts of the Messages tab."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Coroutine, Mapping
from typing import Any

from adapters.slack.commands import views
from adapters.slack.commands.calls import CommandLocation, Permissions, RightsUnknown
from adapters.slack.commands.views import Block, ViewContext
from adapters.slack.errors import translated
from adapters.slack.manifest import PROMPTS
from adapters.slack.reading import string_field
from adapters.slack.workspace import Workspace
from bot.commands.handlers import Call, CommandHandlers, NotOffered, excuse
from bot.errors import ParleyError, SurfaceError
from bot.languages import say, speak

log = logging.getLogger(__name__)

_GREETING = "Hello! Ask me something, or begin with one of these."


class Home:
    """Updates opened tabs in the background; failures are logged."""

    def __init__(
        self, workspace: Workspace, handlers: CommandHandlers, permissions: Permissions
    ) -> None:
        self._workspace = workspace
        self._client = workspace.client
        self._handlers = handlers
        self._permissions = permissions

    def on_opened(self, event: Mapping[str, object]) -> None:
        """Update the tab that a person has opened (docs: app_home_opened)."""
        user, channel = string_field(event, "user"), string_field(event, "channel")
        if event.get("tab") == "home":
            self.show(user, channel)
        elif event.get("tab") == "messages":
            self._workspace.jobs.start(self._guarded(self._suggest(user, channel)))

    def show(self, user: str, channel: str) -> None:
        """Refresh a person's Home tab; `channel` is the DM."""
        self._workspace.jobs.start(self._guarded(self._publish(user, CommandLocation(channel))))

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except SurfaceError as error:
            log.warning("Cannot fill a tab of the app's home: %s", error)

    async def _suggest(self, user: str, channel: str) -> None:
        """Suggest questions, with a greeting; for an agent, without a thread (docs)."""
        speak(await self._workspace.directory.language(user))
        prompts = [
            {"title": say(title), "message": say(message)}
            for title, message in self._workspace.prompts or PROMPTS
        ]
        async with translated():
            await self._client.assistant_threads_setSuggestedPrompts(
                channel_id=channel, title=say(_GREETING), prompts=prompts
            )

    async def _publish(self, user: str, location: CommandLocation) -> None:
        id_ = f"slack:home:{user}"
        speak(await self._workspace.directory.language(user))
        try:
            call = await self._permissions.call_with_rights(id_, location, user)
        except RightsUnknown as error:
            log.info("Cannot read the rights of %s, the Home tab has no forms: %s", user, error)
            call = self._permissions.call(id_, location, user)
        view = {
            "type": "home",
            "private_metadata": ViewContext(location).written(),
            "blocks": await self._blocks(call, location),
        }
        async with translated():
            await self._client.views_publish(user_id=user, view=view)

    async def _blocks(self, call: Call, location: CommandLocation) -> list[Block]:
        here = self._permissions.help_context(location)
        buttons: list[Block] = []

        async def settings() -> str:
            overview = await self._handlers.overview(call)
            buttons.extend(views.overview_blocks(overview))
            return overview.text

        return [
            *await _titled(say("What I can do"), self._handlers.help(call, here)),
            *await _titled(say("What you have used"), self._handlers.run("usage", call)),
            *await _titled(say("Settings"), settings()),
            *buttons,
        ]


async def _titled(title: str, work: Awaitable[str]) -> list[Block]:
    """Return a text or its apology below a title; nothing if it is not offered."""
    try:
        text = await work
    except NotOffered:
        return []
    except ParleyError as error:
        text = excuse(error)
    header: Block = {"type": "header", "text": {"type": "plain_text", "text": title}}
    return [header, *map(views.section, text.split("\n\n"))]
