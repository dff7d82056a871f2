"""Talks with MCP servers through the package `mcp`, which is in requirements-tools.txt.

Each list and each call is a conversation of its own, over Streamable HTTP. With a server of
2026-07-28 a call is one request; with older ones it begins with a handshake and ends its session.
"""

from __future__ import annotations

import json
import logging
import re
import ssl
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import httpx2
import mcp_types as types
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from pydantic import TypeAdapter, ValidationError

from bot.domain import Json
from bot.model.server import parsed_object
from bot.proxy import proxy_for
from bot.text.sanitize import one_line, strip_controls, whole_characters
from bot.tools.questions import (
    Answered,
    Question,
    QuestionRefused,
    ToolAsks,
    form_question,
    link_question,
)
from bot.tools.toolset import ToolBroken, ToolFailed, ToolResult
from config.mcp_servers import McpServer, OAuth

# Their lines have words of servers and of results in them.
for _name in ("mcp", "client"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)

_MOST_BYTES = 1_000_000  # of an answer; the loop keeps 60,000 characters of it
_MOST_PAGES = 10  # of a list of tools
_CONNECT_SECONDS, _TOKEN_SECONDS, _GOODBYE_SECONDS = 5.0, 5.0, 1.0
_TOKEN_LASTS, _TOKEN_MARGIN = 300.0, 30.0  # seconds: if its server does not tell; before its end
_TOKEN = re.compile(r"[!-~]{1,8000}")
_INFO = types.Implementation(name="parley", version="1")
_HEADERS = {"User-Agent": "Parley", "Accept-Encoding": "identity"}
_RESULT: TypeAdapter[Any] = TypeAdapter(types.CallToolResult | types.InputRequiredResult)
_ANSWERS = ("application/json", "text/event-stream")
# Codes with which the library says that an answer was lost. Servers use them too; then nobody can
# tell.
_LOST = (types.CONNECTION_CLOSED, types.PARSE_ERROR, types.REQUEST_TIMEOUT)
_MOST_STATE = 100_000  # characters of a server's state, which is kept with the turn
_ASKS_BACK = (
    "The server asks something before it does this, and it is not passed on, so nothing was done. "
    "Perhaps other arguments answer it. {why}"
)

# The name, description and schema of a tool, as its server writes them.
Described = tuple[str, str, Mapping[str, Json]]


class McpClient:
    """One server; `certificates` are trusted."""

    def __init__(self, server: McpServer, certificates: ssl.SSLContext) -> None:
        self._server = server
        self._certificates = certificates
        # What the server spoke when it was asked for its tools.
        self._mode = "auto"
        self._discovered: types.DiscoverResult | None = None
        self._token, self._token_ends = "", 0.0

    async def list_tools(self) -> Sequence[Described]:
        """Return the tools that the server has. Raises ToolFailed."""
        self._mode = "auto"
        wire = self._wire()
        found: list[Described] = []
        cursor: str | None = None
        try:
            async with self._conversation(wire) as client:
                for _ in range(_MOST_PAGES):
                    page = await client.list_tools(cursor=cursor)
                    found += [(it.name, it.description or "", it.input_schema) for it in page.tools]
                    cursor = page.next_cursor
                    if cursor is None:
                        break
                self._discovered = client.session.discover_result
                self._mode = client.protocol_version if self._discovered else "legacy"
        # The library raises groups of whatever ended its tasks. What ends the conversation after
        # its result does no harm.
        except Exception as error:
            if self._mode == "auto":
                raise self._failure(wire, error) from error
        return found

    async def call(
        self,
        name: str,
        arguments: Mapping[str, Json],
        *,
        key: str = "",
        lists: bool = False,
        answered: Answered | None = None,
    ) -> ToolResult:
        """Call a tool; a `key` is the same for each attempt at the same call.

        `lists`: some arguments are sent as headers too, which the library learns from a list.
        `answered` is what the server has asked for when it was called before. Raises ToolFailed,
        ToolBroken if nobody knows whether it was called, and ToolAsks.
        """
        # No revision of the protocol has a key (SEP-3182 proposes one). Guess: a server that looks
        # for one finds it in the metadata, if it declares no argument for it.
        meta: Any = {"idempotencyKey": key} if key else None
        params = types.CallToolRequestParams(name=name, arguments={**arguments}, _meta=meta)
        if answered:
            params.request_state = answered.state
            params.input_responses = {
                it: types.ElicitResult(action="accept", content=content)
                for it, content in answered.answers.items()
            }
        wire = self._wire()
        result: Any = None
        try:
            async with self._conversation(wire) as client:
                if lists:
                    await client.list_tools()
                try:
                    # `client.call_tool` would ask for the schema of results, and compile it.
                    result = await client.session.send_request(
                        types.CallToolRequest(params=params), _RESULT
                    )
                except MCPError as error:
                    result = error
        except Exception as error:  # as above
            if result is None:
                raise self._failure(wire, error) from error
        match result:
            case types.CallToolResult():
                return _read(result)
            case MCPError() if wire.is_answer and result.code not in _LOST:
                return ToolResult(_plain(result.message), outcome="failed")
            case types.InputRequiredResult():
                raise _asks(result)
        raise self._failure(wire, result)

    def _wire(self) -> _Wire:
        return _Wire(
            httpx2.AsyncHTTPTransport(
                verify=self._certificates, proxy=proxy_for(self._server.url), trust_env=False
            )
        )

    @asynccontextmanager
    async def _conversation(self, wire: _Wire) -> AsyncIterator[Client]:
        headers = {**_HEADERS, **self._server.headers}
        if self._server.oauth:
            headers["Authorization"] = f"Bearer {await self._valid_token(self._server.oauth)}"
        # The caller bounds the whole.
        timeout = httpx2.Timeout(None, connect=_CONNECT_SECONDS)
        async with (
            httpx2.AsyncClient(transport=wire, headers=headers, timeout=timeout) as http,
            Client(
                streamable_http_client(self._server.url, http_client=http),
                mode=self._mode,
                prior_discover=self._discovered,
                client_info=_INFO,
                cache=None,
                # Says that people can be asked. In older revisions a server asks in the middle of
                # a call, which nobody waits for here.
                elicitation_callback=_declined if self._discovered else None,
            ) as client,
        ):
            yield client

    async def _valid_token(self, oauth: OAuth) -> str:
        """Return a token of the bot (RFC 6749, section 4.4). Raises ToolFailed.

        The library's own provider allows one request at a time, and none after a cancelled one
        (python-sdk, issue 3382).
        """
        if time.monotonic() < self._token_ends:
            return self._token
        data = {"grant_type": "client_credentials", "resource": self._server.url}
        if oauth.scopes:
            data["scope"] = " ".join(oauth.scopes)
        try:
            async with httpx2.AsyncClient(
                verify=self._certificates,
                proxy=proxy_for(oauth.token_url),
                trust_env=False,
                timeout=_TOKEN_SECONDS,
            ) as http:
                login = quote(oauth.client_id, safe=""), quote(oauth.client_secret, safe="")
                response = await http.post(oauth.token_url, data=data, auth=login)
        except httpx2.HTTPError as error:
            raise ToolFailed("The server that issues tokens cannot be reached.") from error
        answer = parsed_object(response.content)
        token, lasts = answer.get("access_token"), answer.get("expires_in")
        if not isinstance(token, str) or not _TOKEN.fullmatch(token):
            raise ToolFailed(f"The server issues no token (HTTP {response.status_code}).")
        seconds = lasts if isinstance(lasts, int | float) else _TOKEN_LASTS
        self._token, self._token_ends = token, time.monotonic() + seconds - _TOKEN_MARGIN
        return token

    def _failure(self, wire: _Wire, error: Exception) -> ToolFailed:
        """Return what an unanswered request means."""
        while isinstance(error, ExceptionGroup):
            error = error.exceptions[0]
        if isinstance(error, ToolFailed):
            return error
        if wire.status == 401:
            self._token_ends = 0.0
        if 300 <= wire.status < 500:
            return ToolFailed(f"The server refuses this (HTTP {wire.status}), so it was not done.")
        if not wire.has_sent:
            if isinstance(error, ValidationError):
                return ToolFailed("The server's answer is not that of an MCP server.")
            return ToolFailed("The server cannot be reached, so it was not done.")
        if wire.is_too_long:
            return ToolBroken("The server's answer is too long.")
        return ToolBroken("The server's answer was lost.")


class _Wire(httpx2.AsyncBaseTransport):
    """Carries the requests of one conversation, and bounds what comes back.

    `status` is that of the answer to the call, or before it to the last POST, 0 if there was none;
    `is_answer`: a server of the protocol may have written it. `has_sent`: a call of a tool may have
    reached the server.
    """

    def __init__(self, inner: httpx2.AsyncBaseTransport) -> None:
        self.status = 0
        self.is_answer = self.has_sent = self.is_too_long = False
        self._inner = inner

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if request.method == "GET" and "last-event-id" not in request.headers:
            # A stream for what the server wants to say of its own accord: nobody listens.
            return httpx2.Response(405)
        if request.method == "DELETE":
            limits = dict.fromkeys(("connect", "read", "write", "pool"), _GOODBYE_SECONDS)
            request.extensions = {**request.extensions, "timeout": limits}
        if request.method != "POST":
            return await self._inner.handle_async_request(request)
        is_call = parsed_object(request.content).get("method") == "tools/call"
        # What comes beside a call, such as a reply to a ping, says nothing about it.
        is_beside = self.has_sent and not is_call
        if not is_beside:
            self.status, self.is_answer = 0, False
        self.has_sent |= is_call
        try:
            response = await self._inner.handle_async_request(request)
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.ProxyError):
            self.has_sent &= not is_call
            raise
        if not is_beside:
            self.status = response.status_code
            kind = response.headers.get("content-type", "").lower()
            is_refusal = 400 <= self.status < 500 and self.status not in (401, 403)
            self.is_answer = is_refusal or (self.status == 200 and kind.startswith(_ANSWERS))
        if response.headers.get("content-encoding", "identity") != "identity":
            # A small answer could become a large one.
            await response.aclose()
            raise httpx2.ReadError("the answer is packed")
        response.stream = _Bounded(response.stream, self)
        return response

    async def aclose(self) -> None:
        await self._inner.aclose()


class _Bounded(httpx2.AsyncByteStream):
    """The body of an answer, which fails behind the most bytes."""

    def __init__(self, stream: Any, wire: _Wire) -> None:
        self._stream = stream
        self._wire = wire

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for chunk in self._stream:
            size += len(chunk)
            if size > _MOST_BYTES:
                self._wire.is_too_long = True
                raise httpx2.ReadError("the answer is too long")
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()


async def _declined(context: Any, params: Any) -> types.ElicitResult:
    return types.ElicitResult(action="decline")


def _asks(result: types.InputRequiredResult) -> ToolAsks:
    """Return what a server asks. Raises ToolFailed if people cannot be asked that."""
    if len(result.request_state or "") > _MOST_STATE:
        raise ToolFailed(_ASKS_BACK.format(why="Its state is too long."))
    requests = result.input_requests or {}
    try:
        questions = [_question(key, one.params) for key, one in requests.items()]
    except QuestionRefused as error:
        raise ToolFailed(_ASKS_BACK.format(why=error)) from None
    return ToolAsks(result.request_state, questions)


def _question(key: str, asked: object) -> Question:
    match asked:
        case types.ElicitRequestFormParams():
            return form_question(key, asked.message, asked.requested_schema)
        case types.ElicitRequestURLParams():
            return link_question(key, asked.message, asked.url)
    raise QuestionRefused("It asks for a model or for files, not for a person.")


def _read(result: types.CallToolResult) -> ToolResult:
    """Return a result; its structured content only if it has no text, which usually is the same."""
    parts = [_part(one) for one in result.content]
    if result.structured_content is not None and not any(parts):
        parts = [json.dumps(result.structured_content, ensure_ascii=False)]
    text = _plain("\n\n".join(filter(None, parts)))
    return ToolResult(text, outcome="failed" if result.is_error else "done")


def _part(part: types.ContentBlock) -> str:
    match part:
        case types.TextContent():
            return part.text
        case types.ResourceLink():
            return f"({one_line(part.name)}: {one_line(str(part.uri))})"
        case types.EmbeddedResource(resource=types.TextResourceContents() as resource):
            return resource.text
        case types.EmbeddedResource():
            return f"(A file, {one_line(part.resource.mime_type or '')}, which is not shown.)"
    return f"(Something of the type {one_line(part.mime_type)}, which is not shown.)"


def _plain(text: str) -> str:
    return strip_controls(whole_characters(text))
