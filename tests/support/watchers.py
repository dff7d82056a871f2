"""A collector of OpenTelemetry and a Sentry, which keep what they get."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web

from tests.emulators.serving import served

pytest.importorskip("opentelemetry.sdk", reason="traces need requirements-otel.txt")

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass(frozen=True, slots=True)
class ReceivedSpan:
    """A span, with its attributes and those of its process; ids are in hexadecimal digits."""

    name: str
    trace: str
    id: str
    parent: str
    seconds: float
    failed: bool
    facts: dict[str, str | int | float]
    process: dict[str, str | int | float]


@dataclass(slots=True)
class Collector:
    """What a collector has got: `bodies` as they came, and the spans of them."""

    url: str = ""
    bodies: list[bytes] = field(default_factory=list)
    spans: list[ReceivedSpan] = field(default_factory=list)
    answers: bool = True

    @property
    def variables(self) -> dict[str, str]:
        """The variables with which a process sends to it, soon."""
        return {"OTEL_EXPORTER_OTLP_ENDPOINT": self.url, "OTEL_BSP_SCHEDULE_DELAY": "50"}

    def named(self, name: str) -> list[ReceivedSpan]:
        return [one for one in self.spans if one.name == name]

    async def receive(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.bodies.append(body)
        if not self.answers:
            await asyncio.Event().wait()
        self.spans += _spans(ExportTraceServiceRequest.FromString(body))
        return web.Response()


def _spans(request: ExportTraceServiceRequest) -> list[ReceivedSpan]:
    return [
        ReceivedSpan(
            name=one.name,
            trace=one.trace_id.hex(),
            id=one.span_id.hex(),
            parent=one.parent_span_id.hex(),
            seconds=(one.end_time_unix_nano - one.start_time_unix_nano) / 1e9,
            failed=one.status.code == 2,
            facts=_facts(one.attributes),
            process=_facts(resource.resource.attributes),
        )
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for one in scope.spans
    ]


def _facts(attributes: Any) -> dict[str, str | int | float]:
    return {
        one.key: getattr(one.value, one.value.WhichOneof("value") or "string_value")
        for one in attributes
    }


@asynccontextmanager
async def collector(*, answers: bool = True) -> AsyncIterator[Collector]:
    """Receive OTLP over HTTP; without `answers`, requests stay open."""
    found = Collector(answers=answers)
    app = web.Application(client_max_size=10**8)
    app.router.add_post("/v1/traces", found.receive)
    async with served(app) as url:
        found.url = url
        yield found


@dataclass(slots=True)
class Sentry:
    """What a Sentry has got: `bodies` of envelopes, and their events."""

    dsn: str = ""
    bodies: list[bytes] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)

    def text(self) -> str:
        return b"".join(self.bodies).decode()

    async def receive(self, request: web.Request) -> web.Response:
        # docs: "Envelopes": a header, and for each item a header and a payload, on lines.
        body = gzip.decompress(await request.read())
        self.bodies.append(body)
        _, *lines = body.decode().splitlines()
        for header, payload in zip(lines[::2], lines[1::2], strict=True):
            if json.loads(header)["type"] == "event":
                self.events.append(json.loads(payload))
        return web.json_response({"id": "0" * 32})


@asynccontextmanager
async def sentry() -> AsyncIterator[Sentry]:
    """Receive the errors of a project."""
    found, app = Sentry(), web.Application(client_max_size=10**8)
    app.router.add_post("/api/1/envelope/", found.receive)
    async with served(app, auto_decompress=False) as url:
        found.dsn = f"{url.replace('://', '://public-key@')}/1"
        yield found
