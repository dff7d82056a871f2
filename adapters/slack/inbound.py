"""Slack's events, as turns."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass

from slack_sdk.web.async_client import AsyncWebClient

from adapters.slack.errors import translated
from adapters.slack.identity import Identity
from adapters.slack.people import People
from bot.domain import Person, ThreadKey, Turn
from bot.errors import Refused, SurfaceError
from bot.guard import escape_markup
from bot.intake import Intake

log = logging.getLogger(__name__)

HELP = "Ask me something: I read what you write in the message that mentions me, or in a DM."

_SPOKEN = {None, "file_share", "thread_broadcast"}  # the subtypes in which somebody says something
_SLACKBOT = "USLACKBOT"
_REMEMBERED = 1000  # threads

Event = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Said:
    """What somebody said to us; `thread` is empty at the top level of a channel or DM."""

    channel: str
    user: str
    text: str
    ts: str
    thread: str
    files: tuple[str, ...]
    direct: bool

    @property
    def place(self) -> str:
        """The thread that takes the reply: empty at the top level of a DM."""
        return self.thread or ("" if self.direct else self.ts)


class Inbound:
    """Turns what people do in Slack into calls of the intake.

    A method that returns has stored what there was to store. Raises StoreUnavailable.
    """

    def __init__(
        self, client: AsyncWebClient, *, identity: Identity, people: People, intake: Intake
    ) -> None:
        self._client = client
        self._identity = identity
        self._people = people
        self._intake = intake
        # The last turn of each thread: Slack tells only the thread when its own stop is pressed.
        self._latest: dict[tuple[str, str], str] = {}

    async def on_event(self, event: Event) -> None:
        """Take an event of the Events API, subscribed to or not."""
        match event:
            case {"type": "message", "subtype": "message_deleted", "deleted_ts": str(ts)}:
                await self._intake.forget(self._turn_id(_word(event, "channel"), ts))
            # What has replies is not deleted but buried under a tombstone.
            case {
                "type": "message",
                "subtype": "message_changed",
                "message": {"subtype": "tombstone", "ts": str(ts)},
            }:
                await self._intake.forget(self._turn_id(_word(event, "channel"), ts))
            case {"type": "app_mention" | "message"}:
                if spoken := said(event, identity=self._identity):
                    await self._on_said(spoken)
            case {"type": "agent_session_stopped"}:
                await self._on_session_stopped(event)
            case {"type": "app_uninstalled" | "tokens_revoked" as happened}:
                log.warning("Slack says %s: this workspace gets no more replies", happened)

    async def on_stop(self, turn_id: str) -> None:
        """Take a press of the Stop button."""
        await self._intake.stop(turn_id)

    async def _on_said(self, spoken: Said) -> None:
        text, name = await asyncio.gather(self._question(spoken), self._people.name(spoken.user))
        if not text:
            await self._tell(spoken, HELP)
            return
        turn = Turn(
            id=self._turn_id(spoken.channel, spoken.ts),
            key=ThreadKey(
                "slack", self._identity.team, spoken.channel, spoken.place or spoken.channel
            ),
            person=Person(spoken.user, name),
            text=text,
            place={
                "channel": spoken.channel,
                "thread": spoken.place or None,
                "question": spoken.ts,
            },
            asked_at=float(spoken.ts),
        )
        try:
            await self._intake.admit(turn)
        except Refused as refused:
            await self._apologise(spoken, refused.apology)
        else:
            self._remember(turn.id, spoken)

    async def _question(self, spoken: Said) -> str:
        text = await self._people.readable(spoken.text, bot=self._identity.user)
        files = [f"[file: {name}]" for name in spoken.files]
        return "\n".join(part for part in (text, *files) if part)

    async def _on_session_stopped(self, event: Event) -> None:
        where = (_word(event, "channel"), _word(event, "thread_ts"))
        if turn_id := self._latest.get(where):
            await self._intake.stop(turn_id)

    async def _apologise(self, spoken: Said, apology: str) -> None:
        if spoken.direct:
            await self._tell(spoken, apology)
            return
        try:
            async with translated():
                # In a thread that nobody has opened yet an ephemeral message is not shown.
                await self._client.chat_postEphemeral(
                    channel=spoken.channel,
                    user=spoken.user,
                    thread_ts=spoken.thread or None,
                    text=escape_markup(apology),
                )
        except SurfaceError as error:
            log.warning("an apology was not shown: %s", error)

    async def _tell(self, spoken: Said, words: str) -> None:
        try:
            async with translated():
                await self._client.chat_postMessage(
                    channel=spoken.channel,
                    thread_ts=spoken.place or None,
                    text=escape_markup(words),
                )
        except SurfaceError as error:
            log.warning("a word to a person was not shown: %s", error)

    def _remember(self, turn_id: str, spoken: Said) -> None:
        where = (spoken.channel, spoken.place)
        self._latest.pop(where, None)
        while len(self._latest) >= _REMEMBERED:
            del self._latest[next(iter(self._latest))]
        self._latest[where] = turn_id

    def _turn_id(self, channel: str, ts: str) -> str:
        return f"slack:{self._identity.team}:{channel}:{ts}"


def said(event: Event, *, identity: Identity) -> Said | None:
    """Return what a person said to us with an app_mention or message event; None if nothing.

    A mention in a channel arrives as both, with one `ts`: there the `message` is left alone.
    """
    user = _word(event, "user")
    if event.get("subtype") not in _SPOKEN or "bot_id" in event:
        return None
    if user in ("", _SLACKBOT, identity.user):
        return None
    text = _word(event, "text")
    channel = _word(event, "channel")
    kind = _word(event, "channel_type")
    direct = kind == "im" or channel.startswith("D")
    # Slack's documentation leaves open whether a mention in a group DM is an app_mention too.
    mentioned = event["type"] == "app_mention" or (kind == "mpim" and f"<@{identity.user}" in text)
    if not direct and not mentioned:
        return None
    return Said(
        channel=channel,
        user=user,
        text=text,
        ts=_word(event, "ts"),
        thread=_word(event, "thread_ts"),
        files=_files(event),
        direct=direct,
    )


def _files(event: Event) -> tuple[str, ...]:
    files = event.get("files")
    listed = files if isinstance(files, list) else []
    names = (file.get("name") for file in listed if isinstance(file, dict))
    return tuple(name for name in names if isinstance(name, str))


def _word(event: Event, name: str) -> str:
    value = event.get(name)
    return value if isinstance(value, str) else ""
