"""The embedded model under faults, as people on a platform see it."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from bot.app import assistant
from bot.domain import Exchange, Message
from bot.errors import AnswerCut
from bot.reply.draft import STOPPED
from bot.store import Store, connect
from tests.emulators.discord import DiscordEmulator
from tests.emulators.slack import SlackEmulator
from tests.local.test_llama_cpp import demo_file
from tests.support.process import DiscordDm, InDiscord, SlackDm, children, remembered
from tests.support.service import Service, serving_both
from tests.support.settings import settings_of
from tests.support.waiting import until

QUESTION = "What is the capital of France?"
STORY = "Tell me a very long story about a king, with many details."
LLAMA_CPP = "bot.local.llama_cpp_process"
CONVERSATIONS = assistant.LOCAL_SLOTS + 1
# A prompt and its answer are a second or two of computing, of which a busy machine has few.
PATIENCE = 240.0
soon = partial(until, within=PATIENCE)


@dataclass(frozen=True)
class World:
    """A service that answers by the demo model; all tests of this file share it."""

    discord: DiscordEmulator
    slack: SlackEmulator
    store: Store
    service: Service
    older: Sequence[int]  # processes of llama.cpp that are not this service's

    async def exchanges(self, way: InDiscord, *, at_least: int) -> list[Exchange]:
        """Return those with the person of a conversation, when there are so many."""
        found: list[Exchange] = []
        async with asyncio.timeout(PATIENCE):
            while len(found) < at_least:
                await asyncio.sleep(0.05)
                everybody = await remembered(self.store)
                found = [each for each in everybody if each.person.id == way.person]
        return found

    def llama_cpp(self) -> int:
        """Return the process id of the embedded server."""
        (pid,) = {*children(LLAMA_CPP)} - {*self.older}
        return pid

    @contextmanager
    def silence(self) -> Iterator[None]:
        """Let the embedded server say nothing: it may be much faster than a busy test."""
        pid = self.llama_cpp()
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)


@pytest.fixture(scope="module")
async def world(
    embedded_url: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[World]:
    older, folder = children(LLAMA_CPP), tmp_path_factory.mktemp("talk")
    async with connect(url=f"{embedded_url}?db=2", data_dir=folder) as store:
        await store.redis.flushdb()
        with pytest.MonkeyPatch.context() as patch:
            # For a model on another machine, any silence would be a failure now. llama.cpp says
            # nothing while it reads a prompt or has no slot.
            patch.setattr(assistant, "IDLE_SECONDS", 0.001)
            async with serving_both(store, None, MODEL_ID="demo", TEMPERATURE="0") as (
                discord,
                slack,
                service,
            ):
                yield World(discord, slack, store, service, older)


async def cpu_seconds_when_idle(pid: int) -> float:
    """Return the CPU time of a process when it does not grow any more."""
    last, now = -1.0, cpu_seconds(pid)
    while now - last > 0.02:
        await asyncio.sleep(0.3)
        last, now = now, cpu_seconds(pid)
    return now


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process."""
    stat = Path(f"/proc/{pid}/stat")
    if not stat.exists():
        pytest.skip("this system does not tell how long a process has computed: needs /proc")
    user, system = stat.read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


async def test_more_conversations_than_slots_take_turns(world: World) -> None:
    ways = [DiscordDm(world.discord) for _ in range(CONVERSATIONS)]
    ended: list[int] = []

    async def talk(way: DiscordDm) -> None:
        for times in (1, 2):
            await way.ask(QUESTION)
            await soon(partial(is_over, way, times), why=world.service.text)
            ended.append(times)

    await asyncio.gather(*(talk(way) for way in ways))

    for way in ways:
        exchanges = await world.exchanges(way, at_least=2)
        assert [text.strip() for text in way.finals()] == [
            each.answer.strip() for each in exchanges
        ]
        assert "Paris" in way.finals()[0]
    # Nobody waits for a first answer until all others have a second one.
    assert ended[: 2 * CONVERSATIONS - 2].count(1) == CONVERSATIONS


def is_over(way: DiscordDm, times: int) -> bool:
    """Say whether the last of so many answers is complete, which its button says."""
    shown = way.shown()
    return len(shown) == times and any(it.startswith("regenerate") for it in shown[-1].buttons)


async def test_stop_ends_the_work_in_llama_cpp_at_once(world: World) -> None:
    ways = [DiscordDm(world.discord) for _ in range(assistant.LOCAL_SLOTS)]
    for way in ways:
        await way.ask(STORY)
    await soon(lambda: all(map(speaks, ways)), why=world.service.text)
    with world.silence():
        for way in ways:
            await way.press()
        await soon(lambda: all(way.finals()[0].endswith(STOPPED) for way in ways))

    before = cpu_seconds(world.llama_cpp())
    spent = await cpu_seconds_when_idle(world.llama_cpp()) - before
    fifth = DiscordDm(world.discord)
    await fifth.ask(QUESTION)
    await soon(lambda: "Paris" in "".join(fifth.finals()), why=world.service.text)

    # The rest of the four stories would take some 20 seconds.
    assert spent < 5


async def test_an_answer_that_llama_cpp_dies_in_is_asked_for_again(world: World) -> None:
    way = DiscordDm(world.discord)
    await way.ask(STORY)
    await soon(lambda: has_grown(way), why=world.service.text)
    os.kill(world.llama_cpp(), signal.SIGKILL)
    other = DiscordDm(world.discord)
    await other.ask(QUESTION)
    await soon(lambda: "Paris" in "".join(other.finals()), why=world.service.text)
    # Whatever had been said by the end of the process is shown by now.
    shown = way.finals()[0]
    await soon(lambda: len(way.finals()[0]) > len(shown), why=world.service.text)
    with world.silence():
        await way.press()
        await soon(partial(is_over, way, 1), why=world.service.text)
    (exchange,) = await world.exchanges(way, at_least=1)

    # The answer stands there once: as it had begun, or with other words instead.
    (final,) = way.finals()
    beginning = shown.strip()[:60]
    assert final.endswith(STOPPED)
    assert final.count(beginning) == final.startswith(beginning)
    assert len(exchange.answer) > len(shown)


def speaks(way: InDiscord) -> bool:
    """Say whether the answer has begun; before that a sign may say that it takes its time."""
    return any(not text.startswith("(") for text in way.finals())


def has_grown(way: InDiscord) -> bool:
    return speaks(way) and len(way.answers()[-1][1]) >= 2


async def test_slack_is_answered_too_and_the_log_tells_by_what(world: World) -> None:
    way = SlackDm(world.slack)
    await way.ask(QUESTION)
    await soon(lambda: "Paris" in "".join(way.finals()), why=world.service.text)

    log = world.service.text()
    assert "The embedded model runs on" in log
    assert f"4 conversations at once with {assistant.DEMO_CONTEXT} tokens each" in log


async def test_a_file_that_the_operator_names_is_served_with_the_context_that_is_set(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    settings = settings_of(
        local_model_path=demo_file(),
        system_prompt=assistant.DEMO_PROMPT,
        context_tokens=512,
        max_tokens=30,
        temperature=0.0,
    )
    said = ""
    async with assistant.open_assistant(settings, asyncio.Event()) as it:
        prompt = [Message("system", it.system_prompt.text), Message("user", QUESTION)]
        with suppress(AnswerCut):
            async for delta in it.model.stream(prompt):
                said += str(delta)

    assert "Paris" in said
    assert "4 conversations at once with 512 tokens each" in caplog.text
