"""A conversation in a terminal whose input line stays below the answer that grows."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from functools import partial
from pathlib import Path

from adapters.console.answering import Answering
from adapters.console.commands import (
    COMMANDS,
    Command,
    command_of,
    consent_of,
    help_tables,
    unknown,
)
from adapters.console.plain import FORGOTTEN
from adapters.console.screen import WindowScreen
from adapters.console.talk import ConsoleConversation, ReplyState
from adapters.console.transcript import AskedQuestion, Transcript
from bot.commands import handlers
from bot.concurrency import BackgroundTasks, together
from bot.domain import FORM, Consent, Turn
from bot.errors import ParleyError, Refused, StoreUnavailable
from bot.languages import say
from bot.tools.questions import AnswerRefused

_LEAVING = "Press Ctrl-C again to leave."
_EARLIER = 3  # exchanges that are shown at the start


class Window:
    """The terminal of one person; an answer that takes longer than `patience` s is abandoned.

    `history` is the file of the input history, or None.
    """

    def __init__(
        self, *, talk: ConsoleConversation, banner: str, patience: float, history: Path | None
    ) -> None:
        self.transcript = Transcript()
        self._talk = talk
        self._banner = banner
        self._patience = patience
        self._screen = WindowScreen(
            transcript=self.transcript,
            on_line=self._submit,
            on_interrupt=self._interrupt,
            history=history,
        )
        # What is typed is carried out in order.
        self._work: asyncio.Queue[Callable[[], Awaitable[None]]] = asyncio.Queue()
        self._tasks = BackgroundTasks()
        self._stopped: AskedQuestion | None = None  # the answer that Ctrl-C asked to end
        self._began_before = False  # the line that is typed began before a call was to be allowed

    async def run(self) -> None:
        """Run until the person quits; then stop and drop open answers."""
        await self._greet()
        async with self._tasks:
            await together(
                asyncio.create_task(self._screen.run()),
                asyncio.create_task(self._follow()),
                asyncio.create_task(self._carry_out()),
            )
        turns = [one.turn for one in self.transcript.unanswered]
        with suppress(StoreUnavailable):
            if turns:
                await self._talk.stop(turns[0])
            if turns[1:]:
                await self._talk.forget(*turns[1:])

    async def _greet(self) -> None:
        head = say("I remember what we said before. /help shows the commands, Ctrl-D leaves.")
        self._screen.say(f"{self._banner}\n{head}")
        with suppress(StoreUnavailable):
            self.transcript.all = [
                AskedQuestion(
                    self._talk.turn(one.question, one.turn_id), is_shown=True, text=one.answer
                )
                for one in await self._talk.begin()
            ]
        for asked in self.transcript.all[-_EARLIER:]:
            self._screen.show_question(asked.turn.text)
            self._screen.show_answer(asked.text)
        with suppress(StoreUnavailable):
            if asking := await self._talk.asking():
                await self._show(asking)

    def _submit(self, line: str, edited: AskedQuestion | None) -> None:
        growing, began_before = self.transcript.growing, self._began_before
        self._began_before = False
        asks = growing.consent if growing and not edited and not began_before else ""
        consent = consent_of(line, asks) if asks else None
        if growing and asks and growing.is_form and growing.answering:
            self._work.put_nowait(partial(self._fill_in, growing, asks, line))
        elif growing and consent:
            self._work.put_nowait(partial(self._decide, growing, asks, consent))
        elif line.strip():
            self._work.put_nowait(partial(self._do, line, edited))

    def _interrupt(self) -> None:
        """Stop the answer, or deny a call; else clear the input; a second Ctrl-C quits."""
        growing = self.transcript.growing
        if self._screen.edited or (self._screen.typed and not growing):
            self._screen.edit(None)
        elif growing and growing.consent:
            self._work.put_nowait(partial(self._decide, growing, growing.consent, "deny"))
        elif growing and growing is self._stopped:
            # No worker has the turn, or it has died.
            notice = say("I no longer wait for that answer.")
            self._work.put_nowait(partial(self._give_up, growing, notice))
        elif growing:
            self._stopped = growing
            self._work.put_nowait(self._stop)
        elif self._screen.hint == say(_LEAVING):
            self._screen.leave()
        else:
            self._screen.show_hint(say(_LEAVING))

    async def _carry_out(self) -> None:
        while True:
            work = await self._work.get()
            try:
                await work()
            except (Refused, StoreUnavailable) as error:
                self._screen.say(error.apology)

    async def _do(self, line: str, edited: AskedQuestion | None) -> None:
        command = command_of(line)
        if command and command.name not in COMMANDS:
            self._screen.say(unknown(command.name))
        elif command:
            await self._command(command)
        elif edited:
            await self._change(edited, line.strip())
        else:
            await self._ask(line.strip())

    async def _command(self, command: Command) -> None:
        match command.name:
            case "/help":
                self._screen.show_answer(help_tables())
            case "/reset":
                await self._talk.reset()
                self.transcript.forget()
                self._screen.say(say(FORGOTTEN))
            case "/regenerate" | "/edit":
                await self._answer_again(command)
            case "/file":
                self._screen.say(await self._talk.add_file(command.argument))
            case "/stop":
                await self._stop()
            case "/save":
                self._screen.say(await asyncio.to_thread(self.transcript.save, command.argument))
            case "/quit":
                self._screen.leave()
            case _:
                notice = await self._talk.commands.run(command)
                if notice == say(handlers.FORGOTTEN):
                    self._forget_person()
                self._screen.say(notice)
                if notice == say(handlers.FORGETTING):
                    self._tasks.start(self._await_forgotten())

    async def _answer_again(self, command: Command) -> None:
        last = self.transcript.last
        if last is None:
            self._screen.say(say("There is no question yet."))
        elif command.name == "/regenerate":
            await self._talk.regenerate(last.turn)
            self._reopen(last, last.turn)
        elif command.argument:
            await self._change(last, command.argument)
        else:
            self._screen.edit(last)

    async def _await_forgotten(self) -> None:
        notice = await self._talk.commands.forgotten()
        self._forget_person()
        self._screen.say(notice)

    def _forget_person(self) -> None:
        self.transcript.forget(unanswered=True)
        self._screen.forget_typed()
        self._note_stopped()

    async def _ask(self, text: str) -> None:
        # The reply may begin before `admit` has returned.
        asked = self.transcript.ask(self._talk.turn(text))
        self._show_next()
        try:
            await self._talk.admit(asked.turn)
        except (Refused, StoreUnavailable):
            self.transcript.drop(asked)
            self._show_question(asked)
            raise
        self._screen.refresh()

    async def _change(self, asked: AskedQuestion, text: str) -> None:
        if asked.turn.text != text:
            self._reopen(asked, await self._talk.edit(asked.turn, text))

    def _reopen(self, asked: AskedQuestion, turn: Turn) -> None:
        self.transcript.reopen(asked, turn)
        self._show_next()

    async def _decide(self, asked: AskedQuestion, call_id: str, consent: Consent) -> None:
        await self._talk.decide(asked.turn.id, call_id, consent)
        if asked.consent == call_id:
            asked.consent = asked.note = ""
        self._screen.refresh()

    async def _fill_in(self, asked: AskedQuestion, call_id: str, line: str) -> None:
        answering = asked.answering
        if not answering or answering.call_id != call_id or not answering.prompt:
            return
        self._screen.say(f"{answering.prompt}{line}")
        answering.take(line)
        if not answering.prompt:
            try:
                await self._talk.fill_in(asked.turn.id, call_id, answering.filled)
            except AnswerRefused as error:
                answering.ask_again(error.field)
                raise
            finally:
                self._screen.refresh()
            if asked.consent == call_id:
                asked.consent = asked.note = ""
        self._screen.refresh()

    async def _stop(self) -> None:
        if growing := self.transcript.growing:
            self._stopped = growing
            self._screen.show_hint(say("Stopping … (press Ctrl-C again to stop waiting)"))
            await self._talk.stop(growing.turn)
        else:
            self._screen.say(say("There is no answer to stop."))

    def _note_stopped(self) -> None:
        self._stopped = None
        self._screen.show_hint("")

    async def _give_up(self, asked: AskedQuestion, notice: str) -> None:
        self.transcript.drop(asked)
        self._note_stopped()
        self._screen.say(notice)
        await self._talk.forget(asked.turn)
        self._show_next()

    async def _follow(self) -> None:
        async with aclosing(self._talk.replies()) as replies:
            async for reply in replies:
                if reply:
                    await self._show(reply)
                elif overdue := self.transcript.overdue(self._patience):
                    with suppress(StoreUnavailable):
                        await self._give_up(overdue, ParleyError.apology)

    async def _show(self, reply: ReplyState) -> None:
        asked = await self._asked(reply)
        if asked is None:
            return
        self._show_question(asked)
        if reply.consent and reply.consent != asked.consent:
            self._began_before = bool(self._screen.typed)
            if reply.consent.startswith(FORM):
                form = await self._talk.form(reply.turn_id, reply.consent)
                asked.answering = Answering(reply.consent, form) if form else None
        growth = asked.show(reply)
        if growth.anew:
            self._screen.say(say("Another try:"))
        if growth.finished:
            self._screen.show_answer(growth.finished)
        if reply.last:
            self.transcript.end(asked)
            if asked is self._stopped:
                self._note_stopped()
            self._show_next()
        self._screen.refresh()

    async def _asked(self, reply: ReplyState) -> AskedQuestion | None:
        """Return the question to which a reply belongs; None if there is nothing new to show."""
        asked = self.transcript.find(reply.turn_id)
        if asked is None:
            question = await self._talk.question(reply.turn_id)
            asked = self.transcript.ask(self._talk.turn(question, reply.turn_id))
        elif asked not in self.transcript.unanswered:
            if asked.text == reply.text:
                return None
            # It was edited just before its end.
            self.transcript.reopen(asked, asked.turn)
        return asked

    def _show_next(self) -> None:
        if growing := self.transcript.growing:
            self._show_question(growing)

    def _show_question(self, asked: AskedQuestion) -> None:
        if not asked.is_shown:
            self._screen.show_question(asked.turn.text)
            asked.is_shown = True
