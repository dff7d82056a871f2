"""What every call to the emulated REST API meets first: faults, the token, rate limits."""

from __future__ import annotations

import asyncio
import json
import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from aiohttp import web

from tests.emulators.discord import spec
from tests.emulators.discord.forms import Refusal
from tests.emulators.discord.objects import Payload
from tests.emulators.discord.rest import ROUTES, Request, Rest, Route

API = "/api/v10"
# discord.py takes a 429 without this header for a ban by Cloudflare.
_VIA = {"Via": "1.1 discord-emulator"}
_RETRY_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Call:
    """A request of the bot, in the order of arrival.

    `body` is empty where there was none, or an array. `status` is None while there is no answer
    and where there was none. `at` is in monotonic seconds.
    """

    method: str
    path: str
    body: Payload
    status: int | None
    at: float


@dataclass(slots=True)
class Fault:
    """How the next matching calls go wrong, after `after` of them went well."""

    method: str
    path: re.Pattern[str]
    status: int | None
    body: object
    headers: Mapping[str, str]
    hang: bool
    applied: bool
    times: int
    after: int

    def strikes(self, call: Call) -> bool:
        """Return whether this call goes wrong, and count it."""
        matches = call.method == self.method.upper() and self.path.search(call.path)
        if not matches or not self.times:
            return False
        if self.after:
            self.after -= 1
            return False
        self.times -= 1
        return True

    def response(self) -> web.Response | None:
        """Return the answer that `status` and `body` make; None where the connection closes."""
        if self.hang or self.status is None:
            return None
        body = self.body
        if body is None and self.status == 429:
            body = _slow_down(_RETRY_SECONDS)
        if body is None:
            body = {"message": f"{self.status}: made to fail", "code": 0}
        return _response(self.status, body, self.headers)


@dataclass(slots=True)
class Window:
    """How many calls of one bucket have come since it opened; fixed, as Discord's are."""

    calls: int
    seconds: float
    used: int = 0
    ends: float = 0.0

    def take(self, bucket: str) -> tuple[dict[str, str], float | None]:
        """Count a call; return its headers, and the seconds to wait where it came too early."""
        now = time.monotonic()
        if now >= self.ends:
            self.used, self.ends = 0, now + self.seconds
        late = self.used >= self.calls
        self.used += not late
        left = math.ceil((self.ends - now) * 1000) / 1000
        headers = {
            "X-RateLimit-Bucket": bucket,
            "X-RateLimit-Limit": str(self.calls),
            "X-RateLimit-Remaining": str(self.calls - self.used),
            "X-RateLimit-Reset": f"{time.time() + left:.3f}",
            "X-RateLimit-Reset-After": f"{left:.3f}",
        }
        return headers, left if late else None


@dataclass(slots=True)
class Edge:
    """Answers HTTP; `latency` seconds pass on the way, half of them before anything happens."""

    rest: Rest
    token: str
    bucket: tuple[int, float]
    latency: float
    unknown: list[str]
    violations: list[str]
    calls: list[Call] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    windows: dict[tuple[str, str], Window] = field(default_factory=dict)
    closing: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Answer one call, or let it go wrong as it was told to."""
        body = _parsed(await request.text())
        path = request.path.removeprefix(API)
        sent = body if isinstance(body, dict) else {}
        call = Call(request.method, path, sent, None, time.monotonic())
        place = len(self.calls)
        self.calls.append(call)
        await asyncio.sleep(self.latency / 2)
        response = await self._outcome(request, call, body)
        await asyncio.sleep(self.latency / 2)
        # The transport is gone when the bot has hung up meanwhile.
        if response is not None and request.transport:
            self.calls[place] = replace(call, status=response.status)
        elif request.transport:
            request.transport.abort()
        return response or web.Response()

    async def _outcome(self, request: web.Request, call: Call, body: object) -> web.Response | None:
        """Do the work and return the answer; None where the connection is to be closed."""
        fault = next((one for one in self.faults if one.strikes(call)), None)
        if fault is None:
            return self._answer(request, call.path, body)
        if fault.applied:
            self._answer(request, call.path, body)
        if fault.hang:
            await self.closing.wait()
        return fault.response()

    def _answer(self, request: web.Request, path: str, body: object) -> web.Response:
        route, ids = _find(request.method, path)
        if route is None or request.content_type == "multipart/form-data":
            self.unknown.append(f"{request.method} {path}")
            return _response(404, {"message": "404: Not Found", "code": 0})
        if not route.open and request.headers.get("Authorization") != f"Bot {self.token}":
            return _response(401, {"message": "401: Unauthorized", "code": 0})
        headers, wait = self._limit(route, ids)
        if wait is not None:
            late = headers | _VIA | {"Retry-After": str(math.ceil(wait))}
            return _response(429, _slow_down(wait), late | {"X-RateLimit-Scope": "user"})
        if body is not None:
            self.violations += spec.problems(request.method, route.template, body)
        try:
            status, answer = route.answer(self.rest, Request(ids, request.query, body))
        except Refusal as refusal:
            return _response(refusal.status, refusal.body, headers)
        return _response(status, answer, headers)

    def _limit(self, route: Route, ids: Mapping[str, str]) -> tuple[dict[str, str], float | None]:
        if route.limit is None:
            return {}, None
        bucket, key = route.limit
        window = self.windows.setdefault((bucket, ids[key]), Window(*self.bucket))
        return window.take(bucket)


def _find(method: str, path: str) -> tuple[Route | None, dict[str, str]]:
    for route in ROUTES:
        match = route.pattern.fullmatch(path)
        if match and route.method == method:
            return route, match.groupdict()
    return None, {}


def _parsed(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _slow_down(seconds: float) -> Payload:
    return {"message": "You are being rate limited.", "retry_after": seconds, "global": False}


def _response(status: int, body: object, headers: Mapping[str, str] | None = None) -> web.Response:
    """Make an answer whose type names no charset: discord.py would take it for text."""
    data = None if status == 204 else json.dumps(body).encode()
    kind = None if status == 204 else "application/json"
    return web.Response(status=status, body=data, headers=headers, content_type=kind)
