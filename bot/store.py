"""The connection to Redis."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff
from redis.maint_notifications import MaintNotificationsConfig

from bot import embedded_store
from bot.concurrency import cancelled
from bot.errors import CannotStart, StoreUnavailable
from config.settings import shown_url

# Longer than any blocking read, which lasts two seconds at most: only a server that hangs needs it.
COMMAND_SECONDS = 3.0
CONNECT_SECONDS = 1.0
PING_SECONDS = 1.0
PING_PAUSE = 0.5  # seconds before each ping of a store that is away
# Between two lines that tell of it: one that answers pings and refuses writes is away all the time.
TOLD_SECONDS = 60.0
# A refused or broken connection is tried three times: an embedded server that changes hands (0.1 s)
# goes unnoticed, and a dead one is told within 1.2 s even where redis-py nests its retries.
RETRIES = 2
RETRY_SECONDS = 0.15
CONNECTIONS = 100
_BESIDE = 10  # of these, for subscriptions
# For which a key of another type is kept where nobody reads it.
UNREADABLE_SECONDS = 7 * 24 * 3600
_UNREADABLE = ":unreadable"

# The type of the keys that a command reads or writes, by its first letter.
_TYPES = {"G": "string", "H": "hash", "L": "list", "X": "stream", "Z": "zset"}

# What stands around a script. An error would leave it half done, so `redis.call` in it moves a key
# of another type away and goes on without it. Returns the script's own answer and the moved keys.
_SCRIPT = """
local server, moved = redis, {}
local redis = setmetatable({}, {__index = server})
function redis.call(...)
  local answer = server.pcall(...)
  if type(answer) ~= 'table' or not answer.err then return answer end
  if not string.find(answer.err, '^WRONGTYPE') then error(answer) end
  local name = select(2, ...)
  server.call('RENAME', name, name .. '%(unreadable)s')
  server.call('EXPIRE', name .. '%(unreadable)s', %(seconds)d)
  table.insert(moved, name)
  return server.call(...)
end
local function run()
%(source)s
end
return {run() or false, moved}
"""

log = logging.getLogger(__name__)


class _Client(redis.asyncio.Redis):
    """A client whose commands end in time, and get a connection in the order in which they came.

    redis-py's own `socket_timeout` writes through `asyncio.wait_for`, and that loses a cancellation
    up to Python 3.11: a task that is cancelled in a command would go on. Its pool gives a free
    connection to a newcomer before those who wait: with a thousand tasks at work some waited for
    seconds (redis-py 8.1, run).
    """

    def __init__(self, **chosen: Any) -> None:
        super().__init__(**chosen)
        self._places = asyncio.Semaphore(CONNECTIONS - _BESIDE)

    async def execute_command(self, *words: Any, **options: Any) -> Any:
        """Send a command and return its answer; TimeoutError when it takes too long."""
        async with asyncio.timeout(COMMAND_SECONDS), self._places:
            return await super().execute_command(*words, **options)  # type: ignore[no-untyped-call]


class Script(Protocol):
    """A Lua script in the store; raises StoreUnavailable."""

    async def __call__(self, *, keys: Sequence[str], args: Sequence[str | int | float]) -> Any:
        """Run it and return what redis-py makes of its answer."""
        ...


class Store:
    """One pool of connections for the process; `url` is where the server really is.

    A key that has another type than a command or a script expects, because another version wrote
    it, is moved away, and the work goes on without it.
    A command of `redis` ends within three seconds, so blocking reads may last two; pipelines and
    subscriptions have no such end. After a broken connection a command is sent again, so that it
    may run twice.
    """

    def __init__(self, *, client: redis.asyncio.Redis, url: str, prefix: str) -> None:
        self.redis = client
        self.url = url
        self._prefix = prefix
        self._returning: asyncio.Task[None] | None = None
        self._tell_at = 0.0  # by the loop's clock

    @property
    def is_away(self) -> bool:
        """Whether somebody noted that it does not answer, and no ping has got through since.

        Who can do without the store looks here first: one that hangs takes seconds to say so.
        """
        return self._returning is not None

    def key(self, *parts: str) -> str:
        """Return the name of a key; all carry one hash tag, so that a script may use several."""
        return ":".join((self._prefix, "{0}", *parts))

    async def command(self, *words: str | int | float) -> Any:
        """Send one command and return what redis-py makes of its answer; StoreUnavailable."""
        with store_errors():
            try:
                return await self._send(*words)
            except redis.ResponseError as error:
                if not str(error).startswith("WRONGTYPE"):
                    raise
            await self._move_away(*words)
            return await self._send(*words)

    def script(self, source: str) -> Script:
        """Return what runs a script, which has the keys of one hash tag only."""
        words = {"unreadable": _UNREADABLE, "seconds": UNREADABLE_SECONDS, "source": source}
        registered = self.redis.register_script(_SCRIPT % words)

        async def run(*, keys: Sequence[str], args: Sequence[str | int | float]) -> Any:
            with store_errors():
                answer, moved = await registered(keys=keys, args=args)
            for key in moved:
                _tell_of_moved(key)
            return answer

        return run

    async def ping(self) -> None:
        """Return when the store answered; StoreUnavailable when it did not within a second."""
        with store_errors():
            async with asyncio.timeout(PING_SECONDS):
                await self.redis.ping()

    def note_away(self, error: StoreUnavailable) -> None:
        """Have the store taken for away; one ping after the other finds out when it is back."""
        if self._returning is None:
            self._tell_of(error)
            self._returning = asyncio.create_task(self._await_return())

    async def close(self) -> None:
        """End the pings."""
        if self._returning:
            await cancelled(self._returning)

    # redis-py 8.1 leaves `execute_command`, and nothing else, without types.
    async def _send(self, *words: str | int | float) -> Any:
        return await self.redis.execute_command(*words)  # type: ignore[no-untyped-call]

    async def _move_away(self, command: str | int | float, *words: str | int | float) -> None:
        expected = _TYPES[str(command)[0]]
        for word in words:
            key = str(word)
            if key.startswith(self.key("")) and await self._send("TYPE", key) != expected:
                # It may be that it is gone by now, or was never there.
                with contextlib.suppress(redis.ResponseError):
                    await self._send("RENAME", key, key + _UNREADABLE)
                    await self._send("EXPIRE", key + _UNREADABLE, UNREADABLE_SECONDS)
                    _tell_of_moved(key)

    def _tell_of(self, error: StoreUnavailable) -> None:
        now = asyncio.get_running_loop().time()
        if now >= self._tell_at:
            self._tell_at = now + TOLD_SECONDS
            log.warning("Answers go on without the store: %s", error)

    async def _await_return(self) -> None:
        try:
            while True:
                await asyncio.sleep(PING_PAUSE)
                with contextlib.suppress(StoreUnavailable):
                    return await self.ping()
        finally:
            self._returning = None


def _tell_of_moved(key: str) -> None:
    log.warning("Key %s has an unknown type and was moved to %s", key, key + _UNREADABLE)


@contextlib.contextmanager
def store_errors() -> Iterator[None]:
    """Raise StoreUnavailable for whatever redis-py and the network raise in the block."""
    try:
        yield
    except redis.ResponseError as error:
        raise StoreUnavailable(f"the store refuses a command: {error}") from error
    except (redis.RedisError, OSError) as error:
        detail = str(error) or "it does not answer in time"
        raise StoreUnavailable(
            f"the store cannot be reached (at REDIS_URL, or see DATA_DIR/store): {detail}"
        ) from error


@contextlib.asynccontextmanager
async def connect(*, url: str, data_dir: Path, prefix: str = "parley") -> AsyncIterator[Store]:
    """Connect to the server at `url`, or to the embedded one of `data_dir` when it is empty.

    CannotStart when there is none that can be used. The embedded server is shared by all processes
    of a `data_dir`; when it ends, whoever is left starts it again.
    """
    if not url:
        async with (
            embedded_store.serve(data_dir) as own_url,
            _client(own_url) as client,
            _store(client, url=own_url, prefix=prefix) as store,
        ):
            yield store
        return
    try:
        opened = _client(url)
    except ValueError as error:
        raise CannotStart(f"REDIS_URL='{shown_url(url)}' is not an address: {error}") from error
    async with opened as client:
        await _check_version(client, url)
        await _warn_of_loss(client, url)
        async with _store(client, url=url, prefix=prefix) as store:
            yield store


@contextlib.asynccontextmanager
async def _store(client: redis.asyncio.Redis, *, url: str, prefix: str) -> AsyncIterator[Store]:
    store = Store(client=client, url=url, prefix=prefix)
    try:
        yield store
    finally:
        await store.close()


def _client(url: str) -> redis.asyncio.Redis:
    pool = redis.asyncio.BlockingConnectionPool.from_url(
        url,
        decode_responses=True,
        # A value that is no text fails where it is read as a record, and not the whole command.
        encoding_errors="replace",
        max_connections=CONNECTIONS,
        timeout=CONNECT_SECONDS,
        socket_timeout=None,
        socket_connect_timeout=CONNECT_SECONDS,
        retry=Retry(ConstantBackoff(RETRY_SECONDS), RETRIES, (redis.ConnectionError,)),
        # They cost a round trip for each connection and only Redis Enterprise sends them.
        maint_notifications_config=MaintNotificationsConfig(enabled=False),
    )
    return _Client.from_pool(pool)


async def _check_version(client: redis.asyncio.Redis, url: str) -> None:
    try:
        info = await client.info("server")
    except redis.exceptions.NoPermissionError:
        return
    # ValueError is what the ssl module says of some values of the address's options.
    except (redis.RedisError, OSError, ValueError) as error:
        raise CannotStart(f"REDIS_URL='{shown_url(url)}' cannot be used: {error}") from error
    # Valkey tells an old Redis version besides its own, for the sake of old clients.
    name, oldest = ("Valkey", 8) if "valkey_version" in info else ("Redis", 7)
    version = str(info.get(f"{name.lower()}_version", ""))
    if version.partition(".")[0].isdecimal() and int(version.partition(".")[0]) < oldest:
        raise CannotStart(
            f"REDIS_URL='{shown_url(url)}' is {name} {version}; "
            f"Parley needs {name} {oldest} or newer"
        )


async def _warn_of_loss(client: redis.asyncio.Redis, url: str) -> None:
    try:
        chosen = await client.config_get("appendonly", "save", "maxmemory-policy")
    except (redis.RedisError, OSError):
        return  # many hosted servers forbid CONFIG
    faults = []
    if chosen.get("appendonly") == "no" and chosen.get("save") == "":
        faults.append("keeps nothing on disk (set appendonly yes)")
    if chosen.get("maxmemory-policy", "noeviction") != "noeviction":
        faults.append("drops keys when memory is short (set maxmemory-policy noeviction)")
    if faults:
        log.warning("The store %s %s: turns can be lost", shown_url(url), " and ".join(faults))
