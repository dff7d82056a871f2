"""What people do without buttons: reactions to messages of the bot, and commands in words."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial

from adapters.matrix.markup import content_of
from adapters.matrix.messages import ASK, MESSAGE, SIGNS, Address, digest, mark_of
from adapters.matrix.rooms import Rooms
from bot.commands.form import PARTS, answer_form, scope_of
from bot.commands.handlers import (
    COMMANDS,
    FORGET_QUESTION,
    FORGETTING,
    Call,
    CommandHandlers,
    HelpContext,
    Scope,
    excuse,
)
from bot.concurrency import BackgroundTasks
from bot.domain import FORM, PRESSES, Asker, Consent, Person, Rating, ThreadKey, Turn, choices
from bot.errors import (
    HasEnded,
    MessageGone,
    NothingAsked,
    ParleyError,
    Refused,
    StoreUnavailable,
    SurfaceError,
)
from bot.intake.answers import ALLOWED_ONCE, NOT_WAITING
from bot.intake.intake import Intake
from bot.languages import later, say
from bot.text.sanitize import in_code

log = logging.getLogger(__name__)

_STOP, _REGENERATE, _CONTINUE = "⏹", "🔁", "▶"
_RATINGS: Mapping[str, Rating] = {"👍": "good", "👎": "bad"}
_LOOKS = dict.fromkeys(map(ord, "\ufe0e\ufe0f🏻🏼🏽🏾🏿"))  # of a sign that stays the same one
_DIRECT: Mapping[Scope, str] = {"thread": later("our conversation")}
_IN_ROOM: Mapping[Scope, str] = {"channel": later("this room"), "server": later("this server")}
_IN_THREAD: Mapping[Scope, str] = {"thread": later("this thread"), **_IN_ROOM}
_SCOPES: Mapping[str, Scope] = {"room": "channel"}


class Controls:
    """Handles reactions and commands; an event may come twice.

    Every method raises StoreUnavailable and SurfaceError, if the event is to be handled again.
    """

    def __init__(self, rooms: Rooms, intake: Intake, *, jobs: BackgroundTasks) -> None:
        self._rooms, self._client, self._jobs = rooms, rooms.client, jobs
        self._intake = intake
        self._handlers = CommandHandlers(intake)

    async def react(
        self, *, room: str, reaction: str, target: str, key: str, person: Person, asker: Asker
    ) -> None:
        """Do what a reaction to a message of an answer stands for; others mean nothing."""
        sign, press = key.translate(_LOOKS), f"matrix:{reaction}"
        if sign not in (_STOP, _REGENERATE, _CONTINUE, *_RATINGS, *map(_plain, SIGNS.values())):
            return
        try:
            event = await self._rooms.event(room, target)
        except MessageGone:
            return
        mark = mark_of(event.get("content"))
        if event.get("sender") != self._client.user_id or not mark:
            return
        if await self._intake.lookup.is_handled(press):
            return
        turn_id, asked = str(mark["turn"]), str(mark.get("name") or "")
        thread = await self._intake.lookup.thread_of_turn(turn_id)
        at = ThreadKey("matrix", self._client.server, room, thread.thread if thread else "")
        said = ""
        try:
            if asked.startswith(ASK):
                said = await self._answer(turn_id, asked.removeprefix(ASK), sign, person, at)
            else:
                await self._press(turn_id, sign, press, person, asker, at)
        except Refused as refused:
            # To like an old answer is no request.
            said = "" if sign in _RATINGS else refused.apology
        if said:
            root = at.thread if at.thread != room else ""
            await self.notify(Address(room, root, target), said, of=press)
        await self._intake.lookup.note_handled(press)

    async def command(self, turn: Turn, words: str) -> None:
        """Carry out the words behind "!parley" of a message, and answer below it."""
        if await self._intake.lookup.is_handled(turn.id):
            return
        name, _, rest = words.strip().partition(" ")
        first, _, more = name.partition("\n")
        name, rest = first.casefold() or "help", f"{more}\n{rest}".strip() if more else rest.strip()
        try:
            said = await self._do(name, rest, turn)
        except ParleyError as error:
            if isinstance(error, StoreUnavailable):
                raise
            log.info("Command in %s failed: %r", turn.key, error)
            said = excuse(error)
        await self.notify(self._where(turn), said, of=turn.id)
        await self._intake.lookup.note_handled(turn.id)

    async def refuse(self, turn: Turn, refused: Refused) -> None:
        """Tell a person once why their question is not answered."""
        said = refused.apology
        if isinstance(refused, NothingAsked):
            said = await self._handlers.help(self._call(turn), _help(turn))
        await self.notify(self._where(turn), said, of=turn.id)

    async def notify(self, address: Address, text: str, *, of: str) -> None:
        """Post a notice below an event, once for the event `of`; no bot answers one.

        A room in which the bot may not write any more gets none.
        """
        content = content_of(text, kind="m.notice") | address.relation(
            address.question, quotes=True
        )
        try:
            await self._client.send(address.room, MESSAGE, digest("notice", of), content)
        except SurfaceError as error:
            log.warning("A notice in %s is not posted: %s", address.room, error)

    async def _press(
        self, turn_id: str, sign: str, press: str, person: Person, asker: Asker, at: ThreadKey
    ) -> None:
        answers, person_id = self._intake.answers, person.id
        if sign == _STOP:
            await answers.stop(turn_id, person_id=person_id, at=at)
        elif rating := _RATINGS.get(sign):
            await answers.rate(turn_id, person_id=person_id, rating=rating, at=at, asker=asker)
        elif sign in (_REGENERATE, _CONTINUE):
            do = answers.regenerate if sign == _REGENERATE else answers.continue_answer
            await do(turn_id, person_id=person_id, press_id=press, at=at, asker=asker)

    async def _answer(
        self, turn_id: str, call_id: str, sign: str, person: Person, at: ThreadKey
    ) -> str:
        """Answer what a person is asked, by a sign; return what is to be said."""
        for consent in choices(call_id):
            if _plain(SIGNS[consent]) == sign:
                return await self._decide(turn_id, call_id, consent, "", person, at)
        return ""

    async def _decide(
        self,
        turn_id: str,
        call_id: str,
        consent: Consent,
        words: str,
        person: Person,
        at: ThreadKey,
    ) -> str:
        answers = self._intake.answers
        if consent not in choices(call_id):
            raise HasEnded(NOT_WAITING)
        if consent != "answer":
            manages = partial(self._rooms.manages, at.channel, person.id)
            counted = await answers.decide(
                turn_id, call_id, consent, person_id=person.id, at=at, is_admin=manages
            )
            return say(ALLOWED_ONCE) if counted != consent else ""
        asked = await answers.question(turn_id, call_id, person_id=person.id, at=at)
        fields = answer_form(asked).fields
        if words:
            # One line for each field; a single one may have several.
            lines = [words] if len(fields) == 1 else words.split("\n")
            given = ("" if it.strip() == "-" else it.strip() for it in lines)
            filled = dict(zip((it.name for it in fields), given, strict=False))
            await answers.fill_in(turn_id, call_id, filled, person_id=person.id, at=at)
            return say("Thank you, I go on.")
        listed = []
        for field in fields:
            options = ", ".join(f"{number} {label}" for number, label in field.options)
            optional = "" if field.is_required else say("may be empty")
            more = "; ".join(filter(None, (field.hint, options, optional)))
            listed.append(f"- {in_code(field.label)}" + (f" ({in_code(more)})" if more else ""))
        how = say(
            "Write {command}, and below it one line for each of these, or `-`:",
            command="`!parley answer`",
        )
        return "\n".join([how, *listed])

    async def _do(self, name: str, rest: str, turn: Turn) -> str:
        if name in PRESSES:
            return await self._consent(PRESSES[name], rest, turn)
        call = self._call(turn)
        if name == "help":
            return await self._handlers.help(call, _help(turn))
        if name == "forget-me":
            return await self._forget(call, rest, turn)
        if name not in COMMANDS:
            return say("I do not know this command. Write {help}.", help="`!parley help`")
        call = await self._with_rights(call, turn)
        if name == "settings":
            return await self._settings(call, rest)
        scope, argument = self._scope(rest)
        return await self._handlers.run(name, call, argument, scope)

    async def _consent(self, consent: Consent, words: str, turn: Turn) -> str:
        """Answer what waits in the thread of a command."""
        lookup, person = self._intake.lookup, turn.person
        open_turn = await lookup.first_open(turn.key)
        found = await lookup.standings(open_turn, person_id=person.id) if open_turn else []
        if not found or not (call_id := found[0].consent):
            raise HasEnded(NOT_WAITING)
        # "allow" is for what has only "done" as well, and "done" for what has only "allow".
        if consent == "allow" and not call_id.startswith(FORM) and "done" in choices(call_id):
            consent = "done"
        said = await self._decide(open_turn, call_id, consent, words, person, turn.key)
        return said or say("Thank you, I go on.")

    async def _settings(self, call: Call, words: str) -> str:
        """Show what is chosen, or choose one value: [room|server] NAME VALUE."""
        scope, rest = self._scope(words)
        name, _, value = rest.partition(" ")
        nearest = scope if scope else next(iter(call.scopes))
        overview = await self._handlers.overview(call)
        names = []
        for part in PARTS if overview.forms else ():
            with suppress(Refused):
                form = await self._handlers.form(call, nearest, part)
                if name in (it.name for it in form.fields):
                    given = "" if value.casefold() == "default" else value
                    return await self._handlers.fill_in(
                        call, nearest, part, {name: _ids(given, name)}, seen=form.seen
                    )
                names += [it.name for it in form.fields]
        how = "`!parley settings [room|server] NAME VALUE`"
        known = ", ".join(f"`{it}`" for it in names)
        said = say("Write {how}, with one of these names: {names}.", how=how, names=known)
        return f"{overview.text}\n{said}" if names else overview.text

    def _scope(self, words: str) -> tuple[Scope | None, str]:
        """Return the scope that a command's words begin with, and the rest of them."""
        first, _, rest = words.partition(" ")
        scope = _SCOPES.get(first.casefold()) or scope_of(first.casefold())
        return (scope, rest.strip()) if scope else (None, words)

    async def _forget(self, call: Call, words: str, turn: Turn) -> str:
        if words.casefold() != "yes":
            how = say("If so, write: {words}", words="`!parley forget-me yes`")
            return f"{say(FORGET_QUESTION)}\n{how}"
        said = await self._handlers.forget_me(call)
        if said == say(FORGETTING):
            self._jobs.start(self._report_forgotten(call, turn))
        return said

    async def _report_forgotten(self, call: Call, turn: Turn) -> None:
        said = await self._handlers.forgotten(call)
        await self.notify(self._where(turn), said, of=f"{turn.id}/end")

    def _where(self, turn: Turn) -> Address:
        """Return where a command or a refused question is answered: it opens no thread."""
        address = Address.of(turn)
        if address.thread == address.question:
            return Address(address.room, "", address.question)
        return address

    def _call(self, turn: Turn) -> Call:
        is_direct, in_thread = turn.asker.direct, bool(self._where(turn).thread)
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

    async def _with_rights(self, call: Call, turn: Turn) -> Call:
        if turn.asker.direct:
            return call
        own = False
        if call.in_thread:
            with suppress(MessageGone):
                root = await self._rooms.event(turn.key.channel, turn.key.thread)
                own = root.get("sender") == turn.person.id
        manages = await self._rooms.manages(turn.key.channel, turn.person.id)
        return replace(call, own_thread=own, manages_channel=manages)


def _help(turn: Turn) -> HelpContext:
    ways = [say("Write to me here: I answer each message.")]
    if not turn.asker.direct:
        ways = [
            say("Mention me, or reply to one of my messages: I answer in a thread."),
            say("In a direct message every message is a question to me."),
        ]
    ways.append(
        say("React to my answer: 🔁 writes another one, ▶️ goes on, ⏹ stops it, 👍 and 👎 rate it.")
    )
    return HelpContext(ways=ways, written="`!parley {name}`")


def _plain(sign: str) -> str:
    return sign.translate(_LOOKS)


def _ids(value: str, name: str) -> str | Sequence[str]:
    return value.replace(",", " ").split() if name in ("people", "roles") else value
