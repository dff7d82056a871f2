"""Hands what people do in rooms to the intake, and answers invitations."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any

from adapters.matrix import events as read
from adapters.matrix.client import Event, path_of
from adapters.matrix.context import context_messages, message_at
from adapters.matrix.controls import Controls
from adapters.matrix.events import NAME, Said, mapping, to_said, turn_id
from adapters.matrix.platform import MatrixPlatform
from bot.cache import BoundedCache
from bot.concurrency import Backoff
from bot.domain import Asker, Person, ThreadKey, Turn
from bot.errors import (
    NotAllowed,
    Refused,
    StoreUnavailable,
    SurfaceError,
    WriteDelayed,
    WriteFailed,
)
from bot.intake.addressed import Facts
from bot.intake.intake import Commanded, Intake, Received
from bot.languages import later, say
from bot.store import Store

log = logging.getLogger(__name__)

_OLDEST = 3600.0  # seconds: what was said before is not answered any more after an outage
_JOINS_AT_ONCE = 5
_MOST_INVITES = 1000  # in work; others are found at the next start
_JOIN_SECONDS = 60.0  # a room of another server takes its time
_JOIN_PAUSES, _JOIN_TRIES = Backoff(first=2.0, longest=60.0), 6
_ENCRYPTED = later(
    "This room is encrypted, and I cannot read encrypted messages. "
    "Please invite me to a room without encryption."
)


class Inbound:
    """Handles the events of an account, each as often as it comes.

    A worker hears within `late_writes` seconds that an answer is unwanted. Every method raises
    StoreUnavailable, and SurfaceError if the homeserver could not be asked.
    """

    def __init__(
        self, platform: MatrixPlatform, *, intake: Intake, store: Store, late_writes: float = 2.0
    ) -> None:
        self._platform, self._jobs, self._store = platform, platform.jobs, store
        # What is to be withdrawn: "<room> <event>", and of the forgotten "<person> <ms>".
        self._owed, self._withdrawing = store.key("removals", NAME), set[str]()
        self._late_writes = late_writes
        self._rooms, self._client = platform.rooms, platform.client
        self._intake, self._controls = intake, Controls(platform, intake)
        # Servers that never answer hold up no invitation from the bot's own.
        self._joins = [asyncio.Semaphore(_JOINS_AT_ONCE) for _ in range(2)]
        self._invites: set[str] = set()
        self._left: BoundedCache[str, bool] = BoundedCache()

    async def withdraw_owed(self) -> None:
        """Begin to remove what is to be removed, also of what an earlier process has begun."""
        owed: dict[str, list[str]] = {}
        for one in await self._store.command("SMEMBERS", self._owed):
            # All rooms are read for a person: not twice at once.
            what = one if one.startswith("!") else one.partition(" ")[0]
            owed.setdefault(what, []).append(one)
        for what, ones in owed.items():
            if what not in self._withdrawing:
                self._withdrawing.add(what)
                self._jobs.start(self._withdraw(what, sorted(ones)))

    async def on_event(self, room: str, event: Event) -> None:
        """Handle an event of a room, of which nothing is certain but that it is an object."""
        self._rooms.note(room, event)
        sender, kind = read.user_id(event, "sender"), event.get("type")
        if kind in ("m.room.encryption", "m.room.encrypted"):
            self._jobs.start(self._leave_encrypted(room))
        if sender in ("", self._client.user_id):
            return
        if kind == "m.room.tombstone":
            self._follow(event, sender)
        elif kind == "m.room.redaction" and (gone := read.redacted_event(event)):
            await self._on_redaction(room, gone)
        elif read.time_of(event) < time.time() - _OLDEST:
            return
        elif kind == "m.reaction":
            is_direct = (await self._rooms.room(room)).is_direct
            person, asker = self._who(sender, is_direct=is_direct)
            await self._controls.react(room, event, person=person, asker=asker)
        elif kind == "m.room.message" and read.edited_event(event):
            await self._on_edit(room, event)
        elif said := to_said(room, event):
            await self._receive(said)

    def on_invite(self, room: str, state: Sequence[Event]) -> None:
        """Join a room in the background, or refuse the invitation."""
        own = self._client.user_id
        found = [it for it in state if read.own_membership(it, own)[1] == "invite"]
        # What stands before the last one is what the inviter's server says (Synapse 1.163).
        inviter = read.user_id(found[-1], "sender") if found else ""
        is_direct = bool(found) and mapping(found[-1], "content").get("is_direct") is True
        self._join(room, inviter, is_direct=is_direct)

    def _follow(self, event: Event, sender: str) -> None:
        """Go where a room has gone, as if its sender had invited the bot there."""
        room = mapping(event, "content").get("replacement_room")
        # Anybody may write what is no state event.
        if event.get("state_key") == "" and isinstance(room, str) and room.startswith("!"):
            self._join(room, sender, is_direct=False)

    def _join(self, room: str, inviter: str, *, is_direct: bool) -> None:
        if inviter and room not in self._invites and len(self._invites) < _MOST_INVITES:
            self._invites.add(room)
            self._jobs.start(self._answer_invite(room, inviter, is_direct=is_direct))

    async def _answer_invite(self, room: str, inviter: str, *, is_direct: bool) -> None:
        thread, path = ThreadKey(NAME, self._client.server, room, room), path_of("join", room)
        person, asker = self._who(inviter, is_direct=is_direct)
        # A server that is not in the room asks that one; it was named otherwise before v1.12.
        via = dict.fromkeys(("via", "server_name"), inviter.partition(":")[2])
        try:
            for pause in islice(_JOIN_PAUSES.pauses(), _JOIN_TRIES):
                try:
                    await self._intake.access.check(thread, person, asker, called=False)
                except NotAllowed as refused:
                    log.info("Room %s: %s may not invite the bot: %s", room, inviter, refused.rule)
                    path = path_of("rooms", room, "leave")
                except StoreUnavailable:
                    await asyncio.sleep(pause)
                    continue
                try:
                    async with self._joins[bool(asker.home)]:
                        await self._client.call(
                            "POST", path, query=via, body={}, timeout=_JOIN_SECONDS
                        )
                        return
                except (WriteDelayed, WriteFailed) as error:
                    log.warning("Room %s cannot be joined or left yet: %s", room, error)
                    await asyncio.sleep(max(pause, error.retry_after))
        except SurfaceError as error:  # it was taken back, or the room is gone
            log.info("Room %s: the invitation of %s cannot be answered: %s", room, inviter, error)
        finally:
            self._invites.discard(room)

    async def _leave_encrypted(self, room: str) -> None:
        """Say once why the bot cannot stay, and leave."""
        content = {"msgtype": "m.notice", "body": say(_ENCRYPTED), "m.mentions": {}}
        try:
            # Anybody may write an event that looks encrypted.
            if not await self._rooms.is_encrypted(room) or self._left.get(room):
                return
            self._left.put(room, True, seconds=10.0)
            await self._client.send(room, "encrypted", content)
            await self._client.call("POST", path_of("rooms", room, "leave"), body={})
        except SurfaceError as error:  # the next message tries it again
            log.warning("Room %s is encrypted, and cannot be left: %s", room, error)

    async def _on_edit(self, room: str, event: Event) -> None:
        target, new = read.edited_event(event), mapping(event, "content", "m.new_content")
        if not (
            self._client.user_id in read.mentioned(new)
            or await self._intake.lookup.thread_of_turn(turn_id(target))
            or (await self._rooms.room(room)).is_direct
        ):
            return
        original = await self._client.event(room, target)
        said = to_said(room, original, content=new)
        # Synapse 1.163 lets anybody send an edit of anything.
        if said and original.get("sender") == event.get("sender"):
            await self._receive(said, edited_at=read.time_of(event))

    async def _on_redaction(self, room: str, gone: str) -> None:
        """Forget a question, an answer, or what a prompt has shown of others.

        The homeserver hands out only redactions of people who may delete that event.
        """
        turn, lookup = turn_id(gone), self._intake.lookup
        if (
            await lookup.thread_of_turn(turn)
            or await lookup.thread_of(NAME, gone)
            or await lookup.is_handled(turn)  # a command
        ):
            await self._store.command("SADD", self._owed, f"{room} {gone}")
        await self._intake.changes.forget(turn, platform=NAME, messages=[gone])

    async def _withdraw(self, what: str, owed: Sequence[str]) -> None:
        where, _, which = owed[-1].partition(" ")
        try:
            for pause in (0.0, self._late_writes):
                await asyncio.sleep(pause)
                if where.startswith("!"):
                    await self._platform.withdraw(where, which)
                else:
                    await self._platform.withdraw_all(partial(self._is_owed, where, int(which)))
                    await self._controls.until_told(where)
            await self._store.command("SREM", self._owed, *owed)
        except StoreUnavailable as error:  # it is done once more then
            log.debug("The removal of %s is not noted: %s", what, error)
        finally:
            self._withdrawing.discard(what)

    async def _is_owed(self, person: str, until: int, mark: Mapping[str, Any]) -> bool:
        """Whether a message answers what a person said before they were forgotten, in ms."""
        is_theirs = mark.get("for") == person and mark.get("asked", until) <= until
        return is_theirs and not await self._intake.lookup.thread_of_turn(mark["turn"])

    async def _receive(self, said: Said, *, edited_at: float = 0.0) -> None:
        bot, room, rooms = self._client.user_id, said.room, self._rooms
        if said.is_bot:
            return
        where = await rooms.room(room)
        above = await message_at(rooms, room, said.reply_to) if said.reply_to else None
        called = {*said.mentions, *([above.sender] if above else [])}
        facts = Facts(
            direct=where.is_direct,
            calls_bot=bot in called or said.command is not None,
            calls_other=said.everybody or bool(called - {bot, said.sender}),
            edited=bool(edited_at),
        )
        if not (facts.direct or facts.calls_bot or said.thread or facts.edited):
            return
        text, thread = said.text, said.thread
        if facts.calls_bot or facts.direct:
            text = said.without(bot, await rooms.name(room, bot), bot[1:].partition(":")[0])
        if above and above.sender == bot:
            thread = thread or above.thread  # a client without threads replies beside it
        in_thread = bool(thread) and not facts.direct
        root = thread or ("" if facts.direct or said.is_related else said.event)
        alone = said.event
        if facts.direct:
            # If history is hidden, the next person there may not read the last one's.
            alone = room if await rooms.shows_history(room) else f"{room} {said.sender}"
        person, asker = self._who(said.sender, is_direct=facts.direct)
        turn = Turn(
            id=turn_id(said.event),
            key=ThreadKey(NAME, self._client.server, room, root or alone),
            person=person,
            text=text,
            place={"room": room, "thread": root, "question": said.event},
            asked_at=said.at,
            where="" if facts.direct else where.name,
            files=said.files,
            joins=True,
            asker=asker,
        )
        received = Received(
            turn=turn,
            facts=facts,
            edited_at=edited_at,
            command=said.command,
            people=[said.sender] if in_thread else (),
            stops_in="" if in_thread else room,
            manages=partial(rooms.manages, room, said.sender),
            complete=partial(self._complete, room, above),
        )
        match await self._intake.receive(received):
            case Commanded(words):
                await self._controls.command(turn, words)
            case Refused() as refused if not refused.repeated:
                await self._controls.refuse(turn, refused)

    async def _complete(self, room: str, above: Said | None, turn: Turn) -> Turn:
        """Add the person's name, and the message to which the question replies."""
        name = await self._rooms.name(room, turn.person.id)
        turn = replace(turn, person=replace(turn.person, name=name))
        # Where history is hidden, the person may not have been there when it was said.
        if above and await self._rooms.shows_history(room):
            (quote,) = await context_messages(self._rooms, [above])
            turn = replace(turn, quote=quote)
        return turn

    def _who(self, user: str, *, is_direct: bool) -> tuple[Person, Asker]:
        home = user.partition(":")[2]
        asker = Asker(direct=is_direct, home="" if home == self._client.server else home)
        return Person(user, user), asker
