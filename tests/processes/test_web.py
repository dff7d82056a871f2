"""An open page lives through the death of the worker, of its own server and of the store."""

from __future__ import annotations

import asyncio
import os
import pty
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from bot.store import connect
from tests.emulators.model import ModelEmulator
from tests.support.ports import free_port
from tests.support.process import ANSWER, bot, speak_slowly
from tests.support.waiting import until
from tests.support.web_page import browser, new_talk, web_variables


async def test_an_open_page_lives_through_every_death(data_dir: Path, model: ModelEmulator) -> None:
    speak_slowly(model, seconds=10.0)
    port, talk = free_port(), new_talk()
    address = f"http://127.0.0.1:{port}"
    async with connect(url="", data_dir=data_dir) as store:
        variables = web_variables(model, WEB_PORT=str(port), REDIS_URL=store.url)
        first = bot("worker", data_dir=data_dir, variables=variables)
        second = bot("worker", data_dir=data_dir, variables=variables)
        page = bot("web", data_dir=data_dir, variables=variables)
        async with first as worker, page as web:
            await until(lambda: "The page is at" in web.text(), why=web.text)
            async with browser(address) as person, person.page(talk) as screen:
                name = await person.ask(talk, "why?")
                await until(lambda: len(screen.answer(name)) > 40, why=screen.__str__)
                states = screen.states
                worker.kill()
                await worker.process.wait()
                speak_slowly(model, seconds=1.0)
                async with second:
                    await until(lambda: screen.is_done(name), why=screen.__str__)
                    kept = screen.states == states
                    last = await person.ask(talk, "and?")
                    await until(lambda: len(screen.answer(last)) > 40, why=screen.__str__)
                    web.kill()
                    await web.process.wait()
                    async with bot("web", data_dir=data_dir, variables=variables) as again:
                        await until(lambda: screen.is_done(last), why=again.text)
                        third = await person.ask(talk, "so?")
                        await until(lambda: len(screen.answer(third)) > 40, why=screen.__str__)
                        facts = await store.command("INFO", "server")
                        os.kill(int(facts["process_id"]), signal.SIGKILL)
                        await until(lambda: screen.is_done(third), why=again.text)
                        other = await store.command("INFO", "server")
                        _, listed = await person.get("/api/conversations")

    assert other["process_id"] != facts["process_id"]
    assert kept
    assert screen.states > 1
    assert [screen.answer(each) for each in (name, last, third)] == [ANSWER] * 3
    assert [one["id"] for one in listed] == [talk]


@asynccontextmanager
async def at_a_terminal(
    data_dir: Path, variables: dict[str, str], sought: bytes
) -> AsyncIterator[str]:
    """Yield the line with these words that a terminal shows; it leaves with 0 at the end."""
    ours, theirs = pty.openpty()
    try:
        async with bot(data_dir=data_dir, variables=variables, stdin=theirs) as running:
            assert running.process.stdout
            line = b""
            async with asyncio.timeout(60):
                while sought not in line:
                    line = await running.process.stdout.readline()
                    assert line
                yield line.decode()
                os.write(ours, b"/quit\n")
                assert await running.process.wait() == 0
    finally:
        os.close(ours)
        os.close(theirs)


async def test_a_terminal_shows_where_the_page_is(
    data_dir: Path, valkey_url: str, model: ModelEmulator
) -> None:
    variables = web_variables(model, REDIS_URL=valkey_url)
    async with (
        at_a_terminal(data_dir, variables, b"The same in your browser: ") as line,
        browser(line.split()[-1]) as person,
    ):
        _, me = await person.get("/api/me")

    assert me["model"] == "emulated"


async def test_a_terminal_shows_that_the_port_of_the_page_is_taken(
    data_dir: Path, valkey_url: str, model: ModelEmulator
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        variables = web_variables(model, REDIS_URL=valkey_url, WEB_PORT=port)
        async with at_a_terminal(data_dir, variables, b"There is no page for your browser") as line:
            assert f"port {port} is taken" in line
            assert "WEB_PORT" in line
