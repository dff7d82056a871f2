"""A terminal in a process of its own, whose queue answers as a worker would."""

from __future__ import annotations

import asyncio
import os
import pty
import signal
import sys
import termios
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from adapters.console.terminal import listen
from adapters.live import LivePlatform
from bot.access.preferences import ModelChoice, PreferenceStore
from bot.access.rules import AccessRules
from bot.app import http
from bot.app.shutdown import exit_process
from bot.concurrency import cancelled
from bot.domain import Consent, Json, Page, Standing, ThreadKey, Turn
from bot.errors import StoreUnavailable, ThreadBusy
from bot.platform_spec import Process
from bot.reply.edit_budget import EditBudgets
from bot.store import Store, connect
from bot.tools.questions import form_question, write_question
from config.settings import Settings
from tests.support.fakes import FakeQueue
from tests.support.process import at_terminal

# What the worker shows, state by state; the last is final.
ANSWERS: dict[str, Sequence[str]] = {
    "hello": ("Hel", "Hello `wor", "Hello `world`!"),
    "code": ("```py\na = 1", "```py\na = 1\nb = 2", "```py\na = 1\nb = 2\n```\nDone."),
    "again": ("One", "Another one"),
    "evil": ("\x1b[2J\x9b31m", "\x1b[2J\x9b31mred\r\n\x07\u202edone"),
    "half": ("half of",),
    "sources": (
        "It is so [1].\n\nSources:\n[1] https://example.org/\n\n(Steps: Searching: done.)",
    ),
    "many\nlines": ("both\nlines",),
    "/save it": ("I cannot.",),
}


CALL, MAY_I = "Call00001", 'May I call `ticket` with `{"title": "\x1b[2JPrinter"}`?'

# What a server asks back.
FORM_ID, LINK_ID = "form-012345678", "link-012345678"
WHICH_ROOM, PLEASE_PAY = "`tracker` asks: `Which room?`", "Please pay. https://example.com/1"
_FIELDS: dict[str, Json] = {
    "properties": {
        "room": {"type": "integer", "title": "Room\x1b[2J"},
        "colour": {"type": "string", "enum": ["red", "blue"], "description": "Its walls"},
    },
    "required": ["room"],
}
# What the person is asked if a question begins so.
ASKED = {
    "ticket": (CALL, MAY_I),
    "form": (FORM_ID, WHICH_ROOM),
    "visit": (LINK_ID, PLEASE_PAY),
}

_RUN = "from tests.support.console import main; main()"
WINDOW = (sys.executable, "-c", _RUN)
# Without a package of the window.
PLAIN = (sys.executable, "-c", f"import sys; sys.modules['rich'] = None; {_RUN}")


def arguments(store: Store) -> tuple[str, str]:
    return store.url, store.key().removesuffix(":{0}")


class AnsweringQueue(FakeQueue):
    """Answers as a worker would, through the surface and a connection of its own."""

    def __init__(self, store: Store) -> None:
        models = ModelChoice("small/one", "Fast"), ModelChoice("large/one", "Clever")
        self.preferences = PreferenceStore(store=store, models=models)
        super().__init__(preferences=self.preferences, access=AccessRules(direct_messages=False))
        self._worker = LivePlatform("console", store=store)
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopped = asyncio.Event()
        self._decided: asyncio.Queue[str] = asyncio.Queue()
        self.asks = write_question(form_question("k", "Which room?", _FIELDS))
        self.asks_again = ""  # a turn that has waited since before the terminal began
        self.first_key: ThreadKey | None = None
        self._one_by_one = asyncio.Lock()

    async def admit(self, turn: Turn, **_: object) -> bool:
        if turn.text.startswith("busy"):
            raise ThreadBusy
        if turn.text == "away":
            raise StoreUnavailable("no store")
        self.turns.append(turn)
        self._start(turn)
        return True

    async def stop(self, turn_id: str, *, person_id: str = "") -> bool:
        self._stopped.set()
        return await super().stop(turn_id, person_id=person_id)

    async def decide(self, turn_id: str, call_id: str, consent: Consent, **how: Any) -> bool:
        self._decided.put_nowait(f"{consent} {how.get('words', '')}".strip())
        return await super().decide(turn_id, call_id, consent, **how)

    async def thread_of_turn(self, turn_id: str) -> ThreadKey | None:
        found = await super().thread_of_turn(turn_id)
        return found or (self.first_key if turn_id == self.asks_again else None)

    async def first_open(self, thread: ThreadKey) -> str:
        self.first_key = thread
        return self.asks_again

    async def edit(self, turn: Turn, *, edited_at: float, **_: object) -> None:
        self.edits.append((turn, edited_at))
        self._start(turn)

    async def regenerate(self, turn_id: str, *, person_id: str, **how: Any) -> None:
        await super().regenerate(turn_id, person_id=person_id, **how)
        turn = self.known(turn_id)
        assert turn
        self._start(turn)

    async def standings(self, *turn_ids: str, person_id: str) -> list[Standing]:
        if turn_ids == (self.asks_again,):
            one = Standing(self.asks_again, "a ticket", 0.0, "running", "Hm.")
            return [replace(one, consent=CALL, sign=MAY_I)]
        turns = {one: self.known(one) for one in turn_ids}
        return [
            Standing(
                *(one, "another's question", 0.0, "done", "Mine"), files=turn.files if turn else ()
            )
            for one, turn in turns.items()
        ]

    async def work_ends(self) -> None:
        await asyncio.gather(*self._tasks)

    async def close(self) -> None:
        """End the work on answers that nobody reads."""
        await cancelled(*self._tasks)

    def _start(self, turn: Turn) -> None:
        self._stopped.clear()
        self._tasks.add(asyncio.create_task(self._work(turn)))

    async def _work(self, turn: Turn) -> None:
        # A thread's turns are answered in their order.
        async with self._one_by_one, self._worker.surface(turn) as surface:
            if turn.text in ("long", "stubborn"):
                await surface.post(Page(0, "On and on", final=False, said="On and on"))
                await self._stopped.wait()
                stopped = turn.text == "long"
                said = f"On and on\n\nStopped: {stopped}."
                await surface.edit("", Page(0, said, final=stopped, said=said, last=stopped))
            if asked := ASKED.get(turn.text.partition(" ")[0]):
                call_id, sign = asked
                await surface.post(
                    Page(0, "Hm.", final=False, said="Hm.", sign=sign, consent=call_id)
                )
                late = 1.0 if turn.text == "ticket late" else None
                with suppress(TimeoutError):
                    answer = "late"
                    answer = await asyncio.wait_for(self._decided.get(), late)
                said = f"Hm.\n\nIt is: {answer}."
                await surface.edit("", Page(0, said, final=True, last=True))
            states = ANSWERS.get(turn.text.partition("\n[file: ")[0], ())
            for state in states:
                final = state == states[-1] and turn.text != "half"
                await surface.post(Page(0, state, final=final, said=state, last=final))
                await asyncio.sleep(0.05)


def process_of(
    queue: AnsweringQueue, store: Store, *, patience: float, data_dir: Path = Path("unused")
) -> Process:
    """What the terminal gets of a process."""
    return Process(
        settings=Settings(data_dir=data_dir),
        roles=frozenset({"console"}),
        store=store,
        budgets=EditBudgets(store=store),
        intake=queue.intake,
        serve_pages=http.serve_pages,
        trust=http.trust,
        answers_from="the banner",
        patience=patience,
    )


class Terminal:
    """A process at a pseudo-terminal, and what its user has seen."""

    def __init__(self, fd: int, process: asyncio.subprocess.Process) -> None:
        self._fd = fd
        self.process = process
        self.seen = ""

    def type(self, text: str) -> None:
        os.write(self._fd, text.encode())

    async def until(self, text: str) -> str:
        """Wait for a text; returns what came before it and after the last one waited for."""
        async with asyncio.timeout(60):
            while text not in self.seen:
                await self._read()
        before, _, self.seen = self.seen.partition(text)
        return before

    async def until_prompt(self) -> str:
        return await self.until("you> ")

    def echoes(self) -> bool:
        return bool(termios.tcgetattr(self._fd)[3] & termios.ECHO)

    async def _read(self) -> None:
        loop = asyncio.get_running_loop()
        readable = asyncio.Event()
        loop.add_reader(self._fd, readable.set)
        try:
            await readable.wait()
        finally:
            loop.remove_reader(self._fd)
        # Linux reports the end of the other side as an error.
        self.seen += os.read(self._fd, 4096).decode().replace("\r\n", "\n")


@asynccontextmanager
async def terminal(
    store: Store, command: Sequence[str], data_dir: Path, **variables: str
) -> AsyncIterator[Terminal]:
    environment = {**os.environ, "TERM": "xterm", **variables}
    async with at_pty(*command, *arguments(store), str(data_dir), env=environment) as one:
        yield one


@asynccontextmanager
async def at_pty(
    *command: str, env: Mapping[str, str], folder: Path | None = None
) -> AsyncIterator[Terminal]:
    """Run a command at a terminal of its own; it is gone at the end."""
    ours, theirs = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *at_terminal(*command), stdin=theirs, stdout=theirs, stderr=theirs, env=env, cwd=folder
    )
    os.close(theirs)
    try:
        yield Terminal(ours, process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        os.close(ours)


def main() -> None:
    """The process under test: a terminal whose worker is in the same process."""
    url, prefix, data_dir = sys.argv[1:]
    # Whoever starts the tests in the background has SIGINT ignored, here too.
    signal.signal(signal.SIGINT, signal.default_int_handler)

    async def run() -> None:
        async with connect(url=url, data_dir=Path("unused"), prefix=prefix) as store:
            queue = AnsweringQueue(store)
            process = process_of(queue, store, patience=60, data_dir=Path(data_dir))
            await listen(process, stdin=sys.stdin, stdout=sys.stdout)
            print("threads:", {str(turn.key) for turn in queue.turns})
            print("resets:", len(queue.resets), "forgotten:", len(queue.forgotten))

    try:
        asyncio.run(run())
    except KeyboardInterrupt:
        exit_process(128 + signal.SIGINT)
    exit_process(0)
