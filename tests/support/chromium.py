"""The page in a real, headless Chromium, as a person uses it."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from playwright.async_api import Browser, ConsoleMessage, Locator, Page, async_playwright, expect

from tests.emulators.model import ModelEmulator, Script

# The first is made for this: it draws no window, and takes half the time of the others.
_NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
WIDE = {"width": 1280, "height": 800}
PHONE = {"width": 390, "height": 844}

_SAYS = "text => document.querySelector('.turn:last-child .text')?.innerText.includes(text)"
_DRAWN = "() => new Promise((drawn) => requestAnimationFrame(() => drawn(true)))"
_ENDED = "state => document.querySelector('.turn:last-child')?.dataset.state === state"

# For a busy machine: they end a test that hangs and measure nothing.
expect.set_options(timeout=30_000)


def gated(*parts: str) -> tuple[list[asyncio.Event], Script]:
    """Return an answer that says each part when its event is set, and never ends by itself."""
    gates = [asyncio.Event() for _ in parts]
    return gates, [*zip(gates, parts, strict=True), (asyncio.Event(), "never")]


def missing() -> str:
    """Return why there is no Chromium; empty if there is one."""
    return "" if _binary() else "Chromium is missing: apt install chromium-headless-shell"


def _binary() -> str:
    return next(filter(None, map(shutil.which, _NAMES)), "")


@asynccontextmanager
async def started() -> AsyncIterator[Browser]:
    # Chromium's sandbox does not work for root.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=_binary(), args=arguments)
        yield browser
        await browser.close()


class Window:
    """An open page: what stands in it, and what it has asked of whom."""

    def __init__(self, page: Page, address: str) -> None:
        self.page = page
        self.address = address
        self.errors: list[str] = []
        self.hosts: set[str] = set()
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", self._heard)
        page.on("request", lambda request: self.hosts.add(urlsplit(request.url).netloc))

    def _heard(self, message: ConsoleMessage) -> None:
        # A request that fails is told in the page; everything else is a mistake of ours.
        if message.type == "error" and "Failed to load resource" not in message.text:
            self.errors.append(message.text)

    @property
    def box(self) -> Locator:
        return self.page.locator("#box")

    @property
    def turns(self) -> Locator:
        return self.page.locator(".turn")

    @property
    def answer(self) -> Locator:
        """The last answer's text."""
        return self.page.locator(".turn:last-child .text")

    @property
    def conversations(self) -> Locator:
        return self.page.locator("#conversations li")

    def button(self, name: str) -> Locator:
        return self.page.get_by_role("button", name=name, exact=True).locator("visible=true").last

    async def open(self, path: str = "/") -> None:
        await self.page.goto(self.address + path)

    async def ask(self, text: str) -> None:
        await self.box.fill(text)
        await self.box.press("Enter")
        # Until the next frame is drawn, the answer before is the last one.
        await self.page.wait_for_function(_DRAWN)

    async def ended(self, state: str = "done") -> None:
        """Wait until the last answer has ended so."""
        await self.page.wait_for_function(_ENDED, arg=state)

    async def says(self, text: str) -> None:
        """Wait until the last answer has this text, looking at each frame."""
        await self.page.wait_for_function(_SAYS, arg=text)

    async def read(self, script: str, argument: object = None) -> Any:
        return await self.page.evaluate(script, argument)


@asynccontextmanager
async def window(chromium: Browser, address: str, **context: Any) -> AsyncIterator[Window]:
    """A window of a new person. It must have asked nobody but the server, without an error."""
    async with AsyncExitStack() as stack:
        profile = await chromium.new_context(**{"viewport": WIDE, **context})
        stack.push_async_callback(profile.close)
        profile.set_default_timeout(30_000)
        one = Window(await profile.new_page(), address)
        yield one
        assert one.errors == []
        assert one.hosts <= {urlsplit(address).netloc}


@dataclass(frozen=True, slots=True)
class Site:
    """A running service, the model behind it, and a browser for its page."""

    chromium: Browser
    address: str
    model: ModelEmulator

    @asynccontextmanager
    async def window(
        self, answer: str = "Well.", *, delay: float = 0.0, **context: Any
    ) -> AsyncIterator[Window]:
        """A new person's window; the model says `answer`, in pieces `delay` seconds apart."""
        self.model.answer, self.model.delay = answer, delay
        async with window(self.chromium, self.address, **context) as one:
            await one.open()
            yield one
