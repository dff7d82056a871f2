"""What the tests of the page share: one Chromium."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Browser

from tests.support.chromium import missing, started


@pytest.fixture(scope="session")
async def chromium(anyio_backend: str) -> AsyncIterator[Browser]:
    """A headless Chromium for all tests of the process."""
    if reason := missing():
        pytest.skip(reason)
    async with started() as browser:
        yield browser
