"""Translates Slack's errors into `bot.errors`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import aiohttp
from slack_sdk.errors import SlackApiError

from bot.errors import MessageGone, PlaceGone, SurfaceError, WriteDelayed, WriteFailed, WriteRefused

REQUEST_TIMEOUT = 10.0  # seconds

# Codes from Slack's documentation of chat.postMessage and chat.update, "Errors".
_TRANSIENT = {
    "fatal_error",
    "internal_error",
    "request_timeout",
    "service_unavailable",
    "team_added_to_org",
}
_DELAYED = {"message_limit_exceeded", "rate_limited", "ratelimited"}
# docs: files.info, "Errors", too.
_GONE = {"file_deleted", "file_not_found", "message_not_found"}
_NOT_INVITED = {"channel_not_found", "not_in_channel"}
_PLACE_GONE = {
    "access_denied": "the workspace refuses the bot",
    "cannot_dm_bot": "a bot takes no direct messages",
    "cannot_reply_to_message": "this message takes no replies",
    "is_archived": "the channel is archived",
    "messages_tab_disabled": "the app needs its Messages tab, under App Home",
    "no_permission": "the bot needs the scope chat:write",
    "not_allowed_token_type": "SLACK_BOT_TOKEN is not a bot token",
    "thread_locked": "the thread is locked",
    "thread_not_found": "the thread is gone",
}
BAD_TOKEN = {"account_inactive", "invalid_auth", "not_authed", "token_expired", "token_revoked"}
# Refusals of the app, not of a channel or a person (docs: chat.startStream and
# assistant.threads.setStatus, "Errors").
_APP_CODES = {
    "deprecated_endpoint",
    "feature_not_enabled",
    "method_deprecated",
    "missing_scope",
    "not_allowed_token_type",
    "unknown_method",
}
# Request Timeout and Too Early, without a code of Slack's.
_TRANSIENT_STATUS = {408, 425}
_ADDRESS = "does SLACK_API_URL lead to Slack?"
_DEFAULT_DELAY = 5.0  # seconds, if an answer has no Retry-After header


class NotInvited(PlaceGone):
    """The bot is not a member of the channel, or cannot even see it."""


class TokenRefused(WriteFailed):
    """Slack refuses the bot token; the turn can wait for a process with a valid token."""


class NotSlack(WriteFailed):
    """The answer is not Slack's: it comes from a proxy, or a server that lacks the method."""


@asynccontextmanager
async def translated(timeout: float = REQUEST_TIMEOUT) -> AsyncIterator[None]:
    """Raise only SurfaceError, after `timeout` seconds at the latest."""
    try:
        async with asyncio.timeout(timeout):
            yield
    except SlackApiError as error:
        raise _surface_error(error) from error
    except (AttributeError, ValueError) as error:
        # slack-sdk 3.47 assumes that the body of a 200 is an object, in UTF-8.
        raise NotSlack(f"The answer is not from Slack ({error}): {_ADDRESS}") from error
    except aiohttp.ClientResponseError as error:
        # The error's own text has the URL: of a proxy that refuses, with its password.
        raise WriteFailed(f"HTTP {error.status} {error.message}") from error
    except (aiohttp.ClientError, OSError) as error:
        # A timeout has no text.
        raise WriteFailed(str(error) or f"Slack did not answer in {timeout:g} s") from error


def is_transient(error: SurfaceError) -> bool:
    """Whether the same request may succeed later, without a pause that Slack asks for."""
    return isinstance(error, WriteFailed) and not isinstance(error, NotSlack)


def refuses_app(error: SurfaceError) -> bool:
    """Whether Slack would refuse this app the same method everywhere."""
    return code_of(error) in _APP_CODES


def code_of(error: BaseException | None) -> str:
    """Return Slack's code for an error or its cause; empty if Slack named none."""
    return _field(_api_error(error), "error")


def missing_scopes(error: BaseException | None) -> list[str]:
    """Return the scopes that Slack named as missing with an error or its cause."""
    return _field(_api_error(error), "needed").split(",")


def _surface_error(error: SlackApiError) -> SurfaceError:
    code = code_of(error)
    status = getattr(error.response, "status_code", 0) or getattr(error.response, "status", 0)
    detail = f"Slack answered {code or f'HTTP {status}'}"
    if code in _DELAYED or status == 429:
        return WriteDelayed(detail, retry_after=_retry_after(error))
    if code in _GONE:
        return MessageGone(detail)
    if code in BAD_TOKEN:
        return TokenRefused(f"{detail}: the token (or SLACK_BOT_TOKEN) is not valid any more")
    if not code and (status == 501 or (status < 500 and status not in _TRANSIENT_STATUS)):
        return NotSlack(f"{detail} without a code of Slack's: {_ADDRESS}")
    if not code or code in _TRANSIENT or status >= 500:
        return WriteFailed(detail)
    if code in _NOT_INVITED:
        return NotInvited(f"{detail}: invite the bot with /invite")
    if code == "missing_scope":
        return PlaceGone(f"{detail}: the app needs the scope {_field(error, 'needed')}")
    if code.startswith("restricted_action"):
        return PlaceGone(f"{detail}: the workspace does not let the bot write here")
    if code in _PLACE_GONE:
        return PlaceGone(f"{detail}: {_PLACE_GONE[code]}")
    return WriteRefused(detail)


def _api_error(error: BaseException | None) -> SlackApiError | None:
    if error is None or isinstance(error, SlackApiError):
        return error
    return _api_error(error.__cause__)


def _field(error: SlackApiError | None, name: str) -> str:
    # slack-sdk 3.47 hands over a string if a proxy answered with text instead of JSON.
    data = getattr(getattr(error, "response", None), "data", None)
    value = data.get(name) if isinstance(data, Mapping) else None
    return value if isinstance(value, str) else ""


def _retry_after(error: SlackApiError) -> float:
    headers = getattr(error.response, "headers", None) or {}
    try:
        return max(0.0, float(headers.get("Retry-After", _DEFAULT_DELAY)))
    except ValueError:
        return _DEFAULT_DELAY
