"""One request to a model server: huggingface_hub composes it, aiohttp carries it.

A token costs 46 microseconds so, and 77 where httpx2 carries it, whose parser is not written in C
(bench/model.py, huggingface_hub 2.4, httpx2 2.16). Every process has aiohttp already, for Discord,
for Slack or for its own health page.
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from contextvars import ContextVar
from functools import cache
from typing import Any
from urllib.parse import SplitResult, urlsplit

import aiohttp
import httpx2
from huggingface_hub import get_async_session, set_async_client_factory
from huggingface_hub.errors import OfflineModeIsEnabled

from bot.domain import Json
from bot.errors import CannotStart, ModelError
from bot.model.server import ModelServer
from bot.proxy import proxy_for

_CONNECT_SECONDS = 10.0
_KEEP_SECONDS = 60.0  # how long an unused connection waits for the next stream
_TAIL_SECONDS = 0.25  # how long the end of an answer may wait for the end of its body
_BODY_SECONDS, _BODY_BYTES = 5.0, 65_536  # how much of a refusal is read
_TLS_SECONDS = 2.0  # how long a look for HTTPS may take
_TAIL_EVENTS = 100  # how many are looked at meanwhile
_NO_STREAM = ("text/html", "application/json", "application/problem+json")
_MARK, _DATA, _DONE = "\ufeff".encode(), b"data:", b"[DONE]"
# That are read at once, some ten tokens of an honest server that we keep up with: others have their
# turn in the event loop after it.
_PART_BYTES = 4096
_WAITING_BYTES = 16_384  # at a connection; Linux doubles it
_LINE_BYTES = 1_048_576  # of an event that is not complete yet
# Of all that is sent for an answer. An event has some 300 bytes for a token, 1,000 from servers
# that say much beside it: so it holds an answer with 60,000 tokens of thoughts.
_STREAM_BYTES = 64_000_000
# What aiohttp says of itself and of the way, whatever the library's client would say.
_HOP = {"host", "connection", "content-length", "accept-encoding"}

_Hook = Callable[[httpx2.Request], Awaitable[object]]


@asynccontextmanager
async def open_pool(server: ModelServer) -> AsyncIterator[aiohttp.ClientSession]:
    """Open the connections to a server. CannotStart when its URL is no web address."""
    is_secure = _address(server.url).scheme == "https"
    proxy = proxy_for(server.url)
    try:
        _library_hooks()
    # What its client says of a proxy; the text of some of it holds the address.
    except (ImportError, ValueError, httpx2.InvalidURL) as error:
        raise CannotStart(
            f"HTTP_PROXY, HTTPS_PROXY or ALL_PROXY cannot be used ({type(error).__name__})"
        ) from error
    set_async_client_factory(_client_for_call)
    connector = aiohttp.TCPConnector(
        # aiohttp's own limit is 100; a stream beyond it would wait without a sign.
        limit=0,
        keepalive_timeout=_KEEP_SECONDS,
        socket_factory=_socket,
        ssl=_certificates() if is_secure else False,
    )
    async with aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        # ChatModel bounds every wait; only the connection has a shorter time-out of its own.
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS),
        # aiohttp would heed the environment's proxies, but also a ~/.netrc, which it cannot combine
        # with the library's Authorization.
        proxy=proxy,
    ) as pool:
        yield pool


async def told(
    pool: aiohttp.ClientSession,
    server: ModelServer,
    path: str,
    question: Json = None,
    *,
    most: int,
) -> Json:
    """Return what a server of one's own says beside its chats; None where it says no JSON.

    `path` begins at the server's root, a `question` is posted, and `most` bounds what is read, in
    bytes. The caller bounds the wait.
    """
    try:
        return await asked(pool, server, path, question, most=most)
    except (aiohttp.ClientError, OSError):
        return None


async def asked(
    pool: aiohttp.ClientSession,
    server: ModelServer,
    path: str,
    question: Json = None,
    *,
    most: int,
) -> Json:
    """Do as `told` does, but raise what aiohttp and the network raise."""
    root = str(httpx2.URL(server.url).copy_with(userinfo=b"")).rstrip("/").removesuffix("/v1")
    async with pool.request(
        "POST" if question else "GET",
        root + path,
        data=json.dumps(question) if question else None,
        headers={"Authorization": _credentials(server), "Content-Type": "application/json"},
        allow_redirects=False,
    ) as response:
        if response.status != 200:
            return None
        body = await read(response, most=most)
    try:
        said: Json = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return said


async def read(response: aiohttp.ClientResponse, *, most: int) -> bytes:
    """Return a body, or a little more than `most` bytes of its beginning."""
    body = bytearray()
    await _read(response, body, most=most)
    return bytes(body)


def _credentials(server: ModelServer) -> str:
    """Return what goes before the key where an address has it, as the library has it too."""
    address = httpx2.URL(server.url)
    if address.username or address.password:
        return aiohttp.encode_basic_auth(address.username, address.password, "utf-8")
    return f"Bearer {server.key}"


class StreamingRequest(httpx2.AsyncBaseTransport):
    """One stream's request and the events of its answer; closing it hangs up.

    It is the transport of the client that the library makes inside `sending`, and so the one place
    that sees the answer itself: refusals become ModelError before the library reads them.
    Calls that have `turn` in common read what comes in masses one after the other.
    """

    def __init__(
        self, *, server: ModelServer, pool: aiohttp.ClientSession, turn: asyncio.Lock
    ) -> None:
        self._server = server
        self._pool = pool
        self._turn = turn
        self._response: aiohttp.ClientResponse | None = None
        self._rest = bytearray()  # of a line that has not ended
        self._left = _STREAM_BYTES
        self._begun = False  # whether a line has come
        self.ended = False  # whether the answer's body is, or the server has said that it is
        self.done = False  # whether the server has said that the answer is complete

    @contextmanager
    def sending(self) -> Iterator[None]:
        """Let the library send through this call what it is asked for meanwhile."""
        token = _current_call.set(self)
        try:
            yield
        except OfflineModeIsEnabled as error:
            raise self._server.failure("offline", "is not asked offline") from error
        finally:
            _current_call.reset(token)

    @property
    def hooks(self) -> list[_Hook]:
        """What the library does before each request: its request ids, its offline mode."""
        # A server of one's own is asked in offline mode too.
        return [] if self._server.own else _library_hooks()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send the request; the answer's events are not for the library. Raises ModelError."""
        await self.aclose()  # what an earlier try has left
        response = self._response = await self._send(request)
        kind = response.headers.get("Content-Type", "").lower()
        if 200 <= response.status < 300 and not kind.startswith(_NO_STREAM):
            return httpx2.Response(response.status)
        body = await _read_body(response)
        # So nginx, Apache and Go's servers answer who speaks HTTP to them.
        if response.status == 400 and b"https" in body.lower():
            await self._look_for_tls(request)
        raise self._server.refusal(
            status=response.status,
            headers=response.headers,
            body=body,
            # As a field: within a text its quotes are escaped.
            counts=b'"stream_options"' in request.content,
        )

    async def events(self) -> list[bytes]:
        """Wait for more of the answer and return the data of the events that are complete."""
        part = await self._part()
        self.ended = not part
        self._left -= len(part)
        if len(self._rest) + len(part) >= _PART_BYTES:
            # Not each of many such calls in the same moment; and no time-out would strike where the
            # next part is always there.
            async with self._turn:
                await asyncio.sleep(0)
        first, *others = (part or b"\n").split(b"\n")
        self._rest += first
        if len(self._rest) > _LINE_BYTES:
            raise self._server.failure("garbage", "sent a line without an end")
        if self._left < 0:
            happened = f"sent {_STREAM_BYTES // 1_000_000} MB for one answer"
            raise self._server.failure("garbage", happened)
        if not others:
            return []
        lines = [bytes(self._rest), *others[:-1]]
        self._rest[:] = others[-1]
        if lines and not self._begun:
            # A byte order mark may begin a stream (HTML standard, 9.2.5).
            self._begun, lines[0] = True, lines[0].removeprefix(_MARK)
        events = [line[len(_DATA) :].strip() for line in lines if line.startswith(_DATA)]
        if _DONE in events:
            self.ended = self.done = True
            return events[: events.index(_DONE)]
        return events

    async def tail(self) -> list[bytes]:
        """Read the rest of a complete answer, so that the next one can use the connection.

        Returns the data of the events that are complete, for the count of tokens is among them.
        """
        events: list[bytes] = []
        with suppress(TimeoutError, ModelError):
            async with asyncio.timeout(_TAIL_SECONDS):
                while not self.ended and len(events) < _TAIL_EVENTS:
                    events += await self.events()
                while await self._part():
                    pass
        return events

    async def aclose(self) -> None:
        """Hang up, or leave the connection to the next stream if all was read."""
        if self._response is not None:
            self._response.close()

    async def _part(self) -> bytes:
        """Return what has come of the body, or comes next; nothing at its end."""
        if self._response is None:
            return b""
        try:
            # What is decompressed comes without waiting, and time-outs would never strike.
            if "Content-Encoding" in self._response.headers:
                await asyncio.sleep(0)
            return await self._response.content.read(_PART_BYTES)
        except (aiohttp.ClientError, OSError) as error:
            raise self._server.failure("cut", "cut the answer off") from error

    async def _send(self, request: httpx2.Request) -> aiohttp.ClientResponse:
        dropped = (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError)
        try:
            try:
                return await self._post(request)
            except aiohttp.ClientConnectorError:
                raise
            except dropped:
                # Usually a kept connection that the server has closed in the meantime.
                return await self._post(request)
        except aiohttp.ClientConnectorCertificateError as error:
            why = getattr(error.certificate_error, "verify_message", "")
            happened = f"has a certificate that is not trusted ({why})"
            raise self._server.failure("certificate", happened) from error
        except aiohttp.ClientConnectorSSLError as error:
            reason = getattr(error.os_error, "reason", "")
            name = "plain" if reason == "WRONG_VERSION_NUMBER" else "unreachable"
            raise self._server.failure(name, "cannot be spoken to by HTTPS") from error
        except aiohttp.ClientConnectorError as error:
            raise self._server.failure("unreachable", "cannot be reached") from error
        except (*dropped, aiohttp.ClientPayloadError) as error:
            await self._look_for_tls(request)
            raise self._server.failure("closed", "closes the connection") from error
        except aiohttp.ClientHttpProxyError as error:
            raise self._server.failure("unreachable", "cannot be reached") from error
        except aiohttp.ClientResponseError as error:
            await self._look_for_tls(request)
            raise self._server.failure("garbage", "sent what is no HTTP") from error
        except (aiohttp.ClientError, ValueError) as error:
            raise self._server.failure("unreachable", "cannot be reached") from error

    async def _look_for_tls(self, request: httpx2.Request) -> None:
        """Raise what a failure over HTTP means where the server speaks HTTPS instead."""
        if request.url.scheme == "http" and await _speaks_tls(self._pool, request.url):
            raise self._server.failure("tls", "cannot be spoken to by HTTP")

    async def _post(self, request: httpx2.Request) -> aiohttp.ClientResponse:
        return await self._pool.request(
            request.method,
            # Its user and password stand in a header by now.
            str(request.url.copy_with(userinfo=b"")),
            data=request.content,
            headers=[pair for pair in request.headers.multi_items() if pair[0] not in _HOP],
            allow_redirects=False,
        )


# The call for which the library is about to ask for a client.
_current_call: ContextVar[StreamingRequest] = ContextVar("_current_call")


def _client_for_call() -> httpx2.AsyncClient:
    """Make what the library asks for: an HTTP client, that of the stream now being opened."""
    call = _current_call.get()
    return httpx2.AsyncClient(transport=call, timeout=None, event_hooks={"request": call.hooks})


@cache
def _library_hooks() -> list[_Hook]:
    hooks: list[Any] = get_async_session().event_hooks["request"]
    return hooks


def _address(url: str) -> SplitResult:
    with suppress(ValueError):
        address = urlsplit(url)
        if address.scheme in ("http", "https") and address.hostname:
            return address
    raise CannotStart("MODEL_URL is not an address like http://127.0.0.1:8080/v1")


def _socket(address: aiohttp.AddrInfoType) -> socket.socket:
    """Open a socket that holds little of what has come, for the loop has it parsed at once."""
    family, kind, protocol, _, _ = address
    opened = socket.socket(family, kind, protocol)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _WAITING_BYTES)
    return opened


def _certificates() -> ssl.SSLContext:
    """Return what is trusted, as the library has it: SSL_CERT_FILE, SSL_CERT_DIR or the machine."""
    try:
        return httpx2.create_ssl_context()
    except OSError as error:
        raise CannotStart(
            f"SSL_CERT_FILE or SSL_CERT_DIR has no certificates to trust: {error}"
        ) from error


async def _speaks_tls(pool: aiohttp.ClientSession, url: httpx2.URL) -> bool:
    """Whether a server speaks HTTPS, whatever its certificate; it is told nothing."""
    root = url.copy_with(scheme="https", userinfo=b"", raw_path=b"/")
    with suppress(TimeoutError, aiohttp.ClientError, OSError, ValueError):
        async with (
            asyncio.timeout(_TLS_SECONDS),
            pool.head(str(root), ssl=False, allow_redirects=False),
        ):
            return True
    return False


async def _read_body(response: aiohttp.ClientResponse) -> bytes:
    """Return as much of a refusal's body as comes soon."""
    body = bytearray()
    with suppress(TimeoutError, aiohttp.ClientError, OSError):
        async with asyncio.timeout(_BODY_SECONDS):
            await _read(response, body, most=_BODY_BYTES)
    return bytes(body)


async def _read(response: aiohttp.ClientResponse, body: bytearray, *, most: int) -> None:
    while len(body) <= most and (part := await response.content.readany()):
        body += part
