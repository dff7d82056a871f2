"""What the tests of the page share: one Chromium, and one service for the tests of a module."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser

from bot.store import Store, connect
from tests.emulators.model import ModelEmulator
from tests.support.chromium import Site, Window, missing, started, window
from tests.support.service import serving
from tests.support.web_page import address_of, web_variables

OwnPage = Callable[..., AbstractAsyncContextManager[Window]]


@pytest.fixture(scope="session")
async def chromium(anyio_backend: str) -> AsyncIterator[Browser]:
    """A headless Chromium for all tests of the process."""
    if reason := missing():
        pytest.skip(reason)
    async with started() as browser:
        yield browser


@pytest.fixture(scope="module")
async def site(chromium: Browser, embedded_url: str) -> AsyncIterator[Site]:
    """A service with the page and a worker; each window is one of a new person."""
    async with (
        connect(url=f"{embedded_url}?db=2", data_dir=Path()) as store,
        ModelEmulator() as model,
        serving(store, "web", "worker", variables=web_variables(model)) as service,
    ):
        yield Site(chromium, address_of(service), model)
        await store.redis.flushdb()


@pytest.fixture
def own_page(chromium: Browser, own_store: Store, model: ModelEmulator) -> OwnPage:
    """Open a window at a service with these variables, for the test alone."""

    @asynccontextmanager
    async def opened(headers: Any = None, **variables: str) -> AsyncIterator[Window]:
        chosen = web_variables(model, **variables)
        async with (
            serving(own_store, "web", "worker", variables=chosen) as service,
            window(chromium, address_of(service), extra_http_headers=headers) as one,
        ):
            yield one

    return opened
