"""A chat page in Chromium, ours or another: what it takes to open, and while an answer grows."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from playwright.async_api import Browser, CDPSession, Page
from playwright.async_api import TimeoutError as TooLate

from bench import figures
from bench.source import Source
from tests.support.chromium import WIDE, missing, started
from tests.support.ports import free_port
from tests.support.process import ROOT

END = "The very end."
_SETTLED = 1.5  # seconds in which the rest comes that a page asks for when it can be used
_PATIENCE = 45_000  # milliseconds behind the model, after which the end is waited for no more
# Notes the longest time between two frames, and each task of more than 50 ms.
_WATCH = """() => {
  window.watched = {frame: 0, tasks: 0, longest: 0};
  let last = performance.now();
  const tick = (now) => {
    window.watched.frame = Math.max(window.watched.frame, now - last);
    last = now;
    requestAnimationFrame(tick);
  };
  requestAnimationFrame(tick);
  new PerformanceObserver((list) => {
    for (const one of list.getEntries()) {
      window.watched.tasks += 1;
      window.watched.longest = Math.max(window.watched.longest, one.duration);
    }
  }).observe({entryTypes: ["longtask"]});
}"""
_PAINTED = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? null"


@dataclass
class Traffic:
    """What a page has asked for, and the bytes that came, those of WebSockets included."""

    session: CDPSession
    requests: int = 0
    framed: int = 0
    sizes: dict[str, int] = field(default_factory=dict)  # by request

    @property
    def received(self) -> int:
        return self.framed + sum(self.sizes.values())

    @classmethod
    async def of(cls, page: Page) -> Traffic:
        one = cls(await page.context.new_cdp_session(page))
        await one.session.send("Network.enable")
        await one.session.send("Performance.enable")
        one.session.on("Network.requestWillBeSent", one._asked)
        one.session.on("Network.webSocketCreated", one._asked)
        one.session.on("Network.dataReceived", one._got)
        one.session.on("Network.loadingFinished", one._ended)
        one.session.on("Network.webSocketFrameReceived", one._framed)
        return one

    def _asked(self, _: object) -> None:
        self.requests += 1

    def _got(self, told: dict[str, Any]) -> None:
        name = told["requestId"]
        self.sizes[name] = self.sizes.get(name, 0) + told["dataLength"]

    def _ended(self, told: dict[str, Any]) -> None:
        # As it travelled, packed and with its head; of what has not ended, only the data are known.
        self.sizes[told["requestId"]] = int(told["encodedDataLength"])

    def _framed(self, told: dict[str, Any]) -> None:
        self.framed += len(told["response"]["payloadData"])

    async def busy(self) -> float:
        """Return the seconds for which the page's main thread has worked."""
        told = await self.session.send("Performance.getMetrics")
        metrics = {one["name"]: float(one["value"]) for one in told["metrics"]}
        return metrics["TaskDuration"]


async def browse(name: str, address: str, source: Source, pids: Sequence[int]) -> None:
    """Print what opening the page at an address takes, and an answer that grows on it.

    `source` has been told the answer, which ends with END; `pids` are the processes behind it.
    """
    if why := missing():
        print(f"The browser is left out: {why}")
        return
    async with started() as chromium:
        # The first page of a browser pays for the browser's own start.
        await (await chromium.new_page()).goto(address)
        page = await _opened(chromium, name, address)
        await _grown(page, name, source, pids)


async def _opened(chromium: Browser, name: str, address: str) -> Page:
    """Open the page as one who was never there, nothing of it being kept."""
    page = await chromium.new_page(viewport={"width": WIDE["width"], "height": WIDE["height"]})
    traffic, began = await Traffic.of(page), time.monotonic()
    await page.goto(address, wait_until="commit")
    await page.locator("textarea").first.wait_for()
    usable = time.monotonic() - began
    await asyncio.sleep(_SETTLED)
    painted = await page.evaluate(_PAINTED)
    print(f"\n{name}, opened: first paint {painted:.0f} ms, usable {usable * 1e3:.0f} ms,", end=" ")
    print(f"{traffic.requests} requests, {traffic.received / 1000:.0f} kB")
    return page


async def _grown(page: Page, name: str, source: Source, pids: Sequence[int]) -> None:
    traffic, box = await Traffic.of(page), page.locator("textarea").first
    await page.evaluate(_WATCH)
    used, busy = sum(map(figures.processor, pids)), await traffic.busy()
    await box.fill(f"{name} asks question 7")
    await box.press("Enter")
    said = await source.ended(7)
    whole = True
    try:
        await page.get_by_text(END).first.wait_for(timeout=_PATIENCE)
    except TooLate:
        whole = False
    seconds, behind = said[-1][0] - said[0][0], time.monotonic() - said[-1][0]
    used, busy = sum(map(figures.processor, pids)) - used, await traffic.busy() - busy
    seen = await page.evaluate("window.watched")
    print(f"{name}, {said[-1][1]} characters in {seconds:.0f} s:", end=" ")
    print(f"end {'' if whole else 'not '}shown {behind:.1f} s behind the model;", end=" ")
    print(f"longest frame {seen['frame']:.0f} ms, {seen['tasks']} long tasks,", end=" ")
    print(f"the longest {seen['longest']:.0f} ms; main thread busy {busy:.1f} s;", end=" ")
    print(f"CPU of the processes behind it {used:.1f} s;", end=" ")
    print(f"{traffic.requests} requests, {traffic.received / 1000:.0f} kB")


@asynccontextmanager
async def by_panel(python: str, model_url: str) -> AsyncIterator[tuple[str, int]]:
    """Run the example for Panel; yield its address and its process."""
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        *(python, "-m", "panel", "serve", "examples/panel_chat.py"),
        *("--port", str(port), "--address", "127.0.0.1"),
        cwd=ROOT,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "MODEL_URL": model_url,
            "MODEL_ID": "emulated",
            "MAX_TOKENS": "20000",
            "CONTEXT_TOKENS": "60000",
        },
        stderr=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
    )
    address = f"http://127.0.0.1:{port}/panel_chat"
    try:
        async with asyncio.timeout(60), aiohttp.ClientSession() as session:
            while not await _answers(session, address):
                await asyncio.sleep(0.2)
        yield address, process.pid
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


async def _answers(session: aiohttp.ClientSession, address: str) -> bool:
    with suppress(aiohttp.ClientError):
        async with session.get(address) as response:
            return response.status == 200
    return False
