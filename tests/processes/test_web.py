"""An open page lives through the death of the worker and of its own server."""

from __future__ import annotations

from pathlib import Path

from bot.store import connect
from tests.emulators.model import ModelEmulator
from tests.support.process import ANSWER, bot, speak_slowly
from tests.support.waiting import until
from tests.support.web_page import browser, free_port, new_talk, web_variables


async def test_an_open_page_lives_through_every_death(data_dir: Path, model: ModelEmulator) -> None:
    speak_slowly(model, seconds=2.0)
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
                worker.kill()
                await worker.process.wait()
                async with second:
                    await until(lambda: screen.is_done(name), why=screen.__str__)
                    connections = screen.states
                    last = await person.ask(talk, "and?")
                    await until(lambda: len(screen.answer(last)) > 40, why=screen.__str__)
                    web.kill()
                    await web.process.wait()
                    async with bot("web", data_dir=data_dir, variables=variables) as again:
                        await until(lambda: screen.is_done(last), why=again.text)
                        _, listed = await person.get("/api/conversations")

    assert connections == 1
    assert screen.states > 1
    assert screen.answer(name) == screen.answer(last) == ANSWER
    assert [one["id"] for one in listed] == [talk]
