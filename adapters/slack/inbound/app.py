"""The bolt app: what Slack sends, handed to whom it concerns."""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from datetime import UTC, datetime

from slack_bolt.async_app import AsyncAck, AsyncApp
from slack_bolt.authorization import AuthorizeResult
from slack_bolt.error import BoltUnhandledRequestError
from slack_bolt.middleware.async_middleware import AsyncMiddleware
from slack_bolt.request.async_request import AsyncBoltRequest
from slack_bolt.response import BoltResponse
from slack_sdk.web.async_client import AsyncWebClient

from adapters.slack.identity import Identity
from adapters.slack.inbound.ask_command import AskCommand
from adapters.slack.inbound.events import Inbound, Press, pressed
from adapters.slack.reply.messages import REGENERATE, STOP
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
        before_authorize=_OursOnly(identity),
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
        if press := _read(body):
            await inbound.on_stop(press)
        await ack()

    async def on_regenerate(body: dict[str, object], ack: AsyncAck) -> None:
        if press := _read(body):
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


def _read(body: Body) -> Press | None:
    press = pressed(body)
    if press is None:
        log.warning("Slack told of a press that cannot be read: it has no person, place or turn")
    return press


class _OursOnly(AsyncMiddleware):
    """Acknowledges what is not for us, with one line in the log.

    A function in its place would be handed what bolt 1.30 reads in the body, which raises where the
    body has another shape.
    """

    def __init__(self, identity: Identity) -> None:
        self._identity = identity

    async def async_process(
        self,
        *,
        req: AsyncBoltRequest,
        resp: BoltResponse,
        next: Callable[[], Awaitable[BoltResponse]],  # noqa: A002 - bolt's name
    ) -> BoltResponse | None:
        """Go on where the body is for us."""
        if req.body.get("type") == "app_rate_limited":
            # A type of its own, not an event (docs: Events API, "Rate limiting").
            log.warning(
                "Slack limits the events of workspace %.80r: some of the minute from %s are lost",
                req.body.get("team_id"),
                _moment(req.body.get("minute_rate_limited")),
            )
            return BoltResponse(status=200, body="")
        reason = _why_not(req.body, self._identity)
        if not reason:
            return await next()
        # Acknowledged, for it would be the same if Slack told it again.
        log.warning("Slack told something that is left alone: %s", reason)
        return BoltResponse(status=200, body="")


def _why_not(body: Body, identity: Identity) -> str:
    match body:
        case {"type": "event_callback", "event": {"type": str()}} | {"command": str()}:
            # One signing secret and one app may serve many workspaces, we one of them.
            return "" if _is_ours(body, identity) else "it is of another workspace"
        case {"type": "event_callback"} | {"event": _}:
            return "it is no event that can be read"
        # Bolt 1.30 takes their shape for granted.
        case {"type": "block_actions", "actions": [{"action_id": str(), "value": str()}, *_]}:
            return "" if _is_ours(body, identity) else "it was pressed in another workspace"
        case {"type": "url_verification"}:
            return ""
        case {"type": str(kind)}:
            return f"{kind[:80]!r} is nothing that Parley has asked for"
    return "it has no type"


def _is_ours(body: Body, identity: Identity) -> bool:
    """Whether it happened where our token is installed.

    The token of an installation in a whole organisation is good in each of its workspaces. What
    names no workspace but our organisation concerns us in any case.
    """
    teams = list(_named(body, "team"))
    if identity.team in teams:
        return True
    in_organisation = identity.enterprise != "" and identity.enterprise in _named(
        body, "enterprise"
    )
    return in_organisation and (identity.is_org_wide or not any(teams))


def _named(body: Body, kind: str) -> Iterator[object]:
    """Yield the workspaces ("team") or organisations ("enterprise") that this concerns.

    In a channel that workspaces share, the `team_id` of an event may be the one where it happened;
    `authorizations` has ours (docs: Events API). The `team` of a press is where the app is
    installed, whoever presses (field report: slackapi/java-slack-sdk, issue 1041).
    """
    yield from (body.get(f"{kind}_id"), body.get(f"context_{kind}_id"))
    if isinstance(place := body.get(kind), dict):
        yield place.get("id")
    authorizations = body.get("authorizations")
    for authorization in authorizations if isinstance(authorizations, list) else ():
        if isinstance(authorization, dict):
            yield authorization.get(f"{kind}_id")


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
        return f"{seconds!r:.80}"
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
