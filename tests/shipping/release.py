"""Writes what the store of this version looks like: `python -m tests.shipping.release`.

Run it once for a release, and keep the file as it is: newer versions have to read it.
"""

from __future__ import annotations

import asyncio
import socket
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path

from bot.store import Store, connect
from tests.emulators.model import ModelEmulator
from tests.support.at_work import all_ended
from tests.support.process import (
    DiscordDm,
    DiscordMention,
    DiscordSlash,
    SlackDm,
    SlackMention,
    SlackSlash,
    Way,
)
from tests.support.service import serving_both
from tests.support.stored import stored, to_json
from tests.support.waiting import until
from tests.support.web_page import Browser, Screen, page_of

STORES = Path(__file__).parent / "stores"
NEWEST = STORES / "0.2.0.json"  # version 0.2 begins the format
FIRST, SECOND, THIRD = "Why is the sky blue?", "And at sunset?", "And on Mars?"
ANSWER = "Air scatters short waves more than long ones: that is Rayleigh scattering."
TALK = "a-conversation"


async def main() -> None:
    """Have people ask on every platform, and write the store while their answers grow."""
    with tempfile.TemporaryDirectory(prefix="parley-") as folder:
        async with AsyncExitStack() as stack:
            store = await stack.enter_async_context(connect(url="", data_dir=Path(folder)))
            model = await stack.enter_async_context(ModelEmulator())
            text = await asyncio.wait_for(_at_work(store, model), 120)
    # The names of workers begin with that of their machine.
    NEWEST.write_text(text.replace(socket.gethostname(), "host"), encoding="utf-8")


async def _at_work(store: Store, model: ModelEmulator) -> str:
    async with (
        serving_both(store, model) as (discord, slack, service),
        page_of(store, model) as (browser, _),
        browser.page(TALK) as screen,
    ):
        ways: list[Way] = [
            *(way(discord) for way in (DiscordMention, DiscordDm, DiscordSlash)),
            *(way(slack) for way in (SlackMention, SlackDm, SlackSlash)),
        ]
        model.answer = ANSWER
        await _ask(ways, browser, FIRST)
        await until(lambda: all(way.finals() == [ANSWER] for way in ways), why=service.text)
        await until(lambda: _answers(screen) == [ANSWER], why=service.text)
        await all_ended(store)

        model.delay = 1.0
        await _ask(ways, browser, SECOND)
        await until(lambda: all(len(way.finals()) == 2 for way in ways), why=service.text)
        await until(lambda: len(_answers(screen)) == 2 and _answers(screen)[1], why=service.text)
        await _ask(ways, browser, THIRD)
        while await store.command("ZCARD", store.key("open")) < 2 * (len(ways) + 1):
            await asyncio.sleep(0.01)
        text = to_json(await stored(store))
        model.delay = 0.0
        return text


async def _ask(ways: list[Way], browser: Browser, text: str) -> None:
    for way in ways:
        await way.ask(text)
    await browser.ask(TALK, text)


def _answers(screen: Screen) -> list[str]:
    return [str(turn["answer"]) for turn in screen.turns.values()]


if __name__ == "__main__":
    asyncio.run(main())
