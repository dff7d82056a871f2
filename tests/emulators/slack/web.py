"""The door of Slack's Web API: who may call, how often, what goes wrong on purpose, who answers."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

from aiohttp import web

from tests.emulators.faults import Fault, Faults
from tests.emulators.serving import port
from tests.emulators.slack.app import App
from tests.emulators.slack.arguments import Asked, SlackError, asked
from tests.emulators.slack.interactions import ResponseUrls
from tests.emulators.slack.limits import Limits
from tests.emulators.slack.methods import METHODS, Method
from tests.emulators.slack.payload import Payload
from tests.emulators.slack.truth import Truth, complaints, response_complaints
from tests.emulators.slack.workspace import Workspace

Handler = Callable[[Workspace, Payload], Payload]


@dataclass(frozen=True, slots=True)
class Call:
    """One request of the bot; `at` is in monotonic seconds, `body` is without the token.

    `status` is the HTTP status of the answer, None where there was none; `limited` tells that it
    was 429. `port` is the caller's.
    """

    method: str
    body: Payload
    ok: bool
    error: str | None
    at: float
    status: int | None
    limited: bool
    port: int

    @property
    def call(self) -> str:
        """What a fault's pattern is searched in."""
        return self.method


@dataclass(frozen=True, slots=True)
class Answer:
    """What a call is answered with; without a status the connection closes instead."""

    status: int | None
    body: Payload | str
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def error(self) -> str | None:
        """Slack's word for what went wrong, None when nothing did."""
        body = self.body if isinstance(self.body, dict) else {}
        return None if body.get("ok") else str(body.get("error", self.status))

    def response(self, request: web.Request) -> web.Response:
        """Return it as HTTP."""
        if self.status is None:
            if request.transport:
                request.transport.close()
            return web.Response()
        body = self.body if isinstance(self.body, str) else json.dumps(self.body)
        headers = {"Content-Type": "application/json; charset=utf-8", **self.headers}
        return web.Response(status=self.status, text=body, headers=headers)


class WebApi:
    """Answers the bot's requests and keeps what they were; `methods` has who does the work.

    Without `knows_feedback`, blocks with feedback buttons are refused, as by a Slack that does not
    know them (guess: with the error that other wrong blocks get).
    """

    def __init__(
        self,
        app: App,
        limits: Limits,
        responses: ResponseUrls,
        truth: Truth,
        *,
        latency: Callable[[], float],
        now: Callable[[], float],
    ) -> None:
        self.methods: dict[str, Handler] = {}
        self.requests: list[Call] = []
        self.unknown: list[str] = []
        self.watchers: list[Callable[[Call], object]] = []
        self.faults = Faults()
        self._latency = latency
        self._now = now
        self.knows_feedback = True
        self.closing = asyncio.Event()
        self._truth = truth
        self._app = app
        self._limits = limits
        self._responses = responses

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Answer one call of a method."""
        name, call = request.match_info["method"], await asked(request)
        args = {**call.args, **call.body}
        self._truth.violations += complaints(name, _seen(name, call))
        return await self._respond(request, name, args, lambda: self._call(name, call))

    async def serve_oauth(
        self, request: web.Request, access: Callable[[web.Request, str], Payload]
    ) -> web.StreamResponse:
        """Answer oauth.v2.access, which takes a form, and an app's secret in place of a token."""
        body = await request.text()

        def work() -> Answer:
            try:
                answer = Answer(200, {"ok": True, **access(request, body)})
            except SlackError as error:
                answer = _refused(error)
            if isinstance(answer.body, dict):
                self._truth.answered("oauth.v2.access", answer.body)
            return answer

        return await self._respond(request, "oauth.v2.access", dict(parse_qsl(body)), work)

    async def serve_response(self, request: web.Request) -> web.StreamResponse:
        """Take what is posted to a response_url, which is recorded as a method of that name."""
        key, body = request.match_info["key"], json.loads(await request.read())
        self._truth.violations += response_complaints(body)
        return await self._respond(request, "response_url", body, lambda: self._take(key, body))

    async def _respond(
        self, request: web.Request, name: str, args: Payload, work: Callable[[], Answer]
    ) -> web.StreamResponse:
        at = time.monotonic()
        fault = self.faults.strike(name)
        await asyncio.sleep(self._latency() / 2)
        if fault:
            await fault.opened()
        answer = self._answer(name, fault, work)
        error, limited = answer.error, answer.status == 429
        ok, caller = error is None, port(request)
        self.requests.append(Call(name, args, ok, error, at, answer.status, limited, caller))
        for tell in self.watchers:
            tell(self.requests[-1])
        if fault and fault.how == "hang":
            await self.closing.wait()
        await asyncio.sleep(self._latency() / 2 + (fault.seconds if fault else 0.0))
        return answer.response(request)

    def _answer(self, name: str, fault: Fault | None, work: Callable[[], Answer]) -> Answer:
        """Return what is answered; an error of the emulator's own fails the test."""
        try:
            return work() if fault is None or fault.how == "late" else _wrong(fault, work)
        except Exception as error:
            self._truth.violations.append(f"the emulator failed: {name}: {error!r}")
            return Answer(500, {"ok": False, "error": "fatal_error"})

    def _call(self, name: str, call: Asked) -> Answer:
        method, handler = METHODS.get(name), self.methods.get(name)
        if method is None or handler is None:
            self.unknown.append(name)
            return _refused(SlackError("unknown_method", req_method=name))
        try:
            answer = self._work(name, method, handler, call)
        except SlackError as error:
            answer = _refused(error)
        if isinstance(answer.body, dict):
            self._truth.answered(name, answer.body)
        return answer

    def _work(self, name: str, method: Method, handler: Handler, call: Asked) -> Answer:
        if call.refusal:
            raise call.refusal
        workspace = self._app.caller(method, call, now=self._now())
        args = _seen(name, call)
        if wait := self._limits.wait(name, workspace, args):
            return _limited(wait)
        self._app.check_scopes(method, args, workspace)
        if not self.knows_feedback and "context_actions" in str(args.get("blocks")):
            raise SlackError("invalid_blocks")
        headers = {"X-OAuth-Scopes": ",".join(sorted(self._app.scopes))}
        return Answer(200, {"ok": True, **handler(workspace, args)}, headers)

    def _take(self, key: str, body: Payload) -> Answer:
        try:
            self._responses.use(key, body)
        except SlackError as error:
            return Answer(404, {"ok": False, "error": error.code})
        return Answer(200, {"ok": True})


def _seen(name: str, call: Asked) -> Payload:
    """Return the arguments that a method sees."""
    method = METHODS.get(name)
    return call.args if method and method.form_only else {**call.args, **call.body}


def _refused(error: SlackError) -> Answer:
    return Answer(200, {"ok": False, "error": error.code, **error.details})


def _limited(wait: float) -> Answer:
    """Return Slack's refusal for now; the seconds are whole (docs: Rate limits, "Responding")."""
    return Answer(429, {"ok": False, "error": "ratelimited"}, {"Retry-After": str(math.ceil(wait))})


def _wrong(fault: Fault, work: Callable[[], Answer]) -> Answer:
    """Return what a call that goes wrong is answered with."""
    if fault.applied:
        work()
    if fault.how != "status":
        return Answer(None, {"ok": False, "error": "hung" if fault.how == "hang" else "dropped"})
    usual = Answer(fault.status, {"ok": False, "error": "internal_error"})
    if fault.status == 429:
        usual = _limited(fault.retry_after or 1)
    headers = {**usual.headers, **(fault.headers or {})}
    if fault.body is None:
        return Answer(fault.status, usual.body, headers)
    body = fault.body if isinstance(fault.body, dict | str) else json.dumps(fault.body)
    return Answer(fault.status, body, headers)
