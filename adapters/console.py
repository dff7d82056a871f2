"""The terminal as a platform; any worker answers, through a Redis stream."""

from __future__ import annotations

import asyncio
import concurrent.futures
import getpass
import io
import os
import signal
import sys
import threading
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TextIO, TypeVar
from uuid import uuid4

from bot.concurrency import running
from bot.domain import ContextMessage, EditBudget, Page, Person, Purpose, ThreadKey, Turn
from bot.errors import ParleyError, Refused, StoreUnavailable, WriteFailed
from bot.store import Store
from bot.text.sanitize import strip_controls, whole_characters
from bot.turns.intake import Intake

T = TypeVar("T")

YOU, BOT = "you> ", "bot> "
QUIT, RESET = "/quit", "/reset"
HEAD = (
    f"I remember what we said before; {RESET} starts anew. Ctrl-C stops an answer, {QUIT} leaves."
)
FORGOTTEN = "Forgotten. We start anew."
LEAVING = "Press Ctrl-C again to leave."

_SCREEN_SECONDS = 3600  # for which an unused screen is kept
# A page that is not final closes an open code fence, which goes on in the next one: its end is not
# printed yet.
_CLOSERS = "`~> \n"
_PASTE_MODE_OFF = "\x1b[?2004l"


class ConsoleSurface:
    """The screen of one reply: a stream that holds the newest page."""

    limit = sys.maxsize  # one page holds every reply
    shows_work = True

    def __init__(self, *, store: Store, turn: Turn) -> None:
        self._store = store
        self._turn_id = turn.id
        self._screen = store.key("screen", turn.id)
        self._budget = EditBudget(f"console:{turn.id}", writes=20, seconds=1.0, refills=False)

    def measure(self, text: str) -> int:
        """Return the number of characters."""
        return len(text)

    def budget(self, page: Page, *, new: bool) -> EditBudget:
        """Return as many writes as a person can follow."""
        return self._budget

    async def post(self, page: Page) -> str:
        """Show a page."""
        await self._write(page)
        return f"{self._turn_id}/{page.number}"

    async def edit(self, message_id: str, page: Page) -> None:
        """Replace the page."""
        await self._write(page)

    async def _write(self, page: Page) -> None:
        fields = ("text", page.text, "final", "yes" if page.final else "")
        try:
            await self._store.command("XADD", self._screen, "MAXLEN", 1, "*", *fields)
            await self._store.command("EXPIRE", self._screen, _SCREEN_SECONDS)
        except StoreUnavailable as error:
            raise WriteFailed(str(error)) from error


class ConsolePlatform:
    """The terminal; `surface` works in any process, `listen` in the one with the terminal.

    If `stdin` is a terminal, it must be `sys.stdin`. An answer that takes longer than `patience`
    seconds is given up, so that should be more than a reply may take.
    """

    name = "console"

    def __init__(
        self, *, store: Store, banner: str, patience: float, stdin: TextIO, stdout: TextIO
    ) -> None:
        self._store = store
        self.banner = banner  # shown when it begins to listen
        self._patience = patience
        self._stdin = stdin
        self._stdout = stdout
        self._interruptions = 0
        self._woken = asyncio.Event()

    @asynccontextmanager
    async def surface(
        self, turn: Turn, purpose: Purpose = Purpose.ANSWER
    ) -> AsyncGenerator[ConsoleSurface]:
        """Open the surface of a turn's reply; all purposes share it."""
        yield ConsoleSurface(store=self._store, turn=turn)

    async def read_context(self, turn: Turn, *, since: str, most: int) -> Sequence[ContextMessage]:
        """Return nothing: one person alone talks here, and the history has it all."""
        return ()

    async def orphaned_messages(self, turn: Turn, *, but: Collection[str]) -> Sequence[str]:
        """Return nothing: a page's place in the store is its number."""
        return ()

    async def listen(self, intake: Intake) -> None:
        """Read questions and print answers until the end of the input or `/quit`.

        At a terminal, SIGINT is handled here meanwhile.
        """
        for stream in (self._stdin, self._stdout):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="replace")
        try:
            # Windows has no terminal of this kind: lines are read as from a pipe.
            if self._stdin.isatty() and sys.platform != "win32":
                await self._print(f"{self.banner}\n{HEAD}\n\n")
                with self._terminal():
                    # The same thread at each start: the conversation continues.
                    await self._converse(intake, self._prompt, thread="terminal", prompt=BOT)
            else:
                await self._converse(intake, self._piped_line, thread=uuid4().hex, prompt="")
        except EOFError:
            await self._print("\n")
        except BrokenPipeError:
            # The reader is gone. Flushing the buffer at exit would fail again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stdout.fileno())

    async def _converse(
        self, intake: Intake, read: Callable[[], Awaitable[str]], *, thread: str, prompt: str
    ) -> None:
        person = _person()
        key = ThreadKey(self.name, "local", person.id, thread)
        while (line := await read()) != QUIT:
            if line == RESET:
                outcome = FORGOTTEN
                try:
                    await intake.reset(key)
                except StoreUnavailable as error:
                    outcome = error.apology
                if prompt:
                    await self._print(f"{outcome}\n")
            elif line:
                turn_id = f"{self.name}:{uuid4()}"
                turn = Turn(turn_id, key, person, line, place={}, asked_at=time.time())
                await self._answer(intake, turn, _Display(prompt))

    async def _piped_line(self) -> str:
        line = await _in_thread(self._stdin.readline)
        return line.strip() if line else QUIT

    async def _prompt(self) -> str:
        """Return a line. Raises EOFError at the end of the input and after a second Ctrl-C."""
        self._interruptions = 0
        reading = asyncio.ensure_future(_in_thread(_edited_line))
        try:
            if not await self._ends_first(reading):
                # The text typed so far cannot be taken out of readline, so it is shown again.
                await self._print(f"\n{LEAVING}\n{YOU}{_typed_text()}")
                if not await self._ends_first(reading):
                    raise EOFError
            return reading.result()
        finally:
            if not reading.done():
                reading.cancel()
                os.write(self._stdout.fileno(), _PASTE_MODE_OFF.encode())

    async def _answer(self, intake: Intake, turn: Turn, display: _Display) -> None:
        self._interruptions = 0
        await self._print(display.prompt)
        async with running(self._follow(turn.id, display)) as following:
            try:
                await intake.admit(turn)
                async with asyncio.timeout(self._patience):
                    if not await self._ends_first(following):
                        await intake.stop(turn.id)
                        if not await self._ends_first(following):
                            # No worker has the turn, or it has died.
                            await intake.forget(turn.id)
                            await self._print("\n")
                            return
                    await following
            except (Refused, StoreUnavailable) as error:
                await self._print(display.apology(error.apology))
            except TimeoutError:
                await self._print(display.apology(ParleyError.apology))

    async def _follow(self, turn_id: str, display: _Display) -> None:
        """Print the states of a reply, up to the final one."""
        screen, last = self._store.key("screen", turn_id), "0"
        while True:
            try:
                found = await self._store.command("XREAD", "BLOCK", 1000, "STREAMS", screen, last)
            except StoreUnavailable:
                # The worker continues without the store and saves when it is back.
                await asyncio.sleep(0.5)
                continue
            for _, entries in found:
                for entry, fields in entries:
                    last = entry
                    page = Page(0, fields.get("text", ""), final=bool(fields.get("final")))
                    await self._print(display.piece(page))
                    if page.final:
                        return

    async def _ends_first(self, work: asyncio.Future[T]) -> bool:
        """Wait for `work` or for the next Ctrl-C; returns whether the work has ended."""
        work.add_done_callback(lambda _: self._woken.set())
        while not work.done():
            if self._interruptions:
                self._interruptions -= 1
                return False
            self._woken.clear()
            await self._woken.wait()
        return True

    async def _print(self, text: str) -> None:
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

    def _interrupt(self) -> None:
        self._interruptions += 1
        self._woken.set()

    @contextmanager
    def _terminal(self) -> Iterator[None]:
        """Count SIGINT during the block, and restore the terminal after it."""
        # Windows has no such module.
        import termios

        loop = asyncio.get_running_loop()
        mode, handler = termios.tcgetattr(self._stdin.fileno()), signal.getsignal(signal.SIGINT)
        loop.add_signal_handler(signal.SIGINT, self._interrupt)
        try:
            yield
        finally:
            loop.remove_signal_handler(signal.SIGINT)
            signal.signal(signal.SIGINT, handler)
            # A thread that waits for a line has switched off the echo.
            termios.tcsetattr(self._stdin.fileno(), termios.TCSANOW, mode)


class _Display:
    """Prints an answer as it grows after a prompt; without one, for programs, when it is final."""

    def __init__(self, prompt: str) -> None:
        self.prompt = prompt
        self._shown = ""

    def piece(self, page: Page) -> str:
        text = page.text
        if not page.final:
            text = text.rstrip(_CLOSERS) if self.prompt else ""
            if self._shown.startswith(text):
                return ""
        before, self._shown = self._shown, text
        new = text[len(before) :] if text.startswith(before) else f"\n{self.prompt}{text}"
        return f"{new}\n" if page.final else new

    def apology(self, apology: str) -> str:
        return f"\n{apology}\n" if self._shown else f"{apology}\n"


async def _in_thread(work: Callable[[], T]) -> T:
    """Run blocking work in a daemon thread, for which no process waits at its end."""
    future: concurrent.futures.Future[T] = concurrent.futures.Future()
    future.set_running_or_notify_cancel()

    def run() -> None:
        try:
            result = work()
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(result)

    threading.Thread(target=run, name="terminal", daemon=True).start()
    return await asyncio.wrap_future(future)


def _edited_line() -> str:
    # Once this is imported, `input` has line editing and a history.
    with suppress(ImportError):
        import readline

        # CPython switches it off; then each line of a pasted text would be a question.
        readline.parse_and_bind("set enable-bracketed-paste on")
    return input(YOU).strip()


def _typed_text() -> str:
    with suppress(ImportError):
        import readline

        return readline.get_line_buffer()
    return ""


def _person() -> Person:
    try:
        name = whole_characters(getpass.getuser())
    except (ImportError, KeyError, OSError):
        name = "you"  # in a container a user may have a number only
    return Person(id=name, name=name)
