"""Discord, Slack and a model on this machine, with a prompt where one plays the people.

    python -m tests.emulators [--bot] [--model URL | --demo-model]

It reads from a pipe as well as from a terminal, and prints plain lines into one.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import logging
import os
import shlex
import signal
import sys
import tempfile
from asyncio.subprocess import Process
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing
from pathlib import Path

from tests.emulators.discord import DiscordEmulator
from tests.emulators.model import ModelEmulator
from tests.emulators.play import bot
from tests.emulators.play.commands import Commands, talk
from tests.emulators.play.discord_rooms import DiscordRooms
from tests.emulators.play.seat import Seat
from tests.emulators.play.slack_rooms import SlackRooms
from tests.emulators.play.stage import LiveStage, PlainStage, Stage
from tests.emulators.slack import SlackEmulator
from tests.support.process import discord_variables, slack_variables
from tests.support.settings import settings_of

_ARRIVAL_SECONDS = 60.0
_LAST_WORDS = 5  # lines of a log
_SPEED = 60.0  # characters a second of the emulated model
_WHAT = "Discord, Slack and a model on this machine, where you play the people"
# What may stand in a developer's environment for the real platforms, store and model.
_ELSEWHERE = ("HF_TOKEN", "LOCAL_MODEL_PATH", "MODEL_URL", "REDIS_URL", "SLACK_SIGNING_SECRET")


def main() -> int:
    """Play until /quit, the end of the input or Ctrl-C; returns the exit status."""
    options = _options()
    # It may have been closed.
    sys.stdin = sys.stdin or Path(os.devnull).open(encoding="utf-8")  # noqa: SIM115
    try:
        return asyncio.run(_serve(options))
    except BrokenPipeError:
        # Whoever read our output has left; what is buffered would fail once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except AssertionError as error:
        # An emulator says so when it is left.
        sys.stderr.write(f"The bot broke a rule: {error}\n")
    except OSError as error:
        sys.stderr.write(f"The emulators cannot run: {error}\n")
    return 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.emulators", description=f"{_WHAT}.")
    parser.add_argument("--bot", action="store_true", help="run the bot as well")
    models = parser.add_mutually_exclusive_group()
    models.add_argument(
        "--model",
        metavar="URL",
        help="an OpenAI-compatible server that answers instead of the emulated model, with "
        "MODEL_ID and MODEL_API_KEY from the environment",
    )
    models.add_argument(
        "--demo-model", action="store_true", help="the bot's own demo model answers instead"
    )
    return parser.parse_args()


async def _serve(options: argparse.Namespace) -> int:
    data_dir = Path(os.environ.get("DATA_DIR") or settings_of().data_dir)
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(bot.own_folder(data_dir))
        discord = await stack.enter_async_context(DiscordEmulator())
        slack = await stack.enter_async_context(SlackEmulator())
        model = None
        if not (options.model or options.demo_model):
            model = await stack.enter_async_context(ModelEmulator())
            model.answer, model.delay = talk, model.chunk / _SPEED
            stack.callback(model.heal)
        # Whoever lets a call fail need not wait for it.
        stack.callback(discord.heal)
        stack.callback(slack.heal)
        # A store of its own: another bot may be running, and ids begin anew each time.
        store = stack.enter_context(
            tempfile.TemporaryDirectory(prefix="parley-", ignore_cleanup_errors=True)
        )
        variables = discord_variables(discord, model) | slack_variables(slack, model)
        variables |= {"DATA_DIR": store, "PORT": "0"}
        if options.demo_model:
            variables["MODEL_ID"] = "demo"
        elif options.model:
            variables["MODEL_URL"] = options.model
        without = [name for name in _ELSEWHERE if name not in variables]
        script, own_log = folder / "bot.sh", folder / "emulators.log"
        bot.write_script(script, variables=variables, without=without, folder=Path(store))
        bot.write_settings(folder / "bot.env", variables=variables)
        with bot.private(own_log):
            logging.basicConfig(filename=own_log, level=logging.WARNING)
        rooms = DiscordRooms(discord), SlackRooms(slack)
        playing = asyncio.create_task(_play(*rooms, model, folder, options))
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # The second one finds the play waiting for the bot's end, and kills the bot.
            asyncio.get_running_loop().add_signal_handler(number, playing.cancel)
        await asyncio.wait({playing})
        return 0 if playing.cancelled() else playing.result()


async def _play(
    discord: DiscordRooms,
    slack: SlackRooms,
    model: ModelEmulator | None,
    folder: Path,
    options: argparse.Namespace,
) -> int:
    if isinstance(sys.stdout, io.TextIOWrapper):
        # JSON may bring halves of characters, which nothing can encode.
        sys.stdout.reconfigure(errors="replace")
    live = sys.stdin.isatty() and sys.stdout.isatty()
    stage: Stage = LiveStage() if live else PlainStage(sys.stdout)
    seat = Seat(discord=discord, slack=slack, stage=stage)
    script, log = folder / "bot.sh", folder / "bot.log"
    async with AsyncExitStack() as stack:
        stage.note(_started(options))
        if options.bot:
            stage.note(f"The bot is starting; its log is {_shown(log)}")
            child = await stack.enter_async_context(bot.run(script, log=log))
            if not await _arrived(seat, child):
                last = log.read_text("utf-8", "replace").splitlines()[-_LAST_WORDS:]
                stage.note("\n".join(["The bot did not come:", *last]))
                return 1
            stack.callback(stage.note, "The bot is ending.")
            watching = asyncio.create_task(_tell_end(child, seat))
            stack.callback(watching.cancel)
        else:
            stage.note(f"In another terminal, this runs the bot: sh {_shown(script)}")
            stage.note(f"The settings of a bot of your own are in {_shown(folder / 'bot.env')}")
        stage.note(f"You are {seat.person} in {seat.room.title}, and what you type is said there.")
        stage.note("@bot calls the bot; /help tells the rest.")
        stack.callback(stage.leave)
        await _converse(seat, Commands(seat, model), stage.lines(sys.stdin.fileno()))
    return 0


def _started(options: argparse.Namespace) -> str:
    if not (options.model or options.demo_model):
        return "Discord, Slack and a model are up, on this machine alone."
    who = options.model or "the bot's demo model"
    return f"Discord and Slack are up, on this machine alone; {who} answers."


async def _converse(seat: Seat, commands: Commands, lines: AsyncGenerator[str]) -> None:
    watching = asyncio.create_task(seat.watch())
    obeying = asyncio.create_task(_obey(commands, lines))
    try:
        await asyncio.wait({watching, obeying}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        watching.cancel()
        obeying.cancel()
        ends = await asyncio.gather(watching, obeying, return_exceptions=True)
    for end in ends:
        if isinstance(end, Exception):
            raise end


async def _obey(commands: Commands, lines: AsyncGenerator[str]) -> None:
    async with aclosing(lines):
        async for line in lines:
            if not await commands.obey(line):
                return


async def _arrived(seat: Seat, child: Process) -> bool:
    """Return True as soon as the bot is in both platforms, and False when it will not come."""
    try:
        async with asyncio.timeout(_ARRIVAL_SECONDS):
            while child.returncode is None:
                seat.greet()
                if all(rooms.bot_is_here for rooms in seat.platforms.values()):
                    return True
                await asyncio.sleep(0.05)
    except TimeoutError:
        pass
    return False


async def _tell_end(child: Process, seat: Seat) -> None:
    status = await child.wait()
    seat.stage.note(f"The bot has ended, with status {status}.")


def _shown(path: Path) -> str:
    return shlex.quote(str(path))


if __name__ == "__main__":
    sys.exit(main())
