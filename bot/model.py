"""The model behind an OpenAI-compatible address: streams of deltas, and one tree of failures.

Each stream has an `AsyncInferenceClient` of its own, for that class keeps every response until it
is closed; it costs 20 microseconds. What is dear, connections and TLS, lies in one pool for the
process, which the library's client of each stream borrows through `_Call`. The events of the answer
are read here: making the library's objects of them takes three times as long as all the rest.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar
from functools import cache
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx2
from huggingface_hub import (
    AsyncInferenceClient,
    get_async_session,
    set_async_client_factory,
)
from huggingface_hub.errors import OfflineModeIsEnabled

from bot.domain import Message
from bot.errors import AnswerCut, CannotStart, EmptyAnswer, ModelSilent, ModelUnavailable
from bot.model_server import ModelServer

ROUTER = "https://router.huggingface.co/v1"

_T = TypeVar("_T")

_CONNECT_SECONDS = 10.0
_KEEP_SECONDS = 60.0  # how long an unused connection waits for the next stream
_TAIL_SECONDS = 0.25  # how long the end of an answer may wait for the end of its body
_BODY_SECONDS, _BODY_BYTES = 5.0, 65_536  # how much of a refusal is read
_DATA, _DONE = b"data:", b"[DONE]"


@asynccontextmanager
async def connect(
    *,
    model: str,
    base_url: str | None,
    api_key: str,
    max_tokens: int,
    temperature: float | None,
    top_p: float | None,
    idle_timeout: float,
    total_timeout: float,
) -> AsyncIterator[ChatModel]:
    """Open the connections to a model; without `base_url` to Hugging Face's router.

    The time-outs are in seconds: `idle_timeout` between two signs of life, `total_timeout` for an
    answer. Nothing is sent before the first stream. CannotStart when `base_url` is no web address.
    """
    server = ModelServer(
        # With an empty key the library would send the saved HF_TOKEN, to any address.
        url=base_url or ROUTER,
        key=api_key or "-",
        model=model,
        own=base_url is not None,
    )
    async with _open_pool(server) as pool:
        yield ChatModel(
            server=server,
            pool=pool,
            max_tokens=max_tokens,
            temperature=temperature,
            top_p=top_p,
            idle_timeout=idle_timeout,
            total_timeout=total_timeout,
        )


class ChatModel:
    """Streams answers; satisfies `bot.ports.Model` for as long as `connect` is open."""

    def __init__(
        self,
        *,
        server: ModelServer,
        pool: httpx2.AsyncClient,
        max_tokens: int,
        temperature: float | None,
        top_p: float | None,
        idle_timeout: float,
        total_timeout: float,
    ) -> None:
        self._server = server
        self._pool = pool
        self._max_tokens = max_tokens
        self._temperature = temperature
        self._top_p = top_p
        self._idle_timeout = idle_timeout
        self._total_timeout = total_timeout

    @property
    def name(self) -> str:
        """The model's name as the operator wrote it."""
        return self._server.model

    async def stream(self, prompt: Sequence[Message]) -> AsyncGenerator[str, None]:
        """Yield deltas, never empty, until the answer is complete; raise ModelError otherwise.

        AnswerCut comes after all that MAX_TOKENS, or the model's context, left room for. Closing
        the iterator early hangs up on the server. Time that the caller spends between two deltas
        counts for the total time-out only.
        """
        deadline = asyncio.get_running_loop().time() + self._total_timeout
        call = _Call(server=self._server, pool=self._pool)
        finish, worded = "", False
        async with AsyncInferenceClient(
            base_url=self._server.url, api_key=self._server.key
        ) as client:
            await self._wait(self._ask(client, call, prompt), deadline=deadline)
            while not (finish or call.ended):
                for event in await self._wait(call.events(), deadline=deadline):
                    delta, finish = self._read(event)
                    if delta:
                        worded = worded or not delta.isspace()
                        yield delta
                    if finish:
                        break
            await call.drain()
        if finish == "error" or not (finish or call.done):
            raise ModelUnavailable(f"{self._server} broke the answer off")
        if not worded:
            hint = ": raise MAX_TOKENS" if finish == "length" else ""
            raise EmptyAnswer(f"{self._server} ended its answer without a word{hint}")
        if finish == "length":
            raise AnswerCut(f"{self._server} reached MAX_TOKENS={self._max_tokens}")

    async def _ask(
        self, client: AsyncInferenceClient, call: _Call, prompt: Sequence[Message]
    ) -> None:
        token = _current_call.set(call)
        try:
            await client.chat_completion(
                [{"role": message.role, "content": message.text} for message in prompt],
                model=self._server.model,
                stream=True,
                max_tokens=self._max_tokens,
                temperature=self._temperature,
                top_p=self._top_p,
            )
        finally:
            _current_call.reset(token)

    def _read(self, event: bytes) -> tuple[str, str]:
        """Return an event's text and finish reason, "" where there is none."""
        try:
            said = json.loads(event)
            if said.get("error") is not None:
                raise self._server.event(said)
            return _text_and_finish(said)
        except (ValueError, AttributeError, TypeError, LookupError) as error:
            raise ModelUnavailable(f"{self._server} sent a line that cannot be read") from error

    async def _wait(self, waiting: Awaitable[_T], *, deadline: float) -> _T:
        idle_until = asyncio.get_running_loop().time() + self._idle_timeout
        try:
            async with asyncio.timeout_at(min(idle_until, deadline)):
                return await waiting
        except TimeoutError as error:
            if idle_until < deadline:
                text = (
                    f"{self._server} said nothing for {self._idle_timeout:g} s: is it overloaded?"
                )
            else:
                text = (
                    f"{self._server} did not end its answer in {self._total_timeout:g} s:"
                    " raise REPLY_TIMEOUT, or lower MAX_TOKENS"
                )
            raise ModelSilent(text) from error


class _Call(httpx2.AsyncBaseTransport):
    """One stream's request, sent through the pool; closing it hangs up.

    It is the transport of the client that the library makes for the stream, and so the one place
    that sees the response itself: refusals become ModelError here, before the library reads them.
    """

    def __init__(self, *, server: ModelServer, pool: httpx2.AsyncClient) -> None:
        self._server = server
        self._pool = pool
        self._response: httpx2.Response | None = None
        self._parts: AsyncIterator[bytes]  # there as soon as the server has answered
        self._rest = b""
        self.ended = False  # whether the answer's body is, or the server has said that it is
        self.done = False  # whether the server has said that the answer is complete

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        # ChatModel bounds every wait; only the connection has a shorter time-out of its own.
        request.extensions["timeout"] = httpx2.Timeout(None, connect=_CONNECT_SECONDS).as_dict()
        response = self._response = await self._send(request)
        kind = response.headers.get("Content-Type", "")
        if not response.is_success:
            raise self._server.refusal(
                status=response.status_code,
                headers=response.headers,
                body=await _read_body(response),
            )
        if kind.startswith(("text/html", "application/json")):
            raise ModelUnavailable(
                f"{self._server} answers with {kind} and not with a stream: check its address"
            )
        self._parts = response.aiter_bytes()
        return httpx2.Response(response.status_code)

    async def events(self) -> list[bytes]:
        """Wait for more of the answer and return the data of the events that are complete."""
        try:
            part = await anext(self._parts, None)
        except httpx2.HTTPError as error:
            raise ModelUnavailable(f"{self._server} cut the answer off") from error
        self.ended = part is None
        *lines, self._rest = (self._rest + (b"\n" if part is None else part)).split(b"\n")
        events = [line[len(_DATA) :].strip() for line in lines if line.startswith(_DATA)]
        if _DONE in events:
            self.ended = self.done = True
            return events[: events.index(_DONE)]
        return events

    async def drain(self) -> None:
        """Read the rest of a complete answer, so that the next one can use the connection."""
        with suppress(TimeoutError, httpx2.HTTPError):
            async with asyncio.timeout(_TAIL_SECONDS):
                async for _ in self._parts:
                    pass

    async def aclose(self) -> None:
        if self._response is not None:
            await self._response.aclose()

    async def _send(self, request: httpx2.Request) -> httpx2.Response:
        dropped = (httpx2.RemoteProtocolError, httpx2.ReadError, httpx2.WriteError)
        try:
            try:
                return await self._pool.send(request, stream=True)
            except dropped:
                # Usually a kept connection that the server has closed in the meantime.
                return await self._pool.send(request, stream=True)
        except dropped as error:
            raise ModelUnavailable(f"{self._server} closes the connection") from error
        except httpx2.HTTPError as error:
            question = (
                "is it running, and is its address right?"
                if self._server.own
                else "is this machine online, or does it need a proxy (HTTPS_PROXY)?"
            )
            raise ModelUnavailable(f"{self._server} cannot be reached: {question}") from error
        except OfflineModeIsEnabled as error:
            raise ModelUnavailable(
                "HF_HUB_OFFLINE is set: unset it, or set MODEL_URL to a server of your own"
            ) from error


# The call for which the library is about to ask for a client.
_current_call: ContextVar[_Call | None] = ContextVar("_current_call", default=None)


def _client_for_call() -> httpx2.AsyncClient:
    """Make what the library asks for: an HTTP client, that of the stream now being opened."""
    return httpx2.AsyncClient(transport=_current_call.get(), timeout=None)


@cache
def _library_hooks() -> dict[str, list[Callable[..., object]]]:
    """Return what the library does around each request: its request ids, its offline mode."""
    return get_async_session().event_hooks


@asynccontextmanager
async def _open_pool(server: ModelServer) -> AsyncIterator[httpx2.AsyncClient]:
    host = _host(server.url)
    hooks = _library_hooks()
    set_async_client_factory(_client_for_call)
    async with httpx2.AsyncClient(
        # The library's own limit is 100; a stream beyond it would wait without a sign.
        limits=httpx2.Limits(max_connections=None, keepalive_expiry=_KEEP_SECONDS),
        # A server of one's own is asked in offline mode too.
        event_hooks=None if server.own else hooks,
        # No proxy stands between two programs of one machine.
        trust_env=not _is_loopback(host),
    ) as pool:
        yield pool


def _host(url: str) -> str:
    with suppress(ValueError):
        address = urlsplit(url)
        if address.scheme in ("http", "https") and address.hostname:
            return address.hostname
    raise CannotStart("MODEL_URL is not an address like http://127.0.0.1:8080/v1")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


async def _read_body(response: httpx2.Response) -> bytes:
    """Return as much of a refusal's body as comes soon."""
    body = b""
    with suppress(TimeoutError, httpx2.HTTPError):
        async with asyncio.timeout(_BODY_SECONDS):
            async for part in response.aiter_bytes():
                body += part
                if len(body) > _BODY_BYTES:
                    break
    return body


def _text_and_finish(said: Mapping[str, Any]) -> tuple[str, str]:
    """Return what a `chat.completion.chunk` says."""
    choices = said["choices"]
    if not choices:
        return "", ""
    text = (choices[0].get("delta") or {}).get("content")
    # Content that is not text (a list of parts) is reasoning: no word of the answer.
    return text if isinstance(text, str) else "", choices[0].get("finish_reason") or ""
