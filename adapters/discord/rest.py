"""Discord's REST API: the client and its requests, their errors, and the rate limits.

This file has all of the library's REST internals that the adapter uses, and
`tests/discord/test_rest.py` pins them. The public calls parse each response, with the question that
it quotes: a message that the library cannot parse would fail a write that Discord has accepted.
Those that open or unarchive a thread need its server in the library's cache, or one more request.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import re
import traceback
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal

import aiohttp
import discord
from discord.http import Ratelimit, Route

from adapters.discord.settings import DiscordSettings
from adapters.discord.tuning import Tuning
from bot.domain import Attachment, EditBudget, Json
from bot.errors import (
    CannotStart,
    MessageGone,
    PlaceGone,
    SurfaceError,
    Unreachable,
    WriteDelayed,
    WriteFailed,
    WriteRefused,
)
from bot.reply.edit_budget import EditBudgets

_log = logging.getLogger(__name__)

API_URL = Route.BASE
Payload = dict[str, Any]
REFUSED = (
    "DISCORD_TOKEN is refused by Discord: copy the bot's token from https://discord.com/developers"
)
# Longer than Discord's usual window of 5 s: except in a RestClient, discord.py 2.7.1 sleeps inside
# the call that empties a bucket, and cancelling that sleep would cost another window.
REQUEST_SECONDS = 15.0

# No code, and "Cloudflare is blocking your request": pages of a proxy before Discord.
_FROM_A_PROXY = {0, 40333}
_TOO_OLD = 30046  # "Maximum number of edits to messages older than 1 hour reached", with a 429
_LONGEST_WAIT = 30.0  # seconds; a new message is better than a longer wait for an edit

BudgetKind = Literal["post", "edit", "old", "ask", "thread"]
# Measured: about five new messages, and five edits, in five seconds for each channel; and as many
# for the webhook of each interaction. Edits of messages that are older than an hour are fewer: an
# operator counted these (circuitsacul/starboard-4, issue 118).
_WRITES, _WINDOW_SECONDS = 5, 5.0
# New threads of a channel: waits of more than 200 s (discord-api-docs, issue 7816) and of 280 s
# (NousResearch/hermes-agent, pull request 96101) were seen; how many fit before is a guess.
_SIZES: Mapping[BudgetKind, tuple[int, float]] = {"old": (3, 20.0), "thread": (50, 300.0)}
_ROUTES: Mapping[BudgetKind, re.Pattern[str]] = {
    "post": re.compile(r"POST .*/channels/(\d+)/messages"),
    "edit": re.compile(r"PATCH .*/channels/(\d+)/messages/\d+"),
    "ask": re.compile(r"PATCH .*/webhooks/\d+/([^/]+)/messages/[^/]+"),
    "thread": re.compile(r"POST .*/channels/(\d+)/messages/\d+/threads"),
}
_INTERACTIONS = re.compile(r"/(?:interactions|webhooks)/")
# Discord's documentation, "Rate Limits", "Global Rate Limit": 50 requests a second in all, but for
# those of interactions. No response reports when its second began. The extra tenth is for requests
# that overtake each other in flight. A fifth is reserved for final edits and new messages.
GLOBAL_LIMIT = EditBudget("discord:everything", 50, 1.1, shape="slides", for_finals=10)
_SLOT_PATIENCE = 10.0  # seconds for which a request waits for its slot


class RestClient(discord.Client):
    """A client that sends requests at once, because the core has waited for their budgets.

    discord.py 2.7.1 sleeps inside the request that empties a bucket, although Discord has answered
    it, and sends the first request of a bucket alone. With `rated`, answers have rating buttons.
    """

    def __init__(
        self, own: DiscordSettings, *, tuning: Tuning, rated: bool, trace: aiohttp.TraceConfig
    ) -> None:
        super().__init__(
            intents=discord.Intents(guilds=True),  # not used; discord.py warns if it is missing
            allowed_mentions=discord.AllowedMentions.none(),
            max_messages=None,
            http_trace=trace,
        )
        self.own = own
        self.tuning = tuning
        self.rated = rated
        unlimited = _NoLimit(None)
        self.http.get_ratelimit = lambda key: unlimited  # type: ignore[method-assign]


class _NoLimit(Ratelimit):
    async def acquire(self) -> None:
        """Return at once."""

    async def __aexit__(self, *_: object) -> None:
        """Release nothing."""

    def update(self, *_: object, **__: object) -> None:
        """Ignore the headers of a response."""


def own_id(client: discord.Client) -> int:
    """Return the bot's own id; 0 before the client has logged in."""
    return client.user.id if client.user else 0


@asynccontextmanager
async def logged_in(
    own: DiscordSettings,
    *,
    trace: aiohttp.TraceConfig,
    tuning: Tuning | None = None,
    rated: bool = False,
) -> AsyncIterator[RestClient]:
    """Log in over REST; the address applies to the whole process.

    Raises CannotStart if the token is refused, and Unreachable if Discord is unavailable.
    """
    Route.BASE = own.api_url or API_URL
    # The bot does not use voice, so discord.py need not warn about its dependencies.
    discord.VoiceClient.warn_nacl = discord.VoiceClient.warn_dave = False
    client = RestClient(own, tuning=tuning or Tuning(), rated=rated, trace=trace)
    try:
        await _log_in(client)
        yield client
    finally:
        await client.close()


async def _log_in(client: RestClient) -> None:
    try:
        async with translated():
            await client.login(client.own.token)
    except ValueError as error:  # characters that are invalid in a header
        raise CannotStart(REFUSED) from error
    except SurfaceError as error:
        if isinstance(error.__cause__, discord.LoginFailure):
            raise CannotStart(REFUSED) from error
        passing = isinstance(error, WriteDelayed | WriteFailed)
        kind = Unreachable if passing else CannotStart
        raise kind(f"cannot log in at {Route.BASE}: {error}") from error


async def request(
    client: discord.Client,
    method: str,
    path: str,
    ids: Mapping[str, Any] | None = None,
    *,
    body: Mapping[str, Json] | Sequence[Payload] | None = None,
    query: Mapping[str, int] | None = None,
    files: Sequence[Attachment] = (),
) -> Any:
    """Send a request and return Discord's response unparsed; raises SurfaceError.

    `ids` fill the path; their names are those of Discord's documentation. If Discord refuses the
    `files` that a body names, it is sent without them.
    """
    route = Route(method, path, **(ids or {}))
    if files and isinstance(body, Mapping):
        form: list[Payload] = [{"name": "payload_json", "value": json.dumps(body)}]
        form += [
            {"name": f"files[{n}]", "filename": one.name, "value": one.data}
            for n, one in enumerate(files)
        ]
        try:
            async with translated():
                return await client.http.request(route, form=form)
        except (PlaceGone, WriteRefused) as error:
            names = ", ".join(one.name for one in files)
            _log.warning(
                "Discord refuses %s: is the permission Attach Files missing? %s", names, error
            )
            body = {**body, "attachments": []}
    options: dict[str, Any] = {"params": query} if body is None else {"json": body}
    async with translated():
        return await client.http.request(route, **options)


async def fetch_messages(client: discord.Client, channel: int, **query: int) -> list[Payload]:
    """Return a page of a channel's messages, the newest first; raises SurfaceError."""
    path = "/channels/{channel_id}/messages"
    return [*await request(client, "GET", path, {"channel_id": channel}, query=query)]


async def fetch_message(client: discord.Client, channel: int, message: int | str) -> Payload:
    """Return a message; raises SurfaceError."""
    ids = {"channel_id": channel, "message_id": message}
    return {**await request(client, "GET", "/channels/{channel_id}/messages/{message_id}", ids)}


async def fetch_channel(client: discord.Client, channel: int) -> object:
    """Return a channel; raises SurfaceError, also if the library cannot parse it."""
    async with translated():
        try:
            return await client.fetch_channel(channel)
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise WriteRefused(f"channel {channel} cannot be parsed: {located(error)}") from error


class WebhookGone(WriteRefused):
    """The interaction's webhook does not exist yet, or its token has expired."""


class OldMessage(WriteDelayed):
    """Rate limit for edits of old messages only."""


class ChannelGone(PlaceGone):
    """There is no such channel or thread, perhaps not yet."""


class NotPermitted(PlaceGone):
    """The bot may not write in this channel; it may in others."""


class ThreadArchived(PlaceGone):
    """The thread is archived and takes no changes."""


# Codes from Discord's documentation, "Opcodes and Status Codes", and what an operator can do.
_REFUSALS: dict[int, tuple[type[SurfaceError], str]] = {
    10008: (MessageGone, "the message was deleted"),
    10003: (ChannelGone, "the channel is gone"),
    50001: (PlaceGone, "the bot needs the permission View Channel"),
    50007: (PlaceGone, "the person takes no direct messages from the bot"),
    50013: (NotPermitted, "the bot needs Send Messages, and in threads Send Messages in Threads"),
    50083: (ThreadArchived, "the thread is archived"),
    160005: (PlaceGone, "the thread is locked"),
    10015: (WebhookGone, "the interaction has no webhook yet, or none any more"),
    10062: (WebhookGone, "the interaction is unknown"),
    50027: (WebhookGone, "the interaction's token is not valid any more"),
}


@asynccontextmanager
async def translated(seconds: float = REQUEST_SECONDS) -> AsyncIterator[None]:
    """Translate errors of the library and the network to SurfaceError; time out after `seconds`."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except (discord.DiscordException, aiohttp.ClientError, OSError) as error:
        raise _surface_error(error) from error


def located(error: Exception) -> str:
    """Name an error and the line that raised it, without its text, which may quote a message."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {frame.name}:{frame.lineno}"


async def retry_after(response: aiohttp.ClientResponse) -> float:
    """Return the seconds to wait, from the body, the header in whole seconds, or a default."""
    in_header = response.headers.get("Retry-After", "5")
    named = (await _body(response)).get("retry_after", in_header)
    try:
        return float(named)
    except (TypeError, ValueError):
        return 5.0


async def is_banned(response: aiohttp.ClientResponse) -> bool:
    """Whether Cloudflare blocks this address: a 429 that did not come from Discord itself."""
    # It has no JSON and no Via header; discord.py 2.7.1 checks the latter, too.
    from_a_proxy = response.status == 429 and "Via" not in response.headers
    return from_a_proxy and not await _body(response)


def fail_at_once() -> aiohttp.TraceConfig:
    """Return a trace for `discord.Client` that turns a 429 or a 5xx into an error at once.

    discord.py 2.7.1 would sleep and send the same body again. The core retries with the newest text
    and knows the other replies of the bucket.
    """
    trace = aiohttp.TraceConfig()
    trace.on_request_end.append(_refuse)
    return trace


async def _refuse(_: object, __: object, params: aiohttp.TraceRequestEndParams) -> None:
    response = params.response
    if response.status >= 500:
        raise WriteFailed(f"HTTP {response.status} from Discord")
    if response.status != 429:
        return
    wait = await retry_after(response)
    if (await _body(response)).get("code") != _TOO_OLD:
        raise WriteDelayed("Discord asks to wait", retry_after=wait)
    if wait > _LONGEST_WAIT:
        raise WriteRefused("Discord limits edits of messages older than an hour")
    raise OldMessage("Discord limits edits of messages older than an hour", retry_after=wait)


async def _body(response: aiohttp.ClientResponse) -> dict[str, Any]:
    try:
        body = await response.json(content_type=None)
    except (aiohttp.ClientError, ValueError):
        return {}
    return body if isinstance(body, dict) else {}


def _surface_error(error: Exception) -> SurfaceError:
    if isinstance(error, discord.HTTPException):
        return _response_error(error)
    if isinstance(error, discord.DiscordException):
        # The library cannot do it, so a retry would fail as well.
        return WriteRefused(str(error))
    # The text of aiohttp's errors may contain an address with an interaction's token.
    return WriteFailed(f"Discord could not be reached ({type(error).__name__})")


def _response_error(error: discord.HTTPException) -> SurfaceError:
    detail, status = str(error), error.status
    if error.code in _REFUSALS:
        kind, meaning = _REFUSALS[error.code]
        return kind(f"{detail}: {meaning}")
    if status in (403, 404):
        return WriteFailed(detail) if error.code in _FROM_A_PROXY else PlaceGone(detail)
    if status == 401:
        # The turn can wait for a process with a valid token.
        return WriteFailed(f"{detail}: DISCORD_TOKEN is not valid any more")
    return WriteFailed(detail) if status == 429 or status >= 500 else WriteRefused(detail)


def edit_budget(kind: BudgetKind, target: int | str) -> EditBudget:
    """Return the budget of such writes in a channel, or of a webhook with this token."""
    writes, seconds = _SIZES.get(kind, (_WRITES, _WINDOW_SECONDS))
    around: EditBudget | None = GLOBAL_LIMIT
    if kind == "ask":
        around = None  # interactions are outside of the global limit
        # Hashed, because a token is a secret, and the bucket is stored.
        target = hashlib.blake2b(str(target).encode(), digest_size=12).hexdigest()
    bucket = f"discord:{kind}:{target}"
    return EditBudget(bucket, writes, seconds, within=around)


def limit_requests(trace: aiohttp.TraceConfig, budgets: EditBudgets) -> aiohttp.TraceConfig:
    """Apply the global limit to all requests, and learn limits from responses.

    Most requests have a slot already; the others wait here. The first response of a window reports
    how large the window is, and the last one when it ends (Discord's documentation, "Rate Limits",
    "Header Format").
    """

    async def wait(_: object, __: object, params: aiohttp.TraceRequestStartParams) -> None:
        deadline = asyncio.get_running_loop().time() + _SLOT_PATIENCE
        while _is_counted(params) and not budgets.use_booked_slot(GLOBAL_LIMIT):
            await budgets.call(GLOBAL_LIMIT, deadline=deadline)

    async def read(_: object, __: object, params: aiohttp.TraceRequestEndParams) -> None:
        headers = params.response.headers
        # A ban may be of one route (discord-api-docs, issue 5385), so a ban of interactions does
        # not pause the others.
        banned = _is_counted(params) and await is_banned(params.response)
        if banned or "X-RateLimit-Global" in headers:
            await budgets.pause(GLOBAL_LIMIT, await retry_after(params.response))
        call = f"{params.method} {params.url.path}"
        for kind, route in _ROUTES.items():
            if found := route.fullmatch(call):
                await _learn(budgets, edit_budget(kind, found[1]), headers)

    trace.on_request_start.append(wait)
    trace.on_request_end.insert(0, read)
    return trace


def _is_counted(params: aiohttp.TraceRequestStartParams | aiohttp.TraceRequestEndParams) -> bool:
    return not _INTERACTIONS.search(params.url.path)


async def _learn(budgets: EditBudgets, budget: EditBudget, headers: Mapping[str, str]) -> None:
    try:
        limit = int(headers["X-RateLimit-Limit"])
        remaining = int(headers["X-RateLimit-Remaining"])
        rest_of_window = float(headers["X-RateLimit-Reset-After"])  # seconds
    except (KeyError, ValueError):
        return
    if remaining == limit - 1 and rest_of_window > 0:
        budgets.learn(budget.bucket, writes=limit, seconds=rest_of_window)
    if remaining == 0:
        # Discord's window opened later than ours, when the first write arrived, so it ends later.
        await budgets.pause(budget, rest_of_window)
