"""What every test may ask for."""

from __future__ import annotations

import gc
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import settings

from bot.store import Store, connect
from tests.emulators.model import ModelEmulator
from tests.support.fakes import RefusingStore
from tests.support.synapse import Synapse, running_synapse

NO_DATA = Path("no such folder")  # of a server that runs already
# How long an example takes says nothing where several tests run at once. PARLEY_EXAMPLES=1000 makes
# a long run of the tests with generated examples.
EXAMPLES = int(os.environ.get("PARLEY_EXAMPLES", "30"))
settings.register_profile("parley", deadline=None, max_examples=EXAMPLES)
settings.load_profile("parley")


# The import and collection of all tests leave no garbage, and to look for it takes a third of their
# time.
gc.disable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # The longest test begins first, or in the end all would wait for it.
    items.sort(key=lambda item: "chaos" not in item.path.parts)


def pytest_collection_finish() -> None:
    gc.freeze()
    # Looked for as often as usual, the little garbage of tests takes a twentieth of their time.
    gc.set_threshold(50_000, 20, 100)
    gc.enable()


def pytest_xdist_auto_num_workers() -> int:
    """Two workers more than there are cores: many tests wait, and a slow machine needs its time."""
    return (os.cpu_count() or 1) + 2


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """The event loop of `bot run`."""
    return "asyncio", {"use_uvloop": sys.platform != "win32"}


@pytest.fixture(scope="session")
async def embedded_url(anyio_backend: object) -> AsyncIterator[str]:
    """The address of one embedded server for all tests; it does not wait for the disk."""
    # pytest's own temporary paths are too long for a socket.
    with tempfile.TemporaryDirectory(prefix="parley-") as data_dir:
        async with connect(url="", data_dir=Path(data_dir)) as store:
            # Nor does it end a read, that waits in vain, at the next tenth of a second only.
            await store.redis.config_set("appendfsync", "no", "hz", 100)
            yield store.url


@pytest.fixture(scope="session")
def valkey_url(request: pytest.FixtureRequest) -> str:
    """The address of the server in TEST_REDIS_URL, or of the embedded one."""
    return os.environ.get("TEST_REDIS_URL") or str(request.getfixturevalue("embedded_url"))


@pytest.fixture
async def store(valkey_url: str) -> AsyncIterator[Store]:
    """A connection whose keys no other test sees."""
    prefix = f"test-{uuid4().hex}"
    async with connect(url=valkey_url, data_dir=NO_DATA, prefix=prefix) as real:
        store = RefusingStore(client=real.redis, url=real.url, prefix=prefix)
        # Many tests look at all keys; tests/test_store.py tests this one.
        await store.command("DEL", store.key("format"))
        yield store
        await store.close()


@pytest.fixture
async def own_store(embedded_url: str) -> AsyncIterator[Store]:
    """An empty database of the embedded server, with the key names of a real process."""
    async with connect(url=f"{embedded_url}?db=1", data_dir=NO_DATA) as store:
        await store.redis.flushdb()
        yield store


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """A folder for a process of the bot, or for a store of its own."""
    # pytest's own temporary paths are too long for a socket.
    with tempfile.TemporaryDirectory(prefix="parley-") as folder:
        yield Path(folder)


@pytest.fixture
async def model() -> AsyncIterator[ModelEmulator]:
    """An emulated model server."""
    async with ModelEmulator() as emulator:
        yield emulator


@pytest.fixture(scope="session")
async def synapse(anyio_backend: object) -> AsyncIterator[Synapse]:
    """One homeserver for all tests; skipped if Synapse is not installed."""
    with tempfile.TemporaryDirectory(prefix="parley-") as folder:
        async with running_synapse(Path(folder)) as running:
            yield running
