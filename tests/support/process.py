"""The bot as a process, and the ways in which a person talks to it."""

from __future__ import annotations

import asyncio
import os
import pty
import re
import signal
import subprocess
import sys
import termios
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import aiohttp

from bot.domain import Exchange, ThreadKey
from bot.store import Store, connect
from bot.turns.records import History
from tests.emulators.discord import DiscordEmulator
from tests.emulators.discord import Shown as DiscordShown
from tests.emulators.model import ModelEmulator
from tests.emulators.slack import Shown as SlackShown
from tests.emulators.slack import SlackEmulator
from tests.support.replies import answer_of
from tests.support.waiting import until

ROOT = Path(__file__).parents[2]
PROCESS_LEASE = 0.6  # seconds
_ADDRESS = re.compile(r"http://127\.0\.0\.1:\d+")  # of a process, in its log
# Long enough for several edits, with what an adapter could spoil.
ANSWER = (
    "Well, **one** thing first: 1 < 2 & 3 > 2, and `a && b` stays code. "
    + "The quick brown fox jumps over the lazy dog again and again. " * 5
    + "Ask @everyone, @here or <!channel>; nobody is called. The end."
)


def speak_slowly(model: ModelEmulator, *, seconds: float) -> None:
    """Let the model take so long for ANSWER."""
    model.answer = ANSWER
    model.delay = seconds * model.chunk / len(ANSWER)


@dataclass(slots=True)
class BotProcess:
    """A running process; `log` is what it wrote to stderr so far."""

    process: asyncio.subprocess.Process
    log: bytearray = field(default_factory=bytearray)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)

    def pause(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def wake(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def text(self) -> str:
        return self.log.decode()


@asynccontextmanager
async def bot(
    *roles: str,
    data_dir: Path,
    variables: dict[str, str],
    stdin: int = DEVNULL,
    start: Sequence[str] = ("-m", "bot"),
) -> AsyncIterator[BotProcess]:
    """Run `python -m bot run ROLE …` with these variables and no others; it is gone at the end."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(data_dir),
        "PYTHONPATH": str(ROOT),
        "DATA_DIR": str(data_dir),
        "LEASE_SECONDS": str(PROCESS_LEASE),
        "PORT": "0",
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, *start, "run", *roles),
        cwd=data_dir,
        env=environment | variables,
        stdin=stdin,
        stdout=PIPE,
        stderr=PIPE,
    )
    running = BotProcess(process)
    reading = asyncio.create_task(_collect(process, running.log))
    try:
        yield running
    finally:
        if process.returncode is None:
            process.terminate()
        try:
            async with asyncio.timeout(60):
                await process.wait()
        except TimeoutError:
            process.kill()
            raise
        finally:
            await asyncio.gather(reading, return_exceptions=True)


async def _collect(process: asyncio.subprocess.Process, log: bytearray) -> None:
    assert process.stderr
    while chunk := await process.stderr.read(65536):
        log += chunk


async def have_counted(running: BotProcess, metric: str, wanted: float) -> None:
    """Return when a counter of the process, over all its labels, is what is wanted."""

    async with asyncio.timeout(60):
        while await counted(running, metric) != wanted:
            await asyncio.sleep(0.05)


async def counted(running: BotProcess, metric: str) -> float:
    """Return a counter of the process, over all its labels."""
    await until(lambda: _ADDRESS.search(running.text()), why=running.text)
    (address,) = _ADDRESS.findall(running.text())[:1]
    async with aiohttp.ClientSession() as session, session.get(f"{address}/metrics") as answer:
        text = await answer.text()
    return sum(float(count) for count in re.findall(rf"^{metric}{{.*}} (.*)$", text, re.M))


@asynccontextmanager
async def python(
    *arguments: str,
    folder: Path,
    variables: Mapping[str, str],
    stdin: int = PIPE,
    stdout: int = PIPE,
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run Python in a folder with these variables and no others; it is gone at the end."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, *arguments),
        cwd=folder,
        env={"PATH": os.environ["PATH"], "HOME": str(folder), "PYTHONPATH": str(ROOT), **variables},
        stdin=stdin,
        stdout=stdout,
        stderr=PIPE,
    )
    try:
        async with asyncio.timeout(120):
            yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def at_terminal(*command: str) -> list[str]:
    """Return the command for a session of its own, at the terminal that is its standard input.

    Only there Ctrl-C is a signal.
    """
    begin = (
        "import os, sys\n"
        "os.setsid()\n"
        "os.close(os.open(os.ttyname(0), os.O_RDWR))\n"
        "os.execv(sys.argv[1], sys.argv[1:])\n"
    )
    return [sys.executable, "-IS", "-c", begin, *command]


def press_at_prompt(
    *command: str, folder: Path, prompt: bytes, keys: bytes
) -> tuple[bytes, int, bool]:
    """Press keys at a prompt of a command of `python`, which ends it.

    Return what its terminal has shown, its exit status, and whether the terminal echoes again.
    """
    terminal, ours = pty.openpty()
    with subprocess.Popen(
        at_terminal(sys.executable, *command),
        cwd=folder,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
        stdin=ours,
        stdout=ours,
        stderr=ours,
    ) as process:
        shown = b""
        while prompt not in shown:
            shown += os.read(terminal, 1024)
        os.write(terminal, keys)
        status = process.wait(60)
        os.set_blocking(terminal, False)
        shown += os.read(terminal, 4096)
    echoes = bool(termios.tcgetattr(ours)[3] & termios.ECHO)
    os.close(ours)
    os.close(terminal)
    return shown, status, echoes


def alive(pid: int) -> bool:
    return any(int(other) == pid and state[0] != "Z" for other, state in _processes("pid=,stat="))


def children(module: str, *, parent: int | None = None) -> list[int]:
    """Return the ids of the processes that another one, or this one, has started for a module."""
    return [
        int(pid)
        for pid, its_parent, command in _processes("pid=,ppid=,args=")
        if int(its_parent) == (parent or os.getpid()) and module in command
    ]


def _processes(columns: str) -> list[list[str]]:
    table = subprocess.run(
        ["ps", "-A", "-o", columns], capture_output=True, text=True, check=True
    ).stdout
    return [line.split(None, columns.count(",")) for line in table.splitlines()]


def catches(process: asyncio.subprocess.Process, number: signal.Signals) -> bool:
    """Tell whether a process has a handler of its own for a signal; Linux alone tells."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(caught.split()[1], 16) & 1 << number - 1)


def model_variables(model: ModelEmulator | None) -> dict[str, str]:
    # No tokenizer is looked for under a name like this.
    return {"MODEL_URL": model.url, "MODEL_ID": model.models[0]} if model else {}


def discord_variables(
    discord: DiscordEmulator, model: ModelEmulator | None = None
) -> dict[str, str]:
    return {
        "DISCORD_TOKEN": discord.token,
        "DISCORD_API_URL": discord.api_url,
        "DISCORD_GATEWAY_URL": discord.gateway_url,
        **model_variables(model),
    }


def slack_variables(slack: SlackEmulator, model: ModelEmulator | None = None) -> dict[str, str]:
    return {
        "SLACK_BOT_TOKEN": slack.bot_token,
        "SLACK_APP_TOKEN": slack.app_token,
        "SLACK_API_URL": slack.api_url,
        **model_variables(model),
    }


@asynccontextmanager
async def discord_bot(
    data_dir: Path, model: ModelEmulator | None, **variables: str
) -> AsyncIterator[tuple[DiscordEmulator, BotProcess]]:
    """An emulated Discord with the bot connected to it."""
    async with DiscordEmulator() as discord:
        variables = discord_variables(discord, model) | variables
        async with bot(data_dir=data_dir, variables=variables) as running:
            await asyncio.wait_for(discord.connected.wait(), 60)
            yield discord, running


async def remembered_in(data_dir: Path) -> list[Exchange]:
    async with connect(url="", data_dir=data_dir) as store:
        return await remembered(store)


async def remembered(store: Store) -> list[Exchange]:
    """Return all exchanges in the store."""
    return [one for thread in await threads(store) for one in thread]


async def threads(store: Store) -> list[list[Exchange]]:
    """Return the exchanges of each thread."""
    history, prefix = History(store=store, keep_seconds=3600), store.key("history", "")
    names = await store.command("KEYS", f"{prefix}*")
    return [await history.read(ThreadKey.parse(name.removeprefix(prefix))) for name in names]


class InDiscord:
    """A way to talk to the bot: `ask`, then `ask` again in the same conversation.

    `said` is the id of the newest question, where it is a message.
    """

    discord: DiscordEmulator
    person: str
    said: str

    async def ask(self, text: str) -> None:
        raise NotImplementedError

    def shown(self) -> list[DiscordShown]:
        """What the bot's messages in this conversation show."""
        raise NotImplementedError

    async def edit(self, text: str) -> None:
        await self.discord.edit(self.said, text)

    async def delete(self) -> None:
        await self.discord.delete(self.said)

    async def redeliver(self) -> None:
        await self.discord.redeliver(self.said)

    async def delete_answer(self) -> None:
        await self.discord.delete(self.shown()[-1].id)

    def answers(self) -> list[tuple[str, list[str]]]:
        """What each message shows, with all that it has shown."""
        return [(one.text, self.discord.states(one.id)) for one in self.shown()]

    def finals(self) -> list[str]:
        return [text for text, _ in self.answers()]

    def buttons(self) -> list[tuple[str, str]]:
        return [(one.id, button) for one in self.shown() for button in one.buttons]

    async def press(self) -> None:
        message, button = self.buttons()[-1]
        await self.discord.click(message, self.person, button)


class DiscordMention(InDiscord):
    def __init__(self, discord: DiscordEmulator) -> None:
        self.discord = discord
        self.person = discord.user("Ann")
        self.question = ""

    async def ask(self, text: str) -> None:
        if self.question:
            self.said = await self.discord.say(self.question, self.person, text)
            return
        said = f"{self.discord.bot_mention} {text}"
        self.said = await self.discord.say(self.discord.channel_id, self.person, said)
        self.question = self.said

    async def edit(self, text: str) -> None:
        in_channel = self.said == self.question
        await super().edit(f"{self.discord.bot_mention} {text}" if in_channel else text)

    def shown(self) -> list[DiscordShown]:
        thread = self.discord.thread_of(self.question)
        return _of_discord(self.discord, thread) if thread else []


class DiscordDm(InDiscord):
    def __init__(self, discord: DiscordEmulator) -> None:
        self.discord = discord
        self.person = discord.user("Ben")
        self.channel = discord.dm(self.person)

    async def ask(self, text: str) -> None:
        self.said = await self.discord.say(self.channel, self.person, text)

    def shown(self) -> list[DiscordShown]:
        return _of_discord(self.discord, self.channel)


class DiscordSlash(InDiscord):
    def __init__(self, discord: DiscordEmulator) -> None:
        self.discord = discord
        self.person = discord.user("Cleo")
        self.interactions: list[str] = []

    async def ask(self, text: str) -> None:
        channel = self.discord.channel_id
        interaction = await self.discord.slash(channel, self.person, "ask", question=text)
        self.interactions.append(interaction)

    def shown(self) -> list[DiscordShown]:
        originals = [self.discord.original(each) for each in self.interactions]
        return [replace(one, text=answer_of(one.text)) for one in originals if one and one.text]

    def answers(self) -> list[tuple[str, list[str]]]:
        return [(text, [*map(answer_of, states)]) for text, states in super().answers()]


def _of_discord(discord: DiscordEmulator, channel: str) -> list[DiscordShown]:
    return [one for one in discord.screen(channel) if one.author_id == discord.bot_id]


class InSlack:
    """As in Discord."""

    slack: SlackEmulator
    person: str
    said: str
    channel: str
    question: str | None = None

    async def ask(self, text: str) -> None:
        raise NotImplementedError

    async def edit(self, text: str) -> None:
        await self.slack.edit(self.channel, self.said, text)

    async def delete(self) -> None:
        await self.slack.delete(self.channel, self.said)

    async def redeliver(self) -> None:
        await self.slack.redeliver(self.said)

    async def delete_answer(self) -> None:
        await self.slack.delete(self.channel, self.shown()[-1].ts)

    def shown(self) -> list[SlackShown]:
        return [
            one
            for one in self.slack.screen(self.channel, self.question)
            if one.author in (self.slack.bot_id, self.slack.bot_user_id) and one.ts != self.question
        ]

    def answers(self) -> list[tuple[str, list[str]]]:
        return [(one.text, self.slack.states(self.channel, one.ts)) for one in self.shown()]

    def finals(self) -> list[str]:
        return [text for text, _ in self.answers()]

    def buttons(self) -> list[tuple[str, str]]:
        return [(one.ts, button) for one in self.shown() for button in one.buttons]

    async def press(self) -> None:
        message, button = self.buttons()[-1]
        await self.slack.click(self.channel, message, self.person, button)


class SlackMention(InSlack):
    def __init__(self, slack: SlackEmulator) -> None:
        self.slack = slack
        self.person = slack.user("Ann")
        self.channel = slack.channel_id

    async def ask(self, text: str) -> None:
        said = f"{self.slack.bot_mention} {text}"
        self.said = await self.slack.say(self.channel, self.person, said, thread_ts=self.question)
        self.question = self.question or self.said

    async def edit(self, text: str) -> None:
        await super().edit(f"{self.slack.bot_mention} {text}")

    def shown(self) -> list[SlackShown]:
        return super().shown() if self.question else []


class SlackDm(InSlack):
    def __init__(self, slack: SlackEmulator) -> None:
        self.slack = slack
        self.person = slack.user("Ben")
        self.channel = slack.dm(self.person)

    async def ask(self, text: str) -> None:
        self.said = await self.slack.say(self.channel, self.person, text)


class SlackSlash(SlackMention):
    """The command posts the question; the conversation goes on in its thread."""

    async def ask(self, text: str) -> None:
        if self.question:
            await super().ask(text)
            return
        await self.slack.slash(self.channel, self.person, "/ask", text)
        self.question = self.slack.screen(self.channel)[-1].ts


Way = InDiscord | InSlack


def shows(way: Way, *texts: str) -> bool:
    return way.finals() == list(texts)


def offers_another(way: Way) -> bool:
    return any(button.startswith("regenerate") for _, button in way.buttons())
