"""Parses payloads that discord.py cannot parse whole, reduced to parts that it can."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import TypeVar

from adapters.discord.errors import located
from adapters.discord.rest import Payload

_Parsed = TypeVar("_Parsed")
_Cut = Callable[[Payload], Payload]

_log = logging.getLogger(__name__)

_IDS = ("id", "guild_id", "channel_id", "message_id", "user_id")
_ID_DIGITS = 20
# What a question needs of its message, besides what `_core` reads field by field.
_CORE = ("id", "guild_id", "channel_id", "webhook_id", "flags", "message_reference")
_RICH = ("embeds", "components", "sticker_items", "interaction_metadata")
_FILE = ("id", "filename", "size", "url", "proxy_url", "content_type")
_PRESS = (
    *("id", "application_id", "type", "token", "guild_id", "channel", "channel_id", "locale"),
    *("context", "app_permissions", "authorizing_integration_owners", "user"),
)
# What the library expects in a press and in a form.
_NOTHING: Payload = {"custom_id": "", "component_type": 0, "components": []}
# Parts of a server that the bot does not use.
_UNUSED = (
    *("emojis", "stickers", "voice_states", "presences", "stage_instances"),
    *("guild_scheduled_events", "soundboard_sounds", "incidents_data"),
)


def parse_event(name: str, parse: Callable[[Payload], _Parsed], data: Payload) -> _Parsed:
    """Parse a gateway event, whole if possible; raises the error of the whole one."""
    return _first_parsed(name, parse, data, _CUTS.get(name, (_same,)))


def parse_message(parse: Callable[[Payload], _Parsed], data: Payload) -> _Parsed:
    """Parse a message, whole if possible; raises the error of the whole one."""
    return parse_event("MESSAGE_CREATE", parse, data)


def ids_of(data: object) -> str:
    """Return the ids that a payload names, for the log."""
    found = data if isinstance(data, dict) else {}
    ids = [f"{key} {found[key]}" for key in _IDS if _is_id(found.get(key))]
    return ", ".join(ids) or "without ids"


def message_id(data: object) -> int:
    """Return the id of a message, 0 for anything else."""
    if isinstance(data, dict) and "author" in data and _is_id(data.get("id")):
        return int(data["id"])
    return 0


def _is_id(value: object) -> bool:
    return isinstance(value, str) and value.isdecimal() and len(value) <= _ID_DIGITS


def _first_parsed(
    name: str, parse: Callable[[Payload], _Parsed], data: Payload, cuts: Iterable[_Cut]
) -> _Parsed:
    errors: list[Exception] = []
    for cut in cuts:
        try:
            found = parse(cut(data))
        # The library does not say what its parsers raise.
        except Exception as error:
            errors.append(error)
            continue
        if errors:
            _log.info("Event %s parsed in part (%s): %s", name, ids_of(data), located(errors[0]))
        return found
    raise errors[0]


def _same(data: Payload) -> Payload:
    return data


def _whole(data: Payload) -> Payload:
    # discord.py 2.7.1 leaves attributes out if these are missing.
    return {"mentions": [], "mention_roles": [], "components": []} | data | _author(data)


def _plain(data: Payload) -> Payload:
    poll, answered = data.get("poll"), data.get("referenced_message")
    return (
        _bare(data)
        | {key: data[key] for key in _RICH if key in data}
        | ({"member": _member(data["member"])} if "member" in data else {})
        # Discord documents the end of a poll as nullable; discord.py counts with it.
        | ({"poll": poll | {"expiry": poll.get("expiry") or data["timestamp"]}} if poll else {})
        | ({"referenced_message": _plain(answered)} if answered else {})
        | {"message_snapshots": [_snapshot(one) for one in _objects(data, "message_snapshots")]}
    )


def _bare(data: Payload) -> Payload:
    answered = data.get("referenced_message")
    return (
        _core(data) | _author(data) | ({"referenced_message": _bare(answered)} if answered else {})
    )


def _core(data: Payload) -> Payload:
    core = {key: data[key] for key in _CORE if key in data}
    return core | {
        "type": data.get("type", 0),
        "content": data.get("content", ""),
        "timestamp": data.get("timestamp"),
        "mentions": [_without(one, "member") for one in _objects(data, "mentions")],
        "mention_roles": data.get("mention_roles") or [],
        "attachments": _files(data),
        "components": [],
    }


def _author(data: Payload) -> Payload:
    return {"author": data["author"]}


def _snapshot(data: Payload) -> Payload:
    message = data["message"]
    rich = {key: message[key] for key in _RICH if key in message}
    return {"message": {"embeds": [], "edited_timestamp": None} | _core(message) | rich}


def _files(data: Payload) -> list[Payload]:
    """Return attachments without their descriptions of sound and size."""
    missing: Payload = {"id": "0", "size": 0, "url": "", "proxy_url": ""}
    files = [one for one in _objects(data, "attachments") if "filename" in one]
    return [missing | {key: one[key] for key in _FILE if key in one} for one in files]


def _member(data: Payload) -> Payload:
    # Some documents of Discord's show roles as objects, and older ones no flags.
    roles = [one["id"] if isinstance(one, dict) else one for one in data.get("roles", [])]
    return {"flags": 0} | data | {"roles": roles}


def _interaction(data: Payload) -> Payload:
    return {"attachment_size_limit": 0, "version": 1} | data


def _plain_interaction(data: Payload) -> Payload:
    message = data.get("message") or {}
    metadata = {key: message[key] for key in ("interaction_metadata",) if key in message}
    return (
        _interaction({key: data[key] for key in _PRESS if key in data})
        | {"data": _NOTHING | _without(data.get("data") or {}, "resolved")}
        | ({"member": _member(data["member"])} if "member" in data else {})
        | ({"message": _core(message) | metadata} if message else {})
    )


def _unknown_interaction(data: Payload) -> Payload:
    """Keep no more than a response needs, so that it can be declined."""
    core = {key: data[key] for key in ("id", "application_id", "type", "token")}
    return _interaction(core) | {"data": _NOTHING}


def _plain_guild(data: Payload) -> Payload:
    used = _without(data, *_UNUSED)
    return used | {"members": [_member(one) for one in _objects(data, "members")]}


def _objects(data: Payload, key: str) -> list[Payload]:
    found = data.get(key)
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _without(data: Payload, *keys: str) -> Payload:
    return {key: value for key, value in data.items() if key not in keys}


_CUTS: dict[str, tuple[_Cut, ...]] = {
    "MESSAGE_CREATE": (_whole, _plain, _bare),
    "INTERACTION_CREATE": (_interaction, _plain_interaction, _unknown_interaction),
    "GUILD_CREATE": (_same, _plain_guild),
}
