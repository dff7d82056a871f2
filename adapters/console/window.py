"""A conversation in a terminal whose input line stays below the answer that grows."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress
from pathlib import Path

from prompt_toolkit.input import Input
from prompt_toolkit.output import Output

from adapters.console import commands
from adapters.console.commands import Command, command_of
from adapters.console.plain import FORGOTTEN, LEAVING
from adapters.console.screen import WindowScreen
from adapters.console.talk import ConsoleConversation, ReplyState
from adapters.console.transcript import AskedQuestion, Transcript, save
from bot.commands import handlers
from bot.concurrency import BackgroundTasks, together
from bot.errors import ParleyError, Refused, StoreUnavailable

HEAD = "I remember what we said before. /help shows the commands, Ctrl-D leaves."
STOPPING = "Stopping … (press Ctrl-C again to stop waiting)"
EDITING = "Change your question; Ctrl-C leaves it as it is."
GIVEN_UP = "I no longer wait for that answer."
ANEW = "Another try:"
NOTHING = "There is no question yet."
NOT_GROWING = "There is no answer to stop."
_EARLIER = 3  # exchanges that are shown at the start


class Window:
    """The terminal of one person; an answer that takes longer than `patience` s is abandoned.

    `history` is the file of the input history, or None. `input` and `output` are for tests; the
    default is the process's terminal.
    """

    def __init__(
        self,
        *,
        talk: ConsoleConversation,
        banner: str,
        patience: float,
        history: Path | None,
        input: Input | None = None,  # noqa: A002 (prompt_toolkit's word)
        output: Output | None = None,
    ) -> None:
        self._talk = talk
        self._banner = banner
        self._patience = patience
        self._transcript = Transcript()
        self._screen = WindowScreen(window=self, history=history, input=input, output=output)
        self._lines: asyncio.Queue[tuple[str, AskedQuestion | None]] = asyncio.Queue()
        self._tasks = BackgroundTasks()
        self._edited: AskedQuestion | None = None
        self._stopped: AskedQuestion | None = None  # the answer that Ctrl-C asked to end
        self._leaves = False  # after the first Ctrl-C

    async def run(self) -> None:
        """Run until the person quits; then stop and drop open answers."""
        await self._greet()
        async with self._tasks:
            await together(
                asyncio.create_task(self._screen.run()),
                asyncio.create_task(self._follow()),
                asyncio.create_task(self._handle_lines()),
            )
        await self._end_answers()

    @property
    def label(self) -> str:
        """The prompt before the input."""
        return "edit> " if self._edited else "you> "

    @property
    def growing(self) -> AskedQuestion | None:
        """The question whose answer grows, or is awaited."""
        return self._transcript.growing

    @property
    def waiting(self) -> list[str]:
        """The questions behind it."""
        return [one.turn.text for one in self._transcript.unanswered[1:]]

    def submit(self, line: str) -> None:
        """Handle a line that was typed."""
        edited, self._edited = self._edited, None
        self.note_typing()
        if line.strip():
            self._lines.put_nowait((line, edited))

    def note_typing(self) -> None:
        """Reset the "Ctrl-C again" state."""
        self._leaves = False
        self._screen.hint = EDITING if self._edited else ""

    def interrupt(self) -> None:
        """Stop the answer; if none is running, clear the input; a second Ctrl-C quits."""
        growing = self.growing
        if self._edited or (self._screen.typed and not growing):
            self._edited = None
            self._screen.set_input("")
            self.note_typing()
        elif growing and growing is self._stopped:
            # No worker has the turn, or it has died.
            self._lines.put_nowait(("/give-up", growing))
        elif growing:
            self._stopped = growing
            self._lines.put_nowait(("/stop", None))
        elif self._leaves:
            self._screen.leave()
        else:
            self._leaves = True
            self._screen.hint = LEAVING

    def begin_edit(self) -> None:
        """Put the last question into the input, to be changed."""
        self._edited = self._transcript.last
        if self._edited:
            self._screen.set_input(self._edited.turn.text)
            self._screen.hint = EDITING

    async def _greet(self) -> None:
        self._screen.say(f"{self._banner}\n{HEAD}")
        with suppress(StoreUnavailable):
            for exchange in await self._talk.begin():
                turn = self._talk.turn(exchange.question, exchange.turn_id)
                self._transcript.remember(turn, exchange.answer)
        for asked in self._transcript.all[-_EARLIER:]:
            self._screen.show_question(asked.turn.text)
            self._screen.show_answer(asked.text)

    async def _end_answers(self) -> None:
        """Stop the running answer and drop waiting questions."""
        turns = [one.turn for one in self._transcript.unanswered]
        with suppress(StoreUnavailable):
            if turns:
                await self._talk.stop(turns[0])
            if turns[1:]:
                await self._talk.forget(*turns[1:])

    async def _handle_lines(self) -> None:
        while True:
            line, asked = await self._lines.get()
            try:
                await self._do(line, asked)
            except (Refused, StoreUnavailable) as error:
                self._screen.say(error.apology)

    async def _do(self, line: str, asked: AskedQuestion | None) -> None:
        command = command_of(line)
        if line == "/give-up" and asked:
            await self._give_up(asked)
        elif command and not command.is_known:
            self._screen.say(commands.unknown(command.name))
        elif command:
            await self._command(command)
        elif asked:
            await self._change(asked, line.strip())
        else:
            await self._ask(line.strip())

    async def _command(self, command: Command) -> None:
        match command.name:
            case "/help":
                self._screen.show_answer(commands.help_tables())
            case "/reset":
                await self._talk.reset()
                self._transcript.forget()
                self._screen.say(FORGOTTEN)
            case "/regenerate":
                await self._regenerate()
            case "/edit" if command.argument and self._transcript.last:
                await self._change(self._transcript.last, command.argument)
            case "/edit":
                self.begin_edit()
                if not self._edited:
                    self._screen.say(NOTHING)
            case "/stop":
                await self._stop()
            case "/model" | "/persona" | "/temperature" | "/longest":
                self._screen.say(await self._talk.choose(command.name[1:], command.argument))
            case "/usage":
                self._screen.say(await self._talk.usage())
            case "/forget-me":
                await self._forget_me(command.argument)
            case "/save":
                notice = await asyncio.to_thread(save, self._transcript, command.argument)
                self._screen.say(notice)
            case _:
                self._screen.leave()

    async def _forget_me(self, answer: str) -> None:
        notice = await self._talk.forget_me(answer)
        if notice == handlers.FORGETTING:
            self._screen.say(notice)
            self._tasks.start(self._await_forgotten())
        elif notice == handlers.FORGOTTEN:
            self._note_forgotten(notice)
        else:
            self._screen.say(notice)

    async def _await_forgotten(self) -> None:
        self._note_forgotten(await self._talk.forgotten())

    def _note_forgotten(self, notice: str) -> None:
        self._transcript.forget_all()
        self._stopped, self._screen.hint = None, ""
        self._screen.forget_typed()
        self._screen.say(notice)

    async def _ask(self, text: str) -> None:
        if not self._transcript.unanswered:
            self._screen.show_question(text)
        # The reply may begin before `ask` has returned.
        asked = self._transcript.ask(
            self._talk.turn(text), is_shown=not self._transcript.unanswered
        )
        try:
            await self._talk.admit(asked.turn)
        except (Refused, StoreUnavailable):
            self._transcript.drop(asked)
            if not asked.is_shown:
                self._screen.show_question(text)
            raise
        self._screen.refresh()

    async def _change(self, asked: AskedQuestion, text: str) -> None:
        if asked.turn.text == text:
            return
        turn = await self._talk.edit(asked.turn, text)
        self._transcript.reopen(asked, turn)
        if asked is self.growing:
            self._screen.show_question(text)
            asked.is_shown = True

    async def _regenerate(self) -> None:
        last = self._transcript.last
        if last is None:
            self._screen.say(NOTHING)
            return
        await self._talk.regenerate(last.turn)
        self._transcript.reopen(last, last.turn)
        self._screen.show_question(last.turn.text)
        last.is_shown = True

    async def _stop(self) -> None:
        if growing := self.growing:
            self._stopped = growing
            self._screen.hint = STOPPING
            await self._talk.stop(growing.turn)
        else:
            self._screen.say(NOT_GROWING)

    async def _give_up(self, asked: AskedQuestion, *, apology: str = GIVEN_UP) -> None:
        self._transcript.drop(asked)
        self._stopped, self._screen.hint = None, ""
        self._screen.say(apology)
        await self._talk.forget(asked.turn)
        self._show_next()

    async def _follow(self) -> None:
        async with aclosing(self._talk.replies()) as replies:
            async for reply in replies:
                if reply:
                    await self._show(reply)
                elif overdue := self._transcript.overdue(self._patience):
                    with suppress(StoreUnavailable):
                        await self._give_up(overdue, apology=ParleyError.apology)

    async def _show(self, reply: ReplyState) -> None:
        asked = await self._asked(reply)
        if asked is None:
            return
        if not asked.is_shown:
            self._screen.show_question(asked.turn.text)
            asked.is_shown = True
        growth = asked.show(reply)
        if growth.anew:
            self._screen.say(ANEW)
        if growth.finished:
            self._screen.show_answer(growth.finished)
        if reply.last:
            self._transcript.end(asked)
            if asked is self._stopped:
                self._stopped, self._screen.hint = None, ""
            self._show_next()
        self._screen.refresh()

    async def _asked(self, reply: ReplyState) -> AskedQuestion | None:
        """Return the question to which a reply belongs; None if there is nothing new to show."""
        asked = self._transcript.find(reply.turn_id)
        if asked is None:
            question = await self._talk.question(reply.turn_id)
            asked = self._transcript.ask(self._talk.turn(question, reply.turn_id), is_shown=False)
        elif asked not in self._transcript.unanswered:
            if asked.text == reply.text:
                return None
            # It was edited just before its end.
            self._transcript.reopen(asked, asked.turn)
        return asked

    def _show_next(self) -> None:
        if (growing := self.growing) and not growing.is_shown:
            self._screen.show_question(growing.turn.text)
            growing.is_shown = True
