"""The conversation of a terminal over the durable queue: its questions and growing replies."""

from __future__ import annotations

import asyncio
import getpass
import shlex
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import uuid4

from adapters import live
from adapters.console.commands import ThreadCommands
from adapters.uploads import PART, Uploads, file_ref
from bot.commands.form import Form, answer_form
from bot.domain import Asker, Consent, Exchange, FileRef, Person, Standing, ThreadKey, Turn
from bot.errors import HasEnded, Refused, StoreUnavailable
from bot.intake.intake import Intake
from bot.languages import say
from bot.reply.draft import with_notice
from bot.store import Store
from bot.text.sanitize import whole_characters

_READ_SECONDS = 1.0
_OPERATOR = Asker(operator=True)
_OPEN = ("waiting", "running")
_AWAY_SECONDS = 0.5  # before the store is read again after a failure


@dataclass(frozen=True, slots=True)
class ReplyState:
    """The state of a reply; `note` is a status text below it, and `last` marks its end.

    With `consent`, the id of a call, the note says what the person is to allow.
    """

    turn_id: str
    text: str
    note: str = ""
    last: bool = False
    consent: str = ""


class ConsoleConversation:
    """One thread of one person, with its `commands`.

    All methods raise StoreUnavailable; those that ask questions also raise Refused.
    """

    def __init__(self, *, intake: Intake, store: Store, thread: str, uploads: Uploads) -> None:
        self._person = _person()
        self._key = ThreadKey("console", "local", self._person.id, thread)
        self._intake = intake
        self._store = store
        self._stream = live.stream_of(store, self._key)
        self._position = "0-0"  # of the last entry that was read
        self._uploads = uploads
        self._files: list[FileRef] = []  # for the next question
        self.commands = ThreadCommands(intake, self._key, self._person)

    async def begin(self) -> list[Exchange]:
        """Return the history, oldest first; `replies` yields later changes."""
        self._position = await live.last_entry(self._store, self._stream)
        return await self._intake.history.read(self._key)

    def turn(self, text: str, turn_id: str = "") -> Turn:
        """Return a turn, by default a new one with the files that wait."""
        id_ = turn_id or _new_id()
        files = () if turn_id else tuple(replace(one, message=id_) for one in self._files)
        text = "\n".join([text, *(f"[file: {one.name}]" for one in files)])
        key, person = self._key, self._person
        return Turn(id_, key, person, text, {}, time.time(), files=files, asker=_OPERATOR)

    async def admit(self, turn: Turn) -> None:
        """Ask a question; then no file waits any more, nor if one of them is gone."""
        try:
            await self._uploads.keep(turn.files)
        except Refused:
            self._files = []
            raise
        await self._intake.ask(turn)
        self._files = []

    async def add_file(self, path: str) -> str:
        """Have a file wait for the next question; return which files wait, in a sentence."""
        if path:
            upload = replace(self._key, thread=str(uuid4()))
            try:
                found, size = await asyncio.to_thread(_found, path)
                await self._uploads.save(upload, _parts(found), size=size)
            except (OSError, ValueError, RuntimeError) as error:
                reason = getattr(error, "strerror", error)
                raise Refused(
                    say("I cannot read {path}: {reason}.", path=path, reason=reason)
                ) from error
            self._files.append(file_ref(upload, turn_id="", name=found.name))
        names = ", ".join(one.name for one in self._files)
        return (
            say("For your next question: {names}.", names=names)
            if names
            else say("No file waits: write /file PATH.")
        )

    async def edit(self, turn: Turn, text: str) -> Turn:
        """Change the question of the last turn, which is answered again."""
        known = await self._standing(turn.id)
        edited = replace(turn, text=text, files=known.files if known else ())
        await self._intake.ask(edited, edited_at=time.time())
        return edited

    async def regenerate(self, turn: Turn) -> None:
        """Answer the last turn again."""
        await self._intake.answers.regenerate(
            turn.id, person_id=self._person.id, press_id=_new_id(), asker=_OPERATOR
        )

    async def stop(self, turn: Turn) -> None:
        """Stop a reply."""
        with suppress(HasEnded):
            await self._intake.answers.stop(turn.id)

    async def decide(self, turn_id: str, call_id: str, consent: Consent) -> None:
        """Say whether a call of a tool may be made; a late answer changes nothing."""
        with suppress(HasEnded):
            await self._intake.answers.decide(
                turn_id, call_id, consent, person_id=self._person.id, at=self._key
            )

    async def form(self, turn_id: str, call_id: str) -> Form | None:
        """Return the form of a question of a tool's server; None if it no longer waits."""
        with suppress(Refused):
            asking = self._intake.answers.question
            return answer_form(
                await asking(turn_id, call_id, person_id=self._person.id, at=self._key)
            )
        return None

    async def fill_in(self, turn_id: str, call_id: str, filled: Mapping[str, str]) -> None:
        """Answer such a question; raises AnswerRefused. A late answer changes nothing."""
        with suppress(HasEnded):
            await self._intake.answers.fill_in(
                turn_id, call_id, filled, person_id=self._person.id, at=self._key
            )

    async def forget(self, *turns: Turn) -> None:
        """Drop turns."""
        await self._intake.changes.forget(*(turn.id for turn in turns))

    async def reset(self) -> None:
        """Delete the history and the stream of the conversation."""
        await self._intake.changes.reset(self._key, by=self._person.id)
        await live.forget(self._store, self._key)

    async def asking(self) -> ReplyState | None:
        """Return the reply that has waited for the person since before `begin`."""
        turn_id = await self._intake.lookup.first_open(self._key)
        found = await self._stored(turn_id) if turn_id else None
        return found if found and found.consent else None

    async def question(self, turn_id: str) -> str:
        """Return the question of a turn of another terminal; empty if unknown."""
        found = await self._standing(turn_id)
        return found.question if found else ""

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

    async def _reply(self, change: live.Change, text: str) -> ReplyState | None:
        if not change.turn_id or change.gone:
            return None
        changed = None if change.look else change.applied(text)
        if changed is not None:
            return ReplyState(change.turn_id, changed, change.note, change.last, change.consent)
        return await self._stored(change.turn_id)

    async def _stored(self, turn_id: str) -> ReplyState | None:
        found = await self._standing(turn_id)
        if found is None:
            return None
        shown, last = with_notice(found.answer, found.below), found.state not in _OPEN
        return ReplyState(turn_id, shown, found.sign, last, found.consent)

    async def _standing(self, turn_id: str) -> Standing | None:
        found = await self._intake.lookup.standings(turn_id, person_id=self._person.id)
        return found[0] if found else None


def _found(path: str) -> tuple[Path, int]:
    """Return a path as a person means it, and the size of its file: 0 of a pipe or a device."""
    found = Path(path).expanduser()
    # A terminal writes the path of a file that is dropped into it for a shell.
    with suppress(ValueError):  # a quote does not end, or these are several paths
        if not found.exists():
            (path,) = shlex.split(path)
            found = Path(path).expanduser()
    return found, found.stat().st_size


async def _parts(path: Path) -> AsyncGenerator[bytes]:
    with path.open("rb") as file:
        while part := await asyncio.to_thread(file.read, PART):
            yield part


def _new_id() -> str:
    return f"console:{uuid4()}"


def _person() -> Person:
    try:
        name = whole_characters(getpass.getuser())
    except (ImportError, KeyError, OSError):
        name = "you"  # in a container a user may have a number only
    return Person(id=name, name=name)
