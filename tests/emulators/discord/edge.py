"""What every call to the emulated REST API meets first: faults, the token, rate limits."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from http.client import responses

from aiohttp import BodyPartReader, web

from tests.emulators.discord import spec
from tests.emulators.discord.limits import Meter
from tests.emulators.discord.objects import Payload
from tests.emulators.discord.request import Refusal, Request, Route
from tests.emulators.faults import Fault, Faults
from tests.emulators.serving import port

API = "/api/v10"
# Of all answers that come from Discord itself. discord.py takes a 429 without it for Cloudflare's.
VIA = {"Via": "1.1 discord-emulator"}
_RETRY_SECONDS = 0.1
_Files = dict[str, tuple[str, bytes]]  # names and bytes, by the names of their parts


@dataclass(frozen=True, slots=True)
class Call:
    """A request of the bot, in the order of arrival.

    `body` is empty where there was none, or an array. `status` is None while there is no answer
    and where there was none. `at` is in monotonic seconds, and `port` the caller's.
    """

    method: str
    path: str
    body: Payload
    status: int | None
    at: float
    port: int

    @property
    def call(self) -> str:
        """What `fail` looks at: the method, a space, and the path behind the API's version."""
        return f"{self.method} {self.path}"

    @property
    def limited(self) -> bool:
        """Whether the answer was to come again later."""
        return self.status == 429


@dataclass(slots=True)
class Edge:
    """Answers HTTP; `latency` seconds pass on the way, half of them before anything happens."""

    routes: tuple[Route, ...]
    token: str
    meter: Meter
    latency: Callable[[], float]
    unknown: list[str]
    violations: list[str]
    calls: list[Call] = field(default_factory=list)
    faults: Faults = field(default_factory=Faults)
    watchers: list[Callable[[Call], object]] = field(default_factory=list)
    closing: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Answer one call, or let it go wrong as it was told to."""
        data, files = await _read(request)
        body, path = _parsed(data), request.path.removeprefix(API)
        sent = body if isinstance(body, dict) else {}
        call = Call(request.method, path, sent, None, time.monotonic(), port(request))
        place = len(self.calls)
        self.calls.append(call)
        await asyncio.sleep(self.latency() / 2)
        try:
            response = await self._outcome(request, call, data, files)
        except Exception as error:
            self.violations.append(f"the emulator failed: {call.call}: {error!r}")
            raise
        for tell in self.watchers:
            tell(replace(call, status=response.status if response else None))
        await asyncio.sleep(self.latency() / 2)
        # The transport is gone when the bot has hung up meanwhile.
        if response is not None and request.transport:
            self.calls[place] = replace(call, status=response.status)
        elif request.transport:
            request.transport.abort()
        return response or web.Response()

    async def _outcome(
        self, request: web.Request, call: Call, data: bytes, files: _Files
    ) -> web.Response | None:
        """Do the work and return the answer; None where the connection is to be closed.

        What is wrong with a call is told before anything else can happen to it.
        """
        route, ids = self._find(call.method, call.path)
        if route is None:
            self.unknown.append(call.call)
            return _nowhere()
        asked = Request(ids, request.query, _parsed(data), files)
        called = route.method, route.template
        self.violations += spec.query_problems(*called, asked.query)
        self.violations += spec.request_problems(*called, asked.json)
        strange = [f"?{key}" for key in asked.query if key not in route.queries]
        if data and not (files or request.content_type == "application/json"):
            strange.append(f"as {request.content_type}")
        self.unknown += [f"{call.call} {one}" for one in strange]
        if strange:
            return _nowhere()
        return await self._struck(self.faults.strike(call.call), request, route, asked)

    async def _struck(
        self, fault: Fault | None, request: web.Request, route: Route, asked: Request
    ) -> web.Response | None:
        """Answer, or let the answer go wrong."""
        if fault is None:
            return self._guarded(request, route, asked)
        await fault.opened()
        answer = None
        if fault.applied or fault.how == "late":
            answer = self._guarded(request, route, asked)
        if fault.how == "late":
            await asyncio.sleep(fault.seconds)
            return answer
        if fault.how == "hang":
            await self.closing.wait()
        return _failure(fault) if fault.how == "status" else None

    def _guarded(self, request: web.Request, route: Route, asked: Request) -> web.Response:
        response = self._answer(route, request, asked)
        self.violations += spec.answer_problems(
            route.method, route.template, response.status, _parsed(response.text)
        )
        return response

    def _answer(self, route: Route, request: web.Request, asked: Request) -> web.Response:
        if not route.open:
            if request.headers.get("Authorization") != f"Bot {self.token}":
                return _response(401, {"message": "401: Unauthorized", "code": 0})
            if wait := self.meter.take("everything").wait:
                about = {"X-RateLimit-Global": "true", "X-RateLimit-Scope": "global"}
                return _late(wait, about, everywhere=True)
        headers: dict[str, str] = {}
        if route.bucket:
            reading = self.meter.take(route.bucket, asked.ids.get(route.key, ""))
            headers = reading.headers
            if reading.wait:
                return _late(reading.wait, headers | {"X-RateLimit-Scope": "user"})
        try:
            status, answer = route.answer(asked)
        except Refusal as refusal:
            return _response(refusal.status, refusal.body, headers | _waits(refusal.body))
        return _response(status, answer, headers)

    def _find(self, method: str, path: str) -> tuple[Route | None, dict[str, str]]:
        for route in self.routes:
            match = route.pattern.fullmatch(path)
            if match and route.method == method:
                return route, match.groupdict()
        return None, {}


async def _read(request: web.Request) -> tuple[bytes, _Files]:
    """Return the JSON of a request, and its files (docs: Uploading Files)."""
    if request.content_type != "multipart/form-data":
        return await request.read(), {}
    data, files = b"", _Files()
    async for part in await request.multipart():
        if isinstance(part, BodyPartReader) and part.name == "payload_json":
            data = bytes(await part.read())
        elif isinstance(part, BodyPartReader):
            files[str(part.name)] = str(part.filename), bytes(await part.read())
    return data, files


def _nowhere() -> web.Response:
    return _response(404, {"message": "404: Not Found", "code": 0})


def _parsed(data: str | bytes | None) -> object:
    try:
        return json.loads(data or "")
    except ValueError:
        return None


def _failure(fault: Fault) -> web.Response:
    """Return the answer that a test asked for; its headers are all that it has."""
    status, body, headers = fault.status, fault.body, dict(fault.headers or {})
    if status == 429:
        wait = _RETRY_SECONDS if fault.retry_after is None else float(fault.retry_after)
        body = _slow_down(wait, everywhere=False) if body is None else body
        headers = {"Retry-After": str(math.ceil(wait)), "X-RateLimit-Scope": "user"} | headers
    if body is None:
        body = {"message": f"{status}: {responses.get(status, '')}", "code": 0}
    return _response(status, body, headers, via=False)


def _late(wait: float, headers: Mapping[str, str], *, everywhere: bool = False) -> web.Response:
    body = _slow_down(wait, everywhere=everywhere)
    return _response(429, body, {**headers, **_waits(body)})


def _slow_down(wait: float, *, everywhere: bool) -> Payload:
    """Return docs: Rate Limits, "Rate Limit Response Structure"."""
    message = "You are being rate limited."
    return {"message": message, "retry_after": wait, "global": everywhere}


def _waits(body: Payload) -> dict[str, str]:
    """Return the header of an answer that asks to wait: whole seconds."""
    wait = body.get("retry_after")
    return {"Retry-After": str(math.ceil(wait))} if isinstance(wait, float) else {}


def _response(
    status: int, body: object, headers: Mapping[str, str] | None = None, *, via: bool = True
) -> web.Response:
    """Make an answer whose type names no charset: discord.py would take it for text."""
    data = None if status == 204 else json.dumps(body).encode()
    kind = None if status == 204 else "application/json"
    own = {**(VIA if via else {}), **(headers or {})}
    return web.Response(status=status, body=data, headers=own, content_type=kind)
