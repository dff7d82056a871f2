"""The bolt app: checks what Slack sends and passes it on."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from slack_bolt.async_app import AsyncAck, AsyncApp
from slack_bolt.authorization import AuthorizeResult
from slack_bolt.error import BoltUnhandledRequestError
from slack_bolt.request.async_request import AsyncBoltRequest
from slack_bolt.response import BoltResponse
from slack_sdk.web.async_client import AsyncWebClient

from adapters.slack.commands.ask_command import AskCommand
from adapters.slack.commands.shortcuts import Shortcuts
from adapters.slack.commands.views import CommandAnswer
from adapters.slack.inbound.events import EventHandler
from adapters.slack.manifest import ANSWER_ID, ASK, PARLEY, QUESTION_ID, SHORTCUTS, VIEWS
from adapters.slack.reading import string_field
from adapters.slack.workspace import Identity, Workspace
from bot.errors import StoreUnavailable
from bot.intake.intake import Intake
from bot.languages import speak

log = logging.getLogger(__name__)

_ANY = re.compile("")

Body = Mapping[str, Any]
OnEvent = Callable[[dict[str, object]], Awaitable[None]]
Dispatch = Callable[[dict[str, object]], Awaitable[BoltResponse]]


class Dispatcher:
    """Passes payloads to their handlers; does not check signatures."""

    def __init__(
        self, workspace: Workspace, intake: Intake, handler: EventHandler, *, on_event: OnEvent
    ) -> None:
        self._identity = workspace.identity
        self._directory = workspace.directory
        self._handler = handler
        self._ask = AskCommand(workspace, intake)
        self._shortcuts = Shortcuts(workspace, intake, self._ask)
        self._app = app = _bolt_app(workspace)
        # One listener for all events: without a listener an event would not be acknowledged.
        app.event(_ANY)(on_event)
        app.command(ASK)(self._command)
        app.command(PARLEY)(self._command)
        app.action(_ANY)(self._press)
        app.message_shortcut(_ANY)(self._shortcut)
        app.view_submission(_ANY)(self._submit)
        app.error(_on_error)

    async def dispatch(self, body: dict[str, object]) -> BoltResponse:
        """Answer a payload. Events are acknowledged once stored."""
        # Payloads for others are acknowledged: a retry would not change that.
        if reason := _reason_to_ignore(body, self._identity):
            log.warning("Ignored a Slack payload: %s", reason)
            return BoltResponse(status=200, body="")
        # Bolt 1.30 takes a parsed body only in this mode, from HTTP too.
        return await self._app.async_dispatch(AsyncBoltRequest(body=body, mode="socket_mode"))

    async def _speak(self, user: str) -> None:
        speak(await self._directory.language(user))

    # Bolt passes arguments by name, as to `on_event`.
    async def _command(self, command: dict[str, str], ack: AsyncAck) -> None:
        await self._speak(command["user_id"])
        if command["command"] == PARLEY:
            answer = await self._handler.parley.on_command(command)
        else:
            answer = CommandAnswer(await self._ask.on_command(command))
        # With only a text, bolt would answer no JSON.
        fields = {**answer.message(), "response_type": "ephemeral"} if answer.text else {}
        await ack(**fields)

    async def _press(self, body: dict[str, object], ack: AsyncAck) -> None:
        await self._handler.on_press(body)
        await ack()

    async def _shortcut(self, body: dict[str, object], ack: AsyncAck) -> None:
        await self._speak(string_field(body.get("user"), "id"))
        await self._shortcuts.on_shortcut(body)
        await ack()

    async def _submit(self, body: dict[str, Any], ack: AsyncAck) -> None:
        await self._speak(body["user"]["id"])
        others = {
            QUESTION_ID: self._shortcuts.on_submit,
            ANSWER_ID: self._handler.answer_forms.on_submit,
        }
        submit = others.get(body["view"]["callback_id"], self._handler.parley.on_submit)
        await ack(**await submit(body))


def _bolt_app(workspace: Workspace) -> AsyncApp:
    client, identity = workspace.client, workspace.identity
    # Bolt 1.30 logs a warning about itself if SLACK_BOT_TOKEN is in the environment.
    quiet = log.getChild("bolt")
    quiet.setLevel(logging.ERROR)

    async def authorize() -> AuthorizeResult:
        return AuthorizeResult(
            enterprise_id=None,
            team_id=identity.team,
            bot_user_id=identity.user,
            bot_id=identity.bot,
            bot_token=client.token,
        )

    return AsyncApp(
        # Bolt gives its loggers of this name the level of the other, and "parley" is above
        # "parley.audit".
        name=quiet.name,
        logger=quiet,
        # Bolt makes no requests: `authorize` has the answer, and the handlers have their client.
        client=AsyncWebClient(base_url=client.base_url, session=client.session),
        authorize=authorize,
        # Acknowledge after the listener, so that Slack retries an event that was not stored.
        process_before_response=True,
        # Bolt would log the body of a request with a bad signature, and answer 500 if a timestamp
        # is not a number.
        request_verification_enabled=False,
        # Bolt would answer 404 without a log line; `_on_error` logs one.
        raise_error_for_unhandled_request=True,
        # Bolt treats the deletion of the bot's message by a person as an event of the bot.
        ignoring_self_events_enabled=False,
        attaching_conversation_kwargs_enabled=False,
    )


def parse_object(text: str) -> dict[str, Any]:
    """Return the object in a JSON text; empty if there is none."""
    try:
        parsed = json.loads(text)
    except (RecursionError, ValueError):
        return {}
    return parsed if isinstance(parsed, dict) else {}


def _reason_to_ignore(body: Body, identity: Identity) -> str:
    match body:
        case {"type": "url_verification"} | {"ssl_check": "1"}:
            return ""
        case {"type": "app_rate_limited", "minute_rate_limited": int(seconds)}:
            # A type of its own, not an event (docs: Events API, "Rate limiting").
            minute = datetime.fromtimestamp(seconds, UTC).isoformat()
            return f"Slack limited {body.get('team_id')}: some events of {minute} are lost"
        # Bolt 1.30 relies on the shape of a press.
        case (
            {"type": "event_callback", "event": {"type": str()}}
            | {"command": str()}
            | {"type": "block_actions", "actions": [{"action_id": str(), "value": str()}, *_]}
        ):
            pass
        case {"type": "message_action", "callback_id": str(name)} | {
            "type": "view_submission",
            "view": {"callback_id": str(name)},
        } if name in (*SHORTCUTS, *VIEWS):
            pass
        case _:
            return f"{body.get('type')!r:.80} is not a type or a shape that Parley handles"
    # One signing secret and one app may serve many workspaces; this process serves one.
    return "" if _is_ours(body, identity) else "it is from another workspace"


def _is_ours(body: Body, identity: Identity) -> bool:
    """Whether it happened in a workspace for which our token is valid.

    A body that names only our organization, and no workspace, is ours too.
    """
    teams = list(_ids(body, "team"))
    if identity.team in teams:
        return True
    in_organization = identity.enterprise != "" and identity.enterprise in _ids(body, "enterprise")
    return in_organization and (identity.is_org_wide or not any(teams))


def _ids(body: Body, kind: str) -> Iterator[object]:
    """Yield the ids of the workspaces ("team") or organizations ("enterprise") of a payload.

    In a channel that workspaces share, the `team_id` of an event may be the one where it happened;
    `authorizations` has ours (docs: Events API). The `team` of a press is where the app is
    installed, independent of the person (field report: slackapi/java-slack-sdk, issue 1041).
    """
    yield from (body.get(f"{kind}_id"), body.get(f"context_{kind}_id"))
    if isinstance(group := body.get(kind), dict):
        yield group.get("id")
    for authorization in body.get("authorizations") or ():
        yield authorization.get(f"{kind}_id")


def installed_in(body: Body) -> Iterator[str]:
    """Yield the ids under which the installation that a payload is for may be stored.

    The first of the `authorizations` has ours, and nothing else in the payload of an event does
    (docs: Events API): in a channel that workspaces share, others may be in it, too.
    """
    match body.get("authorizations"):
        case [{} as source, *_]:
            pass
        case _:
            source = {**body, "authorizations": ()}
    teams, organizations = ([*_ids(source, kind)] for kind in ("team", "enterprise"))
    if isinstance(user := source.get("user"), dict):
        teams.append(user.get("team_id"))
    is_org_wide = source.get("is_enterprise_install") in (True, "true")
    ids = [*organizations, *teams] if is_org_wide else [*teams, *organizations]
    yield from dict.fromkeys(id_ for id_ in ids if isinstance(id_, str) and id_)


async def _on_error(error: Exception) -> BoltResponse:
    if isinstance(error, BoltUnhandledRequestError):
        kind = error.body.get("type") or error.body.get("command")
        log.warning("No handler for a Slack payload of type %.80r", kind)
        return BoltResponse(status=200, body="")
    if isinstance(error, StoreUnavailable):
        log.warning("Cannot store an event, Slack will send it again: %s", error)
    else:
        log.error("Cannot handle an event", exc_info=error)
    return BoltResponse(status=503)
