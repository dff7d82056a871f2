"""How soon words are on the web page, and what open pages cost, beside Panel's ChatInterface.

    python -m bench.web [idle] [fresh] [long] [browser] [more] [search] [--pages 1 20 200]
                        [--idle 1000] [--panel PYTHON]

The page's server, the worker and the model are processes of their own. Pages are sockets that note
when bytes came, and a Chromium for what only a browser tells. `more` has as many answers grow as
there are pages, with two workers, and with two servers and two workers; `search` is `bench.search`.
PYTHON is one that has the packages `panel` and `panel-material-ui`, and ours
(`pip install -r requirements.txt`).
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import aiohttp
import uvloop

from bench import figures, search
from bench.browser import END, browse, by_panel
from bench.pages import Person, RawPage, bare, delays, percentile
from bench.source import Source, a_source
from bot.store import connect
from tests.support.process import BotProcess, bot
from tests.support.waiting import until
from tests.support.web_page import new_talk

SPEED, LETTERS = 30.0, 5  # deltas a second, and characters of each
SECONDS = 6  # for which answers grow
MANY = 20  # answers at once, beside which further pages are open and wait
THINKING = 1.5  # seconds before an answer, in which all others are asked for
LONG = 20_000  # characters of a long answer
LONG_SPEED, LONG_CHUNK = 150.0, 10  # its deltas a second, and characters of each
LONG_PAGES = 20  # that all show it
IDLE_SECONDS = 8.0
AT_ONCE = 20  # requests
PARTS = ("idle", "fresh", "long", "browser", "more", "search")
MORE = ((1, 2), (2, 2))  # servers and workers
FORMULA = r"so \(x_{NUMBER} = \frac{-b \pm \sqrt{b^2 - 4ac}}{2a} + \sum_{i=1}^{NUMBER} i^2\)."
_PROSE = "The river rises in the hills and runs past mills, gardens and towns to the sea. "
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Scene:
    """Running processes, and where they are."""

    session: aiohttp.ClientSession
    source: Source
    webs: list[BotProcess]
    workers: list[BotProcess]

    @property
    def addresses(self) -> list[str]:
        lines = [line for web in self.webs for line in web.text().splitlines()]
        return [line.rpartition(" ")[2] for line in lines if "The page is at " in line]

    @property
    def address(self) -> str:
        return self.addresses[0]

    def used(self) -> tuple[float, float]:
        """Return the CPU seconds of the page's processes and of the workers."""
        webs, workers = (
            sum(figures.processor(one.process.pid) for one in some)
            for some in (self.webs, self.workers)
        )
        return webs, workers


async def main(options: argparse.Namespace) -> None:
    parts = options.parts or PARTS
    figures.allow_files(4 * max(options.idle, *options.pages))
    print(f"{figures.load()}\n")
    async with a_source() as source:
        async with a_scene(source) as scene:
            if "idle" in parts:
                await idle(scene, options.idle)
            if "fresh" in parts:
                await all_fresh(scene, options.pages)
            if "long" in parts:
                await long(scene)
            if "browser" in parts:
                pids = [one.process.pid for one in (*scene.webs, *scene.workers)]
                await speak_long(source)
                await browse("Parley", scene.address, source, pids)
                await speak_long(source, long_text(FORMULA))
                await browse("Parley with formulas", scene.address, source, pids)
        if "browser" in parts:
            await panel(options.panel, source)
        for webs, workers in MORE if "more" in parts else ():
            async with a_scene(source, webs=webs, workers=workers) as scene:
                print(f"{webs} servers, {workers} workers:", end=" ")
                await fresh(scene, max(options.pages), max(options.pages))
    if "search" in parts:
        print()
        await search.main(search.CONVERSATIONS, search.SIZE)
    print(f"\n{figures.load()}")


async def all_fresh(scene: Scene, counts: Sequence[int]) -> None:
    for count in counts:
        if count > MANY:
            await fresh(scene, count, MANY)
        await fresh(scene, count, count)


@asynccontextmanager
async def a_scene(source: Source, *, webs: int = 1, workers: int = 1) -> AsyncIterator[Scene]:
    with tempfile.TemporaryDirectory(prefix="parley-") as folder:
        async with connect(url="", data_dir=Path(folder)) as store:
            variables = {
                "REDIS_URL": store.url,
                "MODEL_URL": source.url,
                "MODEL_ID": "emulated",
                "MAX_TOKENS": "20000",
                "CONTEXT_TOKENS": "60000",
                "WEB_PORT": "0",
                "WEB_TITLES": "off",
                "LEASE_SECONDS": "15",
            }
            start = partial(bot, data_dir=Path(folder), variables=variables)
            jar = aiohttp.DummyCookieJar()
            connector = aiohttp.TCPConnector(limit=20)
            async with AsyncExitStack() as stack:
                enter = stack.enter_async_context
                session = await enter(aiohttp.ClientSession(cookie_jar=jar, connector=connector))
                roles = ["web"] * webs + ["worker"] * workers
                begun = [await enter(start(role)) for role in roles]
                for one in begun:
                    await until(partial(runs, one), why=one.text)
                yield Scene(session, source, begun[:webs], begun[webs:])


def runs(process: BotProcess) -> bool:
    return "Running as" in process.text()


async def idle(scene: Scene, count: int) -> None:
    """Print what so many pages take that show nothing new."""
    person, pid = await Person.come(scene.session, scene.address), scene.webs[0].process.pid
    alone, (before, _) = figures.resident(pid), scene.used()
    pages = await gathered([partial(person.open, new_talk()) for _ in range(count)])
    (opened, _), began = scene.used(), time.monotonic()
    await asyncio.sleep(IDLE_SECONDS)
    share = (scene.used()[0] - opened) / (time.monotonic() - began)
    print(f"{count} idle pages: {figures.resident(pid):.0f} MB ({alone:.0f} MB without),", end=" ")
    print(f"{share:.1%} of a core; {(opened - before) / count * 1e3:.1f} ms of CPU each to open\n")
    for page in pages:
        page.close()


async def fresh(scene: Scene, count: int, growing: int) -> None:
    """Print how late words are on so many pages, on some of which an answer grows."""
    await scene.source.speak(
        _PROSE * int(SPEED * SECONDS * LETTERS / len(_PROSE)) + "The end.",
        chunk=LETTERS,
        speed=SPEED,
        thinking=THINKING,
    )
    places = [scene.addresses[number % len(scene.webs)] for number in range(count)]
    people = await gathered([partial(Person.come, scene.session, one) for one in places])
    talks = [new_talk() for _ in people]
    pages = await gathered([partial(a.open, talk) for a, talk in zip(people, talks, strict=True)])
    await gathered([partial(people[n].ask, talks[n], f"question {n}") for n in range(growing)])
    # From the first words on, so that neither the asking nor the first prompts count.
    await asyncio.sleep(THINKING)
    before, began = scene.used(), time.monotonic()
    bares = await bare(scene.source.port, growing, seconds=SECONDS / 2)
    seconds, after = time.monotonic() - began, scene.used()
    await until(lambda: all(map(is_done, pages[:growing])), within=30)
    said = await scene.source.said()
    late = [one for n in range(growing) for one in delays(said[n], pages[n].lengths())]
    web, worker = (100 * (now - then) / seconds for now, then in zip(after, before, strict=True))
    print(f"{count} pages, {growing} growing: delta to page {in_ms(late)};", end=" ")
    print(f"bare socket {in_ms(bares)}; web {web:.0f} %, worker {worker:.0f} % of a core,", end=" ")
    writes = statistics.mean(len(page.lengths()) for page in pages[:growing]) / SECONDS
    print(f"{writes:.1f} events a second on each; {figures.load()}")
    for page in pages:
        page.close()


async def long(scene: Scene) -> None:
    """Print what a long answer costs on many pages."""
    await speak_long(scene.source)
    person, talk = await Person.come(scene.session, scene.address), new_talk()
    pages = await gathered([partial(person.open, talk)] * LONG_PAGES)
    before, sizes = scene.used(), sum(page.size() for page in pages)
    await person.ask(talk, "question 0")
    said = await scene.source.ended(0)
    await until(lambda: all(map(is_done, pages)), within=30)
    seconds = said[-1][0] - said[0][0]
    web, worker = (now - then for now, then in zip(scene.used(), before, strict=True))
    sent, each = sum(page.size() for page in pages) - sizes, LONG_PAGES * seconds
    print(f"{said[-1][1]} characters in {seconds:.0f} s on {LONG_PAGES} pages:", end=" ")
    print(f"web {web / each * 1e3:.2f} ms of CPU a page and second, worker", end=" ")
    print(f"{worker / seconds * 1e3:.0f} ms a second;", end=" ")
    print(
        f"{sent / each / 1000:.1f} kB a page and second, {sent / LONG_PAGES / 1000:.0f} kB in all"
    )
    for page in pages:
        page.close()


async def panel(python: str | None, source: Source) -> None:
    if python is None:
        print("Panel is left out: give --panel a Python that has panel and panel-material-ui.")
        return
    async with by_panel(python, source.url) as (address, pid):
        await browse("Panel", address, source, [pid])


async def speak_long(source: Source, text: str = "") -> None:
    text = text or long_text()
    await source.speak(text, chunk=LONG_CHUNK, speed=LONG_SPEED, thinking=THINKING)


def long_text(formula: str = "") -> str:
    """Return Markdown as models write it, with a formula of its own in each paragraph."""
    part = (
        f"## A river\n\n{_PROSE * 4}{formula}\n\n- **one** thing\n- `another` one\n\n"
        "```python\nfor mill in river:\n    print(mill, 1 < 2)\n```\n\n"
    )
    parts = [part.replace("NUMBER", str(number)) for number in range(LONG // len(part))]
    return "".join(parts) + END


def is_done(page: RawPage) -> bool:
    return page.has(b'"state": "done"')


def in_ms(values: Sequence[float]) -> str:
    if not values:
        return "-"
    middle, late = statistics.median(values), percentile(values, 0.99)
    return f"{middle * 1e3:.1f} / {late * 1e3:.1f} ms"


async def gathered(jobs: Iterable[Callable[[], Awaitable[T]]]) -> list[T]:
    """Run jobs, some at once, and return what they return."""
    places = asyncio.Semaphore(AT_ONCE)

    async def one(job: Callable[[], Awaitable[T]]) -> T:
        async with places:
            return await job()

    return list(await asyncio.gather(*map(one, jobs)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], metavar="PART")
    parser.add_argument("--pages", nargs="+", type=int, default=[1, 20, 200])
    parser.add_argument("--idle", type=int, default=1000)
    parser.add_argument("--panel", metavar="PYTHON")
    uvloop.run(main(parser.parse_args()))
