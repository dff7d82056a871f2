"""Defines Discord's commands, and registers them."""

from __future__ import annotations

from collections.abc import Mapping

import discord

from adapters.discord.rest import Payload, request
from bot.commands.handlers import ASK_ABOUT, COMMANDS, SUMMARISE, Scope
from bot.domain import Json
from bot.languages import later, say
from bot.store import Store
from config.persona_files import MOST_PERSONA

# Discord's documentation, "Application Commands", "Application Command Types" and "Option Type".
SLASH, MESSAGE_MENU = 1, 3
_SUBCOMMAND, _TEXT, _SWITCH, _FILE = 1, 3, 5, 11
# "Application Integration Types" and "Interaction Context Types". Without them a command is offered
# in all contexts, and to people if the application can be installed by them.
_SERVERS = 0
_IN_SERVER, _IN_OWN_DM = 0, 1
# Discord's documentation, "Locales". The names of commands stay English.
_LOCALES = {"de": "de", "fr": "fr", "es-ES": "es", "es-419": "es", "ja": "ja"}
_LONGEST_QUESTION = 6000  # Discord's limit for a text option
_LONGEST_TEXT = MOST_PERSONA

SCOPE_NAMES: Mapping[Scope, str] = {
    "thread": later("this conversation"),
    "channel": later("this channel"),
    "server": later("this server"),
}


def definitions() -> list[Payload]:
    """Return all commands; everybody may use them unless a server's admins restrict that."""
    question = _option(_TEXT, "question", later("Your question"), max_length=_LONGEST_QUESTION)
    private = _option(_SWITCH, "private", later("Only you see the question and the answer"))
    file = _option(_FILE, "file", later("A file to read"))
    # The bot can read messages only if it is a member.
    as_member: Payload = {"integration_types": [_SERVERS], "contexts": [_IN_SERVER, _IN_OWN_DM]}
    return [
        _described("ask", later("Ask me something"))
        | {"type": SLASH, "options": [question | {"required": True}, private, file]},
        _described("parley", later("What I do here, and how I answer"))
        | {"type": SLASH, "options": [_subcommand(name) for name in COMMANDS]},
        _menu(ASK_ABOUT),
        _menu(SUMMARISE) | as_member,
    ]


async def register(client: discord.Client, store: Store, *, server: str) -> None:
    """Register the commands in one server, or everywhere if it is empty.

    Commands registered in another server before are removed. Raises SurfaceError and
    StoreUnavailable.
    """
    noted = store.key("commands", str(client.application_id))
    for other in {*filter(str.isdecimal, await store.command("HKEYS", noted))} - {server}:
        await _put(client, other, [])
        await store.command("HDEL", noted, other)
    if server:
        await store.command("HSET", noted, server, 1)
    await _put(client, server, definitions())


async def _put(client: discord.Client, server: str, commands: list[Payload]) -> None:
    ids = {"application_id": client.application_id}
    if not server:
        path = "/applications/{application_id}/commands"
        await request(client, "PUT", path, ids, body=commands)
        return
    # Only global commands have these two fields.
    bare = [
        {key: one[key] for key in one if key not in ("integration_types", "contexts")}
        for one in commands
    ]
    path = "/applications/{application_id}/guilds/{guild_id}/commands"
    await request(client, "PUT", path, {**ids, "guild_id": server}, body=bare)


def _subcommand(name: str) -> Payload:
    options: list[Payload] = []
    match name:
        case "model":
            what = later("The model, or default; without it I show which answers")
            options = [_option(_TEXT, "name", what, autocomplete=True), _place()]
        case "persona":
            what = later(
                "A persona's name, how I should answer, or default; without it I show the present"
            )
            text = _option(_TEXT, "text", what, max_length=_LONGEST_TEXT, autocomplete=True)
            options = [text, _place()]
        case "me":
            what = later(
                "What I should keep in mind, or clear; without it I show what you have told me"
            )
            options = [_option(_TEXT, "text", what, max_length=_LONGEST_TEXT)]
        case "tools":
            what = later(
                "off, on, or revoke and the name of a tool; without it I show what I can use"
            )
            options = [_option(_TEXT, "change", what), _place()]
    return _described(name, COMMANDS[name]) | {"type": _SUBCOMMAND, "options": options}


def _place() -> Payload:
    choices: list[Payload] = [
        {"name": label, "value": scope, "name_localizations": _localized(label)}
        for scope, label in SCOPE_NAMES.items()
    ]
    what = later("Where it applies; this conversation by default")
    return _option(_TEXT, "where", what) | {"choices": choices}


def _option(kind: int, name: str, description: str, **more: Json) -> Payload:
    return _described(name, description) | {"type": kind, "required": False} | more


def _described(name: str, description: str) -> Payload:
    localized = _localized(description)
    return {
        "name": name,
        "description": description,
        "description_localizations": localized,
    }


def _menu(name: str) -> Payload:
    return {"name": name, "name_localizations": _localized(name), "type": MESSAGE_MENU}


def _localized(sentence: str) -> dict[str, Json]:
    return {locale: say(sentence, language=name) for locale, name in _LOCALES.items()}
