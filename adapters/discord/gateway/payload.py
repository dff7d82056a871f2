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
    errors: list[Exception] = []
    for cut in _CUTS.get(name, (_same,)):
        try:
            parsed = parse(cut(data))
        # The library does not say what its parsers raise.
        except Exception as error:
            errors.append(error)
            continue
        if errors:
            _log.info("Event %s parsed in part (%s): %s", name, ids_of(data), located(errors[0]))
        return parsed
    raise errors[0]


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
    return isinstance(value, str) and value.isdecimal() and len(value) <= 20


def _same(data: Payload) -> Payload:
    return data


def _whole(data: Payload) -> Payload:
    # discord.py 2.7.1 leaves attributes out if these are missing.
    missing: Payload = {"mentions": [], "mention_roles": [], "components": []}
    return missing | data | {"author": data["author"]}


def _plain(data: Payload) -> Payload:
    plain = _bare(data) | _only(data, _RICH) | _member_of(data)
    plain["message_snapshots"] = [_snapshot(one) for one in _objects(data, "message_snapshots")]
    if poll := data.get("poll"):
        # Discord documents the end of a poll as nullable; discord.py counts with it.
        plain["poll"] = poll | {"expiry": poll.get("expiry") or data["timestamp"]}
    if answered := data.get("referenced_message"):
        plain["referenced_message"] = _plain(answered)
    return plain


def _bare(data: Payload) -> Payload:
    bare = _core(data) | {"author": data["author"]}
    if answered := data.get("referenced_message"):
        bare["referenced_message"] = _bare(answered)
    return bare


def _core(data: Payload) -> Payload:
    return _only(data, _CORE) | {
        "type": data.get("type", 0),
        "content": data.get("content", ""),
        "timestamp": data.get("timestamp"),
        "mentions": [_without(one, "member") for one in _objects(data, "mentions")],
        "mention_roles": data.get("mention_roles") or [],
        "attachments": [_file(one) for one in _objects(data, "attachments") if "filename" in one],
        "components": [],
    }


def _snapshot(data: Payload) -> Payload:
    message = data["message"]
    missing: Payload = {"embeds": [], "edited_timestamp": None}
    return {"message": missing | _core(message) | _only(message, _RICH)}


def _file(data: Payload) -> Payload:
    """Return an attachment without its description of sound and size."""
    return {"id": "0", "size": 0, "url": "", "proxy_url": ""} | _only(data, _FILE)


def _member_of(data: Payload) -> Payload:
    return {"member": _member(data["member"])} if "member" in data else {}


def _member(data: Payload) -> Payload:
    # Some documents of Discord's show roles as objects, and older ones no flags.
    roles = [one["id"] if isinstance(one, dict) else one for one in data.get("roles", [])]
    return {"flags": 0} | data | {"roles": roles}


def _interaction(data: Payload) -> Payload:
    return {"attachment_size_limit": 0, "version": 1} | data


def _plain_interaction(data: Payload) -> Payload:
    plain = _interaction(_only(data, _PRESS)) | _member_of(data)
    plain["data"] = _NOTHING | _without(data.get("data") or {}, "resolved")
    if message := data.get("message"):
        plain["message"] = _core(message) | _only(message, ("interaction_metadata",))
    return plain


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


def _only(data: Payload, keys: Iterable[str]) -> Payload:
    return {key: data[key] for key in keys if key in data}


def _without(data: Payload, *keys: str) -> Payload:
    return {key: value for key, value in data.items() if key not in keys}


_CUTS: dict[str, tuple[_Cut, ...]] = {
    "MESSAGE_CREATE": (_whole, _plain, _bare),
    "INTERACTION_CREATE": (_interaction, _plain_interaction, _unknown_interaction),
    "GUILD_CREATE": (_same, _plain_guild),
}
