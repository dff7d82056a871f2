"""Whoever plays the people before the emulators sees what the platforms show, and nothing else."""

from __future__ import annotations

import asyncio
import io
import os
import pty
import re
import signal
import stat
import sys
import termios
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp
import pytest

from tests.emulators.discord import DiscordEmulator
from tests.emulators.model import ModelEmulator
from tests.emulators.play.bot import run
from tests.emulators.play.commands import HELP, Commands
from tests.emulators.play.discord_rooms import DiscordRooms
from tests.emulators.play.seat import Seat
from tests.emulators.play.slack_rooms import SlackRooms
from tests.emulators.play.stage import PlainStage
from tests.emulators.slack import SlackEmulator
from tests.support.process import ROOT, at_terminal
from tests.support.waiting import until


class Play:
    """The emulators, and a seat before them whose stage prints into `output`; no bot is there."""

    def __init__(
        self, discord: DiscordEmulator, slack: SlackEmulator, model: ModelEmulator
    ) -> None:
        self.discord = discord
        self.slack = slack
        self.model = model
        self.output = io.StringIO()
        self.seat = Seat(
            discord=DiscordRooms(discord), slack=SlackRooms(slack), stage=PlainStage(self.output)
        )
        self.commands = Commands(self.seat, model)

    async def type(self, *lines: str) -> list[str]:
        """Obey the lines; returns what was printed for the last of them."""
        for line in lines:
            self.output.truncate(0)
            self.output.seek(0)
            await self.commands.obey(line)
        return self.output.getvalue().splitlines()


@pytest.fixture
async def play() -> AsyncIterator[Play]:
    async with DiscordEmulator() as discord, SlackEmulator() as slack, ModelEmulator() as model:
        yield (play := Play(discord, slack, model))
        # Whoever lets a call fail need not wait for it.
        await play.type("/heal")


NOBODY = "No bot is in Discord to hear this."


async def test_what_is_typed_is_said_and_mentions_are_the_platforms_own(play: Play) -> None:
    printed = await play.type("@bot and @parley, but not@bot or @nobody")

    (shown,) = play.discord.screen(play.discord.channel_id)
    mention = play.discord.bot_mention
    assert shown.text == f"{mention} and {mention}, but not@bot or @nobody"
    assert printed == [NOBODY, " 1 Ann: @parley and @parley, but not@bot or @nobody"]


async def test_a_reply_is_the_platforms_own(play: Play) -> None:
    replied = await play.type("one", "/as Ben", "/reply 1 @bot two")
    threaded = await play.type("/slack", "one", "/reply 3 @bot two")
    below = await play.type("/as Ann", "/reply 4 three")

    one, two = play.discord.screen(play.discord.channel_id)
    assert (two.text, two.reply_to) == (f"{play.discord.bot_mention} two", one.id)
    assert replied[-2:] == [" 2 Ben: @parley two", "   (reply to 1)"]
    assert threaded[-1] == "     4 Ben: @parley two"
    assert below[-1] == "     5 Ann: three"
    assert [sight.within for sight in play.seat.standing.values()] == [0, 1, 1]


async def test_nothing_that_is_written_drives_the_terminal(play: Play) -> None:
    await play.type("hello")
    evil = "\x1b[2J\x9b31mred\u202e\r\nnext"
    await play.discord.say(play.discord.channel_id, play.discord.bot_id, evil)
    printed = await play.type("/screen")

    assert printed == [" 1 Ann: hello", " 2 parley: [2J31mred", "   next"]


async def test_the_help_names_every_command_and_no_other(play: Play) -> None:
    heads = " ".join(line[:18] for line in HELP.splitlines())

    assert {*re.findall(r"/(\w+)", heads)} == {*play.commands.by_name, "quit"} - {"help"}


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("/foo", "There is no /foo; /help tells what there is."),
        ("/thread", "Nothing stands here yet."),
        ("/click", "There is no message without a number here."),
        ("/delete 7", "There is no message 7 here."),
        ("/edit 0 mine", "There is no message 0 here."),
        ("/as two words", "A person is called by one word, such as /as Ben."),
        ("/stop", "Discord has no stop button of its own: /click the message's."),
        ("/wait 0.01", "The bot was not done within 0.01 seconds."),
        ("/speed 0", "It would never end."),
        ("/fail", "How is it to fail? CALL, then a status or one of status, drop, hang, late."),
        ("/fail * 500", "* is no regular expression: nothing to repeat at position 0."),
        ("/fail x 500 often=2", "often is none of times, after, retry_after, seconds, applied."),
        ("/fail model loading often=2", "often is none of times, after."),
        ("/fail x 503 times=2", "Discord will fail: x 503 times=2"),
        ("/fail model too many requests times=2", "The model will fail: too many requests times=2"),
        ("/fail model reset", "The model will fail: reset"),
        ("/speed 80 2", "The model says 80 characters a second, and begins after 2 seconds."),
        ("/model Hello", "The model says that from now on."),
        ("/heal", "All goes well again: Discord, Slack, the model."),
    ],
)
async def test_a_command_without_a_visible_effect_prints_a_sentence(
    line: str, sentence: str, play: Play
) -> None:
    assert await play.type(line) == [sentence]


ARRIVED = "The bot is in Slack."


@asynccontextmanager
async def playing(
    data_dir: Path, *options: str, terminal: int | None = None
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run `python -m tests.emulators`, at a pipe or at a terminal; it is gone at the end."""
    pipe = asyncio.subprocess.PIPE
    command = [sys.executable, "-m", "tests.emulators", *options]
    process = await asyncio.create_subprocess_exec(
        *(command if terminal is None else at_terminal(*command)),
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "HOME": str(data_dir), "DATA_DIR": str(data_dir)},
        stdin=pipe if terminal is None else terminal,
        stdout=pipe if terminal is None else terminal,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        async with asyncio.timeout(30):
            await process.wait()


async def piped(data_dir: Path, *options: str, lines: Sequence[str]) -> tuple[str, int | None]:
    """Return what is printed for these lines, and the exit status."""
    async with playing(data_dir, *options) as process:
        async with asyncio.timeout(120):
            said, _ = await process.communicate("".join(f"{line}\n" for line in lines).encode())
    return said.decode(), process.returncode


def scenes(printed: str) -> dict[str, str]:
    """Return what was printed in each room, by its title."""
    _, *parts = re.split(r"^--- (.*), as \w+\n", printed, flags=re.MULTILINE)
    return dict(zip(parts[::2], parts[1::2], strict=True))


async def test_a_piped_play_shows_the_bot_in_every_place(tmp_path: Path) -> None:
    lines = [
        "/fail moon 500",  # whoever asks for a fault need not wait for it
        *("/model All *is* well, so far.", "/speed 300", "@bot one", "/wait"),
        *("/thread", "two", "/wait", "/channel lab", "/ask three", "/wait"),
        # Longer than a screen is quiet that is taken for done.
        *("/slack", "/speed 300 1.3", "/dm", "four", "/wait"),
    ]

    printed, status = await piped(tmp_path, "--bot", lines=lines)

    assert status == 0, printed
    shown = scenes(printed)
    assert "\n     2 parley: All *is* well, so far." in printed
    assert "\n 4 parley: All *is* well, so far." in shown["Discord #general, thread 1"]
    assert "\n 5 parley: > three\n   All *is* well, so far." in f"\n{shown['Discord #lab']}"
    # In Slack, an answer that stands still is taken for complete, as that of a frozen machine is.
    assert "\n 7 parley: All *is*" in shown["Slack DM"]
    assert "Traceback" not in printed


async def test_a_private_script_leads_a_bot_there(tmp_path: Path) -> None:
    script = tmp_path / "emulators" / "bot.sh"
    async with playing(tmp_path) as play:
        told = await printed_until(play, "sh .*bot.sh")
        mode = stat.S_IMODE(script.stat().st_mode)
        async with run(script, log=tmp_path / "log"):
            await printed_until(play, ARRIVED)
            assert play.stdin
            play.stdin.write(b"/speed 3000\n/slack\n/dm\nhello\n")
            await printed_until(play, "parley: You said: hello")

    assert told.endswith(f"this runs the bot: sh {script}")
    assert mode == 0o600


async def test_a_broken_rule_is_printed_at_the_end(tmp_path: Path) -> None:
    async with playing(tmp_path) as play:
        await printed_until(play, "You are Ann")
        script = (tmp_path / "emulators" / "bot.sh").read_text()
        (url,) = re.findall(r"DISCORD_API_URL=(\S+)", script)
        async with aiohttp.ClientSession() as session, session.get(f"{url}/moon") as answer:
            assert answer.status == 404
        async with asyncio.timeout(30):
            printed, _ = await play.communicate(b"/quit\n")

    assert play.returncode == 1
    assert "The bot broke a rule: " in printed.decode().splitlines()[-1]
    assert "/moon" in printed.decode()


async def test_plays_have_a_script_each_and_signals_end_them_in_good_order(tmp_path: Path) -> None:
    ended = {}
    async with playing(tmp_path) as one, playing(tmp_path) as two, playing(tmp_path) as three:
        plays = {signal.SIGINT: one, signal.SIGTERM: two, signal.SIGHUP: three}
        told = {(await printed_until(each, "sh .*bot.sh")).split()[-1] for each in plays.values()}
        for number, play in plays.items():
            await printed_until(play, "You are Ann")
            play.send_signal(number)
            async with asyncio.timeout(30):
                rest, _ = await play.communicate()
            ended[number] = play.returncode, b"Traceback" in rest

    folders = ("emulators", "emulators-2", "emulators-3")
    assert told == {str(tmp_path / folder / "bot.sh") for folder in folders}
    assert ended == dict.fromkeys(plays, (0, False))


async def test_a_play_that_is_killed_takes_the_bot_with_it(tmp_path: Path) -> None:
    script, pid = tmp_path / "bot.sh", tmp_path / "pid"
    script.write_text(f"echo $$ >{pid}.new && mv {pid}.new {pid}; exec sleep 60")
    code = (
        "import asyncio, pathlib, sys\n"
        "from tests.emulators.play.bot import run\n"
        "async def main():\n"
        "    script, log = map(pathlib.Path, sys.argv[1:])\n"
        "    async with run(script, log=log) as process: await process.wait()\n"
        "asyncio.run(main())\n"
    )
    words = (sys.executable, "-c", code, str(script), str(tmp_path / "log"))
    play = await asyncio.create_subprocess_exec(*words, cwd=ROOT)
    await until(pid.exists)

    play.kill()
    await play.wait()

    await until(lambda: not is_running(int(pid.read_text())), within=20)


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_the_first_line_tells_what_answers_and_the_last_why_a_bot_cannot_start(
    tmp_path: Path,
) -> None:
    printed, status = await piped(tmp_path, "--bot", "--model", "ftp://here", lines=["hello"])

    assert status == 1
    first = "Discord and Slack are up, on this machine alone; ftp://here answers."
    assert printed.splitlines()[0] == first
    assert "The bot did not come:\nbot: MODEL_URL='ftp://here' does not begin with" in printed


async def test_at_a_terminal_an_answer_grows_and_ctrl_c_leaves_nothing_but_logs(
    tmp_path: Path,
) -> None:
    files = tmp_path / "emulators"
    ours, theirs = pty.openpty()
    before = termios.tcgetattr(theirs)
    async with playing(tmp_path, "--bot", terminal=theirs) as play:
        seen = await seen_until(ours, "Ann>")
        os.write(ours, b"/speed 500\n/dm\nhello\n")
        seen += await seen_until(ours, "something else")
        os.write(ours, b"\x03")
        async with asyncio.timeout(30):
            await play.wait()

    assert play.returncode == 0
    assert termios.tcgetattr(theirs) == before
    assert seen.index("Ann: hello") < seen.index("parley: ") < seen.index("something else")
    script, bot_log, own_log = (files / name for name in ("bot.sh", "bot.log", "emulators.log"))
    (store,) = re.findall(r"DATA_DIR=(\S+)", script.read_text())
    assert not os.access(store, os.F_OK)
    assert "INFO bot: Stopped" in bot_log.read_text()
    assert own_log.read_text() == ""


async def printed_until(play: asyncio.subprocess.Process, pattern: str) -> str:
    """Return the next line in which the pattern is found."""
    assert play.stdout
    async with asyncio.timeout(60):
        while line := (await play.stdout.readline()).decode():
            if re.search(pattern, line):
                return line.rstrip()
    raise AssertionError(f"nothing that was printed has {pattern}")


async def seen_until(terminal: int, text: str) -> str:
    """Return what was written to a terminal up to this text."""
    seen = ""
    os.set_blocking(terminal, False)
    async with asyncio.timeout(60):
        while text not in seen:
            with suppress(BlockingIOError):
                seen += os.read(terminal, 65536).decode(errors="replace")
            await asyncio.sleep(0.01)
    return seen
