"""The terminal as a platform; any worker answers, through a Redis stream."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import getpass
import io
import os
import signal
import sys
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from typing import TextIO, TypeVar
from uuid import uuid4

from bot.concurrency import running
from bot.domain import EditBudget, Page, Person, Purpose, ThreadKey, Turn
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
_BLOCK_MS = 1000
_RETRY_SECONDS = 0.5
# A page that is not final closes an open code fence, which goes on in the next one: its end is not
# printed yet.
_CLOSERS = "`~> \n"
_PASTE_MODE_OFF = "\x1b[?2004l"


class ConsoleSurface:
    """The screen of one reply: a stream that holds the newest page."""

    limit = sys.maxsize  # one page holds every reply

    def __init__(self, *, store: Store, turn: Turn) -> None:
        self._store = store
        self._turn_id = turn.id
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
        screen = _screen(self._store, self._turn_id)
        final = "yes" if page.final else ""
        try:
            await self._store.command(
                *("XADD", screen, "MAXLEN", 1, "*", "text", page.text, "final", final)
            )
            await self._store.command("EXPIRE", screen, _SCREEN_SECONDS)
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
        self._banner = banner
        self._patience = patience
        self._stdin = stdin
        self._stdout = stdout
        self._interruptions = 0
        self._woken = asyncio.Event()

    @asynccontextmanager
    async def surface(
        self, turn: Turn, purpose: Purpose = Purpose.ANSWER
    ) -> AsyncIterator[ConsoleSurface]:
        """Open the surface of a turn's reply, which the terminal follows through the store."""
        del purpose  # a page's place in the store is its number
        yield ConsoleSurface(store=self._store, turn=turn)

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
                await self._converse(intake)
            else:
                await self._answer_lines(intake)
        except BrokenPipeError:
            # The reader is gone. Flushing the buffer at exit would fail again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stdout.fileno())

    async def _converse(self, intake: Intake) -> None:
        person = _person()
        # The same thread at each start: the conversation continues.
        key = ThreadKey(self.name, "local", person.id, "terminal")
        await self._print(f"{self._banner}\n{HEAD}\n\n")
        with self._restored_terminal(), self._interrupts():
            while (line := await self._prompt()) != QUIT:
                if line is None:
                    await self._print("\n")
                    return
                if line == RESET:
                    await self._print(f"{await _start_anew(intake, key)}\n")
                elif line:
                    await self._answer(intake, _turn(key, person, line), _Growing())

    async def _answer_lines(self, intake: Intake) -> None:
        person = _person()
        key = ThreadKey(self.name, "local", person.id, uuid4().hex)
        while (line := await _in_thread(self._stdin.readline)) and line.strip() != QUIT:
            if line.strip() == RESET:
                await _start_anew(intake, key)
            elif line.strip():
                await self._answer(intake, _turn(key, person, line.strip()), _Whole())

    async def _prompt(self) -> str | None:
        """Return a line; None at the end of the input and after a second Ctrl-C."""
        self._interruptions = 0
        reading = asyncio.ensure_future(_in_thread(_edited_line))
        try:
            if not await self._ends_first(reading):
                # The text typed so far cannot be taken out of readline, so it is shown again.
                await self._print(f"\n{LEAVING}\n{YOU}{_typed_text()}")
                if not await self._ends_first(reading):
                    return None
            return reading.result()
        finally:
            if not reading.done():
                reading.cancel()
                os.write(self._stdout.fileno(), _PASTE_MODE_OFF.encode())

    async def _answer(self, intake: Intake, turn: Turn, display: _Display) -> None:
        self._interruptions = 0
        await self._print(display.begin)
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
        async with aclosing(_pages(self._store, turn_id)) as pages:
            async for page in pages:
                await self._print(display.piece(page))

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
    def _interrupts(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        before = signal.getsignal(signal.SIGINT)
        loop.add_signal_handler(signal.SIGINT, self._interrupt)
        try:
            yield
        finally:
            loop.remove_signal_handler(signal.SIGINT)
            signal.signal(signal.SIGINT, before)

    @contextmanager
    def _restored_terminal(self) -> Iterator[None]:
        # Windows has no such module.
        import termios

        before = termios.tcgetattr(self._stdin.fileno())
        try:
            yield
        finally:
            # A thread that waits for a line has switched off the echo.
            termios.tcsetattr(self._stdin.fileno(), termios.TCSANOW, before)


class _Growing:
    """An answer that grows after a prompt."""

    begin = BOT

    def __init__(self) -> None:
        self._shown = ""

    def piece(self, page: Page) -> str:
        """Return the text to print for this page."""
        text = page.text
        if not page.final:
            text = text.rstrip(_CLOSERS)
            if self._shown.startswith(text):
                return ""
        before, self._shown = self._shown, text
        new = text[len(before) :] if text.startswith(before) else f"\n{BOT}{text}"
        return f"{new}\n" if page.final else new

    def apology(self, apology: str) -> str:
        """Return the text to print if the answer fails."""
        return f"\n{apology}\n" if self._shown else f"{apology}\n"


class _Whole:
    """An answer that is printed when it is complete, for other programs."""

    begin = ""

    def piece(self, page: Page) -> str:
        """Return the text to print for this page."""
        return f"{page.text}\n" if page.final else ""

    def apology(self, apology: str) -> str:
        """Return the text to print if the answer fails."""
        return f"{apology}\n"


_Display = _Growing | _Whole


async def _pages(store: Store, turn_id: str) -> AsyncGenerator[Page]:
    """Yield the states of a reply, up to the final one."""
    screen, last = _screen(store, turn_id), "0"
    while True:
        try:
            found = await store.command("XREAD", "BLOCK", _BLOCK_MS, "STREAMS", screen, last)
        except StoreUnavailable:
            # The worker continues without the store and saves when it is back.
            await asyncio.sleep(_RETRY_SECONDS)
            continue
        for _, entries in found:
            for entry, fields in entries:
                last = entry
                page = Page(0, fields.get("text", ""), final=bool(fields.get("final")))
                yield page
                if page.final:
                    return


async def _start_anew(intake: Intake, key: ThreadKey) -> str:
    try:
        await intake.reset(key)
    except StoreUnavailable as error:
        return error.apology
    return FORGOTTEN


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


def _edited_line() -> str | None:
    # Once this is imported, `input` has line editing and a history.
    with contextlib.suppress(ImportError):
        import readline

        # CPython switches it off; then each line of a pasted text would be a question.
        readline.parse_and_bind("set enable-bracketed-paste on")
    try:
        return input(YOU).strip()
    except EOFError:
        return None


def _typed_text() -> str:
    with contextlib.suppress(ImportError):
        import readline

        return readline.get_line_buffer()
    return ""


def _person() -> Person:
    try:
        name = whole_characters(getpass.getuser())
    except (ImportError, KeyError, OSError):
        name = "you"  # in a container a user may have a number only
    return Person(id=name, name=name)


def _turn(key: ThreadKey, person: Person, text: str) -> Turn:
    turn_id = f"{key.platform}:{uuid4()}"
    return Turn(turn_id, key=key, person=person, text=text, place={}, asked_at=time.time())


def _screen(store: Store, turn_id: str) -> str:
    return store.key("screen", turn_id)
