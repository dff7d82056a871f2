"""An open page and the browser around it, without the drawing: HTTP and server-sent events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import aiohttp

from bot.concurrency import running
from bot.store import Store
from tests.emulators.model import ModelEmulator
from tests.support.process import model_variables
from tests.support.service import Service, serving
from tests.support.waiting import until

WRITES = {"X-Parley": "1"}


def web_variables(model: ModelEmulator | None = None, **others: str) -> dict[str, str]:
    """Return the variables of a process with the page."""
    # A title is one more request, at a time of its own.
    quiet = {"WEB_PORT": "0", "WEB_TITLES": "off"}
    return {**quiet, **(model_variables(model) if model else {}), **others}


def address_of(service: Service) -> str:
    """Return where a service serves the page."""
    lines = [line for line in service.text().splitlines() if line.startswith("The page is at ")]
    return lines[-1].removeprefix("The page is at ")


class Screen:
    """What one page shows, put together of the events as the page does it."""

    def __init__(self) -> None:
        self.title = ""
        self.known = False
        self.gone = False
        self.states = 0  # how often the whole state has come
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.turns: dict[str, dict[str, Any]] = {}

    def take(self, name: str, data: dict[str, Any]) -> None:
        self.events.append((name, data))
        if name == "state":
            self.states += 1
            self.title, self.known = data["title"], data["known"]
            self.turns = {one["id"]: dict(one) for one in data["turns"]}
        elif name == "turn":
            turn = self.turns.setdefault(data["id"], {"answer": ""})
            units = turn["answer"].encode("utf-16-le")[: 2 * data["keep"]]
            turn |= {key: value for key, value in data.items() if key not in ("keep", "add")}
            turn["answer"] = units.decode("utf-16-le") + data["add"]
        elif name == "gone":
            self.gone = True

    def turn(self, name: str) -> dict[str, Any]:
        return self.turns.get(name, {"answer": "", "state": ""})

    def answer(self, name: str) -> str:
        return str(self.turn(name)["answer"])

    def is_done(self, name: str) -> bool:
        return self.turn(name)["state"] not in ("", "waiting", "running")

    def __str__(self) -> str:
        return json.dumps(self.turns, indent=1)


class Browser:
    """A browser of one person: its cookies, and requests as the page makes them."""

    def __init__(self, session: aiohttp.ClientSession, address: str) -> None:
        self.session = session
        self.address = address

    async def get(self, path: str, **headers: str) -> tuple[int, Any]:
        async with self.session.get(self.address + path, headers=headers) as response:
            is_json = response.content_type == "application/json"
            return response.status, await (response.json() if is_json else response.text())

    async def send(
        self, method: str, path: str, body: object = None, headers: dict[str, str] | None = None
    ) -> tuple[int, Any]:
        async with self.session.request(
            method,
            self.address + path,
            json=body,
            headers=WRITES if headers is None else headers,
            allow_redirects=False,
        ) as response:
            return response.status, await response.json()

    async def ask(self, talk: str, text: str, name: str = "") -> str:
        """Ask as a page does, until the question is through; return its id."""
        name = name or str(uuid4())
        path = f"/api/conversations/{talk}/questions"
        status, answer = await self.send("POST", path, {"id": name, "text": text})
        assert status == 202, answer
        return name

    async def answered(self, talk: str, text: str, name: str = "") -> Screen:
        """Ask at a page of its own, and return what that shows in the end."""
        async with self.page(talk) as screen:
            name = await self.ask(talk, text, name)
            await until(lambda: screen.is_done(name), why=screen.__str__)
        return screen

    async def press(self, talk: str, turn: str, verb: str, **body: Any) -> tuple[int, Any]:
        return await self.send("POST", f"/api/conversations/{talk}/turns/{turn}/{verb}", body)

    @asynccontextmanager
    async def page(self, talk: str) -> AsyncIterator[Screen]:
        """Open a page, which connects again whenever its connection ends."""
        screen = Screen()
        async with running(self._follow(talk, screen)) as following:
            await until(lambda: screen.states or following.done(), why=screen.__str__)
            if following.done():
                await following
            yield screen

    async def _follow(self, talk: str, screen: Screen) -> None:
        while not screen.gone:
            try:
                await self._read(talk, screen)
            except (aiohttp.ClientError, OSError):
                await asyncio.sleep(0.02)

    async def _read(self, talk: str, screen: Screen) -> None:
        url = f"{self.address}/api/conversations/{talk}/events"
        timeout = aiohttp.ClientTimeout(total=None, sock_read=60)
        async with self.session.get(url, timeout=timeout) as response:
            if response.status >= 500:
                raise aiohttp.ClientConnectionError
            assert response.status == 200, await response.text()
            name = ""
            async for line in response.content:
                word, _, value = line.decode().rstrip("\n").partition(": ")
                if word == "event":
                    name = value
                elif word == "data":
                    screen.take(name, json.loads(value))


@asynccontextmanager
async def browser(address: str, *, enters: bool = True) -> AsyncIterator[Browser]:
    """A browser of a new person, which has opened the page unless it `enters` later."""
    jar = aiohttp.CookieJar(unsafe=True)
    timeout = aiohttp.ClientTimeout(total=60)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(
        cookie_jar=jar, timeout=timeout, connector=connector
    ) as session:
        one = Browser(session, address)
        if enters:
            status, _ = await one.get("/api/me")
            assert status == 200
        yield one


def new_talk() -> str:
    return str(uuid4())


@asynccontextmanager
async def page_of(
    store: Store, model: ModelEmulator, **variables: str
) -> AsyncIterator[tuple[Browser, Service]]:
    """A browser at a service with the page and a worker."""
    async with (
        serving(store, "web", "worker", variables=web_variables(model, **variables)) as service,
        browser(address_of(service)) as one,
    ):
        yield one, service
