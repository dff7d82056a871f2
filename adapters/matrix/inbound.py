"""Hands what people do in rooms to the intake, and answers invitations."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from adapters.matrix.client import Event, path_of
from adapters.matrix.context import context_messages
from adapters.matrix.controls import Controls
from adapters.matrix.events import (
    NAME,
    USER,
    Said,
    as_it_stands,
    edited_event,
    event_id,
    mapping,
    reacted_to,
    redacted_event,
    time_of,
    to_said,
    turn_id,
)
from adapters.matrix.platform import MatrixPlatform
from adapters.matrix.rooms import Room, Rooms
from bot.cache import BoundedCache
from bot.concurrency import Backoff
from bot.domain import Asker, ContextMessage, Person, ThreadKey, Turn
from bot.errors import (
    MessageGone,
    NotAllowed,
    Refused,
    StoreUnavailable,
    SurfaceError,
    WriteDelayed,
    WriteFailed,
)
from bot.intake.addressed import Facts
from bot.intake.intake import Commanded, Intake, Received
from bot.languages import say

log = logging.getLogger(__name__)

_JOINS_AT_ONCE = 5
_MOST_INVITES = 1000  # in work; others are found at the next start
_JOIN_SECONDS = 60.0  # a room of another server takes its time
_JOIN_PAUSES = Backoff(first=2.0, longest=60.0)
_TRIES = 6
_ENCRYPTED = (
    "This room is encrypted, and I cannot read encrypted messages. "
    "Please invite me to a room without encryption."
)


@dataclass(frozen=True, slots=True)
class _Target:
    """The message to which another replies: who wrote it, and the thread in which it stands."""

    sender: str
    thread: str


class Inbound:
    """Handles the events of an account, each as often as it comes.

    Every method raises StoreUnavailable, and SurfaceError if the homeserver could not be asked.
    """

    def __init__(
        self, platform: MatrixPlatform, rooms: Rooms, intake: Intake, controls: Controls
    ) -> None:
        self._platform, self._jobs = platform, platform.jobs
        self._rooms, self._client = rooms, rooms.client
        self._intake, self._controls = intake, controls
        self._joins = asyncio.Semaphore(_JOINS_AT_ONCE)
        self._invites: set[str] = set()
        self._left: BoundedCache[str, bool] = BoundedCache()

    async def on_event(self, room: str, event: Event) -> None:
        """Handle an event of a room, of which nothing is certain but that it is an object."""
        self._rooms.note(room, event)
        sender, kind = event.get("sender"), event.get("type")
        if kind in ("m.room.encryption", "m.room.encrypted"):
            self._jobs.start(self._leave_encrypted(room))
        if not isinstance(sender, str) or not USER.fullmatch(sender):
            return
        if sender == self._client.user_id:
            return
        if kind == "m.room.message":
            await (self._on_edit if edited_event(event) else self._on_message)(room, event)
        elif kind == "m.reaction":
            await self._on_reaction(room, event, sender)
        elif kind == "m.room.redaction" and (gone := redacted_event(event)):
            await self._on_redaction(room, gone)

    async def on_joined(self, room: str) -> None:
        """Look at a room that the bot has joined."""
        self._rooms.drop(room)
        self._left.drop(room)
        if (await self._rooms.room(room)).is_encrypted:
            self._jobs.start(self._leave_encrypted(room))

    def on_left(self, room: str) -> None:
        """Forget a room."""
        self._rooms.drop(room)

    def on_state(self, room: str, event: Event) -> None:
        """Note how a room has changed."""
        self._rooms.note(room, event)

    def on_invite(self, room: str, state: Sequence[Event]) -> None:
        """Join a room in the background, or refuse the invitation."""
        for one in state:
            if one.get("type") == "m.room.member" and one.get("state_key") == self._client.user_id:
                inviter, direct = one.get("sender"), mapping(one, "content").get("is_direct")
                if not isinstance(inviter, str) or room in self._invites:
                    continue
                if len(self._invites) >= _MOST_INVITES:
                    log.warning("Too many invitations at once: that to %s waits", room)
                    continue
                self._invites.add(room)
                self._jobs.start(self._answer_invite(room, inviter, is_direct=direct is True))

    async def _answer_invite(self, room: str, inviter: str, *, is_direct: bool) -> None:
        try:
            for attempt in range(1, _TRIES + 1):
                pause = _JOIN_PAUSES.delay(attempt)
                try:
                    async with self._joins:
                        verb = await self._verdict(room, inviter, is_direct=is_direct)
                        path = path_of("rooms", room, verb)
                        await self._client.call("POST", path, body={}, timeout=_JOIN_SECONDS)
                except WriteDelayed as error:
                    pause = error.retry_after
                except (WriteFailed, StoreUnavailable) as error:
                    log.warning("Room %s: cannot answer the invitation yet: %s", room, error)
                else:
                    log.info("Room %s: %s, invited by %s", room, verb, inviter)
                    return
                await asyncio.sleep(pause)
        except SurfaceError as error:  # it was taken back, or the room is gone
            log.info("Room %s: the invitation of %s cannot be answered: %s", room, inviter, error)
        finally:
            self._invites.discard(room)

    async def _verdict(self, room: str, inviter: str, *, is_direct: bool) -> str:
        thread = ThreadKey(NAME, self._client.server, room, room)
        person, asker = Person(inviter, inviter), self._asker(inviter, is_direct=is_direct)
        try:
            await self._intake.access.check(thread, person, asker, called=False)
        except NotAllowed as refused:
            log.info("Room %s: %s may not invite the bot: %s", room, inviter, refused.rule)
            return "leave"
        return "join"

    async def _leave_encrypted(self, room: str) -> None:
        """Say once why the bot cannot stay, and leave."""
        if self._left.get(room):
            return
        self._left.put(room, True, seconds=60.0)
        content = {"msgtype": "m.notice", "body": say(_ENCRYPTED), "m.mentions": {}}
        try:
            await self._client.send(room, "m.room.message", "encrypted", content)
            await self._client.call("POST", path_of("rooms", room, "leave"), body={})
        except SurfaceError as error:  # the next message tries it again
            log.warning("Room %s is encrypted, and cannot be left: %s", room, error)
            self._left.drop(room)

    async def _on_message(self, room: str, event: Event) -> None:
        if said := to_said(room, event):
            await self._receive(said)

    async def _on_edit(self, room: str, event: Event) -> None:
        target, new = edited_event(event), mapping(mapping(event, "content"), "m.new_content")
        named = mapping(new, "m.mentions").get("user_ids")
        calls_bot = isinstance(named, list) and self._client.user_id in named
        is_known = calls_bot or await self._intake.lookup.thread_of_turn(turn_id(target))
        if not is_known and not (await self._rooms.room(room)).is_direct:
            return
        try:
            original = await self._client.event(room, target)
        except MessageGone:
            return
        # Synapse 1.163 lets anybody send an edit of anything.
        if original.get("sender") != event.get("sender"):
            return
        if mapping(original, "content") and (said := to_said(room, original, content=new)):
            await self._receive(said, edited_at=time_of(event))

    async def _on_reaction(self, room: str, event: Event, sender: str) -> None:
        target, key = reacted_to(event)
        reaction = event_id(event, "event_id")
        if target and reaction:
            where = await self._rooms.room(room)
            await self._controls.react(
                room=room,
                reaction=reaction,
                target=target,
                key=key,
                person=Person(sender, sender),
                asker=self._asker(sender, is_direct=where.is_direct),
            )

    async def _on_redaction(self, room: str, gone: str) -> None:
        """Forget a question, an answer, or what a prompt has shown of others.

        The homeserver hands out only redactions of people who may delete that event.
        """
        turn, lookup = turn_id(gone), self._intake.lookup
        was_asked, is_ours = await lookup.thread_of_turn(turn), await lookup.thread_of(NAME, gone)
        await self._intake.changes.forget(turn, platform=NAME, messages=[gone])
        if was_asked or is_ours:
            self._jobs.start(self._platform.withdraw(room, gone))

    async def _receive(self, said: Said, *, edited_at: float = 0.0) -> None:
        bot = self._client.user_id
        if said.is_bot:
            return
        where = await self._rooms.room(said.room)
        if where.is_encrypted:
            self._jobs.start(self._leave_encrypted(said.room))
            return
        target = await self._target(said)
        answers_bot = target is not None and target.sender == bot
        is_command = said.command is not None
        others = {*said.mentions, *([target.sender] if target else ())} - {bot, said.sender}
        facts = Facts(
            direct=where.is_direct,
            calls_bot=bot in said.mentions or answers_bot or is_command,
            calls_other=bool(others) or said.everybody,
            edited=bool(edited_at),
        )
        if not (facts.direct or facts.calls_bot or said.thread or facts.edited):
            return
        if facts.calls_bot or facts.direct:
            names = bot, await self._rooms.name(said.room, bot), bot[1:].partition(":")[0]
            said = said.without_name(*names)
        received = await self._received(said, facts, where, target if answers_bot else None)
        match await self._intake.receive(replace(received, edited_at=edited_at)):
            case Commanded(words):
                await self._controls.command(received.turn, words)
            case Refused() as refused if not refused.repeated:
                await self._controls.refuse(received.turn, refused)

    async def _received(
        self, said: Said, facts: Facts, where: Room, answered: _Target | None
    ) -> Received:
        thread = said.thread or (answered.thread if answered else "")
        in_thread, people = bool(thread) and not facts.direct, {said.sender}
        if in_thread and facts.calls_bot:
            people |= await self._author(said.room, thread)
        root = thread or ("" if facts.direct else said.event)
        turn = Turn(
            id=said.turn_id,
            key=ThreadKey(NAME, self._client.server, said.room, root or said.room),
            person=Person(said.sender, said.sender),
            text=said.text,
            place={"room": said.room, "thread": root, "question": said.event},
            asked_at=said.at,
            where="" if facts.direct else where.name,
            files=said.files,
            joins=True,
            asker=self._asker(said.sender, is_direct=facts.direct),
        )
        return Received(
            turn=turn,
            facts=facts,
            command=said.command,
            people=people if in_thread else (),
            stops_in="" if in_thread else said.room,
            manages=partial(self._manages, said.room, said.sender),
            complete=partial(self._complete, said),
        )

    async def _complete(self, said: Said, turn: Turn) -> Turn:
        """Add the person's name, and the message to which the question replies."""
        name = await self._rooms.name(said.room, said.sender)
        quote = await self._quote(said) if said.reply_to else None
        return replace(turn, person=replace(turn.person, name=name), quote=quote)

    async def _quote(self, said: Said) -> ContextMessage | None:
        if not await self._rooms.shows_history(said.room):
            return None  # the person may not have been there when it was said
        try:
            event = await self._client.event(said.room, said.reply_to)
        except MessageGone:
            return None
        found = as_it_stands(said.room, event)
        return (await context_messages(self._rooms, [found]))[0] if found else None

    async def _target(self, said: Said) -> _Target | None:
        """Return the message to which another replies; None if it is gone."""
        if not said.reply_to:
            return None
        try:
            event = await self._rooms.event(said.room, said.reply_to)
        except MessageGone:
            return None
        found = as_it_stands(said.room, event)
        sender = event.get("sender")
        return _Target(str(sender), found.thread if found else "")

    async def _author(self, room: str, event: str) -> set[str]:
        try:
            sender = (await self._rooms.event(room, event)).get("sender")
        except MessageGone:
            return set()
        return {sender} - {self._client.user_id} if isinstance(sender, str) else set()

    def _asker(self, user: str, *, is_direct: bool) -> Asker:
        home = user.partition(":")[2]
        return Asker(direct=is_direct, home="" if home == self._client.server else home)

    async def _manages(self, room: str, user: str) -> bool:
        try:
            return await self._rooms.manages(room, user)
        except SurfaceError as error:
            log.warning("Cannot tell whether %s may manage messages: %s", user, error)
            return False


def own_membership(event: Mapping[str, object], user: str) -> str:
    """Return what an event makes of a user: "invite", "join" if they were not there, or ""."""
    if event.get("type") != "m.room.member" or event.get("state_key") != user:
        return ""
    now = mapping(event, "content").get("membership")
    before = mapping(mapping(event, "unsigned"), "prev_content").get("membership")
    return now if now == "invite" or (now == "join" and before != "join") else ""
