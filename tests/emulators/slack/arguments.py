"""Reads the arguments of a call to Slack, and refuses those that name nothing."""

from __future__ import annotations

import json
from dataclasses import dataclass

from aiohttp import web

from tests.emulators.slack.payload import Payload
from tests.emulators.slack.workspace import Channel, Workspace


class SlackError(Exception):
    """A refusal; `code` is what Slack's documentation calls the error, `why` its own words."""

    def __init__(self, code: str, *, why: str = "", **details: object) -> None:
        super().__init__(code)
        self.code = code
        self.details: Payload = dict(details)
        if why:
            self.details["response_metadata"] = {"messages": [f"[ERROR] {why}"]}


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request brought; `body` was sent as JSON, and `refusal` says why it cannot be read."""

    token: str
    args: Payload
    body: Payload
    refusal: SlackError | None = None


async def asked(request: web.Request) -> Asked:
    """Read a request (docs: Using the Slack Web API); of its forms, only JSON is emulated.

    A token comes in the header, never in the query or a JSON body.
    """
    scheme, _, credentials = request.headers.get("Authorization", "").partition(" ")
    token = credentials.strip() if scheme == "Bearer" else ""
    args: Payload = dict(request.query)
    args.pop("token", None)
    try:
        body = await _sent(request)
    except SlackError as refusal:
        return Asked(token, args, {}, refusal)
    body.pop("token", None)
    return Asked(token, args, body)


async def _sent(request: web.Request) -> Payload:
    data = await request.read()
    if request.method != "POST" or not data:
        return {}
    # docs: common errors of every method.
    if request.content_type != "application/json":
        raise SlackError("invalid_post_type")
    try:
        body = json.loads(data)
    except ValueError:
        raise SlackError("invalid_json") from None
    if not isinstance(body, dict):
        raise SlackError("json_not_object")
    return body


def text(args: Payload, name: str) -> str:
    """Return an argument as text, empty when it is not given."""
    value = args.get(name)
    return "" if value is None else str(value)


def flag(args: Payload, name: str) -> bool | None:
    """Return a boolean argument, None when it is not given."""
    value = args.get(name)
    return None if value is None else str(value).lower() in ("1", "true")


def decoded(value: object, refusal: str) -> object:
    """Return an argument that may be JSON, encoded or not; SlackError when it is no JSON."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError:
        raise SlackError(refusal) from None


def channel(workspace: Workspace, args: Payload, *, name: str = "channel") -> Channel:
    """Return the channel that is meant; SlackError when the bot can see none.

    A private channel is hidden from who is not in it.
    """
    found = workspace.channels.get(text(args, name))
    if found is None or not (found.member or found.type == "channel"):
        raise SlackError("channel_not_found")
    return found


def joined(workspace: Workspace, args: Payload, *, name: str = "channel") -> Channel:
    """Return the channel that is meant; SlackError when the bot is not in it."""
    found = channel(workspace, args, name=name)
    if not found.member:
        raise SlackError("not_in_channel")
    return found
