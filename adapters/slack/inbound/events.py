"""Slack's events, as turns."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass

from slack_sdk.web.async_client import AsyncWebClient

from adapters.slack.errands import Errands
from adapters.slack.errors import translated
from adapters.slack.identity import Identity
from adapters.slack.inbound.brought import brought, file_names
from adapters.slack.people import People
from bot.domain import Json, Person, ThreadKey, Turn
from bot.errors import (
    HasEnded,
    NothingAsked,
    NotRemembered,
    Refused,
    StoreUnavailable,
    SurfaceError,
)
from bot.text.sanitize import escape_markup
from bot.turns.intake import Intake

log = logging.getLogger(__name__)

HELP = "Ask me something: I read what you write in the message that mentions me, or in a DM."

# The subtypes in which somebody says something; "me_message" is what /me makes.
_SPOKEN = (None, "file_share", "me_message", "thread_broadcast")
_SLACK_ITSELF = ("USLACKBOT", "USLACK")  # the latter writes notices into DMs (field)
_REMEMBERED = 1000  # words to people
_TELLING = 100  # of them that are on their way at once; further ones are dropped
_TS = re.compile(r"\d{1,12}\.\d{1,9}", re.ASCII)

Event = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Said:
    """What somebody said to us; `thread` is empty at the top level of a channel or DM.

    `edited` tells when the message was changed last, and is empty where it never was. `team` is the
    person's workspace, empty if Slack names none.
    """

    channel: str
    user: str
    text: str
    ts: str
    thread: str
    files: tuple[str, ...]
    direct: bool
    edited: str = ""
    team: str = ""

    @property
    def id(self) -> str:
        """The message as it reads now, unique in the workspace."""
        return f"{self.channel}:{self.ts}:{self.edited}"

    @property
    def place(self) -> str:
        """The thread that takes the reply: empty at the top level of a DM."""
        return self.thread or ("" if self.direct else self.ts)


@dataclass(frozen=True, slots=True)
class Press:
    """A button that somebody pressed; `thread` is empty at the top level of a DM.

    `id` is the same however often Slack tells of the press.
    """

    id: str
    channel: str
    user: str
    thread: str
    turn_id: str


class Inbound:
    """Turns what people do in Slack into calls of the intake.

    A method that returns has stored what there was to store. Raises StoreUnavailable. `note` is
    told the channel of each question that was taken, and the thread, empty at the top level of a
    DM.
    """

    def __init__(
        self,
        client: AsyncWebClient,
        *,
        identity: Identity,
        people: People,
        intake: Intake,
        errands: Errands,
        note: Callable[[str, str], None],
    ) -> None:
        self._client = client
        self._identity = identity
        self._people = people
        self._intake = intake
        self._errands = errands
        self._note = note
        # The messages, as they then read, whose authors got a word instead of a turn: Slack tells
        # of an edited mention anew, and by then it may be a question. Another process knows nothing
        # of them: an event that Slack tells there again gets its word again.
        self._told: dict[str, None] = {}
        self._telling = asyncio.Semaphore(_TELLING)

    async def on_event(self, event: Event) -> None:
        """Take an event of the Events API, subscribed to or not."""
        match event:
            case {"type": "message", "subtype": "message_deleted", "deleted_ts": str(ts)}:
                await self._forget(event, ts)
            # What has replies is not deleted but buried under a tombstone.
            case {
                "type": "message",
                "subtype": "message_changed",
                "message": {"subtype": "tombstone", "ts": str(ts)},
            }:
                await self._forget(event, ts)
            case {"type": "app_mention" | "message"}:
                if spoken := said(event, identity=self._identity):
                    await self._on_said(spoken)
            case {"type": "agent_session_stopped"}:
                # Slack tells the thread, and no message where nothing streamed yet.
                thread = self._key(_word(event, "channel"), _word(event, "thread_ts"))
                await self._intake.stop_thread(thread)
            case {"type": "app_uninstalled" | "tokens_revoked" as happened}:
                log.warning("Slack says %s: this workspace gets no more replies", happened)

    async def on_stop(self, press: Press) -> None:
        """Take a press of the Stop button; where it leads to nothing, say why."""
        await self._answered(press, self._end(press))

    async def on_regenerate(self, press: Press) -> None:
        """Take a press of the Regenerate button; where it leads to nothing, say why."""
        await self._answered(press, self._begin_anew(press))

    async def _forget(self, event: Event, ts: str) -> None:
        before = event.get("previous_message")
        # No question is ours, or anybody's app's. An upload of a person has a `bot_id` of null.
        if not _TS.fullmatch(ts) or (isinstance(before, dict) and before.get("bot_id")):
            return
        turn_id = self._turn_id(_word(event, "channel"), ts)
        await self._intake.forget(turn_id, asked_at=float(ts))

    async def _end(self, press: Press) -> None:
        if not (await self._is_of_its_place(press) and await self._intake.stop(press.turn_id)):
            raise HasEnded

    async def _begin_anew(self, press: Press) -> None:
        if not await self._is_of_its_place(press):
            raise NotRemembered
        await self._intake.regenerate(press.turn_id, person_id=press.user, press_id=press.id)

    async def _is_of_its_place(self, press: Press) -> bool:
        """Whether the turn is one of the channel in which the button was pressed.

        Slack vouches for the channel and for the person, who sees what is said there. Which turn
        the button names is for the person's client to say.
        """
        thread = await self._intake.thread_of_turn(press.turn_id)
        place = ("slack", self._identity.team, press.channel)
        return thread is not None and (thread.platform, thread.workspace, thread.channel) == place

    async def _answered(self, press: Press, asked: Coroutine[None, None, None]) -> None:
        try:
            await asked
        except (Refused, StoreUnavailable) as error:
            self._errands.start(self._shown(self._whisper(press, escape_markup(error.apology))))

    async def _on_said(self, spoken: Said) -> None:
        if spoken.id in self._told:
            return
        text, name = await asyncio.gather(self._question(spoken), self._name(spoken))
        turn = Turn(
            id=self._turn_id(spoken.channel, spoken.ts),
            key=self._key(spoken.channel, spoken.place),
            person=Person(spoken.user, name or spoken.user, self._identity.team),
            text=text,
            place={
                "channel": spoken.channel,
                "thread": spoken.place or None,
                "question": spoken.ts,
                **team_in_place(spoken.team, identity=self._identity),
            },
            asked_at=float(spoken.ts),
        )
        try:
            await self._intake.admit(turn)
        except Refused as refused:
            if refused.repeated:
                return
            if isinstance(refused, NothingAsked):
                self._tell(spoken, HELP)
            else:
                self._tell(spoken, refused.apology, alone=True)
        else:
            self._note(spoken.channel, spoken.place)
            if not name and not spoken.direct:
                self._errands.start(self._call(turn))

    async def _name(self, spoken: Said) -> str:
        """Return what the person is called; empty where that is not known and may come later.

        Names tell several speakers apart: nobody waits for one where only one person has spoken.
        """
        if spoken.direct or not spoken.thread:
            return self._people.known(spoken.user)
        return await self._people.name(spoken.user)

    async def _call(self, turn: Turn) -> None:
        name = await self._people.name(turn.person.id)
        try:
            await self._intake.call(turn.key, Person(turn.person.id, name))
        except StoreUnavailable as error:
            log.warning("a person's name is not remembered: %s", error)

    async def _question(self, spoken: Said) -> str:
        text = await self._people.readable(spoken.text, bot=self._identity.user)
        files = [f"[file: {name}]" for name in spoken.files]
        return "\n".join(part for part in (text, *files) if part)

    def _tell(self, spoken: Said, words: str, *, alone: bool = False) -> None:
        """Say something once to who wrote, and to nobody else if `alone` and in a channel."""
        if spoken.id in self._told:
            return
        while len(self._told) >= _REMEMBERED:
            del self._told[next(iter(self._told))]
        self._told[spoken.id] = None
        post = self._whisper if alone and not spoken.direct else self._post
        # Beside the acknowledgement: a slow post would be reason enough to tell us again.
        self._errands.start(self._shown(post(spoken, escape_markup(words))))

    async def _shown(self, post: Coroutine[None, None, None]) -> None:
        if self._telling.locked():
            post.close()
            log.info("A word to a person is dropped: too many are on their way")
            return
        try:
            async with self._telling, translated():
                await post
        except SurfaceError as error:
            log.warning("a word to a person was not shown: %s", error)

    async def _whisper(self, to: Said | Press, text: str) -> None:
        await self._client.chat_postEphemeral(
            channel=to.channel,
            user=to.user,
            # In a thread that nobody has opened yet an ephemeral message is not shown.
            thread_ts=to.thread or None,
            text=text,
        )

    async def _post(self, spoken: Said, text: str) -> None:
        await self._client.chat_postMessage(
            channel=spoken.channel, thread_ts=spoken.place or None, text=text
        )

    def _key(self, channel: str, place: str) -> ThreadKey:
        return ThreadKey("slack", self._identity.team, channel, place or channel)

    def _turn_id(self, channel: str, ts: str) -> str:
        return f"slack:{self._identity.team}:{channel}:{ts}"


def said(event: Event, *, identity: Identity) -> Said | None:
    """Return what a person said to us with an app_mention or message event; None if nothing.

    A mention in a channel arrives as both, with one `ts`: there the `message` is left alone. It
    arrives again, as a mention alone, when it is edited (slackapi/bolt-js issue 960).
    A person's upload has a `bot_id` too, which is null (docs: file_share).
    """
    user = _word(event, "user")
    if event.get("subtype") not in _SPOKEN or event.get("bot_id"):
        return None
    if user in ("", *_SLACK_ITSELF, identity.user):
        return None
    text = _word(event, "text")
    channel = _word(event, "channel")
    kind = _word(event, "channel_type")
    direct = kind == "im" or channel.startswith("D")
    # Slack's documentation leaves open whether a mention in a group DM is an app_mention too.
    mentioned = event["type"] == "app_mention" or (kind == "mpim" and f"<@{identity.user}" in text)
    if not direct and not mentioned:
        return None
    ts = _word(event, "ts")
    if not channel or not _TS.fullmatch(ts):
        # It would not read better if Slack told it again.
        log.warning("a message cannot be read: it has no channel or no ts")
        return None
    return Said(
        channel=channel,
        user=user,
        text="\n".join(part for part in (text, brought(event)) if part),
        ts=ts,
        thread=_word(event, "thread_ts"),
        files=file_names(event.get("files")),
        direct=direct,
        edited=_edited(event),
        team=_team(event),
    )


def pressed(body: Event) -> Press | None:
    """Return what a block_actions payload tells of a button of a reply; None if nothing."""
    match body:
        case {
            "trigger_id": str(trigger),
            "user": {"id": str(user)},
            "container": {"channel_id": str(channel), **container},
            "actions": [{"value": str(turn_id)}],
        }:
            thread = container.get("thread_ts")
            place = thread if isinstance(thread, str) else ""
            return Press(f"slack:{trigger}", channel, user, place, turn_id)
        case _:
            return None


def team_in_place(team: str, *, identity: Identity) -> dict[str, Json]:
    """Return what a turn's place says of the workspace of its person: nothing if it is ours."""
    return {"team": team} if team not in ("", identity.team) else {}


def _team(event: Event) -> str:
    """Return the workspace of who speaks, in a channel that workspaces share.

    `user_team` may be an organisation (slack-bolt 1.30, `extract_actor_team_id`), which no stream
    takes for a team.
    """
    teams = (_word(event, name) for name in ("user_team", "source_team", "team"))
    return next((team for team in teams if team.startswith("T")), "")


def _edited(event: Event) -> str:
    match event:
        case {"edited": {"ts": str(ts)}}:
            return ts
    return ""


def _word(event: Event, name: str) -> str:
    value = event.get(name)
    return value if isinstance(value, str) else ""
