"""The slash command /ask: posts the question in the channel and admits a turn under it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Mapping
from typing import TypeVar

from adapters.slack.errors import NotInvited, translated
from adapters.slack.reply.status import show_waiting
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
        self._workspace = workspace
        self._identity = workspace.identity
        self._directory = workspace.directory
        self._intake = intake

    async def on_command(self, command: Mapping[str, str]) -> str:
        """Post the question and admit its turn; return a notice for the person, mostly empty."""
        arrived = asyncio.get_running_loop().time()
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
        try:
            await self._ask(person, text, command=command, arrived=arrived)
        except NotInvited:
            return (
                f"I am not a member here. Invite me with `/invite @{self._identity.name}` and ask "
                "again, or write to me directly."
            )
        except ParleyError as error:
            log.info("A command in %s was not admitted: %r", command["channel_id"], error)
            return error.apology
        return ""

    async def _ask(
        self, person: Person, text: str, *, command: Mapping[str, str], arrived: float
    ) -> None:
        posted_by = arrived + self._workspace.limits.question_posted_within
        admitted_by = arrived + self._workspace.limits.command_answered_within
        store_is_late = StoreUnavailable("the store did not answer in time")
        # A question that is posted and deleted again would use up writes of the channel.
        room = self._intake.check_room(self._turn(person, text, command=command, ts=""))
        await _in_time(room, by=posted_by, late=store_is_late)
        shown = text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}…"
        channel = command["channel_id"]
        posting = asyncio.create_task(self._post(channel, f"{person.name} asks: {shown}"))
        admitted = False
        try:
            # Shielded, because a message that is posted late has to be deleted.
            late = WriteFailed("the question was not posted in time")
            ts = await _in_time(asyncio.shield(posting), by=posted_by, late=late)
            turn = self._turn(person, text, command=command, ts=ts)
            admission = self._intake.admit(turn)
            admitted = await _in_time(admission, by=admitted_by, late=store_is_late)
            self._workspace.signs.start(show_waiting(self._workspace, self._intake, turn))
        finally:
            if not admitted:
                self._workspace.jobs.start(self._withdraw(posting, channel=channel))

    async def _withdraw(self, posting: asyncio.Task[str], *, channel: str) -> None:
        try:
            ts = await posting
            async with translated():
                await self._workspace.client.chat_delete(channel=channel, ts=ts)
        except SurfaceError as error:
            log.debug("No question to delete in %s: %s", channel, error)

    async def _name(self, command: Mapping[str, str]) -> str:
        name = await self._directory.name(command["user_id"])
        return command.get("user_name", name) if name == command["user_id"] else name

    async def _post(self, channel: str, question: str) -> str:
        async with translated():
            answer = await self._workspace.client.chat_postMessage(
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
            key=ThreadKey("slack", team, channel, ts or channel),
            person=person,
            text=text,
            place={"channel": channel, "thread": ts, "question": ts, **asker},
            asked_at=time.time(),
            where=self._where(command),
            zone=self._directory.zone(person.id),
            asker=self._identity.asker(channel, team=command.get("team_id", "")),
        )

    def _where(self, command: Mapping[str, str]) -> str:
        # Instead of their names, Slack sends these for a DM and a private channel (field).
        name, workspace = command.get("channel_name", ""), self._identity.team_name
        has_name = name not in ("", "directmessage", "privategroup")
        return " of ".join(filter(None, (f"#{name}" if has_name else "", workspace)))


async def _in_time(request: Awaitable[_T], *, by: float, late: ParleyError) -> _T:
    try:
        async with asyncio.timeout_at(by):
            return await request
    except TimeoutError as error:
        raise late from error
