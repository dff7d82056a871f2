"""Defines Discord's commands, and registers them when they have changed."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Mapping

import discord

from adapters.discord.rest import Payload, request
from bot.commands.handlers import ASK_ABOUT, COMMANDS, SUMMARISE, Scope
from bot.domain import Json
from bot.errors import WriteRefused
from bot.store import Store

_log = logging.getLogger(__name__)

# Discord's documentation, "Application Commands", "Application Command Types" and "Option Type".
SLASH, MESSAGE_MENU = 1, 3
_SUBCOMMAND, _TEXT, _SWITCH, _FILE = 1, 3, 5, 11
# "Application Integration Types" and "Interaction Context Types".
_SERVERS, _PEOPLE = 0, 1
_IN_SERVER, _IN_OWN_DM, _ELSEWHERE = 0, 1, 2
_LONGEST_QUESTION = 6000  # Discord's limit for a text option
_LONGEST_PERSONA = 2000
# After this time commands are registered again: an older version may have overwritten them.
AGE_SECONDS = 24 * 3600
_GLOBAL = "everywhere"

SCOPE_NAMES: Mapping[Scope, str] = {
    "thread": "this conversation",
    "channel": "this channel",
    "server": "this server",
}


def definitions(*, user_installs: bool = True) -> list[Payload]:
    """Return all commands; everybody may use them unless a server's admins restrict that.

    `user_installs` offers them to people who have installed the bot for themselves.
    """
    question = _option(_TEXT, "question", "Your question", max_length=_LONGEST_QUESTION)
    private = _option(_SWITCH, "private", "Only you see the question and the answer")
    file = _option(_FILE, "file", "A file (I can only see its name)")
    own: Payload = {
        "integration_types": [_SERVERS, _PEOPLE] if user_installs else [_SERVERS],
        "contexts": [_IN_SERVER, _IN_OWN_DM, *([_ELSEWHERE] if user_installs else [])],
    }
    # The bot can read messages only if it is a member.
    as_member: Payload = {"integration_types": [_SERVERS], "contexts": [_IN_SERVER, _IN_OWN_DM]}
    return [
        _described("ask", "Ask me something")
        | {"type": SLASH, "options": [question | {"required": True}, private, file]}
        | own,
        _described("parley", "What I do here, and how I answer")
        | {"type": SLASH, "options": [_subcommand(name) for name in COMMANDS]}
        | own,
        {"name": ASK_ABOUT} | {"type": MESSAGE_MENU} | own,
        {"name": SUMMARISE, "type": MESSAGE_MENU} | as_member,
    ]


async def register(client: discord.Client, store: Store, *, server: str) -> bool:
    """Register the commands in one server, or everywhere if it is empty; False if they are known.

    Commands registered in another server before are removed. Raises SurfaceError and
    StoreUnavailable.
    """
    noted = store.key("commands", str(client.application_id))
    registered = await _registered(store, noted)
    place, digest = server or _GLOBAL, _digest(definitions())
    for other in registered.keys() - {place, _GLOBAL}:
        await _put(client, other, [])
        await store.command("HDEL", noted, other)
    written, _, at = registered.get(place, "").partition(" ")
    if written == digest and at.isdecimal() and time.time() - int(at) < AGE_SECONDS:
        return False
    await _put_all(client, place)
    await store.command("HSET", noted, place, f"{digest} {int(time.time())}")
    return True


async def _registered(store: Store, noted: str) -> dict[str, str]:
    """Return the recorded registrations by server."""
    found = await store.command("HGETALL", noted)
    return dict(found) if isinstance(found, dict) else {}


async def _put_all(client: discord.Client, place: str) -> None:
    try:
        await _put(client, place, definitions())
    except WriteRefused as error:
        # Guess: Discord may refuse them if the application does not allow user installs.
        if place != _GLOBAL or "integration_types" not in str(error):
            raise
        _log.warning(
            "Discord refused user-installable commands: switch on User Install under "
            "Installation at https://discord.com/developers (%s)",
            error,
        )
        await _put(client, place, definitions(user_installs=False))


async def _put(client: discord.Client, place: str, commands: list[Payload]) -> None:
    application: Mapping[str, object] = {"application_id": client.application_id}
    if place == _GLOBAL:
        await request(
            client, "PUT", "/applications/{application_id}/commands", application, body=commands
        )
        return
    # Only global commands have these two fields.
    bare = [
        {key: one[key] for key in one if key not in ("integration_types", "contexts")}
        for one in commands
    ]
    path = "/applications/{application_id}/guilds/{guild_id}/commands"
    await request(client, "PUT", path, {**application, "guild_id": place}, body=bare)


def _digest(commands: list[Payload]) -> str:
    written = json.dumps(commands, sort_keys=True).encode()
    return hashlib.blake2b(written, digest_size=16).hexdigest()


def _subcommand(name: str) -> Payload:
    options: list[Payload] = []
    match name:
        case "model":
            what = "The model, or default; without it I show which answers"
            options = [_option(_TEXT, "name", what, autocomplete=True), _place()]
        case "persona":
            what = "How I should answer, or default; without it I show the present persona"
            options = [_option(_TEXT, "text", what, max_length=_LONGEST_PERSONA), _place()]
    return _described(name, COMMANDS[name]) | {"type": _SUBCOMMAND, "options": options}


def _place() -> Payload:
    choices: list[Payload] = [
        {"name": label, "value": scope} for scope, label in SCOPE_NAMES.items()
    ]
    what = "Where it applies; this conversation by default"
    return _option(_TEXT, "where", what) | {"choices": choices}


def _option(kind: int, name: str, description: str, **more: Json) -> Payload:
    return _described(name, description) | {"type": kind, "required": False} | more


def _described(name: str, description: str) -> Payload:
    return {"name": name, "description": description}
