"""Questions of a script or a shell, each by itself: no platform, no store, no history."""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from concurrent.futures import Future
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from pathlib import Path

from bot.app.assistant import Assistant, open_assistant
from bot.concurrency import cancelled
from bot.domain import LeftOut, Person, Start, ThreadKey, Turn
from bot.errors import AnswerCut, CannotStart, ModelError, PromptRefused
from bot.text.sanitize import whole_characters
from bot.turns.prompt import compose
from config.settings import Settings, SettingsError

log = logging.getLogger(__name__)

_CLOSE_SECONDS = 10.0  # a process of the model's has three to end by itself
_NOBODY = Person(id="", name="")
_NOWHERE = ThreadKey(platform="", workspace="", channel="", thread="")


async def answer(mind: Assistant, question: str) -> AsyncGenerator[str | Start]:
    """Yield the deltas of an answer, and a Start where it begins anew; raise ModelError.

    An answer that is cut short ends like any other. What a person has to know of it is logged.
    """
    if not question.strip():
        raise PromptRefused("there is no question")
    turn = Turn("", _NOWHERE, _NOBODY, whole_characters(question), place={}, asked_at=0.0)
    prompt = compose(system=mind.system_prompt, exchanges=(), turn=turn)
    try:
        async with aclosing(mind.model.stream(prompt)) as deltas:
            async for delta in deltas:
                if isinstance(delta, LeftOut):
                    log.warning(
                        "The question is too long: %d characters of its middle were not read",
                        delta.characters,
                    )
                else:
                    yield delta
    except AnswerCut as cut:
        log.warning("The answer is cut short: %s", cut)


async def whole(deltas: AsyncGenerator[str | Start]) -> str:
    """Return an answer when it is complete."""
    said: list[str] = []
    async with aclosing(deltas):
        async for delta in deltas:
            if isinstance(delta, Start):
                said.clear()
            else:
                said.append(delta)
    return whole_characters("".join(said)).strip()


@asynccontextmanager
async def asking() -> AsyncIterator[Callable[[str], Awaitable[str]]]:
    """Open the model that the settings name while the block lasts; ModelError where it cannot."""
    async with AsyncExitStack() as stack:
        mind = await _open(stack, asyncio.Event())
        yield lambda text: whole(answer(mind, text))


async def _open(stack: AsyncExitStack, stopping: asyncio.Event) -> Assistant:
    try:
        settings = Settings.load(os.environ, Path(".env"))
        return await stack.enter_async_context(open_assistant(settings, frozenset(), stopping))
    except (SettingsError, CannotStart) as error:
        raise ModelError(str(error)) from error


class Kept:
    """A mind that is opened at the first question and kept, in a loop and a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="bot.ask", daemon=True)
        self._stack = AsyncExitStack()
        self._opening = asyncio.Lock()
        self._stopping = asyncio.Event()
        self._mind: Assistant | None = None

    def start(self) -> None:
        """Let the loop run, until the process ends."""
        self._thread.start()
        atexit.register(self._close)

    def ask(self, text: str) -> str:
        """Return the answer, in any thread; who is interrupted meanwhile hangs up."""
        future = self._asked(text)
        try:
            return future.result()
        finally:
            future.cancel()

    async def ask_async(self, text: str) -> str:
        """Return the answer, in any loop; who is cancelled meanwhile hangs up."""
        return await asyncio.wrap_future(self._asked(text))

    def _asked(self, text: str) -> Future[str]:
        return asyncio.run_coroutine_threadsafe(self._answer(text), self._loop)

    async def _answer(self, text: str) -> str:
        async with self._opening:
            # Where it cannot be opened, the next question tries anew.
            self._mind = self._mind or await _open(self._stack, self._stopping)
        return await whole(answer(self._mind, text))

    def _run(self) -> None:
        self._loop.run_forever()
        self._stopping.set()
        self._loop.run_until_complete(self._stack.aclose())
        # The questions of threads for which the process does not wait.
        self._loop.run_until_complete(cancelled(*asyncio.all_tasks(self._loop)))
        self._loop.close()

    def _close(self) -> None:
        # A process that was forked meanwhile has no such thread.
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(_CLOSE_SECONDS)


class _Keeper:
    """Makes the one Kept of a process, whichever thread comes first."""

    def __init__(self) -> None:
        self._starting = threading.Lock()
        self._kept: Kept | None = None

    def kept(self) -> Kept:
        with self._starting:
            if self._kept is None:
                self._kept = Kept()
                self._kept.start()
            return self._kept


_keeper = _Keeper()


def kept() -> Kept:
    """Return the mind of this process."""
    return _keeper.kept()


def _begin_anew() -> None:
    global _keeper
    _keeper = _Keeper()


if hasattr(os, "register_at_fork"):
    # The parent's loop and its locks are nobody's here, and its model answers to the parent.
    os.register_at_fork(after_in_child=_begin_anew)
