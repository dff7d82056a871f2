"""The commands that copy the store, and put an older copy in its place.

After a restore the store does not know what people were answered since the backup. So all that is
open in it ends, and what was said until the store was lost is not received any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TextIO

from bot import audit
from bot.app.platforms import all_specs
from bot.app.service import limits_of
from bot.embedded_store import APPEND_ONLY, RESTORING, is_whole, locked, replace_log, unused
from bot.errors import CannotStart
from bot.store import Store, connect, store_errors
from bot.turns.queue import TurnQueue
from config.settings import Settings

_POLL_SECONDS = 0.05
_CLOCKS_DIFFER = 10.0  # seconds, at most: of this machine and of the platforms
# The log of writes of a server that has loaded a dump: Valkey's `appendonlydir`.
_BASE, _MANIFEST = "appendonly.aof.1.base.rdb", "appendonly.aof.manifest"
_ELSEWHERE = "REDIS_URL is set: see docs/operating.md for that server's own tools"


async def backup(settings: Settings, file: Path, output: TextIO) -> None:
    """Write a copy of the embedded store to a new file, while the bot runs or not.

    The file is whole or is not there. Raises CannotStart and StoreUnavailable.
    """
    if settings.redis_url:
        raise CannotStart(_ELSEWHERE)
    began_at = time.monotonic()
    with _errors_of(file), _new_file(file) as part:
        async with connect(url="", data_dir=settings.data_dir, begins=False) as store:
            folder = settings.data_dir.resolve() / "store"
            size = await _save(store, folder, part)
        if not await is_whole(part):
            raise CannotStart(f"{file} was not written whole: is the disk in order?")
    seconds = time.monotonic() - began_at
    audit.note("backup", bytes=size, by=audit.OPERATOR)
    output.write(f"{file}: {size / 1e6:.1f} MB in {seconds:.1f} s. It has what people said.\n")


async def restore(
    settings: Settings, file: Path | None, output: TextIO, *, until: float | None = None
) -> None:
    """Put a backup in the place of the embedded store, which is kept beside it.

    Without a file, the store has its old data already. What was said `until` then (seconds since
    the epoch) is not answered: by default until the last write to the store that is replaced, or
    until now. Raises CannotStart and StoreUnavailable.
    """
    if until and until > time.time():
        raise CannotStart("TIME is in the future: what is said until then would not be answered")
    if file is None:
        async with connect(
            url=settings.redis_url, data_dir=settings.data_dir, begins=False
        ) as store:
            ended = await _end_all(store, settings, until=until or time.time(), is_live=True)
        audit.note("restore", ended=ended, by=audit.OPERATOR)
        output.write(_told(ended))
        return
    if settings.redis_url:
        raise CannotStart(_ELSEWHERE)
    with _errors_of(file), unused(settings.data_dir) as folder:
        log, building = folder / APPEND_ONLY, folder / RESTORING
        try:
            new = building / "store" / APPEND_ONLY
            await asyncio.to_thread(_lay_out, file, new)
            if not await is_whole(new / _BASE):
                raise CannotStart(f"{file} is not a whole backup, or a newer Valkey has written it")
            # A server of its own reads it, and writes what follows from the restore.
            async with connect(url="", data_dir=building, begins=False) as store:
                lost_at = until or _last_write(log)
                ended = await _end_all(store, settings, until=lost_at, is_live=False)
            kept = folder / f"replaced-{datetime.now():%Y%m%d-%H%M%S-%f}"
            is_kept = log.exists()
            replace_log(folder, new, kept=kept)
        finally:
            shutil.rmtree(building, ignore_errors=True)
    audit.note("restore", ended=ended, by=audit.OPERATOR)
    output.write(_told(ended))
    if is_kept:
        output.write(f"The store that was there is kept in {kept}. Delete it when all is well.\n")


def _told(ended: int) -> str:
    return (
        f"Restored. Questions that were open in it and end without an answer: {ended}. "
        "Forget again who was forgotten since (python -m bot forget).\n"
    )


async def _save(store: Store, folder: Path, part: Path) -> int:
    """Have the server write a dump, copy it, and return its size in bytes."""
    dump = folder / "dump.rdb"
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(folder / "saving"))
        except BlockingIOError as error:
            raise CannotStart("another backup is being written") from error
        stack.callback(dump.unlink, missing_ok=True)
        dump.unlink(missing_ok=True)  # of a backup that was killed
        await _until_idle(store)
        await store.command("BGSAVE")
        await _until_idle(store)
        if not dump.exists():
            raise CannotStart(f"the store cannot be saved: see {folder / 'valkey.log'}")
        return await asyncio.to_thread(_copy, dump, part)


async def _until_idle(store: Store) -> None:
    """Return when the server neither saves nor rewrites its log: it does one at a time."""
    while True:
        with store_errors():
            info = await store.redis.info("persistence")
        if not (info["rdb_bgsave_in_progress"] or info["aof_rewrite_in_progress"]):
            return
        await asyncio.sleep(_POLL_SECONDS)


async def _end_all(store: Store, settings: Settings, *, until: float, is_live: bool) -> int:
    """End what is open, and drop connections; raises CannotStart if workers answer."""
    queue = TurnQueue(
        store=store,
        worker="restore",
        limits=limits_of(settings),
        lease_seconds=settings.lease_seconds,
        **settings.keeping,
    )
    names = [spec.name for spec in all_specs()]
    ended = await queue.leases.end_all(names, until=until, is_live=is_live)
    if ended < 0:
        raise CannotStart(
            f"workers answer {-ended} questions: stop every process of the bot, wait "
            f"{settings.lease_seconds:.0f} s, and say it again"
        )
    for pattern in (pattern for spec in all_specs() for pattern in spec.sessions):
        async for names in store.names(pattern):
            for name in names:
                await store.command("DEL", store.key(name))
    return ended


def _last_write(log: Path) -> float:
    """Return when the server of this log last wrote to it; now if there is none."""
    times = [one.stat().st_mtime for one in log.glob("*")]
    return min(max(times) + _CLOCKS_DIFFER, time.time()) if times else time.time()


def _lay_out(file: Path, log: Path) -> None:
    """Make a log of writes that begins with a dump. Raises CannotStart and OSError."""
    # Opening a pipe would wait for somebody who writes to it.
    if file.exists() and not file.is_file():
        raise CannotStart(f"{file} is not a regular file")
    log.mkdir(mode=0o700, parents=True)
    _copy(file, log / _BASE)
    (log / _MANIFEST).write_text(f"file {_BASE} seq 1 type b\n")


def _copy(source: Path, target: Path) -> int:
    with source.open("rb") as reads, target.open("wb") as writes:
        shutil.copyfileobj(reads, writes)
        writes.flush()
        os.fsync(writes.fileno())
        return writes.tell()


@contextlib.contextmanager
def _new_file(file: Path) -> Iterator[Path]:
    """Yield a file that only its owner can read; it gets the name if the block ends well."""
    if file.exists():
        raise CannotStart(f"{file} exists already")
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    os.close(handle)
    part = Path(name)
    try:
        yield part
        if file.exists():
            raise CannotStart(f"{file} exists already")
        part.rename(file)
    finally:
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def _errors_of(file: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CannotStart(f"{error.filename or file}: {error.strerror}") from error
