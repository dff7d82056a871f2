"""A title whose worker is killed is written by the next one, and nothing is lost."""

from __future__ import annotations

from pathlib import Path

from bot.store import connect
from tests.emulators.model import ModelEmulator
from tests.support.ports import free_port
from tests.support.process import bot
from tests.support.waiting import until
from tests.support.web_page import browser, new_talk, web_variables
from tests.web.test_titles import entitle, for_titles, listed


async def test_a_title_outlives_the_worker_that_is_killed_while_it_is_written(
    data_dir: Path, model: ModelEmulator
) -> None:
    entitle(model, [(0.0, "Blue "), (600.0, "never")])
    port, talk = free_port(), new_talk()
    async with connect(url="", data_dir=data_dir) as store:
        variables = web_variables(
            model, WEB_TITLES="on", WEB_PORT=str(port), REDIS_URL=store.url, HISTORY_DAYS="2"
        )
        worker = bot("worker", data_dir=data_dir, variables=variables)
        page = bot("web", data_dir=data_dir, variables=variables)
        async with worker as first, page as web:
            await until(lambda: "The page is at" in web.text(), why=web.text)
            async with browser(f"http://127.0.0.1:{port}") as person, person.page(talk) as screen:
                name = await person.ask(talk, "why is the sky blue?")
                await until(lambda: for_titles(model), why=first.text)
                first.kill()
                await first.process.wait()
                before = await listed(person)
                entitle(model, "Blue skies", "Again.")
                # As after the minute for which the killed one has claimed it.
                waiting = store.key("untitled", "web")
                (thread,) = await store.command("ZRANGE", waiting, 0, -1)
                await store.command("ZADD", waiting, 0, thread)
                async with bot("worker", data_dir=data_dir, variables=variables) as second:
                    await until(lambda: screen.title == "Blue skies", why=second.text)
                    after = await listed(person)

    assert (before, after) == ({talk: "why is the sky blue?"}, {talk: "Blue skies"})
    assert screen.answer(name) == "Because."
    assert len(for_titles(model)) == 2
