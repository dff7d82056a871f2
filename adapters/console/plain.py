"""A conversation line by line, for pipes and for terminals without the window."""

from __future__ import annotations

import asyncio
import concurrent.futures
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import aclosing, contextmanager, nullcontext, suppress
from typing import TextIO, TypeVar

from adapters.console.commands import PLAIN, Command, command_of, plain_help, unknown
from adapters.console.talk import ConsoleConversation, ReplyState
from bot.commands import handlers
from bot.concurrency import running
from bot.errors import ParleyError, Refused, StoreUnavailable
from bot.text.sanitize import strip_controls

T = TypeVar("T")

YOU, BOT = "you> ", "bot> "
QUIT = "/quit"
HEAD = (
    "I remember what we said before; /reset forgets it. Ctrl-C stops an answer, "
    f"{QUIT} leaves, /help shows the commands."
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

    async def at_terminal(self, banner: str) -> None:
        """Converse at a terminal until `/quit`; during an answer, SIGINT stops it."""
        await self.print(f"{banner}\n{HEAD}\n\n")
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
                    notice = "" if is_quiet else FORGOTTEN
                case "/file":
                    waits = await self._talk.add_file(command.argument)
                    notice = "" if is_quiet else waits
                case _:
                    notice = await self._talk.commands.run(command)
        except (Refused, StoreUnavailable) as error:
            notice = error.apology
        await self.print(notice and f"{notice}\n")
        if notice == handlers.FORGETTING:
            await self.print(f"{await self._talk.commands.forgotten()}\n")

    async def _line(self, you: str) -> str:
        """Return a line with its end; empty at the end of the input."""
        await self.print(you)
        line = await _in_thread(self._stdin.readline)
        await self.print("" if line or not you else "\n")
        return line

    async def _answer(self, question: str, display: _Display) -> None:
        await self.print(display.prompt)
        try:
            turn = self._talk.turn(question)
            await self._talk.admit(turn)
            async with (
                running(self._follow(turn.id, display)) as following,
                asyncio.timeout(self._patience),
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

    async def _follow(self, turn_id: str, display: _Display) -> None:
        """Print the states of a reply, up to the final one."""
        async with aclosing(self._talk.replies()) as replies:
            async for reply in replies:
                if reply and reply.turn_id == turn_id:
                    await self.print(display.piece(reply))
                    if reply.last:
                        return

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
        loop.add_signal_handler(signal.SIGINT, self._interruptions.put_nowait, None)
        try:
            yield
        finally:
            loop.remove_signal_handler(signal.SIGINT)
            signal.signal(signal.SIGINT, handler)


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
