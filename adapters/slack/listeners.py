"""The bolt app: what Slack sends, handed to whom it concerns."""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable

from slack_bolt.async_app import AsyncAck, AsyncApp
from slack_bolt.authorization import AuthorizeResult
from slack_bolt.response import BoltResponse
from slack_sdk.web.async_client import AsyncWebClient

from adapters.slack.ask import AskCommand
from adapters.slack.identity import Identity
from adapters.slack.inbound import Inbound
from adapters.slack.surface import STOP
from bot.errors import StoreUnavailable

log = logging.getLogger(__name__)

COMMAND = "/ask"

_ANY = re.compile("")


def build_app(
    client: AsyncWebClient, *, identity: Identity, inbound: Inbound, ask: AskCommand
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
        # An event is acknowledged after its listener, so that a failed admission comes again.
        process_before_response=True,
        # Bolt would log the body of a request with a bad signature, and answer 500 to one whose
        # timestamp is no number.
        request_verification_enabled=False,
        attaching_conversation_kwargs_enabled=False,
    )

    async def on_event(event: dict[str, object]) -> None:
        await inbound.on_event(event)

    async def on_command(command: dict[str, str], ack: AsyncAck) -> None:
        if words := await ask.on_command(command):
            await ack(text=words, response_type="ephemeral")
        else:
            await ack()

    async def on_stop(action: dict[str, str], ack: AsyncAck) -> None:
        await inbound.on_stop(action["value"])
        await ack()

    async def on_nothing_of_ours(ack: AsyncAck) -> None:
        await ack()

    # One listener for every event: one that nobody listens to would not be acknowledged.
    app.event(_ANY)(on_event)
    app.command(COMMAND)(on_command)
    app.action(STOP)(on_stop)
    app.action(_ANY)(on_nothing_of_ours)
    app.error(_on_error)
    return app


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


async def _on_error(error: Exception) -> BoltResponse:
    if isinstance(error, StoreUnavailable):
        log.warning("the store is away, so Slack is to send an event again: %s", error)
    else:
        log.error("an event could not be handled", exc_info=error)
    return BoltResponse(status=503)
