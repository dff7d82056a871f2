"""Sends spans to an OpenTelemetry collector; the names of its conventions stand here alone."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import socket
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from bot import tracing
from bot.concurrency import turn_in_work
from bot.errors import CannotStart
from bot.tracing import Fact

log = logging.getLogger(__name__)

_W3C = TraceContextTextMapPropagator()
_FLUSH_SECONDS = 1.0  # at the end, of the 25 in which a process must end

# Of the conventions for generative AI ("Inference", "Execute tool span"), of which none is stable,
# and for messaging. Names that they do not have begin with "parley.".
_NAMES = {"model": "chat {model}", "tool": "execute_tool {tool}"}
_KINDS = {"admit": SpanKind.CONSUMER, "model": SpanKind.CLIENT, "write": SpanKind.PRODUCER}
_ALWAYS: Mapping[str, Mapping[str, str]] = {
    "admit": {"messaging.operation.type": "receive", "messaging.operation.name": "admit"},
    "write": {"messaging.operation.type": "send", "messaging.operation.name": "write"},
    # The provider's name tells the form of the API.
    "model": {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai"},
    "tool": {"gen_ai.operation.name": "execute_tool"},
}
_FACTS = {
    "turn": "messaging.message.id",
    "platform": "messaging.system",
    "model": "gen_ai.request.model",
    "read": "gen_ai.usage.input_tokens",
    "written": "gen_ai.usage.output_tokens",
    "tool": "gen_ai.tool.name",
    "error": "error.type",
}


@asynccontextmanager
async def sending(*, version: str) -> AsyncIterator[None]:
    """Send the spans of this process as the variables OTEL_… say, until the end of the block.

    A thread of the SDK sends them in batches. If the collector is slow, what does not fit into its
    queue is dropped; nothing waits for it. Raises CannotStart if a variable has no use.
    """
    known = {
        "service.name": "parley",
        "service.version": version,
        "service.instance.id": f"{socket.gethostname()}-{os.getpid()}",
    }
    resource = Resource(known).merge(OTELResourceDetector().detect())
    ids = _Ids()
    try:
        provider = TracerProvider(resource=resource, id_generator=ids, shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(_Exporter()))
    except ValueError as error:
        raise CannotStart(f"a variable OTEL_… cannot be used: {error}") from error
    try:
        with tracing.recording(_Recorder(provider.get_tracer("parley", version), ids)):
            yield
    finally:
        loop = asyncio.get_running_loop()
        await asyncio.wait([loop.run_in_executor(None, provider.shutdown)], timeout=_FLUSH_SECONDS)


class _Ids(RandomIdGenerator):
    """Makes the id of a trace from that of its `turn`: a platform may deliver a question twice."""

    turn = ""

    def generate_trace_id(self) -> int:
        if not self.turn:
            return super().generate_trace_id()
        return int.from_bytes(hashlib.sha256(self.turn.encode()).digest()[:16], "big")


class _Recorder:
    """Makes spans without the SDK's current context, which generators would leave in disorder."""

    def __init__(self, tracer: Tracer, ids: _Ids) -> None:
        self._tracer = tracer
        self._ids = ids

    def __call__(
        self, name: str, parent: str, seconds: float, facts: Mapping[str, Fact]
    ) -> tracing.Span:
        self._ids.turn = turn = str(facts.get("turn") or turn_in_work.get())
        attributes: dict[str, Fact] = {**_ALWAYS.get(name, {}), **_attributes(facts)}
        if turn:
            attributes |= _attributes({"turn": turn, "platform": turn.partition(":")[0]})
        return _Recorded(
            self._tracer.start_span(
                _NAMES.get(name, name).format(**facts),
                context=_W3C.extract({"traceparent": parent}, Context()),
                kind=_KINDS.get(name, SpanKind.INTERNAL),
                attributes=attributes,
                start_time=time.time_ns() - int(seconds * 1e9),
            )
        )


class _Recorded(tracing.Span):
    def __init__(self, span: Span) -> None:
        self._span = span
        carrier: dict[str, str] = {}
        _W3C.inject(carrier, set_span_in_context(span, Context()))
        self.traceparent = carrier.get("traceparent", "")

    def note(self, **facts: Fact) -> None:
        self._span.set_attributes(_attributes(facts))

    def end(self, error: BaseException | None = None) -> None:
        # What is cancelled has not failed. The text of an error may be that of a person.
        if isinstance(error, Exception):
            self.note(error=type(error).__name__)
            self._span.set_status(Status(StatusCode.ERROR))
        self._span.end()


def _attributes(facts: Mapping[str, Fact]) -> dict[str, Fact]:
    return {_FACTS.get(name, f"parley.{name}"): fact for name, fact in facts.items()}


class _Exporter(OTLPSpanExporter):
    """Has the first of several failures logged, and their end."""

    def __init__(self) -> None:
        self._fails = False
        self._tell()
        super().__init__()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = super().export(spans)
        if (fails := result is not SpanExportResult.SUCCESS) != self._fails:
            self._fails = fails
            self._tell()
            log.warning("Traces get lost for a while" if fails else "Traces are sent again")
        return result

    def _tell(self) -> None:
        # At WARNING the library logs each attempt, and headers, which have keys.
        level = logging.CRITICAL if self._fails else logging.ERROR
        logging.getLogger("opentelemetry").setLevel(level)
