"""What people do without buttons: reactions to messages of the bot, and commands in words."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from adapters.matrix.client import Event
from adapters.matrix.events import NAME, event_id, mapping, reacted_to, related_to
from adapters.matrix.events import turn_id as id_of
from adapters.matrix.markup import content_of
from adapters.matrix.messages import ASK, SIGNS, Address, digest, mark_of, marked
from adapters.matrix.platform import MatrixPlatform, insist
from bot.cache import BoundedCache
from bot.commands.handlers import FORGETTING, Call, Scope, excuse
from bot.commands.words import Words
from bot.domain import Asker, Person, Rating, ThreadKey, Turn, choices
from bot.errors import NothingAsked, ParleyError, Refused, StoreUnavailable
from bot.intake.intake import REPEAT_SECONDS, Intake
from bot.languages import later, say

log = logging.getLogger(__name__)

_STOP, _REGENERATE, _CONTINUE = "⏹", "🔁", "▶"
_RATINGS: Mapping[str, Rating] = {"👍": "good", "👎": "bad"}
# Variants of a sign: as text, as a picture, and the colours of a hand.
_LOOKS = dict.fromkeys(map(ord, "\ufe0e\ufe0f🏻🏼🏽🏾🏿"))
_CONSENTS = {one: sign.translate(_LOOKS) for one, sign in SIGNS.items()}
_KNOWN = (_STOP, _REGENERATE, _CONTINUE, *_RATINGS, *_CONSENTS.values())
_MOST_WAITING = 1000  # notices
_AFTER_LIST = re.compile(r"(?m)^(- .*)\n(?=[^\s-])")  # Markdown goes on with the item
_SCOPES: Mapping[str, Scope] = {"room": "channel", "server": "server"}
_DIRECT: Mapping[Scope, str] = {"thread": later("our conversation")}
_IN_ROOM: Mapping[Scope, str] = {"channel": later("this room"), "server": later("this server")}
_IN_THREAD: Mapping[Scope, str] = {"thread": later("this thread"), **_IN_ROOM}


class Controls:
    """Handles reactions and commands; an event may come twice.

    What is heard next waits for a notice, but no longer than `notice_seconds`. Raises
    StoreUnavailable and SurfaceError if it is to be handled again.
    """

    def __init__(
        self, platform: MatrixPlatform, intake: Intake, *, notice_seconds: float = 1.0
    ) -> None:
        self._rooms, self._client, self._jobs = platform.rooms, platform.client, platform.jobs
        self._lookup, self._answers = intake.lookup, intake.answers
        self._words = Words(
            intake, written="`!parley {name}`", scopes=_SCOPES, rights=self._with_rights
        )
        self._notice_seconds = notice_seconds
        self._refused: BoundedCache[tuple[str, ...], bool] = BoundedCache()
        self._on_the_way: dict[asyncio.Task[Any], str] = {}  # answers to commands, and whose

    async def react(self, room: str, event: Event, *, person: Person, asker: Asker) -> None:
        """Do what a reaction to a message of an answer stands for; others mean nothing."""
        (target, key), reaction = reacted_to(event), event_id(event, "event_id")
        sign, press = key.translate(_LOOKS), id_of(reaction)
        if not (target and reaction) or sign not in _KNOWN or await self._lookup.is_handled(press):
            return
        message = await self._client.event(room, target)
        content = mapping(message, "content")
        mark = mark_of(content) if content.get("msgtype") != "m.notice" else {}
        if not mark or message.get("sender") != self._client.user_id:
            return
        turn_id, call_id = str(mark["turn"]), str(mark.get("name", "")).partition(ASK)[2]
        said = ""
        at = ThreadKey(NAME, self._client.server, room, reaction)
        call = self._call(press, at, person, asker)
        chosen = [it for it in choices(call_id) if _CONSENTS[it] == sign] if call_id else []
        try:
            if chosen:
                said = await self._words.decide(turn_id, call_id, chosen[0], call)
            elif not call_id:
                await self._press(turn_id, sign, call)
        except Refused as refused:
            same = room, person.id, refused.apology
            # To like an old answer is no request.
            if not (sign in _RATINGS or refused.repeated or self._refused.get(same)):
                self._refused.put(same, True, seconds=REPEAT_SECONDS)
                said = refused.apology
        if said:
            address = Address(room, related_to(message, "m.thread"), target)
            await self._post(address, said, of=press)
        await self._lookup.note_handled(press)

    async def command(self, turn: Turn, words: str) -> None:
        """Carry out the words behind "!parley" of a message, and answer below it."""
        if await self._lookup.is_handled(turn.id):
            return
        call = self._call(turn.id, turn.key, turn.person, turn.asker)
        try:
            said = await self._words.run(words, call, ways=_ways(call))
        except StoreUnavailable:
            raise
        except ParleyError as error:
            log.info("Command in %s failed: %r", turn.key, error)
            said = excuse(error)
        # The notice that a person is forgotten is no answer to remove.
        to = None if words.casefold().startswith("forget-me") else turn
        await self._post(_where(turn), said, of=turn.id, to=to)
        if said == say(FORGETTING):
            self._jobs.start(self._report_forgotten(call, _where(turn)))
        await self._lookup.note_handled(turn.id)

    async def refuse(self, turn: Turn, refused: Refused) -> None:
        """Tell a person once why their question is not answered."""
        said = refused.apology
        if isinstance(refused, NothingAsked):
            call = self._call(turn.id, turn.key, turn.person, turn.asker)
            said = await self._words.run("help", call, ways=_ways(call))
        await self._post(_where(turn), said, of=turn.id)

    async def _post(self, address: Address, text: str, *, of: str, to: Turn | None = None) -> None:
        """Post a notice below an event, once for `of`, perhaps later; a failure is only logged.

        An answer `to` a command goes when its person is forgotten.
        """
        relation = address.relation(address.question, quotes=True)
        text = _AFTER_LIST.sub(r"\1\n\n", text)
        content = {**content_of(text, kind="m.notice"), **relation}
        content = marked(to, content) if to else content
        if len(self._jobs) < _MOST_WAITING:
            send = partial(self._client.send, address.room, digest("notice", of), content)
            job = self._jobs.start(insist(send, f"a notice in {address.room}"))
            if to:
                self._on_the_way[job] = to.person.id
                job.add_done_callback(self._on_the_way.pop)
            await asyncio.wait((job,), timeout=self._notice_seconds)

    async def until_told(self, person: str) -> None:
        """Wait for the answers to a person's commands that are not posted yet."""
        if waiting := [job for job, asker in self._on_the_way.items() if asker == person]:
            await asyncio.wait(waiting)

    async def _press(self, turn_id: str, sign: str, call: Call) -> None:
        answers, id_, at = self._answers, call.person.id, call.thread
        if sign == _STOP:
            await answers.stop(turn_id, person_id=id_, at=at)
        elif rating := _RATINGS.get(sign):
            await answers.rate(turn_id, person_id=id_, rating=rating, at=at, asker=call.asker)
        elif sign in (_REGENERATE, _CONTINUE):
            do = answers.regenerate if sign == _REGENERATE else answers.continue_answer
            await do(turn_id, person_id=id_, press_id=call.id, at=at, asker=call.asker)

    async def _report_forgotten(self, call: Call, where: Address) -> None:
        said = await self._words.handlers.forgotten(call)
        await self._post(where, said, of=f"{call.id}/end")

    def _call(self, id_: str, key: ThreadKey, person: Person, asker: Asker) -> Call:
        # An event outside of threads is the root of its own.
        in_thread = not asker.direct and id_of(key.thread) != id_
        scopes = _DIRECT if asker.direct else _IN_THREAD if in_thread else _IN_ROOM
        return Call(
            id=id_,
            thread=key,
            person=person,
            scopes={it: say(name) for it, name in scopes.items()},
            asker=asker,
            in_thread=in_thread,
            own_thread=asker.direct,
            manages_messages=partial(self._rooms.manages, key.channel, person.id),
            removes_answers=True,
        )

    async def _with_rights(self, call: Call) -> Call:
        if call.asker.direct:
            return call
        room, person = call.thread.channel, call.person.id
        root = await self._client.event(room, call.thread.thread) if call.in_thread else {}
        manages = await self._rooms.manages(room, person)
        return replace(call, own_thread=root.get("sender") == person, manages_channel=manages)


def _where(turn: Turn) -> Address:
    """Return where a command or a refused question is answered: it opens no thread."""
    address = Address.of(turn)
    return replace(address, thread="") if address.thread == address.question else address


def _ways(call: Call) -> list[str]:
    signs = "React to my answer: 🔁 writes another one, ▶️ goes on, ⏹ stops it, 👍 and 👎 rate it."
    if call.asker.direct:
        return [say("Write to me here: I answer each message."), say(signs)]
    how = say("Mention me, or reply to one of my messages: I answer in a thread.")
    return [how, say("In a direct message every message is a question to me."), say(signs)]
