"""Discord's refusals in the words of `bot.errors`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import aiohttp
import discord

from bot.errors import (
    MessageGone,
    PlaceGone,
    SurfaceError,
    WriteDelayed,
    WriteFailed,
    WriteRefused,
)

# Longer than Discord's usual window of 5 s: discord.py 2.7.1 sleeps inside the call that empties a
# bucket, but for a RestClient, and cancelling that sleep would cost another window.
REQUEST_TIMEOUT = 15.0  # seconds


class WebhookGone(WriteRefused):
    """The interaction's webhook is not there yet, or not any more.

    It was not acknowledged, or its token has expired.
    """


class OldMessage(WriteDelayed):
    """Discord takes no more edits of messages that old for a while; others it does."""


class NotPermitted(PlaceGone):
    """The bot may not write here; elsewhere it may."""


class ThreadArchived(PlaceGone):
    """Nothing in this thread can be changed while it is archived."""


# Codes from Discord's documentation, "Opcodes and Status Codes", and what an operator can do.
_MESSAGE_GONE = 10008
_PLACE_GONE = {
    10003: (PlaceGone, "the channel is gone"),
    50001: (PlaceGone, "the bot needs the permission View Channel"),
    50007: (PlaceGone, "the person takes no direct messages from the bot"),
    50013: (NotPermitted, "the bot needs Send Messages, and in threads Send Messages in Threads"),
    50083: (ThreadArchived, "the thread is archived"),
    160005: (PlaceGone, "the thread is locked"),
}
# Unknown webhook, unknown interaction, invalid webhook token.
_WEBHOOK_GONE = {10015, 10062, 50027}
# No code at all, and "Cloudflare is blocking your request": pages of what stands before Discord.
_NOT_DISCORDS = {0, 40333}
_TOO_OLD = 30046  # "Maximum number of edits to messages older than 1 hour reached", with a 429
_LONG = 30.0  # seconds; rather a new message than so long a wait for an edit


@asynccontextmanager
async def translated() -> AsyncIterator[None]:
    """Let only SurfaceError out, and nothing last longer than REQUEST_TIMEOUT."""
    try:
        async with asyncio.timeout(REQUEST_TIMEOUT):
            yield
    except (discord.DiscordException, aiohttp.ClientError, OSError) as error:
        raise _surface_error(error) from error


async def retry_after(response: aiohttp.ClientResponse) -> float:
    """Return the seconds to wait.

    Discord names them in the body, whole ones in a header; a proxy before it perhaps none.
    """
    in_header = response.headers.get("Retry-After", "5")
    named = (await _body(response)).get("retry_after", in_header)
    try:
        return float(named)
    except (TypeError, ValueError):
        return 5.0


async def is_banned(response: aiohttp.ClientResponse) -> bool:
    """Whether Cloudflare lets our address through no more: a 429 that never was in Discord's hands.

    It has no Via header, by which discord.py 2.7.1 knows it too, and no JSON.
    """
    unseen = response.status == 429 and "Via" not in response.headers
    return unseen and not await _body(response)


def fail_at_once() -> aiohttp.TraceConfig:
    """Return a trace for `discord.Client` that makes a 429 or a 5xx an error right away.

    discord.py 2.7.1 would sleep and send the same body again. The core knows better: which text is
    the newest by then, and which other replies share the bucket.
    """
    trace = aiohttp.TraceConfig()
    trace.on_request_end.append(_refuse)
    return trace


async def _refuse(
    _session: aiohttp.ClientSession,
    _context: SimpleNamespace,
    params: aiohttp.TraceRequestEndParams,
) -> None:
    status = params.response.status
    if status == 429:
        raise await _delay(params.response)
    if status >= 500:
        raise WriteFailed(f"Discord answers {status}")


async def _delay(response: aiohttp.ClientResponse) -> SurfaceError:
    wait = await retry_after(response)
    if (await _body(response)).get("code") != _TOO_OLD:
        return WriteDelayed("Discord asks to wait", retry_after=wait)
    if wait > _LONG:
        return WriteRefused("Discord takes no more edits of a message that old")
    return OldMessage("Discord takes few edits of a message that old", retry_after=wait)


async def _body(response: aiohttp.ClientResponse) -> dict[str, Any]:
    try:
        body = await response.json(content_type=None)
    except (aiohttp.ClientError, ValueError):
        return {}
    return body if isinstance(body, dict) else {}


def _surface_error(error: Exception) -> SurfaceError:
    match error:
        case discord.RateLimited():
            return WriteDelayed(str(error), retry_after=error.retry_after)
        case discord.HTTPException():
            return _answer_error(error)
        case discord.DiscordException():
            # The library itself cannot do it, and will not at the next try.
            return WriteRefused(str(error))
        case _:
            # The text of aiohttp's errors may hold an address, and with it an interaction's token.
            return WriteFailed(f"Discord could not be reached ({type(error).__name__})")


def _answer_error(error: discord.HTTPException) -> SurfaceError:
    detail = str(error)
    if error.code == _MESSAGE_GONE:
        return MessageGone(detail)
    if error.code in _PLACE_GONE:
        kind, cure = _PLACE_GONE[error.code]
        return kind(f"{detail}: {cure}")
    if error.code in _WEBHOOK_GONE:
        return WebhookGone(detail)
    if error.code in _NOT_DISCORDS and error.status in (403, 404):
        return WriteFailed(detail)
    return _status_error(error.status, detail)


def _status_error(status: int, detail: str) -> SurfaceError:
    if status == 401:
        # The turn can wait for a process with a token that works.
        return WriteFailed(f"{detail}: DISCORD_TOKEN is not valid any more")
    if status in (403, 404):
        return PlaceGone(detail)
    if status == 429 or status >= 500:
        return WriteFailed(detail)
    return WriteRefused(detail)
