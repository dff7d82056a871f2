"""A conversation line by line, for pipes and for terminals without the window."""

from __future__ import annotations

import asyncio
import concurrent.futures
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import aclosing, contextmanager, nullcontext, suppress
from typing import TextIO, TypeVar

from adapters.console.answering import Answering, prompt_of
from adapters.console.commands import PLAIN, Command, command_of, consent_of, plain_help, unknown
from adapters.console.talk import ConsoleConversation, ReplyState
from bot.commands import handlers
from bot.concurrency import cancelled, running
from bot.domain import FORM, Consent
from bot.errors import ParleyError, Refused, StoreUnavailable
from bot.languages import say
from bot.text.sanitize import strip_controls
from bot.tools.questions import AnswerRefused

T = TypeVar("T")

YOU, BOT = "you> ", "bot> "
QUIT = "/quit"
HEAD = (
    "I remember what we said before; /reset forgets it. Ctrl-C stops an answer, "
    "/quit leaves, /help shows the commands."
)
FORGOTTEN = "Forgotten. Ask me something new."


class PlainConversation:
    """Reads questions and prints answers, one after another.

    An answer that takes longer than `patience` seconds is abandoned.
    """

    def __init__(
        self, *, talk: ConsoleConversation, patience: float, stdin: TextIO, stdout: TextIO
    ) -> None:
        self._talk = talk
        self._patience = patience
        self._stdin = stdin
        self._stdout = stdout
        self._interruptions: asyncio.Queue[None] = asyncio.Queue()
        self._reading: asyncio.Future[str] | None = None  # of the next line

    async def at_terminal(self, banner: str) -> None:
        """Converse at a terminal until `/quit`; during an answer, SIGINT stops it."""
        await self.print(f"{banner}\n{say(HEAD)}\n\n")
        await self._converse(you=YOU, prompt=BOT)

    async def in_pipe(self) -> None:
        """Answer each line of the input."""
        await self._converse(you="", prompt="")

    async def print(self, text: str) -> None:
        """Write a text without control characters."""

        def write() -> None:
            try:
                self._stdout.write(strip_controls(text))
                self._stdout.flush()
            except BrokenPipeError:
                raise
            except OSError as error:
                raise ParleyError(f"the answer cannot be written: {error.strerror}") from error

        # A stopped terminal (Ctrl-S) must not block the process.
        if text:
            await _in_thread(write)

    async def _converse(self, *, you: str, prompt: str) -> None:
        with suppress(StoreUnavailable):
            await self._talk.begin()
        while line := await self._line(you):
            # Piped lines may look like commands, or be "exit" or "quit".
            command = command_of(line) if prompt or line.startswith("/") else None
            if command and command.name == QUIT and (prompt or line.strip() == QUIT):
                return
            if command and command.name in PLAIN and command.name != QUIT:
                await self._run_command(command, is_quiet=not prompt)
            elif command and prompt:
                await self.print(f"{unknown(command.name)}\n")
            elif question := line.strip():
                with self._counted_interruptions() if prompt else nullcontext():
                    await self._answer(question, _Display(prompt))

    async def _run_command(self, command: Command, *, is_quiet: bool) -> None:
        """Run a command; with `is_quiet` a /reset says nothing."""
        try:
            match command.name:
                case "/help":
                    notice = plain_help()
                case "/reset":
                    await self._talk.reset()
                    notice = "" if is_quiet else say(FORGOTTEN)
                case "/file":
                    waits = await self._talk.add_file(command.argument)
                    notice = "" if is_quiet else waits
                case _:
                    notice = await self._talk.commands.run(command)
        except (Refused, StoreUnavailable) as error:
            notice = error.apology
        await self.print(notice and f"{notice}\n")
        if notice == say(handlers.FORGETTING):
            await self.print(f"{await self._talk.commands.forgotten()}\n")

    async def _line(self, you: str) -> str:
        """Return a line with its end; empty at the end of the input."""
        await self.print(you)
        line = await self._read_line()
        await self.print("" if line or not you else "\n")
        return line

    async def _read_line(self) -> str:
        # A thread that reads cannot be stopped: the next reader gets its line.
        self._reading = self._reading or asyncio.ensure_future(_in_thread(self._stdin.readline))
        line = await asyncio.shield(self._reading)
        self._reading = None
        return line

    async def _answer(self, question: str, display: _Display) -> None:
        await self.print(display.prompt)
        try:
            turn = self._talk.turn(question)
            await self._talk.admit(turn)
            async with (
                asyncio.timeout(self._patience) as limit,
                running(self._follow(turn.id, display, limit)) as following,
            ):
                if not await self._wait_or_interrupt(following):
                    await self._talk.stop(turn)
                if await self._wait_or_interrupt(following):
                    await following
                else:
                    # No worker has the turn, or it has died.
                    await self._talk.forget(turn)
                    await self.print("\n")
        except (Refused, StoreUnavailable) as error:
            await self.print(display.apology(error.apology))
        except TimeoutError:
            await self.print(display.apology(ParleyError.apology))

    async def _follow(self, turn_id: str, display: _Display, limit: asyncio.Timeout) -> None:
        """Print the states of a reply, up to the final one, and ask what it asks."""
        call_id, asking = "", None
        try:
            async with aclosing(self._talk.replies()) as replies:
                async for reply in replies:
                    if not reply or reply.turn_id != turn_id:
                        continue
                    if asking and reply.consent != call_id and not asking.done():
                        # Its time is over, or another terminal has answered.
                        await cancelled(asking)
                        await self.print("\n")
                    await self.print(display.piece(reply))
                    if reply.last:
                        return
                    if reply.consent and reply.consent != call_id:
                        asking = asyncio.create_task(self._ask(reply, display, limit))
                    call_id = reply.consent
        finally:
            if asking:
                await cancelled(asking)

    async def _ask(self, reply: ReplyState, display: _Display, limit: asyncio.Timeout) -> None:
        """Have the person allow a call or answer its server, or deny; in a pipe it is denied."""
        consent: Consent | None = None if display.prompt else "deny"
        if not consent:
            await self.print(f"\n{reply.note}\n")
            _forget_typed(self._stdin)
        outer, self._interruptions = self._interruptions, asyncio.Queue()
        limit.reschedule(None)  # a person may take their time
        try:
            if not consent and reply.consent.startswith(FORM):
                consent = await self._fill_in(reply)
            while not consent:
                line = await self._said(prompt_of(reply.consent))
                consent = consent_of(line, reply.consent) if line else "deny"
            if consent != "answer":
                await self._talk.decide(reply.turn_id, reply.consent, consent)
        except StoreUnavailable as error:
            await self.print(f"{error.apology}\n")
        finally:
            self._interruptions = outer
            limit.reschedule(asyncio.get_running_loop().time() + self._patience)

    async def _fill_in(self, reply: ReplyState) -> Consent:
        """Ask for the fields of a form until they fit; return "deny" if the person breaks off."""
        form = await self._talk.form(reply.turn_id, reply.consent)
        answering = Answering(reply.consent, form) if form else None
        while answering:
            while answering.prompt:
                if not (line := await self._said(answering.prompt)):
                    return "deny"
                answering.take(line)
            try:
                await self._talk.fill_in(reply.turn_id, reply.consent, answering.filled)
                break
            except AnswerRefused as error:
                await self.print(f"{error.apology}\n")
                answering.ask_again(error.field)
        return "answer"

    async def _said(self, prompt: str) -> str:
        """Return a line with its end; empty after Ctrl-C and at the end of the input."""
        await self.print(prompt)
        async with running(self._read_line()) as reading:
            is_read = await self._wait_or_interrupt(reading)
            line = reading.result() if is_read else ""
        await self.print("" if line else "\n")
        return line

    async def _wait_or_interrupt(self, work: asyncio.Future[T]) -> bool:
        """Wait for `work` or the next Ctrl-C. Returns whether the work is done."""
        async with running(self._interruptions.get()) as interrupted:
            await asyncio.wait((work, interrupted), return_when=asyncio.FIRST_COMPLETED)
        return work.done()

    @contextmanager
    def _counted_interruptions(self) -> Iterator[None]:
        """Count SIGINT during the block; elsewhere it ends the process."""
        loop, handler = asyncio.get_running_loop(), signal.getsignal(signal.SIGINT)
        self._interruptions = asyncio.Queue()
        loop.add_signal_handler(signal.SIGINT, lambda: self._interruptions.put_nowait(None))
        try:
            yield
        finally:
            loop.remove_signal_handler(signal.SIGINT)
            signal.signal(signal.SIGINT, handler)


def _forget_typed(stdin: TextIO) -> None:
    """Drop what was typed before a question to which it is no answer."""
    import termios  # on Unix alone, as all of this class is at a terminal

    with suppress(OSError, ValueError, termios.error):
        termios.tcflush(stdin, termios.TCIFLUSH)


class _Display:
    """Prints a growing answer after a prompt; without a prompt (pipes), the final answer only."""

    def __init__(self, prompt: str) -> None:
        self.prompt = prompt
        self._shown = ""

    def piece(self, reply: ReplyState) -> str:
        if not reply.last and (not self.prompt or self._shown.startswith(reply.text)):
            return ""
        before, self._shown = self._shown, reply.text
        is_longer = reply.text.startswith(before)
        new = reply.text[len(before) :] if is_longer else f"\n{self.prompt}{reply.text}"
        return f"{new}\n" if reply.last else new

    def apology(self, apology: str) -> str:
        return f"\n{apology}\n" if self._shown else f"{apology}\n"


async def _in_thread(work: Callable[[], T]) -> T:
    """Run blocking work in a daemon thread, which does not delay the exit."""
    future: concurrent.futures.Future[T] = concurrent.futures.Future()
    future.set_running_or_notify_cancel()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name="terminal", daemon=True).start()
    return await asyncio.wrap_future(future)
