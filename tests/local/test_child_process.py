"""Processes of our own, with one that does what it is told."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import socket
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass, fields
from functools import partial

import pytest

from bot.errors import CannotStart
from bot.local import child_process
from bot.local.child_process import ChildProcess, Told, kept, starting
from bot.text.sanitize import one_line
from config.settings import Settings
from tests.support.waiting import until


@dataclass(frozen=True, slots=True)
class Served:
    port: int
    pid: int
    names: list[str]


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_process, "_FIRST_PAUSE", 0.01)


class Starts:
    """Starts processes; the latest is `latest`, and `later` is what they told when they served."""

    def __init__(self, *, does: str = "serve", words: str = "") -> None:
        self.latest: Served | None = None
        self.later: list[Told] = []
        self._order = {"does": does, "words": words}

    def keep(self) -> AbstractAsyncContextManager[Served]:
        return kept("the model", self.start)

    async def start(self, port: int) -> tuple[ChildProcess, Served]:
        heed = self.later.append
        try:
            async with starting("tests.support.some_child", is_worth=bool, heed=heed) as process:
                await process.tell({**self._order, "port": port})
                self.latest = Served(**await process.hear())
                return process, self.latest
        except OSError as error:
            raise CannotStart(f"it did not start: {process.last_words}") from error

    @property
    def pid(self) -> int:
        assert self.latest
        return self.latest.pid

    async def killed(self) -> int:
        """Kill the latest; return the process id of the next."""
        before = self.pid
        os.kill(before, signal.SIGKILL)
        await until(lambda: self.pid != before)
        return self.pid


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


async def test_what_stands_between_on_standard_output_is_passed_over() -> None:
    starts = Starts()
    async with starts.keep() as served:
        await until(lambda: starts.later)

        assert served.port
    assert starts.later == [{"later": "word"}]
    assert is_gone(served.pid)


async def test_one_that_dies_during_the_start_is_refused_in_its_own_words() -> None:
    with pytest.raises(CannotStart, match="did not start: this machine is too old"):
        async with Starts(does="die").keep():
            pass


async def test_one_that_never_gets_ready_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_process, "_READY_SECONDS", 0.2)
    monkeypatch.setattr(child_process, "_END_SECONDS", 0.2)

    with pytest.raises(CannotStart, match="gave no reason"):
        async with Starts(does="hang").keep():
            pass


async def test_one_that_is_killed_again_and_again_comes_back_at_its_port() -> None:
    starts = Starts()
    async with starts.keep() as served:
        seen = [served.pid, await starts.killed(), await starts.killed()]

        assert starts.latest
        assert starts.latest.port == served.port

    assert len(set(seen)) == 3
    assert all(map(is_gone, seen))


async def test_a_port_that_was_taken_meanwhile_is_waited_for(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child_process, "_FIRST_PAUSE", 0.3)
    starts = Starts()
    async with starts.keep() as served:
        os.kill(served.pid, signal.SIGKILL)
        with socket.socket() as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            await until(partial(is_taken_by, other, served.port))
            await until(lambda: "still not there" in caplog.text)
        await until(lambda: starts.pid != served.pid)

    assert "Address already in use" in caplog.text


def is_taken_by(other: socket.socket, port: int) -> bool:
    try:
        other.bind(("127.0.0.1", port))
    except OSError:
        return False
    other.listen()
    return True


async def test_a_machine_without_room_for_a_process_is_asked_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    starts = Starts()
    async with starts.keep() as served:
        with no_more_files():
            os.kill(served.pid, signal.SIGKILL)
            await until(lambda: "still not there" in caplog.text)
        await until(lambda: starts.pid != served.pid)

    assert "no process can be started here: Too many open files" in caplog.text


@contextmanager
def no_more_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_a_line_without_an_end_blocks_nobody() -> None:
    async with Starts(words="x" * 1_000_000).keep() as served:
        assert served.port


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HUGGING_FACE_HUB_TOKEN", "hf_1"),
        ("AWS_SECRET_ACCESS_KEY", "1"),
        ("POSTGRES_PASSWORD", "1"),
        ("my-api-key", "1"),
        ("OpenAI_ApiKey", "1"),
        ("SOME_DATABASE", "postgres://bot:1@here/db"),
    ],
)
async def test_what_looks_like_a_secret_is_no_part_of_its_environment(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)

    async with Starts().keep() as served:
        assert name not in served.names


async def test_what_a_library_needs_is_part_of_its_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    needed = {
        "HTTPS_PROXY": "http://bot:1@proxy:1",
        "CUDA_VISIBLE_DEVICES": "0",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HOME": "/models",
    }
    for name, value in needed.items():
        monkeypatch.setenv(name, value)

    async with Starts().keep() as served:
        assert needed.keys() <= set(served.names)


async def test_a_secret_of_the_bot_is_no_part_of_its_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    secrets = {variable.name.upper() for variable in fields(Settings) if not variable.repr}
    for name in secrets:
        monkeypatch.setenv(name, "hidden")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")

    async with Starts().keep() as served:
        assert {"PATH", "CUDA_VISIBLE_DEVICES"} <= {*served.names}
        assert not secrets & {*served.names}


async def test_a_start_that_is_given_up_leaves_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_process, "_END_SECONDS", 0.2)
    started: list[ChildProcess] = []

    async def start(_: int) -> tuple[ChildProcess, Served]:
        async with starting("tests.support.some_child", is_worth=bool) as process:
            started.append(process)
            await process.tell({"does": "hang"})
            return process, Served(**await process.hear())

    async def keep() -> None:
        async with kept("the model", start):
            pass

    keeping = asyncio.create_task(keep())
    await until(lambda: started)
    keeping.cancel()
    await asyncio.wait([keeping])

    assert keeping.cancelled()
    assert started[0].process.returncode is not None


async def test_what_it_says_last_is_one_line_of_bounded_length(
    caplog: pytest.LogCaptureFixture,
) -> None:
    starts = Starts(words="\x1b[31m\x9bunknown architecture\u202e \u2028" + "x" * 50_000)
    async with starts.keep():
        os.kill(starts.pid, signal.SIGKILL)
        await until(lambda: caplog.messages)

    line = caplog.messages[0]
    assert "unknown architecture" in line
    assert line == one_line(line)
    assert len(line) < 2000
