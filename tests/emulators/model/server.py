"""The door of the emulated server: who asks, what goes wrong, and which endpoint answers."""

from __future__ import annotations

import asyncio
import json
import time

from aiohttp import web

from bot.domain import Json
from tests.emulators.faults import Fault, Faults
from tests.emulators.model import servers
from tests.emulators.model.asked import Asked
from tests.emulators.model.behaviour import Behaviour
from tests.emulators.model.completion import Completion, cut, failed, plain
from tests.emulators.model.rules import complaint
from tests.emulators.model.servers import Dialect, Refused
from tests.emulators.serving import port


class Server:
    """Answers requests as its dialect and the behaviour say, and keeps a record of each."""

    def __init__(self, behaviour: Behaviour, dialect: Dialect) -> None:
        self.requests: list[Asked] = []
        self.unknown: list[str] = []
        self.violations: list[str] = []
        self.peers: set[int] = set()
        self.busy: set[object] = set()  # connections with a request under way
        self.running = 0
        self.most_running = 0
        self.faults = Faults()
        self.closing = asyncio.Event()
        self._behaviour = behaviour
        self._dialect = dialect

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Answer one request."""
        at, body = time.monotonic(), await _body(request)
        asked = Asked(
            call=f"{request.method} {request.path}",
            at=at,
            headers=request.headers.copy(),
            body=body if isinstance(body, dict) else {},
        )
        fault = self.faults.strike(asked.call)
        is_completion = asked.call == servers.COMPLETIONS
        if is_completion:
            self.peers.add(port(request))
            self.requests.append(asked)
        self.busy.add(request.protocol)
        self.running += is_completion
        self.most_running = max(self.most_running, self.running)
        try:
            return await self._attend(request, asked, body=body, fault=fault)
        finally:
            self.running -= is_completion
            self.busy.discard(request.protocol)

    async def _attend(
        self, request: web.Request, asked: Asked, *, body: Json, fault: Fault | None
    ) -> web.StreamResponse:
        try:
            await asyncio.sleep(self._behaviour.latency / 2)
            if fault is not None and fault.at_once:
                if early := await self._misbehave(request, asked, fault):
                    return early
                fault = None
            self._let_in(request, asked)
            return await self._answer(request, asked, body=body, fault=fault)
        except Refused as refused:
            return await self._reply(asked, plain(refused.status, refused.body, refused.headers))
        except (asyncio.CancelledError, ConnectionError) as error:
            if not self.closing.is_set():
                asked.hung_up_at = time.monotonic()
            if isinstance(error, asyncio.CancelledError):
                raise
            # aiohttp would log it as a failure of ours.
            cut(request, reset=False)
            return web.Response()
        except Exception as error:
            self.violations.append(f"the emulator failed: {error!r}")
            raise

    async def _reply(self, asked: Asked, response: web.Response) -> web.Response:
        """Let an answer that is there go out, after the second half of the latency."""
        await asyncio.sleep(self._behaviour.latency / 2)
        asked.status = response.status
        return response

    async def _misbehave(
        self, request: web.Request, asked: Asked, fault: Fault
    ) -> web.StreamResponse | None:
        """Let a call go wrong before its headers; None lets it go on."""
        await fault.opened()
        match fault.how:
            case "status":
                error = self._dialect.error(fault.status, f"emulated failure {fault.status}")
                return await self._reply(asked, failed(fault, error))
            case "late":
                await asyncio.sleep(fault.seconds)
                return None
            case "hang":
                await self.closing.wait()
        await asyncio.sleep(self._behaviour.latency / 2)
        cut(request, reset=fault.how == "reset")
        return web.Response()

    def _let_in(self, request: web.Request, asked: Asked) -> None:
        """Raise Refused for who has no key, and for a path that this kind of server has not."""
        endpoint, dialect = _endpoint(request), self._dialect
        if endpoint not in dialect.endpoints and not servers.PROBES.fullmatch(asked.call):
            self.unknown.append(asked.call)
        key = self._behaviour.api_key
        given = asked.headers.get("Authorization")
        if key is not None and given != f"Bearer {key}" and endpoint not in dialect.open_calls:
            raise Refused(401, dialect.error(401, dialect.key_refused))
        if endpoint not in dialect.endpoints:
            raise self._nowhere()

    def _nowhere(self) -> Refused:
        return Refused(404, self._dialect.error(404, "File Not Found"))

    async def _answer(
        self, request: web.Request, asked: Asked, *, body: Json, fault: Fault | None
    ) -> web.StreamResponse:
        endpoint = _endpoint(request)
        if endpoint == servers.COMPLETIONS:
            self._judge(asked, body)
            return await self._complete(request, asked, fault)
        name = request.match_info.get("name", "") or str(asked.body.get("model", ""))
        told = self._dialect.tell(endpoint, self._behaviour.served(), name)
        return await self._reply(asked, plain(200, told, {}))

    async def _complete(
        self, request: web.Request, asked: Asked, fault: Fault | None
    ) -> web.StreamResponse:
        if name := asked.body.get("model"):
            self._dialect.find(str(name), self._behaviour.served())
        served = self._behaviour.served()
        names = (str(name), str(name).partition(":")[0])
        asked_for = next((one for one in names if one in served.models), served.name)
        is_blind = asked.pictures and asked_for not in served.seeing
        if is_blind and (refused := self._dialect.blind(asked_for)):
            raise refused
        lacks_tools = asked.tools and asked_for not in served.calling
        if lacks_tools and (refused := self._dialect.toolless(asked_for)):
            raise refused
        need, context = self._behaviour.need(asked), self._behaviour.context
        if context is not None and (refused := self._dialect.too_long(need, context)):
            raise refused
        asked.unread = 0 if context is None else self._dialect.unread(need, context)
        completion = Completion(
            request,
            asked,
            behaviour=self._behaviour,
            dialect=self._dialect,
            fault=fault,
            closing=self.closing,
        )
        return await completion.send()

    def _judge(self, asked: Asked, body: Json) -> None:
        """Raise Refused when a request breaks a rule, and note that it did."""
        if strange := next((name for name in self._behaviour.refuses if name in asked.body), None):
            stray = f"{strange}: extra fields are not permitted"
            told = stray if self._behaviour.names_them else "Invalid request"
            raise Refused(422, self._dialect.error(422, told))
        if found := complaint(body) or self._dialect.complaint(asked.body):
            self.violations.append(f"{asked.call}: {found}")
            raise Refused(400, self._dialect.error(400, found))


def _endpoint(request: web.Request) -> str:
    """Return what was asked for, with the names of an address's parts in place of the parts."""
    resource = request.match_info.route.resource
    assert resource is not None
    return f"{request.method} {resource.canonical}"


async def _body(request: web.Request) -> Json:
    """Return a request's body; None where it is no JSON."""
    try:
        body: Json = json.loads(await request.read())
    except ValueError:
        return None
    return body
