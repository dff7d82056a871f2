"""Reads the arguments of a call to Slack, and refuses those that name nothing."""

from __future__ import annotations

import json

from aiohttp import web

from tests.emulators.slack.workspace import Channel, Payload, Workspace


class SlackError(Exception):
    """A refusal; `code` is what Slack's documentation calls the error."""

    def __init__(self, code: str, *, why: str = "") -> None:
        super().__init__(code)
        self.code = code
        self.details: Payload = {"response_metadata": {"messages": [why]}} if why else {}


async def arguments(request: web.Request) -> tuple[str | None, Payload]:
    """Return the token and the arguments, wherever the client put them (docs: Web API basics)."""
    args: Payload = dict(request.query)
    if request.content_type == "application/json":
        args |= json.loads(await request.read() or b"{}")
    else:
        args |= dict((await request.post()).items())
    header = request.headers.get("Authorization", "")
    token = args.pop("token", None) or header.removeprefix("Bearer ").strip()
    return str(token) or None, args


def text(args: Payload, name: str) -> str:
    """Return an argument as text, empty when it is not given."""
    value = args.get(name)
    return "" if value is None else str(value)


def flag(args: Payload, name: str) -> bool | None:
    """Return a boolean argument, None when it is not given."""
    value = args.get(name)
    return None if value is None else str(value).lower() in ("1", "true")


def mapping(args: Payload, name: str) -> Payload | None:
    """Return an argument that is a JSON object, encoded or not; None when it is not given."""
    value = args.get(name)
    value = json.loads(value) if isinstance(value, str) else value
    return dict(value) if isinstance(value, dict) else None


def channel(workspace: Workspace, args: Payload, *, name: str = "channel") -> Channel:
    """Return the channel that is meant; SlackError when there is none."""
    found = workspace.channels.get(text(args, name))
    if found is None:
        raise SlackError("channel_not_found")
    return found


def joined(workspace: Workspace, args: Payload, *, name: str = "channel") -> Channel:
    """Return the channel that is meant; SlackError when the bot is not in it."""
    found = channel(workspace, args, name=name)
    if not found.member:
        raise SlackError("not_in_channel")
    return found
