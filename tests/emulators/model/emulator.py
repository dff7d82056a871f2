"""An OpenAI-compatible model server on loopback that answers, stalls and fails on demand."""

from __future__ import annotations

import socket
import ssl
from typing import Self, Unpack

from aiohttp import web

from tests.emulators.faults import Fault, How, Terms
from tests.emulators.model.behaviour import Behaviour
from tests.emulators.model.completion import bound
from tests.emulators.model.failures import FAILURES
from tests.emulators.model.server import Server
from tests.emulators.model.servers import COMPLETIONS, DIALECTS, ENDPOINTS, Flavour
from tests.emulators.serving import judge


class ModelEmulator(Behaviour):
    """Streams chat completions on 127.0.0.1 while its `async with` block lasts.

    `flavour` is the kind of server that it stands in for: its endpoints, errors and token counts;
    with `tls` it speaks HTTPS.
    Behaviour's attributes may be changed between requests. `requests` are the completions that were
    asked for; `running` counts those under way, and `connections` the sockets that brought one.

    Leaving the block raises AssertionError when a path was asked for that this kind of server does
    not have (`unknown`), when a request broke the API's rules or the emulator itself failed
    (`violations`), or when no call met a fault; who means it empties the list, or heals.
    """

    def __init__(
        self, *, flavour: Flavour = "llama.cpp", tls: ssl.SSLContext | None = None
    ) -> None:
        super().__init__()
        self.url = ""
        self._server = Server(self, DIALECTS[flavour])
        self.requests = self._server.requests
        self.unknown = self._server.unknown
        self.violations = self._server.violations
        self._runner: web.AppRunner | None = None
        self._site: web.SockSite | None = None
        self._held: socket.socket | None = None
        self._port = 0
        self._tls = tls

    @property
    def root(self) -> str:
        """The address without /v1, below which the server's own endpoints are."""
        return self.url.removesuffix("/v1")

    @property
    def running(self) -> int:
        return self._server.running

    @property
    def most_running(self) -> int:
        return self._server.most_running

    @property
    def connections(self) -> int:
        return len(self._server.peers)

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=64 * 2**20)
        for method, path in (call.split() for call in ENDPOINTS):
            # A model's name has a slash.
            app.router.add_route(method, path.replace("}", ":.+}"), self._server.serve)
        app.router.add_route("*", "/{path:.*}", self._server.serve)
        # Without it a handler does not learn that its client has left.
        self._runner = web.AppRunner(
            app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1
        )
        await self._runner.setup()
        self._held = bound()
        self._port = self._held.getsockname()[1]
        self.url = f"http{'s' if self._tls else ''}://127.0.0.1:{self._port}/v1"
        await self.accept_connections()
        return self

    async def __aexit__(self, kind: object, *_: object) -> None:
        self._server.closing.set()
        if self._held is not None:
            self._held.close()
        if self._runner is not None:
            await self._runner.cleanup()
        if kind is None:
            judge(unknown=self.unknown, violations=self.violations, faults=self._server.faults)

    async def refuse_connections(self) -> None:
        """Close the port, as a server that has died; answers under way still reach their ends."""
        assert self._runner is not None
        assert self._runner.server is not None
        assert self._site is not None
        await self._site.stop()
        self._site = None
        # Bound and not listening, so that nobody else is given the port meanwhile.
        self._held = bound(self._port)
        for connection in list(self._runner.server.connections):
            if connection in self._server.busy:
                connection.close()  # when its answer is through
            else:
                connection.force_close()

    async def accept_connections(self) -> None:
        """Open the same port again."""
        assert self._runner is not None
        assert self._held is not None
        self._site = web.SockSite(self._runner, self._held, backlog=512, ssl_context=self._tls)
        self._held = None
        await self._site.start()

    def fail(self, call: str, how: How = "status", **terms: Unpack[Terms]) -> Fault:
        """Let the next `times` calls go wrong, after `after` good ones; see Fault.

        `call` is a regular expression to be found in "POST /v1/chat/completions". A body that is a
        string is sent as it is.
        """
        return self._server.faults.add(call, how, **terms)

    def fail_as(self, name: str, *, times: int = 1, after: int = 0) -> None:
        """Let the next completions fail in one of the well-known ways of FAILURES."""
        failure = FAILURES[name]
        self.fail(
            COMPLETIONS,
            failure.how,
            at_delta=failure.at_delta,
            status=failure.status,
            body=failure.body,
            headers=failure.headers,
            retry_after=failure.retry_after,
            times=times,
            after=after,
        )

    def heal(self) -> None:
        """Let every call go well from now on."""
        self._server.faults.heal()
