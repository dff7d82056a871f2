"""The bot as a process that sends a trace of each turn, and errors."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import pytest

pytest.importorskip("opentelemetry.sdk", reason="traces need requirements-otel.txt")

from tests.emulators.discord import DiscordEmulator
from tests.emulators.model import ModelEmulator
from tests.emulators.slack import SlackEmulator
from tests.support.process import (
    ANSWER,
    DiscordMention,
    SlackMention,
    bot,
    discord_bot,
    discord_variables,
    shows,
    slack_variables,
    speak_slowly,
)
from tests.support.waiting import until
from tests.support.watchers import Collector, collector

QUESTION, SAID = "What is canary-question?", "It is canary-answer."
ALL = ["admit", "prompt", "wait", "write"]
# Tells of each import of what only watches. redis-py itself imports metrics that are installed.
TELLING = """
import runpy, sys
class Told:
    def find_spec(self, name, *_):
        if name.startswith(("opentelemetry.sdk.trace", "opentelemetry.exporter", "sentry_sdk")):
            sys.stderr.write(f"imports {name}\\n")
sys.meta_path.insert(0, Told())
runpy.run_module("bot", run_name="__main__")
"""
LACKING = """
import runpy, sys
sys.modules["opentelemetry.sdk"] = sys.modules["sentry_sdk"] = None
runpy.run_module("bot", run_name="__main__")
"""


@pytest.fixture(autouse=True)
def saying(model: ModelEmulator) -> None:
    model.answer = SAID


def names(found: Collector) -> list[str]:
    return sorted({one.name for one in found.spans})


async def check_turn(found: Collector, platform: str, model: ModelEmulator) -> None:
    """Check that the collector has the trace of one turn, whole and without a word of it."""
    wanted = sorted([*ALL, f"chat {model.models[0]}"])
    await until(lambda: names(found) == wanted, why=lambda: names(found))
    # Just after the start, it may have been read by the catch-up as well.
    admissions, [asked] = found.named("admit"), found.named(f"chat {model.models[0]}")
    for one in found.spans:
        assert one.trace == asked.trace
        assert one.parent == ("" if one in admissions else asked.parent)
        assert one.facts["messaging.system"] == platform
        assert one.facts["messaging.message.id"] == asked.facts["messaging.message.id"]
        assert one.process["service.name"] == "parley"
        assert not one.failed
    assert asked.parent in {one.id for one in admissions}
    assert asked.facts["gen_ai.operation.name"] == "chat"
    assert asked.facts["gen_ai.request.model"] == model.models[0]
    assert found.named("write")[0].facts["parley.outcome"] == "done"
    sent = b"".join(found.bodies)
    assert b"canary" not in sent
    assert b"Ann" not in sent


async def test_a_turn_in_discord_is_one_trace_also_if_it_is_delivered_twice(
    data_dir: Path, model: ModelEmulator
) -> None:
    async with (
        collector() as found,
        discord_bot(data_dir, model, **found.variables) as (discord, running),
    ):
        way = DiscordMention(discord)
        await way.ask(QUESTION)
        await until(lambda: shows(way, SAID), why=running.text)

        await check_turn(found, "discord", model)
        admissions = len(found.named("admit"))
        await way.redeliver()
        await until(lambda: len(found.named("admit")) > admissions)
        await check_turn(found, "discord", model)


async def test_a_turn_in_slack_is_one_trace(data_dir: Path, model: ModelEmulator) -> None:
    async with collector() as found, SlackEmulator() as slack:
        variables = slack_variables(slack, model) | found.variables
        async with bot(data_dir=data_dir, variables=variables) as running:
            await asyncio.wait_for(slack.connected.wait(), 60)
            way = SlackMention(slack)
            await way.ask(QUESTION)
            await until(lambda: shows(way, SAID), why=running.text)

            await check_turn(found, "slack", model)


async def test_the_worker_that_takes_over_continues_the_trace(
    data_dir: Path, model: ModelEmulator
) -> None:
    speak_slowly(model, seconds=60)
    async with collector() as found, DiscordEmulator() as discord, AsyncExitStack() as stack:
        variables = discord_variables(discord, model) | found.variables
        start = partial(bot, data_dir=data_dir, variables=variables)
        gateway = await stack.enter_async_context(start("discord"))
        first = await stack.enter_async_context(start("worker"))
        await until(discord.connected.is_set, why=gateway.text)
        way = DiscordMention(discord)
        await way.ask(QUESTION)
        await until(lambda: way.finals() and found.named("prompt"), why=first.text)

        first.kill()
        model.delay = 0
        second = await stack.enter_async_context(start("worker"))
        await until(lambda: shows(way, ANSWER), why=second.text)

        await until(lambda: found.named("write") and found.named("admit"), why=lambda: names(found))
        [writing] = found.named("write")
        assert {one.trace for one in found.spans} == {writing.trace}
        assert {one.parent for one in found.spans} == {"", writing.parent}
        assert writing.parent in {one.id for one in found.named("admit")}
        assert writing.facts["parley.outcome"] == "done"
        workers = [one.process["service.instance.id"] for one in found.named("prompt")]
        assert len(set(workers)) == 2
        assert len(found.named("wait")) == 1


async def test_a_collector_that_never_answers_costs_a_turn_nothing(
    data_dir: Path, model: ModelEmulator
) -> None:
    async with (
        collector(answers=False) as found,
        discord_bot(data_dir, model, **found.variables, OTEL_EXPORTER_OTLP_TIMEOUT="60") as (
            discord,
            running,
        ),
    ):
        way = DiscordMention(discord)
        await way.ask(QUESTION)
        await until(lambda: shows(way, SAID), why=running.text)
        await until(lambda: found.bodies)

        running.process.terminate()
        await running.process.wait()

    # A request may take a minute: a process that waited for it would be ended by force.
    assert running.process.returncode == 0
    assert "Stopped" in running.text()


async def test_without_a_collector_there_is_one_line_and_the_bot_answers(
    data_dir: Path, model: ModelEmulator
) -> None:
    variables = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9",
        "OTEL_BSP_SCHEDULE_DELAY": "50",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "0.1",
        "OTEL_EXPORTER_OTLP_HEADERS": "no header but tell-nobody",
    }
    async with discord_bot(data_dir, model, **variables) as (discord, running):
        way = DiscordMention(discord)
        for said in ([SAID], [SAID, SAID]):
            await way.ask(QUESTION)
            await until(partial(shows, way, *said), why=running.text)
            await until(lambda: "Traces get lost" in running.text(), why=running.text)

    assert running.text().count("Traces get lost") == 1
    assert running.text().count("Failed to export") == 1
    assert "tell-nobody" not in running.text()


async def test_what_is_off_is_not_imported(data_dir: Path, model: ModelEmulator) -> None:
    disabled = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_SDK_DISABLED": "true"}
    folders = [data_dir / name for name in ("unset", "disabled")]
    for folder in folders:
        folder.mkdir()

    logs = await asyncio.gather(
        *(
            answered(folder, model, TELLING, variables)
            for folder, variables in zip(folders, ({}, disabled), strict=True)
        )
    )

    assert not any("imports" in log for log in logs)


async def test_what_is_on_and_not_installed_is_named_with_the_way_to_install_it(
    data_dir: Path, model: ModelEmulator
) -> None:
    variables = {
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:9/v1/traces",
        "SENTRY_DSN": "http://key@127.0.0.1:9/1",
    }
    log = await answered(data_dir, model, LACKING, variables)

    for variable, extra in (
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "otel"),
        ("SENTRY_DSN", "sentry"),
    ):
        [line] = [one for one in log.splitlines() if f" {variable} needs" in one]
        assert line.endswith(f"pip install --require-hashes -r requirements-{extra}.lock")


async def answered(
    data_dir: Path, model: ModelEmulator, start: str, variables: Mapping[str, str]
) -> str:
    """Return the log of a bot that was started by a script and has answered a question."""
    async with DiscordEmulator() as discord:
        known = {**discord_variables(discord, model), **variables}
        async with bot(data_dir=data_dir, variables=known, start=("-c", start)) as running:
            await asyncio.wait_for(discord.connected.wait(), 60)
            way = DiscordMention(discord)
            await way.ask(QUESTION)
            await until(lambda: shows(way, SAID), why=running.text)
    return running.text()
