"""The bolt app: what Slack sends, handed to whom it concerns."""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from datetime import UTC, datetime

from slack_bolt.async_app import AsyncAck, AsyncApp
from slack_bolt.authorization import AuthorizeResult
from slack_bolt.error import BoltUnhandledRequestError
from slack_bolt.response import BoltResponse
from slack_sdk.web.async_client import AsyncWebClient

from adapters.slack.ask import AskCommand
from adapters.slack.identity import Identity
from adapters.slack.inbound import Inbound, pressed
from adapters.slack.messages import REGENERATE, STOP
from bot.errors import StoreUnavailable

log = logging.getLogger(__name__)

COMMAND = "/ask"

_ANY = re.compile("")

# What bolt 1.30 raises before its own error handler can, for a body of a shape that it does not
# expect, and Python for one that is nested too deeply.
UNREADABLE = (AttributeError, LookupError, RecursionError, TypeError, ValueError)

Body = Mapping[str, object]


def build_app(
    client: AsyncWebClient,
    *,
    identity: Identity,
    on_event: Callable[[dict[str, object]], Awaitable[None]],
    inbound: Inbound,
    ask: AskCommand,
) -> AsyncApp:
    """Return an app that acknowledges what was stored, and has Slack send the rest again.

    It checks no signatures.
    """
    # Bolt 1.30 warns, about itself, when SLACK_BOT_TOKEN stands in the environment.
    quiet = log.getChild("bolt")
    quiet.setLevel(logging.ERROR)
    app = AsyncApp(
        name="parley",
        logger=quiet,
        # Bolt calls nobody: it is told who we are, and `inbound` and `ask` have their own client.
        client=AsyncWebClient(base_url=client.base_url, session=client.session),
        authorize=_authorization(client, identity),
        before_authorize=_ours_only(identity),
        # An event is acknowledged after its listener, so that a failed admission comes again.
        process_before_response=True,
        # Bolt would log the body of a request with a bad signature, and answer 500 to one whose
        # timestamp is no number.
        request_verification_enabled=False,
        # Bolt would answer 404 and log nothing: `_on_error` is told instead.
        raise_error_for_unhandled_request=True,
        attaching_conversation_kwargs_enabled=False,
    )

    async def on_any_event(event: dict[str, object]) -> None:
        await on_event(event)

    async def on_command(command: dict[str, str], ack: AsyncAck) -> None:
        if words := await ask.on_command(command):
            await ack(text=words, response_type="ephemeral")
        else:
            await ack()

    async def on_stop(body: dict[str, object], ack: AsyncAck) -> None:
        if press := pressed(body):
            await inbound.on_stop(press)
        await ack()

    async def on_regenerate(body: dict[str, object], ack: AsyncAck) -> None:
        if press := pressed(body):
            await inbound.on_regenerate(press)
        await ack()

    async def on_nothing_of_ours(ack: AsyncAck) -> None:
        await ack()

    # One listener for every event: one that nobody listens to would not be acknowledged.
    app.event(_ANY)(on_any_event)
    app.command(COMMAND)(on_command)
    app.action(STOP)(on_stop)
    app.action(REGENERATE)(on_regenerate)
    app.action(_ANY)(on_nothing_of_ours)
    app.error(_on_error)
    return app


def _ours_only(
    identity: Identity,
) -> Callable[[Body, Callable[[], Awaitable[None]]], Awaitable[BoltResponse | None]]:
    async def ours_only(body: Body, next_: Callable[[], Awaitable[None]]) -> BoltResponse | None:
        if body.get("type") == "app_rate_limited":
            # A type of its own, not an event (docs: Events API, "Rate limiting").
            log.warning(
                "Slack limits the events of workspace %r: some of the minute from %s are lost",
                body.get("team_id"),
                _moment(body.get("minute_rate_limited")),
            )
            return BoltResponse(status=200, body="")
        reason = _why_not(body, team=identity.team)
        if not reason:
            await next_()
            return None
        # Acknowledged, for it would be the same if Slack told it again.
        log.warning("Slack told something that is left alone: %s", reason)
        return BoltResponse(status=200, body="")

    return ours_only


def _why_not(body: Body, *, team: str) -> str:
    match body:
        case {"type": "event_callback", "event": {"type": str()}} | {"command": str()}:
            # One signing secret and one app may serve many workspaces, we one of them.
            return "" if team in _teams(body) else "it is of another workspace"
        case {"type": "event_callback"} | {"event": _}:
            return "it is no event that can be read"
    return ""


def _teams(body: Body) -> Iterator[object]:
    """Yield the workspaces that this concerns (docs: Events API, "authorizations").

    In a channel that workspaces share, `team_id` may be the one where it happened.
    """
    yield from (body.get("team_id"), body.get("context_team_id"))
    authorizations = body.get("authorizations")
    for authorization in authorizations if isinstance(authorizations, list) else ():
        if isinstance(authorization, dict):
            yield authorization.get("team_id")


def _authorization(
    client: AsyncWebClient, identity: Identity
) -> Callable[[], Awaitable[AuthorizeResult]]:
    async def authorize() -> AuthorizeResult:
        return AuthorizeResult(
            enterprise_id=None,
            team_id=identity.team,
            bot_user_id=identity.user,
            bot_id=identity.bot,
            bot_token=client.token,
        )

    return authorize


def _moment(seconds: object) -> str:
    if not isinstance(seconds, int) or not 0 <= seconds < 2**33:
        return repr(seconds)
    return datetime.fromtimestamp(seconds, UTC).isoformat()


async def _on_error(error: Exception) -> BoltResponse:
    # These two are acknowledged, for they would fail in the same way if Slack sent them again.
    if isinstance(error, BoltUnhandledRequestError):
        kind = error.body.get("type") or error.body.get("command")
        log.warning("Slack sent something that nothing listens to: type %.80r", kind)
        return BoltResponse(status=200, body="")
    if isinstance(error, RecursionError):
        log.warning("Slack sent something that is nested too deeply to be read")
        return BoltResponse(status=200, body="")
    if isinstance(error, StoreUnavailable):
        log.warning("the store is away, so Slack is to send an event again: %s", error)
    else:
        log.error("an event could not be handled", exc_info=error)
    return BoltResponse(status=503)
