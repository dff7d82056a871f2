"""One pool of connections to a model server, and its requests.

aiohttp carries the requests: a token costs 46 microseconds that way and 77 with httpx2, whose
parser is not written in C (bench/model.py, httpx2 2.16). Every process loads aiohttp already,
for Discord, Slack or the health page.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
import ssl
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass, replace
from io import BytesIO

import aiohttp
import httpx2
from yarl import URL

from bot.domain import Json, Picture
from bot.errors import CannotStart, ModelError
from bot.model.server import ModelServer, parsed_object
from bot.proxy import proxy_for

_CONNECT_SECONDS = 10.0
# Received bytes that a connection may hold; the event loop parses them at once. Linux doubles it.
_RECEIVE_BYTES = 16_384
_KEEP_SECONDS = 60.0  # how long an unused connection is kept
_BODY_SECONDS, _BODY_BYTES = 5.0, 65_536  # how much of a refusal is read
# The responses of nginx, Apache and Go's servers to HTTP on an HTTPS port.
_SPEAKS_HTTPS = (
    b"plain HTTP request was sent to HTTPS port",
    b"speaking plain HTTP to an SSL-enabled server port",
    b"Client sent an HTTP request to an HTTPS server",
)
_OBJECT_BYTES = 4_000_000  # of what a server says of a model: Ollama sends a licence along
_NO_STREAM = ("text/html", "application/json", "application/problem+json")
_DROPPED = (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError)
_CLOSED = (*_DROPPED, aiohttp.ClientPayloadError)
# Where the data of a picture belongs. No text of a message has such quotes: JSON escapes them.
_ADDRESS = re.compile(rb'"url": "data:[^"]*')
_DATA, _DONE = b"data:", b"[DONE]"
_TAIL_SECONDS = 0.25  # how long a complete answer waits for the end of its body
# The most bytes read at once, about ten tokens if they are read as fast as they are sent.
_CHUNK_BYTES = 4096
# Of an incomplete event; each answer may buffer as much. A whole answer in one event,
# with each character escaped, may have 40,000 characters.
_LINE_BYTES = 262_144


@asynccontextmanager
async def connect(server: ModelServer) -> AsyncIterator[ServerConnection]:
    """Open the pool for a server; nothing is sent yet.

    Raises CannotStart if the URL is no web address, or a proxy or certificate setting is unusable.
    """
    connector = aiohttp.TCPConnector(
        # aiohttp's own limit is 100; further streams would wait silently.
        limit=0,
        keepalive_timeout=_KEEP_SECONDS,
        socket_factory=_open_socket,
        ssl=certificates() if _scheme(server.url) == "https" else False,
    )
    async with aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        # The callers bound every wait; only connecting has a shorter time-out of its own.
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS),
        # With `trust_env` aiohttp would also read ~/.netrc, which it cannot combine with an
        # Authorization header.
        proxy=proxy_for(server.url),
    ) as pool:
        yield ServerConnection(server, pool)


@dataclass(frozen=True, slots=True)
class ServerConnection:
    """A server and the pool that all requests to it share."""

    server: ModelServer
    pool: aiohttp.ClientSession

    def for_model(self, model: str) -> ServerConnection:
        """Return the same connection for another model of the server."""
        return replace(self, server=replace(self.server, model=model))

    async def get_object(self, path: str, body: Json = None) -> Mapping[str, Json]:
        """Request a path below the server's root, by POST if there is a `body`.

        Returns {} if the answer is not HTTP 200 with a JSON object. Raises aiohttp.ClientError or
        OSError if there is no answer. The caller bounds the wait.
        """
        root = str(URL(self.server.url).with_user(None)).rstrip("/").removesuffix("/v1")
        async with self.pool.request(
            "POST" if body else "GET",
            root + path,
            data=json.dumps(body) if body else None,
            headers={"Authorization": self._authorization(), "Content-Type": "application/json"},
            allow_redirects=False,
        ) as response:
            if response.status != 200:
                return {}
            return parsed_object(await read_body(response, max_bytes=_OBJECT_BYTES))

    async def open_stream(
        self,
        url: str,
        *,
        headers: Mapping[str, str],
        body: Mapping[str, Json],
        pictures: Sequence[Picture],
    ) -> EventStream:
        """Post a request that asks for a stream. Raises ModelError if the server refuses it.

        The data of the `pictures` is added to their addresses in the body.
        """
        data = json.dumps(body).encode()
        if pictures:
            data = await asyncio.to_thread(_with_pictures, data, pictures)
        response = await self._send(
            lambda: self.pool.post(
                URL(url).with_user(None),
                # aiohttp sends more than a megabyte of bytes at once, and warns of it.
                data=BytesIO(data) if pictures else data,
                headers={**headers, "authorization": self._authorization()},
                allow_redirects=False,
            )
        )
        kind = response.headers.get("Content-Type", "").lower()
        if 200 <= response.status < 300 and not kind.startswith(_NO_STREAM):
            return EventStream(self.server, response)
        text = b""  # as much as comes soon
        with closing(response), suppress(aiohttp.ClientError, OSError):
            async with asyncio.timeout(_BODY_SECONDS):
                while len(text) <= _BODY_BYTES and (chunk := await response.content.readany()):
                    text += chunk
        if response.status == 400 and any(mark in text for mark in _SPEAKS_HTTPS):
            raise self.server.failure("tls", "cannot be reached by HTTP")
        raise self.server.refusal(
            status=response.status,
            headers=response.headers,
            body=text,
            has_stream_options="stream_options" in body,
            has_pictures=bool(pictures),
            has_tools="tools" in body,
        )

    def _authorization(self) -> str:
        """Return the credentials in the address, or else the key."""
        address = URL(self.server.url)
        if address.user or address.password:
            return aiohttp.encode_basic_auth(address.user or "", address.password or "", "utf-8")
        return f"Bearer {self.server.key}"

    async def _send(
        self, post: Callable[[], Awaitable[aiohttp.ClientResponse]]
    ) -> aiohttp.ClientResponse:
        try:
            try:
                return await post()
            except aiohttp.ClientConnectorError:
                raise
            except _DROPPED:
                # Usually a pooled connection that the server has closed in the meantime.
                return await post()
        except (aiohttp.ClientError, ValueError) as error:
            raise self.failure_of(error) from error

    def failure_of(self, error: Exception) -> ModelError:
        """Return what the error of a request means."""
        name, happened = "unreachable", "cannot be reached"
        match error:
            case aiohttp.ClientConnectorCertificateError():
                reason = getattr(error.certificate_error, "verify_message", "")
                name, happened = "certificate", f"has a certificate that is not trusted ({reason})"
            case aiohttp.ClientConnectorSSLError():
                happened = "cannot be reached by HTTPS"
                if getattr(error.os_error, "reason", "") == "WRONG_VERSION_NUMBER":
                    name = "plain"
            case aiohttp.ClientProxyConnectionError():
                happened = "is behind a proxy that cannot be reached (HTTP_PROXY, HTTPS_PROXY)"
            case aiohttp.ClientConnectorError() | aiohttp.ClientHttpProxyError():
                pass
            case aiohttp.ClientError() if isinstance(error, _CLOSED):
                name, happened = "closed", "closes the connection"
            case aiohttp.ClientResponseError():
                name, happened = "garbage", "does not answer in HTTP"
        return self.server.failure(name, happened)


class EventStream:
    """The server-sent events of one answer; closing it closes the connection."""

    def __init__(self, server: ModelServer, response: aiohttp.ClientResponse) -> None:
        self.ended = False  # the body has ended, or the server has sent [DONE]
        self.done = False  # the server has sent [DONE]
        self._server = server
        self._response = response
        self._partial_line = bytearray()

    async def read_events(self) -> list[bytes]:
        """Wait for more of the answer; return the data of the events that are complete."""
        chunk = await self._read_chunk()
        self.ended = not chunk
        # The last line of a body may lack its line end.
        first, *others = (chunk or b"\n").split(b"\n")
        self._partial_line += first
        if len(self._partial_line) > _LINE_BYTES:
            raise self._server.failure("garbage", "sent a line without an end")
        if not others:
            return []
        lines = [bytes(self._partial_line), *others[:-1]]
        self._partial_line[:] = others[-1]
        events = [line[len(_DATA) :].strip() for line in lines if line.startswith(_DATA)]
        if _DONE in events:
            self.ended = self.done = True
            return events[: events.index(_DONE)]
        return events

    async def read_tail(self) -> list[bytes]:
        """Read to the end of a complete answer, so that its connection can be used again.

        Returns the data of the complete events; the token counts are among them.
        """
        events: list[bytes] = []
        with suppress(TimeoutError, ModelError):
            async with asyncio.timeout(_TAIL_SECONDS):
                while not self.ended:
                    events += await self.read_events()
                while await self._read_chunk():
                    pass
        return events

    def close(self) -> None:
        """Close the connection; if its body was read to the end, return it to the pool."""
        self._response.close()

    async def _read_chunk(self) -> bytes:
        """Return the next bytes of the body; b"" at its end."""
        try:
            # Bytes may be available without waiting; then a time-out would not fire.
            await asyncio.sleep(0)
            return await self._response.content.read(_CHUNK_BYTES)
        except (aiohttp.ClientError, OSError) as error:
            raise self._server.failure("cut", "cut the answer off") from error


async def read_body(response: aiohttp.ClientResponse, *, max_bytes: int) -> bytes:
    """Return a body, or a little more than `max_bytes` of its beginning."""
    body = bytearray()
    while len(body) <= max_bytes and (chunk := await response.content.readany()):
        body += chunk
    return bytes(body)


def _with_pictures(body: bytes, pictures: Sequence[Picture]) -> bytes:
    # `json.dumps` would hold the event loop for some 40 ms for 4 MB, even in another thread.
    data = iter(pictures)
    return _ADDRESS.sub(lambda found: found[0] + b64encode(next(data).data), body)


def _scheme(url: str) -> str:
    with suppress(ValueError):
        address = URL(url)
        if address.scheme in ("http", "https") and address.host:
            return address.scheme
    raise CannotStart("MODEL_URL is not an address like http://127.0.0.1:8080/v1")


def _open_socket(address: aiohttp.AddrInfoType) -> socket.socket:
    opened = socket.socket(*address[:3])  # family, type and protocol
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BYTES)
    return opened


def certificates() -> ssl.SSLContext:
    """Return the trusted certificates: SSL_CERT_FILE, SSL_CERT_DIR or those of the machine.

    These are httpx2's rules, which also apply to downloads from Hugging Face.
    """
    try:
        return httpx2.create_ssl_context()
    except OSError as error:
        raise CannotStart(
            f"SSL_CERT_FILE or SSL_CERT_DIR has no certificates to trust: {error}"
        ) from error
