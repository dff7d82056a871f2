"""Questions by command: each is posted as a message, and a turn is admitted under it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

from adapters.slack.commands.calls import in_time
from adapters.slack.errors import NotInvited, translated
from adapters.slack.manifest import ASKED_EVENT
from adapters.slack.reply.status import show_waiting
from adapters.slack.workspace import Workspace
from bot.commands.handlers import excuse
from bot.domain import ContextMessage, Person, Turn
from bot.errors import ParleyError, SurfaceError
from bot.intake.intake import Intake
from bot.languages import say
from bot.text.sanitize import escape_markup, strip_controls

log = logging.getLogger(__name__)

# Slack splits a message of more than 4000 characters (slackapi/java-slack-sdk, issue 704).
_MOST_SHOWN = 3000  # characters of the question in the channel


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandQuestion:
    """A question that has to be posted first; `id` is the id of its turn.

    It is posted in `thread`, or starts a new thread, with `text` or `summary`, a
    sentence with `{name}`. `name`
    is used if Slack reports no name. `team` is the person's workspace.
    """

    id: str
    user: str
    channel: str
    name: str = ""
    text: str = ""
    thread: str = ""
    summary: str = ""
    team: str = ""
    where: str = ""
    quote: ContextMessage | None = None
    context: tuple[ContextMessage, ...] | None = None


class AskCommand:
    """Answers the command within 3 s: Slack waits no longer, and does not retry it."""

    def __init__(self, workspace: Workspace, intake: Intake) -> None:
        self._workspace = workspace
        self._identity = workspace.identity
        self._directory = workspace.directory
        self._intake = intake

    async def on_command(self, command: Mapping[str, str]) -> str:
        """Post the question and admit its turn; return a notice for the person, usually empty."""
        # Slack sends these instead of the names of a DM and a private channel (field).
        channel = command.get("channel_name", "")
        has_name = channel not in ("", "directmessage", "privategroup")
        where = (f"#{channel}" if has_name else "", self._identity.team_name)
        return await self.ask(
            CommandQuestion(
                id=f"slack:{self._identity.team}:cmd:{command['trigger_id']}",
                user=command["user_id"],
                name=command.get("user_name", ""),
                channel=command["channel_id"],
                text=command.get("text", ""),
                team=command.get("team_id", ""),
                where=" of ".join(filter(None, where)),
            )
        )

    async def ask(self, asked: CommandQuestion) -> str:
        """Post a question and admit its turn; return a notice for the person, usually empty."""
        try:
            return await in_time(self._ask(asked), self._workspace.limits.command_answered_within)
        except NotInvited:
            return self.not_a_member
        except ParleyError as error:
            log.info("Command in %s refused: %r", asked.channel, error)
            return excuse(error)

    @property
    def not_a_member(self) -> str:
        """The notice for a channel of which the bot is not a member."""
        absent = (
            "I am not a member here. Invite me with {words} and ask again, or write to me directly."
        )
        return say(absent, words=f"`/invite @{self._identity.name}`")

    async def _ask(self, asked: CommandQuestion) -> str:
        text, name = await asyncio.gather(
            self._directory.readable(asked.text, bot=self._identity.user),
            self._directory.name(asked.user),
        )
        if not text:
            return say("Ask me something: `/ask why is the sky blue?`")
        if name == asked.user:
            name = asked.name or name
        person, asked = Person(asked.user, name, self._identity.team), replace(asked, text=text)
        # Posting a question and deleting it again would use writes of the channel.
        await self._intake.check_room(self._turn(person, asked, ts=""))
        posting = asyncio.create_task(self._post(person, asked))
        admitted = False
        try:
            # Shielded, because a message that is posted late has to be deleted.
            turn = self._turn(person, asked, ts=await asyncio.shield(posting))
            admitted = await self._intake.ask(turn)
            self._workspace.signs.start(show_waiting(self._workspace, self._intake, turn))
        finally:
            if not admitted:
                self._workspace.jobs.start(self._withdraw(posting, channel=asked.channel))
        return ""

    async def _withdraw(self, posting: asyncio.Task[str], *, channel: str) -> None:
        try:
            ts = await posting
            async with translated():
                await self._workspace.client.chat_delete(channel=channel, ts=ts)
        except SurfaceError as error:
            log.debug("No question to delete in %s: %s", channel, error)

    async def _post(self, person: Person, asked: CommandQuestion) -> str:
        text = asked.text if len(asked.text) <= _MOST_SHOWN else f"{asked.text[:_MOST_SHOWN]}…"
        question = say(asked.summary or "{name} asks: {text}", name=person.name, text=text)
        async with translated():
            answer = await self._workspace.client.chat_postMessage(
                channel=asked.channel,
                thread_ts=asked.thread or None,
                text=escape_markup(strip_controls(question)),
                # The bot is the author, so the asker is recorded in the metadata.
                metadata={"event_type": ASKED_EVENT, "event_payload": {"user": person.id}},
                parse="none",
                unfurl_links=False,
                unfurl_media=False,
            )
        return str(answer["ts"])

    def _turn(self, person: Person, asked: CommandQuestion, *, ts: str) -> Turn:
        channel = asked.channel
        # A DM itself is one conversation.
        thread = asked.thread or ("" if channel.startswith("D") else ts)
        return Turn(
            id=asked.id,
            key=self._identity.key(channel, thread),
            person=person,
            text=asked.text,
            place=self._identity.place(channel, thread, question=ts, team=asked.team),
            asked_at=time.time(),
            where=asked.where or self._identity.team_name,
            zone=self._directory.zone(person.id),
            quote=asked.quote,
            context=asked.context,
            asker=self._identity.asker(channel, team=asked.team),
        )
