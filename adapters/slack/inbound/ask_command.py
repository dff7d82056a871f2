"""The slash command /ask: its question in the channel, and a turn under it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping

from slack_sdk.web.async_client import AsyncWebClient

from adapters.slack.errands import Errands
from adapters.slack.errors import NotInvited, translated
from adapters.slack.identity import Identity
from adapters.slack.inbound.events import team_in_place
from adapters.slack.people import People
from bot.domain import Person, ThreadKey, Turn
from bot.errors import ParleyError, StoreUnavailable, SurfaceError, WriteFailed
from bot.text.sanitize import escape_markup
from bot.turns.intake import Intake

log = logging.getLogger(__name__)

# Slack waits 3 s for the answer to a command, and never asks again.
_QUESTION_BY, _ADMITTED_BY = 2.0, 2.6  # seconds after the command came
_NEEDED = ("user_id", "channel_id", "trigger_id")
# Slack splits a message of more than 4000 characters (slackapi/java-slack-sdk, issue 704).
_SHOWN = 3000  # characters of a question that are shown


class AskCommand:
    """Answers the command itself: every word of it is for the asker alone."""

    def __init__(
        self,
        client: AsyncWebClient,
        *,
        identity: Identity,
        people: People,
        intake: Intake,
        errands: Errands,
    ) -> None:
        self._client = client
        self._identity = identity
        self._people = people
        self._intake = intake
        self._errands = errands

    async def on_command(self, command: Mapping[str, str]) -> str:
        """Post the question and admit its turn; return words for the asker, mostly none."""
        came_at = asyncio.get_running_loop().time()
        if missing := [name for name in _NEEDED if not command.get(name)]:
            log.warning("a command cannot be read: it has no %s", ", ".join(missing))
            return ParleyError.apology
        text, name = await asyncio.gather(
            self._people.readable(command.get("text", ""), bot=self._identity.user),
            self._name(command),
        )
        if not text:
            return f"Ask me something: `{command['command']} why is the sky blue?`"
        person = Person(command["user_id"], name, self._identity.team)
        channel = command["channel_id"]
        try:
            await self._check_room(person, by=came_at + _QUESTION_BY)
        except ParleyError as error:
            log.info("a command was not admitted: %r", error)
            return error.apology
        shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
        posting = asyncio.create_task(self._post(channel, f"{name} asks: {shown}"))
        admitted, words = False, ""
        try:
            ts = await self._posted(posting, by=came_at + _QUESTION_BY)
            turn = self._turn(person, text, command=command, ts=ts)
            admitted = await self._admit(turn, by=came_at + _ADMITTED_BY)
        except NotInvited:
            words = self._invitation
        except ParleyError as error:
            log.info("a command was not admitted: %r", error)
            words = error.apology
        finally:
            if not admitted:
                self._errands.start(self._withdraw(posting, channel=channel))
        return words

    async def _check_room(self, person: Person, *, by: float) -> None:
        # Posting what is refused, and deleting it, takes the channel's writes from answers.
        try:
            async with asyncio.timeout_at(by):
                await self._intake.check_room("slack", person)
        except TimeoutError as error:
            raise StoreUnavailable("the store does not answer in time") from error

    async def _posted(self, posting: asyncio.Task[str], *, by: float) -> str:
        try:
            async with asyncio.timeout_at(by):
                # Shielded: a message that comes late is to be found and deleted.
                return await asyncio.shield(posting)
        except TimeoutError as error:
            raise WriteFailed("the question was not posted in time") from error

    async def _withdraw(self, posting: asyncio.Task[str], *, channel: str) -> None:
        # Whenever the question stands there, if ever.
        try:
            ts = await posting
            async with translated():
                await self._client.chat_delete(channel=channel, ts=ts)
        except SurfaceError as error:
            log.debug("there was no question to take back: %s", error)

    @property
    def _invitation(self) -> str:
        return (
            f"I am no member here. Invite me with `/invite @{self._identity.name}` and ask again, "
            "or write to me directly."
        )

    async def _name(self, command: Mapping[str, str]) -> str:
        name = await self._people.name(command["user_id"])
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
        asker = team_in_place(command.get("team_id", ""), identity=self._identity)
        return Turn(
            id=f"slack:{team}:cmd:{command['trigger_id']}",
            key=ThreadKey("slack", team, channel, ts),
            person=person,
            text=text,
            place={"channel": channel, "thread": ts, "question": ts, **asker},
            asked_at=time.time(),
        )

    async def _admit(self, turn: Turn, *, by: float) -> bool:
        try:
            async with asyncio.timeout_at(by):
                return await self._intake.admit(turn)
        except TimeoutError as error:
            raise StoreUnavailable("admission took too long") from error
