"""What people do without buttons: reactions to messages of the bot, and commands in words."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from adapters.matrix.markup import content_of
from adapters.matrix.messages import ASK, MESSAGE, SIGNS, Address, digest, mark_of
from adapters.matrix.platform import insist
from adapters.matrix.rooms import Rooms
from bot.cache import BoundedCache
from bot.commands import handlers
from bot.commands.form import PARTS, answer_form, scope_of
from bot.commands.handlers import Call, Scope
from bot.concurrency import BackgroundTasks
from bot.domain import PRESSES, Asker, Consent, Person, Rating, ThreadKey, Turn, choices
from bot.errors import HasEnded, NothingAsked, ParleyError, Refused, StoreUnavailable
from bot.intake.answers import ALLOWED_ONCE, NOT_WAITING
from bot.intake.intake import REPEAT_SECONDS, Intake
from bot.languages import later, say
from bot.text.sanitize import in_code

log = logging.getLogger(__name__)

_STOP, _REGENERATE, _CONTINUE = "⏹", "🔁", "▶"
_RATINGS: Mapping[str, Rating] = {"👍": "good", "👎": "bad"}
# Variants of a sign: as text, as a picture, and the colours of a hand.
_LOOKS = dict.fromkeys(map(ord, "\ufe0e\ufe0f🏻🏼🏽🏾🏿"))
_CONSENTS = {one: sign.translate(_LOOKS) for one, sign in SIGNS.items()}
_KNOWN = (_STOP, _REGENERATE, _CONTINUE, *_RATINGS, *_CONSENTS.values())
_MOST_WAITING, _NOTICE_SECONDS = 1000, 1.0  # what is heard next waits for a notice so long
_AFTER_LIST = re.compile(r"(?m)^(- .*)\n(?=[^\s-])")  # Markdown goes on with the item
_SCOPED = ("model", "persona", "settings", "tools")  # may begin with where it applies
_DIRECT: Mapping[Scope, str] = {"thread": later("our conversation")}
_IN_ROOM: Mapping[Scope, str] = {"channel": later("this room"), "server": later("this server")}
_IN_THREAD: Mapping[Scope, str] = {"thread": later("this thread"), **_IN_ROOM}


class Controls:
    """Handles reactions and commands; an event may come twice.

    Raises StoreUnavailable and SurfaceError if it is to be handled again.
    """

    def __init__(self, rooms: Rooms, intake: Intake, *, jobs: BackgroundTasks) -> None:
        self._rooms, self._client, self._jobs = rooms, rooms.client, jobs
        self._intake, self._lookup, self._answers = intake, intake.lookup, intake.answers
        self._handlers = handlers.CommandHandlers(intake)
        self._refused: BoundedCache[tuple[str, ...], bool] = BoundedCache()

    async def react(
        self, *, room: str, reaction: str, target: str, key: str, person: Person, asker: Asker
    ) -> None:
        """Do what a reaction to a message of an answer stands for; others mean nothing."""
        sign, press = key.translate(_LOOKS), f"matrix:{reaction}"
        if sign not in _KNOWN or await self._lookup.is_handled(press):
            return
        event = await self._client.event(room, target)
        mark = mark_of(event.get("content"))
        if not mark or event.get("sender") != self._client.user_id:
            return
        turn_id, call_id = str(mark["turn"]), str(mark.get("name", "")).partition(ASK)[2]
        thread, said = await self._lookup.thread_of_turn(turn_id), ""
        at = ThreadKey("matrix", self._client.server, room, "")
        chosen = [it for it in choices(call_id) if _CONSENTS[it] == sign] if call_id else []
        try:
            if chosen:
                said = await self._decide((turn_id, call_id), chosen[0], "", person, at)
            elif not call_id:
                await self._press(turn_id, sign, press, person, asker, at)
        except Refused as refused:
            same = room, person.id, refused.apology
            # To like an old answer is no request.
            if not (sign in _RATINGS or refused.repeated or self._refused.get(same)):
                self._refused.put(same, True, seconds=REPEAT_SECONDS)
                said = refused.apology
        if said:
            root = thread.thread if thread and thread.thread.startswith("$") else ""
            await self.notify(Address(room, root, target), said, of=press)
        await self._lookup.note_handled(press)

    async def command(self, turn: Turn, words: str) -> None:
        """Carry out the words behind "!parley" of a message, and answer below it."""
        if await self._lookup.is_handled(turn.id):
            return
        name, _, rest = words.strip().replace("\n", " \n", 1).partition(" ")
        try:
            said = await self._do(name.casefold() or "help", rest.strip(), turn)
        except StoreUnavailable:
            raise
        except ParleyError as error:
            log.info("Command in %s failed: %r", turn.key, error)
            said = handlers.excuse(error)
        await self.notify(_where(turn), said, of=turn.id)
        await self._lookup.note_handled(turn.id)

    async def refuse(self, turn: Turn, refused: Refused) -> None:
        """Tell a person once why their question is not answered."""
        said = refused.apology
        if isinstance(refused, NothingAsked):
            said = await self._handlers.help(self._call(turn), _help(turn))
        await self.notify(_where(turn), said, of=turn.id)

    async def notify(self, address: Address, text: str, *, of: str) -> None:
        """Post a notice below an event, once for `of`, perhaps later; a failure is only logged."""
        relation = address.relation(address.question, quotes=True)
        text = _AFTER_LIST.sub(r"\1\n\n", text)
        content = {**content_of(text, kind="m.notice"), **relation}
        if len(self._jobs) < _MOST_WAITING:
            send = partial(self._client.send, address.room, MESSAGE, digest("notice", of), content)
            job = self._jobs.start(insist(send, f"a notice in {address.room}"))
            await asyncio.wait((job,), timeout=_NOTICE_SECONDS)

    async def _press(
        self, turn_id: str, sign: str, press: str, person: Person, asker: Asker, at: ThreadKey
    ) -> None:
        answers, id_ = self._answers, person.id
        if sign == _STOP:
            await answers.stop(turn_id, person_id=id_, at=at)
        elif rating := _RATINGS.get(sign):
            await answers.rate(turn_id, person_id=id_, rating=rating, at=at, asker=asker)
        elif sign in (_REGENERATE, _CONTINUE):
            do = answers.regenerate if sign == _REGENERATE else answers.continue_answer
            await do(turn_id, person_id=id_, press_id=press, at=at, asker=asker)

    async def _decide(
        self, which: tuple[str, str], consent: Consent, words: str, person: Person, at: ThreadKey
    ) -> str:
        """Answer what a person is asked by a turn's call; return what they are told."""
        if consent != "answer":
            may = partial(self._rooms.manages, at.channel, person.id)
            counted = await self._answers.decide(
                *which, consent, person_id=person.id, at=at, is_admin=may
            )
            return say(ALLOWED_ONCE) if counted != consent else ""
        asked = await self._answers.question(*which, person_id=person.id, at=at)
        fields = answer_form(asked).fields
        if words:
            # A single field may have several lines.
            lines = words.split("\n") if len(fields) > 1 else [words]
            given = ("" if it.strip() == "-" else it.strip() for it in lines)
            filled = dict(zip((it.name for it in fields), given, strict=False))
            await self._answers.fill_in(*which, filled, person_id=person.id, at=at)
            return ""
        how = "Write {command}, and below it one line for each of these, or `-`:"
        told = [say(how, command="`!parley answer`")]
        for one in fields:
            options = ", ".join(f"{number} {label}" for number, label in one.options)
            optional = "" if one.is_required else say("may be empty")
            more = "; ".join(filter(None, (one.hint, options, optional)))
            told.append(f"- {in_code(one.label)}" + (f" ({in_code(more)})" if more else ""))
        return "\n".join(told)

    async def _do(self, name: str, rest: str, turn: Turn) -> str:
        call = self._call(turn)
        if consent := PRESSES.get(name):
            return await self._consent(consent, rest, turn)
        if name == "help":
            return await self._handlers.help(call, _help(turn))
        if name == "forget-me":
            return await self._forget(call, rest, turn)
        if name not in handlers.COMMANDS:
            return say("I do not know this command. Write {help}.", help="`!parley help`")
        if not turn.asker.direct:
            manages = await self._rooms.manages(turn.key.channel, turn.person.id)
            call = replace(call, own_thread=await self._began(turn), manages_channel=manages)
        first, _, others = rest.partition(" ") if name in _SCOPED else ("", "", "")
        scope = "channel" if first == "room" else scope_of(first)
        rest = others.strip() if scope else rest
        if name == "settings":
            return await self._settings(call, scope, rest)
        return await self._handlers.run(name, call, rest, scope)

    async def _consent(self, consent: Consent, words: str, turn: Turn) -> str:
        """Answer what waits in the thread of a command."""
        asking, person = await self._lookup.first_open(turn.key), turn.person
        found = await self._lookup.standings(asking, person_id=person.id) if asking else []
        call_id = found[0].consent if found else ""
        if not call_id or consent not in choices(call_id):
            raise HasEnded(NOT_WAITING)
        said = await self._decide((asking, call_id), consent, words, person, turn.key)
        return said or say("Thank you, I go on.")

    async def _settings(self, call: Call, scope: Scope | None, words: str) -> str:
        """Show what is chosen, or choose one value by the name of its field."""
        name, _, value = words.partition(" ")
        overview, names = await self._handlers.overview(call), list[str]()
        nearest = next(iter(call.scopes)) if scope is None else scope
        parts = [it for of, it, _ in overview.forms if of == nearest]
        for part in parts or PARTS[: bool(name)]:  # a form that may not be opened says why
            form = await self._handlers.form(call, nearest, part)
            names += [it.name for it in form.fields if it.kind != "roles"]
            if name in names:
                given = "" if value.casefold() == handlers.DEFAULT else value
                ids = given.split() if name == "people" else given
                return await self._handlers.fill_in(
                    call, nearest, part, {name: ids}, seen=form.seen
                )
        scopes, known = (
            "" if call.asker.direct else " [room|server]",
            ", ".join(map(in_code, names)),
        )
        how = f"`!parley settings{scopes} NAME VALUE`"
        said = say("Write {how}, with one of these names: {names}.", how=how, names=known)
        return f"{overview.text}\n{said}" if names else overview.text

    async def _forget(self, call: Call, words: str, turn: Turn) -> str:
        if words.casefold() != "yes":
            how = say("If so, write: {words}", words="`!parley forget-me yes`")
            return f"{say(handlers.FORGET_QUESTION)}\n{how}"
        said = await self._handlers.forget_me(call)
        if said == say(handlers.FORGETTING):
            self._jobs.start(self._report_forgotten(call, turn))
        return said

    async def _report_forgotten(self, call: Call, turn: Turn) -> None:
        said = await self._handlers.forgotten(call)
        await self.notify(_where(turn), said, of=f"{turn.id}/end")

    async def _began(self, turn: Turn) -> bool:
        """Whether a person has begun the thread in which they write."""
        root = await self._client.event(turn.key.channel, turn.key.thread)
        return bool(root.get("sender") == turn.person.id and _where(turn).thread)

    def _call(self, turn: Turn) -> Call:
        is_direct, in_thread = turn.asker.direct, bool(_where(turn).thread)
        scopes = _DIRECT if is_direct else _IN_THREAD if in_thread else _IN_ROOM
        return Call(
            id=turn.id,
            thread=turn.key,
            person=turn.person,
            scopes={it: say(name) for it, name in scopes.items()},
            asker=turn.asker,
            in_thread=in_thread and not is_direct,
            own_thread=is_direct,
            manages_messages=partial(self._rooms.manages, turn.key.channel, turn.person.id),
        )


def _where(turn: Turn) -> Address:
    """Return where a command or a refused question is answered: it opens no thread."""
    address = Address.of(turn)
    return replace(address, thread="") if address.thread == address.question else address


def _help(turn: Turn) -> handlers.HelpContext:
    ways = [say("Write to me here: I answer each message.")]
    if not turn.asker.direct:
        ways = [
            say("Mention me, or reply to one of my messages: I answer in a thread."),
            say("In a direct message every message is a question to me."),
        ]
    reactions = (
        "React to my answer: 🔁 writes another one, ▶️ goes on, ⏹ stops it, 👍 and 👎 rate it."
    )
    return handlers.HelpContext(ways=[*ways, say(reactions)], written="`!parley {name}`")
