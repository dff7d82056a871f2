"""Command line and wiring: the only place that knows everybody."""

from __future__ import annotations

import sys

from bot.app.shutdown import ShutdownSignals, leave

if __name__ == "__main__":
    # The imports below take half a second, in which a signal counts as well.
    leaving = ShutdownSignals(serves=sys.argv[1:2] != ["ask"])
    leaving.heed()

import argparse
import asyncio
import logging
import os
import secrets
import socket
import stat
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

from bot.app import http
from bot.app.ask_command import question, reply
from bot.app.assistant import open_assistant
from bot.app.platforms import Job, open_doors
from bot.errors import CannotStart, ParleyError
from bot.local import hardware
from bot.model.client import max_characters
from bot.reply.edit_budget import EditBudgets
from bot.store import connect
from bot.text.sanitize import one_line, strip_controls
from bot.turns.conversation import Conversation
from bot.turns.history import History
from bot.turns.intake import Intake
from bot.turns.queue import Limits, TurnQueue
from bot.turns.worker import Worker
from config.settings import Settings, SettingsError

log = logging.getLogger("bot")

ROLES = ("discord", "slack", "console", "worker")
LIMITS = Limits(waiting_per_thread=5, waiting_per_person=10, waiting=2000, running_per_person=3)
_LEAST_KEPT = 8192  # tokens of an answer, for MAX_TOKENS may have been larger when it was given
_FILES, _FILES_AN_ANSWER = 500, 2  # for all else; for its model and for its platform
_SHORTEST_SECRET = 6  # characters; masking less would mask words
_HEED_SECONDS = 4.0  # that a listener has to end before it is told again: Slack has three to end
DRAIN_SECONDS = 20.0  # of the 25 in which a process must be gone after SIGTERM


def main(leaving: ShutdownSignals) -> int:
    """Run the command line; returns the exit status."""
    _hold_standard_streams()
    arguments = _arguments()
    asks = arguments.command == "ask"
    try:
        settings = Settings.load(os.environ, Path(".env"))
        work = (_asked if asks else _served)(settings, arguments, leaving)
        # It is not closed: that would wait for threads, and the process is at its end.
        asyncio.Runner(loop_factory=_loop_factory()).run(work)
    except asyncio.CancelledError:
        log.info("Stopped before the start was through")
        return leaving.status
    except (SettingsError, ParleyError) as error:
        for mistake in str(error).splitlines():
            sys.stderr.write(f"bot: {one_line(mistake)}\n")
        return 1
    except Exception as error:
        if asks:
            sys.stderr.write(f"bot: this is a mistake of mine ({type(error).__name__})\n")
        else:
            sys.stderr.write(strip_controls(traceback.format_exc()))
        return 1
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bot", description="Parley, a chat bot.")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="answer people until told to stop")
    run.add_argument(
        "roles",
        nargs="*",
        metavar="ROLE",
        help=f"{', '.join(ROLES)}; without any: what is configured, and a worker",
    )
    ask = commands.add_parser("ask", help="answer one question, and end")
    ask.add_argument(
        "words",
        nargs="*",
        metavar="WORD",
        help="the question; - stands for standard input, and so do no words at all",
    )
    found = parser.parse_args()
    if found.command == "ask" and not found.words and sys.stdin.isatty():
        ask.error("there is no question")
    if unknown := [role for role in getattr(found, "roles", ()) if role not in ROLES]:
        run.error(f"unknown role {unknown[0]!r}; there are {', '.join(ROLES)}")
    return found


def _asked(settings: Settings, arguments: argparse.Namespace, leaving: ShutdownSignals) -> Job:
    _log(settings, least=logging.WARNING)
    return _answer(settings, question(arguments.words, sys.stdin), leaving)


def _served(settings: Settings, arguments: argparse.Namespace, leaving: ShutdownSignals) -> Job:
    roles = _roles(arguments.roles, settings)
    _log(settings, aside="console" in roles and sys.stdin.isatty())
    _allow_files(settings)
    return _serve(settings, roles, leaving, apart=not arguments.roles)


def _hold_standard_streams() -> None:
    """Open what was closed: a socket with the number of a standard stream would be taken for it."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(number)
    sys.stdin = sys.stdin or Path(os.devnull).open(encoding="utf-8")  # noqa: SIM115
    sys.stdout = sys.stdout or Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
    sys.stderr = sys.stderr or Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115


def _roles(named: Sequence[str], settings: Settings) -> frozenset[str]:
    if named:
        return frozenset(named)
    if settings.chat_platforms:
        return frozenset((*settings.chat_platforms, "worker"))
    if _somebody_at_stdin():
        return frozenset(("console", "worker"))
    raise CannotStart(
        "there is nothing to do: set DISCORD_TOKEN or SLACK_BOT_TOKEN, "
        "or start me in a terminal or behind a pipe"
    )


def _somebody_at_stdin() -> bool:
    """A terminal, a pipe or a file, but not the null device that services are started with."""
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (OSError, ValueError):
        return False
    return sys.stdin.isatty() or not stat.S_ISCHR(mode)


def _log(settings: Settings, *, aside: bool = False, least: int = logging.DEBUG) -> None:
    """Log to stderr; `aside`, in a terminal conversation, to a file and not between its lines."""
    handler: logging.Handler = logging.StreamHandler()
    if aside:
        with suppress(OSError):
            settings.data_dir.mkdir(parents=True, exist_ok=True)
            path = settings.data_dir / "parley.log"
            handler = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(_Masking(settings))
    # A log that cannot be written, on a full disk for instance, prints no traceback for each line.
    logging.raiseExceptions = False
    level = max(logging.getLevelNamesMapping()[settings.log_level.upper()], least)
    logging.basicConfig(level=level, handlers=[handler])
    for library in ("discord", "slack_bolt", "slack_sdk", "httpx2", "aiohttp"):
        # They log each request; and at debug level what lets anybody answer in our name.
        least = logging.WARNING if level >= logging.INFO else logging.INFO
        logging.getLogger(library).setLevel(max(level, least))


class _Masking(logging.Formatter):
    """Writes a log line and its traceback without any secret of the settings, or control character.

    Lines of a traceback are indented: what begins in the first column is a line of the log.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")
        found = (secret for secret in settings.secrets if len(secret) >= _SHORTEST_SECRET)
        self._secrets = sorted(found, key=len, reverse=True)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        return one_line(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802
        return _indented(super().formatException(ei))

    def formatStack(self, stack_info: str) -> str:  # noqa: N802
        return _indented(super().formatStack(stack_info))

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        for secret in self._secrets:
            line = line.replace(secret, "***")
        return line


def _indented(text: str) -> str:
    return "\n".join(f"    {strip_controls(line)}" for line in text.splitlines())


def _allow_files(settings: Settings) -> None:
    wanted = _FILES + _FILES_AN_ANSWER * settings.capacity
    allowed = hardware.allow_files(wanted)
    if allowed is not None and allowed < wanted:
        log.warning(
            "CAPACITY=%d may need %d open files and sockets, and this process may have %d:"
            " raise the limit (ulimit -n, LimitNOFILE) or lower CAPACITY",
            *(settings.capacity, wanted, allowed),
        )


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # Windows
        return None
    return uvloop.new_event_loop


async def _answer(settings: Settings, asked: str, leaving: ShutdownSignals) -> None:
    answering = asyncio.ensure_future(reply(settings, asked, sys.stdout))
    leaving.ask(partial(asyncio.get_running_loop().call_soon_threadsafe, answering.cancel))
    await answering


async def _serve(
    settings: Settings, roles: frozenset[str], leaving: ShutdownSignals, *, apart: bool
) -> None:
    soon = asyncio.get_running_loop().call_soon_threadsafe
    stopping = asyncio.Event()
    starting = asyncio.current_task()
    leaving.ask(partial(soon, starting.cancel if starting else stopping.set))
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(
            connect(url=settings.redis_url, data_dir=settings.data_dir)
        )
        keep_seconds = settings.history_days * 24 * 3600.0
        history = History(store=store, keep_seconds=keep_seconds)
        queue = TurnQueue(
            store=store,
            worker=f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}",
            limits=LIMITS,
            lease_seconds=settings.lease_seconds,
            keep_seconds=keep_seconds,
        )
        intake = Intake(queue=queue, history=history)
        # A terminal brings its own worker: somebody sits there and waits.
        answers = bool(roles & {"worker", "console"})
        mind = (
            await stack.enter_async_context(open_assistant(settings, roles, stopping))
            if answers
            else None
        )
        budgets = EditBudgets(store=store)
        doors = await open_doors(settings, roles, store, budgets, mind, stack, apart=apart)
        if roles not in ({"console"}, {"console", "worker"}):
            posts = {path: handler(intake) for path, handler in doors.posts.items()}
            await stack.enter_async_context(
                http.serve(
                    host=settings.host,
                    port=settings.port,
                    metrics_port=settings.metrics_port,
                    store=store,
                    silences=doors.silences,
                    posts=posts,
                    stopping=stopping,
                )
            )
        jobs = {name: listen(intake) for name, listen in doors.listeners.items()}
        if mind:
            worker = Worker(
                queue=queue,
                platforms=doors.platforms,
                conversation=Conversation(
                    history=history,
                    model=mind.model,
                    budgets=budgets,
                    system_prompt=mind.system_prompt,
                    patience=settings.reply_timeout,
                    longest=max_characters(max(settings.max_tokens, _LEAST_KEPT)),
                ),
                capacity=settings.capacity,
                lease_seconds=settings.lease_seconds,
                drain_seconds=DRAIN_SECONDS,
            )
            jobs["worker"] = worker.run(stopping)
        hardware.collect_garbage_seldom()
        log.info("Running as %s", ", ".join(sorted(roles - doors.off.keys())))
        leaving.ask(partial(soon, stopping.set))
        await until_stopped(jobs, stopping)
    log.info("Stopped")


async def until_stopped(jobs: Mapping[str, Job], stopping: asyncio.Event) -> None:
    """Run until told to stop, or until a job fails, or the terminal was all there was."""
    told = asyncio.create_task(stopping.wait())
    tasks = {name: asyncio.create_task(job) for name, job in jobs.items()}
    waiting: set[asyncio.Task[Any]] = {told, *tasks.values()}
    try:
        while waiting:
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if done - {tasks.get("console")} or tasks.keys() <= {"console", "worker"}:
                break
    finally:
        stopping.set()
        told.cancel()
        # Nothing new comes in while the worker lets its replies end.
        await _cancelled([task for name, task in tasks.items() if name != "worker"])
        await asyncio.gather(*tasks.values(), return_exceptions=True)
    for task in tasks.values():
        if not task.cancelled():
            task.result()


async def _cancelled(tasks: Sequence[asyncio.Task[Any]]) -> None:
    """Cancel until it is heeded: discord.py waits by `asyncio.wait_for`, which loses it on 3.11."""
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=_HEED_SECONDS)


if __name__ == "__main__":
    leave(main(leaving))
