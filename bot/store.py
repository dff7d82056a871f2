"""The connection to Redis."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import redis.asyncio
from prometheus_client import Histogram
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import MasterNotFoundError, Sentinel, SentinelConnectionPool
from redis.backoff import ConstantBackoff, NoBackoff
from redis.driver_info import DriverInfo
from redis.maint_notifications import MaintNotificationsConfig

from bot import embedded_store
from bot.concurrency import cancelled
from bot.domain import Finding
from bot.errors import CannotStart, StoreUnavailable, TooFewReplicas
from config.variables import SENTINELS, each_server

# Longer than any blocking read, which lasts two seconds at most.
COMMAND_SECONDS = 3.0
CONNECT_SECONDS = 3.0
PING_SECONDS = 1.0
PING_PAUSE = 0.5  # seconds before each ping of an unavailable store
# Seconds between two warnings: a store that answers pings may refuse writes repeatedly.
WARN_SECONDS = 60.0
# A refused or broken connection is tried three times: the restart of an embedded server (0.1 s)
# goes unnoticed, and a dead server is reported within 1.2 s even if redis-py nests its retries.
RETRIES = 2
_FULL = 0.95  # of the server's memory
RETRY_SECONDS = 0.15
CONNECTIONS = 100
_SUBSCRIPTIONS = 10  # connections among these
_NAMES_AT_ONCE = 200  # few enough that neither the store nor this process stands still
FORMAT = "2"  # of the keys and records in a store
REPLICA_SECONDS = 1.0  # for which a write waits for replicas
SENTINEL_PORT = 26379
SENTINEL_SECONDS = 0.5  # for one Sentinel: of three, two may hang
_SILENT = "it does not answer in time"  # what an error without words says

log = logging.getLogger(__name__)

_SECONDS = Histogram(
    "parley_store_seconds",
    "How long the store took to answer a script, with the wait for a connection",
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 3),
)


class _Client(redis.asyncio.Redis):
    """A client whose commands time out and get connections in their order.

    redis-py's own `socket_timeout` uses `asyncio.wait_for`, which can lose a cancellation up to
    Python 3.11: a task that is cancelled in a command would continue. Its pool gives a free
    connection to a new command before those that wait: with a thousand tasks some waited for
    seconds (redis-py 8.1, run).
    """

    def __init__(self, **chosen: Any) -> None:
        super().__init__(**chosen)
        self._slots = asyncio.Semaphore(CONNECTIONS - _SUBSCRIPTIONS)

    async def execute_command(self, *words: Any, **options: Any) -> Any:
        """Send a command and return its answer; raises TimeoutError."""
        try:
            async with asyncio.timeout(COMMAND_SECONDS), self._slots:
                # redis-py 8.1 leaves `execute_command`, and nothing else, without types.
                return await super().execute_command(*words, **options)  # type: ignore[no-untyped-call]
        except redis.ReadOnlyError:
            await _leave(self)
            raise


class _Sentinels(Sentinel):
    """Sentinels that are asked for the primary once for all connections that wait for it.

    That happens in a task of its own: with a `socket_timeout`, redis-py 8.1 uses
    `asyncio.wait_for`, see `_Client`.
    """

    _asking: asyncio.Task[tuple[str, int]] | None = None

    async def discover_master(self, service_name: str) -> tuple[str, int]:
        """Return host and port of the primary; raises MasterNotFoundError."""
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._discover(service_name))
        return await asyncio.shield(self._asking)

    async def _discover(self, name: str) -> tuple[str, int]:
        try:
            host, port = await super().discover_master(name)
        except redis.RedisError as error:
            raise MasterNotFoundError(
                f"no Sentinel knows a primary {name!r} that is up: do they run, "
                "is that the name, and do they want a password (?sentinel_password=)?"
            ) from error
        return host, port

    async def aclose(self) -> None:
        """Close the connections to the Sentinels."""
        if self._asking:
            await cancelled(self._asking)
        await super().aclose()


class _PrimaryPool(SentinelConnectionPool, redis.asyncio.BlockingConnectionPool):
    """A blocking pool of connections to the primary that Sentinels name."""

    known: tuple[str, int] | None = None

    async def get_master_address(self) -> tuple[str, int]:
        """Ask the Sentinels for the primary, and leave the one before."""
        # redis-py 8.1 leaves its Sentinels without types.
        found: tuple[str, int] = await super().get_master_address()  # type: ignore[no-untyped-call]
        if self.known and self.known != found:
            log.warning("The primary of the store is now %s:%s", *found)
        self.known = found
        return found


Command = tuple[str | int | float, ...]


class Script(Protocol):
    """A registered Lua script; raises StoreUnavailable."""

    async def __call__(self, *, keys: Sequence[str], args: Sequence[str | bytes | float]) -> Any:
        """Run the script and return its answer."""


class Store:
    """One connection pool for the process; `url` is the address in use.

    A command of `redis` ends within three seconds, so blocking reads may last two; pipelines and
    subscriptions have no timeout. After a broken connection a command is sent again, so it may run
    twice.
    """

    def __init__(
        self,
        *,
        client: redis.asyncio.Redis,
        url: str,
        prefix: str,
        ping_pause: float = PING_PAUSE,
        replicas: int = 0,
    ) -> None:
        self.redis = client
        self.url = url
        self._prefix = prefix
        self._replicas = replicas
        self._ping_pause = ping_pause
        self._returning: asyncio.Task[None] | None = None
        self._warn_at = 0.0  # by the loop's clock

    @property
    def is_away(self) -> bool:
        """Whether the store is marked as away.

        Check this before optional commands: they take seconds to fail if the store hangs.
        """
        return self._returning is not None

    @property
    def primary(self) -> str:
        """The primary that the Sentinels have named last; empty without Sentinels."""
        address = getattr(self.redis.connection_pool, "known", None)
        return "{}:{}".format(*address) if address else ""

    def key(self, *parts: str) -> str:
        """Return the name of a key; all share one hash tag, so a script may use several."""
        return ":".join((self._prefix, "{0}", *parts))

    async def command(self, *words: str | int | float) -> Any:
        """Send one command and return its answer; raises StoreUnavailable."""
        with store_errors():
            # redis-py 8.1 leaves `execute_command`, and nothing else, without types.
            return await self.redis.execute_command(*words)  # type: ignore[no-untyped-call]

    async def commands(self, commands: Sequence[Command]) -> list[Any]:
        """Send some commands in one round trip, and return their answers in order.

        They are separate steps: others may come between. Raises StoreUnavailable.
        """
        if not commands:
            return []
        with store_errors():
            return await self._send(commands)

    async def names(self, pattern: str = "*") -> AsyncGenerator[list[str]]:
        """Yield the names of all keys, without the prefix, some at a time; one may come again."""
        prefix, cursor = self.key(""), 0
        while True:
            scan = "SCAN", cursor, "MATCH", f"{prefix}{pattern}", "COUNT", _NAMES_AT_ONCE
            cursor, found = await self.command(*scan)
            yield [name.removeprefix(prefix) for name in dict.fromkeys(found)]
            if not cursor:
                return

    def script(self, source: str, *, if_full: bool = False, lasting: bool = False) -> Script:
        """Register a script; all its keys come from `key`.

        With `if_full` it may write even if the store is out of memory: for a few bytes that must
        not be lost. If it is `lasting`, what it writes has to survive the loss of the primary: it
        waits for the replicas, and raises TooFewReplicas.
        """
        head = "#!lua flags=allow-oom\n" if if_full else ""
        registered = self.redis.register_script(head + source)

        async def run(*, keys: Sequence[str], args: Sequence[str | bytes | float]) -> Any:
            with store_errors(), _SECONDS.time():
                if not (lasting and self._replicas):
                    return await registered(keys=keys, args=args)
                try:
                    return await self._replicated(
                        "EVALSHA", registered.sha, len(keys), *keys, *args
                    )
                except redis.exceptions.NoScriptError:
                    return await self._replicated("EVAL", head + source, len(keys), *keys, *args)

        return run

    async def replicate(self) -> None:
        """Wait until the replicas have what is stored. Raises TooFewReplicas."""
        if self._replicas:
            with store_errors():
                await self._replicated("PING")

    async def _replicated(self, *words: str | bytes | float) -> Any:
        """Send a command in one round trip with the wait for what it has written."""
        wait = ("WAIT", self._replicas, int(REPLICA_SECONDS * 1000))
        # WAIT waits for the last write of its connection. A call that is repeated may write
        # nothing, and what the first one wrote is not on the replicas for that.
        write = ("PUBLISH", self.key("replicated"), "")
        answer, _, has = await self._send((words, write, wait))
        if has < self._replicas:
            raise TooFewReplicas(has, self._replicas, answer)
        return answer

    async def _send(self, commands: Sequence[Sequence[str | bytes | float]]) -> list[Any]:
        pipe = self.redis.pipeline(transaction=False)
        async with asyncio.timeout(COMMAND_SECONDS), pipe:
            for words in commands:
                pipe.execute_command(*words)
            # redis-py 8.1 would add the command, with its words, to the text of an error.
            answers: list[Any] = await pipe.execute(raise_on_error=False)
        for error in (it for it in answers if isinstance(it, redis.RedisError)):
            if isinstance(error, redis.ReadOnlyError):
                await _leave(self.redis)
            raise error
        return answers

    async def ping(self) -> None:
        """Check that the store answers within a second; raises StoreUnavailable."""
        with store_errors():
            async with asyncio.timeout(PING_SECONDS):
                await self.redis.ping()

    def note_away(self, error: StoreUnavailable) -> None:
        """Mark the store as away, and ping it until it answers."""
        if self._returning is None:
            now = asyncio.get_running_loop().time()
            if now >= self._warn_at:
                self._warn_at = now + WARN_SECONDS
                log.warning("Replies continue without the store: %s", error)
            self._returning = asyncio.create_task(self._await_return())

    async def close(self) -> None:
        """Stop the pings."""
        if self._returning:
            await cancelled(self._returning)

    async def _await_return(self) -> None:
        try:
            while True:
                await asyncio.sleep(self._ping_pause)
                with contextlib.suppress(StoreUnavailable):
                    return await self.ping()
        finally:
            self._returning = None


@contextlib.contextmanager
def store_errors() -> Iterator[None]:
    """Raise errors of redis-py and the network in the block as StoreUnavailable."""
    try:
        yield
    except redis.ReadOnlyError as error:
        raise StoreUnavailable(
            f"the server is a replica, or a failover is under way: {error}"
        ) from error
    except redis.ResponseError as error:
        raise StoreUnavailable(f"the store refuses a command: {error}") from error
    except (redis.RedisError, OSError) as error:
        detail = str(error) or _SILENT
        raise StoreUnavailable(
            f"the store cannot be reached (at REDIS_URL, or see DATA_DIR/store): {detail}"
        ) from error


@contextlib.asynccontextmanager
async def connect(
    *, url: str, data_dir: Path, prefix: str = "parley", begins: bool = True, replicas: int = 0
) -> AsyncIterator[Store]:
    """Connect to the server at `url`, or to the embedded one of `data_dir` if `url` is empty.

    The processes of one `data_dir` share its server; if it ends, one of them restarts it. What
    has to survive the loss of a primary waits for so many `replicas`. Raises CannotStart, also if
    the store was never used, unless it `begins` here.
    """
    async with contextlib.AsyncExitStack() as stack:
        used_url = url or await stack.enter_async_context(embedded_store.serve(data_dir))
        try:
            client = _client(used_url)
        except ValueError as error:
            raise CannotStart(f"REDIS_URL is not an address: {error}") from error
        stack.push_async_callback(_close, client)
        if url:
            await _check_version(client)
            if faults := await _faults(client):
                problems = " and ".join(f"{fault} ({cure})" for fault, cure in faults)
                log.warning("The store %s %s: turns can be lost", _server(client), problems)
        store = Store(client=client, url=used_url, prefix=prefix, replicas=replicas)
        stack.push_async_callback(store.close)
        await _check_format(store, begins=begins)
        yield store


async def _check_format(store: Store, *, begins: bool) -> None:
    """Note the format of the store's keys, or raise CannotStart if they have another one."""
    # A store that does not answer, or is full, has been used before.
    with contextlib.suppress(StoreUnavailable):
        found = await store.command("GET", store.key("format"))
        if found is None and not begins:
            raise CannotStart("there is nothing of Parley in the store")
        if found is None:
            await store.command("SET", store.key("format"), FORMAT, "NX")
        elif found != FORMAT:
            raise CannotStart(
                f"The store has keys of format {found}, and this version reads format {FORMAT}: "
                "empty the store, or use another one"
            )


async def _close(client: redis.asyncio.Redis) -> None:
    # A connection that takes too long to close raises an error (redis-py 8.1).
    with contextlib.suppress(redis.RedisError):
        await client.aclose()
    if isinstance(client.connection_pool, _PrimaryPool):
        with contextlib.suppress(redis.RedisError):
            await client.connection_pool.sentinel_manager.aclose()


async def _leave(client: redis.asyncio.Redis) -> None:
    """Close all connections, so that the address is resolved again: the server is a replica."""
    pool = client.connection_pool
    await pool.update_active_connections_for_reconnect()  # type: ignore[no-untyped-call]
    with contextlib.suppress(redis.RedisError):
        await pool.disconnect(inuse_connections=False)


def _client(url: str) -> redis.asyncio.Redis:
    of_all: dict[str, Any] = {
        "decode_responses": True,
        # Only Redis Enterprise sends them, and subscribing costs a round trip for each connection.
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
        # For each connection, redis-py 8.1 would read its package's metadata, in milliseconds.
        "driver_info": DriverInfo(),
    }
    chosen = of_all | {
        # A value that is not UTF-8 fails when its record is decoded, not the whole command.
        "encoding_errors": "replace",
        "max_connections": CONNECTIONS,
        "timeout": CONNECT_SECONDS,
        "socket_timeout": None,
        "socket_connect_timeout": CONNECT_SECONDS,
        "retry": Retry(ConstantBackoff(RETRY_SECONDS), RETRIES, (redis.ConnectionError,)),
    }
    if not SENTINELS.fullmatch(url):
        return _Client.from_pool(redis.asyncio.BlockingConnectionPool.from_url(url, **chosen))

    places = [urlsplit(one) for one in each_server(url)]
    name, _, database = places[0].path.strip("/").partition("/")
    options: dict[str, Any] = {**parse_url(places[0]._replace(path=f"/{database}").geturl())}
    del options["host"]
    options.pop("port", None)
    tls = {"ssl": options.pop("connection_class", None) is not None}
    tls |= {it: value for it, value in options.items() if it.startswith("ssl_")}
    login = {it: options.pop(f"sentinel_{it}", None) for it in ("username", "password")}
    timeouts = dict.fromkeys(("socket_timeout", "socket_connect_timeout"), SENTINEL_SECONDS)
    for_sentinels = {**of_all, **tls, **login, **timeouts, "retry": Retry(NoBackoff(), 0)}
    addresses = [(it.hostname or "", it.port or SENTINEL_PORT) for it in places]
    sentinels = _Sentinels(addresses, sentinel_kwargs=for_sentinels)  # type: ignore[no-untyped-call]
    return sentinels.master_for(  # type: ignore[no-any-return]
        name,
        redis_class=_Client,
        connection_pool_class=_PrimaryPool,
        **(chosen | tls | options),
    )


async def _check_version(client: redis.asyncio.Redis) -> None:
    try:
        info = await client.info("server")
    except redis.exceptions.NoPermissionError:
        return
    # The ssl module raises ValueError for some options of the address.
    except (redis.RedisError, OSError, ValueError) as error:
        problem = f"cannot be used: {str(error) or _SILENT}"
        # Over a Unix socket redis-py raises another error from it.
        if redis.AuthenticationError in (type(error), type(error.__cause__)):
            problem = (
                "needs a name or a password, or has a wrong one: write "
                "redis://NAME:PASSWORD@HOST:PORT, with an empty NAME if the server knows none"
            )
        raise CannotStart(f"REDIS_URL ({_server(client)}) {problem}") from error
    # For old clients, Valkey reports an old Redis version beside its own.
    name, oldest = ("Valkey", 8) if "valkey_version" in info else ("Redis", 7)
    version = str(info.get(f"{name.lower()}_version", ""))
    major = version.partition(".")[0]
    if major.isdecimal() and int(major) < oldest:
        raise CannotStart(
            f"REDIS_URL ({_server(client)}) is {name} {version};"
            f" Parley needs {name} {oldest} or newer"
        )


async def _faults(client: redis.asyncio.Redis) -> list[tuple[str, str]]:
    """Return the settings by which turns can be lost, each with its cure."""
    try:
        config = await client.config_get("appendonly", "save", "maxmemory-policy")
    except (redis.RedisError, OSError):
        return []  # many hosted servers forbid CONFIG
    faults = []
    if config.get("appendonly") == "no" and config.get("save") == "":
        faults.append(("keeps nothing on disk", "set appendonly yes"))
    if config.get("maxmemory-policy", "noeviction") != "noeviction":
        cure = "set maxmemory-policy noeviction"
        faults.append(("drops keys when memory is short", cure))
    return faults


async def examine_server(store: Store) -> list[Finding]:
    """Check the version, persistence, eviction and memory of the server.

    Raises StoreUnavailable.
    """
    with store_errors():
        try:
            info = await store.redis.info()
        except redis.exceptions.NoPermissionError:
            return [Finding("Store", "It does not report its version and memory")]
    name = "Valkey" if "valkey_version" in info else "Redis"
    used, most = int(info.get("used_memory", 0)), int(info.get("maxmemory", 0))
    size = f"{used / 1e6:.0f} MB in use" + (f" of {most / 1e6:.0f} MB" if most else "")
    text = f"{name} {info.get(f'{name.lower()}_version')}, {size}"
    found = [Finding("Store", text)]
    if most and used > _FULL * most:
        cure = "raise maxmemory, or lower HISTORY_DAYS"
        found.append(Finding("Store", "It has hardly any memory left", cure, wrong=True))
    faults = await _faults(store.redis)
    found += [Finding("Store", f"It {it}: turns can be lost", cure) for it, cure in faults]
    if store.primary:
        found.append(Finding("Store", f"The Sentinels name {store.primary} as the primary"))
    try:
        await store.replicate()
    except TooFewReplicas as error:
        cure = "start replicas, or lower REDIS_REPLICAS: no question is taken without them"
        found.append(Finding("Store", str(error), cure, wrong=True))
    return found


def _server(client: redis.asyncio.Redis) -> str:
    """Return the address without login and options."""
    pool = client.connection_pool
    if isinstance(pool, _PrimaryPool):
        return f"{pool.service_name} of {_hosts(pool.sentinel_manager)}"
    options = pool.connection_kwargs
    return options.get("path") or f"{options.get('host')}:{options.get('port', 6379)}"


def _hosts(sentinels: Sentinel) -> str:
    options = (one.connection_pool.connection_kwargs for one in sentinels.sentinels)
    return ", ".join(sorted(f"{it['host']}:{it['port']}" for it in options))
