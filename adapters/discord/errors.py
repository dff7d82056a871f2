"""Translates Discord's refusals into the errors of `bot.errors`."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import discord

from bot.errors import MessageGone, PlaceGone, SurfaceError, WriteDelayed, WriteFailed, WriteRefused

# Longer than Discord's usual window of 5 s: except in a RestClient, discord.py 2.7.1 sleeps inside
# the call that empties a bucket, and cancelling that sleep would cost another window.
REQUEST_SECONDS = 15.0


class WebhookGone(WriteRefused):
    """The interaction's webhook does not exist yet, or its token has expired."""


class OldMessage(WriteDelayed):
    """Discord takes no more edits of messages that old for a while; it takes other edits."""


class NotPermitted(PlaceGone):
    """The bot may not write in this channel; it may in others."""


class ThreadArchived(PlaceGone):
    """Nothing in this thread can be changed while it is archived."""


# Codes from Discord's documentation, "Opcodes and Status Codes", and what an operator can do.
_REFUSALS: dict[int, tuple[type[SurfaceError], str]] = {
    10008: (MessageGone, "the message was deleted"),
    10003: (PlaceGone, "the channel is gone"),
    50001: (PlaceGone, "the bot needs the permission View Channel"),
    50007: (PlaceGone, "the person takes no direct messages from the bot"),
    50013: (NotPermitted, "the bot needs Send Messages, and in threads Send Messages in Threads"),
    50083: (ThreadArchived, "the thread is archived"),
    160005: (PlaceGone, "the thread is locked"),
    10015: (WebhookGone, "the interaction has no webhook yet, or none any more"),
    10062: (WebhookGone, "the interaction is unknown"),
    50027: (WebhookGone, "the interaction's token is not valid any more"),
}
# No code at all, and "Cloudflare is blocking your request": pages of a proxy before Discord.
_FROM_A_PROXY = {0, 40333}
_TOO_OLD = 30046  # "Maximum number of edits to messages older than 1 hour reached", with a 429
_LONGEST_WAIT = 30.0  # seconds; a new message is better than a longer wait for an edit


@asynccontextmanager
async def translated(seconds: float = REQUEST_SECONDS) -> AsyncIterator[None]:
    """Turn errors of the library and of the network into SurfaceError, and end after `seconds`."""
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
    """Return the seconds to wait, which Discord names, and a proxy may not."""
    # The header has whole seconds.
    in_header = response.headers.get("Retry-After", "5")
    named = (await _body(response)).get("retry_after", in_header)
    try:
        return float(named)
    except (TypeError, ValueError):
        return 5.0


async def is_banned(response: aiohttp.ClientResponse) -> bool:
    """Whether Cloudflare blocks this address: a 429 that did not come from Discord itself."""
    # It has no Via header, by which discord.py 2.7.1 recognizes it too, and no JSON.
    from_a_proxy = response.status == 429 and "Via" not in response.headers
    return from_a_proxy and not await _body(response)


def fail_at_once() -> aiohttp.TraceConfig:
    """Return a trace for `discord.Client` that turns a 429 or a 5xx into an error at once.

    discord.py 2.7.1 would sleep and send the same body again. The core knows better: which text is
    the newest by then, and which other replies share the bucket.
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
        raise WriteRefused("Discord takes no more edits of a message that old")
    raise OldMessage("Discord takes few edits of a message that old", retry_after=wait)


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
        # The library itself cannot do it, and a retry would fail as well.
        return WriteRefused(str(error))
    # The text of aiohttp's errors may hold an address, and with it an interaction's token.
    return WriteFailed(f"Discord could not be reached ({type(error).__name__})")


def _response_error(error: discord.HTTPException) -> SurfaceError:
    detail, status = str(error), error.status
    if error.code in _REFUSALS:
        kind, meaning = _REFUSALS[error.code]
        return kind(f"{detail}: {meaning}")
    if status in (403, 404):
        return WriteFailed(detail) if error.code in _FROM_A_PROXY else PlaceGone(detail)
    if status == 401:
        # The turn can wait for a process with a token that works.
        return WriteFailed(f"{detail}: DISCORD_TOKEN is not valid any more")
    return WriteFailed(detail) if status == 429 or status >= 500 else WriteRefused(detail)
