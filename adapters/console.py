"""The terminal as a platform, answered by any worker through a Redis stream."""

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

_KEPT_SECONDS = 3600  # a screen that nobody looks at any more
_BLOCK_MS = 1000
_RETRY_SECONDS = 0.5
# An open code fence is closed on a page that is not final, and goes on in the next: ends wait.
_CLOSERS = "`~> \n"
_END_OF_PASTING = "\x1b[?2004l"


class ConsoleSurface:
    """The screen of one reply: a stream that holds the newest page, whole."""

    limit = sys.maxsize  # one page holds every reply

    def __init__(self, *, store: Store, turn: Turn) -> None:
        self._store = store
        self._turn_id = turn.id
        self._budget = EditBudget(f"console:{turn.id}", writes=20, seconds=1.0, refills=False)

    def measure(self, text: str) -> int:
        """Return the number of characters."""
        return len(text)

    def budget(self, page: Page, *, new: bool) -> EditBudget:
        """Return what a person can follow with the eye."""
        return self._budget

    async def post(self, page: Page) -> str:
        """Show the page to whoever follows the turn."""
        await self._write(page)
        return f"{self._turn_id}/{page.number}"

    async def edit(self, message_id: str, page: Page) -> None:
        """Show the page instead of the one before."""
        await self._write(page)

    async def _write(self, page: Page) -> None:
        screen = _screen(self._store, self._turn_id)
        final = "yes" if page.final else ""
        try:
            await self._store.command(
                *("XADD", screen, "MAXLEN", 1, "*", "text", page.text, "final", final)
            )
            await self._store.command("EXPIRE", screen, _KEPT_SECONDS)
        except StoreUnavailable as error:
            raise WriteFailed(str(error)) from error


class ConsolePlatform:
    """The terminal; `surface` works in any process, `listen` in the one that has the terminal.

    A `stdin` that is a terminal has to be `sys.stdin`. An answer is waited for `patience` seconds,
    which should be more than a reply may take.
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
        """Ask and answer until the input ends or says `/quit`.

        At a terminal SIGINT is taken over meanwhile, and given back afterwards.
        """
        for stream in (self._stdin, self._stdout):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="replace")
        try:
            # Windows has no terminal of this kind: lines are read there as from a pipe.
            if self._stdin.isatty() and sys.platform != "win32":
                await self._converse(intake)
            else:
                await self._work_off(intake)
        except BrokenPipeError:
            # Whoever read our output has left; what is buffered would fail once more at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stdout.fileno())

    async def _converse(self, intake: Intake) -> None:
        person = _person()
        # The same thread at every start: the conversation goes on.
        key = ThreadKey(self.name, "local", person.id, "terminal")
        await self._print(f"{self._banner}\n{HEAD}\n\n")
        with self._terminal_kept(), self._interrupts():
            while (line := await self._prompt()) != QUIT:
                if line is None:
                    await self._print("\n")
                    return
                if line == RESET:
                    await self._print(f"{await _start_anew(intake, key)}\n")
                elif line:
                    await self._answer(intake, _turn(key, person, line), _Growing())

    async def _work_off(self, intake: Intake) -> None:
        person = _person()
        key = ThreadKey(self.name, "local", person.id, uuid4().hex)
        while (line := await _in_thread(self._stdin.readline)) and line.strip() != QUIT:
            if line.strip() == RESET:
                await _start_anew(intake, key)
            elif line.strip():
                await self._answer(intake, _turn(key, person, line.strip()), _Whole())

    async def _prompt(self) -> str | None:
        """Return a line; None at the end of input and after the second Ctrl-C."""
        self._interruptions = 0
        reading = asyncio.ensure_future(_in_thread(_edited_line))
        try:
            if not await self._done_first(reading):
                # What was typed so far cannot be taken from readline, so it is shown again.
                await self._print(f"\n{LEAVING}\n{YOU}{_being_edited()}")
                if not await self._done_first(reading):
                    return None
            return reading.result()
        finally:
            if not reading.done():
                reading.cancel()
                os.write(self._stdout.fileno(), _END_OF_PASTING.encode())

    async def _answer(self, intake: Intake, turn: Turn, display: _Display) -> None:
        self._interruptions = 0
        await self._print(display.begin)
        following = asyncio.ensure_future(self._follow(turn.id, display))
        try:
            await intake.admit(turn)
            async with asyncio.timeout(self._patience):
                if not await self._done_first(following):
                    await intake.stop(turn.id)
                    if not await self._done_first(following):
                        # Nobody works on it, or its worker has died.
                        await intake.forget(turn.id)
                        await self._print("\n")
                        return
                await following
        except (Refused, StoreUnavailable) as error:
            await self._print(display.apology(error.apology))
        except TimeoutError:
            await self._print(display.apology(ParleyError.apology))
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)

    async def _follow(self, turn_id: str, display: _Display) -> None:
        async with aclosing(_pages(self._store, turn_id)) as pages:
            async for page in pages:
                await self._print(display.piece(page))

    async def _done_first(self, work: asyncio.Future[T]) -> bool:
        """Wait for the work or for a Ctrl-C that nobody has seen; True when the work is done."""
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

        # A terminal that is held (Ctrl-S) must not hold the process.
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
    def _terminal_kept(self) -> Iterator[None]:
        # Windows has no such module.
        import termios

        before = termios.tcgetattr(self._stdin.fileno())
        try:
            yield
        finally:
            # A thread that waits for a line has taken the echo away.
            termios.tcsetattr(self._stdin.fileno(), termios.TCSANOW, before)


class _Growing:
    """An answer that grows in place, after a prompt."""

    begin = BOT

    def __init__(self) -> None:
        self._shown = ""

    def piece(self, page: Page) -> str:
        """Return what has to be printed to show this page."""
        text = page.text
        if not page.final:
            text = text.rstrip(_CLOSERS)
            if self._shown.startswith(text):
                return ""
        before, self._shown = self._shown, text
        new = text[len(before) :] if text.startswith(before) else f"\n{BOT}{text}"
        return f"{new}\n" if page.final else new

    def apology(self, apology: str) -> str:
        """Return what has to be printed when no more comes."""
        return f"\n{apology}\n" if self._shown else f"{apology}\n"


class _Whole:
    """An answer that is printed when it is complete, for other programs to read."""

    begin = ""

    def piece(self, page: Page) -> str:
        """Return what has to be printed to show this page."""
        return f"{page.text}\n" if page.final else ""

    def apology(self, apology: str) -> str:
        """Return what has to be printed when no more comes."""
        return f"{apology}\n"


_Display = _Growing | _Whole


async def _pages(store: Store, turn_id: str) -> AsyncGenerator[Page]:
    """Yield the newest state of a reply, again and again, until it is final."""
    screen, seen = _screen(store, turn_id), "0"
    while True:
        try:
            found = await store.command("XREAD", "BLOCK", _BLOCK_MS, "STREAMS", screen, seen)
        except StoreUnavailable:
            # The worker goes on without the store, and saves when it is back.
            await asyncio.sleep(_RETRY_SECONDS)
            continue
        for _, entries in found:
            for entry, fields in entries:
                seen = entry
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
    """Do blocking work beside the loop, in a thread for which no process waits at its end."""
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
    # Once it is imported, `input` has line editing and remembers former lines.
    with contextlib.suppress(ImportError):
        import readline

        # CPython switches it off, and each line of a pasted text would be a question.
        readline.parse_and_bind("set enable-bracketed-paste on")
    try:
        return input(YOU).strip()
    except EOFError:
        return None


def _being_edited() -> str:
    with contextlib.suppress(ImportError):
        import readline

        return readline.get_line_buffer()
    return ""


def _person() -> Person:
    try:
        name = whole_characters(getpass.getuser())
    except (ImportError, KeyError, OSError):
        name = "you"  # in a container a number is all that is known of a user
    return Person(id=name, name=name)


def _turn(key: ThreadKey, person: Person, text: str) -> Turn:
    turn_id = f"{key.platform}:{uuid4()}"
    return Turn(turn_id, key=key, person=person, text=text, place={}, asked_at=time.time())


def _screen(store: Store, turn_id: str) -> str:
    return store.key("screen", turn_id)
