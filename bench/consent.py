"""How soon an answer goes on when a person has allowed a call, on emulated platforms.

    python -m bench.consent [discord] [slack] [--presses 100]

Each question leads to a call of a real MCP server, which waits for a press. The model begins to
speak as soon as it is asked again; its first words then wait for an edit, because the end of the
buttons has been one. What the bot takes is compared with a limit of the same run: a
question without tools, from its event to its first token on the screen. Slack's limits let a
workspace have one press in a few seconds, so that 100 of them take eight minutes.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mcp.server.mcpserver import MCPServer

from bench import figures
from bench.stage import LATENCY
from tests.emulators.discord import DiscordEmulator
from tests.emulators.model import Calls, ModelEmulator
from tests.emulators.slack import SlackEmulator
from tests.emulators.timeline import Moment
from tests.support.mcp_server import serving
from tests.support.process import bot, discord_variables, slack_variables
from tests.support.waiting import until

LIMIT = 0.3  # seconds from a press to the next delta that the bot reads
SLACK_PAUSE = 3.0  # seconds from press to press: two updates each, of 50 a minute
_FIRST, _LAST = "Done:", "That is all."
_ANSWER = [(0.0, f"{_FIRST} "), *((0.05, f"word{n} ") for n in range(10)), (0.05, _LAST)]
_CALL = Calls([("office_create_ticket", '{"title": "Printer"}')], text="Let me see.")


@dataclass(frozen=True, slots=True)
class Press:
    """Seconds from a press to what it leads to.

    The reply changes for the first time, which takes the buttons away; the tool is called; the
    model is asked again, speaks, and is seen to speak.
    """

    changed: float
    called: float
    asked: float
    spoke: float
    shown: float


class Discord:
    """People in DMs of their own."""

    pause = 0.0

    def __init__(self, discord: DiscordEmulator, model: ModelEmulator) -> None:
        self.platform = discord
        self.variables = discord_variables(discord, model)

    async def ask(self, number: int, text: str) -> None:
        self._person = self.platform.user(f"Person {number}")
        self._dm = self.platform.dm(self._person)
        await self.platform.say(self._dm, self._person, text)

    def button(self) -> tuple[str, str] | None:
        for one in self.platform.screen(self._dm):
            for button in one.buttons:
                if button.startswith("allow"):
                    return one.id, button
        return None

    async def press(self) -> None:
        message, button = self.button() or ("", "")
        await self.platform.click(message, self._person, button)

    def moments(self) -> list[Moment]:
        return self.platform.timeline(self._dm)


class Slack:
    """People in threads of their own."""

    pause = SLACK_PAUSE

    def __init__(self, slack: SlackEmulator, model: ModelEmulator) -> None:
        self.platform = slack
        self.variables = slack_variables(slack, model)

    async def ask(self, number: int, text: str) -> None:
        slack = self.platform
        self._person, self._channel = slack.user(f"Person {number}"), slack.channel(f"q-{number}")
        said = f"{slack.bot_mention} {text}"
        self._thread = await slack.say(self._channel, self._person, said)

    def button(self) -> tuple[str, str] | None:
        for one in self.platform.screen(self._channel, self._thread):
            for button in one.buttons:
                if button == "allow":
                    return one.ts, button
        return None

    async def press(self) -> None:
        ts, button = self.button() or ("", "")
        await self.platform.click(self._channel, ts, self._person, button)

    def moments(self) -> list[Moment]:
        return self.platform.timeline(self._channel, self._thread)


PLATFORMS = {"discord": (DiscordEmulator, Discord), "slack": (SlackEmulator, Slack)}


async def main(platform: str, presses: int) -> None:
    """Press and print."""
    emulator, scene = PLATFORMS[platform]
    calls = list[float]()
    with tempfile.TemporaryDirectory(prefix="parley-") as name:
        folder = Path(name)
        async with (
            ModelEmulator() as model,
            emulator(latency=LATENCY) as place,
            serving(_office(calls).streamable_http_app()) as url,
        ):
            model.calling, model.answer = model.models, _answer
            way = scene(place, model)
            file = folder / "mcp.toml"
            tools = '[servers.office.tools]\ncreate_ticket = "effects"\n'
            file.write_text(f'[servers.office]\nurl = "{url}"\n{tools}', encoding="utf-8")
            variables = {**way.variables, "MCP_SERVERS": str(file)}
            async with bot(data_dir=folder, variables=variables):
                await asyncio.wait_for(place.connected.wait(), 60)
                plain = [await _plain(way, number) for number in range(10)]
                found = [await _press(way, model, calls, 100 + number) for number in range(presses)]
    _print(platform, plain, found)


def _office(calls: list[float]) -> MCPServer:
    """Return a server that notes when its tool was called."""
    server = MCPServer("office", log_level="WARNING")

    @server.tool()
    def create_ticket(title: str) -> str:
        """Make a ticket."""
        calls.append(time.monotonic())
        return f"Ticket 1: {title}"

    return server


def _answer(messages: list[dict[str, str]]) -> Calls | list[tuple[float, str]]:
    wants = "ticket" in messages[-1]["content"] and messages[-1]["role"] == "user"
    return _CALL if wants else _ANSWER


async def _plain(way: Discord | Slack, number: int) -> float:
    """Return the seconds from a question without a call to its first token on the screen."""
    began = time.monotonic()
    await way.ask(number, "hello")
    await _ended(way)
    await asyncio.sleep(way.pause)
    return _first(way) - began


async def _press(
    way: Discord | Slack, model: ModelEmulator, calls: Sequence[float], number: int
) -> Press:
    await way.ask(number, "make a ticket")
    await until(lambda: way.button() is not None, why=lambda: str(way.moments()))
    await asyncio.sleep(way.pause)  # a person reads
    asked, began = len(model.requests), time.monotonic()
    pressing = asyncio.create_task(way.press())
    await _ended(way)
    await pressing
    again = model.requests[asked]
    changed = next(one.at for one in way.moments() if one.what == "edit" and one.at > began)
    moments = changed, calls[-1], again.at, again.deltas[0].at, _first(way)
    return Press(*(moment - began for moment in moments))


async def _ended(way: Discord | Slack) -> None:
    await until(
        lambda: any(_LAST in one.text for one in way.moments()), why=lambda: str(way.moments())
    )


def _first(way: Discord | Slack) -> float:
    return next(one.at for one in way.moments() if _FIRST in one.text)


def _print(platform: str, plain: Sequence[float], found: Sequence[Press]) -> None:
    print(f"\n{platform}, {len(found)} presses, calls of {LATENCY * 1000:.0f} ms, {figures.load()}")
    middle = statistics.median(plain)
    print(f"question to first token shown, without tools, p50   {middle * 1000:6.0f} ms")
    for what, values in (
        ("press to the end of its buttons", [one.changed for one in found]),
        ("press to the call", [one.called for one in found]),
        ("press to the model's request", [one.asked for one in found]),
        (f"press to its next delta (limit {LIMIT * 1000:.0f})", [one.spoke for one in found]),
        ("press to that delta shown", [one.shown for one in found]),
    ):
        ranked = sorted(values)
        p50, p99 = statistics.median(ranked), ranked[max(-(-len(ranked) * 99 // 100) - 1, 0)]
        ratio = f"{p50 / middle:.2f} of the question's"
        print(f"{what:<42} p50 / p99  {p50 * 1000:6.0f} / {p99 * 1000:.0f} ms, {ratio}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("platforms", nargs="*", choices=[[], *PLATFORMS], metavar="PLATFORM")
    parser.add_argument("--presses", type=int, default=100)
    options = parser.parse_args()
    for each in options.platforms or PLATFORMS:
        asyncio.run(main(each, options.presses))
