"""Backups of the embedded store: whole or not there, and a restore that can be undone."""

from __future__ import annotations

import asyncio
import io
import os
import shutil
import stat
import sys
import time
from pathlib import Path

import pytest

from bot.__main__ import main
from bot.app.backup import backup, restore
from bot.app.shutdown import ShutdownSignals
from bot.concurrency import running
from bot.embedded_store import locked
from bot.errors import CannotStart
from bot.store import Store, connect
from tests.support.process import python
from tests.support.settings import settings_of

# Processes that restore `old` and die before their first rename, their second and so on; after each
# its status, what the store says then, and what is left beside it.
DYING = """
import asyncio, io, os, sys
from pathlib import Path
from bot.app.backup import restore
from tests.app.test_backup import read, write
from tests.support.settings import settings_of

folder, left = Path(sys.argv[1]), -1
def hook(event, _):
    global left
    if event == "os.rename" and left >= 0:
        left -= 1
        if left < 0:
            os._exit(9)
sys.addaudithook(hook)
for number in range(4):
    if not (child := os.fork()):
        left = number
        asyncio.run(restore(settings_of(data_dir=folder), folder / "old", io.StringIO()))
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(status, asyncio.run(read(folder)), *(folder / "store").glob("resto*"))
    asyncio.run(write(folder, "two"))
"""


async def write(data_dir: Path, text: str) -> None:
    async with connect(url="", data_dir=data_dir) as store:
        await store.command("SET", store.key("message", "1"), text)


async def read(data_dir: Path) -> str:
    async with connect(url="", data_dir=data_dir) as store:
        return str(await store.command("GET", store.key("message", "1")))


def names(folder: Path) -> set[str]:
    return {one.name for one in folder.iterdir()}


async def back_up(data_dir: Path, name: str = "old") -> Path:
    await backup(settings_of(data_dir=data_dir), data_dir / name, io.StringIO())
    return data_dir / name


async def put_back(data_dir: Path, file: Path, **how: float) -> str:
    output = io.StringIO()
    await restore(settings_of(data_dir=data_dir), file, output, **how)
    return output.getvalue()


async def test_a_backup_of_a_store_that_is_written_to_is_of_one_moment(data_dir: Path) -> None:
    async def keep_writing(store: Store) -> None:
        for number in range(1_000_000):
            both = store.key("message", "1"), number, store.key("message", "2"), number
            await store.command("MSET", *both)

    async with connect(url="", data_dir=data_dir) as store:
        others = [store.key("message", f"other-{number}") for number in range(2000)]
        await store.commands([("SET", name, "x" * 1000) for name in others])
        async with running(keep_writing(store)):
            file = await back_up(data_dir)
    assert stat.filemode(file.stat().st_mode) == "-rw-------"
    assert names(data_dir) == {"old", "store"}
    assert not (data_dir / "store" / "dump.rdb").exists()

    await put_back(data_dir, file)

    async with connect(url="", data_dir=data_dir) as store:
        one, other = [await store.command("GET", store.key("message", it)) for it in "12"]
        assert one == other
        assert await store.command("DBSIZE") > 2000


async def test_a_backup_replaces_no_file_and_is_made_once_at_a_time(data_dir: Path) -> None:
    await write(data_dir, "one")
    (data_dir / "old").write_text("mine")
    with pytest.raises(CannotStart, match="exists already"):
        await back_up(data_dir)
    with locked(data_dir / "store" / "saving"), pytest.raises(CannotStart, match="another backup"):
        await back_up(data_dir, "new")

    assert (data_dir / "old").read_text() == "mine"
    assert names(data_dir) == {"old", "store"}


async def test_a_folder_without_a_store_is_not_backed_up(data_dir: Path) -> None:
    with pytest.raises(CannotStart, match="nothing of Parley"):
        await back_up(data_dir)

    assert names(data_dir) == {"store"}


async def test_a_restore_keeps_the_store_that_was_there(data_dir: Path) -> None:
    await write(data_dir, "one")
    file = await back_up(data_dir)
    await write(data_dir, "two")

    said = await put_back(data_dir, file)

    assert await read(data_dir) == "one"
    # As docs/operating.md says.
    (kept,) = (data_dir / "store").glob("replaced-*")
    assert str(kept) in said
    shutil.rmtree(data_dir / "store" / "appendonlydir")
    kept.rename(data_dir / "store" / "appendonlydir")
    assert await read(data_dir) == "two"


async def test_a_store_is_restored_where_there_was_none(data_dir: Path) -> None:
    await write(data_dir, "one")
    file = await back_up(data_dir)
    shutil.rmtree(data_dir / "store")

    said = await put_back(data_dir, file)

    assert await read(data_dir) == "one"
    assert "kept" not in said


async def test_a_store_that_is_used_is_not_restored(data_dir: Path) -> None:
    await write(data_dir, "one")
    file = await back_up(data_dir)
    async with connect(url="", data_dir=data_dir) as store:
        with pytest.raises(CannotStart, match="stop the bot"):
            await put_back(data_dir, file)
        assert await store.command("DBSIZE") == 2


async def test_what_is_no_backup_of_this_version_changes_nothing(data_dir: Path) -> None:
    await write(data_dir, "one")
    whole = (await back_up(data_dir)).read_bytes()
    async with connect(url="", data_dir=data_dir) as store:
        await store.command("SET", store.key("format"), "99")
        await back_up_raw(store, data_dir / "newer")
        await store.command("FLUSHALL")
        await store.command("SET", "of-others", "1")
        await back_up_raw(store, data_dir / "foreign")
        await store.command("SET", store.key("format"), "2")
        await store.command("SET", store.key("message", "1"), "two")
    (data_dir / "cut").write_bytes(whole[:-9])
    (data_dir / "spoilt").write_bytes(whole.replace(b"one", b"won"))
    (data_dir / "text").write_text("hello")
    os.mkfifo(data_dir / "pipe")
    refusals = {
        "newer": "format 99",
        "foreign": "nothing of Parley",
        "cut": "not a whole backup",
        "spoilt": "not a whole backup",
        "text": "not a whole backup",
        "pipe": "not a regular file",
        "store": "not a regular file",
        "missing": "No such file",
    }

    for name, words in refusals.items():
        with pytest.raises(CannotStart, match=words):
            await put_back(data_dir, data_dir / name)

    assert await read(data_dir) == "two"
    assert list((data_dir / "store").glob("re*")) == []


async def back_up_raw(store: Store, file: Path) -> None:
    """Write a dump of whatever the store has."""
    await store.command("SAVE")
    shutil.move(file.parent / "store" / "dump.rdb", file)


async def test_a_restore_that_dies_anywhere_leaves_the_old_store_or_the_new(data_dir: Path) -> None:
    await write(data_dir, "one")
    await back_up(data_dir)
    await write(data_dir, "two")

    async with python("-c", DYING, str(data_dir), folder=data_dir, variables={}) as process:
        out, errors = await process.communicate()

    # The last one finds no fourth rename.
    assert out.decode().splitlines() == ["9 two", "9 two", "9 one", "0 one"], errors


async def test_nothing_said_until_the_last_write_of_a_lost_store_is_received(
    data_dir: Path,
) -> None:
    await write(data_dir, "one")
    file = await back_up(data_dir)
    lost_at = time.time() - 600
    for one in (data_dir / "store" / "appendonlydir").iterdir():
        os.utime(one, (lost_at, lost_at))

    await put_back(data_dir, file)
    by_itself = await restored_at(data_dir)
    await put_back(data_dir, file, until=lost_at - 60)
    chosen = await restored_at(data_dir)

    # The clocks of platforms differ a little.
    assert 0 <= by_itself - lost_at <= 11
    assert abs(chosen - (lost_at - 60)) < 1
    with pytest.raises(CannotStart, match="future"):
        await put_back(data_dir, file, until=time.time() + 60)


async def restored_at(data_dir: Path) -> float:
    async with connect(url="", data_dir=data_dir) as store:
        return int(await store.command("GET", store.key("restored"))) / 1000


async def test_a_redis_of_the_operators_has_its_own_tools(data_dir: Path) -> None:
    settings = settings_of(redis_url="redis://127.0.0.1:1")
    for command in (backup, restore):
        with pytest.raises(CannotStart, match="REDIS_URL is set"):
            await command(settings, data_dir / "old", io.StringIO())


def command(*words: str) -> int:
    """Run a command of the bot in this process, and return its status."""
    sys.argv[1:] = words
    return main(ShutdownSignals(serves=False))


def test_the_commands_back_up_and_restore_what_is_meant(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(data_dir)
    monkeypatch.setenv("DATA_DIR", str(data_dir))
    monkeypatch.setattr("sys.argv", ["parley"])
    asyncio.run(write(data_dir, "one"))

    made = command("backup", "old.rdb")
    asyncio.run(write(data_dir, "two"))
    restored = command("restore", "old.rdb", "--until", "2026-11-26T09:58")
    said = capsys.readouterr().out
    again = command("restore", "--loaded")
    nothing = command("restore")
    both = command("restore", "old.rdb", "--loaded")
    future = command("restore", "--loaded", "--until", "2100-01-01T09:58")

    assert (made, restored, again, nothing, both, future) == (0, 0, 0, 2, 2, 1)
    assert "MB in" in said
    assert "is kept in" in said
    refused = capsys.readouterr().err
    assert "FILE" in refused
    assert "bot: TIME is in the future" in refused
    assert asyncio.run(read(data_dir)) == "one"
