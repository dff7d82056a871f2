"""The slash command /ask: posts the question in the channel and admits a turn under it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Mapping
from typing import TypeVar

from adapters.slack.errors import NotInvited, translated
from adapters.slack.workspace import Workspace
from bot.domain import Person, ThreadKey, Turn
from bot.errors import ParleyError, StoreUnavailable, SurfaceError, WriteFailed
from bot.text.sanitize import escape_markup
from bot.turns.intake import Intake

log = logging.getLogger(__name__)

_T = TypeVar("_T")
_REQUIRED = ("user_id", "channel_id", "trigger_id")
# Slack splits a message of more than 4000 characters (slackapi/java-slack-sdk, issue 704).
_MOST_SHOWN = 3000  # characters of the question in the channel


class AskCommand:
    """Answers the command itself within 3 s: Slack waits no longer, and never sends it again."""

    def __init__(self, workspace: Workspace, intake: Intake) -> None:
        self._client = workspace.client
        self._identity = workspace.identity
        self._directory = workspace.directory
        self._jobs = workspace.jobs
        self._limits = workspace.limits
        self._intake = intake

    async def on_command(self, command: Mapping[str, str]) -> str:
        """Post the question and admit its turn; return a notice for the person, mostly empty."""
        arrived = asyncio.get_running_loop().time()
        posted_by = arrived + self._limits.question_posted_within
        admitted_by = arrived + self._limits.command_answered_within
        if missing := [name for name in _REQUIRED if not command.get(name)]:
            log.warning("Cannot read a command: %s is missing", ", ".join(missing))
            return ParleyError.apology
        text, name = await asyncio.gather(
            self._directory.readable(command.get("text", ""), bot=self._identity.user),
            self._name(command),
        )
        if not text:
            return f"Ask me something: `{command['command']} why is the sky blue?`"
        person = Person(command["user_id"], name, self._identity.team)
        channel = command["channel_id"]
        try:
            # A question that is posted and deleted again would use up writes of the channel.
            await _stored(self._intake.check_room("slack", person), by=posted_by)
        except ParleyError as error:
            log.info("A command in %s was not admitted: %r", channel, error)
            return error.apology
        shown = text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}…"
        posting = asyncio.create_task(self._post(channel, f"{name} asks: {shown}"))
        admitted, notice = False, ""
        try:
            ts = await self._posted(posting, by=posted_by)
            turn = self._turn(person, text, command=command, ts=ts)
            admitted = await _stored(self._intake.admit(turn), by=admitted_by)
        except NotInvited:
            notice = (
                f"I am not a member here. Invite me with `/invite @{self._identity.name}` and ask "
                "again, or write to me directly."
            )
        except ParleyError as error:
            log.info("A command in %s was not admitted: %r", channel, error)
            notice = error.apology
        finally:
            if not admitted:
                self._jobs.start(self._withdraw(posting, channel=channel))
        return notice

    async def _posted(self, posting: asyncio.Task[str], *, by: float) -> str:
        try:
            async with asyncio.timeout_at(by):
                # Shielded, because a message that is posted late has to be deleted.
                return await asyncio.shield(posting)
        except TimeoutError as error:
            raise WriteFailed("the question was not posted in time") from error

    async def _withdraw(self, posting: asyncio.Task[str], *, channel: str) -> None:
        try:
            ts = await posting
            async with translated():
                await self._client.chat_delete(channel=channel, ts=ts)
        except SurfaceError as error:
            log.debug("No question to delete in %s: %s", channel, error)

    async def _name(self, command: Mapping[str, str]) -> str:
        name = await self._directory.name(command["user_id"])
        return command.get("user_name", name) if name == command["user_id"] else name

    async def _post(self, channel: str, question: str) -> str:
        async with translated():
            answer = await self._client.chat_postMessage(
                channel=channel,
                text=escape_markup(question),
                parse="none",
                unfurl_links=False,
                unfurl_media=False,
            )
        return str(answer["ts"])

    def _turn(self, person: Person, text: str, *, command: Mapping[str, str], ts: str) -> Turn:
        team, channel = self._identity.team, command["channel_id"]
        asker = self._identity.place_of(command.get("team_id", ""))
        return Turn(
            id=f"slack:{team}:cmd:{command['trigger_id']}",
            key=ThreadKey("slack", team, channel, ts),
            person=person,
            text=text,
            place={"channel": channel, "thread": ts, "question": ts, **asker},
            asked_at=time.time(),
        )


async def _stored(request: Awaitable[_T], *, by: float) -> _T:
    try:
        async with asyncio.timeout_at(by):
            return await request
    except TimeoutError as error:
        raise StoreUnavailable("the store did not answer in time") from error
