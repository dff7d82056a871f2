"""The command line."""

from __future__ import annotations

import sys

from bot.app.shutdown import ShutdownSignals, exit_process
from bot.local.hardware import collect_garbage_seldom

if __name__ == "__main__":
    # The imports below take part of a second, and a signal may arrive meanwhile.
    signals = ShutdownSignals(serves=sys.argv[1:2] not in (["ask"], ["init"]))
    signals.install()
    # The imports below leave no garbage; its collection took a sixth of their time.
    collect_garbage_seldom()

import argparse
import asyncio
import logging
import os
import traceback
from collections.abc import Callable, Coroutine, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import bot
from bot.app.platforms import WORKER, all_specs, load_settings, uses_terminal
from bot.errors import ParleyError
from bot.platform_spec import Command
from bot.text.sanitize import one_line, strip_controls
from config.settings import Settings, SettingsError, hand_on

_ENV_FILE = Path(".env")
_PIPE_CLOSED = 128 + 13  # as in a shell after SIGPIPE: `head` has read enough


def main(signals: ShutdownSignals) -> int:
    """Run the command line; returns the exit status."""
    try:
        arguments = _arguments()
        if arguments.command == "init":
            hand_on(_ENV_FILE, os.environ)
            return asyncio.run(_init(signals, asks=not arguments.yes))
        settings = load_settings(os.environ, _ENV_FILE)
        hand_on(_ENV_FILE, os.environ)
        if arguments.command == "run":
            work: Coroutine[Any, Any, int | None] = _run(settings, arguments.roles, signals)
        else:
            from bot.app.logging import configure_logging

            configure_logging(settings, least=logging.WARNING)
            work = _until_signal(signals, arguments.run(settings, arguments, sys.stdout))
        # The runner is not closed: that would wait for threads, and the process ends anyway.
        return asyncio.Runner(loop_factory=_loop_factory()).run(work) or 0
    except SystemExit as end:  # of the parser; `exit_process` tolerates a closed pipe
        return int(end.code or 0)
    except asyncio.CancelledError:
        return signals.status
    except KeyboardInterrupt:
        sys.stderr.write("\nbot: ended; init writes only after its last question\n")
        return signals.status
    except (SettingsError, ParleyError) as error:
        for mistake in str(error).splitlines():
            sys.stderr.write(f"bot: {one_line(mistake)}\n")
        return 1
    except Exception as error:
        # In `run` it is a socket, and worth a report. SIGPIPE itself would end at sockets, too.
        if isinstance(error, BrokenPipeError) and sys.argv[1:2] != ["run"]:
            return _PIPE_CLOSED
        sys.stderr.write(strip_controls(traceback.format_exc()))
        return 1


def _commands() -> list[Command]:
    """Return the commands that need nothing but the settings."""
    return [
        Command("ask", "answer one question and exit", _ask, _add_question),
        Command("check", "check the settings, and say how to correct them", _check),
        Command("status", "show the state of the bot that runs on this machine", _status),
        Command(
            "export",
            "print what is chosen for servers, channels and threads, or what is kept of a person",
            _export,
            lambda it: it.add_argument(
                "id", metavar="PERSON", nargs="?", help="as the platform writes it"
            ),
        ),
        Command(
            "import",
            "read what `export` has printed",
            _import,
            lambda it: it.add_argument("file", metavar="FILE", help="- stands for standard input"),
        ),
        Command(
            "forget",
            "remove everything that the store has of a person or a server",
            _forget,
            lambda it: it.add_argument(
                "id", metavar="PERSON|SERVER", help="as the platform writes it"
            ),
        ),
        Command(
            "backup",
            "copy the embedded store to a new file, also while the bot runs",
            _backup,
            lambda it: it.add_argument("file", metavar="FILE", type=Path),
        ),
        Command("restore", "put a backup in the place of the store", _restore, _add_restore),
        Command("usage", "show what people have used, and what it cost", _usage, _add_usage),
        *(command for spec in all_specs() for command in spec.commands),
    ]


def _arguments() -> argparse.Namespace:
    roles = [*(spec.name for spec in all_specs()), WORKER]
    installed = Path(sys.argv[0]).stem
    name = "python -m bot" if installed == "__main__" else installed
    parser = argparse.ArgumentParser(prog=name, description="Parley, a chat bot.")
    parser.add_argument("--version", action="version", version=f"Parley {bot.__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="answer people until stopped")
    run.add_argument(
        "roles",
        nargs="*",
        metavar="ROLE",
        help=f"{', '.join(roles)}; without any: what is configured, and a worker",
    )
    init = commands.add_parser("init", help="ask for what the bot needs, and write .env")
    init.add_argument(
        "--yes", action="store_true", help="ask nothing, and take the variables of the environment"
    )
    for command in _commands():
        own = commands.add_parser(command.name, help=command.help)
        own.set_defaults(run=command.run)
        command.add_arguments(own)
    arguments = parser.parse_args()
    if arguments.command == "ask" and not arguments.words and sys.stdin.isatty():
        commands.choices["ask"].error("there is no question")
    unknown = [role for role in getattr(arguments, "roles", ()) if role not in roles]
    if unknown:
        run.error(f"unknown role {unknown[0]!r}; there are {', '.join(roles)}")
    return arguments


async def _run(settings: Settings, named: Sequence[str], signals: ShutdownSignals) -> None:
    from bot.app.logging import configure_logging
    from bot.app.service import choose_roles, needs_all, serve

    roles = choose_roles(named, settings)
    at_terminal = uses_terminal(roles) and sys.stdin.isatty()
    in_pipe = uses_terminal(roles) and not (at_terminal or named)
    least = logging.WARNING if in_pipe else logging.DEBUG
    configure_logging(settings, to_file=at_terminal, least=least)
    stop = asyncio.Event()
    signals.on_first(partial(asyncio.get_running_loop().call_soon_threadsafe, stop.set))
    await serve(
        settings,
        stop,
        roles=roles,
        need_all=needs_all(named, settings),
        started=lambda _: collect_garbage_seldom(),
    )


async def _init(signals: ShutdownSignals, *, asks: bool) -> int:
    from bot.app.init import Terminal, init

    def interrupt() -> None:
        # Only an exception ends a question and restores the terminal's echo.
        raise KeyboardInterrupt

    logging.disable()
    signals.on_first(interrupt)
    works = await init(Terminal(), env_file=_ENV_FILE, environment=os.environ, asks=asks)
    return 0 if works else 1


def _add_question(parser: argparse.ArgumentParser) -> None:
    words = "the question; - and no words at all stand for standard input"
    parser.add_argument("words", nargs="*", metavar="WORD", help=words)
    model = "another model than MODEL_ID, or the path of a GGUF file"
    parser.add_argument("--model", metavar="NAME", help=model)
    parser.add_argument("--system", metavar="TEXT", help="another text than SYSTEM_PROMPT")
    file = "a file that the model reads with the question; by default five at most"
    allow = "let tools do what has effects, such as making a ticket; nobody is asked before"
    parser.add_argument("--allow", action="store_true", help=allow)
    parser.add_argument("--file", metavar="PATH", action="append", default=[], help=file)


async def _ask(settings: Settings, arguments: argparse.Namespace, output: TextIO) -> None:
    from bot.app.ask import chosen, print_answer, read_question

    logging.getLogger("bot.app.ask").setLevel(logging.INFO)  # the steps of an answer
    settings = chosen(settings, model=arguments.model, system=arguments.system)
    # In a thread, because a pipe may stay open for ever.
    question = await asyncio.to_thread(read_question, arguments.words, sys.stdin)
    await print_answer(settings, question, output, files=arguments.file, allow=arguments.allow)


async def _check(settings: Settings, _: argparse.Namespace, output: TextIO) -> int:
    from bot.app.check import check

    logging.disable()
    return 0 if await check(settings, output, env_file=_ENV_FILE) else 1


async def _status(settings: Settings, _: argparse.Namespace, output: TextIO) -> None:
    from bot.app.status import show_status

    await show_status(settings, output)


async def _export(settings: Settings, arguments: argparse.Namespace, output: TextIO) -> None:
    from bot.app.export import export_person, export_preferences

    if arguments.id is None:
        await export_preferences(settings, output)
    else:
        await export_person(settings, arguments.id, output, report=sys.stderr)


async def _import(settings: Settings, arguments: argparse.Namespace, output: TextIO) -> None:
    from bot.app.export import import_preferences, read_text

    text = await asyncio.to_thread(read_text, arguments.file, sys.stdin)
    await import_preferences(settings, text, output)


async def _forget(settings: Settings, arguments: argparse.Namespace, output: TextIO) -> None:
    from bot.app.forget import forget

    await forget(settings, arguments.id, output)


async def _backup(settings: Settings, arguments: argparse.Namespace, output: TextIO) -> None:
    from bot.app.backup import backup

    await backup(settings, arguments.file, output)


def _add_restore(parser: argparse.ArgumentParser) -> None:
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument(
        "file", metavar="FILE", type=Path, nargs="?", help="what `backup` has written"
    )
    loaded = "the store has its old data already, by Redis's own tools: only end what is open in it"
    which.add_argument("--loaded", action="store_true", help=loaded)
    until = "when the bot last answered, such as 2026-11-26T09:58; nothing from before is answered"
    parser.add_argument("--until", metavar="TIME", type=datetime.fromisoformat, help=until)


async def _restore(settings: Settings, arguments: argparse.Namespace, output: TextIO) -> None:
    from bot.app.backup import restore

    until = arguments.until and arguments.until.timestamp()
    await restore(settings, arguments.file, output, until=until)


def _add_usage(parser: argparse.ArgumentParser) -> None:
    kinds = ("day", "server", "person", "model")
    parser.add_argument("--by", choices=kinds, default="day", help="what each line is for")
    since = "the first day, or how many days, such as 7d; by default 30d"
    parser.add_argument("--since", metavar="DATE|DAYS", default="30d", help=since)
    parser.add_argument("--csv", action="store_true", help="print it for a spreadsheet")


async def _usage(settings: Settings, arguments: argparse.Namespace, output: TextIO) -> None:
    from bot.app.usage import show_usage

    by, since = arguments.by, arguments.since
    await show_usage(settings, output, by=by, since=since, as_csv=arguments.csv)


async def _until_signal(
    signals: ShutdownSignals, work: Coroutine[Any, Any, int | None]
) -> int | None:
    """Return the result once the output is written; the first signal cancels the work."""
    working = asyncio.ensure_future(work)
    signals.on_first(partial(asyncio.get_running_loop().call_soon_threadsafe, working.cancel))
    result = await working
    sys.stdout.flush()
    return result


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # Windows
        return None
    return uvloop.new_event_loop


if __name__ == "__main__":
    exit_process(main(signals))
