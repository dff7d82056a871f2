"""What people do with a bot's commands, menus and forms, as Discord's clients let them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast

from tests.emulators.discord.cdn import Cdn, Upload
from tests.emulators.discord.objects import Channel, Payload
from tests.emulators.discord.world import World

_COMMAND_WAIT = 60.0  # seconds that a person waits for a command to appear
# docs: Interaction Type; Application Command Types; Option Type; Component Reference.
_COMMAND, _AUTOCOMPLETION, _MODAL = 2, 4, 5
_SLASH, _MESSAGE_MENU = 1, 3
_SUBCOMMAND, _TEXT, _SWITCH, _FILE = 1, 3, 5, 11
_SELECTS = (3, 5, 6, 7, 8)
_TEXT_INPUT = 4

Given = Upload | bool


class Commands:
    """Uses what is registered; AssertionError if a client would not let a person do it."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def use(self, channel_id: str, user_id: str, name: str, /, **options: Given) -> str:
        """Use a command, such as "parley reset", as this person; return the interaction's id.

        An option that takes a file is given by its name, or its name and bytes. AssertionError when
        the command is not registered in 5 seconds, has no such options, or needs others.
        """
        channel = self._world.channel(channel_id)
        command, sub = await self._found(channel, name)
        takes = _options(sub or command)
        known = [str(one["name"]) for one in takes]
        assert set(options) <= set(known), f"what /{name} takes: {_listed(known)}"
        left_out = {str(one["name"]) for one in takes if one.get("required")} - set(options)
        assert not left_out, f"/{name} needs {_listed(left_out)}"
        filled = [
            _filled(one, options[str(one["name"])]) for one in takes if one["name"] in options
        ]
        data = _data(command, sub, filled) | _uploaded(self._world.cdn, channel, filled)
        return self._world.interact(_COMMAND, self._world.users[user_id], channel, data).id

    async def complete(
        self, channel_id: str, user_id: str, name: str, option: str, typed: str
    ) -> str:
        """Type into an option of a command that completes itself; return the interaction's id."""
        channel = self._world.channel(channel_id)
        command, sub = await self._found(channel, name)
        found = next(one for one in _options(sub or command) if one["name"] == option)
        assert found.get("autocomplete"), f"{option} of /{name} completes nothing"
        filled = [_filled(found, typed) | {"focused": True}]
        data = _data(command, sub, filled)
        return self._world.interact(_AUTOCOMPLETION, self._world.users[user_id], channel, data).id

    async def choose(self, message_id: str, user_id: str, name: str) -> str:
        """Choose a command of a message's menu as this person; return the interaction's id."""
        message = self._world.messages[message_id]
        command = await self._registered(message.channel, name, _MESSAGE_MENU)
        data: Payload = {
            "id": command["id"],
            "name": name,
            "type": _MESSAGE_MENU,
            "target_id": message.id,
            # Its text always comes (docs: Message Content Intent).
            "resolved": {"messages": {message.id: message.payload()}},
        }
        user = self._world.users[user_id]
        return self._world.interact(_COMMAND, user, message.channel, data, target=message).id

    async def submit(self, interaction_id: str, /, **values: Given | list[str]) -> str:
        """Send the form that an interaction has opened; return the new interaction's id.

        `values` are by the inputs' custom ids; what is left out stays as it was shown.
        """
        opened = self._world.interactions[interaction_id]
        modal = opened.modal
        assert modal, "no form was opened"
        inputs = {str(one["custom_id"]): one for one in _inputs(modal)}
        assert set(values) <= set(inputs), f"the form has only {_listed(inputs)}"
        sent = [_sent(label, values) for label in cast(list[Any], modal["components"])]
        data: Payload = {"custom_id": modal["custom_id"], "components": sent, "resolved": {}}
        opened.modal = None
        return self._world.interact(
            _MODAL, opened.user, opened.channel, data, message=opened.message, opened_by=opened
        ).id

    async def _found(self, channel: Channel, name: str) -> tuple[Payload, Payload | None]:
        first, _, rest = name.partition(" ")
        command = await self._registered(channel, first, _SLASH)
        subs = [one for one in _options(command) if one["type"] == _SUBCOMMAND]
        assert bool(subs) == bool(rest), f"/{first} has only {_listed(one['name'] for one in subs)}"
        sub = next((one for one in subs if one["name"] == rest), None)
        assert bool(sub) == bool(rest), f"there is no /{name}"
        return command, sub

    async def _registered(self, channel: Channel, name: str, kind: int) -> Payload:
        try:
            async with asyncio.timeout(_COMMAND_WAIT):
                while True:
                    for command in self._offered(channel):
                        if command["name"] == name and command["type"] == kind:
                            return command
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise AssertionError(f"the bot registered no /{name} for this place") from None

    def _offered(self, channel: Channel) -> Iterator[Payload]:
        """Yield the commands that a client shows there."""
        yield from self._world.server_commands.get(channel.guild_id or "", [])
        for command in self._world.commands:
            contexts, installs = command["contexts"], cast(list[int], command["integration_types"])
            is_offered = contexts is None or channel.context in cast(list[int], contexts)
            if is_offered and (1 if channel.foreign else 0) in installs:
                yield command


def _listed(words: Iterable[object]) -> str:
    return ", ".join(sorted(map(str, words))) or "nothing"


def _options(command: Payload) -> list[Payload]:
    found = command.get("options")
    return found if isinstance(found, list) else []


def _filled(option: Payload, value: Given) -> Payload:
    kind = option["type"]
    assert isinstance(value, bool) == (kind == _SWITCH), f"{option['name']} is of another type"
    choices = [one["value"] for one in cast(list[Any], option.get("choices") or [])]
    assert not choices or value in choices, f"{option['name']} is one of {_listed(choices)}"
    return {"name": option["name"], "type": kind, "value": value}


def _uploaded(cdn: Cdn, channel: Channel, filled: list[Payload]) -> Payload:
    """Upload the files that are given by name, and put their ids in place of the names."""
    files: Payload = {}
    for one in filled:
        if one["type"] == _FILE:
            upload = cast(Upload, one["value"])
            uploaded = cdn.signed(
                cdn.upload(channel.id, upload, folder="ephemeral-attachments") | {"ephemeral": True}
            )
            one["value"] = uploaded["id"]
            files[str(uploaded["id"])] = uploaded
    return {"resolved": {"attachments": files}} if files else {}


def _data(command: Payload, sub: Payload | None, filled: list[Payload]) -> Payload:
    options = filled
    if sub:
        options = [{"name": sub["name"], "type": _SUBCOMMAND, "options": filled}]
    return {"id": command["id"], "name": command["name"], "type": _SLASH, "options": options}


def _inputs(modal: Payload) -> Iterator[Payload]:
    for label in cast(list[Any], modal["components"]):
        if held := label.get("component"):
            yield held


def _sent(label: Payload, values: Mapping[str, Given | list[str]]) -> Payload:
    """Return what is sent of one part of a form (docs: Modal Submit Data Structure)."""
    held = cast(Payload, label.get("component"))
    if held is None:
        return {"type": label["type"], "id": label.get("id", 1)}
    name, kind = str(held["custom_id"]), held["type"]
    component: Payload = {"type": kind, "id": held.get("id", 2), "custom_id": name}
    if kind == _TEXT_INPUT:
        component["value"] = _typed(held, values.get(name, held.get("value") or ""))
    elif kind in _SELECTS:
        component["values"] = _selected(held, values.get(name))
    return {"type": label["type"], "id": label.get("id", 1), "component": component}


def _typed(held: Payload, value: object) -> str:
    text, most = str(value), held.get("max_length")
    assert text or held.get("required") is False, f"{held['custom_id']} must be filled in"
    assert not isinstance(most, int) or len(text) <= most, f"{held['custom_id']} is too long"
    return text


def _selected(held: Payload, given: object) -> list[str]:
    options = cast(list[Any], held.get("options") or [])
    if given is None:
        shown = [one["value"] for one in options if one.get("default")]
        return shown + [one["id"] for one in cast(list[Any], held.get("default_values") or [])]
    chosen = [str(one) for one in given] if isinstance(given, list) else [str(given)]
    offered = [one["value"] for one in options]
    assert not options or set(chosen) <= set(offered), (
        f"{held['custom_id']} offers {_listed(offered)}"
    )
    most = held.get("max_values")
    assert len(chosen) <= (most if isinstance(most, int) else 1), "too many are chosen"
    return chosen
