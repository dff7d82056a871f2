"""The conversation of a terminal over the durable queue: its questions and growing replies."""

from __future__ import annotations

import asyncio
import getpass
import time
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import dataclass, replace
from uuid import uuid4

from adapters import live
from bot.commands.handlers import DEFAULT, FORGET_QUESTION, Call, CommandHandlers
from bot.domain import Asker, Exchange, Person, ThreadKey, Turn
from bot.errors import HasEnded, StoreUnavailable
from bot.intake.intake import Intake
from bot.reply.draft import with_notice
from bot.store import Store
from bot.text.sanitize import whole_characters

OFF = "off"  # instead of a name or a text: clears the choice
_YES = "yes"
_FIELDS = {"temperature": "temperature", "longest": "max_tokens"}  # of the form of the answers
_READ_SECONDS = 1.0
_OPERATOR = Asker(operator=True)
_AWAY_SECONDS = 0.5  # before the store is read again after a failure


@dataclass(frozen=True, slots=True)
class ReplyState:
    """The state of a reply; `note` is a status text below it, and `last` marks its end."""

    turn_id: str
    text: str
    note: str = ""
    last: bool = False


class ConsoleConversation:
    """One thread of one person.

    All methods raise StoreUnavailable; those that ask questions also raise Refused.
    """

    def __init__(self, *, intake: Intake, store: Store, thread: str) -> None:
        self.person = _person()
        self.key = ThreadKey("console", "local", self.person.id, thread)
        self._intake = intake
        self._commands = CommandHandlers(intake)
        self._store = store
        self._position = "0-0"  # of the last entry that was read

    async def begin(self) -> list[Exchange]:
        """Return the history, oldest first; `replies` yields later changes."""
        self._position = await live.last_entry(self._store, self._stream)
        return await self._intake.history.read(self.key)

    async def admit(self, turn: Turn) -> None:
        """Ask a question."""
        await self._intake.ask(turn)

    def turn(self, text: str, turn_id: str = "") -> Turn:
        """Return a turn, by default a new one."""
        turn_id = turn_id or f"{self.key.platform}:{uuid4()}"
        now = time.time()
        return Turn(turn_id, self.key, self.person, text, place={}, asked_at=now, asker=_OPERATOR)

    async def edit(self, turn: Turn, text: str) -> Turn:
        """Change the question of the last turn, which is answered again."""
        edited = replace(turn, text=text)
        await self._intake.ask(edited, edited_at=time.time())
        return edited

    async def regenerate(self, turn: Turn) -> None:
        """Answer the last turn again."""
        press = f"{self.key.platform}:{uuid4()}"
        await self._intake.answers.regenerate(
            turn.id, person_id=self.person.id, press_id=press, asker=_OPERATOR
        )

    async def stop(self, turn: Turn) -> None:
        """Stop a reply."""
        with suppress(HasEnded):
            await self._intake.answers.stop(turn.id)

    async def forget(self, *turns: Turn) -> None:
        """Drop turns."""
        await self._intake.changes.forget(*(turn.id for turn in turns))

    async def reset(self) -> None:
        """Delete the history and the stream of the conversation."""
        await self._intake.changes.reset(self.key)
        await live.forget(self._store, self.key)

    async def choose(self, what: str, text: str) -> str:
        """Set a preference of this conversation; without a text, return the current ones."""
        call, is_off = self._call(), text.casefold() in (OFF, DEFAULT)
        if field := _FIELDS.get(what):
            if not text:
                return (await self._commands.overview(call)).text
            filled = {field: "" if is_off else text}
            return await self._commands.fill_in(call, "thread", "answers", filled, seen="")
        return await self._commands.run(what, call, DEFAULT if is_off else text)

    async def usage(self) -> str:
        """Return the tokens that the person has used today."""
        return await self._commands.run("usage", self._call())

    async def forget_me(self, answer: str) -> str:
        """Start to erase the person, or ask for confirmation if the answer is not yes.

        Returns FORGETTING if that takes longer; then `forgotten` waits for the end.
        """
        if answer.casefold() != _YES:
            return f"{FORGET_QUESTION}\nIf so, write: /forget-me {_YES}"
        return await self._commands.forget_me(self._call())

    async def forgotten(self) -> str:
        """Wait until the person is erased, and return the message for them."""
        return await self._commands.forgotten(self._call())

    def _call(self) -> Call:
        return Call(
            id=f"{self.key.platform}:{uuid4()}",
            thread=self.key,
            person=self.person,
            scopes={"thread": "this conversation"},
            asker=Asker(direct=True, operator=True),
            in_thread=True,
            own_thread=True,
        )

    async def question(self, turn_id: str) -> str:
        """Return the question of a turn of another terminal; empty if unknown."""
        found = await self._intake.standings(self.key, [turn_id], person_id=self.person.id)
        return found[0].question if found else ""

    async def replies(self) -> AsyncGenerator[ReplyState | None]:
        """Yield each state of the thread's replies, and None at least every other second.

        Never ends; may be closed and called again.
        """
        texts: dict[str, str] = {}
        while True:
            try:
                read = await live.read(
                    self._store, {self._stream: self._position}, block_seconds=_READ_SECONDS
                )
                for _, position, change in read:
                    reply = await self._reply(change, texts.get(change.turn_id, ""))
                    self._position = position
                    if reply:
                        texts[reply.turn_id] = reply.text
                        yield reply
            except StoreUnavailable:
                # The worker continues without the store and saves when it is available again.
                await asyncio.sleep(_AWAY_SECONDS)
            yield None

    @property
    def _stream(self) -> str:
        return live.stream_of(self._store, self.key)

    async def _reply(self, change: live.Change, text: str) -> ReplyState | None:
        if not change.turn_id or change.gone:
            return None
        changed = None if change.look else change.applied(text)
        if changed is not None:
            return ReplyState(change.turn_id, changed, change.note, change.last)
        found = await self._intake.standings(self.key, [change.turn_id], person_id=self.person.id)
        if not found:
            return None
        (one,) = found
        text = with_notice(one.answer, one.below) if one.below else one.answer
        last = one.state not in ("waiting", "running")
        return ReplyState(change.turn_id, text, last=last)


def _person() -> Person:
    try:
        name = whole_characters(getpass.getuser())
    except (ImportError, KeyError, OSError):
        name = "you"  # in a container a user may have a number only
    return Person(id=name, name=name)
