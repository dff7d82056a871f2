"""What a collector gets of spans, from the real SDK; tests/processes/test_traces.py has turns."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

pytest.importorskip("opentelemetry.sdk", reason="traces need requirements-otel.txt")

from bot.app import traces
from bot.errors import AnswerCut, CannotStart, ModelBusy
from bot.intake.intake import Intake
from bot.model.client import RequestMetrics
from bot.store import Store
from bot.tracing import span, trace_in_work
from bot.turns.records import History
from tests.support.at_work import all_ended, make_queue, make_turn, make_worker, working
from tests.support.fakes import FakeModel, FakePlatform
from tests.support.tools import CallingModel, FakeTool, call, toolbox
from tests.support.waiting import until
from tests.support.watchers import Collector, collector


@asynccontextmanager
async def sent(**variables: str) -> AsyncIterator[Collector]:
    """Send the spans of the block; they have arrived at its end."""
    async with collector() as found:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in {**found.variables, **variables}.items():
                patch.setenv(name, value)
            async with traces.sending(version="1.2"):
                yield found
        # The process does not wait for long, and its thread sends them all the same.
        await until(lambda: not any("Otel" in one.name for one in threading.enumerate()))


def intake_of(store: Store) -> Intake:
    return Intake(queue=make_queue(store), history=History(store=store, keep_seconds=60))


async def test_only_what_fails_is_a_failure() -> None:
    async with sent() as found:
        for error in (ModelBusy("canary"), AnswerCut("canary"), asyncio.CancelledError("canary")):
            with suppress(type(error)), RequestMetrics("m"):
                raise error

    assert [one.failed for one in found.spans] == [True, False, False]
    assert found.spans[0].facts["error.type"] == "ModelBusy"
    assert b"canary" not in b"".join(found.bodies)


async def test_a_request_tells_its_tokens_and_when_its_text_began() -> None:
    async with sent() as found:
        began = time.monotonic()
        with RequestMetrics("m") as metrics:
            metrics.add_text()
            metrics.add_usage({"prompt_tokens": 12, "completion_tokens": 3})
        took = time.monotonic() - began

    [one] = found.spans
    assert one.facts["gen_ai.usage.input_tokens"] == 12
    assert one.facts["gen_ai.usage.output_tokens"] == 3
    assert 0 <= float(one.facts["parley.first_text"]) <= took


@pytest.mark.parametrize(
    ("variables", "service"),
    [
        ({}, "parley"),
        ({"OTEL_SERVICE_NAME": "helper"}, "helper"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=helper,team=a"}, "helper"),
    ],
)
async def test_the_operator_may_name_the_service(variables: dict[str, str], service: str) -> None:
    async with sent(**variables) as found:
        span("prompt").end()

    [one] = found.spans
    assert one.process["service.name"] == service
    assert one.process["service.version"] == "1.2"


async def test_a_variable_without_use_is_named_at_the_start() -> None:
    with pytest.raises(CannotStart, match=r"OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT"):
        async with sent(OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT="many"):
            pass


async def test_what_the_operator_does_not_sample_is_not_sent_by_the_next_worker() -> None:
    async with sent(OTEL_TRACES_SAMPLER="parentbased_always_off") as found:
        with span("admit", turn="console:1") as admission:
            pass
    assert not found.spans
    async with sent() as found:
        before = trace_in_work.set(admission.traceparent)
        span("prompt").end()
        trace_in_work.reset(before)  # the next test may run in this task

    assert not found.spans


async def test_a_turn_keeps_its_trace_and_calls_of_tools_are_parts_of_it(store: Store) -> None:
    tool = FakeTool(kind="reads", text="canary-result")
    model = CallingModel([["Let me see.", call()], ["canary-answer"]])
    async with sent() as found:
        await intake_of(store).ask(make_turn(1, text="canary-question"))
        async with working(make_worker(store, FakePlatform(), model, tools=toolbox(tool))):
            await all_ended(store)

    [admission] = found.named("admit")
    kept = await store.command("HGET", store.key("turn", "console:1"), "traceparent")
    assert kept.startswith(f"00-{admission.trace}-{admission.id}-")
    [called] = found.named("execute_tool make_ticket")
    assert called.parent == admission.id
    assert called.facts["gen_ai.operation.name"] == "execute_tool"
    assert b"canary" not in b"".join(found.bodies)
    assert b"Printer" not in b"".join(found.bodies)


async def test_a_turn_of_a_process_without_traces_gets_one_from_its_worker(store: Store) -> None:
    await intake_of(store).ask(make_turn(1))
    async with sent() as found, working(make_worker(store, FakePlatform(), FakeModel("Well."))):
        await all_ended(store)

    [wait] = found.named("wait")
    assert wait.parent == ""
    for one in found.named("prompt") + found.named("write"):
        assert (one.trace, one.parent) == (wait.trace, wait.id)
    assert not await store.command("HEXISTS", store.key("turn", "console:1"), "traceparent")


async def test_the_wait_is_as_long_as_it_was(store: Store) -> None:
    async with sent() as found:
        await intake_of(store).ask(make_turn(1))
        admitted = await store.command("ZSCORE", store.key("open"), "console:1")
        await store.command("ZADD", store.key("open"), float(admitted) - 5000, "console:1")
        async with working(make_worker(store, FakePlatform(), FakeModel("Well."))):
            await all_ended(store)

    [wait] = found.named("wait")
    assert 5 <= wait.seconds < 60
