"""The commands of docs/operating.md that back up, restore and replace a store do what it says.

So does the configuration of docs/scale.md.

`make check-shipping` runs them; they are not part of `make test`.
"""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import sys
from asyncio.subprocess import DEVNULL
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import pytest
import redis.exceptions
from redis.asyncio import Redis

from bot.embedded_store import _binary
from bot.errors import CannotStart, StoreUnavailable
from bot.store import connect
from tests.support.ports import free_port
from tests.support.process import ROOT

KEY = "parley:{0}:message:1"
# What the documents use of it. The real one is in no package of Python.
CLI = """
import shutil, sys
from pathlib import Path
import redis

kind, where, *words = sys.argv[1:]
address = where if kind == "-u" else f"redis://127.0.0.1:{where}"
server = redis.Redis.from_url(address)
if words[0] == "--rdb":
    server.save()
    folder = server.config_get("dir")["dir"]
    shutil.copy(Path(folder, "dump.rdb"), words[1])
else:
    connection = server.connection_pool.get_connection()
    connection.send_command(*words)
    print(connection.read_response().decode())
"""


def blocks() -> dict[str, str]:
    """Return the commands under each heading of the document."""
    found = dict[str, list[str]]()
    text = (ROOT / "docs" / "operating.md").read_text(encoding="utf-8")
    for section in re.split(r"^#+ ", text, flags=re.M):
        title, _, rest = section.partition("\n")
        for block in re.findall(r"^```sh\n(.*?)^```", rest, re.M | re.S):
            found.setdefault(title, []).append(block)
    return {
        title if not at else f"{title} {at + 1}": block
        for title, each in found.items()
        for at, block in enumerate(each)
    }


class Shell:
    """Plays blocks in a folder, where the programs that they name are at hand."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data_dir = folder / "data"
        self.ports = {name: str(free_port()) for name in ("REDIS", "REPLICA", "NEW")}
        programs = folder / "bin"
        programs.mkdir()
        (programs / "valkey-check-rdb").symlink_to(_binary())
        (folder / "cli.py").write_text(CLI)
        python, binary = shlex.quote(sys.executable), shlex.quote(str(_binary()))
        for name, program in {
            "python": python,
            "valkey-cli": f"{python} {shlex.quote(str(folder / 'cli.py'))}",
            "valkey-server": f"{binary} --bind 127.0.0.1 --logfile server.log",
        }.items():
            path = programs / name
            path.write_text(f'#!/bin/sh\nexec {program} "$@"\n')
            path.chmod(0o755)
        self._environment = {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "HOME": str(folder),
            "REDIS_HOST": "127.0.0.1",
            **{f"{name}_PORT": port for name, port in self.ports.items()},
        }

    async def play(self, block: str, **variables: str) -> str:
        # A server that stays would hold a pipe open.
        with (self.folder / "output").open("w+b") as output:
            process = await asyncio.create_subprocess_exec(
                *("sh", "-e", "-c", block),
                cwd=self.folder,
                env=self._environment | {"DATA_DIR": "data"} | variables,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
            status = await asyncio.wait_for(process.wait(), 120)
            output.seek(0)
            said = output.read().decode()
        assert status == 0, said
        return said

    def redis(self, name: str) -> Redis:
        return Redis(host="127.0.0.1", port=int(self.ports[name]), decode_responses=True)

    async def end(self, name: str) -> None:
        async with self.redis(name) as server:
            with suppress(redis.exceptions.RedisError):
                await server.shutdown(nosave=True)


@asynccontextmanager
async def a_shell(folder: Path) -> AsyncIterator[Shell]:
    shell = Shell(folder)
    try:
        yield shell
    finally:
        for name in shell.ports:
            await shell.end(name)


async def test_the_procedures_of_the_embedded_store_work(data_dir: Path) -> None:
    async with a_shell(data_dir) as shell:
        async with connect(url="", data_dir=shell.data_dir) as store:
            await store.command("SET", KEY, "one")
            made = await shell.play(blocks()["The embedded store"])
            await store.command("SET", KEY, "two")

        restored = await shell.play(blocks()["The embedded store from a backup"])
        async with connect(url="", data_dir=shell.data_dir) as store:
            found = await store.command("GET", KEY)
        printed = re.search(r"is kept in (\S+)\. ", restored)
        assert printed
        # One of another restore, and one that is not there.
        (shell.data_dir / "store" / "replaced-20000101-000000-000000").mkdir()
        undo = blocks()["The embedded store from a backup 2"]
        with pytest.raises(AssertionError):
            await shell.play(undo, KEPT="data/store/replaced-*")
        undone = await shell.play(undo, KEPT=printed[1])
        async with connect(url="", data_dir=shell.data_dir) as store:
            again = await store.command("GET", KEY)

    assert (found, again) == ("one", "two")
    assert "monday.rdb: 0.0 MB" in made
    assert "Restored" in undone


async def test_the_procedures_of_a_redis_work(data_dir: Path) -> None:
    async with a_shell(data_dir) as shell:
        url = f"redis://127.0.0.1:{shell.ports['REDIS']}"
        server = f"mkdir server && valkey-server --port {shell.ports['REDIS']} --dir server"
        await shell.play(f"{server} --daemonize yes --appendonly yes")
        async with connect(url=await answering(shell, "REDIS"), data_dir=data_dir) as store:
            await store.command("SET", KEY, "one")
        copied, shown = [
            await shell.play(blocks()[f"Redis or Valkey of your own{which}"], REDIS_URL=url)
            for which in ("", " 2")
        ]
        async with shell.redis("REPLICA") as replica:
            async with asyncio.timeout(60):
                while (await replica.info("replication"))["master_link_status"] != "up":
                    await asyncio.sleep(0.05)
            async with shell.redis("REDIS") as primary:
                await primary.set(KEY, "two")
                await primary.wait(1, 0)
            await shell.end("REDIS")
            # Nothing can be written to it before.
            with pytest.raises(redis.exceptions.ReadOnlyError):
                await replica.set(KEY, "three")
            export = "python -m bot export"
            told = await shell.play(blocks()["A replica takes over"] + export)
            followed = await replica.get(KEY)
            await replica.set(KEY, "three")
        said = await shell.play(blocks()["Redis from a dump"] + export)
        await shell.end("NEW")
        # It has all in its log of writes now.
        port = shell.ports["NEW"]
        again = f"valkey-server --port {port} --dir restored --appendonly yes --daemonize yes"
        await shell.play(again)
        await answering(shell, "NEW")
        async with shell.redis("NEW") as restored:
            found = await restored.get(KEY)

    assert "Checksum OK" in copied
    assert "role:slave" in shown
    assert "parley-preferences" in told
    assert "Restored" in said
    assert (followed, found) == ("two", "one")


async def test_the_configuration_of_servers_and_sentinels_works(data_dir: Path) -> None:
    text = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
    server, sentinel, variables = re.findall(r"^```\n(.*?)^```", text, re.M | re.S)
    ports = [free_port() for _ in range(6)]
    hosts = dict(zip(("FIRST", "SECOND", "THIRD"), ports[3:], strict=True))
    watches = sentinel.replace("FIRST 6379", f"127.0.0.1 {ports[0]}")
    follows = f"replicaof 127.0.0.1 {ports[0]}\n"
    async with AsyncExitStack() as stack:
        for at, port in enumerate(ports):
            folder = data_dir / str(port)
            folder.mkdir()
            role = ["--sentinel"] if at >= 3 else []
            written = watches if role else server + (follows if at else "")
            (folder / "valkey.conf").write_text(f"{written}\nport {port}\nbind 127.0.0.1\n")
            process = await asyncio.create_subprocess_exec(
                *(str(_binary()), "valkey.conf", *role), cwd=folder, stdout=DEVNULL
            )
            stack.push_async_callback(gone, process)
        url = re.search(r"REDIS_URL=(\S+)", variables)
        assert url
        address = url[1]
        for host, port in hosts.items():
            address = address.replace(host, f"127.0.0.1:{port}")
        async with asyncio.timeout(60):
            while True:
                with suppress(CannotStart, StoreUnavailable):
                    async with connect(url=address, data_dir=data_dir) as store:
                        await store.command("SET", KEY, "one")
                        if await store.redis.wait(2, 1000) == 2:
                            break
                await asyncio.sleep(0.1)


async def gone(process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        process.kill()
    await process.wait()


async def answering(shell: Shell, name: str) -> str:
    """Return the address of a server once it answers."""
    async with shell.redis(name) as server, asyncio.timeout(60):
        while True:
            with suppress(redis.exceptions.ConnectionError, redis.exceptions.BusyLoadingError):
                await server.ping()
                return f"redis://127.0.0.1:{shell.ports[name]}"
            await asyncio.sleep(0.05)
